//! One connection of the load: a socket that does not block, TLS, and the client's session, without a machine on top.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use smp_proto::crypto::provider::Provider;
use smp_proto::entropy::Entropy;
use smp_proto::session::client::{ClientSession, ClientSessionConfig, CommandWriter, Received};
use smp_proto::time::Now;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::response::{CreatedQueue, Response};
use smp_proto::wire::version::{Version, VersionRange};
use smp_proto::wire::{CorrelationId, EntityId};
use smp_runtime_std::dialing;
use smp_runtime_std::tls::{ClientTls, TlsSession};

use crate::connecting::{Address, failure_of_dialing, failure_of_tls};
use crate::failure::{Failure, Kind};

/// The relay that is loaded, and how to connect to it.
pub(super) struct Target {
    addresses: Vec<SocketAddr>,
    tls: ClientTls,
    session: Arc<ClientSessionConfig>,
    pub(super) password: Option<Vec<u8>>,
    pub(super) timeout: Duration,
    pub(super) provider: &'static dyn Provider,
}

impl Target {
    pub(super) fn new(
        address: &Address,
        newest: Option<u16>,
        timeout: Duration,
        provider: &'static dyn Provider,
    ) -> Result<Self, Failure> {
        let fingerprint =
            dialing::fingerprint(&address.server).map_err(|error| failure_of_dialing(&error))?;
        let mut session = ClientSessionConfig::new(fingerprint.0.to_vec(), provider);
        if let Some(newest) = newest {
            session.versions = VersionRange::new(session.versions.min(), Version(newest))
                .filter(|range| range.max() <= session.versions.max())
                .ok_or_else(|| {
                    let spoken = session.versions;
                    Failure::new(Kind::Usage, format!("version {newest} of SMP is not known here"))
                        .advise(format!("it can be {} to {}", spoken.min().0, spoken.max().0))
                })?;
        }
        // A connection may be the sender of very many queues.
        session.remembered_authenticators = 4096;
        session.handshake_time_limit = timeout;
        Ok(Self {
            addresses: dialing::resolve(&address.server).map_err(|error| failure_of_dialing(&error))?,
            tls: ClientTls::new(fingerprint).map_err(|error| failure_of_tls(&error))?,
            session: Arc::new(session),
            password: address.password.clone(),
            timeout,
            provider,
        })
    }
}

/// What a relay said, as far as the load cares.
#[derive(Debug)]
pub(super) enum Heard {
    Ok,
    Created(Box<CreatedQueue>),
    /// A message: its id, and its ciphertext if it was asked for.
    Message([u8; 24], Option<Vec<u8>>),
    Pong,
    End,
    /// The relay has closed the connection, which was asked of it.
    Closed,
    Error(SmpError),
    Other,
}

/// One thing that was heard.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) correlation: CorrelationId,
    pub(super) entity: EntityId,
    pub(super) heard: Heard,
}

impl Event {
    fn closed() -> Self {
        Self { correlation: CorrelationId::EMPTY, entity: EntityId::EMPTY, heard: Heard::Closed }
    }
}

/// One connection.
pub(super) struct Link {
    socket: TcpStream,
    tls: TlsSession,
    session: Option<ClientSession>,
    /// Messages since a ciphertext was last kept.
    unseen: u32,
    /// Whether we have said that nothing more will come.
    is_leaving: bool,
}

/// Of how many messages one is opened and compared with what was sent.
const SAMPLED: u32 = 16;

impl Link {
    /// Connects; the handshakes follow with [`Self::receive`].
    pub(super) fn dial(target: &Target) -> Result<Self, Failure> {
        let socket = dialing::connect(&target.addresses, target.timeout)
            .map_err(|error| failure_of_dialing(&error))?;
        socket.set_nonblocking(true).map_err(lost)?;
        let tls = TlsSession::client(&target.tls).map_err(|error| failure_of_tls(&error))?;
        let mut link = Self { socket, tls, session: None, unseen: 0, is_leaving: false };
        link.flush()?;
        Ok(link)
    }

    /// The version, once commands can be sent.
    pub(super) fn version(&self) -> Option<Version> {
        self.session.as_ref().and_then(ClientSession::version)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(lost(ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
        Ok(())
    }

    /// Says that nothing more will come. When the relay has read all that came before, it closes the connection.
    pub(super) fn leave(&mut self) -> Result<(), Failure> {
        self.is_leaving = true;
        self.tls.close();
        self.flush()
    }

    /// Sends one block with the commands that `fill` adds, if any.
    pub(super) fn send(
        &mut self,
        now: Now,
        fill: impl FnOnce(&mut CommandWriter<'_>),
    ) -> Result<(), Failure> {
        let unready =
            || Failure::new(Kind::Unexpected, "a command was to be sent before the handshake was over");
        let mut block = [0; BLOCK_LENGTH];
        let sealed = self.session.as_mut().ok_or_else(unready)?.seal(&mut block, now, fill);
        if sealed.map_err(|_| unready())? {
            self.tls.write_plaintext(&block).map_err(|error| failure_of_tls(&error))?;
            self.flush()?;
        }
        Ok(())
    }

    /// Reads what has come, and appends what was heard to `events`.
    pub(super) fn receive(
        &mut self,
        target: &Target,
        now: Now,
        entropy: &mut impl Entropy,
        events: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) if self.is_leaving => {
                    events.push(Event::closed());
                    return Ok(());
                }
                Ok(0) => {
                    self.tls.end_of_stream().map_err(|error| failure_of_tls(&error))?;
                    return Err(lost(ErrorKind::ConnectionAborted.into()));
                }
                Ok(_) => {
                    self.process(target, now, entropy, events)?;
                    if self.is_leaving && self.tls.peer_has_closed() {
                        events.push(Event::closed());
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(error)),
            }
        }
    }

    fn process(
        &mut self,
        target: &Target,
        now: Now,
        entropy: &mut impl Entropy,
        events: &mut Vec<Event>,
    ) -> Result<(), Failure> {
        self.tls.process().map_err(|error| failure_of_tls(&error))?;
        if let Some(facts) = self.tls.take_facts() {
            let facts = dialing::transport_facts(facts)
                .ok_or_else(|| Failure::new(Kind::Unexpected, "the TLS connection has no session id"))?;
            self.session = Some(ClientSession::new(&target.session, facts, now, entropy));
        }
        let Some(session) = &mut self.session else { return self.flush() };
        while let Some(block) = self
            .tls
            .read_block(|block| BytesMut::from(block.as_slice()))
            .map_err(|error| failure_of_tls(&error))?
        {
            let received = session.receive(block, now).map_err(|error| {
                Failure::new(Kind::Identity, format!("the relay's session cannot go on: {error}"))
            })?;
            match received {
                Received::Established(_) => {
                    if let Some(hello) = session.take_handshake_block() {
                        self.tls.write_plaintext(&hello).map_err(|error| failure_of_tls(&error))?;
                    }
                }
                Received::Responses(block) => {
                    for response in session.responses(&block) {
                        events.push(hear(response, &mut self.unseen));
                    }
                }
            }
        }
        self.flush()
    }
}

type Spoken<'a> = Result<
    smp_proto::wire::transmission::Transmission<'a, Response<'a>>,
    smp_proto::wire::transmission::Malformed,
>;

fn hear(response: Spoken<'_>, unseen: &mut u32) -> Event {
    let response = match response {
        Ok(response) => response,
        Err(malformed) => {
            let heard = Heard::Error(malformed.error);
            return Event { correlation: malformed.correlation, entity: malformed.entity, heard };
        }
    };
    let heard = match response.content {
        Response::Ok | Response::Subscribed { .. } => Heard::Ok,
        Response::Created(ids) => Heard::Created(Box::new(ids)),
        Response::Message { id, body } => {
            *unseen += 1;
            let kept = (*unseen >= SAMPLED).then(|| {
                *unseen = 0;
                body.to_vec()
            });
            match id.as_full() {
                Some(id) => Heard::Message(*id, kept),
                None => Heard::Other,
            }
        }
        Response::Pong => Heard::Pong,
        Response::End | Response::Deleted => Heard::End,
        Response::Error(error) => Heard::Error(error),
        _ => Heard::Other,
    };
    Event { correlation: response.correlation, entity: response.entity, heard }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn lost(error: std::io::Error) -> Failure {
    Failure::new(Kind::Network, format!("the connection to the relay was lost: {error}"))
        .advise("the relay may limit connections or commands; its log may say why")
}
