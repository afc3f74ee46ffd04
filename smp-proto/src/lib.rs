//! The SimpleX Messaging Protocol as state machines without IO.
#![no_std]
extern crate alloc;

pub mod broker;
pub mod crypto;
pub mod entropy;
pub mod keys;
pub mod server;
pub mod session;
pub mod time;
pub mod wire;
