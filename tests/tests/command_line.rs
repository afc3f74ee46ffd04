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
use serde_json::{Value, json};

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
fn a_message_goes_through_another_relay() {
    let (near, far) = (ServerFolder::init(), ServerFolder::init());
    let outside = near.start();
    let server = far.start();
    let (alice, bob) = (Person::new(), Person::new());
    let to_alice = alice.smp(&["queue", "new", "--address", &server.text(), "from-bob"]);
    let to_alice = to_alice.trim();
    // The relays of this test are on the loopback interface, which no relay forwards to unless it is told to.
    let refused = bob.fails(&["queue", "send", "--through", &outside.text(), to_alice, "hello"]);
    assert!(refused.0 == 3 && refused.1.contains("HOST"), "{refused:?}");
    outside.terminate();
    near.set(&[("private_destinations", "on"), ("create_password", "secret")]);
    let outside = near.start();
    let through = outside.text().replace('@', ":secret@");
    let without = bob.fails(&["queue", "send", "--through", &outside.text(), to_alice, "hello"]);
    assert!(without.0 == 5 && without.1.contains("BASIC_AUTH"), "{without:?}");
    for text in ["one", "two"] {
        bob.smp(&["queue", "send", "--through", &through, to_alice, text]);
    }
    // The same keys work without the proxy.
    bob.smp(&["queue", "send", to_alice, "three"]);
    let (mut listens, mut lines) = alice.listen(&["from-bob", "--count", "3"]);
    for text in ["one", "two", "three"] {
        assert_eq!(lines.next().unwrap(), text);
    }
    assert!(listens.wait(PATIENCE).success());
    let (code, error) = bob.fails(&["queue", "send", "--through", "smp://nowhere", to_alice, "hello"]);
    assert!(code == 2 && error.contains("--through"), "{error}");
    server.terminate();
    let (code, error) = bob.fails(&["queue", "send", "--through", &through, to_alice, "nobody takes this"]);
    assert!(code == 3 && error.contains("NETWORK"), "{error}");
    outside.terminate();
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

const LINK_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";

/// Every kind of link and address, with what must be in its explanation.
fn links() -> Vec<(&'static str, String, Value)> {
    let fingerprint = "LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=";
    let queue = format!(
        "smp://{fingerprint}@smp.example.com:5223/3456-w==#/?v=2-4\
         &dh=MCowBQYDK2VuAyEAjiswwI3O_NlS8Fk3HJUW870EY2bAwmttMBsvRB9eV3o%3D&q=m"
    );
    let escaped = queue.replace('%', "%25").replace('&', "%26").replace('#', "%23").replace('=', "%3D");
    let x448 =
        "MEIwBQYDK2VvAzkAmKuSYeQ_m0SixPDS8Wq8VBaTS1cW-Lp0n0h4Diu-kUpR-qXx4SDJ32YGEFoGFGSbGPry5Ychr6U%3D";
    let relay = json!({ "hosts": ["smp.example.com"], "port": 5223, "fingerprint": fingerprint });
    let described = json!({
        "relay": relay, "sender_id": "3456-w==", "mode": "messaging", "client_versions": [2, 4],
        "dh_key": "MCowBQYDK2VuAyEAjiswwI3O_NlS8Fk3HJUW870EY2bAwmttMBsvRB9eV3o=",
    });
    vec![
        (
            "relay",
            format!("smp://{fingerprint}:top-secret@[2001:db8::1],x.onion"),
            json!({ "hosts": ["[2001:db8::1]", "x.onion"], "port": null, "password": true }),
        ),
        ("queue", queue, described.clone()),
        (
            "invitation",
            format!("simplex:/invitation#/?v=2-7&smp={escaped}&e2e=v%3D2-3%26x3dh%3D{x448}%2C{x448}"),
            json!({ "agent_versions": [2, 7], "queues": [described] }),
        ),
        (
            "contact",
            format!("https://example.com/contact#/?v=2-7&smp={escaped}%3B{escaped}&data=a%1b%5b2Jb"),
            json!({ "agent_versions": [2, 7], "queues": [described, described], "client_data": "a\u{1b}[2Jb" }),
        ),
        (
            "short-invitation",
            format!(
                "https://smp.example.com/i#MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3/{LINK_KEY}?p=5223&c={}",
                &fingerprint[..43]
            ),
            json!({ "relay": relay, "link_id": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3", "scheme": "https://" }),
        ),
        (
            "short-group",
            format!("simplex:/g#{LINK_KEY}?h=smp.example.com"),
            // WIRE-FACTS 16: 7bb6cac6ddda05661de73a9974926c4d3d30f3dd36e0e365.
            json!({ "link_id": "e7bKxt3aBWYd5zqZdJJsTT0w89024ONl", "scheme": "simplex:" }),
        ),
        (
            "blob-contact",
            format!("https://smp.example.com/contact/#{fingerprint}@:5223/{LINK_KEY}"),
            json!({ "relay": relay, "page": "smp.example.com" }),
        ),
    ]
}

#[test]
fn links_are_explained_without_their_secrets() {
    let person = Person::new();
    for (kind, link, expected) in links() {
        let text = person.smp(&["link", "show", &link]);
        let explained = json_lines(&person.smp(&["--json", "link", "show", &link])).remove(0);
        assert_eq!((&explained["event"], &explained["kind"]), (&"link".into(), &kind.into()));
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&explained[field], value, "{kind}: {field}");
        }
        // People are told the same.
        for host in ["smp.example.com", "x.onion"].iter().filter(|host| link.contains(**host)) {
            assert!(text.contains(host), "{text}");
        }
        for secret in [LINK_KEY, "top-secret", "\u{1b}"] {
            assert!(!text.contains(secret) && !explained.to_string().contains(secret), "{kind}: {text}");
        }
        // From the standard input, where other users of the machine do not see it.
        let mut piped = person.command(&["link", "show"]);
        let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        piped.stdin.take().unwrap().write_all(format!("  {link}\n").as_bytes()).unwrap();
        assert_eq!(succeeded(&piped.wait_with_output().unwrap()), text);
    }
}

#[test]
fn what_is_wrong_with_a_link_is_said() {
    let person = Person::new();
    let short = |key: &str| format!("https://smp.example.com/a#{key}");
    for (link, mention) in [
        ("http://example.com".to_owned(), "simplex:/ nor with https://"),
        (short(&LINK_KEY[..40]), "30 bytes long, and not 32"),
        (short(&(LINK_KEY.to_owned() + "?p=70000")), "the port"),
        (links()[2].1.split("&e2e").next().unwrap().to_owned(), "(e2e=)"),
        (links()[1].1.split("&dh").next().unwrap().to_owned(), "(dh=)"),
        ("smp://short@".to_owned(), "the address of a relay"),
        (" ".to_owned(), "simplex:/"),
    ] {
        let (code, error) = person.fails(&["link", "show", &link]);
        assert!(code == 2 && error.contains(mention), "{link}: {error}");
    }
    let nothing = person.command(&["link", "show", "-"]).stdin(Stdio::null()).output().unwrap();
    assert!(!nothing.status.success());
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("nothing to explain"));
}

#[test]
fn links_are_shown_as_qr_codes() {
    let person = Person::new();
    let link = format!("simplex:/a#{LINK_KEY}?h=smp.example.com");
    let rows = &json_lines(&person.smp(&["--json", "link", "show", &link, "--qr"])).remove(0)["qr"]["rows"];
    let rows: Vec<&str> = rows.as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    let size = rows.len();
    assert!(size >= 21 && rows.iter().all(|row| row.len() == size));
    // The three squares by which scanners find it.
    let finder = ["1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"];
    for (number, line) in finder.iter().enumerate() {
        assert!(rows[number].starts_with(line) && rows[number].ends_with(line));
        assert!(rows[size - 7 + number].starts_with(line));
    }
    // The same on a terminal: two rows a line, light is drawn, and a margin of four modules around it.
    let text = person.smp(&["link", "show", &link, "--qr"]);
    let drawn = text.lines().skip_while(|line| !line.starts_with('█'));
    let mut modules = Vec::new();
    for line in drawn {
        let halves = |character| match character {
            '█' => ('0', '0'),
            '▀' => ('0', '1'),
            '▄' => ('1', '0'),
            ' ' => ('1', '1'),
            other => panic!("{other:?} in a QR code"),
        };
        let (upper, lower): (String, String) = line.chars().map(halves).unzip();
        modules.extend([upper, lower]);
    }
    let margin = "0".repeat(size + 8);
    assert!(modules[..4].iter().chain(&modules[4 + size..8 + size]).all(|row| *row == margin));
    let inner: Vec<&str> = modules[4..4 + size].iter().map(|row| &row[4..4 + size]).collect();
    assert_eq!(inner, rows);

    // With post-quantum keys: 1,158 and 1,039 bytes.
    let (key, ciphertext) = ("Ab_c".repeat(386), "Ab_c".repeat(346) + "AA");
    let long = format!("{}%26kem_key%3D{key}%26kem_ct%3D{ciphertext}", links()[2].1);
    person.smp(&["link", "show", &long]);
    let (code, error) = person.fails(&["link", "show", &long, "--qr"]);
    assert!(code == 2 && error.contains("do not fit into a QR code"), "{error}");
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
