//! `smp queue send`.
//!
//! The keys are kept before they are used, and each step is kept when the relay has confirmed it, so that a run that is
//! cut off is continued by the next one: `SKEY` with the same key succeeds again, and a repeated first message carries
//! the same end-to-end key.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use smp_proto::client::queue::{SenderQueue, seal_envelope};
use smp_proto::client::{ClientCommand, Reply};
use smp_proto::crypto::envelope::ClientMessage;
use smp_proto::crypto::{BoxKey, Provider};
use smp_proto::keys::X25519Secret;
use smp_proto::session::AuthSecret;
use smp_proto::wire::address::AddressWithPassword;
use smp_proto::wire::base64url;
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::error::SmpError;
use smp_proto::wire::queue_uri::QueueUri;
use smp_proto::wire::version::Version;
use smp_runtime_std::client::{BlockingClient, ClientError};
use smp_runtime_std::fast_cryptography::FAST;
use zeroize::Zeroizing;

use super::{AGENT_VERSION, CLIENT_VERSIONS, Context};
use crate::connecting::{entropy_of_system, failure_of_client};
use crate::failure::{Failure, Kind};
use crate::state::{Kept, Progress, SendingQueue};

/// The longest line or text that is read: more does not fit in one message anyway.
const MAX_READ: u64 = 16_384;

/// Sends one message, or a message for each line.
pub(super) fn run(
    context: &Context,
    queue: &str,
    message: Option<String>,
    lines: bool,
    through: Option<&str>,
) -> Result<(), Failure> {
    let uri: QueueUri = queue.trim().parse().map_err(|error| {
        Failure::new(Kind::Usage, format!("this is not the address of a queue: {error}"))
            .advise("`smp queue new` prints one; quote it for your shell, as it contains # and &")
    })?;
    if uri.versions.intersection(CLIENT_VERSIONS).is_none() {
        let spoken = CLIENT_VERSIONS;
        return Err(Failure::new(
            Kind::Usage,
            format!("the queue's owner speaks other versions than {} to {}", spoken.min().0, spoken.max().0),
        )
        .advise("one of the two programs must be updated"));
    }
    let through = through.map(|text| {
        text.trim().parse::<AddressWithPassword>().map_err(|error| {
            Failure::new(Kind::Usage, format!("--through is not the address of a relay: {error}"))
                .advise("it has the form smp://FINGERPRINT@HOST, or smp://FINGERPRINT:PASSWORD@HOST")
        })
    });
    let through = through.transpose()?;
    // Read before connecting: a person may take a while to type.
    let first = if lines { None } else { Some(text_of(message)?) };
    let mut sender = Sender::open(context, uri, through)?;
    if let Some(text) = first {
        return sender.send(&text);
    }
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        let read = (&mut input).take(MAX_READ).read_until(b'\n', &mut line);
        if read.map_err(|error| {
            Failure::new(Kind::Usage, format!("the standard input cannot be read: {error}"))
        })? == 0
        {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        sender.send(&line)?;
    }
}

fn text_of(message: Option<String>) -> Result<Vec<u8>, Failure> {
    match message {
        Some(text) if text != "-" => Ok(text.into_bytes()),
        _ => {
            let mut text = Vec::new();
            io::stdin().lock().take(MAX_READ).read_to_end(&mut text).map_err(|error| {
                Failure::new(Kind::Usage, format!("the standard input cannot be read: {error}"))
            })?;
            // What a person types ends with a line break that is not meant.
            if text.last() == Some(&b'\n') {
                text.pop();
            }
            Ok(text)
        }
    }
}

/// A connection to the queue's relay, and how far this sender is with the queue.
struct Sender<'c> {
    context: &'c Context,
    client: BlockingClient,
    /// What the queue's relay speaks.
    version: Version,
    /// The proxy's password, when there is a proxy.
    through: Option<Option<Zeroizing<Vec<u8>>>>,
    uri: QueueUri,
    key: String,
    queue: SendingQueue,
    sent: u64,
}

impl<'c> Sender<'c> {
    fn open(
        context: &'c Context,
        uri: QueueUri,
        through: Option<AddressWithPassword>,
    ) -> Result<Self, Failure> {
        let key = format!(
            "{} {}",
            base64url::encode(&uri.server.fingerprint),
            base64url::encode(uri.sender.as_bytes())
        );
        let queue = match context.state.sender(&key)? {
            Some(queue) => queue,
            None => {
                let mut entropy = entropy_of_system()?;
                let fresh = SendingQueue {
                    authorization: Kept::new(X25519Secret::generate(&mut entropy).as_bytes()),
                    end_to_end: Kept::new(X25519Secret::generate(&mut entropy).as_bytes()),
                    progress: Progress::Prepared,
                };
                context.state.add_sender(&key, fresh)?
            }
        };
        let (client, version, through) = match through {
            None => {
                let client = context.connect(&uri.server, false)?;
                let version = client.version();
                (client, version, None)
            }
            Some(AddressWithPassword { address, password }) => {
                let client = context.connect(&address, false)?;
                let relay = client
                    .reach(&uri.server, password.as_ref().map(|password| password.as_slice()))
                    .map_err(|error| failure_of_client("PRXY", &error))?;
                (client, relay.version(), Some(password))
            }
        };
        Ok(Self { context, client, version, through, uri, key, queue, sent: 0 })
    }

    /// Gives a command to the queue's relay, whichever way leads to it.
    fn command(&self, command: ClientCommand) -> Result<Reply, ClientError> {
        match &self.through {
            None => self.client.command(command),
            Some(password) => {
                let password = password.as_ref().map(|password| password.as_slice());
                self.client.forward(&self.uri.server, password, command)
            }
        }
    }

    fn authorization(&self) -> Arc<AuthSecret> {
        Arc::new(AuthSecret::X25519(X25519Secret::from_bytes(*self.queue.authorization.0)))
    }

    fn reached(&mut self, progress: Progress) -> Result<(), Failure> {
        self.queue.progress = progress;
        self.context.state.put_sender(&self.key, &self.queue)
    }

    fn send(&mut self, text: &[u8]) -> Result<(), Failure> {
        let secures =
            self.uri.mode == Some(QueueMode::Messaging) && self.version >= Version::SECURE_BY_SENDER;
        let contact = self.uri.mode == Some(QueueMode::Contact);
        if secures && self.queue.progress == Progress::Prepared {
            let queue = SenderQueue { sender: self.uri.sender.clone(), key: None };
            let command = queue.secure(&FAST, &self.authorization());
            self.command(command).map_err(|error| refused("SKEY", &error))?;
            self.reached(Progress::Secured)?;
        }
        // Messages to a contact address stand alone: each is the first, and none is authorized.
        let confirmation = contact || self.queue.progress != Progress::Confirmed;
        // Without SKEY the recipient secures the queue with the key in the first message.
        let introduces = confirmation && !contact && !secures;
        let authorized = secures || (!contact && !confirmation);
        let body = self.seal(text, confirmation, introduces)?;
        let key = authorized.then(|| self.authorization());
        let queue = SenderQueue { sender: self.uri.sender.clone(), key };
        self.command(queue.send(true, body)).map_err(|error| refused("SEND", &error))?;
        if !contact && confirmation {
            self.reached(Progress::Confirmed)?;
        }
        self.sent += 1;
        let value = json!({ "bytes": text.len(), "number": self.sent });
        self.context.report.result("sent", &value, &format!("sent {} bytes", text.len()))?;
        Ok(())
    }

    fn seal(&self, text: &[u8], confirmation: bool, introduces: bool) -> Result<Bytes, Failure> {
        let secret = X25519Secret::from_bytes(*self.queue.end_to_end.0);
        let version = self.uri.versions.max().min(CLIENT_VERSIONS.max());
        let mut message = AGENT_VERSION.to_be_bytes().to_vec();
        message.push(b'M');
        message.extend_from_slice(text);
        let content = ClientMessage {
            sender_auth_key: introduces.then(|| self.authorization().public(&FAST)),
            message: &message,
        };
        let key = BoxKey::agree(&FAST, &secret, &self.uri.dh);
        let carried = confirmation.then(|| FAST.x25519_public(&secret));
        seal_envelope(&FAST, &key, version.0, carried, &content, &mut entropy_of_system()?).map_err(|_| {
            Failure::new(Kind::Usage, format!("the message has {} bytes and is too long", text.len()))
                .advise("a first message can have about 15800 bytes, the later ones 15990: send it in parts")
        })
    }
}

fn refused(command: &str, error: &ClientError) -> Failure {
    let failure = failure_of_client(command, error);
    match error {
        ClientError::Refused(SmpError::Authorization) => failure.advise(
            "the queue was deleted or suspended, somebody else has secured it, or its owner has not received your first message yet",
        ),
        ClientError::Refused(SmpError::Quota) => {
            failure.advise("its owner has to receive what waits in it: try again later")
        }
        ClientError::Lost(_) | ClientError::NoAnswer if command == "SEND" => {
            failure.advise("the message may have arrived or not")
        }
        _ => failure,
    }
}
