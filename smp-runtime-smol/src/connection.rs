//! One connection as a task: moves bytes between the socket and [`RelayConnection`], and waits.
//!
//! Owns: the socket and one timer. It decides nothing. It reads what is there before it waits, writes everything that
//! there is with as few calls as possible, and gives others their turn after a while.

use std::future::poll_fn;
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
pub async fn drive(socket: Async<TcpStream>, mut connection: RelayConnection) {
    let mut timer = Timer::never();
    let mut armed: Option<SystemInstant> = None;
    loop {
        let busy = take_turn(&socket, &mut connection);
        if connection.has_ended() {
            return;
        }
        if busy {
            smol::future::yield_now().await;
            continue;
        }
        // The timer is moved only when it would be late: activity puts deadlines off all the time, and a timer that is
        // early once in a while costs less than one that is moved for each block.
        let deadline = connection.deadline();
        if let Some(deadline) = deadline
            && armed.is_none_or(|armed| deadline < armed)
        {
            timer.set_at(deadline);
            armed = Some(deadline);
        }
        let expired = poll_fn(|context| wait(context, &socket, &connection, &mut timer)).await;
        if expired {
            armed = None;
            connection.handle_timeout();
        }
    }
}

/// Reads, works and writes until there is nothing to do or it is somebody else's turn: true in the latter case.
fn take_turn(socket: &Async<TcpStream>, connection: &mut RelayConnection) -> bool {
    let mut stream = socket.get_ref();
    let mut exhausted = false;
    for _ in 0..READS_PER_TURN {
        connection.work();
        while connection.wants_write() {
            match connection.write_to(&mut stream) {
                Ok(()) => connection.work(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.lost();
                    return false;
                }
            }
        }
        if exhausted || connection.has_ended() || !connection.wants_read() {
            return false;
        }
        match connection.read_from(&mut stream) {
            // A read that does not fill the room has taken everything: asking again would only be told to wait.
            Ok(everything) => exhausted = everything,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => {
                connection.lost();
                return false;
            }
        }
    }
    true
}

/// Ready when there is something to do; true when that is only the timer.
fn wait(
    context: &mut Context<'_>,
    socket: &Async<TcpStream>,
    connection: &RelayConnection,
    timer: &mut Timer,
) -> Poll<bool> {
    // The bell is looked at after the waker is registered, so nothing is missed in between.
    if connection.poll_events(context.waker()) {
        return Poll::Ready(false);
    }
    // An error of the poll itself shows again when reading or writing, and is handled there.
    if connection.wants_read() && socket.poll_readable(context).is_ready() {
        return Poll::Ready(false);
    }
    if connection.wants_write() && socket.poll_writable(context).is_ready() {
        return Poll::Ready(false);
    }
    std::future::Future::poll(Pin::new(timer), context).map(|_| true)
}
