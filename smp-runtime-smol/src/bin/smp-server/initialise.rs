//! `init`, `cert` and `delete`.

use std::io::{IsTerminal, Write};

use serde_json::json;
use smp_runtime_std::certificates::{Algorithm, DEFAULT_VALIDITY_DAYS, Fingerprint, NewIdentity, Validity};
use smp_runtime_std::configuration::{Configuration, CreatePassword, Initial, render};

use crate::command_line::Init;
use crate::failure::Failure;
use crate::folder::{DataFolder, Found};
use crate::report::{Report, qr_code};

/// The host when none is given: good for trying it out.
const DEFAULT_HOST: &str = "localhost";

impl Init {
    /// What a first start without arguments does.
    pub(crate) fn by_default() -> Self {
        Self {
            host: Vec::new(),
            port: Vec::new(),
            listen: Vec::new(),
            password: None,
            no_password: false,
            yes: true,
        }
    }
}

/// `smp-server init`
pub(crate) fn initialise(folder: &DataFolder, asked: Init, report: Report) -> Result<(), Failure> {
    let path = folder.path().display();
    match folder.look()? {
        Found::Nothing => {}
        Found::Relay => {
            return Err(Failure::new(format!(
                "{path}: there is a relay here already: start it with `smp-server start`, renew its certificate with \
                 `smp-server cert`, or choose another folder with --data"
            )));
        }
        Found::Incomplete | Found::Foreign => folder.require_relay()?,
    }
    let hosts = if asked.host.is_empty() { vec![DEFAULT_HOST.to_owned()] } else { asked.host };
    let create_password = match (asked.password, asked.no_password) {
        (Some(password), _) => Some(password),
        (None, true) => None,
        (None, false) => Some(random_password()?),
    };
    let initial = Initial { hosts, ports: asked.port, listen: asked.listen, create_password };
    let text = render(&initial);
    let configuration = Configuration::parse(&folder.configuration_file(), &text)?;
    let host = initial.hosts.first().map_or(DEFAULT_HOST, String::as_str);
    let identity =
        NewIdentity::make(host, Algorithm::Ed25519, Validity::days_from_now(DEFAULT_VALIDITY_DAYS))?;
    create_private_folder(folder)?;
    let _lock = folder.lock()?;
    folder.certificates().create(&identity)?;
    write_configuration(folder, &text)?;
    let address = address(&identity.fingerprint(), &configuration, &configuration.ports);
    let code = qr_code(&address).unwrap_or_default();
    report.event(
        "initialised",
        json!({
            "folder": folder.path(),
            "configuration": folder.configuration_file(),
            "fingerprint": identity.fingerprint().to_string(),
            "address": address,
        }),
        &format!(
            "Initialised {path}; settings are in {}\n\
             Move {} to a safe place: it is needed only to renew the certificate.\n\
             Fingerprint: {}\n\
             Address:     {address}\n\
             {code}",
            folder.configuration_file().display(),
            folder.path().join("ca.key").display(),
            identity.fingerprint(),
        ),
    );
    Ok(())
}

/// `smp-server cert`
pub(crate) fn renew(folder: &DataFolder, report: Report) -> Result<(), Failure> {
    folder.require_relay()?;
    let _lock = folder.lock()?;
    let renewed = folder.certificates().renew(
        None,
        Algorithm::Ed25519,
        Validity::days_from_now(DEFAULT_VALIDITY_DAYS),
    )?;
    report.event(
        "renewed",
        json!({ "folder": folder.path(), "fingerprint": renewed.fingerprint.to_string() }),
        &format!(
            "New certificate in {}; the relay is still {}",
            folder.path().join("server.crt").display(),
            renewed.fingerprint
        ),
    );
    Ok(())
}

/// `smp-server delete`
pub(crate) fn delete(folder: &DataFolder, yes: bool, report: Report) -> Result<(), Failure> {
    let path = folder.path().display();
    match folder.look()? {
        Found::Relay | Found::Incomplete => {}
        Found::Nothing | Found::Foreign => folder.require_relay()?,
    }
    let lock = folder.lock()?;
    if !yes && !confirmed(&folder.path().display().to_string())? {
        return Err(Failure::new("nothing was deleted"));
    }
    // The lock file goes with the folder; nobody else can have it in between.
    let whole = folder.delete()?;
    drop(lock);
    let rest = if whole { "" } else { "; files that are not the relay's were left in it" };
    report.event(
        "deleted",
        json!({ "folder": folder.path(), "whole": whole }),
        &format!("Deleted {path}{rest}"),
    );
    Ok(())
}

fn confirmed(path: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new("nobody is here to ask: add --yes to delete without asking"));
    }
    let mut output = std::io::stderr().lock();
    write!(
        output,
        "This deletes the relay in {path}: identity, queues and messages. Type `delete` to go on: "
    )?;
    output.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim() == "delete")
}

/// The relay's address (WIRE-FACTS 11.1), with the password, for clients that may create queues.
pub(crate) fn address(fingerprint: &Fingerprint, configuration: &Configuration, ports: &[u16]) -> String {
    let hosts =
        if configuration.hosts.is_empty() { DEFAULT_HOST.to_owned() } else { configuration.hosts.join(",") };
    let password = configuration
        .create_password
        .as_ref()
        .map_or(String::new(), |password| format!(":{}", password.as_str()));
    // Clients know the default port; with several ports the default one is what they use.
    let port = match ports.first() {
        Some(first) if !ports.contains(&5223) && *first != 0 => format!(":{first}"),
        _ => String::new(),
    };
    format!("smp://{fingerprint}{password}@{hosts}{port}")
}

/// 32 characters of base64url: 192 random bits.
fn random_password() -> Result<CreatePassword, Failure> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(format!("the system has no randomness: {error}")))?;
    let text: String = random.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 63)])).collect();
    Ok(text.parse()?)
}

/// Only the relay's user may look into its folder: it holds keys, and who talks when.
fn create_private_folder(folder: &DataFolder) -> Result<(), Failure> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder.path()).map_err(|error| {
        Failure::new(format!(
            "{}: cannot be made: {error}: check who owns the folder above it",
            folder.path().display()
        ))
    })
}

/// The file holds the password; it is complete when it has its name.
fn write_configuration(folder: &DataFolder, text: &str) -> Result<(), Failure> {
    let file = folder.configuration_file();
    let new = file.with_extension("ini.new");
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut written = options.open(&new)?;
        written.write_all(text.as_bytes())?;
        written.sync_all()?;
        std::fs::rename(&new, &file)
    };
    write().map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}
