//! A relay's side of service sessions: clients that come with a certificate (v16, WIRE-FACTS 4.5, 4.8).
//!
//! The session verifies who the service is; the broker decides whether it may be, and under which id. Its answer is the
//! third block of the handshake.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::blocks::handshake_block;
use super::close::CloseReason;
use super::outgoing::{Outgoing, OutgoingContent};
use super::server::{ServerSession, State};
use crate::keys::Ed25519Public;
use crate::time::Now;
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::command::Command;
use crate::wire::error::{HandshakeError, TransportError};
use crate::wire::hello::{ServiceResponse, ServiceRole};
use crate::wire::identifier::IDENTIFIER_LENGTH;

/// Who a client has proved to be.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceClaim {
    /// What it wants to do.
    pub role: ServiceRole,
    /// The SHA-256 of its identity certificate.
    pub fingerprint: [u8; 32],
    /// The key of this session, signed with its certificate's key.
    pub key: Ed25519Public,
}

impl core::fmt::Debug for ServiceClaim {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "ServiceClaim({:?})", self.role)
    }
}

/// A service that was accepted.
pub(super) struct SessionService {
    pub(super) claim: ServiceClaim,
    pub(super) id: [u8; IDENTIFIER_LENGTH],
}

impl SessionService {
    /// Whether a service of this role may give the command.
    pub(super) const fn may(&self, command: &Command<'_>) -> bool {
        match command {
            Command::Ping => true,
            Command::SubscribeNotifications | Command::SubscribeServiceNotifications => {
                matches!(self.claim.role, ServiceRole::Notifier)
            }
            Command::RelayForward { .. } => matches!(self.claim.role, ServiceRole::Proxy),
            _ => matches!(self.claim.role, ServiceRole::Messaging),
        }
    }
}

impl ServerSession {
    /// Whether the broker has yet to say whether the client may be the service that it has proved to be.
    #[must_use]
    pub const fn is_identifying(&self) -> bool {
        matches!(self.state, State::Identifying { .. })
    }

    /// The service that the client is: its role and id.
    #[must_use]
    pub fn service(&self) -> Option<(ServiceRole, &[u8; IDENTIFIER_LENGTH])> {
        match &self.state {
            State::Established(established) => {
                established.service.as_ref().map(|service| (service.claim.role, &service.id))
            }
            _ => None,
        }
    }

    /// Takes the broker's answer about the service, and writes the third block of the handshake.
    pub(super) fn pack_identification(
        &mut self,
        outgoing: &mut VecDeque<Outgoing>,
        block: &mut [u8; BLOCK_LENGTH],
        now: Now,
    ) -> bool {
        let accepted = match outgoing.pop_front().map(|first| first.content) {
            None => return false,
            Some(OutgoingContent::ServiceAccepted(id)) => Some(id),
            Some(_) => None,
        };
        let response = match accepted {
            Some(id) => ServiceResponse::Accepted(id.into()),
            None => ServiceResponse::Refused(TransportError::Handshake(HandshakeError::BadService)),
        };
        let Some(written) = handshake_block(|out| response.encode(out)) else { return false };
        block.copy_from_slice(&written);
        match (accepted, core::mem::replace(&mut self.state, State::Ended(CloseReason::ServiceRefused))) {
            (Some(id), State::Identifying { mut established, claim }) => {
                established.service = Some(Box::new(SessionService { claim, id }));
                self.state = State::Established(established);
            }
            _ => outgoing.clear(),
        }
        self.was_active(now);
        true
    }
}
