//! Runs the SMP machines of `smp-proto` on the standard library: sockets that block, TLS, storage, the `smp` command.
//!
//! [`tls`] and [`certificates`] are without IO of sockets and shared with `smp-runtime-smol`.

pub mod certificates;
pub mod tls;
