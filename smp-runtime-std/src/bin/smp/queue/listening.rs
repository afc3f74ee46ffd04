//! `smp queue listen`.
//!
//! A message is acknowledged only when it is out on the standard output and its id is kept. Should the program die in
//! between, the relay delivers it again, and it is shown once at most.

use std::time::Duration;

use smp_proto::client::queue::RecipientQueue;
use smp_proto::crypto::BoxKey;
use smp_proto::crypto::envelope::{self, ClientMessage, Envelope};
use smp_proto::crypto::message_body::ReceivedMessage;
use smp_proto::keys::{AuthKey, X25519Secret};
use smp_proto::wire::Identifier;
use smp_proto::wire::error::SmpError;
use smp_runtime_std::client::{BlockingClient, ClientError, ClientEvent};
use smp_runtime_std::fast_cryptography::FAST;

use super::{Context, public};
use crate::connecting::failure_of_client;
use crate::failure::{Failure, Kind};
use crate::state::{Kept, ReceivingQueue};

/// How long one wait for an event lasts; there is another one after it.
const TURN: Duration = Duration::from_secs(60);

/// Receives until `count` messages have come, until nothing waits (`no_wait`), or for ever.
pub(super) fn run(context: &Context, name: &str, count: Option<u64>, no_wait: bool) -> Result<(), Failure> {
    let queue = context.state.queue(name)?;
    let client = context.connect(&queue.server()?, !no_wait)?;
    let handle = queue.handle();
    let mut listener = Listener { context, name, client, queue, handle, no_wait, shown: 0 };
    let enough = |shown: u64| count.is_some_and(|count| shown >= count);
    if no_wait {
        return listener.take_waiting(enough);
    }
    listener.subscribe()?;
    while !enough(listener.shown) {
        listener.turn()?;
    }
    Ok(())
}

struct Listener<'c> {
    context: &'c Context,
    name: &'c str,
    client: BlockingClient,
    queue: ReceivingQueue,
    handle: RecipientQueue,
    no_wait: bool,
    shown: u64,
}

impl Listener<'_> {
    fn gone(&self, failure: Failure) -> Failure {
        failure.advise(format!(
            "if the relay has forgotten the queue, `smp queue delete {}` removes it here, and `smp queue new` makes another",
            self.name
        ))
    }

    fn subscribe(&self) -> Result<(), Failure> {
        self.client.subscribe(&self.handle).map_err(|error| self.gone(failure_of_client("SUB", &error)))
    }

    fn take_waiting(&mut self, enough: impl Fn(u64) -> bool) -> Result<(), Failure> {
        while !enough(self.shown) {
            let got =
                self.client.get(&self.handle).map_err(|error| self.gone(failure_of_client("GET", &error)))?;
            match got {
                Some((id, body)) => self.receive(id, &body)?,
                None => break,
            }
        }
        Ok(())
    }

    fn turn(&mut self) -> Result<(), Failure> {
        let event =
            self.client.next_event(TURN).map_err(|error| self.gone(failure_of_client("waiting", &error)))?;
        match event {
            None => Ok(()),
            Some(ClientEvent::Message { queue, id, body }) if queue == self.handle.recipient => {
                self.receive(id, &body)
            }
            Some(ClientEvent::Ended { queue }) if queue == self.handle.recipient => {
                Err(Failure::new(Kind::Refused, "the queue is received from somewhere else now").advise(
                    "one program at a time can receive from a queue: end the other one, then start again",
                ))
            }
            Some(ClientEvent::Deleted { queue }) if queue == self.handle.recipient => {
                Err(Failure::new(Kind::Refused, "the queue was deleted on its relay")
                    .advise(format!("`smp queue delete {}` forgets it here", self.name)))
            }
            Some(ClientEvent::Disconnected { reason }) => {
                self.context.report.notice(&format!("connecting again: {reason}"));
                Ok(())
            }
            Some(ClientEvent::SubscriptionFailed { queue, error }) if queue == self.handle.recipient => {
                Err(self.gone(failure_of_client("SUB", &error)))
            }
            Some(ClientEvent::QueueError { queue, error }) if queue == self.handle.recipient => {
                Err(Failure::new(Kind::Refused, format!("the relay reports about the queue: {error}")))
            }
            Some(ClientEvent::Connected { .. }) => {
                self.context.report.notice("connected again");
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Shows one message, keeps that it was shown, and acknowledges it: in this order.
    fn receive(&mut self, id: Identifier, body: &[u8]) -> Result<(), Failure> {
        let seen = id.as_full().map(Kept::new);
        if seen.is_none() || self.queue.last_message != seen {
            self.show(&id, &mut body.to_vec())?;
            self.queue.last_message = seen;
            if !self.context.state.update_queue(self.name, &self.queue)? {
                return Err(Failure::new(
                    Kind::State,
                    "the queue was deleted while messages were received from it",
                ));
            }
        }
        self.acknowledge(id)
    }

    /// An acknowledgement whose answer is lost with the connection is not repeated: the message comes again, and is then
    /// only acknowledged.
    fn acknowledge(&self, id: Identifier) -> Result<(), Failure> {
        match self.client.acknowledge(&self.handle, id) {
            Err(ClientError::NoAnswer | ClientError::NotSent) if !self.no_wait => Ok(()),
            Err(ClientError::Refused(SmpError::NoMessage)) => Ok(()),
            result => result.map_err(|error| failure_of_client("ACK", &error)),
        }
    }

    fn show(&mut self, id: &Identifier, sealed: &mut [u8]) -> Result<(), Failure> {
        let report = self.context.report;
        match self.handle.open(&FAST, id, sealed) {
            Ok(ReceivedMessage::Message { timestamp, body, .. }) => match self.open(body) {
                Some((text, introduced)) => {
                    if let Some(key) = introduced {
                        self.client
                            .command(self.handle.secure(key))
                            .map_err(|error| failure_of_client("KEY", &error))?;
                    }
                    report.message(self.name, timestamp.0, &text)?;
                    self.shown += 1;
                }
                // It would come for ever if it was not acknowledged, and keep all others back.
                None => report.notice(
                    "a message was left out: it is not from the sender of this queue, or of another kind",
                ),
            },
            Ok(ReceivedMessage::QuotaExceeded { .. }) => {
                report.notice("the queue was full: its sender had to stop, and can send again now");
            }
            Err(_) => report.notice("a message was left out: the relay's encryption of it is wrong"),
        }
        Ok(())
    }

    /// The text of a message from the sender of this queue, and the key that the sender wants to be authorized with.
    fn open(&mut self, body: &[u8]) -> Option<(Vec<u8>, Option<AuthKey>)> {
        let envelope = Envelope::parse(body)?;
        let carried = envelope.header.sender.map(|key| Kept::new(&key.0));
        // The first sender is the sender: whoever else knows the queue's address cannot take that place.
        let sender = match (&self.queue.sender_dh, carried) {
            (Some(known), Some(carried)) if *known != carried => return None,
            (Some(known), _) => known.clone(),
            (None, Some(carried)) => carried,
            (None, None) => return None,
        };
        let secret = X25519Secret::from_bytes(*self.queue.end_to_end.0);
        let key = BoxKey::agree(&FAST, &secret, &public(&sender));
        let mut sealed = envelope.sealed.to_vec();
        let content =
            ClientMessage::parse(envelope::open(&FAST, &key, &envelope.header.nonce, &mut sealed).ok()?)?;
        let (_, message) = content.message.split_first_chunk::<2>()?;
        let text = message.strip_prefix(b"M")?;
        self.queue.sender_dh = Some(sender);
        Some((text.to_vec(), content.sender_auth_key))
    }
}
