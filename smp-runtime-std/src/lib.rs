//! Runs the SMP machines of `smp-proto` on the standard library: sockets that block, TLS, storage, the `smp` command.
//!
//! [`tls`], [`certificates`], [`configuration`] and [`relay`] are without sockets and shared with `smp-runtime-smol`.

#[cfg(unix)]
pub mod agent;
#[cfg(unix)]
pub mod blocking_relay;
pub mod certificates;
#[cfg(unix)]
pub mod client;
pub mod configuration;
pub mod dialing;
pub mod fast_cryptography;
#[cfg(unix)]
mod readiness;
pub mod relay;
pub mod socks;
pub mod storage;
pub mod tls;
