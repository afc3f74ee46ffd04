//! Where an agent's records, and its application's, are kept: one file, encrypted under a passphrase.
//!
//! Owns: the redb file, the key that everything in it is sealed with, and how that key is found from a passphrase. It must
//! never write a record, or a record's name, in the clear, and knows nothing of what records mean.
//!
//! Two tables. `properties`: the format; the parameters and salt of Argon2id; the *data key*, sealed under what Argon2id
//! makes of the passphrase. `records`: a slot of 16 bytes → nonce (24 bytes), then XChaCha20-Poly1305 of: space (1 byte),
//! length of the name (1 byte), name, content. The slot is HMAC-SHA256 of space and name, cut to 16 bytes, and is
//! authenticated with the content: so whoever has the file alone learns how many records there are and how long they are,
//! can delete records or put the whole file back to an earlier state, and nothing else. Changing the passphrase seals
//! the data key anew.
//!
//! What is deleted is unreadable without the passphrase, but may lie in free pages of the file for a while: whoever gets
//! both the file and the passphrase may find keys of the past.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::storage::{StorageError, guarded, new_file};

const PROPERTIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("properties");
const RECORDS: TableDefinition<'_, &[u8; SLOT], &[u8]> = TableDefinition::new("records");

/// The format that this release writes.
const FORMAT: &[u8] = b"smp agent 1";
const SLOT: usize = 16;
const NONCE: usize = 24;
const TAG: usize = 16;
const KEY: usize = 32;
const SALT: usize = 16;

/// What a passphrase costs to try: 64 MiB and three passes, some tenths of a second.
const MEMORY_KIB: u32 = 65_536;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// No file can ask for more than this: 1 GiB, 64 passes.
const MOST_MEMORY_KIB: u32 = 1 << 20;
const MOST_PASSES: u32 = 64;
const MOST_LANES: u32 = 16;

/// The longest name of a record, in bytes.
pub const MAX_NAME: usize = 255;

/// Whose a record is: the two sides' names do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// The agent's own.
    Agent,
    /// The application's.
    Application,
}

impl Space {
    const fn byte(self) -> u8 {
        match self {
            Self::Agent => 0,
            Self::Application => 1,
        }
    }

    const fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Agent),
            1 => Some(Self::Application),
            _ => None,
        }
    }
}

/// One change of a record. Secret: the content is wiped on drop, and never printed.
pub struct Change {
    /// Whose it is.
    pub space: Space,
    /// Its name: at most [`MAX_NAME`] bytes.
    pub name: Vec<u8>,
    /// Its content from now on; without one there is no such record any more.
    pub content: Option<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.content.as_ref().map(|content| content.len());
        formatter.debug_struct("Change").field("space", &self.space).field("bytes", &bytes).finish()
    }
}

/// A record that was read.
pub struct StoredRecord {
    /// Whose it is.
    pub space: Space,
    /// Its name.
    pub name: Vec<u8>,
    /// Its content.
    pub content: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for StoredRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "StoredRecord({:?}, {} bytes)", self.space, self.content.len())
    }
}

/// What goes wrong with the database, said to its user.
#[derive(Debug)]
pub enum DatabaseError {
    /// Another process has it open.
    InUse(PathBuf),
    /// It is not an agent's database, or a newer release wrote it.
    Foreign(PathBuf),
    /// It cannot be opened, read or written.
    Io(PathBuf, io::Error),
    /// What it holds is damaged, or was changed by somebody without the passphrase.
    Damaged(PathBuf, String),
    /// It is sealed under another passphrase.
    WrongPassphrase(PathBuf),
    /// The operating system has no randomness.
    NoRandomness(String),
    /// A record is longer than the cipher can seal: 256 GiB.
    TooLong,
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => {
                write!(formatter, "{} is in use by another process", path.display())
            }
            Self::Foreign(path) => write!(
                formatter,
                "{} is not the database of an agent, or a newer release wrote it",
                path.display()
            ),
            Self::Io(path, error) => write!(formatter, "{}: {error}", path.display()),
            Self::Damaged(path, what) => {
                write!(formatter, "{} is damaged, or was changed: {what}", path.display())
            }
            Self::WrongPassphrase(path) => {
                write!(formatter, "this is not the passphrase of {}", path.display())
            }
            Self::NoRandomness(error) => {
                write!(formatter, "the operating system gives no randomness: {error}")
            }
            Self::TooLong => formatter.write_str("a record is too long to be sealed"),
        }
    }
}

impl std::error::Error for DatabaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

impl From<StorageError> for DatabaseError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::InUse(path) => Self::InUse(path),
            StorageError::Foreign(path) | StorageError::Newer(path, _) => Self::Foreign(path),
            StorageError::Io(path, error) => Self::Io(path, error),
            StorageError::Damaged(path, what) => Self::Damaged(path, what),
        }
    }
}

/// A database of which the passphrase was not given yet. The file is locked: no other process opens it.
#[derive(Debug)]
pub struct LockedDatabase {
    file: PathBuf,
    database: Database,
    sealing: Option<Sealing>,
}

/// How the data key is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sealing {
    salt: [u8; SALT],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    sealed_key: Vec<u8>,
}

impl Sealing {
    /// salt, three numbers of 4 bytes, the sealed key.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.salt.to_vec();
        for number in [self.memory_kib, self.passes, self.lanes] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.sealed_key);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (salt, bytes) = bytes.split_first_chunk()?;
        let (memory, bytes) = bytes.split_first_chunk()?;
        let (passes, bytes) = bytes.split_first_chunk()?;
        let (lanes, sealed_key) = bytes.split_first_chunk()?;
        let sealing = Self {
            salt: *salt,
            memory_kib: u32::from_be_bytes(*memory),
            passes: u32::from_be_bytes(*passes),
            lanes: u32::from_be_bytes(*lanes),
            sealed_key: sealed_key.to_vec(),
        };
        let fits = sealing.memory_kib <= MOST_MEMORY_KIB
            && (1..=MOST_PASSES).contains(&sealing.passes)
            && (1..=MOST_LANES).contains(&sealing.lanes)
            && sealing.sealed_key.len() == NONCE + KEY + TAG;
        fits.then_some(sealing)
    }

    /// What Argon2id makes of a passphrase.
    fn derive(&self, passphrase: &[u8]) -> Result<Zeroizing<[u8; KEY]>, String> {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY))
            .map_err(|error| error.to_string())?;
        let mut key = Zeroizing::new([0; KEY]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &self.salt, key.as_mut_slice())
            .map_err(|error| error.to_string())?;
        Ok(key)
    }
}

const SEALING: &str = "sealing";
const FORMAT_NAME: &str = "format";
/// What the sealed data key is authenticated with.
const KEY_CONTEXT: &[u8] = b"smp agent data key";

impl LockedDatabase {
    /// Opens the file, or makes it, readable by its owner only.
    ///
    /// # Errors
    /// [`DatabaseError::InUse`], [`DatabaseError::Foreign`], [`DatabaseError::Io`], [`DatabaseError::Damaged`].
    pub fn open(file: &Path) -> Result<Self, DatabaseError> {
        let io = |error| DatabaseError::Io(file.to_owned(), error);
        if !file.exists() {
            new_file::make(file, io, |new| {
                let made = || Database::create(new).map(drop).map_err(|error| opening(new, error.into()));
                guarded(new, made).map_err(DatabaseError::from)
            })?;
        }
        let (database, sealing) = guarded(file, || {
            let database = Database::create(file).map_err(|error| opening(file, error.into()))?;
            let sealing = read_sealing(&database, file)?;
            Ok((database, sealing))
        })?;
        new_file::remove_unfinished(file).map_err(io)?;
        Ok(Self { file: file.to_owned(), database, sealing })
    }

    /// Whether nothing was ever kept in it: the passphrase is to be chosen.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.sealing.is_none()
    }

    /// Opens what is sealed; a new database gets this passphrase.
    ///
    /// # Errors
    /// [`DatabaseError::WrongPassphrase`], which leaves nothing changed, and those of the file.
    pub fn unlock(self, passphrase: &[u8]) -> Result<AgentDatabase, DatabaseError> {
        let damaged = |what| DatabaseError::Damaged(self.file.clone(), what);
        match &self.sealing {
            Some(sealing) => {
                let key = sealing.derive(passphrase).map_err(damaged)?;
                let opened = open(&key, KEY_CONTEXT, &sealing.sealed_key)
                    .ok_or_else(|| DatabaseError::WrongPassphrase(self.file.clone()))?;
                let data: &[u8; KEY] = opened
                    .as_slice()
                    .try_into()
                    .map_err(|_| DatabaseError::Damaged(self.file.clone(), "the key's length".to_owned()))?;
                let keys = Keys::new(data);
                Ok(AgentDatabase { file: self.file, database: self.database, keys })
            }
            None => {
                let data = random::<KEY>()?;
                let keys = Keys::new(&data);
                let database = AgentDatabase { file: self.file, database: self.database, keys };
                database.set_passphrase(passphrase)?;
                Ok(database)
            }
        }
    }
}

fn read_sealing(database: &Database, file: &Path) -> Result<Option<Sealing>, StorageError> {
    let failed = |error: redb::Error| opening(file, error);
    let transaction = database.begin_read().map_err(|error| failed(error.into()))?;
    let names = transaction.list_tables().map_err(|error| failed(error.into()))?.count();
    let properties = match transaction.open_table(PROPERTIES) {
        Ok(properties) => properties,
        Err(redb::TableError::TableDoesNotExist(_)) if names == 0 => return Ok(None),
        Err(redb::TableError::TableDoesNotExist(_) | redb::TableError::TableTypeMismatch { .. }) => {
            return Err(StorageError::Foreign(file.to_owned()));
        }
        Err(error) => return Err(failed(error.into())),
    };
    let get = |name| {
        let value = properties.get(name).map_err(|error| failed(error.into()))?;
        Ok::<_, StorageError>(value.map(|value| value.value().to_vec()))
    };
    if get(FORMAT_NAME)?.as_deref() != Some(FORMAT) {
        return Err(StorageError::Foreign(file.to_owned()));
    }
    let sealing = get(SEALING)?.as_deref().and_then(Sealing::from_bytes);
    sealing.map(Some).ok_or_else(|| {
        StorageError::Damaged(file.to_owned(), "how its key is sealed cannot be read".to_owned())
    })
}

/// The keys that are made of the data key.
struct Keys {
    data: Zeroizing<[u8; KEY]>,
    names: Zeroizing<[u8; KEY]>,
    contents: Zeroizing<[u8; KEY]>,
}

impl Keys {
    fn new(data: &[u8; KEY]) -> Self {
        Self {
            data: Zeroizing::new(*data),
            names: keyed_hash(data, &[b"names"]),
            contents: keyed_hash(data, &[b"contents"]),
        }
    }

    fn slot(&self, space: Space, name: &[u8]) -> [u8; SLOT] {
        let hash = keyed_hash(&self.names, &[&[space.byte()], name]);
        let mut slot = [0; SLOT];
        slot.copy_from_slice(hash.split_at(SLOT).0);
        slot
    }
}

fn keyed_hash(key: &[u8; KEY], parts: &[&[u8]]) -> Zeroizing<[u8; KEY]> {
    // HMAC fills its key with zeros to the hash's block.
    let mut block = Zeroizing::new([0; 64]);
    block.split_at_mut(KEY).0.copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn random<const LENGTH: usize>() -> Result<Zeroizing<[u8; LENGTH]>, DatabaseError> {
    let mut bytes = Zeroizing::new([0; LENGTH]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| DatabaseError::NoRandomness(error.to_string()))?;
    Ok(bytes)
}

/// Nonce, then the sealed text.
fn seal(key: &[u8; KEY], context: &[u8], text: &[u8]) -> Result<Vec<u8>, DatabaseError> {
    let nonce = random::<NONCE>()?;
    let payload = Payload { msg: text, aad: context };
    let sealed = XChaCha20Poly1305::new(key.into())
        .encrypt(&XNonce::from(*nonce), payload)
        .map_err(|_| DatabaseError::TooLong)?;
    Ok([nonce.as_slice(), &sealed].concat())
}

fn open(key: &[u8; KEY], context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let payload = Payload { msg: sealed, aad: context };
    XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
}

/// An agent's database, open.
pub struct AgentDatabase {
    file: PathBuf,
    database: Database,
    keys: Keys,
}

impl AgentDatabase {
    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// From now on this passphrase opens it, and no other.
    ///
    /// # Errors
    /// Those of the file: the passphrase before stays then.
    pub fn set_passphrase(&self, passphrase: &[u8]) -> Result<(), DatabaseError> {
        let salt = *random::<SALT>()?;
        let mut sealing =
            Sealing { salt, memory_kib: MEMORY_KIB, passes: PASSES, lanes: LANES, sealed_key: Vec::new() };
        let key =
            sealing.derive(passphrase).map_err(|what| DatabaseError::Damaged(self.file.clone(), what))?;
        sealing.sealed_key = seal(&key, KEY_CONTEXT, self.keys.data.as_slice())?;
        self.transaction(|transaction| {
            let mut properties = transaction.open_table(PROPERTIES)?;
            properties.insert(FORMAT_NAME, FORMAT)?;
            properties.insert(SEALING, sealing.to_bytes().as_slice())?;
            Ok(())
        })
    }

    fn transaction(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), DatabaseError> {
        guarded(&self.file, || {
            let write = || {
                let transaction = self.database.begin_write()?;
                work(&transaction)?;
                transaction.commit()?;
                Ok(())
            };
            write().map_err(|error| opening(&self.file, error))
        })
        .map_err(DatabaseError::from)
    }

    /// Makes all of these changes, or none; they are on disk when this returns.
    ///
    /// # Errors
    /// Those of the file; nothing has changed then.
    pub fn write(&self, changes: &[Change]) -> Result<(), DatabaseError> {
        let sealed: Vec<_> = changes.iter().map(|change| self.sealed(change)).collect::<Result<_, _>>()?;
        self.transaction(|transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            for (slot, content) in &sealed {
                match content {
                    Some(content) => drop(records.insert(slot, content.as_slice())?),
                    None => drop(records.remove(slot)?),
                }
            }
            Ok(())
        })
    }

    fn sealed(&self, change: &Change) -> Result<([u8; SLOT], Option<Vec<u8>>), DatabaseError> {
        let slot = self.keys.slot(change.space, &change.name);
        let Some(content) = &change.content else { return Ok((slot, None)) };
        let length = u8::try_from(change.name.len()).map_err(|_| {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the name of a record is too long");
            DatabaseError::Io(self.file.clone(), error)
        })?;
        let mut text = Zeroizing::new(Vec::with_capacity(2 + change.name.len() + content.len()));
        text.extend_from_slice(&[change.space.byte(), length]);
        text.extend_from_slice(&change.name);
        text.extend_from_slice(content);
        Ok((slot, Some(seal(&self.keys.contents, &slot, &text)?)))
    }

    /// All records, in no particular order.
    ///
    /// # Errors
    /// Those of the file; [`DatabaseError::Damaged`] for a record that was changed.
    pub fn read(&self) -> Result<Vec<StoredRecord>, DatabaseError> {
        let mut found = Vec::new();
        guarded(&self.file, || {
            let failed = |error: redb::Error| opening(&self.file, error);
            let transaction = self.database.begin_read().map_err(|error| failed(error.into()))?;
            let records = match transaction.open_table(RECORDS) {
                Ok(records) => records,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
                Err(error) => return Err(failed(error.into())),
            };
            for entry in records.iter().map_err(|error| failed(error.into()))? {
                let (slot, sealed) = entry.map_err(|error| failed(error.into()))?;
                let record = self.opened(slot.value(), sealed.value()).ok_or_else(|| {
                    StorageError::Damaged(self.file.clone(), "a record cannot be opened".to_owned())
                })?;
                found.push(record);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn opened(&self, slot: &[u8; SLOT], sealed: &[u8]) -> Option<StoredRecord> {
        let text = open(&self.keys.contents, slot, sealed)?;
        let (&[space, length], rest) = text.split_first_chunk()?;
        let (name, content) = rest.split_at_checked(usize::from(length))?;
        Some(StoredRecord {
            space: Space::of(space)?,
            name: name.to_vec(),
            content: Zeroizing::new(content.to_vec()),
        })
    }
}

impl fmt::Debug for AgentDatabase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AgentDatabase").field("file", &self.file).finish_non_exhaustive()
    }
}

fn opening(file: &Path, error: redb::Error) -> StorageError {
    match error {
        redb::Error::DatabaseAlreadyOpen => StorageError::InUse(file.to_owned()),
        redb::Error::UpgradeRequired(_) => StorageError::Foreign(file.to_owned()),
        redb::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
            StorageError::Foreign(file.to_owned())
        }
        redb::Error::Io(error) => StorageError::Io(file.to_owned(), error),
        redb::Error::PreviousIo => StorageError::Io(file.to_owned(), io::Error::other("an earlier error")),
        error => StorageError::Damaged(file.to_owned(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use std::fs;

    fn put(space: Space, name: &[u8], content: &[u8]) -> Change {
        Change { space, name: name.to_vec(), content: Some(Zeroizing::new(content.to_vec())) }
    }

    fn names(database: &AgentDatabase) -> Vec<(Space, Vec<u8>, Vec<u8>)> {
        let mut found: Vec<_> =
            database.read().unwrap().into_iter().map(|r| (r.space, r.name, r.content.to_vec())).collect();
        found.sort();
        found
    }

    #[test]
    fn records_are_kept_under_the_passphrase_and_the_spaces_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.redb");
        let locked = LockedDatabase::open(&file).unwrap();
        assert!(locked.is_new());
        let database = locked.unlock(b"secret").unwrap();
        let long = vec![7; 20_000];
        database
            .write(&[
                put(Space::Agent, b"one", b"first"),
                put(Space::Application, b"one", b"second"),
                put(Space::Application, b"", &long),
            ])
            .unwrap();
        let expected = vec![
            (Space::Agent, b"one".to_vec(), b"first".to_vec()),
            (Space::Application, Vec::new(), long),
            (Space::Application, b"one".to_vec(), b"second".to_vec()),
        ];
        assert_eq!(names(&database), expected);
        assert!(matches!(LockedDatabase::open(&file), Err(DatabaseError::InUse(_))));
        drop(database);
        let locked = LockedDatabase::open(&file).unwrap();
        assert!(!locked.is_new());
        assert!(matches!(locked.unlock(b"Secret"), Err(DatabaseError::WrongPassphrase(_))));
        let database = LockedDatabase::open(&file).unwrap().unlock(b"secret").unwrap();
        assert_eq!(names(&database), expected);
        let gone = Change { space: Space::Agent, name: b"one".to_vec(), content: None };
        database.write(&[gone]).unwrap();
        assert_eq!(names(&database), expected[1..]);
        database.set_passphrase(b"another").unwrap();
        drop(database);
        let locked = LockedDatabase::open(&file).unwrap();
        assert!(matches!(locked.unlock(b"secret"), Err(DatabaseError::WrongPassphrase(_))));
        let database = LockedDatabase::open(&file).unwrap().unlock(b"another").unwrap();
        assert_eq!(names(&database), expected[1..]);
    }

    #[test]
    fn the_file_shows_neither_names_nor_contents_and_only_to_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.redb");
        let database = LockedDatabase::open(&file).unwrap().unlock(b"passphrase in the clear").unwrap();
        database.write(&[put(Space::Agent, b"a name that is long", b"a content that is long")]).unwrap();
        drop(database);
        let bytes = fs::read(&file).unwrap();
        for text in ["a name that", "a content that", "in the clear"] {
            assert!(!bytes.windows(text.len()).any(|window| window == text.as_bytes()), "{text}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn records_that_were_swapped_or_changed_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.redb");
        let database = LockedDatabase::open(&file).unwrap().unlock(b"x").unwrap();
        database.write(&[put(Space::Agent, b"1", b"one"), put(Space::Agent, b"2", b"two")]).unwrap();
        let (one, two) = (database.keys.slot(Space::Agent, b"1"), database.keys.slot(Space::Agent, b"2"));
        database
            .transaction(|transaction| {
                let mut records = transaction.open_table(RECORDS)?;
                let moved = records.get(&one)?.unwrap().value().to_vec();
                records.insert(&two, moved.as_slice())?;
                Ok(())
            })
            .unwrap();
        assert!(matches!(database.read(), Err(DatabaseError::Damaged(..))));
    }

    #[test]
    fn files_of_others_are_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.redb");
        fs::write(&file, b"this is a letter to my mother, and no database at all").unwrap();
        assert!(LockedDatabase::open(&file).is_err());
        assert!(fs::read(&file).unwrap().starts_with(b"this is a letter"));
        let other = folder.path().join("other.redb");
        let table: TableDefinition<'_, &str, u64> = TableDefinition::new("properties");
        let database = Database::create(&other).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(table).unwrap().insert("format", 1).unwrap();
        transaction.commit().unwrap();
        drop(database);
        assert!(matches!(LockedDatabase::open(&other), Err(DatabaseError::Foreign(_))));
    }

    #[test]
    fn a_file_cannot_ask_for_endless_work() {
        let sealing = Sealing {
            salt: [1; SALT],
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            lanes: LANES,
            sealed_key: vec![0; NONCE + KEY + TAG],
        };
        assert_eq!(Sealing::from_bytes(&sealing.to_bytes()), Some(sealing.clone()));
        for wrong in [
            Sealing { memory_kib: u32::MAX, ..sealing.clone() },
            Sealing { passes: 0, ..sealing.clone() },
            Sealing { passes: 65, ..sealing.clone() },
            Sealing { lanes: 17, ..sealing.clone() },
            Sealing { sealed_key: vec![0; 3], ..sealing.clone() },
        ] {
            assert_eq!(Sealing::from_bytes(&wrong.to_bytes()), None);
        }
        assert_eq!(Sealing::from_bytes(&[1; 20]), None);
    }
}
