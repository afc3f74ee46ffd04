//! Writes the seeds of all targets, from the test vectors, into `corpus` beside this package, and has each target run on
//! them: `cargo run --manifest-path tests/fuzz/Cargo.toml --example seeds`.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;

use smp_proto::crypto::Portable;
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::{Ed25519Secret, X25519Public};
use smp_proto::session::AuthSecret;
use smp_proto::wire::Identifier;
use smp_proto::wire::block::{BLOCK_LENGTH, plain_content};
use smp_proto::wire::command::{
    Command, MessageFlags, NewQueue, NotifierKeys, QueueRequest, SubscriptionMode,
};
use smp_proto::wire::first_step::{
    self, Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, PublishedKey, Register,
    Registered, RelayNumber, SEALED_LENGTH, Transmission,
};
use smp_tests::sessions::{Certificates, NOW, Pair, PairOptions};
use smp_tests::vectors::{self, Vector};

/// A target's name, what it does, and its seeds.
type Target = (&'static str, fn(&[u8]), Vec<Vec<u8>>);

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let targets: [Target; 9] = [
        ("block", smp_fuzz::block, blocks()),
        ("command", smp_fuzz::command, commands()),
        ("response", smp_fuzz::response, responses()),
        ("hello", smp_fuzz::hello, hellos()),
        ("address", smp_fuzz::address, addresses()),
        ("session", smp_fuzz::session, histories()),
        ("first_step", smp_fuzz::first_step, vec![held_and_answered()]),
        ("first_step_wire", smp_fuzz::first_step_wire, first_steps()),
        ("forwarding", smp_fuzz::forwarding, destinations()),
    ];
    for (name, run, seeds) in targets {
        assert!(!seeds.is_empty(), "the vectors have no seeds for {name}");
        let folder = corpus.join(name);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            run(seed);
            fs::write(folder.join(format!("vector-{number}")), seed)?;
        }
        println!("{name}: {} seeds in {}", seeds.len(), folder.display());
    }
    Ok(())
}

/// The byte that chooses the version of a vector.
fn version_byte(vector: &Vector) -> Option<u8> {
    let version = vector.input.size("v").ok()?;
    u8::try_from(version.checked_sub(6)?).ok()
}

fn with_version(vector: &Vector, bytes: &[u8]) -> Option<Vec<u8>> {
    Some([&[version_byte(vector)?], bytes].concat())
}

fn blocks() -> Vec<Vec<u8>> {
    let seed = |vector: &Vector| match vector.kind.as_str() {
        "transmission" | "response-transmission" => with_version(vector, &vector.output.bytes("block").ok()?),
        "parse-block" => with_version(vector, &vector.input.bytes("content").ok()?),
        _ => None,
    };
    vectors::read("transmissions.jsonl").iter().filter_map(seed).collect()
}

fn commands() -> Vec<Vec<u8>> {
    let seed = |vector: &Vector| match vector.kind.as_str() {
        "command" => with_version(vector, &vector.output.bytes("hex").ok()?),
        "parse-command" => with_version(vector, &vector.input.bytes("hex").ok()?),
        _ => None,
    };
    vectors::read("commands.jsonl").iter().filter_map(seed).collect()
}

fn responses() -> Vec<Vec<u8>> {
    let seed = |vector: &Vector| match vector.kind.as_str() {
        "response" => with_version(vector, &vector.output.bytes("hex").ok()?),
        "parse-response" => with_version(vector, &vector.input.bytes("hex").ok()?),
        "error-text" => Some([&b"\x0cERR "[..], &vector.output.bytes("smp").ok()?].concat()),
        _ => None,
    };
    vectors::read("responses.jsonl").iter().filter_map(seed).collect()
}

fn hellos() -> Vec<Vec<u8>> {
    let seed =
        |vector: &Vector| vector.input.bytes("content").or_else(|_| vector.output.bytes("content")).ok();
    vectors::read("hello.jsonl").iter().filter_map(seed).collect()
}

fn addresses() -> Vec<Vec<u8>> {
    let seed = |vector: &Vector| vector.input.text("text").ok().map(String::into_bytes);
    vectors::read("links.jsonl").iter().filter_map(seed).collect()
}

/// A step of a history: see [`smp_fuzz::session`].
fn step(what: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a block's content");
    [&[what][..], &length.to_be_bytes(), bytes].concat()
}

fn histories() -> Vec<Vec<u8>> {
    let one_block = |block: &Vec<u8>| {
        let (version, content) = block.split_first().expect("a version byte");
        [&[*version][..], &step(0, content), &step(1, content)].concat()
    };
    let mut histories: Vec<_> = blocks().iter().map(one_block).collect();
    histories.extend((6..=18).map(whole_life));
    histories
}

/// A client registers a destination that is down, which comes up, has a command held, and asks what became of it.
fn held_and_answered() -> Vec<u8> {
    let content = |correlation, relay, message| {
        let mut out = Vec::new();
        first_step::Transmission {
            correlation: Correlation(correlation),
            relay: RelayNumber(relay),
            message,
        }
        .encode(&mut out)
        .expect("it fits");
        out
    };
    let address =
        "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@example.org".parse().expect("an address");
    let register = Register { token: [1; 32], address: Some(address), password: None };
    let key = X25519Public([5; 32]);
    let published = PublishedKey {
        number: RelayNumber(3),
        until: 2_000_000_000,
        key,
        chain: vec![&[1; 9]],
        signature: &[2; 64],
    };
    let registered = Registered { until: 2_000_000_000, key: published };
    let sealed = [7; first_step::SEALED_LENGTH];
    let options = ForwardOptions { hold: Hold::Day, ..ForwardOptions::default() };
    let forward = Forward { options, acknowledged: Correlation(0), delay: 0, key, sealed: &sealed };
    // The relay draws the client's number for the destination of the target's seed: the first of its stream.
    let mut number = [0; 4];
    SeededEntropy::new([2; 32]).fill_public(&mut number);
    let relay = u32::from_be_bytes(number);
    [
        step(0, &content(1 << 40, 0, Message::Register(register))),
        step(5, &[]),
        step(4, &content(1, 0, Message::Registered(registered))),
        step(0, &content(1, relay, Message::Forward(forward))),
        step(4, &content(2, 0, Message::Response(&sealed))),
        step(0, &content(1, relay, Message::Check { acknowledged: Correlation(1) })),
        step(6, &[]),
        step(7, &[1, 0]),
    ]
    .concat()
}

/// A queue's life, from its creation to its deletion, with a message and a notifier.
fn whole_life(version: u16) -> Vec<u8> {
    let options = PairOptions { sends_key: false, ..PairOptions::at(version) };
    let mut pair = Pair::connect(&Certificates::named("ed25519"), &options).expect("a handshake");
    let key = AuthSecret::Ed25519(Ed25519Secret::from_bytes([1; 32]));
    let public = key.public(&Portable);
    let dh = X25519Public([9; 32]);
    // What the relay of the target gives out, in its order: the ids of the queue, of the message, of the notifier.
    let [recipient, sender, notifier] = [1, 2, 4].map(|byte| Identifier::from([byte; 24]));
    let new = Command::New(NewQueue {
        recipient_key: public,
        recipient_dh: dh,
        password: None,
        subscription: SubscriptionMode::Subscribe,
        request: (version >= 9).then_some(QueueRequest::Messaging(None)),
        notifier: None,
    });
    let send = || Command::Send { flags: MessageFlags { notification: true }, body: b"hello" };
    let acknowledge = || Command::Acknowledge { message: Identifier::EMPTY };
    let (first, second) = (0, 1);
    let mut commands: VecDeque<(u8, Identifier, Command<'_>, bool)> = [
        (first, Identifier::EMPTY, new, true),
        (second, sender.clone(), send(), false),
        (first, recipient.clone(), acknowledge(), true),
        (first, recipient.clone(), Command::EnableNotifications(NotifierKeys { key: public, dh }), true),
        (second, notifier, Command::SubscribeNotifications, true),
        (first, recipient.clone(), Command::SecureByRecipient(public), true),
        (second, sender.clone(), Command::SecureBySender(public), true),
        (second, sender.clone(), send(), true),
        (second, recipient.clone(), Command::Subscribe, true),
        (first, recipient.clone(), Command::Get, true),
        (first, recipient.clone(), Command::QueueInformation, true),
        (second, recipient.clone(), acknowledge(), true),
        (first, recipient.clone(), Command::DisableNotifications, true),
        (first, recipient.clone(), Command::Suspend, true),
        (first, Identifier::EMPTY, Command::Ping, false),
        (first, recipient, Command::Delete, true),
    ]
    .into();
    let mut history = vec![u8::try_from(version - 6).expect("6 to 18")];
    while let Some((from, entity, command, signed)) = commands.pop_front() {
        let mut block = [0; BLOCK_LENGTH];
        let name = Identifier::from([commands.len() as u8; 24]);
        pair.client
            .seal(&mut block, NOW, |writer| {
                writer.add(&name, &entity, &command, signed.then_some(&key)).expect("fits");
            })
            .expect("established");
        history.extend(step(from, plain_content(&block).expect("only padded")));
        // Time passes, too: three seconds.
        history.extend(step(2, &[0; 3]));
    }
    history
}

/// What first-step relays and destinations say; there are no vectors of it.
fn first_steps() -> Vec<Vec<u8>> {
    let address = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@example.org".parse().expect("one");
    let sealed = [7; SEALED_LENGTH];
    let forward = Forward {
        options: ForwardOptions::default(),
        acknowledged: Correlation(1),
        delay: 2,
        key: X25519Public([9; 32]),
        sealed: &sealed,
    };
    let messages = [
        Message::Register(Register { token: [1; 32], address: Some(address), password: Some(b"secret") }),
        Message::Register(Register { token: [0; 32], address: None, password: None }),
        Message::Forward(forward),
        Message::Response(&sealed),
        Message::Check { acknowledged: Correlation(3) },
        Message::Error(FirstStepError::Held { attempts: 1, next: 2 }),
        Message::Error(FirstStepError::NoKey),
    ];
    let encode = |message| {
        let mut content = Vec::new();
        let transmission = Transmission { correlation: Correlation(4), relay: RelayNumber(5), message };
        transmission.encode(&mut content).expect("fits");
        content
    };
    messages.into_iter().map(encode).collect()
}

/// Histories of a destination: see [`smp_fuzz::forwarding`].
fn destinations() -> Vec<Vec<u8>> {
    let mut send = vec![0, 24];
    send.extend_from_slice(&[6; 24]);
    send.push(24);
    send.extend_from_slice(&smp_fuzz::SENDER);
    send.extend_from_slice(b"SEND F hello");
    let mut batch = vec![1];
    batch.extend_from_slice(&u16::try_from(send.len()).expect("short").to_be_bytes());
    batch.extend_from_slice(&send);
    let forward = |key: u8, options: u8| step(17, &[&[key, options][..], &batch].concat());
    let store = || step(20, &[0; 20]);
    // Bytes of the clock that only goes forward, in microseconds, and of the other, in seconds.
    let pass = |days: u64, jump: i64| {
        step(22, &[(days * 86_400_000_000).to_be_bytes(), jump.to_be_bytes()].concat())
    };
    let begin = [store(), step(18, &[])].concat();
    let life = [
        begin.clone(),
        forward(1, 0),
        forward(1, 0),
        store(),
        forward(1, 3),
        store(),
        forward(2, 1),
        step(31, &[]),
        forward(2, 1),
        store(),
        pass(1, 86_400),
        store(),
        step(26, &[]),
        forward(1, 0),
        pass(1, 86_400),
        store(),
        forward(1, 0),
        store(),
    ];
    let failures = [
        begin.clone(),
        forward(1, 0),
        step(5, &[]),
        store(),
        forward(1, 0),
        step(5, &[]),
        store(),
        step(11, &[]),
        step(3, &[]),
        forward(1, 2),
        store(),
        pass(3, -86_400 * 400),
        pass(3, i64::MAX),
        store(),
    ];
    let mut histories = vec![life.concat(), failures.concat()];
    histories.extend(first_steps().iter().map(|content| [&begin[..], &step(16, content)].concat()));
    histories
}
