//! The user's queues and their keys, in one small database file.
//!
//! The folder is readable by its owner only (0700, the file 0600). The database is opened for each transaction and
//! closed again, so that `smp queue listen` in one terminal does not keep `smp queue send` in another from working.
//! A transaction is durable when it returns: a key is never used before it is kept.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smp_proto::wire::base64url;
use zeroize::Zeroizing;

use crate::failure::{Failure, Kind};

/// What the user receives from, by the user's own name for it.
const QUEUES: TableDefinition<&str, &[u8]> = TableDefinition::new("queues");
/// What the user sends to, by relay and sender id.
const SENDERS: TableDefinition<&str, &[u8]> = TableDefinition::new("senders");
/// Everything else.
const SETTINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("settings");

/// A value that is not decoded yet, and its key.
type NamedBytes = (String, Zeroizing<Vec<u8>>);

/// How long to wait for another `smp` that uses the file right now. Transactions take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are kept as base64url, wiped on drop and never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Kept<const LENGTH: usize>(pub(crate) Zeroizing<[u8; LENGTH]>);

impl<const LENGTH: usize> Kept<LENGTH> {
    pub(crate) fn new(bytes: &[u8; LENGTH]) -> Self {
        Self(Zeroizing::new(*bytes))
    }
}

impl<const LENGTH: usize> fmt::Debug for Kept<LENGTH> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kept({LENGTH} bytes)")
    }
}

impl<const LENGTH: usize> Serialize for Kept<LENGTH> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(base64url::encode_unpadded(&*self.0)))
    }
}

impl<'de, const LENGTH: usize> Deserialize<'de> for Kept<LENGTH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const LENGTH: usize>;
        impl<const LENGTH: usize> Visitor<'_> for Text<LENGTH> {
            type Value = Kept<LENGTH>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{LENGTH} bytes in base64url")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let bytes = Zeroizing::new(base64url::decode(text).unwrap_or_default());
                let bytes = <&[u8; LENGTH]>::try_from(bytes.as_slice())
                    .map_err(|_| E::invalid_value(de::Unexpected::Other("other text"), &self))?;
                Ok(Kept::new(bytes))
            }
        }
        deserializer.deserialize_str(Text::<LENGTH>)
    }
}

/// A queue that the user receives from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ReceivingQueue {
    /// The relay's address, without its password.
    pub(crate) address: String,
    /// The recipient's id.
    pub(crate) recipient: Kept<24>,
    /// The sender's id.
    pub(crate) sender: Kept<24>,
    /// Authorizes the recipient's commands: an Ed25519 key.
    pub(crate) authorization: Kept<32>,
    /// The secret shared with the relay: opens what the relay encrypted.
    pub(crate) delivery: Kept<32>,
    /// With the sender's key, opens what the sender encrypted. Its public part is in the queue's address.
    pub(crate) end_to_end: Kept<32>,
    /// The sender's public key, once it was received.
    pub(crate) sender_dh: Option<Kept<32>>,
    /// The message that was received last, so that one that is delivered again is not shown again.
    pub(crate) last_message: Option<Kept<24>>,
    /// When the queue was made, in seconds since 1970.
    pub(crate) created: i64,
}

/// How far the user has come with a queue to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Progress {
    /// There are keys, and the relay may know them.
    Prepared,
    /// The relay knows the authorization key.
    Secured,
    /// The recipient's queue holds the end-to-end key.
    Confirmed,
}

/// A queue that the user sends to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SendingQueue {
    /// Authorizes the sender's commands: an X25519 key.
    pub(crate) authorization: Kept<32>,
    /// The end-to-end key: its public part goes with the first message.
    pub(crate) end_to_end: Kept<32>,
    /// How far it is.
    pub(crate) progress: Progress,
}

/// The folder with the user's queues.
#[derive(Debug)]
pub(crate) struct State {
    file: PathBuf,
}

impl State {
    /// The state in `folder`, or in the user's data folder; it is made when it is not there.
    pub(crate) fn open(folder: Option<PathBuf>) -> Result<Self, Failure> {
        let folder = match folder {
            Some(folder) => folder,
            None => directories::ProjectDirs::from("", "", "smp")
                .map(|folders| folders.data_dir().to_owned())
                .ok_or_else(|| {
                    Failure::new(Kind::State, "this user has no home folder to keep queues in")
                        .advise("name a folder with --data or SMP_DATA")
                })?,
        };
        let failed = |error: io::Error| {
            Failure::state(format!("the folder {} cannot be used", folder.display()), error)
                .advise("name another folder with --data or SMP_DATA")
        };
        create_folder(&folder).map_err(failed)?;
        let file = folder.join("queues.redb");
        create_file(&file).map_err(failed)?;
        Ok(Self { file })
    }

    /// Opens the database, waiting for its other users.
    fn database(&self) -> Result<Database, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Database::create(&self.file) {
                Ok(database) => return Ok(database),
                Err(DatabaseError::DatabaseAlreadyOpen) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(DatabaseError::DatabaseAlreadyOpen) => {
                    return Err(self.failure("another program keeps it open").advise("end it and try again"));
                }
                Err(error) => {
                    return Err(self.failure(error).advise(
                        "if the file is damaged, restore it from a backup; it holds the keys of your queues",
                    ));
                }
            }
        }
    }

    fn failure(&self, error: impl fmt::Display) -> Failure {
        Failure::state(format!("the database {} cannot be used", self.file.display()), error)
    }

    fn get<T: DeserializeOwned>(
        &self,
        table: TableDefinition<'_, &'static str, &'static [u8]>,
        key: &str,
    ) -> Result<Option<T>, Failure> {
        let database = self.database()?;
        let read = || -> Result<Option<Zeroizing<Vec<u8>>>, redb::Error> {
            let table = match database.begin_read()?.open_table(table) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            Ok(table.get(key)?.map(|value| Zeroizing::new(value.value().to_vec())))
        };
        match read().map_err(|error| self.failure(error))? {
            None => Ok(None),
            Some(bytes) => self.decode(&bytes).map(Some),
        }
    }

    fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, Failure> {
        serde_json::from_slice(bytes).map_err(|error| self.failure(error))
    }

    fn encode(&self, value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, Failure> {
        serde_json::to_vec(value).map(Zeroizing::new).map_err(|error| self.failure(error))
    }

    /// Puts `value`, or removes the key; what was there before decides: `false` from `may` leaves it.
    fn write(
        &self,
        table: TableDefinition<'_, &'static str, &'static [u8]>,
        key: &str,
        value: Option<&[u8]>,
        may: impl FnOnce(bool) -> bool,
    ) -> Result<bool, Failure> {
        let database = self.database()?;
        let write = || -> Result<bool, redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(table)?;
                if !may(table.get(key)?.is_some()) {
                    return Ok(false);
                }
                match value {
                    Some(value) => drop(table.insert(key, value)?),
                    None => drop(table.remove(key)?),
                }
            }
            transaction.commit()?;
            Ok(true)
        };
        write().map_err(|error| self.failure(error))
    }

    /// All queues that the user receives from, by name.
    pub(crate) fn queues(&self) -> Result<Vec<(String, ReceivingQueue)>, Failure> {
        let database = self.database()?;
        let read = || -> Result<Vec<NamedBytes>, redb::Error> {
            let table = match database.begin_read()?.open_table(QUEUES) {
                Ok(table) => table,
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut queues = Vec::new();
            for entry in table.iter()? {
                let (name, value) = entry?;
                queues.push((name.value().to_owned(), Zeroizing::new(value.value().to_vec())));
            }
            Ok(queues)
        };
        let queues = read().map_err(|error| self.failure(error))?;
        queues.into_iter().map(|(name, bytes)| Ok((name, self.decode(&bytes)?))).collect()
    }

    /// The queue of this name.
    pub(crate) fn queue(&self, name: &str) -> Result<ReceivingQueue, Failure> {
        self.get(QUEUES, name)?.ok_or_else(|| {
            Failure::new(Kind::Usage, format!("there is no queue `{name}` here"))
                .advise("`smp queue list` shows your queues, `smp queue new` makes one")
        })
    }

    /// Whether there is a queue of this name.
    pub(crate) fn has_queue(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.get::<ReceivingQueue>(QUEUES, name)?.is_some())
    }

    /// Keeps a new queue; false when there is one of this name.
    pub(crate) fn add_queue(&self, name: &str, queue: &ReceivingQueue) -> Result<bool, Failure> {
        self.write(QUEUES, name, Some(&self.encode(queue)?), |exists| !exists)
    }

    /// Keeps what has changed of a queue; false when it was deleted in the meantime.
    pub(crate) fn update_queue(&self, name: &str, queue: &ReceivingQueue) -> Result<bool, Failure> {
        self.write(QUEUES, name, Some(&self.encode(queue)?), |exists| exists)
    }

    /// Forgets a queue.
    pub(crate) fn remove_queue(&self, name: &str) -> Result<(), Failure> {
        self.write(QUEUES, name, None, |_| true).map(drop)
    }

    /// What is known of a queue to send to.
    pub(crate) fn sender(&self, key: &str) -> Result<Option<SendingQueue>, Failure> {
        self.get(SENDERS, key)
    }

    /// Keeps it.
    pub(crate) fn put_sender(&self, key: &str, queue: &SendingQueue) -> Result<(), Failure> {
        self.write(SENDERS, key, Some(&self.encode(queue)?), |_| true).map(drop)
    }

    /// Keeps it unless another `smp` was faster, and returns what is kept.
    pub(crate) fn add_sender(&self, key: &str, queue: SendingQueue) -> Result<SendingQueue, Failure> {
        if self.write(SENDERS, key, Some(&self.encode(&queue)?), |exists| !exists)? {
            return Ok(queue);
        }
        self.sender(key)?.ok_or_else(|| self.failure("what it held a moment ago is gone"))
    }

    /// The address, with its password, of the relay that was used last to make a queue.
    pub(crate) fn last_address(&self) -> Result<Option<Zeroizing<String>>, Failure> {
        Ok(self.get::<String>(SETTINGS, "address")?.map(Zeroizing::new))
    }

    /// Keeps that address.
    pub(crate) fn put_last_address(&self, address: &str) -> Result<(), Failure> {
        self.write(SETTINGS, "address", Some(&self.encode(&address)?), |_| true).map(drop)
    }
}

#[cfg(unix)]
fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn create_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

/// Makes the file before the database does, so that it is never readable by others.
fn create_file(file: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn queue(byte: u8) -> ReceivingQueue {
        ReceivingQueue {
            address: "smp://AAAA@localhost".to_owned(),
            recipient: Kept::new(&[byte; 24]),
            sender: Kept::new(&[byte; 24]),
            authorization: Kept::new(&[byte; 32]),
            delivery: Kept::new(&[byte; 32]),
            end_to_end: Kept::new(&[byte; 32]),
            sender_dh: None,
            last_message: Some(Kept::new(&[byte; 24])),
            created: 1,
        }
    }

    #[test]
    fn queues_are_kept_across_runs_and_names_are_not_reused() {
        let folder = tempfile::tempdir().unwrap();
        let open = || State::open(Some(folder.path().join("data"))).unwrap();
        let state = open();
        assert!(state.queues().unwrap().is_empty());
        assert!(state.add_queue("one", &queue(1)).unwrap());
        assert!(!state.add_queue("one", &queue(2)).unwrap());
        assert!(!state.update_queue("two", &queue(2)).unwrap());
        let state = open();
        assert_eq!(state.queue("one").unwrap().authorization, Kept::new(&[1; 32]));
        assert_eq!(state.queue("two").unwrap_err().kind, Kind::Usage);
        state.remove_queue("one").unwrap();
        assert!(open().queues().unwrap().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_the_keys() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(Some(folder.path().join("data"))).unwrap();
        state.add_queue("one", &queue(1)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.path().join("data")), 0o700);
        assert_eq!(mode(&state.file), 0o600);
        assert!(!format!("{:?}", state.queue("one").unwrap()).contains("AQEB"));
    }

    #[test]
    fn two_at_once_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let open = || State::open(Some(folder.path().to_owned())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                scope.spawn(move || {
                    for number in 0..5_u8 {
                        assert!(open().add_queue(&format!("{thread}-{number}"), &queue(thread)).unwrap());
                    }
                });
            }
        });
        assert_eq!(open().queues().unwrap().len(), 20);
    }
}
