//! A destination of `smp-proxy/1` with an arbitrary history: two first-step relays that say anything, sealed commands with
//! anything in them, storage that fails, clocks that jump, and restarts.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use smp_proto::broker::record::{QueueRecord, QueueStatus, RecipientKeys};
use smp_proto::broker::storage::{ActionId, Completion, QueueNumber, Room, StorageAction};
use smp_proto::broker::{Broker, BrokerConfig};
use smp_proto::crypto::Portable;
use smp_proto::crypto::Provider;
use smp_proto::crypto::forwarding::ForwardKeys;
use smp_proto::entropy::SeededEntropy;
use smp_proto::forwarding::{FirstStepId, Forwarding, ForwardingConfig, PREFIX};
use smp_proto::keys::{AuthKey, Ed25519Public, X25519Public, X25519Secret};
use smp_proto::session::CommandVerifier;
use smp_proto::session::identity::{KeyInMemory, ServerIdentity};
use smp_proto::session::outgoing::DeliverySecret;
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::first_step::{
    Correlation, Forward, ForwardOptions, Message, Register, RelayNumber, SEALED_LENGTH, Transmission,
};
use smp_proto::wire::primitives::SliceWriter;
use smp_tests::sessions::Certificates;

/// The sender's id of the queue that there is: it is not secured.
pub const SENDER: [u8; 24] = [2; 24];

struct World {
    broker: Broker,
    room: Forwarding,
    storage: StorageModel,
    held: VecDeque<(ActionId, StorageAction)>,
    identity: ServerIdentity,
    verifier: CommandVerifier,
    entropy: SeededEntropy,
    now: Now,
    /// The key that was published last.
    key: Option<(RelayNumber, X25519Public)>,
    fails: bool,
}

fn queue() -> StorageAction {
    let record = QueueRecord {
        recipient: [1; 24],
        sender: SENDER,
        recipient_keys: RecipientKeys::One(AuthKey::Ed25519(Ed25519Public([1; 32]))),
        recipient_secret: DeliverySecret { relay: [1; 32], peer: X25519Public([9; 32]) },
        sender_key: None,
        mode: Some(QueueMode::Messaging),
        status: QueueStatus::Active,
        notifier: None,
        link: None,
        updated: UnixTime(0),
    };
    StorageAction::PutQueue { queue: QueueNumber(1), record: Box::new(record) }
}

impl World {
    fn new() -> Self {
        let certificates = Certificates::named("ed25519");
        let signer = Arc::new(KeyInMemory::new(certificates.key.clone(), &Portable));
        let identity = ServerIdentity::new(certificates.chain, signer).expect("a relay's chain");
        let mut storage = StorageModel::default();
        storage.apply(ActionId(u64::MAX), queue());
        storage.sync();
        let mut entropy = SeededEntropy::new([1; 32]);
        let now = Now { instant: Instant::from_micros(1), wall: UnixTime(1_700_000_000) };
        let (broker, room) = Self::start(&storage, &identity, now, &mut entropy);
        let verifier = CommandVerifier::new(&Portable, 2);
        let held = VecDeque::new();
        Self { broker, room, storage, held, identity, verifier, entropy, now, key: None, fails: false }
    }

    fn start(
        storage: &StorageModel,
        identity: &ServerIdentity,
        now: Now,
        entropy: &mut SeededEntropy,
    ) -> (Broker, Forwarding) {
        let mut broker = Broker::new(BrokerConfig { message_quota: 4, ..BrokerConfig::default() }, entropy);
        for stored in storage.queues() {
            broker.restore(stored).expect("what was written");
        }
        let connection = broker.connect(now).expect("room");
        let records: Vec<_> =
            storage.records(&PREFIX).map(|(key, value)| (key.clone(), value.clone())).collect();
        let config = ForwardingConfig::default();
        let identity = identity.clone();
        let mut room = Forwarding::restore(config, &Portable, identity, connection, records, now, entropy)
            .expect("what was written");
        for id in [0, 1] {
            room.attach(FirstStepId(id));
        }
        (broker, room)
    }

    fn restart(&mut self) {
        self.storage.crash();
        self.held.clear();
        self.now.instant = Instant::from_micros(1);
        (self.broker, self.room) = Self::start(&self.storage, &self.identity, self.now, &mut self.entropy);
    }

    fn check(&self) {
        self.room.check().expect("sound");
        self.broker.check().expect("sound");
    }

    fn receive(&mut self, id: FirstStepId, content: Bytes) {
        self.room.receive(id, content, self.now, &mut self.entropy);
        self.check();
    }

    fn say(&mut self, id: FirstStepId, relay: RelayNumber, message: Message<'_>) {
        let mut content = Vec::new();
        Transmission { correlation: Correlation(1), relay, message }.encode(&mut content).expect("fits");
        self.receive(id, content.into());
    }

    /// What is sealed under the published key, by the client key that the first two bytes name.
    fn forward(&mut self, id: FirstStepId, bytes: &[u8]) {
        let (Some((number, key)), Some((head, content))) = (self.key, bytes.split_first_chunk::<2>()) else {
            return;
        };
        let secret = X25519Secret::from_bytes([head[0] % 8 + 1; 32]);
        let keys = ForwardKeys::of_client(&Portable, &secret, number, &key);
        let mut sealed = [0; SEALED_LENGTH];
        if keys.seal_command(&Portable, content, &mut sealed).is_err() {
            return;
        }
        let forward = Forward {
            options: ForwardOptions::from_byte(head[1] % 4).expect("two bits"),
            acknowledged: Correlation(0),
            delay: 0,
            key: Portable.x25519_public(&secret),
            sealed: &sealed,
        };
        self.say(id, number, Message::Forward(forward));
    }

    fn work(&mut self) {
        while let Some(ready) = self.broker.poll_ready() {
            if ready == self.room.broker_connection() {
                self.room.collect(&mut self.broker);
            }
        }
        while let Some(id) = self.room.poll_ready() {
            while let Some(sealed) = self.room.poll_command(id) {
                match sealed.open(&Portable) {
                    Err(unopened) => self.room.unopened(unopened),
                    Ok(opened) => {
                        let mut request = opened.request();
                        self.broker.look_up(&mut request);
                        let verified = self.verifier.verify(&opened, request, &mut self.entropy);
                        self.room.execute(&mut self.broker, &opened, verified, self.now, &mut self.entropy);
                    }
                }
            }
            while let Some(told) = self.room.poll_to_relay(id) {
                let mut buffer = vec![0; 16_366];
                let mut out = SliceWriter::new(&mut buffer);
                told.write(&Portable, &mut out).expect("all of it fits in a block");
                let length = out.written();
                let read = Transmission::decode(&buffer[..length]).expect("what is said is readable");
                if let Message::Registered(registered) = read.message {
                    self.key = Some((registered.key.number, registered.key.key));
                }
            }
        }
        self.check();
    }

    fn store_one(&mut self) {
        while let Some(action) = self.broker.poll_storage().or_else(|| self.room.poll_storage()) {
            self.held.push_back(action);
        }
        let Some((id, action)) = self.held.pop_front() else { return };
        let fails = self.fails && !matches!(action, StorageAction::ReadQueue { .. });
        let completion = if fails { Completion::Failed(id) } else { self.storage.apply(id, action) };
        self.storage.sync();
        match id.room() {
            Some(Room::Forwarding) => self.room.complete(completion, self.now),
            _ => self.broker.complete(completion, self.now),
        }
    }
}

/// Steps: a byte that says what, a length of 2 bytes, and as many bytes.
///
/// The three low bits: these bytes are said by a first-step relay; sealed and forwarded by it (a byte that chooses the client's
/// key, one of options, and the content); it asks for a key; it connects anew; storage does something; storage fails, or works
/// again; the clocks go on or jump (8 bytes each); the relay is killed, and starts again. Bit 8 chooses the first-step relay, bit
/// 16 whether the work that there is is done afterwards.
pub fn forwarding(data: &[u8]) {
    let mut world = World::new();
    let mut rest = data;
    while let Some((what, tail)) = rest.split_first() {
        let Some((length, tail)) = tail.split_first_chunk() else { break };
        let (bytes, tail) = tail.split_at(usize::from(u16::from_be_bytes(*length)).min(tail.len()));
        rest = tail;
        let id = FirstStepId(u64::from(what >> 3 & 1));
        match what & 7 {
            0 => world.receive(id, Bytes::copy_from_slice(bytes)),
            1 => world.forward(id, bytes),
            2 => {
                let register = Register { token: [0; 32], address: None, password: None };
                world.say(id, RelayNumber(0), Message::Register(register));
            }
            3 => {
                world.room.detach(id);
                world.check();
                world.room.attach(id);
            }
            4 => (0..=bytes.len().min(20)).for_each(|_| world.store_one()),
            5 => world.fails = !world.fails,
            6 => {
                let number = |at| bytes.get(at..at + 8).and_then(|part| part.try_into().ok());
                let micros = number(0).map_or(1_000_000, u64::from_be_bytes) % (1 << 45);
                world.now.instant = world.now.instant + Duration::from_micros(micros);
                let wall = number(8).map_or(0, i64::from_be_bytes);
                world.now.wall = UnixTime(world.now.wall.0.wrapping_add(wall));
                world.room.handle_timeout(world.now, &mut world.entropy);
                world.check();
            }
            _ => world.restart(),
        }
        if what & 16 != 0 {
            world.work();
        }
    }
    // In the end there is always a key again, and a command is taken.
    world.fails = false;
    for _ in 0..3 {
        for _ in 0..200 {
            world.work();
            world.store_one();
        }
        world.now.instant = world.now.instant + Duration::from_secs(120);
        world.room.handle_timeout(world.now, &mut world.entropy);
    }
    assert_eq!(world.room.statistics().under_way, 0, "a command waits for ever");
}
