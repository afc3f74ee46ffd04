//! The facade's connections to other relays: as a proxy, and as a first-step relay. One mechanism for both: dials, blocks, ends.

use alloc::boxed::Box;

use bytes::BytesMut;

use super::Server;
use crate::entropy::Entropy;
use crate::first_step::{self, DestinationLink};
use crate::proxy::{DialFailure, LinkId, LinkReceived, Proxy, ProxyAction, ProxyLink};
use crate::session::first_step::{FirstStepDial, FirstStepSession, Received};
use crate::session::{CloseReason, Protocol, SessionError, TransportFacts};
use crate::time::Now;
use crate::wire::address::ServerAddress;
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::error::BrokerError;
use crate::wire::first_step::RelayFailure;

/// One attempt to reach another relay, and the connection that comes of it; never reused in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Link {
    /// The proxy's.
    Proxy(LinkId),
    /// The first-step relay's.
    FirstStep(DestinationLink),
}

impl Link {
    /// What is spoken on it: whoever dials asks for that protocol, and for no other.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Proxy(_) => Protocol::Smp,
            Self::FirstStep(_) => Protocol::FirstStep,
        }
    }
}

/// What the driver has to do about connections to other relays.
#[derive(Debug)]
pub enum LinkAction {
    /// Connect to the relay, with TLS, by the rules of [`hosts`](crate::proxy::hosts); then call [`Server::dialled`], or, if that
    /// fails, [`Server::dial_failed`].
    Dial(Link, Box<ServerAddress>),
    /// There is something to send: [`Server::poll_link_block`] until there is nothing.
    MaySend(Link),
    /// Close the connection, or give up the dial. It is forgotten already.
    Close(Link),
}

/// How a first-step relay failed at a destination, by how its session ended.
#[must_use]
pub const fn failure_of(reason: CloseReason) -> RelayFailure {
    match reason {
        CloseReason::WrongRelayFound | CloseReason::KeyNotVerified | CloseReason::WrongSession => {
            RelayFailure::Identity
        }
        CloseReason::HelloUnreadable | CloseReason::NoCommonVersion { .. } => RelayFailure::NotSpoken,
        CloseReason::HandshakeTimeout => RelayFailure::Timeout,
        _ => RelayFailure::Network,
    }
}

impl Server {
    /// The next thing to do about connections to other relays.
    pub fn poll_link(&mut self) -> Option<LinkAction> {
        self.link_actions.pop_front()
    }

    /// The transport connection that was asked for is there.
    pub fn dialled(
        &mut self,
        link: Link,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match link {
            Link::Proxy(id) => {
                let Some((_, fingerprint)) = self
                    .wanted
                    .get_mut(id.slot())
                    .and_then(|place| place.take_if(|(wanted, _)| *wanted == id))
                else {
                    return;
                };
                let link = ProxyLink::new(&self.config.proxy, &fingerprint, facts, now, entropy);
                if self.links.len() <= id.slot() {
                    self.links.resize_with(id.slot() + 1, || None);
                }
                if let Some(place) = self.links.get_mut(id.slot()) {
                    *place = Some((id, link));
                }
                self.proxy.dialled(id, now);
                self.work_on_proxy(now);
            }
            Link::FirstStep(link) => {
                let Some(DestinationSession::Wanted(fingerprint)) = self.destinations.get(&link) else {
                    return;
                };
                if facts.protocol != Protocol::FirstStep {
                    return self.end_destination(link, RelayFailure::NotSpoken, now, entropy);
                }
                let dial = FirstStepDial {
                    handshake_time_limit: self.first_step.config().connect_timeout,
                    ..FirstStepDial::new(fingerprint.clone(), self.config.session.provider)
                };
                let session = FirstStepSession::dial(&dial, facts, now, entropy);
                self.destinations.insert(link, DestinationSession::Open(Box::new(session)));
            }
        }
    }

    /// The transport connection that was asked for cannot be had.
    pub fn dial_failed(
        &mut self,
        link: Link,
        failure: DialFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match link {
            Link::Proxy(id) => {
                self.proxy.dial_failed(id, failure, now);
                self.work_on_proxy(now);
            }
            Link::FirstStep(link) => {
                self.destinations.remove(&link);
                self.first_step.disconnected(link, failure.into(), now, entropy);
                self.work_on_first_step();
            }
        }
    }

    /// The connection to another relay is gone.
    pub fn link_lost(&mut self, link: Link, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        match link {
            Link::Proxy(id) => {
                self.forget_link(id);
                self.proxy.lost(id, DialFailure::Network.error(), now);
                self.work_on_proxy(now);
            }
            Link::FirstStep(_) => self.dial_failed(link, DialFailure::Network, now, entropy),
        }
    }

    /// Takes a block of another relay.
    pub fn handle_link_block(
        &mut self,
        link: Link,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match link {
            Link::Proxy(id) => self.handle_proxy_block(id, block, now),
            Link::FirstStep(link) => self.handle_destination_block(link, block, now, entropy),
        }
    }

    fn handle_proxy_block(&mut self, id: LinkId, block: BytesMut, now: Now) {
        let Some(link) = self.link(id) else { return };
        match link.receive(block, now) {
            Ok(LinkReceived::Open(session)) => {
                self.proxy.opened(id, session, now);
                // Its hello is to be sent.
                self.link_actions.push_back(LinkAction::MaySend(Link::Proxy(id)));
            }
            Ok(LinkReceived::Answers(answers)) => {
                for (forward, result) in answers {
                    self.proxy.answered(id, forward, result, now);
                }
            }
            Err(error) => self.end_link(id, error, now),
        }
        self.work_on_proxy(now);
    }

    fn handle_destination_block(
        &mut self,
        link: DestinationLink,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(DestinationSession::Open(session)) = self.destinations.get_mut(&link) else { return };
        match session.receive(block, now) {
            Ok(Received::Established) => {
                // Its hello goes first.
                self.link_actions.push_back(LinkAction::MaySend(Link::FirstStep(link)));
                self.first_step.connected(link, now);
            }
            Ok(Received::Content(content)) => {
                self.first_step.receive_from(link, &content.to_bytes(), now, entropy);
            }
            Err(SessionError::Close(reason)) => {
                return self.end_destination(link, failure_of(reason), now, entropy);
            }
            Err(SessionError::Misuse(_)) => {
                return self.end_destination(link, RelayFailure::Network, now, entropy);
            }
        }
        self.work_on_first_step();
    }

    fn end_link(&mut self, id: LinkId, error: BrokerError, now: Now) {
        self.forget_link(id);
        self.proxy.lost(id, error, now);
        self.link_actions.push_back(LinkAction::Close(Link::Proxy(id)));
    }

    fn end_destination(
        &mut self,
        link: DestinationLink,
        failure: RelayFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        self.destinations.remove(&link);
        self.link_actions.push_back(LinkAction::Close(Link::FirstStep(link)));
        self.first_step.disconnected(link, failure, now, entropy);
        self.work_on_first_step();
    }

    /// The next block to send to another relay, until there is none.
    pub fn poll_link_block(
        &mut self,
        link: Link,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<BytesMut> {
        match link {
            Link::Proxy(id) => self.poll_proxy_block(id, now, entropy),
            Link::FirstStep(link) => self.poll_destination_block(link, now),
        }
    }

    fn poll_proxy_block(
        &mut self,
        id: LinkId,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<BytesMut> {
        let (_, link) = self.links.get_mut(id.slot())?.as_mut().filter(|(known, _)| *known == id)?;
        if let Some(hello) = link.take_handshake_block() {
            return Some(hello);
        }
        if !link.is_open() {
            return None;
        }
        while let Some(forward) = self.proxy.poll_forward(id) {
            let mut block = BytesMut::zeroed(BLOCK_LENGTH);
            let bytes = block.as_mut().try_into().ok()?;
            match link.seal(&forward, bytes, now, entropy) {
                Ok(()) => return Some(block),
                Err(error) => self.proxy.answered(id, forward.id, Err(error), now),
            }
        }
        self.work_on_proxy(now);
        None
    }

    fn poll_destination_block(&mut self, link: DestinationLink, now: Now) -> Option<BytesMut> {
        let Some(DestinationSession::Open(session)) = self.destinations.get_mut(&link) else { return None };
        if let Some(hello) = session.take_handshake_block() {
            return Some(hello);
        }
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes = block.as_mut().try_into().ok()?;
        let first_step = &mut self.first_step;
        let sealed = session.seal(bytes, now, |out| first_step.poll_to_destination(link, out));
        matches!(sealed, Ok(true)).then_some(block)
    }

    fn link(&mut self, id: LinkId) -> Option<&mut ProxyLink> {
        let (known, link) = self.links.get_mut(id.slot())?.as_mut()?;
        (*known == id).then_some(link)
    }

    fn forget_link(&mut self, id: LinkId) {
        if let Some(place) = self.links.get_mut(id.slot()) {
            place.take_if(|(known, _)| *known == id);
        }
        if let Some(place) = self.wanted.get_mut(id.slot()) {
            place.take_if(|(known, _)| *known == id);
        }
    }

    /// Carries requests and answers between broker and proxy until there are none, and takes what is to be done.
    pub(super) fn work_on_proxy(&mut self, now: Now) {
        loop {
            while let Some((ticket, answer)) = self.proxy.poll_answer() {
                self.broker.answer_proxied(ticket, answer);
            }
            match self.broker.poll_proxy_request() {
                Some(request) => self.proxy.handle(request, now),
                None => break,
            }
        }
        while let Some(action) = self.proxy.poll_action() {
            let action = match action {
                ProxyAction::Dial(id, address) => {
                    if self.wanted.len() <= id.slot() {
                        self.wanted.resize_with(id.slot() + 1, || None);
                    }
                    if let Some(place) = self.wanted.get_mut(id.slot()) {
                        *place = Some((id, address.fingerprint.clone()));
                    }
                    LinkAction::Dial(Link::Proxy(id), address)
                }
                ProxyAction::Close(id) => {
                    self.forget_link(id);
                    LinkAction::Close(Link::Proxy(id))
                }
                ProxyAction::MaySend(id) => LinkAction::MaySend(Link::Proxy(id)),
            };
            self.link_actions.push_back(action);
        }
    }

    /// Takes what the first-step relay has to have done.
    pub(super) fn work_on_first_step(&mut self) {
        while let Some(action) = self.first_step.poll_action() {
            match action {
                first_step::Action::Connect(link, address) => {
                    self.destinations.insert(link, DestinationSession::Wanted(address.fingerprint.clone()));
                    self.link_actions.push_back(LinkAction::Dial(Link::FirstStep(link), address));
                }
                first_step::Action::Disconnect(link) => {
                    if self.destinations.remove(&link).is_some() {
                        self.link_actions.push_back(LinkAction::Close(Link::FirstStep(link)));
                    }
                }
                first_step::Action::TellDestination(link) => {
                    self.link_actions.push_back(LinkAction::MaySend(Link::FirstStep(link)));
                }
                first_step::Action::TellClient(user) => {
                    self.events.push_back(super::ServerEvent::MaySend(user.connection()));
                }
            }
        }
    }

    /// The proxy, to look at.
    #[must_use]
    pub const fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

/// A connection to a destination of the first-step relay.
pub(super) enum DestinationSession {
    /// It is being dialled: whose certificate is wanted.
    Wanted(alloc::vec::Vec<u8>),
    /// It is connected.
    Open(Box<FirstStepSession>),
}
