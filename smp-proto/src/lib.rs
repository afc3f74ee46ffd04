//! The SimpleX Messaging Protocol (SMP) as state machines without IO.
//!
//! SMP relays store and forward end-to-end encrypted messages in one-way queues, and know nobody. This crate is the
//! whole protocol, both sides: what is on the wire, the cryptography, sessions, what a relay decides and what a client
//! does. It does no IO: **bytes, time and completions go in; blocks, storage actions, dials and events come out.** It
//! runs under any event loop, in a simulation, and without std.
//!
//! - A relay with one thread, or in a simulation: [`server::Server`].
//! - A relay with many threads: one [`broker::Broker`] in a lock, and a [`session::server::ServerSession`] for each
//!   connection (see [`session`] for the steps).
//! - A client: [`client::Client`] for one connection, which correlates answers, keeps deadlines, and subscribes again after
//!   a reconnect; [`session::client::ClientSession`] below it for those who want transmissions alone.
//! - An agent, which connects people over many relays: [`agent::Agent`], with an event loop of its own.
//! - A relay that holds sealed commands for other relays, and tries again: [`first_step::FirstStep`].
//!
//! # How every machine is driven
//! `handle_*` and the like take input and never fail because of what a peer, a disk or a clock does; `poll_*` gives
//! output until there is none; `next_deadline` says when to call `handle_timeout`. Several inputs between two drains
//! are fine. Every internal queue is bounded: the driver asks whether a machine wants more before it reads more.
//!
//! ```
//! use bytes::BytesMut;
//! use smp_proto::broker::ConnectionId;
//! use smp_proto::broker::storage::{ActionId, Completion, StorageAction};
//! use smp_proto::entropy::Entropy;
//! use smp_proto::server::{Server, ServerEvent};
//! use smp_proto::session::TransportFacts;
//! use smp_proto::time::{Instant, Now};
//!
//! /// What happens next in the embedder's world.
//! enum Input {
//!     /// A TLS connection is up.
//!     Connected(TransportFacts),
//!     /// 16,384 bytes came on a connection.
//!     Block(ConnectionId, BytesMut),
//!     /// A connection is gone.
//!     Gone(ConnectionId),
//!     /// Storage has answered.
//!     Stored(Completion),
//!     /// The time that was waited for has come.
//!     Time,
//!     /// The relay shall stop.
//!     Stop,
//! }
//!
//! /// The embedder's own event loop, sockets and disk.
//! trait World {
//!     fn now(&self) -> Now;
//!     /// Waits for something to happen, at most until `deadline`; reads only from connections that `wants_block`.
//!     fn wait(&mut self, deadline: Option<Instant>, wants_block: &dyn Fn(ConnectionId) -> bool) -> Input;
//!     /// The last accepted transport connection has this id from now on; `None`: close it.
//!     fn accepted(&mut self, id: Option<ConnectionId>);
//!     fn can_send(&self, id: ConnectionId) -> bool;
//!     fn send(&mut self, id: ConnectionId, block: BytesMut);
//!     fn close(&mut self, id: ConnectionId);
//!     fn store(&mut self, id: ActionId, action: StorageAction);
//! }
//!
//! fn run(server: &mut Server, world: &mut impl World, entropy: &mut impl Entropy) {
//!     loop {
//!         // Drain: storage first, so that it works while blocks are sent.
//!         while let Some((id, action)) = server.poll_storage() {
//!             world.store(id, action);
//!         }
//!         while let Some(event) = server.poll_event() {
//!             match event {
//!                 ServerEvent::MaySend(id) => {
//!                     // A connection whose socket is full is asked again when it is not.
//!                     while world.can_send(id)
//!                         && let Some(block) = server.poll_block(id, world.now())
//!                     {
//!                         world.send(id, block);
//!                     }
//!                 }
//!                 ServerEvent::Established(..) => {}
//!                 ServerEvent::Closed(id, _reason, last_block) => {
//!                     if let Some(block) = last_block {
//!                         world.send(id, block);
//!                     }
//!                     world.close(id);
//!                 }
//!             }
//!         }
//!         let input = world.wait(server.next_deadline(), &|id| server.wants_block(id));
//!         let now = world.now();
//!         match input {
//!             Input::Connected(facts) => {
//!                 let accepted = server.connect(facts, now, entropy).ok();
//!                 world.accepted(accepted);
//!             }
//!             Input::Block(id, block) => {
//!                 server.handle_block(id, block, now, entropy).expect("the world cuts blocks of 16,384 bytes");
//!             }
//!             Input::Gone(id) => server.disconnect(id),
//!             Input::Stored(completion) => server.complete(completion, now, entropy),
//!             Input::Time => server.handle_timeout(now, entropy),
//!             Input::Stop => return,
//!         }
//!     }
//! }
//! # fn compiles(server: &mut Server, world: &mut Never, entropy: &mut smp_proto::entropy::SeededEntropy) {
//! #     run(server, world, entropy);
//! # }
//! # struct Never;
//! # impl World for Never {
//! #     fn now(&self) -> Now { Now::default() }
//! #     fn wait(&mut self, _: Option<Instant>, _: &dyn Fn(ConnectionId) -> bool) -> Input { Input::Stop }
//! #     fn accepted(&mut self, _: Option<ConnectionId>) {}
//! #     fn can_send(&self, _: ConnectionId) -> bool { true }
//! #     fn send(&mut self, _: ConnectionId, _: BytesMut) {}
//! #     fn close(&mut self, _: ConnectionId) {}
//! #     fn store(&mut self, _: ActionId, _: StorageAction) {}
//! # }
//! ```
//!
//! # Rooms
//! Each uses only those above it: [`time`] and [`entropy`] (given, never taken), [`keys`], [`wire`] (bytes and types),
//! [`crypto`], [`session`] (one connection), [`broker`] (what a relay decides), [`proxy`] (a relay as a client of other relays),
//! [`first_step`] (a relay that holds commands for others), [`forwarding`] (what such relays bring to this one), [`server`] (all of these and sessions behind one facade), [`client`] (one connection to one relay), [`agent`] (connections between people, over many relays).
//! [`storage_model`] carries out storage actions in memory, for tests and simulations.
//!
//! # Secrets
//! Private keys are wiped on drop and never printed; identifiers are printed by length only. Unknown queues and wrong
//! keys cost the same work and get the same answer.
#![no_std]
extern crate alloc;

pub mod agent;
mod backoff;
pub mod broker;
pub mod client;
pub mod crypto;
pub mod entropy;
pub mod first_step;
pub mod forwarding;
pub mod keys;
pub mod proxy;
pub mod server;
pub mod session;
pub mod storage_model;
pub mod time;
pub mod wire;
