//! How a connection comes about: the steps of each stage, and what their answers mean.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::event::{Event, FailedBecause};
use super::live::{Live, NewQueue, Task, is_permanent, recipient, sender, sender_key};
use super::machine::Core;
use super::record::connection::Stage;
use super::record::message::{OutgoingContent, OutgoingKind};
use super::record::queue::{Opening, ReceiveQueue, ReceiveSwitch, SendQueue};
use super::storage::QueueNumber;
use crate::client::queue::QueueToCreate;
use crate::client::{CommandFailure, Reply};
use crate::crypto::SharedSecret;
use crate::crypto::ratchet::InitialKeys;
use crate::entropy::Entropy;
use crate::keys::{Ed25519Secret, X25519Public, X25519Secret};
use crate::session::AuthSecret;
use crate::time::Now;
use crate::wire::address::ServerAddress;
use crate::wire::agent_message::{AgentEnvelope, AgentEnvelopeContent, AgentMessage, AgentMessageContent};
use crate::wire::command::{QueueMode, SubscriptionMode};
use crate::wire::error::SmpError;
use crate::wire::identifier::Identifier;
use crate::wire::links::connection_request::{ConnectionRequest, RequestData};
use crate::wire::queue_uri::{AgreedQueue, QueueUri};
use crate::wire::response::CreatedQueue;
use crate::wire::version::Version;

/// The first version of the client protocol that tells a queue's mode.
const MODES: Version = Version(3);

impl Live {
    /// Begins the step of the stage, when all before it is durable.
    pub fn take_step(&mut self, core: &mut Core, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if !self.step.may_start(now) || !core.is_durable(self.stamp) {
            return;
        }
        let closing = |queue: &&ReceiveQueue| queue.opening == Opening::Closing;
        if let Some(queue) = self.connection.receive.iter().find(closing)
            && self.connection.stage != Stage::Deleting
        {
            self.step.start();
            core.command(self.id, Task::Suspend(queue.number), &queue.relay, recipient(queue).suspend());
            return;
        }
        match &self.connection.stage {
            Stage::CreatingInvitation | Stage::CreatingReply | Stage::CreatingForRequest => {
                self.create_queue(core, QueueMode::Messaging, entropy);
            }
            Stage::CreatingAddress => self.create_queue(core, QueueMode::Contact, entropy),
            Stage::SecuringPeer | Stage::SecuringReply => self.secure_peer(core, 0),
            Stage::SecuringOwn { key } | Stage::SecuringForHello { key } => {
                let key = *key;
                if let Some(queue) = self.connection.receive.first() {
                    self.step.start();
                    let task = Task::SecureOwn(queue.number);
                    core.command(self.id, task, &queue.relay, recipient(queue).secure(key));
                }
            }
            Stage::ReadingLink { .. } => self.read_link(core),
            Stage::Connected => self.take_switch_step(core, entropy),
            Stage::Deleting => self.delete_queue(core, 0),
            Stage::Invited
            | Stage::Confirmed { .. }
            | Stage::Replying
            | Stage::Confirming
            | Stage::Joined
            | Stage::Greeting { .. } => {}
            Stage::Address => self.set_link(core, entropy),
        }
    }

    /// `NEW`. Its keys are not kept before it is answered: without the answer nobody ever learns the queue's ids, and
    /// another attempt takes other keys.
    pub fn create_queue(&mut self, core: &mut Core, mode: QueueMode, entropy: &mut (impl Entropy + ?Sized)) {
        let Some(relay) = &self.connection.creating else { return };
        let queue = QueueToCreate::generate(entropy);
        let dh = X25519Secret::generate(entropy);
        let password = relay.password.as_ref().map(|password| bytes::Bytes::copy_from_slice(password));
        // Without modes nobody could be told that the sender may secure the queue.
        let mode = if core.config.client_versions.max() < MODES { QueueMode::Contact } else { mode };
        let mut command = queue.command(core.config.provider, mode, SubscriptionMode::Subscribe, password);
        let relay = relay.address.clone();
        let link = self.attach_link_data(core, &relay, &dh, mode, &mut command, entropy);
        self.step.start();
        let task = Task::Create(NewQueue { queue, dh, relay: relay.clone(), link });
        core.command(self.id, task, &relay, command);
    }

    /// `SKEY`, for the how many-th of the peer's queues.
    pub fn secure_peer(&mut self, core: &mut Core, place: usize) {
        let Some(queue) = self.connection.send.get(place) else { return };
        self.step.start();
        let command = sender(queue, true).secure(core.config.provider, &sender_key(queue));
        core.command(self.id, Task::SecurePeer(queue.number), &queue.relay, command);
    }

    /// `DEL`, for the how many-th of our queues.
    pub fn delete_queue(&mut self, core: &mut Core, place: usize) {
        let Some(queue) = self.connection.receive.get(place) else { return };
        self.step.start();
        core.command(self.id, Task::Delete(queue.number), &queue.relay, recipient(queue).delete());
    }

    /// The relay has answered `NEW`.
    pub fn queue_created(
        &mut self,
        new: NewQueue,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<QueueNumber> {
        let created = match result {
            Ok(Reply::Created(created)) => created,
            Ok(_) => {
                self.step.failed(core, core.config.longest_delay, now, entropy);
                return None;
            }
            Err(failure) if is_permanent(&failure) => {
                self.step.succeeded();
                if self.connection.stage == Stage::Connected {
                    self.switch_failed(core);
                } else {
                    self.fail(core, FailedBecause::NoQueue(failure));
                }
                return None;
            }
            Err(_) => {
                self.step.failed(core, core.config.longest_delay, now, entropy);
                return None;
            }
        };
        self.step.succeeded();
        let link = new.link.clone();
        let number = self.add_queue(core, new, &created)?;
        self.connection.creating = None;
        self.keep_link(link, &created);
        self.link_stamp = self.stamp;
        match self.connection.stage {
            Stage::CreatingInvitation => {
                self.connection.stage = Stage::Invited;
                if let Some(link) = self.link(core) {
                    let (link, short) = (Box::new(link), self.short_link().map(Box::new));
                    core.event(Event::InvitationCreated { connection: self.id, link, short });
                }
            }
            Stage::CreatingAddress => {
                self.connection.stage = Stage::Address;
                if let Some(link) = self.link(core) {
                    let (link, short) = (Box::new(link), self.short_link().map(Box::new));
                    core.event(Event::AddressCreated { connection: self.id, link, short });
                }
            }
            Stage::CreatingForRequest => self.ask(core, entropy),
            Stage::CreatingReply => self.confirm(core, entropy),
            Stage::Connected => self.tell_of_queue(core, number, entropy),
            // Deleted meanwhile: so is this queue, with the next step.
            _ => {}
        }
        Some(number)
    }

    /// Takes over a queue that the relay has created.
    fn add_queue(&mut self, core: &mut Core, new: NewQueue, created: &CreatedQueue) -> Option<QueueNumber> {
        let NewQueue { queue, dh, relay, .. } = new;
        let queue = queue.created(core.config.provider, created);
        let AuthSecret::Ed25519(key) = &*queue.key else { return None };
        let key: Ed25519Secret = key.clone();
        let number = self.connection.number_queue();
        let replaces = match self.connection.stage {
            Stage::Connected => self.connection.receive.first().map(|queue| queue.number),
            _ => None,
        };
        self.connection.receive.push(ReceiveQueue {
            number,
            relay,
            recipient: queue.recipient,
            sender: queue.sender,
            key,
            delivery: queue.delivery,
            dh,
            sender_secret: None,
            version: core.config.client_versions.max(),
            mode: created.mode,
            switch: replaces.map_or(ReceiveSwitch::None, ReceiveSwitch::Replaces),
            opening: Opening::Open,
        });
        // `NEW` has subscribed to it.
        self.queue(number).subscribed = true;
        self.changed(core);
        Some(number)
    }

    /// The link of an invitation or contact address.
    pub fn link(&self, core: &Core) -> Option<ConnectionRequest> {
        let queue = self.connection.receive.first()?;
        let dh = core.config.provider.x25519_public(&queue.dh);
        self.request(core, queue.relay.clone(), queue.sender.clone(), dh, queue.mode)
    }

    /// The link to a queue of ours: an invitation when there are keys for a ratchet.
    pub fn request(
        &self,
        core: &Core,
        server: ServerAddress,
        sender: Identifier,
        dh: X25519Public,
        mode: Option<QueueMode>,
    ) -> Option<ConnectionRequest> {
        let versions = core.config.client_versions;
        let mode = mode.filter(|_| versions.max() >= MODES);
        let data = RequestData {
            versions: core.config.agent_versions,
            queues: vec![QueueUri { versions, server, sender, dh, mode }],
            client_data: None,
        };
        match &self.connection.keys {
            Some(keys) => {
                let keys = InitialKeys::from_bytes(keys).ok()?;
                Some(ConnectionRequest::Invitation(data, keys.parameters(core.config.ratchet_versions)))
            }
            None => Some(ConnectionRequest::Contact(data)),
        }
    }

    /// The address of a queue of ours, for somebody whose versions are not known.
    pub fn uri(&self, core: &Core, queue: &ReceiveQueue) -> QueueUri {
        let versions = core.config.client_versions;
        QueueUri {
            versions,
            server: queue.relay.clone(),
            sender: queue.sender.clone(),
            dh: core.config.provider.x25519_public(&queue.dh),
            mode: queue.mode.filter(|_| versions.max() >= MODES),
        }
    }

    /// The address of a queue of ours, at the version that the connection uses.
    fn agreed(&self, core: &Core, queue: &ReceiveQueue, version: Version) -> AgreedQueue {
        AgreedQueue {
            version,
            server: queue.relay.clone(),
            sender: queue.sender.clone(),
            dh: core.config.provider.x25519_public(&queue.dh),
            mode: queue.mode.filter(|_| version >= MODES),
        }
    }

    /// Adds a queue of the peer's, with fresh keys of ours.
    #[expect(clippy::too_many_arguments, reason = "everything that a queue is made of")]
    pub fn add_send_queue(
        &mut self,
        core: &mut Core,
        relay: ServerAddress,
        sender: Identifier,
        dh: &X25519Public,
        version: Version,
        mode: Option<QueueMode>,
        replaces: Option<QueueNumber>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> QueueNumber {
        let queue = self.new_send_queue(core, relay, sender, dh, version, mode, replaces, entropy);
        let number = queue.number;
        self.connection.send.push(queue);
        self.changed(core);
        number
    }

    /// A queue of the peer's, with fresh keys of ours.
    #[expect(clippy::too_many_arguments, reason = "everything that a queue is made of")]
    pub fn new_send_queue(
        &mut self,
        core: &Core,
        relay: ServerAddress,
        sender: Identifier,
        dh: &X25519Public,
        version: Version,
        mode: Option<QueueMode>,
        replaces: Option<QueueNumber>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> SendQueue {
        let own = X25519Secret::generate(entropy);
        let provider = core.config.provider;
        SendQueue {
            number: self.connection.number_queue(),
            relay,
            sender,
            key: X25519Secret::generate(entropy),
            dh: provider.x25519_public(&own),
            secret: SharedSecret::agree(provider, &own, dh),
            version,
            mode,
            secured: false,
            replaces,
        }
    }

    /// Acceptor: composes the confirmation with our queue for the reply.
    fn confirm(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        let (Some(own), Some(peer)) = (self.connection.receive.first(), self.connection.send.first()) else {
            return;
        };
        let (version, number) = (peer.version, peer.number);
        let queues = vec![self.agreed(core, own, version)];
        let information = core::mem::take(&mut self.connection.information);
        if let Some(queue) = self.connection.receive.first_mut() {
            queue.version = version;
        }
        let message = AgentMessage::ConnectionInformationReply { queues, information: &information };
        match self.compose_confirmation(core, number, &message, entropy) {
            Ok(()) => self.connection.stage = Stage::Confirming,
            Err(_) => self.fail(core, FailedBecause::Internal),
        }
    }

    /// Initiator by a contact address: composes the request with our invitation.
    fn ask(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        let Some(address) = self.connection.send.first().map(|queue| queue.number) else { return };
        let Some(request) = self.link(core) else { return };
        // The information stays for the confirmation, which says it again.
        let information = self.connection.information.clone();
        let content = AgentEnvelopeContent::Invitation { request, information: &information };
        let mut envelope = Vec::new();
        let version = self.connection.version;
        if (AgentEnvelope { version, content }).encode(&mut envelope).is_err() {
            self.fail(core, FailedBecause::Internal);
            return;
        }
        self.connection.stage = Stage::Invited;
        let content = OutgoingContent::Envelope(envelope);
        self.enqueue(core, OutgoingKind::Request, Some(address), 0, true, content, entropy);
    }

    /// Initiator: answers the confirmation. The stage must be [`Stage::Confirmed`].
    pub fn reply(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        let Stage::Confirmed { reply, sender_key, .. } = &self.connection.stage else { return };
        let (reply, sender_key) = (reply.clone(), *sender_key);
        let AgreedQueue { version, server, sender, dh, mode } = reply;
        let version = version.min(core.config.client_versions.max());
        let mode = mode.filter(|_| core.config.client_versions.max() >= MODES);
        // A contact address was only needed for the request.
        self.connection.send.clear();
        self.outgoing_for_address_ends(core);
        let number = self.add_send_queue(core, server, sender, &dh, version, mode, None, entropy);
        let information = core::mem::take(&mut self.connection.information);
        let message = AgentMessage::ConnectionInformation(&information);
        if self.compose_confirmation(core, number, &message, entropy).is_err() {
            self.fail(core, FailedBecause::Internal);
            return;
        }
        self.connection.stage = match sender_key {
            Some(key) => Stage::SecuringOwn { key },
            None => self.after_own_is_secured(),
        };
        self.changed(core);
    }

    /// A request whose delivery nobody confirmed was answered all the same.
    fn outgoing_for_address_ends(&mut self, core: &mut Core) {
        use super::storage::RecordKey;
        let id = self.id;
        self.outgoing.retain(|(sequence, _, outgoing)| {
            let keep = outgoing.kind != OutgoingKind::Request;
            if !keep {
                core.outgoing = core.outgoing.saturating_sub(1);
                core.touch(RecordKey::Outgoing(id, *sequence));
            }
            keep
        });
    }

    fn after_own_is_secured(&self) -> Stage {
        match self.connection.send.first() {
            Some(queue) if queue.is_securable() => Stage::SecuringReply,
            _ => Stage::Replying,
        }
    }

    /// The peer's relay has answered `SKEY`.
    pub fn peer_secured(
        &mut self,
        number: QueueNumber,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match result {
            Ok(_) => {
                self.step.succeeded();
                if let Some(queue) = self.connection.send.iter_mut().find(|queue| queue.number == number) {
                    queue.secured = true;
                }
                match self.connection.stage {
                    Stage::SecuringPeer => self.connection.stage = Stage::CreatingReply,
                    Stage::SecuringReply => self.connection.stage = Stage::Replying,
                    Stage::Connected => self.test_queue(core, number, entropy),
                    _ => {}
                }
                self.changed(core);
            }
            Err(failure) if is_permanent(&failure) => {
                self.step.succeeded();
                let gone = failure == CommandFailure::Refused(SmpError::Authorization);
                match (&self.connection.stage, gone) {
                    (Stage::Connected, _) => self.test_failed(core, Some(number)),
                    (Stage::SecuringPeer, true) => self.fail(core, FailedBecause::LinkGone),
                    (_, true) => self.fail(core, FailedBecause::PeerGone),
                    (_, false) => self.fail(core, FailedBecause::Refused(failure)),
                }
            }
            Err(_) => self.step.failed(core, core.config.longest_delay, now, entropy),
        }
    }

    /// Our relay has answered `KEY`.
    pub fn own_secured(
        &mut self,
        number: QueueNumber,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match result {
            Ok(_) => {
                self.step.succeeded();
                match self.connection.stage {
                    Stage::SecuringOwn { .. } => self.connection.stage = self.after_own_is_secured(),
                    Stage::SecuringForHello { .. } => {
                        self.connection.stage = Stage::Greeting { first: true, sent: false, received: false };
                        self.greet(core, entropy);
                    }
                    Stage::Connected => self.use_queue(core, number, entropy),
                    _ => {}
                }
                self.changed(core);
            }
            Err(failure) if is_permanent(&failure) => {
                self.step.succeeded();
                if self.connection.stage == Stage::Connected {
                    self.switch_failed(core);
                } else {
                    self.fail(core, FailedBecause::Refused(failure));
                }
            }
            Err(_) => self.step.failed(core, core.config.longest_delay, now, entropy),
        }
    }

    /// Our relay has answered `OFF`.
    pub fn queue_closed(
        &mut self,
        number: QueueNumber,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match result {
            Err(failure) if !is_permanent(&failure) => {
                self.step.failed(core, core.config.longest_delay, now, entropy);
                return;
            }
            Err(failure) => core.event(Event::QueueLost { connection: self.id, failure }),
            Ok(_) => core.event(Event::Suspended { connection: self.id }),
        }
        self.step.succeeded();
        if let Some(queue) = self.connection.receive_queue_mut(number) {
            queue.opening = Opening::Closed;
        }
        self.changed(core);
    }

    /// Our relay has answered `DEL`.
    pub fn queue_deleted(
        &mut self,
        number: QueueNumber,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> bool {
        match result {
            Err(failure) if !is_permanent(&failure) => {
                self.step.failed(core, core.config.longest_delay, now, entropy);
                false
            }
            // A queue that the relay does not know, or does not let us delete, is not ours any more.
            _ => {
                self.step.succeeded();
                self.connection.receive.retain(|queue| queue.number != number);
                if self.queues.remove(&number).is_some_and(|queue| queue.received.is_some()) {
                    core.touch(super::storage::RecordKey::Received(self.id, number));
                }
                if self.connection.stage == Stage::Connected {
                    self.switch_completed(core);
                }
                self.changed(core);
                true
            }
        }
    }

    /// `HELLO`: our direction works.
    pub fn greet(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        let hello = AgentMessageContent::Hello;
        if self.compose(core, OutgoingKind::Hello, None, true, hello, entropy).is_err() {
            self.fail(core, FailedBecause::Internal);
        }
    }

    /// The peer's relay has our confirmation.
    pub fn confirmation_delivered(&mut self, core: &mut Core) {
        let connection = self.id;
        match self.connection.stage {
            Stage::Confirming => {
                self.connection.stage = Stage::Joined;
                core.event(Event::Joined { connection, may_send: self.may_send() });
            }
            Stage::Replying => {
                if self.connection.send.first().is_some_and(SendQueue::is_securable) {
                    self.connected(core);
                } else {
                    self.connection.stage = Stage::Greeting { first: false, sent: false, received: false };
                }
            }
            // The peer's answer was faster than its relay's.
            _ => {}
        }
        self.connection.parameters = None;
        self.changed(core);
    }

    /// The peer's relay has our `HELLO`.
    pub fn hello_delivered(&mut self, core: &mut Core) {
        if let Stage::Greeting { sent, received, .. } = &mut self.connection.stage {
            *sent = true;
            if *received {
                self.connected(core);
            }
            self.changed(core);
        }
    }

    /// The connection is up.
    pub fn connected(&mut self, core: &mut Core) {
        self.connection.stage = Stage::Connected;
        core.event(Event::Connected { connection: self.id });
        self.changed(core);
    }

    /// The connection cannot be made: what was created for it is deleted.
    pub fn fail(&mut self, core: &mut Core, because: FailedBecause) {
        core.event(Event::Failed { connection: self.id, because });
        self.deletion_is_told = false;
        self.delete(core);
    }

    /// Begins the deletion.
    pub fn delete(&mut self, core: &mut Core) {
        self.drop_messages(core);
        self.ratchet = None;
        self.ratchet_changed(core);
        self.connection.stage = Stage::Deleting;
        self.connection.creating = None;
        self.connection.send.clear();
        self.connection.keys = None;
        self.connection.parameters = None;
        self.changed(core);
        core.ready.insert(self.id);
    }

    /// Whether the application may send: the peer will be able to read it, in order.
    pub fn may_send(&self) -> bool {
        use super::config::RATCHET_ON_CONFIRMATION;
        let fast = self.connection.send.first().is_some_and(SendQueue::is_securable)
            && self.connection.version >= RATCHET_ON_CONFIRMATION;
        let stage = match self.connection.stage {
            Stage::Connected => true,
            Stage::Confirming | Stage::Joined | Stage::SecuringReply | Stage::Replying => fast,
            _ => false,
        };
        stage
            && self.connection.synchronization.may_send()
            && self.ratchet.as_ref().is_some_and(|ratchet| ratchet.can_send())
    }
}
