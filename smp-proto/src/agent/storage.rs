//! What an agent asks of its storage: to put and delete small records by key, several at once or none of them.
//!
//! The driver keeps one table from keys to bytes. A [`Batch`] is one transaction: after a crash either all of its writes
//! are there or none is. There is at most one batch on its way at a time, so storage need not order anything. Records hold
//! private keys and plaintext: the driver encrypts them at rest.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::crypto::ratchet::SkippedId;
use crate::wire::primitives::Reader;

/// Names a connection or a contact address; never used twice by one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Names a request that came to a contact address; never used twice by one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names a queue within its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueNumber(pub u32);

/// Names a message to be sent within its connection: they leave in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// The numbers that were given out.
    Counters,
    /// A connection: its stage, queues, keys and counters.
    Connection(ConnectionId),
    /// The double ratchet of a connection.
    Ratchet(ConnectionId),
    /// The key of a message that did not come yet, while later ones did.
    Skipped(ConnectionId, SkippedId),
    /// A message that is to be sent, and its key.
    Outgoing(ConnectionId, Sequence),
    /// A message that the application has not acknowledged, from this queue.
    Received(ConnectionId, QueueNumber),
    /// A request that the application has neither accepted nor rejected.
    Request(RequestId),
    /// What a first-step relay holds of a connection's messages: its token, and the keys of commands.
    Holding(ConnectionId),
}

impl RecordKey {
    /// The key as bytes, for an ordered table: a kind byte, then numbers of 8 bytes; 1 to 25 bytes.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let (kind, numbers): (u8, [Option<u64>; 3]) = match self {
            Self::Counters => (0, [None; 3]),
            Self::Connection(id) => (1, [Some(id.0), None, None]),
            Self::Ratchet(id) => (2, [Some(id.0), None, None]),
            Self::Outgoing(id, sequence) => (3, [Some(id.0), Some(sequence.0), None]),
            Self::Received(id, queue) => (4, [Some(id.0), Some(u64::from(queue.0)), None]),
            Self::Skipped(id, key) => (6, [Some(id.0), Some(key.chain), Some(u64::from(key.number))]),
            Self::Request(id) => (5, [Some(id.0), None, None]),
            Self::Holding(id) => (7, [Some(id.0), None, None]),
        };
        let mut bytes = Vec::with_capacity(25);
        bytes.push(kind);
        for number in numbers.into_iter().flatten() {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes); `None` when a newer release wrote it, or it is damaged.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let kind = read.byte()?;
        let mut number = || read.array().map(|bytes| u64::from_be_bytes(*bytes));
        let key = match kind {
            0 => Self::Counters,
            1 => Self::Connection(ConnectionId(number()?)),
            2 => Self::Ratchet(ConnectionId(number()?)),
            3 => Self::Outgoing(ConnectionId(number()?), Sequence(number()?)),
            4 => Self::Received(ConnectionId(number()?), QueueNumber(u32::try_from(number()?).ok()?)),
            5 => Self::Request(RequestId(number()?)),
            6 => Self::Skipped(
                ConnectionId(number()?),
                SkippedId { chain: number()?, number: u32::try_from(number()?).ok()? },
            ),
            7 => Self::Holding(ConnectionId(number()?)),
            _ => return None,
        };
        read.end()?;
        Some(key)
    }

    /// The connection that the record belongs to.
    pub(super) const fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Connection(id)
            | Self::Ratchet(id)
            | Self::Skipped(id, _)
            | Self::Outgoing(id, _)
            | Self::Received(id, _)
            | Self::Holding(id) => Some(id),
            Self::Counters | Self::Request(_) => None,
        }
    }
}

/// Names a batch: they are numbered upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// Writes that take effect together.
#[derive(Debug)]
pub struct Batch {
    /// To report the completion with.
    pub id: BatchId,
    /// The writes: each key at most once.
    pub writes: Vec<Write>,
}

/// One write.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// The record has this content from now on. Secret: wiped on drop.
    Put(RecordKey, Zeroizing<Vec<u8>>),
    /// There is no such record any more; it is no error if there was none.
    Delete(RecordKey),
}

/// Contents are never printed: only how long they are.
impl core::fmt::Debug for Write {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Put(key, content) => write!(formatter, "Put({key:?}, {} bytes)", content.len()),
            Self::Delete(key) => write!(formatter, "Delete({key:?})"),
        }
    }
}

/// A batch could not be written: nothing of it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageFailed;

impl core::fmt::Display for StorageFailed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("the agent's records could not be written: is the disk full?")
    }
}

impl core::error::Error for StorageFailed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back_and_others_are_refused() {
        let (connection, queue) = (ConnectionId(7), QueueNumber(3));
        let keys = [
            RecordKey::Counters,
            RecordKey::Connection(connection),
            RecordKey::Ratchet(connection),
            RecordKey::Outgoing(connection, Sequence(u64::MAX)),
            RecordKey::Received(connection, queue),
            RecordKey::Request(RequestId(9)),
            RecordKey::Holding(connection),
            RecordKey::Skipped(connection, SkippedId { chain: 5, number: 6 }),
        ];
        for key in keys {
            let bytes = key.to_bytes();
            assert_eq!(RecordKey::from_bytes(&bytes), Some(key));
            assert_eq!(RecordKey::from_bytes(&bytes[1..]).filter(|other| *other == key), None);
            assert_eq!(RecordKey::from_bytes(&[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(RecordKey::from_bytes(&[8]), None);
    }
}
