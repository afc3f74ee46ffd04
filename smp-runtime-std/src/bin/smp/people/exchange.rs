//! What the two halves of the program say to each other: the one that has the agent, and the one in front of a person.
//!
//! Only one process can have the agent, since its keys may be used once. So whichever `smp` comes first has it, in a thread
//! of its own, and listens on a socket in the data folder; every `smp`, that one included, gives its command over such a
//! connection and prints what comes back. One JSON text a line in both directions. The folder is open to its owner only,
//! and so is the socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::records::ContactId;
use crate::failure::Failure;

/// The longest line, in bytes: more than any message needs.
const LONGEST: u64 = 1 << 20;

/// What can be asked of the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Show the contact address; make it if there is none.
    Address {
        my_name: Option<String>,
        relay: Option<String>,
        accept_everybody: Option<bool>,
        delete: bool,
        long: bool,
        qr: bool,
    },
    /// Make an invitation.
    Invite { name: Option<String>, my_name: Option<String>, relay: Option<String>, long: bool, qr: bool },
    /// Connect by a link.
    Connect { link: String, name: Option<String>, my_name: Option<String>, relay: Option<String> },
    /// List contacts and requests.
    Contacts { links: bool },
    /// Accept somebody who used the address.
    Accept { request: u64, name: Option<String> },
    /// Reject somebody who used the address.
    Reject { request: u64 },
    /// Send a message.
    Send { contact: String, text: String },
    /// Tell what happens.
    Listen { contact: Option<String>, count: Option<u64> },
    /// The same with one contact, and send what is typed.
    Chat { contact: String, history: usize },
    /// Show what was said.
    History { contact: String, count: usize },
    /// Move to another queue.
    Switch { contact: String, relay: Option<String> },
    /// Delete a contact.
    Delete { contact: String },
}

/// A command, and how it is to be carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// What is asked.
    pub(crate) request: Request,
    /// How many seconds it may take.
    pub(crate) seconds: f64,
    /// When messages go through a proxy, from now on.
    pub(crate) proxy: Option<Proxy>,
    /// Whether they go straight otherwise, from now on.
    pub(crate) proxy_fallback: Option<bool>,
    /// For how long they are held by the proxy, from now on.
    pub(crate) proxy_hold: Option<ProxyHold>,
    /// Who shares connections, from the next start on.
    pub(crate) share: Option<Share>,
}

/// Who shares connections to relays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Share {
    /// Everybody I know.
    #[default]
    All,
    /// Nobody: each contact has connections of their own.
    None,
}

/// When messages go through my relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Proxy {
    /// Always; it must be another relay than theirs.
    Always,
    /// To relays that are not mine.
    #[default]
    Unknown,
    /// To relays that are not mine and have no onion address.
    Unprotected,
    /// Never: their relays see my address.
    Never,
}

/// For how long my relay holds what it cannot bring. Weeks at first: a message that was sent should arrive although its
/// sender is gone; it is sealed for the other relay, so holding it tells mine nothing more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProxyHold {
    /// Not at all: messages wait here.
    Never,
    /// An hour.
    Hour,
    /// A day.
    Day,
    /// Three weeks.
    #[default]
    Weeks,
}

/// From the front to the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Asked {
    /// The command: first, and once.
    Do(Order),
    /// A line was typed.
    Say(String),
    /// Nothing more will be typed.
    End,
    /// A message was shown.
    Shown { contact: ContactId, message: u64 },
}

/// From the agent to the front.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    /// A result: for programs an event and its fields, for people a text.
    Result { event: String, value: Value, text: String },
    /// A message of somebody: like a result, and the agent wants to know when it was shown.
    Message { contact: ContactId, message: u64, value: Value, text: String },
    /// Worth knowing.
    Notice(String),
    /// The command is done.
    Done,
    /// The command failed.
    Failed(Failure),
}

/// One end of a connection, for writing.
#[derive(Debug)]
pub(crate) struct Writing(UnixStream);

/// One end of a connection, for reading.
#[derive(Debug)]
pub(crate) struct Reading(BufReader<UnixStream>);

/// Both directions of a connection.
pub(crate) fn ends(stream: UnixStream) -> io::Result<(Reading, Writing)> {
    Ok((Reading(BufReader::new(stream.try_clone()?)), Writing(stream)))
}

impl Writing {
    /// Writes one line.
    pub(crate) fn write(&mut self, said: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(said)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }
}

impl Reading {
    /// Reads one line; `None` at the end.
    pub(crate) fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let mut line = Vec::new();
        (&mut self.0).take(LONGEST).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn lines_arrive_whole_and_the_end_is_seen() {
        let (one, other) = UnixStream::pair().unwrap();
        let (_, mut writing) = ends(one).unwrap();
        let (mut reading, _) = ends(other).unwrap();
        writing.write(&Asked::Say("a\nb".to_owned())).unwrap();
        writing.write(&Asked::End).unwrap();
        writing.0.write_all(b"\"En").unwrap();
        drop(writing);
        assert!(matches!(reading.read().unwrap(), Some(Asked::Say(text)) if text == "a\nb"));
        assert!(matches!(reading.read().unwrap(), Some(Asked::End)));
        assert!(reading.read::<Asked>().is_err(), "a line was cut");
        assert!(reading.read::<Asked>().unwrap().is_none());
    }
}
