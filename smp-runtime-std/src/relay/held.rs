//! The broker and the lock that it is held in.
//!
//! Owns: the broker, the bells of its connections, and the order in which storage actions leave it. Whatever the broker
//! has to say after a call (actions, connections to wake, another deadline) is taken out before the lock is given back,
//! so nobody has to remember to; bells ring after that, so that whoever wakes does not find the lock taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use smp_proto::broker::storage::{ActionId, Completion, Room, StorageAction};
use smp_proto::broker::{Broker, ConnectionId, Statistics};
use smp_proto::entropy::Entropy;
use smp_proto::first_step::{self, FirstStep};
use smp_proto::forwarding::{Forwarding, ForwardingStatistics};
use smp_proto::proxy::{DialFailure, Proxy, ProxyAction};
use smp_proto::server::Link;
use smp_proto::time::{Instant, Now};
use smp_proto::wire::address::ServerAddress;

use super::clock::Clock;
use super::wakeup::{Events, Wakeup};

/// Where storage actions go. Called with the broker held, so that their order is the broker's: it must only put them
/// aside and wake whoever carries them out.
pub trait ActionQueue: Send + Sync {
    /// Takes actions over, in order, leaving `actions` empty.
    fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>);
}

/// The broker, held in one lock.
pub(super) struct Held {
    state: Mutex<State>,
    /// Rings when the broker's next deadline is earlier than the one that is waited for.
    timekeeper: Wakeup,
    /// Rings when there is a destination to dial.
    dialler: Wakeup,
    clock: Clock,
}

/// A destination that is to be dialled.
type Dial = (Link, Arc<Wakeup>, Box<ServerAddress>);

struct State {
    broker: Broker,
    proxy: Proxy,
    first_step: FirstStep,
    /// What takes commands from first-step relays, when the relay does.
    forwarding: Option<Forwarding>,
    /// The bells of connections to other relays.
    links: BTreeMap<Link, Arc<Wakeup>>,
    dials: VecDeque<Dial>,
    /// `None` until storage is there; actions wait in the broker then.
    storage: Option<Box<dyn ActionQueue>>,
    /// By the slots of connections.
    bells: Vec<Option<Arc<Wakeup>>>,
    /// Actions on their way to storage; kept for its memory.
    actions: Vec<(ActionId, StorageAction)>,
    /// When the timekeeper will come anyway.
    armed: Option<Instant>,
}

impl Held {
    pub(super) fn new(
        broker: Broker,
        proxy: Proxy,
        first_step: FirstStep,
        forwarding: Option<Forwarding>,
        clock: Clock,
    ) -> Self {
        let state = State {
            broker,
            proxy,
            first_step,
            forwarding,
            links: BTreeMap::new(),
            dials: VecDeque::new(),
            storage: None,
            bells: Vec::new(),
            actions: Vec::new(),
            armed: None,
        };
        Self { state: Mutex::new(state), timekeeper: Wakeup::default(), dialler: Wakeup::default(), clock }
    }

    /// Says where storage actions go. Storage in turn hands completions to [`Self::complete`].
    pub(super) fn attach(&self, storage: Box<dyn ActionQueue>) {
        self.lock().storage = Some(storage);
        self.hold(None, |_| ());
    }

    /// Ends the way to storage: whoever carries actions out is told so by the drop of its queue.
    pub(super) fn detach(&self) {
        self.lock().storage = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|_| {
            // Somebody panicked while the broker was in his hands: its picture of what is stored and what was promised
            // cannot be trusted any more, and storage has all that was promised. Better a restart than a wrong answer.
            eprintln!(
                "smp-server: a bug damaged the relay's state: stopping; nothing that was confirmed is lost"
            );
            std::process::abort()
        })
    }

    /// Holds the broker for `act`, which must be short. `own` is the connection that asks: it looks itself what there
    /// is for it, and is not woken.
    pub(super) fn hold<R>(&self, own: Option<ConnectionId>, act: impl FnOnce(&mut Broker) -> R) -> R {
        self.hold_state(own, |state| act(&mut state.broker))
    }

    /// Holds the proxy for `act`, which must be short.
    pub(super) fn hold_proxy<R>(&self, act: impl FnOnce(&mut Proxy) -> R) -> R {
        self.hold_state(None, |state| act(&mut state.proxy))
    }

    /// Holds the first-step relay for `act`, which must be short.
    pub(super) fn hold_first_step<R>(&self, act: impl FnOnce(&mut FirstStep) -> R) -> R {
        self.hold_state(None, |state| act(&mut state.first_step))
    }

    /// Holds the room that takes what first-step relays forward, with the broker, for `act`, which must be short. `None` when
    /// the relay takes nothing of the kind.
    pub(super) fn hold_forwarding<R>(
        &self,
        act: impl FnOnce(&mut Forwarding, &mut Broker) -> R,
    ) -> Option<R> {
        self.hold_state(None, |state| {
            let State { forwarding, broker, .. } = state;
            forwarding.as_mut().map(|forwarding| act(forwarding, broker))
        })
    }

    /// Does what all have to do at their deadlines.
    pub(super) fn handle_timeout(&self, now: Now, entropy: &mut impl Entropy) {
        self.hold_state(None, |state| {
            state.broker.handle_timeout(now);
            state.proxy.handle_timeout(now);
            state.first_step.handle_timeout(now, entropy);
            if let Some(forwarding) = &mut state.forwarding {
                forwarding.handle_timeout(now, entropy);
            }
        });
    }

    /// Another relay cannot be reached.
    pub(super) fn dial_failed(&self, link: Link, failure: DialFailure, now: Now, entropy: &mut impl Entropy) {
        self.hold_state(None, |state| match link {
            Link::Proxy(id) => state.proxy.dial_failed(id, failure, now),
            Link::FirstStep(link) => state.first_step.disconnected(link, failure.into(), now, entropy),
        });
        self.forget_link(link);
    }

    fn hold_state<R>(&self, own: Option<ConnectionId>, act: impl FnOnce(&mut State) -> R) -> R {
        let mut bells = Vec::new();
        let mut rung = Rung::default();
        let mut guard = self.lock();
        let state = &mut *guard;
        let result = act(state);
        state.ring_connections(own, &mut bells);
        if state.work_on_proxy(&self.clock, &mut rung) {
            // What the proxy has answered at once is news even for whoever asked.
            state.ring_connections(None, &mut bells);
        }
        state.work_on_first_step(&mut bells, &mut rung);
        state.ring_first_step_relays(&mut bells);
        if let Some(storage) = &state.storage {
            while let Some(action) = state.broker.poll_storage() {
                state.actions.push(action);
            }
            while let Some(action) = state.first_step.poll_storage() {
                state.actions.push(action);
            }
            if let Some(forwarding) = &mut state.forwarding {
                while let Some(action) = forwarding.poll_storage() {
                    state.actions.push(action);
                }
            }
            if !state.actions.is_empty() {
                storage.submit(&mut state.actions);
            }
        }
        let next = state.next_deadline();
        let earlier = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        drop(guard);
        if earlier {
            self.timekeeper.raise(Events::READY);
        }
        for bell in bells {
            bell.raise(Events::READY);
        }
        for (bell, events) in rung.links {
            bell.raise(events);
        }
        if rung.dials {
            self.dialler.raise(Events::READY);
        }
        result
    }

    /// Looks something up in the first-step relay.
    pub(super) fn look_at_first_step<R>(&self, look: impl FnOnce(&FirstStep) -> R) -> R {
        look(&self.lock().first_step)
    }

    /// Looks something up in the proxy.
    pub(super) fn look_at_proxy<R>(&self, look: impl FnOnce(&Proxy) -> R) -> R {
        look(&self.lock().proxy)
    }

    /// The next destination to dial.
    pub(super) fn take_dial(&self) -> Option<Dial> {
        self.lock().dials.pop_front()
    }

    /// For the dialler: sets who is woken by the next destination, and says whether there may be one already.
    pub(super) fn poll_dials(&self, waker: &Waker) -> bool {
        self.dialler.poll(waker) && !self.dialler.take().is_empty()
    }

    /// A connection to another relay is over, and rings no more.
    pub(super) fn forget_link(&self, link: Link) {
        self.lock().links.remove(&link);
    }

    /// Has every connection to another relay end, and dials none any more. For stopping only.
    pub(super) fn close_links(&self) {
        let mut state = self.lock();
        let links = std::mem::take(&mut state.links);
        let dials = std::mem::take(&mut state.dials);
        drop(state);
        drop(dials);
        for bell in links.into_values() {
            bell.raise(Events::FINISH);
        }
    }

    /// Figures of the broker.
    pub(super) fn statistics(&self) -> Statistics {
        let state = self.lock();
        let mut statistics = state.broker.statistics();
        if state.forwarding.is_some() {
            // One is that of commands that were forwarded.
            statistics.connections = statistics.connections.saturating_sub(1);
        }
        statistics
    }

    /// Figures of what first-step relays forward.
    pub(super) fn forwarding_statistics(&self) -> ForwardingStatistics {
        self.lock().forwarding.as_ref().map(Forwarding::statistics).unwrap_or_default()
    }

    /// Looks something up: nothing comes of it that anybody would have to be told.
    pub(super) fn look<R>(&self, look: impl FnOnce(&Broker) -> R) -> R {
        look(&self.lock().broker)
    }

    /// Makes a connection known; `None` when the broker has as many as it takes.
    pub(super) fn connect(&self, bell: &Arc<Wakeup>, now: Now) -> Option<ConnectionId> {
        let connection = self.hold(None, |broker| broker.connect(now)).ok()?;
        let mut state = self.lock();
        let slot = connection.slot();
        if state.bells.len() <= slot {
            state.bells.resize(slot + 1, None);
        }
        if let Some(place) = state.bells.get_mut(slot) {
            *place = Some(Arc::clone(bell));
        }
        Some(connection)
    }

    pub(super) fn disconnect(&self, connection: ConnectionId) {
        if let Some(bell) = self.lock().bells.get_mut(connection.slot()) {
            *bell = None;
        }
        self.hold(Some(connection), |broker| broker.disconnect(connection));
    }

    /// Hands a group of completions over, all at once.
    pub(super) fn complete(&self, completions: Vec<Completion>, now: Now) {
        self.hold_state(None, |state| {
            for completion in completions {
                match completion.action().room() {
                    Some(Room::Broker) => state.broker.complete(completion, now),
                    Some(Room::FirstStep) => state.first_step.complete(completion, now),
                    Some(Room::Forwarding) => {
                        if let Some(forwarding) = &mut state.forwarding {
                            forwarding.complete(completion, now);
                        }
                    }
                    None => {}
                }
            }
        });
    }

    /// Whether no storage action is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.lock();
        let statistics = state.broker.statistics();
        statistics.actions_under_way == 0
            && statistics.actions_waiting == 0
            && state.first_step.actions_under_way() == 0
            && state.forwarding.as_ref().is_none_or(|forwarding| forwarding.actions_under_way() == 0)
    }

    /// For the timekeeper: the next deadline, for which it will come.
    pub(super) fn arm(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.armed = state.next_deadline();
        state.armed
    }

    /// For the timekeeper: whether to call [`Self::arm`] again, and otherwise who is woken then.
    pub(super) fn poll_rearm(&self, waker: &Waker) -> bool {
        self.timekeeper.poll(waker) && !self.timekeeper.take().is_empty()
    }
}

/// What rings when the lock is given back.
#[derive(Default)]
struct Rung {
    links: Vec<(Arc<Wakeup>, Events)>,
    dials: bool,
}

impl State {
    fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.broker.next_deadline(),
            self.proxy.next_deadline(),
            self.first_step.next_deadline(),
            self.forwarding.as_ref().and_then(Forwarding::next_deadline),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Takes the bells of the connections that have something to be told.
    fn ring_connections(&mut self, own: Option<ConnectionId>, bells: &mut Vec<Arc<Wakeup>>) {
        while let Some(connection) = self.broker.poll_ready() {
            if let Some(forwarding) = &mut self.forwarding
                && forwarding.broker_connection() == connection
            {
                forwarding.collect(&mut self.broker);
            } else if Some(connection) != own
                && let Some(Some(bell)) = self.bells.get(connection.slot())
            {
                bells.push(Arc::clone(bell));
            }
        }
    }

    /// Takes the bells of the first-step relays that have something to be told, or whose commands are to be opened.
    fn ring_first_step_relays(&mut self, bells: &mut Vec<Arc<Wakeup>>) {
        let Some(forwarding) = &mut self.forwarding else { return };
        while let Some(relay) = forwarding.poll_ready() {
            if let Some(Some(bell)) = self.bells.get(relay.connection().slot()) {
                bells.push(Arc::clone(bell));
            }
        }
    }

    /// Carries requests and answers between broker and proxy until there are none: true when there were answers.
    fn work_on_proxy(&mut self, clock: &Clock, rung: &mut Rung) -> bool {
        let mut answered = false;
        loop {
            while let Some((ticket, answer)) = self.proxy.poll_answer() {
                self.broker.answer_proxied(ticket, answer);
                answered = true;
            }
            match self.broker.poll_proxy_request() {
                Some(request) => self.proxy.handle(request, clock.now()),
                None => break,
            }
        }
        while let Some(action) = self.proxy.poll_action() {
            match action {
                ProxyAction::Dial(id, address) => self.dial(Link::Proxy(id), address, rung),
                ProxyAction::MaySend(id) => self.ring_link(Link::Proxy(id), rung),
                ProxyAction::Close(id) => self.close_link(Link::Proxy(id), rung),
            }
        }
        answered
    }

    /// Takes what the first-step relay has to have done.
    fn work_on_first_step(&mut self, bells: &mut Vec<Arc<Wakeup>>, rung: &mut Rung) {
        while let Some(action) = self.first_step.poll_action() {
            match action {
                first_step::Action::Connect(link, address) => {
                    self.dial(Link::FirstStep(link), address, rung);
                }
                first_step::Action::Disconnect(link) => self.close_link(Link::FirstStep(link), rung),
                first_step::Action::TellDestination(link) => self.ring_link(Link::FirstStep(link), rung),
                first_step::Action::TellClient(user) => {
                    // A slot may have gone to somebody else: who finds nothing has looked in vain.
                    if let Some(Some(bell)) = self.bells.get(user.connection().slot()) {
                        bells.push(Arc::clone(bell));
                    }
                }
            }
        }
    }

    fn dial(&mut self, link: Link, address: Box<ServerAddress>, rung: &mut Rung) {
        let bell = Arc::new(Wakeup::default());
        self.links.insert(link, Arc::clone(&bell));
        self.dials.push_back((link, bell, address));
        rung.dials = true;
    }

    fn ring_link(&self, link: Link, rung: &mut Rung) {
        if let Some(bell) = self.links.get(&link) {
            rung.links.push((Arc::clone(bell), Events::READY));
        }
    }

    fn close_link(&mut self, link: Link, rung: &mut Rung) {
        if let Some(bell) = self.links.remove(&link) {
            rung.links.push((bell, Events::FINISH));
        }
        self.dials.retain(|(dial, ..)| *dial != link);
    }
}
