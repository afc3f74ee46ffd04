//! Reaching a relay: from an address to a socket, and from TLS to the facts that a session wants.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use smp_proto::session::facts::{Protocol, SessionId, TransportFacts};
use smp_proto::wire::address::{Host, ServerAddress};

use crate::certificates::Fingerprint;
use crate::tls::{ApplicationProtocol, TlsFacts};

/// Why a relay cannot be reached.
#[derive(Debug)]
pub enum DialError {
    /// The address can only be reached through Tor, which this runtime does not speak.
    OnlyOnion,
    /// Nobody can have the address's fingerprint, or its port is none.
    Address,
    /// The name is not known, or the name service does not answer.
    Name {
        /// The name.
        host: String,
        /// What the system says.
        error: io::Error,
    },
    /// The last of the hosts that were tried.
    Connect {
        /// Where.
        to: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

impl fmt::Display for DialError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnlyOnion => formatter.write_str(
                "the relay has only an onion address, and connecting through Tor is not supported",
            ),
            Self::Address => {
                formatter.write_str("the fingerprint or the port of the relay's address is impossible")
            }
            Self::Name { host, error } => write!(formatter, "the name {host} cannot be looked up: {error}"),
            Self::Connect { to, error } => write!(formatter, "cannot connect to {to}: {error}"),
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Name { error, .. } | Self::Connect { error, .. } => Some(error),
            Self::OnlyOnion | Self::Address => None,
        }
    }
}

/// The fingerprint in an address.
///
/// # Errors
/// [`DialError::Address`] when it does not have 32 bytes.
pub fn fingerprint(address: &ServerAddress) -> Result<Fingerprint, DialError> {
    address.fingerprint.as_slice().try_into().map(Fingerprint).map_err(|_| DialError::Address)
}

/// Where the hosts of an address are, in its order. Onion names are left out.
///
/// # Errors
/// When there is nothing to connect to: [`DialError::OnlyOnion`], [`DialError::Name`], [`DialError::Address`].
pub fn resolve(address: &ServerAddress) -> Result<Vec<SocketAddr>, DialError> {
    let port = address.port_number().ok_or(DialError::Address)?;
    let mut found = Vec::new();
    let mut failed = DialError::OnlyOnion;
    for host in &address.hosts {
        match host {
            Host::Ip(ip) => found.push(SocketAddr::new(IpAddr::clone(ip), port)),
            Host::Domain(name) => match (name.as_str(), port).to_socket_addrs() {
                Ok(addresses) => found.extend(addresses),
                Err(error) => failed = DialError::Name { host: name.clone(), error },
            },
            Host::Onion(_) => {}
        }
    }
    if found.is_empty() { Err(failed) } else { Ok(found) }
}

/// Connects to the first of `addresses` that answers, within `timeout` for all of them.
///
/// # Errors
/// [`DialError::Connect`] of the last one that was tried.
pub fn connect(addresses: &[SocketAddr], timeout: Duration) -> Result<TcpStream, DialError> {
    let until = Instant::now() + timeout;
    let mut failed = DialError::Address;
    for &to in addresses {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(DialError::Connect { to, error: io::ErrorKind::TimedOut.into() });
        }
        match TcpStream::connect_timeout(&to, left).and_then(|socket| {
            // Blocks are whole messages: waiting for more to send would only delay them.
            socket.set_nodelay(true)?;
            Ok(socket)
        }) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = DialError::Connect { to, error },
        }
    }
    Err(failed)
}

/// What a session wants to know of a TLS connection; `None` only for a session id that TLS cannot have.
#[must_use]
pub fn transport_facts(facts: TlsFacts) -> Option<TransportFacts> {
    Some(TransportFacts {
        session_id: SessionId::new(&facts.session_id)?,
        protocol: Protocol::of(facts.protocol.map(ApplicationProtocol::name)),
        peer_chain: facts.peer_certificates,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn address(hosts: &str) -> ServerAddress {
        format!("smp://{}@{hosts}", Fingerprint([1; 32])).parse().unwrap()
    }

    #[test]
    fn hosts_are_found_in_their_order_with_the_default_port() {
        let found = resolve(&address("127.0.0.2,abc.onion,127.0.0.1")).unwrap();
        assert_eq!(found, ["127.0.0.2:5223".parse().unwrap(), "127.0.0.1:5223".parse().unwrap()]);
        assert_eq!(resolve(&address("127.0.0.1:1")).unwrap(), ["127.0.0.1:1".parse().unwrap()]);
        assert!(matches!(resolve(&address("abc.onion")), Err(DialError::OnlyOnion)));
    }

    #[test]
    fn the_second_host_is_tried_when_the_first_does_not_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        // A port that was free a moment ago, on an address that nobody listens on.
        let bad = SocketAddr::new("127.0.0.9".parse().unwrap(), good.port());
        assert_eq!(connect(&[bad, good], Duration::from_secs(20)).unwrap().peer_addr().unwrap(), good);
        assert!(matches!(connect(&[bad], Duration::from_secs(20)), Err(DialError::Connect { .. })));
    }
}
