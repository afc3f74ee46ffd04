//! Links to blobs: where a relay keeps an encrypted connection request, and the private key to it.
//!
//! The form of the short-links proposal, which deployed clients do not have (they have
//! [`short_link`](super::short_link)). Text: `simplex:` or `https://` and a page, then `/contact/#` or `/invitation/#`, the
//! relay as in its address but without `smp://`, `/`, and the key:
//!
//! ```text
//! https://simplex.chat/contact/#0YuTwO05YJWS8rkjn9eLJDjQhFKvIYd8d4xG8X1blIU@smp8.simplex.im/<43 characters>
//! https://smp8.simplex.im/contact/#0YuTwO05YJWS8rkjn9eLJDjQhFKvIYd8d4xG8X1blIU@/<43 characters>
//! ```
//!
//! A page of the relay itself stands for the relay's first host, when there is no other host after `@`, or only onion
//! names. The proposal leaves open what a page of somebody else means before a relay that has onion names only; such links
//! are written with `simplex:`.
//!
//! The key is the raw X25519 private key. Whoever has it can read the blob: it is wiped, and never printed but in the link
//! itself.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::{LinkError, read_key, split_scheme};
use crate::keys::X25519Secret;
use crate::wire::address::{AddressError, Host, ServerAddress, fmt_hosts, read_authority};
use crate::wire::base64url;

/// A link to a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobLink {
    kind: BlobLinkKind,
    page: Option<Page>,
    relay: ServerAddress,
    key: X25519Secret,
}

/// What a link to a blob is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobLinkKind {
    /// `invitation`: for one person, once.
    Invitation,
    /// `contact`: an address, for anybody.
    Contact,
}

/// The web page that a link begins with: it explains the link to a browser, which does not send it the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    host: Host,
    /// Decimal, empty for the usual one.
    port: String,
}

impl Page {
    /// The host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port as text, empty for the usual one.
    #[must_use]
    pub fn port(&self) -> &str {
        &self.port
    }
}

impl FromStr for Page {
    type Err = LinkError;

    /// Reads a host, and a port when there is one.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (hosts, port) = read_authority(text).map_err(|_| LinkError::Scheme)?;
        let [host] = <[Host; 1]>::try_from(hosts).map_err(|_| LinkError::Scheme)?;
        if port.is_empty() || port.parse::<u16>().is_ok() {
            Ok(Self { host, port })
        } else {
            Err(LinkError::Scheme)
        }
    }
}

impl fmt::Display for Page {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(formatter)?;
        if self.port.is_empty() { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }
}

impl BlobLinkKind {
    const fn word(self) -> &'static str {
        match self {
            Self::Invitation => "invitation",
            Self::Contact => "contact",
        }
    }
}

/// Whether hosts after `@` leave the page to be the relay's first host.
fn only_onions(hosts: &[Host]) -> bool {
    hosts.iter().all(|host| matches!(host, Host::Onion(_)))
}

impl BlobLink {
    /// A link to a blob on a relay. The page is left out where it could be taken for the relay's: when the relay has only
    /// onion names, and the page is not its first host.
    ///
    /// # Errors
    /// [`LinkError::Relay`] when the address has no host, no fingerprint, or a port above 65535.
    pub fn new(
        kind: BlobLinkKind,
        page: Option<Page>,
        relay: ServerAddress,
        key: X25519Secret,
    ) -> Result<Self, LinkError> {
        let first = relay.hosts.first().ok_or(LinkError::Relay(AddressError::Host))?;
        let clear = |page: &Page| page.host == *first || !only_onions(&relay.hosts);
        let page = page.filter(clear);
        if relay.fingerprint.is_empty() {
            return Err(LinkError::Relay(AddressError::Fingerprint));
        }
        if relay.port_number().is_none() {
            return Err(LinkError::Relay(AddressError::Port));
        }
        Ok(Self { kind, page, relay, key })
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> BlobLinkKind {
        self.kind
    }

    /// The page that it begins with; `None` for `simplex:`.
    #[must_use]
    pub const fn page(&self) -> Option<&Page> {
        self.page.as_ref()
    }

    /// The relay that keeps the blob.
    #[must_use]
    pub const fn relay(&self) -> &ServerAddress {
        &self.relay
    }

    /// The private key of the blob.
    #[must_use]
    pub const fn key(&self) -> &X25519Secret {
        &self.key
    }

    /// The hosts that are written after `@`.
    fn written_hosts(&self) -> &[Host] {
        match (self.relay.hosts.split_first(), &self.page) {
            (Some((first, others)), Some(page)) if page.host == *first && only_onions(others) => others,
            _ => &self.relay.hosts,
        }
    }
}

impl FromStr for BlobLink {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (page, rest) = split_scheme(text)?;
        let page = page.map(str::parse::<Page>).transpose()?;
        let (path, fragment) = rest.split_once('#').ok_or(LinkError::Kind)?;
        let kind = match path.strip_suffix('/').unwrap_or(path) {
            "/invitation" => BlobLinkKind::Invitation,
            "/contact" => BlobLinkKind::Contact,
            _ => return Err(LinkError::Kind),
        };
        // The proposal's grammar has a slash after `#`, its examples before it.
        let fragment = fragment.strip_prefix('/').unwrap_or(fragment);
        let (relay, key) = fragment.rsplit_once('/').ok_or(LinkError::Parts)?;
        let relay = read_relay(relay, page.as_ref()).map_err(LinkError::Relay)?;
        Self::new(kind, page, relay, X25519Secret::from_bytes(*read_key(key)?))
    }
}

/// Reads `fingerprint@hosts:port`; `@` may be missing when nothing follows.
fn read_relay(text: &str, page: Option<&Page>) -> Result<ServerAddress, AddressError> {
    let (fingerprint, authority) = text.split_once('@').unwrap_or((text, ""));
    let fingerprint = base64url::decode_some(fingerprint).ok_or(AddressError::Fingerprint)?;
    let (mut hosts, port) = match authority.strip_prefix(':') {
        _ if authority.is_empty() => (Vec::new(), String::new()),
        Some(_) => {
            // No host, but a port: any host serves to read it.
            let (_, port) = read_authority(&("h".to_owned() + authority))?;
            (Vec::new(), port)
        }
        None => read_authority(authority)?,
    };
    if let Some(page) = page.filter(|page| only_onions(&hosts) && !hosts.contains(&page.host)) {
        hosts.insert(0, page.host.clone());
    }
    Ok(ServerAddress { fingerprint, hosts, port })
}

impl fmt::Display for BlobLink {
    /// The whole link, the key too: for showing to the one who gives it away.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.page {
            Some(page) => write!(formatter, "https://{page}")?,
            None => formatter.write_str("simplex:")?,
        }
        let fingerprint = base64url::encode_unpadded(&self.relay.fingerprint);
        write!(formatter, "/{}/#{fingerprint}@", self.kind.word())?;
        fmt_hosts(self.written_hosts(), formatter)?;
        if !self.relay.port.is_empty() {
            write!(formatter, ":{}", self.relay.port)?;
        }
        write!(formatter, "/{}", base64url::encode_unpadded(self.key.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyProblem, Link};
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    const FINGERPRINT: &str = "0YuTwO05YJWS8rkjn9eLJDjQhFKvIYd8d4xG8X1blIU";
    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    const ONION: &str = "beccx4yfxxbvyhqypaavemqurytl6hozr47wfc7uuecacjqdvwpw2xid.onion";

    fn hosts(link: &BlobLink) -> Vec<String> {
        link.relay.hosts.iter().map(ToString::to_string).collect()
    }

    /// The three examples of the proposal, whose last part is a private key here.
    #[test]
    fn the_forms_of_the_proposal_are_read_and_written() {
        for (text, expected, canonical) in [
            (
                format!("https://simplex.chat/contact/#{FINGERPRINT}=@smp8.simplex.im/{KEY}="),
                vec!["smp8.simplex.im"],
                format!("https://simplex.chat/contact/#{FINGERPRINT}@smp8.simplex.im/{KEY}"),
            ),
            (
                format!("https://smp8.simplex.im/contact/#{FINGERPRINT}@/{KEY}"),
                vec!["smp8.simplex.im"],
                format!("https://smp8.simplex.im/contact/#{FINGERPRINT}@/{KEY}"),
            ),
            (
                format!("https://smp8.simplex.im/contact/#{FINGERPRINT}@{ONION}/{KEY}"),
                vec!["smp8.simplex.im", ONION],
                format!("https://smp8.simplex.im/contact/#{FINGERPRINT}@{ONION}/{KEY}"),
            ),
            (
                format!("simplex:/contact#/{FINGERPRINT}@smp8.simplex.im,{ONION}:443/{KEY}"),
                vec!["smp8.simplex.im", ONION],
                format!("simplex:/contact/#{FINGERPRINT}@smp8.simplex.im,{ONION}:443/{KEY}"),
            ),
            (
                format!("https://smp8.simplex.im:8443/contact/#{FINGERPRINT}@:443/{KEY}"),
                vec!["smp8.simplex.im"],
                format!("https://smp8.simplex.im:8443/contact/#{FINGERPRINT}@:443/{KEY}"),
            ),
        ] {
            for (word, kind) in [("contact", BlobLinkKind::Contact), ("invitation", BlobLinkKind::Invitation)]
            {
                let (text, canonical) = (text.replace("contact", word), canonical.replace("contact", word));
                let link = text.parse::<BlobLink>().unwrap();
                assert_eq!(
                    (hosts(&link), link.kind()),
                    (expected.iter().map(ToString::to_string).collect(), kind)
                );
                assert_eq!(link.key().as_bytes(), b"0123456789abcdef0123456789abcdef");
                assert_eq!(link.to_string(), canonical);
                assert_eq!(canonical.parse::<Link>(), Ok(Link::Blob(link)));
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            (format!("https:///contact/#{FINGERPRINT}@h/{KEY}"), LinkError::Scheme),
            (format!("https://a,b/contact/#{FINGERPRINT}@h/{KEY}"), LinkError::Scheme),
            (format!("https://a/contacts/#{FINGERPRINT}@h/{KEY}"), LinkError::Kind),
            (format!("https://a/contact/#{FINGERPRINT}@h"), LinkError::Parts),
            (format!("https://a/contact/#{FINGERPRINT}@h/"), LinkError::Key(KeyProblem::Missing)),
            (
                format!("https://a/contact/#{FINGERPRINT}@h/{}", &KEY[1..]),
                LinkError::Key(KeyProblem::NotBase64url),
            ),
            (
                format!("https://a/contact/#{FINGERPRINT}@h/{}", &KEY[..40]),
                LinkError::Key(KeyProblem::Length(30)),
            ),
            (format!("https://a/contact/#@h/{KEY}"), LinkError::Relay(AddressError::Fingerprint)),
            (format!("https://a/contact/#{FINGERPRINT}@h:x/{KEY}"), LinkError::Relay(AddressError::Port)),
            (format!("https://a/contact/#{FINGERPRINT}@h:70000/{KEY}"), LinkError::Relay(AddressError::Port)),
            (format!("simplex:/contact/#{FINGERPRINT}@/{KEY}"), LinkError::Relay(AddressError::Host)),
            (format!("simplex:/contact/#{FINGERPRINT}@h,,i/{KEY}"), LinkError::Relay(AddressError::Host)),
        ] {
            assert_eq!(text.parse::<BlobLink>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_page_never_replaces_a_relay_that_has_onion_names_only() {
        let relay = ServerAddress {
            fingerprint: vec![7; 32],
            hosts: vec![Host::Onion(ONION.to_owned())],
            port: String::new(),
        };
        let page = "simplex.chat".parse().ok();
        let key = X25519Secret::from_bytes([8; 32]);
        let link = BlobLink::new(BlobLinkKind::Contact, page, relay, key).unwrap();
        assert!(link.to_string().starts_with("simplex:/contact/#"));
        assert_eq!(link.to_string().parse(), Ok(link));
    }

    #[test]
    fn debug_shows_no_key() {
        let link = format!("simplex:/contact/#{FINGERPRINT}@h/{KEY}").parse::<BlobLink>().unwrap();
        assert!(format!("{link:?}").contains("X25519Secret(..)"));
    }
}
