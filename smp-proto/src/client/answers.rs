//! What becomes of what a relay says: answers find their commands, the rest becomes events.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::sync::Arc;

use bytes::Bytes;

use super::command::{CommandBody, OwnedLinkData};
use super::event::{CommandFailure, CommandId, Event, Reply, is_final};
use super::machine::{Client, Origin, Pending, Subscription};
use super::proxied::{self, ProxiedRelay, Through};
use crate::crypto::{BoxKey, blob};
use crate::keys::X25519Public;
use crate::session::OpenedBlock;
use crate::time::Now;
use crate::wire::EntityId;
use crate::wire::command::SubscriptionMode;
use crate::wire::identifier::Identifier;
use crate::wire::response::Response;
use crate::wire::transmission::{Batch, Malformed, Transmission};

impl Client {
    /// One transmission of the relay.
    pub(super) fn answer(
        &mut self,
        response: Result<Transmission<'_, Response<'_>>, Malformed>,
        block: &OpenedBlock,
        relay_key: Option<&X25519Public>,
        now: Now,
    ) {
        match response {
            Err(malformed) => match self.command_of(&malformed.correlation) {
                Some(id) => self.finish(id, Err(CommandFailure::Unexpected)),
                None => self.push(Event::Unexpected),
            },
            Ok(Transmission { correlation, entity, content, .. }) => match self.command_of(&correlation) {
                Some(id) => self.answer_command(id, &correlation, &entity, content, (block, relay_key), now),
                None => self.answer_nobody(entity, content, block),
            },
        }
    }

    fn command_of(&self, correlation: &Identifier) -> Option<CommandId> {
        self.correlations.get(correlation.as_full()?).copied()
    }

    /// An answer with a known correlation.
    fn answer_command(
        &mut self,
        id: CommandId,
        correlation: &Identifier,
        entity: &EntityId,
        content: Response<'_>,
        (block, relay_key): (&OpenedBlock, Option<&X25519Public>),
        now: Now,
    ) {
        let Some(pending) = self.commands.get(&id) else { return };
        // Errors about the transmission itself name no entity (WIRE-FACTS 4.7).
        let fits =
            pending.command.entity == *entity || (matches!(content, Response::Error(_)) && entity.is_empty());
        let result = match content {
            _ if !fits => Err(CommandFailure::Unexpected),
            content => match (&pending.command.body, content) {
                (CommandBody::ProxyConnect { .. } | CommandBody::Forward(_), Response::Error(error)) => {
                    Err(CommandFailure::NotForwarded(error))
                }
                (
                    CommandBody::ProxyConnect { relay, .. },
                    Response::ProxySession { session, versions, chain, key },
                ) => {
                    let config = &self.config.session;
                    let shown = (&session, versions, chain, key);
                    ProxiedRelay::check(config.provider, relay, shown, config.versions, now.wall)
                        .map(|relay| Reply::ProxiedRelay(Arc::new(relay)))
                        .map_err(CommandFailure::NotTheRelay)
                }
                (CommandBody::Forward(through), Response::ProxyResponse(sealed)) => {
                    self.open_forwarded(through, pending.answer_key.as_ref(), correlation, sealed)
                }
                (body, content) => self.read_reply(body, correlation, content, block, relay_key),
            },
        };
        self.finish(id, result);
    }

    /// The answer of the relay that was asked, to a command or to what was forwarded.
    fn read_reply(
        &self,
        body: &CommandBody,
        correlation: &Identifier,
        content: Response<'_>,
        block: &OpenedBlock,
        relay_key: Option<&X25519Public>,
    ) -> Result<Reply, CommandFailure> {
        match content {
            Response::Error(error) => Err(CommandFailure::Refused(error)),
            Response::Blob(sealed) => match (body, relay_key) {
                (CommandBody::ReadBlob(secret), Some(relay_key)) => {
                    let provider = self.config.session.provider;
                    let mut sealed = sealed.to_vec();
                    blob::open_answer(provider, secret, relay_key, correlation.as_bytes(), &mut sealed)
                        .map(|blob| Reply::Blob(Bytes::copy_from_slice(blob)))
                        .map_err(|_| CommandFailure::Unexpected)
                }
                _ => Err(CommandFailure::Unexpected),
            },
            content => reply_to(body, content, block).ok_or(CommandFailure::Unexpected),
        }
    }

    /// What the destination says in a `PRES`.
    fn open_forwarded(
        &self,
        through: &Through,
        key: Option<&BoxKey>,
        correlation: &Identifier,
        sealed: &[u8],
    ) -> Result<Reply, CommandFailure> {
        let provider = self.config.session.provider;
        let block = key
            .and_then(|key| proxied::open_answer(provider, key, correlation, sealed))
            .ok_or(CommandFailure::Unexpected)?;
        let mut batch = Batch::parse(block.content()).ok_or(CommandFailure::Unexpected)?;
        let bytes = batch.next().filter(|_| batch.is_empty()).ok_or(CommandFailure::Unexpected)?;
        let answer = Transmission::decode_response(bytes, through.relay.layout())
            .map_err(|_| CommandFailure::Unexpected)?;
        let Transmission { correlation: answered, entity, content, .. } = answer;
        let is_error = matches!(content, Response::Error(_));
        let fits = answered == *correlation || (is_error && answered.is_empty());
        let about = entity == through.command.entity || (is_error && entity.is_empty());
        if !fits || !about {
            return Err(CommandFailure::Unexpected);
        }
        let relay_key = Some(through.relay.key());
        self.read_reply(&through.command.body, correlation, content, &block, relay_key)
    }

    /// What the relay says by itself, or too late.
    fn answer_nobody(&mut self, entity: EntityId, content: Response<'_>, block: &OpenedBlock) {
        let event = match content {
            // Also in answer to a command that is forgotten: a message must not get lost.
            Response::Message { id, body } => Event::Message { queue: entity, id, body: block.share(body) },
            Response::Notification { nonce, metadata } => {
                Event::Notification { notifier: entity, nonce, metadata: block.share(metadata) }
            }
            Response::End => {
                self.subscriptions.remove(&entity);
                Event::Ended { queue: entity }
            }
            Response::Deleted => {
                self.subscriptions.remove(&entity);
                Event::Deleted { queue: entity }
            }
            Response::Error(error) if !entity.is_empty() => Event::QueueError { queue: entity, error },
            _ => Event::Unexpected,
        };
        self.push(event);
    }

    /// A command has its result: the books are closed, and who wanted it is told.
    pub(super) fn finish(&mut self, id: CommandId, result: Result<Reply, CommandFailure>) {
        let Some(pending) = self.forget(id) else { return };
        match pending.origin {
            Origin::KeepAlive => {}
            Origin::Restore => self.restored(&pending, result),
            Origin::Driver => {
                if let Ok(reply) = &result {
                    self.remember(&pending, reply);
                }
                self.push(Event::Response { command: id, result });
            }
        }
    }

    /// Keeps the list of subscriptions right.
    fn remember(&mut self, pending: &Pending, reply: &Reply) {
        let command = &pending.command;
        let Some(key) = &command.key else { return };
        let (queue, notifications) = match (&command.body, reply) {
            (CommandBody::Subscribe, Reply::Subscribed | Reply::Message { .. }) => (&command.entity, false),
            (CommandBody::SubscribeNotifications, Reply::Subscribed) => (&command.entity, true),
            (CommandBody::New(new), Reply::Created(created))
                if new.subscription == SubscriptionMode::Subscribe =>
            {
                (&created.recipient, false)
            }
            (CommandBody::Delete, Reply::Ok) => {
                self.subscriptions.remove(&command.entity);
                return;
            }
            _ => return,
        };
        if self.subscriptions.len() < self.config.limits.subscriptions
            || self.subscriptions.contains_key(queue)
        {
            self.subscriptions.insert(queue.clone(), Subscription { key: Arc::clone(key), notifications });
        } else {
            // The relay has it, but it will not outlive this connection.
            self.push(Event::SubscriptionFailed { queue: queue.clone(), failure: CommandFailure::NotSent });
        }
    }

    /// A subscription is restored, or not.
    fn restored(&mut self, pending: &Pending, result: Result<Reply, CommandFailure>) {
        let queue = pending.command.entity.clone();
        match result {
            // An old relay answers with the message that waits.
            Ok(Reply::Message { id, body }) => self.push(Event::Message { queue, id, body }),
            Ok(_) => {}
            Err(failure) => {
                if matches!(&failure, CommandFailure::Refused(error) if is_final(error)) {
                    self.subscriptions.remove(&queue);
                }
                self.push(Event::SubscriptionFailed { queue, failure });
            }
        }
    }
}

/// The reply, `None` when it is not one to this command.
fn reply_to(command: &CommandBody, content: Response<'_>, block: &OpenedBlock) -> Option<Reply> {
    Some(match (command, content) {
        (CommandBody::New(_), Response::Created(created)) => Reply::Created(Box::new(created)),
        (CommandBody::EnableNotifications(_), Response::NotifierId(ids)) => Reply::NotifierId(Box::new(ids)),
        (CommandBody::GetLink | CommandBody::SecureByLink(_), Response::Link { sender, data }) => {
            let data = OwnedLinkData { fixed: block.share(data.fixed), user: block.share(data.user) };
            Reply::Link { sender, data }
        }
        (
            CommandBody::Subscribe | CommandBody::SubscribeNotifications,
            Response::Subscribed { .. } | Response::Ok,
        ) => Reply::Subscribed,
        (
            CommandBody::Subscribe | CommandBody::Get | CommandBody::Acknowledge(_),
            Response::Message { id, body },
        ) => Reply::Message { id, body: block.share(body) },
        (CommandBody::QueueInformation, Response::Information(json)) => Reply::Information(json.to_owned()),
        (CommandBody::Ping, Response::Pong) => Reply::Pong,
        (
            CommandBody::New(_)
            | CommandBody::EnableNotifications(_)
            | CommandBody::GetLink
            | CommandBody::SecureByLink(_)
            | CommandBody::ReadBlob(_)
            | CommandBody::ProxyConnect { .. }
            | CommandBody::Forward(_)
            | CommandBody::QueueInformation
            | CommandBody::Ping,
            _,
        ) => return None,
        (_, Response::Ok) => Reply::Ok,
        _ => return None,
    })
}
