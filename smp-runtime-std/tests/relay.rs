//! The relay driver without sockets: real clients over pipes in memory, and storage that works when it is told to.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::BytesMut;
use smp_proto::broker::storage::{ActionId, Completion, QueueNumber, Sequence, StorageAction, StoredMessage};
use smp_proto::crypto::Provider;
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
use smp_runtime_std::configuration::{Configuration, ServiceLimits};
use smp_runtime_std::fast_cryptography::FAST;
use smp_runtime_std::relay::Driven;
use smp_runtime_std::relay::connection::{End, RelayConnection};
use smp_runtime_std::relay::{ActionQueue, Completions, Relay, RelayBuilder};
use smp_runtime_std::tls::{ApplicationProtocol, BLOCK, ClientTls, TlsSession};

/// Storage in memory that does nothing until [`Storage::run`].
#[derive(Clone, Default)]
struct Storage {
    waiting: Arc<Mutex<Vec<(ActionId, StorageAction)>>>,
    messages: Arc<Mutex<BTreeMap<(QueueNumber, Sequence), StoredMessage>>>,
    completions: Arc<Mutex<Option<Completions>>>,
}

impl ActionQueue for Storage {
    fn submit(&self, actions: &mut Vec<(ActionId, StorageAction)>) {
        self.waiting.lock().expect("no panics").append(actions);
    }
}

impl Storage {
    /// Does what waits, and what comes of it, as one commit each time.
    fn run(&self) {
        let completions = self.completions.lock().expect("no panics").clone().expect("it was started");
        loop {
            let actions = std::mem::take(&mut *self.waiting.lock().expect("no panics"));
            if actions.is_empty() {
                return;
            }
            let mut messages = self.messages.lock().expect("no panics");
            let done: Vec<Completion> = actions
                .into_iter()
                .map(|(id, action)| match action {
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
                    StorageAction::ReadLink { .. } => Completion::Link(id, None),
                    StorageAction::ReadBlob { .. } => Completion::Blob(id, None),
                    StorageAction::ReadRecord { .. } => Completion::Record(id, None),
                    StorageAction::DeleteRecords { .. } => Completion::Deleted(id, false),
                    StorageAction::WriteRecords { .. }
                    | StorageAction::WithRecords { .. }
                    | StorageAction::PutService { .. }
                    | StorageAction::PutBlob { .. }
                    | StorageAction::DeleteBlob { .. }
                    | StorageAction::PutQueue { .. }
                    | StorageAction::PutQueueAndLink { .. }
                    | StorageAction::DeleteQueue { .. } => Completion::Done(id),
                })
                .collect();
            drop(messages);
            completions.complete(done);
        }
    }
}

struct World {
    _folder: tempfile::TempDir,
    relay: Arc<Relay>,
    storage: Storage,
    tls: ClientTls,
    fingerprint: Vec<u8>,
}

impl World {
    fn new(configuration: &Configuration) -> Self {
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        let certificates = CertificateFolder::at(folder.path());
        let identity =
            NewIdentity::make("localhost", Algorithm::Ed25519, Validity::days_from_now(1)).expect("made");
        certificates.create(&identity).expect("written");
        let identity = certificates.load().expect("read");
        let storage = Storage::default();
        let relay = RelayBuilder::new(configuration, &identity)
            .expect("a relay")
            .finish(|completions| {
                *storage.completions.lock().expect("no panics") = Some(completions);
                Ok::<_, std::convert::Infallible>(Box::new(storage.clone()))
            })
            .expect("storage starts");
        Self {
            _folder: folder,
            relay: Arc::new(relay),
            storage,
            tls: ClientTls::new(identity.fingerprint).expect("TLS"),
            fingerprint: identity.fingerprint.0.to_vec(),
        }
    }

    /// A client that has shaken hands.
    fn client(&self, seed: u8) -> Client {
        let mut client = Client::dial(self, seed);
        client.pump();
        assert!(client.session.as_ref().is_some_and(|session| session.encrypts_blocks()));
        client
    }
}

/// What one end of a connection has written and the other has not read.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// Whether the reader takes nothing, so that the writer has to wait.
    full: bool,
}

impl Read for Pipe {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = into.len().min(self.bytes.len());
        into[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        Ok(count)
    }
}

impl Write for Pipe {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        if self.full {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.bytes.extend_from_slice(from);
        Ok(from.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A client and the relay's end of its connection.
struct Client {
    connection: RelayConnection,
    to_relay: Pipe,
    to_client: Pipe,
    tls: TlsSession,
    session: Option<ClientSession>,
    config: Arc<ClientSessionConfig>,
    entropy: SeededEntropy,
    said: Vec<Said>,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Ok,
    Pong,
    Created { recipient: Identifier, sender: Identifier },
    Message { id: Identifier },
    Other(String),
}

struct Nobody;
impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

impl Client {
    fn dial(world: &World, seed: u8) -> Self {
        let connection =
            RelayConnection::accept(&world.relay, IpAddr::from([127, 0, 0, 1])).expect("there is room");
        Self {
            connection,
            to_relay: Pipe::default(),
            to_client: Pipe::default(),
            tls: TlsSession::client(&world.tls).expect("a session"),
            session: None,
            config: Arc::new(ClientSessionConfig::new(world.fingerprint.clone(), &FAST)),
            entropy: SeededEntropy::new([seed; 32]),
            said: Vec::new(),
        }
    }

    /// Moves bytes until nothing moves any more.
    fn pump(&mut self) {
        loop {
            let mut moved = false;
            while self.tls.wants_write() {
                self.tls.write_tls(&mut self.to_relay).expect("a pipe");
                moved = true;
            }
            self.connection.work();
            while self.connection.wants_read() && !self.to_relay.bytes.is_empty() {
                self.connection.read_from(&mut self.to_relay).expect("a pipe");
                self.connection.work();
                moved = true;
            }
            while self.connection.wants_write() {
                if self.connection.write_to(&mut self.to_client).is_err() {
                    break;
                }
                self.connection.work();
                moved = true;
            }
            while self.tls.wants_read() && !self.to_client.bytes.is_empty() {
                self.tls.read_tls(&mut self.to_client).expect("a pipe");
                self.take();
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    /// Takes what the relay says.
    fn take(&mut self) {
        self.tls.process().expect("TLS is right");
        if let Some(facts) = self.tls.take_facts() {
            let facts = TransportFacts {
                session_id: SessionId::new(&facts.session_id).expect("32 bytes"),
                protocol: Protocol::of(facts.protocol.map(ApplicationProtocol::name)),
                peer_chain: facts.peer_certificates,
            };
            self.session = Some(ClientSession::new(&self.config, facts, Now::default(), &mut self.entropy));
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
                        self.said.push(match response.expect("responses are right").content {
                            Response::Ok | Response::Subscribed { .. } => Said::Ok,
                            Response::Pong => Said::Pong,
                            Response::Created(ids) => {
                                Said::Created { recipient: ids.recipient, sender: ids.sender }
                            }
                            Response::Message { id, .. } => Said::Message { id },
                            other => Said::Other(format!("{other:?}")),
                        });
                    }
                }
            }
        }
    }

    /// Queues a command in a block of its own.
    fn queue(&mut self, entity: &Identifier, command: &Command<'_>, key: Option<&AuthSecret>) {
        let mut correlation = [0; 24];
        self.entropy.fill_public(&mut correlation);
        let mut block = [0; BLOCK];
        let session = self.session.as_mut().expect("shaken hands");
        session
            .seal(&mut block, Now::default(), |writer| {
                writer.add(&correlation.into(), entity, command, key).expect("it fits");
            })
            .expect("shaken hands");
        self.tls.write_plaintext(&block).expect("there is room");
    }

    /// Sends a command, and says what came of it so far.
    fn send(&mut self, entity: &Identifier, command: &Command<'_>, key: Option<&AuthSecret>) -> Vec<Said> {
        self.queue(entity, command, key);
        self.said()
    }

    fn said(&mut self) -> Vec<Said> {
        self.pump();
        std::mem::take(&mut self.said)
    }

    fn new_queue(&mut self, world: &World) -> Queue {
        let key = AuthSecret::generate_ed25519(&mut self.entropy);
        let dh = X25519Secret::generate(&mut self.entropy);
        let new = NewQueue {
            recipient_key: key.public(&FAST),
            recipient_dh: FAST.x25519_public(&dh),
            password: None,
            subscription: SubscriptionMode::Subscribe,
            request: Some(QueueRequest::Messaging(None)),
            notifier: None,
        };
        assert_eq!(
            self.send(&Identifier::EMPTY, &Command::New(new), Some(&key)),
            [],
            "not before it is stored"
        );
        world.storage.run();
        match self.said().pop() {
            Some(Said::Created { recipient, sender }) => Queue { recipient, sender, key },
            other => panic!("{other:?}"),
        }
    }

    /// Whether an event is there that the driver would be woken for.
    fn is_rung(&self) -> bool {
        self.connection.poll_events(&Waker::from(Arc::new(Nobody)))
    }

    /// Lets deadlines pass until the connection has ended. A wrong deadline shows as a test that never ends.
    fn wait_for_end(&mut self) -> End {
        loop {
            self.connection.handle_timeout();
            self.pump();
            if let Some(why) = self.connection.why() {
                return why;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Queue {
    recipient: Identifier,
    sender: Identifier,
    key: AuthSecret,
}

const MESSAGE: Command<'static> =
    Command::Send { flags: MessageFlags { notification: false }, body: b"hello" };

#[test]
fn what_implies_durability_is_said_after_it_is_stored() {
    let world = World::new(&Configuration::default());
    let (mut recipient, mut sender) = (world.client(1), world.client(2));
    assert_eq!(sender.send(&Identifier::EMPTY, &Command::Ping, None), [Said::Pong]);
    let queue = recipient.new_queue(&world);
    assert_eq!(sender.send(&queue.sender, &MESSAGE, None), []);
    assert!(!world.relay.is_quiet() && !recipient.is_rung());
    world.storage.run();
    assert!(world.relay.is_quiet());
    assert!(sender.is_rung() && recipient.is_rung(), "both are woken");
    assert_eq!(sender.said(), [Said::Ok]);
    let said = recipient.said();
    let [Said::Message { id }] = &said[..] else { panic!("{said:?}") };
    assert!(!sender.is_rung() && !recipient.is_rung(), "nobody is woken for nothing");

    let acknowledge = Command::Acknowledge { message: id.clone() };
    assert_eq!(recipient.send(&queue.recipient, &acknowledge, Some(&queue.key)), []);
    world.storage.run();
    assert_eq!(recipient.said(), [Said::Ok]);
}

#[test]
fn a_client_that_asks_for_more_than_storage_does_has_to_wait() {
    let limits = ServiceLimits { commands_in_flight: 260, ..ServiceLimits::default() };
    let world = World::new(&Configuration { limits, ..Configuration::default() });
    let (mut recipient, mut sender) = (world.client(1), world.client(2));
    let queue = recipient.new_queue(&world);
    for _ in 0..40 {
        sender.queue(&queue.sender, &MESSAGE, None);
        sender.pump();
    }
    assert!(!sender.connection.wants_read(), "it has to wait");
    let left = sender.to_relay.bytes.len() / BLOCK;
    assert!((30..40).contains(&left), "{left} blocks wait outside");
    // Each commit makes room for some more, and in the end everything is answered.
    let mut answers = 0;
    while answers < 40 {
        world.storage.run();
        let said = sender.said();
        assert!(said.iter().all(|said| *said == Said::Ok), "{said:?}");
        assert!(!said.is_empty(), "there is progress");
        answers += said.len();
    }
    assert!(sender.connection.wants_read());
}

#[test]
fn stopping_answers_what_is_under_way_and_reads_no_more() {
    let world = World::new(&Configuration::default());
    let (mut recipient, mut sender) = (world.client(1), world.client(2));
    let mut stranger = Client::dial(&world, 3);
    stranger.connection.work();
    let queue = recipient.new_queue(&world);
    assert_eq!(sender.send(&queue.sender, &MESSAGE, None), []);
    world.relay.drain();
    assert!(RelayConnection::accept(&world.relay, IpAddr::from([127, 0, 0, 1])).is_err());
    sender.queue(&queue.sender, &MESSAGE, None);
    assert_eq!(sender.said(), []);
    stranger.pump();
    assert_eq!(stranger.connection.why(), Some(End::Stopping), "there is nothing to finish in a handshake");
    assert!(!world.relay.is_quiet());
    world.storage.run();
    assert!(world.relay.is_quiet());
    world.relay.finish();
    assert_eq!(sender.said(), [Said::Ok], "the first, not the second");
    assert_eq!(sender.connection.why(), Some(End::Stopping));
    assert!(sender.tls.peer_has_closed(), "with a goodbye");
    assert!(matches!(recipient.said()[..], [Said::Message { .. }]));
    assert_eq!(world.relay.statistics().connections, 0);
    drop((recipient, sender, stranger));
    assert_eq!(world.relay.connections(), 0);
}

#[test]
fn a_client_that_takes_nothing_does_not_keep_the_relay_from_stopping() {
    let world = World::new(&Configuration::default());
    let mut deaf = world.client(1);
    deaf.to_client.full = true;
    deaf.queue(&Identifier::EMPTY, &Command::Ping, None);
    deaf.pump();
    let before = deaf.connection.deadline();
    world.relay.drain();
    world.relay.finish();
    deaf.pump();
    assert!(!deaf.connection.has_ended(), "it may still take its answer");
    assert!(deaf.connection.deadline() < before, "but not for long");
    deaf.to_client.full = false;
    assert_eq!(deaf.said(), [Said::Pong]);
    assert_eq!(deaf.connection.why(), Some(End::Stopping));
}

#[test]
fn silence_without_subscriptions_ends_a_connection() {
    let inactive_after = Some(Duration::from_millis(20));
    let world = World::new(&Configuration { inactive_after, ..Configuration::default() });
    let (mut subscriber, mut visitor) = (world.client(1), world.client(2));
    subscriber.new_queue(&world);
    assert!(visitor.connection.deadline().is_some());
    assert_eq!(visitor.wait_for_end(), End::Inactive);
    assert!(visitor.tls.peer_has_closed(), "with a goodbye");
    // The subscriber was silent for as long, and longer.
    subscriber.connection.handle_timeout();
    subscriber.pump();
    assert!(!subscriber.connection.has_ended());
}

#[test]
fn who_takes_nothing_is_dropped() {
    let limits = ServiceLimits { slow_reader: Duration::from_millis(20), ..ServiceLimits::default() };
    let world = World::new(&Configuration { limits, ..Configuration::default() });
    let (mut deaf, mut other) = (world.client(1), world.client(2));
    deaf.to_client.full = true;
    for _ in 0..100 {
        deaf.queue(&Identifier::EMPTY, &Command::Ping, None);
        deaf.pump();
    }
    assert!(!deaf.connection.wants_read(), "it gets nothing before it takes something");
    assert!(deaf.to_relay.bytes.len() > 90 * BLOCK);
    assert_eq!(deaf.wait_for_end(), End::SlowReader);
    assert_eq!(other.send(&Identifier::EMPTY, &Command::Ping, None), [Said::Pong]);
}

#[test]
fn handshakes_have_deadlines() {
    let limits = ServiceLimits {
        tls_handshake: Duration::from_millis(20),
        smp_handshake: Duration::from_millis(20),
        ..ServiceLimits::default()
    };
    let world = World::new(&Configuration { limits, ..Configuration::default() });
    let mut silent = Client::dial(&world, 1);
    silent.tls = TlsSession::client(&world.tls).expect("a session");
    loop {
        silent.connection.handle_timeout();
        if let Some(why) = silent.connection.why() {
            assert_eq!(why, End::HandshakeTimeout);
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_not_this_protocol_ends_the_connection() {
    let world = World::new(&Configuration::default());
    let mut client = Client::dial(&world, 1);
    client.to_relay.bytes = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n".to_vec();
    client.connection.read_from(&mut client.to_relay).expect("a pipe");
    client.connection.work();
    while client.connection.wants_write() {
        client.connection.write_to(&mut client.to_client).expect("a pipe");
        client.connection.work();
    }
    assert_eq!(client.connection.why(), Some(End::Tls));

    // After the handshakes: a block that nobody encrypted for this session.
    let mut client = world.client(2);
    client.tls.write_plaintext(&[7; BLOCK]).expect("there is room");
    client.pump();
    assert_eq!(client.connection.why(), Some(End::Protocol));
    assert_eq!(world.relay.statistics().connections, 0);
}
