//! `smp-server.ini`: what an operator may set.
//!
//! Owns the file's names, defaults and rules, reading it, and writing the commented one that `init` makes. Never opens a
//! socket or a store, and never prints a password. Sections and keys have the names of the reference implementation
//! where they mean the same, so that an operator who knows one relay knows the other.
//!
//! Input: the text of the file. Output: a [`Configuration`] in which every value is in range, or a
//! [`ConfigurationError`] that says in one line what is wrong, where, and what is allowed.

mod catalogue;
mod template;
mod value;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ini::{Ini, ParseOption};
use smp_proto::proxy::hosts::{HostMode, HostPolicy, SocksMode};
use zeroize::Zeroizing;

pub use template::{Initial, render};

use self::value::NotAllowed;

/// The name of the configuration file in a relay's folder.
pub const FILE_NAME: &str = "smp-server.ini";

/// Everything that an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// How writes become durable.
    pub durability: Durability,
    /// After what time a waiting message is deleted.
    pub message_expiry: Duration,
    /// After how long a queue between two that nobody has secured is deleted with its link data; `None` = never.
    pub unused_invitation_expiry: Option<Duration>,
    /// After how long a blob that its owner does not write again is deleted; `None` = never.
    pub blob_expiry: Option<Duration>,
    /// After what time a waiting notification is forgotten.
    pub notification_expiry: Duration,
    /// Whether anybody may create queues.
    pub new_queues: bool,
    /// What creating a queue requires.
    pub create_password: Option<CreatePassword>,
    /// The names to print in the relay's address.
    pub hosts: Vec<String>,
    /// The ports to listen on; 0 is any free one.
    pub ports: Vec<u16>,
    /// The addresses to listen on.
    pub listen: Vec<IpAddr>,
    /// Whether `listen` was set, so that a missing address is the operator's mistake and not the machine's lack of IPv6.
    pub listen_was_set: bool,
    /// After what time a silent client without subscriptions is disconnected; `None`: never.
    pub inactive_after: Option<Duration>,
    /// How much the relay gives.
    pub limits: ServiceLimits,
    /// Forwarding to other relays.
    pub proxy: ProxySettings,
    /// Holding commands for other relays, and taking what was held.
    pub first_step: FirstStepSettings,
    /// How many threads serve connections; `None`: one for each core.
    pub threads: Option<usize>,
}

/// A relay's dealings with other relays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySettings {
    /// Whether it forwards anything.
    pub enabled: bool,
    /// Which hosts of relays are used, and how they are reached.
    pub policy: HostPolicy,
    /// The SOCKS5 proxy, as host and port.
    pub socks_proxy: Option<String>,
    /// The domains of the operator's own relays.
    pub own_domains: Vec<String>,
    /// Commands of one client that are forwarded at the same time.
    pub client_concurrency: u16,
    /// Relays to which there are connections at the same time.
    pub destinations: usize,
    /// Relays that are connected to at the same time.
    pub dials: usize,
    /// How long connecting may take.
    pub connect_time_limit: Duration,
    /// How long an answer may take.
    pub command_time_limit: Duration,
    /// After how long without commands a connection is closed.
    pub idle_after: Duration,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            policy: HostPolicy::default(),
            socks_proxy: None,
            own_domains: Vec::new(),
            client_concurrency: 32,
            destinations: 10_000,
            dials: 256,
            connect_time_limit: Duration::from_secs(30),
            command_time_limit: Duration::from_secs(30),
            idle_after: Duration::from_secs(1800),
        }
    }
}

/// What a relay does in `smp-proxy/1`: as a first-step relay, and as a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstStepSettings {
    /// Whether it holds commands of clients for other relays.
    pub hold: bool,
    /// Whether it takes commands that other relays held.
    pub accept: bool,
    /// Commands and answers that are held for one client.
    pub held_by_client: usize,
    /// Commands that are held for one destination.
    pub held_for_destination: usize,
    /// Commands and answers that are held in all.
    pub held: usize,
    /// How long anything is held, whatever clients want.
    pub longest_hold: Duration,
    /// The longest wait between two attempts.
    pub longest_delay: Duration,
    /// After how long another forwarding key is made; commands under one are taken for twice as long.
    pub key_rotation: Duration,
}

impl Default for FirstStepSettings {
    fn default() -> Self {
        Self {
            hold: true,
            accept: true,
            held_by_client: 256,
            held_for_destination: 100_000,
            held: 1_000_000,
            longest_hold: days(21),
            longest_delay: Duration::from_secs(600),
            key_rotation: Duration::from_secs(24 * 3600),
        }
    }
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is safely on disk.
    Commit,
    /// When it is written; it is made safe within this time.
    Relaxed(Duration),
}

/// How much a relay gives, in total and to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceLimits {
    /// Connections at the same time.
    pub connections: usize,
    /// Connections at the same time from one IPv4 address or IPv6 /64 network.
    pub connections_per_address: usize,
    /// Addresses to which `connections_per_address` does not apply.
    pub uncounted_addresses: Vec<IpAddr>,
    /// Connections that have not finished their handshake, at the same time.
    pub handshakes: usize,
    /// How long the TLS handshake may take.
    pub tls_handshake: Duration,
    /// How long the SMP handshake may take after it.
    pub smp_handshake: Duration,
    /// How long a client may leave what is sent to it.
    pub slow_reader: Duration,
    /// Blocks that wait to be sent to one client.
    pub outgoing_blocks: usize,
    /// Commands of one client that wait for storage; another block is read while fewer than this less 255 do.
    pub commands_in_flight: usize,
    /// Queues on the relay.
    pub queues: usize,
    /// Blobs on the relay.
    pub blobs: usize,
    /// The longest blob, in bytes.
    pub blob_bytes: usize,
    /// Blobs that one connection may write in a minute.
    pub blob_writes_of_connection: usize,
    /// Blobs that all together may write in a minute.
    pub blob_writes: usize,
    /// Messages that wait in one queue.
    pub message_quota: usize,
}

/// The password for creating queues. Wiped when dropped; `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct CreatePassword(Zeroizing<String>);

impl CreatePassword {
    /// The password's text: 1 to 255 printable ASCII characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::fmt::Debug for CreatePassword {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("CreatePassword(..)")
    }
}

impl core::str::FromStr for CreatePassword {
    type Err = PasswordError;
    fn from_str(text: &str) -> Result<Self, PasswordError> {
        value::password(text)
            .map(|text| Self(Zeroizing::new(text)))
            .map_err(|NotAllowed(allowed)| PasswordError(allowed))
    }
}

/// Why a text cannot be a password: says what can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordError(String);

impl core::fmt::Display for PasswordError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "a password is {}", self.0)
    }
}

impl core::error::Error for PasswordError {}

/// Why a configuration cannot be used. Prints as one line that names the file, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// It is not of the form `[SECTION]`, `key: value`, `# comment`.
    Malformed {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected there.
        reason: String,
    },
    /// A section that is not known.
    UnknownSection {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// Whether other relays have it.
        foreign: bool,
    },
    /// A key that is not known.
    UnknownKey {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// The key.
        key: String,
        /// Where the key would be right, or what is allowed in the section.
        hint: String,
    },
    /// A key that appears twice.
    Repeated {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
        /// The key.
        key: String,
    },
    /// A value that is not allowed.
    Value {
        /// The file.
        file: PathBuf,
        /// The section.
        section: &'static str,
        /// The key.
        key: &'static str,
        /// The value; `None` when it is a secret.
        value: Option<String>,
        /// What is allowed.
        allowed: String,
    },
}

impl core::fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unreadable { file, reason } => {
                write!(formatter, "{}: cannot be read: {reason}", file.display())
            }
            Self::Malformed { file, line, reason } => {
                write!(formatter, "{}: line {line}: {reason}", file.display())
            }
            Self::UnknownSection { file, section, foreign: false } => {
                let known: Vec<_> = catalogue::SECTIONS.iter().map(|(name, _)| *name).collect();
                write!(
                    formatter,
                    "{}: [{section}]: unknown section; allowed: {}",
                    file.display(),
                    known.join(", ")
                )
            }
            Self::UnknownSection { file, section, foreign: true } => {
                write!(
                    formatter,
                    "{}: [{section}]: this relay has nothing to set there: remove the section's keys",
                    file.display()
                )
            }
            Self::UnknownKey { file, section, key, hint } => {
                write!(formatter, "{}: [{section}] {key}: unknown key; {hint}", file.display())
            }
            Self::Repeated { file, section, key } => {
                write!(formatter, "{}: [{section}] {key}: set more than once; keep one", file.display())
            }
            Self::Value { file, section, key, value: Some(value), allowed } => {
                write!(
                    formatter,
                    "{}: [{section}] {key}: `{value}` is not allowed; allowed: {allowed}",
                    file.display()
                )
            }
            Self::Value { file, section, key, value: None, allowed } => {
                write!(
                    formatter,
                    "{}: [{section}] {key}: the value is not allowed; allowed: {allowed}",
                    file.display()
                )
            }
        }
    }
}

impl core::error::Error for ConfigurationError {}

impl Default for Configuration {
    fn default() -> Self {
        // The defaults are in range: the test `defaults_are_allowed` reads them through the same rules.
        Self {
            durability: Durability::Commit,
            message_expiry: days(21),
            unused_invitation_expiry: Some(days(180)),
            blob_expiry: Some(days(365)),
            notification_expiry: Duration::from_secs(24 * 3600),
            new_queues: true,
            create_password: None,
            hosts: Vec::new(),
            ports: vec![5223],
            listen: vec![IpAddr::from([0_u16; 8]), IpAddr::from([0_u8; 4])],
            listen_was_set: false,
            inactive_after: Some(Duration::from_secs(21_600)),
            limits: ServiceLimits::default(),
            proxy: ProxySettings::default(),
            first_step: FirstStepSettings::default(),
            threads: None,
        }
    }
}

impl Default for ServiceLimits {
    fn default() -> Self {
        Self {
            connections: 100_000,
            connections_per_address: 1000,
            uncounted_addresses: vec![
                IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
            ],
            handshakes: 5000,
            tls_handshake: Duration::from_secs(60),
            smp_handshake: Duration::from_secs(120),
            slow_reader: Duration::from_secs(60),
            outgoing_blocks: 8,
            commands_in_flight: 320,
            queues: 10_000_000,
            blobs: 100_000,
            blob_bytes: 16_141,
            blob_writes_of_connection: 60,
            blob_writes: 6000,
            message_quota: 128,
        }
    }
}

impl Configuration {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigurationError`], one line for the operator.
    pub fn read(file: &Path) -> Result<Self, ConfigurationError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigurationError::Unreadable {
            file: file.into(),
            reason: error.to_string(),
        })?;
        Self::parse(file, &text)
    }

    /// Reads the text of a file; `file` is only for errors.
    ///
    /// # Errors
    /// [`ConfigurationError`], one line for the operator.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigurationError> {
        let settings = Settings::load(file, text)?;
        settings.get("STORE_LOG", "enable", |text| value::only(text, "on"))?;
        settings.get("STORE_LOG", "restore_messages", |text| value::only(text, "on"))?;
        settings.get("STORE_LOG", "log_stats", |text| value::only(text, "off"))?;
        settings.get("TRANSPORT", "log_tls_errors", |text| value::only(text, "off"))?;
        settings.get("TRANSPORT", "websockets", |text| value::only(text, "off"))?;
        settings.integer("INACTIVE_CLIENTS", "check_interval", 1, 31_536_000)?;
        let window =
            Duration::from_millis(settings.integer("STORAGE", "relaxed_window_milliseconds", 10, 60_000)?);
        let inactive = Duration::from_secs(settings.integer("INACTIVE_CLIENTS", "ttl", 60, 31_536_000)?);
        let password = if settings.text("AUTH", "create_password").is_empty() {
            None
        } else {
            Some(settings.get("AUTH", "create_password", value::password)?)
        };
        Ok(Self {
            durability: settings.get("STORAGE", "durability", |text| match text {
                "commit" => Ok(Durability::Commit),
                "relaxed" => Ok(Durability::Relaxed(window)),
                _ => Err(NotAllowed("`commit` or `relaxed`".into())),
            })?,
            message_expiry: days(settings.integer("STORE_LOG", "expire_messages_days", 1, 3650)?),
            unused_invitation_expiry: Some(settings.integer(
                "STORE_LOG",
                "expire_unused_invitations_days",
                0,
                3650,
            )?)
            .filter(|number| *number > 0)
            .map(days),
            blob_expiry: Some(settings.integer("STORE_LOG", "expire_blobs_days", 0, 3650)?)
                .filter(|number| *number > 0)
                .map(days),
            notification_expiry: Duration::from_secs(
                3600 * settings.integer("STORE_LOG", "expire_ntfs_hours", 1, 720)?,
            ),
            new_queues: settings.get("AUTH", "new_queues", value::on_off)?,
            create_password: password.map(|text| CreatePassword(Zeroizing::new(text))),
            hosts: settings.get("TRANSPORT", "host", value::hosts)?,
            ports: settings.get("TRANSPORT", "port", value::ports)?,
            listen: settings.get("TRANSPORT", "listen", |text| value::addresses(text, false))?,
            listen_was_set: settings.is_set("TRANSPORT", "listen"),
            inactive_after: settings
                .get("INACTIVE_CLIENTS", "disconnect", value::on_off)?
                .then_some(inactive),
            limits: settings.limits()?,
            proxy: settings.proxy()?,
            first_step: settings.first_step()?,
            threads: match settings.size("THREADS", "threads", 0, 1024)? {
                0 => None,
                threads => Some(threads),
            },
        })
    }
}

fn days(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(24 * 3600))
}

/// The file's settings over the defaults, with known names only.
struct Settings<'a> {
    file: &'a Path,
    ini: Ini,
}

impl<'a> Settings<'a> {
    fn load(file: &'a Path, text: &str) -> Result<Self, ConfigurationError> {
        let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
        let ini = Ini::load_from_str_opt(text, options).map_err(|error| ConfigurationError::Malformed {
            file: file.into(),
            line: error.line,
            reason: format!("expected `[SECTION]`, `key: value` or `# comment` ({})", error.msg),
        })?;
        for (section, properties) in &ini {
            let section = section.unwrap_or_default();
            if section.is_empty() && properties.is_empty() {
                continue;
            }
            let known = catalogue::SECTIONS.iter().any(|(name, _)| *name == section);
            let foreign = catalogue::FOREIGN_SECTIONS.contains(&section);
            let harmless = foreign && properties.is_empty();
            if !known && !harmless {
                return Err(ConfigurationError::UnknownSection {
                    file: file.into(),
                    section: section.into(),
                    foreign,
                });
            }
            for (name, _) in properties.iter() {
                if !catalogue::KEYS.iter().any(|key| key.section == section && key.name == name) {
                    return Err(ConfigurationError::UnknownKey {
                        file: file.into(),
                        section: section.into(),
                        key: name.into(),
                        hint: hint(section, name),
                    });
                }
            }
        }
        let settings = Self { file, ini };
        for key in catalogue::KEYS {
            if settings.values(key.section, key.name).nth(1).is_some() {
                return Err(ConfigurationError::Repeated {
                    file: file.into(),
                    section: key.section.into(),
                    key: key.name.into(),
                });
            }
        }
        Ok(settings)
    }

    /// Every value that the file gives to a key: a section may be opened more than once.
    fn values(&self, section: &'static str, key: &'static str) -> impl Iterator<Item = &str> {
        self.ini.section_all(Some(section)).flat_map(move |properties| properties.get_all(key))
    }

    fn is_set(&self, section: &'static str, key: &'static str) -> bool {
        self.values(section, key).next().is_some()
    }

    fn text(&self, section: &'static str, key: &'static str) -> &str {
        self.values(section, key).next().map_or_else(
            || {
                catalogue::KEYS
                    .iter()
                    .find(|known| known.section == section && known.name == key)
                    .map_or("", |known| known.default)
            },
            str::trim,
        )
    }

    fn get<T>(
        &self,
        section: &'static str,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, NotAllowed>,
    ) -> Result<T, ConfigurationError> {
        let text = self.text(section, key);
        read(text).map_err(|NotAllowed(allowed)| ConfigurationError::Value {
            file: self.file.into(),
            section,
            key,
            value: (key != "create_password").then(|| text.to_owned()),
            allowed,
        })
    }

    fn integer(
        &self,
        section: &'static str,
        key: &'static str,
        least: u64,
        most: u64,
    ) -> Result<u64, ConfigurationError> {
        self.get(section, key, |text| value::integer(text, least..=most))
    }

    fn size(
        &self,
        section: &'static str,
        key: &'static str,
        least: u64,
        most: u64,
    ) -> Result<usize, ConfigurationError> {
        let number = self.integer(section, key, least, most)?;
        usize::try_from(number).map_err(|_| ConfigurationError::Value {
            file: self.file.into(),
            section,
            key,
            value: Some(number.to_string()),
            allowed: format!("at most {} on this machine", usize::MAX),
        })
    }

    fn proxy(&self) -> Result<ProxySettings, ConfigurationError> {
        let seconds = |key, least, most| self.integer("PROXY", key, least, most).map(Duration::from_secs);
        let socks_proxy = match self.text("PROXY", "socks_proxy") {
            "" => None,
            _ => Some(self.get("PROXY", "socks_proxy", value::host_and_port)?),
        };
        let socks = self.get("PROXY", "socks_mode", |text| match text {
            "onion" => Ok(SocksMode::Onion),
            "always" => Ok(SocksMode::Always),
            _ => Err(NotAllowed("`onion` or `always`".into())),
        })?;
        let mode = self.get("PROXY", "host_mode", |text| match text {
            "public" => Ok(HostMode::Public),
            "onion" if socks_proxy.is_some() => Ok(HostMode::Onion),
            "onion" => Err(NotAllowed("`public`, or `onion` together with socks_proxy".into())),
            _ => Err(NotAllowed("`public` or `onion`".into())),
        })?;
        let concurrency = self.integer("PROXY", "client_concurrency", 1, 1000)?;
        Ok(ProxySettings {
            enabled: self.get("PROXY", "enable", value::on_off)?,
            policy: HostPolicy {
                mode,
                required: self.get("PROXY", "required_host_mode", value::on_off)?,
                socks: if socks_proxy.is_some() { socks } else { SocksMode::Never },
                allow_private: self.get("PROXY", "private_destinations", value::on_off)?,
            },
            socks_proxy,
            own_domains: self.get("PROXY", "own_server_domains", value::domains)?,
            client_concurrency: u16::try_from(concurrency).unwrap_or(u16::MAX),
            destinations: self.size("PROXY", "destinations", 1, 1_000_000)?,
            dials: self.size("PROXY", "dials", 1, 10_000)?,
            connect_time_limit: seconds("connect_seconds", 1, 600)?,
            command_time_limit: seconds("command_seconds", 1, 600)?,
            idle_after: seconds("idle_seconds", 10, 31_536_000)?,
        })
    }

    fn first_step(&self) -> Result<FirstStepSettings, ConfigurationError> {
        let count = |key, most| self.size("FIRST_STEP", key, 1, most);
        let number = |key, least, most| self.integer("FIRST_STEP", key, least, most);
        Ok(FirstStepSettings {
            hold: self.get("FIRST_STEP", "hold", value::on_off)?,
            accept: self.get("FIRST_STEP", "accept", value::on_off)?,
            held_by_client: count("held_per_client", 100_000)?,
            held_for_destination: count("held_per_destination", 100_000_000)?,
            held: count("held", 100_000_000)?,
            longest_hold: Duration::from_secs(number("longest_hold_hours", 1, 2160)? * 3600),
            longest_delay: Duration::from_secs(number("longest_delay_seconds", 1, 86_400)?),
            key_rotation: Duration::from_secs(number("key_rotation_hours", 1, 720)? * 3600),
        })
    }

    fn limits(&self) -> Result<ServiceLimits, ConfigurationError> {
        let seconds = |key, most| self.integer("LIMITS", key, 1, most).map(Duration::from_secs);
        let count = |key, least, most| self.size("LIMITS", key, least, most);
        Ok(ServiceLimits {
            connections: count("connections", 1, 10_000_000)?,
            connections_per_address: count("connections_per_address", 1, 10_000_000)?,
            uncounted_addresses: self
                .get("LIMITS", "uncounted_addresses", |text| value::addresses(text, true))?,
            handshakes: count("handshakes", 1, 1_000_000)?,
            tls_handshake: seconds("tls_handshake_seconds", 600)?,
            smp_handshake: seconds("smp_handshake_seconds", 600)?,
            slow_reader: seconds("slow_reader_seconds", 3600)?,
            outgoing_blocks: count("outgoing_blocks", 1, 1024)?,
            commands_in_flight: count("commands_in_flight", 255, 65_535)?,
            queues: count("queues", 1, 1_000_000_000)?,
            blobs: count("blobs", 0, 10_000_000)?,
            blob_bytes: count("blob_bytes", 1, 16_141)?,
            blob_writes_of_connection: count("blob_writes_of_connection", 1, 65_535)?,
            blob_writes: count("blob_writes", 1, 1_000_000_000)?,
            message_quota: count("message_quota", 1, 16_384)?,
        })
    }
}

/// Where an unknown key would be right, or else what its section knows.
fn hint(section: &str, name: &str) -> String {
    if let Some(elsewhere) = catalogue::KEYS.iter().find(|key| key.name == name) {
        return format!("it belongs in [{}]", elsewhere.section);
    }
    let known: Vec<_> =
        catalogue::KEYS.iter().filter(|key| key.section == section).map(|key| key.name).collect();
    format!("allowed: {}", known.join(", "))
}

#[cfg(test)]
mod tests;
