//! The messages that were stored last, for whoever reads one of them back soon.
//!
//! A message that finds others before it in its queue is written without being delivered, and read when they are
//! acknowledged; on a busy relay that is a moment later. Owns: [`MESSAGES`] messages at most, each of which keeps the
//! block alive that it came in (16 KiB). It must never know of a message that storage does not hold: it is told of
//! writes only when they are committed, and forgets everything when one of them fails.

use std::collections::{HashMap, VecDeque};

use smp_proto::broker::storage::{QueueNumber, Sequence, StorageAction, StoredMessage};

/// How many messages are known: 4 MiB of them.
const MESSAGES: usize = 256;

#[derive(Default)]
pub(super) struct Recent {
    messages: HashMap<(u64, u64), StoredMessage>,
    /// In the order in which they were stored, with those that were deleted meanwhile.
    order: VecDeque<(u64, u64)>,
}

impl Recent {
    /// A write is committed.
    pub(super) fn committed(&mut self, write: &StorageAction) {
        match write {
            StorageAction::PutMessage { queue, sequence, message, .. } => {
                while self.order.len() >= MESSAGES
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.messages.remove(&oldest);
                }
                self.order.push_back((queue.0, sequence.0));
                self.messages.insert((queue.0, sequence.0), message.clone());
            }
            StorageAction::DeleteMessage { queue, sequence, .. } => {
                self.messages.remove(&(queue.0, sequence.0));
            }
            StorageAction::DeleteQueue { queue } => self.messages.retain(|(of, _), _| *of != queue.0),
            StorageAction::WithRecords { action, .. } => self.committed(action),
            _ => {}
        }
    }

    /// A write failed: what storage holds is not known any more.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// A message, if it was stored lately and is still there.
    pub(super) fn get(&self, queue: QueueNumber, sequence: Sequence) -> Option<StoredMessage> {
        self.messages.get(&(queue.0, sequence.0)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use smp_proto::broker::storage::{MessageKind, MessageMark};
    use smp_proto::time::UnixTime;

    use super::*;

    const MARK: MessageMark = MessageMark { timestamp: UnixTime(0), kind: MessageKind::Ordinary };

    fn put(queue: u64, sequence: u64) -> StorageAction {
        let body = Bytes::copy_from_slice(&sequence.to_be_bytes());
        StorageAction::PutMessage {
            queue: QueueNumber(queue),
            sequence: Sequence(sequence),
            mark: MARK,
            message: StoredMessage { id: [1; 24], notification: false, body },
        }
    }

    fn knows(recent: &Recent, queue: u64, sequence: u64) -> bool {
        let found = recent.get(QueueNumber(queue), Sequence(sequence));
        found.is_some_and(|message| message.body[..] == sequence.to_be_bytes())
    }

    #[test]
    fn what_was_deleted_is_not_known() {
        let mut recent = Recent::default();
        for (queue, sequence) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            recent.committed(&put(queue, sequence));
        }
        recent.committed(&StorageAction::DeleteMessage {
            queue: QueueNumber(1),
            sequence: Sequence(1),
            mark: MARK,
        });
        assert!(!knows(&recent, 1, 1) && knows(&recent, 1, 2) && knows(&recent, 2, 1));
        recent.committed(&StorageAction::DeleteQueue { queue: QueueNumber(2) });
        assert!(knows(&recent, 1, 2) && !knows(&recent, 2, 1) && !knows(&recent, 2, 2));
        recent.forget();
        assert!(!knows(&recent, 1, 2));
    }

    #[test]
    fn the_oldest_make_room() {
        let mut recent = Recent::default();
        for sequence in 0..3 * MESSAGES as u64 {
            recent.committed(&put(1, sequence));
            assert!(recent.messages.len() <= MESSAGES && recent.order.len() <= MESSAGES);
        }
        let oldest = 2 * MESSAGES as u64;
        assert!(!knows(&recent, 1, oldest - 1) && knows(&recent, 1, oldest));
    }
}
