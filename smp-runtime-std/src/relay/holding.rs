//! The `smp-proxy/1` side of one connection of a relay: the session, and its dealings with the room that its contents are for.
//!
//! Owns: the session, and who came over it ([`Reception`]). The relay's lock is held once for each block; block encryption
//! happens outside.

use std::cell::RefCell;
use std::sync::Arc;

use smp_proto::broker::ConnectionId;
use smp_proto::first_step::UserId;
use smp_proto::forwarding::FirstStepId;
use smp_proto::server::{Reception, Role};
use smp_proto::session::first_step::{FirstStepSession, Received};
use smp_proto::session::{CommandVerifier, TransportFacts};

use super::Relay;
use super::connection::End;
use super::conversation::next_block;
use super::wakeup::Wakeup;
use crate::fast_cryptography::FAST;
use crate::tls::{BLOCK, TlsSession};

thread_local! {
    /// Where blocks are sealed before TLS encrypts them: one for a thread rather than one for each connection.
    static SEALED: RefCell<Box<[u8; BLOCK]>> = RefCell::new(Box::new([0; BLOCK]));
}

/// A session of `smp-proxy/1` on a connection whose TLS handshake is finished.
pub(super) struct HoldingConversation {
    session: FirstStepSession,
    reception: Reception,
    verifier: CommandVerifier,
    /// The broker's name for the connection, once the session is established.
    connection: Option<ConnectionId>,
    /// Whether there may be something to say.
    ready: bool,
    /// Whether another block may be taken.
    room: bool,
    finishing: bool,
}

impl HoldingConversation {
    /// Makes the session and queues its hello.
    pub(super) fn start(relay: &Relay, facts: TransportFacts, tls: &mut TlsSession) -> Result<Self, End> {
        let now = relay.clock().now();
        let mut session = relay
            .entropy()
            .with(|entropy| FirstStepSession::accept(relay.sessions(), facts, now, entropy))
            .map_err(|_| End::Protocol)?;
        let hello = session.take_handshake_block().ok_or(End::Protocol)?;
        tls.write_plaintext(&hello).map_err(|_| End::Tls)?;
        let reception = Reception::new(relay.roles());
        let verifier = CommandVerifier::new(&FAST, relay.sessions().remembered_authenticators);
        Ok(Self {
            session,
            reception,
            verifier,
            connection: None,
            ready: false,
            room: true,
            finishing: false,
        })
    }

    /// Takes the other side's hello if it is there: true when the session is established.
    pub(super) fn shake_hands(
        &mut self,
        relay: &Relay,
        tls: &mut TlsSession,
        bell: &Arc<Wakeup>,
    ) -> Result<bool, End> {
        let Some(block) = next_block(tls)? else { return Ok(false) };
        let now = relay.clock().now();
        match self.session.receive(block, now) {
            Ok(Received::Established) => {
                self.connection = Some(relay.held().connect(bell, now).ok_or(End::Full)?);
                Ok(true)
            }
            Ok(Received::Content(_)) | Err(_) => Err(End::Protocol),
        }
    }

    /// Handles every block that was received, as long as there is room for what is said about it.
    pub(super) fn handle_blocks(&mut self, relay: &Relay, tls: &mut TlsSession) -> Result<(), End> {
        let connection = self.connection.ok_or(End::Protocol)?;
        while self.has_room() {
            let Some(block) = next_block(tls)? else { return Ok(()) };
            let now = relay.clock().now();
            let content = match self.session.receive(block, now) {
                Ok(Received::Content(content)) => content.to_bytes(),
                Ok(Received::Established) | Err(_) => return Err(End::Protocol),
            };
            self.ready = true;
            match self.reception.take(&content) {
                Some(Role::Client) => {
                    let user = UserId::from(connection);
                    self.room = relay.entropy().with(|entropy| {
                        relay.held().hold_first_step(|first_step| {
                            first_step.attach(user);
                            first_step.receive(user, &content, now, entropy);
                            first_step.has_room(user)
                        })
                    });
                }
                Some(Role::Relay) => {
                    let from = FirstStepId::from(connection);
                    self.room = relay.entropy().with(|entropy| {
                        let room = relay.held().hold_forwarding(|forwarding, _| {
                            forwarding.attach(from);
                            forwarding.receive(from, content, now, entropy);
                            forwarding.has_room(from)
                        });
                        room.unwrap_or(false)
                    });
                    self.work_on_commands(relay, from);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Opens and verifies what a first-step relay has brought, with nothing held, and has it executed.
    fn work_on_commands(&mut self, relay: &Relay, from: FirstStepId) {
        let held = relay.held();
        while let Some(Some(command)) = held.hold_forwarding(|forwarding, _| forwarding.poll_command(from)) {
            let opened = match command.open(&FAST) {
                Ok(opened) => opened,
                Err(unopened) => {
                    held.hold_forwarding(|forwarding, _| forwarding.unopened(unopened));
                    continue;
                }
            };
            let mut request = opened.request();
            held.look(|broker| broker.look_up(&mut request));
            let now = relay.clock().now();
            relay.entropy().with(|entropy| {
                let verified = self.verifier.verify(&opened, request, entropy);
                held.hold_forwarding(|forwarding, broker| {
                    forwarding.execute(broker, &opened, verified, now, entropy);
                });
            });
        }
    }

    /// Seals and queues what there is to say until there are `enough` bytes for the network: true when everything is said.
    pub(super) fn say(&mut self, relay: &Relay, tls: &mut TlsSession, enough: usize) -> Result<bool, End> {
        let connection = self.connection.ok_or(End::Protocol)?;
        let (user, from) = (UserId::from(connection), FirstStepId::from(connection));
        if self.ready && self.reception.role() == Some(Role::Relay) {
            self.work_on_commands(relay, from);
        }
        while self.ready {
            if tls.outgoing().len() >= enough {
                return Ok(false);
            }
            let now = relay.clock().now();
            let (reception, room) = (&mut self.reception, &mut self.room);
            let session = &mut self.session;
            let said = SEALED.with_borrow_mut(|block| {
                let sealed = session.seal(block, now, |out| {
                    if reception.poll(out) {
                        return true;
                    }
                    match reception.role() {
                        Some(Role::Client) => relay.held().hold_first_step(|first_step| {
                            let said = first_step.poll_to_client(user, out);
                            *room = first_step.has_room(user);
                            said
                        }),
                        Some(Role::Relay) => {
                            let next = relay.held().hold_forwarding(|forwarding, _| {
                                let next = forwarding.poll_to_relay(from);
                                *room = forwarding.has_room(from);
                                next
                            });
                            // The answer is sealed here, with nothing held.
                            next.flatten().is_some_and(|said| said.write(&FAST, out).is_ok())
                        }
                        None => false,
                    }
                });
                match sealed {
                    Ok(true) => tls.write_plaintext(&block[..]).map(|()| true).map_err(|_| End::Tls),
                    Ok(false) => Ok(false),
                    Err(_) => Err(End::Protocol),
                }
            })?;
            self.ready = said;
        }
        Ok(true)
    }

    /// Whether another block may be read.
    pub(super) fn has_room(&self) -> bool {
        self.room && self.reception.has_room()
    }

    /// There is something to say, or room again.
    pub(super) const fn something_is_ready(&mut self) {
        self.ready = true;
    }

    /// Everything under way is done: what is said now is the last.
    pub(super) const fn finish(&mut self) {
        self.ready = true;
        self.finishing = true;
    }

    pub(super) const fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Whether something is held for the client, which waits for it.
    pub(super) fn awaits_something(&self, relay: &Relay) -> bool {
        self.connection.is_some_and(|connection| {
            relay.held().look_at_first_step(|first_step| first_step.awaits(UserId::from(connection)))
        })
    }

    /// Tells the rooms that the connection is over.
    pub(super) fn end(&mut self, relay: &Relay) {
        let Some(connection) = self.connection.take() else { return };
        match self.reception.role() {
            Some(Role::Client) => {
                relay.held().hold_first_step(|first_step| first_step.detach(UserId::from(connection)));
            }
            Some(Role::Relay) => {
                relay
                    .held()
                    .hold_forwarding(|forwarding, _| forwarding.detach(FirstStepId::from(connection)));
            }
            None => {}
        }
        relay.held().disconnect(connection);
    }
}
