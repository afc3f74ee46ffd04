//! One TLS connection without IO, the same for both runtimes and for both sides.
//!
//! Owns: the order of things (handshake, then traffic, then closing) and the bytes in between.
//! Inputs: bytes from the network ([`TlsSession::read_tls`], [`TlsSession::feed`]) and blocks to send.
//! Outputs: [`TlsFacts`], plaintext, and bytes for the network ([`TlsSession::write_tls`]).
//! It must never: block, look at a clock (rustls does, for the dates of certificates), or hold buffers while idle.

use std::fmt;
use std::io::{self, Read, Write};

use rustls::AlertDescription;

use super::buffer::{Buffer, POOLED};
use super::configuration::{ApplicationProtocol, ClientTls, ServerTls};
use super::error::{Side, TlsError, TlsFailure};
use super::handshake::Handshake;
use super::record::{HEADER, MAX_PLAINTEXT, handshake_record_length};
use super::traffic::{Fatal, Received, Traffic};

/// The size of an SMP block in bytes, which is also the most plaintext of one TLS record.
pub const BLOCK: usize = MAX_PLAINTEXT;

/// The most bytes that may wait to be written, of which a driver should never see a fraction.
pub const MAX_OUTGOING: usize = 64 * (BLOCK + 22);

/// What the layers above have to know of a TLS connection.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// The client's `Finished.verify_data`, known to both ends and to nobody else (WIRE-FACTS 4.2).
    pub session_id: [u8; 32],
    /// The protocol that was agreed on with ALPN, if any. Without, the session speaks version 6 (WIRE-FACTS 4.1).
    pub protocol: Option<ApplicationProtocol>,
    /// The peer's certificates as DER, leaf first, verified. Empty when a client came without.
    pub peer_certificates: Vec<Vec<u8>>,
    /// On a client: the server asked for a certificate (WIRE-FACTS 4.5 lets it introduce a service only then).
    pub certificate_requested: bool,
}

impl fmt::Debug for TlsFacts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TlsFacts")
            .field("protocol", &self.protocol)
            .field("peer_certificates", &self.peer_certificates.len())
            .field("certificate_requested", &self.certificate_requested)
            .finish_non_exhaustive()
    }
}

enum State {
    Handshaking(Box<Handshake>),
    Established(Box<Traffic>),
    Failed,
}

/// Decrypted bytes at the front of the incoming buffer that nobody has taken yet: `start..end`, in a record of
/// `record` bytes.
#[derive(Clone, Copy, Default)]
struct Ready {
    start: usize,
    end: usize,
    record: usize,
}

/// One TLS connection, either side.
///
/// The loop of a driver, with `socket` in either mode of blocking:
///
/// ```no_run
/// # use std::{io, net::TcpStream};
/// # use smp_runtime_std::tls::{TlsError, TlsSession};
/// # fn run(mut session: TlsSession, mut socket: TcpStream) -> Result<(), Box<dyn std::error::Error>> {
/// loop {
///     while session.wants_write() {
///         session.write_tls(&mut socket)?;
///     }
///     if session.read_tls(&mut socket)? == 0 {
///         return Ok(session.end_of_stream()?);
///     }
///     // After an error there may still be an alert to write.
///     session.process()?;
///     if let Some(facts) = session.take_facts() {
///         // The handshake is complete: the SMP session can be made.
///         drop(facts);
///     }
///     while let Some(()) = session.read_block(|block: &mut [u8; 16384]| { /* to the SMP session */ })? {}
///     session.write_plaintext(&[0; 16384])?;
/// }
/// # }
/// ```
///
/// Reading is on demand: a record is decrypted only when its plaintext is asked for. So a driver holds a peer back by
/// not asking, and by not reading from the socket while [`Self::wants_read`] is false.
pub struct TlsSession {
    us: Side,
    state: State,
    incoming: Buffer,
    outgoing: Buffer,
    ready: Ready,
    block_in_pieces: Vec<u8>,
    facts: Option<Box<TlsFacts>>,
    peer_closed: bool,
    closed: bool,
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Handshaking(_) => "handshaking",
            State::Established(_) => "established",
            State::Failed => "failed",
        };
        formatter
            .debug_struct("TlsSession")
            .field("us", &self.us)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl TlsSession {
    /// The server's end of a connection that was accepted.
    ///
    /// # Errors
    /// [`TlsFailure::Internal`] only.
    pub fn server(configuration: &ServerTls) -> Result<Self, TlsError> {
        Ok(Self::new(Side::Server, Handshake::server(configuration)?, Buffer::default()))
    }

    /// The client's end of a connection that was dialled. Its first message is ready to be written.
    ///
    /// # Errors
    /// [`TlsFailure::Internal`] only.
    pub fn client(configuration: &ClientTls) -> Result<Self, TlsError> {
        let mut outgoing = Buffer::default();
        let handshake = Handshake::client(configuration, &mut outgoing)?;
        Ok(Self::new(Side::Client, handshake, outgoing))
    }

    fn new(us: Side, handshake: Handshake, outgoing: Buffer) -> Self {
        Self {
            us,
            state: State::Handshaking(Box::new(handshake)),
            incoming: Buffer::default(),
            outgoing,
            ready: Ready::default(),
            block_in_pieces: Vec::new(),
            facts: None,
            peer_closed: false,
            closed: false,
        }
    }

    /// Which end this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.us
    }

    /// Whether the handshake is still going on.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking(_))
    }

    /// What is known since the handshake is complete; `None` before, and after [`Self::take_facts`].
    #[must_use]
    pub fn facts(&self) -> Option<&TlsFacts> {
        self.facts.as_deref()
    }

    /// The same, once, for keeping: certificates take memory.
    #[must_use]
    pub fn take_facts(&mut self) -> Option<TlsFacts> {
        self.facts.take().map(|facts| *facts)
    }

    /// Whether there is room for more bytes from the network, and they could mean something.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        !self.peer_closed && !matches!(self.state, State::Failed) && self.incoming.len() < POOLED
    }

    /// Reads once from the network: how many bytes came, 0 at the end of the stream (see [`Self::end_of_stream`]).
    ///
    /// Two blocks' worth of memory is held while this runs. A driver with a thread for each connection waits for the
    /// first byte without it (`TcpStream::peek`) before it calls.
    ///
    /// # Errors
    /// Those of `source`; also when there is no room ([`Self::wants_read`]).
    pub fn read_tls(&mut self, source: &mut impl Read) -> io::Result<usize> {
        if !self.wants_read() {
            return Err(io::Error::other("no room for more: take plaintext first (TlsSession::wants_read)"));
        }
        let wanted = POOLED - self.incoming.len();
        let read = source.read(self.incoming.room(wanted));
        match read {
            Ok(count) if count > 0 => self.incoming.fill(count),
            // Also gives the memory back when nothing is in it.
            _ => self.rest(),
        }
        read
    }

    /// The same with bytes that were read already: how many were taken, fewer than given only if there is no room.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        if !self.wants_read() {
            return 0;
        }
        let count = bytes.len().min(POOLED - self.incoming.len());
        if let Some(bytes) = bytes.get(..count).filter(|bytes| !bytes.is_empty()) {
            self.incoming.extend(bytes);
        }
        count
    }

    /// Goes on with the handshake as far as what was received allows. After the handshake there is nothing to do.
    ///
    /// # Errors
    /// What ended the handshake. There may be an alert to write then.
    pub fn process(&mut self) -> Result<(), TlsError> {
        while let State::Handshaking(handshake) = &mut self.state {
            let Some(length) = handshake_record_length(self.incoming.filled()) else {
                self.rest();
                return Ok(());
            };
            let record = self.incoming.filled().get(..length).unwrap_or_default();
            let result = handshake.receive(record, &mut self.outgoing);
            self.incoming.consume(length);
            let complete = handshake.is_complete();
            match result {
                Err(error) => {
                    self.state = State::Failed;
                    return Err(error);
                }
                Ok(()) if complete => self.establish()?,
                Ok(()) => {}
            }
        }
        if matches!(self.state, State::Failed) { Err(self.error(TlsFailure::Closed)) } else { Ok(()) }
    }

    fn establish(&mut self) -> Result<(), TlsError> {
        if let State::Handshaking(handshake) = std::mem::replace(&mut self.state, State::Failed) {
            let (facts, traffic) = handshake.finish()?;
            self.facts = Some(Box::new(facts));
            self.state = State::Established(Box::new(traffic));
        }
        Ok(())
    }

    /// The plaintext that is there, to be read or decrypted further in its place; empty when more bytes from the
    /// network are needed. Say with [`Self::consume`] how much of it was used.
    ///
    /// # Errors
    /// What ended the connection. There may be an alert to write then.
    pub fn plaintext(&mut self) -> Result<&mut [u8], TlsError> {
        if self.ready.start == self.ready.end {
            self.decrypt()?;
        }
        Ok(self.incoming.filled_mut().get_mut(self.ready.start..self.ready.end).unwrap_or_default())
    }

    /// Takes `count` bytes off the front of [`Self::plaintext`].
    pub fn consume(&mut self, count: usize) {
        self.ready.start = self.ready.end.min(self.ready.start.saturating_add(count));
        if self.ready.start == self.ready.end {
            self.incoming.consume(self.ready.record);
            self.ready = Ready::default();
        }
    }

    /// Makes the next data ready, if a whole record of it is there.
    fn decrypt(&mut self) -> Result<(), TlsError> {
        if self.peer_closed {
            return Ok(());
        }
        let State::Established(traffic) = &mut self.state else {
            return if self.is_handshaking() { Ok(()) } else { Err(self.error(TlsFailure::Closed)) };
        };
        match traffic.receive(&mut self.incoming, &mut self.outgoing) {
            Ok(Received::Data { length, record }) => {
                self.ready = Ready { start: HEADER, end: HEADER + length, record };
            }
            Ok(Received::Incomplete) => self.rest(),
            Ok(Received::PeerClosed) => {
                self.peer_closed = true;
                self.incoming.consume(self.incoming.len());
            }
            Err(fatal) => return Err(self.fail(fatal)),
        }
        Ok(())
    }

    /// Copies plaintext to `output`: how many bytes, 0 when more bytes from the network are needed.
    ///
    /// # Errors
    /// Those of [`Self::plaintext`].
    pub fn read_plaintext(&mut self, output: &mut [u8]) -> Result<usize, TlsError> {
        let ready = self.plaintext()?;
        let count = ready.len().min(output.len());
        if let (Some(from), Some(to)) = (ready.get(..count), output.get_mut(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }

    /// Gives the next whole SMP block to `handle`, `None` when more bytes from the network are needed.
    ///
    /// Peers send a block as one record; then `handle` gets it where it was decrypted, without a copy.
    ///
    /// # Errors
    /// Those of [`Self::plaintext`].
    pub fn read_block<R>(
        &mut self,
        handle: impl FnOnce(&mut [u8; BLOCK]) -> R,
    ) -> Result<Option<R>, TlsError> {
        loop {
            let missing = BLOCK - self.block_in_pieces.len();
            let ready = self.plaintext()?;
            if ready.is_empty() {
                return Ok(None);
            }
            if missing == BLOCK
                && let Some(block) = ready.first_chunk_mut::<BLOCK>()
            {
                let result = handle(block);
                self.consume(BLOCK);
                return Ok(Some(result));
            }
            let count = ready.len().min(missing);
            let Ready { start, .. } = self.ready;
            let piece = self.incoming.filled().get(start..start + count).unwrap_or_default();
            self.block_in_pieces.extend_from_slice(piece);
            self.consume(count);
            if let Some(block) = self.block_in_pieces.first_chunk_mut::<BLOCK>() {
                let result = handle(block);
                self.block_in_pieces = Vec::new();
                return Ok(Some(result));
            }
        }
    }

    /// Encrypts `plaintext` for the peer. A block of [`BLOCK`] bytes becomes exactly one record, encrypted straight
    /// into the outgoing buffer.
    ///
    /// # Errors
    /// [`TlsFailure::HandshakeNotComplete`], [`TlsFailure::Closed`], [`TlsFailure::TooMuchOutgoing`]: nothing of
    /// `plaintext` is queued then.
    pub fn write_plaintext(&mut self, plaintext: &[u8]) -> Result<(), TlsError> {
        if self.closed {
            return Err(self.error(TlsFailure::Closed));
        }
        if self.outgoing.len().saturating_add(plaintext.len()) > MAX_OUTGOING {
            return Err(self.error(TlsFailure::TooMuchOutgoing));
        }
        let traffic = match &mut self.state {
            State::Established(traffic) => traffic,
            State::Handshaking(_) => return Err(self.error(TlsFailure::HandshakeNotComplete)),
            State::Failed => return Err(self.error(TlsFailure::Closed)),
        };
        for piece in plaintext.chunks(MAX_PLAINTEXT) {
            if let Err(fatal) = traffic.send_data(piece, &mut self.outgoing) {
                return Err(self.fail(fatal));
            }
        }
        Ok(())
    }

    /// Whether there are bytes for the network.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Bytes for the network, for drivers that do not have a [`Write`]; see [`Self::consume_outgoing`].
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        self.outgoing.filled()
    }

    /// Takes `count` bytes that were written off the front of [`Self::outgoing`].
    pub fn consume_outgoing(&mut self, count: usize) {
        self.outgoing.consume(count);
    }

    /// Writes once to the network: how many bytes went.
    ///
    /// # Errors
    /// Those of `sink`; nothing is lost then.
    pub fn write_tls(&mut self, sink: &mut impl Write) -> io::Result<usize> {
        let count = sink.write(self.outgoing.filled())?;
        self.outgoing.consume(count);
        Ok(count)
    }

    /// Says goodbye: nothing can be sent afterwards, and what is queued should still be written.
    pub fn close(&mut self) {
        if !self.closed
            && let State::Established(traffic) = &mut self.state
            && let Err(fatal) = traffic.send_alert(AlertDescription::CloseNotify, &mut self.outgoing)
        {
            self.fail(fatal);
        }
        self.closed = true;
    }

    /// Whether the peer has said goodbye: there will be no more plaintext.
    #[must_use]
    pub fn peer_has_closed(&self) -> bool {
        self.peer_closed
    }

    /// To be called when the stream has ended and all plaintext is taken.
    ///
    /// # Errors
    /// [`TlsFailure::Truncated`] unless the peer said goodbye before.
    pub fn end_of_stream(&self) -> Result<(), TlsError> {
        if self.peer_closed {
            return Ok(());
        }
        Err(self.error(TlsFailure::Truncated { during_handshake: self.is_handshaking() }))
    }

    /// Bytes of memory that buffers of this session hold now: 0 when idle.
    #[must_use]
    pub fn buffered_memory(&self) -> usize {
        self.incoming.capacity() + self.outgoing.capacity() + self.block_in_pieces.capacity()
    }

    /// Nothing to do until more arrives.
    fn rest(&mut self) {
        if self.incoming.is_empty() {
            self.incoming.consume(0);
        } else {
            self.incoming.shrink();
        }
    }

    fn error(&self, failure: TlsFailure) -> TlsError {
        TlsError::new(self.us, failure)
    }

    fn fail(&mut self, fatal: Fatal) -> TlsError {
        if let (State::Established(traffic), Some(alert), false) = (&mut self.state, fatal.alert, self.closed)
        {
            // The connection ends with the first reason, whether or not the peer can be told.
            let _ = traffic.send_alert(alert, &mut self.outgoing);
        }
        self.state = State::Failed;
        self.ready = Ready::default();
        self.incoming.consume(self.incoming.len());
        self.error(fatal.failure)
    }
}
