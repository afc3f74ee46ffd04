//! What a destination keeps over restarts: its forwarding keys, and a receipt for each command that was executed.
//!
//! Keys of records: `room ‖ 'K' ‖ number (4 bytes)` for forwarding keys, and `room ‖ 'R' ‖ number (4 bytes) ‖ name (16
//! bytes)` for receipts, so that forwarding keys are handed over first, and all receipts of a key have one prefix. Values
//! of receipts: [`Receipt`](crate::session::forwarding::Receipt).

use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::broker::storage::Room;
use crate::session::forwarding::CommandName;
use crate::wire::first_step::RelayNumber;
use crate::wire::primitives::Reader;

/// The room's records, all of which are loaded at start.
pub const PREFIX: [u8; 1] = [Room::Forwarding.key_byte()];

/// A record cannot be used: damaged, or written by a newer release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A forwarding key's.
    Key(RelayNumber),
    /// Of no kind that is known.
    Kind,
}

impl fmt::Display for RecordError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(number) => {
                write!(formatter, "the record of forwarding key {} cannot be read", number.0)?;
            }
            Self::Kind => formatter.write_str("a record of what was forwarded cannot be read")?,
        }
        formatter.write_str(": storage is damaged, or was written by a newer release")
    }
}

impl core::error::Error for RecordError {}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RecordKey {
    Key(RelayNumber),
    Receipt(CommandName),
}

impl RecordKey {
    pub(super) fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(22);
        bytes.extend_from_slice(&PREFIX);
        match self {
            Self::Key(number) => {
                bytes.push(b'K');
                bytes.extend_from_slice(&number.0.to_be_bytes());
            }
            Self::Receipt(command) => {
                bytes.push(b'R');
                bytes.extend_from_slice(&command.key.0.to_be_bytes());
                bytes.extend_from_slice(&command.name);
            }
        }
        bytes.into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        read.array().filter(|room| **room == PREFIX)?;
        let kind = read.byte()?;
        let number = RelayNumber(u32::from_be_bytes(*read.array()?));
        let key = match kind {
            b'K' => Self::Key(number),
            b'R' => Self::Receipt(CommandName { key: number, name: *read.array()? }),
            _ => return None,
        };
        read.end()?;
        Some(key)
    }

    /// What the records of all receipts of a forwarding key begin with.
    pub(super) fn receipts_of(number: RelayNumber) -> Bytes {
        let [room] = PREFIX;
        let [a, b, c, d] = number.0.to_be_bytes();
        Bytes::copy_from_slice(&[room, b'R', a, b, c, d])
    }
}

/// What is kept of a forwarding key. Wiped on drop.
pub(super) enum KeyRecord {
    /// It is taken, or will be.
    Live { made: i64, until: i64, secret: Zeroizing<[u8; 32]> },
    /// It is over since then; its receipts are kept for a while, and then deleted.
    Over { since: i64 },
}

impl KeyRecord {
    pub(super) fn encode(&self) -> Bytes {
        match self {
            Self::Over { since } => {
                let mut value = Vec::with_capacity(9);
                value.push(0);
                value.extend_from_slice(&since.to_be_bytes());
                value.into()
            }
            Self::Live { made, until, secret } => {
                let mut value = Vec::with_capacity(49);
                value.push(1);
                value.extend_from_slice(&made.to_be_bytes());
                value.extend_from_slice(&until.to_be_bytes());
                value.extend_from_slice(&secret[..]);
                value.into()
            }
        }
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let mut read = Reader::new(value);
        let record = match read.byte()? {
            0 => Self::Over { since: read.i64()? },
            1 => Self::Live { made: read.i64()?, until: read.i64()?, secret: Zeroizing::new(*read.array()?) },
            _ => return None,
        };
        read.end()?;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let number = RelayNumber(0x0102_0304);
        let receipt = RecordKey::Receipt(CommandName { key: number, name: [7; 16] });
        for key in [RecordKey::Key(number), receipt] {
            let bytes = key.to_bytes();
            assert_eq!(RecordKey::from_bytes(&bytes), Some(key));
            for length in 0..bytes.len() {
                assert_eq!(RecordKey::from_bytes(&bytes[..length]), None);
            }
        }
        assert!(receipt.to_bytes().starts_with(&RecordKey::receipts_of(number)));
        assert!(RecordKey::Key(RelayNumber(u32::MAX)).to_bytes() < receipt.to_bytes(), "keys come first");
        let live = KeyRecord::Live { made: -1, until: 2, secret: Zeroizing::new([3; 32]) }.encode();
        let Some(KeyRecord::Live { made, until, secret }) = KeyRecord::decode(&live) else { panic!() };
        assert_eq!((made, until, *secret), (-1, 2, [3; 32]));
        let over = KeyRecord::Over { since: 5 }.encode();
        assert!(matches!(KeyRecord::decode(&over), Some(KeyRecord::Over { since: 5 })));
        for value in [&b""[..], &[2], &[0, 0], &over[..8], &live[..48]] {
            assert!(KeyRecord::decode(value).is_none());
        }
    }
}
