//! Queues of the load: made, secured, subscribed to and deleted in full blocks.

use std::collections::VecDeque;
use std::time::Instant;

use smp_proto::crypto::BoxKey;
use smp_proto::entropy::Entropy;
use smp_proto::keys::X25519Secret;
use smp_proto::session::AuthSecret;
use smp_proto::session::client::{AddError, CommandWriter};
use smp_proto::wire::command::{Command, NewQueue, Password, QueueRequest, SubscriptionMode};
use smp_proto::wire::identifier::IDENTIFIER_LENGTH;
use smp_proto::wire::response::CreatedQueue;
use smp_proto::wire::version::Version;
use smp_proto::wire::{CorrelationId, EntityId, Identifier};

use super::crew::Crew;
use super::link::{Event, Heard};
use crate::failure::{Failure, Kind};

/// The recipient's keys of a queue that is not made yet.
pub(super) struct NewKeys {
    authorization: AuthSecret,
    dh: X25519Secret,
}

/// A queue.
pub(super) struct LoadQueue {
    pub(super) recipient: EntityId,
    pub(super) sender: EntityId,
    pub(super) authorization: AuthSecret,
    dh: X25519Secret,
    relay_dh: smp_proto::keys::X25519Public,
}

impl NewKeys {
    pub(super) fn generate(entropy: &mut impl Entropy) -> Self {
        Self { authorization: AuthSecret::generate_ed25519(entropy), dh: X25519Secret::generate(entropy) }
    }

    fn created(self, ids: CreatedQueue) -> LoadQueue {
        LoadQueue {
            recipient: ids.recipient,
            sender: ids.sender,
            authorization: self.authorization,
            dh: self.dh,
            relay_dh: ids.relay_dh,
        }
    }
}

impl LoadQueue {
    /// What opens its messages. Expensive.
    pub(super) fn opens(&self, crew: &Crew<'_>) -> BoxKey {
        BoxKey::agree(crew.target.provider, &self.dh, &self.relay_dh)
    }
}

/// A correlation with a number in front; the rest is random, as it is a nonce.
pub(super) fn correlation(number: u64, entropy: &mut impl Entropy) -> CorrelationId {
    let mut bytes = [0; IDENTIFIER_LENGTH];
    entropy.fill_public(&mut bytes);
    if let Some(front) = bytes.first_chunk_mut() {
        *front = number.to_be_bytes();
    }
    bytes.into()
}

/// The number in front of a correlation.
pub(super) fn number_of(correlation: &CorrelationId) -> Option<u64> {
    Some(u64::from_be_bytes(*correlation.as_bytes().first_chunk()?))
}

/// Sends one command for each item, in blocks as full as they get, with one block under way on each connection, and
/// stops at `until` with what was sent by then. `links` says on which connection each item goes. Returns how many were
/// answered.
pub(super) fn in_batches(
    crew: &mut Crew<'_>,
    links: &[usize],
    until: Option<Instant>,
    mut add: impl FnMut(&mut CommandWriter<'_>, usize, &CorrelationId) -> Result<(), AddError>,
    mut answered: impl FnMut(usize, Event) -> Result<(), Failure>,
) -> Result<usize, Failure> {
    let mut waiting: Vec<VecDeque<usize>> = vec![VecDeque::new(); crew.links.len()];
    for (item, &link) in links.iter().enumerate() {
        if let Some(waiting) = waiting.get_mut(link) {
            waiting.push_back(item);
        }
    }
    let mut under_way = vec![0_usize; waiting.len()];
    let mut done = 0;
    let mut last_progress = Instant::now();
    loop {
        let go_on = until.is_none_or(|until| Instant::now() < until);
        for link in 0..waiting.len() {
            let (Some(items), Some(under_way)) = (waiting.get_mut(link), under_way.get_mut(link)) else {
                continue;
            };
            if !go_on {
                items.clear();
            }
            if *under_way > 0 || items.is_empty() {
                continue;
            }
            // The randomness of the block's correlations is drawn before the connection is borrowed.
            let mut seeds: VecDeque<CorrelationId> = items
                .iter()
                .take(smp_proto::wire::block::BATCH_COUNT)
                .map(|&item| correlation(item as u64, &mut crew.entropy))
                .collect();
            let mut refused = None;
            crew.send(link, |writer| {
                while let (Some(&item), Some(correlation)) = (items.front(), seeds.pop_front()) {
                    match add(writer, item, &correlation) {
                        Ok(()) => {
                            items.pop_front();
                            *under_way += 1;
                        }
                        Err(AddError::BlockFull) => break,
                        Err(error) => {
                            refused = Some(error);
                            break;
                        }
                    }
                }
            })?;
            if let Some(error) = refused {
                return Err(Failure::new(Kind::Unexpected, format!("a command cannot be sent: {error}")));
            }
        }
        if under_way.iter().all(|count| *count == 0) {
            return Ok(done);
        }
        let before = done;
        let wait = Instant::now() + crew.target.timeout;
        crew.serve(wait, 0, |_, link, event| {
            let known = number_of(&event.correlation).and_then(|number| usize::try_from(number).ok());
            let Some(item) = known.filter(|item| *item < links.len()) else { return Ok(()) };
            if let Some(under_way) = under_way.get_mut(link) {
                *under_way = under_way.saturating_sub(1);
            }
            done += 1;
            answered(item, event)
        })?;
        if done > before {
            last_progress = Instant::now();
        } else if last_progress.elapsed() > crew.target.timeout {
            return Err(Failure::new(Kind::Network, "the relay does not answer any more")
                .advise("it may be overloaded; a longer --timeout may help"));
        }
    }
}

/// An answer other than the one that was wanted.
pub(super) fn refused(what: &str, heard: &Heard) -> Failure {
    match heard {
        Heard::Error(error) => {
            let failure = Failure::new(Kind::Refused, format!("the relay answered {what} with {error}"));
            match error {
                smp_proto::wire::error::SmpError::Authorization if what == "NEW" => {
                    failure.advise("the relay may want a password: smp://FINGERPRINT:PASSWORD@HOST")
                }
                _ => failure,
            }
        }
        other => Failure::new(Kind::Unexpected, format!("the relay answered {what} with {other:?}")),
    }
}

/// What `NEW` says for these keys.
fn new_command<'a>(crew_password: Option<&'a [u8]>, parts: &Parts, subscribe: bool) -> Command<'a> {
    let subscription = if subscribe { SubscriptionMode::Subscribe } else { SubscriptionMode::CreateOnly };
    Command::New(NewQueue {
        recipient_key: parts.recipient_key,
        recipient_dh: parts.recipient_dh,
        password: crew_password.map(Password),
        subscription,
        request: Some(QueueRequest::Messaging(None)),
        notifier: None,
    })
}

/// The public parts of keys.
struct Parts {
    recipient_key: smp_proto::keys::AuthKey,
    recipient_dh: smp_proto::keys::X25519Public,
}

/// Creates one queue for each of `links`, on that connection. With `until`, there may be fewer.
pub(super) fn create(
    crew: &mut Crew<'_>,
    links: &[usize],
    keys: Vec<NewKeys>,
    subscribe: bool,
    until: Option<Instant>,
    mut progress: impl FnMut(),
) -> Result<Vec<Option<LoadQueue>>, Failure> {
    let provider = crew.target.provider;
    let password = crew.target.password.clone();
    let parts: Vec<Parts> = keys
        .iter()
        .map(|keys| Parts {
            recipient_key: keys.authorization.public(provider),
            recipient_dh: provider.x25519_public(&keys.dh),
        })
        .collect();
    let mut created: Vec<Option<CreatedQueue>> = links.iter().map(|_| None).collect();
    in_batches(
        crew,
        links,
        until,
        |writer, item, correlation| {
            let (Some(keys), Some(parts)) = (keys.get(item), parts.get(item)) else { return Ok(()) };
            let command = new_command(password.as_deref(), parts, subscribe);
            writer.add(correlation, &EntityId::EMPTY, &command, Some(&keys.authorization))
        },
        |item, event| match event.heard {
            Heard::Created(ids) => {
                if let Some(place) = created.get_mut(item) {
                    *place = Some(*ids);
                }
                progress();
                Ok(())
            }
            other => Err(refused("NEW", &other)),
        },
    )?;
    Ok(keys.into_iter().zip(created).map(|(keys, ids)| ids.map(|ids| keys.created(ids))).collect())
}

/// Sends a command without a body about each queue, on the connection that `links` names, and wants `OK`.
pub(super) fn about_each(
    crew: &mut Crew<'_>,
    what: &str,
    links: &[usize],
    queues: &[&LoadQueue],
    until: Option<Instant>,
    command: &Command<'_>,
    mut progress: impl FnMut(),
) -> Result<usize, Failure> {
    in_batches(
        crew,
        links,
        until,
        |writer, item, correlation| match queues.get(item) {
            Some(queue) => writer.add(correlation, &queue.recipient, command, Some(&queue.authorization)),
            None => Ok(()),
        },
        |_, event| match event.heard {
            Heard::Ok => {
                progress();
                Ok(())
            }
            other => Err(refused(what, &other)),
        },
    )
}

/// Secures each queue with a fresh sender's key, which is returned. From v9 the sender does it, as clients do.
pub(super) fn secure(
    crew: &mut Crew<'_>,
    recipients: &[usize],
    senders: &[usize],
    queues: &[LoadQueue],
) -> Result<Vec<AuthSecret>, Failure> {
    let provider = crew.target.provider;
    let version = crew.links.first().and_then(super::link::Link::version).unwrap_or(Version::OLDEST);
    let keys: Vec<AuthSecret> = queues
        .iter()
        .map(|_| {
            // Authenticators need the relay's key in its hello.
            if version >= Version::IMPLIED_SESSION {
                AuthSecret::generate_x25519(&mut crew.entropy)
            } else {
                AuthSecret::generate_ed25519(&mut crew.entropy)
            }
        })
        .collect();
    let by_sender = version >= Version::SECURE_BY_SENDER;
    let links = if by_sender { senders } else { recipients };
    in_batches(
        crew,
        links,
        None,
        |writer, item, correlation| {
            let (Some(queue), Some(key)) = (queues.get(item), keys.get(item)) else { return Ok(()) };
            let public = key.public(provider);
            if by_sender {
                writer.add(correlation, &queue.sender, &Command::SecureBySender(public), Some(key))
            } else {
                let command = Command::SecureByRecipient(public);
                writer.add(correlation, &queue.recipient, &command, Some(&queue.authorization))
            }
        },
        |_, event| match event.heard {
            Heard::Ok => Ok(()),
            other => Err(refused("SKEY", &other)),
        },
    )?;
    Ok(keys)
}

/// Leaves the relay as it was.
pub(super) fn delete(crew: &mut Crew<'_>, links: &[usize], queues: &[&LoadQueue]) -> Result<(), Failure> {
    about_each(crew, "DEL", links, queues, None, &Command::Delete, || ()).map(drop)
}

/// A name for maps.
pub(super) fn full(identifier: &Identifier) -> Option<[u8; IDENTIFIER_LENGTH]> {
    identifier.as_full().copied()
}
