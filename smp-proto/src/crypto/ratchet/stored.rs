//! The stored form of a ratchet: compact, versioned, secret.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 |
//! | 2, 2 | version of the ratchet now, newest version that this side speaks |
//! | 112 | associated data |
//! | 56, 56 | own X448 key of the current chain: private, public |
//! | 32 | root key |
//! | 32, 32 | next header keys: sending, receiving |
//! | 4, 4, 4 | numbers of messages: sent in this chain, received in this chain, sent in the chain before |
//! | 8 | how many receiving chains there were |
//! | 1 | flags, from the lowest bit: there is a sending chain, a receiving chain, a KEM key pair, a KEM ciphertext; the KEM is supported, enabled, was used for the sending chain, for the receiving chain |
//! | 32, 32 | the sending chain: chain key, header key |
//! | 32, 32 | the receiving chain: chain key, header key |
//! | 1,158, 1,763 | the KEM key pair: public, private |
//! | 1,039 | the KEM ciphertext |
//!
//! Integers are big-endian. 346 to 474 bytes without a KEM, at most 4,434 with one. Nothing here detects tampering: that is the task of the
//! database's own encryption.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use zeroize::{Zeroize, Zeroizing};

use super::derivation::{ChainKey, HeaderKey, RootKey};
use super::initial_keys::{OwnKey, read_pair, write_pair};
use super::state::{Chain, KemState, Ratchet};
use crate::crypto::key_encapsulation::{KEM_SECRET_LENGTH, KemSecret};
use crate::wire::version::Version;

/// The only format so far.
const FORMAT: u8 = 1;

/// Why a stored form cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// It has another format: an update wrote it.
    Format(u8),
    /// It is cut, or contradicts itself.
    Damaged,
}

impl fmt::Display for StateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(format) => write!(
                formatter,
                "the stored ratchet has format {format}, which only a newer version of this program reads: update it"
            ),
            Self::Damaged => formatter.write_str(
                "the stored ratchet is damaged: restore the database, or synchronize the connection",
            ),
        }
    }
}

impl core::error::Error for StateError {}

/// Reads a stored form.
pub(super) struct StateReader<'a> {
    rest: &'a [u8],
}

impl<'a> StateReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], StateError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(StateError::Damaged)?;
        self.rest = rest;
        Ok(*array)
    }

    /// Bytes that are too many for the stack.
    pub(super) fn boxed<const LENGTH: usize>(&mut self) -> Result<Box<[u8; LENGTH]>, StateError> {
        let (bytes, rest) = self.rest.split_at_checked(LENGTH).ok_or(StateError::Damaged)?;
        self.rest = rest;
        Box::<[u8]>::from(bytes).try_into().map_err(|_| StateError::Damaged)
    }

    pub(super) fn kem_secret(&mut self) -> Result<KemSecret, StateError> {
        self.boxed::<KEM_SECRET_LENGTH>().map(KemSecret::from_bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, StateError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn format(&mut self, known: u8) -> Result<(), StateError> {
        let format = self.byte()?;
        if format == known { Ok(()) } else { Err(StateError::Format(format)) }
    }

    pub(super) fn tail(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    pub(super) fn end(&self) -> Result<(), StateError> {
        if self.rest.is_empty() { Ok(()) } else { Err(StateError::Damaged) }
    }
}

impl Chain {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.header.as_bytes());
    }

    fn read(read: &mut StateReader<'_>) -> Result<Self, StateError> {
        Ok(Self { key: ChainKey::from_bytes(read.array()?), header: HeaderKey::from_bytes(read.array()?) })
    }
}

impl Ratchet {
    /// The stored form: 346 to 474 bytes without a KEM. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Room for everything, so that no copy of a secret stays behind when it grows.
        let mut out = Zeroizing::new(Vec::with_capacity(if self.kem.own.is_some() { 4_440 } else { 480 }));
        out.push(FORMAT);
        out.extend_from_slice(&self.version.0.to_be_bytes());
        out.extend_from_slice(&self.newest.0.to_be_bytes());
        out.extend_from_slice(&self.associated);
        self.own.write(&mut out);
        out.extend_from_slice(self.root.as_bytes());
        out.extend_from_slice(self.next_sending_header.as_bytes());
        out.extend_from_slice(self.next_receiving_header.as_bytes());
        for number in [self.sent, self.received, self.sent_before] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.receiving_chains.to_be_bytes());
        let flags = [
            self.sending.is_some(),
            self.receiving.is_some(),
            self.kem.own.is_some(),
            self.kem.ciphertext.is_some(),
            self.kem.supported,
            self.kem.enabled,
            self.kem.sending,
            self.kem.receiving,
        ];
        out.push((0..).zip(flags).fold(0, |flags, (bit, set)| flags | u8::from(set) << bit));
        for chain in self.sending.iter().chain(&self.receiving) {
            chain.write(&mut out);
        }
        if let Some(pair) = &self.kem.own {
            write_pair(pair, &mut out);
        }
        if let Some(ciphertext) = &self.kem.ciphertext {
            out.extend_from_slice(ciphertext.as_slice());
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`StateError`] when it is of another format, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut read = StateReader::new(bytes);
        read.format(FORMAT)?;
        let (version, newest) = (Version(read.u16()?), Version(read.u16()?));
        let associated = read.array()?;
        let own = OwnKey::read(&mut read)?;
        let mut keys: [[u8; 32]; 3] = [read.array()?, read.array()?, read.array()?];
        let [root, next_sending_header, next_receiving_header] = keys;
        keys.zeroize();
        let (sent, received, sent_before) = (read.u32()?, read.u32()?, read.u32()?);
        let receiving_chains = read.u64()?;
        let flags = read.byte()?;
        let flag = |bit: u8| flags & (1 << bit) != 0;
        // A ciphertext goes out with an own key only, and an own key only in long headers.
        if newest < version || flag(3) && !flag(2) || flag(2) && !flag(4) {
            return Err(StateError::Damaged);
        }
        let mut chain = |bit| if flag(bit) { Chain::read(&mut read).map(Some) } else { Ok(None) };
        let (sending, receiving) = (chain(0)?, chain(1)?);
        let kem = KemState {
            own: if flag(2) { Some(read_pair(&mut read)?) } else { None },
            ciphertext: if flag(3) { Some(read.boxed()?) } else { None },
            supported: flag(4),
            enabled: flag(5),
            sending: flag(6),
            receiving: flag(7),
        };
        read.end()?;
        Ok(Self {
            version,
            newest,
            associated,
            own,
            root: RootKey::from_bytes(root),
            next_sending_header: HeaderKey::from_bytes(next_sending_header),
            next_receiving_header: HeaderKey::from_bytes(next_receiving_header),
            sent,
            received,
            sent_before,
            receiving_chains,
            sending,
            receiving,
            kem,
        })
    }
}
