//! Blobs from one client to another through a whole relay: what is on the wire, and what nobody can do.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;

use bytes::BytesMut;
use sha2::{Digest, Sha256};
use smp_proto::broker::ConnectionId;
use smp_proto::client::queue::{OwnedBlob, read_blob};
use smp_proto::client::{Action, Client, ClientCommand, ClientConfig, CommandFailure, Event, Reply};
use smp_proto::crypto::blob::{self, BLOB_LENGTH, MAX_BLOB_TEXT};
use smp_proto::crypto::{Portable, Provider};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::X25519Secret;
use smp_proto::server::{Server, ServerConfig};
use smp_proto::session::client::ClientSessionConfig;
use smp_proto::storage_model::StorageModel;
use smp_proto::wire::block::plain_content;
use smp_proto::wire::command::Command;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::version::Version;
use smp_tests::sessions::{Certificates, GivenEntropy, NOW, facts_of, versions};
use smp_tests::vectors::hex;

/// A relay over a model of storage.
struct Relay {
    server: Server,
    storage: StorageModel,
    certificates: Certificates,
    entropy: SeededEntropy,
}

/// A client on a connection without block encryption: what is recorded is what is inside TLS.
struct Peer {
    client: Client,
    connection: ConnectionId,
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl Relay {
    fn new() -> Self {
        let certificates = Certificates::named("ed25519");
        let mut entropy = SeededEntropy::new([1; 32]);
        let server =
            Server::new(ServerConfig::new(certificates.relay(versions(6, 18), &Portable)), &mut entropy);
        Self { server, storage: StorageModel::default(), certificates, entropy }
    }

    fn connect(&mut self, session: u8) -> Peer {
        let config = ClientSessionConfig {
            sends_key: false,
            ..ClientSessionConfig::new(self.certificates.fingerprint.clone(), &Portable)
        };
        let mut client = Client::new(ClientConfig::new(config));
        let id = [session; 32];
        let connection =
            self.server.connect(facts_of(&id, true, &[]), NOW, &mut self.entropy).expect("a connection");
        client.connect();
        assert_eq!(client.poll_action(), Some(Action::Dial));
        client.connected(facts_of(&id, true, &self.certificates.chain), NOW, &mut self.entropy).unwrap();
        let mut peer = Peer { client, connection, sent: Vec::new(), received: Vec::new() };
        self.run(&mut peer);
        (peer.sent, peer.received) = (Vec::new(), Vec::new());
        peer
    }

    /// Moves blocks until nothing moves.
    fn run(&mut self, peer: &mut Peer) {
        loop {
            let mut moved = false;
            while let Some(block) = peer.client.poll_block(NOW, &mut self.entropy) {
                peer.sent.push(plain_content(&block).expect("not encrypted").to_vec());
                self.server.handle_block(peer.connection, block, NOW, &mut self.entropy).unwrap();
                moved = true;
            }
            while let Some((id, action)) = self.server.poll_storage() {
                let completion = self.storage.apply(id, action);
                self.storage.sync();
                self.server.complete(completion, NOW, &mut self.entropy);
            }
            while let Some(block) = self.server.poll_block(peer.connection, NOW) {
                peer.received.push(plain_content(&block).expect("not encrypted").to_vec());
                peer.client.receive(BytesMut::from(&block[..]), NOW, &mut self.entropy).unwrap();
                moved = true;
            }
            while self.server.poll_event().is_some() {}
            if !moved {
                return;
            }
        }
    }

    fn ask(&mut self, peer: &mut Peer, command: ClientCommand) -> Result<Reply, CommandFailure> {
        let id = peer.client.submit(command, NOW).unwrap();
        self.run(peer);
        while let Some(event) = peer.client.poll_event() {
            if let Event::Response { command, result } = event
                && command == id
            {
                return result;
            }
        }
        panic!("no answer");
    }
}

const AUTH: Result<Reply, CommandFailure> = Err(CommandFailure::Refused(SmpError::Authorization));

fn text_of(secret: &X25519Secret, reply: Result<Reply, CommandFailure>) -> Vec<u8> {
    match reply {
        Ok(Reply::Blob(blob)) => blob::open(&Portable, secret, &mut blob.to_vec()).unwrap().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_blob_is_written_read_replaced_and_cleared() {
    let mut relay = Relay::new();
    let (mut owner, mut reader) = (relay.connect(1), relay.connect(2));
    let owned = OwnedBlob::generate(&mut relay.entropy);
    let read = || read_blob(&Portable, &owned.secret);
    assert_eq!(relay.ask(&mut reader, read()), AUTH);
    for text in [&b"one"[..], b"another", &[7; MAX_BLOB_TEXT]] {
        let write = owned.write(&Portable, text, &mut relay.entropy).unwrap();
        assert_eq!(relay.ask(&mut owner, write), Ok(Reply::Ok));
        assert_eq!(text_of(&owned.secret, relay.ask(&mut reader, read())), text);
    }
    let stranger = OwnedBlob { secret: owned.secret.clone(), ..OwnedBlob::generate(&mut relay.entropy) };
    let write = stranger.write(&Portable, b"evil", &mut relay.entropy).unwrap();
    assert_eq!(relay.ask(&mut reader, write), AUTH);
    assert_eq!(relay.ask(&mut reader, stranger.clear(&Portable)), AUTH);
    assert_eq!(relay.ask(&mut owner, owned.clear(&Portable)), Ok(Reply::Ok));
    assert_eq!(relay.ask(&mut reader, read()), AUTH);
    relay.server.check().unwrap();
}

#[test]
fn the_traffic_of_owner_and_reader_has_nothing_in_common() {
    let mut relay = Relay::new();
    let (mut owner, mut reader) = (relay.connect(1), relay.connect(2));
    let owned = OwnedBlob::generate(&mut relay.entropy);
    for _ in 0..2 {
        let write = owned.write(&Portable, b"the same text", &mut relay.entropy).unwrap();
        assert_eq!(relay.ask(&mut owner, write), Ok(Reply::Ok));
    }
    for _ in 0..2 {
        let reply = relay.ask(&mut reader, read_blob(&Portable, &owned.secret));
        assert_eq!(text_of(&owned.secret, reply), b"the same text");
    }
    assert_eq!(relay.ask(&mut owner, owned.clear(&Portable)), Ok(Reply::Ok));
    let all = |peer: &Peer| [&peer.sent[..], &peer.received[..]].concat();
    let windows = |contents: &[Vec<u8>]| -> BTreeSet<[u8; 8]> {
        contents.iter().flat_map(|one| one.windows(8)).map(|window| window.try_into().unwrap()).collect()
    };
    let (owners, readers) = (windows(&all(&owner)), windows(&all(&reader)));
    assert!(owners.len() > 30_000 && readers.len() > 30_000);
    // Of 33,000 times 33,000 pairs of 8 random bytes not one is equal by chance.
    assert_eq!(owners.intersection(&readers).count(), 0);
    // Nor do two answers to one reader, but for the reader's own name and what is the same in every answer.
    let [one, two] = &reader.received[..] else { panic!("two answers") };
    assert_eq!(one.len(), two.len());
    let body = |content: &[u8]| windows(&[content[content.len() - BLOB_LENGTH..].to_vec()]);
    assert_eq!(body(one).intersection(&body(two)).count(), 0);
}

#[test]
fn what_a_relay_puts_in_a_blobs_place_does_not_open() {
    let mut relay = Relay::new();
    let mut owner = relay.connect(1);
    let owned = OwnedBlob::generate(&mut relay.entropy);
    let write = owned.write(&Portable, b"true", &mut relay.entropy).unwrap();
    assert_eq!(relay.ask(&mut owner, write), Ok(Reply::Ok));
    let reply = relay.ask(&mut owner, read_blob(&Portable, &owned.secret));
    let Ok(Reply::Blob(genuine)) = reply else { panic!("{reply:?}") };
    // The relay knows the reader's key, and everything that it was sent.
    let public = Portable.x25519_public(&owned.secret);
    let made_up = X25519Secret::from_bytes(public.0);
    let forged = blob::seal(&Portable, &made_up, b"false", &mut relay.entropy).unwrap();
    assert!(blob::open(&Portable, &owned.secret, &mut forged.clone()).is_err());
    for place in [0, 23, 24, 40, BLOB_LENGTH - 1] {
        let mut changed = genuine.to_vec();
        changed[place] ^= 0x80;
        assert!(blob::open(&Portable, &owned.secret, &mut changed).is_err());
    }
    assert!(blob::open(&Portable, &owned.secret, &mut genuine.to_vec()).is_ok());
}

/// The example of `smp-proto/EXTENSIONS.md`, and its sizes.
#[test]
fn the_published_example_is_what_the_code_does() {
    let document = include_str!("../../smp-proto/EXTENSIONS.md");
    let (secret, session) = (X25519Secret::from_bytes([1; 32]), X25519Secret::from_bytes([2; 32]));
    let public = Portable.x25519_public(&secret);
    let mut blob = blob::seal(&Portable, &secret, b"hello", &mut GivenEntropy::new(&[3])).unwrap();
    let mut sealed = vec![0; 16 + blob.len()];
    sealed[16..].copy_from_slice(&blob);
    blob::seal_answer(&Portable, &session, &public, &[4; 24], &mut sealed).unwrap();
    let mut command = Vec::new();
    Command::ReadBlob.encode(Version::BLOCKED_NOTICE, &mut command).unwrap();
    let lines = [
        format!("k               {}", hex(&public.0)),
        format!("blobId          {}", hex(&blob::id(&public))),
        format!("blob            {} bytes, SHA-256 {}", blob.len(), hex(&Sha256::digest(&blob))),
        format!("sealed          {} bytes, SHA-256 {}", sealed.len(), hex(&Sha256::digest(&sealed))),
        format!("READ command    {}, entity 20 k", hex(&command)),
    ];
    let missing: Vec<_> = lines.iter().filter(|line| !document.contains(*line)).collect();
    assert!(missing.is_empty(), "the document does not say:\n{missing:#?}");
    let relay = Portable.x25519_public(&session);
    let opened = blob::open_answer(&Portable, &secret, &relay, &[4; 24], &mut sealed).unwrap();
    assert_eq!(opened, &blob[..]);
    assert_eq!(blob::open(&Portable, &secret, &mut blob).unwrap(), b"hello");
}
