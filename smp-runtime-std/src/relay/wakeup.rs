//! Waking the task or thread that drives a connection.
//!
//! Owns: for each connection, what has happened to it since its driver last looked, and how to wake that driver. A
//! driver is anything with a [`Waker`]: a task of an executor, or a thread that parks (`std::task::Wake`).

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What has happened to a connection since its driver last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u8);

impl Events {
    /// The broker has something for the connection, or room again.
    pub const READY: Self = Self(1);
    /// The connection has to make room for others.
    pub const EVICTED: Self = Self(2);
    /// The relay is stopping: read no more.
    pub const DRAIN: Self = Self(4);
    /// Everything under way is done: send what there is, and end.
    pub const FINISH: Self = Self(8);

    /// Whether nothing happened.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` happened.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The bell of one connection.
#[derive(Debug, Default)]
pub struct Wakeup {
    events: AtomicU8,
    waker: Mutex<Option<Waker>>,
}

impl Wakeup {
    /// Says that `events` happened, and wakes the driver unless it has been woken already and has not looked yet.
    pub fn raise(&self, events: Events) {
        // Somebody who finds an event there before him can rely on the wake-up that came with it: the driver registers
        // its waker before it takes the events.
        if self.events.fetch_or(events.0, Ordering::AcqRel) == 0 {
            let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// For the driver: sets who is woken by the next event.
    pub fn register(&self, waker: &Waker) {
        let mut registered = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *registered {
            Some(known) if known.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        }
    }

    /// For the driver, before it waits: sets who is woken by the next event, and says whether one is there already.
    #[must_use]
    pub fn poll(&self, waker: &Waker) -> bool {
        self.register(waker);
        self.events.load(Ordering::Acquire) != 0
    }

    /// For the driver: what has happened since the last look. Register first, then look: nothing is missed then.
    #[must_use]
    pub fn take(&self) -> Events {
        if self.events.load(Ordering::Acquire) == 0 {
            return Events::default();
        }
        Events(self.events.swap(0, Ordering::AcqRel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn events_before_a_look_wake_once_and_are_all_seen() {
        let (wakeup, counter) = (Wakeup::default(), Arc::new(Counter::default()));
        wakeup.register(&Waker::from(Arc::clone(&counter)));
        wakeup.raise(Events::READY);
        wakeup.raise(Events::READY);
        wakeup.raise(Events::DRAIN);
        assert_eq!(counter.0.load(Ordering::Relaxed), 1);
        let seen = wakeup.take();
        assert!(
            seen.contains(Events::READY) && seen.contains(Events::DRAIN) && !seen.contains(Events::FINISH)
        );
        assert!(wakeup.take().is_empty());
        wakeup.register(&Waker::from(Arc::clone(&counter)));
        wakeup.raise(Events::EVICTED);
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let wakeup = Arc::new(Wakeup::default());
        let sent = Arc::new(AtomicUsize::new(0));
        let raiser = std::thread::spawn({
            let (wakeup, sent) = (Arc::clone(&wakeup), Arc::clone(&sent));
            move || {
                for _ in 0..10_000 {
                    sent.fetch_add(1, Ordering::Release);
                    wakeup.raise(Events::READY);
                }
            }
        });
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        // A lost wake-up shows as a test that never ends.
        while sent.load(Ordering::Acquire) < 10_000 {
            wakeup.register(&waker);
            if wakeup.take().is_empty() {
                std::thread::park();
            }
        }
        raiser.join().expect("the other thread only counts");
        assert_eq!(sent.load(Ordering::Acquire), 10_000);
    }
}
