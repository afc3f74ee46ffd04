//! What the application may ask for.

use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::config::{MAX_BODY, MAX_USER_DATA, RECEIPTS};
use super::event::Event;
use super::live::Live;
use super::machine::Connections;
use super::outgoing::ComposeError;
use super::record::connection::{Connection, OwnLink, Stage};
use super::record::message::OutgoingKind;
use super::record::queue::Opening;
use super::record::request::Request;
use super::storage::{ConnectionId, RecordKey, RequestId};
use crate::crypto::ratchet::{InitialKeys, Ratchet, Synchronization};
use crate::entropy::Entropy;
use crate::keys::X25519Secret;
use crate::time::Now;
use crate::wire::address::AddressWithPassword;
use crate::wire::agent_message::{AgentMessageContent, Receipt};
use crate::wire::links::connection_request::ConnectionRequest;
use crate::wire::links::short_link::ShortLink;

/// Why a command of the application is not done. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// There is no such connection.
    UnknownConnection,
    /// There is no such request.
    UnknownRequest,
    /// There is no such message, or it was acknowledged before.
    UnknownMessage,
    /// The connection is in a stage in which this cannot be done.
    Stage(&'static str),
    /// The other side's agent speaks no version that is spoken here.
    Version,
    /// The keys in the link cannot be used.
    Keys,
    /// The relay's address has more hosts than can be stored, or a password that is too long.
    Relay,
    /// The message or the information is too long.
    TooLong,
    /// There are as many as the limits allow: connections, or messages that wait to be sent.
    TooMany,
    /// The encryption with this peer must be begun anew first.
    NotSynchronized,
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnknownConnection => "there is no such connection",
            Self::UnknownRequest => "there is no such request: it was accepted or rejected before",
            Self::UnknownMessage => "there is no such message: it was acknowledged before",
            Self::Stage(stage) => {
                return write!(formatter, "this cannot be done now: the connection is {stage}");
            }
            Self::Version => "the other side's program is too old or too new for this one",
            Self::Keys => "the link has keys that cannot be used: was it changed?",
            Self::Relay => "the relay's address has too many hosts, or its password is too long",
            Self::TooLong => "the text is too long for one message",
            Self::TooMany => "there are too many already: wait until some are done",
            Self::NotSynchronized => "the encryption with this contact must be renewed first",
        })
    }
}

impl core::error::Error for CommandError {}

/// What can be told of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where it stands, in words.
    pub stage: &'static str,
    /// Whether messages can be sent now.
    pub may_send: bool,
    /// Whether it is up in both directions.
    pub connected: bool,
    /// Whether it is a contact address.
    pub is_address: bool,
    /// Messages that wait to be sent.
    pub waiting: usize,
    /// Messages that a proxy holds, or is being given to hold.
    pub held: usize,
    /// Whether the next step is a relay's answer, and nobody's else.
    pub is_busy: bool,
    /// How many messages [`send`](Connections::send) has ever taken. After a crash, an application that has asked for more
    /// knows that the last ones were lost with it, and sends them again: so none is sent twice or forgotten.
    pub accepted: u64,
    /// The state of the encryption.
    pub synchronization: Synchronization,
}

impl Connections {
    /// Creates an invitation for one person, with a queue on this relay. [`Event::InvitationCreated`] brings the link.
    /// With `answer`, whoever uses it first is connected and told this; otherwise the application is asked
    /// ([`Event::Confirmed`]).
    ///
    /// # Errors
    /// [`CommandError::TooMany`], [`CommandError::TooLong`], [`CommandError::Relay`].
    pub fn create_invitation(
        &mut self,
        relay: AddressWithPassword,
        answer: Option<&[u8]>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        self.create_invitation_with(relay, answer, None, now, entropy)
    }

    fn create_invitation_with(
        &mut self,
        relay: AddressWithPassword,
        answer: Option<&[u8]>,
        user_data: Option<&[u8]>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        self.check_new(&relay, answer.unwrap_or_default())?;
        let version = self.core.config.agent_versions.max();
        let mut connection = Connection::new(Stage::CreatingInvitation, version);
        connection.short = user_data.map(|user_data| OwnLink::new(user_data, entropy));
        connection.creating = Some(relay);
        connection.keys = Some(InitialKeys::generate(entropy).to_bytes());
        connection.answers = answer.is_some();
        connection.information = Zeroizing::new(answer.unwrap_or_default().to_vec());
        Ok(self.begin(connection, None, now, entropy))
    }

    /// Creates an invitation as [`create_invitation`](Self::create_invitation) does, with a short link to it: the relay
    /// keeps the invitation, and these bytes of the application's, encrypted with a key that only the link has.
    /// [`Event::InvitationCreated`] brings both links; only the long one when the relay is older than version 15.
    ///
    /// # Errors
    /// [`CommandError::TooMany`], [`CommandError::TooLong`] (also for more than [`MAX_USER_DATA`]),
    /// [`CommandError::Relay`].
    pub fn create_short_invitation(
        &mut self,
        relay: AddressWithPassword,
        answer: Option<&[u8]>,
        user_data: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        if user_data.len() > MAX_USER_DATA {
            return Err(CommandError::TooLong);
        }
        let id = self.create_invitation_with(relay, answer, Some(user_data), now, entropy)?;
        Ok(id)
    }

    /// Creates a contact address as [`create_address`](Self::create_address) does, with a short link to it: the relay keeps
    /// the address, and these bytes of the application's (a profile, say), encrypted with a key that only the link has.
    ///
    /// # Errors
    /// [`CommandError::TooMany`], [`CommandError::TooLong`] (more than [`MAX_USER_DATA`]), [`CommandError::Relay`].
    pub fn create_short_address(
        &mut self,
        relay: AddressWithPassword,
        user_data: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        if user_data.len() > MAX_USER_DATA {
            return Err(CommandError::TooLong);
        }
        self.create_address_with(relay, Some(user_data), now, entropy)
    }

    /// Creates a contact address, with a queue on this relay. [`Event::AddressCreated`] brings the link; requests come as
    /// [`Event::Requested`].
    ///
    /// # Errors
    /// [`CommandError::TooMany`], [`CommandError::Relay`].
    pub fn create_address(
        &mut self,
        relay: AddressWithPassword,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        self.create_address_with(relay, None, now, entropy)
    }

    fn create_address_with(
        &mut self,
        relay: AddressWithPassword,
        user_data: Option<&[u8]>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        self.check_new(&relay, &[])?;
        let mut connection = Connection::new(Stage::CreatingAddress, self.core.config.agent_versions.max());
        connection.creating = Some(relay);
        connection.short = user_data.map(|user_data| OwnLink::new(user_data, entropy));
        Ok(self.begin(connection, None, now, entropy))
    }

    /// Changes what is behind the short link of an address; the link stays the same ([`Event::LinkUpdated`]).
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::Stage`] (also for an address without a short link),
    /// [`CommandError::TooLong`] (more than [`MAX_USER_DATA`]).
    pub fn set_link_data(
        &mut self,
        id: ConnectionId,
        user_data: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        if user_data.len() > MAX_USER_DATA {
            return Err(CommandError::TooLong);
        }
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        let stage = live.connection.stage.name();
        let is_address = live.connection.stage == Stage::Address;
        let short =
            live.connection.short.as_mut().filter(|_| is_address).ok_or(CommandError::Stage(stage))?;
        short.user_data = user_data.to_vec();
        short.changed = true;
        live.changed(&mut self.core);
        self.core.ready.insert(id);
        self.run(now, entropy);
        Ok(())
    }

    /// Joins by a link, with a queue of ours on this relay, and tells the peer's application this. Messages can be sent as
    /// soon as [`Event::Joined`] says so, often before the peer is there.
    ///
    /// # Errors
    /// [`CommandError::Version`], [`CommandError::Keys`], [`CommandError::TooMany`], [`CommandError::TooLong`],
    /// [`CommandError::Relay`].
    pub fn join(
        &mut self,
        link: &ConnectionRequest,
        relay: AddressWithPassword,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        self.check_new(&relay, information)?;
        let mut connection = Connection::new(Stage::Deleting, self.core.config.agent_versions.max());
        connection.creating = Some(relay);
        connection.information = Zeroizing::new(information.to_vec());
        // Nothing is entered before everything is known to fit.
        let mut live = Live::new(ConnectionId(self.core.counters.next), connection);
        let prepared = live.prepare_to_join(&self.core, link, None, entropy)?;
        self.core.number();
        live.begin_to_join(&mut self.core, prepared);
        let id = live.id;
        self.enter(id, live, now, entropy);
        Ok(id)
    }

    /// Joins by a short link: like [`join`](Self::join) when its relay has told what is behind it, and that was verified
    /// ([`Event::LinkRead`]). The queue of an invitation is secured in the same step: if that is refused, nothing else is
    /// created. A link that names its relay incompletely must be [restored](ShortLink::restored) first.
    ///
    /// # Errors
    /// [`CommandError::TooMany`], [`CommandError::TooLong`], [`CommandError::Relay`].
    pub fn join_by_short_link(
        &mut self,
        link: &ShortLink,
        relay: AddressWithPassword,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        self.check_new(&relay, information)?;
        if link.relay.fingerprint.is_empty() || link.write(&mut Vec::new()).is_err() {
            return Err(CommandError::Relay);
        }
        let stage = Stage::ReadingLink { link: link.clone(), key: X25519Secret::generate(entropy) };
        let mut connection = Connection::new(stage, self.core.config.agent_versions.max());
        connection.creating = Some(relay);
        connection.information = Zeroizing::new(information.to_vec());
        Ok(self.begin(connection, None, now, entropy))
    }

    /// Allows somebody who used an invitation to connect ([`Event::Confirmed`]), and tells their application this.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::Stage`], [`CommandError::TooLong`].
    pub fn allow(
        &mut self,
        id: ConnectionId,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        if information.len() > self.core.config.limits.information {
            return Err(CommandError::TooLong);
        }
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        if !matches!(live.connection.stage, Stage::Confirmed { .. }) {
            return Err(CommandError::Stage(live.connection.stage.name()));
        }
        live.connection.information = Zeroizing::new(information.to_vec());
        live.reply(&mut self.core, entropy);
        self.core.ready.insert(id);
        self.run(now, entropy);
        Ok(())
    }

    /// Accepts a request that came to a contact address: like [`join`](Self::join) by the link in it.
    ///
    /// # Errors
    /// [`CommandError::UnknownRequest`], and those of [`join`](Self::join).
    pub fn accept(
        &mut self,
        request: RequestId,
        relay: AddressWithPassword,
        information: &[u8],
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<ConnectionId, CommandError> {
        let link = self.requests.get(&request).ok_or(CommandError::UnknownRequest)?.request.clone();
        let id = self.join(&link, relay, information, now, entropy)?;
        self.reject(request, now, entropy)?;
        Ok(id)
    }

    /// Forgets a request that came to a contact address. Who asked is not told.
    ///
    /// # Errors
    /// [`CommandError::UnknownRequest`].
    pub fn reject(
        &mut self,
        request: RequestId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let address = self.requests.remove(&request).ok_or(CommandError::UnknownRequest)?.address;
        self.core.touch(RecordKey::Request(request));
        // There is room for another one now.
        if let Some(live) = self.lives.get(&address) {
            let numbers: Vec<_> = live.queues.keys().copied().collect();
            for number in numbers {
                self.deliver_parked(address, number, entropy);
            }
        }
        self.run(now, entropy);
        Ok(())
    }

    /// Sends a message, and returns its number: [`Event::Sent`] says when the peer's relay has it.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::Stage`], [`CommandError::TooLong`] (more than [`MAX_BODY`]),
    /// [`CommandError::TooMany`], [`CommandError::NotSynchronized`].
    pub fn send(
        &mut self,
        id: ConnectionId,
        body: &[u8],
        notification: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<i64, CommandError> {
        if body.len() > MAX_BODY {
            return Err(CommandError::TooLong);
        }
        let limits = self.core.config.limits;
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        if !live.connection.synchronization.may_send() {
            return Err(CommandError::NotSynchronized);
        }
        if !live.may_send() {
            return Err(CommandError::Stage(live.connection.stage.name()));
        }
        if live.outgoing.len() >= limits.outgoing || self.core.outgoing >= limits.outgoing_in_all {
            return Err(CommandError::TooMany);
        }
        let content = AgentMessageContent::Body(body);
        let number = live
            .compose(&mut self.core, OutgoingKind::Body, None, notification, content, entropy)
            .map_err(|error| match error {
            ComposeError::NotReady => CommandError::Stage(live.connection.stage.name()),
            ComposeError::TooLong => CommandError::TooLong,
            ComposeError::TooMany => CommandError::TooMany,
        })?;
        self.run(now, entropy);
        Ok(number)
    }

    /// The message is safe with the application: it is forgotten here, deleted at the relay, and the next one can come.
    /// With `receipt` the sender is told, and given these bytes.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::UnknownMessage`], [`CommandError::TooLong`].
    pub fn acknowledge(
        &mut self,
        id: ConnectionId,
        message: i64,
        receipt: Option<&[u8]>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        if receipt.is_some_and(|information| information.len() > self.core.config.limits.information) {
            return Err(CommandError::TooLong);
        }
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        let waiting = live.queues.iter().find_map(|(number, queue)| {
            let received = queue.received.as_ref().filter(|received| received.number == message)?;
            Some((*number, received.hash))
        });
        let (number, hash) = waiting.ok_or(CommandError::UnknownMessage)?;
        live.queue(number).received = None;
        live.stamp = self.core.touch(RecordKey::Received(id, number));
        let answers = live.connection.version >= RECEIPTS
            && live.may_send()
            && live.connection.stage == Stage::Connected;
        if let Some(information) = receipt
            && answers
        {
            let receipts = alloc::vec![Receipt { message, hash: &hash, information }];
            let content = AgentMessageContent::Received(receipts);
            // A receipt that cannot be sent must not keep the message here for ever.
            let _ = live.compose(&mut self.core, OutgoingKind::Receipt, None, false, content, entropy);
        }
        live.acknowledge_when_durable(number);
        self.core.ready.insert(id);
        self.deliver_all_parked(id, entropy);
        self.run(now, entropy);
        Ok(())
    }

    /// Messages are accepted no more ([`Event::Suspended`]); those that wait at the relay still come. This cannot be taken
    /// back.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`].
    pub fn suspend(
        &mut self,
        id: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        for queue in &mut live.connection.receive {
            if queue.opening == Opening::Open {
                queue.opening = Opening::Closing;
            }
        }
        live.changed(&mut self.core);
        self.core.ready.insert(id);
        self.run(now, entropy);
        Ok(())
    }

    /// Deletes a connection or address: its queues, then its records ([`Event::Deleted`]). The peer is not told.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`].
    pub fn delete(
        &mut self,
        id: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        live.deletion_is_told = true;
        if live.connection.stage != Stage::Deleting {
            live.delete(&mut self.core);
        }
        self.run(now, entropy);
        Ok(())
    }

    /// Takes the queues of a connection back, after [`Event::Ended`].
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`].
    pub fn resubscribe(
        &mut self,
        id: ConnectionId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        for queue in live.queues.values_mut() {
            queue.subscribed = false;
        }
        self.core.ready.insert(id);
        self.run(now, entropy);
        Ok(())
    }

    /// The link of an invitation that nobody has used, or of a contact address, when it is durable.
    #[must_use]
    pub fn link(&self, id: ConnectionId) -> Option<ConnectionRequest> {
        let live = self.lives.get(&id).filter(|live| self.core.is_durable(live.link_stamp))?;
        matches!(live.connection.stage, Stage::Invited | Stage::Address).then(|| live.link(&self.core))?
    }

    /// The short form of [`link`](Self::link), when there is one.
    #[must_use]
    pub fn short_link(&self, id: ConnectionId) -> Option<ShortLink> {
        let live = self.lives.get(&id).filter(|live| self.core.is_durable(live.link_stamp))?;
        matches!(live.connection.stage, Stage::Invited | Stage::Address).then(|| live.short_link())?
    }

    /// What can be told of a connection.
    #[must_use]
    pub fn status(&self, id: ConnectionId) -> Option<Status> {
        self.lives.get(&id).map(Live::status)
    }

    /// All connections and addresses.
    pub fn connections(&self) -> impl Iterator<Item = (ConnectionId, Status)> {
        self.lives.iter().map(|(id, live)| (*id, live.status()))
    }

    /// Keeps a request that came to an address.
    pub(super) fn requested(
        &mut self,
        address: ConnectionId,
        request: ConnectionRequest,
        information: Vec<u8>,
    ) {
        let id = RequestId(self.core.number());
        self.core.event(Event::Requested { address, request: id, information: information.clone() });
        self.requests.insert(id, Request { address, request, information });
        self.core.touch(RecordKey::Request(id));
    }

    /// Tries again what waited for another queue of the connection.
    fn deliver_all_parked(&mut self, id: ConnectionId, entropy: &mut (impl Entropy + ?Sized)) {
        let parked = |live: &Live| -> Vec<_> {
            live.queues
                .iter()
                .filter(|(_, queue)| queue.parked.is_some())
                .map(|(number, _)| *number)
                .collect()
        };
        for number in self.lives.get(&id).map(parked).unwrap_or_default() {
            self.deliver_parked(id, number, entropy);
        }
    }

    fn check_new(&self, relay: &AddressWithPassword, information: &[u8]) -> Result<(), CommandError> {
        if self.lives.len() >= self.core.config.limits.connections {
            return Err(CommandError::TooMany);
        }
        if information.len() > self.core.config.limits.information {
            return Err(CommandError::TooLong);
        }
        self.check_relay(relay)
    }

    /// Whether the address can be stored.
    pub(super) fn check_relay(&self, relay: &AddressWithPassword) -> Result<(), CommandError> {
        let password_fits = relay.password.as_ref().is_none_or(|password| password.len() <= 255);
        if relay.address.write(&mut Vec::new()).is_err() || !password_fits {
            return Err(CommandError::Relay);
        }
        Ok(())
    }

    fn number(&mut self, connection: Connection) -> (ConnectionId, Live) {
        let id = ConnectionId(self.core.number());
        (id, Live::new(id, connection))
    }

    fn begin(
        &mut self,
        connection: Connection,
        ratchet: Option<Ratchet>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> ConnectionId {
        let (id, mut live) = self.number(connection);
        live.ratchet = ratchet;
        self.enter(id, live, now, entropy);
        id
    }

    fn enter(&mut self, id: ConnectionId, mut live: Live, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if live.ratchet.is_some() {
            live.ratchet_changed(&mut self.core);
        }
        live.changed(&mut self.core);
        self.lives.insert(id, live);
        self.core.ready.insert(id);
        self.run(now, entropy);
    }
}

impl Live {
    pub(super) fn status(&self) -> Status {
        Status {
            stage: self.connection.stage.name(),
            may_send: self.may_send(),
            connected: self.connection.stage == Stage::Connected,
            is_address: matches!(self.connection.stage, Stage::Address | Stage::CreatingAddress),
            waiting: self.outgoing.len().saturating_sub(self.handed_over.len()),
            held: self.handed_over.len(),
            is_busy: self.connection.stage.waits_for_a_relay(),
            accepted: self.connection.accepted,
            synchronization: self.connection.synchronization,
        }
    }
}
