//! One accepted connection of the facade, by what is spoken on it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::reception::{Reception, Role, Roles};
use super::{Destination, Server, ServerCloseReason, ServerConfig, ServerEvent};
use crate::broker::ConnectionId;
use crate::entropy::Entropy;
use crate::first_step::{FirstStep, UserId};
use crate::forwarding::FirstStepId;
use crate::session::first_step::{FirstStepSession, Received};
use crate::session::identity::SigningFailed;
use crate::session::outgoing::Outgoing;
use crate::session::server::{ServerSession, ServerSessionConfig};
use crate::session::{CloseReason, Misuse, SessionError, TransportFacts};
use crate::time::{Instant, Now};
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::first_step::VERSION;
use crate::wire::version::Version;

pub(super) struct Peer {
    pub(super) id: ConnectionId,
    pub(super) speaks: Speaks,
    /// Since when the driver has a block that it has not sent.
    pub(super) waiting_since: Option<Instant>,
    /// Under what time the connection stands in `deadlines`.
    pub(super) deadline: Option<Instant>,
}

/// What is spoken on a connection.
pub(super) enum Speaks {
    Smp(Box<Smp>),
    FirstStep(Box<ToFirstStep>),
}

/// A connection on which SMP is spoken.
pub(super) struct Smp {
    pub(super) session: ServerSession,
    pub(super) outgoing: VecDeque<Outgoing>,
}

/// A connection on which `smp-proxy/1` is spoken.
pub(super) struct ToFirstStep {
    session: FirstStepSession,
    pub(super) reception: Reception,
}

impl Smp {
    pub(super) fn accept(
        config: &ServerConfig,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Speaks, SigningFailed> {
        let session = ServerSession::new(&config.session, facts, now, entropy)?;
        Ok(Speaks::Smp(Box::new(Self { session, outgoing: VecDeque::new() })))
    }
}

impl ToFirstStep {
    pub(super) fn accept(
        config: &Arc<ServerSessionConfig>,
        roles: Roles,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Speaks, SigningFailed> {
        let session = FirstStepSession::accept(config, facts, now, entropy)?;
        Ok(Speaks::FirstStep(Box::new(Self { session, reception: Reception::new(roles) })))
    }

    pub(super) fn poll_block(
        &mut self,
        id: ConnectionId,
        first_step: &mut FirstStep,
        destination: Option<&mut Destination>,
        now: Now,
    ) -> Option<BytesMut> {
        if let Some(hello) = self.session.take_handshake_block() {
            return Some(hello);
        }
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes = block.as_mut().try_into().ok()?;
        let (reception, provider) = (&mut self.reception, self.session.provider());
        let sealed = self.session.seal(bytes, now, |out| {
            if reception.poll(out) {
                return true;
            }
            match (reception.role(), destination) {
                (Some(Role::Client), _) => first_step.poll_to_client(UserId::from(id), out),
                (Some(Role::Relay), Some(destination)) => destination
                    .room
                    .poll_to_relay(FirstStepId::from(id))
                    .is_some_and(|said| said.write(provider, out).is_ok()),
                _ => false,
            }
        });
        matches!(sealed, Ok(true)).then_some(block)
    }
}

impl Speaks {
    pub(super) fn handle_timeout(&mut self, now: Now) -> Result<(), CloseReason> {
        match self {
            Self::Smp(smp) => smp.session.handle_timeout(now),
            Self::FirstStep(there) => there.session.handle_timeout(now),
        }
    }

    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        match self {
            Self::Smp(smp) => smp.session.next_deadline(),
            Self::FirstStep(there) => there.session.next_deadline(),
        }
    }

    pub(super) const fn last_activity(&self) -> Instant {
        match self {
            Self::Smp(smp) => smp.session.last_activity(),
            Self::FirstStep(there) => there.session.last_activity(),
        }
    }

    pub(super) const fn take_handshake_block(&mut self) -> Option<BytesMut> {
        match self {
            Self::Smp(smp) => smp.session.take_handshake_block(),
            Self::FirstStep(there) => there.session.take_handshake_block(),
        }
    }

    pub(super) fn digest_into(&self, digest: &mut Sha256) {
        match self {
            Self::Smp(smp) => {
                digest.update(smp.session.digest());
                digest.update(smp.outgoing.len().to_be_bytes());
            }
            Self::FirstStep(there) => digest.update(there.session.digest()),
        }
    }
}

impl Server {
    pub(super) fn handle_first_step_block(
        &mut self,
        id: ConnectionId,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), Misuse> {
        let Some(Speaks::FirstStep(there)) = self.peer(id).map(|peer| &mut peer.speaks) else {
            return Ok(());
        };
        let content = match there.session.receive(block, now) {
            Ok(Received::Established) => {
                self.events.push_back(ServerEvent::Established(id, Version(VERSION)));
                self.arm(id, now);
                return Ok(());
            }
            Ok(Received::Content(content)) => content.to_bytes(),
            Err(SessionError::Close(reason)) => {
                self.close(id, ServerCloseReason::Session(reason));
                return Ok(());
            }
            Err(SessionError::Misuse(misuse)) => return Err(misuse),
        };
        match there.reception.take(&content) {
            Some(Role::Client) => {
                let user = UserId::from(id);
                self.first_step.attach(user);
                self.first_step.receive(user, &content, now, entropy);
                self.work_on_first_step();
            }
            Some(Role::Relay) => {
                if let Some(destination) = &mut self.forwarding {
                    destination.room.attach(FirstStepId::from(id));
                    destination.room.receive(FirstStepId::from(id), content, now, entropy);
                }
                self.work_on_forwarded(now, entropy);
            }
            None => self.events.push_back(ServerEvent::MaySend(id)),
        }
        Ok(())
    }

    /// Opens, verifies and executes what first-step relays have brought, and says who is to be answered.
    pub(super) fn work_on_forwarded(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        let Some(Destination { room, verifier }) = &mut self.forwarding else { return };
        let provider = self.config.session.provider;
        while let Some(id) = room.poll_ready() {
            while let Some(command) = room.poll_command(id) {
                let opened = match command.open(provider) {
                    Ok(opened) => opened,
                    Err(unopened) => {
                        room.unopened(unopened);
                        continue;
                    }
                };
                let mut request = opened.request();
                self.broker.look_up(&mut request);
                let verified = verifier.verify(&opened, request, entropy);
                room.execute(&mut self.broker, &opened, verified, now, entropy);
            }
            self.events.push_back(ServerEvent::MaySend(id.connection()));
        }
    }

    /// Says who is to be answered: nothing has to be opened.
    pub(super) fn announce_forwarded(&mut self) {
        let Some(Destination { room, .. }) = &mut self.forwarding else { return };
        while let Some(id) = room.poll_ready() {
            self.events.push_back(ServerEvent::MaySend(id.connection()));
        }
    }
}
