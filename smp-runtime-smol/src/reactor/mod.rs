//! What one thread waits for: the sockets of its connections, their deadlines, and other threads.
//!
//! Owns: one poll object of the system (epoll, kqueue, or what mio has for the platform), and for each socket what is
//! known of its readiness, its deadline, and who is woken. A [`Source`] is registered once, for everything and for
//! edges, and stays registered until it is dropped; afterwards no wait costs more calls to the system than the one in
//! which the thread sleeps. All tasks of a thread share its reactor, and nobody else touches it: between threads there
//! is only the [`Alarm`].
//!
//! It must never: block while there is work, lose a wake-up, call a task's code (it only wakes), read or write itself,
//! or scan all sockets or all deadlines.
//!
//! Edges put a duty on whoever reads and writes: readiness is remembered here until he says, with
//! [`Source::read_refused`], [`Source::read_short`] or [`Source::write_refused`], that the system has nothing more for
//! him. Then the system tells of the next change, and of each change that comes in between.
//!
//! ```text
//!   block_on ─▶ poll the future (tasks run until none can) ─▶ turn: sleep in the system ─▶ wake tasks ─┐
//!      ▲                                                        ▲                                      │
//!      │                                                        └── Alarm::ring by other threads       │
//!      └───────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

mod alarm;
mod deadlines;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Interest, Token};

pub use self::alarm::Alarm;
use self::deadlines::Deadlines;

/// Events taken from the system at once. More wait there until the next turn.
const EVENTS: usize = 256;

/// The alarm's token: no entry has this number.
const ALARM: Token = Token(usize::MAX);

/// Whether a read that leaves room is proof that there is no more. Where it is not, only a refusal of the system
/// (`WouldBlock`) makes it tell of the next change.
const SHORT_MEANS_ALL: bool = cfg!(unix);

/// Hears when a thread works and when it rests. Called on that thread, around each sleep: it must be quick.
pub trait Shifts: Send + Sync {
    /// The thread begins to work.
    fn begin(&self);
    /// The thread has nothing to do.
    fn rest(&self);
    /// Whether somebody waits for the rest. Then the thread makes sure that it has nothing to do before it says so.
    fn is_awaited(&self) -> bool;
}

/// What one thread waits for. See the module.
pub struct Reactor {
    system: RefCell<System>,
    entries: RefCell<Entries>,
    alarm: Arc<Alarm>,
    shifts: Option<Arc<dyn Shifts>>,
}

struct System {
    poll: mio::Poll,
    events: Events,
    /// Who is to be woken; kept for its memory.
    woken: Vec<Waker>,
}

#[derive(Default)]
struct Entries {
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
    deadlines: Deadlines,
}

/// What is known of one source.
#[derive(Default)]
struct Entry {
    readable: bool,
    writable: bool,
    /// Nothing comes after what is there now: reading goes on until the end is read.
    read_closed: bool,
    expired: bool,
    deadline: Option<Instant>,
    waker: Option<Waker>,
}

impl Entry {
    /// Takes an event of the system over: true when it is news.
    fn note(&mut self, event: &Event) -> bool {
        // What has failed shows when it is read or written.
        let failed = event.is_error();
        let read_closed = event.is_read_closed();
        let readable = event.is_readable() || read_closed || failed;
        let writable = event.is_writable() || event.is_write_closed() || failed;
        let news = (readable && !self.readable)
            || (writable && !self.writable)
            || (read_closed && !self.read_closed);
        self.readable |= readable;
        self.writable |= writable;
        self.read_closed |= read_closed;
        news
    }
}

impl Entries {
    fn add(&mut self, entry: Entry) -> usize {
        if let Some(number) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(number)
        {
            *slot = Some(entry);
            return number;
        }
        self.slots.push(Some(entry));
        self.slots.len() - 1
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut Entry> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// Takes readiness over, lets deadlines expire, and adds those whom that concerns to `woken`.
    fn take_over(&mut self, events: &Events, woken: &mut Vec<Waker>) {
        for event in events.iter().filter(|event| event.token() != ALARM) {
            if let Some(entry) = self.get_mut(event.token().0)
                && entry.note(event)
            {
                woken.extend(entry.waker.clone());
            }
        }
        if self.deadlines.next().is_none() {
            return;
        }
        let now = Instant::now();
        while let Some(number) = self.deadlines.pop_expired(now) {
            if let Some(entry) = self.get_mut(number) {
                entry.deadline = None;
                entry.expired = true;
                woken.extend(entry.waker.clone());
            }
        }
    }

    fn remove(&mut self, number: usize) {
        if let Some(entry) = self.slots.get_mut(number).and_then(Option::take) {
            self.deadlines.change(number, entry.deadline, None);
            self.free.push(number);
        }
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reactor").finish_non_exhaustive()
    }
}

impl Reactor {
    /// A reactor that waits for nothing yet. It can be made on one thread and used on another, before it is shared.
    ///
    /// # Errors
    /// When the system gives no poll object.
    pub fn new() -> io::Result<Self> {
        let poll = mio::Poll::new()?;
        let alarm = Arc::new(Alarm::new(poll.registry(), ALARM)?);
        let system = System { poll, events: Events::with_capacity(EVENTS), woken: Vec::new() };
        Ok(Self { system: RefCell::new(system), entries: RefCell::default(), alarm, shifts: None })
    }

    /// Says to `shifts` when the thread works and when it rests.
    #[must_use]
    pub fn with_shifts(self, shifts: Option<Arc<dyn Shifts>>) -> Self {
        Self { shifts, ..self }
    }

    /// What wakes the thread.
    #[must_use]
    pub fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// How many sources and timers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        let entries = self.entries.borrow();
        entries.slots.len() - entries.free.len()
    }

    /// Whether there are no sources and timers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Registers a socket, which must not block. It counts as writable from the beginning, and as readable when the
    /// system has said so, also of what arrived before.
    ///
    /// # Errors
    /// When the system does not take it.
    pub fn register<S: mio::event::Source>(self: &Rc<Self>, mut socket: S) -> io::Result<Source<S>> {
        let number = self.entries.borrow_mut().add(Entry { writable: true, ..Entry::default() });
        let registered = self.system.borrow().poll.registry().register(
            &mut socket,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        );
        let place = Place { reactor: Rc::clone(self), number };
        registered.map(|()| Source { socket, place })
    }

    /// A deadline without a socket.
    #[must_use]
    pub fn timer(self: &Rc<Self>) -> Timer {
        let number = self.entries.borrow_mut().add(Entry::default());
        Timer(Place { reactor: Rc::clone(self), number })
    }

    /// Runs `future` on this thread, and sleeps while it cannot go on. Tasks run as parts of it: usually it is
    /// `LocalExecutor::run`.
    ///
    /// # Errors
    /// When the system fails in the waiting: nothing can be waited for on this thread then.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> io::Result<T> {
        let waker = Waker::from(Arc::clone(&self.alarm));
        let mut context = Context::from_waker(&waker);
        let mut future = pin!(future);
        let _working = self.shifts.as_deref().map(Working::begin);
        loop {
            self.alarm.silence();
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Ok(output);
            }
            self.turn()?;
        }
    }

    /// Takes over what the system has to tell, and waits for it if nobody has rung since the alarm was silenced.
    fn turn(&self) -> io::Result<()> {
        let timeout = if self.alarm.may_sleep() { self.until_deadline() } else { Some(Duration::ZERO) };
        let mut woken = {
            let mut guard = self.system.borrow_mut();
            let System { poll, events, woken } = &mut *guard;
            let result = self.sleep(poll, events, timeout);
            self.alarm.slept();
            match result {
                Err(error) if error.kind() == ErrorKind::Interrupted => events.clear(),
                other => other?,
            }
            self.entries.borrow_mut().take_over(events, woken);
            std::mem::take(woken)
        };
        // Whoever is woken may let go of things of this reactor.
        woken.drain(..).for_each(Waker::wake);
        self.system.borrow_mut().woken = woken;
        Ok(())
    }

    fn sleep(&self, poll: &mut mio::Poll, events: &mut Events, timeout: Option<Duration>) -> io::Result<()> {
        let Some(shifts) = self.shifts.as_deref().filter(|_| timeout != Some(Duration::ZERO)) else {
            return poll.poll(events, timeout);
        };
        if shifts.is_awaited() {
            poll.poll(events, Some(Duration::ZERO))?;
            if !events.is_empty() {
                return Ok(());
            }
        }
        shifts.rest();
        let result = poll.poll(events, timeout);
        shifts.begin();
        result
    }

    fn until_deadline(&self) -> Option<Duration> {
        let next = self.entries.borrow().deadlines.next()?;
        Some(next.saturating_duration_since(Instant::now()))
    }
}

/// Says that a thread works, until it is dropped.
struct Working<'s>(&'s dyn Shifts);

impl<'s> Working<'s> {
    fn begin(shifts: &'s dyn Shifts) -> Self {
        shifts.begin();
        Self(shifts)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A place among a reactor's entries, given back when it is dropped.
struct Place {
    reactor: Rc<Reactor>,
    number: usize,
}

impl Place {
    fn with<R: Default>(&self, act: impl FnOnce(&mut Entry) -> R) -> R {
        // An entry is there as long as its place.
        self.reactor.entries.borrow_mut().get_mut(self.number).map(act).unwrap_or_default()
    }

    fn watch(&self, waker: &Waker) {
        self.with(|entry| match &mut entry.waker {
            Some(known) if known.will_wake(waker) => {}
            slot => *slot = Some(waker.clone()),
        });
    }

    fn set_deadline(&self, deadline: Option<Instant>) {
        let mut entries = self.reactor.entries.borrow_mut();
        if let Some(entry) = entries.get_mut(self.number) {
            let old = std::mem::replace(&mut entry.deadline, deadline);
            entry.expired = false;
            entries.deadlines.change(self.number, old, deadline);
        }
    }

    fn take_expired(&self) -> bool {
        self.with(|entry| std::mem::take(&mut entry.expired))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.reactor.entries.borrow_mut().remove(self.number);
    }
}

/// A socket that is registered with a reactor, with one deadline. Dropping it closes the socket.
pub struct Source<S: mio::event::Source> {
    socket: S,
    place: Place,
}

impl<S: mio::event::Source> fmt::Debug for Source<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Source").finish_non_exhaustive()
    }
}

impl<S: mio::event::Source> Source<S> {
    /// The socket, for reading and writing.
    #[must_use]
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Sets who is woken by the next change of readiness, and by the deadline.
    pub fn watch(&self, waker: &Waker) {
        self.place.watch(waker);
    }

    /// Whether there may be something to read: bytes, a connection, the end, or an error.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.place.with(|entry| entry.readable)
    }

    /// Whether something may be written.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.place.with(|entry| entry.writable)
    }

    /// To be said when the system has refused to read (`WouldBlock`).
    pub fn read_refused(&self) {
        self.place.with(|entry| entry.readable = false);
    }

    /// To be said when a read has left room: it has taken everything, so the call that would be refused is spared. When
    /// the other end has closed, it stays readable until that was read too.
    pub fn read_short(&self) {
        if SHORT_MEANS_ALL {
            self.place.with(|entry| entry.readable = entry.read_closed);
        }
    }

    /// To be said when the system has refused to write (`WouldBlock`).
    pub fn write_refused(&self) {
        self.place.with(|entry| entry.writable = false);
    }

    /// Sets, moves or clears the deadline.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.place.set_deadline(deadline);
    }

    /// Whether the deadline is over; true once.
    #[must_use]
    pub fn take_expired(&self) -> bool {
        self.place.take_expired()
    }
}

impl<S: mio::event::Source> Drop for Source<S> {
    fn drop(&mut self) {
        // The system forgets a socket that is closed in any case; this asks it on platforms where it has to be asked.
        let _ = self.place.reactor.system.borrow().poll.registry().deregister(&mut self.socket);
    }
}

/// A deadline without a socket.
pub struct Timer(Place);

impl fmt::Debug for Timer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Timer").finish_non_exhaustive()
    }
}

impl Timer {
    /// Sets, moves or clears the deadline.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.0.set_deadline(deadline);
    }

    /// Ready once after the deadline, and pending without one.
    pub fn poll_expired(&self, context: &Context<'_>) -> Poll<()> {
        self.0.watch(context.waker());
        if self.0.take_expired() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Waits for a deadline.
    pub async fn at(&self, deadline: Instant) {
        self.set_deadline(Some(deadline));
        std::future::poll_fn(|context| self.poll_expired(context)).await;
    }
}
