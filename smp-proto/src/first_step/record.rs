//! What a first-step relay keeps over restarts: small records that are loaded, and bodies that are read when needed.

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use super::client::{Item, ItemState};
use crate::broker::storage::{RecordWrite, Room};
use crate::keys::X25519Public;
use crate::time::Instant;
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{Correlation, ForwardOptions, RelayFailure, RelayNumber};
use crate::wire::primitives::{Full, Reader, Writer};

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordKey {
    /// A client: its destination and numbers.
    Client(u64),
    /// A command of a client, or what became of it: without its bytes.
    Item(u64, Correlation),
    /// The bytes of that: not loaded at start.
    Body(u64, Correlation),
    /// The forwarding key that a destination published, by the SHA-256 of its address.
    Published([u8; 32]),
}

impl RecordKey {
    pub(super) const CLIENT: u8 = 0;
    pub(super) const ITEM: u8 = 1;
    const BODY: u8 = 2;
    pub(super) const PUBLISHED: u8 = 3;

    /// As the relay's storage keeps it: the byte of the room, one of the kind, then 8 to 32.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(34);
        bytes.push(Room::FirstStep.key_byte());
        match self {
            Self::Client(client) => {
                bytes.push(Self::CLIENT);
                bytes.extend_from_slice(&client.to_be_bytes());
            }
            Self::Item(client, correlation) | Self::Body(client, correlation) => {
                bytes.push(if matches!(self, Self::Item(..)) { Self::ITEM } else { Self::BODY });
                bytes.extend_from_slice(&client.to_be_bytes());
                bytes.extend_from_slice(&correlation.0.to_be_bytes());
            }
            Self::Published(hash) => {
                bytes.push(Self::PUBLISHED);
                bytes.extend_from_slice(&hash);
            }
        }
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        if read.byte()? != Room::FirstStep.key_byte() {
            return None;
        }
        let kind = read.byte()?;
        let number = |read: &mut Reader<'_>| read.array().map(|bytes| u64::from_be_bytes(*bytes));
        let key = match kind {
            Self::CLIENT => Self::Client(number(&mut read)?),
            Self::ITEM => Self::Item(number(&mut read)?, Correlation(number(&mut read)?)),
            Self::BODY => Self::Body(number(&mut read)?, Correlation(number(&mut read)?)),
            Self::PUBLISHED => Self::Published(*read.array()?),
            _ => return None,
        };
        read.end()?;
        Some(key)
    }
}

/// One write. Those of one action take effect together.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Write {
    /// The record has this content from now on.
    Put(RecordKey, Bytes),
    /// There is no such record any more.
    Delete(RecordKey),
}

impl Write {
    /// As the relay's storage takes it.
    pub(super) fn into_record(self) -> RecordWrite {
        match self {
            Self::Put(key, value) => RecordWrite::Put { key: key.to_bytes().into(), value },
            Self::Delete(key) => RecordWrite::Delete { key: key.to_bytes().into() },
        }
    }
}

/// Contents are never printed.
impl fmt::Debug for Write {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(key, content) => write!(formatter, "Put({key:?}, {} bytes)", content.len()),
            Self::Delete(key) => write!(formatter, "Delete({key:?})"),
        }
    }
}

/// A record cannot be used: damaged, or written by a newer release.
///
/// `None`: its key is of no kind that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordError(pub Option<RecordKey>);

impl fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.0 {
            None => "something that is held for other relays",
            Some(RecordKey::Client(_)) => "a client",
            Some(RecordKey::Item(..)) => "a held command",
            Some(RecordKey::Body(..)) => "the body of a held command",
            Some(RecordKey::Published(_)) => "a destination's key",
        };
        write!(formatter, "the record of {what} cannot be read: damaged, or of a newer release")
    }
}

impl core::error::Error for RecordError {}

/// What is kept of a client.
pub(super) struct ClientRecord {
    pub(super) token: [u8; 32],
    pub(super) address: ServerAddress,
    pub(super) newest: Correlation,
}

impl ClientRecord {
    pub(super) fn encode(&self) -> Result<Bytes, Full> {
        let mut out = Vec::new();
        out.put(&self.token)?;
        out.put(&self.newest.0.to_be_bytes())?;
        self.address.write(&mut out)?;
        Ok(out.into())
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let token = *read.array()?;
        let newest = Correlation(u64::from_be_bytes(*read.array()?));
        let address = ServerAddress::read(&mut read)?;
        read.end()?;
        Some(Self { token, address, newest })
    }
}

/// Encodes an item: what is held, or what became of it.
pub(super) fn encode_item(item: &Item) -> Bytes {
    let mut out = Vec::with_capacity(64);
    let state = match &item.state {
        ItemState::Answered => 1,
        ItemState::Failed(_) => 2,
        _ => 0,
    };
    out.push(state);
    out.push(item.options.to_byte());
    out.extend_from_slice(&item.not_before.to_be_bytes());
    out.extend_from_slice(&item.until.to_be_bytes());
    out.extend_from_slice(&item.attempts.to_be_bytes());
    out.push(item.last.to_byte());
    out.extend_from_slice(&item.key_number.0.to_be_bytes());
    out.extend_from_slice(&item.key.0);
    if let ItemState::Failed(error) = &item.state {
        // These have a fixed size: a vector takes them.
        let _ = error.write(&mut out);
    }
    out.into()
}

/// Reads [`encode_item`].
pub(super) fn decode_item(bytes: &[u8]) -> Option<Item> {
    let mut read = Reader::new(bytes);
    let state = read.byte()?;
    let options = ForwardOptions::from_byte(read.byte()?)?;
    let not_before = read.i64()?;
    let until = read.i64()?;
    let attempts = read.u16()?;
    let last = RelayFailure::from_byte(read.byte()?)?;
    let key_number = RelayNumber(u32::from_be_bytes(*read.array()?));
    let key = X25519Public(*read.array()?);
    let state = match state {
        0 => ItemState::Waiting,
        1 => ItemState::Answered,
        2 => ItemState::Failed(crate::wire::first_step::FirstStepError::read(&mut read)?),
        _ => return None,
    };
    read.end()?;
    Some(Item {
        state,
        options,
        not_before,
        until,
        attempts,
        dials: 0,
        last,
        key_number,
        key,
        retry_at: Instant::START,
        body: None,
    })
}
