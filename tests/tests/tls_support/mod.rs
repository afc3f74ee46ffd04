//! The other ends for the tests of TLS: OpenSSL as the oracle, and certificates of every shape made by it.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

pub mod rustls_peer;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::pkey::{PKey, Private};
use openssl::ssl::{self, ErrorCode, Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage};
use openssl::x509::{X509, X509NameBuilder};
use smp_runtime_std::certificates::{Algorithm, Credentials, Fingerprint, NewIdentity, PrivateKey, Validity};
use smp_runtime_std::tls::{TlsError, TlsSession};

/// A certificate and its key, made by OpenSSL.
#[derive(Clone)]
pub struct Issued {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// What a certificate is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Authority,
    Server,
    Client,
}

/// From and to, in seconds since 1970.
pub const YEARS_2020_TO_2120: (i64, i64) = (1_577_836_800, 4_733_510_400);

pub fn key(algorithm: Algorithm) -> PKey<Private> {
    match algorithm {
        Algorithm::Ed25519 => PKey::generate_ed25519().unwrap(),
        Algorithm::Ed448 => PKey::generate_ed448().unwrap(),
    }
}

pub fn issue_dated(
    name: &str,
    purpose: Purpose,
    algorithm: Algorithm,
    by: Option<&Issued>,
    dates: (i64, i64),
) -> Issued {
    let key = key(algorithm);
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(150, MsbOption::MAYBE_ZERO, false).unwrap();
    builder.set_serial_number(&serial.to_asn1_integer().unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(by.map_or(&subject, |issuer| issuer.certificate.subject_name())).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(dates.0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::from_unix(dates.1).unwrap()).unwrap();
    builder.set_pubkey(&key).unwrap();
    if purpose == Purpose::Authority {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    } else {
        builder.append_extension(BasicConstraints::new().build().unwrap()).unwrap();
        builder
            .append_extension(KeyUsage::new().digital_signature().non_repudiation().build().unwrap())
            .unwrap();
        let mut usage = ExtendedKeyUsage::new();
        if purpose == Purpose::Server {
            usage.server_auth()
        } else {
            usage.client_auth()
        };
        builder.append_extension(usage.build().unwrap()).unwrap();
    }
    builder.sign(by.map_or(&key, |issuer| &issuer.key), openssl::hash::MessageDigest::null()).unwrap();
    Issued { certificate: builder.build(), key }
}

pub fn issue(name: &str, purpose: Purpose, algorithm: Algorithm, by: Option<&Issued>) -> Issued {
    issue_dated(name, purpose, algorithm, by, YEARS_2020_TO_2120)
}

/// A chain of `length` (2 to 5) with its leaf first, each signed by the next.
pub fn chain(purpose: Purpose, algorithm: Algorithm, length: usize) -> Vec<Issued> {
    let mut chain = vec![issue("root", Purpose::Authority, algorithm, None)];
    for level in 2..length {
        chain.insert(0, issue(&format!("level {level}"), Purpose::Authority, algorithm, chain.first()));
    }
    chain.insert(0, issue("leaf", purpose, algorithm, chain.first()));
    chain
}

/// The chain as our side takes it, with the key of its leaf.
pub fn credentials(chain: &[Issued]) -> Credentials {
    Credentials {
        chain: chain.iter().map(|issued| issued.certificate.to_der().unwrap().into()).collect(),
        key: PrivateKey::from_pkcs8(&chain[0].key.private_key_to_pkcs8().unwrap()).unwrap(),
    }
}

pub fn fingerprint(chain: &[Issued]) -> Fingerprint {
    credentials(chain).fingerprint().unwrap()
}

/// An identity as `smp-server init` makes it.
pub fn identity(algorithm: Algorithm) -> NewIdentity {
    NewIdentity::make("localhost", algorithm, Validity::days_from_now(999_999)).unwrap()
}

/// Both directions of a connection in memory, as OpenSSL wants it.
#[derive(Clone, Default)]
pub struct Pipe(Rc<RefCell<(VecDeque<u8>, Vec<u8>)>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.borrow_mut().0.read(buffer)?;
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What differs between OpenSSL peers.
pub struct Settings<'a> {
    pub credentials: Option<&'a [Issued]>,
    pub groups: &'a str,
    pub suite: &'a str,
    pub protocols: &'a [u8],
    pub version: SslVersion,
    pub asks_for_certificate: bool,
}

impl Default for Settings<'_> {
    fn default() -> Self {
        Self {
            credentials: None,
            groups: "X25519",
            suite: "TLS_CHACHA20_POLY1305_SHA256",
            protocols: b"\x05smp/1",
            version: SslVersion::TLS1_3,
            asks_for_certificate: false,
        }
    }
}

/// An end of a connection that is OpenSSL's.
pub struct OpenSsl {
    stream: SslStream<Pipe>,
    pipe: Pipe,
    is_server: bool,
    done: bool,
}

impl OpenSsl {
    pub fn new(is_server: bool, settings: &Settings<'_>) -> Self {
        let mut context = SslContext::builder(SslMethod::tls()).unwrap();
        context.set_min_proto_version(Some(settings.version)).unwrap();
        context.set_max_proto_version(Some(settings.version)).unwrap();
        if settings.version == SslVersion::TLS1_3 {
            context.set_ciphersuites(settings.suite).unwrap();
        }
        context.set_groups_list(settings.groups).unwrap();
        context.set_sigalgs_list("ed448:ed25519").unwrap();
        context.set_verify(SslVerifyMode::NONE);
        if settings.asks_for_certificate {
            context.set_verify_callback(SslVerifyMode::PEER, |_, _| true);
        }
        if let Some(chain) = settings.credentials {
            context.set_certificate(&chain[0].certificate).unwrap();
            for issued in &chain[1..] {
                context.add_extra_chain_cert(issued.certificate.clone()).unwrap();
            }
            context.set_private_key(&chain[0].key).unwrap();
        }
        let protocols = settings.protocols.to_vec();
        if is_server {
            context.set_alpn_select_callback(move |_, offered| {
                let chosen = ssl::select_next_proto(&protocols, offered).ok_or(ssl::AlpnError::NOACK)?;
                offered.windows(chosen.len()).find(|window| *window == chosen).ok_or(ssl::AlpnError::NOACK)
            });
        } else if !protocols.is_empty() {
            context.set_alpn_protos(&protocols).unwrap();
        }
        let pipe = Pipe::default();
        let stream = SslStream::new(Ssl::new(&context.build()).unwrap(), pipe.clone()).unwrap();
        Self { stream, pipe, is_server, done: false }
    }

    /// Bytes from the wire in, bytes for the wire out.
    pub fn step(&mut self, input: &[u8]) -> Result<Vec<u8>, String> {
        self.pipe.0.borrow_mut().0.extend(input);
        if !self.done {
            match if self.is_server { self.stream.accept() } else { self.stream.connect() } {
                Ok(()) => self.done = true,
                Err(error) if error.code() == ErrorCode::WANT_READ => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(self.take_outgoing())
    }

    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pipe.0.borrow_mut().1)
    }

    pub fn is_done(&self) -> bool {
        self.done
    }

    /// `SSL_get_finished` of a client, `SSL_get_peer_finished` of a server: the session id.
    pub fn session_id(&self) -> Vec<u8> {
        let mut bytes = [0; 64];
        let ssl = self.stream.ssl();
        let length = if self.is_server { ssl.peer_finished(&mut bytes) } else { ssl.finished(&mut bytes) };
        bytes[..length].to_vec()
    }

    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.ssl().selected_alpn_protocol()
    }

    pub fn peer_certificates(&self) -> usize {
        // On a server, OpenSSL keeps the leaf apart from the chain.
        let chain = self.stream.ssl().peer_cert_chain().map_or(0, |chain| chain.len());
        let leaf = self.stream.ssl().peer_certificate().map_or(0, |_| 1);
        if self.is_server { chain + leaf } else { chain }
    }

    pub fn write(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.stream.write_all(plaintext).unwrap();
        self.take_outgoing()
    }

    /// Everything that can be decrypted now; also processes tickets and key updates.
    pub fn read(&mut self, input: &[u8]) -> Vec<u8> {
        self.pipe.0.borrow_mut().0.extend(input);
        let mut all = Vec::new();
        let mut some = [0; 20_000];
        while let Ok(count @ 1..) = self.stream.ssl_read(&mut some) {
            all.extend_from_slice(&some[..count]);
        }
        all
    }
}

/// Takes all that our side has for the wire.
pub fn outgoing(session: &mut TlsSession) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Gives bytes from the wire to our side, and lets the handshake go on.
pub fn deliver(session: &mut TlsSession, mut input: &[u8]) -> Result<(), TlsError> {
    loop {
        let taken = session.feed(input);
        input = &input[taken..];
        session.process()?;
        if taken == 0 || input.is_empty() {
            return Ok(());
        }
    }
}

/// Shakes hands with OpenSSL; what our side says when that fails.
pub fn shake_hands(ours: &mut TlsSession, theirs: &mut OpenSsl) -> Result<(), TlsError> {
    let mut to_us = if theirs.is_server { Vec::new() } else { theirs.step(&[]).unwrap() };
    for _ in 0..8 {
        let result = deliver(ours, &to_us);
        // Also when it failed: an alert.
        let to_them = outgoing(ours);
        to_us = match theirs.step(&to_them) {
            Ok(bytes) => bytes,
            Err(_) => theirs.take_outgoing(),
        };
        result?;
        if to_us.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Shakes hands between two ends of ours: what the client says, what the server says.
pub fn shake_hands_with_us(
    client: &mut TlsSession,
    server: &mut TlsSession,
) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let (mut of_client, mut of_server) = (Ok(()), Ok(()));
    for _ in 0..4 {
        let to_server = outgoing(client);
        if of_server.is_ok() {
            of_server = deliver(server, &to_server);
        }
        let to_client = outgoing(server);
        if of_client.is_ok() {
            of_client = deliver(client, &to_client);
        }
    }
    (of_client, of_server)
}
