//! Addresses of queues (WIRE-FACTS 11.2).
