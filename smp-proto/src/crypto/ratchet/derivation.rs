//! The keys of a ratchet, and how each is derived from the one before: HKDF-SHA512, 96 bytes a step.
//!
//! | step | salt | input | info | output |
//! |---|---|---|---|---|
//! | agreement | 64 zeros | three X448 secrets (‖ KEM) | `SimpleXX3DH` | header key ‖ next header key ‖ root key |
//! | root | root key | X448 secret (‖ KEM) | `SimpleXRootRatchet` | root key ‖ chain key ‖ next header key |
//! | chain | none | chain key | `SimpleXChainRatchet` | chain key ‖ message key ‖ IV of the text ‖ IV of the header |

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::key_encapsulation::{KEM_SHARED_LENGTH, KemShared};
use crate::crypto::provider::{Provider, derive};
use crate::crypto::ratchet_aead::IV_LENGTH;

/// The length of every key here.
pub(super) const KEY_LENGTH: usize = 32;
/// The length of a raw X448 secret.
const SECRET_LENGTH: usize = 56;

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub(super) struct $name([u8; KEY_LENGTH]);

        impl $name {
            pub(super) const fn from_bytes(bytes: [u8; KEY_LENGTH]) -> Self {
                Self(bytes)
            }

            pub(super) const fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

secret_key!(
    /// What all later keys come from, with the secrets that are agreed on the way.
    RootKey
);
secret_key!(
    /// What the keys of the messages of one chain come from.
    ChainKey
);
secret_key!(
    /// Encrypts the headers of one chain.
    HeaderKey
);

/// Encrypts the text of one message.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct MessageKey {
    pub(super) key: [u8; KEY_LENGTH],
    pub(super) iv: [u8; IV_LENGTH],
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MessageKey(..)")
    }
}

/// What both parties know after the agreement.
pub(super) struct AgreedKeys {
    /// Of the joining party's first chain.
    pub(super) header: HeaderKey,
    /// Of the initiating party's first chain.
    pub(super) next_header: HeaderKey,
    pub(super) root: RootKey,
}

/// What a root step gives.
pub(super) struct RootStep {
    pub(super) root: RootKey,
    pub(super) chain: ChainKey,
    pub(super) next_header: HeaderKey,
}

/// What a chain step gives.
pub(super) struct ChainStep {
    pub(super) next: ChainKey,
    pub(super) message: MessageKey,
    pub(super) header_iv: [u8; IV_LENGTH],
}

/// `LENGTH` of 96 derived bytes. The offsets are those of this file, so that there always are as many.
fn part<const LENGTH: usize>(derived: &[u8; 96], offset: usize) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    for (place, &byte) in bytes.iter_mut().zip(derived.iter().skip(offset)) {
        *place = byte;
    }
    bytes
}

pub(super) fn agreed(
    provider: &dyn Provider,
    secrets: [&[u8; SECRET_LENGTH]; 3],
    kem: Option<&KemShared>,
) -> AgreedKeys {
    let mut input = Zeroizing::new([0; 3 * SECRET_LENGTH + KEM_SHARED_LENGTH]);
    let parts = secrets.into_iter().flatten().chain(kem.into_iter().flat_map(|kem| kem.iter()));
    let length = fill(input.as_mut_slice(), parts);
    let derived = derive::<96>(provider, &[0; 64], input.get(..length).unwrap_or_default(), b"SimpleXX3DH");
    AgreedKeys {
        header: HeaderKey(part(&derived, 0)),
        next_header: HeaderKey(part(&derived, 32)),
        root: RootKey(part(&derived, 64)),
    }
}

pub(super) fn root_step(
    provider: &dyn Provider,
    root: &RootKey,
    secret: &[u8; SECRET_LENGTH],
    kem: Option<&KemShared>,
) -> RootStep {
    let mut input = Zeroizing::new([0; SECRET_LENGTH + KEM_SHARED_LENGTH]);
    let length = fill(input.as_mut_slice(), secret.iter().chain(kem.into_iter().flat_map(|kem| kem.iter())));
    let input = input.get(..length).unwrap_or_default();
    let derived = derive::<96>(provider, &root.0, input, b"SimpleXRootRatchet");
    RootStep {
        root: RootKey(part(&derived, 0)),
        chain: ChainKey(part(&derived, 32)),
        next_header: HeaderKey(part(&derived, 64)),
    }
}

pub(super) fn chain_step(provider: &dyn Provider, chain: &ChainKey) -> ChainStep {
    let derived = derive::<96>(provider, b"", &chain.0, b"SimpleXChainRatchet");
    ChainStep {
        next: ChainKey(part(&derived, 0)),
        message: MessageKey { key: part(&derived, 32), iv: part(&derived, 64) },
        header_iv: part(&derived, 80),
    }
}

/// Writes `bytes` from the front of `place`, and returns how many there were.
fn fill<'a>(place: &mut [u8], bytes: impl Iterator<Item = &'a u8>) -> usize {
    let mut length = 0;
    for (place, &byte) in place.iter_mut().zip(bytes) {
        *place = byte;
        length += 1;
    }
    length
}
