//! Deterministic simulations of whole networks: the very machines that the runtimes drive, over a network, disks and
//! clocks that exist only here. One seed decides everything; the same seed replays the same run to the last byte.

pub mod actors;
pub mod dice;
pub mod holders;
pub mod ledger;
pub mod network;
pub mod options;
pub mod world;
