//! Runs the SMP machines of `smp-proto` on the standard library: sockets that block, TLS, storage, the `smp` command.
//!
//! [`tls`], [`certificates`], [`configuration`] and [`relay`] are without sockets and shared with `smp-runtime-smol`.

pub mod certificates;
pub mod configuration;
pub mod fast_cryptography;
pub mod relay;
pub mod storage;
pub mod tls;
