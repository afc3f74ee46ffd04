//! A relay as a client of other relays: it forwards commands whose senders its destinations never see (WIRE-FACTS 10).
//!
//! [`Proxy`] owns the destinations: one connection for each, shared by all clients; who waits for which; what has been
//! forwarded and has no answer; and what failed lately. It knows no queue, cannot read what it forwards, and keeps nothing
//! about a client but the ticket of an unanswered request. [`ProxyLink`] owns the keys of one connection.
//!
//! ```text
//!   ProxyRequest (the broker's) ─▶ handle       ┐
//!   a dial is finished, or not  ─▶ dialled, dial_failed   ─▶ poll_action   Dial, MaySend, Close
//!   what a link received        ─▶ opened, answered, lost ─▶ poll_answer   (for the broker)
//!   next_deadline has come      ─▶ handle_timeout         ─▶ poll_forward  (for a link to seal)
//! ```
//! Dials are actions, so simulations cover everything. Who dials decides by [`hosts`] where to.
//!
//! Every request is answered, whatever destinations do: after [`ProxyConfig::connect_time_limit`] or
//! [`ProxyConfig::command_time_limit`] at the latest, and at once when a bound of [`ProxyLimits`] is reached. A client
//! that asks for many dead destinations waits for itself: few of them are dialled at once for one client, and clients
//! take turns. What cannot be reached is not tried again for [`ProxyConfig::failure_memory`].
//!
//! | what happens | clients get |
//! |---|---|
//! | the address can be nobody's, or no host of it may be used | `PROXY BROKER HOST` |
//! | no connection, or the connection is lost | `PROXY BROKER NETWORK` |
//! | no connection or no answer in time, or too much waits | `PROXY BROKER TIMEOUT` |
//! | another relay answers, or it is too old | `PROXY BROKER TRANSPORT …` |
//! | the destination refuses what is forwarded | `PROXY PROTOCOL …` |
//! | the destination says what is no answer | `PROXY BROKER RESPONSE …` or `UNEXPECTED …` |
//! | the session is not, or not any more | `PROXY NO_SESSION` |

mod configuration;
pub mod hosts;
mod link;
mod machine;
#[cfg(test)]
mod tests;
mod turns;

pub use configuration::{ProxyConfig, ProxyLimits};
pub use link::{LinkReceived, ProxyLink};
pub use machine::{DialFailure, Forward, ForwardId, LinkId, Proxy, ProxyAction, ProxyStatistics};
pub(crate) use turns::Turns;
