//! A relay, whatever runtime it runs on: the broker behind a lock, storage beside it, connections around it.
//!
//! Owns: the one [`Broker`](smp_proto::broker::Broker) and the one [`Proxy`] beside it, the way of its storage actions, who is to
//! be woken, admission, the process's entropy and clocks. Runtimes own sockets, timers and threads, and drive one
//! [`RelayConnection`](connection::RelayConnection) for each client's socket; for a proxy also one
//! [`RelayLink`](link::RelayLink) for each destination, after dialling it
//! ([`Relay::take_dial`]). The lock is held only while the broker looks up, executes, completes and hands out: never over
//! cryptography, IO or waiting.
//!
//! ```text
//!  socket ─ RelayConnection ─┬─ look_up ─┐                  ┌─ submit ──▶ storage thread
//!                            ├─ verify   │   ┌──────────┐   │                  │
//!                            ├─ execute ─┼──▶│  Broker  │───┤                  │
//!                            └─ pack ◀───┘   └──────────┘   └─ wake-ups        │
//!                                                  ▲───────── complete ────────┘
//! ```

pub mod admission;
pub mod clock;
pub mod connection;
mod conversation;
pub mod dial;
mod driven;
pub mod entropy;
mod held;
mod holding;
pub mod link;
mod setup;
mod talk;
pub mod wakeup;

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant as SystemInstant};

use smp_proto::broker::{BlockError, Statistics};
use smp_proto::first_step::FirstStep;
use smp_proto::forwarding::ForwardingStatistics;
use smp_proto::proxy::{Proxy, ProxyStatistics};
use smp_proto::server::Roles;
use smp_proto::session::server::ServerSessionConfig;
use smp_proto::wire::error::Blocked;

use self::admission::Admission;
use self::clock::Clock;
use self::dial::{Reaching, RelayDial};
pub use self::driven::Driven;
use self::entropy::ProcessEntropy;
pub use self::held::ActionQueue;
use self::held::Held;
pub use self::setup::{Completions, RelayBuilder, SetupError};
use self::wakeup::Events;
use crate::configuration::ServiceLimits;
use crate::storage::{StorageThread, Workload};
use crate::tls::ServerTls;

/// A relay. Runtimes share it in an [`Arc`].
pub struct Relay {
    held: Arc<Held>,
    admission: Arc<Admission>,
    clock: Clock,
    entropy: ProcessEntropy,
    tls: ServerTls,
    sessions: Arc<ServerSessionConfig>,
    limits: ServiceLimits,
    inactive_after: Option<Duration>,
    /// What the relay does in `smp-proxy/1`.
    roles: Roles,
    /// How other relays are reached.
    reaching: Arc<Reaching>,
    /// The thread that writes, when the relay has started it itself.
    storage: Option<StorageThread>,
}

impl Relay {
    fn held(&self) -> &Held {
        &self.held
    }

    fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn entropy(&self) -> &ProcessEntropy {
        &self.entropy
    }

    fn tls(&self) -> &ServerTls {
        &self.tls
    }

    fn sessions(&self) -> &Arc<ServerSessionConfig> {
        &self.sessions
    }

    fn limits(&self) -> &ServiceLimits {
        &self.limits
    }

    fn roles(&self) -> Roles {
        self.roles
    }

    fn inactive_after(&self) -> Option<Duration> {
        self.inactive_after
    }

    /// When to call [`Self::handle_timeout`] next, by the system's clock.
    #[must_use]
    pub fn deadline(&self) -> Option<SystemInstant> {
        self.held.arm().and_then(|instant| self.clock.system(instant))
    }

    /// Sets who is woken when the deadline becomes an earlier one; true when it has already, and [`Self::deadline`] is
    /// to be asked again.
    #[must_use]
    pub fn poll_deadline_changed(&self, waker: &Waker) -> bool {
        self.held.poll_rearm(waker)
    }

    /// Does what the broker has to do at its deadlines.
    pub fn handle_timeout(&self) {
        let now = self.clock.now();
        self.entropy.with(|entropy| self.held.handle_timeout(now, entropy));
    }

    /// Where the threads that drive connections say when they work and when they rest, so that what they want stored is
    /// written together; `None` when storage does not care.
    #[must_use]
    pub fn workload(&self) -> Option<&Workload> {
        self.storage.as_ref().map(StorageThread::workload)
    }

    /// Stops to read from connections, and admits none any more. What was read is worked on and answered.
    pub fn drain(&self) {
        self.admission.close(Events::DRAIN);
    }

    /// Whether storage has done everything that it was asked to.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.held.is_quiet()
    }

    /// Tells every connection to say what there is to say, and to end. To be called when [`Self::is_quiet`].
    pub fn finish(&self) {
        self.admission.close(Events::FINISH);
        self.held.close_links();
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.admission.count().0
    }

    /// Blocks the queue that has this id, as recipient, sender, notifier or link id; its subscriber is told when that is
    /// durable.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn block(&self, id: &[u8; 24], blocked: Blocked) -> Result<(), BlockError> {
        self.held.hold(None, |broker| broker.block(id, blocked))
    }

    /// Unblocks a queue.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn unblock(&self, id: &[u8; 24]) -> Result<(), BlockError> {
        self.held.hold(None, |broker| broker.unblock(id))
    }

    /// Whether the queue that has this id is blocked: when [`Self::is_quiet`], also on disk.
    #[must_use]
    pub fn is_blocked(&self, id: &[u8; 24]) -> bool {
        self.held.hold(None, |broker| broker.is_blocked(id))
    }

    /// A destination that is to be dialled, if there is one: for relays that are proxies. The runtime has
    /// [`RelayDial::reach`] called where it may block, and drives what comes of it.
    #[must_use]
    pub fn take_dial(self: &Arc<Self>) -> Option<RelayDial> {
        let (link, bell, address) = self.held.take_dial()?;
        Some(RelayDial::new(self, link, bell, address, &self.reaching))
    }

    /// Sets who is woken when there is a destination to dial; true when there may be one already.
    #[must_use]
    pub fn poll_dials(&self, waker: &Waker) -> bool {
        self.held.poll_dials(waker)
    }

    /// Figures of the proxy, none of which is about one destination or client.
    #[must_use]
    pub fn proxy_statistics(&self) -> ProxyStatistics {
        self.held.look_at_proxy(Proxy::statistics)
    }

    /// Figures of what first-step relays forward to this relay.
    #[must_use]
    pub fn forwarding_statistics(&self) -> ForwardingStatistics {
        self.held.forwarding_statistics()
    }

    /// How many commands and answers are held for other relays.
    #[must_use]
    pub fn held_for_others(&self) -> usize {
        self.held.look_at_first_step(FirstStep::held)
    }

    /// Figures of the broker, none of which is about one queue or client.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.held.statistics()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.held.detach();
        if let Some(storage) = self.storage.take() {
            // It has done everything that it was asked to; a panic of it has been reported when it happened.
            let _ = storage.join();
        }
    }
}

impl core::fmt::Debug for Relay {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Relay").field("connections", &self.connections()).finish_non_exhaustive()
    }
}
