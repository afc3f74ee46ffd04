//! One connection as a task: moves bytes between the socket and [`RelayConnection`], and waits.
//!
//! Owns: the socket and one timer. It decides nothing. It reads what is there before it waits, writes everything that
//! there is with as few calls as possible, and gives others their turn after a while.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::TcpStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant as SystemInstant;

use async_io::{Async, Timer};
use smp_runtime_std::relay::connection::RelayConnection;

/// Reads of one turn; each is at most two blocks. More would let one busy client keep a thread.
const READS_PER_TURN: usize = 8;

/// Drives `connection` over `socket` until it ends, for whatever reason.
pub async fn drive(socket: Async<TcpStream>, connection: RelayConnection) {
    let mut driver = Driver { socket, connection, timer: Timer::never(), armed: None, readable: true };
    loop {
        let busy = driver.take_turn();
        if driver.connection.has_ended() {
            return;
        }
        if busy {
            smol::future::yield_now().await;
        } else {
            driver.arm_timer();
            poll_fn(|context| driver.poll_wait(context)).await;
        }
    }
}

struct Driver {
    socket: Async<TcpStream>,
    connection: RelayConnection,
    timer: Timer,
    /// When the timer fires.
    armed: Option<SystemInstant>,
    /// Whether there may be something to read. Only a wait for the socket says so again after everything was read: to
    /// read at each wake-up would cost a call to the system that says no, and a wake-up for what was read already.
    readable: bool,
}

impl Driver {
    /// Reads, works and writes until there is nothing to do or it is somebody else's turn: true in the latter case.
    fn take_turn(&mut self) -> bool {
        for _ in 0..READS_PER_TURN {
            self.connection.work();
            self.write();
            if !self.readable || self.connection.has_ended() || !self.connection.wants_read() {
                return false;
            }
            match self.connection.read_from(&mut self.socket.get_ref()) {
                // A read that does not fill the room has taken everything.
                Ok(everything) => self.readable = !everything,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.connection.lost(),
            }
        }
        true
    }

    /// Writes until there is nothing to write, or the socket takes no more.
    fn write(&mut self) {
        while self.connection.wants_write() {
            match self.connection.write_to(&mut self.socket.get_ref()) {
                Ok(()) => self.connection.work(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.connection.lost(),
            }
        }
    }

    /// The timer is moved only when it would be late: activity puts deadlines off all the time, and a timer that is
    /// early once in a while costs less than one that is moved for each block.
    fn arm_timer(&mut self) {
        if let Some(deadline) = self.connection.deadline()
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.timer.set_at(deadline);
            self.armed = Some(deadline);
        }
    }

    /// Ready when there is something to do.
    fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // The bell is looked at after the waker is registered, so nothing is missed in between.
        let mut ready = self.connection.poll_events(context.waker());
        // An error of the poll itself shows again when reading or writing, and is handled there.
        if self.connection.wants_read() && (self.readable || self.socket.poll_readable(context).is_ready()) {
            self.readable = true;
            ready = true;
        }
        if self.connection.wants_write() && self.socket.poll_writable(context).is_ready() {
            ready = true;
        }
        if Pin::new(&mut self.timer).poll(context).is_ready() {
            self.armed = None;
            self.connection.handle_timeout();
            ready = true;
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }
}
