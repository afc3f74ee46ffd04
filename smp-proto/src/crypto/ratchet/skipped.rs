//! Keys of messages that did not come yet, while later ones did.
//!
//! They are apart from the ratchet, so that an agent persists what *changed* and not all of them. At most [`MAX_AHEAD`] are
//! made for one gap, and at most [`MAX_KEPT`] are kept for a connection: then the oldest go, and their messages, should
//! they still come, are refused as old. A key is gone as soon as its message was read.
//!
//! Stored form of one, 92 bytes: `chain (8) ‖ number (4) ‖ header key (32) ‖ message key (32) ‖ IV (16)`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::derivation::{HeaderKey, MessageKey};
use super::stored::{StateError, StateReader};

/// How many messages of one chain may be missing before one that came: 512, like in deployed agents.
pub const MAX_AHEAD: u32 = 512;
/// How many keys are kept for one connection: 2,048. (Deployed agents keep them without a bound.)
pub const MAX_KEPT: usize = 2_048;
/// The length of the stored form of one key: 92 bytes.
pub const SKIPPED_KEY_LENGTH: usize = 92;

/// Which message a kept key is for. Says nothing to others, and orders keys by age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SkippedId {
    /// The how many-th receiving chain of the ratchet.
    pub chain: u64,
    /// The number of the message in the chain.
    pub number: u32,
}

/// The key of one message that did not come yet.
#[derive(Clone)]
pub struct SkippedKey {
    id: SkippedId,
    pub(super) header: HeaderKey,
    pub(super) message: MessageKey,
}

/// The keys that are kept for one connection.
#[derive(Default)]
pub struct SkippedKeys {
    keys: BTreeMap<SkippedId, SkippedKey>,
}

/// How the kept keys changed with a message: to be persisted together with the ratchet.
#[derive(Debug, Default)]
pub struct SkippedChange {
    /// To be stored. At most twice [`MAX_AHEAD`].
    pub added: Vec<SkippedKey>,
    /// To be deleted.
    pub removed: Vec<SkippedId>,
}

impl SkippedKey {
    pub(super) const fn new(id: SkippedId, header: HeaderKey, message: MessageKey) -> Self {
        Self { id, header, message }
    }

    /// Which message it is for.
    #[must_use]
    pub const fn id(&self) -> SkippedId {
        self.id
    }

    /// The stored form. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; SKIPPED_KEY_LENGTH]> {
        let mut bytes = Zeroizing::new([0; SKIPPED_KEY_LENGTH]);
        let (chain, number) = (self.id.chain.to_be_bytes(), self.id.number.to_be_bytes());
        let parts = chain.iter().chain(&number).chain(self.header.as_bytes());
        let parts = parts.chain(&self.message.key).chain(&self.message.iv);
        for (place, &byte) in bytes.iter_mut().zip(parts) {
            *place = byte;
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`StateError::Damaged`] when it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut read = StateReader::new(bytes);
        let id = SkippedId { chain: read.u64()?, number: read.u32()? };
        let header = HeaderKey::from_bytes(read.array()?);
        let message = MessageKey { key: read.array()?, iv: read.array()? };
        read.end()?;
        Ok(Self { id, header, message })
    }
}

impl SkippedKeys {
    /// No keys.
    #[must_use]
    pub const fn new() -> Self {
        Self { keys: BTreeMap::new() }
    }

    /// How many there are, at most [`MAX_KEPT`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &SkippedKey> {
        self.keys.values()
    }

    /// Adds one that was stored. Returns which one went for it, when there were [`MAX_KEPT`].
    pub fn insert(&mut self, key: SkippedKey) -> Option<SkippedId> {
        self.keys.insert(key.id, key);
        if self.keys.len() > MAX_KEPT { self.keys.pop_first().map(|(id, _)| id) } else { None }
    }

    pub(super) fn get(&self, id: SkippedId) -> Option<&SkippedKey> {
        self.keys.get(&id)
    }

    /// One key of each chain, the newest chain first: to find which chain a header belongs to.
    pub(super) fn chains(&self) -> impl Iterator<Item = &SkippedKey> {
        let newest = self.keys.values().next_back();
        core::iter::successors(newest, |key| {
            let before = SkippedId { chain: key.id.chain, number: 0 };
            self.keys.range(..before).next_back().map(|(_, key)| key)
        })
    }

    pub(super) fn remove(&mut self, id: SkippedId) -> SkippedChange {
        self.keys.remove(&id);
        SkippedChange { added: Vec::new(), removed: alloc::vec![id] }
    }

    /// Adds new ones, and says what has to be persisted.
    pub(super) fn add(&mut self, added: Vec<SkippedKey>) -> SkippedChange {
        let removed: Vec<_> = added.iter().filter_map(|key| self.insert(key.clone())).collect();
        // More than fit are never added at once, so that only keys from before are removed.
        SkippedChange { added, removed }
    }
}

impl fmt::Debug for SkippedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SkippedKey(..)")
    }
}

impl fmt::Debug for SkippedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SkippedKeys({})", self.len())
    }
}
