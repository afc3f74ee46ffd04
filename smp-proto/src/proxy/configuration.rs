//! What an operator decides about a relay as a proxy.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::crypto::Provider;
use crate::session::client::ClientSessionConfig;
use crate::time::Duration;
use crate::wire::address::{Host, ServerAddress};
use crate::wire::version::{Version, VersionRange};

/// The rules of one proxy.
#[derive(Clone)]
pub struct ProxyConfig {
    /// The primitives.
    pub provider: &'static dyn Provider,
    /// The versions that clients may use with destinations, as far as these speak them.
    pub versions: VersionRange,
    /// How long reaching a destination may take: name, connection, TLS and handshake.
    pub connect_time_limit: Duration,
    /// How long a destination may take to answer one forwarded command.
    pub command_time_limit: Duration,
    /// How long a destination that could not be reached is not tried again. Deployed relays: 30 s.
    pub failure_memory: Duration,
    /// After how long without a command a connection is closed.
    pub idle_after: Duration,
    /// After how many commands in a row without an answer in time a connection is given up.
    pub unanswered: u32,
    /// The domains of the operator's own relays: only counted apart (`own_server_domains`).
    pub own_domains: Vec<String>,
    /// Bounds of everything that grows.
    pub limits: ProxyLimits,
}

/// Bounds of everything that grows with what clients want forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyLimits {
    /// Destinations at once: connected, being dialled, or remembered as failed.
    pub destinations: usize,
    /// Destinations that are dialled at once.
    pub dials: usize,
    /// Destinations that are dialled at once for one client: who asks for many dead ones waits for himself.
    pub dials_per_client: usize,
    /// Clients that wait for one destination to be reached.
    pub waiting_clients: usize,
    /// Commands on their way to one destination. The destination's own limit is the better one.
    pub in_flight: usize,
    /// Commands that wait or are on their way to one destination, each of 16 KB until it has left.
    pub commands_per_destination: usize,
    /// Commands that wait or are on their way in all.
    pub commands: usize,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            destinations: 10_000,
            dials: 256,
            dials_per_client: 4,
            waiting_clients: 10_000,
            in_flight: 256,
            commands_per_destination: 2048,
            commands: 16_384,
        }
    }
}

impl ProxyConfig {
    /// The usual rules.
    #[must_use]
    pub fn new(provider: &'static dyn Provider) -> Self {
        Self {
            provider,
            versions: VersionRange::between(Version::PROXY, ClientSessionConfig::SPOKEN.max()),
            connect_time_limit: Duration::from_secs(30),
            command_time_limit: Duration::from_secs(30),
            failure_memory: Duration::from_secs(30),
            idle_after: Duration::from_secs(1800),
            unanswered: 3,
            own_domains: Vec::new(),
            limits: ProxyLimits::default(),
        }
    }

    /// How sessions with the destination of this fingerprint are made.
    #[must_use]
    pub fn session(&self, fingerprint: &[u8]) -> Arc<ClientSessionConfig> {
        Arc::new(ClientSessionConfig {
            proxy: true,
            handshake_time_limit: self.connect_time_limit,
            // A proxy authorizes nothing itself.
            remembered_authenticators: 0,
            ..ClientSessionConfig::new(fingerprint.to_vec(), self.provider)
        })
    }

    /// Whether a relay is one of the operator's own.
    #[must_use]
    pub fn is_own(&self, address: &ServerAddress) -> bool {
        address.hosts.iter().any(|host| match host {
            Host::Domain(name) | Host::Onion(name) => self.own_domains.iter().any(|own| {
                name.strip_suffix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Host::Ip(_) => false,
        })
    }
}

impl core::fmt::Debug for ProxyConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("ProxyConfig")
            .field("versions", &self.versions)
            .field("connect_time_limit", &self.connect_time_limit)
            .field("command_time_limit", &self.command_time_limit)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
