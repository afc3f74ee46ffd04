//! What an operator decides about a relay.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::time::Duration;

/// The rules of one relay.
#[derive(Clone)]
pub struct BrokerConfig {
    /// Whether `NEW` is answered at all (`[AUTH] new_queues`).
    pub new_queues: bool,
    /// The password that `NEW` and `PRXY` must carry (`[AUTH] create_password`); `None` = no password is asked for.
    pub create_password: Option<Zeroizing<Vec<u8>>>,
    /// How many messages a queue holds before senders get `ERR QUOTA`. Deployed relays: 128.
    pub message_quota: u16,
    /// How long a message waits for its recipient. Deployed relays: 21 days.
    pub message_time_to_live: Duration,
    /// How long news of a message waits for the notifier. Deployed relays: 24 h.
    pub notification_time_to_live: Duration,
    /// How long notifications are gathered before they are sent. Deployed relays: 1.5 s.
    pub notification_delay: Duration,
    /// After how long a queue between two that nobody has secured is deleted, with its link data: an invitation that was
    /// never used. Counted from the day of its last change; `None` = never, as on
    /// deployed relays. Contact addresses never expire.
    pub unsecured_time_to_live: Option<Duration>,
    /// After how long a blob that its owner does not write again is deleted, counted from the day of the last `WRT`;
    /// `None` = never.
    pub blob_time_to_live: Option<Duration>,
    /// How many commands (`PRXY`, `PFWD`) of one connection the proxy has at once, further ones wait; 0 = this relay is no
    /// proxy. Deployed relays: 32 (`client_concurrency`).
    pub proxied_at_once: u16,
    /// Bounds of everything that grows.
    pub limits: Limits,
}

/// Bounds of everything that grows with what clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections: u32,
    /// Queues in all.
    pub queues: u32,
    /// Queues that one connection may be subscribed to.
    pub subscriptions: u32,
    /// Answers that one connection may be owed: a block is accepted only while 255 more fit.
    pub commands_in_flight: u16,
    /// Message bodies that are under way to one connection at once, read from storage or waiting to be sent.
    pub deliveries_in_flight: u16,
    /// Keys that `RKEY` may give one contact address: every command of its owners may cost as many verifications.
    pub recipient_keys: u8,
    /// Blobs in all; 0 = this relay takes none.
    pub blobs: u32,
    /// The longest blob, in bytes; more than 16,141 cannot be read through a proxy.
    pub blob_length: u16,
    /// Blobs that one connection may write in a minute.
    pub blob_writes_of_connection: u16,
    /// Blobs that all together may write in a minute.
    pub blob_writes: u32,
    /// Services in all.
    pub services: u32,
    /// Notifications that wait for one notifier.
    pub waiting_notifications: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1 << 20,
            queues: 1 << 26,
            subscriptions: 1 << 20,
            commands_in_flight: 1024,
            deliveries_in_flight: 8,
            recipient_keys: 16,
            blobs: 100_000,
            blob_length: 16_141,
            blob_writes_of_connection: 60,
            blob_writes: 6000,
            services: 1024,
            waiting_notifications: 128,
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            new_queues: true,
            create_password: None,
            message_quota: 128,
            message_time_to_live: Duration::from_secs(21 * 24 * 3600),
            notification_time_to_live: Duration::from_secs(24 * 3600),
            notification_delay: Duration::from_millis(1500),
            unsecured_time_to_live: None,
            blob_time_to_live: None,
            proxied_at_once: 0,
            limits: Limits::default(),
        }
    }
}

impl core::fmt::Debug for BrokerConfig {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("BrokerConfig")
            .field("new_queues", &self.new_queues)
            .field("create_password", &self.create_password.as_ref().map(|_| ".."))
            .field("message_quota", &self.message_quota)
            .field("message_time_to_live", &self.message_time_to_live)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
