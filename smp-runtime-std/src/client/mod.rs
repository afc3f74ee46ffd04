//! A client that blocks: one relationship with one relay, for programs with threads and without an event loop.
//!
//! [`BlockingClient`] runs one thread that drives [`smp_proto::client::Client`] over TCP and TLS; its methods can be called
//! from any thread. Connections that are lost are made again when the machine says so, and subscriptions are restored.
//! It decides nothing itself, and keeps no queue's keys: those are the caller's
//! ([`RecipientQueue`], [`smp_proto::client::queue::SenderQueue`]).
//!
//! Messages are delivered one at a time for each queue: the next one comes when the last is acknowledged. So what waits
//! for [`BlockingClient::next_event`] is at most one message for each subscription.
//!
//! ```no_run
//! use bytes::Bytes;
//! use smp_proto::client::queue::{QueueToCreate, SenderQueue};
//! use smp_proto::wire::command::{QueueMode, SubscriptionMode};
//! use smp_runtime_std::client::{BlockingClient, ClientEvent, ClientOptions};
//! use smp_runtime_std::fast_cryptography::FAST;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let address = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@localhost".parse()?;
//! let client = BlockingClient::connect(&address, ClientOptions::default())?;
//! let queue = client.create_queue(QueueMode::Messaging, SubscriptionMode::Subscribe, None)?;
//! let to_it = SenderQueue { sender: queue.sender.clone(), key: None };
//! client.command(to_it.send(false, Bytes::from_static(b"hello")))?;
//! while let Some(event) = client.next_event(Duration::from_secs(10))? {
//!     if let ClientEvent::Message { id, body, .. } = event {
//!         println!("{:?}", queue.open(&FAST, &id, &mut body.to_vec())?);
//!         // Only now may the relay delete it.
//!         client.acknowledge(&queue, id)?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod driver;
mod error;
mod proxied;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smp_proto::client::queue::{QueueToCreate, RecipientQueue};
use smp_proto::client::{ClientCommand, CommandId, ProxiedRelay, Reply};
use smp_proto::wire::Identifier;
use smp_proto::wire::address::ServerAddress;
use smp_proto::wire::command::{QueueMode, SubscriptionMode};
use smp_proto::wire::version::Version;

pub use driver::fresh_entropy;
pub use driver::{ClientDriver, ClientOptions, Told};
pub use error::{ClientError, ClientEvent};
pub use proxied::ProxiedSessions;

use crate::dialing;
use crate::fast_cryptography::FAST;
use crate::readiness::Bell;

/// What the callers ask of the thread.
enum Request {
    Command(Box<ClientCommand>, mpsc::Sender<Result<Reply, ClientError>>),
    Stop,
}

/// What the thread tells the callers.
#[derive(Default)]
struct News {
    events: VecDeque<ClientEvent>,
    version: Option<Version>,
    /// The client is over.
    ended: Option<ClientError>,
}

#[derive(Default)]
struct Board {
    told: Mutex<News>,
    changed: Condvar,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, News> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut News)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// One relationship with one relay. Share it between threads in an [`Arc`]; dropping it closes the connection.
pub struct BlockingClient {
    requests: mpsc::Sender<Request>,
    bell: Waker,
    board: Arc<Board>,
    proxied: ProxiedSessions,
    thread: Option<thread::JoinHandle<()>>,
}

impl fmt::Debug for BlockingClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BlockingClient").finish_non_exhaustive()
    }
}

impl BlockingClient {
    /// Connects to the first host of `address` that answers, checks that it is the relay of the address, and shakes hands.
    ///
    /// # Errors
    /// [`ClientError`]: there is no client then, whatever [`ClientOptions::reconnect`] says.
    pub fn connect(address: &ServerAddress, options: ClientOptions) -> Result<Self, ClientError> {
        let driver = ClientDriver::new(address, &options)?;
        let bell = Bell::new().map_err(ClientError::system)?;
        let board = Arc::new(Board::default());
        let (requests, inbox) = mpsc::channel();
        let (dialled, dials) = mpsc::channel();
        let waker = bell.waker();
        let mut worker = Worker {
            driver,
            address: address.clone(),
            options,
            socket: None,
            waker: waker.clone(),
            dialled,
            dials,
            inbox,
            answers: HashMap::new(),
            board: Arc::clone(&board),
        };
        let thread = thread::Builder::new()
            .name("smp-client".to_owned())
            .spawn(move || worker.run(&bell))
            .map_err(ClientError::system)?;
        let client =
            Self { requests, bell: waker, board, proxied: ProxiedSessions::default(), thread: Some(thread) };
        let mut told = client.board.lock();
        loop {
            if let Some(error) = &told.ended {
                return Err(error.clone());
            }
            if told.version.is_some() {
                drop(told);
                return Ok(client);
            }
            told = client.board.changed.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The version of the current connection, or of the last one.
    #[must_use]
    pub fn version(&self) -> Version {
        self.board.lock().version.unwrap_or(Version::OLDEST)
    }

    /// Sends a command and waits for its answer, for at most [`ClientOptions::timeout`].
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the relay answers with an error; [`ClientError::NoAnswer`] when it may have done the
    /// command or not.
    pub fn command(&self, command: ClientCommand) -> Result<Reply, ClientError> {
        self.submit(command)?.wait()
    }

    /// Has the relay of this client, as a proxy, forward a command to another one, which does not see this client: `SEND`,
    /// `SKEY`, `LKEY`, `LGET` or `READ`. `password` is the proxy's, if it asks for one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the other relay answers with an error; [`ClientError::NotForwarded`] when the proxy does;
    /// [`ClientError::NotTheRelay`] when the proxy shows another relay.
    pub fn forward(
        &self,
        relay: &ServerAddress,
        password: Option<&[u8]>,
        command: ClientCommand,
    ) -> Result<Reply, ClientError> {
        if let Some(session) = self.proxied.find(relay) {
            match self.command(command.clone().through(&session)) {
                Err(error) if ProxiedSessions::is_gone(&error) => self.proxied.forget(&session),
                other => return other,
            }
        }
        let session = self.ask_for_session(relay, password)?;
        self.command(command.through(&session))
    }

    /// The session that this client's relay, as a proxy, has with another one: its version, say. It is asked for if there is
    /// none yet; [`Self::forward`] does so by itself.
    ///
    /// # Errors
    /// [`ClientError::NotForwarded`] when the proxy cannot reach it; [`ClientError::NotTheRelay`] when it shows another relay.
    pub fn reach(
        &self,
        relay: &ServerAddress,
        password: Option<&[u8]>,
    ) -> Result<Arc<ProxiedRelay>, ClientError> {
        match self.proxied.find(relay) {
            Some(session) => Ok(session),
            None => self.ask_for_session(relay, password),
        }
    }

    fn ask_for_session(
        &self,
        relay: &ServerAddress,
        password: Option<&[u8]>,
    ) -> Result<Arc<ProxiedRelay>, ClientError> {
        let password = password.map(Bytes::copy_from_slice);
        match self.command(ClientCommand::proxy_connect(relay.clone(), password))? {
            Reply::ProxiedRelay(session) => {
                self.proxied.remember(relay, &session);
                Ok(session)
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Sends a command without waiting, so that several can be on their way.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub fn submit(&self, command: ClientCommand) -> Result<Answer, ClientError> {
        let (sender, answer) = mpsc::channel();
        self.requests.send(Request::Command(Box::new(command), sender)).map_err(|_| self.why_ended())?;
        self.bell.wake_by_ref();
        Ok(Answer { answer, board: Arc::clone(&self.board) })
    }

    fn why_ended(&self) -> ClientError {
        self.board.lock().ended.clone().unwrap_or(ClientError::Stopped)
    }

    /// What happened next without being asked for; `None` when that was nothing within `timeout`.
    ///
    /// # Errors
    /// When the client is over: closed, or the connection is lost and is not to be made again.
    pub fn next_event(&self, timeout: Duration) -> Result<Option<ClientEvent>, ClientError> {
        let until = Instant::now().checked_add(timeout);
        let mut told = self.board.lock();
        loop {
            if let Some(event) = told.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(error) = &told.ended {
                return Err(error.clone());
            }
            told = match until {
                None => self.board.changed.wait(told).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    self.board.changed.wait_timeout(told, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Asks the relay for a sign of life.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn ping(&self) -> Result<(), ClientError> {
        match self.command(ClientCommand::ping())? {
            Reply::Pong => Ok(()),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Creates a queue with fresh keys.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn create_queue(
        &self,
        mode: QueueMode,
        subscription: SubscriptionMode,
        password: Option<Bytes>,
    ) -> Result<RecipientQueue, ClientError> {
        let keys = QueueToCreate::generate(&mut fresh_entropy()?);
        match self.command(keys.command(&FAST, mode, subscription, password))? {
            Reply::Created(created) => Ok(keys.created(&FAST, &created)),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Subscribes to a queue: its messages come as [`ClientEvent::Message`], one after the other as they are
    /// acknowledged.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn subscribe(&self, queue: &RecipientQueue) -> Result<(), ClientError> {
        let reply = self.command(queue.subscribe())?;
        self.done_or_message(queue, reply)
    }

    /// Tells the relay that a message is safe and may be deleted there. The next one comes as an event.
    ///
    /// # Errors
    /// As [`Self::command`]. After [`ClientError::NoAnswer`] the message may come again.
    pub fn acknowledge(&self, queue: &RecipientQueue, message: Identifier) -> Result<(), ClientError> {
        let reply = self.command(queue.acknowledge(message))?;
        self.done_or_message(queue, reply)
    }

    /// Takes one message without subscribing; `None` when there is none. Acknowledge it to get the next.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub fn get(&self, queue: &RecipientQueue) -> Result<Option<(Identifier, Bytes)>, ClientError> {
        match self.command(queue.get())? {
            Reply::Ok => Ok(None),
            Reply::Message { id, body } => Ok(Some((id, body))),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// A message that came as an answer is an event like those that come by themselves.
    fn done_or_message(&self, queue: &RecipientQueue, reply: Reply) -> Result<(), ClientError> {
        match reply {
            Reply::Ok | Reply::Subscribed => Ok(()),
            Reply::Message { id, body } => {
                let queue = queue.recipient.clone();
                self.board.tell(|told| told.events.push_back(ClientEvent::Message { queue, id, body }));
                Ok(())
            }
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Closes the connection. Commands that have no answer yet fail.
    pub fn close(self) {
        drop(self);
    }
}

impl Drop for BlockingClient {
    fn drop(&mut self) {
        // The thread may have ended before.
        let _ = self.requests.send(Request::Stop);
        self.bell.wake_by_ref();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a command that was sent.
#[derive(Debug)]
pub struct Answer {
    answer: mpsc::Receiver<Result<Reply, ClientError>>,
    board: Arc<Board>,
}

impl fmt::Debug for Board {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Board")
    }
}

impl Answer {
    /// Waits for it, for at most [`ClientOptions::timeout`] after the command was sent.
    ///
    /// # Errors
    /// As [`BlockingClient::command`].
    pub fn wait(self) -> Result<Reply, ClientError> {
        match self.answer.recv() {
            Ok(result) => result,
            // The thread has ended without an answer.
            Err(mpsc::RecvError) => Err(self.board.lock().ended.clone().unwrap_or(ClientError::Stopped)),
        }
    }
}

/// What the thread has.
struct Worker {
    driver: ClientDriver,
    address: ServerAddress,
    options: ClientOptions,
    socket: Option<TcpStream>,
    waker: Waker,
    dialled: mpsc::Sender<Result<TcpStream, ClientError>>,
    dials: mpsc::Receiver<Result<TcpStream, ClientError>>,
    inbox: mpsc::Receiver<Request>,
    answers: HashMap<CommandId, mpsc::Sender<Result<Reply, ClientError>>>,
    board: Arc<Board>,
}

impl Worker {
    fn run(&mut self, bell: &Bell) {
        self.driver.connect();
        let why = loop {
            if let Err(why) = self.turn(bell) {
                break why;
            }
        };
        // A goodbye is polite, not needed: the relay notices the end of the stream.
        self.driver.stop();
        self.board.tell(|told| told.ended = Some(why));
    }

    fn turn(&mut self, bell: &Bell) -> Result<(), ClientError> {
        loop {
            match self.inbox.try_recv() {
                Ok(Request::Command(command, answer)) => match self.driver.submit(*command) {
                    Ok(id) => drop(self.answers.insert(id, answer)),
                    // Whoever asked may not wait any more.
                    Err(error) => drop(answer.send(Err(error))),
                },
                Ok(Request::Stop) | Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(ClientError::Stopped);
                }
                Err(mpsc::TryRecvError::Empty) => break,
            }
        }
        while let Ok(dialled) = self.dials.try_recv() {
            let result = dialled.map(|socket| drop(self.socket.replace(socket)));
            self.driver.dialled(result);
        }
        let received = self.move_bytes();
        self.driver.work();
        if self.driver.take_dial() {
            self.dial()?;
        }
        self.tell_events()?;
        if received || self.driver.wants_write() && self.write() {
            return Ok(());
        }
        if !self.driver.is_connected() {
            self.socket = None;
        }
        let (read, write, deadline) =
            (self.driver.wants_read(), self.driver.wants_write(), self.driver.deadline());
        bell.wait(self.socket.as_ref(), read, write, deadline).map_err(ClientError::system)?;
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.driver.handle_timeout();
        }
        Ok(())
    }

    /// Writes and reads what goes without waiting; true when something was received.
    fn move_bytes(&mut self) -> bool {
        self.write();
        match &mut self.socket {
            Some(socket) if self.driver.wants_read() => match self.driver.read_from(socket) {
                Ok(()) => true,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            },
            _ => false,
        }
    }

    /// Writes what the socket takes; true when that was everything, and there may be more now.
    fn write(&mut self) -> bool {
        let Some(socket) = &mut self.socket else { return false };
        while self.driver.wants_write() {
            if self.driver.write_to(socket).is_err() {
                return false;
            }
        }
        true
    }

    /// Connects on a thread of its own, so that deadlines are kept meanwhile.
    fn dial(&self) -> Result<(), ClientError> {
        let (address, timeout) = (self.address.clone(), self.options.timeout);
        let (dialled, waker) = (self.dialled.clone(), self.waker.clone());
        thread::Builder::new()
            .name("smp-dial".to_owned())
            .spawn(move || {
                let connect = || -> Result<TcpStream, ClientError> {
                    let socket = dialing::connect(&dialing::resolve(&address)?, timeout)?;
                    socket.set_nonblocking(true).map_err(ClientError::system)?;
                    Ok(socket)
                };
                // Nobody waits for it when the client was closed meanwhile.
                let _ = dialled.send(connect());
                waker.wake();
            })
            .map(drop)
            .map_err(ClientError::system)
    }

    fn tell_events(&mut self) -> Result<(), ClientError> {
        while let Some(told) = self.driver.next_told() {
            let event = match told {
                Told::Answer(command, result) => {
                    if let Some(answer) = self.answers.remove(&command) {
                        // Whoever asked may not wait any more.
                        let _ = answer.send(result);
                    }
                    continue;
                }
                Told::Established(version) => {
                    let first = self.board.lock().version.replace(version).is_none();
                    if first {
                        self.board.changed.notify_all();
                        continue;
                    }
                    ClientEvent::Connected { version }
                }
                Told::Closed(reason) => {
                    if !self.options.reconnect || self.board.lock().version.is_none() {
                        return Err(reason);
                    }
                    ClientEvent::Disconnected { reason }
                }
                Told::Event(event) => event,
            };
            self.board.tell(|told| event.queue_in(&mut told.events));
        }
        Ok(())
    }
}
