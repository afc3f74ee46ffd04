//! A relay with two connections, an arbitrary history, and clients whose signatures are believed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use smp_proto::broker::storage::{Completion, StorageAction};
use smp_proto::broker::{Broker, BrokerConfig, ConnectionId};
use smp_proto::crypto::{BoxKey, Ed25519Check, Forged, Nonce, Portable, Provider, SharedSecret};
use smp_proto::entropy::Entropy;
use smp_proto::keys::{Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::session::client;
use smp_proto::session::server::Received;
use smp_proto::storage_model::StorageModel;
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::block::PLAIN_CONTENT_LENGTH;
use smp_tests::sessions::{self, Certificates, Pair, PairOptions};

/// Believes every Ed25519 signature, so that a fuzzer gets past it.
struct Gullible;

impl Provider for Gullible {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        Portable.x25519(secret, public)
    }
    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        Portable.x25519_public(secret)
    }
    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; 16] {
        Portable.box_seal(key, nonce, text)
    }
    fn box_open(&self, key: &BoxKey, nonce: &Nonce, tag: &[u8; 16], text: &mut [u8]) -> Result<(), Forged> {
        Portable.box_open(key, nonce, tag, text)
    }
    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        Portable.sha512(parts)
    }
    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        Portable.hkdf_sha512(salt, input, info, output);
    }
    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        Portable.ed25519_public(secret)
    }
    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; 64] {
        Portable.ed25519_sign(secret, message)
    }
    fn ed25519_verify(&self, _: &Ed25519Public, _: &[&[u8]], _: &[u8; 64]) -> bool {
        true
    }
    fn ed25519_verify_batch(&self, checks: &mut [Ed25519Check<'_>]) {
        checks.iter_mut().for_each(|check| check.valid = true);
    }
}

/// Ids that a fuzzer can guess: 24 times 1, 24 times 2, …
#[derive(Default)]
struct Counting(u8);

impl Entropy for Counting {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        buffer.fill(self.0);
    }
    fn fill_secret(&mut self, buffer: &mut [u8]) {
        buffer.fill(1);
    }
}

thread_local! {
    /// Sessions without block encryption, so that what is in a block is the fuzzer's to say; by version, two each.
    static SESSIONS: RefCell<BTreeMap<u16, [Pair; 2]>> = const { RefCell::new(BTreeMap::new()) };
}

fn pair(version: u16) -> Pair {
    let options = PairOptions { sends_key: false, provider: &Gullible, ..PairOptions::at(version) };
    Pair::connect(&Certificates::named("ed25519"), &options).expect("a handshake")
}

/// A version byte; then steps: a byte that says what, a length of 2 bytes, and as many bytes.
///
/// The two low bits: a block with these bytes on the first connection, or on the second; so many seconds pass; the first
/// connection is closed and another opened. The highest bit: storage fails.
pub fn session(data: &[u8]) {
    let (version, steps) = super::version(data);
    SESSIONS.with_borrow_mut(|sessions| {
        let pairs = sessions.entry(version.0).or_insert_with(|| [pair(version.0), pair(version.0)]);
        Relay::new(pairs).run(steps);
    });
}

struct Relay<'s> {
    pairs: &'s mut [Pair; 2],
    connections: [ConnectionId; 2],
    broker: Broker,
    storage: StorageModel,
    fails: bool,
    entropy: Counting,
    now: Now,
}

impl<'s> Relay<'s> {
    fn new(pairs: &'s mut [Pair; 2]) -> Self {
        let mut entropy = Counting::default();
        let config = BrokerConfig { message_quota: 3, ..BrokerConfig::default() };
        let mut broker = Broker::new(config, &mut entropy);
        let now = Now { instant: Instant::START, wall: UnixTime(1_700_000_000) };
        let connections = [(); 2].map(|()| broker.connect(now).expect("there is room"));
        Self { pairs, connections, broker, storage: StorageModel::default(), fails: false, entropy, now }
    }

    fn run(&mut self, mut steps: &[u8]) {
        while let Some(([what, high, low], rest)) = steps.split_first_chunk() {
            let length = u16::from_be_bytes([*high, *low]);
            let (bytes, rest) = rest.split_at(rest.len().min(usize::from(length)));
            steps = rest;
            self.fails = what & 0x80 != 0;
            match what & 3 {
                0 => self.receive(0, bytes),
                1 => self.receive(1, bytes),
                2 => self.pass(Duration::from_secs(u64::from(length))),
                _ => {
                    self.broker.disconnect(self.connections[0]);
                    self.connections[0] = self.broker.connect(self.now).expect("there is room");
                }
            }
            self.settle();
        }
    }

    fn receive(&mut self, which: usize, content: &[u8]) {
        if !self.broker.has_room(self.connections[which]) {
            return;
        }
        let content = &content[..content.len().min(PLAIN_CONTENT_LENGTH)];
        let session = &mut self.pairs[which].server;
        let block = sessions::plain_block(content);
        let Ok(Received::Commands(block)) = session.receive(block, self.now) else {
            panic!("a padded block")
        };
        let mut requests = session.parse(&block);
        while let Some(mut chunk) = requests.next_chunk() {
            for request in &mut chunk {
                self.broker.look_up(request);
            }
            for verified in session.verify(chunk, &mut self.entropy) {
                let connection = self.connections[which];
                match verified.into_forwarded() {
                    Err(verified) => {
                        self.broker.execute(connection, verified, &block, self.now, &mut self.entropy);
                    }
                    Ok(forwarded) => {
                        let mut request = session.forwarded_request(&forwarded);
                        self.broker.look_up(&mut request);
                        let verified = session.verify_forwarded(request, &forwarded, &mut self.entropy);
                        let verified = verified.expect("one request, one verdict");
                        let block = forwarded.block();
                        self.broker.execute(connection, verified, block, self.now, &mut self.entropy);
                    }
                }
            }
        }
    }

    fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        // A queue that cannot be read is tried again for ever.
        for _ in 0..100 {
            let Some(at) = self.broker.next_deadline().filter(|at| *at <= end) else { break };
            self.pass_until(at);
            self.broker.handle_timeout(self.now);
            self.settle();
        }
        self.pass_until(end);
    }

    fn pass_until(&mut self, at: Instant) {
        let passed = at.saturating_since(self.now.instant);
        self.now.instant = self.now.instant + passed;
        self.now.wall = self.now.wall.saturating_add(passed);
    }

    /// Storage does everything, and both clients read what they are sent.
    fn settle(&mut self) {
        loop {
            while let Some((id, action)) = self.broker.poll_storage() {
                let fails = self.fails && !matches!(action, StorageAction::ReadQueue { .. });
                let completion = if fails { Completion::Failed(id) } else { self.storage.apply(id, action) };
                self.broker.complete(completion, self.now);
            }
            self.storage.sync();
            if let Err(inconsistency) = self.broker.check() {
                panic!("{inconsistency}");
            }
            let mut said = false;
            for (pair, connection) in self.pairs.iter_mut().zip(self.connections) {
                let mut outgoing = VecDeque::new();
                self.broker.take_outgoing(connection, &mut outgoing);
                while let Some(block) = pair.server.pack(&mut outgoing, self.now) {
                    said = true;
                    let Ok(client::Received::Responses(block)) = pair.client.receive(block, self.now) else {
                        panic!("a relay's block")
                    };
                    for response in pair.client.responses(&block) {
                        response.expect("a relay's response");
                    }
                }
            }
            if !said {
                return;
            }
        }
    }
}
