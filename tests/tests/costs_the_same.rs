//! What a relay does not know costs it the same as what somebody may not do: counted, not timed. For every command, on the
//! id of nobody and on the id of somebody else's queue, link or blob, the relay does the same operations of cryptography, asks
//! as much of its storage, and allocates as often and as much; and says the same, in as many bytes.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smp_proto::broker::ConnectionId;
use smp_proto::client::command::{OwnedLinkData, OwnedQueueRequest};
use smp_proto::client::queue::{OwnedBlob, QueueToCreate, read_blob};
use smp_proto::client::{
    Action, Client, ClientCommand, ClientConfig, CommandBody, CommandFailure, Event, Reply,
};
use smp_proto::crypto::link_data::LinkPart;
use smp_proto::crypto::provider::Ed25519Check;
use smp_proto::crypto::{BoxKey, Forged, Nonce, Portable, Provider, SharedSecret, TAG_LENGTH, ids};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::server::{Server, ServerConfig};
use smp_proto::session::AuthSecret;
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::storage_model::StorageModel;
use smp_proto::wire::Identifier;
use smp_proto::wire::command::{NotifierKeys, QueueMode, SubscriptionMode};
use smp_proto::wire::error::SmpError;
use smp_proto::wire::response::CreatedQueue;
use smp_tests::sessions::{Certificates, NOW, facts_of, versions};

thread_local! {
    /// How often each primitive was used, and on how many bytes.
    static USED: RefCell<BTreeMap<&'static str, (usize, usize)>> = const { RefCell::new(BTreeMap::new()) };
}

fn used(what: &'static str, bytes: usize) {
    USED.with_borrow_mut(|used| {
        let entry = used.entry(what).or_default();
        entry.0 += 1;
        entry.1 += bytes;
    });
}

/// Primitives that count.
struct Counting;

fn length(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl Provider for Counting {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        used("x25519", 0);
        Portable.x25519(secret, public)
    }
    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        used("x25519_public", 0);
        Portable.x25519_public(secret)
    }
    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; TAG_LENGTH] {
        used("box_seal", text.len());
        Portable.box_seal(key, nonce, text)
    }
    fn box_open(
        &self,
        key: &BoxKey,
        nonce: &Nonce,
        tag: &[u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> Result<(), Forged> {
        used("box_open", text.len());
        Portable.box_open(key, nonce, tag, text)
    }
    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        used("sha512", length(parts));
        Portable.sha512(parts)
    }
    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        used("hkdf", output.len());
        Portable.hkdf_sha512(salt, input, info, output);
    }
    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        used("ed25519_public", 0);
        Portable.ed25519_public(secret)
    }
    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; 64] {
        used("ed25519_sign", length(message));
        Portable.ed25519_sign(secret, message)
    }
    fn ed25519_verify(&self, key: &Ed25519Public, message: &[&[u8]], signature: &[u8; 64]) -> bool {
        used("ed25519_verify", length(message));
        Portable.ed25519_verify(key, message, signature)
    }
    fn ed25519_verify_batch(&self, checks: &mut [Ed25519Check<'_>]) {
        used("ed25519_verify_batch", checks.len());
        for check in checks {
            check.valid = self.ed25519_verify(&check.key, check.message, check.signature);
        }
    }
}

/// What a command has cost the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cost {
    cryptography: BTreeMap<&'static str, (usize, usize)>,
    /// Questions and orders to storage.
    storage: usize,
    allocations: u64,
    allocated: u64,
    /// Bytes of the answer.
    answered: usize,
}

struct Relay {
    server: Server,
    storage: StorageModel,
    certificates: Certificates,
    entropy: SeededEntropy,
}

struct Peer {
    client: Client,
    connection: ConnectionId,
}

impl Relay {
    fn new() -> Self {
        let certificates = Certificates::named("ed25519");
        let mut entropy = SeededEntropy::new([1; 32]);
        let config = ServerConfig::new(certificates.relay(versions(6, 18), &Counting));
        let server = Server::new(config, &mut entropy);
        Self { server, storage: StorageModel::default(), certificates, entropy }
    }

    fn connect(&mut self, session: u8) -> Peer {
        let config = ClientSessionConfig::new(self.certificates.fingerprint.clone(), &Portable);
        let mut client = Client::new(ClientConfig::new(config));
        let id = [session; 32];
        let connection =
            self.server.connect(facts_of(&id, true, &[]), NOW, &mut self.entropy).expect("a connection");
        client.connect();
        assert_eq!(client.poll_action(), Some(Action::Dial));
        client.connected(facts_of(&id, true, &self.certificates.chain), NOW, &mut self.entropy).unwrap();
        let mut peer = Peer { client, connection };
        self.run(&mut peer);
        peer
    }

    /// Moves blocks until nothing moves; returns what the relay had to do.
    fn run(&mut self, peer: &mut Peer) -> Cost {
        let mut questions = 0;
        let mut answered = 0;
        USED.take();
        let mut memory = allocation_counter::AllocationInfo::default();
        loop {
            let sent: Vec<BytesMut> =
                std::iter::from_fn(|| peer.client.poll_block(NOW, &mut self.entropy)).collect();
            let mut received = Vec::with_capacity(8);
            let count = sent.len();
            let info = allocation_counter::measure(|| {
                for block in sent {
                    self.server.handle_block(peer.connection, block, NOW, &mut self.entropy).unwrap();
                }
                while let Some((id, action)) = self.server.poll_storage() {
                    questions += 1;
                    let completion = self.storage.apply(id, action);
                    self.storage.sync();
                    self.server.complete(completion, NOW, &mut self.entropy);
                }
                while let Some(block) = self.server.poll_block(peer.connection, NOW) {
                    received.push(block);
                }
                while self.server.poll_event().is_some() {}
            });
            memory.count_total += info.count_total;
            memory.bytes_total += info.bytes_total;
            if count == 0 && received.is_empty() {
                break;
            }
            for block in received {
                answered += block.len();
                peer.client.receive(BytesMut::from(&block[..]), NOW, &mut self.entropy).unwrap();
            }
        }
        Cost {
            cryptography: USED.take(),
            storage: questions,
            allocations: memory.count_total,
            allocated: memory.bytes_total,
            answered,
        }
    }

    fn ask(&mut self, peer: &mut Peer, command: ClientCommand) -> (Result<Reply, CommandFailure>, Cost) {
        let id = peer.client.submit(command, NOW).unwrap();
        let cost = self.run(peer);
        while let Some(event) = peer.client.poll_event() {
            if let Event::Response { command, result } = event
                && command == id
            {
                return (result, cost);
            }
        }
        panic!("no answer");
    }

    /// Creates a queue, with link data; secured with this key.
    fn queue(&mut self, mode: QueueMode, by: Option<&Arc<AuthSecret>>) -> CreatedQueue {
        let mut owner = self.connect(200);
        let queue = QueueToCreate::generate(&mut self.entropy);
        let correlation = ids::random(&mut self.entropy);
        let sender = Identifier::from(ids::sender_id(&correlation));
        let data = OwnedLinkData {
            fixed: vec![1; LinkPart::Fixed.blob_length()].into(),
            user: vec![2; LinkPart::Owned.blob_length()].into(),
        };
        let request = match mode {
            QueueMode::Messaging => OwnedQueueRequest::Messaging(Some((sender, data))),
            QueueMode::Contact => {
                let link = Identifier::from(ids::random(&mut self.entropy));
                OwnedQueueRequest::Contact(Some((link, sender, data)))
            }
        };
        let create = SubscriptionMode::CreateOnly;
        let new = queue.command_with_link(&Portable, request, correlation, create, None);
        let Ok(Reply::Created(created)) = self.ask(&mut owner, new).0 else { panic!("not created") };
        if let Some(key) = by {
            let body = CommandBody::SecureBySender(key.public(&Portable));
            let command = ClientCommand::new(created.sender.clone(), Some(Arc::clone(key)), body);
            assert_eq!(self.ask(&mut owner, command).0, Ok(Reply::Ok));
        }
        self.server.disconnect(owner.connection);
        *created
    }
}

/// A key of nobody, of each kind that authorizes.
fn strangers(entropy: &mut SeededEntropy) -> [Arc<AuthSecret>; 2] {
    [AuthSecret::generate_ed25519(entropy), AuthSecret::generate_x25519(entropy)].map(Arc::new)
}

const AUTH: Result<Reply, CommandFailure> = Err(CommandFailure::Refused(SmpError::Authorization));

/// The command is refused on all these ids, at the same cost: first, and again. A session for each id, so that none finds what
/// another has left; `body` makes the command.
fn costs_the_same(
    relay: &mut Relay,
    what: &str,
    entities: &[(&str, Identifier)],
    key: Option<&Arc<AuthSecret>>,
    body: &CommandBody,
) {
    let mut first: Option<(&str, [Cost; 2])> = None;
    for (place, (name, entity)) in entities.iter().enumerate() {
        let mut peer = relay.connect(u8::try_from(place).unwrap() + 1);
        let mut costs = Vec::new();
        // What a session remembers of the first must make no difference either.
        for _ in 0..2 {
            let command = ClientCommand::new(entity.clone(), key.cloned(), body.clone());
            let (answer, cost) = relay.ask(&mut peer, command);
            assert_eq!(answer, AUTH, "{what} on {name}");
            costs.push(cost);
        }
        relay.server.disconnect(peer.connection);
        let costs: [Cost; 2] = costs.try_into().unwrap();
        match &first {
            None => first = Some((name, costs)),
            Some((other, others)) => assert_eq!(&costs, others, "{what}: {name}, then {other}"),
        }
    }
    let (_, costs) = first.expect("at least one");
    assert!(costs[0].allocations > 0 && !costs[0].cryptography.is_empty(), "it counts: {costs:?}");
}

/// Ids of nobody, two of them: one is not like the other.
fn unknown(relay: &mut Relay) -> [(&'static str, Identifier); 2] {
    let id = |relay: &mut Relay| Identifier::from(ids::random(&mut relay.entropy));
    [("an unknown id", id(relay)), ("another unknown id", id(relay))]
}

#[test]
fn commands_of_recipients_and_notifiers() {
    let mut relay = Relay::new();
    let queue = relay.queue(QueueMode::Messaging, None);
    let contact = relay.queue(QueueMode::Contact, None);
    let [one, two] = unknown(&mut relay);
    let data = OwnedLinkData { fixed: Bytes::from_static(b"fixed"), user: Bytes::from_static(b"user") };
    for key in strangers(&mut relay.entropy) {
        let public = key.public(&Portable);
        let dh = X25519Public([5; 32]);
        let bodies = [
            ("SUB", CommandBody::Subscribe),
            ("KEY", CommandBody::SecureByRecipient(public)),
            ("RKEY", CommandBody::RecipientKeys(vec![public])),
            ("LSET", CommandBody::SetLink { link: [9; 24].into(), data: data.clone() }),
            ("LDEL", CommandBody::DeleteLink),
            ("NKEY", CommandBody::EnableNotifications(NotifierKeys { key: public, dh })),
            ("NDEL", CommandBody::DisableNotifications),
            ("GET", CommandBody::Get),
            ("ACK", CommandBody::Acknowledge([8; 24].into())),
            ("OFF", CommandBody::Suspend),
            ("DEL", CommandBody::Delete),
            ("QUE", CommandBody::QueueInformation),
            ("NSUB", CommandBody::SubscribeNotifications),
        ];
        for (what, body) in bodies {
            let entities = [
                one.clone(),
                two.clone(),
                ("somebody's queue", queue.recipient.clone()),
                ("somebody's address", contact.recipient.clone()),
                ("a sender's id", queue.sender.clone()),
                ("the id of a link", queue.link.clone().expect("a link")),
            ];
            costs_the_same(&mut relay, what, &entities, Some(&key), &body);
        }
    }
}

#[test]
fn commands_of_senders_and_readers_of_links() {
    let mut relay = Relay::new();
    let [_, theirs] = strangers(&mut relay.entropy);
    let open = relay.queue(QueueMode::Messaging, None);
    let secured = relay.queue(QueueMode::Messaging, Some(&theirs));
    let contact = relay.queue(QueueMode::Contact, None);
    let [one, two] = unknown(&mut relay);
    let unknowns = [one, two];
    let with = |others: &[(&'static str, &Identifier)]| -> Vec<(&'static str, Identifier)> {
        let others = others.iter().map(|(name, id)| (*name, (*id).clone()));
        unknowns.iter().cloned().chain(others).collect()
    };
    let link = |queue: &CreatedQueue| queue.link.clone().expect("a link");
    let send = CommandBody::Send { notification: false, body: Bytes::from_static(&[3; 1000]) };
    let secured_ids = [("a secured queue", &secured.sender), ("a recipient's id", &open.recipient)];
    costs_the_same(&mut relay, "SEND", &with(&secured_ids), None, &send);
    for key in strangers(&mut relay.entropy) {
        let public = key.public(&Portable);
        let open_ids = [("a queue without a key", &open.sender), ("an address", &contact.sender)];
        let all = [&secured_ids[..], &open_ids[..]].concat();
        costs_the_same(&mut relay, "signed SEND", &with(&all), Some(&key), &send);
        let secured_or_contact = [secured_ids[0], secured_ids[1], open_ids[1]];
        let body = CommandBody::SecureBySender(public);
        costs_the_same(&mut relay, "SKEY", &with(&secured_or_contact), Some(&key), &body);
        let links =
            [("a link that is used up", &link(&secured)), ("the link of an address", &link(&contact))];
        let body = CommandBody::SecureByLink(public);
        costs_the_same(&mut relay, "LKEY", &with(&links), Some(&key), &body);
    }
    let links = [("an invitation", &link(&open)), ("a link that is used up", &link(&secured))];
    costs_the_same(&mut relay, "LGET", &with(&links), None, &CommandBody::GetLink);
}

#[test]
fn commands_about_blobs() {
    let mut relay = Relay::new();
    let mut owner = relay.connect(100);
    let blob = OwnedBlob::generate(&mut relay.entropy);
    let write = blob.write(&Portable, b"text", &mut relay.entropy).unwrap();
    let id = write.entity.clone();
    assert_eq!(relay.ask(&mut owner, write).0, Ok(Reply::Ok));
    let cleared = OwnedBlob::generate(&mut relay.entropy);
    let write = cleared.write(&Portable, b"text", &mut relay.entropy).unwrap();
    let gone = write.entity.clone();
    assert_eq!(relay.ask(&mut owner, write).0, Ok(Reply::Ok));
    assert_eq!(relay.ask(&mut owner, cleared.clear(&Portable)).0, Ok(Reply::Ok));
    let nobody = OwnedBlob::generate(&mut relay.entropy);
    let unknown = nobody.clear(&Portable).entity;
    let entities = [("an unknown id", unknown), ("somebody's blob", id), ("a blob that is gone", gone)];
    for key in strangers(&mut relay.entropy) {
        costs_the_same(&mut relay, "CLR", &entities, Some(&key), &CommandBody::ClearBlob);
    }
    // Who does not have the private key of the link may ask with what is known to others: its id.
    let mut first = None;
    for (name, asked) in [("a blob that is gone", &cleared.secret), ("an unknown blob", &nobody.secret)] {
        let mut peer = relay.connect(7);
        let (answer, cost) = relay.ask(&mut peer, read_blob(&Portable, asked));
        assert_eq!(answer, AUTH, "{name}");
        assert_eq!(*first.get_or_insert(cost.clone()), cost, "{name}");
    }
}
