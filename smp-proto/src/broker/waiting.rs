//! The marks of a queue's waiting messages.
//!
//! Most of the time a queue has no message, or one on its way to a subscriber: the oldest stands by itself, so that a
//! message which comes and goes takes nothing from the allocator.

use alloc::collections::VecDeque;

use super::storage::{MessageMark, Sequence};

/// A message that waits in storage.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) sequence: Sequence,
    pub(super) mark: MessageMark,
    /// Whether storage has confirmed it: only then may it be read or delivered.
    pub(super) stored: bool,
}

/// Waiting messages, oldest first.
#[derive(Default)]
pub(super) struct WaitingMessages {
    /// `None` only when there are no others.
    oldest: Option<Waiting>,
    others: VecDeque<Waiting>,
}

impl WaitingMessages {
    pub(super) fn len(&self) -> usize {
        usize::from(self.oldest.is_some()) + self.others.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.oldest.is_none()
    }

    pub(super) const fn oldest(&self) -> Option<Waiting> {
        self.oldest
    }

    pub(super) fn newest(&self) -> Option<Waiting> {
        self.others.back().copied().or(self.oldest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.oldest.iter().chain(&self.others)
    }

    /// Adds the newest.
    pub(super) fn push(&mut self, waiting: Waiting) {
        match self.oldest {
            None => self.oldest = Some(waiting),
            Some(_) => self.others.push_back(waiting),
        }
    }

    pub(super) fn find_mut(&mut self, sequence: Sequence) -> Option<&mut Waiting> {
        match &mut self.oldest {
            Some(oldest) if oldest.sequence == sequence => Some(oldest),
            _ => {
                let place = place_of(&self.others, sequence)?;
                self.others.get_mut(place)
            }
        }
    }

    pub(super) fn find(&self, sequence: Sequence) -> Option<Waiting> {
        let place = || self.others.get(place_of(&self.others, sequence)?).copied();
        self.oldest.filter(|oldest| oldest.sequence == sequence).or_else(place)
    }

    /// Takes a message out; `None` when it is not there any more.
    pub(super) fn remove(&mut self, sequence: Sequence) -> Option<Waiting> {
        let removed = if self.oldest.is_some_and(|oldest| oldest.sequence == sequence) {
            core::mem::replace(&mut self.oldest, self.others.pop_front())
        } else {
            self.others.remove(place_of(&self.others, sequence)?)
        };
        if self.others.is_empty() {
            self.others = VecDeque::new();
        }
        removed
    }
}

fn place_of(others: &VecDeque<Waiting>, sequence: Sequence) -> Option<usize> {
    others.binary_search_by_key(&sequence, |waiting| waiting.sequence).ok()
}

impl FromIterator<Waiting> for WaitingMessages {
    fn from_iter<T: IntoIterator<Item = Waiting>>(messages: T) -> Self {
        let mut messages = messages.into_iter();
        Self { oldest: messages.next(), others: messages.collect() }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::broker::storage::MessageKind;
    use crate::time::UnixTime;

    fn waiting(sequence: u64) -> Waiting {
        let mark = MessageMark { timestamp: UnixTime(0), kind: MessageKind::Ordinary };
        Waiting { sequence: Sequence(sequence), mark, stored: false }
    }

    fn all(messages: &WaitingMessages) -> Vec<u64> {
        let all: Vec<_> = messages.iter().map(|one| one.sequence.0).collect();
        assert_eq!(all.len(), messages.len());
        assert_eq!(all.is_empty(), messages.is_empty());
        assert_eq!(all.first().copied(), messages.oldest().map(|one| one.sequence.0));
        assert_eq!(all.last().copied(), messages.newest().map(|one| one.sequence.0));
        for sequence in 0..10 {
            let found = messages.find(Sequence(sequence)).map(|one| one.sequence.0);
            assert_eq!(found, all.contains(&sequence).then_some(sequence));
        }
        all
    }

    #[test]
    fn messages_come_at_the_end_and_go_from_anywhere() {
        for order in [[1, 3, 5], [1, 5, 3], [3, 1, 5], [3, 5, 1], [5, 1, 3], [5, 3, 1]] {
            let mut messages: WaitingMessages = [1, 3].map(waiting).into_iter().collect();
            messages.push(waiting(5));
            messages.find_mut(Sequence(3)).unwrap().stored = true;
            messages.find_mut(Sequence(1)).unwrap().stored = true;
            assert!(messages.find_mut(Sequence(4)).is_none() && messages.remove(Sequence(4)).is_none());
            let mut left = Vec::from([1, 3, 5]);
            for sequence in order {
                assert_eq!(all(&messages), left);
                let removed = messages.remove(Sequence(sequence)).unwrap();
                assert_eq!((removed.sequence, removed.stored), (Sequence(sequence), sequence != 5));
                left.retain(|one| *one != sequence);
            }
            assert_eq!(all(&messages), []);
            messages.push(waiting(7));
            assert_eq!(all(&messages), [7]);
        }
    }
}
