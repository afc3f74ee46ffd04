//! What other threads wake a sleeping reactor with.
//!
//! Owns: one word that says whether the thread sleeps, and mio's waker. Whoever rings while the thread is awake only
//! changes the word; a call to the system is made once for each sleep, however many ring. It must never lose a ring:
//! a thread that wants to sleep finds out in one step whether somebody has rung since it last looked for work.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Wake;

use mio::{Registry, Token};

/// The thread looks for work, or works.
const AWAKE: u8 = 0;
/// The thread waits in the system, or is about to.
const ASLEEP: u8 = 1;
/// Somebody has rung since the thread began to look for work.
const RUNG: u8 = 2;

/// Wakes one reactor's thread. Shared with every other thread, as an [`Arc`] or as a [`std::task::Waker`].
pub struct Alarm {
    state: AtomicU8,
    waker: mio::Waker,
}

impl fmt::Debug for Alarm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Alarm").finish_non_exhaustive()
    }
}

impl Alarm {
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self { state: AtomicU8::new(AWAKE), waker: mio::Waker::new(registry, token)? })
    }

    /// Wakes the thread if it sleeps; otherwise it looks for work once more before it does.
    pub fn ring(&self) {
        // A swap even when somebody has rung already: whoever sees it set must also see what was done before ringing.
        if self.state.swap(RUNG, Ordering::AcqRel) == ASLEEP {
            // It fails only when its counter is full, and then the thread is being woken already.
            let _ = self.waker.wake();
        }
    }

    /// For the thread, before it looks for work: everything that was done before a ring until now is seen by it.
    pub(super) fn silence(&self) {
        self.state.swap(AWAKE, Ordering::AcqRel);
    }

    /// For the thread, after it found no work: true when it may sleep, and false when somebody has rung meanwhile.
    pub(super) fn may_sleep(&self) -> bool {
        self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// For the thread, after it slept: nobody needs to call the system any more. What was rung is kept.
    pub(super) fn slept(&self) {
        // It fails when somebody has rung, and that is kept.
        let _ = self.state.compare_exchange(ASLEEP, AWAKE, Ordering::AcqRel, Ordering::Acquire);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
