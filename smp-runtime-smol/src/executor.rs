//! The threads that serve connections.
//!
//! Owns: one executor and its threads. Every connection is a task; a task runs on whichever thread is free.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::JoinHandle;

use smol::Executor;
use smol::channel::{Receiver, Sender};

/// An executor with threads of its own.
pub struct Threads {
    executor: Arc<Executor<'static>>,
    stop: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `count` threads, or as many as the machine has cores.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(count: Option<usize>) -> std::io::Result<Self> {
        let count = count
            .filter(|count| *count > 0)
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
        let executor = Arc::new(Executor::new());
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let threads = (0..count)
            .map(|number| {
                let executor = Arc::clone(&executor);
                let stopped: Receiver<()> = stopped.clone();
                std::thread::Builder::new().name(format!("relay-{number}")).spawn(move || {
                    // The channel carries nothing: it is closed to stop.
                    let _ = async_io::block_on(executor.run(stopped.recv()));
                })
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { executor, stop, threads })
    }

    /// Where tasks are spawned.
    #[must_use]
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Stops the threads; tasks that are not finished are dropped with the executor.
    pub fn stop(self) {
        self.stop.close();
        for thread in self.threads {
            // A thread ends by a panic only when a task panicked, which has been reported by then.
            let _ = thread.join();
        }
    }
}
