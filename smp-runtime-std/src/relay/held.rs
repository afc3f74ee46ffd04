//! The broker and the lock that it is held in.
//!
//! Owns: the broker, the bells of its connections, and the order in which storage actions leave it. Whatever the broker
//! has to say after a call (actions, connections to wake, another deadline) is taken out before the lock is given back,
//! so nobody has to remember to; bells ring after that, so that whoever wakes does not find the lock taken.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use smp_proto::broker::storage::{ActionId, Completion, StorageAction};
use smp_proto::broker::{Broker, ConnectionId};
use smp_proto::time::{Instant, Now};

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
}

struct State {
    broker: Broker,
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
    pub(super) fn new(broker: Broker) -> Self {
        let state = State { broker, storage: None, bells: Vec::new(), actions: Vec::new(), armed: None };
        Self { state: Mutex::new(state), timekeeper: Wakeup::default() }
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
        let mut bells = Vec::new();
        let mut guard = self.lock();
        let state = &mut *guard;
        let result = act(&mut state.broker);
        if let Some(storage) = &state.storage {
            while let Some(action) = state.broker.poll_storage() {
                state.actions.push(action);
            }
            if !state.actions.is_empty() {
                storage.submit(&mut state.actions);
            }
        }
        while let Some(connection) = state.broker.poll_ready() {
            if Some(connection) != own
                && let Some(Some(bell)) = state.bells.get(connection.slot())
            {
                bells.push(Arc::clone(bell));
            }
        }
        let next = state.broker.next_deadline();
        let earlier = next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed));
        drop(guard);
        if earlier {
            self.timekeeper.raise(Events::READY);
        }
        for bell in bells {
            bell.raise(Events::READY);
        }
        result
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
        self.hold(None, |broker| {
            for completion in completions {
                broker.complete(completion, now);
            }
        });
    }

    /// Whether no storage action is under way.
    pub(super) fn is_quiet(&self) -> bool {
        let statistics = self.look(Broker::statistics);
        statistics.actions_under_way == 0 && statistics.actions_waiting == 0
    }

    /// For the timekeeper: the next deadline, for which it will come.
    pub(super) fn arm(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.armed = state.broker.next_deadline();
        state.armed
    }

    /// For the timekeeper: whether to call [`Self::arm`] again, and otherwise who is woken then.
    pub(super) fn poll_rearm(&self, waker: &Waker) -> bool {
        self.timekeeper.poll(waker) && !self.timekeeper.take().is_empty()
    }
}
