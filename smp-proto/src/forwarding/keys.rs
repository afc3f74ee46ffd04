//! Forwarding keys: made, kept, published, retired, and what is left of them deleted.

use alloc::sync::Arc;
use alloc::vec;

use zeroize::Zeroizing;

use super::answers::{Publication, Said};
use super::machine::{Forwarding, Purpose};
use super::record::{KeyRecord, RecordKey};
use super::seen::Seen;
use crate::broker::storage::{RecordWrite, StorageAction};
use crate::crypto::forwarding::signed_text;
use crate::entropy::Entropy;
use crate::keys::X25519Secret;
use crate::session::forwarding::ForwardingKey;
use crate::time::{Duration, Instant, Now};
use crate::wire::first_step::{FirstStepError, RelayNumber};

/// How many receipts one storage action deletes.
pub const DELETED_AT_ONCE: u32 = 1000;

/// After how long what storage or the signer refused is tried again, and a doubtful clock looked at again.
const PATIENCE: Duration = Duration::from_secs(60);
/// A key that is over when it is loaded is kept for so long: the clock may be wrong that says so.
const GRACE: Duration = Duration::from_secs(3600);
/// A key that is over within this many seconds is not published: another is made at once.
const MARGIN: i64 = 3600;

/// One forwarding key.
pub(super) struct Key {
    pub(super) work: Arc<ForwardingKey>,
    pub(super) until: i64,
    /// What was executed under it.
    pub(super) seen: Seen,
    pub(super) receipts: u64,
    /// Commands without an answer.
    pub(super) under_way: usize,
    /// Whether it is durable.
    pub(super) is_stored: bool,
    /// Whether it waits for its last commands to be answered, and takes no others.
    pub(super) is_closing: bool,
    /// When another is made.
    renew_at: Instant,
    /// When it is over, unless the wall clock says otherwise.
    retire_at: Instant,
    publication: Option<Arc<Publication>>,
}

impl Key {
    /// Whether commands under it are taken.
    pub(super) const fn is_taken(&self) -> bool {
        self.is_stored && !self.is_closing
    }
}

/// What is left of a key that is over.
pub(super) struct Deletion {
    step: Step,
    /// Since when it is over.
    since: i64,
    /// When it goes on; `None` while storage works on it.
    pub(super) retry_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Its secret is being destroyed.
    Secret,
    /// Its receipts are kept for those who ask again.
    Kept,
    Receipts,
    Record,
}

impl Deletion {
    /// Whether all its receipts are there.
    pub(super) const fn keeps_receipts(&self) -> bool {
        matches!(self.step, Step::Secret | Step::Kept)
    }
}

/// Of how many keys the receipts are kept at most: only a clock that goes wrong leads there.
const KEPT: usize = 64;

/// Seconds of a duration, as the wall clock counts.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// As a duration; none for what is past.
fn ahead(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Forwarding {
    /// Takes over a key that was stored.
    pub(super) fn restore_key(
        &mut self,
        number: RelayNumber,
        made: i64,
        until: i64,
        secret: &[u8; 32],
        now: Now,
    ) {
        let (rotation, validity) = (self.config.rotation, self.config.validity);
        let age_left = |end: i64, most: Duration| ahead(end.saturating_sub(now.wall.0)).min(most);
        let secret = X25519Secret::from_bytes(*secret);
        let Some(work) = ForwardingKey::new(self.provider, number, secret) else { return };
        let key = Key {
            work: Arc::new(work),
            until,
            seen: Seen::default(),
            receipts: 0,
            under_way: 0,
            is_stored: true,
            is_closing: false,
            renew_at: now.instant + age_left(made.saturating_add(seconds(rotation)), rotation),
            retire_at: now.instant + age_left(until, validity).max(GRACE),
            publication: None,
        };
        self.keys.insert(number, key);
    }

    /// Makes a key. It is published when it is durable.
    fn make_key(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        let last = self.keys.last_key_value().map(|(number, _)| number.0);
        let last = last.max(self.deletions.last_key_value().map(|(number, _)| number.0));
        // By the minute, so that a number does not come back when all keys of before are gone.
        let minute = u32::try_from(now.wall.0 / 60).unwrap_or(0).min(u32::MAX / 2);
        let Some(number) = last.unwrap_or(0).checked_add(1).map(|next| RelayNumber(next.max(minute))) else {
            return;
        };
        let secret = X25519Secret::generate(entropy);
        let made = now.wall.0;
        let until = made.saturating_add(seconds(self.config.validity));
        let record = KeyRecord::Live { made, until, secret: Zeroizing::new(*secret.as_bytes()) };
        let Some(work) = ForwardingKey::new(self.provider, number, secret) else { return };
        let key = Key {
            work: Arc::new(work),
            until,
            seen: Seen::default(),
            receipts: 0,
            under_way: 0,
            is_stored: false,
            is_closing: false,
            renew_at: now.instant + self.config.rotation,
            retire_at: now.instant + self.config.validity,
            publication: None,
        };
        self.keys.insert(number, key);
        self.making = Some(number);
        let write = RecordWrite::Put { key: RecordKey::Key(number).to_bytes(), value: record.encode() };
        self.emit(Purpose::Key(number), StorageAction::WriteRecords { writes: vec![write] });
    }

    /// The newest key that is durable.
    fn newest(&self) -> Option<(RelayNumber, &Key)> {
        self.keys.iter().rev().find(|(_, key)| key.is_taken()).map(|(number, key)| (*number, key))
    }

    /// Whether another key is due, now or by the clock that only goes forward.
    fn wants_key(&self, now: Now) -> bool {
        self.newest().is_none_or(|(_, key)| {
            key.renew_at <= now.instant || key.until <= now.wall.0.saturating_add(MARGIN)
        })
    }

    /// Whether another key may be made at all.
    fn may_make_key(&self) -> bool {
        self.making.is_none() && self.keys.len() < self.config.limits.keys.max(1)
    }

    /// Does what is due about keys.
    pub(super) fn tend(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        if self.may_make_key() && self.make_key_at.is_none_or(|at| at <= now.instant) && self.wants_key(now) {
            self.make_key(now, entropy);
            // Tried again later when there was no number, or nothing to name it with.
            self.make_key_at = self.making.is_none().then(|| now.instant + PATIENCE);
        }
        let far = seconds(self.config.validity).saturating_add(86_400);
        // There are few keys: a handful, never more than the limit.
        let due: heapless::Vec<RelayNumber, 16> = self
            .keys
            .iter()
            .filter(|(_, key)| key.is_taken() && key.retire_at <= now.instant)
            .map(|(number, _)| *number)
            .take(16)
            .collect();
        for number in due {
            let Some(key) = self.keys.get_mut(&number) else { continue };
            let left = key.until.saturating_sub(now.wall.0);
            // A key from a future that cannot be was made by a clock that was wrong.
            if left > 0 && left <= far {
                key.retire_at = now.instant + GRACE;
            } else {
                key.is_closing = true;
                self.over_since = now.wall.0;
                self.retire_when_quiet(number);
            }
        }
        let late: heapless::Vec<RelayNumber, 16> = self
            .deletions
            .iter()
            .filter(|(_, deletion)| deletion.retry_at.is_some_and(|at| at <= now.instant))
            .map(|(number, _)| *number)
            .take(16)
            .collect();
        for number in late {
            self.delete_when_due(number, now);
        }
        while self.deletions.len() > KEPT
            && let Some((number, deletion)) =
                self.deletions.iter_mut().find(|(_, deletion)| deletion.step == Step::Kept)
        {
            deletion.step = Step::Receipts;
            let number = *number;
            self.go_on_deleting(number);
        }
    }

    /// Goes on with a deletion, unless the wall clock says that the receipts are to be kept for longer.
    fn delete_when_due(&mut self, number: RelayNumber, now: Now) {
        let keep = seconds(self.config.keep_receipts);
        let Some(deletion) = self.deletions.get_mut(&number) else { return };
        if deletion.step == Step::Kept {
            let left = deletion.since.saturating_add(keep).saturating_sub(now.wall.0);
            if left > 0 && left <= keep {
                deletion.retry_at = Some(now.instant + ahead(left).min(GRACE));
                return;
            }
            deletion.step = Step::Receipts;
        }
        self.go_on_deleting(number);
    }

    /// Takes over a key that was over before the start.
    pub(super) fn restore_over(&mut self, number: RelayNumber, since: i64, now: Now) {
        let keep = self.config.keep_receipts;
        let left = since.saturating_add(seconds(keep)).saturating_sub(now.wall.0);
        let retry_at = Some(now.instant + ahead(left).min(keep));
        self.deletions.insert(number, Deletion { step: Step::Kept, since, retry_at });
    }

    /// When something is due about keys.
    pub(super) fn keys_deadline(&self) -> Option<Instant> {
        let renewal = self.may_make_key().then(|| {
            let due = self.newest().map_or(Instant::START, |(_, key)| key.renew_at);
            self.make_key_at.map_or(due, |at| at.max(due))
        });
        let retirements = self.keys.values().filter(|key| key.is_taken()).map(|key| key.retire_at);
        let deletions = self.deletions.values().filter_map(|deletion| deletion.retry_at);
        renewal.into_iter().chain(retirements).chain(deletions).min()
    }

    /// A key is durable, or is not.
    pub(super) fn key_stored(&mut self, number: RelayNumber, stored: bool, now: Now) {
        self.making = None;
        if stored {
            if let Some(key) = self.keys.get_mut(&number) {
                key.is_stored = true;
            }
        } else {
            self.keys.remove(&number);
            self.make_key_at = Some(now.instant + PATIENCE);
        }
        self.publish(now);
    }

    /// The relay has other certificates from now on, of the same identity: present keys are published with them.
    pub(super) fn publish_anew(&mut self) {
        for key in self.keys.values_mut() {
            key.publication = None;
        }
    }

    /// Tells those who have asked which key to seal for, if there is one.
    pub(super) fn publish(&mut self, now: Now) {
        while let Some((id, correlation)) = self.asking.pop_first() {
            match self.publication(now) {
                Ok(published) => self.tell(id, correlation, RelayNumber(0), Said::Key(published)),
                // It comes as soon as it is durable.
                Err(Unpublished::NotYet) => {
                    self.asking.insert(id, correlation);
                    return;
                }
                Err(Unpublished::Failed) => {
                    self.tell(id, correlation, RelayNumber(0), Said::Error(FirstStepError::Internal));
                }
            }
        }
    }

    fn publication(&mut self, now: Now) -> Result<Arc<Publication>, Unpublished> {
        let is_making = self.making.is_some();
        let Some((number, key)) = self.newest() else {
            return Err(if is_making { Unpublished::NotYet } else { Unpublished::Failed });
        };
        if is_making && key.until <= now.wall.0.saturating_add(MARGIN) {
            return Err(Unpublished::NotYet);
        }
        if let Some(published) = &key.publication {
            return Ok(Arc::clone(published));
        }
        let (until, public) = (key.until, *key.work.public());
        let signed = self.identity.signer().sign(&signed_text(number, until, &public));
        let signature = signed.map_err(|_| Unpublished::Failed)?.as_bytes().to_vec();
        let chain = self.identity.chain().to_vec();
        let published = Arc::new(Publication { number, until, key: public, chain, signature });
        if let Some(key) = self.keys.get_mut(&number) {
            key.publication = Some(Arc::clone(&published));
        }
        Ok(published)
    }

    /// Retires a key that takes no commands any more, when the last one is answered.
    pub(super) fn retire_when_quiet(&mut self, number: RelayNumber) {
        if self.keys.get(&number).is_some_and(|key| key.is_closing && key.under_way == 0) {
            // Its secret is wiped when it is dropped.
            self.keys.remove(&number);
            self.delete_rest(number, Step::Secret);
        }
    }

    /// Deletes what storage has of a key that is over, or was never known.
    pub(super) fn delete_receipts(&mut self, number: RelayNumber) {
        if !self.deletions.contains_key(&number) && !self.keys.contains_key(&number) {
            self.delete_rest(number, Step::Receipts);
        }
    }

    fn delete_rest(&mut self, number: RelayNumber, step: Step) {
        self.deletions.insert(number, Deletion { step, since: self.over_since, retry_at: None });
        self.go_on_deleting(number);
    }

    fn go_on_deleting(&mut self, number: RelayNumber) {
        let Some(deletion) = self.deletions.get_mut(&number) else { return };
        deletion.retry_at = None;
        let key = RecordKey::Key(number).to_bytes();
        let action = match deletion.step {
            // First of all, so that nothing that was recorded can be opened with it.
            Step::Secret => {
                let value = KeyRecord::Over { since: deletion.since }.encode();
                StorageAction::WriteRecords { writes: vec![RecordWrite::Put { key, value }] }
            }
            Step::Kept => return,
            Step::Receipts => StorageAction::DeleteRecords {
                prefix: RecordKey::receipts_of(number),
                at_most: DELETED_AT_ONCE,
            },
            Step::Record => StorageAction::WriteRecords { writes: vec![RecordWrite::Delete { key }] },
        };
        self.emit(Purpose::Deletion(number), action);
    }

    /// A step of a deletion is done: `more` says whether it is to be repeated, `None` that it failed.
    pub(super) fn deleted(&mut self, number: RelayNumber, more: Option<bool>, now: Now) {
        let keep = self.config.keep_receipts;
        let Some(deletion) = self.deletions.get_mut(&number) else { return };
        match (more, deletion.step) {
            (None, _) => deletion.retry_at = Some(now.instant + PATIENCE),
            (Some(true), Step::Receipts) => self.go_on_deleting(number),
            (Some(_), Step::Secret) => {
                deletion.step = Step::Kept;
                deletion.retry_at = Some(now.instant + keep);
                if keep.is_zero() {
                    self.delete_when_due(number, now);
                }
            }
            (Some(_), Step::Kept) => {}
            (Some(_), Step::Receipts) => {
                deletion.step = Step::Record;
                self.go_on_deleting(number);
            }
            (Some(_), Step::Record) => {
                self.deletions.remove(&number);
            }
        }
    }
}

/// Why there is no key to be published.
enum Unpublished {
    /// It is being stored.
    NotYet,
    /// It cannot be stored or signed now.
    Failed,
}
