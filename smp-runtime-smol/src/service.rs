//! A running relay: accepting connections, keeping its timers, stopping in order.
//!
//! Owns: which thread a connection lives on, which is the one with the fewest, and the order of stopping. Listening
//! sockets are dealt to the threads.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_io::Timer;
use mio::net::TcpStream;
use smol::channel::{self, Receiver, Sender};
use smol::future::or;
use smp_runtime_std::relay::connection::RelayConnection;
use smp_runtime_std::relay::dial::RelayDial;
use smp_runtime_std::relay::{Driven, Relay};
use smp_runtime_std::storage::Workload;

use crate::connection::Driver;
use crate::reactor::{Reactor, Shifts, Source};
use crate::workers::{Crew, Workers};

/// How long accepting pauses when the system has no more files or memory.
const PAUSE_WHEN_EXHAUSTED: Duration = Duration::from_millis(100);

/// Connections that are accepted before others get their turn.
const ACCEPTED_PER_TURN: usize = 64;

/// A relay that accepts connections.
#[derive(Debug)]
pub struct Service {
    relay: Arc<Relay>,
    addresses: Vec<SocketAddr>,
    accepting: Tasks,
    timekeeper: Tasks,
    dialling: Tasks,
}

/// Tasks on other threads that end when they are told to.
#[derive(Debug)]
struct Tasks {
    /// Carries nothing: it is closed to stop them.
    stop: Sender<()>,
    /// Carries nothing: it is closed when the last of them is gone.
    gone: Receiver<()>,
}

/// The tasks' end of it.
#[derive(Clone)]
struct UntilStopped {
    stopped: Receiver<()>,
    _here: Sender<()>,
}

impl Tasks {
    fn new() -> (Self, UntilStopped) {
        let (stop, stopped) = channel::bounded(1);
        let (here, gone) = channel::bounded(1);
        (Self { stop, gone }, UntilStopped { stopped, _here: here })
    }

    /// Returns when all are gone, with everything that they had.
    async fn stop(self) {
        self.stop.close();
        // Nothing is ever sent: this is the error of a closed channel.
        let _ = self.gone.recv().await;
    }
}

impl UntilStopped {
    /// Runs `task` until it ends or is to be stopped, and drops it then.
    async fn run(self, task: impl Future<Output = ()>) {
        let stopped = async {
            let _ = self.stopped.recv().await;
        };
        or(stopped, task).await;
    }
}

/// What threads want stored while they work is written together.
impl Shifts for Workload {
    fn begin(&self) {
        Self::begin(self);
    }

    fn rest(&self) {
        Self::rest(self);
    }

    fn is_awaited(&self) -> bool {
        Self::is_awaited(self)
    }
}

/// Who is to be told when threads that serve `relay` work and when they rest: for [`Workers::start`].
#[must_use]
pub fn shifts(relay: &Relay) -> Option<Arc<dyn Shifts>> {
    Some(Arc::new(relay.workload()?.clone()))
}

impl Service {
    /// Starts to accept on `listeners`, which must not block; everything runs on `workers`.
    ///
    /// # Errors
    /// When a listener does not know its address.
    pub fn start(relay: Arc<Relay>, listeners: Vec<TcpListener>, workers: &Workers) -> std::io::Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let crew = workers.crew();
        let (accepting, until_stopped) = Tasks::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            let (relay, until_stopped, threads) = (Arc::clone(&relay), until_stopped.clone(), crew.clone());
            crew.spawn_on(index, move |reactor| {
                let accepting = accept(listener, relay, threads, Rc::clone(reactor));
                until_stopped.run(accepting)
            });
        }
        let (timekeeper, until_stopped) = Tasks::new();
        crew.spawn({
            let relay = Arc::clone(&relay);
            move |reactor| until_stopped.run(keep_time(relay, Rc::clone(reactor)))
        });
        let (dialling, until_stopped) = Tasks::new();
        crew.spawn({
            let (relay, crew) = (Arc::clone(&relay), crew.clone());
            move |_| until_stopped.run(dial(relay, crew))
        });
        Ok(Self { relay, addresses, accepting, timekeeper, dialling })
    }

    /// What is behind it.
    #[must_use]
    pub const fn relay(&self) -> &Arc<Relay> {
        &self.relay
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
        let until = Instant::now() + patience;
        self.accepting.stop().await;
        self.relay.drain();
        self.dialling.stop().await;
        let quiet = wait_until(until, || self.relay.is_quiet()).await;
        self.relay.finish();
        wait_until(until, || self.relay.connections() == 0).await;
        self.timekeeper.stop().await;
        quiet
    }
}

/// Looks again and again, as stopping is rare and short; false when the time is over.
async fn wait_until(until: Instant, done: impl Fn() -> bool) -> bool {
    while !done() {
        if Instant::now() >= until {
            return false;
        }
        Timer::after(Duration::from_millis(5)).await;
    }
    true
}

async fn accept(listener: TcpListener, relay: Arc<Relay>, crew: Crew, reactor: Rc<Reactor>) {
    let timer = reactor.timer();
    let source = loop {
        // The socket is kept until then: without it nobody would be served.
        match listener.try_clone().and_then(|copy| reactor.register(mio::net::TcpListener::from_std(copy))) {
            Ok(source) => break source,
            Err(_) => timer.at(Instant::now() + PAUSE_WHEN_EXHAUSTED).await,
        }
    };
    drop(listener);
    loop {
        for _ in 0..ACCEPTED_PER_TURN {
            let (socket, address) = match source.socket().accept() {
                Ok(accepted) => accepted,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        source.read_refused();
                        readable(&source).await;
                        continue;
                    }
                    // What ended before it was accepted concerns nobody else.
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted => continue,
                    // When files or memory are exhausted, connections that end will free some.
                    _ => {
                        timer.at(Instant::now() + PAUSE_WHEN_EXHAUSTED).await;
                        continue;
                    }
                },
            };
            welcome(socket, address, &relay, &crew);
        }
        smol::future::yield_now().await;
    }
}

async fn readable(source: &Source<mio::net::TcpListener>) {
    poll_fn(|context| {
        source.watch(context.waker());
        if source.is_readable() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Makes a task of an accepted connection, unless it is refused.
fn welcome(socket: TcpStream, address: SocketAddr, relay: &Arc<Relay>, crew: &Crew) {
    // Refused connections are closed without a word: there is no way to say anything before the handshake.
    let Ok(connection) = RelayConnection::accept(relay, address.ip()) else { return };
    // Blocks are whole messages: waiting for more to send would only delay them.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    crew.spawn(move |reactor| Contained::new(reactor, socket, connection));
}

/// Drives a connection, and ends with it, even when that panics: a bug that one connection finds must not take a thread
/// from the others. What the panic says has been printed by then.
struct Contained<C>(Option<Driver<C>>);

impl<C: Driven + Unpin> Contained<C> {
    fn new(reactor: &Rc<Reactor>, socket: TcpStream, connection: C) -> Self {
        // What the system does not take is closed.
        Self(reactor.register(socket).ok().map(|socket| Driver::new(socket, connection)))
    }
}

impl<C: Driven + Unpin> Future for Contained<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(driver) = &mut self.0 else { return Poll::Ready(()) };
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(driver).poll(context)));
        polled.unwrap_or(Poll::Ready(()))
    }
}

/// Dials the relays that this one forwards to: names and connections on threads that may block, then a task like others.
async fn dial(relay: Arc<Relay>, crew: Crew) {
    loop {
        poll_fn(|context| if relay.poll_dials(context.waker()) { Poll::Ready(()) } else { Poll::Pending })
            .await;
        while let Some(dial) = relay.take_dial() {
            let crew = crew.clone();
            smol::unblock(move || match dial.reach() {
                Ok(socket) => settle(socket, dial, &crew),
                Err(failure) => dial.failed(failure),
            })
            .detach();
        }
    }
}

/// Makes a task of a connection to another relay.
fn settle(socket: std::net::TcpStream, dial: RelayDial, crew: &Crew) {
    if socket.set_nonblocking(true).is_err() {
        return;
    }
    if let Some(link) = dial.connected() {
        crew.spawn(move |reactor| Contained::new(reactor, TcpStream::from_std(socket), link));
    }
}

/// Wakes the relay at its deadlines: expiry, and whatever else the broker waits for.
async fn keep_time(relay: Arc<Relay>, reactor: Rc<Reactor>) {
    let timer = reactor.timer();
    loop {
        timer.set_deadline(relay.deadline());
        let expired = poll_fn(|context| {
            if relay.poll_deadline_changed(context.waker()) {
                return Poll::Ready(false);
            }
            timer.poll_expired(context).map(|()| true)
        })
        .await;
        if expired {
            relay.handle_timeout();
        }
    }
}
