//! What the application asks of an [`Agent`]: the [`Connections`](super::Connections) decide, and what they want is carried to the
//! relays at once.

use super::agent::Agent;
use super::commands::{CommandError, Status};
use super::storage::{ConnectionId, RequestId};
use crate::entropy::Entropy;
use crate::time::Now;
use crate::wire::address::AddressWithPassword;
use crate::wire::links::connection_request::ConnectionRequest;
use crate::wire::links::short_link::ShortLink;

impl Agent {
    /// Creates an invitation: [`Connections::create_invitation`](super::Connections::create_invitation).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn create_invitation(
        &mut self,
        relay: AddressWithPassword,
        answer: Option<&[u8]>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.create_invitation(relay, answer, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Creates a contact address: [`Connections::create_address`](super::Connections::create_address).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn create_address(
        &mut self,
        relay: AddressWithPassword,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.create_address(relay, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Joins by a link: [`Connections::join`](super::Connections::join).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn join(
        &mut self,
        link: &ConnectionRequest,
        relay: AddressWithPassword,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.join(link, relay, information, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Creates an invitation with a short link: [`Connections::create_short_invitation`](super::Connections::create_short_invitation).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn create_short_invitation(
        &mut self,
        relay: AddressWithPassword,
        answer: Option<&[u8]>,
        user_data: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.create_short_invitation(relay, answer, user_data, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Creates a contact address with a short link: [`Connections::create_short_address`](super::Connections::create_short_address).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn create_short_address(
        &mut self,
        relay: AddressWithPassword,
        user_data: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.create_short_address(relay, user_data, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Changes what is behind a short link: [`Connections::set_link_data`](super::Connections::set_link_data).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn set_link_data(
        &mut self,
        connection: ConnectionId,
        user_data: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.set_link_data(connection, user_data, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Joins by a short link: [`Connections::join_by_short_link`](super::Connections::join_by_short_link).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn join_by_short_link(
        &mut self,
        link: &ShortLink,
        relay: AddressWithPassword,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.join_by_short_link(link, relay, information, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Allows somebody to connect: [`Connections::allow`](super::Connections::allow).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn allow(
        &mut self,
        connection: ConnectionId,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.allow(connection, information, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Accepts a request: [`Connections::accept`](super::Connections::accept).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn accept(
        &mut self,
        request: RequestId,
        relay: AddressWithPassword,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let result = self.connections.accept(request, relay, information, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Rejects a request: [`Connections::reject`](super::Connections::reject).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn reject(
        &mut self,
        request: RequestId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.reject(request, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Sends a message: [`Connections::send`](super::Connections::send).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn send(
        &mut self,
        connection: ConnectionId,
        body: &[u8],
        notification: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<i64, CommandError> {
        let result = self.connections.send(connection, body, notification, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Acknowledges a message: [`Connections::acknowledge`](super::Connections::acknowledge).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn acknowledge(
        &mut self,
        connection: ConnectionId,
        message: i64,
        receipt: Option<&[u8]>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.acknowledge(connection, message, receipt, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Accepts no more messages: [`Connections::suspend`](super::Connections::suspend).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn suspend(
        &mut self,
        connection: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.suspend(connection, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Deletes a connection or address: [`Connections::delete`](super::Connections::delete).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn delete(
        &mut self,
        connection: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.delete(connection, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Moves a connection to another queue of ours: [`Connections::switch`](super::Connections::switch).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn switch(
        &mut self,
        connection: ConnectionId,
        relay: AddressWithPassword,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.switch(connection, relay, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Begins the encryption anew: [`Connections::synchronize`](super::Connections::synchronize).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn synchronize(
        &mut self,
        connection: ConnectionId,
        force: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.synchronize(connection, force, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// Takes the queues back from another program: [`Connections::resubscribe`](super::Connections::resubscribe).
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn resubscribe(
        &mut self,
        connection: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let result = self.connections.resubscribe(connection, now, entropy);
        self.pump(now, entropy);
        result
    }

    /// The link of an invitation that nobody has used, or of a contact address.
    #[must_use]
    pub fn link(&self, connection: ConnectionId) -> Option<ConnectionRequest> {
        self.connections.link(connection)
    }

    /// The short form of [`link`](Self::link), when there is one.
    #[must_use]
    pub fn short_link(&self, connection: ConnectionId) -> Option<ShortLink> {
        self.connections.short_link(connection)
    }

    /// What can be told of a connection.
    #[must_use]
    pub fn status(&self, connection: ConnectionId) -> Option<Status> {
        self.connections.status(connection)
    }

    /// All connections and addresses.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, Status)> {
        self.connections.connections()
    }
}
