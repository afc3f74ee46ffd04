//! The cryptography of SMP: one construction a file, over a swappable [`Provider`] of primitives.
//!
//! Owns every place where bytes become ciphertext, signature or key, and back. Never takes a clock or the operating
//! system's entropy, never panics on what a peer sent, never prints a secret. Inputs and outputs are plain bytes and the
//! types of [`keys`](crate::keys): this room knows no command and no state of a connection, except the two chain keys
//! that a session keeps.
//!
//! | file | construction | WIRE-FACTS |
//! |---|---|---|
//! | [`provider`], [`portable`] | the primitives, and their pure Rust implementation | 3 |
//! | [`nacl_box`], [`padding`], [`nonce`] | the box used everywhere, and what goes around it | 3 |
//! | [`authenticator`] | authorization of a command with an X25519 key | 4.8 |
//! | [`chain_keys`] | encryption of transport blocks | 4.6 |
//! | [`signatures`], [`ed25519_batch`] | Ed25519 and Ed448 | 4.8 |
//! | [`signed_key`], [`certificates`] | the key in a hello, and who signed it | 2, 4.3 |
//! | [`ids`] | identifiers that are computed or drawn | 7, 8.3 |
//! | [`message_body`] | relay to recipient, relay to notifier | 9 |
//! | [`envelope`] | client to client, opaque to relays | 9.1 |
//! | [`proxy_layers`] | client to relay through a proxy | 10 |
//! | [`link_keys`], [`link_data`] | keys and ids of short links, and the data behind them | 8.1, 8.2 |
//! | [`blob`] | values that a relay keeps for whoever has a link | extension |
//! | [`ratchet`] | agent to agent, end to end, message by message | 8.1, 11.3 |
//! | [`ratchet_aead`], [`x448`], [`key_encapsulation`] | the primitives of the ratchet | 2 |
//!
//! Messages and blocks are sealed and opened *in place*: the caller's buffer holds 16 bytes for the tag, then the text.

pub mod authenticator;
pub mod blob;
pub mod certificates;
pub mod chain_keys;
mod der;
pub mod ed25519_batch;
pub mod envelope;
pub mod forwarding;
pub mod ids;
pub mod key_encapsulation;
pub mod link_data;
pub mod link_keys;
pub mod message_body;
pub mod nacl_box;
pub mod nonce;
pub mod padding;
pub mod portable;
pub mod provider;
pub mod proxy_layers;
pub mod ratchet;
pub mod ratchet_aead;
pub mod signatures;
pub mod signed_key;
pub mod x448;

pub use nacl_box::{BoxError, BoxKey, SharedSecret, TAG_LENGTH};
pub use nonce::Nonce;
pub use portable::Portable;
pub use provider::{Ed25519Check, Forged, Provider};
