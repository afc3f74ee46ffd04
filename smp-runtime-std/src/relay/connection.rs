//! One connection of a relay, without IO: TLS, then the SMP handshake, then commands and answers.
//!
//! Owns: the connection's TLS and SMP session, its place among the connections, its deadlines, and why it ends. A
//! runtime moves bytes ([`Driven::read_from`], [`Driven::write_to`]), calls [`Driven::work`]
//! after each, and waits for the socket, for [`Driven::poll_events`], or for [`Driven::deadline`].
//! It never blocks, never waits, and holds no buffers while it has nothing to do.

use std::io::{Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant as SystemInstant;

use smp_proto::time::Instant;

use super::admission::{Place, Refusal};
use super::talk::Talk;
use super::wakeup::Events;
use super::{Driven, Relay};
use crate::tls::TlsSession;

/// Encrypted bytes that are prepared before the socket has taken any: two blocks. More would not make a call to the
/// system cheaper, and whoever does not read should not cost memory.
const WRITE_AHEAD: usize = 32_768;

/// Why a connection ended. For counters: nothing in it says who the client was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it, or the network broke.
    Closed,
    /// The TLS handshake or a TLS record was wrong.
    Tls,
    /// The SMP handshake or a block was wrong.
    Protocol,
    /// A handshake took too long.
    HandshakeTimeout,
    /// Newer handshakes needed the room.
    Evicted,
    /// The relay has as many connections as it takes.
    Full,
    /// The client did not take what was sent to it.
    SlowReader,
    /// The client was silent and had no subscriptions.
    Inactive,
    /// The relay stops.
    Stopping,
}

enum Stage {
    /// The TLS handshake, until a deadline.
    Tls { until: Instant },
    /// The SMP handshake, until a deadline.
    Hello { until: Instant, conversation: Box<Talk> },
    /// Commands and answers.
    Open(Box<Talk>),
    /// Nothing but what remains to be written, until a deadline.
    Closing { why: End, until: Instant },
    /// Over.
    Ended(End),
}

/// One connection.
pub struct RelayConnection {
    relay: Arc<Relay>,
    place: Place,
    tls: TlsSession,
    stage: Stage,
    /// Whether new commands are still read: not any more when the relay stops.
    reading: bool,
    /// When something was last received or sent.
    last_activity: Instant,
    /// Since when there are bytes that the client does not take.
    unread_since: Option<Instant>,
    /// Until when it may take what is left for it, when the relay stops.
    finish_until: Option<Instant>,
}

/// How long a closing connection may take to send its last bytes.
const CLOSING: core::time::Duration = core::time::Duration::from_secs(5);

impl RelayConnection {
    /// A connection that was just accepted from `address`.
    ///
    /// # Errors
    /// [`Refusal`] when there is no room for it.
    pub fn accept(relay: &Arc<Relay>, address: IpAddr) -> Result<Self, Refusal> {
        let place = relay.admission().admit(address)?;
        // An error here is the relay's own, and ends this connection like a failed handshake.
        let tls = TlsSession::server(relay.tls()).map_err(|_| Refusal::Failed)?;
        let now = relay.clock().instant();
        let until = now + relay.limits().tls_handshake;
        Ok(Self {
            relay: Arc::clone(relay),
            place,
            tls,
            stage: Stage::Tls { until },
            reading: true,
            last_activity: now,
            unread_since: None,
            finish_until: None,
        })
    }

    /// Why it is over, once it is.
    #[must_use]
    pub fn why(&self) -> Option<End> {
        match self.stage {
            Stage::Ended(why) => Some(why),
            _ => None,
        }
    }

    fn handle_events(&mut self, events: Events) {
        let in_handshake = matches!(self.stage, Stage::Tls { .. } | Stage::Hello { .. });
        if events.contains(Events::EVICTED) && in_handshake {
            return self.end(End::Evicted);
        }
        if events.contains(Events::DRAIN) {
            self.reading = false;
            if in_handshake {
                return self.end(End::Stopping);
            }
        }
        if let Stage::Open(conversation) = &mut self.stage {
            if events.contains(Events::READY) {
                conversation.something_is_ready();
            }
            if events.contains(Events::FINISH) {
                conversation.finish();
                self.finish_until = Some(self.relay.clock().instant() + CLOSING);
            }
        }
    }

    fn work_on_tls(&mut self) {
        if self.tls.process().is_err() {
            // The client may be told why: there can be an alert to write.
            return self.close(End::Tls);
        }
        let Some(facts) = self.tls.take_facts() else { return };
        let until = self.relay.clock().instant() + self.relay.limits().smp_handshake;
        match Talk::start(&self.relay, facts, &mut self.tls) {
            Ok(conversation) => self.stage = Stage::Hello { until, conversation: Box::new(conversation) },
            Err(why) => self.close(why),
        }
    }

    fn work_on_hello(&mut self) {
        let Stage::Hello { conversation, .. } = &mut self.stage else { return };
        match conversation.shake_hands(&self.relay, &mut self.tls, self.place.wakeup()) {
            Ok(false) => {}
            Ok(true) => {
                self.place.handshake_finished();
                if let Stage::Hello { conversation, .. } =
                    std::mem::replace(&mut self.stage, Stage::Ended(End::Closed))
                {
                    self.stage = Stage::Open(conversation);
                }
            }
            Err(why) => self.close(why),
        }
    }

    fn work_on_commands(&mut self) {
        let Stage::Open(conversation) = &mut self.stage else { return };
        if self.reading
            && let Err(why) = conversation.handle_blocks(&self.relay, &mut self.tls)
        {
            return self.close(why);
        }
        match conversation.say(&self.relay, &mut self.tls, WRITE_AHEAD) {
            Ok(everything) if everything && conversation.is_finishing() => self.close(End::Stopping),
            Ok(_) => {}
            Err(why) => self.close(why),
        }
    }

    /// Says goodbye, and ends when that is written.
    fn close(&mut self, why: End) {
        self.tls.close();
        let until = self.relay.clock().instant() + CLOSING;
        self.leave(Stage::Closing { why, until });
        if !self.tls.wants_write() {
            self.end(why);
        }
    }

    /// Ends at once.
    fn end(&mut self, why: End) {
        if !self.has_ended() {
            self.leave(Stage::Ended(why));
        }
    }

    fn leave(&mut self, next: Stage) {
        let left = std::mem::replace(&mut self.stage, next);
        if let Stage::Open(mut conversation) | Stage::Hello { mut conversation, .. } = left {
            conversation.end(&self.relay);
        }
    }
}

impl Driven for RelayConnection {
    fn work(&mut self) {
        let events = self.place.wakeup().take();
        if !events.is_empty() {
            self.handle_events(events);
        }
        if let Stage::Tls { .. } = self.stage {
            self.work_on_tls();
        }
        if let Stage::Hello { .. } = self.stage {
            self.work_on_hello();
        }
        if let Stage::Open(_) = self.stage {
            self.work_on_commands();
        }
        if let Stage::Closing { why, .. } = self.stage
            && !self.tls.wants_write()
        {
            self.end(why);
        }
    }

    fn wants_read(&self) -> bool {
        let open = match &self.stage {
            Stage::Tls { .. } | Stage::Hello { .. } => true,
            Stage::Open(conversation) => conversation.has_room() && !self.tls.wants_write(),
            Stage::Closing { .. } | Stage::Ended(_) => false,
        };
        open && self.reading && self.tls.wants_read()
    }

    fn read_from(&mut self, source: &mut impl Read) -> std::io::Result<bool> {
        if self.tls.read_tls(source)? == 0 {
            self.lost();
            return Ok(true);
        }
        self.last_activity = self.relay.clock().instant();
        // A read that leaves room was offered more room than there were bytes.
        Ok(self.tls.wants_read())
    }

    fn wants_write(&self) -> bool {
        self.tls.wants_write() && !matches!(self.stage, Stage::Ended(_))
    }

    fn write_to(&mut self, sink: &mut impl Write) -> std::io::Result<()> {
        let now = self.relay.clock().instant();
        match self.tls.write_tls(sink) {
            Ok(0) if self.tls.wants_write() => Err(std::io::ErrorKind::WriteZero.into()),
            Ok(_) => {
                self.last_activity = now;
                self.unread_since = None;
                Ok(())
            }
            Err(error) => {
                if error.kind() == std::io::ErrorKind::WouldBlock && self.unread_since.is_none() {
                    self.unread_since = Some(now);
                }
                Err(error)
            }
        }
    }

    fn poll_events(&self, waker: &Waker) -> bool {
        self.place.wakeup().poll(waker)
    }

    fn deadline(&self) -> Option<SystemInstant> {
        let of_stage = match &self.stage {
            Stage::Tls { until } | Stage::Hello { until, .. } | Stage::Closing { until, .. } => Some(*until),
            Stage::Open(_) => self.relay.inactive_after().map(|ttl| self.last_activity + ttl),
            Stage::Ended(_) => None,
        };
        let unread = self.unread_since.map(|since| since + self.relay.limits().slow_reader);
        let earliest = [of_stage, unread, self.finish_until].into_iter().flatten().min();
        earliest.and_then(|instant| self.relay.clock().system(instant))
    }

    fn handle_timeout(&mut self) {
        let now = self.relay.clock().instant();
        if self.unread_since.is_some_and(|since| now >= since + self.relay.limits().slow_reader) {
            return self.end(End::SlowReader);
        }
        if self.finish_until.is_some_and(|until| now >= until) {
            return self.end(End::Stopping);
        }
        match &mut self.stage {
            Stage::Tls { until } | Stage::Hello { until, .. } if now >= *until => {
                self.end(End::HandshakeTimeout);
            }
            Stage::Closing { until, why } if now >= *until => {
                let why = *why;
                self.end(why);
            }
            Stage::Open(conversation) => {
                if let Some(ttl) = self.relay.inactive_after()
                    && now >= self.last_activity + ttl
                {
                    if conversation.has_subscriptions(&self.relay) {
                        // Subscribers are expected to be silent: look again after the same time.
                        self.last_activity = now;
                        conversation.rest();
                    } else {
                        self.close(End::Inactive);
                    }
                }
            }
            _ => {}
        }
    }

    fn lost(&mut self) {
        self.end(End::Closed);
    }

    fn has_ended(&self) -> bool {
        matches!(self.stage, Stage::Ended(_))
    }
}

impl Drop for RelayConnection {
    fn drop(&mut self) {
        self.end(End::Closed);
    }
}
