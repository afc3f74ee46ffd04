//! Bytes to types and back, without state and without cryptography (WIRE-FACTS 1, 2, 4–6, 11).
//!
//! Every reader is total: arbitrary bytes give a value or an error of the protocol, never a panic, and no reader
//! copies a message body. Every writer produces exactly what the reference implementation produces; the vectors in
//! `tests/vectors` are the judge.

pub mod address;
pub mod agent_message;
pub mod base64url;
pub mod block;
pub mod command;
pub mod error;
pub mod first_step;
pub mod hello;
pub mod identifier;
pub mod links;
pub mod percent_encoding;
pub mod primitives;
pub mod queue_uri;
pub mod response;
pub mod transmission;
pub mod version;

pub use identifier::{CorrelationId, EntityId, Identifier};
