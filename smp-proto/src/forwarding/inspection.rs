//! What can be seen from outside: figures for operators, digests and invariants for simulations.

use alloc::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::machine::{Forwarding, Stage};
use crate::broker::Inconsistency;
use crate::wire::first_step::RelayNumber;

/// Figures for operators: counts only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardingStatistics {
    /// Connections of first-step relays.
    pub relays: usize,
    /// Forwarding keys that are taken.
    pub keys: usize,
    /// Receipts under them.
    pub receipts: u64,
    /// Commands without an answer.
    pub under_way: usize,
    /// Commands that were executed and answered, since the start.
    pub executed: u64,
    /// Commands that came again: answered from the receipt, or refused.
    pub repeated: u64,
    /// Commands that may come again, as their clients allow.
    pub not_yet: u64,
    /// Commands under keys that are not, or no longer, this relay's.
    pub unknown_key: u64,
    /// Commands that could not be opened.
    pub unopened: u64,
    /// Commands that were too many.
    pub over_quota: u64,
    /// Commands that failed with storage.
    pub failed: u64,
    /// Commands that looked as if they had been seen, and had not: each has cost a read.
    pub looked_up_in_vain: u64,
}

impl Forwarding {
    /// Figures for operators.
    #[must_use]
    pub fn statistics(&self) -> ForwardingStatistics {
        ForwardingStatistics {
            relays: self.relays.len(),
            keys: self.keys.values().filter(|key| key.is_taken()).count(),
            receipts: self.keys.values().map(|key| key.receipts).sum(),
            under_way: self.commands.len(),
            ..self.counts
        }
    }

    /// A digest of what decides what happens next: equal after equal inputs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for (number, key) in &self.keys {
            digest.update(number.0.to_be_bytes());
            digest.update(key.work.public().0);
            digest.update(key.until.to_be_bytes());
            digest.update(key.receipts.to_be_bytes());
            digest.update([u8::from(key.is_stored), u8::from(key.is_closing)]);
        }
        for number in self.deletions.keys() {
            digest.update(number.0.to_be_bytes());
        }
        for (name, command) in &self.commands {
            digest.update(name.name);
            digest.update(command.asker.map_or(0, |(id, _)| id.0).to_be_bytes());
            digest.update([
                command.options.to_byte(),
                match command.stage {
                    Stage::Looking(_) => 0,
                    Stage::Handed(_) => 1,
                    Stage::Executing => 2,
                    Stage::Recording(_) => 3,
                    Stage::LookingBack => 4,
                },
            ]);
        }
        for (id, relay) in &self.relays {
            digest.update(id.0.to_be_bytes());
            digest.update((relay.outgoing.len() as u64).to_be_bytes());
            digest.update((relay.commands.len() as u64).to_be_bytes());
        }
        digest.update(self.next_action.to_be_bytes());
        digest.update((self.actions.len() as u64).to_be_bytes());
        digest.finalize().into()
    }

    /// Checks the invariants. For simulations and tests.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(Inconsistency(what)) };
        let limits = self.config.limits;
        ensure(self.commands.len() <= limits.commands, "more commands are under way than allowed")?;
        ensure(self.keys.len() <= limits.keys.max(1), "there are more forwarding keys than allowed")?;
        let mut under_way: BTreeMap<RelayNumber, usize> = BTreeMap::new();
        for (name, command) in &self.commands {
            *under_way.entry(name.key).or_default() += 1;
            if let Some((id, _)) = command.asker {
                let asked = self.relays.get(&id).is_some_and(|relay| relay.asked.contains(name));
                ensure(asked, "a command is answered to a connection that does not wait for it")?;
            }
            if let Stage::Handed(id) = command.stage {
                let handed = self.relays.get(&id).is_some_and(|relay| relay.handed.contains(name));
                ensure(handed, "a command was handed to nobody")?;
            }
        }
        for (number, key) in &self.keys {
            let counted = under_way.get(number).copied().unwrap_or(0);
            ensure(key.under_way == counted, "commands under a forwarding key are counted wrongly")?;
            ensure(!key.is_closing || counted > 0, "a forwarding key waits for nothing")?;
        }
        for relay in self.relays.values() {
            let most = limits.commands_of_connection.max(1);
            ensure(relay.asked.len() <= most, "a connection has more commands than allowed")?;
            ensure(relay.commands.len() <= relay.handed.len(), "a command is not known to be handed out")?;
        }
        Ok(())
    }
}

impl core::fmt::Debug for Forwarding {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Forwarding").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}
