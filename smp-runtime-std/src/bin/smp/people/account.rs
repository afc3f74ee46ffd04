//! The data folder, and the passphrase that opens what is in it.

use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use smp_runtime_std::agent::database::{AgentDatabase, DatabaseError, LockedDatabase};
use zeroize::Zeroizing;

use crate::connecting::failure_of_database;
use crate::failure::{Failure, Kind};
use crate::report::Report;

/// How often somebody may mistype.
const ATTEMPTS: usize = 3;

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    folder: PathBuf,
    /// From where to read the passphrase instead of asking.
    passphrase_file: Option<PathBuf>,
}

impl Account {
    /// The account in a folder; the folder is made when it is not there.
    pub(crate) fn new(folder: PathBuf, passphrase_file: Option<PathBuf>) -> Result<Self, Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(|error| {
            Failure::state(format!("the folder {} cannot be used", folder.display()), error)
                .advise("name another folder with --data or SMP_DATA")
        })?;
        Ok(Self { folder, passphrase_file })
    }

    /// The database.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.join("agent.redb")
    }

    /// The socket of whichever process has the agent.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("agent.socket")
    }

    /// The passphrase, when it is given without asking.
    fn given(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        if let Some(file) = &self.passphrase_file {
            let mut text = Zeroizing::new(fs::read(file).map_err(|error| {
                Failure::state(format!("the passphrase in {} cannot be read", file.display()), error)
            })?);
            while text.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
                text.pop();
            }
            return Ok(Some(text));
        }
        Ok(std::env::var_os("SMP_PASSPHRASE")
            .map(|text| Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(text))))
    }

    /// Opens the database, asking for the passphrase when it is not given.
    pub(crate) fn unlock(&self, report: Report, locked: LockedDatabase) -> Result<AgentDatabase, Failure> {
        if let Some(given) = self.given()? {
            return locked.unlock(&given).map_err(|error| failure_of_database(&error));
        }
        if locked.is_new() {
            let chosen = choose(report)?;
            return locked.unlock(&chosen).map_err(|error| failure_of_database(&error));
        }
        // Without a passphrase there is nothing to ask.
        let mut locked = locked;
        let mut tried = Zeroizing::new(Vec::new());
        for attempt in 0..=ATTEMPTS {
            match locked.unlock(&tried) {
                Err(DatabaseError::WrongPassphrase(_)) if attempt < ATTEMPTS => {}
                result => return result.map_err(|error| failure_of_database(&error)),
            }
            if attempt > 0 {
                report.notice("that is not the passphrase");
            }
            tried = ask("passphrase: ")?;
            let file = self.database();
            locked = LockedDatabase::open(&file).map_err(|error| failure_of_database(&error))?;
        }
        Err(Failure::new(Kind::State, "that was not the passphrase"))
    }
}

/// The data folder of this user.
pub(crate) fn folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    named
        .or_else(|| directories::ProjectDirs::from("", "", "smp").map(|f| f.data_dir().to_owned()))
        .ok_or_else(|| {
            Failure::new(Kind::State, "this user has no home folder to keep keys and messages in")
                .advise("name a folder with --data or SMP_DATA")
        })
}

fn ask(question: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new(Kind::Usage, "the passphrase cannot be asked for without a terminal")
            .advise("give it in SMP_PASSPHRASE, or in a file with --passphrase-file; it may be empty"));
    }
    let typed = rpassword::prompt_password(question).map_err(|error| {
        Failure::new(Kind::Unexpected, format!("the passphrase cannot be asked for: {error}"))
    })?;
    Ok(Zeroizing::new(typed.into_bytes()))
}

/// The one question of the first use.
fn choose(report: Report) -> Result<Zeroizing<Vec<u8>>, Failure> {
    loop {
        let chosen = ask("choose a passphrase for your keys and messages (Enter for none): ")?;
        if chosen.is_empty() {
            report.notice("without a passphrase, whoever can read your files can read your messages");
            return Ok(chosen);
        }
        if ask("the same again: ")? == chosen {
            return Ok(chosen);
        }
        report.notice("these were two different ones");
    }
}

/// Removes the socket of a process that is gone. Only who has the database open may do this.
pub(crate) fn remove_socket(socket: &Path) -> io::Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
