//! The connections that a relay speaks with, as far as the broker needs to know them: what is to be said, how much is
//! owed, and which queues they are attached to.

use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::blobs::WriteRate;
use super::proxying::Proxied;
use super::queues::QueueRef;
use super::record::ServiceNumber;
use crate::session::forwarded::Envelope;
use crate::session::outgoing::{Outgoing, OutgoingContent};
use crate::time::Instant;
use crate::wire::{CorrelationId, EntityId};

/// The most commands that one block can hold: so many answers must fit before it is accepted.
pub const COMMANDS_IN_A_BLOCK: usize = 255;

/// Above this capacity an emptied queue of transmissions gives its memory back.
const KEPT_CAPACITY: usize = 4;

/// Names a connection; never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// Where drivers may keep what belongs to the connection: slots are reused, and small.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }

    /// The name as one number, for machines that know connections by numbers.
    #[must_use]
    pub const fn to_number(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The name that [`to_number`](Self::to_number) gave.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self { slot: (number & 0xFFFF_FFFF) as u32, generation: (number >> 32) as u32 }
    }
}

/// Whom an answer goes to.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) connection: ConnectionId,
    pub(super) correlation: CorrelationId,
    pub(super) entity: EntityId,
    /// How the answer is boxed, when the command came through a proxy.
    pub(super) forwarded: Option<Arc<Envelope>>,
}

impl Address {
    /// The address of an answer that goes through no proxy.
    pub(super) const fn new(connection: ConnectionId, correlation: CorrelationId, entity: EntityId) -> Self {
        Self { connection, correlation, entity, forwarded: None }
    }
}

/// One connection.
#[derive(Default)]
pub(super) struct Connection {
    outgoing: VecDeque<Outgoing>,
    ready: bool,
    /// Answers that wait for storage.
    pub(super) owed: u32,
    /// Bodies of messages, and link data, in `outgoing` or being read.
    pub(super) bodies: u16,
    /// Whose next message waits for room.
    pub(super) queued: VecDeque<Queued>,
    /// Queues that this connection is subscribed to, takes from, or is notified of, by slot.
    pub(super) subscribed: BTreeSet<u32>,
    pub(super) getting: BTreeSet<u32>,
    pub(super) notified: BTreeSet<u32>,
    /// How many blobs it has written lately.
    pub(super) blob_rate: WriteRate,
    /// What it wants of the proxy.
    pub(super) proxied: Proxied,
    /// The service that the client is.
    pub(super) service: Option<ServiceNumber>,
    /// Queues with news for this notifier, and when they are sent.
    pub(super) news: VecDeque<QueueRef>,
    pub(super) news_at: Option<Instant>,
    /// Whether more news waits until the connection has taken what it has.
    pub(super) news_paused: bool,
}

/// Who waits for a message body until there is room for it.
pub(super) enum Queued {
    /// The subscription to a queue.
    Subscription(QueueRef),
    /// A `GET`.
    Take(Address, QueueRef),
    /// `LGET` or `LKEY`.
    Link(Address, QueueRef),
    /// `READ`.
    Blob(Address),
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// All connections.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Slot>,
    free: Vec<u32>,
    count: u32,
    ready: VecDeque<ConnectionId>,
}

impl Connections {
    pub(super) fn open(&mut self) -> ConnectionId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        self.count += 1;
        let generation = match self.slots.get_mut(slot as usize) {
            Some(place) => {
                place.connection = Some(Connection::default());
                place.generation
            }
            None => 0,
        };
        ConnectionId { slot, generation }
    }

    pub(super) fn close(&mut self, id: ConnectionId) -> Option<Connection> {
        let slot = self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation)?;
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.count -= 1;
        Some(connection)
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot()).filter(|slot| slot.generation == id.generation)?.connection.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot()).filter(|slot| slot.generation == id.generation)?.connection.as_mut()
    }

    /// Says something; nothing happens when the connection is gone.
    pub(super) fn say(&mut self, to: Address, content: OutgoingContent) {
        let id = to.connection;
        let Some(connection) = self.get_mut(id) else { return };
        if content.has_body() {
            connection.bodies = connection.bodies.saturating_add(1);
        }
        let Address { correlation, entity, forwarded, .. } = to;
        connection.outgoing.push_back(Outgoing { correlation, entity, content, forwarded });
        if !connection.ready {
            connection.ready = true;
            self.ready.push_back(id);
        }
    }

    /// Gives back the room for a message body: it was not there after all, or is said now, which counts it again.
    pub(super) fn release_body(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id) {
            connection.bodies = connection.bodies.saturating_sub(1);
        }
    }

    /// One answer more, or less, is owed to a connection.
    pub(super) fn owe(&mut self, id: ConnectionId, more: bool) {
        if let Some(connection) = self.get_mut(id) {
            let owed = connection.owed;
            connection.owed = if more { owed.saturating_add(1) } else { owed.saturating_sub(1) };
        }
    }

    /// Says something that answers no command.
    pub(super) fn tell(&mut self, connection: ConnectionId, entity: EntityId, content: OutgoingContent) {
        self.say(Address::new(connection, CorrelationId::EMPTY, entity), content);
    }

    pub(super) fn poll_ready(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(connection) = self.get_mut(id)
                && connection.ready
            {
                connection.ready = false;
                return Some(id);
            }
        }
        None
    }

    /// Moves everything that is to be said to `out`.
    pub(super) fn take(&mut self, id: ConnectionId, out: &mut VecDeque<Outgoing>) {
        let Some(connection) = self.get_mut(id) else { return };
        let bodies = connection.bodies_to_be_said();
        connection.bodies = connection.bodies.saturating_sub(u16::try_from(bodies).unwrap_or(u16::MAX));
        connection.ready = false;
        out.append(&mut connection.outgoing);
        if connection.outgoing.capacity() > KEPT_CAPACITY {
            connection.outgoing.shrink_to(KEPT_CAPACITY);
        }
    }

    /// All connections in the order of their slots: for digests and checks.
    pub(super) fn all(&self) -> impl Iterator<Item = (ConnectionId, &Connection)> {
        (0u32..).zip(&self.slots).filter_map(|(slot, place)| {
            Some((ConnectionId { slot, generation: place.generation }, place.connection.as_ref()?))
        })
    }
}

impl Connection {
    /// Whether another block's answers fit into `limit`.
    pub(super) fn has_room(&self, limit: u16) -> bool {
        self.owed as usize + self.outgoing.len() + COMMANDS_IN_A_BLOCK
            <= usize::from(limit).max(COMMANDS_IN_A_BLOCK)
    }

    /// Reserves room for a message body; false when there is none.
    pub(super) const fn reserve_body(&mut self, limit: u16) -> bool {
        let fits = self.bodies < limit;
        if fits {
            self.bodies += 1;
        }
        fits
    }

    /// What waits to be said, for digests.
    pub(super) fn outgoing(&self) -> impl Iterator<Item = &Outgoing> {
        self.outgoing.iter()
    }

    /// How many messages and link data are among what waits to be said.
    pub(super) fn bodies_to_be_said(&self) -> usize {
        self.outgoing().filter(|outgoing| outgoing.content.has_body()).count()
    }

    /// To how many queues it is attached in any way.
    pub(super) fn attachments(&self) -> usize {
        self.subscribed.len() + self.notified.len() + self.getting.len()
    }

    pub(super) fn waiting_to_be_said(&self) -> usize {
        self.outgoing.len()
    }
}
