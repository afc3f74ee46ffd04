//! Short links: where a relay keeps a connection request, and the key to it (WIRE-FACTS 8.1, 11.4).
//!
//! Text: `simplex:` or `https://` host, then `/i#` id `/` key for an invitation, or `/a#`, `/c#`, `/g#`, `/r#` and the
//! key for an address, and a query: `h` (hosts), `p` (port), `c` (fingerprint). With `https://` the first host is the
//! authority, and only the others are in `h`. For relays that every client knows, all but the first host may be left out.
//!
//! Whoever has the key can read what the link leads to: it is wiped, and never printed but in the link itself.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write as _};
use core::str::FromStr;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{LINK_KEY_LENGTH, LinkError, read_key, split_scheme};
use crate::wire::address::{AddressError, Host, ServerAddress, read_hosts, read_port};
use crate::wire::base64url;
use crate::wire::identifier::Identifier;
use crate::wire::percent_encoding::{Escaped, Query, unescape_query};
use crate::wire::primitives::{Full, Reader, Writer};

/// A link to a relay that keeps a connection request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortLink {
    /// How the text begins. The binary form does not tell: there it is always [`LinkScheme::Https`].
    pub scheme: LinkScheme,
    /// The relay; the fingerprint is empty when the link relies on the reader's knowing the relay.
    pub relay: ServerAddress,
    /// What is kept there.
    pub target: ShortLinkTarget,
}

/// How the text of a short link begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkScheme {
    /// `simplex:`
    Simplex,
    /// `https://` and the relay's first host.
    Https,
}

/// What a short link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShortLinkTarget {
    /// `i`: an invitation for one person.
    Invitation {
        /// Where it is kept: the relay's id of the link, 24 bytes.
        link: Identifier,
        /// The key to it.
        key: LinkKeyBytes,
    },
    /// An address; where it is kept follows from the key.
    Contact {
        /// Whose address it is.
        kind: ContactKind,
        /// The key to it.
        key: LinkKeyBytes,
    },
}

impl ShortLinkTarget {
    /// The key to what is kept.
    #[must_use]
    pub const fn key(&self) -> &LinkKeyBytes {
        match self {
            Self::Invitation { key, .. } | Self::Contact { key, .. } => key,
        }
    }
}

/// Whose address a contact link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactKind {
    /// `a`: a person's.
    Contact,
    /// `c`: a channel's.
    Channel,
    /// `g`: a group's.
    Group,
    /// `r`: a chat relay's.
    Relay,
}

/// The key of a short link as it is written: 32 bytes, wiped on drop, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LinkKeyBytes([u8; LINK_KEY_LENGTH]);

impl LinkKeyBytes {
    /// Takes the raw bytes.
    #[must_use]
    pub const fn new(bytes: [u8; LINK_KEY_LENGTH]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; LINK_KEY_LENGTH] {
        &self.0
    }
}

impl PartialEq for LinkKeyBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for LinkKeyBytes {}

impl fmt::Debug for LinkKeyBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LinkKeyBytes(..)")
    }
}

impl ContactKind {
    /// The letter in links; in the binary form it is the capital one.
    #[must_use]
    pub const fn letter(self) -> u8 {
        match self {
            Self::Contact => b'a',
            Self::Channel => b'c',
            Self::Group => b'g',
            Self::Relay => b'r',
        }
    }

    /// The kind of a letter, small or capital.
    const fn of_letter(letter: u8) -> Option<Self> {
        match letter.to_ascii_lowercase() {
            b'a' => Some(Self::Contact),
            b'c' => Some(Self::Channel),
            b'g' => Some(Self::Group),
            b'r' => Some(Self::Relay),
            _ => None,
        }
    }
}

impl ShortLink {
    /// Reads the binary form.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        let key = |read: &mut Reader<'_>| read.short()?.try_into().ok().map(LinkKeyBytes);
        let (relay, target) = match read.byte()? {
            b'I' => {
                let relay = ServerAddress::read(read)?;
                (relay, ShortLinkTarget::Invitation { link: read.identifier()?, key: key(read)? })
            }
            b'C' => {
                let kind = read.byte().filter(u8::is_ascii_uppercase).and_then(ContactKind::of_letter)?;
                let relay = ServerAddress::read(read)?;
                (relay, ShortLinkTarget::Contact { kind, key: key(read)? })
            }
            _ => return None,
        };
        Some(Self { scheme: LinkScheme::Https, relay, target })
    }

    /// Writes the binary form.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        match &self.target {
            ShortLinkTarget::Invitation { link, key } => {
                out.byte(b'I')?;
                self.relay.write(out)?;
                out.identifier(link)?;
                out.short(&key.0)
            }
            ShortLinkTarget::Contact { kind, key } => {
                out.byte(b'C')?;
                out.byte(kind.letter().to_ascii_uppercase())?;
                self.relay.write(out)?;
                out.short(&key.0)
            }
        }
    }

    /// The link as short as it can be for readers who know `presets`: of a relay that is one of them only the first
    /// host is left.
    #[must_use]
    pub fn shortened(mut self, presets: &[ServerAddress]) -> Self {
        if presets.iter().any(|preset| is_preset(&self.relay, preset)) {
            self.relay.hosts.truncate(1);
            self.relay.port.clear();
            self.relay.fingerprint.clear();
        }
        self
    }

    /// The link with the whole address of its relay, when that is shortened and one of `presets`.
    #[must_use]
    pub fn restored(mut self, presets: &[ServerAddress]) -> Self {
        let ServerAddress { hosts, port, fingerprint } = &self.relay;
        if let ([host], "", []) = (hosts.as_slice(), port.as_str(), fingerprint.as_slice())
            && let Some(preset) = presets.iter().find(|preset| preset.hosts.contains(host))
        {
            self.relay = preset.clone();
        }
        self
    }
}

/// Whether an address is that of a preset relay, which then can be found by its first host. A preset relay without a port
/// answers on both ports that clients try.
fn is_preset(relay: &ServerAddress, preset: &ServerAddress) -> bool {
    let has_all = |hosts: &[Host], others: &[Host]| others.iter().all(|host| hosts.contains(host));
    let same_port =
        relay.port == preset.port || preset.port.is_empty() && matches!(relay.port.as_str(), "443" | "5223");
    same_port
        && relay.fingerprint == preset.fingerprint
        && has_all(&preset.hosts, &relay.hosts)
        && has_all(&relay.hosts, &preset.hosts)
}

impl FromStr for ShortLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (authority, rest) = split_scheme(text)?;
        let (kind, rest) = rest.split_once('#').ok_or(LinkError::Kind)?;
        let kind = kind.strip_prefix('/').ok_or(LinkError::Kind)?;
        let kind = match kind.strip_suffix('/').unwrap_or(kind).as_bytes() {
            b"i" => None,
            [letter] => Some(ContactKind::of_letter(*letter).ok_or(LinkError::Kind)?),
            _ => return Err(LinkError::Kind),
        };
        let (keys, query) = rest.split_once('?').unwrap_or((rest, ""));
        let target = match (kind, keys.split_once('/')) {
            (Some(kind), None) => ShortLinkTarget::Contact { kind, key: LinkKeyBytes(*read_key(keys)?) },
            (None, Some((link, key))) => {
                let link = base64url::decode_some(link).and_then(|bytes| Identifier::new(&bytes));
                let key = LinkKeyBytes(*read_key(key)?);
                ShortLinkTarget::Invitation { link: link.ok_or(LinkError::LinkId)?, key }
            }
            (Some(_), Some(_)) | (None, None) => return Err(LinkError::Parts),
        };
        let query = Query(query);
        let mut hosts = Vec::new();
        if let Some(authority) = authority {
            // A port has its own parameter.
            hosts.push(authority.parse().map_err(LinkError::Relay)?);
        }
        if let Some(more) = query.get("h") {
            hosts.extend(read_hosts(&unescape_query(more)).map_err(LinkError::Relay)?);
        }
        if hosts.is_empty() {
            return Err(LinkError::Relay(AddressError::Host));
        }
        let port = query.get("p").map(read_port).transpose().map_err(LinkError::Relay)?.unwrap_or_default();
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(LinkError::Relay(AddressError::Port));
        }
        let fingerprint = match query.get("c") {
            Some(text) => {
                let fingerprint = base64url::decode_some(&unescape_query(text));
                fingerprint.ok_or(LinkError::Relay(AddressError::Fingerprint))?
            }
            None => Vec::new(),
        };
        let scheme = if authority.is_some() { LinkScheme::Https } else { LinkScheme::Simplex };
        Ok(Self { scheme, relay: ServerAddress { hosts, port, fingerprint }, target })
    }
}

impl fmt::Display for ShortLink {
    /// The whole link, the key too: for showing to the one who gives it away.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServerAddress { hosts, port, fingerprint } = &self.relay;
        let in_query = match (self.scheme, hosts.split_first()) {
            (LinkScheme::Https, Some((first, others))) => {
                write!(formatter, "https://{first}")?;
                others
            }
            _ => {
                formatter.write_str("simplex:")?;
                hosts.as_slice()
            }
        };
        match &self.target {
            ShortLinkTarget::Invitation { link, key } => {
                let link = base64url::encode_unpadded(link.as_bytes());
                write!(formatter, "/i#{link}/{}", base64url::encode_unpadded(&key.0))?;
            }
            ShortLinkTarget::Contact { kind, key } => {
                let letter = char::from(kind.letter());
                write!(formatter, "/{letter}#{}", base64url::encode_unpadded(&key.0))?;
            }
        }
        let mut separator = '?';
        let mut parameter = |name: char, value: &dyn fmt::Display| {
            let written = write!(formatter, "{separator}{name}={value}");
            separator = '&';
            written
        };
        if !in_query.is_empty() {
            let mut list = String::new();
            for host in in_query {
                let comma = if list.is_empty() { "" } else { "," };
                match host {
                    // Bare in a list, where no port can follow.
                    Host::Ip(ip) => write!(list, "{comma}{ip}")?,
                    Host::Onion(name) | Host::Domain(name) => write!(list, "{comma}{name}")?,
                }
            }
            parameter('h', &Escaped(&list))?;
        }
        if !port.is_empty() {
            parameter('p', port)?;
        }
        if !fingerprint.is_empty() {
            parameter('c', &base64url::encode_unpadded(fingerprint))?;
        }
        Ok(())
    }
}
