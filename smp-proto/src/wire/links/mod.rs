//! Links: what one person gives to another so that they can connect (WIRE-FACTS 8.1, 11.3, 11.4).
//!
//! A full link holds the whole connection request. A short link names a relay that keeps the request, encrypted, and
//! holds the key. This room reads and writes both as text and as bytes, and the link data behind a short link; it does
//! not encrypt, sign or check signatures.
//!
//! Readers take what deployed peers write. What only an attacker would write is refused: ports above 65535, keys of
//! other lengths than the algorithms have.

pub mod connection_request;
pub mod link_data;
pub mod ratchet_parameters;
pub mod short_link;

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use super::address::AddressError;
use super::queue_uri::QueueUriError;
use connection_request::ConnectionRequest;
use short_link::ShortLink;

/// A link of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A link that holds the whole connection request.
    Full(Box<ConnectionRequest>),
    /// A link to a relay that keeps the connection request.
    Short(ShortLink),
}

/// What is wrong with the text of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// It begins neither with `simplex:/` nor with `https://` and a host.
    Scheme,
    /// What follows the scheme is not the name of a kind of link and `#`.
    Kind,
    /// The versions (`v`) are missing or impossible.
    Versions,
    /// The addresses of queues (`smp`) are missing.
    Queues,
    /// An address of a queue is wrong.
    Queue(QueueUriError),
    /// The ratchet parameters (`e2e`) of an invitation are missing or wrong.
    Ratchet,
    /// The link id or the key after `#` is missing or not base64url of the right length.
    Key,
    /// The hosts, the port or the fingerprint of the relay are missing or wrong.
    Relay(AddressError),
}

impl fmt::Display for LinkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme => {
                formatter.write_str("the link begins neither with simplex:/ nor with https:// and a host")
            }
            Self::Kind => {
                formatter.write_str("the link is of a kind that is not known here: was it cut before #?")
            }
            Self::Versions => formatter.write_str("the versions (v=) in the link are missing or impossible"),
            Self::Queues => formatter.write_str("the link has no address of a queue (smp=): was it cut?"),
            Self::Queue(error) => write!(formatter, "an address of a queue in the link is wrong: {error}"),
            Self::Ratchet => formatter.write_str(
                "the encryption parameters (e2e=) of the invitation are missing or wrong: was the link cut?",
            ),
            Self::Key => formatter.write_str("the key after # is missing or incomplete: was the link cut?"),
            Self::Relay(error) => write!(formatter, "the relay in the link is wrong: {error}"),
        }
    }
}

impl core::error::Error for LinkError {}

impl FromStr for Link {
    type Err = LinkError;

    /// Reads a link of either kind. The error of a text that is neither is that of the full form, unless only the kind
    /// is unknown there.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text.parse::<ConnectionRequest>() {
            Ok(request) => Ok(Self::Full(Box::new(request))),
            Err(LinkError::Kind) => text.parse().map(Self::Short),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(request) => fmt::Display::fmt(request, formatter),
            Self::Short(link) => fmt::Display::fmt(link, formatter),
        }
    }
}

/// Takes `simplex:` or `https://` and an authority from the front of a link; what is left begins with `/`.
fn split_scheme(text: &str) -> Result<(Option<&str>, &str), LinkError> {
    if let Some(rest) = text.strip_prefix("simplex:") {
        return Ok((None, rest));
    }
    let rest = text.strip_prefix("https://").ok_or(LinkError::Scheme)?;
    let slash = rest.find('/').filter(|place| *place > 0).ok_or(LinkError::Scheme)?;
    let (authority, rest) = rest.split_at(slash);
    Ok((Some(authority), rest))
}
