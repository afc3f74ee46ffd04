//! A connection or contact address.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use zeroize::{Zeroize, Zeroizing};

use super::queue::{ReceiveQueue, SendQueue};
use super::{Record, read_ed25519, read_list, read_u32, read_u64, read_x25519, write_list};
use crate::agent::storage::QueueNumber;
use crate::crypto::ratchet::InitialKeys;
use crate::crypto::ratchet::Synchronization;
use crate::keys::{AuthKey, Ed25519Secret, X25519Secret};
use crate::wire::address::{AddressWithPassword, ServerAddress};
use crate::wire::identifier::Identifier;
use crate::wire::links::ratchet_parameters::RatchetParameters;
use crate::wire::links::short_link::ShortLink;
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::queue_uri::AgreedQueue;
use crate::wire::version::Version;

/// How many envelopes are remembered, to know them when they come again.
pub(in crate::agent) const REMEMBERED: usize = 16;
/// Of how many messages the hash is kept until their receipt comes.
pub(in crate::agent) const UNRECEIPTED: usize = 64;
/// How many keys of the peer's for a new ratchet are remembered.
pub(in crate::agent) const REMEMBERED_KEYS: usize = 8;

/// Where a connection stands: the table in the room's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Stage {
    /// Initiator: `NEW` for an invitation.
    CreatingInvitation,
    /// Initiator: somebody may confirm.
    Invited,
    /// Initiator: somebody did; the application decides.
    Confirmed {
        reply: AgreedQueue,
        /// With which our queue is to be secured (four messages).
        sender_key: Option<AuthKey>,
        /// What their application tells.
        information: Vec<u8>,
    },
    /// Initiator: `KEY` for our queue (four messages). The confirmation waits.
    SecuringOwn { key: AuthKey },
    /// Initiator: `SKEY` for the reply queue. The confirmation waits.
    SecuringReply,
    /// Initiator: the confirmation leaves.
    Replying,
    /// Acceptor: `SKEY` for the queue of the invitation.
    SecuringPeer,
    /// Acceptor: `NEW` for the reply queue.
    CreatingReply,
    /// Acceptor: the confirmation leaves.
    Confirming,
    /// Acceptor: the initiator may confirm.
    Joined,
    /// Acceptor: `KEY` for the reply queue (four messages).
    SecuringForHello { key: AuthKey },
    /// Both, four messages: the acceptor greets first, the initiator in answer.
    Greeting { first: bool, sent: bool, received: bool },
    /// Both.
    Connected,
    /// Owner of a contact address: `NEW`.
    CreatingAddress,
    /// Owner of a contact address: requests may come.
    Address,
    /// Initiator by a contact address: `NEW`; the request leaves when our invitation exists.
    CreatingForRequest,
    /// Whoever joins by a short link: `LKEY` or `LGET`.
    ReadingLink {
        link: ShortLink,
        /// With which the queue of an invitation is secured.
        key: X25519Secret,
    },
    /// All: queues are deleted, then the record.
    Deleting,
}

impl Stage {
    /// Whether the next step is a relay's answer: not a person's, and not the other side's.
    pub(crate) const fn waits_for_a_relay(&self) -> bool {
        match self {
            Self::CreatingInvitation
            | Self::SecuringOwn { .. }
            | Self::SecuringReply
            | Self::Replying
            | Self::SecuringPeer
            | Self::CreatingReply
            | Self::Confirming
            | Self::SecuringForHello { .. }
            | Self::CreatingAddress
            | Self::CreatingForRequest
            | Self::ReadingLink { .. }
            | Self::Deleting => true,
            Self::Invited
            | Self::Confirmed { .. }
            | Self::Joined
            | Self::Greeting { .. }
            | Self::Connected
            | Self::Address => false,
        }
    }

    /// A name for errors and logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreatingInvitation => "creating an invitation",
            Self::Invited => "waiting for somebody to use the invitation",
            Self::Confirmed { .. } => "waiting for the application to allow the connection",
            Self::SecuringOwn { .. } | Self::SecuringReply | Self::Replying => "answering the confirmation",
            Self::SecuringPeer | Self::CreatingReply | Self::Confirming => "joining",
            Self::Joined => "waiting for the initiator's confirmation",
            Self::SecuringForHello { .. } | Self::Greeting { .. } => "exchanging greetings",
            Self::Connected => "connected",
            Self::CreatingAddress => "creating a contact address",
            Self::Address => "a contact address",
            Self::CreatingForRequest => "asking at a contact address",
            Self::ReadingLink { .. } => "reading what is behind a short link",
            Self::Deleting => "deleting",
        }
    }

    /// Tag (1) ‖ fields.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        match self {
            Self::CreatingInvitation => out.byte(1),
            Self::Invited => out.byte(2),
            Self::Confirmed { reply, sender_key, information } => {
                out.byte(3)?;
                // A mode that is left out is told by what follows: never one of its letters.
                reply.write(out)?;
                out.maybe(sender_key.as_ref(), |out, key| out.auth_key(key))?;
                out.large(information)
            }
            Self::SecuringOwn { key } => {
                out.byte(4)?;
                out.auth_key(key)
            }
            Self::SecuringReply => out.byte(5),
            Self::Replying => out.byte(6),
            Self::SecuringPeer => out.byte(7),
            Self::CreatingReply => out.byte(8),
            Self::Confirming => out.byte(9),
            Self::Joined => out.byte(10),
            Self::SecuringForHello { key } => {
                out.byte(11)?;
                out.auth_key(key)
            }
            Self::Greeting { first, sent, received } => {
                out.byte(12)?;
                out.bool(*first)?;
                out.bool(*sent)?;
                out.bool(*received)
            }
            Self::Connected => out.byte(13),
            Self::CreatingAddress => out.byte(14),
            Self::Address => out.byte(15),
            Self::CreatingForRequest => out.byte(16),
            Self::Deleting => out.byte(17),
            Self::ReadingLink { link, key } => {
                out.byte(18)?;
                link.write(out)?;
                out.put(key.as_bytes())
            }
        }
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(match read.byte()? {
            1 => Self::CreatingInvitation,
            2 => Self::Invited,
            3 => Self::Confirmed {
                reply: AgreedQueue::read(read)?,
                sender_key: read.maybe(Reader::auth_key)?,
                information: read.large()?.to_vec(),
            },
            4 => Self::SecuringOwn { key: read.auth_key()? },
            5 => Self::SecuringReply,
            6 => Self::Replying,
            7 => Self::SecuringPeer,
            8 => Self::CreatingReply,
            9 => Self::Confirming,
            10 => Self::Joined,
            11 => Self::SecuringForHello { key: read.auth_key()? },
            12 => Self::Greeting { first: read.bool()?, sent: read.bool()?, received: read.bool()? },
            13 => Self::Connected,
            14 => Self::CreatingAddress,
            15 => Self::Address,
            16 => Self::CreatingForRequest,
            17 => Self::Deleting,
            18 => Self::ReadingLink { link: ShortLink::read(read)?, key: read_x25519(read)? },
            _ => return None,
        })
    }
}

/// The number and hash of the last message in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::agent) struct Chain {
    /// 0 before the first.
    pub number: i64,
    /// SHA-256 of the last message; `None` before the first.
    pub hash: Option<[u8; 32]>,
}

impl Chain {
    /// The hash as the next message carries it: empty before the first.
    pub fn previous(&self) -> &[u8] {
        self.hash.as_ref().map_or(&[], |hash| hash)
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.i64(self.number)?;
        out.maybe(self.hash.as_ref(), |out, hash| out.put(hash))
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self { number: read.i64()?, hash: read.maybe(|read| read.array().copied())? })
    }
}

/// The short link of an invitation or contact address.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::agent) struct OwnLink {
    /// Signs what is behind the link.
    pub root: Ed25519Secret,
    /// What the application keeps there.
    pub user_data: Vec<u8>,
    /// The key of the link, when it exists.
    pub key: Option<[u8; 32]>,
    /// Where the relay keeps it, when it exists.
    pub id: Option<Identifier>,
    /// The sealed fixed part of an address: the relay wants the same bytes again when `user_data` changes.
    pub fixed: Vec<u8>,
    /// Whether the relay is to be told of new `user_data`.
    pub changed: bool,
}

impl OwnLink {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.put(self.root.as_bytes())?;
        out.large(&self.user_data)?;
        out.maybe(self.key.as_ref(), |out, key| out.put(key))?;
        out.maybe(self.id.as_ref(), |out, id| out.identifier(id))?;
        out.large(&self.fixed)?;
        out.bool(self.changed)
    }

    fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            root: read_ed25519(read)?,
            user_data: read.large()?.to_vec(),
            key: read.maybe(|read| read.array().copied())?,
            id: read.maybe(Reader::identifier)?,
            fixed: read.large()?.to_vec(),
            changed: read.bool()?,
        })
    }
}

impl Drop for OwnLink {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// Everything of a connection but its ratchet and its messages.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::agent) struct Connection {
    pub stage: Stage,
    /// The agreed version of the agent's protocol.
    pub version: Version,
    /// The short link, when there is or shall be one.
    pub short: Option<OwnLink>,
    /// Where a queue of ours is to be created.
    pub creating: Option<AddressWithPassword>,
    /// Our queues: none, one, or two during a switch.
    pub receive: Vec<ReceiveQueue>,
    /// The peer's queues: none, one, or two during a switch.
    pub send: Vec<SendQueue>,
    /// The private keys of a ratchet that has not begun, as [`InitialKeys`] stores them.
    pub keys: Option<Zeroizing<Vec<u8>>>,
    /// The public keys of the ratchet that we began: they go with the confirmation.
    pub parameters: Option<RatchetParameters>,
    pub synchronization: Synchronization,
    /// Our information for the peer, until it is sent.
    pub information: Zeroizing<Vec<u8>>,
    /// Whether a confirmation is answered with `information` without asking the application.
    pub answers: bool,
    pub sent: Chain,
    pub received: Chain,
    /// SHA-256 of envelopes that came: the newest last.
    pub remembered: VecDeque<[u8; 32]>,
    /// SHA-256 of the keys of `AgentRatchetKey` that came: the newest last.
    pub remembered_keys: VecDeque<[u8; 32]>,
    /// Number and hash of messages without receipt: the newest last.
    pub unreceipted: VecDeque<(i64, [u8; 32])>,
    /// How many messages the application has sent.
    pub accepted: u64,
    pub next_queue: u32,
    pub next_sequence: u64,
}

impl Connection {
    /// A connection that begins at this stage.
    pub fn new(stage: Stage, version: Version) -> Self {
        Self {
            stage,
            version,
            short: None,
            creating: None,
            receive: Vec::new(),
            send: Vec::new(),
            keys: None,
            parameters: None,
            synchronization: Synchronization::Good,
            information: Zeroizing::new(Vec::new()),
            answers: false,
            sent: Chain::default(),
            received: Chain::default(),
            remembered: VecDeque::new(),
            remembered_keys: VecDeque::new(),
            unreceipted: VecDeque::new(),
            accepted: 0,
            next_queue: 0,
            next_sequence: 0,
        }
    }

    /// A number for a new queue.
    pub fn number_queue(&mut self) -> QueueNumber {
        let number = self.next_queue;
        self.next_queue = self.next_queue.wrapping_add(1);
        QueueNumber(number)
    }

    /// Keeps the hash of an envelope.
    pub fn remember(&mut self, hash: [u8; 32]) {
        if self.remembered.len() >= REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back(hash);
    }

    pub fn receive_queue(&self, number: QueueNumber) -> Option<&ReceiveQueue> {
        self.receive.iter().find(|queue| queue.number == number)
    }

    pub fn receive_queue_mut(&mut self, number: QueueNumber) -> Option<&mut ReceiveQueue> {
        self.receive.iter_mut().find(|queue| queue.number == number)
    }

    pub fn send_queue(&self, number: QueueNumber) -> Option<&SendQueue> {
        self.send.iter().find(|queue| queue.number == number)
    }
}

/// Keys and information are never printed.
impl core::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Connection({})", self.stage.name())
    }
}

impl Record for Connection {
    const LAYOUT: u8 = 1;

    /// stage ‖ version (2) ‖ maybe short link ‖ maybe relay and password ‖ list of our queues ‖ list of the peer's ‖ maybe keys of a ratchet (large)
    /// ‖ maybe parameters ‖ synchronization (1) ‖ information (large) ‖ answers ‖ two chains ‖ list of hashes (32)
    /// ‖ list of hashes (32) ‖ list of number and hash (40) ‖ accepted (8) ‖ next queue (4) ‖ next sequence (8)
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        self.stage.write(out)?;
        out.u16(self.version.0)?;
        out.maybe(self.short.as_ref(), |out, short| short.write(out))?;
        out.maybe(self.creating.as_ref(), |out, relay| {
            relay.address.write(out)?;
            out.maybe(relay.password.as_ref(), |out, password| out.short(password))
        })?;
        write_list(out, self.receive.iter(), |out, queue| queue.write(out))?;
        write_list(out, self.send.iter(), |out, queue| queue.write(out))?;
        out.maybe(self.keys.as_ref(), |out, keys| out.large(keys))?;
        out.maybe(self.parameters.as_ref(), |out, parameters| parameters.write(out))?;
        out.byte(match self.synchronization {
            Synchronization::Good => 0,
            Synchronization::Allowed => 1,
            Synchronization::Required => 2,
            Synchronization::Started => 3,
            Synchronization::Agreed => 4,
        })?;
        out.large(&self.information)?;
        out.bool(self.answers)?;
        self.sent.write(out)?;
        self.received.write(out)?;
        write_list(out, self.remembered.iter(), |out, hash| out.put(hash))?;
        write_list(out, self.remembered_keys.iter(), |out, hash| out.put(hash))?;
        write_list(out, self.unreceipted.iter(), |out, (number, hash)| {
            out.i64(*number)?;
            out.put(hash)
        })?;
        out.put(&self.accepted.to_be_bytes())?;
        out.put(&self.next_queue.to_be_bytes())?;
        out.put(&self.next_sequence.to_be_bytes())
    }

    fn read(read: &mut Reader<'_>, _layout: u8) -> Option<Self> {
        Some(Self {
            stage: Stage::read(read)?,
            version: read.version()?,
            short: read.maybe(OwnLink::read)?,
            creating: read.maybe(|read| {
                Some(AddressWithPassword {
                    address: ServerAddress::read(read)?,
                    password: read
                        .maybe(|read| read.short().map(|password| Zeroizing::new(password.to_vec())))?,
                })
            })?,
            receive: read_list(read, ReceiveQueue::read)?,
            send: read_list(read, SendQueue::read)?,
            keys: read.maybe(|read| {
                let keys = read.large()?;
                InitialKeys::from_bytes(keys).is_ok().then(|| Zeroizing::new(keys.to_vec()))
            })?,
            parameters: read.maybe(RatchetParameters::read)?,
            synchronization: match read.byte()? {
                0 => Synchronization::Good,
                1 => Synchronization::Allowed,
                2 => Synchronization::Required,
                3 => Synchronization::Started,
                4 => Synchronization::Agreed,
                _ => return None,
            },
            information: Zeroizing::new(read.large()?.to_vec()),
            answers: read.bool()?,
            sent: Chain::read(read)?,
            received: Chain::read(read)?,
            remembered: read_list(read, |read| read.array().copied())?,
            remembered_keys: read_list(read, |read| read.array().copied())?,
            unreceipted: read_list(read, |read| Some((read.i64()?, *read.array()?)))?,
            accepted: read_u64(read)?,
            next_queue: read_u32(read)?,
            next_sequence: read_u64(read)?,
        })
    }
}
