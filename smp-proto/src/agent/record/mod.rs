//! What an agent keeps, and its stored form: one file a record.
//!
//! Every record begins with the version of its layout (1 byte). Readers take what this release and older ones wrote, and
//! refuse the rest: a newer layout, a cut record, or bytes that are left over.
//!
//! | record | key | about |
//! |---|---|---|
//! | [`Counters`] | `Counters` | 17 bytes |
//! | [`Connection`](connection::Connection) | `Connection` | 1 to 6 KB |
//! | the ratchet | `Ratchet` | 1 KB and more while messages are missing |
//! | [`Outgoing`](message::Outgoing) | `Outgoing` | 16 KB, until the relay has it |
//! | [`Received`](message::Received) | `Received` | up to 16 KB, until the application acknowledges it |
//! | [`Request`](request::Request) | `Request` | 1 to 16 KB, until it is accepted or rejected |
//! | [`Holdings`](crate::client::first_step::Holdings) | `Holding` | 0.2 KB, and as much for each message that is held |

pub mod connection;
pub mod message;
pub mod queue;
pub mod request;

use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::storage::RecordKey;
use crate::crypto::SharedSecret;
use crate::keys::{Ed25519Secret, X25519Secret};
use crate::wire::primitives::{Full, Reader, Writer};

/// Why a stored record cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// It was written by a newer release, in this layout.
    NewerLayout(RecordKey, u8),
    /// It is cut short or holds an impossible value.
    Damaged(RecordKey),
    /// It belongs to a connection of which there is no record.
    Orphan(RecordKey),
}

impl fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewerLayout(key, layout) => write!(
                formatter,
                "the record {key:?} has layout {layout}, which only a newer release can read: update this program"
            ),
            Self::Damaged(key) => {
                write!(formatter, "the record {key:?} is damaged: restore the database from a copy")
            }
            Self::Orphan(key) => write!(
                formatter,
                "the record {key:?} belongs to no connection: the database is incomplete, restore it from a copy"
            ),
        }
    }
}

impl core::error::Error for RecordError {}

/// A record with a layout of its own.
pub(super) trait Record: Sized {
    /// The version of the layout that is written.
    const LAYOUT: u8;

    /// Writes everything after the layout.
    ///
    /// # Errors
    /// [`Full`] when a list is longer than its count: bounds exclude that.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full>;

    /// Reads everything after the layout.
    fn read(read: &mut Reader<'_>, layout: u8) -> Option<Self>;

    /// The stored form.
    ///
    /// # Errors
    /// As for [`write`](Self::write).
    fn encode(&self) -> Result<Zeroizing<Vec<u8>>, Full> {
        // Room enough that no copy of a secret is left behind by growing.
        let mut out = Zeroizing::new(Vec::with_capacity(17_000));
        out.byte(Self::LAYOUT)?;
        self.write(&mut out)?;
        Ok(out)
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`RecordError`].
    fn decode(key: RecordKey, bytes: &[u8]) -> Result<Self, RecordError> {
        let mut read = Reader::new(bytes);
        match read.byte() {
            Some(layout) if layout > Self::LAYOUT => Err(RecordError::NewerLayout(key, layout)),
            Some(layout) => {
                Self::read(&mut read, layout).filter(|_| read.is_empty()).ok_or(RecordError::Damaged(key))
            }
            None => Err(RecordError::Damaged(key)),
        }
    }
}

/// The numbers that were given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    /// The next connection or request.
    pub next: u64,
}

impl Record for Counters {
    const LAYOUT: u8 = 1;

    /// next (8)
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Full> {
        out.put(&self.next.to_be_bytes())
    }

    fn read(read: &mut Reader<'_>, _layout: u8) -> Option<Self> {
        Some(Self { next: read_u64(read)? })
    }
}

pub(super) fn read_u64(read: &mut Reader<'_>) -> Option<u64> {
    read.array().map(|bytes| u64::from_be_bytes(*bytes))
}

pub(super) fn read_u32(read: &mut Reader<'_>) -> Option<u32> {
    read.array().map(|bytes| u32::from_be_bytes(*bytes))
}

pub(super) fn read_ed25519(read: &mut Reader<'_>) -> Option<Ed25519Secret> {
    read.array().map(|bytes| Ed25519Secret::from_bytes(*bytes))
}

pub(super) fn read_x25519(read: &mut Reader<'_>) -> Option<X25519Secret> {
    read.array().map(|bytes| X25519Secret::from_bytes(*bytes))
}

pub(super) fn read_shared(read: &mut Reader<'_>) -> Option<SharedSecret> {
    read.array().map(|bytes| SharedSecret::from_bytes(*bytes))
}

/// A count (1 byte) and that many items.
pub(super) fn write_list<'a, T: 'a>(
    out: &mut Vec<u8>,
    items: impl ExactSizeIterator<Item = &'a T>,
    mut write: impl FnMut(&mut Vec<u8>, &T) -> Result<(), Full>,
) -> Result<(), Full> {
    out.byte(u8::try_from(items.len()).map_err(|_| Full)?)?;
    for item in items {
        write(out, item)?;
    }
    Ok(())
}

pub(super) fn read_list<'a, T, C: FromIterator<T>>(
    read: &mut Reader<'a>,
    mut item: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<C> {
    let count = read.byte()?;
    (0..count).map(|_| item(read)).collect()
}
