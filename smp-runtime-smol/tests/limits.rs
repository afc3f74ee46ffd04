//! What a relay gives to those who take without giving: half-open handshakes, clients that never read, crowds.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use support::{PATIENCE, PlainClient, Server, batch, block, init, transmission};

fn relay(settings: &[(&str, &str)]) -> (tempfile::TempDir, Server) {
    let temporary = tempfile::tempdir().expect("there is room for temporary files");
    let data = temporary.path().join("relay");
    init(&data, settings);
    let server = Server::start(&data);
    (temporary, server)
}

/// Whether the relay closes the connection; what it says before that does not matter.
fn is_closed(socket: &mut TcpStream) -> bool {
    socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut some = [0; 1024];
    loop {
        match socket.read(&mut some) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn half_open_handshakes_make_room_in_bounded_memory() {
    // Each costs a file here and one in the relay.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(4096);
    let many = usize::try_from(files / 4).expect("it fits").min(1000);
    let allowed = many / 10;
    let (_folder, server) = relay(&[("handshakes", &allowed.to_string())]);
    PlainClient::connect(&server).ping();
    let before = server.resident_memory();
    // Half of them say nothing, half of them begin a handshake and leave it.
    let mut sockets: Vec<TcpStream> = (0..many)
        .map(|number| {
            let mut socket = TcpStream::connect(server.address).expect("it listens");
            if number % 2 == 1 {
                // The header of a handshake record of 512 bytes, and a part of it.
                let _ = socket.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
            }
            socket
        })
        .collect();
    // Whoever shakes hands properly gets in all the same, as one of the newest.
    let mut client = PlainClient::connect(&server);
    client.ping();
    let after = server.resident_memory();
    let per_connection = after.saturating_sub(before) / many;
    assert!(per_connection < 16 * 1024, "{per_connection} bytes for each half-open handshake");
    // All but the newest were dropped.
    for socket in &mut sockets[..many - allowed] {
        assert!(is_closed(socket), "an old handshake is dropped");
    }
    client.ping();
    drop(sockets);
    assert!(server.stop().success());
}

#[test]
fn a_handshake_has_a_deadline() {
    let (_folder, server) = relay(&[("tls_handshake_seconds", "1"), ("smp_handshake_seconds", "1")]);
    let mut silent = TcpStream::connect(server.address).expect("it listens");
    assert!(is_closed(&mut silent));
    // TLS is there, but no hello.
    let client = PlainClient::dial(server.address, server.fingerprint);
    assert!(client.waits_to_be_closed());
    // Whoever finished in time stays.
    let mut client = PlainClient::connect(&server);
    client.ping();
    let mut silent = TcpStream::connect(server.address).expect("it listens");
    assert!(is_closed(&mut silent));
    client.ping();
}

#[test]
fn who_never_reads_is_dropped_and_others_do_not_notice() {
    let (_folder, server) = relay(&[("slow_reader_seconds", "1")]);
    let mut other = PlainClient::connect(&server);
    let mut deaf = PlainClient::connect(&server);
    let before = server.resident_memory();
    deaf.socket.set_write_timeout(Some(PATIENCE)).expect("a socket");
    // Each of these is answered by a block. What fits into the system's buffers is sent; then the relay stops to read.
    let question = block(&batch(&[transmission([9; 24], b"", b"PING")]));
    let error = 'sending: loop {
        deaf.tls.write_plaintext(&question).expect("there is room");
        while deaf.tls.wants_write() {
            if let Err(error) = deaf.tls.write_tls(&mut deaf.socket) {
                break 'sending error;
            }
        }
        other.ping();
    };
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
    other.ping();
    let grown = server.resident_memory().saturating_sub(before);
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more");
    assert!(server.stop().success());
}

#[test]
fn one_address_gets_its_share() {
    let (_folder, server) = relay(&[("connections_per_address", "2"), ("uncounted_addresses", "")]);
    let mut first = PlainClient::connect(&server);
    let second = PlainClient::connect(&server);
    let mut third = TcpStream::connect(server.address).expect("the system accepts");
    assert!(is_closed(&mut third));
    first.ping();
    drop(second);
    // The place comes back when the relay has noticed.
    loop {
        let mut socket = TcpStream::connect(server.address).expect("it listens");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(50))).expect("a socket");
        match socket.read(&mut [0; 1]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Ok(_) | Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    first.ping();
}

#[test]
fn nonsense_ends_a_connection_and_nothing_else() {
    let (_folder, server) = relay(&[]);
    let mut bystander = PlainClient::connect(&server);
    for nonsense in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 70_000], &[0x16, 3, 1, 0, 0]] {
        let mut socket = TcpStream::connect(server.address).expect("it listens");
        let _ = socket.write_all(nonsense);
        assert!(is_closed(&mut socket));
    }
    // A hello that cannot be read, one for another relay, one at a version that nobody speaks.
    let fingerprint = server.fingerprint.0;
    let other_relay = [&[0, 18, 32][..], &[1; 32], b"F0"].concat();
    let other_version = [&[0, 99, 32][..], &fingerprint, b"F0"].concat();
    for hello in [&b"\0"[..], &other_relay, &other_version] {
        let mut client = PlainClient::dial(server.address, server.fingerprint);
        client.receive();
        client.send(hello);
        assert_eq!(client.try_receive(), None, "nothing is said to it");
    }
    bystander.ping();
    assert!(server.stop().success());
}
