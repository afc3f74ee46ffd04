//! The first agreement (X3DH): from the parameters of two parties to the keys with which their ratchets begin.
//!
//! The *initiating* party sent its parameters first (in a link); the *joining* party answers, makes its own ratchet at once,
//! and can write before the other is online. Each has two X448 keys; three secrets are agreed: initiating 1 with joining 2,
//! initiating 2 with joining 1, and the two second keys. Associated data of everything after: the first key of the
//! joining party ‖ the first key of the initiating party, 112 bytes.

use core::fmt;

use super::derivation::{self, AgreedKeys};
use super::initial_keys::{InitialKem, InitialKeys};
use super::{NEWEST_VERSION, OLDEST_VERSION};
use crate::crypto::key_encapsulation::{KemCiphertext, KemKeyPair, KemShared};
use crate::crypto::provider::Provider;
use crate::crypto::x448;
use crate::keys::X448Public;
use crate::wire::links::ratchet_parameters::{KEM_VERSION, KemParameters, RatchetParameters};
use crate::wire::version::{Version, VersionRange};

/// The length of the associated data: 112 bytes.
pub(super) const ASSOCIATED_LENGTH: usize = 112;

/// Which side of the agreement a party is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sent its parameters first, or has the lower hash in a re-negotiation. Can write after the other's first message.
    Initiating,
    /// Answered, or has the higher hash. Can write at once.
    Joining,
}

/// Why two parties cannot begin a ratchet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgreementError {
    /// They have no version of the ratchet in common.
    Version {
        /// What the peer speaks.
        offered: VersionRange,
    },
    /// The peer accepted a post-quantum key that was not proposed to it, or the other way round.
    Kem,
    /// The peer sent this party's own keys.
    OwnKeys,
}

impl fmt::Display for AgreementError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { offered } => write!(
                formatter,
                "the other side speaks versions {} to {} of the double ratchet, this side {} to {}: the older of the two \
                 must be updated",
                offered.min().0,
                offered.max().0,
                OLDEST_VERSION.0,
                NEWEST_VERSION.0
            ),
            Self::Kem => formatter.write_str(
                "the other side's post-quantum keys do not answer those that were sent to it: connect anew",
            ),
            Self::OwnKeys => formatter.write_str(
                "the ratchet keys that came are this side's own: somebody sent them back, connect anew",
            ),
        }
    }
}

impl core::error::Error for AgreementError {}

/// The version at which two parties begin: the newest that both speak. What the joining party sends its parameters for.
///
/// # Errors
/// [`AgreementError::Version`] when there is none.
pub fn agreed_version(supported: VersionRange, offered: VersionRange) -> Result<Version, AgreementError> {
    supported.intersection(offered).map(VersionRange::max).ok_or(AgreementError::Version { offered })
}

/// What an agreement gives.
pub(super) struct Agreement {
    pub(super) associated: [u8; ASSOCIATED_LENGTH],
    pub(super) keys: AgreedKeys,
    pub(super) kem: AgreedKem,
}

/// What an agreement gives for the KEM.
#[derive(Default)]
pub(super) struct AgreedKem {
    /// The keys that the peer can encapsulate to.
    pub(super) own: Option<KemKeyPair>,
    /// The secret that is part of the agreement.
    pub(super) shared: Option<KemShared>,
    /// Its form for the peer.
    pub(super) ciphertext: Option<KemCiphertext>,
}

/// The agreement as the joining party makes it.
pub(super) fn join(
    provider: &dyn Provider,
    version: Version,
    own: &InitialKeys,
    peer: &RatchetParameters,
) -> Result<Agreement, AgreementError> {
    let [own_one, own_two] = &own.keys;
    let [peer_one, peer_two] = &peer.keys;
    let kem = match &own.kem {
        Some(kem) if version >= KEM_VERSION => match (kem, &peer.kem) {
            (InitialKem::Accepted { ciphertext, shared, pair }, Some(KemParameters::Proposed(_))) => {
                AgreedKem {
                    own: Some(pair.clone()),
                    shared: Some(shared.clone()),
                    ciphertext: Some(ciphertext.clone()),
                }
            }
            (InitialKem::Accepted { .. }, _) => return Err(AgreementError::Kem),
            // In a re-negotiation both sides propose.
            (InitialKem::Proposed(pair), _) => AgreedKem { own: Some(pair.clone()), ..AgreedKem::default() },
        },
        _ => AgreedKem::default(),
    };
    let secrets = [
        &*x448::agree(&own_two.secret, peer_one),
        &*x448::agree(&own_one.secret, peer_two),
        &*x448::agree(&own_two.secret, peer_two),
    ];
    let keys = derivation::agreed(provider, secrets, kem.shared.as_ref());
    Ok(Agreement { associated: associated(&own_one.public, peer_one), keys, kem })
}

/// The agreement as the initiating party makes it.
pub(super) fn initiate(
    provider: &dyn Provider,
    version: Version,
    own: &InitialKeys,
    peer: &RatchetParameters,
) -> Result<Agreement, AgreementError> {
    let [own_one, own_two] = &own.keys;
    let [peer_one, peer_two] = &peer.keys;
    let kem = match &peer.kem {
        Some(KemParameters::Accepted { ciphertext, .. }) if version >= KEM_VERSION => {
            let Some(InitialKem::Proposed(pair)) = &own.kem else { return Err(AgreementError::Kem) };
            let algorithm = provider.key_encapsulation().ok_or(AgreementError::Kem)?;
            AgreedKem {
                shared: Some(algorithm.decapsulate(&pair.secret, ciphertext)),
                own: Some(pair.clone()),
                ciphertext: None,
            }
        }
        _ => AgreedKem::default(),
    };
    let secrets = [
        &*x448::agree(&own_one.secret, peer_two),
        &*x448::agree(&own_two.secret, peer_one),
        &*x448::agree(&own_two.secret, peer_two),
    ];
    let keys = derivation::agreed(provider, secrets, kem.shared.as_ref());
    Ok(Agreement { associated: associated(peer_one, &own_one.public), keys, kem })
}

fn associated(joining: &X448Public, initiating: &X448Public) -> [u8; ASSOCIATED_LENGTH] {
    let mut bytes = [0; ASSOCIATED_LENGTH];
    for (place, &byte) in bytes.iter_mut().zip(joining.0.iter().chain(&initiating.0)) {
        *place = byte;
    }
    bytes
}
