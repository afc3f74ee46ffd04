//! The double ratchet of agents: end-to-end encryption with X448, AES-256-GCM and encrypted headers, as deployed.
//!
//! Owns the keys of one connection and what is done with them: the first agreement, the two chains, keys of messages that are
//! late, the stored form, and beginning anew. Never takes a clock or the system's entropy, never does IO, never panics on
//! what a peer or a disk gave, never prints a key. **A message that cannot be read changes nothing**; a message key is never
//! given out twice.
//!
//! | file | what | |
//! |---|---|---|
//! | `initial_keys` | [`InitialKeys`] | what is kept until there is a ratchet |
//! | `agreement` | [`agreed_version`], [`Role`] | X3DH |
//! | `state` | [`Ratchet`] | how it begins, what may be asked |
//! | `sending` | [`Ratchet::prepare`], [`SealingKey`] | a key is taken and persisted, then a text is encrypted |
//! | `receiving` | [`Ratchet::decrypt`] | a text, or one of the [`DecryptError`]s and no change |
//! | `skipped` | [`SkippedKeys`] | keys of late messages; how they changed |
//! | `stored` | [`Ratchet::to_bytes`] | the stored form |
//! | `renegotiation` | [`renegotiate`], [`Synchronization`] | `AgentRatchetKey` |
//! | `header`, `derivation` | | the bytes on the wire, the keys |
//!
//! # Versions
//! 2 and 3 ([`SUPPORTED_VERSIONS`]; 1 is refused). Version 3 has place for a post-quantum KEM in headers and parameters.
//! Everything about it is here except the algorithm, which a provider may bring
//! ([`key_encapsulation`](crate::crypto::Provider::key_encapsulation)); without one, peers who propose it get none, and
//! both go on without, as deployed agents do. Headers carry the newest version that their sender speaks, and the receiver
//! moves up.
//!
//! # Cost
//! Hardly more than its primitives (`cargo bench -p smp-proto --bench ratchet`): of a message of full size, sent and read in
//! one chain, 1.04 times them (22 µs, nearly all AES-256-GCM); of the first message of a new chain 1.00 times (1.8 ms,
//! nearly all of it three times X448).
//!
//! # Two agents
//! Alice shares a link; Bob joins, and writes while she is away.
//! ```
//! use smp_proto::crypto::Portable;
//! use smp_proto::crypto::ratchet::{
//!     InitialKeys, Ratchet, SUPPORTED_VERSIONS, SealingKey, SkippedKeys, agreed_version,
//! };
//! use smp_proto::entropy::SeededEntropy;
//! use smp_proto::wire::version::VersionRange;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut entropy = SeededEntropy::new([7; 32]);
//!
//! // Alice makes keys, persists them, and puts the public half into a link.
//! let alice_keys = InitialKeys::generate(&mut entropy);
//! let link = alice_keys.parameters(SUPPORTED_VERSIONS);
//! let stored = alice_keys.to_bytes();
//!
//! // Bob has a ratchet at once. He persists it, and what he sends to Alice: his own parameters, for one version.
//! let bob_keys = InitialKeys::generate(&mut entropy);
//! let version = agreed_version(SUPPORTED_VERSIONS, link.versions)?;
//! let confirmation = bob_keys.parameters(VersionRange::only(version));
//! let mut bob = Ratchet::join(&Portable, &bob_keys, &link, SUPPORTED_VERSIONS, &mut entropy)?;
//!
//! // Sending: take a key, persist it with the ratchet, then encrypt. After a crash the stored key gives the same bytes.
//! let key = bob.prepare(&Portable)?;
//! let (stored_bob, stored_key) = (bob.to_bytes(), key.to_bytes());
//! let mut message = key.seal(b"Hello Alice", 15_840)?;
//! assert_eq!(SealingKey::from_bytes(&stored_key)?.seal(b"Hello Alice", 15_840)?, message);
//!
//! // Alice, later. She cannot write before Bob's first message.
//! let alice_keys = InitialKeys::from_bytes(&stored)?;
//! let mut alice = Ratchet::initiate(&Portable, &alice_keys, &confirmation, SUPPORTED_VERSIONS)?;
//! let mut late = SkippedKeys::new();
//! assert!(!alice.can_send());
//!
//! // Receiving: read in place, then persist the ratchet and the change of the late keys in one write.
//! let read = alice.decrypt(&Portable, &mut late, &mut entropy, &mut message)?;
//! assert_eq!(read.text, b"Hello Alice");
//! for key in &read.skipped.added {
//!     let _row = (key.id(), key.to_bytes());
//! }
//! for _id in &read.skipped.removed { /* delete the row */ }
//! let stored_alice = alice.to_bytes();
//!
//! // And back.
//! let mut answer = alice.prepare(&Portable)?.seal(b"Hello Bob", 15_840)?;
//! let mut bob = Ratchet::from_bytes(&stored_bob)?;
//! assert_eq!(bob.decrypt(&Portable, &mut SkippedKeys::new(), &mut entropy, &mut answer)?.text, b"Hello Bob");
//! # Ok(())
//! # }
//! ```

mod agreement;
mod derivation;
mod header;
mod initial_keys;
mod receiving;
mod renegotiation;
mod sending;
mod skipped;
mod state;
mod stored;

pub use agreement::{AgreementError, Role, agreed_version};
pub use initial_keys::InitialKeys;
pub use receiving::{DecryptError, Decrypted};
pub use renegotiation::{KeysHash, PeerKeys, Synchronization, renegotiate, role};
pub use sending::{SealingKey, SendError};
pub use skipped::{
    MAX_AHEAD, MAX_KEPT, SKIPPED_KEY_LENGTH, SkippedChange, SkippedId, SkippedKey, SkippedKeys,
};
pub use state::Ratchet;
pub use stored::StateError;

use crate::wire::links::ratchet_parameters::KEM_VERSION;
use crate::wire::version::{Version, VersionRange};

/// The oldest version of the ratchet that is spoken: 2, the first to derive its first keys with HKDF.
pub const OLDEST_VERSION: Version = Version(2);
/// The newest version of the ratchet that is spoken: 3.
pub const NEWEST_VERSION: Version = KEM_VERSION;
/// What this side offers: 2 to 3.
pub const SUPPORTED_VERSIONS: VersionRange = VersionRange::between(OLDEST_VERSION, NEWEST_VERSION);
