//! What a connection sends: composing messages, and getting them to the peer's relay one after the other.
//!
//! Composing takes a number, a key of the ratchet and a nonce; all of that is in the same batch as the message, before
//! anything leaves. From then on the message is the same bytes, however often it has to be sent.

use alloc::vec::Vec;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::event::{Event, FailedBecause};
use super::live::{Live, Task, is_permanent, sender, sender_key};
use super::machine::Core;
use super::record::connection::{Stage, UNRECEIPTED};
use super::record::message::{Outgoing, OutgoingContent, OutgoingKind};
use super::record::queue::SendQueue;
use super::storage::{QueueNumber, RecordKey, Sequence};
use crate::client::{ClientCommand, CommandFailure, Reply};
use crate::crypto::Nonce;
use crate::crypto::envelope::{self, ClientMessage, EnvelopeHeader};
use crate::crypto::padding::LENGTH_BYTES;
use crate::crypto::ratchet::SealingKey;
use crate::entropy::Entropy;
use crate::time::Now;
use crate::wire::address::ServerAddress;
use crate::wire::agent_message::{
    AgentEnvelope, AgentEnvelopeContent, AgentMessage, AgentMessageContent, padded_lengths,
};
use crate::wire::error::SmpError;
use crate::wire::version::Version;

/// Why a message cannot be composed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ComposeError {
    /// The ratchet cannot send yet, or there is none.
    NotReady,
    /// The text does not fit.
    TooLong,
    /// Too many messages wait already.
    TooMany,
}

/// How many messages of the agent's own (receipts, answers) may wait besides the application's.
const OWN: usize = 64;

impl Live {
    /// Composes a numbered message, and returns its number.
    pub fn compose(
        &mut self,
        core: &mut Core,
        kind: OutgoingKind,
        queue: Option<QueueNumber>,
        notification: bool,
        content: AgentMessageContent<'_>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<i64, ComposeError> {
        if self.has_too_many_waiting(core) {
            return Err(ComposeError::TooMany);
        }
        let number = self.connection.sent.number.saturating_add(1);
        let previous = self.connection.sent.hash;
        let previous_hash = previous.as_ref().map_or(&[][..], |hash| hash);
        let message = AgentMessage::Numbered { id: number, previous_hash, content };
        let version = core.config.agent_versions.max();
        let (beside_key, padded) = self.padded_lengths(self.connection.version);
        let padded = if kind.carries_key() { beside_key } else { padded };
        self.encrypt(core, kind, queue, notification, &message, version, padded, entropy)?;
        if kind == OutgoingKind::Body
            && let Some(hash) = self.connection.sent.hash
        {
            if self.connection.unreceipted.len() >= UNRECEIPTED {
                self.connection.unreceipted.pop_front();
            }
            self.connection.unreceipted.push_back((number, hash));
            self.connection.accepted += 1;
        }
        Ok(number)
    }

    /// Whether not even the agent's own messages may wait any more: the peer makes us answer, and does not read.
    pub fn has_too_many_waiting(&self, core: &Core) -> bool {
        self.outgoing.len() >= core.config.limits.outgoing.saturating_add(OWN)
    }

    /// Composes a confirmation: the first message of ours, with number 1.
    pub fn compose_confirmation(
        &mut self,
        core: &mut Core,
        queue: QueueNumber,
        message: &AgentMessage<'_>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ComposeError> {
        let version = self.connection.version;
        let (padded, _) = self.padded_lengths(version);
        self.encrypt(core, OutgoingKind::Confirmation, Some(queue), true, message, version, padded, entropy)
    }

    fn padded_lengths(&self, version: Version) -> (usize, usize) {
        let long = self.ratchet.as_ref().is_some_and(|ratchet| ratchet.has_long_headers());
        padded_lengths(version, long)
    }

    #[expect(clippy::too_many_arguments, reason = "everything that a message is made of")]
    fn encrypt(
        &mut self,
        core: &mut Core,
        kind: OutgoingKind,
        queue: Option<QueueNumber>,
        notification: bool,
        message: &AgentMessage<'_>,
        version: Version,
        padded: usize,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ComposeError> {
        let mut text = Zeroizing::new(Vec::with_capacity(padded));
        message.encode(&mut *text).map_err(|_| ComposeError::TooLong)?;
        if text.len() + LENGTH_BYTES > padded {
            return Err(ComposeError::TooLong);
        }
        let ratchet = self.ratchet.as_mut().ok_or(ComposeError::NotReady)?;
        let key = ratchet.prepare(core.config.provider).map_err(|_| ComposeError::NotReady)?;
        self.ratchet_changed(core);
        let number = self.connection.sent.number.saturating_add(1);
        self.connection.sent.number = number;
        self.connection.sent.hash = Some(Sha256::digest(&*text).into());
        let padded = u16::try_from(padded).unwrap_or(u16::MAX);
        let content = OutgoingContent::Ratchet { version, key: key.to_bytes(), padded, text };
        self.enqueue(core, kind, queue, number, notification, content, entropy);
        Ok(())
    }

    /// Puts a message at the end of those that wait.
    #[expect(clippy::too_many_arguments, reason = "everything that a message is made of")]
    pub fn enqueue(
        &mut self,
        core: &mut Core,
        kind: OutgoingKind,
        queue: Option<QueueNumber>,
        number: i64,
        notification: bool,
        content: OutgoingContent,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let sequence = Sequence(self.connection.next_sequence);
        self.connection.next_sequence += 1;
        let outgoing =
            Outgoing { kind, queue, number, notification, nonce: Nonce::generate(entropy), content };
        let stamp = core.touch(RecordKey::Outgoing(self.id, sequence));
        self.outgoing.push_back((sequence, stamp, outgoing));
        core.outgoing += 1;
        self.changed(core);
        core.ready.insert(self.id);
    }

    /// Whether messages may leave at this stage: what goes before them is done.
    const fn may_leave(&self) -> bool {
        matches!(
            self.connection.stage,
            Stage::Invited
                | Stage::Replying
                | Stage::Confirming
                | Stage::Joined
                | Stage::Greeting { .. }
                | Stage::Connected
        )
    }

    /// The queue that messages go to.
    pub fn queue_in_use(&self) -> Option<&SendQueue> {
        self.connection.send.iter().find(|queue| queue.replaces.is_none())
    }

    /// Sends the first message that waits, unless one is on its way. What a proxy holds waits no more.
    pub fn send_next(&mut self, core: &mut Core, now: Now) {
        while self.may_leave() && self.sending.may_start(now) {
            let mut waiting =
                self.outgoing.iter().filter(|(sequence, ..)| !self.handed_over.contains(sequence));
            let Some((sequence, stamp, outgoing)) = waiting.next() else { return };
            if !core.is_durable(*stamp) {
                return;
            }
            let sequence = *sequence;
            let Some((relay, command)) = self.send_command(core, outgoing) else {
                // Its queue is gone: so is whoever should have got it.
                self.forget_outgoing(core, sequence);
                continue;
            };
            core.command(self.id, Task::Send(sequence), &relay, command);
            self.sending.start();
        }
    }

    /// The `SEND` of a message, and the relay that it is for: the same bytes each time.
    pub fn send_command(&self, core: &Core, outgoing: &Outgoing) -> Option<(ServerAddress, ClientCommand)> {
        let queue = match outgoing.queue {
            Some(number) => self.connection.send_queue(number),
            None => self.queue_in_use(),
        }?;
        let body = self.seal(core, queue, outgoing)?;
        let notification = outgoing.notification || outgoing.kind.notifies();
        let authorized = match outgoing.kind {
            OutgoingKind::Request => false,
            OutgoingKind::Confirmation => queue.is_securable(),
            _ => true,
        };
        Some((queue.relay.clone(), sender(queue, authorized).send(notification, body)))
    }

    /// The body of `SEND`: the same bytes each time.
    fn seal(&self, core: &Core, queue: &SendQueue, outgoing: &Outgoing) -> Option<bytes::Bytes> {
        let mut message = Vec::with_capacity(16_000);
        match &outgoing.content {
            OutgoingContent::Envelope(bytes) => message.extend_from_slice(bytes),
            OutgoingContent::Ratchet { version, key, padded, text } => {
                let key = SealingKey::from_bytes(key).ok()?;
                let encrypted = key.seal(text, usize::from(*padded)).ok()?;
                let content = match outgoing.kind {
                    OutgoingKind::Confirmation => AgentEnvelopeContent::Confirmation {
                        ratchet: self.connection.parameters.clone(),
                        encrypted: &encrypted,
                    },
                    _ => AgentEnvelopeContent::Message(&encrypted),
                };
                AgentEnvelope { version: *version, content }.encode(&mut message).ok()?;
            }
        }
        let header = EnvelopeHeader {
            client_version: queue.version.0,
            sender: outgoing.kind.carries_key().then_some(queue.dh),
            nonce: outgoing.nonce,
        };
        let shows_key = outgoing.kind == OutgoingKind::Confirmation && !queue.is_securable();
        let sender_auth_key = shows_key.then(|| sender_key(queue).public(core.config.provider));
        let content = ClientMessage { sender_auth_key, message: &message };
        let mut body = alloc::vec![0; envelope::envelope_length(header.sender.is_some())];
        envelope::seal(core.config.provider, &queue.secret.box_key(), &header, &content, &mut body).ok()?;
        Some(body.into())
    }

    /// Takes a message out of those that wait.
    pub fn forget_outgoing(&mut self, core: &mut Core, sequence: Sequence) -> Option<Outgoing> {
        if self.handed_over.remove(&sequence) {
            self.forget_held(core, sequence);
        }
        let place = self.outgoing.iter().position(|(other, ..)| *other == sequence)?;
        let (.., outgoing) = self.outgoing.remove(place)?;
        core.outgoing = core.outgoing.saturating_sub(1);
        core.touch(RecordKey::Outgoing(self.id, sequence));
        Some(outgoing)
    }

    /// The peer's relay has answered a message.
    pub fn send_answered(
        &mut self,
        sequence: Sequence,
        result: Result<Reply, CommandFailure>,
        proxied: bool,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match result {
            Ok(_) => {
                self.sending.succeeded();
                self.full = false;
                if let Some(outgoing) = self.forget_outgoing(core, sequence) {
                    self.delivered(core, &outgoing, proxied);
                }
            }
            Err(CommandFailure::Refused(SmpError::Quota)) => {
                if !core::mem::replace(&mut self.full, true) {
                    core.event(Event::Full { connection: self.id });
                }
                self.sending.failed(core, core.config.longest_full_delay, now, entropy);
            }
            Err(failure) if is_permanent(&failure) => {
                self.sending.succeeded();
                let may_be_there = self.maybe_delivered == Some(sequence);
                if let Some(outgoing) = self.forget_outgoing(core, sequence) {
                    // An unsigned confirmation (four messages) is refused when its receiver has got it already, and has
                    // secured the queue.
                    let refused = failure == CommandFailure::Refused(SmpError::Authorization);
                    if may_be_there && refused && self.is_unsigned_confirmation(&outgoing) {
                        self.delivered(core, &outgoing, proxied);
                    } else {
                        self.not_delivered(core, &outgoing, failure);
                    }
                }
            }
            Err(failure) => {
                if failure != CommandFailure::NotSent {
                    self.maybe_delivered = Some(sequence);
                }
                self.sending.failed(core, core.config.longest_delay, now, entropy);
            }
        }
    }

    fn is_unsigned_confirmation(&self, outgoing: &Outgoing) -> bool {
        let queue = outgoing.queue.and_then(|number| self.connection.send_queue(number));
        outgoing.kind == OutgoingKind::Confirmation && queue.is_some_and(|queue| !queue.is_securable())
    }

    /// The peer has answered our confirmation: it need not be sent again, whatever its relay said.
    pub fn confirmation_arrived(&mut self, core: &mut Core) {
        let place =
            |(_, _, outgoing): &&(Sequence, u64, Outgoing)| outgoing.kind == OutgoingKind::Confirmation;
        if let Some(sequence) = self.outgoing.iter().find(place).map(|(sequence, ..)| *sequence) {
            self.forget_outgoing(core, sequence);
            self.connection.parameters = None;
            self.sending.hurry();
        }
    }

    /// The peer's relay has a message.
    pub fn delivered(&mut self, core: &mut Core, outgoing: &Outgoing, proxied: bool) {
        let connection = self.id;
        match outgoing.kind {
            OutgoingKind::Confirmation => self.confirmation_delivered(core),
            OutgoingKind::Request => {
                // The address is not needed any more.
                self.connection.send.clear();
                self.changed(core);
                core.event(Event::Joined { connection, may_send: false });
            }
            OutgoingKind::Hello => self.hello_delivered(core),
            OutgoingKind::Body => {
                core.event(Event::Sent { connection, number: outgoing.number, proxied });
            }
            OutgoingKind::TestQueues | OutgoingKind::FirstTest => {
                self.test_delivered(core, outgoing.queue);
            }
            OutgoingKind::SecureQueues => self.keys_delivered(core),
            OutgoingKind::Receipt
            | OutgoingKind::Continue
            | OutgoingKind::AddQueues
            | OutgoingKind::UseQueues
            | OutgoingKind::RatchetKey
            | OutgoingKind::RatchetReady => {}
        }
    }

    /// The peer's relay will never take a message.
    pub fn not_delivered(&mut self, core: &mut Core, outgoing: &Outgoing, failure: CommandFailure) {
        let connection = self.id;
        let gone = matches!(failure, CommandFailure::Refused(SmpError::Authorization));
        match outgoing.kind {
            OutgoingKind::Confirmation | OutgoingKind::Request | OutgoingKind::Hello
                if self.connection.stage != Stage::Connected =>
            {
                let because = match (gone, &self.connection.stage) {
                    (true, Stage::Confirming | Stage::Invited) => FailedBecause::LinkGone,
                    (true, _) => FailedBecause::PeerGone,
                    (false, _) => FailedBecause::Refused(failure),
                };
                self.fail(core, because);
            }
            OutgoingKind::Body => {
                core.event(Event::NotSent { connection, number: outgoing.number, failure });
            }
            OutgoingKind::TestQueues | OutgoingKind::FirstTest => self.test_failed(core, outgoing.queue),
            OutgoingKind::AddQueues | OutgoingKind::UseQueues | OutgoingKind::SecureQueues => {
                self.switch_failed(core);
            }
            _ => {}
        }
    }
}
