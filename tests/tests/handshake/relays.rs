//! Two relays, as small as they can be and still be the relays that agents know: queues, who may send, what waits, who is
//! subscribed, links. Encryption is real; sessions, signatures and quotas are left out.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use smp_proto::client::command::{OwnedLinkData, OwnedQueueRequest};
use smp_proto::client::{ClientCommand, CommandBody, CommandFailure, Reply};
use smp_proto::crypto::message_body::{SEALED_LENGTH, seal_message};
use smp_proto::crypto::{Nonce, Provider, SharedSecret};
use smp_proto::keys::{AuthKey, X25519Secret};
use smp_proto::time::UnixTime;
use smp_proto::wire::Identifier;
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::response::CreatedQueue;

/// An identifier of 24 bytes.
pub type Name = [u8; 24];

/// What a relay answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Answer {
    Done,
    Subscribed,
    Created(Name),
    Link(Name),
    /// `ERR AUTH`
    Refused,
    NoMessage,
    /// Nothing: the answer or the question was lost.
    Unknown,
}

/// A message on its way to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    pub queue: Name,
    pub number: u32,
    /// Which body.
    pub body: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Queue {
    host: u8,
    recipient: Name,
    sender: Name,
    recipient_key: Rc<[u8]>,
    sender_key: Option<Rc<[u8]>>,
    is_messaging: bool,
    link: Option<Name>,
    /// Number and body.
    waiting: Vec<(u32, u32)>,
    next: u32,
    subscriber: Option<u8>,
    delivered: bool,
}

/// What the relays know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Relays {
    queues: Vec<Queue>,
}

/// What happens to relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A command comes; from nobody when it comes late, by a connection that is gone.
    Asked(Option<u8>, u32),
    /// A person's connections are over. When their client makes new ones it subscribes as before.
    Over { who: u8, comes_back: bool },
}

/// What comes of it: the relays after it, their answer, and what they deliver to whom.
#[derive(Clone)]
pub struct Effect {
    pub relays: u32,
    pub answer: Answer,
    pub deliveries: Rc<[(u8, u8, Delivery)]>,
}

/// Every state of the relays, so that states of the world only name it.
pub struct Histories {
    states: Vec<Relays>,
    numbers: HashMap<Relays, u32>,
    effects: HashMap<(u32, Cause), Effect>,
}

impl Histories {
    /// Relays without queues are number 0.
    pub fn new() -> Self {
        let numbers = HashMap::from([(Relays::default(), 0)]);
        Self { states: vec![Relays::default()], numbers, effects: HashMap::new() }
    }

    pub fn happens(
        &mut self,
        archive: &mut Archive,
        provider: &dyn Provider,
        defects: Defects,
        relays: u32,
        cause: Cause,
    ) -> Effect {
        if let Some(effect) = self.effects.get(&(relays, cause)) {
            return effect.clone();
        }
        let mut state = self.states[relays as usize].clone();
        let answer = match cause {
            Cause::Asked(from, question) => state.answer(archive, provider, defects, from, question),
            Cause::Over { who, comes_back } => {
                state.connection_is_over(who, comes_back);
                Answer::Unknown
            }
        };
        let deliveries = state.deliveries().into();
        let next = u32::try_from(self.states.len()).unwrap();
        let number = *self.numbers.entry(state.clone()).or_insert_with(|| {
            self.states.push(state);
            next
        });
        let effect = Effect { relays: number, answer, deliveries };
        self.effects.insert((relays, cause), effect.clone());
        effect
    }
}

/// A command, and the relay that it is for.
struct Question {
    host: u8,
    command: ClientCommand,
    /// The public key of whoever authorized it.
    by: Option<Rc<[u8]>>,
}

/// What never changes once it is there, so that states only name it.
#[derive(Default)]
pub struct Archive {
    questions: Vec<Question>,
    known_questions: HashMap<[u8; 32], u32>,
    bodies: Vec<Bytes>,
    known_bodies: HashMap<[u8; 32], u32>,
    created: HashMap<Name, CreatedQueue>,
    delivery: HashMap<Name, SharedSecret>,
    links: HashMap<Name, (Name, OwnedLinkData)>,
}

/// What may be wrong with a relay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defects {
    /// Whoever secures a queue last has it.
    pub secures_twice: bool,
    /// A subscription brings nothing that waits already.
    pub forgets_to_redeliver: bool,
}

fn name(parts: &[&[u8]]) -> Name {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()[..24].try_into().unwrap()
}

fn full(identifier: &Identifier) -> Name {
    *identifier.as_full().expect("24 bytes")
}

impl Archive {
    /// The number of a command: the same for the same command.
    pub fn question(&mut self, provider: &dyn Provider, host: u8, command: ClientCommand) -> u32 {
        let mut digest = Sha256::new();
        digest.update([host]);
        let mut put = |bytes: &[u8]| {
            digest.update(bytes.len().to_be_bytes());
            digest.update(bytes);
        };
        put(command.entity.as_bytes());
        let by: Option<Rc<[u8]>> = command.key.as_ref().map(|key| bytes(&key.public(provider)));
        put(by.as_deref().unwrap_or_default());
        match &command.body {
            CommandBody::New(new) => {
                put(b"NEW");
                put(&new.recipient_key.to_der());
                put(&new.recipient_dh.0);
            }
            CommandBody::Subscribe => put(b"SUB"),
            CommandBody::SecureByRecipient(key) => {
                put(b"KEY");
                put(&key.to_der());
            }
            CommandBody::SecureBySender(key) => {
                put(b"SKEY");
                put(&key.to_der());
            }
            CommandBody::SecureByLink(key) => {
                put(b"LKEY");
                put(&key.to_der());
            }
            CommandBody::GetLink => put(b"LGET"),
            CommandBody::Acknowledge(message) => {
                put(b"ACK");
                put(message.as_bytes());
            }
            CommandBody::Send { notification, body } => {
                put(b"SEND");
                put(&[u8::from(*notification)]);
                put(body);
            }
            CommandBody::Delete => put(b"DEL"),
            other => panic!("agents do not say this when they connect: {other:?}"),
        }
        let next = u32::try_from(self.questions.len()).unwrap();
        *self.known_questions.entry(digest.finalize().into()).or_insert_with(|| {
            self.questions.push(Question { host, command, by });
            next
        })
    }

    pub fn command(&self, question: u32) -> &ClientCommand {
        &self.questions[question as usize].command
    }

    pub fn host(&self, question: u32) -> u8 {
        self.questions[question as usize].host
    }

    /// Whether it means the same in another session, and later.
    pub fn may_come_late(&self, question: u32) -> bool {
        !matches!(self.command(question).body, CommandBody::Subscribe | CommandBody::Acknowledge(_))
    }

    fn body(&mut self, body: &Bytes) -> u32 {
        let next = u32::try_from(self.bodies.len()).unwrap();
        *self.known_bodies.entry(Sha256::digest(body).into()).or_insert_with(|| {
            self.bodies.push(body.clone());
            next
        })
    }

    /// An answer, as a client reports it.
    pub fn reply(&self, answer: Answer) -> Result<Reply, CommandFailure> {
        Ok(match answer {
            Answer::Done => Reply::Ok,
            Answer::Subscribed => Reply::Subscribed,
            Answer::Created(queue) => Reply::Created(Box::new(self.created[&queue].clone())),
            Answer::Link(link) => {
                let (sender, data) = self.links[&link].clone();
                Reply::Link { sender: sender.into(), data }
            }
            Answer::Refused => return Err(CommandFailure::Refused(SmpError::Authorization)),
            Answer::NoMessage => return Err(CommandFailure::Refused(SmpError::NoMessage)),
            Answer::Unknown => return Err(CommandFailure::OutcomeUnknown),
        })
    }

    /// A message as it is delivered: its id, and what the relay has encrypted.
    pub fn delivered(&self, provider: &dyn Provider, delivery: Delivery) -> (Name, Bytes) {
        let id = message_id(&delivery.queue, delivery.number);
        let key = self.delivery[&delivery.queue].box_key();
        let body = &self.bodies[delivery.body as usize];
        let mut sealed = vec![0; SEALED_LENGTH];
        let out = sealed.as_mut_slice().try_into().unwrap();
        seal_message(provider, &key, &Nonce(id), UnixTime(1_700_000_000), true, body, out).expect("it fits");
        (id, sealed.into())
    }
}

fn message_id(queue: &Name, number: u32) -> Name {
    name(&[b"message", queue, &number.to_be_bytes()])
}

fn bytes(key: &AuthKey) -> Rc<[u8]> {
    key.to_der().to_vec().into()
}

impl Relays {
    /// What a relay does with a command; `from` is who sends it, unless it comes late, by a connection that is gone.
    fn answer(
        &mut self,
        archive: &mut Archive,
        provider: &dyn Provider,
        defects: Defects,
        from: Option<u8>,
        question: u32,
    ) -> Answer {
        let Question { host, command, by } = &archive.questions[question as usize];
        let (host, command, by) = (*host, command.clone(), by.clone());
        if let CommandBody::New(_) = &command.body {
            return self.create(archive, provider, host, from, &command);
        }
        let entity = full(&command.entity);
        match &command.body {
            CommandBody::SecureBySender(key) | CommandBody::SecureByLink(key) => {
                let by_link = matches!(command.body, CommandBody::SecureByLink(_));
                let found = self.queues.iter_mut().find(|queue| {
                    queue.host == host
                        && if by_link { queue.link == Some(entity) } else { queue.sender == entity }
                });
                let Some(queue) = found.filter(|queue| queue.is_messaging) else { return Answer::Refused };
                assert_eq!(by, Some(bytes(key)), "whoever secures a queue shows that the key is theirs");
                if !queue.secure(bytes(key), defects) {
                    return Answer::Refused;
                }
                if by_link { Answer::Link(entity) } else { Answer::Done }
            }
            CommandBody::GetLink => {
                let is_it =
                    |queue: &&Queue| queue.host == host && queue.link == Some(entity) && !queue.is_messaging;
                self.queues.iter().find(is_it).map_or(Answer::Refused, |_| Answer::Link(entity))
            }
            CommandBody::Send { body, .. } => {
                let found = self.queues.iter_mut().find(|queue| queue.host == host && queue.sender == entity);
                match found {
                    Some(queue) if queue.sender_key == by => {
                        let body = archive.body(body);
                        queue.waiting.push((queue.next, body));
                        queue.next += 1;
                        Answer::Done
                    }
                    _ => Answer::Refused,
                }
            }
            _ => self.recipient_command(&command, host, &entity, by.as_ref(), from, defects),
        }
    }

    fn recipient_command(
        &mut self,
        command: &ClientCommand,
        host: u8,
        entity: &Name,
        by: Option<&Rc<[u8]>>,
        from: Option<u8>,
        defects: Defects,
    ) -> Answer {
        let place = self.queues.iter().position(|queue| {
            queue.host == host && queue.recipient == *entity && Some(&queue.recipient_key) == by
        });
        let Some(place) = place else { return Answer::Refused };
        let queue = &mut self.queues[place];
        match &command.body {
            CommandBody::Subscribe => {
                queue.subscriber = from;
                queue.delivered = defects.forgets_to_redeliver && !queue.waiting.is_empty();
                Answer::Subscribed
            }
            CommandBody::Acknowledge(message) => match queue.waiting.first() {
                Some((number, _))
                    if queue.delivered && message_id(&queue.recipient, *number) == full(message) =>
                {
                    queue.waiting.remove(0);
                    queue.delivered = false;
                    Answer::Done
                }
                _ => Answer::NoMessage,
            },
            CommandBody::SecureByRecipient(key) => {
                if queue.secure(bytes(key), defects) {
                    Answer::Done
                } else {
                    Answer::Refused
                }
            }
            CommandBody::Delete => {
                self.queues.remove(place);
                Answer::Done
            }
            other => panic!("not known here: {other:?}"),
        }
    }

    fn create(
        &mut self,
        archive: &mut Archive,
        provider: &dyn Provider,
        host: u8,
        from: Option<u8>,
        command: &ClientCommand,
    ) -> Answer {
        let CommandBody::New(new) = &command.body else { unreachable!() };
        let key = bytes(&new.recipient_key);
        let before = self.queues.iter().filter(|queue| queue.recipient_key == key).count();
        let parts: [&[u8]; 3] = [&[host], &key, &[u8::try_from(before).unwrap()]];
        let make = |what: &[u8]| name(&[what, parts[0], parts[1], parts[2]]);
        let recipient = make(b"recipient");
        let (is_messaging, chosen) = match &new.request {
            Some(OwnedQueueRequest::Messaging(data)) => {
                (true, data.clone().map(|(sender, data)| (make(b"link"), full(&sender), data)))
            }
            Some(OwnedQueueRequest::Contact(data)) => {
                (false, data.clone().map(|(link, sender, data)| (full(&link), full(&sender), data)))
            }
            None => panic!("every agent says what a queue is for"),
        };
        let sender = chosen.as_ref().map_or_else(|| make(b"sender"), |(_, sender, _)| *sender);
        let link = chosen.as_ref().map(|(link, ..)| *link);
        if self.queues.iter().any(|queue| queue.sender == sender || (link.is_some() && queue.link == link)) {
            return Answer::Refused;
        }
        if let Some((link, sender, data)) = chosen {
            archive.links.insert(link, (sender, data));
        }
        let mut secret = [1; 32];
        secret[..24].copy_from_slice(&make(b"secret"));
        let secret = X25519Secret::from_bytes(secret);
        archive.delivery.insert(recipient, SharedSecret::agree(provider, &secret, &new.recipient_dh));
        archive.created.insert(
            recipient,
            CreatedQueue {
                recipient: recipient.into(),
                sender: sender.into(),
                relay_dh: provider.x25519_public(&secret),
                mode: Some(if is_messaging { QueueMode::Messaging } else { QueueMode::Contact }),
                link: link.map(Identifier::from),
                service: None,
                notifier: None,
            },
        );
        self.queues.push(Queue {
            host,
            recipient,
            sender,
            recipient_key: key,
            sender_key: None,
            is_messaging,
            link,
            waiting: Vec::new(),
            next: 0,
            subscriber: from,
            delivered: false,
        });
        // The order in which others were created says nothing.
        self.queues.sort_by_key(|queue| queue.recipient);
        Answer::Created(recipient)
    }

    /// What the relays deliver now, and to whom.
    fn deliveries(&mut self) -> Vec<(u8, u8, Delivery)> {
        let mut deliveries = Vec::new();
        for queue in &mut self.queues {
            if let (Some(to), false, Some((number, body))) =
                (queue.subscriber, queue.delivered, queue.waiting.first())
            {
                queue.delivered = true;
                deliveries.push((
                    to,
                    queue.host,
                    Delivery { queue: queue.recipient, number: *number, body: *body },
                ));
            }
        }
        deliveries
    }

    /// A connection is over. When the client makes a new one it subscribes as before; a program that was killed does not.
    fn connection_is_over(&mut self, who: u8, comes_back: bool) {
        for queue in self.queues.iter_mut().filter(|queue| queue.subscriber == Some(who)) {
            queue.delivered = false;
            if !comes_back {
                queue.subscriber = None;
            }
        }
    }
}

impl Queue {
    fn secure(&mut self, key: Rc<[u8]>, defects: Defects) -> bool {
        let may = self.sender_key.as_ref().is_none_or(|other| *other == key) || defects.secures_twice;
        if may {
            self.sender_key = Some(key);
        }
        may
    }
}
