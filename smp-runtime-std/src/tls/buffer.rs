//! Bytes on their way between a socket and TLS, held only while there are any.
//!
//! Owns: one direction of one connection ([`Buffer`]), and a few spare buffers per thread, so that a busy thread neither
//! allocates nor clears memory for each block, and an idle connection holds nothing at all.
//! It must never hand out bytes that were not filled in by this connection: spare buffers keep what was in them before.

use std::cell::RefCell;

/// The size of a pooled buffer, in bytes: two SMP blocks as TLS records (5 + 16384 + 1 + 16 each).
pub(super) const POOLED: usize = 2 * (5 + 16_384 + 1 + 16);

/// How many spare buffers a thread keeps.
const SPARE_PER_THREAD: usize = 8;

thread_local! {
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

fn take_spare() -> Vec<u8> {
    SPARE.with(|spare| spare.borrow_mut().pop()).unwrap_or_else(|| vec![0; POOLED])
}

fn give_back(storage: Vec<u8>) {
    if storage.len() != POOLED {
        return;
    }
    // At the end of a thread its spare buffers may be gone before its connections are.
    let _ = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        if spare.len() < SPARE_PER_THREAD {
            spare.push(storage);
        }
    });
}

/// A queue of bytes in one piece. All of `storage` is initialised; `start..end` is filled.
#[derive(Default)]
pub(super) struct Buffer {
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn filled(&self) -> &[u8] {
        self.storage.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.storage.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// Takes `count` bytes off the front. The last one gives the memory back.
    pub(super) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start.saturating_add(count));
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
            give_back(std::mem::take(&mut self.storage));
        }
    }

    /// At least `wanted` bytes of room after what is filled; whatever they hold is not ours.
    pub(super) fn room(&mut self, wanted: usize) -> &mut [u8] {
        if self.storage.len() - self.end < wanted {
            self.make_room(wanted);
        }
        &mut self.storage[self.end..]
    }

    fn make_room(&mut self, wanted: usize) {
        let needed = self.len() + wanted;
        if needed <= self.storage.len() {
            self.storage.copy_within(self.start..self.end, 0);
        } else {
            let mut larger =
                if needed <= POOLED { take_spare() } else { vec![0; needed.max(2 * self.storage.len())] };
            larger[..self.len()].copy_from_slice(self.filled());
            give_back(std::mem::replace(&mut self.storage, larger));
        }
        self.end = self.len();
        self.start = 0;
    }

    /// Says that `count` bytes of [`Self::room`] are filled now.
    pub(super) fn fill(&mut self, count: usize) {
        self.end = self.storage.len().min(self.end + count);
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Holds no more memory than there are bytes: for the time until the rest of a record arrives.
    pub(super) fn shrink(&mut self) {
        let length = self.len();
        if self.storage.len() >= POOLED && length < POOLED / 2 {
            let exact = self.filled().to_vec();
            give_back(std::mem::replace(&mut self.storage, exact));
            self.start = 0;
            self.end = length;
        }
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        self.storage.capacity()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.storage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the order of filling, consuming and shrinking, it is a queue, and empty means no memory.
        #[test]
        fn it_is_a_queue(steps in proptest::collection::vec((0..4u8, 0..40_000usize), 1..40)) {
            let mut buffer = Buffer::default();
            let mut model = std::collections::VecDeque::new();
            let mut next = 0u8;
            for (step, amount) in steps {
                match step {
                    0 | 1 => {
                        let bytes: Vec<u8> = (0..amount).map(|_| { next = next.wrapping_add(1); next }).collect();
                        buffer.extend(&bytes);
                        model.extend(bytes);
                    }
                    2 => {
                        buffer.consume(amount);
                        model.drain(..amount.min(model.len()));
                    }
                    _ => buffer.shrink(),
                }
                prop_assert_eq!(buffer.filled(), model.make_contiguous());
                prop_assert_eq!(buffer.len(), model.len());
                if step == 2 && model.is_empty() {
                    prop_assert_eq!(buffer.capacity(), 0);
                }
                if step == 3 && model.len() < POOLED / 2 {
                    prop_assert!(buffer.capacity() < POOLED);
                }
            }
        }
    }
}
