//! What the first-step relay says: each answer finds its command, or the destination's key.

use alloc::vec::Vec;

use super::command::{Holdable, NotHeld, VerifiedKey};
use super::holdings::{Asking, GRACE, HoldingEvent, Holdings, Open, QUESTIONS, Registration, Stage, Waiting};
use crate::time::{Duration, Now};
use crate::wire::first_step::{Correlation, FirstStepError, Message, Registered, RelayNumber, Transmission};

/// How often a command is said again under another number when the relay does not know it.
const RENUMBERED: u8 = 3;

impl Holdings {
    /// Takes what the first-step relay says: the content of a block. False when it makes no sense: the connection is of no
    /// use, and should be made anew after a while.
    #[must_use]
    pub fn receive(&mut self, content: &[u8], now: Now) -> bool {
        let Some(Transmission { correlation, relay, message }) = Transmission::decode(content) else {
            return false;
        };
        self.answer_by = None;
        let is_sane = match message {
            Message::Registered(registered) => self.registered(correlation, relay, &registered, now),
            Message::Response(sealed) => self.response(correlation, sealed),
            Message::Error(error) if correlation.0 >= QUESTIONS => {
                if correlation.0 == self.question && self.asking == Asking::Sent {
                    self.not_registered(NotHeld::Refused(error));
                    // With commands that are held another connection is tried, later.
                    return self.open.is_empty();
                }
                true
            }
            Message::Error(error) => {
                self.error(correlation, error, now);
                true
            }
            Message::Register(_) | Message::Forward(_) | Message::Check { .. } => false,
        };
        self.reseal();
        if self.is_waiting_for_the_relay() {
            self.answer_by = Some(now.instant + self.config.answer_timeout);
        }
        is_sane
    }

    fn registered(
        &mut self,
        correlation: Correlation,
        relay: RelayNumber,
        registered: &Registered<'_>,
        now: Now,
    ) -> bool {
        if correlation.0 != self.question || self.asking != Asking::Sent {
            return true;
        }
        let key = VerifiedKey::check(self.config.provider, &self.destination, &registered.key, now.wall);
        let key = key.and_then(|key| {
            let is_over = self.over == Some(key.number);
            if is_over { Err(NotHeld::Refused(FirstStepError::NoKey)) } else { Ok(key) }
        });
        match key {
            Ok(key) => {
                self.asking = Asking::No;
                self.ready = Some((relay, key));
                let registration = Registration { since: now.wall.0, until: key.until };
                let before = self.registered.replace(registration);
                if before.is_none_or(|before| before.until != key.until) {
                    self.has_changed();
                }
                self.events.push_back(HoldingEvent::Registered(registration));
                true
            }
            Err(because) => {
                self.ready = None;
                self.not_registered(because);
                false
            }
        }
    }

    fn response(&mut self, number: Correlation, sealed: &[u8]) -> bool {
        // Settled, and said again.
        let Some(open) = self.open.get(&number) else { return true };
        let Some(result) = open.seal.open(self.config.provider, sealed) else {
            // Only the destination could have made an answer.
            return false;
        };
        self.events.push_back(HoldingEvent::Answered { id: open.id, result });
        self.settle(number);
        true
    }

    fn error(&mut self, number: Correlation, error: FirstStepError, now: Now) {
        let key = self.ready.map(|(_, key)| key.number);
        let Some(open) = self.open.get_mut(&number) else { return };
        match error {
            FirstStepError::Held { attempts, next } => {
                let news = open.stage != Stage::Held { attempts, next };
                open.stage = Stage::Held { attempts, next };
                open.command = None;
                let id = open.id;
                if !core::mem::replace(&mut open.was_held, true) {
                    self.has_changed();
                }
                if news {
                    self.events.push_back(HoldingEvent::Held { id, attempts, next });
                }
                self.check_later(next, now);
            }
            FirstStepError::NoKey => {
                open.stage = Stage::KeyOver;
                let over = open.seal.key.number;
                self.over = Some(over);
                // What has not left under that key need not.
                for open in self.open.values_mut() {
                    if open.stage == Stage::Recorded && open.seal.key.number == over {
                        open.stage = Stage::KeyOver;
                    }
                }
                if key == Some(over) {
                    self.ready = None;
                    self.register();
                }
            }
            FirstStepError::NoRelay => {
                open.stage = match open.stage {
                    Stage::Sent => Stage::Recorded,
                    _ => Stage::Unsure,
                };
                self.ready = None;
                self.register();
            }
            FirstStepError::Unknown if open.until.saturating_add(GRACE) < now.wall.0 => {
                self.fail(number, NotHeld::Refused(error));
            }
            FirstStepError::Unknown if key != Some(open.seal.key.number) => {
                // It cannot be said again with this key.
                open.stage = Stage::KeyOver;
            }
            FirstStepError::Unknown if open.renumbered >= RENUMBERED => {
                self.fail(number, NotHeld::Refused(error));
            }
            FirstStepError::Unknown => {
                open.renumbered += 1;
                self.renumber_from(number);
            }
            error => self.fail(number, NotHeld::Refused(error)),
        }
    }

    /// The relay does not know a command: it is said again under a new number, and so is what comes after it and was not taken
    /// either.
    fn renumber_from(&mut self, number: Correlation) {
        let change = self.has_changed();
        let not_taken = |open: &Open| matches!(open.stage, Stage::Recorded | Stage::Unsure | Stage::Asked);
        let later = self.open.range(number..).filter(|(which, open)| **which == number || not_taken(open));
        let which: Vec<_> = later.map(|(which, _)| *which).collect();
        for before in which {
            if let Some(mut open) = self.open.remove(&before) {
                open.stage = Stage::Recorded;
                open.change = change;
                self.open.insert(Correlation(self.next), open);
                self.next += 1;
            }
        }
        self.acknowledging = Some((change, Self::settled_up_to(&self.open, self.next)));
    }

    fn check_later(&mut self, next: i64, now: Now) {
        let seconds = u64::try_from(next.saturating_sub(now.wall.0)).unwrap_or(0).saturating_add(1);
        let wait = Duration::from_secs(seconds).clamp(self.config.shortest_check, self.config.longest_check);
        let at = now.instant + wait;
        self.check_at = Some(self.check_at.map_or(at, |before| before.min(at)));
    }

    /// When all that is left is sealed with a key that is over, it is sealed anew, in the same order.
    pub(super) fn reseal(&mut self) {
        if self.open.is_empty() || self.open.values().any(|open| open.stage != Stage::KeyOver) {
            return;
        }
        let change = self.has_changed();
        for (_, open) in core::mem::take(&mut self.open).into_iter().rev() {
            let Open { id, seal, options, not_before, was_held, command, .. } = open;
            let expected = seal.expected.clone();
            let command = command.map(|command| Holdable { command, expected });
            let is_wanted = false;
            self.waiting.push_front(Waiting { id, command, options, not_before, was_held, is_wanted });
        }
        self.acknowledging = Some((change, Self::settled_up_to(&self.open, self.next)));
    }

    fn is_waiting_for_the_relay(&self) -> bool {
        self.asking == Asking::Sent
            || self.open.values().any(|open| matches!(open.stage, Stage::Sent | Stage::Asked))
    }
}
