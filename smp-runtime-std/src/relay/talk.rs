//! What is spoken on a connection once its TLS handshake is finished: SMP, or `smp-proxy/1`.

use std::sync::Arc;

use smp_proto::session::Protocol;

use super::Relay;
use super::connection::End;
use super::conversation::Conversation;
use super::holding::HoldingConversation;
use super::wakeup::Wakeup;
use crate::dialing::transport_facts;
use crate::tls::{TlsFacts, TlsSession};

/// One side's part of it. Every method is that of the conversation.
pub(super) enum Talk {
    Smp(Conversation),
    Holding(HoldingConversation),
}

impl Talk {
    /// Makes the session and queues its hello.
    pub(super) fn start(relay: &Relay, facts: TlsFacts, tls: &mut TlsSession) -> Result<Self, End> {
        let facts = transport_facts(facts).ok_or(End::Tls)?;
        match facts.protocol {
            Protocol::OldSmp | Protocol::Smp => Conversation::start(relay, facts, tls).map(Self::Smp),
            Protocol::FirstStep => HoldingConversation::start(relay, facts, tls).map(Self::Holding),
        }
    }

    pub(super) fn shake_hands(
        &mut self,
        relay: &Relay,
        tls: &mut TlsSession,
        bell: &Arc<Wakeup>,
    ) -> Result<bool, End> {
        match self {
            Self::Smp(talk) => talk.shake_hands(relay, tls, bell),
            Self::Holding(talk) => talk.shake_hands(relay, tls, bell),
        }
    }

    pub(super) fn handle_blocks(&mut self, relay: &Relay, tls: &mut TlsSession) -> Result<(), End> {
        match self {
            Self::Smp(talk) => talk.handle_blocks(relay, tls),
            Self::Holding(talk) => talk.handle_blocks(relay, tls),
        }
    }

    pub(super) fn say(&mut self, relay: &Relay, tls: &mut TlsSession, enough: usize) -> Result<bool, End> {
        match self {
            Self::Smp(talk) => talk.say(relay, tls, enough),
            Self::Holding(talk) => talk.say(relay, tls, enough),
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match self {
            Self::Smp(talk) => talk.has_room(),
            Self::Holding(talk) => talk.has_room(),
        }
    }

    pub(super) fn something_is_ready(&mut self) {
        match self {
            Self::Smp(talk) => talk.something_is_ready(),
            Self::Holding(talk) => talk.something_is_ready(),
        }
    }

    pub(super) fn finish(&mut self) {
        match self {
            Self::Smp(talk) => talk.finish(),
            Self::Holding(talk) => talk.finish(),
        }
    }

    pub(super) fn is_finishing(&self) -> bool {
        match self {
            Self::Smp(talk) => talk.is_finishing(),
            Self::Holding(talk) => talk.is_finishing(),
        }
    }

    /// Whether whoever came is expected to be silent: a subscriber.
    pub(super) fn has_subscriptions(&self, relay: &Relay) -> bool {
        match self {
            Self::Smp(talk) => talk.has_subscriptions(relay),
            Self::Holding(talk) => talk.awaits_something(relay),
        }
    }

    /// Gives back what only makes things faster: nothing was said for a long time.
    pub(super) fn rest(&mut self) {
        if let Self::Smp(talk) = self {
            talk.rest();
        }
    }

    pub(super) fn end(&mut self, relay: &Relay) {
        match self {
            Self::Smp(talk) => talk.end(relay),
            Self::Holding(talk) => talk.end(relay),
        }
    }
}
