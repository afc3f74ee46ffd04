//! A client with a real session over a blocking socket: block encryption, authorized commands. For tests and for load.
#![allow(dead_code, reason = "each user of it uses a part of it")]

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use smp_proto::entropy::{Entropy, SeededEntropy};
use smp_proto::keys::X25519Secret;
use smp_proto::session::client::{ClientSession, ClientSessionConfig, Received};
use smp_proto::session::credential::AuthSecret;
use smp_proto::session::{OpenedBlock, Protocol, SessionId, TransportFacts};
use smp_proto::time::Now;
use smp_proto::wire::Identifier;
use smp_proto::wire::command::{Command, MessageFlags, NewQueue, Password, QueueRequest, SubscriptionMode};
use smp_proto::wire::response::Response;
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::fast_cryptography::FAST;
use smp_runtime_std::tls::{ApplicationProtocol, BLOCK, ClientTls, TlsSession};

/// One connection.
pub struct SessionClient {
    pub socket: TcpStream,
    tls: TlsSession,
    session: ClientSession,
    pub entropy: SeededEntropy,
}

/// What a response was, without what it borrows.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// `OK`, `SOK`
    Ok,
    /// `IDS`: recipient id, sender id.
    Created(Identifier, Identifier),
    /// `MSG`: entity, message id.
    Message(Identifier, Identifier),
    /// `PONG`
    Pong,
    /// Everything else, as it prints.
    Other(String),
}

/// A queue, with the keys of both ends.
pub struct Queue {
    pub recipient: Identifier,
    pub sender: Identifier,
    pub recipient_key: AuthSecret,
    pub sender_key: AuthSecret,
}

impl SessionClient {
    pub fn connect(address: SocketAddr, tls: &ClientTls, fingerprint: Fingerprint) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut tls = TlsSession::client(tls).map_err(std::io::Error::other)?;
        let facts = loop {
            while tls.wants_write() {
                tls.write_tls(&mut socket)?;
            }
            if let Some(facts) = tls.take_facts() {
                break facts;
            }
            if tls.read_tls(&mut socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            tls.process().map_err(std::io::Error::other)?;
        };
        let facts = TransportFacts {
            session_id: SessionId::new(&facts.session_id).expect("32 bytes"),
            protocol: Protocol::of(facts.protocol.map(ApplicationProtocol::name)),
            peer_chain: facts.peer_certificates,
        };
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("this machine has randomness");
        let mut entropy = SeededEntropy::new(seed);
        let config = Arc::new(ClientSessionConfig::new(fingerprint.0.to_vec(), &FAST));
        let session = ClientSession::new(&config, facts, Now::default(), &mut entropy);
        let mut client = Self { socket, tls, session, entropy };
        let block = client.next_block()?;
        let received = client.session.receive(block, Now::default()).map_err(std::io::Error::other)?;
        assert!(matches!(received, Received::Established(_)));
        let hello = client.session.take_handshake_block().expect("a hello");
        client.tls.write_plaintext(&hello).map_err(std::io::Error::other)?;
        client.flush()?;
        Ok(client)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    fn next_block(&mut self) -> std::io::Result<BytesMut> {
        loop {
            let block = self.tls.read_block(|block: &mut [u8; BLOCK]| BytesMut::from(&block[..]));
            if let Some(block) = block.map_err(std::io::Error::other)? {
                return Ok(block);
            }
            if self.tls.peer_has_closed() || self.tls.read_tls(&mut self.socket)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub fn correlation(&mut self) -> Identifier {
        let mut bytes = [0; 24];
        self.entropy.fill_public(&mut bytes);
        Identifier::from(bytes)
    }

    /// Sends one command in a block of its own.
    pub fn send(
        &mut self,
        entity: &Identifier,
        command: &Command<'_>,
        key: Option<&AuthSecret>,
    ) -> std::io::Result<()> {
        let correlation = self.correlation();
        let mut block = [0; BLOCK];
        let sealed = self.session.seal(&mut block, Now::default(), |writer| {
            writer.add(&correlation, entity, command, key).expect("it fits");
        });
        assert!(sealed.expect("established"));
        self.tls.write_plaintext(&block).map_err(std::io::Error::other)?;
        self.flush()
    }

    /// The responses of the next block.
    pub fn receive(&mut self) -> std::io::Result<Vec<Said>> {
        let block = self.next_block()?;
        let opened: OpenedBlock = match self.session.receive(block, Now::default()) {
            Ok(Received::Responses(opened)) => opened,
            other => panic!("{other:?}"),
        };
        Ok(self
            .session
            .responses(&opened)
            .map(|response| {
                let transmission = response.expect("responses are right");
                match transmission.content {
                    Response::Ok | Response::Subscribed { .. } => Said::Ok,
                    Response::Created(created) => Said::Created(created.recipient, created.sender),
                    Response::Message { id, .. } => Said::Message(transmission.entity, id),
                    Response::Pong => Said::Pong,
                    other => Said::Other(format!("{other:?}")),
                }
            })
            .collect())
    }

    /// Creates a queue, subscribes this connection to it, and secures it for a sender.
    pub fn create(&mut self, password: Option<&str>) -> std::io::Result<Queue> {
        let recipient_key = AuthSecret::generate_ed25519(&mut self.entropy);
        let sender_key = AuthSecret::generate_x25519(&mut self.entropy);
        let dh = X25519Secret::generate(&mut self.entropy);
        let provider: &dyn smp_proto::crypto::Provider = &FAST;
        let new = NewQueue {
            recipient_key: recipient_key.public(provider),
            recipient_dh: provider.x25519_public(&dh),
            password: password.map(|password| Password(password.as_bytes())),
            subscription: SubscriptionMode::Subscribe,
            request: Some(QueueRequest::Messaging(None)),
            notifier: None,
        };
        self.send(&Identifier::EMPTY, &Command::New(new), Some(&recipient_key))?;
        let (recipient, sender) = match self.receive()?.pop() {
            Some(Said::Created(recipient, sender)) => (recipient, sender),
            other => return Err(std::io::Error::other(format!("NEW: {other:?}"))),
        };
        let secure = Command::SecureByRecipient(sender_key.public(provider));
        self.send(&recipient, &secure, Some(&recipient_key))?;
        let answer = self.receive()?;
        if answer != [Said::Ok] {
            return Err(std::io::Error::other(format!("KEY: {answer:?}")));
        }
        Ok(Queue { recipient, sender, recipient_key, sender_key })
    }

    pub fn send_message(&mut self, queue: &Queue, body: &[u8]) -> std::io::Result<()> {
        let command = Command::Send { flags: MessageFlags::default(), body };
        self.send(&queue.sender, &command, Some(&queue.sender_key))
    }

    pub fn subscribe(&mut self, queue: &Queue) -> std::io::Result<()> {
        self.send(&queue.recipient, &Command::Subscribe, Some(&queue.recipient_key))
    }

    pub fn acknowledge(&mut self, queue: &Queue, message: Identifier) -> std::io::Result<()> {
        self.send(&queue.recipient, &Command::Acknowledge { message }, Some(&queue.recipient_key))
    }
}
