//! The thread that drives an engine: everything that waits becomes one commit.
//!
//! Actions come in through a [`StorageQueue`], which only appends to a list; how many there can be is bounded by the
//! broker's limits. The thread takes the whole list, serves its reads, commits its writes as one group, and hands over
//! the completions of each in one call. So while one commit is being written, the next group gathers: the more there is
//! to do, the less a message costs. A runtime that says when its threads work and when they rest ([`Workload`]) makes
//! that true also where the disk is fast: while one of them works there is more to come, and the thread lets it gather
//! for a short time. When all rest, it never waits.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use smp_proto::broker::storage::{ActionId, Completion, StorageAction};

use super::recent::Recent;
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
    /// Whether the thread sleeps: to wake it is a call to the system, which is made only then.
    asleep: bool,
}

/// How long actions may gather while threads work: about as long as a commit takes.
const GATHERING: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Threads that work now, as far as they say so.
    working: AtomicUsize,
    /// Whether the thread waits for them to rest.
    gathering: AtomicBool,
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
        let mut waiting = self.shared.lock();
        waiting.actions.append(actions);
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.shared.changed.notify_one();
        }
    }
}

impl crate::relay::ActionQueue for StorageQueue {
    fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>) {
        Self::submit(self, actions);
    }
}

/// Where the threads of a runtime say whether there is more to come from them.
#[derive(Clone)]
pub struct Workload {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Workload {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Workload").finish_non_exhaustive()
    }
}

impl Workload {
    /// A thread begins to work.
    pub fn begin(&self) {
        self.shared.working.fetch_add(1, Ordering::SeqCst);
    }

    /// A thread that has begun rests: everything that it had to submit is submitted.
    pub fn rest(&self) {
        if self.shared.working.fetch_sub(1, Ordering::SeqCst) == 1 && self.is_awaited() {
            // With the lock, so that it is not between its look at us and its sleep.
            drop(self.shared.lock());
            self.shared.changed.notify_one();
        }
    }

    /// Whether the storage thread waits for the threads to rest.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.shared.gathering.load(Ordering::SeqCst)
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
    workload: Workload,
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
        Self::start_gathering(engine, durability, GATHERING, complete, report)
    }

    fn start_gathering(
        engine: impl Engine,
        durability: Durability,
        gathering: Duration,
        complete: impl FnMut(Vec<Completion>) + Send + 'static,
        report: impl FnMut(StorageReport<'_>) + Send + 'static,
    ) -> io::Result<(StorageQueue, Self)> {
        let shared = Arc::new(Shared::default());
        let queue = StorageQueue { shared: Arc::clone(&shared) };
        let workload = Workload { shared: Arc::clone(&shared) };
        let mut worker = Worker {
            engine: Box::new(engine),
            durability,
            complete: Box::new(complete),
            report: Box::new(report),
            gathering,
            recent: Recent::default(),
            failing: false,
            not_durable_since: None,
        };
        let handle =
            std::thread::Builder::new().name("smp-storage".to_owned()).spawn(move || worker.run(&shared))?;
        Ok((queue, Self { handle, workload }))
    }

    /// Where threads that submit say that they work.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.workload
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
    /// How long actions may gather while threads work.
    gathering: Duration,
    recent: Recent,
    failing: bool,
    /// Since when there are completed writes that are not on disk.
    not_durable_since: Option<Instant>,
}

impl Worker {
    fn run(&mut self, shared: &Shared) {
        let mut actions = Vec::new();
        loop {
            let mut closed = self.wait(shared, &mut actions);
            self.read(&actions);
            if !closed && actions.iter().any(|(_, action)| is_write(action)) {
                let first = actions.len();
                closed = self.gather(shared, &mut actions);
                self.read(actions.get(first..).unwrap_or_default());
            }
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
            waiting.asleep = true;
            waiting = match self.until_durable() {
                None => shared.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(rest) => {
                    shared.changed.wait_timeout(waiting, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        waiting.asleep = false;
        std::mem::swap(&mut waiting.actions, actions);
        waiting.closed
    }

    /// Waits until all threads rest, or for a while, and takes what they have added. Returns whether it is the end.
    fn gather(&self, shared: &Shared, actions: &mut Vec<(ActionId, StorageAction)>) -> bool {
        let all_rest = || shared.working.load(Ordering::SeqCst) == 0;
        let mut waiting = shared.lock();
        // Said before the look at who works: whoever rests after that look sees it.
        shared.gathering.store(true, Ordering::SeqCst);
        let until = Instant::now() + self.gathering;
        while !waiting.closed && !all_rest() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = shared.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        shared.gathering.store(false, Ordering::SeqCst);
        actions.append(&mut waiting.actions);
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
                    match self.recent.get(*queue, *sequence) {
                        Some(message) => Ok(Some(message)),
                        None => guarded(|| self.engine.read_message(*queue, *sequence)),
                    }
                    .map(|message| Completion::Message(*id, message))
                }
                StorageAction::ReadBlob { id: blob } => {
                    guarded(|| self.engine.read_blob(*blob)).map(|value| Completion::Blob(*id, value))
                }
                StorageAction::ReadLink { queue } => {
                    guarded(|| self.engine.read_link(*queue)).map(|link| Completion::Link(*id, link))
                }
                StorageAction::ReadRecord { key } => {
                    guarded(|| self.engine.read_record(key)).map(|value| Completion::Record(*id, value))
                }
                StorageAction::ReadQueue { queue } => guarded(|| self.engine.read_queue(*queue))
                    .map(|queue| Completion::Queue(*id, queue.map(Box::new))),
                _ => continue,
            };
            completions.push(match result {
                Ok(completion) => completion,
                Err(error) => {
                    // The engine opens its file again, and may have lost what was not durable.
                    self.recent.forget();
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
        let completions = match result {
            Ok(deletions) => {
                if !durable {
                    self.not_durable_since.get_or_insert_with(Instant::now);
                }
                writes().for_each(|(_, action)| self.recent.committed(action));
                self.succeeded();
                let mut deletions = deletions.into_iter();
                let completed = |(id, action): &(ActionId, StorageAction)| {
                    if deletes_by_prefix(action) {
                        // An engine that forgets to say so is asked once more.
                        Completion::Deleted(*id, deletions.next().unwrap_or(true))
                    } else {
                        Completion::Done(*id)
                    }
                };
                writes().map(completed).collect()
            }
            Err(error) => {
                self.recent.forget();
                self.failed(&error);
                writes().map(|(id, _)| Completion::Failed(*id)).collect()
            }
        };
        (self.complete)(completions);
    }

    fn make_durable(&mut self, at_once: bool) {
        let due = match self.until_durable() {
            Some(rest) => at_once || rest.is_zero(),
            None => false,
        };
        if due {
            let engine = &mut self.engine;
            match guarded(|| engine.commit(&mut std::iter::empty(), true)) {
                Ok(_) => {
                    self.not_durable_since = None;
                    self.succeeded();
                }
                Err(error) => {
                    self.recent.forget();
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

fn deletes_by_prefix(action: &StorageAction) -> bool {
    match action {
        StorageAction::DeleteRecords { .. } => true,
        StorageAction::WithRecords { action, .. } => deletes_by_prefix(action),
        _ => false,
    }
}

const fn is_write(action: &StorageAction) -> bool {
    !action.is_read()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use bytes::Bytes;
    use smp_proto::broker::storage::{MessageKind, MessageMark, QueueNumber, Sequence, StoredMessage};
    use smp_proto::time::UnixTime;

    use super::*;
    use crate::storage::Memory;

    /// Longer than any test runs: only resting ends it.
    const FOREVER: Duration = Duration::from_secs(3600);

    fn write(number: u64) -> (ActionId, StorageAction) {
        let mark = MessageMark { timestamp: UnixTime(0), kind: MessageKind::Ordinary };
        let action = StorageAction::DeleteMessage { queue: QueueNumber(1), sequence: Sequence(number), mark };
        (ActionId(number), action)
    }

    fn start(gathering: Duration) -> (StorageQueue, StorageThread, Receiver<Vec<Completion>>) {
        let (sender, groups) = channel();
        let complete = move |group| drop(sender.send(group));
        let (queue, thread) = StorageThread::start_gathering(
            Memory::default(),
            Durability::Commit,
            gathering,
            complete,
            |_| (),
        )
        .expect("there are threads");
        (queue, thread, groups)
    }

    fn wait_until_awaited(workload: &Workload) {
        while !workload.is_awaited() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn actions_gather_until_the_last_thread_rests() {
        let (queue, thread, groups) = start(FOREVER);
        let workload = thread.workload().clone();
        for round in 0..200 {
            workload.begin();
            workload.begin();
            queue.submit(&mut vec![write(1)]);
            wait_until_awaited(&workload);
            queue.submit(&mut vec![write(2), write(3)]);
            workload.rest();
            assert!(workload.is_awaited(), "one still works");
            queue.submit(&mut vec![write(4)]);
            workload.rest();
            assert_eq!(groups.recv().map(|group| group.len()), Ok(4), "round {round}");
        }
        drop(queue);
        thread.join().expect("it ends");
    }

    #[test]
    fn nothing_waits_while_all_rest_and_nothing_waits_for_ever() {
        let (queue, thread, groups) = start(FOREVER);
        queue.submit(&mut vec![write(1)]);
        assert_eq!(groups.recv().map(|group| group.len()), Ok(1));
        drop(queue);
        thread.join().expect("it ends");
        let (queue, thread, groups) = start(Duration::from_millis(1));
        thread.workload().begin();
        queue.submit(&mut vec![write(1)]);
        assert_eq!(groups.recv().map(|group| group.len()), Ok(1));
        drop(queue);
        thread.join().expect("it ends");
    }

    #[test]
    fn the_end_does_not_wait_for_who_works() {
        let (queue, thread, groups) = start(FOREVER);
        let workload = thread.workload().clone();
        workload.begin();
        queue.submit(&mut vec![write(1)]);
        wait_until_awaited(&workload);
        drop(queue);
        thread.join().expect("it ends");
        assert_eq!(groups.iter().map(|group| group.len()).sum::<usize>(), 1);
    }

    #[test]
    fn no_rest_is_missed() {
        let (queue, thread, groups) = start(FOREVER);
        let workload = thread.workload().clone();
        // A thread that rests at every moment of the storage thread's look at it. A missed one is a test that never ends.
        for number in 0..20_000 {
            workload.begin();
            queue.submit(&mut vec![write(number)]);
            for _ in 0..number % 64 {
                std::hint::spin_loop();
            }
            workload.rest();
            assert_eq!(groups.recv().map(|group| group.len()), Ok(1));
        }
        drop(queue);
        thread.join().expect("it ends");
    }

    #[test]
    fn a_message_is_read_back_until_it_is_deleted() {
        let (queue, thread, groups) = start(FOREVER);
        let (of, sequence) = (QueueNumber(1), Sequence(7));
        let mark = MessageMark { timestamp: UnixTime(0), kind: MessageKind::Ordinary };
        let message = StoredMessage { id: [3; 24], notification: true, body: Bytes::from_static(b"body") };
        let act = |action| {
            queue.submit(&mut vec![(ActionId(0), action)]);
            groups.recv().expect("it is done").pop()
        };
        let read = || match act(StorageAction::ReadMessage { queue: of, sequence, mark }) {
            Some(Completion::Message(_, found)) => found,
            other => panic!("{other:?}"),
        };
        assert_eq!(read(), None);
        act(StorageAction::PutMessage { queue: of, sequence, mark, message: message.clone() });
        assert_eq!(read(), Some(message));
        act(StorageAction::DeleteMessage { queue: of, sequence, mark });
        assert_eq!(read(), None);
        drop(queue);
        thread.join().expect("it ends");
    }
}
