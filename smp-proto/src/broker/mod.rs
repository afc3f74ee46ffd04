//! What a relay knows and decides: queues, subscriptions, delivery, notifications. No sockets, no sessions, no disk.

pub mod record;
pub mod storage;
