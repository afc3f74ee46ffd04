//! Whose destination is dialled next: clients take turns, and none has more than a few dials at once.

use alloc::collections::{BTreeMap, VecDeque};

/// The dials of one client.
struct Dials<Link> {
    under_way: usize,
    waiting: VecDeque<Link>,
    /// Whether it stands in the rotation.
    listed: bool,
}

/// The dials of all clients.
pub(crate) struct Turns<Client, Link> {
    in_all: usize,
    per_client: usize,
    under_way: usize,
    clients: BTreeMap<Client, Dials<Link>>,
    rotation: VecDeque<Client>,
}

impl<Link> Default for Dials<Link> {
    fn default() -> Self {
        Self { under_way: 0, waiting: VecDeque::new(), listed: false }
    }
}

impl<Client: Copy + Ord, Link> Turns<Client, Link> {
    pub(crate) fn new(in_all: usize, per_client: usize) -> Self {
        // Without any, nothing would ever be reached.
        let (in_all, per_client) = (in_all.max(1), per_client.max(1));
        Self { in_all, per_client, under_way: 0, clients: BTreeMap::new(), rotation: VecDeque::new() }
    }

    /// A destination waits to be dialled for a client.
    pub(crate) fn wait(&mut self, client: Client, link: Link) {
        let dials = self.clients.entry(client).or_default();
        dials.waiting.push_back(link);
        if !dials.listed && dials.under_way < self.per_client {
            dials.listed = true;
            self.rotation.push_back(client);
        }
    }

    /// The next destination that may be dialled. It counts as under way, until [`finished`](Self::finished).
    pub(crate) fn next(&mut self) -> Option<(Client, Link)> {
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
    pub(crate) fn finished(&mut self, client: Client) {
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

    pub(crate) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether the figures agree.
    pub(crate) fn is_consistent(&self) -> bool {
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
