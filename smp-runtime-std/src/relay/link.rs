//! One connection of a relay to another relay for which it is a proxy, without IO: TLS, handshake, forwarded commands.
//!
//! Owns: the connection's TLS and its [`ProxyLink`]. It is driven like a
//! [`RelayConnection`](super::connection::RelayConnection). The proxy itself, with its deadlines, is in the relay's lock,
//! which is held only to fetch what is to be forwarded, and to hand over answers.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant as SystemInstant;

use bytes::BytesMut;
use smp_proto::proxy::{DialFailure, LinkId, LinkReceived, ProxyLink};
use smp_proto::wire::error::BrokerError;

use super::Relay;
use super::dial::RelayDial;
use super::wakeup::{Events, Wakeup};
use crate::dialing::transport_facts;
use crate::tls::{BLOCK, ClientTls, ClientTlsOptions, TlsFailure, TlsSession};

/// Encrypted bytes that are prepared before the socket has taken any: two blocks.
const WRITE_AHEAD: usize = 32_768;

thread_local! {
    static PACKED: RefCell<Box<[u8; BLOCK]>> = RefCell::new(Box::new([0; BLOCK]));
}

enum Stage {
    /// The TLS handshake.
    Tls,
    /// Blocks.
    Open(Box<ProxyLink>),
    /// Over.
    Ended,
}

/// A connection to a destination. See the module's documentation.
pub struct RelayLink {
    relay: Arc<Relay>,
    id: LinkId,
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
        let configuration = ClientTls::with_options(expected, &ClientTlsOptions::default()).ok()?;
        let tls = TlsSession::client(&configuration).ok()?;
        Some(Self {
            relay,
            id: dial.id,
            bell: Arc::clone(&dial.bell),
            fingerprint: expected.0.to_vec(),
            tls,
            stage: Stage::Tls,
            ready: false,
        })
    }

    fn work_on_tls(&mut self) -> Result<(), BrokerError> {
        self.tls.process().map_err(|error| match error.failure {
            TlsFailure::Certificates(_) => DialFailure::WrongRelay.error(),
            _ => DialFailure::Network.error(),
        })?;
        let Some(facts) = self.tls.take_facts() else { return Ok(()) };
        let facts = transport_facts(facts).ok_or_else(|| DialFailure::Network.error())?;
        let now = self.relay.clock().now();
        let link = self.relay.entropy().with(|entropy| {
            self.relay
                .held()
                .look_at_proxy(|proxy| ProxyLink::new(proxy.config(), &self.fingerprint, facts, now, entropy))
        });
        self.stage = Stage::Open(Box::new(link));
        self.relay.held().hold_proxy(|proxy| proxy.dialled(self.id, now));
        Ok(())
    }

    fn work_on_blocks(&mut self) -> Result<(), BrokerError> {
        let lost = |_| DialFailure::Network.error();
        let Stage::Open(link) = &mut self.stage else { return Ok(()) };
        let now = self.relay.clock().now();
        let (held, id) = (self.relay.held(), self.id);
        while let Some(block) =
            self.tls.read_block(|block: &mut [u8; BLOCK]| BytesMut::from(&block[..])).map_err(lost)?
        {
            match link.receive(block, now)? {
                LinkReceived::Open(session) => {
                    if let Some(hello) = link.take_handshake_block() {
                        self.tls.write_plaintext(&hello).map_err(lost)?;
                    }
                    held.hold_proxy(|proxy| proxy.opened(id, session, now));
                    self.ready = true;
                }
                LinkReceived::Answers(answers) => held.hold_proxy(|proxy| {
                    for (forward, result) in answers {
                        proxy.answered(id, forward, result, now);
                    }
                }),
            }
        }
        if self.tls.peer_has_closed() {
            return Err(DialFailure::Network.error());
        }
        while self.ready && link.is_open() && self.tls.outgoing().len() < WRITE_AHEAD {
            let Some(forward) = held.hold_proxy(|proxy| proxy.poll_forward(id)) else {
                self.ready = false;
                break;
            };
            let tls = &mut self.tls;
            let sealed = PACKED.with_borrow_mut(|block| {
                self.relay.entropy().with(|entropy| match link.seal(&forward, block, now, entropy) {
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

    fn end(&mut self, error: BrokerError) {
        if !matches!(self.stage, Stage::Ended) {
            self.stage = Stage::Ended;
            let now = self.relay.clock().now();
            self.relay.held().hold_proxy(|proxy| proxy.lost(self.id, error, now));
            self.relay.held().forget_link(self.id);
        }
    }
}

impl super::Driven for RelayLink {
    fn work(&mut self) {
        let events = self.bell.take();
        if events.contains(Events::FINISH) {
            // The proxy has closed it, and knows.
            return self.end(DialFailure::Network.error());
        }
        self.ready |= events.contains(Events::READY);
        let worked = match self.stage {
            Stage::Tls => self.work_on_tls().and_then(|()| self.work_on_blocks()),
            Stage::Open(_) => self.work_on_blocks(),
            Stage::Ended => Ok(()),
        };
        if let Err(error) = worked {
            self.end(error);
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

    /// None: the proxy closes what takes too long.
    fn deadline(&self) -> Option<SystemInstant> {
        None
    }

    fn handle_timeout(&mut self) {}

    fn lost(&mut self) {
        self.end(DialFailure::Network.error());
    }

    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }
}

impl Drop for RelayLink {
    fn drop(&mut self) {
        self.end(DialFailure::Network.error());
    }
}

impl std::fmt::Debug for RelayLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RelayLink").field("id", &self.id).finish_non_exhaustive()
    }
}
