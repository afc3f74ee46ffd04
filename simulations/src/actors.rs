//! Who uses the relay in a simulation: for each queue a recipient, who acknowledges what comes, and a sender, who tries
//! until each of its messages is accepted. They hear only what their client machine tells them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smp_proto::client::queue::{QueueToCreate, RecipientQueue, SenderQueue};
use smp_proto::client::{Client, ClientCommand, CommandFailure, CommandId, Event, Reply};
use smp_proto::crypto::Portable;
use smp_proto::crypto::message_body::ReceivedMessage;
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::AuthSecret;
use smp_proto::time::{Duration, Now};
use smp_proto::wire::EntityId;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_proto::wire::error::SmpError;
use smp_proto::wire::identifier::Identifier;

use crate::dice::Dice;
use crate::ledger::{Attempt, Ledger};

/// After how long a refused command is tried again.
const RETRY: Duration = Duration::from_millis(400);

/// What an actor wants the world to do.
#[derive(Debug)]
pub enum Wish {
    /// To be woken after a while.
    Wake(Duration),
    /// To acknowledge this message after thinking about it.
    Acknowledge(Identifier),
    /// The queue exists: its sender may begin.
    SenderId(EntityId),
}

/// A recipient or a sender.
pub enum Actor {
    /// Creates a queue and acknowledges its messages.
    Recipient(Box<Recipient>),
    /// Sends numbered messages.
    Sender(Box<Sender>),
}

/// A recipient.
#[derive(Default)]
pub struct Recipient {
    creating: Option<(CommandId, QueueToCreate)>,
    queue: Option<RecipientQueue>,
    acknowledging: BTreeMap<CommandId, Identifier>,
    /// Messages that are markers of a full queue: they have no content.
    markers: Vec<Identifier>,
}

/// A sender.
pub struct Sender {
    queue: Option<SenderQueue>,
    key: Option<Arc<AuthSecret>>,
    securing: Option<CommandId>,
    secured: bool,
    /// Numbers that are still to be sent, with the attempt that is next.
    to_send: VecDeque<Attempt>,
    under_way: BTreeMap<CommandId, Attempt>,
    pipeline: usize,
    paused: bool,
}

fn identifier(id: &Identifier) -> Result<[u8; 24], String> {
    id.as_full().copied().ok_or_else(|| "a message id is not 24 bytes".to_owned())
}

impl Recipient {
    /// Begins, or goes on after waiting.
    pub fn act(&mut self, client: &mut Client, now: Now, entropy: &mut SeededEntropy) {
        if self.queue.is_none() && self.creating.is_none() {
            let queue = QueueToCreate::generate(entropy);
            let command = queue.command(&Portable, QueueMode::Messaging, SubscriptionMode::Subscribe, None);
            if let Ok(id) = client.submit(command, now) {
                self.creating = Some((id, queue));
            }
        }
    }

    /// Acknowledges a message.
    pub fn acknowledge(&mut self, message: &Identifier, client: &mut Client, now: Now) {
        if let Some(queue) = &self.queue
            && let Ok(id) = client.submit(queue.acknowledge(message.clone()), now)
        {
            self.acknowledging.insert(id, message.clone());
        }
    }

    /// Takes an event of its client.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn handle(
        &mut self,
        event: Event,
        client: &mut Client,
        now: Now,
        ledger: &mut Ledger,
    ) -> Result<Vec<Wish>, String> {
        match event {
            Event::Response { command, result } => self.answered(command, result, client, now, ledger),
            Event::Message { queue, id, body } => {
                if self.queue.as_ref().is_none_or(|own| own.recipient != queue) {
                    // Of a queue whose creation it never heard of.
                    return Ok(Vec::new());
                }
                self.received(&id, &body, ledger)
            }
            Event::Deleted { .. } => Err("a queue was deleted that nobody deleted".to_owned()),
            // Anything else, an answer that came too late among it, is nothing to act on.
            _ => Ok(Vec::new()),
        }
    }

    fn answered(
        &mut self,
        command: CommandId,
        result: Result<Reply, CommandFailure>,
        client: &mut Client,
        now: Now,
        ledger: &mut Ledger,
    ) -> Result<Vec<Wish>, String> {
        if let Some((_, creating)) = self.creating.take_if(|(id, _)| *id == command) {
            return match result {
                Ok(Reply::Created(created)) => {
                    let queue = creating.created(&Portable, &created);
                    let sender = queue.sender.clone();
                    // Known to the machine as subscribed, so that it subscribes again after a reconnect.
                    let _ = client.submit(queue.subscribe(), now);
                    self.queue = Some(queue);
                    Ok(vec![Wish::SenderId(sender)])
                }
                Ok(other) => Err(format!("NEW was answered {other:?}")),
                Err(failure) => {
                    tolerate(&failure, "NEW")?;
                    Ok(vec![Wish::Wake(RETRY)])
                }
            };
        }
        let Some(message) = self.acknowledging.remove(&command) else { return Ok(Vec::new()) };
        let acknowledged = |ledger: &mut Ledger, markers: &[Identifier]| {
            if !markers.contains(&message) {
                ledger.acknowledged(identifier(&message)?);
            }
            Ok::<(), String>(())
        };
        match result {
            Ok(Reply::Ok) => {
                acknowledged(ledger, &self.markers)?;
                Ok(Vec::new())
            }
            Ok(Reply::Message { id, body }) => {
                acknowledged(ledger, &self.markers)?;
                self.received(&id, &body, ledger)
            }
            Ok(other) => Err(format!("ACK was answered {other:?}")),
            // After a reconnect the message may have come, and been acknowledged, a second time.
            Err(CommandFailure::Refused(SmpError::NoMessage)) => Ok(Vec::new()),
            Err(failure) => {
                tolerate(&failure, "ACK")?;
                Ok(Vec::new())
            }
        }
    }

    fn received(&mut self, id: &Identifier, body: &Bytes, ledger: &mut Ledger) -> Result<Vec<Wish>, String> {
        let queue = self.queue.as_ref().ok_or("a message came before the queue")?;
        let mut body = body.to_vec();
        match queue
            .open(&Portable, id, &mut body)
            .map_err(|error| format!("a message cannot be opened: {error}"))?
        {
            ReceivedMessage::Message { body, .. } => ledger.delivered(identifier(id)?, body)?,
            ReceivedMessage::QuotaExceeded { .. } => {
                if !self.markers.contains(id) {
                    self.markers.push(id.clone());
                }
            }
        }
        Ok(vec![Wish::Acknowledge(id.clone())])
    }
}

impl Sender {
    /// A sender of this many messages; with `secure` it secures the queue first.
    #[must_use]
    pub fn new(messages: u32, pipeline: u32, secure: Option<AuthSecret>) -> Self {
        Self {
            queue: None,
            secured: secure.is_none(),
            key: secure.map(Arc::new),
            securing: None,
            to_send: (0..messages).map(|number| Attempt { number, attempt: 0 }).collect(),
            under_way: BTreeMap::new(),
            pipeline: pipeline as usize,
            paused: false,
        }
    }

    /// The queue exists.
    pub fn begin(&mut self, sender: EntityId) {
        if self.queue.is_none() {
            self.queue = Some(SenderQueue { sender, key: None });
        }
    }

    /// Whether every message has been accepted.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.to_send.is_empty() && self.under_way.is_empty()
    }

    /// Goes on after waiting.
    pub fn wake(&mut self) {
        self.paused = false;
    }

    /// Sends what may be sent.
    pub fn act(&mut self, client: &mut Client, now: Now, ledger: &mut Ledger) {
        let Some(queue) = &mut self.queue else { return };
        if self.paused {
            return;
        }
        if let (false, Some(key)) = (self.secured, &self.key) {
            if self.securing.is_none()
                && let Ok(id) = client.submit(queue.secure(&Portable, key), now)
            {
                self.securing = Some(id);
            }
            return;
        }
        queue.key.clone_from(&self.key);
        while self.under_way.len() < self.pipeline
            && let Some(attempt) = self.to_send.front().copied()
        {
            let command: ClientCommand = queue.send(false, Bytes::copy_from_slice(&attempt.body()));
            let Ok(id) = client.submit(command, now) else { return };
            self.to_send.pop_front();
            ledger.sent(attempt);
            self.under_way.insert(id, attempt);
        }
    }

    /// Takes an event of its client.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn handle(&mut self, event: Event, ledger: &mut Ledger) -> Result<Vec<Wish>, String> {
        let Event::Response { command, result } = event else { return Ok(Vec::new()) };
        if self.securing.take_if(|id| *id == command).is_some() {
            return match result {
                Ok(Reply::Ok) => {
                    self.secured = true;
                    Ok(Vec::new())
                }
                Ok(other) => Err(format!("SKEY was answered {other:?}")),
                Err(failure) => {
                    tolerate(&failure, "SKEY")?;
                    self.pause()
                }
            };
        }
        let Some(attempt) = self.under_way.remove(&command) else { return Ok(Vec::new()) };
        match result {
            Ok(Reply::Ok) => {
                ledger.accepted(attempt);
                Ok(Vec::new())
            }
            Ok(other) => Err(format!("SEND was answered {other:?}")),
            Err(failure) => {
                match &failure {
                    CommandFailure::Refused(SmpError::Quota) | CommandFailure::NotSent => {
                        ledger.refused(attempt)?
                    }
                    CommandFailure::Refused(_) => {
                        tolerate(&failure, "SEND")?;
                        ledger.refused(attempt)?;
                    }
                    _ => tolerate(&failure, "SEND")?,
                }
                let again = Attempt { attempt: attempt.attempt + 1, ..attempt };
                let place = self.to_send.iter().take_while(|waiting| waiting.number < again.number).count();
                self.to_send.insert(place, again);
                self.pause()
            }
        }
    }

    fn pause(&mut self) -> Result<Vec<Wish>, String> {
        self.paused = true;
        Ok(vec![Wish::Wake(RETRY)])
    }
}

/// A failure that faults explain: everything else breaks a promise.
fn tolerate(failure: &CommandFailure, command: &str) -> Result<(), String> {
    match failure {
        CommandFailure::NotSent
        | CommandFailure::OutcomeUnknown
        | CommandFailure::Refused(SmpError::Store(_)) => Ok(()),
        other => Err(format!("{command} failed: {other:?}")),
    }
}

/// A key for a sender: an authenticator's or a signature's, as the dice fall.
#[must_use]
pub fn sender_key(dice: &mut Dice, entropy: &mut SeededEntropy) -> AuthSecret {
    if dice.one_in(2) { AuthSecret::generate_x25519(entropy) } else { AuthSecret::generate_ed25519(entropy) }
}
