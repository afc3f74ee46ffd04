//! Keys and ids of short links (WIRE-FACTS 8.2).
//!
//! A link carries the hash of what it leads to: whoever has the link can find, decrypt and check the data, and the server
//! that keeps the data can do neither.

use sha3::{Digest, Sha3_256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::nacl_box::BoxKey;
use super::provider::{Provider, derive};
use crate::wire::identifier::IDENTIFIER_LENGTH;
use crate::wire::links::short_link::LinkKeyBytes;

/// The key in a link: the SHA3-256 of the fixed data that it leads to, 32 bytes.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LinkKey([u8; 32]);

impl LinkKey {
    /// The key of a link to these fixed data (the encoded bytes, before signing).
    #[must_use]
    pub fn of(fixed_data: &[u8]) -> Self {
        Self(Sha3_256::digest(fixed_data).into())
    }

    /// The key that a link carries.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, for a link.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Where the data of a contact address are kept, and the key that they are boxed with.
    #[must_use]
    pub fn contact(&self, provider: &dyn Provider) -> ([u8; IDENTIFIER_LENGTH], BoxKey) {
        let derived = derive::<56>(provider, b"", &self.0, b"SimpleXContactLink");
        let (mut id, mut key) = ([0; IDENTIFIER_LENGTH], [0; 32]);
        for (place, &byte) in id.iter_mut().chain(key.iter_mut()).zip(derived.iter()) {
            *place = byte;
        }
        let box_key = BoxKey::from_symmetric(&key);
        key.zeroize();
        (id, box_key)
    }

    /// The key that the data of a one-time invitation are boxed with. The server chooses the link id.
    #[must_use]
    pub fn invitation(&self, provider: &dyn Provider) -> BoxKey {
        BoxKey::from_symmetric(&derive::<32>(provider, b"", &self.0, b"SimpleXInvLink"))
    }
}

impl From<&LinkKeyBytes> for LinkKey {
    fn from(key: &LinkKeyBytes) -> Self {
        Self(*key.as_bytes())
    }
}

impl From<&LinkKey> for LinkKeyBytes {
    fn from(key: &LinkKey) -> Self {
        Self::new(key.0)
    }
}

impl core::fmt::Debug for LinkKey {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("LinkKey(..)")
    }
}
