//! What becomes of commands: answers, errors, another attempt; and what clients have heard.

use alloc::vec::Vec;

use bytes::Bytes;

use super::client::{ClientNumber, ItemState};
use super::machine::{FirstStep, ToClient};
use super::record::{RecordKey, Write, encode_item};
use super::storing::Pending;
use crate::entropy::Entropy;
use crate::time::{Instant, Now};
use crate::wire::first_step::{Correlation, FirstStepError, Hold, RelayFailure};

impl FirstStep {
    /// A command has its outcome. What is held is told when the outcome is durable.
    pub(super) fn settle(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        outcome: Result<Bytes, FirstStepError>,
        now: Now,
    ) {
        let keep = i64::try_from(self.config.keep_answers.as_secs()).unwrap_or(i64::MAX);
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.busy == Some(correlation) {
            client.busy = None;
        }
        let Some(item) = client.items.get_mut(&correlation) else { return };
        if item.options.hold == Hold::Never {
            let what = match outcome {
                Ok(answer) => ToClient::Response(answer),
                Err(error) => ToClient::Error(error),
            };
            self.tell_client(number, correlation, what);
            self.remove_item(number, correlation);
            self.advance(number, now);
            return;
        }
        client.due.remove(&correlation);
        client.expiry.remove(&(item.until, correlation));
        item.until = now.wall.0.saturating_add(keep);
        client.expiry.insert((item.until, correlation));
        let body = RecordKey::Body(number.0, correlation);
        let (state, answer, write) = match outcome {
            Ok(answer) => (ItemState::Answered, Some(answer.clone()), Write::Put(body, answer)),
            Err(error) => (ItemState::Failed(error), None, Write::Delete(body)),
        };
        item.state = state;
        let writes =
            alloc::vec![Write::Put(RecordKey::Item(number.0, correlation), encode_item(item)), write];
        self.store(writes, Pending::Outcome(number, correlation, answer));
        self.advance(number, now);
    }

    /// The outcome is on disk. When it could not be written it is told all the same, and cannot be asked for again: after a
    /// restart the command is sent again, and the destination knows that it came before.
    pub(super) fn outcome_is_kept(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        answer: Option<Bytes>,
        done: bool,
        now: Now,
    ) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(item) = client.items.get_mut(&correlation) else { return };
        client.finals.insert(correlation);
        let what = match (&item.state, answer) {
            (ItemState::Failed(error), _) => ToClient::Error(*error),
            (_, Some(answer)) => ToClient::Response(answer),
            (_, None) => ToClient::Error(FirstStepError::Internal),
        };
        if !done && item.state == ItemState::Answered {
            item.state = ItemState::Failed(FirstStepError::Repeated);
        }
        self.tell_client(number, correlation, what);
        self.advance(number, now);
    }

    /// A command could not be delivered now.
    pub(super) fn try_again(
        &mut self,
        number: ClientNumber,
        correlation: Correlation,
        failure: RelayFailure,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let Some(item) = client.items.get_mut(&correlation) else { return };
        item.last = failure;
        let allowed = match failure {
            RelayFailure::NotYet => item.options.while_unsecured || item.options.while_full,
            _ => true,
        };
        if item.options.hold == Hold::Never || !allowed {
            return self.settle(number, correlation, Err(FirstStepError::Relay(failure)), now);
        }
        if item.until <= now.wall.0 {
            return self.settle(number, correlation, Err(FirstStepError::Expired { last: failure }), now);
        }
        // When there is no connection the destination's own waits count, once for all its clients.
        let waits = matches!(failure, RelayFailure::NotYet | RelayFailure::Refused);
        item.retry_at = now.instant;
        if waits {
            item.retry_at = now.instant + self.config.backoff().after(u32::from(item.attempts), entropy);
        }
        item.state = ItemState::Waiting;
        if client.busy == Some(correlation) {
            client.busy = None;
        }
        client.due.insert(correlation);
        self.advance(number, now);
    }

    /// The client has these answers.
    pub(super) fn acknowledge(&mut self, number: ClientNumber, up_to: Correlation) {
        let Some(client) = self.clients.get(&number) else { return };
        let known: Vec<_> = client.finals.range(..=up_to).copied().collect();
        self.forget(number, &known);
    }

    /// Tells a client what became of a command.
    pub(super) fn check_on(&mut self, number: ClientNumber, correlation: Correlation, now: Now) {
        let Some(client) = self.clients.get(&number) else { return };
        let Some(item) = client.items.get(&correlation) else {
            return self.tell_client(number, correlation, ToClient::Error(FirstStepError::Unknown));
        };
        let error = match &item.state {
            ItemState::Answered if client.finals.contains(&correlation) => {
                let body = RecordKey::Body(number.0, correlation);
                return self.read_record(body, Pending::Answer(number, correlation));
            }
            ItemState::Failed(error) if client.finals.contains(&correlation) => *error,
            // It is told when it is durable.
            ItemState::Storing => return,
            _ => {
                let there = self.destinations.get(&client.destination);
                let dialled = there.and_then(|there| there.dialled_again()).unwrap_or(Instant::START);
                let wait = item.retry_at.max(dialled).saturating_since(now.instant).as_secs();
                let retry = now.wall.0.saturating_add(i64::try_from(wait).unwrap_or(i64::MAX));
                let attempts = item.attempts.saturating_add(item.dials);
                FirstStepError::Held { attempts, next: retry.max(item.not_before) }
            }
        };
        self.tell_client(number, correlation, ToClient::Error(error));
    }
}
