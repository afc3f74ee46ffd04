//! The operating system's two clocks as the machines want them.

use std::time::{Duration, Instant as SystemInstant, SystemTime, UNIX_EPOCH};

use smp_proto::time::{Instant, Now, UnixTime};

/// A monotonic clock that starts at zero when it is made, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: SystemInstant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: SystemInstant::now() }
    }

    /// Both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        // A wall clock before 1970 is a clock that was never set: messages then carry the epoch.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { instant: self.instant(), wall: UnixTime(i64::try_from(wall.as_secs()).unwrap_or(i64::MAX)) }
    }

    /// The monotonic clock alone.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When `instant` is by the system's clock, for a runtime's timers; `None` when that is too far away to be told.
    #[must_use]
    pub fn system(&self, instant: Instant) -> Option<SystemInstant> {
        self.start.checked_add(Duration::from_micros(instant.as_micros()))
    }
}
