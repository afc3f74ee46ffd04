//! Connecting through a SOCKS5 proxy (RFC 1928), without authentication, by name: the proxy resolves it, never this
//! machine. For onion hosts through Tor, and for relays that reach everything that way.
//!
//! Owns nothing. Blocks, within a limit of time for everything together.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use smp_proto::wire::address::Host;

/// Why there is no connection through the proxy.
#[derive(Debug)]
pub enum SocksError {
    /// The proxy itself cannot be reached, or the connection to it broke.
    Proxy(io::Error),
    /// What answers does not speak SOCKS5, or wants a password.
    NotSocks,
    /// The host's name is too long for SOCKS5: 255 bytes at most.
    Name,
    /// The proxy could not connect: its reply code, from 1 (RFC 1928, section 6).
    Refused(u8),
}

impl fmt::Display for SocksError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(error) => write!(formatter, "the SOCKS proxy cannot be used: {error}"),
            Self::NotSocks => {
                formatter.write_str("what answers is not a SOCKS5 proxy without password: check its address")
            }
            Self::Name => formatter.write_str("the name of the host is longer than SOCKS5 allows"),
            Self::Refused(code) => {
                let why = match code {
                    1 => "general failure",
                    2 => "not allowed by its rules",
                    3 => "network unreachable",
                    4 => "host unreachable",
                    5 => "connection refused",
                    6 => "time is over",
                    _ => "unknown reason",
                };
                write!(formatter, "the SOCKS proxy could not connect: {why} ({code})")
            }
        }
    }
}

impl std::error::Error for SocksError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Proxy(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for SocksError {
    fn from(error: io::Error) -> Self {
        Self::Proxy(error)
    }
}

/// A connection to `host`, through the proxy that listens on `proxy`.
///
/// # Errors
/// [`SocksError`].
pub fn connect(
    proxy: SocketAddr,
    host: &Host,
    port: u16,
    timeout: Duration,
) -> Result<TcpStream, SocksError> {
    let until = Instant::now() + timeout;
    let mut request = vec![5, 1, 0];
    match host {
        Host::Ip(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend_from_slice(&ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend_from_slice(&ip.octets());
        }
        Host::Domain(name) | Host::Onion(name) => {
            request.extend_from_slice(&[3, u8::try_from(name.len()).map_err(|_| SocksError::Name)?]);
            request.extend_from_slice(name.as_bytes());
        }
    }
    request.extend_from_slice(&port.to_be_bytes());

    let socket = TcpStream::connect_timeout(&proxy, timeout)?;
    socket.set_nodelay(true)?;
    let mut channel = Channel { socket: &socket, until };
    channel.send(&[5, 1, 0])?;
    if channel.receive::<2>()? != [5, 0] {
        return Err(SocksError::NotSocks);
    }
    channel.send(&request)?;
    let [version, code, _, kind] = channel.receive::<4>()?;
    match (version, code) {
        (5, 0) => {}
        (5, code) => return Err(SocksError::Refused(code)),
        _ => return Err(SocksError::NotSocks),
    }
    // Where the proxy connected from: of no interest, but it is in the way.
    let rest = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(channel.receive::<1>()?[0]),
        _ => return Err(SocksError::NotSocks),
    };
    for _ in 0..rest + 2 {
        channel.receive::<1>()?;
    }
    socket.set_read_timeout(None)?;
    socket.set_write_timeout(None)?;
    Ok(socket)
}

/// The socket, with one limit of time for all that is said.
struct Channel<'s> {
    socket: &'s TcpStream,
    until: Instant,
}

impl Channel<'_> {
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.set_write_timeout(Some(self.left()?))?;
        self.socket.write_all(bytes)
    }

    fn receive<const LENGTH: usize>(&mut self) -> io::Result<[u8; LENGTH]> {
        let mut bytes = [0; LENGTH];
        self.socket.set_read_timeout(Some(self.left()?))?;
        self.socket.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A proxy that reads so many bytes after the greeting, and answers this.
    fn proxy(
        greeting: &'static [u8],
        reads: usize,
        answer: &'static [u8],
    ) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut hello = [0; 3];
            socket.read_exact(&mut hello).unwrap();
            assert_eq!(hello, [5, 1, 0]);
            socket.write_all(greeting).unwrap();
            let mut request = vec![0; reads];
            socket.read_exact(&mut request).unwrap();
            socket.write_all(answer).unwrap();
            request
        });
        (address, thread)
    }

    #[test]
    fn names_are_left_to_the_proxy_and_what_follows_is_the_hosts() {
        let onion: Host = "abcdef.onion".parse().unwrap();
        let (address, thread) = proxy(&[5, 0], 19, &[5, 0, 0, 1, 9, 9, 9, 9, 1, 2, b'h', b'i']);
        let mut socket = connect(address, &onion, 5223, PATIENCE).unwrap();
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"hi");
        let expected = [&[5, 1, 0, 3, 12][..], b"abcdef.onion", &5223_u16.to_be_bytes()].concat();
        assert_eq!(thread.join().unwrap(), expected);

        let ip: Host = "[2001:db8::1]".parse().unwrap();
        let (address, thread) = proxy(&[5, 0], 22, &[5, 0, 0, 3, 2, b'a', b'b', 1, 2]);
        connect(address, &ip, 443, PATIENCE).unwrap();
        assert_eq!(thread.join().unwrap()[..6], [5, 1, 0, 4, 0x20, 0x01]);
    }

    #[test]
    fn refusals_and_strangers_are_told_apart() {
        let host: Host = "192.0.2.1".parse().unwrap();
        let (address, thread) = proxy(&[5, 0], 10, &[5, 5, 0, 1]);
        assert!(matches!(connect(address, &host, 1, PATIENCE), Err(SocksError::Refused(5))));
        thread.join().unwrap();
        let (address, thread) = proxy(&[5, 255], 0, &[]);
        assert!(matches!(connect(address, &host, 1, PATIENCE), Err(SocksError::NotSocks)));
        thread.join().unwrap();
        let (address, thread) = proxy(&[5, 0], 10, &[5]);
        assert!(matches!(connect(address, &host, 1, PATIENCE), Err(SocksError::Proxy(_))));
        thread.join().unwrap();
    }
}
