//! A TCP connection through this process that can be cut, held, recorded, and led to somewhere else.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// Listens on a free port of the loopback interface, and carries what comes to its target.
pub struct Cable {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    line: Arc<Line>,
}

/// What all connections through a cable have in common.
#[derive(Default)]
struct Line {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    sockets: Vec<TcpStream>,
    /// Whether nothing is carried now.
    held: bool,
    /// After so many more bytes of the target everything is cut.
    cut_after: Option<usize>,
    /// All bytes that were carried, when they are recorded.
    recorded: Option<Recorded>,
}

/// What was carried, of all connections one after the other.
#[derive(Clone, Default)]
pub struct Recorded {
    pub to_target: Vec<u8>,
    pub from_target: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToTarget,
    FromTarget,
}

impl Cable {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let line = Arc::new(Line::default());
        let (led, shared) = (Arc::clone(&target), Arc::clone(&line));
        thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                // Nobody may listen there now: then this connection ends too.
                let target = *led.lock().unwrap();
                let Ok(far) = TcpStream::connect(target) else { continue };
                let copies = [near.try_clone().unwrap(), far.try_clone().unwrap()];
                shared.state.lock().unwrap().sockets.extend(copies);
                let copies = (near.try_clone().unwrap(), far.try_clone().unwrap());
                for (from, to, direction) in
                    [(copies.0, copies.1, Direction::ToTarget), (far, near, Direction::FromTarget)]
                {
                    let line = Arc::clone(&shared);
                    thread::spawn(move || line.carry(from, to, direction));
                }
            }
        });
        Self { address, target, line }
    }

    /// Cuts all connections there are; new ones can be made at once.
    pub fn cut(&self) {
        self.line.state.lock().unwrap().cut();
    }

    /// Cuts them when the target has said so many more bytes.
    pub fn cut_after(&self, bytes: usize) {
        self.line.state.lock().unwrap().cut_after = Some(bytes);
    }

    /// Carries nothing until [`Self::release`].
    pub fn hold(&self) {
        self.line.state.lock().unwrap().held = true;
    }

    /// Carries again, also what has waited.
    pub fn release(&self) {
        self.line.state.lock().unwrap().held = false;
        self.line.changed.notify_all();
    }

    /// Records what is carried from now on.
    pub fn record(&self) {
        self.line.state.lock().unwrap().recorded = Some(Recorded::default());
    }

    /// What was recorded.
    pub fn recorded(&self) -> Recorded {
        self.line.state.lock().unwrap().recorded.clone().unwrap_or_default()
    }

    /// How many connections were made since the last cut.
    pub fn connections(&self) -> usize {
        self.line.state.lock().unwrap().sockets.len() / 2
    }

    /// Leads new connections to somewhere else, and cuts the others.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
        self.cut();
    }
}

impl State {
    fn cut(&mut self) {
        for socket in self.sockets.drain(..) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Line {
    /// Waits until `bytes` may be carried, and says how many of them.
    fn pass(&self, bytes: &[u8], direction: Direction) -> usize {
        let mut state = self.state.lock().unwrap();
        while state.held {
            state = self.changed.wait(state).unwrap();
        }
        let mut count = bytes.len();
        if direction == Direction::FromTarget
            && let Some(left) = &mut state.cut_after
        {
            count = count.min(*left);
            *left -= count;
        }
        if let Some(recorded) = &mut state.recorded {
            let side = match direction {
                Direction::ToTarget => &mut recorded.to_target,
                Direction::FromTarget => &mut recorded.from_target,
            };
            side.extend_from_slice(&bytes[..count]);
        }
        count
    }

    fn carry(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = vec![0; 65_536];
        while let Ok(count) = from.read(&mut buffer)
            && count > 0
        {
            let passed = self.pass(&buffer[..count], direction);
            if to.write_all(&buffer[..passed]).is_err() {
                break;
            }
            let mut state = self.state.lock().unwrap();
            if direction == Direction::FromTarget && state.cut_after == Some(0) {
                state.cut_after = None;
                state.cut();
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }
}
