//! What goes wrong with storage, said to the operator.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use smp_proto::broker::record::RecordError;

/// What went wrong, with what, and what to do.
#[derive(Debug)]
pub enum StorageError {
    /// Another process has it open.
    InUse(PathBuf),
    /// It is not a relay's storage.
    Foreign(PathBuf),
    /// It was written by a newer release.
    Newer(PathBuf, u64),
    /// It cannot be opened, read or written.
    Io(PathBuf, io::Error),
    /// What it holds is damaged.
    Damaged(PathBuf, String),
}

impl fmt::Display for StorageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(
                formatter,
                "{} is in use by another process: stop the other relay, or give this one its own data folder",
                path.display()
            ),
            Self::Foreign(path) => write!(
                formatter,
                "{} is not the storage of a relay: give the relay an empty data folder, or move that file away",
                path.display()
            ),
            Self::Newer(path, format) => write!(
                formatter,
                "{} has format {format}, which only a newer release can read: update this relay",
                path.display()
            ),
            Self::Io(path, error) if error.kind() == io::ErrorKind::StorageFull => write!(
                formatter,
                "{}: the disk is full: commands are refused and nothing is lost; make room, the relay goes on by itself",
                path.display()
            ),
            Self::Io(path, error) if error.kind() == io::ErrorKind::PermissionDenied => write!(
                formatter,
                "{}: permission denied: run the relay as the owner of its data folder",
                path.display()
            ),
            Self::Io(path, error) => write!(formatter, "{}: {error}", path.display()),
            Self::Damaged(path, what) => write!(
                formatter,
                "{} is damaged ({what}): restore it from a backup, or start with an empty data folder",
                path.display()
            ),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

impl StorageError {
    pub(super) fn record(path: &Path, error: RecordError) -> Self {
        match error {
            RecordError::NewerLayout(layout) => Self::Newer(path.to_owned(), u64::from(layout)),
            RecordError::Damaged => Self::Damaged(path.to_owned(), error.to_string()),
        }
    }

    /// The broker did not accept what was loaded.
    #[must_use]
    pub fn restore(path: &Path, error: impl core::fmt::Display) -> Self {
        Self::Damaged(path.to_owned(), error.to_string())
    }
}
