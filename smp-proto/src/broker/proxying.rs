//! `PRXY` and `PFWD`: what the broker hands to the [`proxy`](crate::proxy), and says when that answers.
//!
//! The broker knows the clients and the proxy the destinations. Each request takes a place among those that its client may
//! have at once; further ones wait here, and while there are that many, nothing more is read from the client.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::Broker;
use super::connections::{Address, ConnectionId};
use crate::keys::X25519Public;
use crate::session::outgoing::{OutgoingContent, ProxySession};
use crate::wire::address::ServerAddress;
use crate::wire::command::Password;
use crate::wire::error::{CommandError, ProxyError, SmpError};
use crate::wire::identifier::Identifier;
use crate::wire::version::Version;

/// To whom the answer to a [`ProxyRequest`] goes.
#[derive(Debug)]
pub struct ProxyTicket(Box<Address>);

impl ProxyTicket {
    /// Whose request it is.
    #[must_use]
    pub fn client(&self) -> ConnectionId {
        self.0.connection
    }

    /// The correlation of the request: for `PFWD`, the nonce of what is forwarded.
    #[must_use]
    pub fn correlation(&self) -> &Identifier {
        &self.0.correlation
    }

    /// The entity of the request: for `PFWD`, the session.
    #[must_use]
    pub fn entity(&self) -> &Identifier {
        &self.0.entity
    }
}

/// What a client asks a proxy for.
#[derive(Debug)]
pub struct ProxyRequest {
    /// To whom the answer goes.
    pub ticket: ProxyTicket,
    /// What is asked for.
    pub asked: Asked,
}

/// What is asked for.
#[derive(Debug)]
pub enum Asked {
    /// `PRXY`: a session with this relay.
    Connect(Box<ServerAddress>),
    /// `PFWD`: that this is forwarded over the session that is the request's entity.
    Forward {
        /// The version of the command.
        version: Version,
        /// The client's key.
        client_key: X25519Public,
        /// The inner box.
        sealed: Bytes,
    },
}

/// What a proxy answers.
#[derive(Debug)]
pub enum ProxyAnswer {
    /// `PKEY`
    Session(Arc<ProxySession>),
    /// `PRES`, with the inner box of the answer.
    Response(Bytes),
    /// `ERR PROXY …`
    Failed(ProxyError),
}

impl Broker {
    pub(super) fn connect_through(
        &mut self,
        to: &Address,
        relay: ServerAddress,
        password: Option<Password<'_>>,
    ) -> Result<(), SmpError> {
        let password_fits = match (&self.config.create_password, &password) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(expected), Some(given)) => bool::from(expected.as_slice().ct_eq(given.0)),
        };
        if self.config.proxied_at_once > 0 && !password_fits {
            return Err(SmpError::Proxy(ProxyError::BasicAuth));
        }
        self.ask_proxy(to, Asked::Connect(Box::new(relay)))
    }

    /// Hands a request to the proxy, or lets it wait until the client has fewer there.
    pub(super) fn ask_proxy(&mut self, to: &Address, asked: Asked) -> Result<(), SmpError> {
        let most = self.config.proxied_at_once;
        if most == 0 {
            return Err(CommandError::Prohibited.into());
        }
        let connection = self.connections.get_mut(to.connection).ok_or(SmpError::Internal)?;
        let request = ProxyRequest { ticket: ProxyTicket(Box::new(to.clone())), asked };
        connection.owed = connection.owed.saturating_add(1);
        if connection.proxied.at_once < most {
            connection.proxied.at_once += 1;
            self.proxy_requests.push_back(request);
        } else {
            connection.proxied.waiting.push_back(request);
        }
        Ok(())
    }

    /// The next request for the proxy.
    pub fn poll_proxy_request(&mut self) -> Option<ProxyRequest> {
        self.proxy_requests.pop_front()
    }

    /// Takes the proxy's answer to a request. Nothing happens when the client is gone.
    pub fn answer_proxied(&mut self, ticket: ProxyTicket, answer: ProxyAnswer) {
        let ProxyTicket(to) = ticket;
        let Some(connection) = self.connections.get_mut(to.connection) else { return };
        connection.owed = connection.owed.saturating_sub(1);
        match connection.proxied.waiting.pop_front() {
            Some(next) => self.proxy_requests.push_back(next),
            None => connection.proxied.at_once = connection.proxied.at_once.saturating_sub(1),
        }
        let content = match answer {
            ProxyAnswer::Session(session) => OutgoingContent::ProxySession(session),
            ProxyAnswer::Response(sealed) => OutgoingContent::ProxyResponse(sealed),
            ProxyAnswer::Failed(error) => OutgoingContent::Error(SmpError::Proxy(error)),
        };
        self.connections.say(*to, content);
    }
}

/// The requests of one connection.
#[derive(Debug, Default)]
pub(super) struct Proxied {
    /// How many the proxy has.
    at_once: u16,
    /// Those that wait.
    waiting: VecDeque<ProxyRequest>,
}

impl Proxied {
    /// Whether one more would not wait.
    pub(super) fn has_room(&self, most: u16) -> bool {
        most == 0 || (self.at_once < most && self.waiting.is_empty())
    }

    /// How many have no answer.
    pub(super) fn unanswered(&self) -> usize {
        usize::from(self.at_once) + self.waiting.len()
    }
}
