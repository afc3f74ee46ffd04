//! A client of either runtime, with one set of methods.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_io::block_on;
use smol::Executor;
use smol::future::{or, pending};
use smp_proto::client::queue::RecipientQueue;
use smp_proto::client::{ClientCommand, Reply};
use smp_proto::crypto::message_body::ReceivedMessage;
use smp_proto::wire::Identifier;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_runtime_smol::client::SmolClient;
use smp_runtime_std::client::{BlockingClient, ClientError, ClientEvent, ClientOptions};
use smp_runtime_std::fast_cryptography::FAST;

use crate::raw_client::PATIENCE;
use crate::relay_under_test::Runtime;

/// A client of either runtime.
pub enum AnyClient {
    Blocking(BlockingClient),
    Smol(SmolClient),
}

/// Where the tasks of smol's clients run.
fn executor() -> &'static Executor<'static> {
    static EXECUTOR: Executor<'static> = Executor::new();
    static THREAD: OnceLock<JoinHandle<()>> = OnceLock::new();
    THREAD.get_or_init(|| thread::spawn(|| block_on(EXECUTOR.run(pending()))));
    &EXECUTOR
}

/// Patient, and quick to connect again.
pub fn options() -> ClientOptions {
    let mut options = ClientOptions::with_timeout(PATIENCE);
    options.first_delay = Duration::from_millis(5);
    options
}

impl AnyClient {
    pub fn connect(runtime: Runtime, address: &ServerAddress) -> Self {
        Self::try_connect(runtime, address, options()).unwrap()
    }

    pub fn try_connect(
        runtime: Runtime,
        address: &ServerAddress,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        match runtime {
            Runtime::Blocking => BlockingClient::connect(address, options).map(Self::Blocking),
            Runtime::Smol => block_on(SmolClient::connect(address, options, executor())).map(Self::Smol),
        }
    }

    pub fn command(&self, command: ClientCommand) -> Result<Reply, ClientError> {
        match self {
            Self::Blocking(client) => client.command(command),
            Self::Smol(client) => block_on(client.command(command)),
        }
    }

    pub fn forward(&self, relay: &ServerAddress, command: ClientCommand) -> Result<Reply, ClientError> {
        match self {
            Self::Blocking(client) => client.forward(relay, None, command),
            Self::Smol(client) => block_on(client.forward(relay, None, command)),
        }
    }

    /// The command must succeed without a result.
    pub fn done(&self, command: ClientCommand) {
        let shown = format!("{:?}", command.body);
        assert_eq!(
            self.command(command).unwrap_or_else(|error| panic!("{shown}: {error}")),
            Reply::Ok,
            "{shown}"
        );
    }

    pub fn ping(&self) {
        match self {
            Self::Blocking(client) => client.ping(),
            Self::Smol(client) => block_on(client.ping()),
        }
        .unwrap();
    }

    pub fn create_queue(&self, subscription: SubscriptionMode) -> RecipientQueue {
        let mode = QueueMode::Messaging;
        match self {
            Self::Blocking(client) => client.create_queue(mode, subscription, None),
            Self::Smol(client) => block_on(client.create_queue(mode, subscription, None)),
        }
        .unwrap()
    }

    pub fn subscribe(&self, queue: &RecipientQueue) -> Result<(), ClientError> {
        match self {
            Self::Blocking(client) => client.subscribe(queue),
            Self::Smol(client) => block_on(client.subscribe(queue)),
        }
    }

    pub fn acknowledge(&self, queue: &RecipientQueue, message: Identifier) {
        match self {
            Self::Blocking(client) => client.acknowledge(queue, message),
            Self::Smol(client) => block_on(client.acknowledge(queue, message)),
        }
        .unwrap();
    }

    pub fn get(&self, queue: &RecipientQueue) -> Option<Vec<u8>> {
        let got = match self {
            Self::Blocking(client) => client.get(queue),
            Self::Smol(client) => block_on(client.get(queue)),
        }
        .unwrap();
        got.map(|(id, body)| {
            let text = opened(queue, &id, &body).expect("a message");
            self.acknowledge(queue, id);
            text
        })
    }

    /// The next event, which must come.
    pub fn event(&self) -> ClientEvent {
        self.event_within(PATIENCE).expect("nothing happened")
    }

    pub fn event_within(&self, patience: Duration) -> Option<ClientEvent> {
        match self {
            Self::Blocking(client) => client.next_event(patience).unwrap(),
            Self::Smol(client) => block_on(or(async { Some(client.next_event().await.unwrap()) }, async {
                async_io::Timer::after(patience).await;
                None
            })),
        }
    }

    /// The next message of a queue, which must come next: its id and text, `None` for the quota marker.
    pub fn message(&self, queue: &RecipientQueue) -> (Identifier, Option<Vec<u8>>) {
        match self.event() {
            ClientEvent::Message { queue: of, id, body } => {
                assert_eq!(of, queue.recipient);
                let text = opened(queue, &id, &body);
                (id, text)
            }
            other => panic!("not a message: {other:?}"),
        }
    }

    /// The next message, acknowledged.
    pub fn receive(&self, queue: &RecipientQueue) -> Vec<u8> {
        let (id, text) = self.message(queue);
        self.acknowledge(queue, id);
        text.expect("a message, not the quota marker")
    }
}

fn opened(queue: &RecipientQueue, id: &Identifier, body: &[u8]) -> Option<Vec<u8>> {
    match queue.open(&FAST, id, &mut body.to_vec()).unwrap() {
        ReceivedMessage::Message { body, .. } => Some(body.to_vec()),
        ReceivedMessage::QuotaExceeded { .. } => None,
    }
}
