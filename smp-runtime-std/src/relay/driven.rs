//! What a runtime drives over one socket: a client's connection, or one to another relay.

use std::io::{Read, Write};
use std::task::Waker;
use std::time::Instant;

/// A connection without IO. A runtime moves bytes, calls [`work`](Self::work) after each, and waits for the socket, for
/// [`poll_events`](Self::poll_events), or for [`deadline`](Self::deadline).
pub trait Driven {
    /// Does everything that can be done now with what was received and what has happened.
    fn work(&mut self);
    /// Whether bytes from the network are welcome now.
    fn wants_read(&self) -> bool;
    /// Reads from the network once: true when that was all there is.
    ///
    /// # Errors
    /// Those of `source`.
    fn read_from(&mut self, source: &mut impl Read) -> std::io::Result<bool>;
    /// Whether there are bytes for the network.
    fn wants_write(&self) -> bool;
    /// Writes to the network once.
    ///
    /// # Errors
    /// Those of `sink`; [`std::io::ErrorKind::WriteZero`] when it takes nothing.
    fn write_to(&mut self, sink: &mut impl Write) -> std::io::Result<()>;
    /// Sets who is woken when something happens elsewhere; true when something has happened already.
    fn poll_events(&self, waker: &Waker) -> bool;
    /// When to call [`handle_timeout`](Self::handle_timeout) at the latest.
    fn deadline(&self) -> Option<Instant>;
    /// Time has passed.
    fn handle_timeout(&mut self);
    /// The network is gone.
    fn lost(&mut self);
    /// Whether it is over: the socket can be closed.
    fn has_ended(&self) -> bool;
}
