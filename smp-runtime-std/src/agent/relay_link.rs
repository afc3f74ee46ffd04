//! An agent's connection to one relay: the socket and its TLS, without the machine that speaks over it.
//!
//! Owns: one attempt at a time to connect, in a thread of its own since names are looked up and hosts tried one after the
//! other; then the socket, which never blocks, and the TLS session. It knows no blocks but as 16,384 bytes, and never
//! decides to connect again.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Waker;
use std::time::Duration;

use bytes::BytesMut;
use smp_proto::client::ClosedBecause;
use smp_proto::session::{Protocol, TransportFacts};
use smp_proto::time::Instant;
use smp_proto::wire::address::ServerAddress;

use crate::client::ClientError;
use crate::dialing::{connect, fingerprint, resolve, transport_facts};
use crate::tls::{ApplicationProtocol, BLOCK, ClientTls, ClientTlsOptions, TlsSession};

/// Encrypted bytes that are prepared before the socket has taken any: two blocks.
const WRITE_AHEAD: usize = 2 * BLOCK;

/// Names an attempt to connect: an answer to one that was given up means nothing.
pub(super) type Attempt = u64;

/// What became of an attempt.
pub(super) type Dialled = (Attempt, Result<TcpStream, ClientError>);

enum State {
    Dialling(Attempt),
    Handshaking { socket: TcpStream, tls: Box<TlsSession>, until: Instant },
    Open { socket: TcpStream, tls: Box<TlsSession> },
}

/// One relay's connection, from the wish to have it to its end.
pub(super) struct RelayLink {
    pub(super) address: ServerAddress,
    /// What is to be spoken.
    pub(super) protocol: Protocol,
    state: State,
    /// Whether the machine may have blocks that were not fetched.
    pub(super) has_blocks: bool,
}

impl RelayLink {
    /// Begins to connect.
    pub(super) fn dial(
        (address, protocol): (ServerAddress, Protocol),
        attempt: Attempt,
        timeout: Duration,
        answers: Sender<Dialled>,
        bell: Waker,
    ) -> Result<Self, ClientError> {
        let to = address.clone();
        std::thread::Builder::new()
            .name("dialling".to_owned())
            .spawn(move || {
                let connected = || -> Result<TcpStream, ClientError> {
                    let socket = connect(&resolve(&to)?, timeout)?;
                    socket.set_nonblocking(true).map_err(lost)?;
                    Ok(socket)
                };
                // An agent that is gone does not want it any more.
                if answers.send((attempt, connected())).is_ok() {
                    bell.wake();
                }
            })
            .map_err(ClientError::system)?;
        Ok(Self { address, protocol, state: State::Dialling(attempt), has_blocks: false })
    }

    /// Whether this attempt is the one that is waited for.
    pub(super) fn waits_for(&self, attempt: Attempt) -> bool {
        matches!(self.state, State::Dialling(waited) if waited == attempt)
    }

    /// The socket is connected: begins the handshake.
    pub(super) fn connected(&mut self, socket: TcpStream, until: Instant) -> Result<(), ClientError> {
        let offered = match self.protocol {
            Protocol::FirstStep => Some(ApplicationProtocol::SmpProxy1),
            Protocol::Smp => Some(ApplicationProtocol::Smp1),
            Protocol::OldSmp => None,
        };
        let options = ClientTlsOptions { protocol: offered, ..ClientTlsOptions::default() };
        let configuration = ClientTls::with_options(fingerprint(&self.address)?, &options)?;
        let tls = Box::new(TlsSession::client(&configuration)?);
        self.state = State::Handshaking { socket, tls, until };
        Ok(())
    }

    /// When the handshake is given up.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Handshaking { until, .. } => Some(*until),
            State::Dialling(_) | State::Open { .. } => None,
        }
    }

    fn parts(&mut self) -> Option<(&mut TcpStream, &mut TlsSession)> {
        match &mut self.state {
            State::Handshaking { socket, tls, .. } | State::Open { socket, tls } => Some((socket, tls)),
            State::Dialling(_) => None,
        }
    }

    /// The socket, and whether it is to be read and written.
    pub(super) fn socket(&self) -> Option<(&TcpStream, bool, bool)> {
        match &self.state {
            State::Handshaking { socket, tls, .. } | State::Open { socket, tls } => {
                Some((socket, tls.wants_read(), tls.wants_write()))
            }
            State::Dialling(_) => None,
        }
    }

    /// Whether there is room for another block on its way out.
    pub(super) fn has_room(&self) -> bool {
        matches!(&self.state, State::Open { tls, .. } if tls.outgoing().len() < WRITE_AHEAD)
    }

    /// Encrypts a block for the relay.
    pub(super) fn send(&mut self, block: &[u8]) -> Result<(), ClientError> {
        match self.parts() {
            Some((_, tls)) => Ok(tls.write_plaintext(block)?),
            None => Err(ClientError::NotSent),
        }
    }

    /// Reads what is there.
    pub(super) fn read(&mut self) -> Result<(), ClientError> {
        let Some((socket, tls)) = self.parts() else { return Ok(()) };
        match tls.read_tls(socket) {
            Ok(0) => Err(match tls.end_of_stream() {
                Ok(()) => ClientError::Closed(ClosedBecause::ConnectionLost),
                Err(error) => error.into(),
            }),
            Ok(_) => Ok(()),
            Err(error) => passing(error),
        }
    }

    /// Writes what the socket takes.
    pub(super) fn write(&mut self) -> Result<(), ClientError> {
        let Some((socket, tls)) = self.parts() else { return Ok(()) };
        while tls.wants_write() {
            match tls.write_tls(socket) {
                Ok(0) => return Err(lost(std::io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => passing(error)?,
            }
        }
        Ok(())
    }

    /// Goes on with the handshake: the facts when it is done, once.
    pub(super) fn handshake(&mut self) -> Result<Option<TransportFacts>, ClientError> {
        let State::Handshaking { tls, .. } = &mut self.state else { return Ok(None) };
        tls.process()?;
        let Some(facts) = tls.take_facts() else { return Ok(None) };
        let facts = transport_facts(facts).ok_or(ClientError::Unexpected)?;
        // The attempt of a link that is replaced here is over: nothing waits for it.
        if let State::Handshaking { socket, tls, .. } =
            std::mem::replace(&mut self.state, State::Dialling(Attempt::MAX))
        {
            self.state = State::Open { socket, tls };
        }
        Ok(Some(facts))
    }

    /// The next block that came whole.
    pub(super) fn block(&mut self) -> Result<Option<BytesMut>, ClientError> {
        match &mut self.state {
            State::Open { tls, .. } => Ok(tls.read_block(|block| BytesMut::from(block.as_slice()))?),
            _ => Ok(None),
        }
    }

    /// Says goodbye, as far as the socket takes it at once.
    pub(super) fn close(&mut self) {
        if let Some((_, tls)) = self.parts() {
            tls.close();
        }
        // The connection is given up: whether the relay hears of it changes nothing.
        let _ = self.write();
    }
}

fn lost(error: std::io::Error) -> ClientError {
    ClientError::Lost(Arc::new(error))
}

/// An error of a socket that is none.
fn passing(error: std::io::Error) -> Result<(), ClientError> {
    match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => Ok(()),
        _ => Err(lost(error)),
    }
}
