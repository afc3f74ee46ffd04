//! The queues of a connection.

use alloc::vec::Vec;

use super::{read_ed25519, read_shared, read_u32, read_x25519};
use crate::agent::storage::QueueNumber;
use crate::crypto::SharedSecret;
use crate::keys::{AuthKey, Ed25519Secret, X25519Public, X25519Secret};
use crate::wire::address::ServerAddress;
use crate::wire::agent_message::QueueAddress;
use crate::wire::command::QueueMode;
use crate::wire::identifier::Identifier;
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::version::Version;

/// A queue of ours: we receive from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct ReceiveQueue {
    pub number: QueueNumber,
    pub relay: ServerAddress,
    /// The recipient's id.
    pub recipient: Identifier,
    /// The sender's id: part of the address.
    pub sender: Identifier,
    /// Authorizes the recipient's commands.
    pub key: Ed25519Secret,
    /// With what the relay encrypts messages.
    pub delivery: SharedSecret,
    /// Its public part is in the queue's address.
    pub dh: X25519Secret,
    /// With what the sender encrypts, once we know them. Contact addresses never have it.
    pub sender_secret: Option<SharedSecret>,
    /// The version of the envelopes.
    pub version: Version,
    pub mode: Option<QueueMode>,
    /// How far the replacement of this queue, or by this queue, has come.
    pub switch: ReceiveSwitch,
    /// Whether it is open to messages.
    pub opening: Opening,
}

/// Whether a queue of ours is open to messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Opening {
    /// It is.
    Open,
    /// It shall be closed (`OFF`).
    Closing,
    /// It accepts no more.
    Closed,
}

/// The part of a receiving queue in a switch to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::agent) enum ReceiveSwitch {
    /// None.
    None,
    /// It shall replace that one: the sender was told of it (`QADD`).
    Replaces(QueueNumber),
    /// The sender has told its key (`QKEY`), with which it is to be secured.
    Securing {
        /// The queue that it shall replace.
        replaced: QueueNumber,
        key: AuthKey,
    },
    /// It is to be deleted: messages come by another one.
    Leaving,
}

impl ReceiveSwitch {
    /// The queue that this one shall replace.
    pub const fn replaced(self) -> Option<QueueNumber> {
        match self {
            Self::Replaces(number) | Self::Securing { replaced: number, .. } => Some(number),
            Self::None | Self::Leaving => None,
        }
    }
}

impl ReceiveQueue {
    /// Whether this is the queue of that address.
    pub fn is_at(&self, relay: &ServerAddress, sender: &Identifier) -> bool {
        is_same(&self.relay, &self.sender, relay, sender)
    }

    /// Where the sender sends to.
    pub fn address(&self) -> QueueAddress {
        QueueAddress { server: self.relay.clone(), sender: self.sender.clone() }
    }

    /// number (4) ‖ relay ‖ recipient id ‖ sender id ‖ key (32) ‖ delivery (32) ‖ dh (32) ‖ maybe sender secret (32)
    /// ‖ version (2) ‖ mode ‖ switch (1, some with the replaced number and a key) ‖
    /// opening (1)
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.put(&self.number.0.to_be_bytes())?;
        self.relay.write(out)?;
        out.identifier(&self.recipient)?;
        out.identifier(&self.sender)?;
        out.put(self.key.as_bytes())?;
        out.put(self.delivery.as_bytes())?;
        out.put(self.dh.as_bytes())?;
        out.maybe(self.sender_secret.as_ref(), |out, secret| out.put(secret.as_bytes()))?;
        out.u16(self.version.0)?;
        write_mode(out, self.mode)?;
        match self.switch {
            ReceiveSwitch::None => out.byte(0),
            ReceiveSwitch::Replaces(number) => {
                out.byte(1)?;
                out.put(&number.0.to_be_bytes())
            }
            ReceiveSwitch::Leaving => out.byte(2),
            ReceiveSwitch::Securing { replaced, key } => {
                out.byte(3)?;
                out.put(&replaced.0.to_be_bytes())?;
                out.auth_key(&key)
            }
        }?;
        out.byte(match self.opening {
            Opening::Open => 0,
            Opening::Closing => 1,
            Opening::Closed => 2,
        })
    }

    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            number: read_u32(read).map(QueueNumber)?,
            relay: ServerAddress::read(read)?,
            recipient: read.identifier()?,
            sender: read.identifier()?,
            key: read_ed25519(read)?,
            delivery: read_shared(read)?,
            dh: read_x25519(read)?,
            sender_secret: read.maybe(read_shared)?,
            version: read.version()?,
            mode: read_mode(read)?,
            switch: match read.byte()? {
                0 => ReceiveSwitch::None,
                1 => ReceiveSwitch::Replaces(read_u32(read).map(QueueNumber)?),
                2 => ReceiveSwitch::Leaving,
                3 => ReceiveSwitch::Securing {
                    replaced: read_u32(read).map(QueueNumber)?,
                    key: read.auth_key()?,
                },
                _ => return None,
            },
            opening: match read.byte()? {
                0 => Opening::Open,
                1 => Opening::Closing,
                2 => Opening::Closed,
                _ => return None,
            },
        })
    }
}

/// A queue of the peer's: we send to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct SendQueue {
    pub number: QueueNumber,
    pub relay: ServerAddress,
    /// The sender's id.
    pub sender: Identifier,
    /// Authorizes us, once the queue is secured.
    pub key: X25519Secret,
    /// Our part of `secret`, for the first message.
    pub dh: X25519Public,
    /// With what we encrypt.
    pub secret: SharedSecret,
    /// The version of the envelopes.
    pub version: Version,
    pub mode: Option<QueueMode>,
    /// Whether it was secured with our key, as far as we know.
    pub secured: bool,
    /// The queue that this one shall replace.
    pub replaces: Option<QueueNumber>,
}

impl SendQueue {
    /// Whether we secure it ourselves.
    pub fn is_securable(&self) -> bool {
        self.mode == Some(QueueMode::Messaging)
    }

    /// Whether this is the queue of that address.
    pub fn is_at(&self, address: &QueueAddress) -> bool {
        is_same(&self.relay, &self.sender, &address.server, &address.sender)
    }

    /// number (4) ‖ relay ‖ sender id ‖ key (32) ‖ dh (32) ‖ secret (32) ‖ version (2) ‖ mode ‖ secured ‖ maybe
    /// replaced number (4)
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.put(&self.number.0.to_be_bytes())?;
        self.relay.write(out)?;
        out.identifier(&self.sender)?;
        out.put(self.key.as_bytes())?;
        out.put(&self.dh.0)?;
        out.put(self.secret.as_bytes())?;
        out.u16(self.version.0)?;
        write_mode(out, self.mode)?;
        out.bool(self.secured)?;
        out.maybe(self.replaces.as_ref(), |out, number| out.put(&number.0.to_be_bytes()))
    }

    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            number: read_u32(read).map(QueueNumber)?,
            relay: ServerAddress::read(read)?,
            sender: read.identifier()?,
            key: read_x25519(read)?,
            dh: X25519Public(*read.array()?),
            secret: read_shared(read)?,
            version: read.version()?,
            mode: read_mode(read)?,
            secured: read.bool()?,
            replaces: read.maybe(|read| read_u32(read).map(QueueNumber))?,
        })
    }
}

/// Old versions leave hosts out of an address; who the relay is, and its id of the queue, they do not.
fn is_same(
    relay: &ServerAddress,
    sender: &Identifier,
    other: &ServerAddress,
    other_sender: &Identifier,
) -> bool {
    relay.fingerprint == other.fingerprint && sender == other_sender
}

/// `0`, `M` or `C`.
fn write_mode(out: &mut Vec<u8>, mode: Option<QueueMode>) -> Result<(), Full> {
    out.byte(match mode {
        None => b'0',
        Some(QueueMode::Messaging) => b'M',
        Some(QueueMode::Contact) => b'C',
    })
}

fn read_mode(read: &mut Reader<'_>) -> Option<Option<QueueMode>> {
    match read.byte()? {
        b'0' => Some(None),
        b'M' => Some(Some(QueueMode::Messaging)),
        b'C' => Some(Some(QueueMode::Contact)),
        _ => None,
    }
}
