//! What is said to the first-step relay, and in which order.

use alloc::vec::Vec;

use super::command::{Seal, VerifiedKey};
use super::holdings::{Asking, HoldingEvent, Holdings, Open, Stage, Waiting};
use crate::entropy::Entropy;
use crate::time::Now;
use crate::wire::first_step::{Correlation, Forward, Message, Register, RelayNumber, Transmission};

/// How many commands are asked about at once: the relay's answers must find room there.
const ASKED_AT_ONCE: usize = 16;

impl Holdings {
    /// Gives numbers and keys to commands that wait, if those before them do not forbid it.
    fn admit(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) {
        let Some((_, key)) = self.ready else { return };
        if key.until <= now.wall.0 {
            self.ready = None;
            self.register();
            return;
        }
        let same_key = |open: &Open| open.seal.key.number == key.number && open.stage != Stage::KeyOver;
        while self.open.values().all(same_key)
            && let Some(waiting) = self.waiting.front_mut()
        {
            let Some(holdable) = waiting.command.take() else {
                if !core::mem::replace(&mut waiting.is_wanted, true) {
                    self.events.push_back(HoldingEvent::Wanted { id: waiting.id });
                }
                return;
            };
            let Some(Waiting { id, options, not_before, was_held, .. }) = self.waiting.pop_front() else {
                return;
            };
            let seal = match Seal::draw(self.config.provider, key, &holdable, entropy) {
                Ok(seal) => seal,
                Err(because) => {
                    self.events.push_back(HoldingEvent::Failed { id, because, was_held });
                    continue;
                }
            };
            let change = self.has_changed();
            let start = now.wall.0.max(not_before);
            let hold = i64::try_from(options.hold.seconds()).unwrap_or(i64::MAX);
            let open = Open {
                id,
                seal,
                options,
                not_before,
                until: start.saturating_add(hold),
                was_held,
                stage: Stage::Recorded,
                command: Some(holdable.command),
                change,
                is_wanted: false,
                renumbered: 0,
            };
            self.open.insert(Correlation(self.next), open);
            self.next += 1;
        }
    }

    /// The content of the next block for the first-step relay.
    pub fn poll_content(&mut self, now: Now, entropy: &mut (impl Entropy + ?Sized)) -> Option<Vec<u8>> {
        if !self.is_connected {
            return None;
        }
        if self.asking == Asking::Wanted {
            self.asking = Asking::Sent;
            self.question += 1;
            self.expect_answer(now);
            let password = self.config.password.clone();
            let register = Register {
                token: *self.token,
                address: Some(self.destination.clone()),
                password: password.as_deref(),
            };
            return content(Correlation(self.question), RelayNumber(0), Message::Register(register));
        }
        self.admit(now, entropy);
        let (relay, key) = self.ready?;
        let acknowledged = self.acknowledged;
        if let Some(number) = self.next_question(now) {
            self.said = acknowledged;
            self.expect_answer(now);
            return content(number, relay, Message::Check { acknowledged });
        }
        if let Some(forward) = self.next_forward(relay, key, now) {
            self.said = acknowledged;
            self.expect_answer(now);
            return Some(forward);
        }
        if self.open.is_empty() && acknowledged > self.said {
            // Its answer, that there is no such command, is passed over.
            self.said = acknowledged;
            return content(acknowledged, relay, Message::Check { acknowledged });
        }
        None
    }

    fn expect_answer(&mut self, now: Now) {
        self.answer_by = self.answer_by.or(Some(now.instant + self.config.answer_timeout));
    }

    /// A command whose fate is to be asked for.
    fn next_question(&mut self, now: Now) -> Option<Correlation> {
        let asked = self.open.values().filter(|open| open.stage == Stage::Asked).count();
        let unsure = self.open.iter_mut().find(|(_, open)| open.stage == Stage::Unsure);
        if let Some((number, open)) = unsure.filter(|_| asked < ASKED_AT_ONCE) {
            open.stage = Stage::Asked;
            return Some(*number);
        }
        if !core::mem::take(&mut self.check_is_due) {
            return None;
        }
        let mut held = self.open.iter().filter(|(_, open)| matches!(open.stage, Stage::Held { .. }));
        let number = held.next().map(|(number, _)| *number);
        if number.is_some() {
            self.check_at = Some(now.instant + self.config.longest_check);
        }
        number
    }

    /// The next command that may leave.
    fn next_forward(&mut self, relay: RelayNumber, key: VerifiedKey, now: Now) -> Option<Vec<u8>> {
        loop {
            let provider = self.config.provider;
            let (number, open) =
                self.open.iter_mut().find(|(_, open)| !matches!(open.stage, Stage::Held { .. }))?;
            let number = *number;
            if open.stage != Stage::Recorded || open.change > self.stored {
                return None;
            }
            if open.seal.key.number != key.number {
                // It never left, and cannot with this key.
                open.stage = Stage::KeyOver;
                self.reseal();
                return None;
            }
            let Some(command) = &open.command else {
                if !core::mem::replace(&mut open.is_wanted, true) {
                    self.events.push_back(HoldingEvent::Wanted { id: open.id });
                }
                return None;
            };
            match open.seal.seal(provider, command) {
                Ok(sealed) => {
                    open.stage = Stage::Sent;
                    let wait = open.not_before.saturating_sub(now.wall.0).max(0).saturating_add(59) / 60;
                    let forward = Forward {
                        options: open.options,
                        acknowledged: self.acknowledged,
                        delay: u16::try_from(wait).unwrap_or(u16::MAX),
                        key: sealed.ephemeral,
                        sealed: &*sealed.bytes,
                    };
                    return content(number, relay, Message::Forward(forward));
                }
                Err(because) => self.fail(number, because),
            }
        }
    }
}

/// The content of a block.
fn content(correlation: Correlation, relay: RelayNumber, message: Message<'_>) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    // Opaque parts have their lengths, and addresses were read from transmissions or records.
    Transmission { correlation, relay, message }.encode(&mut content).ok()?;
    Some(content)
}
