//! Short links, with a relay of the test's own: it keeps what it is given, and gives what the test wants.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use smp_proto::agent::{
    AgentConfig, CommandError, ConnectionId, Connections, Event, FailedBecause, MAX_USER_DATA, RecordKey,
    TaskId, Write,
};
use smp_proto::client::command::{OwnedLinkData, OwnedQueueRequest};
use smp_proto::client::{ClientCommand, CommandBody, CommandFailure, Reply};
use smp_proto::crypto::link_data::{
    LinkDataError, LinkPart, LinkPurpose, VerifiedFixedPart, authorize_owner, seal_part,
};
use smp_proto::crypto::link_keys::LinkKey;
use smp_proto::crypto::{Nonce, Portable, Provider, ids};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{AuthKey, Ed25519Secret, X25519Public};
use smp_proto::time::{Duration, Now};
use smp_proto::wire::Identifier;
use smp_proto::wire::address::AddressWithPassword;
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::links::link_data::{FixedLinkData, OwnedLinkData as Owned};
use smp_proto::wire::links::short_link::{ShortLink, ShortLinkTarget};
use smp_proto::wire::response::CreatedQueue;
use smp_tests::sessions::NOW;

/// A queue with what is behind the link to it.
#[derive(Clone)]
struct Kept {
    sender: Identifier,
    data: OwnedLinkData,
    mode: QueueMode,
    key: Option<AuthKey>,
}

struct Agent {
    connections: Connections,
    records: BTreeMap<RecordKey, Vec<u8>>,
    events: Vec<Event>,
    /// Tags of the commands that it gave out.
    commands: Vec<&'static str>,
}

struct World {
    now: Now,
    entropy: SeededEntropy,
    kept: BTreeMap<Vec<u8>, Kept>,
    queues: u8,
    /// Relays of today know short links.
    knows_links: bool,
}

fn relay() -> AddressWithPassword {
    "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@relay.example".parse().unwrap()
}

impl World {
    fn new() -> Self {
        let entropy = SeededEntropy::new([8; 32]);
        Self { now: NOW, entropy, kept: BTreeMap::new(), queues: 0, knows_links: true }
    }

    fn answer(&mut self, command: &ClientCommand) -> Result<Reply, CommandFailure> {
        match &command.body {
            CommandBody::New(new) => {
                self.queues += 1;
                let mut sender = Identifier::from([self.queues; 24]);
                let mut link = None;
                let (mode, data) = match &new.request {
                    Some(OwnedQueueRequest::Messaging(data)) => (
                        QueueMode::Messaging,
                        data.clone().map(|(sender, data)| ([200; 24].into(), sender, data)),
                    ),
                    Some(OwnedQueueRequest::Contact(data)) => (QueueMode::Contact, data.clone()),
                    None => panic!("every agent says what a queue is for"),
                };
                if let Some((id, chosen, data)) = data.filter(|_| self.knows_links) {
                    assert_eq!(chosen, ids::sender_id(&new.correlation.expect("a correlation")).into());
                    assert_eq!((data.fixed.len(), data.user.len()), (2048, 13_824));
                    sender = chosen.clone();
                    self.kept.insert(id.as_bytes().to_vec(), Kept { sender: chosen, data, mode, key: None });
                    link = Some(id);
                }
                Ok(Reply::Created(Box::new(CreatedQueue {
                    recipient: [100 + self.queues; 24].into(),
                    sender,
                    relay_dh: X25519Public([9; 32]),
                    mode: Some(mode),
                    link,
                    service: None,
                    notifier: None,
                })))
            }
            CommandBody::SecureByLink(key) => {
                let refused = Err(CommandFailure::Refused(SmpError::Authorization));
                let Some(kept) = self.kept.get_mut(command.entity.as_bytes()) else { return refused };
                if kept.mode != QueueMode::Messaging || kept.key.is_some_and(|other| other != *key) {
                    return refused;
                }
                kept.key = Some(*key);
                Ok(Reply::Link { sender: kept.sender.clone(), data: kept.data.clone() })
            }
            CommandBody::GetLink => {
                assert!(command.key.is_none(), "reading leaves no trace");
                let kept = self.kept.get(command.entity.as_bytes());
                let kept = kept.filter(|kept| kept.mode == QueueMode::Contact);
                kept.map(|kept| Reply::Link { sender: kept.sender.clone(), data: kept.data.clone() })
                    .ok_or(CommandFailure::Refused(SmpError::Authorization))
            }
            CommandBody::Send { .. } | CommandBody::Delete => Ok(Reply::Ok),
            other => panic!("{other:?}"),
        }
    }

    /// Lets an agent go on until it has nothing to do; `lost`: the answer to its first command is.
    fn run(&mut self, agent: &mut Agent, mut lost: bool) {
        for _ in 0..100 {
            while let Some(batch) = agent.connections.poll_storage() {
                for write in batch.writes {
                    match write {
                        Write::Put(key, bytes) => agent.records.insert(key, bytes.to_vec()),
                        Write::Delete(key) => agent.records.remove(&key),
                    };
                }
                agent.connections.stored(batch.id, Ok(()), self.now, &mut self.entropy);
            }
            while let Some(event) = agent.connections.poll_event() {
                agent.events.push(event);
            }
            agent.connections.check();
            let Some(command) = agent.connections.poll_command() else {
                let Some(at) = agent.connections.next_deadline() else { return };
                self.now.instant = at;
                agent.connections.handle_timeout(self.now, &mut self.entropy);
                continue;
            };
            agent.commands.push(match &command.command.body {
                CommandBody::New(_) => "NEW",
                CommandBody::SecureByLink(_) => "LKEY",
                CommandBody::GetLink => "LGET",
                CommandBody::Send { .. } => "SEND",
                CommandBody::Delete => "DEL",
                _ => "other",
            });
            let mut answer = self.answer(&command.command);
            if std::mem::take(&mut lost) {
                answer = Err(CommandFailure::OutcomeUnknown);
            }
            let task: TaskId = command.task;
            agent.connections.answer(task, answer, self.now, &mut self.entropy);
        }
        panic!("it does not come to rest: {:?}", agent.commands);
    }

    /// Somebody's short link to an invitation or to an address.
    fn link(&mut self, agent: &mut Agent, address: bool) -> (ConnectionId, ShortLink) {
        let (now, entropy) = (self.now, &mut self.entropy);
        let made = if address {
            agent.connections.create_short_address(relay(), b"profile", now, entropy)
        } else {
            agent.connections.create_short_invitation(relay(), Some(b"Alice"), b"preferences", now, entropy)
        };
        self.run(agent, false);
        let id = made.unwrap();
        let link = agent.connections.short_link(id).expect("a short link");
        // As it goes from hand to hand.
        let read: ShortLink = link.to_string().parse().expect("a link that is read back");
        assert_eq!(read, link);
        assert_eq!(matches!(link.target, ShortLinkTarget::Contact { .. }), address);
        (id, link)
    }

    fn join(&mut self, agent: &mut Agent, link: &ShortLink, lost: bool) -> ConnectionId {
        let (now, entropy) = (self.now, &mut self.entropy);
        let id = agent.connections.join_by_short_link(link, relay(), b"Bob", now, entropy).unwrap();
        self.run(agent, lost);
        id
    }
}

impl Agent {
    fn new() -> Self {
        let connections = Connections::new(AgentConfig::new(&Portable));
        Self { connections, records: BTreeMap::new(), events: Vec::new(), commands: Vec::new() }
    }

    fn failure(&self) -> Option<&FailedBecause> {
        self.events.iter().find_map(|event| match event {
            Event::Failed { because, .. } => Some(because),
            _ => None,
        })
    }

    fn read(&self) -> Option<&[u8]> {
        self.events.iter().find_map(|event| match event {
            Event::LinkRead { user_data, .. } => Some(&user_data[..]),
            _ => None,
        })
    }
}

#[test]
fn an_invitation_is_read_and_secured_in_one_step() {
    let (mut world, mut alice) = (World::new(), Agent::new());
    let (_, link) = world.link(&mut alice, false);
    for lost in [false, true] {
        let mut bob = Agent::new();
        if lost {
            world.kept.values_mut().for_each(|kept| kept.key = None);
        }
        world.join(&mut bob, &link, lost);
        assert_eq!(bob.read(), Some(&b"preferences"[..]));
        assert_eq!(bob.commands[usize::from(lost)..], ["LKEY", "NEW", "SEND"]);
        let joined = |event: &Event| matches!(event, Event::Joined { may_send: true, .. });
        assert!(bob.events.iter().any(joined), "{:?}", bob.events);
    }
    // Who comes too late creates nothing.
    let mut carol = Agent::new();
    world.join(&mut carol, &link, false);
    assert_eq!(carol.commands, ["LKEY"]);
    assert_eq!(carol.failure(), Some(&FailedBecause::LinkGone));
    assert_eq!(carol.records.len(), 1, "only the counters are left");
}

#[test]
fn an_address_is_read_without_a_trace_and_asked() {
    let (mut world, mut alice) = (World::new(), Agent::new());
    let (_, link) = world.link(&mut alice, true);
    for _ in 0..2 {
        let mut bob = Agent::new();
        world.join(&mut bob, &link, false);
        assert_eq!(bob.read(), Some(&b"profile"[..]));
        assert_eq!(bob.commands, ["LGET", "NEW", "SEND"]);
    }
}

#[test]
fn what_a_relay_changes_swaps_cuts_or_hides_is_seen_and_nothing_is_created() {
    use FailedBecause::LinkData;
    for address in [false, true] {
        let (mut world, mut alice, mut other) = (World::new(), Agent::new(), Agent::new());
        world.link(&mut other, address);
        let foreign = world.kept.values().next().unwrap().clone();
        world.kept.clear();
        let (_, link) = world.link(&mut alice, address);
        let genuine = world.kept.values().next().unwrap().clone();
        let changed = |place: usize, fixed: bool| {
            let mut kept = genuine.clone();
            let part = if fixed { &mut kept.data.fixed } else { &mut kept.data.user };
            let mut bytes = part.to_vec();
            bytes[place] ^= 1;
            *part = Bytes::from(bytes);
            kept
        };
        let cut = |fixed: usize, user: usize| {
            let mut kept = genuine.clone();
            kept.data.fixed.truncate(fixed);
            kept.data.user.truncate(user);
            kept
        };
        let not_opened = |part| LinkData(LinkDataError::NotOpened(part));
        let with = |data: OwnedLinkData| Kept { data, ..genuine.clone() };
        let OwnedLinkData { fixed, user } = genuine.data.clone();
        let cases = [
            (changed(0, true), not_opened(LinkPart::Fixed)),
            (changed(2047, true), not_opened(LinkPart::Fixed)),
            (changed(30, false), not_opened(LinkPart::Owned)),
            (cut(2047, 13_824), not_opened(LinkPart::Fixed)),
            (cut(0, 13_824), not_opened(LinkPart::Fixed)),
            (cut(2048, 100), not_opened(LinkPart::Owned)),
            (foreign.clone(), not_opened(LinkPart::Fixed)),
            (with(OwnedLinkData { fixed, user: foreign.data.user.clone() }), not_opened(LinkPart::Owned)),
            (with(OwnedLinkData { fixed: foreign.data.fixed, user }), not_opened(LinkPart::Fixed)),
            // The data are genuine, and the relay says that they belong to another queue.
            (
                Kept { sender: [77; 24].into(), ..genuine.clone() },
                LinkData(LinkDataError::Malformed(LinkPart::Fixed)),
            ),
        ];
        let id = world.kept.keys().next().unwrap().clone();
        for (kept, expected) in cases {
            world.kept.insert(id.clone(), kept);
            let mut bob = Agent::new();
            let connection = world.join(&mut bob, &link, false);
            assert_eq!(bob.failure(), Some(&expected));
            assert_eq!(bob.commands.len(), 1, "{:?}", bob.commands);
            assert_eq!(bob.read(), None);
            assert_eq!(bob.connections.status(connection), None);
            assert_eq!(bob.records.len(), 1, "only the counters are left");
        }
        world.kept.clear();
        let mut bob = Agent::new();
        world.join(&mut bob, &link, false);
        assert_eq!(bob.failure(), Some(&FailedBecause::LinkGone));
    }
}

/// A relay that was told the link (a reader works with it, say) can encrypt what it likes. It cannot sign, and the link's key is
/// the hash of what it was made for.
#[test]
fn whoever_has_the_link_can_encrypt_and_still_cannot_lie() {
    use LinkDataError::{OtherLink, OwnerNotAuthorized, Purpose, Signature};
    let stranger = Ed25519Secret::from_bytes([66; 32]);
    for address in [false, true] {
        let (mut world, mut alice) = (World::new(), Agent::new());
        let (_, link) = world.link(&mut alice, address);
        let id = world.kept.keys().next().unwrap().clone();
        let genuine = world.kept[&id].clone();
        let purpose = LinkPurpose::of_target(&link.target);
        let key = || LinkKey::from(link.target.key());
        let fixed = VerifiedFixedPart::open(&Portable, purpose, key(), &genuine.data.fixed).unwrap();
        let owned = fixed.open_owned(&Portable, &genuine.data.user).unwrap().data().clone();
        let box_key = if address { key().contact(&Portable).1 } else { key().invitation(&Portable) };
        let seal = |part, bytes: &[u8]| {
            let sealed = seal_part(&Portable, &box_key, &stranger, part, bytes, &Nonce([3; 24]));
            Bytes::from(sealed.unwrap())
        };
        let with_fixed = |data: &FixedLinkData| {
            let mut bytes = Vec::new();
            data.encode(&mut bytes).unwrap();
            Kept {
                data: OwnedLinkData { fixed: seal(LinkPart::Fixed, &bytes), ..genuine.data.clone() },
                ..genuine.clone()
            }
        };
        let with_owned = |data: &Owned| {
            let mut bytes = Vec::new();
            data.encode(&mut bytes).unwrap();
            Kept {
                data: OwnedLinkData { user: seal(LinkPart::Owned, &bytes), ..genuine.data.clone() },
                ..genuine.clone()
            }
        };
        let versions = smp_tests::sessions::versions(2, 7);
        // Leads to somebody else: the key of the queue, or who may sign, is another.
        let mut other_key = fixed.data().clone();
        other_key.root_key = Portable.ed25519_public(&stranger);
        let mut other_version = fixed.data().clone();
        other_version.versions = smp_tests::sessions::versions(3, 7);
        let invitation = Owned::Invitation { versions, user_data: b"evil".to_vec() };
        let contact = |owners| {
            let user_data = b"evil".to_vec();
            Owned::Contact { versions, direct: true, owners, relays: Vec::new(), user_data }
        };
        let own = Portable.ed25519_public(&stranger);
        let myself = authorize_owner(&Portable, &stranger, Identifier::new(b"me").unwrap(), own);
        let mut cases = vec![
            (with_fixed(&other_key), OtherLink),
            (with_fixed(&other_version), OtherLink),
            (with_fixed(fixed.data()), Signature(LinkPart::Fixed)),
            (with_owned(&owned), Signature(LinkPart::Owned)),
        ];
        if address {
            cases.push((with_owned(&contact(Vec::new())), Signature(LinkPart::Owned)));
            cases.push((with_owned(&contact(vec![myself])), OwnerNotAuthorized(0)));
            cases.push((with_owned(&invitation), Purpose(LinkPart::Owned)));
        } else {
            cases.push((with_owned(&invitation), Signature(LinkPart::Owned)));
            cases.push((with_owned(&contact(Vec::new())), Purpose(LinkPart::Owned)));
        }
        for (kept, expected) in cases {
            world.kept.insert(id.clone(), kept);
            let mut bob = Agent::new();
            let connection = world.join(&mut bob, &link, false);
            assert_eq!(bob.failure(), Some(&FailedBecause::LinkData(expected)));
            assert!(expected.to_string().len() > 20);
            assert_eq!(bob.commands.len(), 1, "nothing else was said: {:?}", bob.commands);
            assert_eq!((bob.read(), bob.connections.status(connection)), (None, None));
            assert_eq!(bob.records.len(), 1, "only the counters are left");
        }
        // And the genuine data still lead there.
        world.kept.insert(id, genuine.clone());
        let mut bob = Agent::new();
        world.join(&mut bob, &link, false);
        assert_eq!((bob.failure(), bob.read().is_some()), (None, true));
    }
}

#[test]
fn a_relay_without_short_links_gives_the_long_one() {
    let (mut world, mut alice) = (World::new(), Agent::new());
    world.knows_links = false;
    let (now, entropy) = (world.now, &mut world.entropy);
    let id = alice.connections.create_short_invitation(relay(), None, b"preferences", now, entropy).unwrap();
    world.run(&mut alice, false);
    assert_eq!(alice.connections.short_link(id), None);
    assert!(alice.connections.link(id).is_some());
    assert!(matches!(&alice.events[..], [Event::InvitationCreated { short: None, .. }]));
}

#[test]
fn links_survive_a_restart_and_limits_hold() {
    let (mut world, mut alice) = (World::new(), Agent::new());
    let longest = vec![5; MAX_USER_DATA];
    let (now, entropy) = (world.now, &mut world.entropy);
    let too_long = vec![5; MAX_USER_DATA + 1];
    let refused = alice.connections.create_short_address(relay(), &too_long, now, entropy);
    assert_eq!(refused, Err(CommandError::TooLong));
    let id = alice.connections.create_short_address(relay(), &longest, now, entropy).unwrap();
    world.run(&mut alice, false);
    let link = alice.connections.short_link(id).expect("a short link");
    let mut bob = Agent::new();
    world.join(&mut bob, &link, false);
    assert_eq!(bob.read(), Some(&longest[..]));
    let again = Connections::restore(AgentConfig::new(&Portable), alice.records).unwrap();
    assert_eq!(again.short_link(id), Some(link.clone()));
    // Joining goes on after a crash, with the same key.
    let (mut world, mut alice, mut bob) = (World::new(), Agent::new(), Agent::new());
    let (_, link) = world.link(&mut alice, false);
    let (now, entropy) = (world.now, &mut world.entropy);
    bob.connections.join_by_short_link(&link, relay(), b"Bob", now, entropy).unwrap();
    let batch = bob.connections.poll_storage().expect("the intent comes first");
    assert!(bob.connections.poll_command().is_none(), "nothing leaves before it is durable");
    for write in batch.writes {
        if let Write::Put(key, bytes) = write {
            bob.records.insert(key, bytes.to_vec());
        }
    }
    bob.connections.stored(batch.id, Ok(()), now, &mut world.entropy);
    let command = bob.connections.poll_command().expect("LKEY").command;
    world.answer(&command).expect("it is secured, and Bob is killed");
    bob.connections = Connections::restore(AgentConfig::new(&Portable), bob.records.clone()).unwrap();
    world.now.instant = world.now.instant + Duration::from_secs(1);
    bob.connections.handle_timeout(world.now, &mut world.entropy);
    world.run(&mut bob, false);
    assert_eq!((bob.failure(), bob.read()), (None, Some(&b"preferences"[..])));
}
