//! Addresses of relays, as text and as bytes (WIRE-FACTS 1, 11.1, 11.5).
//!
//! Text: `smp://` fingerprint [`:` password] `@` host *(`,` host) [`:` port]. Bytes: a count and the hosts' texts, the
//! port's text, the fingerprint, each a short string.
//!
//! Readers take what deployed peers write, and refuse what only an attacker would: parts of an IPv4 address above 255
//! are not wrapped around. IPv6 addresses are read bare and in brackets, and written in brackets, because a port after a
//! bare one cannot be told from the address.

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use zeroize::Zeroizing;

use super::base64url;
use super::command::is_password_character;
use super::primitives::{Full, Reader, Writer};

/// The port of relays when an address names none.
pub const DEFAULT_PORT: u16 = 5223;

/// Where a relay is and who it is: hosts, port, and the fingerprint of its identity certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// SHA-256 of the DER of the relay's identity certificate: 32 bytes normally.
    pub fingerprint: Vec<u8>,
    /// At least one host.
    pub hosts: Vec<Host>,
    /// Decimal text without leading zeros, empty for the default (5223).
    pub port: String,
}

/// A relay's address with the password that it asks for when queues are created.
#[derive(Clone, PartialEq, Eq)]
pub struct AddressWithPassword {
    /// The address.
    pub address: ServerAddress,
    /// The password in Latin-1, when the text had one.
    pub password: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for AddressWithPassword {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AddressWithPassword").field("address", &self.address).finish_non_exhaustive()
    }
}

/// One host of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An IPv4 or IPv6 address.
    Ip(IpAddr),
    /// An onion name.
    Onion(String),
    /// A domain name.
    Domain(String),
}

/// What is wrong with the text of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// It does not begin with `smp://`.
    Scheme,
    /// The part before `@` is not a base64url fingerprint.
    Fingerprint,
    /// The password is empty or has a character that it may not have.
    Password,
    /// There is a password where none may be.
    UnexpectedPassword,
    /// A host is missing or is not an IP address, an onion name or a domain name.
    Host,
    /// The port is not a number.
    Port,
}

impl fmt::Display for AddressError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Scheme => "the address does not begin with smp://",
            Self::Fingerprint => {
                "the fingerprint between smp:// and @ is missing or is not base64url: was the address cut?"
            }
            Self::Password => {
                "the password after the fingerprint is empty or has a character that it may not have"
            }
            Self::UnexpectedPassword => "there is a password, which may not be here",
            Self::Host => "a host after @ is missing, or is neither a name nor an IP address",
            Self::Port => "the port after the host is not a number",
        })
    }
}

impl core::error::Error for AddressError {}

impl FromStr for AddressWithPassword {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("smp://").ok_or(AddressError::Scheme)?;
        let (identity, authority) = rest.split_once('@').ok_or(AddressError::Fingerprint)?;
        let (fingerprint, password) = match identity.split_once(':') {
            None => (identity, None),
            Some((fingerprint, password)) => (fingerprint, Some(read_password(password)?)),
        };
        let fingerprint = base64url::decode_some(fingerprint).ok_or(AddressError::Fingerprint)?;
        let (hosts, port) = read_authority(authority)?;
        Ok(Self { address: ServerAddress { fingerprint, hosts, port }, password })
    }
}

impl FromStr for ServerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let AddressWithPassword { address, password } = text.parse()?;
        if password.is_some() { Err(AddressError::UnexpectedPassword) } else { Ok(address) }
    }
}

fn read_password(text: &str) -> Result<Zeroizing<Vec<u8>>, AddressError> {
    let mut password = Zeroizing::new(Vec::with_capacity(text.len()));
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) if is_password_character(byte) => password.push(byte),
            _ => return Err(AddressError::Password),
        }
    }
    if password.is_empty() { Err(AddressError::Password) } else { Ok(password) }
}

/// Reads hosts, separated by commas, and a port after the last one.
pub(super) fn read_authority(text: &str) -> Result<(Vec<Host>, String), AddressError> {
    let (others, last) = match text.rsplit_once(',') {
        Some((others, last)) => (Some(others), last),
        None => (None, text),
    };
    let mut hosts = match others {
        Some(others) => read_hosts(others)?,
        None => Vec::new(),
    };
    let (host, port) = if last.parse::<Ipv6Addr>().is_ok() {
        (last, None)
    } else if let Some(close) = last.find(']') {
        let (host, after) = last.split_at(close + 1);
        match after.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if after.is_empty() => (host, None),
            None => return Err(AddressError::Host),
        }
    } else {
        last.split_once(':').map_or((last, None), |(host, port)| (host, Some(port)))
    };
    hosts.push(host.parse()?);
    Ok((hosts, port.map_or(Ok(String::new()), read_port)?))
}

/// Reads hosts separated by commas.
pub(super) fn read_hosts(text: &str) -> Result<Vec<Host>, AddressError> {
    text.split(',').map(str::parse).collect()
}

/// Reads a port as addresses have it: without leading zeros, and not necessarily below 65536.
pub(super) fn read_port(text: &str) -> Result<String, AddressError> {
    if text.is_empty() || text.len() > 20 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(AddressError::Port);
    }
    let significant = text.trim_start_matches('0');
    Ok(if significant.is_empty() { "0" } else { significant }.to_owned())
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').ok_or(AddressError::Host)?;
            return inner.parse().map(|ip| Self::Ip(IpAddr::V6(ip))).map_err(|_| AddressError::Host);
        }
        if let Ok(ip) = text.parse::<Ipv6Addr>() {
            return Ok(Self::Ip(IpAddr::V6(ip)));
        }
        match read_ipv4(text) {
            Dotted::Address(ip) => return Ok(Self::Ip(IpAddr::V4(ip))),
            Dotted::Almost => return Err(AddressError::Host),
            Dotted::Other => {}
        }
        if let Some(name) = text.strip_suffix(".onion") {
            let fits = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            return if fits { Ok(Self::Onion(text.to_owned())) } else { Err(AddressError::Host) };
        }
        let forbidden = |c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, ':' | '#' | ',' | ';' | '/' | '@' | '[' | ']')
        };
        if text.is_empty() || text.len() > 255 || text.contains(forbidden) {
            return Err(AddressError::Host);
        }
        Ok(Self::Domain(text.to_owned()))
    }
}

/// Whether text is an IPv4 address, begins like one (then it is nothing), or does not.
enum Dotted {
    Address(Ipv4Addr),
    Almost,
    Other,
}

fn read_ipv4(text: &str) -> Dotted {
    let mut parts = text.splitn(4, '.');
    let mut octets = [0; 4];
    for octet in octets.iter_mut().take(3) {
        match parts.next().and_then(read_octet) {
            Some(value) => *octet = value,
            None => return Dotted::Other,
        }
    }
    match parts.next() {
        Some(last) => match read_octet(last) {
            Some(value) => {
                octets[3] = value;
                Dotted::Address(octets.into())
            }
            None if last.starts_with(|c: char| c.is_ascii_digit()) => Dotted::Almost,
            None => Dotted::Other,
        },
        None => Dotted::Other,
    }
}

/// A decimal number up to 255; leading zeros do not count.
fn read_octet(text: &str) -> Option<u8> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.trim_start_matches('0') {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(formatter, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => fmt::Display::fmt(ip, formatter),
            Self::Onion(name) | Self::Domain(name) => formatter.write_str(name),
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "smp://{}@", base64url::encode(&self.fingerprint))?;
        self.fmt_authority(formatter)
    }
}

impl ServerAddress {
    /// The port to connect to; `None` when the text is above 65535.
    #[must_use]
    pub fn port_number(&self) -> Option<u16> {
        if self.port.is_empty() { Some(DEFAULT_PORT) } else { self.port.parse().ok() }
    }

    pub(super) fn fmt_authority(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt_hosts(&self.hosts, formatter)?;
        if self.port.is_empty() { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }

    /// Reads the binary form.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        let count = read.byte()?;
        let mut hosts = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            hosts.push(Host::read(read)?);
        }
        if hosts.is_empty() {
            return None;
        }
        Some(Self { hosts, port: read_port_text(read)?, fingerprint: read.short()?.to_vec() })
    }

    /// Writes the binary form.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.byte(u8::try_from(self.hosts.len()).map_err(|_| Full)?)?;
        self.hosts.iter().try_for_each(|host| host.write(out))?;
        out.short(self.port.as_bytes())?;
        out.short(&self.fingerprint)
    }

    /// Reads the binary form of the first client version, which has exactly one host and no count.
    pub(super) fn read_one_host(read: &mut Reader<'_>) -> Option<Self> {
        let hosts = alloc::vec![Host::read(read)?];
        Some(Self { hosts, port: read_port_text(read)?, fingerprint: read.short()?.to_vec() })
    }

    /// Writes the binary form of the first client version: the other hosts are lost.
    pub(super) fn write_one_host(&self, out: &mut impl Writer) -> Result<(), Full> {
        self.hosts.first().ok_or(Full)?.write(out)?;
        out.short(self.port.as_bytes())?;
        out.short(&self.fingerprint)
    }
}

/// Reads a port in the binary form: digits, or nothing.
fn read_port_text(read: &mut Reader<'_>) -> Option<String> {
    let port = core::str::from_utf8(read.short()?).ok()?;
    port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.to_owned())
}

impl Host {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        core::str::from_utf8(read.short()?).ok()?.parse().ok()
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            // Bare on the wire, where its end is known.
            Self::Ip(ip) => out.short(ip.to_string().as_bytes()),
            Self::Onion(name) | Self::Domain(name) => out.short(name.as_bytes()),
        }
    }
}

/// Writes hosts separated by commas.
pub(super) fn fmt_hosts(hosts: &[Host], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (place, host) in hosts.iter().enumerate() {
        if place > 0 {
            formatter.write_str(",")?;
        }
        fmt::Display::fmt(host, formatter)?;
    }
    Ok(())
}

impl fmt::Display for AddressWithPassword {
    /// The whole text, the password too: for showing to the one who set it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "smp://{}", base64url::encode(&self.address.fingerprint))?;
        if let Some(password) = &self.password {
            formatter.write_str(":")?;
            password.iter().try_for_each(|byte| fmt::Write::write_char(formatter, char::from(*byte)))?;
        }
        formatter.write_str("@")?;
        self.address.fmt_authority(formatter)
    }
}
