//! The threads that serve connections.
//!
//! Owns: the threads, and for each an executor and a reactor of its own. A task is spawned on one thread and stays
//! there: what wakes it from there costs no call to the system, and its memory stays in that core's caches. Threads hand
//! each other nothing but new tasks, through an inbox, and wake-ups. It must never move a task, and knows nothing of
//! relays.

use std::fmt;
use std::num::NonZero;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;

use smol::LocalExecutor;

use crate::reactor::{Alarm, Reactor, Shifts};

/// Makes a task and spawns it; it runs on the thread where the task will live.
type Job = Box<dyn FnOnce(&Rc<Reactor>, &LocalExecutor<'static>) + Send>;

/// Threads with an executor and a reactor each.
pub struct Workers {
    crew: Crew,
    threads: Vec<JoinHandle<()>>,
}

/// Where tasks are spawned, from any thread.
#[derive(Clone)]
pub struct Crew(Arc<[Worker]>);

/// What is known of one thread elsewhere.
struct Worker {
    inbox: Mutex<Inbox>,
    alarm: Arc<Alarm>,
    /// Tasks that were spawned on it and have not ended.
    tasks: AtomicUsize,
}

#[derive(Default)]
struct Inbox {
    jobs: Vec<Job>,
    closed: bool,
}

impl fmt::Debug for Crew {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Crew").field("threads", &self.0.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Workers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.crew.fmt(formatter)
    }
}

impl Worker {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // A list is whole at every moment.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a task until it ends, however that happens.
struct Counted {
    crew: Crew,
    index: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(worker) = self.crew.0.get(self.index) {
            worker.tasks.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Crew {
    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How many tasks each thread has.
    #[must_use]
    pub fn tasks(&self) -> Vec<usize> {
        self.0.iter().map(|worker| worker.tasks.load(Ordering::Relaxed)).collect()
    }

    /// Spawns a task on the thread that has the fewest, forever.
    pub fn spawn<F: Future<Output = ()> + 'static>(
        &self,
        make: impl FnOnce(&Rc<Reactor>) -> F + Send + 'static,
    ) {
        let fewest = self.0.iter().enumerate().min_by_key(|(_, worker)| worker.tasks.load(Ordering::Relaxed));
        if let Some((index, _)) = fewest {
            self.spawn_on(index, make);
        }
    }

    /// Spawns a task on one thread: numbers beyond their count begin again with the first. `make` runs there, and gets
    /// the thread's reactor. After [`Workers::stop`] it is dropped instead.
    pub fn spawn_on<F: Future<Output = ()> + 'static>(
        &self,
        index: usize,
        make: impl FnOnce(&Rc<Reactor>) -> F + Send + 'static,
    ) {
        let index = index.checked_rem(self.0.len()).unwrap_or_default();
        let Some(worker) = self.0.get(index) else { return };
        worker.tasks.fetch_add(1, Ordering::Relaxed);
        let counted = Counted { crew: self.clone(), index };
        let job: Job = Box::new(move |reactor, executor| {
            // In memory of its own, of just its size: an `async` block has room for what it awaits twice.
            let task = Box::pin(make(reactor));
            executor
                .spawn(async move {
                    let _counted = counted;
                    task.await;
                })
                .detach();
        });
        {
            let mut inbox = worker.inbox();
            if inbox.closed {
                drop(inbox);
                return drop(job);
            }
            inbox.jobs.push(job);
        }
        worker.alarm.ring();
    }
}

impl Workers {
    /// Starts `count` threads, or as many as the machine has cores. They say to `shifts` when they work and when they
    /// rest.
    ///
    /// # Errors
    /// When the system gives no thread, or nothing to wait with.
    pub fn start(count: Option<usize>, shifts: Option<Arc<dyn Shifts>>) -> std::io::Result<Self> {
        let count = count
            .filter(|count| *count > 0)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
        let reactor = || Reactor::new().map(|reactor| reactor.with_shifts(shifts.clone()));
        let reactors = (0..count).map(|_| reactor()).collect::<std::io::Result<Vec<_>>>()?;
        let crew = Crew(
            reactors
                .iter()
                .map(|reactor| Worker {
                    inbox: Mutex::default(),
                    alarm: Arc::clone(reactor.alarm()),
                    tasks: AtomicUsize::new(0),
                })
                .collect(),
        );
        let mut workers = Self { crew, threads: Vec::with_capacity(count) };
        for (index, reactor) in reactors.into_iter().enumerate() {
            let crew = workers.crew.clone();
            let thread = std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
                if let Some(worker) = crew.0.get(index) {
                    work(worker, reactor);
                }
            });
            match thread {
                Ok(thread) => workers.threads.push(thread),
                Err(error) => {
                    workers.stop();
                    return Err(error);
                }
            }
        }
        Ok(workers)
    }

    /// Where tasks are spawned.
    #[must_use]
    pub fn crew(&self) -> &Crew {
        &self.crew
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.crew.count()
    }

    /// Stops the threads; tasks that are not finished are dropped there.
    pub fn stop(self) {
        for worker in self.crew.0.iter() {
            worker.inbox().closed = true;
            worker.alarm.ring();
        }
        for thread in self.threads {
            // A thread ends by a panic only when a task panicked, which has been reported by then.
            let _ = thread.join();
        }
    }
}

/// What a thread does until it is stopped.
fn work(worker: &Worker, reactor: Reactor) {
    let reactor = Rc::new(reactor);
    let executor = LocalExecutor::new();
    // Whoever fills the inbox rings, and then this is polled first.
    let empty_inbox = std::future::poll_fn(|_| {
        let jobs = {
            let mut inbox = worker.inbox();
            if inbox.closed {
                return Poll::Ready(std::mem::take(&mut inbox.jobs));
            }
            std::mem::take(&mut inbox.jobs)
        };
        for job in jobs {
            job(&reactor, &executor);
        }
        Poll::Pending
    });
    match reactor.block_on(executor.run(empty_inbox)) {
        Ok(unspawned) => drop(unspawned),
        Err(error) => {
            // Its connections would hang without anybody knowing. Storage has all that was promised.
            eprintln!(
                "smp-server: the system does not tell of connections any more ({error}): stopping; nothing that was \
                 confirmed is lost"
            );
            std::process::abort()
        }
    }
}
