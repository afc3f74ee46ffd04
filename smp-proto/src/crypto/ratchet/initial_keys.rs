//! What one party keeps between sending its ratchet parameters and having a ratchet.
//!
//! Stored form: `1 (format) ‖ private 1 (56) ‖ public 1 (56) ‖ private 2 ‖ public 2 ‖ kem`, where `kem` is `0` for none, `1 ‖
//! public (1,158) ‖ private (1,763)` for a proposal, and `2 ‖ ciphertext (1,039) ‖ shared (32) ‖ public ‖ private` for an
//! acceptance: 226 bytes without a KEM.

use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

use super::stored::{StateError, StateReader};
use crate::crypto::key_encapsulation::{KemCiphertext, KemKeyPair, KemShared, KeyEncapsulation};
use crate::crypto::x448;
use crate::entropy::Entropy;
use crate::keys::{X448Public, X448Secret};
use crate::wire::links::ratchet_parameters::{KemParameters, RatchetParameters};
use crate::wire::version::VersionRange;

/// The only format so far.
const FORMAT: u8 = 1;
const NO_KEM: u8 = 0;
const PROPOSED: u8 = 1;
const ACCEPTED: u8 = 2;

/// An X448 key pair; the public part is kept, since it costs as much as an agreement.
#[derive(Clone)]
pub(super) struct OwnKey {
    pub(super) secret: X448Secret,
    pub(super) public: X448Public,
}

impl OwnKey {
    pub(super) fn generate(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        let secret = X448Secret::generate(entropy);
        Self { public: x448::public_key(&secret), secret }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.secret.as_bytes());
        out.extend_from_slice(&self.public.0);
    }

    pub(super) fn read(read: &mut StateReader<'_>) -> Result<Self, StateError> {
        Ok(Self { secret: X448Secret::from_bytes(read.array()?), public: X448Public(read.array()?) })
    }
}

/// The post-quantum part of initial keys.
#[derive(Clone)]
pub(super) enum InitialKem {
    Proposed(KemKeyPair),
    Accepted { ciphertext: KemCiphertext, shared: KemShared, pair: KemKeyPair },
}

/// The private half of [`RatchetParameters`]: two X448 key pairs, and optionally keys of the KEM.
///
/// The party who shares a link keeps them until the other joined, the joining party until its ratchet is made. They are for
/// one ratchet only: then they must be deleted.
pub struct InitialKeys {
    pub(super) keys: [OwnKey; 2],
    pub(super) kem: Option<InitialKem>,
}

impl InitialKeys {
    /// Fresh keys, from the secret stream.
    #[must_use]
    pub fn generate(entropy: &mut (impl Entropy + ?Sized)) -> Self {
        Self { keys: [OwnKey::generate(entropy), OwnKey::generate(entropy)], kem: None }
    }

    /// The same keys, with a proposal to use the KEM. It goes out at version 3 only.
    #[must_use]
    pub fn proposing(self, algorithm: &dyn KeyEncapsulation, entropy: &mut dyn Entropy) -> Self {
        Self { kem: Some(InitialKem::Proposed(algorithm.generate(entropy))), ..self }
    }

    /// The joining party's answer to the KEM key in `peer`: the same keys, with an acceptance when there is one that is
    /// proposed, else with a proposal.
    #[must_use]
    pub fn accepting(
        self,
        peer: &RatchetParameters,
        algorithm: &dyn KeyEncapsulation,
        entropy: &mut dyn Entropy,
    ) -> Self {
        let Some(KemParameters::Proposed(key)) = &peer.kem else {
            return self.proposing(algorithm, entropy);
        };
        let pair = algorithm.generate(entropy);
        let (ciphertext, shared) = algorithm.encapsulate(entropy, key);
        Self { kem: Some(InitialKem::Accepted { ciphertext, shared, pair }), ..self }
    }

    /// The two public keys.
    #[must_use]
    pub const fn publics(&self) -> [X448Public; 2] {
        let [one, two] = &self.keys;
        [one.public, two.public]
    }

    /// What the other party gets: for `versions`, a range in a link, one version in a confirmation or in `AgentRatchetKey`.
    #[must_use]
    pub fn parameters(&self, versions: VersionRange) -> RatchetParameters {
        let kem = self.kem.as_ref().map(|kem| match kem {
            InitialKem::Proposed(pair) => KemParameters::Proposed(pair.public.clone()),
            InitialKem::Accepted { ciphertext, pair, .. } => {
                KemParameters::Accepted { ciphertext: ciphertext.clone(), key: pair.public.clone() }
            }
        });
        RatchetParameters { versions, keys: self.publics(), kem }
    }

    /// The stored form: 226 bytes without a KEM. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Room for everything, so that no copy of a secret stays behind when it grows.
        let mut out = Zeroizing::new(Vec::with_capacity(4_300));
        out.push(FORMAT);
        self.keys.iter().for_each(|key| key.write(&mut out));
        match &self.kem {
            None => out.push(NO_KEM),
            Some(InitialKem::Proposed(pair)) => {
                out.push(PROPOSED);
                write_pair(pair, &mut out);
            }
            Some(InitialKem::Accepted { ciphertext, shared, pair }) => {
                out.push(ACCEPTED);
                out.extend_from_slice(ciphertext.as_slice());
                out.extend_from_slice(shared.as_slice());
                write_pair(pair, &mut out);
            }
        }
        out
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`StateError`] when it is of another format, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StateError> {
        let mut read = StateReader::new(bytes);
        read.format(FORMAT)?;
        let keys = [OwnKey::read(&mut read)?, OwnKey::read(&mut read)?];
        let kem = match read.byte()? {
            NO_KEM => None,
            PROPOSED => Some(InitialKem::Proposed(read_pair(&mut read)?)),
            ACCEPTED => Some(InitialKem::Accepted {
                ciphertext: read.boxed()?,
                shared: Zeroizing::new(read.array()?),
                pair: read_pair(&mut read)?,
            }),
            _ => return Err(StateError::Damaged),
        };
        read.end()?;
        Ok(Self { keys, kem })
    }
}

pub(super) fn write_pair(pair: &KemKeyPair, out: &mut Vec<u8>) {
    out.extend_from_slice(pair.public.as_slice());
    out.extend_from_slice(pair.secret.as_bytes());
}

pub(super) fn read_pair(read: &mut StateReader<'_>) -> Result<KemKeyPair, StateError> {
    Ok(KemKeyPair { public: read.boxed()?, secret: read.kem_secret()? })
}

impl fmt::Debug for InitialKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("InitialKeys(..)")
    }
}
