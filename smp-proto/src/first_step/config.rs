//! How a first-step relay behaves, and how much it keeps.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::backoff::Backoff;
use crate::proxy::hosts;
use crate::time::Duration;
use crate::wire::address::ServerAddress;

/// How a first-step relay behaves.
#[derive(Clone)]
pub struct FirstStepConfig {
    /// What clients have to show to register a destination.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// Whether destinations may be in private networks or on this machine: a relay must not be a way into its own network.
    pub private_destinations: bool,
    /// The wait before a destination is dialled again, or a command tried again; each further wait is twice as long.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
    /// How long reaching a destination may take, handshakes included.
    pub connect_timeout: Duration,
    /// The wait before a destination that does not speak `smp-proxy/1` is dialled again.
    pub unspoken_delay: Duration,
    /// How long anything is held at most, whatever the client wants, after the time that it is scheduled for.
    pub longest_hold: Duration,
    /// How long a destination may take for an answer.
    pub answer_timeout: Duration,
    /// After how long without work the connection to a destination is closed.
    pub idle: Duration,
    /// For how long answers wait to be acknowledged.
    pub keep_answers: Duration,
    /// How much may be kept.
    pub limits: FirstStepLimits,
}

/// Bounds of everything that a first-step relay keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstStepLimits {
    /// Clients, by their tokens.
    pub clients: usize,
    /// Destinations at once: those of the clients, and those that could not be reached lately; while there are fewer than
    /// half as many, also those that are only remembered for their keys.
    pub destinations: usize,
    /// Destinations that are dialled at once.
    pub dials: usize,
    /// Destinations that are dialled at once for one connection, and for one client that is not connected: who asks for many
    /// dead ones waits for himself.
    pub dials_per_client: usize,
    /// Destinations that a connection may register.
    pub registrations: usize,
    /// Commands and answers of one client, at 16 KB each in storage.
    pub held_by_client: usize,
    /// Commands for one destination.
    pub held_for_destination: usize,
    /// Commands and answers of all clients.
    pub held: usize,
    /// Commands of one connection that are not to be held, at 16 KB each in memory.
    pub immediate: usize,
    /// Commands of all connections that are not to be held.
    pub immediate_in_all: usize,
    /// What was asked on one connection and is not stored, or not said, yet: no further block is taken.
    pub unanswered: usize,
    /// Commands that a destination has not answered.
    pub outstanding: usize,
}

impl Default for FirstStepConfig {
    fn default() -> Self {
        Self {
            password: None,
            private_destinations: false,
            first_delay: Duration::from_secs(2),
            longest_delay: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(30),
            unspoken_delay: Duration::from_secs(3600),
            longest_hold: Duration::from_secs(21 * 86_400),
            answer_timeout: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            keep_answers: Duration::from_secs(21 * 86_400),
            limits: FirstStepLimits::default(),
        }
    }
}

impl Default for FirstStepLimits {
    fn default() -> Self {
        Self {
            clients: 100_000,
            destinations: 10_000,
            dials: 256,
            dials_per_client: 4,
            registrations: 64,
            held_by_client: 256,
            held_for_destination: 100_000,
            held: 1_000_000,
            immediate: 32,
            immediate_in_all: 16_384,
            unanswered: 32,
            outstanding: 32,
        }
    }
}

impl FirstStepConfig {
    /// Whether commands may be forwarded to this address, as far as it can be told without looking up its names: that the
    /// driver does, and refuses what leads into a private network.
    #[must_use]
    pub fn accepts(&self, address: &ServerAddress) -> bool {
        address.port_number().is_some()
            && address.fingerprint.len() == 32
            && (self.private_destinations || address.hosts.iter().all(hosts::may_be_public))
    }

    /// The waits between attempts.
    pub(super) const fn backoff(&self) -> Backoff {
        Backoff { first: self.first_delay, longest: self.longest_delay }
    }
}

impl core::fmt::Debug for FirstStepConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("FirstStepConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}
