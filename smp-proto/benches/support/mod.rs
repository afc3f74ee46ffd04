//! A connection for benchmarks, with certificates that are just enough of one to have a key.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::sync::Arc;

use bytes::BytesMut;
use smp_proto::crypto::{Portable, Provider};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{Ed25519Secret, SigningKey};
use smp_proto::session::client::{ClientSession, ClientSessionConfig};
use smp_proto::session::identity::{KeyInMemory, ServerIdentity};
use smp_proto::session::server::{Received, ServerSession, ServerSessionConfig};
use smp_proto::session::{AuthSecret, OpenedBlock, Protocol, SessionId, TransportFacts};
use smp_proto::time::Now;
use smp_proto::wire::Identifier;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::Command;
use smp_proto::wire::version::{Version, VersionRange};

/// A DER SEQUENCE of short parts.
fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    assert!(content.len() < 128);
    [&[0x30, content.len() as u8][..], &content].concat()
}

/// Serial number, four empty sequences, and the key: all that a session looks at.
pub fn certificate(key: &[u8]) -> Vec<u8> {
    let empty = sequence(&[]);
    let inside = sequence(&[&[2, 1, 1], &empty, &empty, &empty, &empty, key]);
    sequence(&[&inside, &empty, &[3, 1, 0]])
}

/// Both sides of one connection at v14.
pub struct Connection {
    pub server: ServerSession,
    pub client: ClientSession,
    pub entropy: SeededEntropy,
}

impl Connection {
    pub fn new() -> Self {
        let mut entropy = SeededEntropy::new([1; 32]);
        let secret = Ed25519Secret::generate(&mut entropy);
        let key = Portable.ed25519_public(&secret).to_der();
        let chain = vec![certificate(&key), certificate(&key)];
        let signer = Arc::new(KeyInMemory::new(SigningKey::Ed25519(secret), &Portable));
        let identity = ServerIdentity::new(chain.clone(), signer).expect("two certificates");
        let fingerprint = identity.fingerprint().to_vec();
        let facts = |peer_chain| TransportFacts {
            session_id: SessionId::new(&[7; 32]).expect("32 bytes"),
            protocol: Protocol::Smp,
            peer_chain,
        };
        let relay = Arc::new(ServerSessionConfig::new(identity, &Portable));
        let config = Arc::new(ClientSessionConfig {
            versions: VersionRange::only(Version(14)),
            ..ClientSessionConfig::new(fingerprint, &Portable)
        });
        let now = Now::default();
        let mut server = ServerSession::new(&relay, facts(Vec::new()), now, &mut entropy).expect("signs");
        let mut client = ClientSession::new(&config, facts(chain), now, &mut entropy);
        client.receive(server.take_handshake_block().expect("a hello"), now).expect("the right relay");
        server.receive(client.take_handshake_block().expect("a hello"), now).expect("a good hello");
        Self { server, client, entropy }
    }

    /// A block with this command, `count` times.
    pub fn seal(&mut self, command: &Command<'_>, key: Option<&AuthSecret>, count: usize) -> BytesMut {
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let name = Identifier::from([3; 24]);
        let bytes = block.as_mut().try_into().expect("a block");
        self.client
            .seal(bytes, Now::default(), |writer| {
                for _ in 0..count {
                    writer.add(&name, &name, command, key).expect("fits");
                }
            })
            .expect("established");
        block
    }

    /// What the relay reads.
    pub fn receive(&mut self, block: BytesMut) -> OpenedBlock {
        match self.server.receive(block, Now::default()) {
            Ok(Received::Commands(block)) => block,
            other => panic!("{other:?}"),
        }
    }
}
