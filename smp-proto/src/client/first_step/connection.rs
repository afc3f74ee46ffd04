//! [`FirstStepClient`]: [`Holdings`] with the connection around them. It is made when something is to be done, kept while
//! something is held, made again after growing waits, and let go when there is nothing more to hear.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt;

use bytes::BytesMut;
use sha2::{Digest, Sha256};

use super::command::NotHeld;
use super::holdings::Holdings;
use crate::backoff::Backoff;
use crate::client::{Action, ClientMisuse};
use crate::entropy::Entropy;
use crate::session::facts::Protocol;
use crate::session::first_step::{FirstStepDial, FirstStepSession, Received};
use crate::session::{SessionError, TransportFacts};
use crate::time::{Duration, Instant, Now};
use crate::wire::block::BLOCK_LENGTH;
use crate::wire::primitives::Writer;

/// How a [`FirstStepClient`] connects.
#[derive(Clone, Debug)]
pub struct FirstStepClientConfig {
    /// Whom it speaks to.
    pub dial: FirstStepDial,
    /// The wait before the second attempt to connect; each further wait is twice as long.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
}

impl FirstStepClientConfig {
    /// The usual behaviour: delays of 2 s to 5 minutes.
    #[must_use]
    pub const fn new(dial: FirstStepDial) -> Self {
        Self { dial, first_delay: Duration::from_secs(2), longest_delay: Duration::from_secs(300) }
    }
}

enum Link {
    /// None, and none is wanted.
    Idle,
    /// None, until this time.
    Delayed(Instant),
    /// The driver is dialling.
    Dialling,
    Connected(Box<FirstStepSession>),
}

/// What is held under one token, and the connection by which it is spoken of. Driven as a [`Client`](crate::client::Client)
/// is: [`poll_action`](Self::poll_action), [`poll_block`](Self::poll_block), and the events of the
/// [`holdings`](Self::holdings).
pub struct FirstStepClient {
    config: FirstStepClientConfig,
    /// The commands. Call [`wake`](Self::wake) after using them.
    pub holdings: Holdings,
    link: Link,
    failures: u32,
    actions: VecDeque<Action>,
}

impl FirstStepClient {
    /// A client that does nothing until there is something to do: [`wake`](Self::wake).
    #[must_use]
    pub const fn new(config: FirstStepClientConfig, holdings: Holdings) -> Self {
        Self { config, holdings, link: Link::Idle, failures: 0, actions: VecDeque::new() }
    }

    /// Connects, when there is something to do and neither a connection nor a wait; lets go of a connection that nobody needs.
    pub fn wake(&mut self) {
        let wanted = self.holdings.wants_connection();
        match &self.link {
            Link::Idle if wanted => {
                self.link = Link::Dialling;
                self.actions.push_back(Action::Dial);
            }
            Link::Connected(_) if !wanted && !self.holdings.has_last_words() => {
                self.holdings.disconnected();
                self.link = Link::Idle;
                self.actions.push_back(Action::Close);
            }
            Link::Delayed(_) if !wanted => self.link = Link::Idle,
            Link::Idle | Link::Delayed(_) | Link::Dialling | Link::Connected(_) => {}
        }
    }

    /// Whether there is a connection, and blocks may be asked for.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.link, Link::Connected(_))
    }

    /// What the driver has to do. Dial `smp-proxy/1`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The driver has connected to the first-step relay, TLS included.
    ///
    /// # Errors
    /// [`ClientMisuse::NotDialling`].
    pub fn connected(
        &mut self,
        facts: TransportFacts,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        if !matches!(self.link, Link::Dialling) {
            return Err(ClientMisuse::NotDialling);
        }
        if facts.protocol != Protocol::FirstStep {
            self.actions.push_back(Action::Close);
            self.not_spoken(now, entropy);
            return Ok(());
        }
        let session = FirstStepSession::dial(&self.config.dial, facts, now, entropy);
        self.link = Link::Connected(Box::new(session));
        Ok(())
    }

    /// The driver could not connect, since the relay does not speak `smp-proxy/1`.
    pub fn not_spoken(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        self.lose(NotHeld::NotSpoken, now, entropy);
    }

    /// The driver could not connect, or the connection is lost.
    pub fn disconnected(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if matches!(self.link, Link::Connected(_) | Link::Dialling) {
            self.lose(NotHeld::Unreachable, now, entropy);
        }
    }

    fn lose(&mut self, because: NotHeld, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        let was_established = match core::mem::replace(&mut self.link, Link::Idle) {
            Link::Connected(session) => session.is_established(),
            _ => false,
        };
        if was_established {
            self.holdings.disconnected();
        } else {
            self.holdings.unreachable(because);
        }
        self.holdings.give_up(now);
        self.failures = self.failures.saturating_add(1);
        if self.holdings.wants_connection() {
            let backoff = Backoff { first: self.config.first_delay, longest: self.config.longest_delay };
            self.link = Link::Delayed(now.instant + backoff.after(self.failures, entropy));
        }
    }

    /// Takes a block of 16,384 bytes from the first-step relay.
    ///
    /// # Errors
    /// [`ClientMisuse`]. What the relay does wrong ends the connection.
    pub fn receive(
        &mut self,
        block: BytesMut,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), ClientMisuse> {
        let Link::Connected(session) = &mut self.link else { return Err(ClientMisuse::NotConnected) };
        let goes_on = match session.receive(block, now) {
            Ok(Received::Established) => {
                self.holdings.connected();
                true
            }
            Ok(Received::Content(block)) => {
                let goes_on = self.holdings.receive(block.content(), now);
                if goes_on {
                    self.failures = 0;
                }
                goes_on
            }
            Err(SessionError::Close(_)) => false,
            Err(SessionError::Misuse(misuse)) => return Err(ClientMisuse::Session(misuse)),
        };
        if !goes_on {
            self.actions.push_back(Action::Close);
            self.lose(NotHeld::Unreachable, now, entropy);
        }
        self.wake();
        Ok(())
    }

    /// The next block for the first-step relay.
    pub fn poll_block(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) -> Option<BytesMut> {
        let Link::Connected(session) = &mut self.link else { return None };
        if let Some(hello) = session.take_handshake_block() {
            return Some(hello);
        }
        if !session.is_established() {
            return None;
        }
        let content = self.holdings.poll_content(now, entropy)?;
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes: &mut [u8; BLOCK_LENGTH] = block.as_mut().try_into().ok()?;
        // Every content fits: it was made for this.
        session.seal(bytes, now, |out| out.put(&content).is_ok()).ok()?.then_some(block)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Idle | Link::Dialling => None,
            Link::Delayed(until) => Some(*until),
            Link::Connected(session) => {
                [session.next_deadline(), self.holdings.next_deadline()].into_iter().flatten().min()
            }
        }
    }

    /// Time has passed: there may be a block to be sent.
    pub fn handle_timeout(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        match &mut self.link {
            Link::Delayed(until) if *until <= now.instant => self.link = Link::Idle,
            Link::Connected(session) => {
                let late = session.handle_timeout(now).is_err();
                if late || !self.holdings.handle_timeout(now) {
                    self.actions.push_back(Action::Close);
                    self.lose(NotHeld::Unreachable, now, entropy);
                }
            }
            Link::Idle | Link::Delayed(_) | Link::Dialling => {}
        }
        self.wake();
    }

    /// Adds everything that decides what happens next to a digest.
    pub fn digest(&self, digest: &mut Sha256) {
        self.holdings.digest(digest);
        digest.update(self.failures.to_be_bytes());
        match &self.link {
            Link::Idle => digest.update([0]),
            Link::Delayed(until) => digest.update(until.as_micros().to_be_bytes()),
            Link::Dialling => digest.update([1]),
            Link::Connected(session) => digest.update(session.digest()),
        }
    }

    /// Asserts what must hold between any two inputs, for simulations.
    ///
    /// # Panics
    /// When the books do not agree: a bug.
    pub fn check(&self) {
        self.holdings.check();
        if !matches!(self.link, Link::Connected(_)) {
            assert!(!self.holdings.has_last_words(), "last words without a connection");
        }
    }
}

impl fmt::Debug for FirstStepClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = match &self.link {
            Link::Idle => "idle",
            Link::Delayed(_) => "delayed",
            Link::Dialling => "dialling",
            Link::Connected(_) => "connected",
        };
        formatter
            .debug_struct("FirstStepClient")
            .field("link", &link)
            .field("holdings", &self.holdings)
            .finish_non_exhaustive()
    }
}
