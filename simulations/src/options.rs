//! One seed expands into everything a run needs to know: how many peers, how bad the network is, how often the relay
//! dies. Runs differ in which faults they have at all (a swarm), because faults that always come together hide bugs that
//! one of them alone would show.

use smp_proto::time::Duration;

use crate::dice::Dice;

/// The options of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many queues, each with a recipient and a sender of its own.
    pub pairs: usize,
    /// How many messages every sender sends.
    pub messages: u32,
    /// How many sends a sender has under way at once.
    pub pipeline: u32,
    /// The newest version that each pair's clients offer, drawn from this range.
    pub newest_version: (u16, u16),
    /// How long a block takes from one end to the other.
    pub latency: (Duration, Duration),
    /// One in this many blocks is lost together with its connection; 0 = none.
    pub reset_one_in: u32,
    /// One in this many dials fails; 0 = none.
    pub dial_fails_one_in: u32,
    /// How long the relay lives between crashes; `None` = it never crashes.
    pub crash_after: Option<(Duration, Duration)>,
    /// How long the relay stays down.
    pub down_for: (Duration, Duration),
    /// How long one commit takes.
    pub commit: (Duration, Duration),
    /// One in this many commits fails; 0 = none.
    pub commit_fails_one_in: u32,
    /// How long a recipient takes to acknowledge a message.
    pub thinks_for: (Duration, Duration),
    /// The relay's quota of messages a queue.
    pub quota: u16,
    /// How long the faults last; then the network heals, and everything must finish.
    pub safety_phase: Duration,
}

impl Options {
    /// The options of `seed`.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "options");
        let slow_network = dice.one_in(3);
        let slow_disk = dice.one_in(3);
        let slow_recipients = dice.one_in(3);
        let oldest_newest = dice.between(6, 14) as u16;
        Self {
            pairs: dice.between(1, 6) as usize,
            messages: dice.between(5, 60) as u32,
            pipeline: dice.between(1, 8) as u32,
            newest_version: (oldest_newest, dice.between(u64::from(oldest_newest), 14) as u16),
            latency: if slow_network { millis(20, 900) } else { millis(1, 30) },
            reset_one_in: if dice.one_in(3) { 0 } else { dice.between(20, 400) as u32 },
            dial_fails_one_in: if dice.one_in(2) { 0 } else { dice.between(2, 10) as u32 },
            crash_after: if dice.one_in(3) { None } else { Some(millis(50, dice.between(500, 20_000))) },
            down_for: millis(1, 3_000),
            commit: if slow_disk { millis(20, 400) } else { millis(1, 5) },
            commit_fails_one_in: if dice.one_in(2) { 0 } else { dice.between(5, 50) as u32 },
            thinks_for: if slow_recipients { millis(100, 3_000) } else { millis(0, 5) },
            quota: dice.between(2, 20) as u16,
            safety_phase: Duration::from_secs(dice.between(5, 120)),
        }
    }

    /// The same run without faults: what follows the safety phase.
    #[must_use]
    pub fn healed(&self) -> Self {
        Self {
            reset_one_in: 0,
            dial_fails_one_in: 0,
            crash_after: None,
            commit_fails_one_in: 0,
            ..self.clone()
        }
    }
}

fn millis(low: u64, high: u64) -> (Duration, Duration) {
    (Duration::from_millis(low), Duration::from_millis(high.max(low)))
}
