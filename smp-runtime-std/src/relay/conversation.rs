//! The SMP side of one connection of a relay: the session, and its dealings with the broker.
//!
//! Owns: the session, and what the broker has handed out and the session has not packed yet. The broker is held twice
//! for each chunk of commands, and once for each wake-up; cryptography happens in between.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use smp_proto::broker::{Broker, ConnectionId};
use smp_proto::session::outgoing::Outgoing;
use smp_proto::session::server::{Received, RequestChunk, ServerSession};
use smp_proto::session::{SessionError, TransportFacts, VerifiedChunk};

use super::Relay;
use super::connection::End;
use super::wakeup::Wakeup;
use crate::tls::{BLOCK, TlsSession};

thread_local! {
    /// Where blocks are packed before TLS encrypts them: one for a thread rather than one for each connection.
    static PACKED: RefCell<Box<[u8; BLOCK]>> = RefCell::new(Box::new([0; BLOCK]));
}

/// A session on a connection whose TLS handshake is finished.
pub(super) struct Conversation {
    session: ServerSession,
    /// The broker's name for the connection, once the session is established.
    connection: Option<ConnectionId>,
    /// What the broker handed out.
    outgoing: VecDeque<Outgoing>,
    /// Whether the broker may have more to hand out.
    ready: bool,
    /// Whether another block may be taken: its answers will find room.
    room: bool,
    /// Whether the connection is to be closed when everything is said.
    finishing: bool,
}

impl Conversation {
    /// Makes the session and queues its hello.
    pub(super) fn start(relay: &Relay, facts: TransportFacts, tls: &mut TlsSession) -> Result<Self, End> {
        let now = relay.clock().now();
        let mut session = relay
            .entropy()
            .with(|entropy| ServerSession::new(relay.sessions(), facts, now, entropy))
            .map_err(|_| End::Protocol)?;
        let hello = session.take_handshake_block().ok_or(End::Protocol)?;
        tls.write_plaintext(&hello).map_err(|_| End::Tls)?;
        Ok(Self {
            session,
            connection: None,
            outgoing: VecDeque::new(),
            ready: false,
            room: true,
            finishing: false,
        })
    }

    /// Takes the client's hello if it is there: true when the session is established.
    pub(super) fn shake_hands(
        &mut self,
        relay: &Relay,
        tls: &mut TlsSession,
        bell: &Arc<Wakeup>,
    ) -> Result<bool, End> {
        let Some(block) = next_block(tls)? else { return Ok(false) };
        match self.session.receive(block, relay.clock().now()) {
            Ok(Received::Established(_)) => {
                self.connection = Some(relay.held().connect(bell, relay.clock().now()).ok_or(End::Full)?);
                Ok(true)
            }
            Ok(Received::Service(claim)) => {
                let now = relay.clock().now();
                let connection = relay.held().connect(bell, now).ok_or(End::Full)?;
                self.connection = Some(connection);
                self.ready = true;
                relay.entropy().with(|entropy| {
                    relay.held().hold(Some(connection), |broker| {
                        broker.identify_service(connection, &claim, now, entropy);
                    });
                });
                Ok(true)
            }
            Ok(Received::Commands(_)) | Err(SessionError::Misuse(_)) => Err(End::Protocol),
            Err(SessionError::Close(_)) => {
                // A client that asked to be a service is told why not.
                if let Some(refusal) = self.session.take_handshake_block() {
                    tls.write_plaintext(&refusal).map_err(|_| End::Tls)?;
                }
                Err(End::Protocol)
            }
        }
    }

    /// Handles every block of commands that was received, as long as there is room for the answers.
    pub(super) fn handle_blocks(&mut self, relay: &Relay, tls: &mut TlsSession) -> Result<(), End> {
        while self.room && self.outgoing.is_empty() {
            let Some(block) = next_block(tls)? else { return Ok(()) };
            self.handle_block(relay, block, tls.outgoing().is_empty())?;
        }
        Ok(())
    }

    fn handle_block(&mut self, relay: &Relay, block: BytesMut, can_send: bool) -> Result<(), End> {
        let Some(connection) = self.connection else { return Err(End::Protocol) };
        let now = relay.clock().now();
        let opened = match self.session.receive(block, now) {
            Ok(Received::Commands(opened)) => opened,
            Ok(Received::Established(_) | Received::Service(_)) | Err(_) => return Err(End::Protocol),
        };
        // Chunk by chunk: what one changes (a queue is secured), the next one sees.
        let mut requests = self.session.parse(&opened);
        let (mut chunk, mut verified) = (RequestChunk::new(), VerifiedChunk::new());
        while requests.next_chunk_into(&mut chunk) {
            relay.held().look(|broker| {
                for request in &mut chunk {
                    broker.look_up(request);
                }
            });
            relay.entropy().with(|entropy| {
                self.session.verify_into(&mut chunk, entropy, &mut verified);
                let mut forwarded = Vec::new();
                relay.held().hold(Some(connection), |broker| {
                    for command in verified.drain(..) {
                        match command.into_forwarded() {
                            Err(command) => broker.execute(connection, command, &opened, now, entropy),
                            Ok(command) => forwarded.push(command),
                        }
                    }
                    self.after_execution(broker, connection, can_send);
                });
                // What proxies forward is a command inside a command: it goes the same way once more.
                for command in &forwarded {
                    let mut request = self.session.forwarded_request(command);
                    relay.held().look(|broker| broker.look_up(&mut request));
                    let Some(verified) = self.session.verify_forwarded(request, command, entropy) else {
                        continue;
                    };
                    relay.held().hold(Some(connection), |broker| {
                        broker.execute(connection, verified, command.block(), now, entropy);
                        self.after_execution(broker, connection, can_send);
                    });
                }
            });
        }
        Ok(())
    }

    /// To be called with the broker held.
    fn after_execution(&mut self, broker: &mut Broker, connection: ConnectionId, can_send: bool) {
        if can_send {
            self.take_from(broker, connection);
        } else {
            self.room = broker.has_room(connection);
            self.ready = true;
        }
    }

    /// Takes what the broker has for this connection, which counts as sent then. To be called with the broker held.
    fn take_from(&mut self, broker: &mut Broker, connection: ConnectionId) {
        broker.take_outgoing(connection, &mut self.outgoing);
        self.room = broker.has_room(connection);
        self.ready = false;
    }

    fn collect(&mut self, relay: &Relay) {
        if let Some(connection) = self.connection {
            relay.held().hold(Some(connection), |broker| self.take_from(broker, connection));
        }
    }

    /// Packs and queues answers until there are `enough` bytes for the network: true when everything is said.
    pub(super) fn say(&mut self, relay: &Relay, tls: &mut TlsSession, enough: usize) -> Result<bool, End> {
        loop {
            if tls.outgoing().len() >= enough {
                return Ok(false);
            }
            if self.outgoing.is_empty() {
                if self.ready {
                    self.collect(relay);
                }
                if self.outgoing.is_empty() {
                    // An idle connection keeps no memory for what it once had to say.
                    self.outgoing = VecDeque::new();
                    return Ok(true);
                }
            }
            let now = relay.clock().now();
            PACKED.with_borrow_mut(|block| {
                if self.session.pack_into(&mut self.outgoing, block, now) {
                    tls.write_plaintext(&block[..]).map_err(|_| End::Tls)
                } else {
                    Err(End::Protocol)
                }
            })?;
            if self.session.close_reason().is_some() {
                // A service that may not be one has been told so.
                return Err(End::Protocol);
            }
        }
    }

    /// Whether another block of commands may be read.
    pub(super) fn has_room(&self) -> bool {
        self.room && self.outgoing.is_empty()
    }

    /// The broker has something, or room again.
    pub(super) fn something_is_ready(&mut self) {
        self.ready = true;
    }

    /// Everything under way is done: what is said now is the last.
    pub(super) fn finish(&mut self) {
        self.ready = true;
        self.finishing = true;
    }

    pub(super) fn is_finishing(&self) -> bool {
        self.finishing
    }

    pub(super) fn has_subscriptions(&self, relay: &Relay) -> bool {
        self.connection
            .is_some_and(|connection| relay.held().look(|broker| broker.subscriptions(connection) > 0))
    }

    /// Gives back what only makes things faster: nothing was said for a long time.
    pub(super) fn rest(&mut self) {
        self.session.rest();
    }

    /// Tells the broker that the connection is over.
    pub(super) fn end(&mut self, relay: &Relay) {
        if let Some(connection) = self.connection.take() {
            relay.held().disconnect(connection);
        }
    }
}

/// The next block of the client, in memory of its own: message bodies share it until they are stored.
pub(super) fn next_block(tls: &mut TlsSession) -> Result<Option<BytesMut>, End> {
    let block = tls.read_block(|block: &mut [u8; BLOCK]| BytesMut::from(&block[..])).map_err(|_| End::Tls)?;
    if block.is_none() && tls.peer_has_closed() {
        return Err(End::Closed);
    }
    Ok(block)
}
