//! Finding a queue by one of its ids: a hash table of slots that knows no ids of its own.
//!
//! The ids stand in the queues' records; keeping them here again would double their cost. The hash is keyed, so that
//! nobody who can choose an id (short links let clients derive sender ids) can choose its place.

use hashbrown::HashTable;

use crate::entropy::Entropy;
use crate::wire::identifier::IDENTIFIER_LENGTH;

/// A full-length identifier.
pub(super) type Id = [u8; IDENTIFIER_LENGTH];

/// The key of the hash: secret, different in every process.
#[derive(Clone, Copy)]
pub(super) struct HashKey([u64; 4]);

impl HashKey {
    pub(super) fn new(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        let mut words = [0; 4];
        for word in &mut words {
            let mut bytes = [0; 8];
            entropy.fill_secret(&mut bytes);
            *word = u64::from_ne_bytes(bytes);
        }
        Self(words)
    }

    /// Multiplies and folds: ids are random or outputs of a hash, so mixing them with the key is enough.
    fn hash(&self, id: &Id) -> u64 {
        let word =
            |at: usize| id.get(at..at + 8).and_then(|w| w.try_into().ok()).map_or(0, u64::from_le_bytes);
        let [a, b, c, d] = self.0;
        let fold = |x: u64, y: u64| {
            let product = u128::from(x) * u128::from(y);
            (product as u64) ^ ((product >> 64) as u64)
        };
        fold(fold(word(0) ^ a, word(8) ^ b) ^ c, word(16) ^ d)
    }
}

/// Slots by id. The ids are looked up in the slots' queues, through the function that every call brings along.
#[derive(Default)]
pub(super) struct IdTable {
    slots: HashTable<u32>,
}

impl IdTable {
    /// The slot whose id this is.
    pub(super) fn find<'q>(
        &self,
        key: &HashKey,
        id: &Id,
        id_of: impl Fn(u32) -> Option<&'q Id>,
    ) -> Option<u32> {
        self.slots.find(key.hash(id), |slot| id_of(*slot) == Some(id)).copied()
    }

    /// Adds a slot under an id that is not in the table.
    pub(super) fn insert<'q>(
        &mut self,
        key: &HashKey,
        id: &Id,
        slot: u32,
        id_of: impl Fn(u32) -> Option<&'q Id>,
    ) {
        self.slots.insert_unique(key.hash(id), slot, |slot| id_of(*slot).map_or(0, |id| key.hash(id)));
    }

    /// Takes a slot out; its queue must still have the id.
    pub(super) fn remove(&mut self, key: &HashKey, id: &Id, slot: u32) {
        if let Ok(entry) = self.slots.find_entry(key.hash(id), |candidate| *candidate == slot) {
            entry.remove();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}
