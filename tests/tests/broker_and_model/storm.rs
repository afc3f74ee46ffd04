//! Everything at once: commands for the same queue under way together, single actions of storage that fail, connections that
//! come and go, restarts in the middle. What is answered depends on who was faster, so the model is not asked; the promises
//! are.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::TestCaseError;
use smp_proto::broker::storage::{QueueNumber, Sequence, StorageAction};
use smp_tests::reference_model::{Acknowledged, Connection, Entity, Number, Order, Said, Saying, Storage};

use super::{Ask, BrokerAndModel, Checked, ensure, wire};

/// What has really become of messages.
#[derive(Default)]
pub struct Ledger {
    /// One in so many actions fails.
    pub odds: usize,
    asked: BTreeMap<Number, Ask>,
    answers: BTreeMap<Number, Saying>,
    /// Who was told last that it is subscribed.
    subscribers: BTreeMap<Number, Connection>,
    places: BTreeMap<(QueueNumber, Sequence), Number>,
    stored: BTreeSet<Number>,
    deleted: BTreeSet<Number>,
}

impl Ledger {
    /// Storage has done something.
    pub fn done(&mut self, action: &StorageAction, command: Option<Number>) {
        match action {
            StorageAction::PutMessage { queue, sequence, .. } => {
                let number = command.unwrap_or_default();
                self.places.insert((*queue, *sequence), number);
                self.stored.insert(number);
            }
            StorageAction::DeleteMessage { queue, sequence, .. } => {
                self.deleted.extend(self.places.get(&(*queue, *sequence)));
            }
            StorageAction::DeleteQueue { queue } => {
                let of_queue = |((place, _), number): (&(QueueNumber, Sequence), &Number)| {
                    (place == queue).then_some(*number)
                };
                self.deleted.extend(self.places.iter().filter_map(of_queue));
            }
            _ => {}
        }
    }
}

impl BrokerAndModel<'_> {
    /// What there is, as far as clients have been told: queues, whether each is secured, and notifiers.
    pub fn known(&self) -> (Vec<(Number, bool)>, Vec<Number>) {
        let named = |id: &[u8; 24]| self.ids.get(&(*id).into()).copied();
        let stored: Vec<_> = self.storage.queues().map(|stored| stored.record).collect();
        let queues = stored.iter().filter_map(|record| match named(&record.recipient)? {
            Entity::Recipient(number) => Some((number, record.sender_key.is_some())),
            _ => None,
        });
        let notifiers =
            stored.iter().filter_map(|record| match named(&record.notifier.as_ref()?.notifier)? {
                Entity::Notifier(number) => Some(number),
                _ => None,
            });
        (queues.collect(), notifiers.collect())
    }

    /// Who was told last that it is subscribed to a queue.
    pub fn subscriber(&self, queue: Number) -> Option<Connection> {
        self.ledger.subscribers.get(&queue).copied().filter(|connection| self.peers.contains_key(connection))
    }

    pub fn order(&self, number: Number) -> Option<Order> {
        self.orders.get(&number).copied()
    }

    /// Gives commands, and lets storage and connections go on a little.
    pub fn storm(&mut self, asks: &[Ask]) -> Checked {
        for ask in asks {
            let Some(peer) = self.peers.get(&ask.from) else { continue };
            let (id, version) = (peer.id, peer.version);
            let number = self.next_command;
            let mut ask = Ask { signed: ask.signed.filter(|key| self.keys.usable_at(*key, version)), ..*ask };
            if !wire::is_known(&mut ask.order, version) || !self.broker.has_room(id) {
                continue;
            }
            self.next_command += 1;
            self.name_link(number, &ask);
            self.orders.insert(number, ask.order);
            self.ledger.asked.insert(number, ask);
            self.give(id, number, ask)?;
            for _ in 0..self.random(4) {
                self.complete_one()?;
            }
            let connections = self.connections();
            let which = self.random(2 * connections.len());
            if let Some(connection) = connections.get(which) {
                self.listen(*connection)?;
            }
        }
        Ok(())
    }

    /// Takes what was said to a connection, and writes the answers down.
    fn listen(&mut self, connection: Connection) -> Checked {
        self.take(connection)?;
        let Some(peer) = self.peers.get_mut(&connection) else { return Ok(()) };
        let heard = std::mem::take(&mut peer.heard);
        for Said { about, answers, what, .. } in heard {
            let Some(number) = answers else { continue };
            let ask = self.ledger.asked[&number];
            ensure(ask.from == connection && ask.about == about, || format!("{what:?} to {ask:?}"))?;
            match (&what, ask.order, about) {
                (Saying::Subscribed, _, Entity::Recipient(queue)) => {
                    self.ledger.subscribers.insert(queue, connection);
                }
                (Saying::Created(..), Order::New { subscribe: true, .. }, _) => {
                    self.ledger.subscribers.insert(number, connection);
                }
                _ => {}
            }
            let before = self.ledger.answers.insert(number, what);
            ensure(before.is_none(), || format!("two answers to {ask:?}"))?;
        }
        Ok(())
    }

    pub fn leave(&mut self, connection: Connection) -> Checked {
        if let Some(peer) = self.peers.remove(&connection) {
            self.broker.disconnect(peer.id);
            self.model.disconnect(connection);
        }
        self.check()
    }

    /// The relay is gone, with what was under way; what storage had done stays done.
    pub fn crash(&mut self) -> Checked {
        self.done.clear();
        self.storage.crash();
        self.start_again()
    }

    pub fn let_time_pass(&mut self, seconds: i64) -> Checked {
        self.let_pass(seconds, Storage::default())
    }

    /// All faults are over: everything is answered, and what is promised holds.
    pub fn calm(&mut self) -> Checked {
        self.ledger.odds = 0;
        self.let_time_pass(200)?;
        loop {
            self.settle()?;
            let open = self.connections();
            for connection in &open {
                self.listen(*connection)?;
            }
            let waits = self.broker.statistics().actions_waiting > 0;
            if !self.is_anybody_ready() && !waits {
                break;
            }
        }
        let statistics = self.broker.statistics();
        ensure(statistics.actions_under_way == 0, || format!("{statistics:?}"))?;
        ensure(statistics.queues == self.storage.queues().count(), || format!("{statistics:?}"))?;
        for (number, ask) in &self.ledger.asked {
            let answer = self.ledger.answers.get(number);
            let must_be = self.peers.contains_key(&ask.from);
            ensure(answer.is_some() || !must_be, || format!("no answer to {ask:?}"))?;
            let stored = self.ledger.stored.contains(number);
            match (ask.order, answer) {
                (Order::Send { .. }, Some(Saying::Ok)) => {
                    ensure(stored, || format!("message {number} was accepted and is not stored"))?;
                }
                (Order::Send { .. }, Some(Saying::Refused(error))) => {
                    let marker = *error == smp_proto::wire::error::SmpError::Quota;
                    ensure(!stored || marker, || format!("message {number} was refused and is stored"))?;
                }
                (Order::Acknowledge(Acknowledged::Message(message)), Some(Saying::Ok)) => {
                    let deleted = self.ledger.deleted.contains(&message);
                    ensure(deleted, || format!("message {message} was acknowledged and is there"))?;
                }
                _ => {}
            }
        }
        self.drain()
    }

    /// A new connection gets from every queue exactly what is stored, in order.
    fn drain(&mut self) -> Checked {
        let stored: BTreeMap<[u8; 24], Vec<Number>> = self
            .storage
            .queues()
            .map(|stored| {
                let number = |(sequence, _): &(Sequence, _)| self.ledger.places[&(stored.queue, *sequence)];
                (stored.record.recipient, stored.messages.iter().map(number).collect())
            })
            .collect();
        for connection in self.connections() {
            self.leave(connection)?;
        }
        self.connect(18)?;
        let Some(connection) = self.connections().pop() else { return Ok(()) };
        for (recipient, expected) in stored {
            let Some(about @ Entity::Recipient(number)) = self.ids.get(&recipient.into()).copied() else {
                // Its creator never heard of it.
                continue;
            };
            let Some(Order::New { key, .. }) = self.order(number) else { continue };
            let mut order = Order::Subscribe;
            let mut drained = Vec::new();
            loop {
                let id = self.peers[&connection].id;
                let command = self.next_command;
                self.next_command += 1;
                self.orders.insert(command, order);
                self.give(id, command, Ask { from: connection, about, order, signed: Some(key) })?;
                let mut got = None;
                loop {
                    self.settle()?;
                    self.take(connection)?;
                    let heard = std::mem::take(&mut self.peers.get_mut(&connection).ok_or_else(gone)?.heard);
                    let waits = self.broker.statistics().actions_waiting > 0;
                    if heard.is_empty() && !self.is_anybody_ready() && !waits {
                        break;
                    }
                    for said in heard {
                        match said.what {
                            Saying::Message(message) => got = Some(message.number),
                            Saying::Subscribed | Saying::Ok => {}
                            other => ensure(false, || format!("{other:?}"))?,
                        }
                    }
                }
                let Some(got) = got else { break };
                drained.push(got);
                order = Order::Acknowledge(Acknowledged::Message(got));
            }
            ensure(drained == expected, || format!("queue {number} gave {drained:?}, not {expected:?}"))?;
        }
        Ok(())
    }
}

fn gone() -> TestCaseError {
    TestCaseError::fail("the connection is gone")
}
