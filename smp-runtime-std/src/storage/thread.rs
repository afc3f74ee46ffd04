//! The thread that drives an engine: everything that waits becomes one commit.
//!
//! Actions come in through a [`StorageQueue`], which only appends to a list; how many there can be is bounded by the
//! broker's limits. The thread takes the whole list, serves its reads, commits its writes as one group, and hands over
//! the completions of each in one call. So while one commit is being written, the next group gathers: the more there is
//! to do, the less a message costs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smp_proto::broker::storage::{ActionId, Completion, StorageAction};

use super::{Durability, Engine, StorageError};

/// What the operator is told of storage while the relay runs.
#[derive(Debug)]
pub enum StorageReport<'a> {
    /// Writing or reading failed. Told once, until it works again.
    Failing(&'a StorageError),
    /// It works again.
    Recovered,
}

#[derive(Default)]
struct Waiting {
    actions: Vec<(ActionId, StorageAction)>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A list of actions is whole at every moment: whoever panicked while holding it did not leave it half-done.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where actions go. When it is dropped, the thread does what waits, and ends.
pub struct StorageQueue {
    shared: Arc<Shared>,
}

impl StorageQueue {
    /// Adds actions at the end, leaving `actions` empty.
    pub fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>) {
        if actions.is_empty() {
            return;
        }
        self.shared.lock().actions.append(actions);
        self.shared.changed.notify_one();
    }
}

impl crate::relay::ActionQueue for StorageQueue {
    fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>) {
        Self::submit(self, actions);
    }
}

impl Drop for StorageQueue {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl std::fmt::Debug for StorageQueue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("StorageQueue").finish_non_exhaustive()
    }
}

/// A running thread; to be joined after its queue was dropped.
#[derive(Debug)]
pub struct StorageThread {
    handle: JoinHandle<()>,
}

impl StorageThread {
    /// Starts a thread that drives `engine`, hands completions to `complete`, and tells the operator through `report`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        engine: impl Engine,
        durability: Durability,
        complete: impl FnMut(Vec<Completion>) + Send + 'static,
        report: impl FnMut(StorageReport<'_>) + Send + 'static,
    ) -> io::Result<(StorageQueue, Self)> {
        let shared = Arc::new(Shared::default());
        let queue = StorageQueue { shared: Arc::clone(&shared) };
        let mut worker = Worker {
            engine: Box::new(engine),
            durability,
            complete: Box::new(complete),
            report: Box::new(report),
            failing: false,
            not_durable_since: None,
        };
        let handle =
            std::thread::Builder::new().name("smp-storage".to_owned()).spawn(move || worker.run(&shared))?;
        Ok((queue, Self { handle }))
    }

    /// Waits until everything that was submitted is done. The queue must have been dropped.
    ///
    /// # Errors
    /// When the thread has panicked.
    pub fn join(self) -> std::thread::Result<()> {
        self.handle.join()
    }
}

struct Worker {
    engine: Box<dyn Engine>,
    durability: Durability,
    complete: Box<dyn FnMut(Vec<Completion>) + Send>,
    report: Box<dyn FnMut(StorageReport<'_>) + Send>,
    failing: bool,
    /// Since when there are completed writes that are not on disk.
    not_durable_since: Option<Instant>,
}

impl Worker {
    fn run(&mut self, shared: &Shared) {
        let mut actions = Vec::new();
        loop {
            let closed = self.wait(shared, &mut actions);
            self.read(&actions);
            self.write(&actions);
            actions.clear();
            self.make_durable(closed);
            if closed {
                return;
            }
        }
    }

    /// Waits for actions, for the end, or until writes must be made durable. Returns whether it is the end: then there
    /// will be no more actions after these.
    fn wait(&self, shared: &Shared, actions: &mut Vec<(ActionId, StorageAction)>) -> bool {
        let mut waiting = shared.lock();
        while waiting.actions.is_empty() && !waiting.closed {
            waiting = match self.until_durable() {
                None => shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(rest) => {
                    shared.changed.wait_timeout(waiting, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::swap(&mut waiting.actions, actions);
        waiting.closed
    }

    /// How long completed writes may still be not on disk.
    fn until_durable(&self) -> Option<Duration> {
        match self.durability {
            Durability::Commit => None,
            Durability::Relaxed(window) => {
                self.not_durable_since.map(|since| window.saturating_sub(since.elapsed()))
            }
        }
    }

    fn read(&mut self, actions: &[(ActionId, StorageAction)]) {
        let mut completions = Vec::new();
        for (id, action) in actions {
            let result = match action {
                StorageAction::ReadMessage { queue, sequence, .. } => {
                    guarded(|| self.engine.read_message(*queue, *sequence))
                        .map(|message| Completion::Message(*id, message))
                }
                StorageAction::ReadBlob { id: blob } => {
                    guarded(|| self.engine.read_blob(*blob)).map(|value| Completion::Blob(*id, value))
                }
                StorageAction::ReadLink { queue } => {
                    guarded(|| self.engine.read_link(*queue)).map(|link| Completion::Link(*id, link))
                }
                StorageAction::ReadQueue { queue } => guarded(|| self.engine.read_queue(*queue))
                    .map(|queue| Completion::Queue(*id, queue.map(Box::new))),
                _ => continue,
            };
            completions.push(match result {
                Ok(completion) => completion,
                Err(error) => {
                    self.failed(&error);
                    Completion::Failed(*id)
                }
            });
        }
        if !completions.is_empty() {
            (self.complete)(completions);
        }
    }

    fn write(&mut self, actions: &[(ActionId, StorageAction)]) {
        let writes = || actions.iter().filter(|(_, action)| is_write(action));
        if writes().next().is_none() {
            return;
        }
        let durable = self.durability == Durability::Commit;
        let engine = &mut self.engine;
        let result = guarded(|| engine.commit(&mut writes().map(|(_, action)| action), durable));
        let completed: fn(ActionId) -> Completion = match result {
            Ok(()) => {
                if !durable {
                    self.not_durable_since.get_or_insert_with(Instant::now);
                }
                self.succeeded();
                Completion::Done
            }
            Err(error) => {
                self.failed(&error);
                Completion::Failed
            }
        };
        (self.complete)(writes().map(|(id, _)| completed(*id)).collect());
    }

    fn make_durable(&mut self, at_once: bool) {
        let due = match self.until_durable() {
            Some(rest) => at_once || rest.is_zero(),
            None => false,
        };
        if due {
            let engine = &mut self.engine;
            match guarded(|| engine.commit(&mut std::iter::empty(), true)) {
                Ok(()) => {
                    self.not_durable_since = None;
                    self.succeeded();
                }
                Err(error) => {
                    // Tried again after another window.
                    self.not_durable_since = Some(Instant::now());
                    self.failed(&error);
                }
            }
        }
    }

    fn failed(&mut self, error: &StorageError) {
        if !self.failing {
            self.failing = true;
            (self.report)(StorageReport::Failing(error));
        }
    }

    fn succeeded(&mut self) {
        if self.failing {
            self.failing = false;
            (self.report)(StorageReport::Recovered);
        }
    }
}

/// Turns a panic of the engine into an error: a damaged file must not silence the relay. The engine opens its file again.
fn guarded<T>(work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StorageError::Damaged(Path::new("storage").to_owned(), "the engine gave up".to_owned()))
    })
}

const fn is_write(action: &StorageAction) -> bool {
    !action.is_read()
}
