//! `smp` as people use it to find each other and to talk: real programs, two real relays, one for each person.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cable;
mod programs;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use cable::Cable;
use programs::{Running, ServerFolder, ServerProcess, json_lines, program, succeeded};
use serde_json::Value;

/// Long enough for any machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A relay at an address that stays when the process is started again.
struct Relay {
    folder: ServerFolder,
    process: Option<ServerProcess>,
    cable: Cable,
    text: String,
}

impl Relay {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// One that forwards to relays on this machine.
    fn proxy() -> Self {
        Self::start_with(&[("private_destinations", "on")])
    }

    fn start_with(settings: &[(&str, &str)]) -> Self {
        let folder = ServerFolder::init();
        folder.set(settings);
        let process = folder.start();
        let cable = Cable::to(process.address);
        let text = format!("smp://{}@{}", process.fingerprint, cable.address);
        Self { folder, process: Some(process), cable, text }
    }

    fn kill_and_start_again(&mut self) {
        self.kill();
        self.start_again();
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    fn start_again(&mut self) {
        let process = self.folder.start();
        self.cable.lead_to(process.address);
        self.process = Some(process);
    }
}

/// One person, with a folder, a passphrase and a relay of their own.
struct Person {
    folder: tempfile::TempDir,
    relay: String,
    /// When messages go through their relay.
    proxy: &'static str,
}

impl Person {
    fn at(relay: &Relay) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), relay: relay.text.clone(), proxy: "never" }
    }

    /// Somebody whose messages go through their own relay.
    fn hidden_behind(relay: &Relay) -> Self {
        Self { proxy: "unknown", ..Self::at(relay) }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("smp")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        self.command_within("60", arguments)
    }

    fn command_within(&self, seconds: &str, arguments: &[&str]) -> Command {
        let mut command = program("smp");
        command.env("SMP_PASSPHRASE", "correct horse").env("SMP_ADDRESS", &self.relay);
        command.env("SMP_PROXY", self.proxy);
        command.args(["--json", "--timeout", seconds, "--data"]).arg(self.data()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// The results that it prints, when it succeeds.
    fn smp(&self, arguments: &[&str]) -> Vec<Value> {
        json_lines(&succeeded(&self.run(arguments)))
    }

    /// The next message that somebody wrote: from whom, and the text.
    fn hears(&self) -> (String, String) {
        let lines = self.smp(&["listen", "--count", "1"]);
        let message = lines.iter().find(|line| line["event"] == "message").unwrap();
        let text = |key: &str| message[key].as_str().unwrap().to_owned();
        (text("contact"), text("text"))
    }

    /// The exit code and the error, when it fails.
    fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?} must fail");
        let lines = json_lines(&String::from_utf8(output.stderr).unwrap());
        let error = lines.iter().find(|line| line["event"] == "error").unwrap();
        (output.status.code().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    /// The link of a new invitation.
    fn invite(&self, name: &str, arguments: &[&str]) -> String {
        let results = self.smp(&[&["invite", name], arguments].concat());
        assert_eq!((&results[0]["event"], &results[0]["contact"]), (&"invitation".into(), &name.into()));
        results[0]["link"].as_str().unwrap().to_owned()
    }

    /// A command that goes on until it is ended.
    fn stays(&self, arguments: &[&str]) -> Conversation {
        let mut command = self.command(arguments);
        let mut child: Child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                // A line that was cut by a kill is none.
                let Some(value) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else { break };
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Conversation { child: Running(child), input: Some(input), lines }
    }

    /// What this person has from, and what they said to, somebody.
    fn history(&self, name: &str) -> (Vec<String>, Vec<String>) {
        let lines = self.smp(&["history", name, "--count", "500"]);
        let text = |line: &Value| line["text"].as_str().unwrap().to_owned();
        let theirs = |line: &&Value| line["event"] == "message" || line["state"] == "received";
        (
            lines.iter().filter(theirs).map(text).collect(),
            lines.iter().filter(|line| !theirs(line)).map(text).collect(),
        )
    }
}

/// A running `smp`, with what it prints.
struct Conversation {
    child: Running,
    input: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Conversation {
    fn say(&mut self, text: &str) {
        // It may have been killed.
        let _ = writeln!(self.input.as_mut().unwrap(), "{text}");
    }

    fn next(&self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(value) => Some(value),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing happens"),
        }
    }

    /// Waits for an event of which these fields are so.
    fn wait_for(&self, event: &str, fields: &[(&str, &str)]) -> Value {
        loop {
            let value = self.next().unwrap_or_else(|| panic!("it ended before `{event}` {fields:?}"));
            if value["event"] == event && fields.iter().all(|(key, field)| value[key] == **field) {
                return value;
            }
        }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.0.kill().unwrap();
        self.child.0.wait().unwrap();
    }

    /// Nothing more is typed; it ends when everything has left.
    fn end(mut self) {
        self.input = None;
        assert!(self.child.wait(PATIENCE).success());
    }
}

#[test]
fn two_people_connect_by_a_short_link_while_the_first_is_offline_and_talk() {
    let (one, two) = (Relay::start(), Relay::start());
    let (alice, bob) = (Person::at(&one), Person::at(&two));
    let link = alice.invite("bob", &["--as", "Alice A."]);
    assert!(link.starts_with("simplex:/i#"), "{link}");
    // Alice's program has ended: nobody is there.
    let joined = bob.smp(&["connect", &link, "--as", "Bob"]);
    assert_eq!(joined[0]["may_send"], true);
    assert_eq!(joined[0]["contact"], "Alice A.", "her name is behind the link");
    assert_eq!(bob.smp(&["send", "Alice A.", "are you there?"])[0]["event"], "sent");
    assert_eq!(alice.hears(), ("bob".to_owned(), "are you there?".to_owned()));

    let mut at_alice = alice.stays(&["chat", "bob"]);
    let mut at_bob = bob.stays(&["chat", "Alice A."]);
    at_alice.say("yes, now");
    at_bob.wait_for("message", &[("text", "yes, now")]);
    at_alice.wait_for("delivered", &[]);
    at_bob.say("good");
    at_alice.wait_for("message", &[("text", "good")]);
    at_bob.wait_for("delivered", &[]);
    at_alice.end();
    at_bob.end();
    assert_eq!(
        alice.history("bob"),
        (vec!["are you there?".to_owned(), "good".to_owned()], vec!["yes, now".to_owned()])
    );
    assert!(alice.smp(&["contacts"])[0]["connected"] == true);
}

#[test]
fn a_link_for_one_person_connects_one_person() {
    let relay = Relay::start();
    let (alice, bob, eve) = (Person::at(&relay), Person::at(&relay), Person::at(&relay));
    let link = alice.invite("bob", &[]);
    assert_eq!(alice.invite("bob", &[]), link, "the link is shown again");
    bob.smp(&["connect", &link, "alice"]);
    let (code, error) = eve.fails(&["connect", &link, "alice"]);
    assert_eq!(code, 5);
    assert!(error.contains("used by somebody else or deleted"), "{error}");
    assert!(eve.smp(&["contacts"]).is_empty(), "nothing is kept of what cannot be");
    let (code, _) = eve.fails(&["send", "alice", "hi"]);
    assert_eq!(code, 2);
    // The same by the long form.
    let long = alice.invite("carol", &["--long"]);
    assert!(long.contains("/invitation#/?v="), "{long}");
    bob.smp(&["connect", &long, "alice again"]);
    eve.fails(&["connect", &long]);
}

#[test]
fn an_address_is_for_many_and_its_owner_decides() {
    let relay = Relay::start();
    let (alice, bob, eve) = (Person::at(&relay), Person::at(&relay), Person::at(&relay));
    let address = alice.smp(&["address", "--as", "alice"])[0]["link"].as_str().unwrap().to_owned();
    assert_eq!(alice.smp(&["address"])[0]["link"], address);
    assert_eq!(bob.smp(&["connect", &address, "--as", "bob"])[0]["may_send"], false);
    eve.smp(&["connect", &address, "--as", "eve"]);
    let listening = alice.stays(&["listen"]);
    let first = listening.wait_for("requested", &[]);
    let second = listening.wait_for("requested", &[]);
    let (from_bob, from_eve) = if first["name"] == "bob" { (first, second) } else { (second, first) };
    assert_eq!(from_eve["name"], "eve");
    // While one `smp` listens, others ask it.
    alice.smp(&["reject", &from_eve["request"].to_string()]);
    let accepted = alice.smp(&["accept", &from_bob["request"].to_string()]);
    assert_eq!(accepted[0]["contact"], "bob");
    let mut at_bob = bob.stays(&["chat", "alice"]);
    at_bob.wait_for("connected", &[]);
    at_bob.say("thank you");
    listening.wait_for("message", &[("text", "thank you"), ("contact", "bob")]);
    at_bob.end();
    listening.kill();
    // The process that had the agent is gone without having tidied up: the next one has it.
    alice.smp(&["send", "bob", "you are welcome"]);
    assert_eq!(bob.hears(), ("alice".to_owned(), "you are welcome".to_owned()));
    // Everybody, from now on.
    alice.smp(&["address", "--accept", "everybody"]);
    let carol = Person::at(&relay);
    carol.smp(&["connect", &address, "--as", "carol"]);
    let listening = alice.stays(&["listen"]);
    carol.stays(&["listen"]).wait_for("connected", &[("contact", "alice")]);
    listening.wait_for("connected", &[("contact", "carol")]);
    listening.kill();
    alice.smp(&["address", "--delete"]);
    let (code, _) = Person::at(&relay).fails(&["connect", &address]);
    assert_eq!(code, 5);
}

#[test]
fn somebody_is_deleted_and_queues_move() {
    let (one, two, three) = (Relay::start(), Relay::start(), Relay::start());
    let (alice, bob) = (Person::at(&one), Person::at(&two));
    bob.smp(&["connect", &alice.invite("bob", &[]), "alice"]);
    let listening = bob.stays(&["listen"]);
    alice.stays(&["listen"]).wait_for("connected", &[]);
    listening.wait_for("connected", &[]);
    assert_eq!(alice.smp(&["switch", "bob", "--relay", &three.text])[0]["event"], "switched");
    // The old relay is not needed any more.
    drop(one);
    bob.smp(&["send", "alice", "at the new place"]);
    assert_eq!(alice.hears(), ("bob".to_owned(), "at the new place".to_owned()));
    assert_eq!(alice.smp(&["delete", "bob"])[0]["event"], "deleted");
    assert!(alice.smp(&["contacts"]).is_empty());
    listening.kill();
    let (code, error) = bob.fails(&["send", "alice", "still there?"]);
    assert_eq!(code, 5, "{error}");
}

#[test]
fn without_the_passphrase_nothing_can_be_read() {
    let relay = Relay::start();
    let (alice, bob) = (Person::at(&relay), Person::at(&relay));
    bob.smp(&["connect", &alice.invite("bob", &["--as", "Alice of Wonderland"]), "--as", "Bob the Builder"]);
    bob.smp(&["send", "Alice of Wonderland", "a text that nobody else may see"]);
    alice.hears();
    for person in [&alice, &bob] {
        let mut seen = 0;
        for entry in std::fs::read_dir(person.data()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "socket") {
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            seen += bytes.len();
            for text in
                ["a text that", "Wonderland", "the Builder", "127.0.0.1", "displayName", "correct horse"]
            {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "`{text}` is in {}", path.display());
            }
        }
        assert!(seen > 10_000, "there is something to look at");
    }
    let asked = |passphrase: Option<&str>, file: Option<&Path>| {
        let mut command = program("smp");
        command.arg("--data").arg(alice.data()).arg("contacts");
        if let Some(passphrase) = passphrase {
            command.env("SMP_PASSPHRASE", passphrase);
        }
        if let Some(file) = file {
            command.arg("--passphrase-file").arg(file);
        }
        command.output().unwrap()
    };
    let wrong = asked(Some("wrong horse"), None);
    assert_eq!(wrong.status.code(), Some(7));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("not the passphrase"));
    let none = asked(None, None);
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("SMP_PASSPHRASE"));
    let file = alice.folder.path().join("passphrase");
    std::fs::write(&file, "correct horse\n").unwrap();
    assert!(succeeded(&asked(None, Some(&file))).contains("bob"));
}

#[test]
fn mistakes_are_explained() {
    let relay = Relay::start();
    let alice = Person::at(&relay);
    let (code, error) = alice.fails(&["connect", "https://example.com/"]);
    assert_eq!(code, 2);
    assert!(error.contains("not a link"), "{error}");
    let (code, error) = alice.fails(&["send", "nobody", "hi"]);
    assert_eq!(code, 2);
    assert!(error.contains("no contact `nobody`"), "{error}");
    alice.invite("bob", &[]);
    let (code, error) = alice.fails(&["send", "bob", "hi"]);
    assert_eq!(code, 5);
    assert!(error.contains("cannot be written to yet"), "{error}");
    let (code, _) = alice.fails(&["accept", "99"]);
    assert_eq!(code, 2);
    let homeless = program("smp")
        .env("SMP_PASSPHRASE", "")
        .arg("--data")
        .arg(alice.folder.path().join("new"))
        .arg("invite")
        .output()
        .unwrap();
    assert_eq!(homeless.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&homeless.stderr).contains("--relay"));
    // A relay that is not there: what was begun is kept.
    let bob = Person::at(&relay);
    let link = bob.invite("alice", &[]);
    drop(relay);
    let output = alice.command_within("1", &["connect", &link]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn messages_go_through_ones_own_relay_and_say_so() {
    let (mut one, mut two) = (Relay::proxy(), Relay::proxy());
    let (alice, bob) = (Person::hidden_behind(&one), Person::hidden_behind(&two));
    bob.smp(&["connect", &alice.invite("bob", &[]), "alice"]);
    assert_eq!(bob.smp(&["send", "alice", "who am I?"])[0]["proxied"], true);
    assert_eq!(alice.hears(), ("bob".to_owned(), "who am I?".to_owned()));
    assert_eq!(alice.smp(&["send", "bob", "nobody knows"])[0]["proxied"], true);
    assert_eq!(bob.hears(), ("alice".to_owned(), "nobody knows".to_owned()));
    // The proxy is killed, and knows no session any more; then the destination is.
    two.kill_and_start_again();
    assert_eq!(bob.smp(&["send", "alice", "still nobody"])[0]["proxied"], true);
    one.kill_and_start_again();
    assert_eq!(bob.smp(&["send", "alice", "and still"])[0]["proxied"], true);
    // For once, straight.
    let straight = bob.smp(&["--proxy", "never", "send", "alice", "it is me"]);
    assert_eq!(straight[0]["proxied"], false);
    let texts = ["who am I?", "still nobody", "and still", "it is me"].map(str::to_owned);
    let mut listening = alice.stays(&["listen"]);
    listening.wait_for("message", &[("text", "it is me")]);
    listening.input = None;
    listening.kill();
    assert_eq!(alice.history("bob").0, texts);
    let ways: Vec<_> = bob
        .smp(&["history", "alice"])
        .iter()
        .filter(|line| line["state"] == "sent" || line["state"] == "delivered")
        .map(|line| line["proxied"].as_bool().unwrap())
        .collect();
    assert_eq!(ways, [true, true, true, false]);
}

/// Alice and Bob, who send through their own relays, always; of whom each has heard the other.
fn always_hidden(one: &Relay, two: &Relay) -> (Person, Person) {
    let always = |relay| Person { proxy: "always", ..Person::at(relay) };
    let (alice, bob) = (always(one), always(two));
    bob.smp(&["connect", &alice.invite("bob", &[]), "alice"]);
    let sent = bob.smp(&["send", "alice", "while all is well"]);
    assert_eq!((&sent[0]["event"], &sent[0]["proxied"]), (&"sent".into(), &true.into()));
    assert_eq!(alice.hears().1, "while all is well");
    (alice, bob)
}

/// How the last two messages to Alice are.
fn last_two(bob: &Person) -> Vec<String> {
    let shown = bob.smp(&["history", "alice", "--count", "2"]);
    shown.iter().map(|line| line["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_sent_while_the_destination_is_down_is_held_and_then_delivered() {
    let (mut one, two) = (Relay::proxy(), Relay::proxy());
    let (alice, bob) = always_hidden(&one, &two);
    one.kill();
    let mut at_bob = bob.stays(&["listen"]);
    let held = bob.smp(&["--proxy", "always", "send", "alice", "the relay is down"]);
    assert_eq!((&held[0]["event"], &held[0]["contact"]), (&"held".into(), &"alice".into()), "{held:?}");
    assert!(held[0]["attempts"].is_u64() && held[0]["next"].is_i64(), "{held:?}");
    at_bob.wait_for("held", &[]);
    let history = bob.smp(&["history", "alice"]);
    assert_eq!(history.last().unwrap()["state"], "held");
    assert_eq!(bob.smp(&["contacts"])[0]["held"], 1);
    assert_eq!(bob.smp(&["send", "alice", "so is this one"])[0]["event"], "held");
    // The destination starts: both arrive by themselves, in their order.
    one.start_again();
    let mut at_alice = alice.stays(&["listen"]);
    at_alice.wait_for("message", &[("text", "the relay is down")]);
    at_alice.wait_for("message", &[("text", "so is this one")]);
    at_bob.wait_for("sent", &[]);
    at_bob.wait_for("delivered", &[]);
    at_bob.wait_for("delivered", &[]);
    at_bob.input = None;
    at_bob.kill();
    at_alice.input = None;
    at_alice.kill();
    assert_eq!(last_two(&bob), ["delivered"; 2]);
    assert_eq!(alice.history("bob").0, ["while all is well", "the relay is down", "so is this one"]);
    // What comes next arrives as well, whether or not the proxy has found out yet that the relay is back.
    bob.smp(&["send", "alice", "and now"]);
    assert_eq!(alice.hears().1, "and now");
}

#[test]
fn what_is_held_arrives_although_the_sender_is_gone_and_the_proxy_was_killed() {
    let (mut one, mut two) = (Relay::proxy(), Relay::proxy());
    let (alice, bob) = always_hidden(&one, &two);
    one.kill();
    for text in ["first", "second"] {
        assert_eq!(bob.smp(&["send", "alice", text])[0]["event"], "held");
    }
    // Bob's program has ended. His relay is killed while it holds them, and starts before the other does.
    two.kill_and_start_again();
    one.start_again();
    let mut at_alice = alice.stays(&["listen"]);
    at_alice.wait_for("message", &[("text", "first")]);
    at_alice.wait_for("message", &[("text", "second")]);
    // He hears of it when he comes back, and is shown that it was held till then.
    assert!(last_two(&bob).iter().all(|state| ["held", "sent", "delivered"].contains(&state.as_str())));
    let mut at_bob = bob.stays(&["listen"]);
    while last_two(&bob) != ["delivered"; 2] {
        assert!(at_bob.next().is_some(), "{:?}", last_two(&bob));
    }
    at_bob.input = None;
    at_bob.kill();
    at_alice.input = None;
    at_alice.kill();
    assert_eq!(alice.history("bob").0, ["while all is well", "first", "second"], "each once");
}

#[test]
fn without_a_proxy_a_message_waits_unless_it_may_go_straight() {
    // These relays do not forward to private addresses.
    let (one, two) = (Relay::start(), Relay::start());
    let (alice, bob) = (Person::at(&one), Person::at(&two));
    bob.smp(&["connect", &alice.invite("bob", &[]), "alice"]);
    let hidden = Person { proxy: "unknown", ..bob };
    let output = hidden.command_within("2", &["send", "alice", "hidden"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "it is kept");
    let notices = String::from_utf8(output.stderr).unwrap();
    assert!(notices.contains("--proxy-fallback"), "{notices}");
    assert_eq!(hidden.smp(&["contacts"])[0]["waiting"], 1);
    let sent = hidden.smp(&["--proxy-fallback", "yes", "send", "alice", "straight"]);
    assert!(sent.iter().any(|line| line["event"] == "sent" && line["proxied"] == false));
    assert_eq!(alice.hears().1, "hidden", "it was the first");
}

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// One side of a conversation that goes on whatever is killed.
struct Side<'a> {
    person: &'a Person,
    contact: &'a str,
    running: Option<Conversation>,
    /// What the program has said to keep: in this order, and all of it, it must arrive.
    said: Vec<String>,
    next: u32,
}

impl Side<'_> {
    fn running(&mut self) -> &mut Conversation {
        let arguments = ["chat", self.contact, "--history", "0"];
        self.running.get_or_insert_with(|| self.person.stays(&arguments))
    }

    /// Says `count` lines, and waits until the program has them safe.
    fn say(&mut self, who: &str, count: u64) {
        for _ in 0..count {
            let text = format!("{who} {}", self.next);
            self.next += 1;
            self.running().say(&text);
            self.running().wait_for("waiting", &[("text", &text)]);
            self.said.push(text);
        }
    }

    /// Says one more line and kills the program at that moment: then only its records know whether it has it.
    fn kill_while_saying(&mut self, who: &str) {
        let text = format!("{who} {}", self.next);
        self.next += 1;
        self.running().say(&text);
        self.running.take().unwrap().kill();
        if self.person.history(self.contact).1.last() == Some(&text) {
            self.said.push(text);
        }
    }
}

/// `SMP_SEED` repeats the order of a run, `SMP_CRASHES` sets how many.
#[test]
fn nothing_is_lost_or_doubled_when_both_programs_and_both_relays_are_killed() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let seed = number("SMP_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let crashes = number("SMP_CRASHES").unwrap_or(12);
    println!("SMP_SEED={seed} SMP_CRASHES={crashes}");
    let mut dice = Dice(seed);
    let (mut one, mut two) = (Relay::start(), Relay::start());
    let (alice, bob) = (Person::at(&one), Person::at(&two));
    let link = alice.invite("bob", &[]);
    one.kill_and_start_again();
    bob.smp(&["connect", &link, "alice"]);
    let mut at_bob = Side { person: &bob, contact: "alice", running: None, said: Vec::new(), next: 0 };
    // Before the other side was ever there.
    at_bob.say("bob", 2);
    one.kill_and_start_again();
    at_bob.kill_while_saying("bob");
    let mut at_alice = Side { person: &alice, contact: "bob", running: None, said: Vec::new(), next: 0 };
    // From then on she can answer.
    at_alice.running().wait_for("message", &[("text", "bob 0")]);
    for crash in 0..crashes {
        at_alice.say("alice", 1 + dice.below(4));
        at_bob.say("bob", 1 + dice.below(4));
        // Each of the four dies, whatever the dice say.
        match if crash < 4 { crash } else { dice.below(4) } {
            0 => at_alice.kill_while_saying("alice"),
            1 => at_bob.kill_while_saying("bob"),
            2 => one.kill_and_start_again(),
            _ => two.kill_and_start_again(),
        }
    }
    at_alice.say("alice", 1);
    at_bob.say("bob", 1);
    let (last_of_alice, last_of_bob) = (at_alice.said.last().cloned(), at_bob.said.last().cloned());
    for (here, last) in [(&mut at_alice, last_of_bob.unwrap()), (&mut at_bob, last_of_alice.unwrap())] {
        while here.person.history(here.contact).0.last() != Some(&last) {
            here.running().wait_for("message", &[("text", &last)]);
        }
    }
    drop((at_alice.running.take(), at_bob.running.take()));
    assert_eq!(bob.history("alice").0, at_alice.said, "what Bob has of Alice");
    assert_eq!(alice.history("bob").0, at_bob.said, "what Alice has of Bob");
}
