//! Protocol errors (WIRE-FACTS 5.2): the payload of `ERR`.

use alloc::boxed::Box;
use alloc::vec::Vec;

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
