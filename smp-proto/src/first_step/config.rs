//! How a first-step relay behaves, and how much it keeps.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::time::Duration;
use crate::wire::address::{Host, ServerAddress};

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
            answer_timeout: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            keep_answers: Duration::from_secs(21 * 86_400),
            limits: FirstStepLimits {
                clients: 100_000,
                registrations: 64,
                held_by_client: 256,
                held_for_destination: 100_000,
                held: 1_000_000,
                immediate: 32,
                outstanding: 32,
            },
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
            && (self.private_destinations || !address.hosts.iter().any(is_private))
    }

    /// The wait after `failures` in a row, shortened at random to between half and all of it.
    pub(super) fn delay(&self, failures: u32, entropy: &mut (impl Entropy + ?Sized)) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let doubled = self.first_delay.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
        let most = doubled.min(self.longest_delay);
        let mut random = [0; 2];
        entropy.fill_public(&mut random);
        most / 2 + most / 2 * u32::from(u16::from_be_bytes(random)) / 65_535
    }
}

impl core::fmt::Debug for FirstStepConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("FirstStepConfig").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// Whether a host is in a network of its own: loopback, private, link-local, or none at all.
fn is_private(host: &Host) -> bool {
    use core::net::IpAddr::{V4, V6};
    match host {
        Host::Ip(V4(ip)) => {
            let [first, second, ..] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
                || first == 0
                // Carrier-grade address translation, RFC 6598.
                || (first == 100 && second & 0xc0 == 64)
        }
        Host::Ip(V6(ip)) => match ip.to_ipv4_mapped() {
            Some(ip) => is_private(&Host::Ip(V4(ip))),
            None => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local()
            }
        },
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost"),
        Host::Onion(_) => false,
    }
}
