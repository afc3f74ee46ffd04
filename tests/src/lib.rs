//! Black-box tests.

pub mod sessions;
pub mod vectors;
pub mod wire_json;
