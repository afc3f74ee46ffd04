//! One connection at work: its record, and what only this run of the agent knows.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::event::Event;
use super::holding::Holder;
use super::machine::Core;
use super::record::connection::{Connection, Stage};
use super::record::message::{Outgoing, Received};
use super::record::queue::{ReceiveQueue, SendQueue};
use super::storage::{ConnectionId, QueueNumber, RecordKey, Sequence};
use crate::client::queue::{QueueToCreate, RecipientQueue, SenderQueue};
use crate::client::{CommandFailure, Reply};
use crate::crypto::link_keys::LinkKey;
use crate::crypto::ratchet::Ratchet;
use crate::crypto::ratchet::SkippedKeys;
use crate::entropy::Entropy;
use crate::keys::X25519Secret;
use crate::session::AuthSecret;
use crate::time::{Duration, Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::error::SmpError;
use crate::wire::identifier::Identifier;

/// What a command was for.
#[derive(Debug)]
pub(super) enum Task {
    /// `NEW`
    Create(NewQueue),
    /// `SKEY`
    SecurePeer(QueueNumber),
    /// `KEY`
    SecureOwn(QueueNumber),
    /// `LKEY` or `LGET`
    ReadLink,
    /// `LSET`, with data of this hash
    SetLink([u8; 32]),
    /// `SEND`
    Send(Sequence),
    /// `ACK`
    Acknowledge(QueueNumber, Identifier),
    /// `SUB`
    Subscribe(QueueNumber),
    /// `DEL`
    Delete(QueueNumber),
    /// `OFF`
    Suspend(QueueNumber),
}

impl Task {
    /// A digest of what it is for.
    pub fn digest(&self, id: ConnectionId) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(id.0.to_be_bytes());
        let (tag, number): (u8, u64) = match self {
            Self::Create(_) => (0, 0),
            Self::SecurePeer(queue) => (1, queue.0.into()),
            Self::SecureOwn(queue) => (2, queue.0.into()),
            Self::ReadLink => (3, 0),
            Self::SetLink(_) => (4, 0),
            Self::Send(sequence) => (5, sequence.0),
            Self::Acknowledge(queue, _) => (6, queue.0.into()),
            Self::Subscribe(queue) => (7, queue.0.into()),
            Self::Delete(queue) => (8, queue.0.into()),
            Self::Suspend(queue) => (9, queue.0.into()),
        };
        digest.update([tag]);
        digest.update(number.to_be_bytes());
        match self {
            // The other keys of the queue were drawn together with this one.
            Self::Create(new) => digest.update(new.dh.as_bytes()),
            Self::SetLink(hash) => digest.update(hash),
            Self::Acknowledge(_, message) => digest.update(message.as_bytes()),
            _ => {}
        }
        digest.finalize().into()
    }
}

/// A queue that a relay was asked to create.
#[derive(Debug)]
pub(super) struct NewQueue {
    pub queue: QueueToCreate,
    pub dh: X25519Secret,
    pub relay: ServerAddress,
    /// The key of the short link to it, and the sealed fixed part.
    pub link: Option<(LinkKey, Bytes)>,
}

/// Something that is tried until it succeeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempt {
    /// How many failed in a row.
    failures: u32,
    state: AttemptState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AttemptState {
    /// May begin.
    #[default]
    Ready,
    /// A command is on its way.
    Busy,
    /// Not before this time.
    Until(Instant),
}

impl Attempt {
    pub fn may_start(&self, now: Now) -> bool {
        match self.state {
            AttemptState::Ready => true,
            AttemptState::Busy => false,
            AttemptState::Until(at) => at <= now.instant,
        }
    }

    pub const fn is_busy(&self) -> bool {
        matches!(self.state, AttemptState::Busy)
    }

    pub fn start(&mut self) {
        self.state = AttemptState::Busy;
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Waits longer with each failure.
    pub fn failed(
        &mut self,
        core: &Core,
        longest: Duration,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.failures = self.failures.saturating_add(1);
        self.state =
            AttemptState::Until(now.instant + core.config.backoff(longest).after(self.failures, entropy));
    }

    /// Ends a wait.
    pub fn hurry(&mut self) {
        if !self.is_busy() {
            *self = Self::default();
        }
    }

    fn digest(&self, digest: &mut Sha256) {
        let at = self.waits_until().map_or(u64::MAX, Instant::as_micros);
        digest.update(self.failures.to_be_bytes());
        digest.update([u8::from(self.is_busy())]);
        digest.update(at.to_be_bytes());
    }

    pub const fn waits_until(&self) -> Option<Instant> {
        match self.state {
            AttemptState::Until(at) => Some(at),
            AttemptState::Ready | AttemptState::Busy => None,
        }
    }
}

/// A queue of ours, in this run.
#[derive(Debug, Default)]
pub(super) struct LiveQueue {
    /// What waits for the application.
    pub received: Option<Received>,
    /// What the relay has delivered to this session and waits to see acknowledged.
    pub delivered: Option<Identifier>,
    /// `ACK` may leave when this is durable.
    pub acknowledge: Option<u64>,
    pub acknowledging: Attempt,
    pub subscribed: bool,
    pub subscribing: Attempt,
    /// A delivered message that cannot be taken yet.
    pub parked: Option<Bytes>,
    /// How far the question is whether anything is left in it, when messages came by the queue that replaces it.
    pub probe: Probe,
    /// When to believe that the subscription brings nothing.
    pub quiet_at: Option<Instant>,
}

/// The question to a relay whether anything is left in a queue. A new subscription brings what waits, so whatever the relay
/// had when it took the question is there when it is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Probe {
    /// Nobody wants to know.
    #[default]
    None,
    /// To be asked, also when another subscription is on its way.
    Wanted,
    /// Asked.
    Sent,
    /// Answered: now the queue is read to its end.
    Answered,
    /// It is empty, or gone.
    Empty,
}

impl LiveQueue {
    /// The session with the relay is over: what it delivered will be delivered again.
    pub fn session_ended(&mut self) {
        self.delivered = None;
        self.acknowledge = None;
        self.parked = None;
        self.quiet_at = None;
        if matches!(self.probe, Probe::Sent | Probe::Answered) {
            self.ask();
        }
    }

    /// Asks whether anything is left.
    pub fn ask(&mut self) {
        self.probe = Probe::Wanted;
        self.subscribed = false;
        self.subscribing.hurry();
    }
}

/// A connection at work.
pub(super) struct Live {
    pub id: ConnectionId,
    pub connection: Connection,
    pub ratchet: Option<Ratchet>,
    /// The keys of messages that did not come yet.
    pub skipped: SkippedKeys,
    /// What waits to be sent, in order, with the batch that holds it.
    pub outgoing: VecDeque<(Sequence, u64, Outgoing)>,
    pub queues: BTreeMap<QueueNumber, LiveQueue>,
    /// The batch that holds the last change of the record.
    pub stamp: u64,
    /// The batch that holds the queue of the link.
    pub link_stamp: u64,
    /// The step of the stage.
    pub step: Attempt,
    pub sending: Attempt,
    /// A message that may be with the peer's relay although it did not say so.
    pub maybe_delivered: Option<Sequence>,
    /// Messages of those that a proxy has, or is to have: it holds them until the peer's relay can be reached.
    pub handed_over: BTreeSet<Sequence>,
    /// What the proxy holds.
    pub holder: Option<Holder>,
    /// Whether the application was told that the peer's queue is full.
    pub full: bool,
    /// When this connection is to be looked at again.
    pub wake: Option<Instant>,
    /// Whether the application asked for the deletion (and is told of its end).
    pub deletion_is_told: bool,
}

impl Live {
    pub fn new(id: ConnectionId, connection: Connection) -> Self {
        Self {
            id,
            connection,
            ratchet: None,
            skipped: SkippedKeys::new(),
            outgoing: VecDeque::new(),
            queues: BTreeMap::new(),
            stamp: 0,
            link_stamp: 0,
            step: Attempt::default(),
            sending: Attempt::default(),
            maybe_delivered: None,
            handed_over: BTreeSet::new(),
            holder: None,
            full: false,
            wake: None,
            deletion_is_told: true,
        }
    }

    pub fn queue(&mut self, number: QueueNumber) -> &mut LiveQueue {
        self.queues.entry(number).or_default()
    }

    /// The record of the connection has changed.
    pub fn changed(&mut self, core: &mut Core) {
        self.stamp = core.touch(RecordKey::Connection(self.id));
    }

    /// The ratchet has moved.
    pub fn ratchet_changed(&mut self, core: &mut Core) {
        self.stamp = core.touch(RecordKey::Ratchet(self.id));
    }

    /// Tells the application what it may have missed when the agent stopped.
    pub fn resume(&mut self, core: &mut Core) {
        for received in self.queues.values().filter_map(|queue| queue.received.as_ref()) {
            core.event(received.event(self.id));
        }
        self.resume_holding();
        // It may have left before the agent stopped.
        self.maybe_delivered = self.outgoing.front().map(|(sequence, ..)| *sequence);
        if let Stage::Confirmed { information, .. } = &self.connection.stage {
            core.event(Event::Confirmed { connection: self.id, information: information.clone() });
        }
    }

    /// Whether nothing is left of it but its record.
    pub fn is_finished(&self, core: &Core) -> bool {
        self.connection.stage == Stage::Deleting
            && self.connection.receive.is_empty()
            && !self.step.is_busy()
            && core.is_durable(self.stamp)
    }

    /// Forgets the messages that wait to be sent, and those that wait for the application.
    pub fn drop_messages(&mut self, core: &mut Core) {
        for sequence in core::mem::take(&mut self.handed_over) {
            self.forget_held(core, sequence);
        }
        for (sequence, ..) in self.outgoing.drain(..) {
            core.outgoing = core.outgoing.saturating_sub(1);
            core.touch(RecordKey::Outgoing(self.id, sequence));
        }
        for (number, queue) in &mut self.queues {
            if queue.received.take().is_some() {
                core.touch(RecordKey::Received(self.id, *number));
            }
        }
        for key in core::mem::take(&mut self.skipped).iter() {
            core.touch(RecordKey::Skipped(self.id, key.id()));
        }
    }

    /// Does what can be done now: at most one command of each kind is on its way.
    pub fn advance(&mut self, core: &mut Core, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.subscribe(core, now);
        self.acknowledge_to_relays(core, now);
        self.take_step(core, now, entropy);
        self.send_next(core, now);
        let waits = [self.step.waits_until(), self.sending.waits_until()].into_iter().flatten();
        for queue in self.queues.values_mut() {
            if queue.quiet_at.is_some_and(|at| at <= now.instant) {
                queue.quiet_at = None;
                if queue.delivered.is_none() && queue.probe == Probe::Answered {
                    queue.probe = Probe::Empty;
                }
            }
        }
        let queues = self.queues.values().flat_map(|queue| {
            [queue.acknowledging.waits_until(), queue.subscribing.waits_until(), queue.quiet_at]
                .into_iter()
                .flatten()
        });
        let at = waits.chain(queues).filter(|at| *at > now.instant).min();
        core.wake(self.id, self.wake, at);
        self.wake = at;
    }

    fn subscribe(&mut self, core: &mut Core, now: Now) {
        if self.connection.stage == Stage::Deleting {
            return;
        }
        for queue in &self.connection.receive {
            let live = self.queues.entry(queue.number).or_default();
            if live.subscribed || !live.subscribing.may_start(now) {
                continue;
            }
            live.subscribing.start();
            if live.probe == Probe::Wanted {
                live.probe = Probe::Sent;
            }
            core.command(self.id, Task::Subscribe(queue.number), &queue.relay, recipient(queue).subscribe());
        }
    }

    fn acknowledge_to_relays(&mut self, core: &mut Core, now: Now) {
        for queue in &self.connection.receive {
            let Some(live) = self.queues.get_mut(&queue.number) else { continue };
            let due = live.acknowledge.is_some_and(|stamp| core.is_durable(stamp));
            if !due || !live.acknowledging.may_start(now) {
                continue;
            }
            let Some(message) = live.delivered.clone() else {
                live.acknowledge = None;
                continue;
            };
            live.acknowledging.start();
            let command = recipient(queue).acknowledge(message.clone());
            core.command(self.id, Task::Acknowledge(queue.number, message), &queue.relay, command);
        }
    }

    /// The relay has answered an acknowledgement.
    pub fn acknowledged(
        &mut self,
        number: QueueNumber,
        message: &Identifier,
        result: Result<Reply, CommandFailure>,
        core: &Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let live = self.queue(number);
        live.acknowledging.succeeded();
        match result {
            Ok(_) | Err(CommandFailure::Refused(SmpError::NoMessage)) => {
                // With the next message the answer would have been that one.
                if result.is_ok() && live.probe == Probe::Answered {
                    live.probe = Probe::Empty;
                }
                if live.delivered.as_ref() == Some(message) {
                    live.delivered = None;
                    live.acknowledge = None;
                }
            }
            Err(CommandFailure::NotSent) => {
                live.acknowledging.failed(core, core.config.longest_delay, now, entropy);
            }
            // It may be done or not. Whatever waits now comes again with a subscription.
            Err(_) => {
                live.delivered = None;
                live.acknowledge = None;
                live.subscribed = false;
                live.subscribing.failed(core, core.config.longest_delay, now, entropy);
            }
        }
    }

    /// The relay has answered a subscription.
    pub fn subscription_answered(
        &mut self,
        number: QueueNumber,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let id = self.id;
        let live = self.queue(number);
        match result {
            Ok(_) => {
                live.subscribing.succeeded();
                // The question came up while this one was on its way: it is asked once more.
                live.subscribed = live.probe != Probe::Wanted;
                if live.probe == Probe::Sent {
                    live.probe = Probe::Answered;
                    // The message that waits, if any, comes by itself.
                    live.quiet_at = Some(now.instant + core.config.first_delay);
                }
            }
            Err(failure) if is_permanent(&failure) => {
                live.subscribing.succeeded();
                // Not asked again in this run; commands about the queue will say the same.
                live.subscribed = true;
                live.probe = Probe::Empty;
                core.event(Event::QueueLost { connection: id, failure });
            }
            Err(_) => live.subscribing.failed(core, core.config.longest_delay, now, entropy),
        }
    }

    /// What is not in the records.
    pub fn digest(&self, core: &Core, digest: &mut Sha256) {
        digest.update(self.id.0.to_be_bytes());
        for (sequence, stamp, _) in &self.outgoing {
            digest.update(sequence.0.to_be_bytes());
            digest.update([core.distance(*stamp)]);
        }
        for (number, queue) in &self.queues {
            digest.update(number.0.to_be_bytes());
            digest.update([
                u8::from(queue.subscribed),
                u8::from(queue.received.is_some()),
                queue.acknowledge.map_or(u8::MAX, |stamp| core.distance(stamp)),
                queue.probe as u8,
            ]);
            digest_maybe(digest, queue.delivered.as_ref().map(Identifier::as_bytes));
            digest_maybe(digest, queue.parked.as_deref());
            digest_maybe(digest, queue.quiet_at.map(|at| at.as_micros().to_be_bytes()));
            queue.acknowledging.digest(digest);
            queue.subscribing.digest(digest);
        }
        self.step.digest(digest);
        self.sending.digest(digest);
        if let Some(holder) = &self.holder {
            holder.digest(core, digest);
        }
        digest_maybe(digest, self.maybe_delivered.map(|sequence| sequence.0.to_be_bytes()));
        digest_maybe(digest, self.wake.map(|at| at.as_micros().to_be_bytes()));
        digest.update([
            u8::from(self.full),
            u8::from(self.deletion_is_told),
            core.distance(self.stamp),
            core.distance(self.link_stamp),
        ]);
    }

    pub fn check(&self, id: ConnectionId) {
        assert_eq!(self.id, id, "a connection in another's place");
        let sequences: alloc::vec::Vec<_> = self.outgoing.iter().map(|(sequence, ..)| *sequence).collect();
        assert!(sequences.is_sorted(), "messages out of order");
        let next = Sequence(self.connection.next_sequence);
        assert!(sequences.last().is_none_or(|last| *last < next), "a number given out twice");
        let numbers: alloc::vec::Vec<_> =
            self.outgoing.iter().map(|(.., outgoing)| outgoing.number).filter(|number| *number > 0).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "two messages with one number");
        assert!(
            numbers.last().is_none_or(|last| *last <= self.connection.sent.number),
            "a message with a number that was not given out"
        );
        self.check_holding();
        if self.connection.stage == Stage::Connected {
            assert!(self.ratchet.is_some(), "connected without a ratchet");
            assert!(!self.connection.send.is_empty(), "connected without a queue to send to");
        }
    }
}

/// Adds something that may be absent, so that no two lists of such things look the same.
fn digest_maybe(digest: &mut Sha256, bytes: Option<impl AsRef<[u8]>>) {
    match bytes {
        None => digest.update([0]),
        Some(bytes) => {
            digest.update([1]);
            digest.update(bytes.as_ref().len().to_be_bytes());
            digest.update(bytes);
        }
    }
}

/// The client's view of a queue of ours.
pub(super) fn recipient(queue: &ReceiveQueue) -> RecipientQueue {
    RecipientQueue {
        recipient: queue.recipient.clone(),
        sender: queue.sender.clone(),
        key: Arc::new(AuthSecret::Ed25519(queue.key.clone())),
        delivery: queue.delivery.clone(),
    }
}

/// The client's view of a queue of the peer's; `authorized` with our key or not at all.
pub(super) fn sender(queue: &SendQueue, authorized: bool) -> SenderQueue {
    SenderQueue { sender: queue.sender.clone(), key: authorized.then(|| sender_key(queue)) }
}

pub(super) fn sender_key(queue: &SendQueue) -> Arc<AuthSecret> {
    Arc::new(AuthSecret::X25519(queue.key.clone()))
}

/// Whether trying again will fail again.
pub(super) const fn is_permanent(failure: &CommandFailure) -> bool {
    match failure {
        CommandFailure::Refused(error) => matches!(
            error,
            SmpError::Authorization
                | SmpError::Blocked(_)
                | SmpError::Command(_)
                | SmpError::LargeMessage
                | SmpError::Service
                | SmpError::Expired
        ),
        CommandFailure::TooLarge | CommandFailure::NoRelayKey | CommandFailure::NotTheRelay(_) => true,
        CommandFailure::NotForwarded(_) | CommandFailure::NotHeld(_) => false,
        CommandFailure::NotSent | CommandFailure::OutcomeUnknown | CommandFailure::Unexpected => false,
    }
}
