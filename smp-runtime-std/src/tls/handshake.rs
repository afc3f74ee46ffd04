//! The TLS handshake: rustls, driven record by record until both ends have verified each other's `Finished`.
//!
//! Owns: the rustls connection, the recorder of the session id, and bytes that rustls wants to see again.
//! Each call gives rustls exactly one record. So the moment at which the handshake is complete is also a boundary
//! between records, and everything after it belongs to [`super::traffic`].
//! It must never: call rustls without the recorder, or hand out the session id before the handshake is complete.

use rustls::client::ClientConnectionData;
use rustls::client::UnbufferedClientConnection;
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error};

use super::buffer::Buffer;
use super::configuration::{ApplicationProtocol, ClientTls, ServerTls};
use super::error::{Side, TlsError, TlsFailure};
use super::provider::Recorder;
use super::session::TlsFacts;
use super::traffic::{KeySchedule, Traffic};

/// The most bytes of incomplete handshake messages kept, far above what four certificates take.
const MAX_UNREAD: usize = 32 * 1024;

enum Connection {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl Connection {
    fn common(&self) -> &CommonState {
        match self {
            Self::Server(connection) => connection,
            Self::Client(connection) => connection,
        }
    }
}

/// A handshake in progress.
pub(super) struct Handshake {
    us: Side,
    connection: Connection,
    recorder: Recorder,
    unread: Vec<u8>,
}

/// What a step of rustls asks for.
enum Step {
    Again,
    NeedsInput,
    PeerClosed,
}

impl Handshake {
    pub(super) fn server(configuration: &ServerTls) -> Result<Self, TlsError> {
        let connection = UnbufferedServerConnection::new(configuration.rustls())
            .map_err(|error| TlsError::internal(Side::Server, error))?;
        Ok(Self {
            us: Side::Server,
            connection: Connection::Server(connection),
            recorder: Recorder::default(),
            unread: Vec::new(),
        })
    }

    /// The client speaks first: its hello is in `outgoing` afterwards.
    pub(super) fn client(configuration: &ClientTls, outgoing: &mut Buffer) -> Result<Self, TlsError> {
        let mut recorder = Recorder::default();
        let connection = recorder
            .during(|| UnbufferedClientConnection::new(configuration.rustls(), ClientTls::unused_name()))
            .map_err(|error| TlsError::internal(Side::Client, error))?;
        let mut handshake = Self {
            us: Side::Client,
            connection: Connection::Client(connection),
            recorder,
            unread: Vec::new(),
        };
        handshake.receive(&[], outgoing)?;
        Ok(handshake)
    }

    /// Takes one whole record, and puts what answers it into `outgoing`: an alert, when this fails.
    pub(super) fn receive(&mut self, record: &[u8], outgoing: &mut Buffer) -> Result<(), TlsError> {
        self.unread.extend_from_slice(record);
        loop {
            match self.step(outgoing) {
                Ok(Step::Again) => {}
                Ok(Step::NeedsInput) => break,
                Ok(Step::PeerClosed) => {
                    return Err(TlsError::new(self.us, TlsFailure::Truncated { during_handshake: true }));
                }
                Err(error) => {
                    // rustls has an alert for the peer. It must look at what is unread no more, nor may that change.
                    while self.connection.common().wants_write()
                        && matches!(self.step(outgoing), Ok(Step::Again))
                    {}
                    return Err(TlsError::from_rustls(self.us, &error, self.recorder.chain_error.take()));
                }
            }
        }
        if self.unread.len() > MAX_UNREAD {
            let rule = format!("handshake messages of more than {MAX_UNREAD} bytes");
            return Err(TlsError::new(self.us, TlsFailure::Misbehaved { rule }));
        }
        Ok(())
    }

    fn step(&mut self, outgoing: &mut Buffer) -> Result<Step, Error> {
        let Self { connection, recorder, unread, .. } = self;
        let (discard, step) = recorder.during(|| match connection {
            Connection::Server(connection) => handle(connection.process_tls_records(unread), outgoing),
            Connection::Client(connection) => handle(connection.process_tls_records(unread), outgoing),
        });
        unread.drain(..discard.min(unread.len()));
        step
    }

    /// Whether both ends have verified each other.
    pub(super) fn is_complete(&self) -> bool {
        !self.connection.common().is_handshaking()
    }

    /// Lets go of everything that only the handshake needed. To be called when [`Self::is_complete`].
    pub(super) fn finish(mut self) -> Result<(TlsFacts, Traffic), TlsError> {
        let us = self.us;
        if !self.unread.is_empty() {
            let rule = "a handshake message across a change of keys".into();
            return Err(TlsError::new(us, TlsFailure::Misbehaved { rule }));
        }
        let common = self.connection.common();
        let session_id = match self.recorder.client_finished() {
            Some(session_id) if self.is_complete() => session_id,
            _ => return Err(TlsError::internal(us, "the session id was not recorded")),
        };
        let facts = TlsFacts {
            session_id,
            protocol: common.alpn_protocol().and_then(ApplicationProtocol::from_name),
            peer_certificates: common
                .peer_certificates()
                .unwrap_or_default()
                .iter()
                .map(|certificate| certificate.as_ref().to_vec())
                .collect(),
            certificate_requested: self.recorder.certificate_requested,
        };
        let recorder = &mut self.recorder;
        let (secrets, keys): (_, Box<dyn KeySchedule>) = match self.connection {
            Connection::Server(connection) => {
                let (secrets, kernel) = recorder
                    .during(|| connection.dangerous_into_kernel_connection())
                    .map_err(|error| TlsError::internal(us, error))?;
                (secrets, Box::<KernelConnection<ServerConnectionData>>::new(kernel))
            }
            Connection::Client(connection) => {
                let (secrets, kernel) = recorder
                    .during(|| connection.dangerous_into_kernel_connection())
                    .map_err(|error| TlsError::internal(us, error))?;
                (secrets, Box::<KernelConnection<ClientConnectionData>>::new(kernel))
            }
        };
        let traffic = Traffic::new(us, secrets, keys)
            .map_err(|_| TlsError::internal(us, "keys of an unknown cipher"))?;
        Ok((facts, traffic))
    }
}

/// Does what one status of rustls asks for; says how much of the input is used up.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Buffer,
) -> (usize, Result<Step, Error>) {
    let step = status.state.and_then(|state| match state {
        ConnectionState::EncodeTlsData(mut message) => {
            let size = match message.encode(&mut []) {
                Err(EncodeError::InsufficientSize(size)) => size.required_size,
                Ok(_) => 0,
                Err(error) => return Err(Error::General(error.to_string())),
            };
            if size > 0 {
                let written =
                    message.encode(outgoing.room(size)).map_err(|error| Error::General(error.to_string()))?;
                outgoing.fill(written);
            }
            Ok(Step::Again)
        }
        ConnectionState::TransmitTlsData(transmission) => {
            transmission.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Step::NeedsInput),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::PeerClosed),
        other => Err(Error::General(format!("unexpected state of the handshake: {other:?}"))),
    });
    (status.discard, step)
}
