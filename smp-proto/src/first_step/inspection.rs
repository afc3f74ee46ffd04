//! Looking at the whole: whether everything fits together, and whether two are equal.

use sha2::{Digest, Sha256};

use super::client::ItemState;
use super::destination::State;
use super::machine::{FirstStep, Timer};
use super::record::encode_item;
use crate::broker::Inconsistency;
use crate::wire::first_step::Hold;

impl FirstStep {
    /// Checks the invariants. For simulations and tests.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn check(&self) -> Result<(), Inconsistency> {
        let ensure = |holds: bool, what| if holds { Ok(()) } else { Err(Inconsistency(what)) };
        let (mut held, mut immediate, mut timers) = (0, 0, 0);
        for (number, client) in &self.clients {
            ensure(self.tokens.get(&client.token) == Some(number), "a client without its token")?;
            ensure(self.destinations.contains_key(&client.destination), "a client without its destination")?;
            for (correlation, item) in &client.items {
                if item.options.hold == Hold::Never {
                    immediate += 1;
                    ensure(item.body.is_some(), "a command in memory without its body")?;
                } else {
                    held += 1;
                    ensure(item.body.is_none(), "a body in storage and in memory")?;
                }
                let on_its_way = matches!(item.state, ItemState::Reading | ItemState::Sent);
                ensure(
                    on_its_way == (client.busy == Some(*correlation)),
                    "two commands of a client at once",
                )?;
                let waits = client.due.contains(correlation)
                    || client.scheduled.contains(&(item.not_before, *correlation));
                ensure(waits == (item.state == ItemState::Waiting), "a command that waits for nothing")?;
                ensure(*correlation <= client.newest, "a number beyond the newest")?;
            }
            let named = client.due.len() + client.scheduled.len() + client.finals.len();
            ensure(named <= client.items.len(), "a command that is gone waits")?;
            if let Some(at) = client.timer {
                timers += 1;
                ensure(self.timers.contains(&(at, Timer::Client(*number))), "a timer that nobody waits for")?;
            }
        }
        ensure(held == self.held, "the number of held commands")?;
        ensure(immediate == self.immediate, "the number of commands in memory")?;
        ensure(self.tokens.len() == self.clients.len(), "the number of tokens")?;
        for (number, there) in &self.destinations {
            ensure(self.addresses.get(&there.hash) == Some(number), "a destination without its address")?;
            if let Some(at) = there.timer {
                timers += 1;
                let timer = Timer::Destination(*number);
                ensure(self.timers.contains(&(at, timer)), "a timer that nobody waits for")?;
            }
            let waits_for_ever =
                matches!(there.state, State::Connecting { .. } | State::Asking | State::Ready);
            ensure(there.timer.is_some() || !waits_for_ever, "a destination may take forever")?;
            ensure(there.load() <= self.config.limits.outstanding, "too much on its way to a destination")?;
        }
        for number in &self.failed {
            let known = self.destinations.get(number);
            ensure(
                known.is_some_and(|there| there.retry_at.is_some() || there.is_in_use()),
                "a failure of nobody",
            )?;
        }
        ensure(self.addresses.len() == self.destinations.len(), "the number of addresses")?;
        ensure(timers == self.timers.len(), "a timer of nobody")?;
        ensure(self.turns.iter().all(crate::proxy::Turns::is_consistent), "the turns of dials")
    }

    /// A digest of everything that decides what this relay does next: equal for equal inputs.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let mut number = |number: usize| digest.update(number.to_be_bytes());
        for count in [self.users.len(), self.held, self.actions.len(), self.storage.len(), self.pending.len()]
        {
            number(count);
        }
        digest.update(self.next.to_be_bytes());
        for (user, known) in &self.users {
            digest.update(user.0.to_be_bytes());
            digest.update(known.outgoing.len().to_be_bytes());
            for (relay, (client, key)) in &known.registrations {
                digest.update(relay.0.to_be_bytes());
                digest.update(client.0.to_be_bytes());
                digest.update(key.0.to_be_bytes());
            }
        }
        for (number, client) in &self.clients {
            digest.update(number.0.to_be_bytes());
            digest.update(client.token);
            digest.update(client.newest.0.to_be_bytes());
            for (correlation, item) in &client.items {
                digest.update(correlation.0.to_be_bytes());
                digest.update(encode_item(item));
                digest.update(item.retry_at.as_micros().to_be_bytes());
            }
        }
        for (number, there) in &self.destinations {
            digest.update(number.0.to_be_bytes());
            digest.update(there.hash);
            digest.update(there.load().to_be_bytes());
            digest.update(there.line.len().to_be_bytes());
        }
        for (at, _) in &self.timers {
            digest.update(at.as_micros().to_be_bytes());
        }
        digest.finalize().into()
    }
}
