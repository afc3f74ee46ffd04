//! People: connections to them by links, and messages.
//!
//! `smp address`, `invite`, `connect`, `send`, `listen`, `chat` and the like. The rooms: [`exchange`] says how the process
//! that has the agent and the others talk; [`service`] has the agent; [`tasks`] says what each command does with the
//! [`messenger`], which keeps [`records`] beside the agent's; [`chat_message`] is what applications say inside messages;
//! [`front`] is in front of the person; [`account`] knows folder and passphrase.

mod account;
mod chat_message;
mod commands;
mod exchange;
mod front;
mod messenger;
mod records;
mod service;
mod tasks;

use std::io::{self, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use smp_runtime_std::agent::database::{DatabaseError, LockedDatabase};
use smp_runtime_std::agent::{AgentOptions, AgentRuntime};

use self::account::Account;
pub(crate) use self::commands::People;
use self::exchange::Request;
pub(crate) use self::exchange::{Order, Proxy, ProxyHold, Share};
use self::front::Ended;
use self::messenger::Messenger;
use self::records::Records;
use self::service::Service;
use crate::connecting::failure_of_database;
use crate::failure::{Failure, Kind};
use crate::report::Report;

/// How long a process that begins or ends may hold the database without answering.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest text from the standard input: more than any message.
const LONGEST_TEXT: u64 = 1 << 16;

/// Runs a command: with the agent of the process that has it, or with its own.
pub(crate) fn run(
    report: Report,
    patience: Duration,
    data: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    order: &Order,
) -> Result<(), Failure> {
    let account = Account::new(account::folder(data)?, passphrase_file)?;
    let until = Instant::now() + PATIENCE;
    loop {
        match LockedDatabase::open(&account.database()) {
            Ok(locked) => return serve(report, patience, &account, locked, order),
            Err(DatabaseError::InUse(_)) => {}
            Err(error) => return Err(failure_of_database(&error)),
        }
        if let Ok(stream) = UnixStream::connect(account.socket()) {
            match front::run(report, stream, order)? {
                Ended::With(result) => return result,
                Ended::Lost if matches!(order.request, Request::Listen { .. } | Request::Chat { .. }) => {
                    report.notice("the other `smp` ended: going on without it");
                    continue;
                }
                Ended::Lost => {
                    return Err(Failure::new(Kind::Unexpected, "the other `smp` ended before this was done")
                        .advise("`smp contacts` shows what was done"));
                }
            }
        }
        if Instant::now() > until {
            return Err(Failure::new(
                Kind::State,
                format!(
                    "{} is in use by another process, which does not answer",
                    account.database().display()
                ),
            )
            .advise("is another `smp` waiting for its passphrase? End it, and try again"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Has the agent, and serves this command and those of others until this one is done.
fn serve(
    report: Report,
    patience: Duration,
    account: &Account,
    locked: LockedDatabase,
    order: &Order,
) -> Result<(), Failure> {
    let database = account.unlock(report, locked)?;
    let mut options = AgentOptions::default();
    options.timeout = patience;
    let (runtime, kept) = AgentRuntime::open(database, options)
        .map_err(|error| Failure::new(Kind::State, error.to_string()))?;
    let service = Service::new(Messenger::new(runtime, Records::read(kept)?));
    let door = service.door();
    match listen(account) {
        Ok(listener) => door.clone().keep(listener)?,
        Err(error) => {
            report.notice(&format!("other `smp` commands have to wait until this one ends: {error}"));
        }
    }
    let (here, there) = UnixStream::pair()?;
    door.attach(there);
    let serving = std::thread::Builder::new().name("agent".to_owned()).spawn(move || service.run())?;
    let ended = front::run(report, here, order);
    door.end();
    let served = serving
        .join()
        .map_err(|_| Failure::new(Kind::Unexpected, "the agent has stopped: please report this"))?;
    // Failing to remove it is no harm: whoever is next does it.
    let _ = account::remove_socket(&account.socket());
    match ended? {
        Ended::With(result) => result.and(served),
        Ended::Lost => served.and(Err(Failure::new(Kind::Unexpected, "the agent has stopped"))),
    }
}

fn listen(account: &Account) -> io::Result<UnixListener> {
    account::remove_socket(&account.socket())?;
    UnixListener::bind(account.socket())
}

/// The text of a message: what was given, or the standard input.
pub(crate) fn text_to_send(given: Option<String>) -> Result<String, Failure> {
    let text = match given {
        Some(text) if text != "-" => text,
        _ => {
            let mut text = String::new();
            io::stdin().lock().take(LONGEST_TEXT).read_to_string(&mut text).map_err(|error| {
                Failure::new(Kind::Usage, format!("the standard input cannot be read: {error}"))
            })?;
            text.strip_suffix('\n').map(str::to_owned).unwrap_or(text)
        }
    };
    if text.is_empty() {
        return Err(Failure::new(Kind::Usage, "there is nothing to send"));
    }
    Ok(text)
}
