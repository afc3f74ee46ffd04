//! Waiting for sockets and for other threads at the same time, without a reactor: `poll(2)` and a bell.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lets other threads end the waiting of one thread.
#[derive(Debug)]
pub(crate) struct Bell {
    hears: UnixStream,
    button: Arc<Button>,
}

/// The other threads' end.
#[derive(Debug)]
struct Button(UnixStream);

impl Button {
    fn press(&self) {
        // When the buffer is full the bell is ringing already; when the other end is gone there is nobody to wake.
        let _ = (&self.0).write(&[1]);
    }
}

impl Wake for Button {
    fn wake(self: Arc<Self>) {
        self.press();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.press();
    }
}

/// Why waiting has ended; nothing of it means that the time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The socket can be read, or has ended.
    pub(crate) readable: bool,
    /// The socket can be written, or has failed.
    pub(crate) writable: bool,
    /// Somebody rang.
    pub(crate) rung: bool,
}

/// A socket, and what is wanted of it.
#[derive(Debug)]
pub(crate) struct Socket<'a, S> {
    pub(crate) socket: &'a S,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Bell {
    /// A bell that nobody has rung.
    pub(crate) fn new() -> io::Result<Self> {
        let (hears, button) = UnixStream::pair()?;
        hears.set_nonblocking(true)?;
        button.set_nonblocking(true)?;
        Ok(Self { hears, button: Arc::new(Button(button)) })
    }

    /// Rings when it is woken.
    pub(crate) fn waker(&self) -> Waker {
        Arc::clone(&self.button).into()
    }

    /// Waits until `socket` is ready for what is wanted of it, somebody rings, or the deadline is over.
    pub(crate) fn wait(
        &self,
        socket: Option<&impl AsFd>,
        read: bool,
        write: bool,
        deadline: Option<Instant>,
    ) -> io::Result<Ready> {
        let sockets: Vec<_> = socket.into_iter().map(|socket| Socket { socket, read, write }).collect();
        let (rung, ready) = self.wait_for_all(&sockets, deadline)?;
        let (readable, writable) = ready.first().copied().unwrap_or_default();
        Ok(Ready { readable, writable, rung })
    }

    /// Waits until one of `sockets` is ready for what is wanted of it, somebody rings, or the deadline is over: whether
    /// somebody rang, and of each socket whether it can be read, and written.
    pub(crate) fn wait_for_all<S: AsFd>(
        &self,
        sockets: &[Socket<'_, S>],
        deadline: Option<Instant>,
    ) -> io::Result<(bool, Vec<(bool, bool)>)> {
        // A socket of which nothing is wanted is left out: that it has ended would be reported again and again.
        let mut fds = vec![PollFd::new(&self.hears, PollFlags::IN)];
        fds.extend(sockets.iter().filter(|socket| socket.read || socket.write).map(|socket| {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, socket.read);
            wanted.set(PollFlags::OUT, socket.write);
            PollFd::new(socket.socket, wanted)
        }));
        loop {
            let timeout = deadline.map(|deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                }
            });
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut reported = fds.iter().map(PollFd::revents);
        let rung = reported.next().is_some_and(|events| !events.is_empty());
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let ready = sockets.iter().map(|socket| {
            let asked = socket.read || socket.write;
            let events =
                if asked { reported.next().unwrap_or(PollFlags::empty()) } else { PollFlags::empty() };
            let readable = socket.read && events.intersects(PollFlags::IN | over);
            (readable, socket.write && events.intersects(PollFlags::OUT | over))
        });
        let ready = ready.collect();
        if rung {
            self.silence()?;
        }
        Ok((rung, ready))
    }

    fn silence(&self) -> io::Result<()> {
        let mut rings = [0; 64];
        loop {
            match (&self.hears).read(&mut rings) {
                Ok(count) if count == rings.len() => {}
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    #[test]
    fn waiting_ends_for_the_socket_for_others_and_for_the_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let bell = Bell::new().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(1));
        assert_eq!(bell.wait(Some(&server), true, false, soon()).unwrap(), Ready::default());
        let ready = bell.wait(Some(&server), true, true, None).unwrap();
        assert_eq!(ready, Ready { writable: true, ..Ready::default() });
        client.write_all(&[1]).unwrap();
        let ready = bell.wait(Some(&server), true, false, None).unwrap();
        assert_eq!(ready, Ready { readable: true, ..Ready::default() });
        let waker = bell.waker();
        std::thread::spawn(move || {
            for _ in 0..1000 {
                waker.wake_by_ref();
            }
        })
        .join()
        .unwrap();
        let rung = Ready { rung: true, ..Ready::default() };
        assert_eq!(bell.wait(None::<&TcpStream>, true, false, None).unwrap(), rung);
        assert_eq!(bell.wait(None::<&TcpStream>, true, false, soon()).unwrap(), Ready::default());
        drop(client);
        assert_eq!(bell.wait(Some(&server), false, false, soon()).unwrap(), Ready::default());
    }
}
