//! Engines against the core's storage model: random actions, opened again in between.

use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;
use smp_proto::broker::record::{
    BlobRecord, QueueRecord, QueueStatus, RecipientKeys, ServiceNumber, ServiceRecord,
};
use smp_proto::broker::storage::{
    ActionId, BlobId, Completion, MessageKind, MessageMark, QueueNumber, RecordWrite, Sequence,
    StorageAction, StoredLink, StoredMessage, StoredQueue,
};
use smp_proto::keys::{AuthKey, Ed25519Public, X25519Public};
use smp_proto::session::outgoing::DeliverySecret;
use smp_proto::storage_model::StorageModel;
use smp_proto::time::UnixTime;
use smp_proto::wire::hello::ServiceRole;
use smp_runtime_std::storage::{Durability, Embedded, Engine, Memory, StorageError, StorageThread};
use std::num::NonZeroU32;

fn record(seed: u8) -> Box<QueueRecord> {
    Box::new(QueueRecord {
        recipient: [seed; 24],
        sender: [seed.wrapping_add(1); 24],
        recipient_keys: RecipientKeys::One(AuthKey::Ed25519(Ed25519Public([seed; 32]))),
        recipient_secret: DeliverySecret { relay: [seed; 32], peer: X25519Public([seed; 32]) },
        sender_key: (seed.is_multiple_of(2)).then_some(AuthKey::X25519(X25519Public([seed; 32]))),
        mode: None,
        status: if seed.is_multiple_of(3) { QueueStatus::Suspended } else { QueueStatus::Active },
        notifier: None,
        link: None,
        updated: UnixTime(i64::from(seed) * 86_400),
    })
}

fn mark(seed: u8) -> MessageMark {
    let kind = if seed.is_multiple_of(5) { MessageKind::Quota } else { MessageKind::Ordinary };
    MessageMark { timestamp: UnixTime(1_700_000_000 + i64::from(seed)), kind }
}

fn message(seed: u8, length: usize) -> StoredMessage {
    StoredMessage { id: [seed; 24], notification: seed % 2 == 1, body: Bytes::from(vec![seed; length]) }
}

#[derive(Clone, Debug)]
enum Step {
    Write(StorageAction),
    Commit,
    OpenAgain,
}

/// Few keys, so that they are replaced and deleted; some are the beginning of others.
fn record_key() -> impl Strategy<Value = Bytes> {
    (1u8..4, proptest::collection::vec(0u8..3, 0..3))
        .prop_map(|(room, rest)| std::iter::once(room).chain(rest).collect())
}

fn record_writes() -> impl Strategy<Value = Vec<RecordWrite>> {
    let write = (record_key(), proptest::option::weighted(0.8, (any::<u8>(), 0usize..17_000)));
    let write = write.prop_map(|(key, value)| match value {
        Some((seed, length)) => RecordWrite::Put { key, value: Bytes::from(vec![seed; length]) },
        None => RecordWrite::Delete { key },
    });
    proptest::collection::vec(write, 0..4)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let queue = (0u64..6).prop_map(QueueNumber);
    let sequence = (0u64..8).prop_map(Sequence);
    let step = prop_oneof![
        4 => (queue.clone(), any::<u8>())
            .prop_map(|(queue, seed)| Step::Write(StorageAction::PutQueue { queue, record: record(seed) })),
        1 => queue.clone().prop_map(|queue| Step::Write(StorageAction::DeleteQueue { queue })),
        2 => (queue.clone(), any::<u8>(), proptest::option::of((0usize..3000, 0usize..14_000))).prop_map(
            |(queue, seed, lengths)| Step::Write(StorageAction::PutQueueAndLink {
                queue,
                record: record(seed),
                link: lengths.map(|(fixed, user)| StoredLink {
                    fixed: Bytes::from(vec![seed; fixed]),
                    user: Bytes::from(vec![!seed; user]),
                }),
            })
        ),
        6 => (queue.clone(), sequence.clone(), any::<u8>(), 0usize..20_000).prop_map(
            |(queue, sequence, seed, length)| Step::Write(StorageAction::PutMessage {
                queue,
                sequence,
                mark: mark(seed),
                message: message(seed, length),
            })
        ),
        4 => record_writes().prop_map(|writes| Step::Write(StorageAction::WriteRecords { writes })),
        3 => (queue.clone(), any::<u8>(), record_writes()).prop_map(|(queue, seed, writes)| {
            let action = Box::new(StorageAction::PutQueue { queue, record: record(seed) });
            Step::Write(StorageAction::WithRecords { action, writes })
        }),
        2 => (record_key(), 1u32..4)
            .prop_map(|(prefix, at_most)| Step::Write(StorageAction::DeleteRecords { prefix, at_most })),
        4 => (queue, sequence, any::<u8>()).prop_map(|(queue, sequence, seed)| {
            Step::Write(StorageAction::DeleteMessage { queue, sequence, mark: mark(seed) })
        }),
        1 => (1u32..4, any::<u8>()).prop_map(|(number, seed)| {
            let record = ServiceRecord {
                id: [seed; 24],
                role: ServiceRole::Notifier,
                fingerprint: [number as u8; 32],
                created: UnixTime(i64::from(seed)),
            };
            let service = ServiceNumber(NonZeroU32::new(number).expect("from 1"));
            Step::Write(StorageAction::PutService { service, record })
        }),
        2 => (any::<bool>(), any::<u8>(), 0usize..17_000).prop_map(|(first, seed, length)| {
            let key = AuthKey::Ed25519(Ed25519Public([seed; 32]));
            Step::Write(StorageAction::PutBlob {
                id: [u8::from(first); 32],
                record: BlobRecord { key, written: UnixTime(i64::from(seed)) },
                value: Bytes::from(vec![seed; length]),
            })
        }),
        1 => any::<bool>()
            .prop_map(|first| Step::Write(StorageAction::DeleteBlob { id: [u8::from(first); 32] })),
        3 => Just(Step::Commit),
        1 => Just(Step::OpenAgain),
    ];
    proptest::collection::vec(step, 1..60)
}

fn loaded(engine: &mut dyn Engine) -> Vec<StoredQueue> {
    let mut queues = Vec::new();
    engine
        .load(&mut |queue| {
            queues.push(queue);
            Ok(())
        })
        .expect("load");
    queues
}

/// Runs the steps on an engine that `open` opens, and compares with the model after every commit.
fn agrees_with_model<E: Engine>(
    open: impl Fn(Option<E>) -> E,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    let mut engine = open(None);
    let mut model = StorageModel::default();
    let mut group = Vec::new();
    let mut deletions = Vec::new();
    for step in steps {
        match step {
            // The broker never puts messages into queues that do not exist.
            Step::Write(StorageAction::PutMessage { queue, .. }) if model.queue(queue).is_none() => {}
            Step::Write(action) => {
                let completion = model.apply(ActionId(0), action.clone());
                if let Completion::Deleted(_, more) = completion {
                    deletions.push(more);
                }
                group.push(action);
            }
            Step::Commit => {
                let more = engine.commit(&mut group.iter(), true).expect("commit");
                prop_assert_eq!(&more, &deletions);
                group.clear();
                deletions.clear();
                model.sync();
            }
            Step::OpenAgain => {
                // What was not committed is gone.
                group.clear();
                deletions.clear();
                model.crash();
                engine = open(Some(engine));
            }
        }
        if group.is_empty() {
            let expected: Vec<StoredQueue> = model.queues().collect();
            prop_assert_eq!(&loaded(&mut engine), &expected);
            let mut blobs = Vec::new();
            let each = &mut |id, record| {
                blobs.push((id, record));
                Ok(())
            };
            engine.load_blobs(each).expect("load");
            prop_assert_eq!(blobs, model.blobs().collect::<Vec<_>>());
            for id in [[0; 32], [1; 32]] {
                let value = engine.read_blob(id).expect("read");
                prop_assert_eq!(value.as_ref(), model.blob(id));
            }
            for prefix in [&[1][..], &[2], &[3], &[2, 1], &[255]] {
                let mut records = Vec::new();
                let each = &mut |key, value| {
                    records.push((key, value));
                    Ok(())
                };
                engine.load_records(prefix, each).expect("load");
                let expected = model.records(prefix).map(|(key, value)| (key.clone(), value.clone()));
                prop_assert_eq!(&records, &expected.collect::<Vec<_>>());
                for (key, value) in records {
                    prop_assert_eq!(engine.read_record(&key).expect("read"), Some(value));
                }
            }
            prop_assert_eq!(engine.read_record(&[4]).expect("read"), None);
            let mut services = Vec::new();
            let each = &mut |number, record| {
                services.push((number, record));
                Ok(())
            };
            engine.load_services(each).expect("load");
            prop_assert_eq!(services, model.services().collect::<Vec<_>>());
            for queue in (0..6).map(QueueNumber) {
                prop_assert_eq!(engine.read_queue(queue).expect("read"), model.queue(queue));
                let link = engine.read_link(queue).expect("read");
                prop_assert_eq!(link.as_ref(), model.link(queue));
                for sequence in (0..8).map(Sequence) {
                    let read = engine.read_message(queue, sequence).expect("read");
                    prop_assert_eq!(read.as_ref(), model.message(queue, sequence));
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_engine_does_what_the_model_does(steps in steps()) {
        let folder = tempfile::tempdir().expect("a folder");
        agrees_with_model(
            |before| {
                drop(before);
                Embedded::open(folder.path()).expect("open")
            },
            steps,
        )?;
    }

    #[test]
    fn the_memory_engine_does_what_the_model_does(steps in steps()) {
        let steps = steps.into_iter().filter(|step| !matches!(step, Step::OpenAgain)).collect();
        agrees_with_model(|before: Option<Memory>| before.unwrap_or_default(), steps)?;
    }
}

#[test]
fn a_second_process_is_told_that_storage_is_in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = Embedded::open(folder.path()).expect("open");
    let error = Embedded::open(folder.path()).expect_err("it is in use");
    assert!(matches!(error, StorageError::InUse(_)), "{error}");
}

#[test]
fn an_interrupted_first_start_is_no_obstacle() {
    let whole = tempfile::tempdir().expect("a folder");
    drop(Embedded::open(whole.path()).expect("open"));
    let whole = std::fs::read(whole.path().join("queues.redb")).expect("read");
    // Wherever writing the new file stopped, and whether or not the length was there before the contents.
    for written in [0, 1, 64, 4096, whole.len() / 2, whole.len()] {
        for zeros in [0, whole.len() - written] {
            let folder = tempfile::tempdir().unwrap();
            let mut part = whole[..written].to_vec();
            part.resize(written + zeros, 0);
            std::fs::write(folder.path().join("queues.redb.new7"), part).expect("write");
            let mut engine = Embedded::open(folder.path()).expect("open");
            assert_eq!(loaded(&mut engine), []);
            assert_eq!(
                std::fs::read_dir(folder.path()).expect("a folder").count(),
                1,
                "nothing is left over"
            );
        }
    }
}

#[test]
fn a_foreign_file_is_left_alone() {
    for content in [&b"not a database"[..], &[0; 8192], &[]] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("queues.redb");
        std::fs::write(&file, content).expect("write");
        let error = Embedded::open(folder.path()).expect_err("it is foreign");
        assert!(error.to_string().contains("queues.redb"), "{error}");
    }
}

#[test]
fn a_file_of_a_release_without_records_is_opened_and_gets_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = Embedded::open(folder.path()).expect("open");
    let put = StorageAction::PutQueue { queue: QueueNumber(1), record: record(1) };
    engine.commit(&mut [put].iter(), true).expect("commit");
    let before = loaded(&mut engine);
    let file = engine.path().to_owned();
    drop(engine);
    // What such a release has left: the same file, without the table.
    let database = redb::Database::open(&file).expect("open");
    let transaction = database.begin_write().expect("begin");
    let records: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");
    assert!(transaction.delete_table(records).expect("delete"), "it was there");
    transaction.commit().expect("commit");
    drop(database);
    let mut engine = Embedded::open(folder.path()).expect("open");
    assert_eq!(loaded(&mut engine), before);
    let key = Bytes::from_static(&[1, 2]);
    assert_eq!(engine.read_record(&key).expect("read"), None);
    let writes = vec![RecordWrite::Put { key: key.clone(), value: key.clone() }];
    engine.commit(&mut [StorageAction::WriteRecords { writes }].iter(), true).expect("commit");
    assert_eq!(engine.read_record(&key).expect("read"), Some(key));
}

/// An engine that fails when it is told to.
struct Failing {
    inner: Memory,
    fails: mpsc::Receiver<bool>,
}

impl Engine for Failing {
    fn load(
        &mut self,
        each: &mut dyn FnMut(StoredQueue) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.inner.load(each)
    }
    fn load_services(
        &mut self,
        each: &mut dyn FnMut(ServiceNumber, ServiceRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.inner.load_services(each)
    }
    fn load_blobs(
        &mut self,
        each: &mut dyn FnMut(BlobId, BlobRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.inner.load_blobs(each)
    }
    fn load_records(
        &mut self,
        prefix: &[u8],
        each: &mut dyn FnMut(Bytes, Bytes) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.inner.load_records(prefix, each)
    }
    fn read_blob(&mut self, id: BlobId) -> Result<Option<Bytes>, StorageError> {
        self.inner.read_blob(id)
    }
    fn read_record(&mut self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.inner.read_record(key)
    }
    fn commit(
        &mut self,
        writes: &mut dyn Iterator<Item = &StorageAction>,
        durable: bool,
    ) -> Result<Vec<bool>, StorageError> {
        if self.fails.recv().expect("told") {
            return Err(StorageError::Io(Path::new("disk").into(), std::io::ErrorKind::StorageFull.into()));
        }
        self.inner.commit(writes, durable)
    }
    fn read_message(
        &mut self,
        queue: QueueNumber,
        sequence: Sequence,
    ) -> Result<Option<StoredMessage>, StorageError> {
        self.inner.read_message(queue, sequence)
    }
    fn read_link(&mut self, queue: QueueNumber) -> Result<Option<StoredLink>, StorageError> {
        self.inner.read_link(queue)
    }

    fn read_queue(&mut self, queue: QueueNumber) -> Result<Option<StoredQueue>, StorageError> {
        self.inner.read_queue(queue)
    }
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let (tell, fails) = mpsc::channel();
    let (completed, completions) = mpsc::channel();
    let (reported, reports) = mpsc::channel();
    let (queue, thread) = StorageThread::start(
        Failing { inner: Memory::default(), fails },
        Durability::Commit,
        move |done| done.into_iter().for_each(|done| completed.send(done).expect("open")),
        move |report| reported.send(format!("{report:?}")).expect("open"),
    )
    .expect("a thread");
    let put = |id| (ActionId(id), StorageAction::PutQueue { queue: QueueNumber(1), record: record(1) });
    tell.send(true).expect("open");
    queue.submit(&mut vec![put(1)]);
    assert!(matches!(completions.recv(), Ok(Completion::Failed(ActionId(1)))));
    queue.submit(&mut vec![(ActionId(2), StorageAction::ReadQueue { queue: QueueNumber(1) })]);
    assert!(matches!(completions.recv(), Ok(Completion::Queue(ActionId(2), None))));
    tell.send(false).expect("open");
    queue.submit(&mut vec![put(3)]);
    assert!(matches!(completions.recv(), Ok(Completion::Done(ActionId(3)))));
    drop(queue);
    thread.join().expect("it ended");
    let reports: Vec<String> = reports.try_iter().collect();
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports[0].contains("StorageFull") && reports[1] == "Recovered", "{reports:?}");
}

#[test]
fn records_through_the_thread() {
    let (completed, completions) = mpsc::channel();
    let (queue, thread) = StorageThread::start(
        Memory::default(),
        Durability::Commit,
        move |done| done.into_iter().for_each(|done| completed.send(done).expect("open")),
        |report| panic!("{report:?}"),
    )
    .expect("a thread");
    let key = |number: u8| Bytes::from(vec![2, number]);
    let puts = (0..5).map(|number| RecordWrite::Put { key: key(number), value: key(number) });
    let delete =
        |id| (ActionId(id), StorageAction::DeleteRecords { prefix: Bytes::from_static(&[2]), at_most: 2 });
    let action = Box::new(StorageAction::PutQueue { queue: QueueNumber(1), record: record(1) });
    let with = StorageAction::WithRecords { action, writes: puts.collect() };
    queue.submit(&mut vec![(ActionId(1), with)]);
    assert!(matches!(completions.recv(), Ok(Completion::Done(ActionId(1)))));
    queue.submit(&mut vec![delete(2), delete(3)]);
    assert!(matches!(completions.recv(), Ok(Completion::Deleted(ActionId(2), true))));
    assert!(matches!(completions.recv(), Ok(Completion::Deleted(ActionId(3), true))));
    let reads = (0..5)
        .map(|number| (ActionId(4 + u64::from(number)), StorageAction::ReadRecord { key: key(number) }));
    queue.submit(&mut reads.collect());
    for number in 0..5_u8 {
        let Ok(Completion::Record(id, value)) = completions.recv() else { panic!("a record") };
        assert_eq!((id, value), (ActionId(4 + u64::from(number)), (number == 4).then(|| key(4))));
    }
    queue.submit(&mut vec![delete(9)]);
    assert!(matches!(completions.recv(), Ok(Completion::Deleted(ActionId(9), false))));
    drop(queue);
    thread.join().expect("it ended");
}

#[test]
fn what_was_submitted_is_done_before_the_thread_ends() {
    for durability in [Durability::Commit, Durability::Relaxed(std::time::Duration::from_secs(3600))] {
        let folder = tempfile::tempdir().expect("a folder");
        let (completed, completions) = mpsc::channel();
        let (queue, thread) = StorageThread::start(
            Embedded::open(folder.path()).expect("open"),
            durability,
            move |done| done.into_iter().for_each(|done| completed.send(done).expect("open")),
            |report| panic!("{report:?}"),
        )
        .expect("a thread");
        for number in 0..100 {
            let action = StorageAction::PutQueue { queue: QueueNumber(number), record: record(1) };
            queue.submit(&mut vec![(ActionId(number), action)]);
        }
        drop(queue);
        thread.join().expect("it ended");
        assert_eq!(completions.try_iter().filter(|done| matches!(done, Completion::Done(_))).count(), 100);
        assert_eq!(loaded(&mut Embedded::open(folder.path()).expect("open")).len(), 100);
    }
}
