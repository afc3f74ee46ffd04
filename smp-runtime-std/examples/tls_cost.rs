//! What TLS costs on this machine: time of a handshake and of a block, memory of an idle connection.
//!
//! `cargo run --release -p smp-runtime-std --example tls_cost [connections]`
//!
//! Both ends are in this process, so each is timed apart; times are medians, as a machine may be busy. Memory is the growth of the resident set (Linux only), with
//! everything that the C library allocates, divided by the number of idle server ends kept.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use smp_runtime_std::certificates::{Algorithm, NewIdentity, Validity};
use smp_runtime_std::tls::{BLOCK, ClientTls, ServerTls, TlsSession};

fn main() -> Result<(), Box<dyn Error>> {
    let connections = std::env::args().nth(1).map_or(Ok(5_000), |argument| argument.parse())?;
    for algorithm in [Algorithm::Ed25519, Algorithm::Ed448] {
        let count = if algorithm == Algorithm::Ed25519 { 2_000 } else { 50 };
        let (server, client, both) = configurations(algorithm)?;
        let (mut of_server, mut of_client) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (server_time, client_time, _) = connect(&server, &client)?;
            of_server.push(server_time);
            of_client.push(client_time);
        }
        println!("handshake, {both}: server {:.1} us, client {:.1} us", median(of_server), median(of_client));
    }
    blocks()?;
    memory(connections)
}

/// In microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default().as_secs_f64() * 1e6
}

fn configurations(algorithm: Algorithm) -> Result<(ServerTls, ClientTls, Algorithm), Box<dyn Error>> {
    let identity = NewIdentity::make("localhost", algorithm, Validity::days_from_now(1))?;
    Ok((ServerTls::new(&identity.online)?, ClientTls::new(identity.fingerprint())?, algorithm))
}

/// A complete handshake: time of the server's end, of the client's end, and both ends.
fn connect(
    server: &ServerTls,
    client: &ClientTls,
) -> Result<(Duration, Duration, [TlsSession; 2]), Box<dyn Error>> {
    let (mut of_server, mut of_client) = (Duration::ZERO, Duration::ZERO);
    let start = Instant::now();
    let mut client = TlsSession::client(client)?;
    of_client += start.elapsed();
    let start = Instant::now();
    let mut server = TlsSession::server(server)?;
    of_server += start.elapsed();
    while client.facts().is_none() || server.facts().is_none() {
        let start = Instant::now();
        exchange(&mut client, &mut server)?;
        of_server += start.elapsed();
        let start = Instant::now();
        exchange(&mut server, &mut client)?;
        of_client += start.elapsed();
    }
    Ok((of_server, of_client, [server, client]))
}

/// Everything that `from` has to say goes to `to`.
fn exchange(from: &mut TlsSession, to: &mut TlsSession) -> Result<(), Box<dyn Error>> {
    while from.wants_write() {
        let taken = to.feed(from.outgoing());
        from.consume_outgoing(taken);
        to.process()?;
    }
    Ok(())
}

fn blocks() -> Result<(), Box<dyn Error>> {
    const COUNT: usize = 50_000;
    let (server, client, _) = configurations(Algorithm::Ed25519)?;
    let (_, _, [mut server, mut client]) = connect(&server, &client)?;
    let block = [7; BLOCK];
    let (mut writing, mut reading) = (Vec::with_capacity(COUNT), Vec::with_capacity(COUNT));
    for _ in 0..COUNT {
        let start = Instant::now();
        server.write_plaintext(&block)?;
        writing.push(start.elapsed());
        client.feed(server.outgoing());
        server.consume_outgoing(usize::MAX);
        let start = Instant::now();
        client.read_block(|block| black_box(block[0]))?.ok_or("a block did not arrive")?;
        reading.push(start.elapsed());
    }
    println!("block of {BLOCK} bytes: writing {:.2} us, reading {:.2} us", median(writing), median(reading));
    Ok(())
}

fn memory(connections: usize) -> Result<(), Box<dyn Error>> {
    let (server, client, _) = configurations(Algorithm::Ed25519)?;
    let mut idle = Vec::with_capacity(connections);
    // What is allocated once is not a connection's.
    for _ in 0..100 {
        connect(&server, &client)?;
    }
    let before = resident()?;
    for _ in 0..connections {
        let (_, _, [mut server, mut client]) = connect(&server, &client)?;
        server.write_plaintext(&[1; BLOCK])?;
        exchange(&mut server, &mut client)?;
        client.write_plaintext(&[2; BLOCK])?;
        exchange(&mut client, &mut server)?;
        server.read_block(|block| black_box(block[0]))?.ok_or("a block did not arrive")?;
        drop(server.take_facts());
        idle.push(server);
    }
    let after = resident()?;
    let buffers: usize = idle.iter().map(TlsSession::buffered_memory).sum();
    println!(
        "{connections} idle connections of a server, after a block each way: {} bytes each resident, {buffers} in buffers; \
         {} bytes of each are the session itself",
        (after.saturating_sub(before)) / connections.max(1),
        size_of::<TlsSession>(),
    );
    Ok(())
}

/// The resident set of this process in bytes.
fn resident() -> Result<usize, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<usize>()? * 1024)
}
