//! The deadlines of a reactor, the earliest first.
//!
//! Owns: which entry is to be woken when. An entry has one deadline at most. Setting, moving and clearing one costs
//! O(log n), and nothing is left of one that was cleared. It never looks at a clock.

use std::collections::BTreeSet;
use std::time::Instant;

/// Deadlines of entries, which are numbers here.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Equal deadlines expire in the order of their entries' numbers.
    ordered: BTreeSet<(Instant, usize)>,
}

impl Deadlines {
    /// Moves the deadline of `entry` from `old` to `new`.
    pub(super) fn change(&mut self, entry: usize, old: Option<Instant>, new: Option<Instant>) {
        if let Some(old) = old {
            self.ordered.remove(&(old, entry));
        }
        if let Some(new) = new {
            self.ordered.insert((new, entry));
        }
    }

    /// The earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.ordered.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the earliest out if it is over at `now`, and says whose it is.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<usize> {
        if self.next()? > now {
            return None;
        }
        self.ordered.pop_first().map(|(_, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_expire_in_order_and_not_before_their_time() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (entry, millis) in [(3, 30), (1, 10), (2, 20), (0, 20)] {
            deadlines.change(entry, None, Some(at(millis)));
        }
        assert_eq!(deadlines.next(), Some(at(10)));
        assert_eq!(deadlines.pop_expired(at(9)), None);
        let mut expired = Vec::new();
        while let Some(entry) = deadlines.pop_expired(at(25)) {
            expired.push(entry);
        }
        assert_eq!(expired, [1, 0, 2]);
        assert_eq!(deadlines.next(), Some(at(30)));
        deadlines.change(3, Some(at(30)), Some(at(5)));
        assert_eq!(deadlines.pop_expired(at(5)), Some(3));
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn nothing_is_left_of_thousands_that_were_cleared() {
        let mut deadlines = Deadlines::default();
        let start = Instant::now();
        let at = |entry: usize| start + Duration::from_micros((entry as u64 * 7919) % 10_007);
        for entry in 0..5000 {
            deadlines.change(entry, None, Some(at(entry)));
        }
        for entry in (0..5000).filter(|entry| entry % 1000 != 0) {
            deadlines.change(entry, Some(at(entry)), None);
        }
        assert_eq!(deadlines.ordered.len(), 5);
        let mut last = start;
        for _ in 0..5 {
            let entry = deadlines.pop_expired(start + Duration::from_secs(1)).expect("five are left");
            assert!(entry % 1000 == 0 && at(entry) >= last);
            last = at(entry);
        }
        assert_eq!(deadlines.pop_expired(start + Duration::from_secs(1)), None);
    }
}
