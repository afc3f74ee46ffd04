//! A damaged file of storage is an error, whatever is asked for and wherever the damage is; it never ends the process.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use smp_proto::broker::record::{QueueRecord, QueueStatus, RecipientKeys};
use smp_proto::broker::storage::{
    MessageKind, MessageMark, QueueNumber, Sequence, StorageAction, StoredMessage,
};
use smp_proto::keys::{AuthKey, Ed25519Public, X25519Public};
use smp_proto::session::outgoing::DeliverySecret;
use smp_proto::time::UnixTime;
use smp_runtime_std::storage::{Embedded, Engine, StorageError};

const QUEUES: u64 = 400;

fn record(number: u64) -> Box<QueueRecord> {
    let mut id = [0; 24];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let byte = number as u8;
    Box::new(QueueRecord {
        recipient: id,
        sender: id.map(|byte| byte ^ 0x55),
        recipient_keys: RecipientKeys::One(AuthKey::Ed25519(Ed25519Public([byte; 32]))),
        recipient_secret: DeliverySecret { relay: [byte; 32], peer: X25519Public([byte; 32]) },
        sender_key: None,
        mode: None,
        status: QueueStatus::Active,
        notifier: None,
        link: None,
        updated: UnixTime(0),
    })
}

fn put_message(number: u64, sequence: u64) -> StorageAction {
    StorageAction::PutMessage {
        queue: QueueNumber(number),
        sequence: Sequence(sequence),
        mark: MessageMark { timestamp: UnixTime(sequence as i64), kind: MessageKind::Ordinary },
        message: StoredMessage {
            id: [number as u8; 24],
            notification: false,
            body: Bytes::from(vec![number as u8; 3_000]),
        },
    }
}

/// The bytes of a file with queues and messages that was closed in order.
fn file() -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = Embedded::open(folder.path()).unwrap();
    let writes: Vec<_> = (1..=QUEUES)
        .flat_map(|number| {
            let put = StorageAction::PutQueue { queue: QueueNumber(number), record: record(number) };
            [put].into_iter().chain((number % 4 == 0).then(|| put_message(number, 0)))
        })
        .collect();
    for group in writes.chunks(100) {
        engine.commit(&mut group.iter(), true).unwrap();
    }
    let path = engine.path().to_owned();
    drop(engine);
    (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
}

/// What came of the questions to one engine.
#[derive(Debug, Default)]
struct Outcomes {
    opened: usize,
    refused: usize,
    loaded: usize,
    not_loaded: usize,
    answered: usize,
    failed: usize,
    /// Panics of redb.
    inconsistent: usize,
}

impl Outcomes {
    /// An error must be one that names the file; nothing else is asked of it.
    fn count<T>(&mut self, result: Result<T, StorageError>) {
        match result {
            Ok(_) => self.answered += 1,
            Err(error) => {
                self.note(&error);
                self.failed += 1;
            }
        }
    }

    fn note(&mut self, error: &StorageError) {
        let text = error.to_string();
        assert!(!text.is_empty() && !text.contains('\n'), "{text}");
        self.inconsistent += usize::from(text.contains("it is inconsistent ("));
    }

    fn ask(&mut self, folder: &Path) {
        let mut engine = match Embedded::open(folder) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(matches!(
                    error,
                    StorageError::Damaged(..)
                        | StorageError::Foreign(_)
                        | StorageError::Newer(..)
                        | StorageError::Io(..)
                ));
                self.note(&error);
                self.refused += 1;
                return;
            }
        };
        self.opened += 1;
        // Twice: an engine that has failed opens its file again.
        for _ in 0..2 {
            match engine.load(&mut |_| Ok(())) {
                Ok(()) => self.loaded += 1,
                Err(error) => {
                    self.note(&error);
                    self.not_loaded += 1;
                }
            }
            for number in [1, 4, 200, QUEUES] {
                self.count(engine.read_queue(QueueNumber(number)));
                self.count(engine.read_message(QueueNumber(number), Sequence(0)));
            }
            let put = StorageAction::PutQueue { queue: QueueNumber(1), record: record(1) };
            let delete = StorageAction::DeleteQueue { queue: QueueNumber(4) };
            self.count(engine.commit(&mut [put, put_message(1, 9), delete].iter(), true));
        }
    }
}

#[test]
fn damage_anywhere_is_an_error_and_never_the_end() {
    // Whatever panics in there, panics nowhere else, and nothing is printed about it.
    let reported = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = std::sync::Arc::clone(&reported);
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        default(info);
    }));
    let (name, bytes) = file();
    let pages = bytes.len() / 4096;
    let used: Vec<usize> =
        (0..pages).filter(|page| bytes[page * 4096..][..4096].iter().any(|byte| *byte != 0)).collect();
    let mut outcomes = Outcomes::default();
    let folder = tempfile::tempdir().unwrap();
    let mut ask = |damaged: &[u8]| {
        fs::write(folder.path().join(&name), damaged).unwrap();
        outcomes.ask(folder.path());
    };
    for (index, page) in used.iter().enumerate() {
        let start = page * 4096;
        // Every page is damaged in two ways, the first pages (where the roots of everything are) in many.
        let places: Vec<usize> =
            if *page < 2 { (0..512).step_by(5).collect() } else { vec![index % 64, (index * 97) % 4096] };
        for (way, place) in places.into_iter().enumerate() {
            let mut damaged = bytes.clone();
            match (way + index) % 3 {
                0 => damaged[start + place] ^= 0xff,
                1 => damaged[start + place] ^= 1 << (index % 8),
                _ => damaged[start + place..][..16.min(4096 - place)].fill(0xff),
            }
            ask(&damaged);
        }
    }
    for length in [0, 1, 100, 4096, bytes.len() / 2, bytes.len() - 4096, bytes.len() - 1] {
        ask(&bytes[..length]);
    }
    println!("{} pages, {} of them used: {outcomes:?}", pages, used.len());
    assert!(outcomes.opened > 0 && outcomes.refused > 0, "{outcomes:?}");
    assert!(outcomes.loaded > 0 && outcomes.not_loaded > 0, "{outcomes:?}");
    assert!(outcomes.answered > 0 && outcomes.failed > 0, "{outcomes:?}");
    assert!(outcomes.inconsistent > 0, "no damage made redb panic: {outcomes:?}");
    assert_eq!(reported.load(std::sync::atomic::Ordering::Relaxed), 0);
}
