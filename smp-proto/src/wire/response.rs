//! Responses and notifications that relays send (WIRE-FACTS 5.1), every one of versions 6 to 18.

use alloc::string::String;

use super::command::LinkData;
use super::command::QueueMode;
use super::error::SmpError;
use super::hello::{CertificateChain, SignedKey};
use super::identifier::{IDENTIFIER_LENGTH, Identifier};
use super::version::VersionRange;
use crate::keys::X25519Public;

/// A response with its parameters, as a client reads it. Long parts are borrowed from the block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// `IDS`: the queue was created.
    Created(CreatedQueue),
    /// `LNK` (v15): link data.
    Link {
        /// The queue's sender id.
        sender: Identifier,
        /// The encrypted link data.
        data: LinkData<'a>,
    },
    /// `SOK` (v16; below it is `OK`): subscribed.
    Subscribed {
        /// The service that the subscription belongs to.
        service: Option<Identifier>,
    },
    /// `SOKS` (v16): a service is subscribed to this many queues.
    ServiceSubscribed(i64),
    /// `MSG`: a message; 16,122 bytes of ciphertext for every ordinary one (WIRE-FACTS 9).
    Message {
        /// The message id, which is also the nonce: 24 bytes.
        id: Identifier,
        /// The encrypted body.
        body: &'a [u8],
    },
    /// `NID`: notifications are on.
    NotifierId(NotifierIds),
    /// `NMSG`: there is a message.
    Notification {
        /// The nonce of the metadata.
        nonce: [u8; IDENTIFIER_LENGTH],
        /// The encrypted metadata, 144 bytes.
        metadata: &'a [u8],
    },
    /// `PKEY` (v8): the proxy's session with the relay.
    ProxySession {
        /// Its session id.
        session: Identifier,
        /// The versions the client may choose from.
        versions: VersionRange,
        /// The relay's certificates, leaf first.
        chain: CertificateChain<'a>,
        /// The relay's session key, signed by the leaf.
        key: SignedKey<'a>,
    },
    /// `RRES` (v8): the answer to a forwarded command, to the proxy.
    RelayResponse(&'a [u8]),
    /// `PRES` (v8): the answer to a forwarded command, to the client.
    ProxyResponse(&'a [u8]),
    /// `END`: another connection subscribed.
    End,
    /// `ENDS` (v16): another connection subscribed the service, with this many queues.
    ServiceEnd(i64),
    /// `DELD` (v10; below it is `END`): the queue was deleted.
    Deleted,
    /// `INFO`: the queue's description, JSON.
    Information(&'a str),
    /// `OK`.
    Ok,
    /// `PONG`.
    Pong,
    /// `ERR`.
    Error(SmpError),
}

/// The parameters of `IDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedQueue {
    /// The recipient's id of the queue.
    pub recipient: Identifier,
    /// The sender's id of the queue.
    pub sender: Identifier,
    /// For the secret with which messages to the recipient are encrypted.
    pub relay_dh: X25519Public,
    /// The queue's mode; `None` when unknown.
    pub mode: Option<QueueMode>,
    /// v15: the link id.
    pub link: Option<Identifier>,
    /// v16: the service that the queue belongs to.
    pub service: Option<Identifier>,
    /// v17: the notifier.
    pub notifier: Option<NotifierIds>,
}

/// The parameters of `NID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotifierIds {
    /// The notifier's id of the queue.
    pub notifier: Identifier,
    /// For the secret with which notification metadata is encrypted.
    pub relay_dh: X25519Public,
}

/// Free text inside an error, kept as the bytes that came.
pub type ErrorText = String;
