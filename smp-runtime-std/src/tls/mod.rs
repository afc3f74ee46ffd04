//! TLS 1.3 as SMP uses it (WIRE-FACTS 4.1 to 4.3), without IO, for both runtimes.
//!
//! Owns: everything between a socket's bytes and plaintext. [`ServerTls`] and [`ClientTls`] are made once,
//! [`TlsSession`] for each connection; when its handshake is complete it gives [`TlsFacts`], the only thing that the
//! protocol core has to know of TLS.
//!
//! - One suite, `TLS_CHACHA20_POLY1305_SHA256`; X25519; Ed25519 and Ed448 certificates; no resumption, no early data.
//! - The identity of a server is the fingerprint of the second certificate of its chain, and nothing else.
//! - The handshake is rustls's. After it, records are protected here, with keys that rustls derives (see the module
//!   `record` for the reasons): an idle connection holds no buffers and no cipher contexts.
//!
//! It must never: accept a server of another fingerprint, resume a session, log what it handles.

mod buffer;
mod configuration;
pub(crate) mod ed448;
mod error;
mod handshake;
mod provider;
mod record;
mod session;
mod traffic;
mod verification;

pub use configuration::{ApplicationProtocol, ClientTls, ClientTlsOptions, ServerTls, ServerTlsOptions};
pub use error::{Side, TlsError, TlsFailure};
pub use rustls::pki_types::UnixTime;
pub use rustls::time_provider::TimeProvider;
pub use session::{BLOCK, MAX_OUTGOING, TlsFacts, TlsSession};
pub use verification::{ChainError, ChainRoles, verify_client_chain, verify_server_chain};
