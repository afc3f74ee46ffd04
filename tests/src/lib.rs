//! Black-box tests.

pub mod vectors;
pub mod wire_json;
