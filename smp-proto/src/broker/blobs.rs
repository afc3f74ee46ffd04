//! Blobs: a small store of encrypted values, for links (`smp-proto/EXTENSIONS.md`, "Blobs").
//!
//! The broker keeps a blob's id, the key of its owner and the day of the last `WRT`; the value is in storage. It is found by
//! the hash of what a reader asks with: the id itself reads nothing.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::actions::Purpose;
use super::connections::{Address, Queued};
use super::record::BlobRecord;
use super::recovery::storage_failed;
use super::services::NO_QUEUE;
use super::storage::{BlobId, StorageAction};
use super::{Broker, RestoreError, SmpError};
use crate::crypto::blob;
use crate::keys::{AuthKey, X25519Public};
use crate::session::OpenedBlock;
use crate::session::outgoing::{BlobAnswer, OutgoingContent};
use crate::time::{Duration, Instant, Now, UnixTime};
use crate::wire::EntityId;

/// How many blobs one call may look at for expiry.
const BLOBS_A_CALL: usize = 256;

/// When a blob whose deletion failed is looked at again, in seconds.
const NEXT_ATTEMPT: Duration = Duration::from_secs(3600);

/// One blob.
struct Blob {
    record: BlobRecord,
    /// Whether a value is durable: only then can it be read.
    stored: bool,
    /// Values that are being written.
    writes: u32,
    /// Whether it is being deleted: nobody finds it any more.
    deleting: bool,
}

/// For how long writes are counted together.
const RATE_PERIOD: Duration = Duration::from_secs(60);

/// How many values were written in the period that began at some time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteRate {
    began: Instant,
    writes: u32,
}

impl WriteRate {
    /// Whether one more may be written.
    fn has_room(&self, now: Instant, most: u32) -> bool {
        now.saturating_since(self.began) >= RATE_PERIOD || self.writes < most
    }

    fn count(&mut self, now: Instant) {
        if now.saturating_since(self.began) >= RATE_PERIOD {
            *self = Self { began: now, writes: 0 };
        }
        self.writes = self.writes.saturating_add(1);
    }
}

/// All blobs.
#[derive(Default)]
pub(super) struct Blobs {
    /// Of all connections together.
    rate: WriteRate,
    blobs: BTreeMap<BlobId, Blob>,
    /// When blobs are to be looked at, at most once each for one time.
    expiry: BTreeSet<(UnixTime, BlobId)>,
}

impl Blobs {
    pub(super) fn len(&self) -> usize {
        self.blobs.len()
    }

    /// The key of a blob's owner.
    pub(super) fn key(&self, id: &BlobId) -> Option<AuthKey> {
        self.blobs.get(id).filter(|blob| !blob.deleting).map(|blob| blob.record.key)
    }

    /// Whether a blob can be read.
    pub(super) fn is_readable(&self, id: &BlobId) -> bool {
        self.blobs.get(id).is_some_and(|blob| blob.stored && !blob.deleting)
    }

    pub(super) fn can_expire(&self) -> bool {
        !self.expiry.is_empty()
    }

    pub(super) fn has_due(&self, wall: UnixTime) -> bool {
        self.expiry.first().is_some_and(|(due, _)| *due <= wall)
    }

    /// All ids, for digests.
    pub(super) fn ids(&self) -> impl Iterator<Item = &BlobId> {
        self.blobs.keys()
    }
}

/// The blob that the owner's commands name.
pub(super) fn owners_name(entity: &EntityId) -> Option<BlobId> {
    entity.as_bytes().try_into().ok()
}

/// The key that a reader asks with, and the blob that it leads to.
pub(super) fn readers_name(entity: &EntityId) -> Option<(X25519Public, BlobId)> {
    let public = X25519Public(entity.as_bytes().try_into().ok()?);
    let id = blob::id(&public);
    Some((public, id))
}

impl Broker {
    /// Takes over a stored blob, at start.
    ///
    /// # Errors
    /// [`RestoreError::IdInUse`] when there is one of this id.
    pub fn restore_blob(&mut self, id: BlobId, record: BlobRecord) -> Result<(), RestoreError> {
        if self.blobs.blobs.contains_key(&id) {
            return Err(RestoreError::IdInUse);
        }
        self.watch_blob(id, record.written);
        self.blobs.blobs.insert(id, Blob { record, stored: true, writes: 0, deleting: false });
        Ok(())
    }

    fn watch_blob(&mut self, id: BlobId, written: UnixTime) {
        if let Some(life) = self.config.blob_time_to_live {
            self.blobs.expiry.insert((written.saturating_add(life), id));
        }
    }

    /// `WRT`: the first one fixes the key, later ones replace the value.
    pub(super) fn write_blob(
        &mut self,
        to: &Address,
        key: Option<AuthKey>,
        owner: AuthKey,
        value: &[u8],
        block: &OpenedBlock,
        now: Now,
    ) -> Result<(), SmpError> {
        let id = owners_name(&to.entity).ok_or(SmpError::Authorization)?;
        if key != Some(owner) {
            return Err(SmpError::Authorization);
        }
        if value.len() > usize::from(self.config.limits.blob_length) {
            return Err(SmpError::LargeMessage);
        }
        let written = UnixTime(now.wall.0.div_euclid(86_400).saturating_mul(86_400));
        let record = BlobRecord { key: owner, written };
        let may_write = self.may_write_blob(to, now.instant);
        match self.blobs.blobs.get_mut(&id) {
            Some(blob) if blob.record.key != owner => return Err(SmpError::Authorization),
            // What is being deleted must be gone first.
            Some(blob) if blob.deleting => return Err(storage_failed()),
            Some(_) if !may_write => return Err(SmpError::Quota),
            Some(blob) => blob.writes = blob.writes.saturating_add(1),
            None => {
                // A relay that asks for a password cannot be given one here: it takes no blobs.
                if !self.config.new_queues || self.config.create_password.is_some() {
                    return Err(SmpError::Authorization);
                }
                if !may_write || self.blobs.len() >= self.config.limits.blobs as usize {
                    return Err(SmpError::Quota);
                }
                let blob = Blob { record: record.clone(), stored: false, writes: 1, deleting: false };
                self.blobs.blobs.insert(id, blob);
                self.watch_blob(id, written);
            }
        }
        self.blobs.rate.count(now.instant);
        if let Some(connection) = self.connections.get_mut(to.connection) {
            connection.blob_rate.count(now.instant);
        }
        let action = StorageAction::PutBlob { id, record, value: block.share(value) };
        self.emit(NO_QUEUE, Purpose::WriteBlob(to.clone(), id, written), action);
        Ok(())
    }

    /// Whether neither this connection nor all together have written as many blobs lately as they may.
    fn may_write_blob(&self, to: &Address, now: Instant) -> bool {
        let limits = &self.config.limits;
        let own = u32::from(limits.blob_writes_of_connection);
        let connection = self.connections.get(to.connection);
        self.blobs.rate.has_room(now, limits.blob_writes)
            && connection.is_some_and(|connection| connection.blob_rate.has_room(now, own))
    }

    /// A value is durable, or could not be written.
    pub(super) fn blob_written(&mut self, to: Address, id: BlobId, written: UnixTime, done: bool) {
        if let Some(blob) = self.blobs.blobs.get_mut(&id) {
            blob.writes = blob.writes.saturating_sub(1);
            blob.stored |= done;
            if done {
                blob.record.written = written;
            }
            if !blob.stored && blob.writes == 0 {
                self.blobs.blobs.remove(&id);
            }
        }
        let answer = if done { OutgoingContent::Ok } else { OutgoingContent::Error(storage_failed()) };
        self.connections.say(to, answer);
    }

    /// `CLR`: from now on nobody finds the blob.
    pub(super) fn clear_blob(&mut self, to: &Address, key: Option<AuthKey>) -> Result<(), SmpError> {
        let id = owners_name(&to.entity).ok_or(SmpError::Authorization)?;
        let owner = self.blobs.key(&id);
        if owner.is_none() || key != owner {
            return Err(SmpError::Authorization);
        }
        if let Some(blob) = self.blobs.blobs.get_mut(&id) {
            blob.deleting = true;
        }
        self.emit(NO_QUEUE, Purpose::ClearBlob(to.clone(), id), StorageAction::DeleteBlob { id });
        Ok(())
    }

    /// A blob is gone, or could not be deleted.
    pub(super) fn blob_cleared(&mut self, to: Option<Address>, id: BlobId, done: bool, now: Now) {
        if done {
            self.blobs.blobs.remove(&id);
        } else if let Some(blob) = self.blobs.blobs.get_mut(&id) {
            blob.deleting = false;
            if self.config.blob_time_to_live.is_some() {
                self.blobs.expiry.insert((now.wall.saturating_add(NEXT_ATTEMPT), id));
            }
        }
        if let Some(to) = to {
            let answer = if done { OutgoingContent::Ok } else { OutgoingContent::Error(storage_failed()) };
            self.connections.say(to, answer);
        }
    }

    /// `READ`, now or when there is room for the answer.
    pub(super) fn read_blob(&mut self, to: Address) -> Result<(), SmpError> {
        let limit = self.config.limits.deliveries_in_flight;
        let (_, id) = readers_name(&to.entity).ok_or(SmpError::Authorization)?;
        if !self.blobs.is_readable(&id) {
            return Err(SmpError::Authorization);
        }
        let Some(connection) = self.connections.get_mut(to.connection) else { return Ok(()) };
        if connection.reserve_body(limit) {
            self.emit(NO_QUEUE, Purpose::ReadBlob(to), StorageAction::ReadBlob { id });
        } else {
            connection.owed = connection.owed.saturating_add(1);
            connection.queued.push_back(Queued::Blob(to));
        }
        Ok(())
    }

    /// A blob was read, `None` when storage has failed.
    pub(super) fn blob_read(&mut self, to: Address, value: Option<Option<Bytes>>) {
        let id = to.connection;
        self.connections.release_body(id);
        let found = readers_name(&to.entity).filter(|(_, blob)| self.blobs.is_readable(blob));
        let answer = match (found, value) {
            (None, _) => OutgoingContent::Error(SmpError::Authorization),
            (Some(_), None | Some(None)) => OutgoingContent::Error(storage_failed()),
            (Some((reader, _)), Some(Some(blob))) => {
                OutgoingContent::Blob(Box::new(BlobAnswer { reader, blob }))
            }
        };
        self.connections.say(to, answer);
        self.deliver_queued(id);
    }

    /// Deletes blobs that were not written for too long.
    pub(super) fn expire_blobs(&mut self, wall: UnixTime) {
        let Some(life) = self.config.blob_time_to_live else { return };
        for _ in 0..BLOBS_A_CALL {
            if !self.blobs.has_due(wall) {
                return;
            }
            let Some((_, id)) = self.blobs.expiry.pop_first() else { return };
            let Some(blob) = self.blobs.blobs.get_mut(&id).filter(|blob| !blob.deleting) else { continue };
            let due = blob.record.written.saturating_add(life);
            if due > wall {
                self.blobs.expiry.insert((due, id));
            } else if blob.writes > 0 {
                self.blobs.expiry.insert((wall.saturating_add(NEXT_ATTEMPT), id));
            } else {
                blob.deleting = true;
                self.emit(NO_QUEUE, Purpose::ExpireBlob(id), StorageAction::DeleteBlob { id });
            }
        }
    }
}
