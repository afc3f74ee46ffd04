//! The real programs: `smp-server`, and `smp` as two people in two terminals use it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cable;
mod programs;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use cable::Cable;
use programs::{Running, ServerFolder, json_lines, program, succeeded};
use serde_json::Value;

/// Long enough for any machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// One person, with a folder of their own.
struct Person(tempfile::TempDir);

impl Person {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    /// `smp` with these arguments.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program("smp");
        command.arg("--data").arg(self.folder().join("smp")).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What it prints, when it succeeds.
    fn smp(&self, arguments: &[&str]) -> String {
        succeeded(&self.run(arguments))
    }

    /// The exit code and the error, when it fails.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} must fail");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// `smp queue listen`, running, with its output line by line.
    fn listen(&self, arguments: &[&str]) -> (Running, impl Iterator<Item = String> + use<>) {
        let mut command = self.command(&["queue", "listen"]);
        let mut child: Child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        (Running(child), lines)
    }
}

#[test]
fn two_people_exchange_messages() {
    let relay = ServerFolder::init();
    let server = relay.start();
    let (alice, bob) = (Person::new(), Person::new());
    // Each makes a queue for the other.
    let to_alice = alice.smp(&["queue", "new", "--address", &server.text(), "from-bob"]);
    let to_bob = bob.smp(&["queue", "new", "--address", &server.text()]);
    let (to_alice, to_bob) = (to_alice.trim(), to_bob.trim());
    let (mut alice_listens, mut at_alice) = alice.listen(&["from-bob", "--count", "4"]);
    let (mut bob_listens, mut at_bob) = bob.listen(&["--count", "2"]);

    bob.smp(&["queue", "send", to_alice, "hello Alice"]);
    assert_eq!(at_alice.next().unwrap(), "hello Alice");
    alice.smp(&["queue", "send", to_bob, "hello Bob"]);
    assert_eq!(at_bob.next().unwrap(), "hello Bob");
    // While one listens, the same person can send; a second message goes on with the same keys.
    bob.smp(&["queue", "send", to_alice, "are you there?"]);
    assert_eq!(at_alice.next().unwrap(), "are you there?");
    let mut piped = alice.command(&["queue", "send", to_bob, "-"]).stdin(Stdio::piped()).spawn().unwrap();
    piped.stdin.take().unwrap().write_all("from a pipe: schöne Grüße\n".as_bytes()).unwrap();
    assert!(Running(piped).wait(PATIENCE).success());
    assert_eq!(at_bob.next().unwrap(), "from a pipe: schöne Grüße");
    let mut lines =
        bob.command(&["queue", "send", to_alice, "--lines"]).stdin(Stdio::piped()).spawn().unwrap();
    lines.stdin.take().unwrap().write_all(b"line one\nline two").unwrap();
    assert!(Running(lines).wait(PATIENCE).success());
    assert_eq!((at_alice.next().unwrap(), at_alice.next().unwrap()), ("line one".into(), "line two".into()));
    assert!(alice_listens.wait(PATIENCE).success());
    assert!(bob_listens.wait(PATIENCE).success());

    // A queue belongs to its first sender.
    let eve = Person::new();
    let (code, error) = eve.fails(&["queue", "send", to_alice, "it is me, Bob"]);
    assert!(code == 5 && error.contains("AUTH") && error.contains("somebody else has secured it"), "{error}");

    alice.smp(&["queue", "delete", "from-bob"]);
    assert_eq!(alice.smp(&["queue", "list"]), "");
    assert_eq!(bob.fails(&["queue", "send", to_alice, "gone?"]).0, 5);
    server.terminate();
}

#[test]
fn a_relay_that_dies_and_comes_back_is_hardly_noticed() {
    let relay = ServerFolder::init();
    let server = relay.start();
    // The relay gets another port when it starts again; clients keep the address that they know.
    let cable = Cable::to(server.address);
    let address = format!("smp://{}@{}", server.fingerprint, cable.address);
    let (alice, bob) = (Person::new(), Person::new());
    let to_alice = alice.smp(&["queue", "new", "--address", &address, "queue"]);
    let to_alice = to_alice.trim();
    bob.smp(&["queue", "send", to_alice, "one"]);
    let (mut listens, mut lines) = alice.listen(&["queue", "--count", "3"]);
    assert_eq!(lines.next().unwrap(), "one");
    server.kill();
    cable.cut();
    let (code, error) = bob.fails(&["--timeout", "5", "queue", "send", to_alice, "nobody takes this"]);
    assert_eq!(code, 3, "{error}");
    let server = relay.start();
    cable.lead_to(server.address);
    bob.smp(&["queue", "send", to_alice, "two"]);
    // Whoever listens connects again without being told.
    assert_eq!(lines.next().unwrap(), "two");
    bob.smp(&["queue", "send", to_alice, "three"]);
    assert_eq!(lines.next().unwrap(), "three");
    assert!(listens.wait(PATIENCE).success());
    server.terminate();
}

#[test]
fn programs_can_read_everything() {
    let relay = ServerFolder::init();
    let server = relay.start();
    let (alice, bob) = (Person::new(), Person::new());
    let pongs = json_lines(&alice.smp(&["--json", "ping", &server.text(), "--count", "2"]));
    let events: Vec<&str> = pongs.iter().map(|line| line["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["connected", "pong", "pong"]);
    assert!(pongs[0]["version"].as_u64().unwrap() >= 11);

    let made = json_lines(&alice.smp(&["--json", "queue", "new", "-a", &server.text(), "one"]));
    let uri = made[0]["address"].as_str().unwrap();
    assert_eq!(json_lines(&alice.smp(&["--json", "queue", "list"]))[0]["address"], uri);
    // The relay of the last queue is the default.
    alice.smp(&["queue", "new", "two"]);

    let sent = json_lines(&bob.smp(&["--json", "queue", "send", uri, "text"]));
    assert_eq!((&sent[0]["event"], &sent[0]["bytes"]), (&"sent".into(), &4.into()));
    let mut binary = bob.command(&["queue", "send", uri]).stdin(Stdio::piped()).spawn().unwrap();
    binary.stdin.take().unwrap().write_all(&[0xFF, 0xFE]).unwrap();
    assert!(Running(binary).wait(PATIENCE).success());
    let received = json_lines(&alice.smp(&["--json", "queue", "listen", "one", "--no-wait"]));
    assert_eq!((&received[0]["text"], &received[1]["base64"]), (&"text".into(), &"//4=".into()));
    // Nothing is delivered twice, and nothing waits.
    assert_eq!(alice.smp(&["--json", "queue", "listen", "one", "--no-wait"]), "");

    let (code, error) = alice.fails(&["--json", "queue", "listen", "three"]);
    let error: Value = serde_json::from_str(error.trim()).unwrap();
    assert_eq!((code, &error["event"], &error["kind"]), (2, &"error".into(), &"usage".into()));
    server.terminate();
}

#[test]
fn errors_say_what_happened_to_what_and_what_to_do() {
    let relay = ServerFolder::init();
    let server = relay.start();
    let person = Person::new();
    let other = format!("smp://{}@{}", "A".repeat(43), server.address);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("smp://{}@{nobody}", server.fingerprint);
    let long = "x".repeat(16_000);
    let queue = person.smp(&["queue", "new", "-a", &server.text(), "mine"]);
    let cases: [(&[&str], i32, &[&str]); 9] = [
        (&["ping", "example.com"], 2, &["smp://FINGERPRINT@HOST"]),
        (&["ping", &other], 4, &["fingerprint", "check the address"]),
        (&["ping", &nobody], 3, &["cannot connect", "check host and port"]),
        (&["queue", "send", &server.text(), "text"], 2, &["not the address of a queue", "smp queue new"]),
        (&["queue", "send", queue.trim(), &long], 2, &["16000 bytes", "in parts"]),
        (&["queue", "listen", "other"], 2, &["no queue `other`", "smp queue list"]),
        (&["queue", "new", "mine"], 2, &["there is a queue `mine` already"]),
        (&["queue", "new", "a\nb"], 2, &["cannot be the name"]),
        (&["--timeout", "0", "queue", "list"], 2, &["more than 0"]),
    ];
    for (arguments, code, mentions) in cases {
        let (actual, error) = person.fails(arguments);
        assert_eq!(actual, code, "{arguments:?}: {error}");
        for mention in mentions {
            assert!(error.contains(mention), "{arguments:?} does not mention `{mention}`: {error}");
        }
        assert!(!error.contains("panicked"), "{error}");
    }
    // A folder that is a file.
    let file = person.folder().join("file");
    std::fs::write(&file, "").unwrap();
    let output = program("smp").arg("--data").arg(&file).args(["queue", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    server.terminate();
}

#[test]
fn completions_are_printed_for_every_shell() {
    let person = Person::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = person.smp(&["completions", shell]);
        assert!(script.contains("queue") && script.contains("bench"), "{shell}");
    }
}

#[test]
fn every_mode_of_the_load_generator_reports() {
    let relay = ServerFolder::init();
    let server = relay.start();
    let person = Person::new();
    let pid = server.child.id().to_string();
    let bench = |arguments: &[&str]| {
        let address = server.text();
        let all = [&["--json", "bench", &address, "--pid", &pid], arguments].concat();
        let lines = json_lines(&person.smp(&all));
        assert_eq!(lines.len(), 1);
        lines.into_iter().next().unwrap()
    };
    let messages = bench(&["--count", "50", "--connections", "4", "--threads", "2", "--floor"]);
    assert_eq!(messages["messages"], 50);
    assert_eq!(messages["errors"], serde_json::json!({}));
    for field in ["messages_per_second", "relay_cpu_us_per_message", "load_cpu_us_per_message"] {
        assert!(messages[field].as_f64().is_some(), "{field}: {messages}");
    }
    for latency in ["send_to_ok", "send_to_message", "ack"] {
        assert!(messages[latency]["p99_us"].as_f64().unwrap() > 0.0);
    }
    let floor = &messages["floor"];
    let parts = ["tls_us", "blocks_us", "authenticator_us", "signature_us", "message_us"];
    let sum: f64 = parts.iter().map(|part| floor[part].as_f64().unwrap()).sum();
    assert!((sum - floor["total_us"].as_f64().unwrap()).abs() < 0.01);
    let connections = bench(&["--mode", "connections", "--count", "20", "-n", "4"]);
    assert!(connections["connections"].as_u64().unwrap() >= 20);
    assert_eq!(bench(&["--mode", "new", "--queues", "200", "-n", "2"])["queues"], 200);
    assert_eq!(bench(&["--mode", "subscribe", "--queues", "200", "-n", "2"])["subscriptions"], 200);
    let idle = bench(&["--mode", "idle", "-n", "30", "--duration", "0.1"]);
    assert_eq!(idle["connections"], 30);
    assert!(idle["relay_bytes_per_connection"].as_f64().is_some());
    // It leaves nothing behind: the relay says so when it starts again.
    server.terminate();
    let server = relay.start();
    assert_eq!(server.queues, 0, "queues were left on the relay");
}
