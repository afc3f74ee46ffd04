//! Links: what one person gives to another so that they can connect (WIRE-FACTS 8.1, 11.3, 11.4).
//!
//! A full link holds the whole connection request. A short link names a relay that keeps the request, encrypted, and
//! holds the key; a blob link does the same in the form of the short-links proposal. This room reads and writes them as
//! text and as bytes, and the link data behind a short link; it does not encrypt, sign or check signatures.
//!
//! Readers take what deployed peers write. What only an attacker would write is refused: ports above 65535, keys of
//! other lengths than the algorithms have.

pub mod blob_link;
pub mod connection_request;
pub mod link_data;
pub mod ratchet_parameters;
pub mod short_link;

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use zeroize::Zeroizing;

use super::address::AddressError;
use super::base64url;
use super::queue_uri::QueueUriError;
use blob_link::BlobLink;
use connection_request::ConnectionRequest;
use short_link::ShortLink;

/// The length of the key in a short link or blob link, in bytes: 43 characters.
pub const LINK_KEY_LENGTH: usize = 32;

/// A link of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A link that holds the whole connection request.
    Full(Box<ConnectionRequest>),
    /// A link to a relay that keeps the connection request.
    Short(ShortLink),
    /// The same in the form of the short-links proposal.
    Blob(BlobLink),
}

/// What is wrong with the text of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// It begins neither with `simplex:/` nor with `https://` and a host.
    Scheme,
    /// What follows the scheme is not the name of a kind of link and `#`.
    Kind,
    /// After `#` there are not the parts that links of its kind have.
    Parts,
    /// The versions (`v`) are missing or impossible.
    Versions,
    /// The addresses of queues (`smp`) are missing.
    Queues,
    /// An address of a queue is wrong.
    Queue(QueueUriError),
    /// The ratchet parameters (`e2e`) of an invitation are wrong.
    Ratchet(RatchetPart),
    /// The id of the link, between `#` and the key.
    LinkId,
    /// The key at the end of what follows `#`.
    Key(KeyProblem),
    /// The hosts, the port or the fingerprint of the relay are missing or wrong.
    Relay(AddressError),
}

/// What is wrong with ratchet parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RatchetPart {
    /// They are missing.
    Missing,
    /// The versions (`v`) are missing or impossible.
    Versions,
    /// The two keys (`x3dh`) are missing, or are not X448 keys.
    Keys,
    /// The post-quantum key (`kem_key`) or ciphertext (`kem_ct`) is incomplete.
    PostQuantum,
}

/// What is wrong with the key in a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// It is missing.
    Missing,
    /// It is not base64url.
    NotBase64url,
    /// It has so many bytes, and not 32.
    Length(usize),
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
            Self::Parts => formatter.write_str(
                "after # there are not the parts that a link of this kind has (a key, or an id or a relay, / and a \
                 key): was the link cut?",
            ),
            Self::Versions => formatter.write_str("the versions (v=) in the link are missing or impossible"),
            Self::Queues => formatter.write_str("the link has no address of a queue (smp=): was it cut?"),
            Self::Queue(error) => write!(formatter, "an address of a queue in the link is wrong: {error}"),
            Self::Ratchet(part) => {
                write!(formatter, "the encryption parameters (e2e=) of the invitation are wrong: {part}")
            }
            Self::LinkId => formatter.write_str("the link id after # is missing or is not base64url"),
            Self::Key(problem) => write!(formatter, "the key after # is {problem}"),
            Self::Relay(error) => write!(formatter, "the relay in the link is wrong: {error}"),
        }
    }
}

impl fmt::Display for RatchetPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Missing => "they are missing, was the link cut?",
            Self::Versions => "the versions (v=) are missing or impossible",
            Self::Keys => "the two keys (x3dh=) are missing or are not X448 keys",
            Self::PostQuantum => "the post-quantum key (kem_key=) or ciphertext (kem_ct=) is not complete",
        })
    }
}

impl fmt::Display for KeyProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => formatter.write_str("missing: was the link cut?"),
            Self::NotBase64url => {
                formatter.write_str("not base64url: was a character lost, or is there one too many?")
            }
            Self::Length(length) => {
                write!(formatter, "{length} bytes long, and not {LINK_KEY_LENGTH}: was the link cut?")
            }
        }
    }
}

impl core::error::Error for LinkError {}
impl core::error::Error for RatchetPart {}

impl FromStr for Link {
    type Err = LinkError;

    /// Reads a link of any kind.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let (_, rest) = split_scheme(text)?;
        let (path, fragment) = rest.split_once('#').ok_or(LinkError::Kind)?;
        match path.strip_suffix('/').unwrap_or(path) {
            "/invitation" | "/contact" if fragment.starts_with("/?") => {
                text.parse().map(|request| Self::Full(Box::new(request)))
            }
            "/invitation" | "/contact" => text.parse().map(Self::Blob),
            _ => text.parse().map(Self::Short),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(request) => fmt::Display::fmt(request, formatter),
            Self::Short(link) => fmt::Display::fmt(link, formatter),
            Self::Blob(link) => fmt::Display::fmt(link, formatter),
        }
    }
}

/// Reads the key of a link.
fn read_key(text: &str) -> Result<Zeroizing<[u8; LINK_KEY_LENGTH]>, LinkError> {
    if text.is_empty() {
        return Err(LinkError::Key(KeyProblem::Missing));
    }
    let bytes = base64url::decode_some(text).ok_or(LinkError::Key(KeyProblem::NotBase64url))?;
    let bytes = Zeroizing::new(bytes);
    let key = bytes.as_slice().try_into().map_err(|_| LinkError::Key(KeyProblem::Length(bytes.len())))?;
    Ok(Zeroizing::new(key))
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

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;

    const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
    const ID: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    const DH: &str = "MCowBQYDK2VuAyEAjiswwI3O_NlS8Fk3HJUW870EY2bAwmttMBsvRB9eV3o%253D";

    fn full(kind: &str, queue: &str, rest: &str) -> alloc::string::String {
        format!("simplex:/{kind}#/?v=2-7&smp=smp%3A%2F%2F1234-w%3D%3D%40{queue}{rest}")
    }

    #[test]
    fn what_is_wrong_is_said() {
        let queue = format!("h%2F3456-w%3D%3D%23%2F%3Fv%3D1-4%26dh%3D{DH}");
        let ratchet = |text: &str| full("invitation", &queue, &format!("&e2e={text}"));
        assert!(full("contact", &queue, "").parse::<Link>().is_ok());
        for (text, error) in [
            (format!("http://h/a#{KEY}"), LinkError::Scheme),
            ("https://".to_string(), LinkError::Scheme),
            ("simplex:/".to_string(), LinkError::Kind),
            (format!("simplex:/b#{KEY}?h=h"), LinkError::Kind),
            (format!("simplex:/I#{ID}/{KEY}?h=h"), LinkError::Kind),
            (format!("simplex:/a#{ID}/{KEY}?h=h"), LinkError::Parts),
            (format!("simplex:/i#{KEY}?h=h"), LinkError::Parts),
            (format!("simplex:/i#=/{KEY}?h=h"), LinkError::LinkId),
            ("simplex:/a#?h=h".to_string(), LinkError::Key(KeyProblem::Missing)),
            (format!("simplex:/a#{KEY}!?h=h"), LinkError::Key(KeyProblem::NotBase64url)),
            (format!("simplex:/a#{}?h=h", &KEY[..20]), LinkError::Key(KeyProblem::Length(15))),
            (format!("simplex:/a#{KEY}"), LinkError::Relay(AddressError::Host)),
            (format!("simplex:/a#{KEY}?h=h&p=x"), LinkError::Relay(AddressError::Port)),
            (format!("simplex:/a#{KEY}?h=h&c=x"), LinkError::Relay(AddressError::Fingerprint)),
            ("simplex:/contact#/?smp=x".to_string(), LinkError::Versions),
            ("simplex:/contact#/?v=2-7".to_string(), LinkError::Queues),
            (full("contact", "h%2Fx%23%2F%3Fv%3D1", ""), LinkError::Queue(QueueUriError::Sender)),
            (full("contact", "h%2F3456-w%3D%3D%23%2F%3Fv%3D1", ""), LinkError::Queue(QueueUriError::Key)),
            (full("invitation", &queue, ""), LinkError::Ratchet(RatchetPart::Missing)),
            (ratchet("v%3Dx"), LinkError::Ratchet(RatchetPart::Versions)),
            (ratchet("v%3D2-3%26x3dh%3Dx%2Cy"), LinkError::Ratchet(RatchetPart::Keys)),
        ] {
            let read = text.parse::<Link>();
            assert_eq!(read, Err(error), "{text}");
            assert!(!error.to_string().is_empty());
        }
    }
}
