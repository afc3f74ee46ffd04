//! Black-box tests.

pub mod vectors;
