//! SMP relays on smol: sockets, threads and signals around the shared relay driver of `smp-runtime-std`.
//!
//! Owns: listening sockets; threads with an executor and a reactor each; one task per connection, which stays on its
//! thread; and stopping in order. It decides nothing: what a relay does with bytes is [`smp_runtime_std::relay`]'s and
//! `smp-proto`'s business.

pub mod client;
pub mod connection;
pub mod files;
pub mod listener;
pub mod reactor;
pub mod service;
pub mod signals;
pub mod workers;
