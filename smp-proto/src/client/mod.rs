//! One relationship of a client with one relay, over as many connections as it takes.
//!
//! Owns: the commands that are waiting or on their way, their deadlines, the subscriptions, the keep-alive, and when to
//! connect again. It must never know what messages mean, nor touch a socket: the driver dials when [`Action::Dial`] says
//! so, and moves blocks.
//!
//! | in | out |
//! |---|---|
//! | [`Client::submit`] | [`Client::poll_action`]: dial, close |
//! | [`Client::connected`], [`Client::disconnected`] | [`Client::poll_block`]: 16,384 bytes to send |
//! | [`Client::receive`]: a block | [`Client::poll_event`]: answers, messages, what happened |
//! | [`Client::handle_timeout`] | [`Client::next_deadline`] |
//!
//! After any input the driver drains the three `poll_` functions, in any order.
//!
//! ```text
//!   Idle ──command──▶ Dialling ──connected──▶ Handshaking ──hello──▶ Ready
//!    ▲                   │ ▲                       │                   │
//!    │                   │ └──── delay is over ────│───── Delayed ◀────┘ connection lost,
//!    └─ nothing to do ───┴─────────────────────────┴─────────┘           something to do
//! ```
//!
//! **When a connection breaks**, commands that had not left wait for the next one. Of those on their way, the ones that
//! may be repeated without harm ([`ClientCommand::is_repeatable`]) are sent again; the others are reported as
//! [`CommandFailure::OutcomeUnknown`], and never sent twice behind the caller's back. Subscriptions are restored by
//! themselves.

mod answers;
pub mod command;
pub mod config;
pub mod event;
pub mod first_step;
mod machine;
pub mod proxied;
pub mod queue;

pub use command::{ClientCommand, CommandBody};
pub use config::{ClientConfig, ClientLimits};
pub use event::{Action, ClosedBecause, CommandFailure, CommandId, Event, Reply};
pub use machine::{Client, ClientMisuse, SubmitError};
pub use proxied::{NotTheRelay, ProxiedRelay, Through};
