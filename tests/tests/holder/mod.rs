//! A client of a first-step relay that is as plain as possible: it seals commands and says what it is told, and decides nothing.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use smp_proto::crypto::certificates;
use smp_proto::crypto::forwarding::{ForwardKeys, MAX_CONTENT, is_published, session_name};
use smp_proto::crypto::{Portable, Provider};
use smp_proto::keys::{X25519Public, X25519Secret};
use smp_proto::session::first_step::{FirstStepDial, FirstStepSession, Received};
use smp_proto::session::{Protocol, SessionId, TransportFacts};
use smp_proto::time::{Instant, Now, UnixTime};
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Message, Register, RelayNumber, SEALED_LENGTH,
    Transmission,
};
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::client::fresh_entropy;
use smp_runtime_std::tls::{ApplicationProtocol, ClientTlsOptions};

use crate::raw_client::{Key, PATIENCE, RawTls, large, random, short};

/// The time that these sessions see: only time limits depend on it.
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Now { instant: Instant::START, wall: UnixTime(wall.try_into().unwrap()) }
}

/// What a first-step relay has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Registered(Registration),
    /// [`SEALED_LENGTH`] bytes.
    Response(Vec<u8>),
    Error(FirstStepError),
}

/// A destination that was registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub relay: RelayNumber,
    pub key_number: RelayNumber,
    pub key: X25519Public,
    pub until: i64,
}

/// A command that was sealed, and what opens its answer.
pub struct Sealed {
    pub ephemeral: X25519Public,
    pub bytes: Vec<u8>,
    pub keys: ForwardKeys,
}

/// A client of a first-step relay.
pub struct Holder {
    tls: RawTls,
    session: FirstStepSession,
    waiting: VecDeque<(u64, Heard)>,
    /// The next number.
    pub next: u64,
    /// Everything that was said and heard, as the first-step relay reads it.
    pub contents: Vec<Vec<u8>>,
}

impl Holder {
    pub fn connect(address: SocketAddr, fingerprint: Fingerprint) -> Result<Self, String> {
        let options = ClientTlsOptions {
            protocol: Some(ApplicationProtocol::SmpProxy1),
            ..ClientTlsOptions::default()
        };
        let mut tls = RawTls::connect_with(address, fingerprint, &options)?;
        let facts = TransportFacts {
            session_id: SessionId::new(&tls.session_id).unwrap(),
            protocol: Protocol::FirstStep,
            peer_chain: tls.chain.clone(),
        };
        let dial = FirstStepDial::new(fingerprint.0.to_vec(), &Portable);
        let mut session = FirstStepSession::dial(&dial, facts, now(), &mut fresh_entropy().unwrap());
        let hello = tls.block(PATIENCE)?.ok_or("closed before the hello")?;
        match session.receive(BytesMut::from(&hello[..]), now()) {
            Ok(Received::Established) => {}
            other => return Err(format!("{other:?}")),
        }
        tls.send(&session.take_handshake_block().unwrap())?;
        Ok(Self { tls, session, waiting: VecDeque::new(), next: 1, contents: Vec::new() })
    }

    pub fn say(&mut self, number: u64, relay: RelayNumber, message: Message<'_>) -> Result<(), String> {
        let transmission = Transmission { correlation: Correlation(number), relay, message };
        let mut block = [0; BLOCK_LENGTH];
        let sealed = self.session.seal(&mut block, now(), |out| transmission.encode(out).is_ok());
        assert_eq!(sealed, Ok(true));
        let mut content = Vec::new();
        transmission.encode(&mut content).unwrap();
        self.contents.push(content);
        self.tls.send(&block)
    }

    /// The next that is said; an error when the connection is closed, or nothing comes in time.
    pub fn hear_within(&mut self, patience: Duration) -> Result<(u64, Heard), String> {
        if let Some(first) = self.waiting.pop_front() {
            return Ok(first);
        }
        let block = self.tls.block(patience)?.ok_or("closed")?;
        let Ok(Received::Content(content)) = self.session.receive(BytesMut::from(&block[..]), now()) else {
            return Err("a block cannot be read".to_owned());
        };
        self.contents.push(content.content().to_vec());
        let Some(Transmission { correlation, relay, message }) = Transmission::decode(content.content())
        else {
            return Err("not a transmission".to_owned());
        };
        let heard = match message {
            Message::Registered(registered) => {
                let published = registered.key;
                let leaf = certificates::public_key(published.chain[0]).unwrap();
                let (number, until) = (published.number, published.until);
                assert!(is_published(&Portable, &leaf, number, until, &published.key, published.signature));
                Heard::Registered(Registration { relay, key_number: number, key: published.key, until })
            }
            Message::Response(sealed) => Heard::Response(sealed.to_vec()),
            Message::Error(error) => Heard::Error(error),
            _ => return Err("not said to clients".to_owned()),
        };
        Ok((correlation.0, heard))
    }

    pub fn hear(&mut self) -> (u64, Heard) {
        self.hear_within(PATIENCE).unwrap()
    }

    /// The next that is said about this number; the rest is kept.
    pub fn hear_about(&mut self, number: u64) -> Heard {
        if let Some(at) = self.waiting.iter().position(|(about, _)| *about == number) {
            return self.waiting.remove(at).unwrap().1;
        }
        let mut kept = std::mem::take(&mut self.waiting);
        loop {
            let (about, heard) = self.hear();
            if about == number {
                kept.append(&mut self.waiting);
                self.waiting = kept;
                return heard;
            }
            kept.push_back((about, heard));
        }
    }

    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Registers a destination under a token.
    pub fn register(&mut self, token: [u8; 32], to: &ServerAddress) -> Heard {
        self.register_with(token, to, None)
    }

    pub fn register_with(&mut self, token: [u8; 32], to: &ServerAddress, password: Option<&[u8]>) -> Heard {
        // Numbers of registrations are apart from those of commands.
        let number = u64::MAX - self.number();
        let register = Register { token, address: Some(to.clone()), password };
        self.say(number, RelayNumber(0), Message::Register(register)).unwrap();
        self.hear_about(number)
    }

    pub fn registered(&mut self, token: [u8; 32], to: &ServerAddress) -> Registration {
        match self.register(token, to) {
            Heard::Registered(registration) => registration,
            other => panic!("{other:?}"),
        }
    }

    /// Forwards a sealed command under this number.
    pub fn forward(&mut self, at: &Registration, number: u64, options: ForwardOptions, sealed: &Sealed) {
        let forward = Forward {
            options,
            acknowledged: Correlation(0),
            delay: 0,
            key: sealed.ephemeral,
            sealed: &sealed.bytes,
        };
        self.say(number, at.relay, Message::Forward(forward)).unwrap();
    }

    /// Asks what became of a command, having received all answers up to `acknowledged`.
    pub fn check(&mut self, at: &Registration, number: u64, acknowledged: u64) -> Heard {
        let acknowledged = Correlation(acknowledged);
        self.say(number, at.relay, Message::Check { acknowledged }).unwrap();
        self.hear_about(number)
    }
}

impl Registration {
    /// Seals a command about a queue for the destination.
    pub fn seal(&self, key: &Key, entity: &[u8], command: &[u8]) -> Sealed {
        let name = session_name(self.key_number, &self.key);
        let correlation: [u8; 24] = random();
        let tail = [&short(&correlation), &short(entity), command].concat();
        let session = short(&name);
        let authorized: [&[u8]; 2] = [&session, &tail];
        let authorization = match key {
            Key::Nothing => Vec::new(),
            Key::Ed25519(secret) => Portable.ed25519_sign(secret, &authorized).to_vec(),
            Key::X25519(secret) => {
                let key = smp_proto::crypto::BoxKey::agree(&Portable, secret, &self.key);
                smp_proto::crypto::authenticator::create(&Portable, &key, &correlation, &authorized).to_vec()
            }
            Key::Bytes(bytes) => bytes.clone(),
        };
        let mut transmission = short(&authorization);
        if !authorization.is_empty() {
            transmission.push(b'0');
        }
        transmission.extend(tail);
        let batch = [vec![1], large(&transmission)].concat();
        assert!(batch.len() <= MAX_CONTENT);
        let ephemeral = X25519Secret::from_bytes(random());
        let keys = ForwardKeys::of_client(&Portable, &ephemeral, self.key_number, &self.key);
        let mut bytes = Box::new([0; SEALED_LENGTH]);
        keys.seal_command(&Portable, &batch, &mut bytes).unwrap();
        Sealed { ephemeral: Portable.x25519_public(&ephemeral), bytes: bytes.to_vec(), keys }
    }
}

impl Sealed {
    /// What the destination answered: the response in its batch of one.
    pub fn open(&self, answer: &[u8]) -> Vec<u8> {
        let mut answer = answer.to_vec();
        let batch = self.keys.open_answer(&Portable, &mut answer).expect("sealed for this command");
        // Count, length, no authorization, correlation, entity.
        let rest = &batch[1 + 2 + 1..];
        let rest = &rest[1 + usize::from(rest[0])..];
        rest[1 + usize::from(rest[0])..].to_vec()
    }
}
