//! Moving a connection to another queue, while messages flow.
//!
//! ```text
//!   the owner of the queue                          the sender
//!   NEW on the other relay
//!   QADD  the new address, and which it replaces ─▶
//!                                                ◀─ QKEY  the key to secure it with       │ fast form: SKEY,
//!   KEY                                                                                   │ then QTEST with our
//!   QUSE ────────────────────────────────────────▶                                        │ key by the new queue
//!                                                ◀─ QTEST by the new queue, which is used from now on
//!   reads the old queue to its end, then DEL
//! ```
//! The sender sends `QTEST` after everything that it sent by the old queue, so the owner finds all of that there: what
//! comes by the new queue waits until the old one is read to its end. Nothing is lost or out of order.

use alloc::vec;

use super::commands::CommandError;
use super::config::AgentConfig;
use super::event::{Direction, DroppedBecause, Event, SwitchPhase};
use super::live::{Live, Probe, Task, recipient, sender_key};
use super::machine::{Connections, Core};
use super::record::connection::Stage;
use super::record::message::OutgoingKind;
use super::record::queue::{ReceiveSwitch, SendQueue};
use super::storage::{ConnectionId, QueueNumber};
use crate::crypto::SharedSecret;
use crate::entropy::Entropy;
use crate::keys::AuthKey;
use crate::time::Now;
use crate::wire::address::AddressWithPassword;
use crate::wire::agent_message::{AgentMessageContent, QueueAddress};
use crate::wire::command::QueueMode;
use crate::wire::queue_uri::{AgreedQueue, QueueUri};

impl Connections {
    /// Moves a connection to a new queue of ours, on this relay ([`Event::Switched`]).
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::Stage`] (also while another switch goes on),
    /// [`CommandError::NotSynchronized`], [`CommandError::Relay`].
    pub fn switch(
        &mut self,
        id: ConnectionId,
        relay: AddressWithPassword,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        self.check_relay(&relay)?;
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        let stage = &live.connection.stage;
        if *stage != Stage::Connected {
            return Err(CommandError::Stage(stage.name()));
        }
        if live.connection.receive.len() != 1 || live.connection.creating.is_some() {
            return Err(CommandError::Stage("switching to another queue"));
        }
        if !live.may_send() {
            return Err(CommandError::NotSynchronized);
        }
        live.connection.creating = Some(relay);
        live.changed(&mut self.core);
        self.core.ready.insert(id);
        self.run(now, entropy);
        Ok(())
    }
}

impl Live {
    fn switched(&self, core: &mut Core, direction: Direction, phase: SwitchPhase) {
        core.event(Event::Switched { connection: self.id, direction, phase });
    }

    /// The step of a connection that is up: whatever a switch needs next.
    pub fn take_switch_step(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        if self.connection.creating.is_some() {
            self.create_queue(core, QueueMode::Messaging, entropy);
            return;
        }
        let fast = |queue: &SendQueue| queue.replaces.is_some() && !queue.secured;
        if core.config.fast_switch
            && let Some(place) =
                self.connection.send.iter().position(|queue| fast(queue) && queue.is_securable())
        {
            self.secure_peer(core, place);
            return;
        }
        for (place, queue) in self.connection.receive.iter().enumerate() {
            match queue.switch {
                ReceiveSwitch::Securing { key, .. } => {
                    self.step.start();
                    let task = Task::SecureOwn(queue.number);
                    core.command(self.id, task, &queue.relay, recipient(queue).secure(key));
                    return;
                }
                ReceiveSwitch::Leaving => {
                    self.delete_queue(core, place);
                    return;
                }
                ReceiveSwitch::None | ReceiveSwitch::Replaces(_) => {}
            }
        }
    }

    /// Owner: the new queue exists. The sender is told.
    pub fn tell_of_queue(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(queue) = self.connection.receive_queue(number) else { return };
        let Some(old) = queue.switch.replaced().and_then(|old| self.connection.receive_queue(old)) else {
            return;
        };
        let (uri, old) = (self.uri(core, queue), old.address());
        let content = AgentMessageContent::AddQueues(vec![(uri, Some(old))]);
        match self.compose(core, OutgoingKind::AddQueues, None, false, content, entropy) {
            Ok(_) => self.switched(core, Direction::Receive, SwitchPhase::Started),
            Err(_) => self.switch_failed(core),
        }
    }

    /// Sender: the peer wants us to use another queue.
    pub fn queues_added(
        &mut self,
        core: &mut Core,
        queues: &[(QueueUri, Option<QueueAddress>)],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), DroppedBecause> {
        // Only replacing is known, and only of one queue, like in deployed agents.
        let Some((uri, Some(old))) = queues.first() else { return Err(DroppedBecause::Unexpected) };
        let version = client_version(&core.config, uri)?;
        let address = QueueAddress { server: uri.server.clone(), sender: uri.sender.clone() };
        if self.connection.stage != Stage::Connected
            || self.connection.send.iter().any(|queue| queue.is_at(&address))
        {
            return Err(DroppedBecause::Unexpected);
        }
        let old = self.connection.send.iter().find(|queue| queue.is_at(old) && queue.replaces.is_none());
        let old = old.ok_or(DroppedBecause::Unexpected)?.number;
        // The peer may have begun again.
        self.connection.send.retain(|queue| queue.replaces.is_none());
        let (relay, sender) = (uri.server.clone(), uri.sender.clone());
        let number = self.add_send_queue(core, relay, sender, &uri.dh, version, uri.mode, Some(old), entropy);
        self.switched(core, Direction::Send, SwitchPhase::Started);
        let Some(queue) = self.connection.send_queue(number) else { return Ok(()) };
        if core.config.fast_switch && queue.is_securable() {
            // `SKEY` is the next step.
            return Ok(());
        }
        let key: AuthKey = sender_key(queue).public(core.config.provider);
        let agreed = AgreedQueue {
            version,
            server: queue.relay.clone(),
            sender: queue.sender.clone(),
            dh: queue.dh,
            mode: queue.mode,
        };
        let content = AgentMessageContent::SecureQueues(vec![(agreed, key)]);
        if self.compose(core, OutgoingKind::SecureQueues, None, false, content, entropy).is_err() {
            self.test_failed(core, Some(number));
        }
        Ok(())
    }

    /// Sender: the peer's relay has our key.
    pub fn keys_delivered(&self, core: &mut Core) {
        self.switched(core, Direction::Send, SwitchPhase::Confirmed);
    }

    /// Owner: the sender's key for the new queue.
    pub fn queues_to_secure(
        &mut self,
        core: &mut Core,
        queues: &[(AgreedQueue, AuthKey)],
    ) -> Result<(), DroppedBecause> {
        let (info, key) = queues.first().ok_or(DroppedBecause::Malformed)?;
        let provider = core.config.provider;
        let queue = self.connection.receive.iter_mut().find(|queue| queue.is_at(&info.server, &info.sender));
        let queue = queue.ok_or(DroppedBecause::Unexpected)?;
        let ReceiveSwitch::Replaces(replaced) = queue.switch else { return Err(DroppedBecause::Unexpected) };
        if queue.sender_secret.is_some() {
            return Err(DroppedBecause::Unexpected);
        }
        queue.sender_secret = Some(SharedSecret::agree(provider, &queue.dh, &info.dh));
        queue.version = queue.version.min(info.version);
        queue.switch = ReceiveSwitch::Securing { replaced, key: *key };
        self.changed(core);
        self.switched(core, Direction::Receive, SwitchPhase::Confirmed);
        Ok(())
    }

    /// Owner: the new queue is secured. The sender may use it.
    pub fn use_queue(&mut self, core: &mut Core, number: QueueNumber, entropy: &mut (impl Entropy + ?Sized)) {
        let Some(queue) = self.connection.receive_queue_mut(number) else { return };
        let ReceiveSwitch::Securing { replaced, .. } = queue.switch else { return };
        queue.switch = ReceiveSwitch::Replaces(replaced);
        let content = AgentMessageContent::UseQueues(vec![(queue.address(), true)]);
        match self.compose(core, OutgoingKind::UseQueues, None, false, content, entropy) {
            Ok(_) => self.switched(core, Direction::Receive, SwitchPhase::Secured),
            Err(_) => self.switch_failed(core),
        }
    }

    /// Sender: the new queue is secured with our key.
    pub fn queues_to_use(
        &mut self,
        core: &mut Core,
        queues: &[(QueueAddress, bool)],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), DroppedBecause> {
        let (address, _) = queues.first().ok_or(DroppedBecause::Malformed)?;
        let is_new = |queue: &&mut SendQueue| queue.is_at(address) && queue.replaces.is_some();
        let queue = self.connection.send.iter_mut().find(is_new).ok_or(DroppedBecause::Unexpected)?;
        if core::mem::replace(&mut queue.secured, true) {
            return Err(DroppedBecause::Unexpected);
        }
        let number = queue.number;
        self.changed(core);
        self.send_test(core, OutgoingKind::TestQueues, number, entropy);
        Ok(())
    }

    /// Sender, fast form: we have secured the new queue.
    pub fn test_queue(
        &mut self,
        core: &mut Core,
        number: QueueNumber,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.send_test(core, OutgoingKind::FirstTest, number, entropy);
    }

    fn send_test(
        &mut self,
        core: &mut Core,
        kind: OutgoingKind,
        number: QueueNumber,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(queue) = self.connection.send_queue(number) else { return };
        let address = QueueAddress { server: queue.relay.clone(), sender: queue.sender.clone() };
        let content = AgentMessageContent::TestQueues(vec![address]);
        match self.compose(core, kind, Some(number), false, content, entropy) {
            Ok(_) => self.switched(core, Direction::Send, SwitchPhase::Secured),
            Err(_) => self.test_failed(core, Some(number)),
        }
    }

    /// Sender: the new queue works. It is the only one from now on.
    pub fn test_delivered(&mut self, core: &mut Core, number: Option<QueueNumber>) {
        let is_tested = |queue: &&SendQueue| Some(queue.number) == number && queue.replaces.is_some();
        if !self.connection.send.iter().any(|queue| is_tested(&queue)) {
            return;
        }
        self.connection.send.retain(|queue| Some(queue.number) == number);
        if let Some(queue) = self.connection.send.first_mut() {
            queue.replaces = None;
        }
        self.changed(core);
        self.switched(core, Direction::Send, SwitchPhase::Completed);
    }

    /// Sender: the new queue does not work. The old one stays in use.
    pub fn test_failed(&mut self, core: &mut Core, number: Option<QueueNumber>) {
        self.connection.send.retain(|queue| Some(queue.number) != number || queue.replaces.is_none());
        self.changed(core);
        self.switched(core, Direction::Send, SwitchPhase::Failed);
    }

    /// Owner: the switch cannot go on. The old queue stays in use; a new one is deleted.
    pub fn switch_failed(&mut self, core: &mut Core) {
        self.connection.creating = None;
        for queue in &mut self.connection.receive {
            if queue.switch.replaced().is_some() {
                queue.switch = ReceiveSwitch::Leaving;
            }
        }
        self.changed(core);
        self.switched(core, Direction::Receive, SwitchPhase::Failed);
    }

    /// Owner: whether a message by this queue has to wait until the one that it replaces is read to its end. What the
    /// sender has sent by that one before is there now, so asking the relay once more finds it.
    pub fn must_wait_for_old_queue(&mut self, core: &mut Core, number: QueueNumber) -> bool {
        let replaced = self.connection.receive_queue(number).and_then(|queue| queue.switch.replaced());
        let Some(old) = replaced.filter(|old| self.connection.receive_queue(*old).is_some()) else {
            return false;
        };
        let id = self.id;
        let old = self.queue(old);
        if old.probe == Probe::None {
            old.ask();
            core.ready.insert(id);
        }
        old.probe != Probe::Empty
    }

    /// A queue whose message waited for another queue, and need not any more.
    pub fn parked_that_may_go(&self) -> Option<QueueNumber> {
        let waits = |queue: &&super::record::queue::ReceiveQueue| {
            let old = queue.switch.replaced().and_then(|old| self.queues.get(&old));
            old.is_some_and(|old| old.probe == Probe::Empty)
                && self.queues.get(&queue.number).is_some_and(|live| live.parked.is_some())
        };
        self.connection.receive.iter().find(waits).map(|queue| queue.number)
    }

    /// Owner: a message came by this queue. If it is the new one, the old one is deleted.
    pub fn used_new_queue(&mut self, core: &mut Core, number: QueueNumber) {
        let Some(place) = self.connection.receive.iter().position(|queue| queue.number == number) else {
            return;
        };
        let replaced = self.connection.receive.get(place).and_then(|queue| queue.switch.replaced());
        let Some(replaced) = replaced else { return };
        for queue in &mut self.connection.receive {
            if queue.number == number {
                queue.switch = ReceiveSwitch::None;
            } else if queue.number == replaced {
                queue.switch = ReceiveSwitch::Leaving;
            }
        }
        // The first is the one in use.
        self.connection.receive.swap(0, place);
        self.changed(core);
    }

    /// Owner: the queue that was left is deleted.
    pub fn switch_completed(&self, core: &mut Core) {
        // After a failure the new one is deleted, which was told already.
        let in_use = self.connection.receive.iter().any(|queue| queue.switch == ReceiveSwitch::None);
        if in_use && self.connection.receive.len() == 1 {
            self.switched(core, Direction::Receive, SwitchPhase::Completed);
        }
    }
}

/// The version to speak with the owner of this queue.
fn client_version(
    config: &AgentConfig,
    uri: &QueueUri,
) -> Result<crate::wire::version::Version, DroppedBecause> {
    let common = config.client_versions.intersection(uri.versions);
    common.map(|range| range.max()).ok_or(DroppedBecause::Version(uri.versions.min()))
}
