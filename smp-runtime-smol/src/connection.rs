//! One connection as a task: moves bytes between the socket and [`Driven`] connection, and waits.
//!
//! Owns: the socket, and when its deadline is. It decides nothing. It reads what is there before it waits, writes
//! everything that there is with as few calls as possible, and gives others their turn after a while.

use std::fmt;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use mio::net::TcpStream;
use smp_runtime_std::relay::Driven;

use crate::reactor::Source;

/// Reads of one turn; each is at most two blocks. More would let one busy client keep a thread.
const READS_PER_TURN: usize = 8;

/// Drives a connection over its socket until it ends, for whatever reason. Written out rather than as an `async fn`, which
/// would have room for several copies of it: this is what an idle connection costs.
pub struct Driver<C> {
    socket: Source<TcpStream>,
    connection: C,
    /// When the socket's deadline is.
    armed: Option<Instant>,
    /// Whether there was nothing to do.
    waiting: bool,
}

impl<C> fmt::Debug for Driver<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Driver").finish_non_exhaustive()
    }
}

impl<C: Driven + Unpin> Future for Driver<C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            if this.waiting && this.poll_wait(context).is_pending() {
                return Poll::Pending;
            }
            this.waiting = false;
            let busy = this.take_turn();
            if this.connection.has_ended() {
                return Poll::Ready(());
            }
            if busy {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.arm();
            this.waiting = true;
        }
    }
}

impl<C: Driven> Driver<C> {
    /// A connection that was just made.
    #[must_use]
    pub fn new(socket: Source<TcpStream>, connection: C) -> Self {
        Self { socket, connection, armed: None, waiting: false }
    }

    /// Reads, works and writes until there is nothing to do or it is somebody else's turn: true in the latter case.
    fn take_turn(&mut self) -> bool {
        for _ in 0..READS_PER_TURN {
            self.connection.work();
            self.write();
            if self.connection.has_ended() || !self.connection.wants_read() || !self.socket.is_readable() {
                return false;
            }
            match self.connection.read_from(&mut self.socket.socket()) {
                Ok(true) => self.socket.read_short(),
                Ok(false) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.read_refused(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.connection.lost(),
            }
        }
        true
    }

    /// Writes until there is nothing to write, or the socket takes no more.
    fn write(&mut self) {
        while self.connection.wants_write() && self.socket.is_writable() {
            match self.connection.write_to(&mut self.socket.socket()) {
                Ok(()) => self.connection.work(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.socket.write_refused(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.connection.lost(),
            }
        }
    }

    /// The deadline is moved only when it would be late: activity puts deadlines off all the time, and one that is early
    /// once in a while costs less than one that is moved for each block.
    fn arm(&mut self) {
        if let Some(deadline) = self.connection.deadline()
            && self.armed.is_none_or(|armed| deadline < armed)
        {
            self.socket.set_deadline(Some(deadline));
            self.armed = Some(deadline);
        }
    }

    /// Ready when there is something to do.
    fn poll_wait(&mut self, context: &Context<'_>) -> Poll<()> {
        self.socket.watch(context.waker());
        // The bell is looked at after the waker is registered, so nothing is missed in between.
        let mut ready = self.connection.poll_events(context.waker());
        ready |= self.connection.wants_read() && self.socket.is_readable();
        ready |= self.connection.wants_write() && self.socket.is_writable();
        if self.socket.take_expired() {
            self.armed = None;
            self.connection.handle_timeout();
            ready = true;
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use smp_runtime_std::relay::connection::RelayConnection;

    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        let size = size_of::<Driver<RelayConnection>>();
        assert!(size <= 1024, "{size}");
    }
}
