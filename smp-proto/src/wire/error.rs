//! Protocol errors (WIRE-FACTS 5.2): the payload of `ERR`.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::primitives::{Full, Reader, SPACE, Writer};
use super::version::Version;

/// What a relay answers in place of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SmpError {
    /// `BLOCK`: block or transmission cannot be parsed.
    Block,
    /// `SESSION`: transmission of another session.
    Session,
    /// `CMD …`
    Command(CommandError),
    /// `PROXY …`
    Proxy(ProxyError),
    /// `AUTH`: unknown queue, wrong key, or not allowed: one answer for all of them.
    Authorization,
    /// `BLOCKED …`: the operator blocked the queue.
    Blocked(Blocked),
    /// `SERVICE`: a service certificate is needed, or must not be used.
    Service,
    /// `CRYPTO`: a forwarded command cannot be decrypted.
    Crypto,
    /// `QUOTA`: the queue is full.
    Quota,
    /// `STORE …`: storage failed.
    Store(Vec<u8>),
    /// `EXPIRED`
    Expired,
    /// `NO_MSG`: nothing to acknowledge.
    NoMessage,
    /// `LARGE_MSG`: the body is too large for the version.
    LargeMessage,
    /// `INTERNAL`
    Internal,
    /// `DUPLICATE_`: never sent; parsed for completeness.
    Duplicate,
}

/// `CMD …`: what is wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// `UNKNOWN`: no such tag.
    Unknown,
    /// `SYNTAX`: bad parameters.
    Syntax,
    /// `PROHIBITED`: not in this state or role.
    Prohibited,
    /// `NO_AUTH`: authorization is missing.
    NoAuthorization,
    /// `HAS_AUTH`: there must be no authorization, or no entity.
    HasAuthorization,
    /// `NO_ENTITY`: the entity is missing.
    NoEntity,
}

/// `BLOCKED …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Why.
    pub reason: BlockingReason,
    /// v18: what clients may tell their user: `Some(None)` = a notice without an end, `Some(Some(seconds))` with one.
    pub notice: Option<Option<i64>>,
}

/// Why an operator blocked a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingReason {
    /// `spam`
    Spam,
    /// `content`
    Content,
}

/// `PROXY …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyError {
    /// `PROTOCOL …`: what the destination answered.
    Protocol(Box<SmpError>),
    /// `BROKER …`: the destination could not be used.
    Broker(BrokerError),
    /// `BASIC_AUTH`: the proxy's password is wrong.
    BasicAuth,
    /// `NO_SESSION`: unknown proxy session.
    NoSession,
}

/// `BROKER …`: why a relay could not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerError {
    /// `RESPONSE …`: it answered something that cannot be parsed.
    Response(Vec<u8>),
    /// `UNEXPECTED …`: it answered something that does not fit the command.
    Unexpected(Vec<u8>),
    /// `TRANSPORT …`
    Transport(TransportError),
    /// `NETWORK`, with the detail that readers accept and writers leave out.
    Network(NetworkError),
    /// `TIMEOUT`
    Timeout,
    /// `HOST`: no host of the address may be used.
    Host,
    /// `NO_SERVICE`
    NoService,
}

/// `NETWORK …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// `CONNECT …`
    Connect(Vec<u8>),
    /// `TLS …`
    Tls(Vec<u8>),
    /// `UNKNOWNCA`: the certificate is not the one of the address.
    UnknownCertificate,
    /// `FAILED`, and what bare `NETWORK` means.
    Failed,
    /// `TIMEOUT`
    Timeout,
    /// `SUBSCRIBE …`
    Subscribe(Vec<u8>),
}

/// What went wrong in a transport session (WIRE-FACTS 4.5), also the text of a refused service handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// `BLOCK`
    Block,
    /// `VERSION`: no common version.
    Version,
    /// `LARGE_MSG`
    LargeMessage,
    /// `SESSION`: the session id is not that of the TLS connection.
    Session,
    /// `NO_AUTH`: a key is missing in the hello.
    NoAuthorization,
    /// `HANDSHAKE …`
    Handshake(HandshakeError),
}

/// `HANDSHAKE …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeError {
    /// `PARSE`
    Parse,
    /// `IDENTITY`: another relay than the address says.
    Identity,
    /// `BAD_AUTH`: a key or certificate cannot be verified.
    BadAuthorization,
    /// `BAD_SERVICE`: a service certificate cannot be used.
    BadService,
}

/// How deep errors may be nested in `PROXY PROTOCOL …` before a reader refuses: deployed peers nest at most three.
const MAX_NESTING: usize = 8;

impl SmpError {
    /// The error as a session of this version may see it (WIRE-FACTS 5.2): `BLOCKED` is `AUTH` below v12 and has no
    /// notice below v18. Errors inside `PROXY PROTOCOL` stay as they are.
    #[must_use]
    pub fn for_version(&self, version: Version) -> Cow<'_, Self> {
        match self {
            Self::Blocked(_) if version < Version::BLOCKED => Cow::Owned(Self::Authorization),
            Self::Blocked(blocked) if version < Version::BLOCKED_NOTICE && blocked.notice.is_some() => {
                Cow::Owned(Self::Blocked(Blocked { reason: blocked.reason, notice: None }))
            }
            _ => Cow::Borrowed(self),
        }
    }

    /// Reads all of `bytes` as the payload of `ERR`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Self::decode_nested(bytes, MAX_NESTING)
    }

    fn decode_nested(bytes: &[u8], depth: usize) -> Option<Self> {
        let (word, rest) = split_word(bytes);
        Some(match (word, rest) {
            (b"BLOCK", None) => Self::Block,
            (b"SESSION", None) => Self::Session,
            (b"CMD", Some(rest)) => Self::Command(CommandError::decode(rest)?),
            (b"PROXY", Some(rest)) => Self::Proxy(ProxyError::decode(rest, depth.checked_sub(1)?)?),
            (b"AUTH", None) => Self::Authorization,
            (b"BLOCKED", Some(rest)) => Self::Blocked(Blocked::decode(rest)?),
            (b"SERVICE", None) => Self::Service,
            (b"CRYPTO", None) => Self::Crypto,
            (b"QUOTA", None) => Self::Quota,
            (b"STORE", Some(text)) => Self::Store(text.to_vec()),
            (b"EXPIRED", None) => Self::Expired,
            (b"NO_MSG", None) => Self::NoMessage,
            (b"LARGE_MSG", None) => Self::LargeMessage,
            (b"INTERNAL", None) => Self::Internal,
            (b"DUPLICATE_", None) => Self::Duplicate,
            _ => return None,
        })
    }

    /// Writes the payload of `ERR`, without regard to versions.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        self.write(out, Form::Wire)
    }

    fn write(&self, out: &mut impl Writer, form: Form) -> Result<(), Full> {
        match self {
            Self::Block => out.put(b"BLOCK"),
            Self::Session => out.put(b"SESSION"),
            Self::Command(error) => {
                out.put(b"CMD ")?;
                out.put(error.name())
            }
            Self::Proxy(error) => {
                out.put(b"PROXY ")?;
                error.write(out, form)
            }
            Self::Authorization => out.put(b"AUTH"),
            Self::Blocked(blocked) => {
                out.put(b"BLOCKED ")?;
                blocked.write(out)
            }
            Self::Service => out.put(b"SERVICE"),
            Self::Crypto => out.put(b"CRYPTO"),
            Self::Quota => out.put(b"QUOTA"),
            Self::Store(text) => {
                out.put(b"STORE ")?;
                out.put(text)
            }
            Self::Expired => out.put(b"EXPIRED"),
            Self::NoMessage => out.put(b"NO_MSG"),
            Self::LargeMessage => out.put(b"LARGE_MSG"),
            Self::Internal => out.put(b"INTERNAL"),
            Self::Duplicate => out.put(b"DUPLICATE_"),
        }
    }
}

/// The error as logs and people see it: like the wire form, but nested texts carry no length byte.
impl core::fmt::Display for SmpError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut text = Vec::new();
        self.write(&mut text, Form::Text).map_err(|Full| core::fmt::Error)?;
        formatter.write_str(&String::from_utf8_lossy(&text))
    }
}

impl core::error::Error for SmpError {}

/// Texts inside errors have a length byte on the wire, and none in text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Wire,
    Text,
}

impl Form {
    fn write(self, name: &[u8], text: &[u8], out: &mut impl Writer) -> Result<(), Full> {
        out.put(name)?;
        match self {
            Self::Wire => out.short(text),
            Self::Text => out.put(text),
        }
    }
}

/// The bytes before the first space, and those after it when there is one.
fn split_word(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == SPACE) {
        Some(at) => (bytes.get(..at).unwrap_or_default(), bytes.get(at + 1..)),
        None => (bytes, None),
    }
}

/// All of `bytes` as one short string.
fn only_short(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let text = reader.short()?;
    reader.end()?;
    Some(text.to_vec())
}

impl CommandError {
    /// The word after `CMD `.
    #[must_use]
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Unknown => b"UNKNOWN",
            Self::Syntax => b"SYNTAX",
            Self::Prohibited => b"PROHIBITED",
            Self::NoAuthorization => b"NO_AUTH",
            Self::HasAuthorization => b"HAS_AUTH",
            Self::NoEntity => b"NO_ENTITY",
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"UNKNOWN" => Self::Unknown,
            b"SYNTAX" => Self::Syntax,
            b"PROHIBITED" => Self::Prohibited,
            b"NO_AUTH" => Self::NoAuthorization,
            b"HAS_AUTH" => Self::HasAuthorization,
            b"NO_ENTITY" | b"NO_QUEUE" => Self::NoEntity,
            _ => return None,
        })
    }
}

impl From<CommandError> for SmpError {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl Blocked {
    fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"reason=")?;
        let (reason, rest) = if let Some(rest) = rest.strip_prefix(b"spam") {
            (BlockingReason::Spam, rest)
        } else {
            (BlockingReason::Content, rest.strip_prefix(b"content")?)
        };
        let notice = match rest {
            b"" => None,
            _ => Some(decode_notice(rest.strip_prefix(b",notice=")?)?),
        };
        Some(Self { reason, notice })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.put(match self.reason {
            BlockingReason::Spam => b"reason=spam",
            BlockingReason::Content => b"reason=content",
        })?;
        match self.notice {
            None => Ok(()),
            Some(None) => out.put(b",notice={}"),
            Some(Some(seconds)) => out.put(format!(",notice={{\"ttl\":{seconds}}}").as_bytes()),
        }
    }
}

/// The JSON of a notice: an object whose only known member is `ttl`, in seconds; absent or null = without an end.
fn decode_notice(bytes: &[u8]) -> Option<Option<i64>> {
    let object = core::str::from_utf8(bytes).ok()?.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    if object.is_empty() {
        return Some(None);
    }
    let value = object.strip_prefix("\"ttl\"")?.trim_start().strip_prefix(':')?.trim();
    if value == "null" { Some(None) } else { value.parse().ok().map(Some) }
}

impl ProxyError {
    fn decode(bytes: &[u8], depth: usize) -> Option<Self> {
        let (word, rest) = split_word(bytes);
        Some(match (word, rest) {
            (b"PROTOCOL", Some(rest)) => Self::Protocol(Box::new(SmpError::decode_nested(rest, depth)?)),
            (b"BROKER", Some(rest)) => Self::Broker(BrokerError::decode(rest)?),
            (b"BASIC_AUTH", None) => Self::BasicAuth,
            (b"NO_SESSION", None) => Self::NoSession,
            _ => return None,
        })
    }

    fn write(&self, out: &mut impl Writer, form: Form) -> Result<(), Full> {
        match self {
            Self::Protocol(error) => {
                out.put(b"PROTOCOL ")?;
                error.write(out, form)
            }
            Self::Broker(error) => {
                out.put(b"BROKER ")?;
                error.write(out, form)
            }
            Self::BasicAuth => out.put(b"BASIC_AUTH"),
            Self::NoSession => out.put(b"NO_SESSION"),
        }
    }
}

impl BrokerError {
    /// Reads all of `bytes`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (word, rest) = split_word(bytes);
        Some(match (word, rest) {
            (b"RESPONSE", Some(rest)) => Self::Response(only_short(rest)?),
            (b"UNEXPECTED", Some(rest)) => Self::Unexpected(only_short(rest)?),
            (b"TRANSPORT", Some(rest)) => Self::Transport(TransportError::decode(rest)?),
            (b"NETWORK", None) => Self::Network(NetworkError::Failed),
            (b"NETWORK", Some(rest)) => Self::Network(NetworkError::decode(rest)?),
            (b"TIMEOUT", None) => Self::Timeout,
            (b"HOST", None) => Self::Host,
            (b"NO_SERVICE", None) => Self::NoService,
            _ => return None,
        })
    }

    /// Writes the error; of a network error only that it is one.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        self.write(out, Form::Wire)
    }

    fn write(&self, out: &mut impl Writer, form: Form) -> Result<(), Full> {
        match self {
            Self::Response(text) => form.write(b"RESPONSE ", text, out),
            Self::Unexpected(text) => form.write(b"UNEXPECTED ", text, out),
            Self::Transport(error) => {
                out.put(b"TRANSPORT ")?;
                error.encode(out)
            }
            Self::Network(_) => out.put(b"NETWORK"),
            Self::Timeout => out.put(b"TIMEOUT"),
            Self::Host => out.put(b"HOST"),
            Self::NoService => out.put(b"NO_SERVICE"),
        }
    }
}

impl NetworkError {
    /// Reads all of `bytes`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (word, rest) = split_word(bytes);
        Some(match (word, rest) {
            (b"CONNECT", Some(rest)) => Self::Connect(only_short(rest)?),
            (b"TLS", Some(rest)) => Self::Tls(only_short(rest)?),
            (b"UNKNOWNCA", None) => Self::UnknownCertificate,
            (b"FAILED", None) => Self::Failed,
            (b"TIMEOUT", None) => Self::Timeout,
            (b"SUBSCRIBE", Some(rest)) => Self::Subscribe(only_short(rest)?),
            _ => return None,
        })
    }

    /// Writes the detail that deployed writers leave out.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Connect(text) => Form::Wire.write(b"CONNECT ", text, out),
            Self::Tls(text) => Form::Wire.write(b"TLS ", text, out),
            Self::UnknownCertificate => out.put(b"UNKNOWNCA"),
            Self::Failed => out.put(b"FAILED"),
            Self::Timeout => out.put(b"TIMEOUT"),
            Self::Subscribe(text) => Form::Wire.write(b"SUBSCRIBE ", text, out),
        }
    }
}

impl TransportError {
    /// Reads all of `bytes`.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            b"BLOCK" => Self::Block,
            b"VERSION" => Self::Version,
            b"LARGE_MSG" => Self::LargeMessage,
            b"SESSION" => Self::Session,
            b"NO_AUTH" => Self::NoAuthorization,
            b"HANDSHAKE PARSE" => Self::Handshake(HandshakeError::Parse),
            b"HANDSHAKE IDENTITY" => Self::Handshake(HandshakeError::Identity),
            b"HANDSHAKE BAD_AUTH" => Self::Handshake(HandshakeError::BadAuthorization),
            b"HANDSHAKE BAD_SERVICE" => Self::Handshake(HandshakeError::BadService),
            _ => return None,
        })
    }

    /// The error's text.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Block => "BLOCK",
            Self::Version => "VERSION",
            Self::LargeMessage => "LARGE_MSG",
            Self::Session => "SESSION",
            Self::NoAuthorization => "NO_AUTH",
            Self::Handshake(HandshakeError::Parse) => "HANDSHAKE PARSE",
            Self::Handshake(HandshakeError::Identity) => "HANDSHAKE IDENTITY",
            Self::Handshake(HandshakeError::BadAuthorization) => "HANDSHAKE BAD_AUTH",
            Self::Handshake(HandshakeError::BadService) => "HANDSHAKE BAD_SERVICE",
        }
    }

    /// Writes the error's text.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(self, out: &mut impl Writer) -> Result<(), Full> {
        out.put(self.text().as_bytes())
    }
}
