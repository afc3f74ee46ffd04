//! A TCP connection through this process that can be cut, and led to somewhere else.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Listens on a free port of the loopback interface, and carries what comes to its target.
pub struct Cable {
    pub address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    sockets: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    pub fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let sockets: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (led, kept) = (Arc::clone(&target), Arc::clone(&sockets));
        thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                // Nobody may listen there now: then this connection ends too.
                let target = *led.lock().unwrap();
                let Ok(far) = TcpStream::connect(target) else { continue };
                kept.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                    thread::spawn(move || carry(from, to));
                }
            }
        });
        Self { address, target, sockets }
    }

    /// Cuts all connections there are; new ones can be made at once.
    pub fn cut(&self) {
        for socket in self.sockets.lock().unwrap().drain(..) {
            // It may be closed already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Leads new connections to somewhere else, and cuts the others.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
        self.cut();
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
        && to.write_all(&buffer[..count]).is_ok()
    {}
    let _ = to.shutdown(Shutdown::Write);
}
