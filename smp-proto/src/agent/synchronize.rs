//! Beginning the ratchet anew, when the two sides have come apart: one was restored from an old copy, say.
//!
//! Either side sends fresh keys (`AgentRatchetKey`), which only the queue's own encryption protects; the other answers with
//! its own. Both then have the same new ratchet; who writes first is decided by the hashes of the keys, and says so
//! (`EREADY`), so that the other can write too.

use alloc::vec::Vec;

use super::commands::CommandError;
use super::event::{DroppedBecause, Event};
use super::live::Live;
use super::machine::{Connections, Core};
use super::record::connection::{REMEMBERED_KEYS, Stage};
use super::record::message::{OutgoingContent, OutgoingKind};
use super::storage::{ConnectionId, RecordKey};
use crate::crypto::ratchet::{
    DecryptError, InitialKeys, KeysHash, PeerKeys, Role, Synchronization, renegotiate,
};
use crate::entropy::Entropy;
use crate::time::Now;
use crate::wire::agent_message::{AgentEnvelope, AgentEnvelopeContent, AgentMessage, AgentMessageContent};
use crate::wire::links::ratchet_parameters::RatchetParameters;
use crate::wire::version::{Version, VersionRange};

impl Connections {
    /// Begins the encryption with this peer anew. Without `force`, only when something could not be decrypted; never while
    /// the peer's answer is awaited.
    ///
    /// # Errors
    /// [`CommandError::UnknownConnection`], [`CommandError::Stage`].
    pub fn synchronize(
        &mut self,
        id: ConnectionId,
        force: bool,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), CommandError> {
        let live = self.lives.get_mut(&id).ok_or(CommandError::UnknownConnection)?;
        if live.connection.stage != Stage::Connected {
            return Err(CommandError::Stage(live.connection.stage.name()));
        }
        match live.connection.synchronization {
            Synchronization::Started => {
                return Err(CommandError::Stage("waiting for the other side's new keys"));
            }
            state if !force && !state.may_begin() => {
                return Err(CommandError::Stage("in step with the other side"));
            }
            _ => {}
        }
        let keys = InitialKeys::generate(entropy);
        let version = self.core.config.ratchet_versions.max();
        live.send_keys(&mut self.core, &keys, version, entropy);
        live.connection.keys = Some(keys.to_bytes());
        live.synchronization_is(&mut self.core, Synchronization::Started);
        self.run(now, entropy);
        Ok(())
    }
}

impl Live {
    fn synchronization_is(&mut self, core: &mut Core, state: Synchronization) {
        if self.connection.synchronization != state {
            self.connection.synchronization = state;
            core.event(Event::Synchronized { connection: self.id, state });
            self.changed(core);
        }
    }

    /// Something could not be decrypted.
    pub fn decryption_failed(&mut self, core: &mut Core, error: &DecryptError) {
        if self.connection.stage == Stage::Connected {
            self.synchronization_is(core, self.connection.synchronization.after_error(error));
        }
    }

    /// Something was decrypted.
    pub fn decryption_worked(&mut self, core: &mut Core) {
        self.synchronization_is(core, self.connection.synchronization.after_message());
    }

    /// Tells the peer our keys. Takes no number: the chain of messages goes on as if it had not been sent.
    fn send_keys(
        &mut self,
        core: &mut Core,
        keys: &InitialKeys,
        version: Version,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let mut information = Vec::new();
        let mut envelope = Vec::new();
        let ratchet = keys.parameters(VersionRange::only(version));
        // Neither can be full: a `Vec` takes all, and nothing in it is long.
        let _ = AgentMessage::RatchetInformation(&[]).encode(&mut information);
        let content = AgentEnvelopeContent::RatchetKey { ratchet, information: &information };
        let _ = AgentEnvelope { version: core.config.agent_versions.max(), content }.encode(&mut envelope);
        let content = OutgoingContent::Envelope(envelope);
        self.enqueue(core, OutgoingKind::RatchetKey, None, 0, true, content, entropy);
    }

    /// The peer's keys for a new ratchet.
    pub fn ratchet_key(
        &mut self,
        core: &mut Core,
        parameters: &RatchetParameters,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), DroppedBecause> {
        let KeysHash(hash) = KeysHash::of(&parameters.keys);
        if self.connection.remembered_keys.contains(&hash) {
            return Ok(());
        }
        if self.connection.stage != Stage::Connected || self.has_too_many_waiting(core) {
            return Err(DroppedBecause::Unexpected);
        }
        let supported = core.config.ratchet_versions;
        let unknown = DroppedBecause::Version(parameters.versions.max());
        if !supported.contains(parameters.versions.max()) {
            return Err(unknown);
        }
        let stored = self.connection.keys.as_ref().and_then(|keys| InitialKeys::from_bytes(keys).ok());
        let (own, answers) = match (self.connection.synchronization.on_peer_keys(), stored) {
            (PeerKeys::UseOwn, Some(own)) => (own, false),
            // Deployed agents refuse keys that come before anything was read with the last ones, and wait for a person. We
            // answer: whoever sends fresh keys has no use for the last ones, and since nobody begins again while waiting
            // for an answer, every beginning gets one.
            (PeerKeys::Answer | PeerKeys::UseOwn | PeerKeys::Refuse, _) => {
                (InitialKeys::generate(entropy), true)
            }
        };
        let (ratchet, role) =
            renegotiate(core.config.provider, &own, parameters, supported, entropy).map_err(|_| unknown)?;
        if answers {
            self.send_keys(core, &own, parameters.versions.max(), entropy);
        }
        for key in core::mem::take(&mut self.skipped).iter() {
            core.touch(RecordKey::Skipped(self.id, key.id()));
        }
        self.ratchet = Some(ratchet);
        self.ratchet_changed(core);
        self.connection.keys = None;
        if self.connection.remembered_keys.len() >= REMEMBERED_KEYS {
            self.connection.remembered_keys.pop_front();
        }
        self.connection.remembered_keys.push_back(hash);
        self.changed(core);
        self.synchronization_is(core, Synchronization::Agreed);
        if role == Role::Joining {
            self.say_ready(core, entropy);
        }
        Ok(())
    }

    /// `EREADY` came. Who could not write before it, says it too.
    pub fn ratchet_ready(
        &mut self,
        core: &mut Core,
        could_answer_before: bool,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if !could_answer_before {
            self.say_ready(core, entropy);
        }
    }

    fn say_ready(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        let content = AgentMessageContent::RatchetReady(self.connection.received.number);
        // Whoever says it can send, and it is short. If it got lost, the next message would do as well.
        let _ = self.compose(core, OutgoingKind::RatchetReady, None, true, content, entropy);
    }
}
