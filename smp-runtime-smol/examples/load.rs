//! Load for a relay on this machine, for measuring: connections that idle, connections that come and go, messages.
//!
//! ```text
//! load ADDRESS FINGERPRINT[:PASSWORD] idle COUNT [PID]   opens COUNT connections, prints the memory of PID, waits
//! load ADDRESS FINGERPRINT[:PASSWORD] connect SECONDS THREADS
//! load ADDRESS FINGERPRINT[:PASSWORD] deliver SECONDS PAIRS [WINDOW]
//! ```

#[path = "../tests/support/session_client.rs"]
mod session_client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use session_client::{Said, SessionClient};
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::tls::ClientTls;

#[derive(Clone)]
struct Target {
    address: SocketAddr,
    tls: ClientTls,
    fingerprint: Fingerprint,
    password: Option<String>,
}

impl Target {
    fn connect(&self) -> SessionClient {
        SessionClient::connect(self.address, &self.tls, self.fingerprint).expect("the relay serves")
    }
}

/// A line of /proc/PID/status, in kilobytes, and the processor time that the process has used, in milliseconds.
fn memory_and_time(pid: &str) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("a name").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    (resident, ticks * 10)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, identity, mode, rest @ ..] = &arguments[..] else {
        eprintln!("load ADDRESS FINGERPRINT[:PASSWORD] idle|connect|deliver NUMBER [NUMBER]");
        std::process::exit(2);
    };
    let (fingerprint, password) = match identity.split_once(':') {
        Some((fingerprint, password)) => (fingerprint, Some(password.to_owned())),
        None => (identity.as_str(), None),
    };
    let fingerprint: Fingerprint = fingerprint.parse().expect("a fingerprint");
    let target = Target {
        address: address.parse().expect("an address"),
        tls: ClientTls::new(fingerprint).expect("TLS"),
        fingerprint,
        password,
    };
    let number =
        |index: usize, default: u64| rest.get(index).map_or(default, |text| text.parse().expect("a number"));
    match mode.as_str() {
        "idle" => idle(&target, number(0, 1000), rest.get(1).map(String::as_str)),
        "connect" => connect(&target, Duration::from_secs(number(0, 5)), number(1, 2)),
        "deliver" => deliver(&target, Duration::from_secs(number(0, 5)), number(1, 4), number(2, 8)),
        other => panic!("unknown mode {other}"),
    }
}

fn idle(target: &Target, count: u64, pid: Option<&str>) {
    let before = pid.map(memory_and_time);
    let clients: Vec<SessionClient> = (0..count).map(|_| target.connect()).collect();
    std::thread::sleep(Duration::from_millis(500));
    if let (Some(pid), Some((resident, time))) = (pid, before) {
        let (resident_after, time_after) = memory_and_time(pid);
        println!(
            "{count} connections: {} bytes resident each, {} us of processor time each",
            (resident_after - resident) * 1024 / count,
            (time_after - time) * 1000 / count
        );
        std::thread::sleep(Duration::from_secs(10));
        let (_, later) = memory_and_time(pid);
        println!("10 idle seconds: {} ms of processor time", later - time_after);
    }
    drop(clients);
}

fn connect(target: &Target, duration: Duration, threads: u64) {
    let count = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while start.elapsed() < duration {
                    drop(target.connect());
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!(
        "{:.0} connections a second",
        count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
    );
}

fn deliver(target: &Target, duration: Duration, pairs: u64, window: u64) {
    let delivered = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for _ in 0..pairs {
        let mut recipient = target.connect();
        let queue = Arc::new(recipient.create(target.password.as_deref()).expect("a queue"));
        let mut sender = target.connect();
        let (stop_sender, queue_of_sender) = (Arc::clone(&stop), Arc::clone(&queue));
        threads.push(std::thread::spawn(move || {
            let body = vec![7; 16_000];
            let mut under_way = 0;
            while !stop_sender.load(Ordering::Relaxed) || under_way > 0 {
                while under_way < window && !stop_sender.load(Ordering::Relaxed) {
                    sender.send_message(&queue_of_sender, &body).expect("the relay reads");
                    under_way += 1;
                }
                for said in sender.receive().expect("the relay answers") {
                    under_way -= 1;
                    // A full queue: the recipient is slower. Give it time.
                    if said != Said::Ok {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }));
        let (stop_recipient, count) = (Arc::clone(&stop), Arc::clone(&delivered));
        threads.push(std::thread::spawn(move || {
            recipient.socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
            while let Ok(said) = recipient.receive() {
                for said in said {
                    if let Said::Message(_, id) = said {
                        count.fetch_add(1, Ordering::Relaxed);
                        recipient.acknowledge(&queue, id).expect("the relay reads");
                    }
                }
                if stop_recipient.load(Ordering::Relaxed) {
                    break;
                }
            }
        }));
    }
    let start = Instant::now();
    std::thread::sleep(duration);
    println!(
        "{:.0} messages a second",
        delivered.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
    );
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        let _ = thread.join();
    }
}
