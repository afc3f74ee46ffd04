//! Black-box tests.

pub mod arbitrary;
pub mod key_encapsulation;
pub mod links_json;
pub mod reference_model;
pub mod sessions;
pub mod vectors;
pub mod wire_json;

/// The README, so that its event loop is compiled.
#[doc = include_str!("../../README.md")]
pub struct Readme;
