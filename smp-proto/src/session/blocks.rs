//! Blocks of an established session: encrypted when both sides gave a key at v11 or later, only padded otherwise
//! (WIRE-FACTS 4.4, 4.6). The same on both sides.

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

use super::close::{CloseReason, Misuse, SessionError};
use super::facts::SessionId;
use crate::crypto::chain_keys::{CONTENT_OFFSET, ChainKey, InitialChainKeys, PLAIN_CONTENT_OFFSET};
use crate::crypto::{Provider, SharedSecret};
use crate::wire::block::{BLOCK_LENGTH, pad_plain, plain_content};

/// A block that was received, and decrypted in place. Everything that is parsed out of it borrows from it.
#[derive(Clone, Debug)]
pub struct OpenedBlock {
    block: Bytes,
    start: usize,
    length: usize,
}

impl OpenedBlock {
    /// A part of bytes that were decrypted in another way.
    pub(crate) const fn part_of(block: Bytes, start: usize, length: usize) -> Self {
        Self { block, start, length }
    }

    /// A block with this content, for tests.
    #[cfg(test)]
    pub(crate) const fn with_content(content: Bytes) -> Self {
        let length = content.len();
        Self { block: content, start: 0, length }
    }

    /// The content: a batch of transmissions.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        self.start
            .checked_add(self.length)
            .and_then(|end| self.block.get(self.start..end))
            .unwrap_or_default()
    }

    /// The content, sharing the block: it lives as long as what is kept of it.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let end = self.start.saturating_add(self.length).min(self.block.len());
        self.block.slice(self.start.min(end)..end)
    }

    /// Shares a part of the block, such as a message body, without copying it: the block then lives as long as the
    /// part. What is not a part of this block is copied.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        let offset = (part.as_ptr() as usize).checked_sub(self.block.as_ptr() as usize);
        let range = offset.and_then(|start| Some(start..start.checked_add(part.len())?));
        match range.filter(|range| range.end <= self.block.len()) {
            Some(range) => self.block.slice(range),
            None => Bytes::copy_from_slice(part),
        }
    }
}

/// How blocks are protected, in each direction.
#[derive(Debug)]
pub(super) enum BlockProtection {
    /// Only padded.
    Padded,
    /// Encrypted, with the keys of the next block.
    Encrypted {
        /// For blocks that this side sends.
        sending: ChainKey,
        /// For blocks that this side receives.
        receiving: ChainKey,
    },
}

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The one that accepted it.
    Relay,
    /// The one that dialled.
    Client,
}

impl BlockProtection {
    /// Encryption with the chain keys of this connection.
    pub(super) fn encrypted(
        provider: &dyn Provider,
        session: &SessionId,
        secret: &SharedSecret,
        end: End,
    ) -> Self {
        let keys = InitialChainKeys::new(provider, session.as_bytes(), secret);
        match end {
            End::Relay => Self::Encrypted { sending: keys.server_sends, receiving: keys.client_sends },
            End::Client => Self::Encrypted { sending: keys.client_sends, receiving: keys.server_sends },
        }
    }

    /// Enters the keys of the next blocks into a digest.
    pub(super) fn digest_into(&self, digest: &mut Sha256) {
        if let Self::Encrypted { sending, receiving } = self {
            digest.update(Sha256::digest(sending.as_bytes()));
            digest.update(Sha256::digest(receiving.as_bytes()));
        }
    }

    /// Decrypts a block in place.
    pub(super) fn open(
        &mut self,
        provider: &dyn Provider,
        mut block: BytesMut,
    ) -> Result<OpenedBlock, SessionError> {
        let received = block.len();
        let bytes: &mut [u8; BLOCK_LENGTH] =
            block.as_mut().try_into().map_err(|_| Misuse::BlockLength(received))?;
        let (start, length) = match self {
            Self::Padded => {
                (PLAIN_CONTENT_OFFSET, plain_content(bytes).ok_or(CloseReason::BlockUnreadable)?.len())
            }
            Self::Encrypted { receiving, .. } => {
                let content =
                    receiving.open_block(provider, bytes).map_err(|_| CloseReason::BlockUnreadable)?;
                (CONTENT_OFFSET, content.len())
            }
        };
        Ok(OpenedBlock { block: block.freeze(), start, length })
    }

    /// Where the content of a block that is to be sent must be written.
    pub(super) const fn content_offset(&self) -> usize {
        match self {
            Self::Padded => PLAIN_CONTENT_OFFSET,
            Self::Encrypted { .. } => CONTENT_OFFSET,
        }
    }

    /// Completes a block whose content has been written at [`content_offset`](Self::content_offset).
    ///
    /// The length is at most that of a batch, which fits in either kind of block.
    pub(super) fn seal(&mut self, provider: &dyn Provider, block: &mut [u8; BLOCK_LENGTH], length: usize) {
        let sealed = match self {
            Self::Padded => pad_plain(block, length).is_ok(),
            Self::Encrypted { sending, .. } => sending.seal_block(provider, block, length).is_ok(),
        };
        debug_assert!(sealed, "a batch fits in a block");
        if !sealed {
            // Unreachable, but a block must never leave in the clear: an empty one is refused by its reader.
            block.fill(0);
        }
    }
}

/// Fills a fresh handshake block.
pub(super) fn handshake_block<E>(
    write: impl FnOnce(&mut crate::wire::primitives::SliceWriter<'_>) -> Result<(), E>,
) -> Option<BytesMut> {
    let mut block = BytesMut::zeroed(BLOCK_LENGTH);
    let content = block.get_mut(PLAIN_CONTENT_OFFSET..)?;
    let mut out = crate::wire::primitives::SliceWriter::new(content);
    write(&mut out).ok()?;
    let length = out.written();
    pad_plain(&mut block, length).ok()?;
    Some(block)
}
