//! A relay with one thread for each connection, for tests and for small devices.
//!
//! It drives the same [`RelayConnection`] as the relay of `smp-runtime-smol`, and decides nothing itself. A thread waits for
//! its socket, for its bell ([`Driven::poll_events`]) or for a deadline; an idle connection costs a thread's stack
//! and three file descriptors. For thousands of connections use `smp-runtime-smol`.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::readiness::Bell;
use crate::relay::connection::RelayConnection;
use crate::relay::dial::RelayDial;
use crate::relay::{Driven, Relay};

/// How long accepting pauses when the system has no more files, threads or memory.
const PAUSE_WHEN_EXHAUSTED: Duration = Duration::from_millis(100);

/// The stack of a connection's thread: block buffers are on the heap.
const STACK: usize = 512 * 1024;

/// A relay that accepts connections on one address. Dropping it stops it at once; [`Self::stop`] stops it in order.
#[derive(Debug)]
pub struct BlockingRelay {
    relay: Arc<Relay>,
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    bells: Vec<Waker>,
    threads: Vec<JoinHandle<()>>,
}

impl BlockingRelay {
    /// Starts to accept connections for `relay` on `address`; port 0 is any free port.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the system has no more threads.
    pub fn bind(address: impl ToSocketAddrs, relay: Arc<Relay>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let mut started = Self {
            relay,
            address: listener.local_addr()?,
            stopping: Arc::default(),
            bells: Vec::new(),
            threads: Vec::new(),
        };
        let (relay, stopping) = (Arc::clone(&started.relay), Arc::clone(&started.stopping));
        started.spawn("smp-accept", move |bell| accept(&listener, &relay, &stopping, &bell))?;
        let (relay, stopping) = (Arc::clone(&started.relay), Arc::clone(&started.stopping));
        started.spawn("smp-timekeeper", move |bell| keep_time(&relay, &stopping, &bell))?;
        let (relay, stopping) = (Arc::clone(&started.relay), Arc::clone(&started.stopping));
        started.spawn("smp-dialler", move |bell| dial(&relay, &stopping, &bell))?;
        Ok(started)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(Bell) + Send + 'static) -> std::io::Result<()> {
        let bell = Bell::new()?;
        self.bells.push(bell.waker());
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(move || run(bell))?);
        Ok(())
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is behind it.
    #[must_use]
    pub const fn relay(&self) -> &Arc<Relay> {
        &self.relay
    }

    /// Stops: accepts nobody any more, lets what is under way finish and be answered, and closes all connections.
    /// Returns after at most `patience`, true when everything had finished by then.
    pub fn stop(mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        self.stopping.store(true, Ordering::Release);
        self.relay.drain();
        let quiet = wait_until(until, || self.relay.is_quiet());
        self.relay.finish();
        let closed = wait_until(until, || self.relay.connections() == 0);
        self.end();
        quiet && closed
    }

    fn end(&mut self) {
        self.stopping.store(true, Ordering::Release);
        for bell in self.bells.drain(..) {
            bell.wake();
        }
        for thread in self.threads.drain(..) {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for BlockingRelay {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.relay.finish();
            self.end();
        }
    }
}

/// Looks again and again, as stopping is rare and short; false when the time is over.
fn wait_until(until: Instant, done: impl Fn() -> bool) -> bool {
    while !done() {
        if Instant::now() >= until {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

fn accept(listener: &TcpListener, relay: &Arc<Relay>, stopping: &AtomicBool, bell: &Bell) {
    while !stopping.load(Ordering::Acquire) {
        let (socket, address) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if bell.wait(Some(listener), true, false, None).is_err() {
                    thread::sleep(PAUSE_WHEN_EXHAUSTED);
                }
                continue;
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                continue;
            }
            Err(_) => {
                thread::sleep(PAUSE_WHEN_EXHAUSTED);
                continue;
            }
        };
        // Refused connections are closed without a word: there is no way to say anything before the handshake.
        let Ok(connection) = RelayConnection::accept(relay, address.ip()) else { continue };
        // Blocks are whole messages: waiting for more to send would only delay them.
        if socket.set_nodelay(true).and_then(|()| socket.set_nonblocking(true)).is_err() {
            continue;
        }
        let Ok(bell) = Bell::new() else { continue };
        // Without a thread the connection is dropped, and the client tries again.
        let started = thread::Builder::new()
            .name("smp-connection".to_owned())
            .stack_size(STACK)
            .spawn(move || drive(&socket, connection, &bell));
        if started.is_err() {
            thread::sleep(PAUSE_WHEN_EXHAUSTED);
        }
    }
}

/// Drives `connection` over `socket` until it ends, for whatever reason.
fn drive(mut socket: &TcpStream, mut connection: impl Driven, bell: &Bell) {
    let waker = bell.waker();
    loop {
        connection.work();
        while connection.wants_write() {
            match connection.write_to(&mut socket) {
                Ok(()) => connection.work(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return connection.lost(),
            }
        }
        if connection.has_ended() {
            return;
        }
        let mut received = false;
        if connection.wants_read() {
            match connection.read_from(&mut socket) {
                Ok(_) => received = true,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return connection.lost(),
            }
        }
        // The bell is looked at after the waker is registered, so nothing is missed in between.
        if received || connection.poll_events(&waker) {
            continue;
        }
        let (read, write, deadline) =
            (connection.wants_read(), connection.wants_write(), connection.deadline());
        if bell.wait(Some(socket), read, write, deadline).is_err() {
            return connection.lost();
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            connection.handle_timeout();
        }
    }
}

/// Dials the relays that this one forwards to, each on a thread of its own.
fn dial(relay: &Arc<Relay>, stopping: &AtomicBool, bell: &Bell) {
    let waker = bell.waker();
    while !stopping.load(Ordering::Acquire) {
        if !relay.poll_dials(&waker) && bell.wait(None::<&TcpStream>, false, false, None).is_err() {
            thread::sleep(PAUSE_WHEN_EXHAUSTED);
        }
        while let Some(dial) = relay.take_dial() {
            // Without a thread the dial is dropped, and has failed.
            let _ = thread::Builder::new()
                .name("smp-destination".to_owned())
                .stack_size(STACK)
                .spawn(move || reach(dial));
        }
    }
}

/// Reaches another relay, and drives the connection until it ends.
fn reach(dial: RelayDial) {
    let socket = match dial.reach() {
        Ok(socket) => socket,
        Err(failure) => return dial.failed(failure),
    };
    let Ok(bell) = Bell::new() else { return };
    if socket.set_nonblocking(true).is_ok()
        && let Some(link) = dial.connected()
    {
        drive(&socket, link, &bell);
    }
}

/// Wakes the relay at its deadlines: expiry, and whatever else the broker waits for.
fn keep_time(relay: &Relay, stopping: &AtomicBool, bell: &Bell) {
    let waker = bell.waker();
    while !stopping.load(Ordering::Acquire) {
        // Registered before the deadline is asked for: a change in between rings.
        if relay.poll_deadline_changed(&waker) {
            continue;
        }
        let deadline = relay.deadline();
        if bell.wait(None::<&TcpStream>, false, false, deadline).is_err() {
            thread::sleep(PAUSE_WHEN_EXHAUSTED);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            relay.handle_timeout();
        }
    }
}
