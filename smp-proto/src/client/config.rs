//! What a [`Client`](super::Client) is told once.

use alloc::sync::Arc;

use crate::backoff::Backoff;
use crate::session::client::ClientSessionConfig;
use crate::time::Duration;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The sessions: whose fingerprint, which versions.
    pub session: Arc<ClientSessionConfig>,
    /// How long a command may take, from its submission.
    pub command_timeout: Duration,
    /// After how much silence of the relay it is asked whether it is still there, while there are subscriptions.
    pub ping_interval: Duration,
    /// After how many unanswered pings in a row the connection is given up.
    pub pings_missed: u32,
    /// How long to wait before the second attempt to connect; each further wait is twice as long.
    pub first_delay: Duration,
    /// The longest wait before an attempt to connect.
    pub longest_delay: Duration,
    /// How much may be kept.
    pub limits: ClientLimits,
}

/// Bounds of everything that a client keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Commands that are waiting or on their way.
    pub commands: usize,
    /// Commands that are on their way at once.
    pub in_flight: usize,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Events that were not fetched: with more than these, no block may be given. One block adds at most 255; an event
    /// with a message keeps its block of 16 KB.
    pub events: usize,
}

impl ClientConfig {
    /// The usual behaviour: 15 s for a command, a ping after 10 minutes, 3 of them missed, delays of 2 s to 1 minute.
    #[must_use]
    pub fn new(session: ClientSessionConfig) -> Self {
        Self {
            session: Arc::new(session),
            command_timeout: Duration::from_secs(15),
            ping_interval: Duration::from_secs(600),
            pings_missed: 3,
            first_delay: Duration::from_secs(2),
            longest_delay: Duration::from_secs(60),
            limits: ClientLimits { commands: 1024, in_flight: 512, subscriptions: 100_000, events: 256 },
        }
    }

    /// The waits between attempts to connect.
    pub(super) const fn backoff(&self) -> Backoff {
        Backoff { first: self.first_delay, longest: self.longest_delay }
    }
}
