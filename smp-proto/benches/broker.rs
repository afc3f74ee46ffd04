//! What a relay's core does for each command: `cargo bench -p smp-proto --bench broker`.
//!
//! A command's whole way through the core is measured: its share of the block that it comes in and of the block that the
//! answer leaves in, parsing, verification, execution, and the completion of its storage action. Storage itself does
//! nothing here. Machines differ and are shared: judge by the share of the cryptography, measured in the same run and
//! printed beside each figure ("floor ÷ actual": the rest is what this crate adds). It is the portable cryptography; the
//! runtimes bring a faster one.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use smp_proto::broker::record::{QueueRecord, QueueStatus, RecipientKeys};
use smp_proto::broker::storage::{Completion, QueueNumber, StoredQueue};
use smp_proto::broker::{Broker, BrokerConfig, ConnectionId};
use smp_proto::crypto::chain_keys::ChainKey;
use smp_proto::crypto::{BoxKey, Ed25519Check, Nonce, Portable, Provider, authenticator};
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::{AuthKey, Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::session::AuthSecret;
use smp_proto::session::outgoing::{DeliverySecret, Outgoing};
use smp_proto::time::{Now, UnixTime};
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{Command, MessageFlags, NewQueue, QueueMode, QueueRequest, SubscriptionMode};
use smp_proto::wire::{EntityId, Identifier};

#[path = "support/mod.rs"]
mod support;
use support::Connection;

const QUEUES: u64 = 100_000;

fn recipient() -> Ed25519Secret {
    Ed25519Secret::from_bytes([1; 32])
}

fn sender() -> X25519Secret {
    X25519Secret::from_bytes([2; 32])
}

/// A relay with one connection.
struct Relay {
    connection: Connection,
    broker: Broker,
    id: ConnectionId,
    outgoing: VecDeque<Outgoing>,
    packed: Box<[u8; BLOCK_LENGTH]>,
    correlation: u64,
    /// What the core took since it was last asked.
    spent: Duration,
    /// Blocks received and packed.
    blocks: usize,
}

impl Relay {
    fn with(broker: Broker) -> Self {
        let mut broker = broker;
        let id = broker.connect(Now::default()).expect("there is room");
        Self {
            connection: Connection::new(),
            broker,
            id,
            outgoing: VecDeque::new(),
            packed: Box::new([0; BLOCK_LENGTH]),
            correlation: 0,
            spent: Duration::ZERO,
            blocks: 0,
        }
    }

    /// A block with these commands, or those of them that fit; how many do.
    fn seal(&mut self, commands: &[(EntityId, Command<'_>)], key: &AuthSecret) -> (BytesMut, usize) {
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let (correlation, mut count) = (&mut self.correlation, 0);
        let bytes = block.as_mut().try_into().expect("a block");
        self.connection
            .client
            .seal(bytes, Now::default(), |writer| {
                for (entity, command) in commands {
                    let mut name = [0; 24];
                    name[..8].copy_from_slice(&correlation.to_be_bytes());
                    *correlation += 1;
                    if writer.add(&Identifier::from(name), entity, command, Some(key)).is_err() {
                        break;
                    }
                    count += 1;
                }
            })
            .expect("established");
        (block, count)
    }

    /// Everything that the core does for a block. How many answers and messages there are.
    fn serve(&mut self, block: BytesMut) -> usize {
        let start = Instant::now();
        let Connection { server, entropy, .. } = &mut self.connection;
        let now = Now::default();
        let received = server.receive(block, now).expect("a good block");
        let smp_proto::session::server::Received::Commands(block) = received else { panic!("a hello") };
        let mut requests = server.parse(&block);
        while let Some(mut chunk) = requests.next_chunk() {
            for request in &mut chunk {
                self.broker.look_up(request);
            }
            for verified in server.verify(chunk, entropy) {
                self.broker.execute(self.id, verified, &block, now, entropy);
            }
        }
        while let Some((id, _)) = self.broker.poll_storage() {
            self.broker.complete(Completion::Done(id), now);
        }
        while self.broker.poll_ready().is_some() {}
        self.broker.take_outgoing(self.id, &mut self.outgoing);
        let said = self.outgoing.len();
        self.blocks += 1;
        while server.pack_into(&mut self.outgoing, &mut self.packed, now) {
            self.blocks += 1;
        }
        self.spent += start.elapsed();
        said
    }

    /// Another connection of the same client: nothing is subscribed any more.
    fn connect_again(&mut self) {
        self.broker.disconnect(self.id);
        self.id = self.broker.connect(Now::default()).expect("there is room");
    }

    fn take_spent(&mut self) -> Duration {
        std::mem::take(&mut self.spent)
    }
}

fn broker() -> Broker {
    Broker::new(BrokerConfig::default(), &mut SeededEntropy::new([1; 32]))
}

fn stored_queues() -> Vec<StoredQueue> {
    let mut entropy = SeededEntropy::new([2; 32]);
    let (recipient_key, sender_key) =
        (Portable.ed25519_public(&recipient()), Portable.x25519_public(&sender()));
    (1..=QUEUES)
        .map(|number| {
            let (mut recipient, mut sender) = ([0; 24], [0; 24]);
            entropy.fill_public(&mut recipient);
            entropy.fill_public(&mut sender);
            let record = QueueRecord {
                recipient,
                sender,
                recipient_keys: RecipientKeys::One(AuthKey::Ed25519(recipient_key)),
                recipient_secret: DeliverySecret { relay: [3; 32], peer: sender_key },
                sender_key: Some(AuthKey::X25519(sender_key)),
                mode: Some(QueueMode::Messaging),
                status: QueueStatus::Active,
                notifier: None,
                link: None,
                updated: UnixTime(0),
            };
            StoredQueue { queue: QueueNumber(number), record, messages: Vec::new() }
        })
        .collect()
}

fn full_broker(stored: &[StoredQueue]) -> Broker {
    let mut broker = broker();
    for queue in stored {
        broker.restore(queue.clone()).expect("different ids");
    }
    broker
}

/// Seconds of one round, at best: what the machine can do when nobody disturbs it.
fn best(mut work: impl FnMut()) -> f64 {
    let round = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..200).map(|_| round(&mut work)).fold(f64::INFINITY, f64::min)
}

/// One signature of a block that has many.
fn signature() -> f64 {
    let key = Portable.ed25519_public(&recipient());
    let message: [&[u8]; 1] = [&[5; 90]];
    let signature = Portable.ed25519_sign(&recipient(), &message);
    let check = || Ed25519Check { key, message: &message, signature: &signature, valid: false };
    best(|| Portable.ed25519_verify_batch(black_box(&mut std::array::from_fn::<_, 32, _>(|_| check()))))
        / 32.0
}

fn key_pair() -> f64 {
    best(|| {
        black_box(Portable.x25519_public(black_box(&sender())));
    })
}

/// One signature alone.
fn single_signature() -> f64 {
    let key = Portable.ed25519_public(&recipient());
    let message: [&[u8]; 1] = [&[5; 90]];
    let signature = Portable.ed25519_sign(&recipient(), &message);
    best(|| assert!(Portable.ed25519_verify(black_box(&key), &message, &signature)))
}

/// A block's encryption.
fn block() -> f64 {
    let mut chain = ChainKey::from_bytes([8; 32]);
    let mut block = Box::new([0; BLOCK_LENGTH]);
    best(|| chain.seal_block(&Portable, &mut block, 16_000).expect("fits"))
}

/// A message's authenticator (its secret remembered), with the hash of the message.
fn authorize() -> f64 {
    let key = BoxKey::from_symmetric(&[4; 32]);
    let message: [&[u8]; 1] = [&[5; 16_080]];
    best(|| {
        black_box(authenticator::create(&Portable, &key, &[6; 24], &message));
    })
}

/// A message's box.
fn message_box() -> f64 {
    let key = BoxKey::from_symmetric(&[4; 32]);
    let mut text = vec![0; 16_106];
    best(|| {
        black_box(Portable.box_seal(&key, &Nonce([5; 24]), &mut text));
    })
}

/// Measures rounds of `count` commands each, and says what share of the time is cryptography.
fn measure(
    criterion: &mut Criterion,
    name: &str,
    floor: f64,
    relay: &mut Relay,
    mut round: impl FnMut(&mut Relay) -> usize,
) {
    // The first rounds make what is used again.
    for _ in 0..3 {
        round(relay);
    }
    let mut fastest = f64::INFINITY;
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                relay.take_spent();
                let count = round(relay);
                let each = relay.take_spent().div_f64(count as f64);
                fastest = fastest.min(each.as_secs_f64());
                total += each;
            }
            total
        });
    });
    // Criterion was asked for something else.
    if fastest.is_infinite() {
        return;
    }
    println!(
        "{name}: at best {:.1} µs each, its cryptography {:.1} µs: floor ÷ actual {:.2}",
        fastest * 1e6,
        floor * 1e6,
        floor / fastest
    );
}

fn commands(criterion: &mut Criterion) {
    let stored = stored_queues();
    let key = AuthSecret::Ed25519(recipient());
    let public = key.public(&Portable);
    let new = Command::New(NewQueue {
        recipient_key: public,
        recipient_dh: X25519Public([9; 32]),
        password: None,
        subscription: SubscriptionMode::CreateOnly,
        request: Some(QueueRequest::Messaging(None)),
        notifier: None,
    });
    let many_new = vec![(EntityId::EMPTY, new); 200];
    let mut relay = Relay::with(broker());
    measure(criterion, "NEW, in a full block", signature() + key_pair(), &mut relay, |relay| {
        if relay.broker.statistics().queues as u64 > QUEUES {
            relay.broker = broker();
            relay.id = relay.broker.connect(Now::default()).expect("there is room");
        }
        let (block, count) = relay.seal(&many_new, &key);
        assert_eq!(relay.serve(block), count);
        count
    });

    let mut relay = Relay::with(full_broker(&stored));
    let ids: Vec<EntityId> = stored.iter().map(|stored| stored.record.recipient.into()).collect();
    for (name, command) in [
        ("SUB, 128 in a block, among 100,000 queues", Command::Subscribe),
        ("QUE, 128 in a block, among 100,000 queues", Command::QueueInformation),
    ] {
        let mut next = ids.iter().cycle();
        measure(criterion, name, signature(), &mut relay, |relay| {
            let commands: Vec<_> = next.by_ref().take(128).map(|id| (id.clone(), command.clone())).collect();
            let (block, count) = relay.seal(&commands, &key);
            assert_eq!((relay.serve(block), count), (128, 128));
            relay.connect_again();
            count
        });
    }

    let (body, sender) = (vec![5; 16_000], AuthSecret::X25519(sender()));
    let send = [(
        EntityId::from(stored[0].record.sender),
        Command::Send { flags: MessageFlags::default(), body: &body },
    )];
    let acknowledge = [(ids[0].clone(), Command::Acknowledge { message: Identifier::EMPTY })];
    let (subscribe, _) = relay.seal(&[(ids[0].clone(), Command::Subscribe)], &key);
    assert_eq!(relay.serve(subscribe), 1);
    let pass_one = |relay: &mut Relay| {
        let (send, _) = relay.seal(&send, &sender);
        assert_eq!(relay.serve(send), 2);
        let (acknowledge, _) = relay.seal(&acknowledge, &key);
        assert_eq!(relay.serve(acknowledge), 1);
        1
    };
    let before = relay.blocks;
    pass_one(&mut relay);
    let blocks = relay.blocks - before;
    let floor = blocks as f64 * block() + authorize() + message_box() + single_signature();
    measure(criterion, "SEND, MSG and ACK of 16,000 bytes", floor, &mut relay, pass_one);
}

fn restore(criterion: &mut Criterion) {
    let stored = stored_queues();
    let mut group = criterion.benchmark_group("broker");
    group.sample_size(10);
    let mut fastest = f64::INFINITY;
    group.bench_function("restore 100,000 queues", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let (queues, mut broker) = (stored.clone(), broker());
                let start = Instant::now();
                for queue in queues {
                    broker.restore(queue).expect("different ids");
                }
                let spent = start.elapsed();
                fastest = fastest.min(spent.as_secs_f64());
                total += spent;
                assert_eq!(broker.statistics().queues as u64, QUEUES);
            }
            total
        });
    });
    if fastest.is_infinite() {
        return;
    }
    let copy = best_of_few(|| drop(black_box(stored.clone())));
    println!(
        "restore 100,000 queues: at best {:.1} ms, {:.1} times the copying of their records ({:.1} ms)",
        fastest * 1e3,
        fastest / copy,
        copy * 1e3
    );
}

fn best_of_few(mut work: impl FnMut()) -> f64 {
    let times = (0..5).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

criterion_group!(benches, commands, restore);
criterion_main!(benches);
