//! The first-step relay of `smp-proxy/1`: holds commands for other relays, tries again, and says what became of them
//! (EXTENSIONS, First-step relay; seeds, first-step-relays).
//!
//! Owns: what clients have registered, what is held for them, when each is tried next, and one connection to each
//! destination that all clients share. It must never: see a queue's id or a command (they are sealed for the destination), know
//! a client by anything but the hash of the token it shows, say *held* before it is durable, touch a socket or a clock, or
//! scan all clients.
//!
//! | in | out |
//! |---|---|
//! | [`FirstStep::attach`], [`receive`](FirstStep::receive), [`detach`](FirstStep::detach): clients' connections | [`FirstStep::poll_to_client`]: what they are told |
//! | [`FirstStep::connected`], [`receive_from`](FirstStep::receive_from), [`disconnected`](FirstStep::disconnected): destinations | [`FirstStep::poll_to_destination`]; [`Action::Connect`], [`Action::Disconnect`] |
//! | [`FirstStep::restore`], [`FirstStep::begin`], [`FirstStep::complete`]: storage | [`FirstStep::poll_storage`] |
//! | [`FirstStep::handle_timeout`] | [`FirstStep::next_deadline`] |
//!
//! # The life of a command
//! ```text
//!            ┌─ hold: stored ─▶ E held ─┐
//!   F ───────┤                          ├─▶ waiting ─▶ sent ─▶ R ─▶ (held: stored ─▶) R ─▶ acknowledged: forgotten
//!            └─ no hold ────────────────┘      ▲         │
//!                                              │         ├─ not yet, if the client allows; no connection; no answer
//!                                              └─ later ─┘
//!                                                        └─ any other error, or held too long ─▶ E
//! ```
//! What a client registers under one token goes to its destination one after the other, in the order of its numbers: a
//! command that has to wait holds up those behind it, so that messages of one queue arrive in their order although this
//! relay cannot see which belong together. Clients do not hold up each other, and a destination that is down is dialled
//! again with waits that double, once for all.
//!
//! A command that was sent and not answered is sent again, with the same key: the destination knows it by that, and executes
//! it once.
//!
//! Bounds: [`FirstStepLimits`]. Bodies of held commands and of answers are in storage, and not in memory.

mod answering;
mod client;
mod config;
mod destination;
mod holding;
mod inspection;
mod machine;
mod record;
mod registering;
mod remembering;
mod storing;
#[cfg(test)]
mod tests;

pub use config::{FirstStepConfig, FirstStepLimits};
pub use destination::DestinationLink;
pub use machine::{Action, FirstStep, UserId};
pub use record::{RecordError, RecordKey};
