//! Taking commands, to be sent now or to be held.

use alloc::boxed::Box;

use bytes::Bytes;

use super::client::{ClientNumber, Item, ItemState};
use super::machine::{FirstStep, ToClient, UserId};
use super::record::{ClientRecord, RecordKey, Write, encode_item};
use super::storing::Pending;
use crate::time::{Instant, Now};
use crate::wire::first_step::{Correlation, FirstStepError, Forward, Hold, RelayFailure, RelayNumber};

impl FirstStep {
    pub(super) fn registered(&self, user: UserId, relay: RelayNumber) -> Option<ClientNumber> {
        self.users.get(&user)?.registrations.get(&relay).map(|(client, _)| *client)
    }

    /// `F`: a command, or a question about one that was taken before.
    pub(super) fn forward(
        &mut self,
        user: UserId,
        correlation: Correlation,
        relay: RelayNumber,
        forward: &Forward<'_>,
        content: &Bytes,
        now: Now,
    ) {
        let found = self.users.get(&user).and_then(|known| known.registrations.get(&relay).copied());
        let Some((number, key_number)) = found else {
            return self.tell(user, correlation, relay, ToClient::Error(FirstStepError::NoRelay));
        };
        self.acknowledge(number, forward.acknowledged);
        let result = self.take((user, number, key_number), correlation, forward, content, now);
        if let Err(error) = result {
            self.tell(user, correlation, relay, ToClient::Error(error));
        }
    }

    fn take(
        &mut self,
        from: (UserId, ClientNumber, RelayNumber),
        correlation: Correlation,
        forward: &Forward<'_>,
        content: &Bytes,
        now: Now,
    ) -> Result<(), FirstStepError> {
        let (limits, longest) = (self.config.limits, self.config.longest_hold.as_secs());
        let (user, number, key_number) = from;
        let client = self.clients.get_mut(&number).ok_or(FirstStepError::NoRelay)?;
        if correlation <= client.newest {
            // Asked again, since the client has not heard: it is what it was.
            self.check_on(number, correlation, now);
            return Ok(());
        }
        let destination = client.destination;
        let hold = forward.options.hold;
        let not_before = now.wall.0.saturating_add(i64::from(forward.delay) * 60);
        let seconds = hold.seconds().min(longest);
        let until = not_before.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX));
        let body = content.slice_ref(forward.sealed);
        let mut item = Item {
            state: ItemState::Waiting,
            options: forward.options,
            not_before,
            until,
            attempts: 0,
            dials: 0,
            last: RelayFailure::Network,
            key_number,
            key: forward.key,
            retry_at: Instant::START,
            body: None,
        };
        if hold == Hold::Never {
            let known = self.users.get_mut(&user).ok_or(FirstStepError::NoRelay)?;
            if forward.delay > 0 {
                return Err(FirstStepError::Syntax);
            }
            if known.immediate >= limits.immediate || self.immediate >= limits.immediate_in_all {
                return Err(FirstStepError::Quota);
            }
            known.immediate += 1;
            self.immediate += 1;
            item.body = Some(body);
            client.newest = correlation;
            client.items.insert(correlation, Box::new(item));
            client.due.insert(correlation);
            self.advance(number, now);
            return Ok(());
        }
        let held_there = self.destinations.get(&destination).map_or(0, |destination| destination.held);
        let too_many = client.items.len() >= limits.held_by_client
            || held_there >= limits.held_for_destination
            || self.held >= limits.held;
        if too_many {
            return Err(FirstStepError::Quota);
        }
        client.newest = correlation;
        let record = self.client_record(number).ok_or(FirstStepError::Internal)?;
        let writes = alloc::vec![
            Write::Put(RecordKey::Client(number.0), record),
            Write::Put(RecordKey::Item(number.0, correlation), encode_item(&item)),
            Write::Put(RecordKey::Body(number.0, correlation), body),
        ];
        if let Some(known) = self.users.get_mut(&user) {
            known.storing += 1;
        }
        item.state = ItemState::Storing;
        if let Some(client) = self.clients.get_mut(&number) {
            client.is_stored = true;
            client.items.insert(correlation, Box::new(item));
        }
        self.held += 1;
        if let Some(destination) = self.destinations.get_mut(&destination) {
            destination.held += 1;
        }
        self.store(writes, Pending::Held(number, correlation, user));
        Ok(())
    }

    fn client_record(&self, number: ClientNumber) -> Option<Bytes> {
        let client = self.clients.get(&number)?;
        let address = self.destinations.get(&client.destination)?.address.clone();
        ClientRecord { token: client.token, address, newest: client.newest }.encode().ok()
    }

    /// A command is on disk, or could not be written.
    pub(super) fn is_held(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        user: UserId,
        done: bool,
        now: Now,
    ) {
        if let Some(known) = self.users.get_mut(&user) {
            known.storing = known.storing.saturating_sub(1);
        }
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(item) = client.items.get_mut(&correlation) else { return };
        if !done {
            self.tell_client(number, correlation, ToClient::Error(FirstStepError::Internal));
            self.remove_item(number, correlation);
            return;
        }
        item.state = ItemState::Waiting;
        let held = FirstStepError::Held { attempts: 0, next: item.not_before };
        client.expiry.insert((item.until, correlation));
        client.scheduled.insert((item.not_before, correlation));
        self.tell_client(number, correlation, ToClient::Error(held));
        self.advance(number, now);
    }
}
