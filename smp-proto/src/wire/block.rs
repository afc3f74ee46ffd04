//! Blocks: every block on the wire is 16,384 bytes (WIRE-FACTS 4.4).

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
