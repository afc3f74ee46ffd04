//! First-step relays and destinations of both runtimes over real sockets: what is held arrives once and in order, whatever
//! happens to the destination, and everything else gets its specific error.
#![allow(missing_docs, clippy::unwrap_used)]

mod cable;
mod holder;
mod raw_client;
mod relay_under_test;

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::first_step::{FirstStepError, ForwardOptions, Hold, RelayFailure};
use smp_runtime_std::certificates::Fingerprint;

use cable::Cable;
use holder::{Heard, Holder, Registration, Sealed};
use raw_client::{
    Key, NewOptions, PATIENCE, RawClient, RawQueue, acknowledge_command, open_delivery, random, send_command,
};
use relay_under_test::{Options, RelayUnderTest, Runtime, address};

const RUNTIMES: [Runtime; 2] = [Runtime::Smol, Runtime::Blocking];
const HOLD: ForwardOptions = ForwardOptions { while_unsecured: false, while_full: false, hold: Hold::Day };
const AT_ONCE: ForwardOptions = ForwardOptions { hold: Hold::Never, ..HOLD };

fn first_step(runtime: Runtime) -> RelayUnderTest {
    RelayUnderTest::start(runtime, Options { private_destinations: true, ..Options::default() })
}

fn holder(relay: &RelayUnderTest) -> Holder {
    Holder::connect(relay.address, relay.fingerprint).unwrap()
}

/// A destination behind a cable, with a queue that anybody can send to.
struct Far {
    relay: RelayUnderTest,
    cable: Cable,
    recipient: RawClient,
    queue: RawQueue,
    /// The next message, when it came with an answer.
    next: Option<Vec<u8>>,
    at: ServerAddress,
}

impl Far {
    fn new(runtime: Runtime) -> Self {
        let relay = RelayUnderTest::start(runtime, Options::default());
        let cable = Cable::to(relay.address);
        let mut recipient = relay.raw();
        let queue = recipient.new_queue(NewOptions::default()).unwrap();
        let at = address(relay.fingerprint, cable.address);
        Self { relay, cable, recipient, queue, next: None, at }
    }

    fn seal(&self, at: &Registration, text: &[u8]) -> Sealed {
        at.seal(&Key::Nothing, &self.queue.sender, &send_command(text))
    }

    /// The next message; it is acknowledged.
    fn receive(&mut self) -> Vec<u8> {
        let content = match self.next.take() {
            Some(content) => content,
            None => self.recipient.event(PATIENCE).unwrap().content,
        };
        let (id, body) = open_delivery(&self.queue, &content).unwrap();
        let (key, queue) = (&self.queue.recipient_key, &self.queue.recipient);
        let answer = self.recipient.command(key, queue, &acknowledge_command(&id)).unwrap();
        // What waits comes with the answer.
        self.next = answer.starts_with(b"MSG ").then_some(answer);
        body.unwrap()
    }

    /// That no further message waits: a message that is sent now is the next.
    fn ends(&mut self) {
        let mut sender = self.relay.raw();
        assert_eq!(sender.command(&Key::Nothing, &self.queue.sender, &send_command(b"end")).unwrap(), b"OK");
        assert_eq!(self.receive(), b"end");
    }
}

fn is_held(heard: &Heard) -> bool {
    matches!(heard, Heard::Error(FirstStepError::Held { .. }))
}

/// Forwards a message that is to be held, and waits until it is.
fn hold(client: &mut Holder, at: &Registration, far: &Far, text: &[u8]) -> (u64, Sealed) {
    let (number, sealed) = (client.number(), far.seal(at, text));
    client.forward(at, number, HOLD, &sealed);
    assert!(is_held(&client.hear_about(number)));
    (number, sealed)
}

fn is_ok(client: &mut Holder, (number, sealed): &(u64, Sealed)) {
    match client.hear_about(*number) {
        Heard::Response(answer) => assert_eq!(sealed.open(&answer), b"OK"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_is_forwarded_at_once_or_held_and_answered() {
    for runtime in RUNTIMES {
        let (relay, mut far) = (first_step(runtime), Far::new(runtime));
        let mut client = holder(&relay);
        let at = client.registered([1; 32], &far.at);
        let (number, sealed) = (client.number(), far.seal(&at, b"at once"));
        client.forward(&at, number, AT_ONCE, &sealed);
        is_ok(&mut client, &(number, sealed));
        let held = hold(&mut client, &at, &far, b"held");
        is_ok(&mut client, &held);
        assert_eq!((far.receive(), far.receive()), (b"at once".to_vec(), b"held".to_vec()));
        // The answer is kept until it is acknowledged.
        assert!(matches!(client.check(&at, held.0, 0), Heard::Response(_)));
        assert_eq!(client.check(&at, held.0, held.0), Heard::Error(FirstStepError::Unknown));
        assert_eq!(relay.relay().held_for_others(), 0);
        assert_eq!(far.relay.relay().forwarding_statistics().executed, 2);
        assert!(relay.stop() && far.relay.stop());
    }
}

#[test]
fn what_is_held_while_the_destination_is_away_arrives_in_order_when_it_is_back() {
    for runtime in RUNTIMES {
        let (relay, mut far) = (first_step(runtime), Far::new(runtime));
        let mut client = holder(&relay);
        let at = client.registered([1; 32], &far.at);
        // Nobody listens there any more.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        far.cable.lead_to(nobody);
        let held: Vec<_> = (0..20_u8).map(|text| hold(&mut client, &at, &far, &[text])).collect();
        assert_eq!(relay.relay().held_for_others(), 20);
        // The client need not be there.
        drop(client);
        far.cable.lead_to(far.relay.address);
        for text in 0..20_u8 {
            assert_eq!(far.receive(), [text]);
        }
        far.ends();
        // It comes back, and hears what became of them.
        let mut client = holder(&relay);
        let at = client.registered([1; 32], &far.at);
        for held in &held {
            let heard = loop {
                match client.check(&at, held.0, 0) {
                    Heard::Error(FirstStepError::Held { .. }) => thread::sleep(Duration::from_millis(10)),
                    other => break other,
                }
            };
            let Heard::Response(answer) = heard else { panic!("{heard:?}") };
            assert_eq!(held.1.open(&answer), b"OK");
        }
        assert!(relay.stop() && far.relay.stop());
    }
}

#[test]
fn a_destination_that_is_torn_away_in_the_middle_of_an_answer_executes_nothing_twice() {
    for runtime in RUNTIMES {
        let (relay, mut far) = (first_step(runtime), Far::new(runtime));
        let mut client = holder(&relay);
        let at = client.registered([1; 32], &far.at);
        for text in [&b"one"[..], b"two"] {
            // Of the answer, a block of 16,384 bytes and its TLS record, a third arrives.
            far.cable.cut_after(5_000);
            let held = hold(&mut client, &at, &far, text);
            is_ok(&mut client, &held);
        }
        assert_eq!((far.receive(), far.receive()), (b"one".to_vec(), b"two".to_vec()));
        far.ends();
        let statistics = far.relay.relay().forwarding_statistics();
        assert_eq!((statistics.executed, statistics.repeated), (2, 2));
        assert!(relay.stop() && far.relay.stop());
    }
}

#[test]
fn a_slow_destination_holds_up_nobody_else() {
    for runtime in RUNTIMES {
        let (relay, slow, mut other) = (first_step(runtime), Far::new(runtime), Far::new(runtime));
        let mut client = holder(&relay);
        let at = client.registered([1; 32], &slow.at);
        slow.cable.hold();
        let waiting: Vec<_> =
            [&b"one"[..], b"two"].map(|text| hold(&mut client, &at, &slow, text)).into_iter().collect();
        let there = client.registered([2; 32], &other.at);
        let held = hold(&mut client, &there, &other, b"not slow");
        is_ok(&mut client, &held);
        assert_eq!(other.receive(), b"not slow");
        slow.cable.release();
        for held in &waiting {
            is_ok(&mut client, held);
        }
        assert!(relay.stop() && slow.relay.stop() && other.relay.stop());
    }
}

#[test]
fn destinations_that_are_not_get_their_specific_errors() {
    for runtime in RUNTIMES {
        let (relay, far) = (first_step(runtime), Far::new(runtime));
        let mut client = holder(&relay);
        let failed = |failure| Heard::Error(FirstStepError::Relay(failure));
        // Another relay is there.
        let wrong = address(Fingerprint([9; 32]), far.relay.address);
        assert_eq!(client.register([1; 32], &wrong), failed(RelayFailure::Identity));
        // Nobody is there.
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dead = address(far.relay.fingerprint, nobody);
        assert_eq!(client.register([2; 32], &dead), failed(RelayFailure::Network));
        // A relay that takes nothing of the kind, as stock relays do not: by its ALPN.
        let stock = RelayUnderTest::start(
            runtime,
            Options { hold: Some(false), accept: Some(false), ..Options::default() },
        );
        assert!(Holder::connect(stock.address, stock.fingerprint).is_err());
        assert_eq!(client.register([3; 32], &stock.server_address()), failed(RelayFailure::NotSpoken));
        // One that speaks the protocol, but is no destination.
        let no_destination =
            RelayUnderTest::start(runtime, Options { accept: Some(false), ..Options::default() });
        let heard = client.register([4; 32], &no_destination.server_address());
        assert_eq!(heard, failed(RelayFailure::NotSpoken));
        // One that is no first-step relay.
        let no_first_step =
            RelayUnderTest::start(runtime, Options { hold: Some(false), ..Options::default() });
        let mut lost = holder(&no_first_step);
        assert_eq!(lost.register([1; 32], &far.at), Heard::Error(FirstStepError::NoRelay));
        // What is private is refused unless the operator allows it.
        let careful = RelayUnderTest::start(runtime, Options::default());
        let mut refused = holder(&careful);
        assert_eq!(refused.register([1; 32], &far.at), Heard::Error(FirstStepError::Address));
        let mut named = far.at.clone();
        named.hosts = vec!["localhost".parse().unwrap()];
        let heard = refused.register([2; 32], &named);
        assert_eq!(heard, Heard::Error(FirstStepError::Address), "by name");
        // Without a registration there is no relay.
        let registration = client.registered([5; 32], &far.at);
        let sealed = far.seal(&registration, b"lost");
        let mut stranger = holder(&relay);
        stranger.forward(&registration, 1, HOLD, &sealed);
        assert_eq!(stranger.hear(), (1, Heard::Error(FirstStepError::NoRelay)));
        for relay in [relay, far.relay, stock, no_destination, no_first_step, careful] {
            assert!(relay.stop());
        }
    }
}

#[test]
fn a_password_keeps_strangers_out() {
    for runtime in RUNTIMES {
        let options = Options { password: Some("letmein"), private_destinations: true, ..Options::default() };
        let (relay, far) = (RelayUnderTest::start(runtime, options), Far::new(runtime));
        let mut client = holder(&relay);
        let refused = Heard::Error(FirstStepError::Password);
        assert_eq!(client.register_with([1; 32], &far.at, None), refused);
        assert_eq!(client.register_with([1; 32], &far.at, Some(b"letmeout")), refused);
        let heard = client.register_with([1; 32], &far.at, Some(b"letmein"));
        assert!(matches!(heard, Heard::Registered(_)), "{heard:?}");
        assert!(relay.stop() && far.relay.stop());
    }
}

#[test]
fn names_of_nobody_cost_few_sockets_and_hold_up_nobody() {
    for runtime in RUNTIMES {
        let (relay, mut far) = (first_step(runtime), Far::new(runtime));
        // It accepts, and says nothing: dials of it take until their time limit.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = silent.local_addr().unwrap();
        let mut flood = holder(&relay);
        let begun = Instant::now();
        for index in 0..60 {
            let register = smp_proto::wire::first_step::Register {
                token: random(),
                address: Some(address(Fingerprint(random()), at)),
                password: None,
            };
            let message = smp_proto::wire::first_step::Message::Register(register);
            flood.say(index + 1, smp_proto::wire::first_step::RelayNumber(0), message).unwrap();
        }
        // Somebody else is served as if nothing were.
        let mut client = holder(&relay);
        let registration = client.registered([1; 32], &far.at);
        let held = hold(&mut client, &registration, &far, b"through");
        is_ok(&mut client, &held);
        assert_eq!(far.receive(), b"through");
        // Four at once, and four others when those have been given up. They are kept: a dial that fails makes room for another.
        let mut sockets = vec![silent.accept().unwrap()];
        silent.set_nonblocking(true).unwrap();
        sockets.extend(std::iter::from_fn(|| silent.accept().ok()));
        let most = 4 * (1 + begun.elapsed().as_secs() / 30);
        assert!(sockets.len() as u64 <= most, "{} sockets for one client", sockets.len());
        drop(flood);
        assert!(far.relay.stop());
        drop(relay);
    }
}
