//! People with the real machine ([`Connections`]), remembered by what happened to them: what a machine does depends on
//! nothing but its records and the inputs since it was started. So each input is given to it once, however many states of
//! the whole world there are in which it happens; and the machine is made again from its records when it is needed again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;

use sha2::{Digest, Sha256};
use smp_proto::agent::{
    AgentConfig, Batch, ConnectionId, Connections, Event, Integrity, RecordKey, RelayCommand, RelayId,
    Status, TaskId, Write,
};
use smp_proto::client::CommandBody;
use smp_proto::crypto::envelope::{ClientMessage, Envelope};
use smp_proto::crypto::{BoxKey, Forged, Nonce, Provider, SharedSecret, TAG_LENGTH};
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::time::Now;
use smp_proto::wire::address::AddressWithPassword;
use smp_proto::wire::agent_message::{AgentEnvelope, AgentEnvelopeContent};
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::short_link::ShortLink;
use smp_runtime_std::fast_cryptography::Fast;
use smp_tests::sessions::NOW;

use super::relays::{Answer, Archive, Delivery};

/// Somebody after a certain history.
pub type Node = u32;

/// What happens to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The person creates a link, or joins by this one.
    Begin(Option<Rc<str>>),
    /// The batch that waits is written.
    Write,
    Answered(u32, Answer),
    Arrived(Delivery),
    /// All connections to relays are over; these commands have no answer.
    HungUp(Vec<u32>),
    /// The time has come that it waits for.
    Time,
}

/// What others can see of somebody.
#[derive(Clone, Debug)]
pub struct View {
    /// What left with the last input: host and question.
    pub sent: Vec<(u8, u32)>,
    pub has_to_write: bool,
    pub waits_for_time: bool,
    /// The link, when it is durable.
    pub link: Option<Rc<str>>,
    pub may_begin: bool,
    pub contacts: BTreeMap<u64, Contact>,
    /// What should never happen, and did.
    pub wrong: Option<String>,
}

/// A connection, as its person knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Contact {
    /// `None` when it is gone.
    pub stage: Option<&'static str>,
    pub is_address: bool,
    pub connected: bool,
    pub may_send: bool,
    /// Messages that wait to be sent.
    pub waiting: usize,
    /// Who the other side says they are.
    pub told: Option<Vec<u8>>,
    pub got: Vec<(i64, Vec<u8>)>,
    /// What the person was shown when it failed.
    pub failed: Option<String>,
}

/// What a person wants.
#[derive(Clone)]
pub struct Role {
    pub name: &'static str,
    pub config: AgentConfig,
    pub host: u8,
    pub wants: Wish,
    /// Writing takes no time. To be killed before it is done is then the same as to be killed before what made it necessary.
    pub writes_at_once: bool,
    /// How many batches are not written yet when it is said that they are.
    pub disk_lies: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Invite { short: bool },
    Address { short: bool },
    Join,
}

/// A record, after its hash.
type Kept = ([u8; 32], Rc<[u8]>);

/// What survives a kill.
#[derive(Clone)]
struct Durable {
    records: BTreeMap<Vec<u8>, Kept>,
    contacts: BTreeMap<u64, Contact>,
    /// What the person has asked for is in the records.
    begun: bool,
    /// Of every key of a ratchet with which something left: the question that it was.
    used: BTreeMap<[u8; 32], u32>,
}

#[derive(Clone)]
struct Start {
    who: u8,
    /// How often it was started before: its entropy is another each time.
    run: u8,
    durable: Rc<Durable>,
}

impl Durable {
    fn write(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Put(key, bytes) => {
                    let hash = Sha256::digest(&bytes).into();
                    self.records.insert(key.to_bytes(), (hash, bytes.as_slice().into()))
                }
                Write::Delete(key) => self.records.remove(&key.to_bytes()),
            };
        }
        self.begun |= !self.records.is_empty();
    }
}

enum Origin {
    Start(Start),
    After(Node, Input),
}

/// A digest of everything that decides what somebody does next, and of what left with the last input.
type Identity = [u8; 32];

struct Entry {
    origin: Origin,
    machine: Option<Machine>,
    view: Rc<View>,
}

/// A machine and what is around it.
struct Machine {
    who: u8,
    run: u8,
    connections: Connections,
    now: Now,
    durable: Durable,
    pending: Option<Batch>,
    /// What a lying disk has promised to write.
    promised: VecDeque<Vec<Write>>,
    sent: Vec<(u8, u32)>,
    /// Under which number the machine waits for the answer to a question.
    open: BTreeMap<u32, TaskId>,
    wrong: Option<String>,
}

pub struct People {
    roles: Vec<Role>,
    entries: Vec<Entry>,
    known: HashMap<(Node, Input), Node>,
    killed: HashMap<(Node, bool), Node>,
    same: HashMap<Identity, Node>,
    /// How many inputs machines were given: those that were given again included.
    pub inputs: usize,
}

/// What is said of somebody who has encrypted two messages with one key.
pub const USED_TWICE: &str = "has used a key of the ratchet for two messages";

/// The name of a relay.
pub fn relay(host: u8) -> AddressWithPassword {
    format!("smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@relay{host}.example").parse().unwrap()
}

fn host_of(connections: &Connections, command: &RelayCommand) -> u8 {
    let address = connections.relay_address(command.relay).expect("the agent named it");
    (0..2).find(|host| relay(*host).address == *address).expect("one of the two relays")
}

impl People {
    pub fn new(roles: Vec<Role>) -> Self {
        let (known, killed, same) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { roles, entries: Vec::new(), known, killed, same, inputs: 0 }
    }

    pub fn len(&self) -> usize {
        self.roles.len()
    }

    pub fn role(&self, who: usize) -> &Role {
        &self.roles[who]
    }

    pub fn histories(&self) -> usize {
        self.entries.len()
    }

    /// Somebody who has done nothing yet.
    pub fn newcomer(&mut self, archive: &mut Archive, who: u8) -> Node {
        let durable = Durable {
            records: BTreeMap::new(),
            contacts: BTreeMap::new(),
            begun: false,
            used: BTreeMap::new(),
        };
        self.start(archive, Start { who, run: 0, durable: Rc::new(durable) })
    }

    pub fn view(&self, node: Node) -> Rc<View> {
        Rc::clone(&self.entries[node as usize].view)
    }

    /// Their program is killed, and started again; `written`: what it was about to write is there, and it was not told.
    pub fn killed(&mut self, archive: &mut Archive, node: Node, written: bool) -> Node {
        let key = (node, written);
        if let Some(after) = self.killed.get(&key) {
            return *after;
        }
        let machine = self.machine(archive, node);
        let mut durable = machine.durable.clone();
        durable.contacts.values_mut().for_each(|contact| contact.note(None));
        if written && let Some(batch) = &machine.pending {
            durable.write(batch.writes.clone());
        }
        let start = Start { who: machine.who, run: self.run_of(node) + 1, durable: Rc::new(durable) };
        self.entries[node as usize].machine = Some(machine);
        let after = self.start(archive, start);
        self.killed.insert(key, after);
        after
    }

    /// Something happens to them.
    pub fn happens(&mut self, archive: &mut Archive, node: Node, input: &Input) -> Node {
        let key = (node, input.clone());
        if let Some(after) = self.known.get(&key) {
            return *after;
        }
        let mut machine = self.machine(archive, node);
        self.give(archive, &mut machine, input);
        let after = self.enter(machine, Origin::After(node, input.clone()));
        self.known.insert(key, after);
        after
    }

    /// The node of somebody with this history, or with another that makes no difference.
    fn enter(&mut self, machine: Machine, origin: Origin) -> Node {
        let identity = machine.identity();
        if let Some(node) = self.same.get(&identity) {
            let entry = &mut self.entries[*node as usize];
            entry.machine.get_or_insert(machine);
            return *node;
        }
        let view = Rc::new(machine.view(&self.roles[machine.who as usize]));
        let node = u32::try_from(self.entries.len()).unwrap();
        self.entries.push(Entry { origin, machine: Some(machine), view });
        self.same.insert(identity, node);
        node
    }

    fn run_of(&self, mut node: Node) -> u8 {
        loop {
            match &self.entries[node as usize].origin {
                Origin::Start(start) => return start.run,
                Origin::After(before, _) => node = *before,
            }
        }
    }

    fn start(&mut self, archive: &mut Archive, start: Start) -> Node {
        let machine = self.started(archive, &start);
        self.enter(machine, Origin::Start(start))
    }

    fn started(&mut self, archive: &mut Archive, start: &Start) -> Machine {
        let role = &self.roles[start.who as usize];
        let records = start.durable.records.iter();
        let records =
            records.map(|(key, (_, bytes))| (RecordKey::from_bytes(key).expect("a key"), Rc::clone(bytes)));
        let mut machine = Machine {
            who: start.who,
            run: start.run,
            connections: Connections::restore(role.config.clone(), records).expect("an agent's own records"),
            now: NOW,
            durable: Durable::clone(&start.durable),
            pending: None,
            promised: VecDeque::new(),
            sent: Vec::new(),
            open: BTreeMap::new(),
            wrong: None,
        };
        machine.durable.begun |= machine.connections.connections().next().is_some();
        let mut entropy = machine.entropy("start");
        machine.connections.handle_timeout(machine.now, &mut entropy);
        machine.settle(role, archive, &mut entropy);
        self.inputs += 1;
        machine
    }

    /// Takes the machine of a node, or makes it again.
    fn machine(&mut self, archive: &mut Archive, node: Node) -> Machine {
        if let Some(machine) = self.entries[node as usize].machine.take() {
            return machine;
        }
        let mut inputs = Vec::new();
        let mut at = node;
        let mut machine = loop {
            if at != node
                && let Some(machine) = self.entries[at as usize].machine.take()
            {
                break machine;
            }
            match &self.entries[at as usize].origin {
                Origin::After(before, input) => {
                    inputs.push(input.clone());
                    at = *before;
                }
                Origin::Start(start) => {
                    let start = start.clone();
                    break self.started(archive, &start);
                }
            }
        };
        for input in inputs.iter().rev() {
            self.give(archive, &mut machine, input);
        }
        machine
    }

    fn give(&mut self, archive: &mut Archive, machine: &mut Machine, input: &Input) {
        self.inputs += 1;
        let role = &self.roles[machine.who as usize];
        machine.sent.clear();
        let mut entropy = machine.entropy(&format!("{input:?}"));
        machine.take(role, archive, input, &mut entropy);
        machine.settle(role, archive, &mut entropy);
    }
}

impl Machine {
    /// What it draws depends on the input and the time, and not on what was drawn before: so it makes no difference which of
    /// two things that have nothing to do with each other comes first.
    fn entropy(&self, input: &str) -> OfInput {
        let mut digest = Sha256::new();
        digest.update([self.who, self.run]);
        digest.update(self.now.instant.as_micros().to_be_bytes());
        digest.update(input);
        OfInput(SeededEntropy::new(digest.finalize().into()))
    }

    fn identity(&self) -> Identity {
        let mut digest = Sha256::new();
        digest.update([self.who, self.run]);
        digest.update(self.now.instant.as_micros().to_be_bytes());
        digest.update(self.connections.digest());
        let Durable { records, contacts, begun, used } = &self.durable;
        for (key, (hash, _)) in records {
            digest.update([u8::try_from(key.len()).unwrap()]);
            digest.update(key);
            digest.update(hash);
        }
        // Nothing in these is longer than a name, and how they are printed says everything.
        digest.update(format!("{contacts:?} {begun} {used:?} {:?} {:?}", self.sent, self.open.keys()));
        digest.update(format!("{:?}", self.wrong));
        for write in self.pending.iter().flat_map(|batch| &batch.writes).chain(self.promised.iter().flatten())
        {
            match write {
                Write::Put(key, bytes) => {
                    digest.update(key.to_bytes());
                    digest.update(Sha256::digest(bytes));
                }
                Write::Delete(key) => digest.update(key.to_bytes()),
            }
            digest.update([0xFF]);
        }
        digest.update(self.promised.len().to_be_bytes());
        digest.finalize().into()
    }

    fn take(&mut self, role: &Role, archive: &mut Archive, input: &Input, entropy: &mut OfInput) {
        let Self { connections, now, .. } = self;
        let now_is = *now;
        match input {
            Input::Begin(link) => {
                let (relay, name) = (relay(role.host), role.name.as_bytes());
                let begun = match (role.wants, link) {
                    (Wish::Invite { short: false }, _) => {
                        connections.create_invitation(relay, Some(name), now_is, entropy)
                    }
                    (Wish::Invite { short: true }, _) => {
                        connections.create_short_invitation(relay, Some(name), b"profile", now_is, entropy)
                    }
                    (Wish::Address { short: false }, _) => connections.create_address(relay, now_is, entropy),
                    (Wish::Address { short: true }, _) => {
                        connections.create_short_address(relay, b"profile", now_is, entropy)
                    }
                    (Wish::Join, Some(link)) => match link.parse::<ShortLink>() {
                        Ok(link) => connections.join_by_short_link(&link, relay, name, now_is, entropy),
                        Err(_) => {
                            let link: ConnectionRequest = link.parse().expect("a link");
                            connections.join(&link, relay, name, now_is, entropy)
                        }
                    },
                    (Wish::Join, None) => panic!("nobody joins without a link"),
                };
                begun.expect("it can begin");
            }
            Input::Write => {
                self.write(role, entropy);
            }
            Input::Answered(question, answer) => {
                let task = self.open.remove(question).expect("it was asked");
                connections.answer(task, archive.reply(*answer), now_is, entropy);
            }
            Input::Arrived(delivery) => {
                let (id, body) = archive.delivered(role.config.provider, *delivery);
                // A client knows which relay it is; here the queue's name says it, for no two have the same.
                for relay in [0, 1].map(RelayId) {
                    connections.message(
                        relay,
                        &delivery.queue.into(),
                        id.into(),
                        body.clone(),
                        now_is,
                        entropy,
                    );
                }
            }
            Input::HungUp(questions) => {
                for question in questions {
                    let task = self.open.remove(question).expect("it was asked");
                    connections.answer(task, archive.reply(Answer::Unknown), now_is, entropy);
                }
                for relay in [0, 1].map(RelayId) {
                    connections.session_ended(relay);
                }
                connections.handle_timeout(now_is, entropy);
            }
            Input::Time => {
                now.instant = connections.next_deadline().expect("it waits for a time");
                connections.handle_timeout(*now, entropy);
            }
        }
    }

    fn write(&mut self, role: &Role, entropy: &mut OfInput) {
        let batch = self.pending.take().expect("something to write");
        self.promised.push_back(batch.writes);
        if self.promised.len() > role.disk_lies {
            self.durable.write(self.promised.pop_front().unwrap_or_default());
        }
        self.connections.stored(batch.id, Ok(()), self.now, entropy);
    }

    /// Its application does at once what it wants to do; then everything has left that may leave.
    fn settle(&mut self, role: &Role, archive: &mut Archive, entropy: &mut OfInput) {
        loop {
            if self.pending.is_none() {
                self.pending = self.connections.poll_storage();
            }
            if role.writes_at_once && self.pending.is_some() {
                self.write(role, entropy);
            } else if let Some(event) = self.connections.poll_event() {
                self.react(role, event, entropy);
            } else if !self.speak(role, entropy) {
                break;
            }
        }
        self.connections.check();
        while let Some(command) = self.connections.poll_command() {
            let host = host_of(&self.connections, &command);
            let key = used_key(&command);
            let question = archive.question(role.config.provider, host, command.command);
            if let Some(key) = key
                && *self.durable.used.entry(key).or_insert(question) != question
            {
                self.wrong = Some(format!("{} {USED_TWICE}", role.name));
            }
            self.sent.push((host, question));
            let before = self.open.insert(question, command.task);
            assert!(before.is_none(), "{} asks the same twice at once", role.name);
        }
        let present: BTreeSet<u64> = self.connections.connections().map(|(id, _)| id.0).collect();
        for contact in self.durable.contacts.iter_mut().filter(|(id, _)| !present.contains(id)) {
            contact.1.note(None);
        }
        for (id, status) in self.connections.connections() {
            self.durable.contacts.entry(id.0).or_default().note(Some(&status));
        }
    }

    /// Says one thing on every connection, as soon as it can be said.
    fn speak(&mut self, role: &Role, entropy: &mut OfInput) -> bool {
        let may =
            |(id, status): (ConnectionId, Status)| (status.may_send && status.accepted == 0).then_some(id);
        let Some(id) = self.connections.connections().find_map(may) else { return false };
        let body = [role.name.as_bytes(), b" speaks"].concat();
        self.connections.send(id, &body, true, self.now, entropy).expect("it may send");
        true
    }

    fn react(&mut self, role: &Role, event: Event, entropy: &mut OfInput) {
        let Self { connections, now, .. } = self;
        let now = *now;
        match event {
            Event::Confirmed { connection, information } => {
                connections.allow(connection, role.name.as_bytes(), now, entropy).expect("it is asked");
                self.contact(connection).told = Some(information);
            }
            Event::Requested { request, information, .. } => {
                let relay = relay(role.host);
                let id = connections
                    .accept(request, relay, role.name.as_bytes(), now, entropy)
                    .expect("it is asked");
                self.contact(id).told = Some(information);
            }
            Event::Information { connection, information } => {
                self.contact(connection).told = Some(information);
            }
            Event::Message { connection, number, integrity, body, .. } => {
                connections.acknowledge(connection, number, None, now, entropy).expect("it has just come");
                let got = &mut self.contact(connection).got;
                let seen = got.iter().find(|(other, _)| *other == number).map(|(_, body)| body.clone());
                match seen {
                    None => got.push((number, body)),
                    Some(other) if other == body => {}
                    Some(_) => self.fault(format!("two messages have number {number}")),
                }
                if integrity != Integrity::Ok {
                    self.fault(format!("message {number} came as {integrity:?}"));
                }
            }
            Event::Failed { connection, because } => {
                self.contact(connection).failed = Some(because.to_string());
            }
            Event::Dropped { .. }
            | Event::NotSent { .. }
            | Event::QueueLost { .. }
            | Event::Synchronized { .. }
            | Event::Ended { .. }
            | Event::Full { .. }
            | Event::StorageFailing => self.fault(format!("{} was told: {event:?}", role.name)),
            _ => {}
        }
    }

    fn contact(&mut self, id: ConnectionId) -> &mut Contact {
        self.durable.contacts.entry(id.0).or_default()
    }

    fn fault(&mut self, what: String) {
        self.wrong.get_or_insert(what);
    }

    fn view(&self, role: &Role) -> View {
        let mut mine = self.connections.connections().map(|(id, _)| id);
        let link = mine.next().and_then(|id| match role.wants {
            Wish::Invite { short: true } | Wish::Address { short: true } => {
                self.connections.short_link(id).map(|link| link.to_string().into())
            }
            _ => self.connections.link(id).map(|link| link.to_string().into()),
        });
        View {
            sent: self.sent.clone(),
            has_to_write: self.pending.is_some(),
            waits_for_time: self.connections.next_deadline().is_some(),
            link: link.filter(|_| role.wants != Wish::Join),
            may_begin: !self.durable.begun && self.connections.connections().next().is_none(),
            contacts: self.durable.contacts.clone(),
            wrong: self.wrong.clone(),
        }
    }
}

impl Contact {
    fn note(&mut self, status: Option<&Status>) {
        self.stage = status.map(|status| status.stage);
        self.is_address |= status.is_some_and(|status| status.is_address);
        self.connected = status.is_some_and(|status| status.connected);
        self.may_send = status.is_some_and(|status| status.may_send);
        self.waiting = status.map_or(0, |status| status.waiting);
    }
}

/// What a machine draws with one input.
struct OfInput(SeededEntropy);

impl Entropy for OfInput {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        // Two bytes are drawn for waits only, which are as long as they can be.
        if buffer.len() == 2 { buffer.fill(0xFF) } else { self.0.fill_public(buffer) }
    }
    fn fill_secret(&mut self, buffer: &mut [u8]) {
        self.0.fill_secret(buffer);
    }
}

thread_local! {
    /// What was sealed with which nonce: a part of the text that a ratchet has encrypted. Only padding is there in what the
    /// people of these stories say, so that two texts which were encrypted with the same key have the same bytes there.
    static SEALED: RefCell<HashMap<[u8; 24], [u8; 32]>> = RefCell::new(HashMap::new());
}

/// Where the longest text of the stories has ended, and the shortest padding goes on.
const PADDING: std::ops::Range<usize> = 9000..9032;

/// Tells which key of the ratchet a message is encrypted with.
fn used_key(command: &RelayCommand) -> Option<[u8; 32]> {
    let CommandBody::Send { body, .. } = &command.command.body else { return None };
    let nonce = Envelope::parse(body).expect("an envelope").header.nonce;
    SEALED.with_borrow(|sealed| sealed.get(&nonce.0).copied())
}

/// Primitives that see what is sealed.
#[derive(Clone, Copy, Debug)]
pub struct Watching;

impl Provider for Watching {
    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; TAG_LENGTH] {
        let length = text.first_chunk::<2>().map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
        let content = text.get(2..2 + length).and_then(ClientMessage::parse);
        let envelope = content.and_then(|content| AgentEnvelope::decode(content.message));
        let encrypted = match envelope.map(|envelope| envelope.content) {
            Some(
                AgentEnvelopeContent::Message(encrypted)
                | AgentEnvelopeContent::Confirmation { encrypted, .. },
            ) => encrypted.get(PADDING),
            _ => None,
        };
        if let Some(part) = encrypted {
            SEALED.with_borrow_mut(|sealed| sealed.insert(nonce.0, part.try_into().unwrap()));
        }
        Fast.box_seal(key, nonce, text)
    }
    fn box_open(
        &self,
        key: &BoxKey,
        nonce: &Nonce,
        tag: &[u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> Result<(), Forged> {
        Fast.box_open(key, nonce, tag, text)
    }
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        Fast.x25519(secret, public)
    }
    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        Fast.x25519_public(secret)
    }
    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        Fast.sha512(parts)
    }
    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        Fast.hkdf_sha512(salt, input, info, output);
    }
    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        Fast.ed25519_public(secret)
    }
    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; 64] {
        Fast.ed25519_sign(secret, message)
    }
    fn ed25519_verify(&self, key: &Ed25519Public, message: &[&[u8]], signature: &[u8; 64]) -> bool {
        Fast.ed25519_verify(key, message, signature)
    }
}
