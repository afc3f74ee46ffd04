//! Encryption of transport blocks, one key a block (WIRE-FACTS 4.6).
//!
//! Two chains start from the secret of the hello keys: the server sends with A, the client with B. Each block moves its
//! chain one step, so that who finds a key cannot read what was sent before. A chain moves on even when its block turns
//! out too large or forged.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::nacl_box::{self, BoxError, BoxKey, SharedSecret, TAG_LENGTH};
use super::nonce::{NONCE_LENGTH, Nonce};
use super::padding::LENGTH_BYTES;
use super::provider::{Provider, derive};

/// The length of every block on the wire: 16,384 bytes.
pub const BLOCK_LENGTH: usize = 16_384;
/// Where the content of an encrypted block begins: after tag and length, at byte 18.
pub const CONTENT_OFFSET: usize = TAG_LENGTH + LENGTH_BYTES;
/// The largest content of an encrypted block: 16,366 bytes.
pub const MAX_ENCRYPTED_CONTENT: usize = BLOCK_LENGTH - CONTENT_OFFSET;
/// Where the content of a block that is only padded begins: at byte 2.
pub const PLAIN_CONTENT_OFFSET: usize = LENGTH_BYTES;
/// The largest content of a block that is only padded: 16,382 bytes.
pub const MAX_PLAIN_CONTENT: usize = BLOCK_LENGTH - LENGTH_BYTES;

/// The two chains of a connection, at their start.
#[derive(Debug)]
pub struct InitialChainKeys {
    /// The server sends with it, the client receives with it.
    pub server_sends: ChainKey,
    /// The client sends with it, the server receives with it.
    pub client_sends: ChainKey,
}

/// The state of one chain: 32 bytes, wiped on drop. It cannot be cloned, since a step must not be taken twice.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct ChainKey([u8; 32]);

/// What encrypts one block.
#[derive(Debug)]
pub struct BlockKey {
    /// The key.
    pub key: BoxKey,
    /// The nonce.
    pub nonce: Nonce,
}

impl InitialChainKeys {
    /// The chains of a connection with this session id, from the secret of the two hello keys.
    #[must_use]
    pub fn new(provider: &dyn Provider, session_id: &[u8], secret: &SharedSecret) -> Self {
        let keys = derive::<64>(provider, session_id, secret.as_bytes(), b"SimpleXSbChainInit");
        Self {
            server_sends: ChainKey(part(keys.as_slice(), 0)),
            client_sends: ChainKey(part(keys.as_slice(), 32)),
        }
    }
}

impl ChainKey {
    /// Takes a chain key as it is. The caller wipes its own copy.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The raw bytes, to compare with a vector.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Moves the chain one step, and returns the key of one block.
    pub fn step(&mut self, provider: &dyn Provider) -> BlockKey {
        let output = derive::<88>(provider, b"", &self.0, b"SimpleXSbChain");
        self.0 = part(output.as_slice(), 0);
        let mut key = part(output.as_slice(), 32);
        let block_key = BlockKey {
            key: BoxKey::from_symmetric(&key),
            nonce: Nonce(part::<NONCE_LENGTH>(output.as_slice(), 64)),
        };
        key.zeroize();
        block_key
    }

    /// Encrypts a block in place. Its content is at [`CONTENT_OFFSET`], `content_length` bytes.
    ///
    /// # Errors
    /// [`BoxError::TooLong`] when there is more content than [`MAX_ENCRYPTED_CONTENT`]; the chain has moved on anyway.
    pub fn seal_block(
        &mut self,
        provider: &dyn Provider,
        block: &mut [u8; BLOCK_LENGTH],
        content_length: usize,
    ) -> Result<(), BoxError> {
        let BlockKey { key, nonce } = self.step(provider);
        nacl_box::seal_padded_in_place(provider, &key, &nonce, block, content_length)
    }

    /// Decrypts a block in place, and returns its content.
    ///
    /// # Errors
    /// [`BoxError::Forged`] or [`BoxError::NotPadded`]: the connection cannot go on. The chain has moved on anyway.
    pub fn open_block<'a>(
        &mut self,
        provider: &dyn Provider,
        block: &'a mut [u8; BLOCK_LENGTH],
    ) -> Result<&'a mut [u8], BoxError> {
        let BlockKey { key, nonce } = self.step(provider);
        nacl_box::open_padded(provider, &key, &nonce, block)
    }
}

impl fmt::Debug for ChainKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ChainKey(..)")
    }
}

/// The bytes of `all` from `start`; zeros where there are none, which the callers' sizes exclude.
fn part<const LENGTH: usize>(all: &[u8], start: usize) -> [u8; LENGTH] {
    let mut part = [0; LENGTH];
    for (place, &byte) in part.iter_mut().zip(all.iter().skip(start)) {
        *place = byte;
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;
    use alloc::boxed::Box;

    fn chains() -> InitialChainKeys {
        InitialChainKeys::new(&Portable, &[5; 32], &SharedSecret::from_bytes([6; 32]))
    }

    fn block(content: &[u8]) -> Box<[u8; BLOCK_LENGTH]> {
        let mut block = Box::new([0xEE; BLOCK_LENGTH]);
        block[CONTENT_OFFSET..CONTENT_OFFSET + content.len()].copy_from_slice(content);
        block
    }

    #[test]
    fn blocks_are_read_in_the_order_in_which_they_were_sent() {
        let (mut sender, mut receiver) = (chains().server_sends, chains().server_sends);
        for content in [&b"first"[..], b"", &[9; MAX_ENCRYPTED_CONTENT]] {
            let mut block = block(content);
            assert_eq!(sender.seal_block(&Portable, &mut block, content.len()), Ok(()));
            assert!(content.is_empty() || block[CONTENT_OFFSET..].get(..content.len()) != Some(content));
            assert_eq!(receiver.open_block(&Portable, &mut block).as_deref(), Ok(content));
        }
        assert_eq!(sender.as_bytes(), receiver.as_bytes());
    }

    #[test]
    fn a_block_cannot_be_read_twice_changed_or_with_the_other_chain() {
        let mut sealed = block(b"text");
        assert_eq!(chains().server_sends.seal_block(&Portable, &mut sealed, 4), Ok(()));
        let mut receiver = chains().server_sends;
        assert!(receiver.open_block(&Portable, &mut sealed.clone()).is_ok());
        assert_eq!(receiver.open_block(&Portable, &mut sealed.clone()), Err(BoxError::Forged));
        assert_eq!(chains().client_sends.open_block(&Portable, &mut sealed.clone()), Err(BoxError::Forged));
        for index in [0, 15, 16, 18, BLOCK_LENGTH - 1] {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(chains().server_sends.open_block(&Portable, &mut changed), Err(BoxError::Forged));
        }
    }

    #[test]
    fn the_chain_moves_on_when_a_block_is_too_large_or_forged() {
        let (mut sender, mut stepped) = (chains().server_sends, chains().server_sends);
        stepped.step(&Portable);
        assert_eq!(
            sender.seal_block(&Portable, &mut block(b""), MAX_ENCRYPTED_CONTENT + 1),
            Err(BoxError::TooLong)
        );
        assert_eq!(sender.as_bytes(), stepped.as_bytes());
        stepped.step(&Portable);
        assert_eq!(sender.open_block(&Portable, &mut block(b"")), Err(BoxError::Forged));
        assert_eq!(sender.as_bytes(), stepped.as_bytes());
    }
}
