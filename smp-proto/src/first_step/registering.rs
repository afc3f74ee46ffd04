//! Who a client is, and where its commands go.

use subtle::ConstantTimeEq;

use super::client::{Client, ClientNumber};
use super::machine::{Asker, FirstStep, ToClient, UserId, token_hash};
use super::remembering::Published;
use crate::entropy::Entropy;
use crate::time::Now;
use crate::wire::first_step::{Correlation, FirstStepError, Register, RelayFailure, RelayNumber};

impl FirstStep {
    /// `S`: the answer comes when the destination's key is known.
    pub(super) fn register(
        &mut self,
        user: UserId,
        correlation: Correlation,
        register: Register<'_>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        if let Err(error) = self.try_register(user, correlation, register, now, entropy) {
            self.tell(user, correlation, RelayNumber(0), ToClient::Error(error));
        }
    }

    fn try_register(
        &mut self,
        user: UserId,
        correlation: Correlation,
        register: Register<'_>,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), FirstStepError> {
        let limits = self.config.limits;
        let known = self.users.get(&user).ok_or(FirstStepError::Internal)?;
        if let Some(password) = &self.config.password {
            let given = register.password.unwrap_or_default();
            if !bool::from(given.ct_eq(password.as_slice())) {
                return Err(FirstStepError::Password);
            }
        }
        let address = register.address.ok_or(FirstStepError::Syntax)?;
        if !self.config.accepts(&address) {
            return Err(FirstStepError::Address);
        }
        if known.registrations.len() >= limits.registrations {
            return Err(FirstStepError::Quota);
        }
        let token = token_hash(&register.token);
        let client = match self.tokens.get(&token) {
            Some(client) => {
                let destination = self.clients.get(client).map(|client| client.destination);
                let same = destination
                    .and_then(|destination| self.destinations.get(&destination))
                    .is_some_and(|destination| destination.address == address);
                if !same {
                    // A token is for one destination: another would show that both are one client's.
                    return Err(FirstStepError::Syntax);
                }
                *client
            }
            None => {
                let known = self.knows_destination(&address);
                if self.clients.len() >= limits.clients || !known && !self.has_room_for_destination() {
                    return Err(FirstStepError::Quota);
                }
                let destination = self.destination(&address);
                let client = ClientNumber(self.number());
                self.enter(client, Client::new(token, destination, Correlation(0)));
                client
            }
        };
        let number = loop {
            let mut bytes = [0; 4];
            entropy.fill_public(&mut bytes);
            let number = RelayNumber(u32::from_be_bytes(bytes));
            let taken = self.users.get(&user).is_some_and(|user| user.registrations.contains_key(&number));
            if number.0 != 0 && !taken {
                break number;
            }
        };
        if let Some(known) = self.users.get_mut(&user) {
            known.registrations.insert(number, (client, RelayNumber(0)));
        }
        let mut destination = None;
        if let Some(known) = self.clients.get_mut(&client) {
            known.user = Some((user, number));
            destination = Some(known.destination);
        }
        let destination = destination.ok_or(FirstStepError::Internal)?;
        let published = self.destinations.get(&destination).and_then(|there| there.latest(now));
        match published {
            Some(published) => self.is_registered(user, correlation, number, &published),
            None => {
                if let Some(there) = self.destinations.get_mut(&destination) {
                    if let Some(failure) = there.remembered_failure(now) {
                        self.not_registered(user, correlation, number, failure);
                        return Ok(());
                    }
                    there.asking.push((user, correlation, number));
                }
                self.want(destination, Asker::User(user), now);
            }
        }
        Ok(())
    }

    /// The destination's key is known.
    pub(super) fn is_registered(
        &mut self,
        user: UserId,
        correlation: Correlation,
        number: RelayNumber,
        published: &Published,
    ) {
        let Some(known) = self.users.get_mut(&user) else { return };
        let Some((_, key)) = known.registrations.get_mut(&number) else { return };
        *key = published.number;
        let what = ToClient::Registered { until: published.until, published: published.bytes.clone() };
        self.tell(user, correlation, number, what);
    }

    /// The destination's key cannot be had now.
    pub(super) fn not_registered(
        &mut self,
        user: UserId,
        correlation: Correlation,
        number: RelayNumber,
        failure: RelayFailure,
    ) {
        let Some(known) = self.users.get_mut(&user) else { return };
        let removed = known.registrations.remove(&number);
        self.tell(user, correlation, RelayNumber(0), ToClient::Error(FirstStepError::Relay(failure)));
        let Some((client, _)) = removed else { return };
        if let Some(client) = self.clients.get_mut(&client)
            && client.user == Some((user, number))
        {
            client.user = None;
        }
        self.forget_if_empty(client);
    }
}
