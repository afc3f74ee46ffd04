//! How a destination behaves towards first-step relays, and how much it keeps.

use crate::time::Duration;
use crate::wire::first_step::Hold;

/// How a destination behaves towards first-step relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// After how long another forwarding key is made.
    pub rotation: Duration,
    /// For how long commands under a forwarding key are taken; longer than `rotation`.
    pub validity: Duration,
    /// For how long the receipts of a forwarding key are kept after its end: as long as first-step relays hold, so that
    /// what was executed is never taken for what was not.
    pub keep_receipts: Duration,
    /// How much may be kept.
    pub limits: ForwardingLimits,
}

/// Bounds of everything that a destination keeps for first-step relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardingLimits {
    /// Forwarding keys that are taken at once. With so many no other is made: only a clock that goes wrong leads there.
    pub keys: usize,
    /// Commands of one connection that have no answer, and answers to it that wait: then nothing more is read from it.
    pub commands_of_connection: usize,
    /// Commands that have no answer, of all connections, at 16 KB each in memory. Further ones get `E Quota`.
    pub commands: usize,
    /// Receipts under one forwarding key, at about 100 bytes each in storage. Further commands get `E Quota`.
    pub receipts_of_key: u64,
}

impl Default for ForwardingConfig {
    fn default() -> Self {
        Self {
            rotation: Duration::from_secs(86_400),
            validity: Duration::from_secs(2 * 86_400),
            keep_receipts: Duration::from_secs(Hold::Weeks.seconds()),
            limits: ForwardingLimits {
                keys: 8,
                commands_of_connection: 64,
                commands: 1024,
                receipts_of_key: 1 << 24,
            },
        }
    }
}
