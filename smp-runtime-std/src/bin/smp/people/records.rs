//! What the messenger keeps beside the agent's records: who I am, whom I know, and what was said.
//!
//! Each record is JSON under a name of its own, encrypted with the agent's. What was said is bounded: of each contact the
//! last [`LONGEST_HISTORY`] messages.

use std::collections::{BTreeMap, VecDeque};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::exchange::{Proxy, ProxyHold, Share};
use crate::failure::{Failure, Kind};

/// How many messages of one contact are kept.
pub(crate) const LONGEST_HISTORY: usize = 500;

/// Names a contact; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct ContactId(pub(crate) u64);

/// Who I am, and how this program is to behave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// My name, as contacts see it.
    pub(crate) name: Option<String>,
    /// The relay of my queues, with its password.
    pub(crate) relay: Option<String>,
    /// When messages go through my relay.
    #[serde(default)]
    pub(crate) proxy: Proxy,
    /// Whether they go straight when it cannot bring them.
    #[serde(default)]
    pub(crate) proxy_fallback: bool,
    /// For how long it holds them otherwise.
    #[serde(default)]
    pub(crate) proxy_hold: ProxyHold,
    /// Who shares connections to relays.
    #[serde(default)]
    pub(crate) share: Share,
    /// My contact address, by the agent's number.
    pub(crate) address: Option<u64>,
    /// Whether everybody who uses the address is accepted.
    pub(crate) accept_everybody: bool,
    /// The number of the next contact.
    pub(crate) next_contact: u64,
}

/// Somebody I know, or an invitation that I gave out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contact {
    /// My name for them.
    pub(crate) name: String,
    /// Whether I chose the name; otherwise it is what they call themselves.
    pub(crate) chosen: bool,
    /// The agent's number of the connection.
    pub(crate) connection: u64,
    /// Why there will be no connection.
    pub(crate) failure: Option<String>,
    /// The number of the next message in the history.
    pub(crate) next_message: u64,
}

/// How far a message is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// Mine: waits to be sent.
    Waiting,
    /// Mine: my relay has it, and tries to bring it to the contact's.
    Held {
        /// How often it was tried.
        attempts: u16,
        /// When it is tried next, in seconds since 1970.
        next: i64,
    },
    /// Mine: the contact's relay has it.
    Sent,
    /// Mine: the contact's device has it.
    Delivered,
    /// Mine: it will not be sent.
    Failed(String),
    /// Theirs: not shown yet.
    New,
    /// Theirs: shown.
    Shown,
}

impl Progress {
    /// How far it is, for comparison.
    const fn rank(&self) -> u8 {
        match self {
            Self::Waiting => 0,
            Self::Held { .. } => 1,
            Self::Sent | Self::Failed(_) => 2,
            Self::Delivered | Self::New | Self::Shown => 3,
        }
    }
}

/// Something that was said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The number that the agent, or the contact's agent, gave it.
    pub(crate) number: i64,
    /// When, in seconds since 1970.
    pub(crate) time: i64,
    /// What.
    pub(crate) text: String,
    /// How far it is.
    pub(crate) progress: Progress,
    /// Mine: whether it went through my relay, so that theirs has not seen me.
    #[serde(default)]
    pub(crate) proxied: bool,
}

impl Said {
    /// Whether I said it.
    pub(crate) const fn is_mine(&self) -> bool {
        !matches!(self.progress, Progress::New | Progress::Shown)
    }
}

/// All records, in memory.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) settings: Settings,
    pub(crate) contacts: BTreeMap<ContactId, Contact>,
    pub(crate) history: BTreeMap<ContactId, VecDeque<(u64, Said)>>,
}

/// A record to be written: its name, and its content unless it is to be forgotten.
pub(crate) type Written = (Vec<u8>, Option<Zeroizing<Vec<u8>>>);

const SETTINGS: &str = "settings";

fn contact_name(id: ContactId) -> String {
    format!("contact/{}", id.0)
}

fn message_name(id: ContactId, message: u64) -> String {
    format!("message/{}/{message}", id.0)
}

fn content(value: &impl Serialize) -> Option<Zeroizing<Vec<u8>>> {
    // These are plain structs with names as keys: JSON can hold them.
    Some(Zeroizing::new(serde_json::to_vec(value).unwrap_or_default()))
}

impl Records {
    /// Reads what was kept.
    pub(crate) fn read(kept: Vec<(Vec<u8>, Zeroizing<Vec<u8>>)>) -> Result<Self, Failure> {
        let mut records = Self::default();
        for (name, content) in kept {
            let name = String::from_utf8(name).unwrap_or_default();
            let mut parts = name.split('/');
            let number = |parts: &mut std::str::Split<'_, char>| parts.next()?.parse().ok();
            match parts.next() {
                Some(SETTINGS) => records.settings = decode(&content)?,
                Some("contact") => {
                    let id = number(&mut parts).ok_or_else(unknown)?;
                    records.contacts.insert(ContactId(id), decode(&content)?);
                }
                Some("message") => {
                    let id = number(&mut parts).ok_or_else(unknown)?;
                    let message = number(&mut parts).ok_or_else(unknown)?;
                    let said = decode(&content)?;
                    records.history.entry(ContactId(id)).or_default().push_back((message, said));
                }
                _ => return Err(unknown()),
            }
        }
        for history in records.history.values_mut() {
            history.make_contiguous().sort_by_key(|(message, _)| *message);
        }
        Ok(records)
    }

    /// The settings as they are now.
    pub(crate) fn written_settings(&self) -> Written {
        (SETTINGS.into(), content(&self.settings))
    }

    /// A contact as it is now.
    pub(crate) fn written_contact(&self, id: ContactId) -> Written {
        (contact_name(id).into_bytes(), self.contacts.get(&id).and_then(content))
    }

    /// A message as it is now.
    pub(crate) fn written_message(&self, id: ContactId, message: u64) -> Written {
        let said =
            self.history.get(&id).and_then(|history| history.iter().find(|(number, _)| *number == message));
        (message_name(id, message).into_bytes(), said.and_then(|(_, said)| content(said)))
    }

    /// The contact of this name.
    pub(crate) fn contact(&self, name: &str) -> Result<ContactId, Failure> {
        self.contacts.iter().find(|(_, contact)| contact.name == name).map(|(id, _)| *id).ok_or_else(|| {
            Failure::new(Kind::Usage, format!("there is no contact `{name}`"))
                .advise("`smp contacts` shows whom you know; `smp invite` and `smp connect` bring more")
        })
    }

    /// The contact of a connection.
    pub(crate) fn contact_of(&self, connection: u64) -> Option<ContactId> {
        self.contacts.iter().find(|(_, contact)| contact.connection == connection).map(|(id, _)| *id)
    }

    /// `wish`, or, when somebody else has that name, `wish_2` and so on.
    pub(crate) fn free_name(&self, wish: &str, except: Option<ContactId>) -> String {
        let taken = |name: &str| {
            self.contacts.iter().any(|(id, contact)| contact.name == name && Some(*id) != except)
        };
        let numbered = (2_u32..).map(|number| format!("{wish}_{number}"));
        std::iter::once(wish.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
    }

    /// Adds a message, and says what is to be written: with it, the contact, and one that is forgotten.
    pub(crate) fn add(&mut self, id: ContactId, said: Said) -> (u64, Vec<Written>) {
        let Some(contact) = self.contacts.get_mut(&id) else { return (0, Vec::new()) };
        let message = contact.next_message;
        contact.next_message += 1;
        let history = self.history.entry(id).or_default();
        history.push_back((message, said));
        let forgotten =
            (history.len() > LONGEST_HISTORY).then(|| history.pop_front()).flatten().map(|(old, _)| old);
        let mut written = vec![self.written_contact(id), self.written_message(id, message)];
        written.extend(forgotten.map(|old| self.written_message(id, old)));
        (message, written)
    }

    /// Changes how far a message of mine is, found by the agent's number. It never goes back: news of my relay may come after
    /// those of the contact.
    pub(crate) fn progress(
        &mut self,
        id: ContactId,
        number: i64,
        progress: Progress,
        proxied: bool,
    ) -> Option<u64> {
        let history = self.history.get_mut(&id)?;
        let (message, said) =
            history.iter_mut().rev().find(|(_, said)| said.is_mine() && said.number == number)?;
        if said.progress.rank() <= progress.rank() {
            said.progress = progress;
        }
        said.proxied |= proxied;
        Some(*message)
    }

    /// Forgets a contact and all that was said.
    pub(crate) fn forget(&mut self, id: ContactId) -> Vec<Written> {
        self.contacts.remove(&id);
        let messages: Vec<u64> =
            self.history.remove(&id).into_iter().flatten().map(|(message, _)| message).collect();
        let mut written = vec![self.written_contact(id)];
        written.extend(messages.into_iter().map(|message| self.written_message(id, message)));
        written
    }
}

fn unknown() -> Failure {
    Failure::new(Kind::State, "the database has records of a newer release").advise("use that release")
}

fn decode<T: DeserializeOwned>(content: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(content).map_err(|error| Failure::state("a record cannot be read", error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn known(name: &str) -> Contact {
        Contact { name: name.to_owned(), chosen: true, connection: 7, failure: None, next_message: 0 }
    }

    fn said(number: i64) -> Said {
        Said { number, time: 1, text: "hi".to_owned(), progress: Progress::Waiting, proxied: false }
    }

    /// What a database would hold after these writes.
    fn apply(stored: &mut BTreeMap<Vec<u8>, Zeroizing<Vec<u8>>>, written: Vec<Written>) {
        for (name, content) in written {
            match content {
                Some(content) => drop(stored.insert(name, content)),
                None => drop(stored.remove(&name)),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_the_history_is_bounded() {
        let mut records = Records::default();
        let mut stored = BTreeMap::new();
        records.settings.name = Some("me".to_owned());
        records.contacts.insert(ContactId(3), known("bob"));
        apply(&mut stored, vec![records.written_settings(), records.written_contact(ContactId(3))]);
        for number in 0..LONGEST_HISTORY as i64 + 5 {
            let (_, written) = records.add(ContactId(3), said(number));
            apply(&mut stored, written);
        }
        let message = records.progress(ContactId(3), 9, Progress::Delivered, true).unwrap();
        apply(&mut stored, vec![records.written_message(ContactId(3), message)]);
        let held = Progress::Held { attempts: 1, next: 2 };
        records.progress(ContactId(3), 9, held, false).unwrap();
        records.progress(ContactId(3), 9, Progress::Sent, false).unwrap();
        assert_eq!(records.progress(ContactId(3), 4, Progress::Sent, false), None, "forgotten");
        assert_eq!(stored.len(), LONGEST_HISTORY + 2);
        let again = Records::read(stored.clone().into_iter().collect()).unwrap();
        assert_eq!(again.settings.name.as_deref(), Some("me"));
        assert_eq!(again.contact("bob").unwrap(), ContactId(3));
        assert_eq!(again.contact_of(7), Some(ContactId(3)));
        let numbers: Vec<_> = again.history[&ContactId(3)].iter().map(|(_, said)| said.number).collect();
        assert_eq!(numbers, (5..LONGEST_HISTORY as i64 + 5).collect::<Vec<_>>());
        assert_eq!(again.history[&ContactId(3)][4].1.progress, Progress::Delivered);
        apply(&mut stored, records.forget(ContactId(3)));
        assert_eq!(stored.len(), 1, "only the settings are left");
    }

    #[test]
    fn names_are_unique() {
        let mut records = Records::default();
        records.contacts.insert(ContactId(1), known("bob"));
        assert_eq!(records.free_name("bob", None), "bob_2");
        records.contacts.insert(ContactId(2), known("bob_2"));
        assert_eq!(records.free_name("bob", None), "bob_3");
        assert_eq!(records.free_name("bob", Some(ContactId(1))), "bob");
        assert_eq!(records.contact("eve").unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn records_of_a_newer_release_are_not_passed_over() {
        let record = |name: &str| vec![(name.as_bytes().to_vec(), Zeroizing::new(b"{}".to_vec()))];
        for name in ["group/1", "contact/x", "message/1", ""] {
            assert!(Records::read(record(name)).is_err(), "{name}");
        }
    }
}
