//! A client on smol: one relationship with one relay, for programs with an executor.
//!
//! Owns: one task that moves bytes between a socket and [`ClientDriver`], the driver that the blocking client of
//! `smp-runtime-std` shares. It decides nothing. Connections that are lost are made again when the machine says so, and
//! subscriptions are restored; messages are delivered one at a time for each queue.
//!
//! ```no_run
//! use smp_proto::wire::command::{QueueMode, SubscriptionMode};
//! use smp_runtime_smol::client::SmolClient;
//! use smp_runtime_std::client::{ClientEvent, ClientOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@localhost".parse()?;
//! let executor = smol::Executor::new();
//! smol::block_on(executor.run(async {
//!     let client = SmolClient::connect(&address, ClientOptions::default(), &executor).await?;
//!     let queue = client.create_queue(QueueMode::Messaging, SubscriptionMode::Subscribe, None).await?;
//!     while let ClientEvent::Message { id, .. } = client.next_event().await? {
//!         client.acknowledge(&queue, id).await?;
//!     }
//!     Ok(())
//! }))
//! # }
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_io::{Async, Timer};
use bytes::Bytes;
use smol::Executor;
use smol::channel::{self, Receiver, Sender};
use smol::future::{or, pending};
use smp_proto::client::queue::{QueueToCreate, RecipientQueue};
use smp_proto::client::{ClientCommand, CommandId, ProxiedRelay, Reply};
use smp_proto::wire::Identifier;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_proto::wire::version::Version;
use smp_runtime_std::client::{
    ClientDriver, ClientError, ClientEvent, ClientOptions, ProxiedSessions, Told, fresh_entropy,
};
use smp_runtime_std::dialing::{self, DialError};
use smp_runtime_std::fast_cryptography::FAST;

type Answer = Sender<Result<Reply, ClientError>>;

/// What the handles and the task share.
#[derive(Default)]
struct Shared {
    events: VecDeque<ClientEvent>,
    version: Option<Version>,
    ended: Option<ClientError>,
}

type Board = Arc<Mutex<Shared>>;

/// One relationship with one relay. Dropping it closes the connection.
pub struct SmolClient {
    requests: Sender<(ClientCommand, Answer)>,
    /// Holds something when there may be an event.
    bell: Receiver<()>,
    button: Sender<()>,
    board: Board,
    proxied: ProxiedSessions,
}

impl fmt::Debug for SmolClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SmolClient").finish_non_exhaustive()
    }
}

fn look<R>(board: &Board, look: impl FnOnce(&mut Shared) -> R) -> R {
    look(&mut board.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Wakes one who waits for an event; when it rings already, that is enough.
fn ring(button: &Sender<()>) {
    let _ = button.try_send(());
}

impl SmolClient {
    /// Connects to the first host of `address` that answers, checks that it is the relay of the address, and shakes hands.
    /// The client's task runs on `executor`.
    ///
    /// # Errors
    /// [`ClientError`]: there is no client then, whatever [`ClientOptions::reconnect`] says.
    pub async fn connect(
        address: &ServerAddress,
        options: ClientOptions,
        executor: &Executor<'_>,
    ) -> Result<Self, ClientError> {
        let driver = ClientDriver::new(address, &options)?;
        let (requests, inbox) = channel::unbounded();
        let (button, bell) = channel::bounded(1);
        let (established, first) = channel::bounded(1);
        let board = Board::default();
        let mut worker = Worker {
            driver,
            address: address.clone(),
            options,
            socket: None,
            inbox,
            answers: HashMap::new(),
            button: button.clone(),
            board: Arc::clone(&board),
            established: Some(established),
        };
        executor.spawn(async move { worker.run().await }).detach();
        // The worker says that it is connected, or ends and closes the channel.
        match first.recv().await {
            Ok(()) => Ok(Self { requests, bell, button, board, proxied: ProxiedSessions::default() }),
            Err(_) => Err(look(&board, |shared| shared.ended.clone()).unwrap_or(ClientError::Stopped)),
        }
    }

    /// The version of the current connection, or of the last one.
    #[must_use]
    pub fn version(&self) -> Version {
        look(&self.board, |shared| shared.version).unwrap_or(Version::OLDEST)
    }

    fn why_ended(&self) -> ClientError {
        look(&self.board, |shared| shared.ended.clone()).unwrap_or(ClientError::Stopped)
    }

    /// Sends a command and waits for its answer, for at most [`ClientOptions::timeout`].
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the relay answers with an error; [`ClientError::NoAnswer`] when it may have done the
    /// command or not.
    pub async fn command(&self, command: ClientCommand) -> Result<Reply, ClientError> {
        let (sender, answer) = channel::bounded(1);
        self.requests.send((command, sender)).await.map_err(|_| self.why_ended())?;
        answer.recv().await.unwrap_or_else(|_| Err(self.why_ended()))
    }

    /// Has the relay of this client, as a proxy, forward a command to another one, which does not see this client: `SEND`,
    /// `SKEY`, `LKEY`, `LGET` or `READ`. `password` is the proxy's, if it asks for one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the other relay answers with an error; [`ClientError::NotForwarded`] when the proxy does;
    /// [`ClientError::NotTheRelay`] when the proxy shows another relay.
    pub async fn forward(
        &self,
        relay: &ServerAddress,
        password: Option<&[u8]>,
        command: ClientCommand,
    ) -> Result<Reply, ClientError> {
        if let Some(session) = self.proxied.find(relay) {
            match self.command(command.clone().through(&session)).await {
                Err(error) if ProxiedSessions::is_gone(&error) => self.proxied.forget(&session),
                other => return other,
            }
        }
        let session = self.ask_for_session(relay, password).await?;
        self.command(command.through(&session)).await
    }

    /// The session that this client's relay, as a proxy, has with another one: its version, say. It is asked for if there is
    /// none yet; [`Self::forward`] does so by itself.
    ///
    /// # Errors
    /// [`ClientError::NotForwarded`] when the proxy cannot reach it; [`ClientError::NotTheRelay`] when it shows another relay.
    pub async fn reach(
        &self,
        relay: &ServerAddress,
        password: Option<&[u8]>,
    ) -> Result<Arc<ProxiedRelay>, ClientError> {
        match self.proxied.find(relay) {
            Some(session) => Ok(session),
            None => self.ask_for_session(relay, password).await,
        }
    }

    async fn ask_for_session(
        &self,
        relay: &ServerAddress,
        password: Option<&[u8]>,
    ) -> Result<Arc<ProxiedRelay>, ClientError> {
        let password = password.map(Bytes::copy_from_slice);
        match self.command(ClientCommand::proxy_connect(relay.clone(), password)).await? {
            Reply::ProxiedRelay(session) => {
                self.proxied.remember(relay, &session);
                Ok(session)
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// What happened next without being asked for.
    ///
    /// # Errors
    /// When the client is over: the connection is lost and is not to be made again.
    pub async fn next_event(&self) -> Result<ClientEvent, ClientError> {
        loop {
            let found = look(&self.board, |shared| match (shared.events.pop_front(), &shared.ended) {
                (Some(event), _) => Some((Ok(event), !shared.events.is_empty())),
                (None, Some(error)) => Some((Err(error.clone()), true)),
                (None, None) => None,
            });
            if let Some((found, more)) = found {
                if more {
                    ring(&self.button);
                }
                return found;
            }
            // The bell cannot be gone: its button is in this very handle.
            let _ = self.bell.recv().await;
        }
    }

    /// Asks the relay for a sign of life.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn ping(&self) -> Result<(), ClientError> {
        match self.command(ClientCommand::ping()).await? {
            Reply::Pong => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Creates a queue with fresh keys.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn create_queue(
        &self,
        mode: QueueMode,
        subscription: SubscriptionMode,
        password: Option<Bytes>,
    ) -> Result<RecipientQueue, ClientError> {
        let keys = QueueToCreate::generate(&mut fresh_entropy()?);
        match self.command(keys.command(&FAST, mode, subscription, password)).await? {
            Reply::Created(created) => Ok(keys.created(&FAST, &created)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Subscribes to a queue: its messages come as [`ClientEvent::Message`], one after the other as they are
    /// acknowledged.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn subscribe(&self, queue: &RecipientQueue) -> Result<(), ClientError> {
        let reply = self.command(queue.subscribe()).await?;
        self.done_or_message(queue, reply)
    }

    /// Tells the relay that a message is safe and may be deleted there. The next one comes as an event.
    ///
    /// # Errors
    /// As [`Self::command`]. After [`ClientError::NoAnswer`] the message may come again.
    pub async fn acknowledge(&self, queue: &RecipientQueue, message: Identifier) -> Result<(), ClientError> {
        let reply = self.command(queue.acknowledge(message)).await?;
        self.done_or_message(queue, reply)
    }

    /// Takes one message without subscribing; `None` when there is none. Acknowledge it to get the next.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn get(&self, queue: &RecipientQueue) -> Result<Option<(Identifier, Bytes)>, ClientError> {
        match self.command(queue.get()).await? {
            Reply::Ok => Ok(None),
            Reply::Message { id, body } => Ok(Some((id, body))),
            _ => Err(ClientError::Unexpected),
        }
    }

    fn done_or_message(&self, queue: &RecipientQueue, reply: Reply) -> Result<(), ClientError> {
        match reply {
            Reply::Ok | Reply::Subscribed => Ok(()),
            Reply::Message { id, body } => {
                let event = ClientEvent::Message { queue: queue.recipient.clone(), id, body };
                look(&self.board, |shared| event.queue_in(&mut shared.events));
                ring(&self.button);
                Ok(())
            }
            _ => Err(ClientError::Unexpected),
        }
    }
}

/// What the task has.
struct Worker {
    driver: ClientDriver,
    address: ServerAddress,
    options: ClientOptions,
    socket: Option<Async<TcpStream>>,
    inbox: Receiver<(ClientCommand, Answer)>,
    answers: HashMap<CommandId, Answer>,
    button: Sender<()>,
    board: Board,
    /// Rung once, by the first connection.
    established: Option<Sender<()>>,
}

/// Why the task goes on.
enum Wake {
    Command(ClientCommand, Answer),
    /// The handle is gone.
    Abandoned,
    Dialled(Result<Async<TcpStream>, ClientError>),
    Socket,
    Deadline,
}

impl Worker {
    async fn run(&mut self) {
        self.driver.connect();
        let mut dialling = None;
        let why = loop {
            self.move_bytes();
            self.driver.work();
            if let Err(why) = self.tell() {
                break why;
            }
            if self.driver.take_dial() {
                dialling = Some(Box::pin(dial(self.address.clone(), self.options.timeout)));
            }
            if self.driver.wants_write() && self.write() {
                continue;
            }
            if !self.driver.is_connected() {
                self.socket = None;
            }
            let deadline = self.driver.deadline();
            match self.wait(&mut dialling, deadline).await {
                Wake::Command(command, answer) => match self.driver.submit(command) {
                    Ok(id) => drop(self.answers.insert(id, answer)),
                    // Whoever asked may not wait any more.
                    Err(error) => drop(answer.try_send(Err(error))),
                },
                Wake::Abandoned => break ClientError::Stopped,
                Wake::Dialled(result) => {
                    dialling = None;
                    let result = result.map(|socket| drop(self.socket.replace(socket)));
                    self.driver.dialled(result);
                }
                Wake::Socket => {}
                Wake::Deadline => self.driver.handle_timeout(),
            }
        };
        look(&self.board, |shared| shared.ended = Some(why));
        ring(&self.button);
        self.inbox.close();
    }

    async fn wait(
        &self,
        dialling: &mut Option<
            std::pin::Pin<Box<impl Future<Output = Result<Async<TcpStream>, ClientError>>>>,
        >,
        deadline: Option<Instant>,
    ) -> Wake {
        let command = async {
            match self.inbox.recv().await {
                Ok((command, answer)) => Wake::Command(command, answer),
                Err(_) => Wake::Abandoned,
            }
        };
        let dialled = async {
            match dialling {
                Some(dialling) => Wake::Dialled(dialling.await),
                None => pending().await,
            }
        };
        // An error of the waiting itself shows again when reading or writing, and is handled there.
        let readable = async {
            match &self.socket {
                Some(socket) if self.driver.wants_read() => drop(socket.readable().await),
                _ => pending().await,
            }
            Wake::Socket
        };
        let writable = async {
            match &self.socket {
                Some(socket) if self.driver.wants_write() => drop(socket.writable().await),
                _ => pending().await,
            }
            Wake::Socket
        };
        let time = async {
            match deadline {
                Some(deadline) => drop(Timer::at(deadline).await),
                None => pending().await,
            }
            Wake::Deadline
        };
        or(or(readable, writable), or(or(command, dialled), time)).await
    }

    /// Writes and reads what goes without waiting.
    fn move_bytes(&mut self) {
        self.write();
        let Some(socket) = &self.socket else { return };
        while self.driver.wants_read() {
            match self.driver.read_from(&mut socket.get_ref()) {
                Ok(()) => self.driver.work(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    /// Writes what the socket takes; true when that was everything, and there may be more now.
    fn write(&mut self) -> bool {
        let Some(socket) = &self.socket else { return false };
        while self.driver.wants_write() {
            if self.driver.write_to(&mut socket.get_ref()).is_err() {
                return false;
            }
        }
        true
    }

    fn tell(&mut self) -> Result<(), ClientError> {
        while let Some(told) = self.driver.next_told() {
            let event = match told {
                Told::Answer(command, result) => {
                    if let Some(answer) = self.answers.remove(&command) {
                        // Whoever asked may not wait any more.
                        let _ = answer.try_send(result);
                    }
                    continue;
                }
                Told::Established(version) => {
                    look(&self.board, |shared| shared.version = Some(version));
                    if let Some(first) = self.established.take() {
                        // Whoever connects may not wait any more.
                        let _ = first.try_send(());
                        continue;
                    }
                    ClientEvent::Connected { version }
                }
                Told::Closed(reason) => {
                    if !self.options.reconnect || self.established.is_some() {
                        return Err(reason);
                    }
                    ClientEvent::Disconnected { reason }
                }
                Told::Event(event) => event,
            };
            look(&self.board, |shared| event.queue_in(&mut shared.events));
            ring(&self.button);
        }
        Ok(())
    }
}

/// Connects to the first of the relay's hosts that answers.
async fn dial(address: ServerAddress, timeout: Duration) -> Result<Async<TcpStream>, ClientError> {
    let until = Instant::now() + timeout;
    let found = smol::unblock(move || dialing::resolve(&address)).await?;
    let mut failed = DialError::Address;
    for to in found {
        let connect = async { Async::<TcpStream>::connect(to).await };
        let late = async {
            Timer::at(until).await;
            Err(ErrorKind::TimedOut.into())
        };
        match or(connect, late).await.and_then(|socket| {
            // Blocks are whole messages: waiting for more to send would only delay them.
            socket.get_ref().set_nodelay(true)?;
            Ok(socket)
        }) {
            Ok(socket) => return Ok(socket),
            Err(error) => failed = DialError::Connect { to, error },
        }
    }
    Err(failed.into())
}
