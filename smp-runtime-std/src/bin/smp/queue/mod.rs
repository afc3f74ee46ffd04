//! `smp queue`: a queue of one's own, and sending to those of others.
//!
//! What is sent is encrypted end to end (WIRE-FACTS 9.1): the relay sees neither text nor length. The first message of a
//! sender carries the sender's key and secures the queue, so that from then on nobody else can send to it.

mod listening;
mod sending;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use smp_proto::client::queue::RecipientQueue;
use smp_proto::crypto::{Provider, SharedSecret};
use smp_proto::keys::{Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::session::AuthSecret;
use smp_proto::wire::Identifier;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_proto::wire::error::SmpError;
use smp_proto::wire::queue_uri::QueueUri;
use smp_proto::wire::version::{Version, VersionRange};
use smp_runtime_std::client::{BlockingClient, ClientError, ClientOptions};
use smp_runtime_std::fast_cryptography::FAST;
use smp_runtime_std::relay::clock::Clock;
use zeroize::Zeroizing;

use crate::command_line::Queue;
use crate::connecting::{Address, entropy_of_system, failure_of_client};
use crate::failure::{Failure, Kind};
use crate::report::{Report, printable};
use crate::state::{Kept, ReceivingQueue, State};

/// The versions of the end-to-end layer that this program speaks.
const CLIENT_VERSIONS: VersionRange = VersionRange::between(Version(2), Version(4));
/// The version of messages inside the envelope.
const AGENT_VERSION: u16 = 7;

/// Runs one of the commands.
pub(crate) fn run(
    report: Report,
    timeout: Duration,
    data: Option<PathBuf>,
    command: Queue,
) -> Result<(), Failure> {
    let state = State::open(data)?;
    let context = Context { report, timeout, state };
    match command {
        Queue::New { address, name } => new(&context, address, &name),
        Queue::Send { queue, message, lines, through } => {
            sending::run(&context, &queue, message, lines, through.as_deref())
        }
        Queue::Listen { name, count, no_wait } => listening::run(&context, &name, count, no_wait),
        Queue::Delete { name, force } => delete(&context, &name, force),
        Queue::List => list(&context),
    }
}

/// What all of them need.
struct Context {
    report: Report,
    timeout: Duration,
    state: State,
}

impl Context {
    fn connect(&self, address: &ServerAddress, reconnect: bool) -> Result<BlockingClient, Failure> {
        let mut options = ClientOptions::with_timeout(self.timeout);
        options.reconnect = reconnect;
        BlockingClient::connect(address, options).map_err(|error| failure_of_client("connecting", &error))
    }
}

impl ReceivingQueue {
    fn server(&self) -> Result<ServerAddress, Failure> {
        self.address.parse().map_err(|error| Failure::state("the address that is kept with the queue", error))
    }

    /// The queue, as clients handle it.
    fn handle(&self) -> RecipientQueue {
        RecipientQueue {
            recipient: (*self.recipient.0).into(),
            sender: (*self.sender.0).into(),
            key: Arc::new(AuthSecret::Ed25519(Ed25519Secret::from_bytes(*self.authorization.0))),
            delivery: SharedSecret::from_bytes(*self.delivery.0),
        }
    }

    /// What is given to the sender.
    fn uri(&self) -> Result<QueueUri, Failure> {
        Ok(QueueUri {
            versions: CLIENT_VERSIONS,
            server: self.server()?,
            sender: (*self.sender.0).into(),
            dh: FAST.x25519_public(&X25519Secret::from_bytes(*self.end_to_end.0)),
            mode: Some(QueueMode::Messaging),
        })
    }
}

fn new(context: &Context, address: Option<String>, name: &str) -> Result<(), Failure> {
    check_name(name)?;
    let taken = || {
        Failure::new(Kind::Usage, format!("there is a queue `{name}` already"))
            .advise("choose another name, or delete that queue with `smp queue delete`")
    };
    if context.state.has_queue(name)? {
        return Err(taken());
    }
    let text = match address {
        Some(address) => Zeroizing::new(address),
        None => context.state.last_address()?.ok_or_else(|| {
            Failure::new(Kind::Usage, "it is not said on which relay the queue shall be made")
                .advise("name a relay with --address smp://FINGERPRINT@HOST, or in SMP_ADDRESS")
        })?,
    };
    let address = Address::parse(&text)?;
    let end_to_end = X25519Secret::generate(&mut entropy_of_system()?);
    let client = context.connect(&address.server, false)?;
    let password = address.password.as_ref().map(|password| Bytes::copy_from_slice(password));
    let created = client
        .create_queue(QueueMode::Messaging, SubscriptionMode::CreateOnly, password)
        .map_err(|error| not_created(&error, address.password.is_some()))?;
    let id = |id: &Identifier| {
        id.as_full().map(Kept::new).ok_or_else(|| {
            Failure::new(Kind::Unexpected, "the relay gave an id that is not 24 bytes long")
                .advise("try another relay")
        })
    };
    let AuthSecret::Ed25519(authorization) = &*created.key else {
        return Err(Failure::new(Kind::Unexpected, "the new queue has a key of another kind"));
    };
    let queue = ReceivingQueue {
        address: address.server.to_string(),
        recipient: id(&created.recipient)?,
        sender: id(&created.sender)?,
        authorization: Kept::new(authorization.as_bytes()),
        delivery: Kept::new(created.delivery.as_bytes()),
        end_to_end: Kept::new(end_to_end.as_bytes()),
        sender_dh: None,
        last_message: None,
        created: Clock::start().now().wall.0,
    };
    if !context.state.add_queue(name, &queue)? {
        return Err(taken());
    }
    context.state.put_last_address(&text)?;
    let uri = queue.uri()?.to_string();
    context.report.result(
        "queue",
        &json!({ "name": name, "address": uri, "created": queue.created }),
        &uri,
    )?;
    if !context.report.is_json() {
        let hint = if name == "main" { String::new() } else { format!(" {name}") };
        context.report.notice(&format!(
            "Give this address to one person, over a channel that you trust. Receive with `smp queue listen{hint}`."
        ));
    }
    Ok(())
}

fn not_created(error: &ClientError, with_password: bool) -> Failure {
    let failure = failure_of_client("NEW", error);
    match error {
        ClientError::Refused(SmpError::Authorization) if with_password => {
            failure.advise("the password may be wrong, or the relay accepts no new queues")
        }
        ClientError::Refused(SmpError::Authorization) => failure.advise(
            "the relay may want a password, smp://FINGERPRINT:PASSWORD@HOST, or it accepts no new queues",
        ),
        _ => failure,
    }
}

/// Names are typed and printed, and never leave this machine.
fn check_name(name: &str) -> Result<(), Failure> {
    if name.is_empty() || name.len() > 100 || printable(name) != name || name.contains(['\n', '\t']) {
        return Err(Failure::new(Kind::Usage, "this cannot be the name of a queue")
            .advise("a name has 1 to 100 bytes and no control characters"));
    }
    Ok(())
}

fn delete(context: &Context, name: &str, force: bool) -> Result<(), Failure> {
    let queue = context.state.queue(name)?;
    let deleted = context.connect(&queue.server()?, false).and_then(|client| {
        match client.command(queue.handle().delete()) {
            // It may be gone already: somebody has deleted it, or it has expired.
            Ok(_) | Err(ClientError::Refused(SmpError::Authorization)) => Ok(()),
            Err(error) => Err(failure_of_client("DEL", &error)),
        }
    });
    match deleted {
        Ok(()) => {}
        Err(failure) if force => context.report.notice(&format!(
            "the queue stays on its relay until it expires there, because of this: {}",
            failure.what
        )),
        Err(failure) => {
            let advice = failure.advice.clone().unwrap_or_default();
            return Err(
                failure.advise(format!("{advice}; with --force the queue is forgotten here all the same"))
            );
        }
    }
    context.state.remove_queue(name)?;
    context.report.result("deleted", &json!({ "name": name }), &format!("queue {name} is deleted"))?;
    Ok(())
}

fn list(context: &Context) -> Result<(), Failure> {
    let queues = context.state.queues()?;
    if queues.is_empty() && !context.report.is_json() {
        context.report.notice("no queues yet: `smp queue new` makes one");
    }
    for (name, queue) in queues {
        let uri = queue.uri()?.to_string();
        let known = queue.sender_dh.is_some();
        let value = json!({ "name": name, "address": uri, "created": queue.created, "sender_known": known });
        let state = if known { "has a sender" } else { "waits for its first message" };
        context.report.result("queue", &value, &format!("{name} ({state})\n  {uri}"))?;
    }
    Ok(())
}

/// The key of the other side, as it is kept.
fn public(key: &Kept<32>) -> X25519Public {
    X25519Public(*key.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn names_are_ordinary_text() {
        for good in ["main", "über mich", "a b", "日本"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a\nb", "a\x1b[2J", &"x".repeat(101)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
