//! A new ratchet in a connection that exists, when the two sides have lost each other's keys: `AgentRatchetKey`.
//!
//! Either side may begin: it makes [`InitialKeys`], sends their parameters outside of the ratchet (the queues authenticate
//! them), and waits. Whoever gets such parameters answers with its own, unless it began itself, and has then all it needs:
//! the hashes of both sides' keys decide, the same way on both, who initiates and who joins. The joining side can write at
//! once and sends `EREADY`; the initiating side answers with its own `EREADY` when that came.
//!
//! [`Synchronization`] is what an agent keeps for a connection, with [`KeysHash`]es of parameters that were dealt with: the
//! same parameters come through several queues. Keys that were kept for late messages belong to the old ratchet and go with
//! it.

use core::cmp::Ordering;
use core::fmt;

use sha2::{Digest, Sha256};

use super::agreement::{AgreementError, Role};
use super::initial_keys::InitialKeys;
use super::receiving::DecryptError;
use super::state::Ratchet;
use crate::crypto::provider::Provider;
use crate::entropy::Entropy;
use crate::keys::X448Public;
use crate::wire::links::ratchet_parameters::RatchetParameters;
use crate::wire::version::VersionRange;

/// The SHA-256 of the two raw keys of ratchet parameters, one after the other: 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeysHash(pub [u8; 32]);

impl KeysHash {
    /// The hash of these two keys.
    #[must_use]
    pub fn of([one, two]: &[X448Public; 2]) -> Self {
        Self(Sha256::new().chain_update(one.0).chain_update(two.0).finalize().into())
    }
}

impl fmt::Debug for KeysHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeysHash(..)")
    }
}

/// Which side of the new agreement the owner of `own` is on: the lower hash initiates.
///
/// # Errors
/// [`AgreementError::OwnKeys`] when both are the same: then both would wait for the other.
pub fn role(own: &[X448Public; 2], peer: &[X448Public; 2]) -> Result<Role, AgreementError> {
    match KeysHash::of(own).cmp(&KeysHash::of(peer)) {
        Ordering::Less => Ok(Role::Initiating),
        Ordering::Greater => Ok(Role::Joining),
        Ordering::Equal => Err(AgreementError::OwnKeys),
    }
}

/// The new ratchet, from both sides' parameters. When the role is [`Role::Joining`], `EREADY` is to be sent with it.
///
/// # Errors
/// [`AgreementError`]; the old ratchet, if there is one, stays.
pub fn renegotiate(
    provider: &dyn Provider,
    own: &InitialKeys,
    peer: &RatchetParameters,
    supported: VersionRange,
    entropy: &mut (impl Entropy + ?Sized),
) -> Result<(Ratchet, Role), AgreementError> {
    let role = role(&own.publics(), &peer.keys)?;
    let ratchet = match role {
        Role::Initiating => Ratchet::initiate(provider, own, peer, supported)?,
        Role::Joining => Ratchet::join(provider, own, peer, supported, entropy)?,
    };
    Ok((ratchet, role))
}

/// Whether the two sides of a connection can read each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronization {
    /// They can.
    #[default]
    Good,
    /// A message could not be read: people may ask for a new ratchet.
    Allowed,
    /// Messages cannot be read any more: people must ask for a new ratchet. Nothing can be sent.
    Required,
    /// This side sent its parameters. Nothing can be sent.
    Started,
    /// Both sides have new ratchets; no message came yet.
    Agreed,
}

/// What to do with parameters that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKeys {
    /// Make new keys for the version in the parameters, send their parameters, then [`renegotiate`] with them.
    Answer,
    /// [`renegotiate`] with the keys that were sent when this side began.
    UseOwn,
    /// The peer begins once more though a ratchet was just agreed: take nothing, report it, and become
    /// [`Synchronization::Required`].
    Refuse,
}

impl Synchronization {
    /// After a message could not be read. (Not for one that [may be repeated](DecryptError::may_be_repeated) and was
    /// seen before.) A synchronization that is under way is not disturbed.
    #[must_use]
    pub const fn after_error(self, error: &DecryptError) -> Self {
        match (self, error) {
            (Self::Started | Self::Agreed, _) => self,
            // These say nothing about the keys.
            (
                _,
                DecryptError::Duplicate
                | DecryptError::Malformed
                | DecryptError::Header
                | DecryptError::Padding,
            ) => self,
            (_, DecryptError::ForgedHeader | DecryptError::TooFarAhead { .. } | DecryptError::Kem) => {
                Self::Required
            }
            // What is worse already stays.
            (Self::Required, _) => Self::Required,
            _ => Self::Allowed,
        }
    }

    /// After a message was read.
    #[must_use]
    pub const fn after_message(self) -> Self {
        match self {
            // Messages of the old ratchet still come.
            Self::Started => Self::Started,
            _ => Self::Good,
        }
    }

    /// When parameters came that were not dealt with before (compare [`KeysHash`]).
    #[must_use]
    pub const fn on_peer_keys(self) -> PeerKeys {
        match self {
            Self::Good | Self::Allowed | Self::Required => PeerKeys::Answer,
            Self::Started => PeerKeys::UseOwn,
            Self::Agreed => PeerKeys::Refuse,
        }
    }

    /// Whether this side may begin a synchronization without being forced to.
    #[must_use]
    pub const fn may_begin(self) -> bool {
        matches!(self, Self::Allowed | Self::Required)
    }

    /// Whether people's messages may be sent.
    #[must_use]
    pub const fn may_send(self) -> bool {
        !matches!(self, Self::Required | Self::Started | Self::Agreed)
    }
}
