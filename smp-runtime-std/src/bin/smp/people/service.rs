//! The thread that has the agent, and serves every `smp` that wants something of it.
//!
//! Owns: the [`Messenger`], and a [`Task`] for each connection. Connections are read and written by threads of their own,
//! so that somebody who does not read cannot hold up the agent: what they do not take in time is dropped with them.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::exchange::{Asked, Line, ends};
use super::messenger::Messenger;
use super::tasks::{Desk, Flow, Task, begin};
use crate::failure::{Failure, Kind};

/// How many lines may wait for a connection that does not take them.
const PATIENCE: usize = 10_000;

/// How long a command that is done waits for what it has caused to leave.
const GRACE: Duration = Duration::from_secs(3);

/// Names a connection.
type ClientId = u64;

/// What comes from other threads.
enum Input {
    /// Somebody connected.
    Attached(UnixStream),
    /// Somebody said something.
    Asked(ClientId, Asked),
    /// Somebody is gone.
    Gone(ClientId),
    /// The one in front of this process's user is done: end when nobody waits.
    End,
}

/// Gives work to the thread that has the agent.
#[derive(Clone)]
pub(crate) struct Door {
    inputs: Sender<Input>,
    waker: Waker,
}

impl Door {
    fn give(&self, input: Input) -> bool {
        let given = self.inputs.send(input).is_ok();
        self.waker.wake_by_ref();
        given
    }

    /// A new connection.
    pub(crate) fn attach(&self, stream: UnixStream) -> bool {
        self.give(Input::Attached(stream))
    }

    /// Asks the service to end as soon as nobody waits for something short.
    pub(crate) fn end(&self) {
        self.give(Input::End);
    }

    /// Takes connections until the process ends.
    pub(crate) fn keep(self, listener: UnixListener) -> io::Result<()> {
        std::thread::Builder::new().name("door".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => {
                        if !self.attach(stream) {
                            break;
                        }
                    }
                    // Out of descriptors, say: others may have closed theirs a moment later.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })?;
        Ok(())
    }
}

struct Client {
    lines: SyncSender<Line>,
    task: Option<Task>,
    deadline: Option<Instant>,
    patience: Duration,
}

/// The service.
pub(crate) struct Service {
    messenger: Messenger,
    inputs: Receiver<Input>,
    door: Door,
    clients: BTreeMap<ClientId, Client>,
    next: ClientId,
    /// Until when to go on, once the one in front of this process's user is done.
    ending: Option<Instant>,
}

impl Service {
    pub(crate) fn new(mut messenger: Messenger) -> Self {
        let (sender, inputs) = channel();
        let door = Door { inputs: sender, waker: messenger.runtime().waker() };
        Self { messenger, inputs, door, clients: BTreeMap::new(), next: 0, ending: None }
    }

    /// The way in.
    pub(crate) fn door(&self) -> Door {
        self.door.clone()
    }

    /// Serves until [`Door::end`].
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        // Requests and messages of before are known when the first command comes.
        self.tell();
        loop {
            while let Ok(input) = self.inputs.try_recv() {
                self.input(input);
            }
            self.tell();
            let now = Instant::now();
            let late: Vec<_> = self
                .clients
                .iter()
                .filter(|(_, client)| client.deadline.is_some_and(|at| at <= now))
                .map(|(id, _)| *id)
                .collect();
            for id in late {
                self.with(id, |task, desk| Err(task.late(desk)));
            }
            self.with_all(|task, desk| Ok(task.turned(desk)));
            self.messenger
                .runtime()
                .flush()
                .map_err(|error| crate::connecting::failure_of_database(&error))?;
            let waited_for = |client: &Client| client.task.as_ref().is_some_and(Task::is_short);
            let waited_for = self.clients.values().any(waited_for);
            // Receipts, and answers to people who connect, are on their way: most leave in a moment.
            let grace = self.ending.filter(|until| *until > now && self.messenger.has_something_to_send());
            if self.ending.is_some() && !waited_for && grace.is_none() {
                return Ok(());
            }
            let deadline = self.clients.values().filter_map(|client| client.deadline).chain(grace).min();
            self.messenger
                .runtime()
                .turn(deadline)
                .map_err(|error| Failure::new(Kind::Unexpected, error.to_string()))?;
        }
    }

    /// Tells everybody what happened.
    fn tell(&mut self) {
        while let Some(happened) = self.messenger.next() {
            for one in happened {
                self.with_all(|task, desk| task.happened(&one, desk));
            }
        }
    }

    fn with_all(&mut self, mut work: impl FnMut(&mut Task, &mut Desk<'_>) -> Result<Flow, Failure>) {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            self.with(id, &mut work);
        }
    }

    /// Lets a client's task work, and sends what it says.
    fn with(&mut self, id: ClientId, work: impl FnOnce(&mut Task, &mut Desk<'_>) -> Result<Flow, Failure>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(task) = &mut client.task else { return };
        let mut desk = Desk { messenger: &mut self.messenger, lines: Vec::new() };
        let result = work(task, &mut desk);
        let lines = desk.lines;
        self.answer(id, lines, result);
    }

    /// Sends lines, and the end when a task is done. What is told is durable before.
    fn answer(&mut self, id: ClientId, mut lines: Vec<Line>, result: Result<Flow, Failure>) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        match result {
            Ok(Flow::Continue) => {}
            Ok(Flow::Done) => {
                client.task = None;
                client.deadline = None;
                lines.push(Line::Done);
            }
            Err(failure) => {
                client.task = None;
                client.deadline = None;
                lines.push(Line::Failed(failure));
            }
        }
        if lines.is_empty() {
            return;
        }
        let flushed = self.messenger.runtime().flush();
        let Some(client) = self.clients.get_mut(&id) else { return };
        if let Err(error) = flushed {
            lines.insert(0, Line::Notice(crate::connecting::failure_of_database(&error).to_string()));
        }
        let gone = lines.into_iter().any(|line| client.lines.try_send(line).is_err());
        if gone {
            self.clients.remove(&id);
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Attached(stream) => self.attached(stream),
            Input::Gone(id) => drop(self.clients.remove(&id)),
            Input::End => self.ending = Some(Instant::now() + GRACE),
            Input::Asked(id, Asked::Do(order)) => {
                let patience = Duration::try_from_secs_f64(order.seconds).unwrap_or(Duration::from_secs(20));
                let mut desk = Desk { messenger: &mut self.messenger, lines: Vec::new() };
                desk.messenger.set_proxy(order.proxy, order.proxy_fallback, order.proxy_hold, order.share);
                let begun = begin(order.request, &mut desk);
                let lines = desk.lines;
                let result = match begun {
                    Ok(None) => Ok(Flow::Done),
                    Ok(Some(task)) => {
                        if let Some(client) = self.clients.get_mut(&id) {
                            client.patience = patience;
                            client.deadline = task.is_short().then(|| Instant::now() + patience);
                            client.task = Some(task);
                        }
                        Ok(Flow::Continue)
                    }
                    Err(failure) => Err(failure),
                };
                self.answer(id, lines, result);
            }
            Input::Asked(id, Asked::Say(text)) => self.with(id, |task, desk| {
                task.say(&text, desk);
                Ok(Flow::Continue)
            }),
            Input::Asked(id, Asked::End) => {
                if let Some(client) = self.clients.get_mut(&id)
                    && let Some(task) = &mut client.task
                {
                    task.end();
                    client.deadline = Some(Instant::now() + client.patience);
                }
            }
            Input::Asked(_, Asked::Shown { contact, message }) => self.messenger.shown(contact, message),
        }
    }

    fn attached(&mut self, stream: UnixStream) {
        let id = self.next;
        self.next += 1;
        let Ok((mut reading, mut writing)) = ends(stream) else { return };
        let (lines, waiting) = sync_channel::<Line>(PATIENCE);
        let door = self.door.clone();
        let reads = std::thread::Builder::new().name("reading".to_owned()).spawn(move || {
            // Whatever ends the reading: that one is gone.
            while let Ok(Some(asked)) = reading.read() {
                if !door.give(Input::Asked(id, asked)) {
                    return;
                }
            }
            door.give(Input::Gone(id));
        });
        let writes = std::thread::Builder::new().name("writing".to_owned()).spawn(move || {
            while let Ok(line) = waiting.recv() {
                // The reading thread sees that the other end is gone.
                if writing.write(&line).is_err() {
                    break;
                }
            }
        });
        if reads.is_ok() && writes.is_ok() {
            let client = Client { lines, task: None, deadline: None, patience: Duration::ZERO };
            self.clients.insert(id, client);
        }
    }
}
