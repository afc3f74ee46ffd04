//! What a relay knows and decides: queues, subscriptions, delivery, notifications (WIRE-FACTS 7 and 9).
//!
//! The broker owns every queue's record, the marks of its waiting messages, and who is subscribed; never a message
//! body, a socket, a session key or a file. It is cheap by construction: no cryptography (sessions make the keys
//! and verify), no scan over connections or queues. Drivers that use several threads hold it in one lock, and hold that lock
//! only for the calls below.
//!
//! Inputs: [`Broker::connect`], [`Broker::disconnect`], [`Broker::look_up`], [`Broker::execute`] (only what is
//! [`Verified`](crate::session::request::Verified)), [`Broker::complete`] (storage), [`Broker::handle_timeout`].
//! Outputs: [`Broker::poll_storage`], [`Broker::poll_ready`] and [`Broker::take_outgoing`].
//!
//! Persist, then speak: an answer that implies durability is withheld until its storage action has completed.

pub mod record;
pub mod storage;
