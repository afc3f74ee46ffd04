//! What is remembered of destinations that nobody uses: keys until they end, failures until it may be tried again. And when they
//! are forgotten.

use alloc::vec::Vec;

use bytes::Bytes;

use super::destination::{DestinationNumber, hash_of};
use super::machine::{FirstStep, Timer};
use super::record::{RecordKey, Write};
use crate::time::{Duration, Instant, Now};
use crate::wire::address::ServerAddress;
use crate::wire::first_step::{PublishedKey, RelayNumber};
use crate::wire::primitives::Reader;

/// A published key is not given out in its last minute.
pub(super) const MARGIN: i64 = 60;

/// A key that was fetched longer ago is asked for again when a client registers: there may be one that lasts longer.
pub(super) const FRESH: Duration = Duration::from_secs(3600);
/// For how long a key is kept without clients: twice as long as keys usually last.
const LONGEST_KEPT: i64 = 4 * 86_400;

/// A forwarding key as its relay published it. The clients verify it. It is kept also without clients, until it ends: who
/// comes back while the destination is down needs it.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) number: RelayNumber,
    pub(super) until: i64,
    pub(super) bytes: Bytes,
    /// When it is of no use any more.
    pub(super) ends: Option<Instant>,
    /// When it was asked for, in this run.
    pub(super) fetched: Option<Instant>,
}

impl Published {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let key = PublishedKey::read(&mut read)?;
        read.end()?;
        let bytes = Bytes::copy_from_slice(bytes);
        Some(Self { number: key.number, until: key.until, bytes, ends: None, fetched: None })
    }

    /// The key in a destination's answer.
    pub(super) fn fetched(key: &PublishedKey<'_>, now: Now) -> Option<Self> {
        let mut bytes = Vec::new();
        key.write(&mut bytes).ok()?;
        let fetched = Self { fetched: Some(now.instant), ..Self::read(&bytes)? };
        Some(fetched.ending(now))
    }

    fn ending(self, now: Now) -> Self {
        let left = self.until.saturating_sub(now.wall.0).clamp(0, LONGEST_KEPT);
        let ends = now.instant + Duration::from_secs(u64::try_from(left).unwrap_or(0));
        Self { ends: Some(ends), ..self }
    }

    /// Its record: address ‖ key.
    pub(super) fn record(&self, address: &ServerAddress) -> Option<Bytes> {
        let mut record = Vec::new();
        address.write(&mut record).ok()?;
        record.extend_from_slice(&self.bytes);
        Some(record.into())
    }
}

impl FirstStep {
    /// A key that was stored.
    pub(super) fn restore_published(&mut self, hash: [u8; 32], record: &[u8]) -> Option<()> {
        let mut read = Reader::new(record);
        let address = ServerAddress::read(&mut read)?;
        let published = Published::read(read.rest())?;
        if hash_of(&address) != hash {
            return None;
        }
        let number = self.destination(&address);
        self.destinations.get_mut(&number)?.published = Some(published);
        Some(())
    }

    /// Keys that were stored end when they end.
    pub(super) fn begin_destinations(&mut self, now: Now) {
        let all: Vec<_> = self.destinations.keys().copied().collect();
        for number in all {
            if let Some(there) = self.destinations.get_mut(&number) {
                there.published = there.published.take().map(|published| published.ending(now));
            }
            self.leave(number);
        }
    }

    /// Makes room for another destination, if there are as many as allowed: one that only failed lately, and that nobody wants, is
    /// forgotten. False when there is no such.
    pub(super) fn has_room_for_destination(&mut self) -> bool {
        let most = self.config.limits.destinations;
        while self.destinations.len() >= most
            && let Some(number) = self.failed.pop_first()
        {
            let Some(there) = self.destinations.get_mut(&number) else { continue };
            if !there.is_in_use() && there.published.is_none() {
                there.retry_at = None;
                self.leave(number);
            }
        }
        self.destinations.len() < most
    }

    /// Forgets a destination that nobody needs; not before its key ends, unless there are many.
    pub(super) fn leave(&mut self, number: DestinationNumber) {
        let may_stay = self.destinations.len() <= self.config.limits.destinations / 2;
        let Some(there) = self.destinations.get(&number) else { return };
        if there.is_in_use() {
            self.failed.remove(&number);
            return self.set_destination_timer(number);
        }
        if may_stay && there.published.is_some() {
            self.failed.remove(&number);
            return self.set_destination_timer(number);
        }
        // How it failed is remembered until it may be tried again.
        if there.retry_at.is_some() {
            self.failed.insert(number);
            return self.set_destination_timer(number);
        }
        let (hash, timer, stored) = (there.hash, there.timer, there.published.is_some());
        self.set_timer(Timer::Destination(number), timer, None);
        self.destinations.remove(&number);
        self.addresses.remove(&hash);
        self.failed.remove(&number);
        if stored {
            self.store_nothing(alloc::vec![Write::Delete(RecordKey::Published(hash))]);
        }
    }
}
