//! Blocks: every block on the wire is 16,384 bytes (WIRE-FACTS 4.4).

use super::primitives::{Full, Reader};

/// The size of every block on the wire, in bytes.
pub const BLOCK_LENGTH: usize = 16_384;
/// The most content that fits in a block without block encryption.
pub const PLAIN_CONTENT_LENGTH: usize = BLOCK_LENGTH - 2;
/// The most content that fits in a block with block encryption.
pub const ENCRYPTED_CONTENT_LENGTH: usize = BLOCK_LENGTH - 16 - 2;
/// The most bytes of transmissions (each with its 2-byte length) that go into one batch, in either kind of block.
pub const BATCH_LENGTH: usize = BLOCK_LENGTH - 19;
/// The most transmissions in one batch.
pub const BATCH_COUNT: usize = 255;
/// Where the content of a block without block encryption begins: after its length.
pub const PLAIN_CONTENT_START: usize = 2;

/// Completes a block without block encryption, whose content has been written at [`PLAIN_CONTENT_START`]: its length in
/// front, `#` behind it.
///
/// # Errors
/// [`Full`] when the block is not 16,384 bytes, or the content does not fit in it.
pub fn pad_plain(block: &mut [u8], content_length: usize) -> Result<(), Full> {
    if block.len() != BLOCK_LENGTH || content_length > PLAIN_CONTENT_LENGTH {
        return Err(Full);
    }
    let length = u16::try_from(content_length).map_err(|_| Full)?;
    let (front, content) = block.split_first_chunk_mut::<PLAIN_CONTENT_START>().ok_or(Full)?;
    *front = length.to_be_bytes();
    content.get_mut(content_length..).ok_or(Full)?.fill(b'#');
    Ok(())
}

/// The content of a block without block encryption. The padding is not checked.
#[must_use]
pub fn plain_content(block: &[u8]) -> Option<&[u8]> {
    if block.len() != BLOCK_LENGTH {
        return None;
    }
    Reader::new(block).large()
}
