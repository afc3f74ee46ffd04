//! A few shared secrets that a session used last: one scalar multiplication costs as much as everything else about a
//! command.

use alloc::vec::Vec;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::{BoxKey, Provider};
use crate::keys::{X25519Public, X25519Secret};

/// The most recently used box keys, most recent first. Wiped when they fall out. Takes no memory while empty.
#[derive(Debug)]
pub(super) struct SharedSecrets {
    recent: Vec<Remembered>,
    capacity: usize,
}

#[derive(Zeroize, ZeroizeOnDrop)]
struct Remembered {
    own: [u8; 32],
    #[zeroize(skip)]
    peer: X25519Public,
    key: BoxKey,
}

impl core::fmt::Debug for Remembered {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("Remembered(..)")
    }
}

impl SharedSecrets {
    /// An empty memory of at most `capacity` secrets.
    pub(super) const fn new(capacity: usize) -> Self {
        Self { recent: Vec::new(), capacity }
    }

    /// The key that is remembered for this pair.
    pub(super) fn get(&mut self, own: &[u8; 32], peer: &X25519Public) -> Option<&BoxKey> {
        // `peer` is public; only then is the secret compared, in constant time.
        let place =
            self.recent.iter().position(|known| known.peer == *peer && bool::from(known.own.ct_eq(own)))?;
        self.recent.get_mut(..=place)?.rotate_right(1);
        self.recent.first().map(|known| &known.key)
    }

    /// Remembers a key, in place of the one that was not used for longest.
    pub(super) fn remember(&mut self, own: &[u8; 32], peer: &X25519Public, key: &BoxKey) {
        if self.capacity == 0 {
            return;
        }
        if self.recent.len() >= self.capacity {
            self.recent.pop();
        } else if self.recent.is_empty() {
            self.recent.reserve_exact(self.capacity.min(4));
        }
        self.recent.push(Remembered { own: *own, peer: *peer, key: key.clone() });
        self.recent.rotate_right(1);
    }

    /// The key of this pair, remembered or computed (24 to 55 µs).
    pub(super) fn agree(
        &mut self,
        provider: &dyn Provider,
        own: &X25519Secret,
        peer: &X25519Public,
    ) -> BoxKey {
        if let Some(key) = self.get(own.as_bytes(), peer) {
            return key.clone();
        }
        let key = BoxKey::agree(provider, own, peer);
        self.remember(own.as_bytes(), peer, &key);
        key
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn clear(&mut self) {
        self.recent = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> BoxKey {
        BoxKey::from_symmetric(&[byte; 32])
    }

    #[test]
    fn the_least_recently_used_is_forgotten() {
        let mut secrets = SharedSecrets::new(2);
        let peer = |byte| X25519Public([byte; 32]);
        secrets.remember(&[0; 32], &peer(1), &key(1));
        secrets.remember(&[0; 32], &peer(2), &key(2));
        assert_eq!(secrets.get(&[0; 32], &peer(1)), Some(&key(1)));
        secrets.remember(&[0; 32], &peer(3), &key(3));
        assert_eq!(secrets.get(&[0; 32], &peer(2)), None);
        assert_eq!(secrets.get(&[0; 32], &peer(1)), Some(&key(1)));
        assert_eq!(secrets.get(&[9; 32], &peer(1)), None, "another own key");
        secrets.clear();
        assert_eq!(secrets.get(&[0; 32], &peer(1)), None);
    }

    #[test]
    fn a_memory_of_nothing_remembers_nothing() {
        let mut secrets = SharedSecrets::new(0);
        secrets.remember(&[0; 32], &X25519Public([1; 32]), &key(1));
        assert_eq!(secrets.get(&[0; 32], &X25519Public([1; 32])), None);
    }
}
