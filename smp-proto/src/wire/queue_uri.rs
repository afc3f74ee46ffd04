//! Addresses of queues (WIRE-FACTS 8.1, 11.2): what a recipient gives to a sender.
//!
//! Text: `smp://` fingerprint `@` hosts (`:` port) `/` base64url(sender id) `#/?` query, with `v` (client versions), `dh`
//! (the recipient's key for the end-to-end secret), `q` (mode), `k=s` (the same for older readers) and, for version 1
//! only, `srv` (hosts after the first).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::address::{AddressError, ServerAddress, fmt_hosts, read_authority, read_hosts};
use super::base64url;
use super::command::QueueMode;
use super::identifier::Identifier;
use super::percent_encoding::{Escaped, Query, unescape};
use super::primitives::{Full, Reader, Writer};
use super::version::{Version, VersionRange};
use crate::keys::X25519Public;

/// A queue as its sender knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueUri {
    /// Versions of the client protocol (1 to 4), not of SMP.
    pub versions: VersionRange,
    /// The relay.
    pub server: ServerAddress,
    /// The sender's id of the queue.
    pub sender: Identifier,
    /// The recipient's key for the end-to-end secret.
    pub dh: X25519Public,
    /// Whether the sender may secure the queue; `None` when not said.
    pub mode: Option<QueueMode>,
}

/// What is wrong with the text of a queue's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueUriError {
    /// The relay's address.
    Server(AddressError),
    /// The sender id between the host and `#`.
    Sender,
    /// There is no `#`, or what follows is neither a key nor a query.
    Fragment,
    /// The versions (`v`).
    Versions,
    /// The key (`dh`).
    Key,
}

impl fmt::Display for QueueUriError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(formatter),
            Self::Sender => formatter.write_str("the queue id after the host is missing or is not base64url"),
            Self::Fragment => formatter.write_str("the part after # is missing: was the address cut?"),
            Self::Versions => formatter.write_str("the versions (v=) are missing or impossible"),
            Self::Key => {
                formatter.write_str("the key (dh=) is missing or is not an X25519 key: was the address cut?")
            }
        }
    }
}

impl core::error::Error for QueueUriError {}

/// The first versions of the client protocol that carry a queue's mode.
const MODE_AS_LETTER: Version = Version(4);
const MODE_AS_BOOL: Version = Version(3);

impl FromStr for QueueUri {
    type Err = QueueUriError;

    fn from_str(text: &str) -> Result<Self, QueueUriError> {
        let rest = text.strip_prefix("smp://").ok_or(QueueUriError::Server(AddressError::Scheme))?;
        let (before, fragment) = rest.split_once('#').ok_or(QueueUriError::Fragment)?;
        let (identity, path) =
            before.split_once('@').ok_or(QueueUriError::Server(AddressError::Fingerprint))?;
        if identity.contains(':') {
            return Err(QueueUriError::Server(AddressError::UnexpectedPassword));
        }
        let fingerprint =
            base64url::decode_some(identity).ok_or(QueueUriError::Server(AddressError::Fingerprint))?;
        let (authority, sender) = path.split_once('/').ok_or(QueueUriError::Sender)?;
        let (mut hosts, port) = read_authority(authority).map_err(QueueUriError::Server)?;
        // Older writers end the path with a slash.
        let sender = base64url::decode_some(sender.strip_suffix('/').unwrap_or(sender))
            .and_then(|bytes| Identifier::new(&bytes))
            .ok_or(QueueUriError::Sender)?;
        let (key, query) = match fragment.split_once("/?") {
            Some((key, query)) => (key, Some(query)),
            None => (fragment, None),
        };
        let parameter = |name: &str| query.and_then(|query| Query(query).get(name));
        let versions = match (query, parameter("v")) {
            (None, _) => Some(VersionRange::only(Version(1))),
            (Some(_), Some(range)) => read_versions(range),
            (Some(_), None) => None,
        };
        let versions = versions.ok_or(QueueUriError::Versions)?;
        let key = if key.is_empty() { parameter("dh").unwrap_or("") } else { key };
        let dh = base64url::decode_some(&unescape(key))
            .and_then(|der| X25519Public::from_der(&der).ok())
            .ok_or(QueueUriError::Key)?;
        let mode = match parameter("q") {
            Some("m") => Some(QueueMode::Messaging),
            Some("c") => Some(QueueMode::Contact),
            _ => parameter("k").filter(|value| *value == "s").map(|_| QueueMode::Messaging),
        };
        if let Some(more) = parameter("srv") {
            hosts.extend(read_hosts(&unescape(more)).map_err(QueueUriError::Server)?);
        }
        Ok(Self { versions, server: ServerAddress { fingerprint, hosts, port }, sender, dh, mode })
    }
}

/// Reads a version range of text: `2-7` or `7`.
pub(super) fn read_versions(text: &str) -> Option<VersionRange> {
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().ok().map(Version))?
    };
    match text.split_once('-') {
        Some((min, max)) => VersionRange::new(number(min)?, number(max)?),
        None => number(text).map(VersionRange::only),
    }
}

/// Shows a version range as text does: one number when there is one version.
#[derive(Clone, Copy)]
pub(super) struct TextVersions(pub(super) VersionRange);

impl fmt::Display for TextVersions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (self.0.min(), self.0.max());
        if min == max { write!(formatter, "{}", min.0) } else { write!(formatter, "{}-{}", min.0, max.0) }
    }
}

impl fmt::Display for QueueUri {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Readers of version 1 know one host only; the others follow in the query.
        let old = self.versions.min() == Version(1);
        let (first, others) = match self.server.hosts.split_at_checked(1) {
            Some((first, others)) if old => (first, others),
            _ => (self.server.hosts.as_slice(), &[][..]),
        };
        write!(formatter, "smp://{}@", base64url::encode(&self.server.fingerprint))?;
        fmt_hosts(first, formatter)?;
        if !self.server.port.is_empty() {
            write!(formatter, ":{}", self.server.port)?;
        }
        let sender = base64url::encode(self.sender.as_bytes());
        write!(formatter, "/{sender}#/?v={}", TextVersions(self.versions))?;
        let key = base64url::encode(self.dh.to_der().as_bytes()).replace('=', "%3D");
        write!(formatter, "&dh={key}")?;
        match self.mode {
            Some(QueueMode::Messaging) => {
                formatter.write_str("&q=m")?;
                if self.versions.min() < MODE_AS_LETTER {
                    formatter.write_str("&k=s")?;
                }
            }
            Some(QueueMode::Contact) => formatter.write_str("&q=c")?,
            None => {}
        }
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            write!(formatter, "&srv={}", Escaped(&others.join(",")))?;
        }
        Ok(())
    }
}

impl QueueUri {
    /// Reads the binary form.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        let versions = read.version_range()?;
        let server = ServerAddress::read(read)?;
        let sender = read.identifier()?;
        let dh = read.x25519()?;
        Some(Self { versions, server, sender, dh, mode: read_mode(read) })
    }

    /// Writes the binary form.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.version_range(self.versions)?;
        self.server.write(out)?;
        out.identifier(&self.sender)?;
        out.x25519(&self.dh)?;
        let messaging = self.mode == Some(QueueMode::Messaging);
        if self.versions.min() >= MODE_AS_LETTER {
            self.mode.map_or(Ok(()), |mode| out.byte(mode.letter()))
        } else if self.versions.min() >= MODE_AS_BOOL || (self.versions.max() >= MODE_AS_BOOL && messaging) {
            out.bool(messaging)
        } else {
            Ok(())
        }
    }
}

/// Reads a mode without a marker: what is not one is left.
fn read_mode(read: &mut Reader<'_>) -> Option<QueueMode> {
    let mode = match read.peek()? {
        b'M' | b'T' => QueueMode::Messaging,
        b'C' | b'F' => QueueMode::Contact,
        _ => return None,
    };
    read.byte()?;
    Some(mode)
}

/// A queue as two agents use it, at one version of the client protocol: only in messages between agents, as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgreedQueue {
    /// The version of the client protocol (1 to 4).
    pub version: Version,
    /// The relay; of several hosts only the first is written in version 1.
    pub server: ServerAddress,
    /// The sender's id of the queue.
    pub sender: Identifier,
    /// The recipient's key for the end-to-end secret.
    pub dh: X25519Public,
    /// Whether the sender may secure the queue. Written from version 4 on, and in version 3 when the sender may.
    pub mode: Option<QueueMode>,
}

/// The first client version whose addresses have several hosts.
const SEVERAL_HOSTS: Version = Version(2);

impl AgreedQueue {
    /// Reads the binary form.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        let version = read.version()?;
        let server = if version < SEVERAL_HOSTS {
            ServerAddress::read_one_host(read)?
        } else {
            ServerAddress::read(read)?
        };
        let sender = read.identifier()?;
        let dh = read.x25519()?;
        // Before there were modes, such a byte could only belong to what follows.
        let mode = if version >= MODE_AS_BOOL { read_mode(read) } else { None };
        Some(Self { version, server, sender, dh, mode })
    }

    /// Writes the binary form.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.u16(self.version.0)?;
        if self.version < SEVERAL_HOSTS {
            self.server.write_one_host(out)?;
        } else {
            self.server.write(out)?;
        }
        out.identifier(&self.sender)?;
        out.x25519(&self.dh)?;
        match self.mode {
            Some(mode) if self.version >= MODE_AS_LETTER => out.byte(mode.letter()),
            Some(QueueMode::Messaging) if self.version >= MODE_AS_BOOL => out.bool(true),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// Found by fuzzing: a name may have `%`, or `&`, which means something in a query.
    #[test]
    fn further_hosts_are_read_as_they_were_written() {
        let text = "smp://oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8=@127.0,a%3D%40b&q=c,[::1]:7001/QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZX\
                    #/?v=1-4&dh=MCowBQYDK2VuAyEAn9etbc_0KY3T-W1bGyr5EKBTWxSI1_j6uzSamCiAthU%3D";
        let uri: QueueUri = text.parse().unwrap();
        assert_eq!(uri.server.hosts.len(), 3);
        assert_eq!(uri.mode, None);
        assert_eq!(uri.to_string().parse(), Ok(uri));
    }
}
