//! The SimpleX Messaging Protocol as state machines without IO.
#![no_std]
extern crate alloc;
