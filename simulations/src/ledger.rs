//! What the peers of a simulation were promised, kept beside the system under test and knowing nothing of it.
//!
//! Each sender numbers its messages and, when it cannot know what became of one, sends it again as another *attempt*.
//! The ledger hears of every attempt, every answer, every delivery and every acknowledgement, and says which promise is
//! broken:
//!
//! - what the relay answered `OK` to is delivered in the end (judged after the network has healed);
//! - an attempt that the relay refused is never delivered;
//! - what was acknowledged, and whose acknowledgement was answered, never comes again;
//! - a message is delivered under one id, with one content, every time;
//! - within a queue, messages are first delivered in the order in which the relay accepted them.

use std::collections::{BTreeMap, BTreeSet};

/// One attempt to send one message of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt {
    /// The message's number, from 0.
    pub number: u32,
    /// Which try, from 0.
    pub attempt: u32,
}

impl Attempt {
    /// The message body that carries this attempt: 8 bytes.
    #[must_use]
    pub fn body(self) -> [u8; 8] {
        let mut body = [0; 8];
        body[..4].copy_from_slice(&self.number.to_be_bytes());
        body[4..].copy_from_slice(&self.attempt.to_be_bytes());
        body
    }

    /// Reads a body.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<Self> {
        let (number, attempt) = body.split_first_chunk()?;
        Some(Self {
            number: u32::from_be_bytes(*number),
            attempt: u32::from_be_bytes(attempt.try_into().ok()?),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Accepted,
    Refused,
}

/// The promises of one queue.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    attempts: BTreeMap<Attempt, Fate>,
    /// Accepted attempts in the order in which their `OK` came; a sender that pipelines gets them in the order of sending.
    accepted: Vec<Attempt>,
    /// Message id → what it carried, in the order of first delivery.
    delivered: BTreeMap<[u8; 24], Attempt>,
    order: Vec<Attempt>,
    /// Ids whose acknowledgement the relay answered.
    gone: BTreeSet<[u8; 24]>,
}

impl Ledger {
    /// A sender sent this attempt.
    pub fn sent(&mut self, attempt: Attempt) {
        self.attempts.insert(attempt, Fate::Unknown);
    }

    /// The relay answered `OK` to it.
    pub fn accepted(&mut self, attempt: Attempt) {
        self.attempts.insert(attempt, Fate::Accepted);
        self.accepted.push(attempt);
    }

    /// The relay answered an error to it.
    ///
    /// # Errors
    /// When it was delivered all the same.
    pub fn refused(&mut self, attempt: Attempt) -> Result<(), String> {
        self.attempts.insert(attempt, Fate::Refused);
        if self.order.contains(&attempt) {
            return Err(format!("{attempt:?} was delivered and then refused"));
        }
        Ok(())
    }

    /// The recipient got this body under this id.
    ///
    /// # Errors
    /// When a promise is broken.
    pub fn delivered(&mut self, id: [u8; 24], body: &[u8]) -> Result<(), String> {
        let attempt = Attempt::from_body(body).ok_or("a delivered body is not one that was sent")?;
        match self.attempts.get(&attempt) {
            None => return Err(format!("{attempt:?} was delivered but never sent")),
            Some(Fate::Refused) => return Err(format!("{attempt:?} was delivered although it was refused")),
            Some(Fate::Unknown | Fate::Accepted) => {}
        }
        if self.gone.contains(&id) {
            return Err(format!("{attempt:?} came again after its acknowledgement was answered"));
        }
        match self.delivered.get(&id) {
            Some(first) if *first != attempt => Err(format!("one id carried {first:?} and {attempt:?}")),
            Some(_) => Ok(()),
            None => {
                if self.order.contains(&attempt) {
                    return Err(format!("{attempt:?} was delivered under two ids"));
                }
                self.delivered.insert(id, attempt);
                self.order.push(attempt);
                Ok(())
            }
        }
    }

    /// The relay answered the acknowledgement of this id.
    pub fn acknowledged(&mut self, id: [u8; 24]) {
        self.gone.insert(id);
    }

    /// How many different message numbers were delivered.
    #[must_use]
    pub fn numbers_delivered(&self) -> usize {
        self.order.iter().map(|attempt| attempt.number).collect::<BTreeSet<_>>().len()
    }

    /// Judges the whole run, after everything had time to arrive.
    ///
    /// # Errors
    /// When something accepted never arrived, or arrived out of order.
    pub fn judge(&self) -> Result<(), String> {
        let place: BTreeMap<Attempt, usize> =
            self.order.iter().enumerate().map(|(place, a)| (*a, place)).collect();
        let mut last = None;
        for attempt in &self.accepted {
            let Some(place) = place.get(attempt) else {
                return Err(format!("{attempt:?} was accepted and never delivered"));
            };
            if last.is_some_and(|last| last > *place) {
                return Err(format!("{attempt:?} was delivered before one that was accepted earlier"));
            }
            last = Some(*place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Attempt = Attempt { number: 0, attempt: 0 };
    const SECOND: Attempt = Attempt { number: 1, attempt: 0 };

    fn two_accepted() -> Ledger {
        let mut ledger = Ledger::default();
        for attempt in [FIRST, SECOND] {
            ledger.sent(attempt);
            ledger.accepted(attempt);
        }
        ledger
    }

    #[test]
    fn a_faithful_relay_passes() {
        let mut ledger = two_accepted();
        ledger.delivered([1; 24], &FIRST.body()).unwrap();
        ledger.delivered([1; 24], &FIRST.body()).unwrap();
        ledger.acknowledged([1; 24]);
        ledger.delivered([2; 24], &SECOND.body()).unwrap();
        ledger.judge().unwrap();
    }

    #[test]
    fn loss_is_noticed() {
        let mut ledger = two_accepted();
        ledger.delivered([1; 24], &FIRST.body()).unwrap();
        ledger.judge().unwrap_err();
    }

    #[test]
    fn a_message_that_returns_is_noticed() {
        let mut ledger = two_accepted();
        ledger.delivered([1; 24], &FIRST.body()).unwrap();
        ledger.acknowledged([1; 24]);
        ledger.delivered([1; 24], &FIRST.body()).unwrap_err();
    }

    #[test]
    fn disorder_is_noticed() {
        let mut ledger = two_accepted();
        ledger.delivered([2; 24], &SECOND.body()).unwrap();
        ledger.delivered([1; 24], &FIRST.body()).unwrap();
        ledger.judge().unwrap_err();
    }

    #[test]
    fn delivery_of_the_refused_and_the_unsent_is_noticed() {
        let mut ledger = Ledger::default();
        ledger.delivered([1; 24], &FIRST.body()).unwrap_err();
        ledger.sent(FIRST);
        ledger.refused(FIRST).unwrap();
        ledger.delivered([1; 24], &FIRST.body()).unwrap_err();
    }
}
