//! Reaching a destination, for a relay that is a proxy or a first-step relay: which host, which address, directly or through SOCKS.
//!
//! Owns the rules of the operator, and one dial until it is over. Clients choose what is dialled: every address that a
//! name resolves to is checked, and the checked address is the one that is connected to, so a name that changes in
//! between leads nowhere else. Onion names are never given to the system's resolver.

use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use smp_proto::proxy::DialFailure;
use smp_proto::proxy::hosts::{HostPolicy, Way};
use smp_proto::server::Link;
use smp_proto::wire::address::{Host, ServerAddress};

use super::Relay;
use super::link::RelayLink;
use super::wakeup::Wakeup;
use crate::socks::{self, SocksError};

/// How destinations are reached.
#[derive(Clone, Debug)]
pub(super) struct Reaching {
    pub(super) policy: HostPolicy,
    /// The SOCKS proxy, host and port as text: it is looked up for each dial.
    pub(super) socks: Option<String>,
    pub(super) timeout: Duration,
}

/// A destination that is to be dialled. When it is dropped without a connection, it has failed.
#[derive(Debug)]
pub struct RelayDial {
    relay: Weak<Relay>,
    pub(super) link: Link,
    pub(super) bell: Arc<Wakeup>,
    pub(super) address: Box<ServerAddress>,
    reaching: Arc<Reaching>,
    over: bool,
}

impl RelayDial {
    pub(super) fn new(
        relay: &Arc<Relay>,
        link: Link,
        bell: Arc<Wakeup>,
        address: Box<ServerAddress>,
        reaching: &Arc<Reaching>,
    ) -> Self {
        let (relay, reaching) = (Arc::downgrade(relay), Arc::clone(reaching));
        Self { relay, link, bell, address, reaching, over: false }
    }

    /// Connects. Blocks, for as long as the operator allows, and as long as the system takes to look up names.
    ///
    /// # Errors
    /// [`DialFailure`]: to be given to [`Self::failed`].
    pub fn reach(&self) -> Result<TcpStream, DialFailure> {
        self.reaching.reach(&self.address)
    }

    /// There is a connection: what is to be driven over it. `None` when the relay has stopped.
    #[must_use]
    pub fn connected(mut self) -> Option<RelayLink> {
        let relay = self.relay.upgrade()?;
        let link = RelayLink::start(relay, &self)?;
        self.over = true;
        Some(link)
    }

    /// There is no connection.
    pub fn failed(mut self, failure: DialFailure) {
        self.end(failure);
    }

    fn end(&mut self, failure: DialFailure) {
        if !std::mem::replace(&mut self.over, true)
            && let Some(relay) = self.relay.upgrade()
        {
            let now = relay.clock().now();
            relay.entropy().with(|entropy| relay.held().dial_failed(self.link, failure, now, entropy));
        }
    }
}

impl Drop for RelayDial {
    fn drop(&mut self) {
        self.end(DialFailure::Network);
    }
}

impl Reaching {
    fn reach(&self, address: &ServerAddress) -> Result<TcpStream, DialFailure> {
        let port = address.port_number().ok_or(DialFailure::Host)?;
        let until = Instant::now() + self.timeout;
        let mut failure = DialFailure::Host;
        for way in self.policy.ways(address) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DialFailure::Timeout);
            }
            let reached = match way {
                Way::Direct(host) => self.connect(host, port, until),
                Way::Socks(host) => self.connect_through_socks(host, port, left),
            };
            match reached {
                Ok(socket) => return Ok(socket),
                // That a host may not be used says less than that another one does not answer.
                Err(DialFailure::Host) => {}
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    /// The addresses of a host that may be connected to.
    fn resolve(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, DialFailure> {
        let found: Vec<SocketAddr> = match host {
            Host::Ip(ip) => vec![SocketAddr::new(IpAddr::clone(ip), port)],
            Host::Domain(name) => {
                (name.as_str(), port).to_socket_addrs().map_err(|_| DialFailure::Network)?.collect()
            }
            Host::Onion(_) => Vec::new(),
        };
        let allowed: Vec<_> = found.into_iter().filter(|one| self.policy.may_dial(one.ip())).collect();
        if allowed.is_empty() { Err(DialFailure::Host) } else { Ok(allowed) }
    }

    fn connect(&self, host: &Host, port: u16, until: Instant) -> Result<TcpStream, DialFailure> {
        let mut failure = DialFailure::Network;
        for address in self.resolve(host, port)? {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(DialFailure::Timeout);
            }
            match TcpStream::connect_timeout(&address, left) {
                // Blocks are whole messages: waiting for more to send would only delay them.
                Ok(socket) => match socket.set_nodelay(true) {
                    Ok(()) => return Ok(socket),
                    Err(_) => failure = DialFailure::Network,
                },
                Err(error) => failure = failure_of(&error),
            }
        }
        Err(failure)
    }

    fn connect_through_socks(
        &self,
        host: &Host,
        port: u16,
        timeout: Duration,
    ) -> Result<TcpStream, DialFailure> {
        // The operator's own proxy may be anywhere, this machine included.
        let proxy = self.socks.as_ref().ok_or(DialFailure::Host)?;
        let proxy = proxy.to_socket_addrs().ok().and_then(|mut found| found.next());
        let proxy = proxy.ok_or(DialFailure::Network)?;
        socks::connect(proxy, host, port, timeout).map_err(|error| match error {
            SocksError::Proxy(error) => failure_of(&error),
            SocksError::Refused(6) => DialFailure::Timeout,
            SocksError::Name => DialFailure::Host,
            SocksError::NotSocks | SocksError::Refused(_) => DialFailure::Network,
        })
    }
}

fn failure_of(error: &std::io::Error) -> DialFailure {
    match error.kind() {
        // A time limit of a socket shows as either.
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => DialFailure::Timeout,
        _ => DialFailure::Network,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use smp_proto::proxy::hosts::{HostMode, SocksMode};
    use std::net::TcpListener;

    fn reaching(policy: HostPolicy) -> Reaching {
        Reaching { policy, socks: None, timeout: Duration::from_secs(20) }
    }

    fn address(authority: &str) -> ServerAddress {
        format!("smp://AAAA@{authority}").parse().unwrap()
    }

    #[test]
    fn private_destinations_are_refused_by_address_and_by_name() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let refused = reaching(HostPolicy::default());
        let allowed = reaching(HostPolicy { allow_private: true, ..HostPolicy::default() });
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let address = address(&format!("{host}:{port}"));
            assert_eq!(refused.reach(&address).unwrap_err(), DialFailure::Host, "{host}");
        }
        let local = address(&format!("127.0.0.1:{port}"));
        assert_eq!(allowed.reach(&local).unwrap().peer_addr().unwrap().port(), port);
        // Nobody listens on this address, where the port is free.
        let dead = address(&format!("127.0.0.9:{port}"));
        assert_eq!(allowed.reach(&dead).unwrap_err(), DialFailure::Network);
        // The second host is tried.
        let both = address(&format!("127.0.0.9,127.0.0.1:{port}"));
        assert!(allowed.reach(&both).is_ok());
    }

    #[test]
    fn onion_names_are_for_socks_only() {
        let onion = address("abcdef.onion");
        assert_eq!(reaching(HostPolicy::default()).reach(&onion).unwrap_err(), DialFailure::Host);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut policy =
            HostPolicy { socks: SocksMode::Onion, mode: HostMode::Onion, ..HostPolicy::default() };
        policy.required = true;
        let mut reaching = reaching(policy);
        reaching.socks = Some(listener.local_addr().unwrap().to_string());
        let proxy = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut socket, _) = listener.accept().unwrap();
            socket.read_exact(&mut [0; 3]).unwrap();
            socket.write_all(&[5, 0]).unwrap();
            let mut request = [0; 19];
            socket.read_exact(&mut request).unwrap();
            socket.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
            request
        });
        assert!(reaching.reach(&onion).is_ok());
        assert_eq!(&proxy.join().unwrap()[5..17], b"abcdef.onion");
    }
}
