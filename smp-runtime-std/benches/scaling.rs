//! What a relay costs without sockets and disks, and what a second core brings: `cargo bench -p smp-runtime-std --bench
//! scaling`.
//!
//! The load generator of `smp bench` needs a core of its own, so on two cores it cannot show what two cores do. Here every
//! byte that clients will send is made before the clock starts: full-size `SEND`s with an authenticator and `ACK`s with an
//! Ed25519 signature, encrypted as blocks and as TLS records. What is measured is the relay alone: TLS, sessions, the one
//! broker behind its lock, and the answers, encrypted. Cores that share their parts do not add up, so the primitives are
//! measured in the same way beside it, and what counts is the ratio.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use smp_proto::broker::storage::{ActionId, Completion, QueueNumber, Sequence, StorageAction, StoredMessage};
use smp_proto::crypto::{BoxKey, Nonce, Provider};
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::X25519Secret;
use smp_proto::session::client::{ClientSession, ClientSessionConfig, Received};
use smp_proto::session::credential::AuthSecret;
use smp_proto::session::{Protocol, SessionId, TransportFacts};
use smp_proto::time::Now;
use smp_proto::wire::Identifier;
use smp_proto::wire::command::{Command, MessageFlags, NewQueue, QueueRequest, SubscriptionMode};
use smp_proto::wire::response::Response;
use smp_runtime_std::certificates::{Algorithm, CertificateFolder, NewIdentity, Validity};
use smp_runtime_std::configuration::Configuration;
use smp_runtime_std::fast_cryptography::FAST;
use smp_runtime_std::relay::Driven;
use smp_runtime_std::relay::connection::RelayConnection;
use smp_runtime_std::relay::{ActionQueue, Completions, Relay, RelayBuilder};
use smp_runtime_std::tls::{ApplicationProtocol, BLOCK, ClientTls, TlsSession};

/// Queues of one thread, each with a connection of its sender and one of its recipient.
const QUEUES: usize = 8;
/// Messages of each queue in one measurement.
const MESSAGES: usize = 60;
/// Measurements, of which the best counts: others use the machine too, and make everything slower, never faster.
const ROUNDS: usize = 5;
/// The largest body of today's versions.
const BODY: usize = 16_048;

/// Storage in memory that works when a thread of the relay says so.
#[derive(Clone, Default)]
struct Storage {
    waiting: Arc<Mutex<Vec<(ActionId, StorageAction)>>>,
    messages: Arc<Mutex<BTreeMap<(QueueNumber, Sequence), StoredMessage>>>,
    completions: Arc<Mutex<Option<Completions>>>,
}

impl ActionQueue for Storage {
    fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>) {
        self.waiting.lock().expect("nobody panics").append(actions);
    }
}

impl Storage {
    fn run(&self, completions: &Completions) {
        let actions = std::mem::take(&mut *self.waiting.lock().expect("nobody panics"));
        if actions.is_empty() {
            return;
        }
        let mut messages = self.messages.lock().expect("nobody panics");
        let carried_out = actions.into_iter().map(|(id, action)| match action {
            StorageAction::PutMessage { queue, sequence, message, .. } => {
                messages.insert((queue, sequence), message);
                Completion::Done(id)
            }
            StorageAction::DeleteMessage { queue, sequence, .. } => {
                messages.remove(&(queue, sequence));
                Completion::Done(id)
            }
            StorageAction::ReadMessage { queue, sequence, .. } => {
                Completion::Message(id, messages.get(&(queue, sequence)).cloned())
            }
            StorageAction::ReadQueue { .. } => Completion::Queue(id, None),
            _ => Completion::Done(id),
        });
        let done = carried_out.collect();
        drop(messages);
        completions.complete(done);
    }
}

/// Bytes that were written and are not read yet.
#[derive(Default)]
struct Pipe(Vec<u8>, usize);

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = &self.0[self.1..];
        if left.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = into.len().min(left.len());
        into[..count].copy_from_slice(&left[..count]);
        self.1 += count;
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.0.drain(..self.1);
        self.1 = 0;
        self.0.extend_from_slice(from);
        Ok(from.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Only counts what is written.
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.0 += black_box(from).len();
        Ok(from.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct World {
    relay: Arc<Relay>,
    storage: Storage,
    completions: Completions,
    tls: ClientTls,
    client: Arc<ClientSessionConfig>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let certificates = CertificateFolder::at(folder.path());
        let identity =
            NewIdentity::make("localhost", Algorithm::Ed25519, Validity::days_from_now(1)).expect("made");
        certificates.create(&identity).expect("written");
        let identity = certificates.load().expect("read");
        let storage = Storage::default();
        let relay = RelayBuilder::new(&Configuration::default(), &identity)
            .expect("a relay")
            .finish(|completions| {
                *storage.completions.lock().expect("nobody panics") = Some(completions);
                Ok::<_, std::convert::Infallible>(Box::new(storage.clone()))
            })
            .expect("storage starts");
        let completions = storage.completions.lock().expect("nobody panics").clone().expect("it was started");
        let client = Arc::new(ClientSessionConfig::new(identity.fingerprint.0.to_vec(), &FAST));
        let tls = ClientTls::new(identity.fingerprint).expect("TLS");
        Self { relay: Arc::new(relay), storage, completions, tls, client, _folder: folder }
    }
}

/// A client up to the moment when everything it will send is recorded.
struct Client {
    connection: RelayConnection,
    tls: TlsSession,
    session: Option<ClientSession>,
    created: Option<(Identifier, Identifier)>,
    entropy: SeededEntropy,
}

/// The relay's end of a connection, and what will come on it: one TLS record a command.
struct Replay {
    connection: RelayConnection,
    records: std::vec::IntoIter<Vec<u8>>,
}

impl Client {
    fn connect(world: &World, seed: u8) -> Self {
        let connection = RelayConnection::accept(&world.relay, IpAddr::from([127, 0, 0, 1]));
        let mut client = Self {
            connection: connection.expect("there is room"),
            tls: TlsSession::client(&world.tls).expect("a session"),
            session: None,
            created: None,
            entropy: SeededEntropy::new([seed; 32]),
        };
        client.talk(world);
        client
    }

    /// Moves bytes until nothing moves any more.
    fn talk(&mut self, world: &World) {
        let (mut up, mut down) = (Pipe::default(), Pipe::default());
        loop {
            let mut quiet = true;
            while self.tls.wants_write() {
                self.tls.write_tls(&mut up).expect("a pipe");
                quiet = false;
            }
            while up.1 < up.0.len() && self.connection.wants_read() {
                self.connection.read_from(&mut up).expect("a pipe");
                self.connection.work();
                quiet = false;
            }
            world.storage.run(&world.completions);
            self.connection.work();
            while self.connection.wants_write() {
                self.connection.write_to(&mut down).expect("a pipe");
                self.connection.work();
                quiet = false;
            }
            while down.1 < down.0.len() {
                self.tls.read_tls(&mut down).expect("a pipe");
                self.hear(world);
            }
            if quiet {
                return;
            }
        }
    }

    fn hear(&mut self, world: &World) {
        self.tls.process().expect("TLS is right");
        if let Some(facts) = self.tls.take_facts() {
            let facts = TransportFacts {
                session_id: SessionId::new(&facts.session_id).expect("32 bytes"),
                protocol: Protocol::of(facts.protocol.map(ApplicationProtocol::name)),
                peer_chain: facts.peer_certificates,
            };
            self.session = Some(ClientSession::new(&world.client, facts, Now::default(), &mut self.entropy));
        }
        while let Some(block) =
            self.tls.read_block(|block: &mut [u8; BLOCK]| BytesMut::from(&block[..])).expect("TLS is right")
        {
            let session = self.session.as_mut().expect("blocks come after TLS");
            match session.receive(block, Now::default()).expect("blocks are right") {
                Received::Established(_) => {
                    let hello = session.take_handshake_block().expect("a hello");
                    self.tls.write_plaintext(&hello).expect("there is room");
                }
                Received::Responses(opened) => {
                    for response in session.responses(&opened) {
                        match response.expect("responses are right").content {
                            Response::Created(ids) => self.created = Some((ids.recipient, ids.sender)),
                            Response::Ok => {}
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
        }
    }

    fn say(&mut self, entity: &Identifier, command: &Command<'_>, key: &AuthSecret) {
        let mut correlation = [0; 24];
        self.entropy.fill_public(&mut correlation);
        let mut block = [0; BLOCK];
        let session = self.session.as_mut().expect("shaken hands");
        session
            .seal(&mut block, Now::default(), |writer| {
                writer.add(&correlation.into(), entity, command, Some(key)).expect("it fits");
            })
            .expect("shaken hands");
        self.tls.write_plaintext(&block).expect("there is room");
    }

    /// What is on its way to the relay.
    fn recorded(&mut self) -> Vec<u8> {
        let mut record = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut record).expect("a vector");
        }
        record
    }
}

impl Replay {
    /// Makes and secures a queue, and records everything that its sender and its recipient will say: one TLS record each
    /// time.
    fn record(world: &World, seed: u8) -> [Self; 2] {
        let (mut sender, mut recipient) = (Client::connect(world, seed), Client::connect(world, seed + 128));
        let recipient_key = AuthSecret::generate_ed25519(&mut recipient.entropy);
        let sender_key = AuthSecret::generate_x25519(&mut sender.entropy);
        let new = NewQueue {
            recipient_key: recipient_key.public(&FAST),
            recipient_dh: FAST.x25519_public(&X25519Secret::generate(&mut recipient.entropy)),
            password: None,
            subscription: SubscriptionMode::Subscribe,
            request: Some(QueueRequest::Messaging(None)),
            notifier: None,
        };
        recipient.say(&Identifier::EMPTY, &Command::New(new), &recipient_key);
        recipient.talk(world);
        let (recipient_id, sender_id) = recipient.created.take().expect("the queue was created");
        sender.say(&sender_id, &Command::SecureBySender(sender_key.public(&FAST)), &sender_key);
        sender.talk(world);
        let body = vec![b'm'; BODY];
        let send = Command::Send { flags: MessageFlags { notification: true }, body: &body };
        // Without an id it acknowledges whatever was delivered.
        let acknowledge = Command::Acknowledge { message: Identifier::EMPTY };
        let record = |client: &mut Client, entity, command, key| {
            (0..MESSAGES)
                .map(|_| {
                    client.say(entity, command, key);
                    client.recorded()
                })
                .collect::<Vec<_>>()
                .into_iter()
        };
        let sends = record(&mut sender, &sender_id, &send, &sender_key);
        let acknowledgements = record(&mut recipient, &recipient_id, &acknowledge, &recipient_key);
        [
            Self { connection: sender.connection, records: sends },
            Self { connection: recipient.connection, records: acknowledgements },
        ]
    }
}

/// Everything that the connections of one thread have to do. Returns the blocks that were sent.
fn replay(world: &World, queues: &mut [[Replay; 2]]) -> usize {
    let mut out = Counter(0);
    let mut expected = 0;
    for _ in 0..MESSAGES {
        // `OK` for a `SEND`, and its `MSG`; then `OK` for the `ACK`.
        for (who, answers) in [(0, 2), (1, 1)] {
            expected += answers * queues.len();
            for Replay { connection, records } in queues.iter_mut().filter_map(|pair| pair.get_mut(who)) {
                let mut record = Pipe(records.next().expect("one for each turn"), 0);
                while record.1 < record.0.len() {
                    connection.read_from(&mut record).expect("a pipe");
                    connection.work();
                }
            }
            // Another thread may be about to complete what this one waits for.
            while out.0 / RECORD < expected {
                world.storage.run(&world.completions);
                for Replay { connection, .. } in queues.iter_mut().flatten() {
                    connection.work();
                    while connection.wants_write() {
                        connection.write_to(&mut out).expect("a counter");
                        connection.work();
                    }
                }
            }
        }
    }
    out.0 / RECORD
}

/// A block in a TLS record.
const RECORD: usize = BLOCK + 22;

/// Messages a second with this many threads.
fn relay(threads: usize) -> f64 {
    let world = World::new();
    let mut work: Vec<Vec<[Replay; 2]>> = (0..threads)
        .map(|thread| {
            let seeds = (0..QUEUES).map(|index| u8::try_from(thread * QUEUES + index).expect("few"));
            seeds.map(|seed| Replay::record(&world, seed)).collect()
        })
        .collect();
    let time = together(work.iter_mut().map(|queues| {
        let world = &world;
        move || assert_eq!(replay(world, queues), 3 * MESSAGES * QUEUES, "every message was delivered")
    }));
    to_float(threads * QUEUES * MESSAGES) / time.as_secs_f64()
}

/// Rounds of primitives a second with this many threads: they share nothing but the processor.
fn primitives(threads: usize) -> f64 {
    const COUNT: usize = 3000;
    let time = together((0..threads).map(|_| {
        || {
            let key = BoxKey::from_symmetric(&[1; 32]);
            let mut text = vec![0; BODY];
            for _ in 0..COUNT {
                black_box(FAST.box_seal(&key, &Nonce([2; 24]), &mut text));
                black_box(FAST.sha512(&[&text]));
            }
        }
    }));
    to_float(threads * COUNT) / time.as_secs_f64()
}

/// Runs everything at once, each on a thread of its own: the time until the last is done.
fn together<F: FnOnce() + Send>(work: impl Iterator<Item = F>) -> Duration {
    let work: Vec<F> = work.collect();
    let barrier = Barrier::new(work.len() + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .map(|work| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    work();
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        for thread in threads {
            thread.join().expect("nothing went wrong");
        }
        start.elapsed()
    })
}

#[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
fn to_float(count: usize) -> f64 {
    count as f64
}

fn main() {
    let best = |measure: fn(usize) -> f64, threads| (0..ROUNDS).map(|_| measure(threads)).fold(0.0, f64::max);
    let (one, two) = (best(relay, 1), best(relay, 2));
    let (primitives_one, primitives_two) = (best(primitives, 1), best(primitives, 2));
    println!("relay: {one:.0} messages a second on one thread ({:.1} µs each), {two:.0} on two", 1e6 / one);
    println!("relay: {:.2} times as many on two threads", two / one);
    println!("primitives: {:.2} times as many on two threads", primitives_two / primitives_one);
    println!("of what the processor gives: {:.2}", two / one / (primitives_two / primitives_one));
}
