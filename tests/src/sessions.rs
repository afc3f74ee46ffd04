//! Two sessions, one of each side, with certificates and keys that are given: for vectors, properties and benchmarks.

use std::sync::Arc;

use bytes::BytesMut;
use smp_proto::crypto::{Portable, Provider};
use smp_proto::entropy::Entropy;
use smp_proto::keys::SigningKey;
use smp_proto::session::client::{self, ClientSession, ClientSessionConfig};
use smp_proto::session::identity::{KeyInMemory, ServerIdentity};
use smp_proto::session::server::{self, ServerSession, ServerSessionConfig};
use smp_proto::session::{CloseReason, OpenedBlock, Protocol, SessionError, SessionId, TransportFacts};
use smp_proto::time::{Instant, Now, UnixTime};
use smp_proto::wire::block::{BLOCK_LENGTH, PLAIN_CONTENT_START, pad_plain};
use smp_proto::wire::version::{Version, VersionRange};

use crate::vectors;

/// The session id of the vectors: 32 bytes from 200.
pub const SESSION_ID: [u8; 32] = {
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < 32 {
        bytes[index] = 200 + index as u8;
        index += 1;
    }
    bytes
};

/// The moment of all tests, in which nothing is late.
pub const NOW: Now = Now { instant: Instant::from_micros(1_000_000), wall: UnixTime(1_700_000_000) };

/// Entropy whose secret stream is given, repeated for ever: private keys come out as they were put in.
#[derive(Clone, Debug)]
pub struct GivenEntropy {
    secret: Vec<u8>,
    next: usize,
}

impl GivenEntropy {
    /// Repeats `secret`.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { secret: secret.to_vec(), next: 0 }
    }
}

impl Entropy for GivenEntropy {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        self.fill_secret(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.secret[self.next % self.secret.len()];
            self.next += 1;
        }
    }
}

/// A chain of certificates of the vectors, with the leaf's private key.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// In DER, leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The SHA-256 of the second.
    pub fingerprint: Vec<u8>,
    /// The leaf's private key.
    pub key: SigningKey,
}

impl Certificates {
    /// The chain of this name in `hello.jsonl`: `ed448` or `ed25519`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let vector = vectors::read("hello.jsonl")
            .into_iter()
            .find(|vector| vector.kind == "certificates")
            .expect("hello.jsonl has a line of certificates");
        let fields = vector.output.get(name);
        let chain =
            fields.get("certs").items().expect("certs").into_iter().map(|item| item.as_bytes().expect("hex"));
        Self {
            chain: chain.collect(),
            fingerprint: fields.bytes("keyHash").expect("keyHash"),
            key: SigningKey::from_der(&fields.bytes("leafPrivateKey").expect("leafPrivateKey"))
                .expect("PKCS#8"),
        }
    }

    /// The relay with this chain.
    ///
    /// # Panics
    /// When the chain is not a relay's.
    #[must_use]
    pub fn relay(&self, versions: VersionRange, provider: &'static dyn Provider) -> ServerSessionConfig {
        let signer = Arc::new(KeyInMemory::new(self.key.clone(), provider));
        let identity = ServerIdentity::new(self.chain.clone(), signer).expect("a relay's chain");
        ServerSessionConfig { versions, ..ServerSessionConfig::new(identity, provider) }
    }
}

/// The facts of a connection of the vectors.
///
/// # Panics
/// Never: the session id is a good one.
#[must_use]
pub fn facts(alpn_negotiated: bool, peer_chain: &[Vec<u8>]) -> TransportFacts {
    facts_of(&SESSION_ID, alpn_negotiated, peer_chain)
}

/// The facts of a connection with this session id.
///
/// # Panics
/// When the id is empty or too long.
#[must_use]
pub fn facts_of(session: &[u8], alpn_negotiated: bool, peer_chain: &[Vec<u8>]) -> TransportFacts {
    TransportFacts {
        session_id: SessionId::new(session).expect("1 to 255 bytes"),
        protocol: if alpn_negotiated { Protocol::Smp } else { Protocol::OldSmp },
        peer_chain: peer_chain.to_vec(),
    }
}

/// The range between two versions.
#[must_use]
pub const fn versions(oldest: u16, newest: u16) -> VersionRange {
    VersionRange::between(Version(oldest), Version(newest))
}

/// A block with this content, not encrypted.
///
/// # Panics
/// When the content is too long.
#[must_use]
pub fn plain_block(content: &[u8]) -> BytesMut {
    let mut block = BytesMut::zeroed(BLOCK_LENGTH);
    block[PLAIN_CONTENT_START..][..content.len()].copy_from_slice(content);
    pad_plain(&mut block, content.len()).expect("content fits");
    block
}

/// Both sides of one connection.
#[derive(Debug)]
pub struct Pair {
    /// The relay's.
    pub server: ServerSession,
    /// The client's.
    pub client: ClientSession,
}

/// How a [`Pair`] is connected.
#[derive(Clone)]
pub struct PairOptions {
    /// What the relay offers.
    pub server_versions: VersionRange,
    /// What the client speaks.
    pub client_versions: VersionRange,
    /// Whether any ALPN was negotiated.
    pub alpn: bool,
    /// Whether the client sends a key.
    pub sends_key: bool,
    /// Whether the client is a proxy.
    pub proxy: bool,
    /// The relay's secret key in the hello.
    pub server_secret: [u8; 32],
    /// The client's secret key in the hello.
    pub client_secret: [u8; 32],
    /// What the TLS connection is called.
    pub session: Vec<u8>,
    /// The relay's primitives.
    pub provider: &'static dyn Provider,
}

impl PairOptions {
    /// An ordinary connection of one version, with the keys of the vectors.
    #[must_use]
    pub fn at(version: u16) -> Self {
        Self {
            server_versions: versions(6, version),
            client_versions: versions(6, version),
            alpn: true,
            sends_key: true,
            proxy: false,
            server_secret: std::array::from_fn(|index| 0x20 + index as u8),
            client_secret: std::array::from_fn(|index| index as u8),
            session: SESSION_ID.to_vec(),
            provider: &Portable,
        }
    }
}

impl Pair {
    /// Connects two sessions, up to the end of the handshake.
    ///
    /// # Errors
    /// Why either side closed.
    ///
    /// # Panics
    /// When a side does not say its hello, or is misused.
    pub fn connect(certificates: &Certificates, options: &PairOptions) -> Result<Self, CloseReason> {
        let relay = Arc::new(certificates.relay(options.server_versions, options.provider));
        let client = Arc::new(ClientSessionConfig {
            versions: options.client_versions,
            sends_key: options.sends_key,
            proxy: options.proxy,
            ..ClientSessionConfig::new(certificates.fingerprint.clone(), &Portable)
        });
        let mut server = ServerSession::new(
            &relay,
            facts_of(&options.session, options.alpn, &[]),
            NOW,
            &mut GivenEntropy::new(&options.server_secret),
        )
        .expect("a key in memory signs");
        let mut client = ClientSession::new(
            &client,
            facts_of(&options.session, options.alpn, &certificates.chain),
            NOW,
            &mut GivenEntropy::new(&options.client_secret),
        );
        let hello = server.take_handshake_block().expect("the relay speaks first");
        let version = match closed(client.receive(hello, NOW))? {
            client::Received::Established(version) => version,
            client::Received::Responses(_) => panic!("responses in a hello"),
        };
        let hello = client.take_handshake_block().expect("the client's hello");
        match closed(server.receive(hello, NOW))? {
            server::Received::Established(same) => assert_eq!(same, version),
            server::Received::Commands(_) | server::Received::Service(_) => panic!("not an ordinary hello"),
        }
        Ok(Self { server, client })
    }

    /// Has the relay receive a block.
    ///
    /// # Errors
    /// Why it closed.
    ///
    /// # Panics
    /// When it is misused.
    pub fn to_server(&mut self, block: BytesMut) -> Result<OpenedBlock, CloseReason> {
        match closed(self.server.receive(block, NOW))? {
            server::Received::Commands(block) => Ok(block),
            server::Received::Established(_) | server::Received::Service(_) => panic!("a second hello"),
        }
    }

    /// Has the client receive a block.
    ///
    /// # Errors
    /// Why it closed.
    ///
    /// # Panics
    /// When it is misused.
    pub fn to_client(&mut self, block: BytesMut) -> Result<OpenedBlock, CloseReason> {
        match closed(self.client.receive(block, NOW))? {
            client::Received::Responses(block) => Ok(block),
            client::Received::Established(_) => panic!("a second hello"),
        }
    }
}

/// The reason of a close.
///
/// # Errors
/// The reason.
///
/// # Panics
/// When the session was misused.
pub fn closed<T>(result: Result<T, SessionError>) -> Result<T, CloseReason> {
    result.map_err(|error| match error {
        SessionError::Close(reason) => reason,
        SessionError::Misuse(misuse) => panic!("{misuse}"),
    })
}
