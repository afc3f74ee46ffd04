//! What happens when storage has answered: only now may the broker speak.

use super::Broker;
use super::actions::{Expected, Purpose, UnderWay};
use super::queues::{Health, QueueRef};
use super::record::QueueRecord;
use super::recovery::storage_failed;
use super::storage::{ActionId, Completion, StoredMessage};
use crate::session::outgoing::OutgoingContent;
use crate::time::Now;

impl Broker {
    /// Takes storage's answer to an action. An answer to an action that is not under way is ignored; one of the wrong
    /// kind is a failure.
    pub fn complete(&mut self, completion: Completion, now: Now) {
        let action = completion.action();
        let Some(UnderWay { queue: at, purpose }) = self.actions.complete(action) else { return };
        if let Some(id) = purpose.owed_to() {
            self.connections.owe(id, false);
        }
        if let Some(queue) = self.queues.at(at) {
            queue.actions = queue.actions.saturating_sub(1);
            if purpose.deletes_message() {
                queue.deleting = queue.deleting.saturating_sub(1);
            }
        }
        match (completion, purpose.expects()) {
            (Completion::Done(_), Expected::Done) => self.written(at, action, purpose, now),
            (Completion::Message(_, message), Expected::Message) => {
                self.message_read(at, action, purpose, message);
            }
            (Completion::Link(_, data), Expected::Link) => {
                if let Purpose::ReadLink(to) = purpose {
                    self.link_read(at, to, data);
                }
            }
            (Completion::Blob(_, value), Expected::Blob) => {
                if let Purpose::ReadBlob(to) = purpose {
                    self.blob_read(to, Some(value));
                }
            }
            (Completion::Queue(_, stored), Expected::Queue) => self.restored(at, stored, now),
            _ => self.failed(at, action, purpose, now),
        }
        self.restore_when_quiet(at);
    }

    fn written(&mut self, at: QueueRef, action: ActionId, purpose: Purpose, now: Now) {
        match purpose {
            Purpose::Create(to, content) => {
                if let Some(queue) = self.queues.at(at) {
                    queue.health = Health::Sound;
                }
                self.connections.say(to, content);
            }
            Purpose::Block { .. } => self.status_set(at),
            Purpose::Quietly { .. } => {}
            Purpose::PutService(number) => self.service_stored(number, true),
            Purpose::WriteBlob(to, id, written) => self.blob_written(to, id, written, true),
            Purpose::ClearBlob(to, id) => self.blob_cleared(Some(to), id, true, now),
            Purpose::ExpireBlob(id) => self.blob_cleared(None, id, true, now),
            Purpose::ExpireQueue => self.remove_queue(at, None),
            Purpose::AcknowledgeTaken(to) => self.connections.say(to, OutgoingContent::Ok),
            Purpose::Change { to, answer, previous, .. } => {
                if let Some(previous) = previous {
                    self.tell_notifier_deleted(previous);
                }
                match answer {
                    Some(answer) => self.connections.say(to, answer),
                    None => self.read_link(to, at),
                }
            }
            Purpose::DeleteQueue(to) => {
                self.remove_queue(at, Some(to.connection));
                self.connections.say(to, OutgoingContent::Ok);
            }
            Purpose::Message { to, sequence, message, news } => {
                self.connections.say(to, OutgoingContent::Ok);
                self.message_stored(at, sequence, message);
                if let Some(news) = news {
                    self.keep_news(at, *news, now);
                }
            }
            Purpose::Marker { sequence } => self.message_stored(at, sequence, None),
            Purpose::Acknowledge(to) => self.acknowledged(at, action, to),
            // Reads are not completed by `Done`.
            Purpose::Expire
            | Purpose::Deliver(..)
            | Purpose::DeliverAsAnswer(..)
            | Purpose::Take(..)
            | Purpose::Describe(..)
            | Purpose::ReadLink(_)
            | Purpose::ReadBlob(_)
            | Purpose::Restore => {}
        }
    }

    fn message_read(
        &mut self,
        at: QueueRef,
        action: ActionId,
        purpose: Purpose,
        message: Option<StoredMessage>,
    ) {
        match purpose {
            Purpose::Take(to, sequence) => {
                let id = to.connection;
                self.taken(at, to, sequence, message);
                self.deliver_queued(id);
            }
            Purpose::Deliver(id, sequence) => self.read_for_subscriber(at, action, id, sequence, message),
            Purpose::DeliverAsAnswer(id, sequence) => self.read_as_answer(at, action, id, sequence, message),
            Purpose::Describe(to, text, sequence) => self.described(at, to, text, sequence, message),
            _ => {}
        }
    }

    /// A change of a queue failed. Until the queue has been read again its record is that of before: `ERR AUTH` would tell
    /// the authorized that it is gone.
    fn take_back(&mut self, at: QueueRef, before: QueueRecord) {
        self.doubt(at);
        if self.queues.at(at).is_some() {
            self.queues.replace_record(at.slot, before);
        }
    }

    /// The action took no effect. Whoever waits for it is told so, and the queue is in doubt.
    fn failed(&mut self, at: QueueRef, action: ActionId, purpose: Purpose, now: Now) {
        match purpose {
            Purpose::Create(to, _) => {
                // Nobody has heard of the queue.
                self.forget_queue(at);
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::DeleteQueue(to) | Purpose::Message { to, .. } | Purpose::AcknowledgeTaken(to) => {
                self.doubt(at);
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::Change { to, previous, before, .. } => {
                self.take_back(at, *before);
                if let Some(previous) = previous {
                    self.reattach_notifier(at, previous);
                }
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::Acknowledge(to) => {
                self.doubt(at);
                self.acknowledgement_failed(at, action, to.connection);
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::Block { before } | Purpose::Quietly { before } => self.take_back(at, *before),
            Purpose::PutService(number) => self.service_stored(number, false),
            Purpose::WriteBlob(to, id, written) => self.blob_written(to, id, written, false),
            Purpose::ClearBlob(to, id) => self.blob_cleared(Some(to), id, false, now),
            Purpose::ExpireBlob(id) => self.blob_cleared(None, id, false, now),
            Purpose::ReadBlob(to) => self.blob_read(to, None),
            Purpose::Marker { .. } | Purpose::Expire => self.doubt(at),
            Purpose::ExpireQueue => {
                self.doubt(at);
                self.watch_unsecured(at);
            }
            // A message that cannot be read would be read again at once if the queue were not put off.
            Purpose::Take(to, _) | Purpose::ReadLink(to) => {
                self.doubt_later(at, now);
                let id = to.connection;
                self.connections.release_body(id);
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
                self.deliver_queued(id);
            }
            Purpose::Describe(to, ..) => {
                self.doubt_later(at, now);
                self.connections.say(to, OutgoingContent::Error(storage_failed()));
            }
            Purpose::Deliver(id, _) => {
                self.doubt_later(at, now);
                self.read_failed(at, action, id);
            }
            Purpose::DeliverAsAnswer(id, _) => {
                self.doubt_later(at, now);
                self.read_failed(at, action, id);
            }
            Purpose::Restore => self.doubt_later(at, now),
        }
    }
}
