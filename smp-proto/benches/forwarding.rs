//! What `smp-proxy/1` costs, on both relays: `cargo bench -p smp-proto --bench forwarding`.
//!
//! At the destination: the whole way of one `SEND` of the largest message to a secured queue, blocks included, without
//! sockets, TLS and the disk: directly, through a deployed proxy, and through a first-step relay. At the first-step relay:
//! the whole way of a command and its answer, forwarded at once, and held. Each beside the sum of the cryptography that
//! nobody can do without, measured in the same run. `cargo bench -p smp-runtime-std --bench forwarding` measures the same with
//! the primitives of `smp-server`. Machines differ and are shared: judge by the ratios.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use smp_proto::broker::storage::{Completion, Room, StorageAction};
use smp_proto::broker::{Broker, BrokerConfig, ConnectionId};
use smp_proto::crypto::forwarding::{ForwardKeys, session_name};
use smp_proto::crypto::proxy_layers::{self, INNER_SEALED_LENGTH};
use smp_proto::crypto::{BoxKey, Nonce, Portable, Provider, authenticator};
use smp_proto::entropy::SeededEntropy;
use smp_proto::first_step::{Action, DestinationLink, FirstStep, FirstStepConfig, UserId};
use smp_proto::forwarding::{FirstStepId, Forwarding, ForwardingConfig};
use smp_proto::keys::{Ed25519Secret, SigningKey, X25519Public, X25519Secret};
use smp_proto::proxy::{Forward as ProxyForward, ForwardId, LinkReceived, ProxyConfig, ProxyLink};
use smp_proto::session::client::{ClientSession, ClientSessionConfig};
use smp_proto::session::first_step::{FirstStepDial, FirstStepSession, Received as FirstStepReceived};
use smp_proto::session::identity::{KeyInMemory, ServerIdentity};
use smp_proto::session::outgoing::OutgoingContent;
use smp_proto::session::server::{Received, ServerSession, ServerSessionConfig};
use smp_proto::session::{AuthSecret, CommandVerifier, Protocol, SessionId, TransportFacts};
use smp_proto::storage_model::StorageModel;
use smp_proto::time::Now;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{Command, MessageFlags, NewQueue, QueueRequest, SubscriptionMode};
use smp_proto::wire::first_step::{
    Correlation, Forward, ForwardOptions, Hold, Message, PADDED_LENGTH, Register, RelayNumber, SEALED_LENGTH,
    Transmission,
};
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::version::Version;
use smp_proto::wire::{CorrelationId, EntityId};

#[path = "support/mod.rs"]
mod support;

/// How many commands there are in one measurement.
const COMMANDS: usize = 100;
/// How many measurements there are: the best one counts, as the machine is shared.
const ROUNDS: usize = 15;
/// The primitives that are measured with.
static PROVIDER: OnceLock<&'static dyn Provider> = OnceLock::new();

fn provider() -> &'static dyn Provider {
    *PROVIDER.get_or_init(|| &Portable)
}

/// The body of every message.
const BODY: [u8; 16_000] = [7; 16_000];

fn now() -> Now {
    Now::default()
}

fn block() -> BytesMut {
    BytesMut::zeroed(BLOCK_LENGTH)
}

fn facts(protocol: Protocol, peer_chain: Vec<Vec<u8>>) -> TransportFacts {
    TransportFacts { session_id: SessionId::new(&[7; 32]).expect("32 bytes"), protocol, peer_chain }
}

/// A destination with one connection of each kind, and a queue whose sender has a key.
struct Destination {
    broker: Broker,
    room: Forwarding,
    entropy: SeededEntropy,
    direct: (ServerSession, ClientSession, ConnectionId),
    proxied: (ServerSession, ProxyLink, ConnectionId),
    first_step: (FirstStepSession, FirstStepSession),
    verifier: CommandVerifier,
    sender: AuthSecret,
    queue: EntityId,
    key: (RelayNumber, X25519Public),
}

const FIRST_STEP: FirstStepId = FirstStepId(1);

/// Storage that is done at once, and keeps nothing: it costs the same on every way.
fn store(broker: &mut Broker, room: &mut Forwarding) {
    while let Some((id, action)) = broker.poll_storage().or_else(|| room.poll_storage()) {
        black_box(&action);
        let completion = match action {
            StorageAction::ReadRecord { .. } => Completion::Record(id, None),
            _ => Completion::Done(id),
        };
        match id.room() {
            Some(Room::Forwarding) => room.complete(completion, now()),
            _ => broker.complete(completion, now()),
        }
    }
}

fn identity(entropy: &mut SeededEntropy) -> (ServerIdentity, Vec<Vec<u8>>) {
    let secret = Ed25519Secret::generate(entropy);
    let key = provider().ed25519_public(&secret).to_der();
    let chain = vec![support::certificate(&key), support::certificate(&key)];
    let signer = Arc::new(KeyInMemory::new(SigningKey::Ed25519(secret), provider()));
    (ServerIdentity::new(chain.clone(), signer).expect("two certificates"), chain)
}

/// Both sides of a connection of `smp-proxy/1`: who accepted, and who dialled.
fn connect_first_step(
    config: &Arc<ServerSessionConfig>,
    chain: &[Vec<u8>],
    entropy: &mut SeededEntropy,
) -> (FirstStepSession, FirstStepSession) {
    let fingerprint = config.identity.fingerprint().to_vec();
    let mut accepting =
        FirstStepSession::accept(config, facts(Protocol::FirstStep, Vec::new()), now(), entropy)
            .expect("signs");
    let dial = FirstStepDial::new(fingerprint, provider());
    let mut dialling =
        FirstStepSession::dial(&dial, facts(Protocol::FirstStep, chain.to_vec()), now(), entropy);
    dialling.receive(accepting.take_handshake_block().expect("a hello"), now()).expect("the right relay");
    accepting.receive(dialling.take_handshake_block().expect("a hello"), now()).expect("a good hello");
    (accepting, dialling)
}

impl Destination {
    fn new() -> Self {
        let mut entropy = SeededEntropy::new([1; 32]);
        let (identity, chain) = identity(&mut entropy);
        let fingerprint = identity.fingerprint().to_vec();
        let config = Arc::new(ServerSessionConfig::new(identity.clone(), provider()));
        let mut broker = Broker::new(
            BrokerConfig { message_quota: 4 * COMMANDS as u16, ..BrokerConfig::default() },
            &mut entropy,
        );
        let accept = |entropy: &mut SeededEntropy| {
            ServerSession::new(&config, facts(Protocol::Smp, Vec::new()), now(), entropy).expect("signs")
        };
        let mut server = accept(&mut entropy);
        let client_config = Arc::new(ClientSessionConfig::new(fingerprint.clone(), provider()));
        let mut client =
            ClientSession::new(&client_config, facts(Protocol::Smp, chain.clone()), now(), &mut entropy);
        client.receive(server.take_handshake_block().expect("a hello"), now()).expect("the right relay");
        server.receive(client.take_handshake_block().expect("a hello"), now()).expect("a good hello");
        let direct = broker.connect(now()).expect("room");
        let mut proxied = accept(&mut entropy);
        let mut link = ProxyLink::new(
            &ProxyConfig::new(provider()),
            &fingerprint,
            facts(Protocol::Smp, chain.clone()),
            now(),
            &mut entropy,
        );
        let hello = proxied.take_handshake_block().expect("a hello");
        assert!(matches!(link.receive(hello, now()), Ok(LinkReceived::Open(_))));
        proxied.receive(link.take_handshake_block().expect("a hello"), now()).expect("a good hello");
        let of_proxy = broker.connect(now()).expect("room");
        let first_step = connect_first_step(&config, &chain, &mut entropy);
        let of_room = broker.connect(now()).expect("room");
        let room = Forwarding::restore(
            ForwardingConfig::default(),
            provider(),
            identity,
            of_room,
            [],
            now(),
            &mut entropy,
        )
        .expect("no records");
        let sender = AuthSecret::generate_x25519(&mut entropy);
        let mut destination = Self {
            broker,
            room,
            entropy,
            direct: (server, client, direct),
            proxied: (proxied, link, of_proxy),
            first_step,
            verifier: CommandVerifier::new(provider(), 8),
            sender,
            queue: EntityId::EMPTY,
            key: (RelayNumber(0), X25519Public([0; 32])),
        };
        destination.prepare();
        destination
    }

    /// A queue, its sender's key, and the forwarding key.
    fn prepare(&mut self) {
        let recipient = AuthSecret::generate_ed25519(&mut self.entropy);
        let new = NewQueue {
            recipient_key: recipient.public(provider()),
            recipient_dh: X25519Public([9; 32]),
            password: None,
            subscription: SubscriptionMode::CreateOnly,
            request: Some(QueueRequest::Messaging(None)),
            notifier: None,
        };
        let sealed = self.seal_direct(&EntityId::EMPTY, &Command::New(new), Some(&recipient));
        let mut outgoing = self.execute_direct(sealed);
        let Some(OutgoingContent::Created(created)) = outgoing.pop_front().map(|one| one.content) else {
            panic!("not created")
        };
        self.queue = created.sender.clone();
        let sender = self.sender.clone();
        let command = Command::SecureBySender(sender.public(provider()));
        let sealed = self.seal_direct(&self.queue.clone(), &command, Some(&sender));
        let outgoing = self.execute_direct(sealed);
        assert!(matches!(outgoing[0].content, OutgoingContent::Ok));
        store(&mut self.broker, &mut self.room);
        self.room.attach(FIRST_STEP);
        let register = Register { token: [0; 32], address: None, password: None };
        let mut content = Vec::new();
        let message = Message::Register(register);
        let ask = Transmission { correlation: Correlation(1), relay: RelayNumber(0), message };
        ask.encode(&mut content).expect("fits");
        self.room.receive(FIRST_STEP, content.into(), now(), &mut self.entropy);
        let told = self.room.poll_to_relay(FIRST_STEP).expect("a key");
        let mut buffer = vec![0; BLOCK_LENGTH];
        let mut out = smp_proto::wire::primitives::SliceWriter::new(&mut buffer);
        told.write(provider(), &mut out).expect("fits");
        let length = out.written();
        let read = Transmission::decode(&buffer[..length]).expect("readable");
        let Message::Registered(registered) = read.message else { panic!("no key") };
        self.key = (registered.key.number, registered.key.key);
    }

    fn seal_direct(
        &mut self,
        entity: &EntityId,
        command: &Command<'_>,
        key: Option<&AuthSecret>,
    ) -> BytesMut {
        let mut block = block();
        let correlation = CorrelationId::from([3; 24]);
        let bytes = block.as_mut().try_into().expect("a block");
        let sealed = self.direct.1.seal(bytes, now(), |writer| {
            writer.add(&correlation, entity, command, key).expect("fits");
        });
        sealed.expect("established");
        block
    }

    fn execute_direct(&mut self, block: BytesMut) -> VecDeque<smp_proto::session::outgoing::Outgoing> {
        let (server, _, connection) = &mut self.direct;
        let Ok(Received::Commands(opened)) = server.receive(block, now()) else { panic!("not read") };
        let mut chunk = server.parse(&opened).next_chunk().expect("a command");
        self.broker.look_up(&mut chunk[0]);
        let verified = server.verify(chunk, &mut self.entropy).pop().expect("one");
        self.broker.execute(*connection, verified, &opened, now(), &mut self.entropy);
        drop(opened);
        store(&mut self.broker, &mut self.room);
        let mut outgoing = VecDeque::new();
        self.broker.take_outgoing(*connection, &mut outgoing);
        outgoing
    }

    fn message() -> Command<'static> {
        Command::Send { flags: MessageFlags { notification: false }, body: &BODY }
    }

    fn send_direct(&mut self) -> Duration {
        let (queue, sender) = (self.queue.clone(), self.sender.clone());
        let sealed = self.seal_direct(&queue, &Self::message(), Some(&sender));
        let started = Instant::now();
        let mut outgoing = self.execute_direct(sealed);
        assert!(matches!(outgoing[0].content, OutgoingContent::Ok));
        let answer = self.direct.0.pack(&mut outgoing, now()).expect("an answer");
        let elapsed = started.elapsed();
        black_box(answer);
        elapsed
    }

    /// A `SEND` as a batch of one, authorized with the sender's key for the relay's `key` in a session of this name.
    fn alone(&self, session: &[u8], key: &X25519Public, correlation: &[u8; 24]) -> Vec<u8> {
        let AuthSecret::X25519(sender) = &self.sender else { panic!("the sender's key") };
        let mut tail = vec![24];
        tail.extend_from_slice(correlation);
        tail.push(24);
        tail.extend_from_slice(self.queue.as_bytes());
        tail.extend_from_slice(b"SEND F ");
        tail.extend_from_slice(&BODY);
        let box_key = BoxKey::agree(provider(), sender, key);
        let name = SessionId::new(session).expect("32 bytes");
        let authorization =
            authenticator::create(provider(), &box_key, correlation, &[name.prefixed(), &tail]);
        let mut transmission = vec![80];
        transmission.extend_from_slice(&authorization);
        transmission.push(b'0');
        transmission.extend_from_slice(&tail);
        let mut content = vec![1];
        content.extend_from_slice(&u16::try_from(transmission.len()).expect("fits").to_be_bytes());
        content.extend_from_slice(&transmission);
        content
    }

    fn send_through_proxy(&mut self, number: usize) -> Duration {
        let ephemeral = X25519Secret::generate(&mut self.entropy);
        let relay = self.proxied.0.hello_key();
        let key = BoxKey::agree(provider(), &ephemeral, &relay);
        let correlation: [u8; 24] = std::array::from_fn(|index| (number >> (8 * (index % 4))) as u8);
        let content = self.alone(&[7; 32], &relay, &correlation);
        let mut sealed = [0; INNER_SEALED_LENGTH];
        proxy_layers::seal_command(provider(), &key, &correlation, &content, &mut sealed).expect("fits");
        let forward = ProxyForward {
            id: ForwardId(number as u64),
            correlation: Identifier::from(correlation),
            version: Version::BLOCKED_NOTICE,
            client_key: provider().x25519_public(&ephemeral),
            sealed: Bytes::copy_from_slice(&sealed),
            until: smp_proto::time::Instant::from_micros(u64::MAX),
        };
        let (server, link, connection) = &mut self.proxied;
        let mut block = block();
        let bytes = block.as_mut().try_into().expect("a block");
        link.seal(&forward, bytes, now(), &mut self.entropy).expect("fits");
        let started = Instant::now();
        let Ok(Received::Commands(opened)) = server.receive(block, now()) else { panic!("not read") };
        let mut chunk = server.parse(&opened).next_chunk().expect("a command");
        self.broker.look_up(&mut chunk[0]);
        let verified = server.verify(chunk, &mut self.entropy).pop().expect("one");
        let forwarded = verified.into_forwarded().expect("a forwarded command");
        let mut request = server.forwarded_request(&forwarded);
        self.broker.look_up(&mut request);
        let verified = server.verify_forwarded(request, &forwarded, &mut self.entropy).expect("one");
        self.broker.execute(*connection, verified, forwarded.block(), now(), &mut self.entropy);
        drop(opened);
        store(&mut self.broker, &mut self.room);
        let mut outgoing = VecDeque::new();
        self.broker.take_outgoing(*connection, &mut outgoing);
        assert!(matches!(outgoing[0].content, OutgoingContent::Ok));
        let answer = server.pack(&mut outgoing, now()).expect("an answer");
        let elapsed = started.elapsed();
        let Ok(LinkReceived::Answers(answers)) = link.receive(answer, now()) else { panic!("not read") };
        assert!(answers.len() == 1 && answers[0].1.is_ok());
        elapsed
    }

    fn send_through_first_step(&mut self, number: usize) -> Duration {
        let ephemeral = X25519Secret::generate(&mut self.entropy);
        let (key_number, key) = self.key;
        let correlation: [u8; 24] = std::array::from_fn(|index| (number >> (8 * (index % 4))) as u8);
        let content = self.alone(&session_name(key_number, &key), &key, &correlation);
        let keys = ForwardKeys::of_client(provider(), &ephemeral, key_number, &key);
        let mut sealed = [0; SEALED_LENGTH];
        keys.seal_command(provider(), &content, &mut sealed).expect("fits");
        let forward = Forward {
            options: ForwardOptions::default(),
            acknowledged: Correlation(0),
            delay: 0,
            key: provider().x25519_public(&ephemeral),
            sealed: &sealed,
        };
        let transmission = Transmission {
            correlation: Correlation(number as u64),
            relay: key_number,
            message: Message::Forward(forward),
        };
        let (here, there) = &mut self.first_step;
        let mut arriving = block();
        let bytes = arriving.as_mut().try_into().expect("a block");
        there.seal(bytes, now(), |out| transmission.encode(out).is_ok()).expect("established");
        let started = Instant::now();
        let Ok(FirstStepReceived::Content(opened)) = here.receive(arriving, now()) else {
            panic!("not read")
        };
        let content = opened.to_bytes();
        drop(opened);
        self.room.receive(FIRST_STEP, content, now(), &mut self.entropy);
        let sealed = self.room.poll_command(FIRST_STEP).expect("a command");
        let opened = sealed.open(provider()).expect("sealed for this relay");
        let mut request = opened.request();
        self.broker.look_up(&mut request);
        let verified = self.verifier.verify(&opened, request, &mut self.entropy);
        self.room.execute(&mut self.broker, &opened, verified, now(), &mut self.entropy);
        drop(opened);
        store(&mut self.broker, &mut self.room);
        self.room.collect(&mut self.broker);
        let told = self.room.poll_to_relay(FIRST_STEP).expect("an answer");
        let mut answer = block();
        let bytes = answer.as_mut().try_into().expect("a block");
        here.seal(bytes, now(), |out| told.write(provider(), out).is_ok()).expect("established");
        let elapsed = started.elapsed();
        let Ok(FirstStepReceived::Content(opened)) = there.receive(answer, now()) else { panic!("not read") };
        let Some(Message::Response(sealed)) = Transmission::decode(opened.content()).map(|read| read.message)
        else {
            panic!("no answer")
        };
        let mut sealed = sealed.to_vec();
        let text = keys.open_answer(provider(), &mut sealed).expect("sealed for this client");
        assert!(text.ends_with(b"OK"));
        elapsed
    }
}

/// A first-step relay between a client and a destination that answers at once.
struct Middle {
    relay: FirstStep,
    disk: StorageModel,
    entropy: SeededEntropy,
    /// Here and the client.
    client: (FirstStepSession, FirstStepSession),
    /// The destination and here.
    destination: (FirstStepSession, FirstStepSession),
    link: Option<DestinationLink>,
    number: RelayNumber,
}

const USER: UserId = UserId(1);

impl Middle {
    fn new() -> Self {
        let mut entropy = SeededEntropy::new([2; 32]);
        let (identity, chain) = identity(&mut entropy);
        let config = Arc::new(ServerSessionConfig::new(identity, provider()));
        let client = connect_first_step(&config, &chain, &mut entropy);
        let destination = connect_first_step(&config, &chain, &mut entropy);
        let mut relay = FirstStep::new(FirstStepConfig::default());
        relay.begin(now());
        relay.attach(USER);
        let mut middle = Self {
            relay,
            disk: StorageModel::default(),
            entropy,
            client,
            destination,
            link: None,
            number: RelayNumber(0),
        };
        let address = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@example.org".parse().expect("one");
        let register = Register { token: [5; 32], address: Some(address), password: None };
        let message = Message::Register(register);
        let ask = Transmission { correlation: Correlation(1), relay: RelayNumber(0), message };
        let mut content = Vec::new();
        ask.encode(&mut content).expect("fits");
        middle.relay.receive(USER, &content.into(), now(), &mut middle.entropy);
        let mut heard = Vec::new();
        while middle.relay.actions_under_way() > 0 || heard.is_empty() {
            middle.store();
            while let Some(action) = middle.relay.poll_action() {
                match action {
                    Action::Connect(link, _) => {
                        middle.link = Some(link);
                        middle.relay.connected(link, now());
                    }
                    Action::TellDestination(link) => {
                        let mut asked = Vec::new();
                        assert!(middle.relay.poll_to_destination(link, &mut asked));
                        let asked = Transmission::decode(&asked).expect("readable").correlation;
                        middle.publish(link, asked);
                    }
                    Action::TellClient(user) => {
                        middle.relay.poll_to_client(user, &mut heard);
                    }
                    Action::Disconnect(_) => panic!("why?"),
                }
            }
        }
        let read = Transmission::decode(&heard).expect("readable");
        assert!(matches!(read.message, Message::Registered(_)));
        middle.number = read.relay;
        middle
    }

    fn publish(&mut self, link: DestinationLink, correlation: Correlation) {
        let key = smp_proto::wire::first_step::PublishedKey {
            number: RelayNumber(1),
            until: 1_000_000,
            key: X25519Public([9; 32]),
            chain: vec![&[1; 300], &[2; 300]],
            signature: &[3; 64],
        };
        let registered = smp_proto::wire::first_step::Registered { until: 1_000_000, key };
        let message = Message::Registered(registered);
        let mut content = Vec::new();
        Transmission { correlation, relay: RelayNumber(0), message }.encode(&mut content).expect("fits");
        self.relay.receive_from(link, &content.into(), now(), &mut self.entropy);
    }

    fn store(&mut self) {
        while let Some((id, action)) = self.relay.poll_storage() {
            let completion = self.disk.apply(id, action);
            self.relay.complete(completion, now());
        }
    }

    /// The way of one command and of its answer, the work of client and destination apart.
    fn forward(&mut self, number: usize, hold: Hold) -> Duration {
        let sealed = [6; SEALED_LENGTH];
        let forward = Forward {
            options: ForwardOptions { hold, ..ForwardOptions::default() },
            acknowledged: Correlation(number as u64 + 1),
            delay: 0,
            key: X25519Public(std::array::from_fn(|index| (number >> (8 * (index % 4))) as u8)),
            sealed: &sealed,
        };
        let transmission = Transmission {
            correlation: Correlation(number as u64 + 2),
            relay: self.number,
            message: Message::Forward(forward),
        };
        let mut arriving = block();
        let bytes = arriving.as_mut().try_into().expect("a block");
        self.client.1.seal(bytes, now(), |out| transmission.encode(out).is_ok()).expect("established");
        let mut elapsed = Duration::ZERO;
        let mut started = Instant::now();
        let Ok(FirstStepReceived::Content(opened)) = self.client.0.receive(arriving, now()) else {
            panic!("not read")
        };
        self.relay.receive(USER, &opened.to_bytes(), now(), &mut self.entropy);
        drop(opened);
        let mut answered = false;
        loop {
            self.store();
            let Some(action) = self.relay.poll_action() else { break };
            match action {
                Action::TellDestination(link) => loop {
                    let mut leaving = block();
                    let bytes = leaving.as_mut().try_into().expect("a block");
                    let relay = &mut self.relay;
                    let session = &mut self.destination.1;
                    if !session.seal(bytes, now(), |out| relay.poll_to_destination(link, out)).expect("open")
                    {
                        break;
                    }
                    elapsed += started.elapsed();
                    let answer = self.answer(leaving);
                    started = Instant::now();
                    let Ok(FirstStepReceived::Content(opened)) = self.destination.1.receive(answer, now())
                    else {
                        panic!("not read")
                    };
                    self.relay.receive_from(link, &opened.to_bytes(), now(), &mut self.entropy);
                },
                Action::TellClient(user) => loop {
                    let mut leaving = block();
                    let bytes = leaving.as_mut().try_into().expect("a block");
                    let relay = &mut self.relay;
                    let session = &mut self.client.0;
                    if !session.seal(bytes, now(), |out| relay.poll_to_client(user, out)).expect("open") {
                        break;
                    }
                    elapsed += started.elapsed();
                    let Ok(FirstStepReceived::Content(opened)) = self.client.1.receive(leaving, now()) else {
                        panic!("not read")
                    };
                    let read = Transmission::decode(opened.content()).expect("readable");
                    answered |= matches!(read.message, Message::Response(_));
                    started = Instant::now();
                },
                other => panic!("{other:?}"),
            }
        }
        elapsed += started.elapsed();
        assert!(answered);
        elapsed
    }

    fn answer(&mut self, block: BytesMut) -> BytesMut {
        let Ok(FirstStepReceived::Content(opened)) = self.destination.0.receive(block, now()) else {
            panic!("not read")
        };
        let read = Transmission::decode(opened.content()).expect("readable");
        let response = Transmission { message: Message::Response(&[8; SEALED_LENGTH]), ..read };
        let mut answer = self::block();
        let bytes = answer.as_mut().try_into().expect("a block");
        self.destination.0.seal(bytes, now(), |out| response.encode(out).is_ok()).expect("open");
        answer
    }
}

fn best<T: Ord>(measure: impl FnMut() -> T) -> T {
    std::iter::repeat_with(measure).take(ROUNDS).min().expect("some rounds")
}

/// The mean of many.
fn mean(mut one: impl FnMut(usize) -> Duration) -> Duration {
    (0..COMMANDS).map(&mut one).sum::<Duration>() / COMMANDS as u32
}

#[allow(dead_code, reason = "not where another package measures with primitives of its own")]
fn main() {
    measure(&Portable);
}

/// Measures with these primitives, once in a process.
pub fn measure(provider: &'static dyn Provider) {
    PROVIDER.get_or_init(|| provider);
    let [mut direct, mut deployed, mut first_step, mut forwarded, mut held] = [Duration::MAX; 5];
    let [mut boxed, mut agreement, mut authorization, mut derived] = [Duration::MAX; 4];
    let key = BoxKey::from_symmetric(&[1; 32]);
    let (secret, public) = (X25519Secret::from_bytes([2; 32]), X25519Public([9; 32]));
    let authenticated = authenticator::create(provider, &key, &[3; 24], &[&BODY]);
    for _ in 0..ROUNDS {
        let mut destination = Destination::new();
        direct = direct.min(mean(|_| destination.send_direct()));
        deployed = deployed.min(mean(|number| destination.send_through_proxy(number)));
        first_step = first_step.min(mean(|number| destination.send_through_first_step(number)));
        let mut middle = Middle::new();
        forwarded = forwarded.min(mean(|number| middle.forward(number, Hold::Never)));
        held = held.min(mean(|number| middle.forward(COMMANDS + number, Hold::Day)));
        boxed = boxed.min(best(|| {
            let mut buffer = vec![0; PADDED_LENGTH + 16];
            let started = Instant::now();
            black_box(provider.box_seal(&key, &Nonce([3; 24]), &mut buffer));
            started.elapsed()
        }));
        agreement = agreement.min(best(|| {
            let started = Instant::now();
            black_box(BoxKey::agree(provider, &secret, &public));
            started.elapsed()
        }));
        derived = derived.min(best(|| {
            let mut output = [0; 88];
            let started = Instant::now();
            provider.hkdf_sha512(b"", black_box(&[1; 32]), b"SimpleXSbChain", &mut output);
            let elapsed = started.elapsed();
            black_box(output);
            elapsed
        }));
        authorization = authorization.min(best(|| {
            let started = Instant::now();
            assert!(authenticator::verify(provider, &key, &[3; 24], &[&BODY], &authenticated));
            started.elapsed()
        }));
    }
    let ratio = |actual: Duration, floor: Duration| actual.as_secs_f64() / floor.as_secs_f64();
    println!(
        "one box of 16 KB {boxed:?}, one derivation of keys {derived:?}, one agreement {agreement:?}, one authorization \
         {authorization:?}"
    );
    // The keys of each block, and those of each command, are derived. Connections of proxies have no block encryption.
    let block = boxed + derived;
    let ways = [
        ("SEND, direct", direct, block * 2 + authorization),
        ("SEND through a deployed proxy", deployed, boxed * 4 + agreement + authorization),
        (
            "SEND through a first-step relay",
            first_step,
            (block + boxed) * 2 + agreement + derived + authorization,
        ),
    ];
    println!("at the destination:");
    for (name, cost, floor) in ways {
        println!(
            "  {name}: {cost:?}, {:.2} x its cryptography, {:.2} x a direct SEND; beside the cryptography {:?}",
            ratio(cost, floor),
            ratio(cost, direct),
            cost.saturating_sub(floor)
        );
    }
    println!("at the first-step relay:");
    // Whoever has something held is told so in a block of its own.
    for (name, cost, floor) in [("forwarded", forwarded, block * 4), ("held", held, block * 5)] {
        println!("  {name}: {cost:?}, {:.2} x its cryptography", ratio(cost, floor));
    }
}
