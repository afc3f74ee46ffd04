//! A client that is as plain as possible, independent of the machines of `smp-proto`: it shares only the primitives and
//! the readers of `wire` with them, and it can be told to break every rule.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use smp_proto::crypto::chain_keys::{
    BLOCK_LENGTH, CONTENT_OFFSET, ChainKey, InitialChainKeys, MAX_ENCRYPTED_CONTENT, PLAIN_CONTENT_OFFSET,
};
use smp_proto::crypto::message_body::{ReceivedMessage, open_message};
use smp_proto::crypto::provider::Provider;
use smp_proto::crypto::signed_key::SignedKey;
use smp_proto::crypto::{BoxKey, Nonce, Portable, SharedSecret, authenticator, padding};
use smp_proto::keys::{Ed25519Secret, PublicKey, X25519Public, X25519Secret};
use smp_proto::wire::hello::ServerHello;
use smp_proto::wire::response::Response;
use smp_proto::wire::version::{Version, VersionRange};
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::tls::{ClientTls, ClientTlsOptions, TlsSession};

/// How long to wait for what must come. Long, because the machine may be busy; a test that passes never waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Random bytes of the operating system.
pub fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// With what a command is authorized.
#[derive(Clone)]
pub enum Key {
    Nothing,
    Ed25519(Ed25519Secret),
    X25519(X25519Secret),
    /// These bytes, whatever they mean.
    Bytes(Vec<u8>),
}

impl Key {
    pub fn new_ed25519() -> Self {
        Self::Ed25519(Ed25519Secret::from_bytes(random()))
    }

    pub fn new_x25519() -> Self {
        Self::X25519(X25519Secret::from_bytes(random()))
    }

    /// A length byte and the public key in DER, as in commands.
    pub fn public(&self) -> Vec<u8> {
        let der = match self {
            Self::Ed25519(secret) => Portable.ed25519_public(secret).to_der(),
            Self::X25519(secret) => Portable.x25519_public(secret).to_der(),
            Self::Nothing | Self::Bytes(_) => panic!("there is no key"),
        };
        short(der.as_bytes())
    }
}

/// A length byte and the bytes.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Two length bytes and the bytes.
pub fn large(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// One transmission of the relay.
#[derive(Clone, PartialEq, Eq)]
pub struct Said {
    pub correlation: Vec<u8>,
    pub entity: Vec<u8>,
    /// The bytes of the response.
    pub content: Vec<u8>,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.content.get(..self.content.len().min(60)).unwrap_or_default();
        write!(formatter, "{}", shown.escape_ascii())
    }
}

/// TCP and TLS to a relay: blocks in, blocks out.
pub struct RawTls {
    pub socket: TcpStream,
    pub tls: TlsSession,
    pub session_id: [u8; 32],
    /// The relay's certificates.
    pub chain: Vec<Vec<u8>>,
}

impl RawTls {
    pub fn connect(address: SocketAddr, fingerprint: Fingerprint) -> Result<Self, String> {
        Self::connect_with(address, fingerprint, &ClientTlsOptions::default())
    }

    pub fn connect_with(
        address: SocketAddr,
        fingerprint: Fingerprint,
        options: &ClientTlsOptions,
    ) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let configuration = ClientTls::with_options(fingerprint, options).map_err(|error| text(&error))?;
        let mut tls = TlsSession::client(&configuration).map_err(|error| text(&error))?;
        let mut socket = TcpStream::connect(address).map_err(|error| text(&error))?;
        socket.set_nodelay(true).map_err(|error| text(&error))?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(|error| text(&error))?;
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut socket).map_err(|error| text(&error))?;
            }
            if let Some(facts) = tls.take_facts() {
                return Ok(Self {
                    socket,
                    tls,
                    session_id: facts.session_id,
                    chain: facts.peer_certificates,
                });
            }
            if tls.read_tls(&mut socket).map_err(|error| text(&error))? == 0 {
                return Err("closed during the TLS handshake".to_owned());
            }
            let result = tls.process();
            if let Err(error) = result {
                while tls.wants_write() && tls.write_tls(&mut socket).is_ok() {}
                return Err(text(&error));
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.tls.write_plaintext(bytes).map_err(|error| error.to_string())?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Writes what TLS has to say by itself.
    pub fn socket_flush(&mut self) {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket).unwrap();
        }
    }

    /// The next block; `None` when the relay has closed the connection; an error when nothing came in time.
    pub fn block(&mut self, patience: Duration) -> Result<Option<Box<[u8; BLOCK_LENGTH]>>, String> {
        let until = Instant::now() + patience;
        loop {
            match self.tls.read_block(|block| Box::new(*block)) {
                Ok(Some(block)) => return Ok(Some(block)),
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
            if self.tls.peer_has_closed() {
                return Ok(None);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err("nothing came".to_owned());
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(None),
            }
        }
    }
}

/// What a client says in its hello.
#[derive(Clone)]
pub struct Hello {
    /// The newest version to agree on.
    pub max_version: u16,
    /// Whether it sends a key.
    pub with_key: bool,
    /// The fingerprint, when it is not the relay's own.
    pub fingerprint: Option<Vec<u8>>,
    /// The version to say, whatever the relay offers.
    pub forced_version: Option<u16>,
}

impl Default for Hello {
    fn default() -> Self {
        Self { max_version: 18, with_key: true, fingerprint: None, forced_version: None }
    }
}

/// A session with a relay.
pub struct RawClient {
    pub tls: RawTls,
    pub version: u16,
    relay_key: Option<X25519Public>,
    chains: Option<(ChainKey, ChainKey)>,
    waiting: VecDeque<Said>,
}

impl RawClient {
    pub fn connect(address: SocketAddr, fingerprint: Fingerprint) -> Result<Self, String> {
        Self::connect_with(address, fingerprint, &Hello::default())
    }

    pub fn connect_with(
        address: SocketAddr,
        fingerprint: Fingerprint,
        hello: &Hello,
    ) -> Result<Self, String> {
        let mut tls = RawTls::connect(address, fingerprint)?;
        let block = tls.block(PATIENCE)?.ok_or("closed before the hello")?;
        let content = padding::unpad(block.as_slice()).map_err(|error| error.to_string())?;
        let server = ServerHello::decode(content).ok_or("unreadable server hello")?;
        if server.session != tls.session_id {
            return Err("the relay names another session id".to_owned());
        }
        let wanted = VersionRange::new(Version(6), Version(hello.max_version)).ok_or("impossible version")?;
        let common = server.versions.intersection(wanted).ok_or("no common version")?;
        let version = hello.forced_version.unwrap_or(common.max().0);
        let relay_key = match server.authentication {
            Some((_, key)) => match SignedKey::from_der(key.0).ok_or("unreadable key")?.key {
                PublicKey::X25519(key) => Some(key),
                _ => return Err("the relay's key is not X25519".to_owned()),
            },
            None => None,
        };
        let secret = X25519Secret::from_bytes(random());
        let mut content = version.to_be_bytes().to_vec();
        content.extend(short(hello.fingerprint.as_deref().unwrap_or(&fingerprint.0)));
        if version >= 7 && hello.with_key {
            content.extend(short(Portable.x25519_public(&secret).to_der().as_bytes()));
        }
        if version >= 14 {
            content.push(b'F');
        }
        if version >= 16 {
            content.push(b'0');
        }
        let chains = match relay_key {
            Some(key) if version >= 11 && hello.with_key => {
                let secret = SharedSecret::agree(&Portable, &secret, &key);
                let InitialChainKeys { server_sends, client_sends } =
                    InitialChainKeys::new(&Portable, &tls.session_id, &secret);
                Some((client_sends, server_sends))
            }
            _ => None,
        };
        let mut client = Self { tls, version, relay_key, chains: None, waiting: VecDeque::new() };
        client.send_content(&content)?;
        client.chains = chains;
        Ok(client)
    }

    /// Sends the content of one block.
    pub fn send_content(&mut self, content: &[u8]) -> Result<(), String> {
        let mut block = Box::new([0; BLOCK_LENGTH]);
        match &mut self.chains {
            Some((sending, _)) => {
                assert!(content.len() <= MAX_ENCRYPTED_CONTENT);
                block[CONTENT_OFFSET..CONTENT_OFFSET + content.len()].copy_from_slice(content);
                sending
                    .seal_block(&Portable, &mut block, content.len())
                    .map_err(|error| error.to_string())?;
            }
            None => {
                block[PLAIN_CONTENT_OFFSET..PLAIN_CONTENT_OFFSET + content.len()].copy_from_slice(content);
                padding::pad_in_place(block.as_mut_slice(), content.len())
                    .map_err(|error| error.to_string())?;
            }
        }
        self.tls.send(block.as_slice())
    }

    /// A transmission, authorized with `key`.
    pub fn transmission(&self, key: &Key, correlation: &[u8], entity: &[u8], command: &[u8]) -> Vec<u8> {
        let tail = [&short(correlation), &short(entity), command].concat();
        let session = short(&self.tls.session_id);
        let authorized: [&[u8]; 2] = [&session, &tail];
        let authorization = match key {
            Key::Nothing => Vec::new(),
            Key::Ed25519(secret) => Portable.ed25519_sign(secret, &authorized).to_vec(),
            Key::X25519(secret) => {
                let key = BoxKey::agree(&Portable, secret, &self.relay_key.unwrap());
                authenticator::create(&Portable, &key, correlation, &authorized).to_vec()
            }
            Key::Bytes(bytes) => bytes.clone(),
        };
        let mut transmission = short(&authorization);
        if self.version >= 16 && !authorization.is_empty() {
            transmission.push(b'0');
        }
        if self.version < 7 {
            transmission.extend(session);
        }
        transmission.extend(tail);
        transmission
    }

    /// Sends transmissions as one batch.
    pub fn send_batch(&mut self, transmissions: &[Vec<u8>]) -> Result<(), String> {
        let mut content = vec![u8::try_from(transmissions.len()).unwrap()];
        for transmission in transmissions {
            content.extend(large(transmission));
        }
        self.send_content(&content)
    }

    /// Sends one command, and returns its correlation id.
    pub fn send(&mut self, key: &Key, entity: &[u8], command: &[u8]) -> Result<[u8; 24], String> {
        let correlation = random();
        let transmission = self.transmission(key, &correlation, entity, command);
        self.send_batch(&[transmission])?;
        Ok(correlation)
    }

    /// Reads one block into the list of what was said; false when the connection is closed.
    pub fn receive_block(&mut self, patience: Duration) -> Result<bool, String> {
        let Some(mut block) = self.tls.block(patience)? else { return Ok(false) };
        let content = match &mut self.chains {
            Some((_, receiving)) => {
                &*receiving.open_block(&Portable, &mut block).map_err(|error| error.to_string())?
            }
            None => padding::unpad(block.as_slice()).map_err(|error| error.to_string())?,
        };
        self.waiting.extend(read_batch(content, self.version).ok_or("unreadable batch")?);
        Ok(true)
    }

    /// What the relay says next; `None` when it has closed the connection; an error when nothing came in time.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Said>, String> {
        loop {
            if let Some(said) = self.waiting.pop_front() {
                return Ok(Some(said));
            }
            if !self.receive_block(patience)? {
                return Ok(None);
            }
        }
    }

    /// Sends one command, and returns the bytes of its response. What comes in between is kept for [`Self::next`].
    pub fn command(&mut self, key: &Key, entity: &[u8], command: &[u8]) -> Result<Vec<u8>, String> {
        let correlation = self.send(key, entity, command)?;
        self.answer(&correlation).map(|said| said.content)
    }

    /// The response to a command that was sent.
    pub fn answer(&mut self, correlation: &[u8]) -> Result<Said, String> {
        loop {
            if let Some(at) = self.waiting.iter().position(|said| said.correlation == correlation) {
                return Ok(self.waiting.remove(at).unwrap());
            }
            if !self.receive_block(PATIENCE)? {
                return Err("closed before the answer".to_owned());
            }
        }
    }

    /// What the relay says by itself: the next transmission without a correlation.
    pub fn event(&mut self, patience: Duration) -> Result<Said, String> {
        loop {
            if let Some(at) = self.waiting.iter().position(|said| said.correlation.is_empty()) {
                return Ok(self.waiting.remove(at).unwrap());
            }
            if !self.receive_block(patience)? {
                return Err("closed before an event".to_owned());
            }
        }
    }
}

fn read_batch(content: &[u8], version: u16) -> Option<Vec<Said>> {
    let (&count, mut rest) = content.split_first()?;
    let mut said = Vec::new();
    for _ in 0..count {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (mut transmission, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        let mut take = || {
            let (&length, after) = transmission.split_first()?;
            let (bytes, after) = after.split_at_checked(usize::from(length))?;
            transmission = after;
            Some(bytes.to_vec())
        };
        if !take()?.is_empty() {
            return None;
        }
        if version < 7 {
            take()?;
        }
        let (correlation, entity) = (take()?, take()?);
        said.push(Said { correlation, entity, content: transmission.to_vec() });
    }
    Some(said)
}

/// A queue that a raw client has made.
#[derive(Clone)]
pub struct RawQueue {
    pub recipient: Vec<u8>,
    pub sender: Vec<u8>,
    pub recipient_key: Key,
    pub opens: BoxKey,
}

/// How to make one.
#[derive(Clone, Copy)]
pub struct NewOptions<'a> {
    pub subscribe: bool,
    pub password: Option<&'a [u8]>,
    /// `M` or `C`.
    pub mode: u8,
}

impl Default for NewOptions<'_> {
    fn default() -> Self {
        Self { subscribe: true, password: None, mode: b'M' }
    }
}

impl RawClient {
    /// `NEW` at the session's version.
    pub fn new_queue_command(&self, key: &Key, dh: &X25519Secret, options: NewOptions<'_>) -> Vec<u8> {
        let mut command = b"NEW ".to_vec();
        command.extend(key.public());
        command.extend(short(Portable.x25519_public(dh).to_der().as_bytes()));
        match (self.version, options.password) {
            (..=8, None) => {}
            (..=8, Some(password)) => command.extend([b"A".as_slice(), &short(password)].concat()),
            (_, None) => command.push(b'0'),
            (_, Some(password)) => command.extend([b"1".as_slice(), &short(password)].concat()),
        }
        command.push(if options.subscribe { b'S' } else { b'C' });
        match self.version {
            ..=8 => {}
            9..=14 => command.push(if options.mode == b'M' { b'T' } else { b'F' }),
            _ => command.extend([b'1', options.mode, b'0']),
        }
        if self.version >= 17 {
            command.push(b'0');
        }
        command
    }

    /// Makes a queue.
    pub fn new_queue(&mut self, options: NewOptions<'_>) -> Result<RawQueue, String> {
        let (key, dh) = (Key::new_ed25519(), X25519Secret::from_bytes(random()));
        let command = self.new_queue_command(&key, &dh, options);
        let answer = self.command(&key, b"", &command)?;
        match Response::decode(&answer, Version(self.version)) {
            Ok(Response::Created(ids)) => Ok(RawQueue {
                recipient: ids.recipient.as_bytes().to_vec(),
                sender: ids.sender.as_bytes().to_vec(),
                recipient_key: key,
                opens: BoxKey::agree(&Portable, &dh, &ids.relay_dh),
            }),
            _ => Err(format!("NEW was answered {}", answer.escape_ascii())),
        }
    }
}

/// A delivered message: its id and, for a message rather than the quota marker, its body.
pub fn open_delivery(queue: &RawQueue, content: &[u8]) -> Result<([u8; 24], Option<Vec<u8>>), String> {
    let rest = content.strip_prefix(b"MSG ").ok_or_else(|| format!("not MSG: {}", content.escape_ascii()))?;
    let (&length, rest) = rest.split_first().ok_or("empty MSG")?;
    let (id, sealed) = rest.split_at_checked(usize::from(length)).ok_or("short MSG")?;
    let id: [u8; 24] = id.try_into().map_err(|_| "message id of another length")?;
    let mut sealed = sealed.to_vec();
    match open_message(&Portable, &queue.opens, &Nonce(id), &mut sealed)
        .map_err(|error| format!("{error:?}"))?
    {
        ReceivedMessage::Message { body, .. } => Ok((id, Some(body.to_vec()))),
        ReceivedMessage::QuotaExceeded { .. } => Ok((id, None)),
    }
}

/// `SEND` without flags.
pub fn send_command(body: &[u8]) -> Vec<u8> {
    [b"SEND F ".as_slice(), body].concat()
}

/// `ACK` of a message.
pub fn acknowledge_command(id: &[u8]) -> Vec<u8> {
    [b"ACK ".as_slice(), &short(id)].concat()
}
