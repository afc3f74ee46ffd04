//! What the relays of all runtimes share: who may connect, who is woken, clocks and randomness.

pub mod admission;
pub mod clock;
pub mod entropy;
pub mod wakeup;
