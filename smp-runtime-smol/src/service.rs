//! A running relay: accepting connections, keeping its timers, stopping in order.

use std::net::{SocketAddr, TcpListener};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_io::{Async, Timer};
use smol::future::FutureExt;
use smol::{Executor, Task};
use smp_runtime_std::relay::Relay;
use smp_runtime_std::relay::connection::RelayConnection;

use crate::connection::drive;

/// How long accepting pauses when the system has no more files or memory.
const PAUSE_WHEN_EXHAUSTED: Duration = Duration::from_millis(100);

/// A relay that accepts connections.
pub struct Service {
    relay: Arc<Relay>,
    addresses: Vec<SocketAddr>,
    accepting: Vec<Task<()>>,
    timekeeper: Task<()>,
}

impl Service {
    /// Starts to accept on `listeners`; everything runs on `executor`.
    ///
    /// # Errors
    /// When a listener does not know its address.
    pub fn start(
        relay: Arc<Relay>,
        listeners: Vec<Async<TcpListener>>,
        executor: &Arc<Executor<'static>>,
    ) -> std::io::Result<Self> {
        let addresses =
            listeners.iter().map(|socket| socket.get_ref().local_addr()).collect::<Result<_, _>>()?;
        let accepting = listeners
            .into_iter()
            .map(|listener| executor.spawn(accept(listener, Arc::clone(&relay), Arc::clone(executor))))
            .collect();
        let timekeeper = executor.spawn(keep_time(Arc::clone(&relay)));
        Ok(Self { relay, addresses, accepting, timekeeper })
    }

    /// Where it listens, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops: accepts nobody any more, lets what is under way finish and be answered, and closes all connections.
    /// Returns after at most `patience`; true when storage had done everything by then. Clients that do not take their
    /// last answers are not waited for.
    pub async fn stop(self, patience: Duration) -> bool {
        let until = std::time::Instant::now() + patience;
        for task in self.accepting {
            task.cancel().await;
        }
        self.relay.drain();
        let quiet = wait_until(until, || self.relay.is_quiet()).await;
        self.relay.finish();
        wait_until(until, || self.relay.connections() == 0).await;
        self.timekeeper.cancel().await;
        quiet
    }
}

/// Looks again and again, as stopping is rare and short; false when the time is over.
async fn wait_until(until: std::time::Instant, done: impl Fn() -> bool) -> bool {
    while !done() {
        if std::time::Instant::now() >= until {
            return false;
        }
        Timer::after(Duration::from_millis(5)).await;
    }
    true
}

async fn accept(listener: Async<TcpListener>, relay: Arc<Relay>, executor: Arc<Executor<'static>>) {
    loop {
        let (socket, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            // What ended before it was accepted concerns nobody else; when files or memory are exhausted,
            // connections that end will free some.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(_) => {
                Timer::after(PAUSE_WHEN_EXHAUSTED).await;
                continue;
            }
        };
        // Refused connections are closed without a word: there is no way to say anything before the handshake.
        let Ok(connection) = RelayConnection::accept(&relay, address.ip()) else { continue };
        // Blocks are whole messages: waiting for more to send would only delay them.
        if socket.get_ref().set_nodelay(true).is_err() {
            continue;
        }
        executor.spawn(contain(drive(socket, connection))).detach();
    }
}

/// Ends with `task`, even when that panics: a bug that one connection finds must not take a thread from the others. What
/// the panic says has been printed by then.
async fn contain(task: impl Future<Output = ()>) {
    let _ = AssertUnwindSafe(task).catch_unwind().await;
}

/// Wakes the relay at its deadlines: expiry, and whatever else the broker waits for.
async fn keep_time(relay: Arc<Relay>) {
    let mut timer = Timer::never();
    loop {
        match relay.deadline() {
            Some(deadline) => timer.set_at(deadline),
            None => timer = Timer::never(),
        }
        let expired = std::future::poll_fn(|context| {
            if relay.poll_deadline_changed(context.waker()) {
                return std::task::Poll::Ready(false);
            }
            std::future::Future::poll(std::pin::Pin::new(&mut timer), context).map(|_| true)
        })
        .await;
        if expired {
            relay.handle_timeout();
        }
    }
}
