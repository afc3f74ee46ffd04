//! The destination's part of `smp-proxy/1`: takes what first-step relays forward, executes each command once, and answers
//! it (EXTENSIONS, First-step relay; [`first_step`](crate::first_step) is the relay in the middle).
//!
//! Owns: this relay's forwarding keys, a receipt for each command that was executed under one of them, and which commands
//! are under way. It must never: know who a client is, publish a key that is not durable, execute a command twice, seal two
//! different answers to one command, answer before the receipt is durable, do cryptography, touch a clock, or scan all
//! commands.
//!
//! | in | out |
//! |---|---|
//! | [`Forwarding::attach`], [`receive`](Forwarding::receive), [`detach`](Forwarding::detach): connections of first-step relays | [`Forwarding::poll_ready`], [`poll_to_relay`](Forwarding::poll_to_relay): what they are told |
//! | [`Forwarding::unopened`], [`execute`](Forwarding::execute): what became of a command that was handed out | [`Forwarding::poll_command`]: commands to be opened and verified |
//! | [`Forwarding::collect`]: the broker has answers | commands for the [`Broker`](crate::broker::Broker), in `execute` |
//! | [`Forwarding::complete`]: storage | [`Forwarding::poll_storage`] |
//! | [`Forwarding::handle_timeout`] | [`Forwarding::next_deadline`] |
//!
//! # The way of a command
//! ```text
//!   F ─▶ receive        is the key known?  E NoKey.  Was the command seen?  the filter, then its receipt: R again, E Repeated
//!   ── nothing held ──  SealedCommand::open: X25519, the box.  E Crypto
//!                       OpenedCommand::request, Broker::look_up, CommandVerifier::verify: as for every command
//!   ─▶ execute          Broker::execute; the receipt goes into the command's own commit, where it has one
//!   ─▶ collect          the broker's answer.  E NotYet, unsealed and without a receipt, where the client has allowed it
//!                       a command without a commit gets its receipt now
//!   ◀── R               poll_to_relay, then ToRelay::write seals the answer: nothing held
//! ```
//! A driver with one thread does all of this in one go; one with several holds a lock for the calls of [`Forwarding`] and
//! of the broker, and none for the others.
//!
//! # Once
//! A command is known by the key that its client made for it alone: its name is 16 bytes of that key's SHA-256, under the
//! number of the forwarding key. While it is under way, the same again only changes who is answered. Afterwards its name is
//! in a filter, and its receipt in storage: `OK` and errors word for word, so that the first-step relay that
//! lost the answer gets the same bytes again; of larger answers (`LNK`, `BLOB`) only that there was one (`E Repeated`).
//! When storage fails, the command took no effect, has no receipt, and gets `E Internal`: it may come again.
//!
//! When a forwarding key is over, its secret is destroyed first; no command is executed under it any more. Its receipts stay
//! for as long as first-step relays hold: a command that was executed, and whose answer was lost, gets `E Repeated`, and one
//! that was not gets `E NoKey`, so that its client may seal it again and nothing is doubled. Then they are deleted,
//! [`DELETED_AT_ONCE`] at a time.
//!
//! # Forwarding keys
//! Another one is made each day, taken for two ([`ForwardingConfig`]); only the newest is published, signed by the relay's
//! leaf certificate, and never before it is durable. A key is over when the wall clock says so *and* as much time has
//! passed by the clock that only goes forward, so that a wall clock that jumps, either way, destroys nothing.
//!
//! Bounds: [`ForwardingLimits`].

mod answers;
mod config;
mod inspection;
mod keys;
mod machine;
mod record;
mod seen;
#[cfg(test)]
mod tests;

pub use answers::ToRelay;
pub use config::{ForwardingConfig, ForwardingLimits};
pub use inspection::ForwardingStatistics;
pub use keys::DELETED_AT_ONCE;
pub use machine::{FirstStepId, Forwarding};
pub use record::{PREFIX, RecordError};
