//! What comes from our relays: three layers are opened, then the message does what its stage lets it do.
//!
//! Nothing changes before everything about a message is known to be good. What cannot be read is acknowledged to the
//! relay and reported: it would only come again. What is known already is acknowledged and forgotten.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::event::{DroppedBecause, Event, Integrity};
use super::live::{Live, Probe, recipient};
use super::machine::{Connections, Core};
use super::record::connection::{Chain, Stage};
use super::record::message::{OutgoingKind, Received};
use super::record::queue::ReceiveSwitch;
use super::storage::{ConnectionId, QueueNumber, RecordKey};
use crate::crypto::SharedSecret;
use crate::crypto::envelope::{self, ClientMessage, Envelope};
use crate::crypto::message_body::ReceivedMessage;
use crate::crypto::ratchet::{DecryptError, InitialKeys, Ratchet, SkippedKeys};
use crate::entropy::Entropy;
use crate::keys::AuthKey;
use crate::time::UnixTime;
use crate::wire::agent_message::{
    AgentEnvelope, AgentEnvelopeContent, AgentMessage, AgentMessageContent, Receipt,
};
use crate::wire::identifier::Identifier;
use crate::wire::links::connection_request::ConnectionRequest;
use crate::wire::links::ratchet_parameters::RatchetParameters;
use crate::wire::version::Version;

/// What becomes of a delivered message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is dealt with: the relay may delete it.
    Done,
    /// The application has to acknowledge it first.
    Waits,
    /// It cannot be taken yet, and is tried again later.
    Parked,
    /// Somebody asks at a contact address.
    Requested(Box<ConnectionRequest>, Vec<u8>),
}

/// What a relay tells of a message besides its body.
#[derive(Clone, Copy)]
struct Delivery {
    queue: QueueNumber,
    sent_at: UnixTime,
    notification: bool,
}

impl Connections {
    /// Takes a delivered message.
    pub(super) fn deliver(
        &mut self,
        id: ConnectionId,
        number: QueueNumber,
        message: Identifier,
        body: Bytes,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let requests_are_full = self.requests.len() >= self.core.config.limits.requests;
        let Some(live) = self.lives.get_mut(&id) else { return };
        if live.connection.stage == Stage::Deleting {
            return;
        }
        {
            let queue = live.queue(number);
            queue.delivered = Some(message.clone());
            queue.acknowledge = None;
            if queue.probe == Probe::Empty {
                queue.probe = Probe::Answered;
            }
        }
        let mut bytes = body.to_vec();
        let outcome =
            live.read_delivery(&mut self.core, number, &message, &mut bytes, requests_are_full, entropy);
        let outcome = outcome.unwrap_or_else(|because| {
            self.core.event(Event::Dropped { connection: id, because });
            Outcome::Done
        });
        match outcome {
            Outcome::Done => live.acknowledge_when_durable(number),
            Outcome::Waits => {}
            Outcome::Parked => live.queue(number).parked = Some(body),
            Outcome::Requested(request, information) => {
                live.acknowledge_when_durable(number);
                self.requested(id, *request, information);
            }
        }
    }

    /// Tries again what could not be taken before.
    pub(super) fn deliver_parked(
        &mut self,
        id: ConnectionId,
        number: QueueNumber,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(queue) = self.lives.get_mut(&id).and_then(|live| live.queues.get_mut(&number)) else {
            return;
        };
        if let (Some(message), Some(body)) = (queue.delivered.clone(), queue.parked.take()) {
            self.deliver(id, number, message, body, entropy);
            self.core.ready.insert(id);
        }
    }
}

impl Live {
    /// The relay may delete the message, when all that came of it is durable.
    pub fn acknowledge_when_durable(&mut self, number: QueueNumber) {
        let stamp = self.stamp;
        self.queue(number).acknowledge = Some(stamp);
    }

    fn read_delivery(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        message: &Identifier,
        bytes: &mut [u8],
        requests_are_full: bool,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Outcome, DroppedBecause> {
        let provider = core.config.provider;
        let queue = self.connection.receive_queue(number).ok_or(DroppedBecause::Unexpected)?;
        let received =
            recipient(queue).open(provider, message, bytes).map_err(|_| DroppedBecause::RelayEncryption)?;
        let (sent_at, notification, body) = match received {
            ReceivedMessage::QuotaExceeded { .. } => {
                self.continue_after_quota(core, number, entropy);
                return Ok(Outcome::Done);
            }
            ReceivedMessage::Message { timestamp, notification, body } => (timestamp, notification, body),
        };
        let delivery = Delivery { queue: number, sent_at, notification };
        let parsed = Envelope::parse(body).ok_or(DroppedBecause::Malformed)?;
        let header = parsed.header;
        let mut sealed = parsed.sealed.to_vec();
        let (secret, is_first) = match (&queue.sender_secret, header.sender) {
            (None, Some(key)) => (SharedSecret::agree(provider, &queue.dh, &key), true),
            (Some(secret), None) => (secret.clone(), false),
            // A confirmation that was sent again, because the answer to the first was lost; or a second one, of somebody
            // who came too late. The link is used up in both cases.
            (Some(_), Some(_)) => return Ok(Outcome::Done),
            (None, None) => return Err(DroppedBecause::Unexpected),
        };
        let text = envelope::open(provider, &secret.box_key(), &header.nonce, &mut sealed)
            .map_err(|_| DroppedBecause::QueueEncryption)?;
        let message = ClientMessage::parse(text).ok_or(DroppedBecause::Malformed)?;
        let envelope = AgentEnvelope::decode(message.message).ok_or(DroppedBecause::Malformed)?;
        let client_version = Version(header.client_version).min(core.config.client_versions.max());
        match (is_first, envelope.content) {
            (true, AgentEnvelopeContent::Confirmation { ratchet, encrypted }) => {
                let confirmation = Confirmation {
                    secret,
                    client_version,
                    version: envelope.version,
                    sender_key: message.sender_auth_key,
                    ratchet,
                };
                self.confirmation(core, number, confirmation, encrypted, entropy)
            }
            (true, AgentEnvelopeContent::Invitation { request, information }) => {
                if self.connection.stage != Stage::Address
                    || !matches!(request, ConnectionRequest::Invitation(..))
                {
                    return Err(DroppedBecause::Unexpected);
                }
                if requests_are_full {
                    return Ok(Outcome::Parked);
                }
                let hash = sha256(message.message);
                if self.connection.remembered.contains(&hash) {
                    return Ok(Outcome::Done);
                }
                self.connection.remember(hash);
                self.changed(core);
                Ok(Outcome::Requested(Box::new(request), information.to_vec()))
            }
            // The fast form of a switch: the new queue is secured, and its first message tests it.
            (true, AgentEnvelopeContent::Message(encrypted))
                if matches!(queue.switch, ReceiveSwitch::Replaces(_)) =>
            {
                let outcome = self.encrypted_message(core, delivery, encrypted, entropy)?;
                if outcome != Outcome::Parked
                    && let Some(queue) = self.connection.receive_queue_mut(number)
                {
                    queue.sender_secret = Some(secret);
                    queue.version = queue.version.min(client_version);
                    self.changed(core);
                }
                Ok(outcome)
            }
            (false, AgentEnvelopeContent::Message(encrypted)) => {
                let outcome = self.encrypted_message(core, delivery, encrypted, entropy)?;
                self.upgrade(core, envelope.version);
                Ok(outcome)
            }
            (false, AgentEnvelopeContent::RatchetKey { ratchet, .. }) => {
                self.ratchet_key(core, &ratchet, entropy)?;
                self.upgrade(core, envelope.version);
                Ok(Outcome::Done)
            }
            _ => Err(DroppedBecause::Unexpected),
        }
    }

    /// Both sides use the newest version that both speak.
    fn upgrade(&mut self, core: &mut Core, version: Version) {
        let version = version.min(core.config.agent_versions.max());
        if version > self.connection.version {
            self.connection.version = version;
            self.changed(core);
        }
    }

    /// The first message to a queue of ours.
    fn confirmation(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        confirmation: Confirmation,
        encrypted: &[u8],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Outcome, DroppedBecause> {
        let agreed = self.connection.version;
        let is_securable = self
            .connection
            .receive_queue(number)
            .is_some_and(|queue| queue.mode == Some(crate::wire::command::QueueMode::Messaging));
        if confirmation.version > core.config.agent_versions.max()
            || (confirmation.version < core.config.agent_versions.min() && confirmation.version < agreed)
        {
            return Err(DroppedBecause::Version(confirmation.version));
        }
        // Without a key the sender must have secured the queue.
        if confirmation.sender_key.is_none() && !is_securable {
            return Err(DroppedBecause::Unexpected);
        }
        match (&self.connection.stage, &confirmation.ratchet) {
            (Stage::Invited, Some(parameters)) => {
                let parameters = parameters.clone();
                self.invitation_used(core, number, confirmation, &parameters, encrypted, entropy)
            }
            (Stage::Confirming | Stage::Joined, None) => {
                self.answered(core, number, confirmation, encrypted, entropy)
            }
            _ => Err(DroppedBecause::Unexpected),
        }
    }

    /// Initiator: somebody used the invitation. The ratchet begins.
    fn invitation_used(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        confirmation: Confirmation,
        parameters: &RatchetParameters,
        encrypted: &[u8],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Outcome, DroppedBecause> {
        let provider = core.config.provider;
        let keys = self.connection.keys.as_ref().and_then(|keys| InitialKeys::from_bytes(keys).ok());
        let keys = keys.ok_or(DroppedBecause::Unexpected)?;
        let mut ratchet = Ratchet::initiate(provider, &keys, parameters, core.config.ratchet_versions)
            .map_err(|_| DroppedBecause::Version(parameters.versions.max()))?;
        let mut bytes = encrypted.to_vec();
        let mut skipped = SkippedKeys::new();
        let text = ratchet
            .decrypt(provider, &mut skipped, entropy, &mut bytes)
            .map_err(DroppedBecause::Ratchet)?
            .text;
        let hash = sha256(text);
        let Some(AgentMessage::ConnectionInformationReply { queues, information }) =
            AgentMessage::decode(text)
        else {
            return Err(DroppedBecause::Unexpected);
        };
        let reply = queues.into_iter().next().ok_or(DroppedBecause::Malformed)?;
        if !core.config.client_versions.contains(reply.version) {
            return Err(DroppedBecause::Version(reply.version));
        }
        let information = information.to_vec();
        // From here on nothing fails.
        for key in skipped.iter() {
            core.touch(RecordKey::Skipped(self.id, key.id()));
        }
        self.skipped = skipped;
        self.ratchet = Some(ratchet);
        self.ratchet_changed(core);
        self.connection.keys = None;
        self.connection.version = confirmation.version;
        self.connection.received = Chain { number: 1, hash: Some(hash) };
        self.take_secret(number, &confirmation);
        let sender_key = confirmation.sender_key;
        if self.connection.answers {
            core.event(Event::Information { connection: self.id, information: information.clone() });
            self.connection.stage = Stage::Confirmed { reply, sender_key, information };
            self.reply(core, entropy);
        } else {
            core.event(Event::Confirmed { connection: self.id, information: information.clone() });
            self.connection.stage = Stage::Confirmed { reply, sender_key, information };
        }
        self.changed(core);
        Ok(Outcome::Done)
    }

    /// Acceptor: the initiator has answered.
    fn answered(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        confirmation: Confirmation,
        encrypted: &[u8],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Outcome, DroppedBecause> {
        let text = self.decrypt(core, encrypted, entropy).map_err(DroppedBecause::Ratchet)?;
        let Some(AgentMessage::ConnectionInformation(information)) = AgentMessage::decode(&text) else {
            return Err(DroppedBecause::Unexpected);
        };
        self.connection.received = Chain { number: 1, hash: Some(sha256(&text)) };
        self.take_secret(number, &confirmation);
        self.confirmation_arrived(core);
        core.event(Event::Information { connection: self.id, information: information.to_vec() });
        match confirmation.sender_key {
            Some(key) => self.connection.stage = Stage::SecuringForHello { key },
            None => self.connected(core),
        }
        self.changed(core);
        Ok(Outcome::Done)
    }

    fn take_secret(&mut self, number: QueueNumber, confirmation: &Confirmation) {
        if let Some(queue) = self.connection.receive_queue_mut(number) {
            queue.sender_secret = Some(confirmation.secret.clone());
            queue.version = queue.version.min(confirmation.client_version);
        }
    }

    /// Decrypts with the ratchet, which moves on. On failure nothing has changed.
    pub fn decrypt(
        &mut self,
        core: &mut Core,
        encrypted: &[u8],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        let mut bytes = Zeroizing::new(encrypted.to_vec());
        let ratchet = self.ratchet.as_mut().ok_or(DecryptError::ForgedHeader)?;
        let read = ratchet.decrypt(core.config.provider, &mut self.skipped, entropy, &mut bytes)?;
        let text = Zeroizing::new(read.text.to_vec());
        let changed = read.skipped;
        let added = changed.added.iter().map(|key| key.id());
        for id in added.chain(changed.removed) {
            core.touch(RecordKey::Skipped(self.id, id));
        }
        self.ratchet_changed(core);
        Ok(text)
    }

    /// A message of a connection.
    fn encrypted_message(
        &mut self,
        core: &mut Core,
        delivery: Delivery,
        encrypted: &[u8],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Outcome, DroppedBecause> {
        if self.must_wait_for_old_queue(core, delivery.queue) {
            return Ok(Outcome::Parked);
        }
        let envelope_hash = sha256(encrypted);
        if self.connection.remembered.contains(&envelope_hash) {
            let waits = self
                .queue(delivery.queue)
                .received
                .as_ref()
                .is_some_and(|received| received.envelope_hash == envelope_hash);
            return Ok(if waits { Outcome::Waits } else { Outcome::Done });
        }
        let could_answer_before = self.ratchet.as_ref().is_some_and(Ratchet::can_send);
        let text = match self.decrypt(core, encrypted, entropy) {
            Ok(text) => text,
            // It was sent again, since its sender got no answer.
            Err(error) if error.may_be_repeated() => return Ok(Outcome::Done),
            Err(error) => {
                self.decryption_failed(core, &error);
                return Err(DroppedBecause::Ratchet(error));
            }
        };
        // It is decrypted: whatever it says, the same bytes need not be looked at again.
        self.connection.remember(envelope_hash);
        self.changed(core);
        self.decryption_worked(core);
        let Some(AgentMessage::Numbered { id, previous_hash, content }) = AgentMessage::decode(&text) else {
            return Err(DroppedBecause::Malformed);
        };
        let hash = sha256(&text);
        let integrity = self.connection.received.extend(id, previous_hash, hash);
        self.used_new_queue(core, delivery.queue);
        match content {
            AgentMessageContent::Body(body) => {
                let received = Received {
                    number: id,
                    integrity,
                    hash,
                    envelope_hash,
                    sent_at: delivery.sent_at,
                    notification: delivery.notification,
                    body: body.to_vec(),
                };
                core.event(received.event(self.id));
                self.queue(delivery.queue).received = Some(received);
                self.stamp = core.touch(RecordKey::Received(self.id, delivery.queue));
                return Ok(Outcome::Waits);
            }
            AgentMessageContent::Hello => self.hello_received(core, entropy),
            AgentMessageContent::Received(receipts) => self.receipts(core, &receipts),
            AgentMessageContent::RatchetReady(_) => self.ratchet_ready(core, could_answer_before, entropy),
            AgentMessageContent::Continue(address) => {
                if self.connection.send.iter().any(|queue| queue.is_at(&address)) {
                    self.sending.hurry();
                    if core::mem::take(&mut self.full) {
                        core.event(Event::Continues { connection: self.id });
                    }
                }
            }
            AgentMessageContent::AddQueues(queues) => self.queues_added(core, &queues, entropy)?,
            AgentMessageContent::SecureQueues(queues) => self.queues_to_secure(core, &queues)?,
            AgentMessageContent::UseQueues(queues) => self.queues_to_use(core, &queues, entropy)?,
            // Any message by the new queue says as much.
            AgentMessageContent::TestQueues(_) => {}
        }
        Ok(Outcome::Done)
    }

    fn hello_received(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        // The confirmation may leave before it is durable that our queue is secured: after a crash between the two this is
        // done once more. Whoever greets has read the confirmation, by a queue that is secured.
        let confirms = matches!(
            self.connection.stage,
            Stage::Replying | Stage::SecuringOwn { .. } | Stage::SecuringReply
        );
        if confirms {
            self.confirmation_arrived(core);
            self.connection.stage = Stage::Greeting { first: false, sent: false, received: false };
        }
        let Stage::Greeting { first, sent, received } = &mut self.connection.stage else { return };
        if core::mem::replace(received, true) {
            return;
        }
        if *sent {
            self.connected(core);
        } else if !*first {
            self.greet(core, entropy);
        }
        self.changed(core);
    }

    fn receipts(&mut self, core: &mut Core, receipts: &[Receipt<'_>]) {
        for receipt in receipts {
            let place = self.connection.unreceipted.iter().position(|(number, _)| *number == receipt.message);
            let Some((number, hash)) = place.and_then(|place| self.connection.unreceipted.remove(place))
            else {
                continue;
            };
            core.event(Event::Received {
                connection: self.id,
                number,
                same: hash == receipt.hash,
                information: receipt.information.to_vec(),
            });
        }
        self.changed(core);
    }

    /// Our queue was full, and we have read to its end: the sender may go on.
    fn continue_after_quota(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let can_send = self.ratchet.as_ref().is_some_and(Ratchet::can_send) && self.queue_in_use().is_some();
        if let Some(address) = self.connection.receive_queue(number).map(|queue| queue.address())
            && can_send
        {
            let content = AgentMessageContent::Continue(address);
            // If it cannot be told now, the sender tries again by itself, later.
            let _ = self.compose(core, OutgoingKind::Continue, None, false, content, entropy);
        }
    }
}

impl Chain {
    /// Judges the next message, and goes on from it unless it is an earlier one.
    fn extend(&mut self, number: i64, previous_hash: &[u8], hash: [u8; 32]) -> Integrity {
        let expected = self.number.saturating_add(1);
        let integrity = if number == expected {
            if self.previous() == previous_hash { Integrity::Ok } else { Integrity::BadHash }
        } else if number > expected {
            Integrity::Skipped { first: expected, last: number.saturating_sub(1) }
        } else if number == self.number {
            Integrity::Duplicate
        } else {
            Integrity::Earlier
        };
        if number > self.number {
            *self = Self { number, hash: Some(hash) };
        }
        integrity
    }
}

/// A confirmation, but for what the ratchet protects.
struct Confirmation {
    secret: SharedSecret,
    client_version: Version,
    version: Version,
    sender_key: Option<AuthKey>,
    ratchet: Option<RatchetParameters>,
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_tells_what_is_missing() {
        let mut chain = Chain::default();
        let [one, two, three, five] = [1, 2, 3, 5].map(|byte| [byte; 32]);
        assert_eq!(chain.extend(1, &[], one), Integrity::Ok);
        assert_eq!(chain.extend(2, &one, two), Integrity::Ok);
        assert_eq!(chain.extend(2, &one, two), Integrity::Duplicate);
        assert_eq!(chain.extend(3, &one, three), Integrity::BadHash);
        assert_eq!(chain.extend(5, &two, five), Integrity::Skipped { first: 4, last: 4 });
        assert_eq!(chain.extend(4, &three, two), Integrity::Earlier);
        assert_eq!(chain, Chain { number: 5, hash: Some(five) });
        assert_eq!(chain.extend(i64::MAX, &[], one), Integrity::Skipped { first: 6, last: i64::MAX - 1 });
        assert_eq!(chain.extend(i64::MIN, &[], two), Integrity::Earlier);
    }
}
