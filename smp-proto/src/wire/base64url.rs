//! Base64url as addresses and links use it (WIRE-FACTS 1.1, 18).
//!
//! Readers accept text without padding or with exactly the right padding, and nothing else: bits that do not count must
//! be zero.

use alloc::string::String;
use alloc::vec::Vec;

use base64ct::{Base64Url, Base64UrlUnpadded, Encoding};

/// The bytes as padded text.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    Base64Url::encode_string(bytes)
}

/// The bytes as text without padding.
#[must_use]
pub fn encode_unpadded(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// The bytes of padded or unpadded text; empty text gives no bytes.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<u8>> {
    if text.ends_with('=') {
        Base64Url::decode_vec(text).ok()
    } else {
        Base64UrlUnpadded::decode_vec(text).ok()
    }
}

/// Like [`decode`], where something must be there: inside addresses and links.
#[must_use]
pub fn decode_some(text: &str) -> Option<Vec<u8>> {
    decode(text).filter(|bytes| !bytes.is_empty())
}
