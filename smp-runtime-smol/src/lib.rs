//! SMP relays on smol: sockets, threads and signals around the shared relay driver of `smp-runtime-std`.
//!
//! Owns: listening sockets, the executor and its threads, signals. It decides nothing: what a relay does with bytes is
//! `smp-proto`'s business.

pub mod executor;
pub mod files;
pub mod listener;
pub mod signals;
