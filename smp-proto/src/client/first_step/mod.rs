//! A client of a first-step relay: commands that are sealed for a destination which may be down, held for it, and answered
//! later, perhaps to another run of the program (`smp-proxy/1`; EXTENSIONS, First-step relay).
//!
//! Owns: the secret token under which the first-step relay holds commands, their numbers and keys, the destination's
//! forwarding key, verified, what was heard of each command, and which answers may be forgotten there. It must never: say a
//! command before its key is durable, seal two texts with one key, take a key that the destination has not signed, use a
//! number twice, let a later command overtake an earlier one, or touch a socket.
//!
//! One [`Holdings`] is one token, for one destination at one first-step relay: what two tokens hold, the relay cannot take
//! for one client's, as long as they also have connections of their own. It knows contents of blocks; a
//! [`FirstStepClient`] has the connection around it: when to dial, the session, waits after failures.
//!
//! | in | out |
//! |---|---|
//! | [`Holdings::submit`]: a command | [`Holdings::poll_event`]: held, answered, failed |
//! | [`Holdings::connected`], [`receive`](Holdings::receive), [`disconnected`](Holdings::disconnected) | [`Holdings::poll_content`]: the content of a block |
//! | [`Holdings::stored`]: a record is durable | [`Holdings::take_change`], [`record`](Holdings::record) |
//! | [`Holdings::handle_timeout`] | [`Holdings::next_deadline`] |
//!
//! # The life of a command
//! ```text
//!   submitted ─▶ waiting: for the destination's key, or until those before it are settled under an older key
//!                   │ sealed: number, key
//!                   ▼
//!               recorded ──durable──▶ F ──▶ held ─▶ … ─▶ answer ─▶ told; when that is durable: acknowledged
//!                   ▲                  │      ▲
//!                   │ another number,  │      │ held            new connection, or restart
//!                   │ the same key     │      └───────── C ◀── of those whose fate is not known
//!                   └─── not known ────┴────────────────┘
//!                        the key is over ─▶ waiting again, when all others are settled
//! ```
//! **Order.** A command leaves when the relay has taken the one before it: what is refused is never overtaken. All that a
//! relay holds under one token is sealed with one forwarding key. When that is over all of it comes back, and is sealed
//! anew, in the same order.
//!
//! **Once.** A command keeps its key, whatever happens: the destination knows it by that. Only when the destination says that
//! the forwarding key is not its own any more a fresh one is made. (If it executed the command, its answer was lost, and the key
//! ended meanwhile, it would execute it again: what must not be done twice has to be known by what is in it, as agents' messages
//! are.)
//!
//! **Texts** are not recorded, and not kept once they are held: [`HoldingEvent::Wanted`] asks for one that has to be said
//! again. It must be the very same; another one is refused.

mod command;
mod connection;
mod hearing;
mod holdings;
mod record;
mod saying;

pub use command::{HoldId, Holdable, NotHeld};
pub use connection::{FirstStepClient, FirstStepClientConfig};
pub use holdings::{HoldingEvent, Holdings, HoldingsConfig, Registration};
pub use record::HoldingsDamaged;
