//! What `smp-proxy/1` costs with the primitives of `smp-server`: `cargo bench -p smp-runtime-std --bench forwarding`.
//!
//! What is measured, and how: `smp-proto/benches/forwarding.rs`.
#![allow(missing_docs)]

#[path = "../../smp-proto/benches/forwarding.rs"]
mod forwarding;

fn main() {
    forwarding::measure(&smp_runtime_std::fast_cryptography::FAST);
}
