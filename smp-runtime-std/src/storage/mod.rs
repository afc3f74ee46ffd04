//! Where a relay keeps queues and messages: engines, and the thread that drives one.
//!
//! The broker says what is to be stored in the vocabulary of [`smp_proto::broker::storage`]; an [`Engine`] carries it
//! out; [`StorageThread`] gathers what waits into one commit, so that many messages share one `fdatasync`. Nothing here
//! knows a session or decides anything about a queue.
//!
//! # Which engine
//! Measured on a shared 2-core machine with messages of 16,064 bytes, each group of writes one durable commit, each
//! message deleted 256 messages later (4,000 messages at 8, 8,000 at 64; processor time of the whole process, background
//! threads included):
//!
//! | engine | group of 8: CPU a message | group of 64: CPU a message | group of 64: messages a second | memory | 1,000,000 records load in |
//! |---|---|---|---|---|---|
//! | redb 4 | 42 µs | 19 µs | 33,800 | 10 MB | 0.37 s |
//! | fjall 3 | 139 µs | 35 µs | 12,700 | 136 MB | |
//! | fjall 3, values apart | 48 µs | 34 µs | 16,100 | 136 MB | 0.63 s |
//! | SQLite, WAL | 52 µs | 35 µs | 15,300 | 11 MB | |
//! | plain append and `fdatasync` | 20 µs | 24 µs | 21,900 | 4 MB | |
//!
//! redb costs what a plain log costs when it matters (many messages a commit), keeps its file small by using freed pages
//! again, and has no compaction that could stop the relay: it is the embedded engine.
//!
//! `cargo bench -p smp-runtime-std --bench storage` measures the engine that was chosen again, beside plain files in the
//! same run: groups of several sizes, loading, and the start of a whole relay, also after a kill. On the same machine a
//! group takes 1.0 to 1.15 times what the same bytes take that are appended to a plain file and synced.
//!
//! # Durability
//! [`Durability::Commit`]: a write is complete when it is on disk; `kill -9` and power failure lose nothing that was
//! completed. [`Durability::Relaxed`]: a write is complete when the engine has it; what was completed within the window
//! before a crash is lost.

mod embedded;
mod error;
mod memory;
pub(crate) mod new_file;
mod recent;
mod thread;

use bytes::Bytes;
use smp_proto::broker::record::{BlobRecord, ServiceNumber, ServiceRecord};
use smp_proto::broker::storage::{
    BlobId, QueueNumber, Sequence, StorageAction, StoredLink, StoredMessage, StoredQueue,
};
use std::time::Duration;

pub use self::embedded::Embedded;
pub(crate) use self::embedded::guarded;
pub use self::error::StorageError;
pub use self::memory::Memory;
pub use self::thread::{StorageQueue, StorageReport, StorageThread, Workload};

/// When a write counts as complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it is on disk.
    Commit,
    /// When the engine has it; it is on disk at most this much later.
    Relaxed(Duration),
}

/// Something that stores queues and messages.
///
/// Errors are for the operator; the broker is told only that an action failed. After an error of
/// [`commit`](Self::commit), nothing of that group took effect, and the engine can be asked again.
pub trait Engine: Send + 'static {
    /// Hands over every queue, in the order of their numbers. `each` may end the loading with its own error.
    ///
    /// # Errors
    /// [`StorageError`] when something cannot be read.
    fn load(
        &mut self,
        each: &mut dyn FnMut(StoredQueue) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// Hands over every service, in the order of their numbers.
    ///
    /// # Errors
    /// [`StorageError`] when something cannot be read.
    fn load_services(
        &mut self,
        each: &mut dyn FnMut(ServiceNumber, ServiceRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// Hands over every blob's record.
    ///
    /// # Errors
    /// [`StorageError`] when something cannot be read.
    fn load_blobs(
        &mut self,
        each: &mut dyn FnMut(BlobId, BlobRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// Hands over every record whose key begins with `prefix`, key and value, in the order of their keys.
    ///
    /// # Errors
    /// [`StorageError`] when something cannot be read.
    fn load_records(
        &mut self,
        prefix: &[u8],
        each: &mut dyn FnMut(Bytes, Bytes) -> Result<(), StorageError>,
    ) -> Result<(), StorageError>;

    /// Carries out writes in order, all of them or none. With `durable`, this and everything before it is on disk when
    /// the call returns. Reads among them are ignored. Returns, for each action among them that deletes records by
    /// prefix, in order, whether there were more of them when it was done.
    ///
    /// # Errors
    /// [`StorageError`] when they cannot be written: none of them took effect.
    fn commit(
        &mut self,
        writes: &mut dyn Iterator<Item = &StorageAction>,
        durable: bool,
    ) -> Result<Vec<bool>, StorageError>;

    /// Reads one message.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read, other than because it is not there.
    fn read_message(
        &mut self,
        queue: QueueNumber,
        sequence: Sequence,
    ) -> Result<Option<StoredMessage>, StorageError>;

    /// Reads the value of a record.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read, other than because it is not there.
    fn read_record(&mut self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Reads the value of a blob.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read, other than because it is not there.
    fn read_blob(&mut self, id: BlobId) -> Result<Option<Bytes>, StorageError>;

    /// Reads a queue's link data.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read, other than because it is not there.
    fn read_link(&mut self, queue: QueueNumber) -> Result<Option<StoredLink>, StorageError>;

    /// Reads one queue without the bodies of its messages.
    ///
    /// # Errors
    /// [`StorageError`] when it cannot be read, other than because it is not there.
    fn read_queue(&mut self, queue: QueueNumber) -> Result<Option<StoredQueue>, StorageError>;
}
