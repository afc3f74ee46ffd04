//! The relay's folder: what is in it, whether it is one, and who has it.
//!
//! ```text
//! smp-server.ini     configuration; written last, so that a folder that has it is complete
//! ca.key ca.crt server.key server.crt fingerprint     identity, in the layout of the reference
//! store/             queues and messages
//! smp-server.lock    held by the process that uses the folder
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use smp_runtime_std::certificates::CertificateFolder;
use smp_runtime_std::configuration::FILE_NAME;

use crate::failure::Failure;

const LOCK: &str = "smp-server.lock";
const STORE: &str = "store";

/// Everything that a relay may have written into its folder; `delete` removes these and nothing else.
const OURS: &[&str] = &[
    FILE_NAME,
    "smp-server.ini.new",
    "ca.key",
    "ca.crt",
    "server.key",
    "server.crt",
    "server.key.old",
    "server.crt.old",
    "server.key.new",
    "server.crt.new",
    "fingerprint",
    LOCK,
];

/// A relay's folder.
pub(crate) struct DataFolder {
    path: PathBuf,
}

/// What is there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, or an empty folder.
    Nothing,
    /// A relay.
    Relay,
    /// A relay whose initialisation was interrupted, or that lost its configuration.
    Incomplete,
    /// Something else.
    Foreign,
}

impl DataFolder {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn configuration_file(&self) -> PathBuf {
        self.path.join(FILE_NAME)
    }

    pub(crate) fn certificates(&self) -> CertificateFolder {
        CertificateFolder::at(&self.path)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Looks what is there.
    pub(crate) fn look(&self) -> Result<Found, Failure> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
            Err(error) => return Err(self.unreadable(&error)),
        };
        let mut found = Found::Nothing;
        for entry in entries {
            let name = entry.map_err(|error| self.unreadable(&error))?.file_name();
            if name == FILE_NAME {
                return Ok(Found::Relay);
            }
            let ours = name == STORE || OURS.iter().any(|known| name == **known);
            found = match found {
                Found::Nothing if name == LOCK => Found::Nothing,
                Found::Nothing | Found::Incomplete if ours => Found::Incomplete,
                _ => Found::Foreign,
            };
        }
        Ok(found)
    }

    fn unreadable(&self, error: &std::io::Error) -> Failure {
        Failure::new(format!(
            "{}: {error}: check that it is a folder, who owns it, and as which user the relay runs",
            self.path.display()
        ))
    }

    /// That this is a complete relay's folder, or what to do.
    pub(crate) fn require_relay(&self) -> Result<(), Failure> {
        let path = self.path.display();
        Err(Failure::new(match self.look()? {
            Found::Relay => return Ok(()),
            Found::Nothing => {
                format!("{path}: there is no relay here: make one with `smp-server init --data {path}`")
            }
            Found::Incomplete => format!(
                "{path}: {FILE_NAME} is missing: restore it from a backup, or when the initialisation was interrupted, remove \
                 the rest with `smp-server delete --data {path}` and initialise again"
            ),
            Found::Foreign => {
                format!(
                    "{path}: this folder has other things in it and no relay: choose another one with --data"
                )
            }
        }))
    }

    /// Makes sure that no other process uses the folder, until the result is dropped.
    pub(crate) fn lock(&self) -> Result<File, Failure> {
        let path = self.path.join(LOCK);
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|error| {
                Failure::new(format!("{}: {error}: check who owns the folder", path.display()))
            })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
                "{}: another smp-server uses this folder: stop it first, or choose another folder with --data",
                self.path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(Failure::new(format!(
                "{}: cannot be locked: {error}: the folder must be on a file system with locks",
                path.display()
            ))),
        }
    }

    /// Deletes what a relay wrote, and the folder if nothing else is in it. Says what was left.
    pub(crate) fn delete(&self) -> Result<bool, Failure> {
        let failed =
            |path: &Path, error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let store = self.store();
        match std::fs::remove_dir_all(&store) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&store, error)),
            _ => {}
        }
        for name in OURS {
            let path = self.path.join(name);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(failed(&path, error));
                }
                _ => {}
            }
        }
        match std::fs::remove_dir(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(failed(&self.path, error)),
        }
    }
}
