//! Whose destination is dialled next: clients take turns, and none has more than a few dials at once.

use alloc::collections::{BTreeMap, VecDeque};

use super::machine::LinkId;
use crate::broker::ConnectionId;

/// The dials of one client.
#[derive(Default)]
struct Dials {
    under_way: usize,
    waiting: VecDeque<LinkId>,
    /// Whether it stands in the rotation.
    listed: bool,
}

/// The dials of all clients.
pub(super) struct Turns {
    in_all: usize,
    per_client: usize,
    under_way: usize,
    clients: BTreeMap<ConnectionId, Dials>,
    rotation: VecDeque<ConnectionId>,
}

impl Turns {
    pub(super) fn new(in_all: usize, per_client: usize) -> Self {
        // Without any, nothing would ever be reached.
        let (in_all, per_client) = (in_all.max(1), per_client.max(1));
        Self { in_all, per_client, under_way: 0, clients: BTreeMap::new(), rotation: VecDeque::new() }
    }

    /// A destination waits to be dialled for a client.
    pub(super) fn wait(&mut self, client: ConnectionId, link: LinkId) {
        let dials = self.clients.entry(client).or_default();
        dials.waiting.push_back(link);
        if !dials.listed && dials.under_way < self.per_client {
            dials.listed = true;
            self.rotation.push_back(client);
        }
    }

    /// The next destination that may be dialled. It counts as under way, until [`finished`](Self::finished).
    pub(super) fn next(&mut self) -> Option<(ConnectionId, LinkId)> {
        while self.under_way < self.in_all {
            let client = self.rotation.pop_front()?;
            let Some(dials) = self.clients.get_mut(&client) else { continue };
            dials.listed = false;
            let Some(link) = dials.waiting.pop_front() else { continue };
            dials.under_way += 1;
            self.under_way += 1;
            if dials.under_way < self.per_client && !dials.waiting.is_empty() {
                dials.listed = true;
                self.rotation.push_back(client);
            }
            return Some((client, link));
        }
        None
    }

    /// A dial for this client is over, however it ended.
    pub(super) fn finished(&mut self, client: ConnectionId) {
        let Some(dials) = self.clients.get_mut(&client) else { return };
        dials.under_way = dials.under_way.saturating_sub(1);
        self.under_way = self.under_way.saturating_sub(1);
        if dials.waiting.is_empty() {
            if dials.under_way == 0 {
                self.clients.remove(&client);
            }
        } else if !dials.listed {
            dials.listed = true;
            self.rotation.push_back(client);
        }
    }

    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether the figures agree.
    pub(super) fn is_consistent(&self) -> bool {
        let sum: usize = self.clients.values().map(|dials| dials.under_way).sum();
        let listed = self.clients.values().filter(|dials| dials.listed).count();
        sum == self.under_way
            && self.under_way <= self.in_all
            && listed == self.rotation.len()
            && self.clients.values().all(|dials| {
                dials.under_way <= self.per_client
                    && (dials.waiting.is_empty() || dials.listed || dials.under_way == self.per_client)
            })
    }
}
