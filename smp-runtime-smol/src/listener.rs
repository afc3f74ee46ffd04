//! Listening sockets: binding them with the options that a relay needs, and the errors that an operator can act on.
//!
//! Owns: addresses and sockets until a connection is accepted. It never looks at what clients send.

use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the system holds before they are accepted.
const BACKLOG: i32 = 4096;

/// A bound address could not be had. Prints as one line with cause and way out.
#[derive(Debug)]
pub struct ListenError {
    address: SocketAddr,
    cause: std::io::Error,
}

impl core::fmt::Display for ListenError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { address, cause } = self;
        write!(formatter, "cannot listen on {address}: {cause}: ")?;
        formatter.write_str(match cause.kind() {
            std::io::ErrorKind::AddrInUse => {
                "another program uses this port; stop it, or set another one in [TRANSPORT] port"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "this machine does not have this address; correct [TRANSPORT] listen"
            }
            std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege; set another one in [TRANSPORT] port, or give the program CAP_NET_BIND_SERVICE"
            }
            _ => "correct [TRANSPORT] listen and port",
        })
    }
}

impl core::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Sockets that listen on every combination of address and port, and do not block.
///
/// `::` listens for IPv6 only, so that `0.0.0.0` can have the same port. With `tolerate_missing_family` an address of a
/// family that the machine does not have is left out, as long as one is left: for defaults that suit most machines.
/// A port 0 is the same free port on all addresses where that is possible.
///
/// # Errors
/// [`ListenError`] for the first socket that cannot be had.
pub fn listen(
    addresses: &[IpAddr],
    ports: &[u16],
    tolerate_missing_family: bool,
) -> Result<Vec<TcpListener>, ListenError> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    for port in ports {
        let mut port = *port;
        let chosen_by_system = port == 0;
        for address in addresses {
            let socket = match bind(SocketAddr::new(*address, port)) {
                // A port that was free on the first address may be taken on the next one.
                Err(error) if chosen_by_system && error.cause.kind() == std::io::ErrorKind::AddrInUse => {
                    bind(SocketAddr::new(*address, 0))
                }
                other => other,
            };
            match socket {
                Ok(listener) => {
                    if chosen_by_system && let Ok(bound) = listener.local_addr() {
                        port = bound.port();
                    }
                    listeners.push(listener);
                }
                Err(error) if tolerate_missing_family && error.is_missing_family() => missing = Some(error),
                Err(error) => return Err(error),
            }
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

impl ListenError {
    /// Whether the machine has no such address family at all.
    fn is_missing_family(&self) -> bool {
        self.address.is_ipv6()
            && (self.cause.kind() == std::io::ErrorKind::AddrNotAvailable
                || self.cause.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()))
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // A relay that restarts may listen again while old connections linger; it does not share a port with another.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from(socket))
    };
    open().map_err(|cause| ListenError { address, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_a_way_out() {
        let loopback = [IpAddr::from([127, 0, 0, 1])];
        let taken = listen(&loopback, &[0], false).expect("loopback has free ports");
        let address = taken[0].local_addr().expect("a bound socket has an address");
        let error = listen(&loopback, &[address.port()], false).expect_err("the port is taken").to_string();
        assert!(error.contains(&address.to_string()) && error.contains("[TRANSPORT] port"), "{error}");
    }

    #[test]
    fn several_ports_on_several_addresses() {
        let addresses = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2])];
        let listeners = listen(&addresses, &[0, 0], false).expect("loopback has free ports");
        let mut bound: Vec<_> = listeners.iter().map(|socket| socket.local_addr().expect("bound")).collect();
        bound.sort_unstable();
        bound.dedup();
        assert_eq!(bound.len(), 4);
    }

    #[test]
    fn both_families_share_a_port() {
        let addresses = ["::1".parse().expect("an address"), IpAddr::from([127, 0, 0, 1])];
        // A machine without IPv6 has one listener.
        let listeners = listen(&addresses, &[0], true).expect("loopback has free ports");
        for listener in &listeners {
            let address = listener.local_addr().expect("bound");
            std::net::TcpStream::connect(address).expect("it listens");
        }
        assert!(!listeners.is_empty());
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = listen(&["192.0.2.1".parse().expect("an address")], &[0], false).expect_err("not ours");
        assert!(error.to_string().contains("[TRANSPORT] listen"), "{error}");
    }
}
