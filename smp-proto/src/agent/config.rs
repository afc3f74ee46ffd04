//! What an agent is told once.

use alloc::vec::Vec;

use super::routing::{Isolation, ProxyMode, Routing};
use crate::backoff::Backoff;
use crate::crypto::Provider;
use crate::time::Duration;
use crate::wire::first_step::Hold;
use crate::wire::version::{Version, VersionRange};

/// The first version of the agent's protocol with receipts.
pub(super) const RECEIPTS: Version = Version(4);
/// The first version in which the initiator can decrypt messages right after the confirmation.
pub(super) const RATCHET_ON_CONFIRMATION: Version = Version(7);

/// How an agent behaves.
#[derive(Clone)]
pub struct AgentConfig {
    /// The primitives.
    pub provider: &'static dyn Provider,
    /// Versions of the agent's protocol: 2 to 7.
    pub agent_versions: VersionRange,
    /// Versions of the client protocol, the envelope between agents: 1 to 4. Below 3 there are no queue modes: links and
    /// replies then ask for the four-message form.
    pub client_versions: VersionRange,
    /// Versions of the ratchet: 2 to 3, without post-quantum keys.
    pub ratchet_versions: VersionRange,
    /// Whether a switch that the peer asks for is done in two messages. Deployed agents cannot follow that: set it only
    /// when all peers are known to be of this kind. The other side of it, taking such a switch, always works.
    pub fast_switch: bool,
    /// The wait before the second attempt of anything; each further wait is twice as long.
    pub first_delay: Duration,
    /// The longest wait between attempts.
    pub longest_delay: Duration,
    /// The longest wait while a peer's queue is full: it usually says itself when there is room.
    pub longest_full_delay: Duration,
    /// Which way commands take to other people's relays. [`Connections`](super::Connections) alone does not look at it.
    pub routing: Routing,
    /// How much may be kept.
    pub limits: AgentLimits,
}

/// Bounds of everything that an agent keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Connections and contact addresses.
    pub connections: usize,
    /// Messages of one connection that wait to be sent, at 16 KB each.
    pub outgoing: usize,
    /// Messages of all connections that wait to be sent.
    pub outgoing_in_all: usize,
    /// Requests that the application has neither accepted nor rejected: with more, addresses take no messages.
    pub requests: usize,
    /// Events that the application has not fetched: with more, no block may be given. One block adds at most 255.
    pub events: usize,
    /// Bytes of the application's information in one confirmation or request.
    pub information: usize,
}

/// The longest body of a message, in bytes: what always fits.
pub const MAX_BODY: usize = 15_780;

/// The longest data of the application behind a short link, in bytes: what always fits.
pub const MAX_USER_DATA: usize = 13_600;

impl AgentConfig {
    /// The usual behaviour: all versions; delays of 2 s to 2 minutes, an hour for full queues.
    #[must_use]
    pub const fn new(provider: &'static dyn Provider) -> Self {
        Self {
            provider,
            agent_versions: VersionRange::between(Version(2), Version(7)),
            client_versions: VersionRange::between(Version(1), Version(4)),
            ratchet_versions: VersionRange::between(Version(2), Version(3)),
            fast_switch: false,
            first_delay: Duration::from_secs(2),
            longest_delay: Duration::from_secs(120),
            longest_full_delay: Duration::from_secs(3600),
            routing: Routing {
                mode: ProxyMode::Never,
                fallback: false,
                known: Vec::new(),
                proxies: Vec::new(),
                is_protected: false,
                isolation: Isolation::User,
                hold: Hold::Never,
            },
            limits: AgentLimits {
                connections: 100_000,
                outgoing: 256,
                outgoing_in_all: 4096,
                requests: 256,
                events: 256,
                information: 14_000,
            },
        }
    }

    /// The waits between attempts of which the longest is this.
    pub(super) const fn backoff(&self, longest: Duration) -> Backoff {
        Backoff { first: self.first_delay, longest }
    }
}

impl core::fmt::Debug for AgentConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("AgentConfig")
            .field("agent_versions", &self.agent_versions)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
