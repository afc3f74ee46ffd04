//! What storage costs: `cargo bench -p smp-runtime-std --bench storage`.
//!
//! Group commit, loading, and the start of a whole relay, also after it was killed. Disks differ more than machines do:
//! judge by the ratios to plain files (the same bytes appended and synced, the same file read), which are measured in the
//! same run and printed beside each figure.
#![allow(missing_docs)]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use smp_proto::broker::record::{QueueRecord, QueueStatus, RecipientKeys};
use smp_proto::broker::storage::{
    MessageKind, MessageMark, QueueNumber, Sequence, StorageAction, StoredMessage,
};
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::{AuthKey, Ed25519Public, X25519Public};
use smp_proto::session::outgoing::DeliverySecret;
use smp_proto::time::UnixTime;
use smp_proto::wire::command::QueueMode;
use smp_runtime_std::certificates::{Algorithm, CertificateFolder, LoadedIdentity, NewIdentity, Validity};
use smp_runtime_std::configuration::Configuration;
use smp_runtime_std::relay::Relay;
use smp_runtime_std::storage::{Embedded, Engine};

/// A full-size message's body.
const BODY: usize = 16_064;

/// How many messages wait before the oldest is deleted.
const WAITING: u64 = 256;

fn record(entropy: &mut SeededEntropy) -> Box<QueueRecord> {
    let mut random = [0; 144];
    entropy.fill_public(&mut random);
    let (ids, keys) = random.split_at(48);
    let key = |at: usize| -> [u8; 32] { keys[at..at + 32].try_into().expect("32 bytes") };
    Box::new(QueueRecord {
        recipient: ids[..24].try_into().expect("24 bytes"),
        sender: ids[24..].try_into().expect("24 bytes"),
        recipient_keys: RecipientKeys::One(AuthKey::Ed25519(Ed25519Public(key(0)))),
        recipient_secret: DeliverySecret { relay: key(32), peer: X25519Public(key(64)) },
        sender_key: Some(AuthKey::X25519(X25519Public(key(64)))),
        mode: Some(QueueMode::Messaging),
        status: QueueStatus::Active,
        notifier: None,
        link: None,
        updated: UnixTime(0),
    })
}

const MARK: MessageMark = MessageMark { timestamp: UnixTime(1_700_000_000), kind: MessageKind::Ordinary };

fn put(number: u64, body: &Bytes) -> StorageAction {
    let mut id = [0; 24];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let message = StoredMessage { id, notification: true, body: body.clone() };
    StorageAction::PutMessage {
        queue: QueueNumber(number % 16 + 1),
        sequence: Sequence(number),
        mark: MARK,
        message,
    }
}

fn delete(number: u64) -> StorageAction {
    StorageAction::DeleteMessage {
        queue: QueueNumber(number % 16 + 1),
        sequence: Sequence(number),
        mark: MARK,
    }
}

/// A folder on the disk that the project is on: temporary folders are often in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Full-size messages, each deleted some time later, in groups of several sizes: each group is one durable commit.
fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a message, durable");
    group.sample_size(10).measurement_time(Duration::from_secs(3));
    let body = Bytes::from(vec![7; BODY]);
    let mut entropy = SeededEntropy::new([1; 32]);
    for size in [1, 8, 64, 256] {
        let folder = folder();
        let mut engine = Embedded::open(folder.path()).expect("opened");
        let queues: Vec<_> = (1..=16)
            .map(|number| StorageAction::PutQueue {
                queue: QueueNumber(number),
                record: record(&mut entropy),
            })
            .collect();
        engine.commit(&mut queues.iter(), true).expect("written");
        let mut plain = File::create(folder.path().join("plain")).expect("made");
        let (mut next, mut spent, mut plain_spent, mut count) =
            (WAITING, Duration::ZERO, Duration::ZERO, 0u32);
        group.bench_function(format!("in groups of {size}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let actions: Vec<_> = (next..next + size)
                        .flat_map(|number| [put(number, &body), delete(number - WAITING)])
                        .collect();
                    next += size;
                    let start = Instant::now();
                    engine.commit(&mut actions.iter(), true).expect("written");
                    let committed = start.elapsed();
                    let start = Instant::now();
                    for _ in 0..size {
                        plain.write_all(&body).expect("written");
                    }
                    plain.sync_data().expect("synced");
                    plain_spent += start.elapsed();
                    spent += committed;
                    count += 1;
                    total += committed.div_f64(size as f64);
                }
                total
            });
        });
        // Criterion was asked for something else.
        if count == 0 {
            continue;
        }
        println!(
            "a group of {size}: {:.2} ms, {:.1} µs a message: {:.2} times a plain append and fdatasync ({:.2} ms)",
            milliseconds(spent / count),
            milliseconds(spent / count) * 1e3 / size as f64,
            spent.as_secs_f64() / plain_spent.as_secs_f64(),
            milliseconds(plain_spent / count)
        );
    }
}

/// Storage with so many queues, every hundredth of which has a message.
fn fill(folder: &Path, queues: u64) -> Embedded {
    let mut entropy = SeededEntropy::new([2; 32]);
    let body = Bytes::from(vec![7; BODY]);
    let mut engine = Embedded::open(folder).expect("opened");
    let mut number = 0;
    while number < queues {
        let mut actions = Vec::new();
        for _ in 0..10_000.min(queues - number) {
            number += 1;
            let queue = QueueNumber(number);
            actions.push(StorageAction::PutQueue { queue, record: record(&mut entropy) });
            if number % 100 == 0 {
                let message = StoredMessage { id: [1; 24], notification: true, body: body.clone() };
                actions.push(StorageAction::PutMessage { queue, sequence: Sequence(0), mark: MARK, message });
            }
        }
        engine.commit(&mut actions.iter(), false).expect("written");
    }
    engine.commit(&mut std::iter::empty(), true).expect("synced");
    engine
}

fn identity(folder: &Path) -> LoadedIdentity {
    let certificates = CertificateFolder::at(folder);
    let identity =
        NewIdentity::make("localhost", Algorithm::Ed25519, Validity::days_from_now(1)).expect("made");
    certificates.create(&identity).expect("written");
    certificates.load().expect("read")
}

/// How long a relay takes from its storage to where it can accept connections.
fn start(identity: &LoadedIdentity, store: &Path) -> Duration {
    let configuration = Configuration::default();
    let start = Instant::now();
    let relay =
        Relay::open(&configuration, identity, store, |_| (), |report| panic!("{report:?}")).expect("starts");
    let spent = start.elapsed();
    drop(relay);
    spent
}

fn open(criterion: &mut Criterion) {
    let certificates = folder();
    let identity = identity(certificates.path());
    for (queues, asked) in [(100_000, 0.5), (1_000_000, 5.0)] {
        let (folder, killed) = (folder(), folder());
        let engine = fill(folder.path(), queues);
        let file = engine.path().to_owned();
        // What is on disk while the relay runs is what a killed one leaves.
        let copy = killed.path().join(file.file_name().expect("a name"));
        fs::copy(&file, &copy).expect("copied");
        let after_kill = start(&identity, killed.path());
        drop(killed);
        drop(engine);
        let reading = {
            let start = Instant::now();
            black_box(fs::read(&file).expect("read"));
            start.elapsed()
        };
        let mut group = criterion.benchmark_group(format!("{queues} queues"));
        group.sample_size(10).measurement_time(Duration::from_secs(1));
        let mut fastest = Duration::MAX;
        group.bench_function("load", |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let mut engine = Embedded::open(folder.path()).expect("opened");
                    let (begun, mut count) = (Instant::now(), 0);
                    engine
                        .load(&mut |queue| {
                            black_box(queue);
                            count += 1;
                            Ok(())
                        })
                        .expect("loads");
                    let spent = begun.elapsed();
                    assert_eq!(count, queues);
                    fastest = fastest.min(spent);
                    total += spent;
                }
                total
            });
        });
        let mut fastest_start = Duration::MAX;
        group.bench_function("start of a relay", |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    let spent = start(&identity, folder.path());
                    fastest_start = fastest_start.min(spent);
                    total += spent;
                }
                total
            });
        });
        if fastest == Duration::MAX || fastest_start == Duration::MAX {
            continue;
        }
        println!(
            "{queues} queues: loaded in {:.0} ms at best, {:.1} times reading the file ({:.0} ms); a relay starts in {:.0} ms at \
             best, after a kill in {:.0} ms (asked: {:.0} ms)",
            milliseconds(fastest),
            fastest.as_secs_f64() / reading.as_secs_f64(),
            milliseconds(reading),
            milliseconds(fastest_start),
            milliseconds(after_kill),
            asked * 1e3
        );
    }
}

criterion_group!(benches, group_commit, open);
criterion_main!(benches);
