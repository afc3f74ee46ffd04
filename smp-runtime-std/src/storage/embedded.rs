//! The embedded engine: one file, `queues.redb`, in the data folder.
//!
//! Eight tables. `queues`: number → record. `marks`: (number, sequence) → time (8 bytes) and kind (1 byte), which is all
//! that is read of messages at start. `bodies`: (number, sequence) → message id (24 bytes), notification flag (1 byte),
//! body. `links`: number → length of the fixed link data (4 bytes), fixed data, user data. `services`: number →
//! record. `blobs`: id → record, `blob_values`: id → value. `records`: what other rooms than the broker keep, key →
//! value. A file of a release that had fewer tables gets those that it lacks. Every commit is atomic and checked when the file is opened; freed pages are used again, and nothing is ever
//! compacted while the relay runs. redb locks the file, so that no second process opens it.
//!
//! After an error of input or output redb does not work any more: the engine then opens the file again, which brings
//! back what the last complete commit left. The same when redb panics over a damaged file, whatever it was asked for.

use std::cell::Cell;
use std::fs;
use std::io;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use bytes::Bytes;
use redb::{
    CommitError, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageError as RedbError, Table, TableDefinition, TableError, TransactionError, WriteTransaction,
};
use smp_proto::broker::record::{BlobRecord, QueueRecord, ServiceNumber, ServiceRecord};
use smp_proto::broker::storage::{
    BlobId, MessageKind, MessageMark, QueueNumber, RecordWrite, Sequence, StorageAction, StoredLink,
    StoredMessage, StoredQueue,
};
use smp_proto::time::UnixTime;

use super::{Engine, StorageError, new_file};

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "queues.redb";

/// The format that this release writes.
const FORMAT: u64 = 1;

/// How much of the file is kept in memory, in bytes.
const CACHE: usize = 32 << 20;

const PROPERTIES: TableDefinition<'_, &str, u64> = TableDefinition::new("properties");
const QUEUES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("queues");
const SERVICES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("services");
const BLOBS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("blobs");
const BLOB_VALUES: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("blob_values");
const LINKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("links");
const MARKS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("marks");
const BODIES: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("bodies");
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");

/// Storage in a file.
pub struct Embedded {
    file: PathBuf,
    /// `None` after an error, until it has been opened again.
    database: Option<Database>,
    /// For the bytes of a record or message on their way to the file.
    scratch: Vec<u8>,
}

impl Embedded {
    /// Opens the storage in a data folder, or makes it when there is none.
    ///
    /// # Errors
    /// [`StorageError`] when it is in use, foreign, newer or damaged, or cannot be opened.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        let file = folder.join(FILE_NAME);
        fs::create_dir_all(folder).map_err(|error| StorageError::Io(folder.to_owned(), error))?;
        let database = guarded(&file, || open_file(&file))?;
        Ok(Self { file, database: Some(database), scratch: Vec::new() })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Does something with the database, opening it again first when it had failed; gives it up when it fails.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&Database, &mut Vec<u8>, &Path) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => guarded(&self.file, || open_file(&self.file))?,
        };
        let (scratch, file) = (&mut self.scratch, &self.file);
        let result = guarded(file, || work(&database, scratch, file));
        if matches!(result, Err(StorageError::Io(..) | StorageError::Damaged(..))) {
            zeroize::Zeroize::zeroize(scratch);
            // What is damaged may not be closed in order either; that was the error, already.
            let _ = guarded(file, || {
                drop(database);
                Ok(())
            });
        } else {
            self.database = Some(database);
        }
        result
    }
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Embedded").field("file", &self.file).finish_non_exhaustive()
    }
}

thread_local! {
    /// Whether this thread is in [`guarded`] work.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// redb panics over some kinds of damage: that is an error like others, and reported once, as one.
pub(crate) fn guarded<T>(
    file: &Path,
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Result<T, StorageError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !GUARDED.try_with(Cell::get).unwrap_or(false) {
                report(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default();
        // What it says is for developers; a line of it is enough to find the place.
        let line: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
        Err(StorageError::Damaged(file.to_owned(), format!("it is inconsistent ({line})")))
    })
}

fn open_file(file: &Path) -> Result<Database, StorageError> {
    let io = |error| StorageError::Io(file.to_owned(), error);
    if !file.exists() {
        new_file::make(file, io, |new| {
            let database = create(new).map_err(|error| opening(new, error))?;
            prepare(new, &database, true)
        })?;
    }
    let database = create(file).map_err(|error| opening(file, error))?;
    prepare(file, &database, false)?;
    new_file::remove_unfinished(file).map_err(io)?;
    Ok(database)
}

fn create(file: &Path) -> Result<Database, DatabaseError> {
    Database::builder().set_cache_size(CACHE).create(file)
}

/// Checks the format, or writes it to a file that is being made.
fn prepare(file: &Path, database: &Database, is_new: bool) -> Result<(), StorageError> {
    let transaction = database.begin_write().map_err(|error| beginning(file, error))?;
    {
        let mut properties = transaction.open_table(PROPERTIES).map_err(|error| table(file, error))?;
        let format =
            properties.get("format").map_err(|error| storage(file, error))?.map(|format| format.value());
        match format {
            Some(FORMAT) => {}
            Some(newer) if newer > FORMAT => return Err(StorageError::Newer(file.to_owned(), newer)),
            None if is_new => {
                properties.insert("format", FORMAT).map_err(|error| storage(file, error))?;
            }
            _ => return Err(StorageError::Foreign(file.to_owned())),
        }
        transaction.open_table(QUEUES).map_err(|error| table(file, error))?;
        transaction.open_table(SERVICES).map_err(|error| table(file, error))?;
        transaction.open_table(BLOBS).map_err(|error| table(file, error))?;
        transaction.open_table(BLOB_VALUES).map_err(|error| table(file, error))?;
        transaction.open_table(LINKS).map_err(|error| table(file, error))?;
        transaction.open_table(MARKS).map_err(|error| table(file, error))?;
        transaction.open_table(BODIES).map_err(|error| table(file, error))?;
        transaction.open_table(RECORDS).map_err(|error| table(file, error))?;
    }
    transaction.commit().map_err(|error| committing(file, error))
}

fn opening(file: &Path, error: DatabaseError) -> StorageError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StorageError::InUse(file.to_owned()),
        DatabaseError::UpgradeRequired(_) => StorageError::Foreign(file.to_owned()),
        DatabaseError::Storage(RedbError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            StorageError::Foreign(file.to_owned())
        }
        DatabaseError::Storage(error) => storage(file, error),
        error => StorageError::Damaged(file.to_owned(), error.to_string()),
    }
}

fn storage(file: &Path, error: RedbError) -> StorageError {
    match error {
        RedbError::Io(error) => StorageError::Io(file.to_owned(), error),
        // The first error has been reported.
        RedbError::PreviousIo => StorageError::Io(file.to_owned(), io::Error::other("an earlier error")),
        error => StorageError::Damaged(file.to_owned(), error.to_string()),
    }
}

fn beginning(file: &Path, error: TransactionError) -> StorageError {
    match error {
        TransactionError::Storage(error) => storage(file, error),
        error => StorageError::Damaged(file.to_owned(), error.to_string()),
    }
}

fn table(file: &Path, error: TableError) -> StorageError {
    match error {
        TableError::Storage(error) => storage(file, error),
        TableError::TableTypeMismatch { .. } => StorageError::Foreign(file.to_owned()),
        error => StorageError::Damaged(file.to_owned(), error.to_string()),
    }
}

fn committing(file: &Path, error: CommitError) -> StorageError {
    match error {
        CommitError::Storage(error) => storage(file, error),
        error => StorageError::Damaged(file.to_owned(), error.to_string()),
    }
}

fn encode_mark(mark: MessageMark) -> [u8; 9] {
    let mut bytes = [0; 9];
    bytes[..8].copy_from_slice(&mark.timestamp.0.to_be_bytes());
    bytes[8] = match mark.kind {
        MessageKind::Ordinary => 0,
        MessageKind::Quota => 1,
    };
    bytes
}

fn decode_mark(bytes: &[u8]) -> Option<MessageMark> {
    let (timestamp, kind) = bytes.split_first_chunk()?;
    let kind = match kind {
        [0] => MessageKind::Ordinary,
        [1] => MessageKind::Quota,
        _ => return None,
    };
    Some(MessageMark { timestamp: UnixTime(i64::from_be_bytes(*timestamp)), kind })
}

fn decode_message(bytes: &[u8]) -> Option<StoredMessage> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (flag, body) = rest.split_first()?;
    let notification = match flag {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(StoredMessage { id: *id, notification, body: Bytes::copy_from_slice(body) })
}

fn encode_link(link: &StoredLink, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&u32::try_from(link.fixed.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(&link.fixed);
    out.extend_from_slice(&link.user);
}

fn decode_link(bytes: &[u8]) -> Option<StoredLink> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (fixed, user) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    Some(StoredLink { fixed: Bytes::copy_from_slice(fixed), user: Bytes::copy_from_slice(user) })
}

/// The marks of a queue's messages.
fn read_marks(
    transaction: &ReadTransaction,
    queue: u64,
    file: &Path,
) -> Result<Vec<(Sequence, MessageMark)>, StorageError> {
    let marks = transaction.open_table(MARKS).map_err(|error| table(file, error))?;
    let range = marks.range((queue, 0)..=(queue, u64::MAX)).map_err(|error| storage(file, error))?;
    range
        .map(|entry| {
            let (key, value) = entry.map_err(|error| storage(file, error))?;
            let mark = decode_mark(value.value()).ok_or_else(|| damaged_message(file))?;
            Ok((Sequence(key.value().1), mark))
        })
        .collect()
}

fn damaged_message(file: &Path) -> StorageError {
    StorageError::Damaged(file.to_owned(), "a message cannot be read".to_owned())
}

/// The tables of a transaction that writes, each opened when something is written to it: most commits write messages
/// and nothing else, and opening a table costs as much as writing to it.
struct Tables<'t> {
    transaction: &'t WriteTransaction,
    file: &'t Path,
    queues: Option<Table<'t, u64, &'static [u8]>>,
    services: Option<Table<'t, u32, &'static [u8]>>,
    blobs: Option<Table<'t, &'static [u8; 32], &'static [u8]>>,
    blob_values: Option<Table<'t, &'static [u8; 32], &'static [u8]>>,
    links: Option<Table<'t, u64, &'static [u8]>>,
    marks: Option<Table<'t, (u64, u64), &'static [u8]>>,
    bodies: Option<Table<'t, (u64, u64), &'static [u8]>>,
    records: Option<Table<'t, &'static [u8], &'static [u8]>>,
}

type Opened<'s, 't, Key> = Result<&'s mut Table<'t, Key, &'static [u8]>, StorageError>;

impl<'t> Tables<'t> {
    fn of(transaction: &'t WriteTransaction, file: &'t Path) -> Self {
        Self {
            transaction,
            file,
            queues: None,
            services: None,
            blobs: None,
            blob_values: None,
            links: None,
            marks: None,
            bodies: None,
            records: None,
        }
    }

    fn open<'s, Key: redb::Key + 'static>(
        place: &'s mut Option<Table<'t, Key, &'static [u8]>>,
        definition: TableDefinition<'_, Key, &'static [u8]>,
        transaction: &'t WriteTransaction,
        file: &Path,
    ) -> Opened<'s, 't, Key> {
        match place {
            Some(opened) => Ok(opened),
            empty => {
                let opened = transaction.open_table(definition).map_err(|error| table(file, error))?;
                Ok(empty.insert(opened))
            }
        }
    }

    fn queues(&mut self) -> Opened<'_, 't, u64> {
        Self::open(&mut self.queues, QUEUES, self.transaction, self.file)
    }

    fn services(&mut self) -> Opened<'_, 't, u32> {
        Self::open(&mut self.services, SERVICES, self.transaction, self.file)
    }

    fn blobs(&mut self) -> Opened<'_, 't, &'static [u8; 32]> {
        Self::open(&mut self.blobs, BLOBS, self.transaction, self.file)
    }

    fn blob_values(&mut self) -> Opened<'_, 't, &'static [u8; 32]> {
        Self::open(&mut self.blob_values, BLOB_VALUES, self.transaction, self.file)
    }

    fn links(&mut self) -> Opened<'_, 't, u64> {
        Self::open(&mut self.links, LINKS, self.transaction, self.file)
    }

    fn marks(&mut self) -> Opened<'_, 't, (u64, u64)> {
        Self::open(&mut self.marks, MARKS, self.transaction, self.file)
    }

    fn bodies(&mut self) -> Opened<'_, 't, (u64, u64)> {
        Self::open(&mut self.bodies, BODIES, self.transaction, self.file)
    }

    fn records(&mut self) -> Opened<'_, 't, &'static [u8]> {
        Self::open(&mut self.records, RECORDS, self.transaction, self.file)
    }

    /// Carries out one write. Returns, of one that deletes by prefix, whether there are more.
    fn write(&mut self, write: &StorageAction, scratch: &mut Vec<u8>) -> Result<Option<bool>, StorageError> {
        let file = self.file;
        match write {
            StorageAction::PutQueue { queue, record } => {
                scratch.clear();
                record.encode(scratch);
                self.queues()?.insert(queue.0, scratch.as_slice()).map_err(|error| storage(file, error))?;
                zeroize::Zeroize::zeroize(scratch.as_mut_slice());
            }
            StorageAction::PutQueueAndLink { queue, record, link } => {
                scratch.clear();
                record.encode(scratch);
                self.queues()?.insert(queue.0, scratch.as_slice()).map_err(|error| storage(file, error))?;
                zeroize::Zeroize::zeroize(scratch.as_mut_slice());
                match link {
                    None => {
                        self.links()?.remove(queue.0).map_err(|error| storage(file, error))?;
                    }
                    Some(link) => {
                        encode_link(link, scratch);
                        self.links()?
                            .insert(queue.0, scratch.as_slice())
                            .map_err(|error| storage(file, error))?;
                    }
                }
            }
            StorageAction::DeleteQueue { queue } => {
                self.queues()?.remove(queue.0).map_err(|error| storage(file, error))?;
                self.links()?.remove(queue.0).map_err(|error| storage(file, error))?;
                let all = (queue.0, 0)..=(queue.0, u64::MAX);
                self.marks()?.retain_in(all.clone(), |_, _| false).map_err(|error| storage(file, error))?;
                self.bodies()?.retain_in(all, |_, _| false).map_err(|error| storage(file, error))?;
            }
            StorageAction::PutMessage { queue, sequence, mark, message } => {
                let key = (queue.0, sequence.0);
                self.marks()?
                    .insert(key, encode_mark(*mark).as_slice())
                    .map_err(|error| storage(file, error))?;
                let length = message.id.len() + 1 + message.body.len();
                let mut room =
                    self.bodies()?.insert_reserve(key, length).map_err(|error| storage(file, error))?;
                let (head, body) = room.as_mut().split_at_mut(message.id.len() + 1);
                let (id, flag) = head.split_at_mut(message.id.len());
                id.copy_from_slice(&message.id);
                flag.fill(u8::from(message.notification));
                body.copy_from_slice(&message.body);
            }
            StorageAction::DeleteMessage { queue, sequence, .. } => {
                let key = (queue.0, sequence.0);
                self.marks()?.remove(key).map_err(|error| storage(file, error))?;
                self.bodies()?.remove(key).map_err(|error| storage(file, error))?;
            }
            StorageAction::PutService { service, record } => {
                scratch.clear();
                record.encode(scratch);
                self.services()?
                    .insert(service.0.get(), scratch.as_slice())
                    .map_err(|error| storage(file, error))?;
            }
            StorageAction::PutBlob { id, record, value } => {
                scratch.clear();
                record.encode(scratch);
                self.blobs()?.insert(id, scratch.as_slice()).map_err(|error| storage(file, error))?;
                self.blob_values()?.insert(id, &value[..]).map_err(|error| storage(file, error))?;
            }
            StorageAction::DeleteBlob { id } => {
                self.blobs()?.remove(id).map_err(|error| storage(file, error))?;
                self.blob_values()?.remove(id).map_err(|error| storage(file, error))?;
            }
            StorageAction::ReadMessage { .. }
            | StorageAction::ReadBlob { .. }
            | StorageAction::ReadLink { .. }
            | StorageAction::ReadRecord { .. }
            | StorageAction::ReadQueue { .. } => {}
            StorageAction::WriteRecords { writes } => self.write_records(writes)?,
            StorageAction::WithRecords { action, writes } => {
                let deletion = self.write(action, scratch)?;
                self.write_records(writes)?;
                return Ok(deletion);
            }
            StorageAction::DeleteRecords { prefix, at_most } => {
                return self.delete_records(prefix, *at_most).map(Some);
            }
        }
        Ok(None)
    }

    fn write_records(&mut self, writes: &[RecordWrite]) -> Result<(), StorageError> {
        let file = self.file;
        let records = self.records()?;
        for write in writes {
            match write {
                RecordWrite::Put { key, value } => {
                    records.insert(&key[..], &value[..]).map_err(|error| storage(file, error))?;
                }
                RecordWrite::Delete { key } => {
                    records.remove(&key[..]).map_err(|error| storage(file, error))?;
                }
            }
        }
        Ok(())
    }

    fn delete_records(&mut self, prefix: &[u8], at_most: u32) -> Result<bool, StorageError> {
        let file = self.file;
        let records = self.records()?;
        let mut left = at_most;
        let mut more = false;
        // The one after the last that is deleted is taken only to see that it is there.
        let mut first = Vec::new();
        for entry in records.range(prefix..).map_err(|error| storage(file, error))? {
            let (key, _) = entry.map_err(|error| storage(file, error))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            if left == 0 {
                more = true;
                break;
            }
            left -= 1;
            first.push(key.value().to_vec());
        }
        for key in first {
            records.remove(&key[..]).map_err(|error| storage(file, error))?;
        }
        Ok(more)
    }
}

impl Engine for Embedded {
    fn load(
        &mut self,
        each: &mut dyn FnMut(StoredQueue) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let queues = transaction.open_table(QUEUES).map_err(|error| table(file, error))?;
            let marks = transaction.open_table(MARKS).map_err(|error| table(file, error))?;
            let mut marks = marks.iter().map_err(|error| storage(file, error))?.peekable();
            for entry in queues.iter().map_err(|error| storage(file, error))? {
                let (number, record) = entry.map_err(|error| storage(file, error))?;
                let number = number.value();
                let record =
                    QueueRecord::decode(record.value()).map_err(|error| StorageError::record(file, error))?;
                let mut messages = Vec::new();
                // Both tables are in the order of queues: one pass over each.
                while let Some(mark) =
                    marks.next_if(|mark| mark.as_ref().map_or(true, |(key, _)| key.value().0 <= number))
                {
                    let (key, value) = mark.map_err(|error| storage(file, error))?;
                    if key.value().0 == number {
                        let mark = decode_mark(value.value()).ok_or_else(|| damaged_message(file))?;
                        messages.push((Sequence(key.value().1), mark));
                    }
                }
                each(StoredQueue { queue: QueueNumber(number), record, messages })?;
            }
            Ok(())
        })
    }

    fn load_blobs(
        &mut self,
        each: &mut dyn FnMut(BlobId, BlobRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let blobs = transaction.open_table(BLOBS).map_err(|error| table(file, error))?;
            for entry in blobs.iter().map_err(|error| storage(file, error))? {
                let (id, record) = entry.map_err(|error| storage(file, error))?;
                let record =
                    BlobRecord::decode(record.value()).map_err(|error| StorageError::record(file, error))?;
                each(*id.value(), record)?;
            }
            Ok(())
        })
    }

    fn load_records(
        &mut self,
        prefix: &[u8],
        each: &mut dyn FnMut(Bytes, Bytes) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let records = transaction.open_table(RECORDS).map_err(|error| table(file, error))?;
            for entry in records.range(prefix..).map_err(|error| storage(file, error))? {
                let (key, value) = entry.map_err(|error| storage(file, error))?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                each(Bytes::copy_from_slice(key.value()), Bytes::copy_from_slice(value.value()))?;
            }
            Ok(())
        })
    }

    fn load_services(
        &mut self,
        each: &mut dyn FnMut(ServiceNumber, ServiceRecord) -> Result<(), StorageError>,
    ) -> Result<(), StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let services = transaction.open_table(SERVICES).map_err(|error| table(file, error))?;
            for entry in services.iter().map_err(|error| storage(file, error))? {
                let (number, record) = entry.map_err(|error| storage(file, error))?;
                let number = NonZeroU32::new(number.value()).ok_or_else(|| {
                    StorageError::Damaged(file.to_owned(), "a service has no number".to_owned())
                })?;
                let record = ServiceRecord::decode(record.value())
                    .map_err(|error| StorageError::record(file, error))?;
                each(ServiceNumber(number), record)?;
            }
            Ok(())
        })
    }

    fn commit(
        &mut self,
        writes: &mut dyn Iterator<Item = &StorageAction>,
        durable: bool,
    ) -> Result<Vec<bool>, StorageError> {
        self.with(|database, scratch, file| {
            let mut deletions = Vec::new();
            let mut transaction = database.begin_write().map_err(|error| beginning(file, error))?;
            transaction
                .set_durability(if durable { Durability::Immediate } else { Durability::None })
                .map_err(|error| StorageError::Damaged(file.to_owned(), error.to_string()))?;
            {
                let mut tables = Tables::of(&transaction, file);
                for write in writes {
                    deletions.extend(tables.write(write, scratch)?);
                }
            }
            transaction.commit().map_err(|error| committing(file, error))?;
            Ok(deletions)
        })
    }

    fn read_message(
        &mut self,
        queue: QueueNumber,
        sequence: Sequence,
    ) -> Result<Option<StoredMessage>, StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let bodies = transaction.open_table(BODIES).map_err(|error| table(file, error))?;
            let body = bodies.get((queue.0, sequence.0)).map_err(|error| storage(file, error))?;
            body.map(|body| decode_message(body.value()).ok_or_else(|| damaged_message(file))).transpose()
        })
    }

    fn read_record(&mut self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let records = transaction.open_table(RECORDS).map_err(|error| table(file, error))?;
            let value = records.get(key).map_err(|error| storage(file, error))?;
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    fn read_blob(&mut self, id: BlobId) -> Result<Option<Bytes>, StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let values = transaction.open_table(BLOB_VALUES).map_err(|error| table(file, error))?;
            let value = values.get(&id).map_err(|error| storage(file, error))?;
            Ok(value.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    fn read_link(&mut self, queue: QueueNumber) -> Result<Option<StoredLink>, StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let links = transaction.open_table(LINKS).map_err(|error| table(file, error))?;
            let link = links.get(queue.0).map_err(|error| storage(file, error))?;
            link.map(|link| {
                decode_link(link.value()).ok_or_else(|| {
                    StorageError::Damaged(file.to_owned(), "link data cannot be read".to_owned())
                })
            })
            .transpose()
        })
    }

    fn read_queue(&mut self, queue: QueueNumber) -> Result<Option<StoredQueue>, StorageError> {
        self.with(|database, _, file| {
            let transaction = database.begin_read().map_err(|error| beginning(file, error))?;
            let queues = transaction.open_table(QUEUES).map_err(|error| table(file, error))?;
            let Some(record) = queues.get(queue.0).map_err(|error| storage(file, error))? else {
                return Ok(None);
            };
            let record =
                QueueRecord::decode(record.value()).map_err(|error| StorageError::record(file, error))?;
            let messages = read_marks(&transaction, queue.0, file)?;
            Ok(Some(StoredQueue { queue, record, messages }))
        })
    }
}
