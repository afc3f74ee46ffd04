//! One transport connection, either side: handshake, block encryption, batches, authorization (WIRE-FACTS 4).
//! Connections of `smp-proxy/1` have sessions of their own, with the same handshake: [`first_step`].
//!
//! A session owns what belongs to one connection: its keys, the version agreed on, the chain keys of its blocks. It
//! never knows a queue's state: what a relay decides is the broker's business, and what a client wants is the client's.
//! So a relay handles a block in three steps, of which only the cheap ones touch shared state:
//!
//! ```text
//!   block ──▶ ServerSession::receive   decrypts it in place
//!             ServerSession::parse     its transmissions as Requests, borrowed from the block
//!             Broker::look_up          per request: which keys would authorize it (cheap, shared)
//!             ServerSession::verify    signatures and authenticators (expensive, parallel) ──▶ Verified
//!             Broker::execute          takes only what is Verified (cheap, shared)
//!   block ◀── ServerSession::pack      the connection's Outgoing, encoded, boxed and encrypted in the block itself
//! ```

mod blocks;
pub mod client;
pub mod close;
pub mod credential;
pub mod facts;
pub mod first_step;
pub mod forwarded;
pub mod forwarding;
mod handshake;
pub mod identity;
pub mod outgoing;
mod packing;
pub mod request;
pub mod server;
pub mod service;
mod shared_secrets;
mod verification;

pub use blocks::OpenedBlock;
pub use close::{CloseReason, Misuse, SessionError};
pub use credential::AuthSecret;
pub use facts::{Protocol, SessionId, TransportFacts};
pub use verification::{CommandVerifier, VerifiedChunk};
