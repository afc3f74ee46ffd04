//! How people connect, as a model that is explored completely: the real machine of every person, and around it the smallest
//! world in which things can go wrong.

pub mod explore;
pub mod people;
pub mod relays;
pub mod world;
