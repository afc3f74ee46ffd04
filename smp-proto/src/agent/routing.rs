//! Which way commands take to the relays of other people: straight, or through a relay of one's own (WIRE-FACTS 10).
//!
//! Owns: what was chosen ([`Routing`]), and for each destination the proxy that is used now and its session there. It lies
//! below connections: they give out the same commands whichever way those take, and hear the same answers; only
//! [`Event::Sent`](super::Event::Sent) tells which way it was. It must never take the straight way where that is forbidden,
//! or use a destination as a proxy to itself.
//!
//! A proxy is used over a connection of its own: not over the one on which the same relay delivers our messages, so that
//! it cannot take the two for one person's.
//!
//! ```text
//!   command ─▶ straight? ──yes──▶ the destination's client
//!                 │ no
//!                 ▼
//!   choose a proxy ─▶ PRXY ─▶ session ─▶ PFWD ─▶ answer
//!                       │                  │
//!                       │ refused          │ no session: ask again, nothing was done
//!                       ▼                  ▼ the proxy cannot reach it
//!            straight if that is allowed; else an event, and later again through another proxy
//! ```

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::machine::{RelayId, TaskId};
use crate::client::{ClientCommand, CommandFailure, ProxiedRelay};
use crate::entropy::Entropy;
use crate::wire::address::{AddressWithPassword, Host, ServerAddress};
use crate::wire::error::{BrokerError, NetworkError, ProxyError, SmpError};
use crate::wire::first_step::Hold;

/// When commands go through a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyMode {
    /// Always.
    Always,
    /// To relays that are not [known](Routing::known): those that others have chosen.
    UnknownRelays,
    /// To relays that are not known, unless the network hides who we are, or the relay is reached by its onion name.
    UnknownWhenUnprotected,
    /// Never.
    #[default]
    Never,
}

/// Who shares a session with a relay, or with a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All connections of the user: one session with each relay, which sees that they are one user's.
    #[default]
    User,
    /// Nobody: each connection has sessions of its own, at the price of as many TLS connections.
    Connection,
}

/// Which way commands take.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// When they go through a proxy.
    pub mode: ProxyMode,
    /// Whether they go straight when no proxy can be used. The destination then sees our address.
    pub fallback: bool,
    /// Relays that may see our address: our own.
    pub known: Vec<ServerAddress>,
    /// Relays that are used as proxies, one at random for each destination.
    pub proxies: Vec<AddressWithPassword>,
    /// Whether the driver reaches relays in a way that hides our address: through Tor, say.
    pub is_protected: bool,
    /// Who shares sessions. [`set_routing`](super::Agent::set_routing) changes it only before the agent has begun to speak to
    /// relays; otherwise it is as it was until the next start.
    pub isolation: Isolation,
    /// For how long a proxy may hold messages for relays that it cannot reach: the `holding` file of this room. What can be
    /// held is held, also when it might go straight: the proxy's trouble is no reason to be seen.
    pub hold: Hold,
}

/// Numbers of proxies begin here: a proxy is not the relay at the same address.
const PROXIES: u32 = 1 << 31;

/// The number of the proxy at this place of an agent's list.
pub(super) fn proxy_id(index: usize) -> Option<RelayId> {
    u32::try_from(index).ok().filter(|index| *index < PROXIES).map(|index| RelayId(index | PROXIES))
}

/// The place of a proxy in that list; `None` for relays that are none.
pub(super) fn proxy_index(id: RelayId) -> Option<usize> {
    id.0.checked_sub(PROXIES).and_then(|index| usize::try_from(index).ok())
}

/// How commands reach one destination.
pub(super) struct Route {
    /// Through which relay.
    pub(super) proxy: RelayId,
    /// The proxy's session there.
    pub(super) session: Option<Arc<ProxiedRelay>>,
    /// Whether it was asked for.
    pub(super) is_asking: bool,
    /// Commands that wait for it.
    pub(super) waiting: VecDeque<(TaskId, ClientCommand)>,
}

/// Numbers of the connections over which proxies hold messages begin here.
const HOLDERS: u32 = 1 << 30;

/// The number of the holder with this ordinal.
pub(super) const fn holder_id(ordinal: u32) -> RelayId {
    RelayId(HOLDERS | (ordinal % HOLDERS))
}

/// Whether a number is a holder's.
pub(super) const fn is_holder(id: RelayId) -> bool {
    id.0 & (HOLDERS | PROXIES) == HOLDERS
}

/// What is to be done with a command.
pub(super) enum Way<'a> {
    Straight,
    Proxy(&'a AddressWithPassword),
    /// Straight is forbidden, and there is no proxy.
    None,
}

/// What a proxy's refusal means.
pub(super) enum Meaning {
    /// The session is over, and nothing was done.
    AskAgain,
    /// Nothing was done.
    NotDone,
    /// It may have been done.
    Unknown,
}

impl Routing {
    /// Whether a destination may see our address anyhow.
    fn is_straight(&self, destination: &ServerAddress) -> bool {
        let is_known = || self.known.contains(destination);
        match self.mode {
            ProxyMode::Always => false,
            ProxyMode::UnknownRelays => is_known(),
            ProxyMode::UnknownWhenUnprotected => {
                is_known()
                    || self.is_protected
                    || destination.hosts.iter().any(|host| matches!(host, Host::Onion(_)))
            }
            ProxyMode::Never => true,
        }
    }

    /// Which way a command takes.
    pub(super) fn way(
        &self,
        command: &ClientCommand,
        destination: &ServerAddress,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Way<'_> {
        if !command.as_command().may_be_forwarded() || self.is_straight(destination) {
            return Way::Straight;
        }
        let is_other = |proxy: &&AddressWithPassword| proxy.address.fingerprint != destination.fingerprint;
        let others: Vec<_> = self.proxies.iter().filter(is_other).collect();
        let mut random = [0; 8];
        entropy.fill_public(&mut random);
        let chosen = u64::from_be_bytes(random).checked_rem(others.len() as u64);
        match chosen.and_then(|index| others.get(usize::try_from(index).ok()?)) {
            Some(proxy) => Way::Proxy(proxy),
            None if self.fallback => Way::Straight,
            None => Way::None,
        }
    }
}

/// What it means that a proxy did not bring an answer.
pub(super) const fn meaning(failure: &CommandFailure) -> Meaning {
    match failure {
        CommandFailure::NotForwarded(SmpError::Proxy(ProxyError::NoSession)) => Meaning::AskAgain,
        CommandFailure::NotForwarded(SmpError::Proxy(
            ProxyError::Broker(
                BrokerError::Timeout
                | BrokerError::Response(_)
                | BrokerError::Unexpected(_)
                | BrokerError::Network(NetworkError::Timeout | NetworkError::Failed),
            )
            | ProxyError::Protocol(_),
        ))
        | CommandFailure::OutcomeUnknown => Meaning::Unknown,
        _ => Meaning::NotDone,
    }
}

/// Whether it means that the proxy cannot reach the destination now, and may later.
pub(super) const fn is_out_of_reach(failure: &CommandFailure) -> bool {
    matches!(
        failure,
        CommandFailure::NotForwarded(SmpError::Proxy(ProxyError::Broker(
            BrokerError::Timeout
                | BrokerError::Network(
                    NetworkError::Connect(_) | NetworkError::Failed | NetworkError::Timeout
                )
        )))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;
    use alloc::vec;
    use bytes::Bytes;

    fn relay(byte: u8, host: &str) -> ServerAddress {
        ServerAddress { fingerprint: vec![byte; 32], ..alloc::format!("smp://AAAA@{host}").parse().unwrap() }
    }

    fn proxy(byte: u8) -> AddressWithPassword {
        AddressWithPassword { address: relay(byte, "proxy.example.org"), password: None }
    }

    fn send() -> ClientCommand {
        let body = crate::client::CommandBody::Send { notification: false, body: Bytes::new() };
        ClientCommand::new(crate::wire::EntityId::EMPTY, None, body)
    }

    fn goes(routing: &Routing, command: &ClientCommand, to: &ServerAddress) -> Option<Option<u8>> {
        match routing.way(command, to, &mut SeededEntropy::new([3; 32])) {
            Way::Straight => Some(None),
            Way::Proxy(proxy) => Some(Some(proxy.address.fingerprint[0])),
            Way::None => None,
        }
    }

    #[test]
    fn the_mode_decides_and_nobody_is_a_proxy_to_itself() {
        let (own, other, onion) = (relay(1, "a.example.org"), relay(2, "b.example.org"), relay(3, "c.onion"));
        let base = Routing { known: vec![own.clone()], proxies: vec![proxy(1)], ..Routing::default() };
        let with = |mode| Routing { mode, ..base.clone() };
        let unprotected = with(ProxyMode::UnknownWhenUnprotected);
        let protected = Routing { is_protected: true, ..unprotected.clone() };
        for (routing, to, expected) in [
            (with(ProxyMode::Never), &other, Some(None)),
            (with(ProxyMode::Always), &other, Some(Some(1))),
            (with(ProxyMode::Always), &own, None),
            (Routing { fallback: true, ..with(ProxyMode::Always) }, &own, Some(None)),
            (with(ProxyMode::UnknownRelays), &own, Some(None)),
            (with(ProxyMode::UnknownRelays), &other, Some(Some(1))),
            (unprotected.clone(), &other, Some(Some(1))),
            (unprotected.clone(), &onion, Some(None)),
            (protected, &other, Some(None)),
        ] {
            assert_eq!(goes(&routing, &send(), to), expected, "{routing:?} {to:?}");
        }
        // What is for a queue of our own goes where the queue is.
        assert_eq!(goes(&with(ProxyMode::Always), &ClientCommand::ping(), &other), Some(None));
        let several = Routing { proxies: vec![proxy(2), proxy(4), proxy(2)], ..with(ProxyMode::Always) };
        assert_eq!(goes(&several, &send(), &other), Some(Some(4)));
    }
}
