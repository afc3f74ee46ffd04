//! One connection of a relay to another relay, without IO: TLS, handshake, and what is forwarded: as a proxy over SMP, or as a
//! first-step relay over `smp-proxy/1`.
//!
//! Owns: the connection's TLS and its [`ProxyLink`] or [`FirstStepSession`]. It is driven like a
//! [`RelayConnection`](super::connection::RelayConnection). The proxy and the first-step relay themselves, with their deadlines,
//! are in the relay's lock, which is held only to fetch what is to be forwarded, and to hand over answers.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant as SystemInstant;

use bytes::BytesMut;
use smp_proto::first_step::DestinationLink;
use smp_proto::proxy::{DialFailure, LinkId, LinkReceived, ProxyLink};
use smp_proto::server::{Link, failure_of};
use smp_proto::session::first_step::{FirstStepDial, FirstStepSession, Received};
use smp_proto::session::{Protocol, SessionError, TransportFacts};
use smp_proto::wire::error::BrokerError;
use smp_proto::wire::first_step::RelayFailure;

use super::Relay;
use super::dial::RelayDial;
use super::wakeup::{Events, Wakeup};
use crate::dialing::transport_facts;
use crate::fast_cryptography::FAST;
use crate::tls::{ApplicationProtocol, BLOCK, ClientTls, ClientTlsOptions, TlsFailure, TlsSession};

/// Encrypted bytes that are prepared before the socket has taken any: two blocks.
const WRITE_AHEAD: usize = 32_768;

thread_local! {
    static PACKED: RefCell<Box<[u8; BLOCK]>> = RefCell::new(Box::new([0; BLOCK]));
}

enum Stage {
    /// The TLS handshake.
    Tls,
    /// Commands of clients of the proxy.
    Proxy(LinkId, Box<ProxyLink>),
    /// Commands that were held.
    FirstStep(DestinationLink, Box<FirstStepSession>),
    /// Over.
    Ended,
}

/// A connection to a destination. See the module's documentation.
pub struct RelayLink {
    relay: Arc<Relay>,
    link: Link,
    bell: Arc<Wakeup>,
    fingerprint: Vec<u8>,
    tls: TlsSession,
    stage: Stage,
    /// Whether there may be something to forward.
    ready: bool,
}

impl RelayLink {
    /// A connection that was just made. `None`, and the dial has failed, without TLS.
    pub(super) fn start(relay: Arc<Relay>, dial: &RelayDial) -> Option<Self> {
        let expected = crate::dialing::fingerprint(&dial.address).ok()?;
        let protocol = match dial.link.protocol() {
            Protocol::FirstStep => ApplicationProtocol::SmpProxy1,
            Protocol::OldSmp | Protocol::Smp => ApplicationProtocol::Smp1,
        };
        let options = ClientTlsOptions { protocol: Some(protocol), ..ClientTlsOptions::default() };
        let configuration = ClientTls::with_options(expected, &options).ok()?;
        let tls = TlsSession::client(&configuration).ok()?;
        Some(Self {
            relay,
            link: dial.link,
            bell: Arc::clone(&dial.bell),
            fingerprint: expected.0.to_vec(),
            tls,
            stage: Stage::Tls,
            ready: false,
        })
    }

    fn work_on_tls(&mut self) -> Result<(), Failure> {
        self.tls.process().map_err(|error| match error.failure {
            TlsFailure::Certificates(_) => DialFailure::WrongRelay,
            TlsFailure::NoCommonProtocol => DialFailure::NotSpoken,
            _ => DialFailure::Network,
        })?;
        let Some(facts) = self.tls.take_facts() else { return Ok(()) };
        let facts = transport_facts(facts).ok_or(DialFailure::Network)?;
        self.stage = match self.link {
            Link::Proxy(id) => self.open_proxy(id, facts),
            Link::FirstStep(link) => self.open_first_step(link, facts)?,
        };
        Ok(())
    }

    fn open_proxy(&self, id: LinkId, facts: TransportFacts) -> Stage {
        let (now, held) = (self.relay.clock().now(), self.relay.held());
        let link = self.relay.entropy().with(|entropy| {
            held.look_at_proxy(|proxy| ProxyLink::new(proxy.config(), &self.fingerprint, facts, now, entropy))
        });
        held.hold_proxy(|proxy| proxy.dialled(id, now));
        Stage::Proxy(id, Box::new(link))
    }

    fn open_first_step(&self, link: DestinationLink, facts: TransportFacts) -> Result<Stage, Failure> {
        if facts.protocol != Protocol::FirstStep {
            return Err(DialFailure::NotSpoken.into());
        }
        let now = self.relay.clock().now();
        let dial = FirstStepDial::new(self.fingerprint.clone(), &FAST);
        let session = self.relay.entropy().with(|entropy| FirstStepSession::dial(&dial, facts, now, entropy));
        Ok(Stage::FirstStep(link, Box::new(session)))
    }

    fn work_on_blocks(&mut self) -> Result<(), Failure> {
        match &mut self.stage {
            Stage::Proxy(id, link) => {
                work_on_proxy(&self.relay, *id, link, &mut self.tls, &mut self.ready).map_err(Failure::Proxy)
            }
            Stage::FirstStep(link, session) => {
                work_on_first_step(&self.relay, *link, session, &mut self.tls, &mut self.ready)
                    .map_err(Failure::FirstStep)
            }
            Stage::Tls | Stage::Ended => Ok(()),
        }
    }

    fn end(&mut self, failure: Failure) {
        if matches!(self.stage, Stage::Ended) {
            return;
        }
        self.stage = Stage::Ended;
        let (now, held) = (self.relay.clock().now(), self.relay.held());
        match self.link {
            Link::Proxy(id) => held.hold_proxy(|proxy| proxy.lost(id, failure.for_clients(), now)),
            Link::FirstStep(link) => self.relay.entropy().with(|entropy| {
                held.hold_first_step(|first_step| {
                    first_step.disconnected(link, failure.for_first_step(), now, entropy);
                });
            }),
        }
        held.forget_link(self.link);
    }
}

/// Why a connection is over.
enum Failure {
    /// It was never there.
    Dial(DialFailure),
    /// What the proxy tells its clients.
    Proxy(BrokerError),
    /// What the first-step relay remembers.
    FirstStep(RelayFailure),
}

impl From<DialFailure> for Failure {
    fn from(failure: DialFailure) -> Self {
        Self::Dial(failure)
    }
}

impl Failure {
    fn for_clients(self) -> BrokerError {
        match self {
            Self::Proxy(error) => error,
            Self::Dial(failure) => failure.error(),
            Self::FirstStep(_) => DialFailure::Network.error(),
        }
    }

    fn for_first_step(self) -> RelayFailure {
        match self {
            Self::FirstStep(failure) => failure,
            Self::Dial(failure) => failure.into(),
            Self::Proxy(_) => RelayFailure::Network,
        }
    }
}

fn next_block(tls: &mut TlsSession) -> Result<Option<BytesMut>, DialFailure> {
    tls.read_block(|block: &mut [u8; BLOCK]| BytesMut::from(&block[..])).map_err(|_| DialFailure::Network)
}

fn work_on_proxy(
    relay: &Relay,
    id: LinkId,
    link: &mut ProxyLink,
    tls: &mut TlsSession,
    ready: &mut bool,
) -> Result<(), BrokerError> {
    let lost = |_| DialFailure::Network.error();
    let (now, held) = (relay.clock().now(), relay.held());
    while let Some(block) = next_block(tls).map_err(DialFailure::error)? {
        match link.receive(block, now)? {
            LinkReceived::Open(session) => {
                if let Some(hello) = link.take_handshake_block() {
                    tls.write_plaintext(&hello).map_err(lost)?;
                }
                held.hold_proxy(|proxy| proxy.opened(id, session, now));
                *ready = true;
            }
            LinkReceived::Answers(answers) => held.hold_proxy(|proxy| {
                for (forward, result) in answers {
                    proxy.answered(id, forward, result, now);
                }
            }),
        }
    }
    if tls.peer_has_closed() {
        return Err(DialFailure::Network.error());
    }
    while *ready && link.is_open() && tls.outgoing().len() < WRITE_AHEAD {
        let Some(forward) = held.hold_proxy(|proxy| proxy.poll_forward(id)) else {
            *ready = false;
            break;
        };
        let sealed = PACKED.with_borrow_mut(|block| {
            relay.entropy().with(|entropy| match link.seal(&forward, block, now, entropy) {
                Ok(()) => Ok(tls.write_plaintext(&block[..])),
                Err(error) => Err(error),
            })
        });
        match sealed {
            Ok(written) => written.map_err(lost)?,
            Err(error) => held.hold_proxy(|proxy| proxy.answered(id, forward.id, Err(error), now)),
        }
    }
    Ok(())
}

fn work_on_first_step(
    relay: &Relay,
    link: DestinationLink,
    session: &mut FirstStepSession,
    tls: &mut TlsSession,
    ready: &mut bool,
) -> Result<(), RelayFailure> {
    let lost = |_| RelayFailure::Network;
    let (now, held) = (relay.clock().now(), relay.held());
    while let Some(block) = next_block(tls)? {
        match session.receive(block, now) {
            Ok(Received::Established) => {
                if let Some(hello) = session.take_handshake_block() {
                    tls.write_plaintext(&hello).map_err(lost)?;
                }
                held.hold_first_step(|first_step| first_step.connected(link, now));
                *ready = true;
            }
            Ok(Received::Content(content)) => {
                let content = content.to_bytes();
                relay.entropy().with(|entropy| {
                    held.hold_first_step(|first_step| first_step.receive_from(link, &content, now, entropy));
                });
            }
            Err(SessionError::Close(reason)) => return Err(failure_of(reason)),
            Err(SessionError::Misuse(_)) => return Err(RelayFailure::Network),
        }
    }
    if tls.peer_has_closed() {
        return Err(RelayFailure::Network);
    }
    while *ready && session.is_established() && tls.outgoing().len() < WRITE_AHEAD {
        let sealed = PACKED.with_borrow_mut(|block| {
            let sealed = session.seal(block, now, |out| {
                held.hold_first_step(|first_step| first_step.poll_to_destination(link, out))
            });
            match sealed {
                Ok(true) => tls.write_plaintext(&block[..]).map(|()| true).map_err(lost),
                Ok(false) => Ok(false),
                Err(_) => Err(RelayFailure::Network),
            }
        })?;
        *ready = sealed;
    }
    Ok(())
}

impl super::Driven for RelayLink {
    fn work(&mut self) {
        let events = self.bell.take();
        if events.contains(Events::FINISH) {
            // Whoever wanted it has closed it, and knows.
            return self.end(DialFailure::Network.into());
        }
        self.ready |= events.contains(Events::READY);
        let worked = match self.stage {
            Stage::Tls => self.work_on_tls().and_then(|()| self.work_on_blocks()),
            Stage::Proxy(..) | Stage::FirstStep(..) => self.work_on_blocks(),
            Stage::Ended => Ok(()),
        };
        if let Err(failure) = worked {
            self.end(failure);
        }
    }

    fn wants_read(&self) -> bool {
        !self.has_ended() && self.tls.wants_read()
    }

    fn read_from(&mut self, source: &mut impl Read) -> std::io::Result<bool> {
        if self.tls.read_tls(source)? == 0 {
            self.lost();
            return Ok(true);
        }
        Ok(self.tls.wants_read())
    }

    fn wants_write(&self) -> bool {
        !self.has_ended() && self.tls.wants_write()
    }

    fn write_to(&mut self, sink: &mut impl Write) -> std::io::Result<()> {
        match self.tls.write_tls(sink) {
            Ok(0) if self.tls.wants_write() => Err(std::io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn poll_events(&self, waker: &Waker) -> bool {
        self.bell.poll(waker)
    }

    /// None: proxy and first-step relay close what takes too long.
    fn deadline(&self) -> Option<SystemInstant> {
        None
    }

    fn handle_timeout(&mut self) {}

    fn lost(&mut self) {
        self.end(DialFailure::Network.into());
    }

    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }
}

impl Drop for RelayLink {
    fn drop(&mut self) {
        self.end(DialFailure::Network.into());
    }
}

impl std::fmt::Debug for RelayLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RelayLink").field("link", &self.link).finish_non_exhaustive()
    }
}
