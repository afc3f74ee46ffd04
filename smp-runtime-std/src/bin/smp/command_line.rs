//! What can be typed after `smp`.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these texts are for a terminal, where brackets mean: may be left out"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

/// A terminal client of the SimpleX Messaging Protocol.
///
/// Two people connect like this: one runs `smp invite --relay smp://FINGERPRINT@HOST` and gives the printed link to the
/// other, who runs `smp connect LINK` and can write at once: `smp chat NAME`. The first does the same when online again.
#[derive(Debug, Parser)]
#[command(name = "smp", version, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct CommandLine {
    /// The folder with your keys and messages [default: the user's data folder]
    #[arg(long, value_name = "DIR", env = "SMP_DATA", global = true, value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Read the passphrase of your keys and messages from this file [default: SMP_PASSPHRASE, or ask]
    #[arg(long, value_name = "FILE", env = "SMP_PASSPHRASE_FILE", global = true, value_hint = ValueHint::FilePath)]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// When messages to people go through your relay, so that theirs does not see your address [default: as before, at first
    /// unknown]
    #[cfg(unix)]
    #[arg(long, value_name = "WHEN", env = "SMP_PROXY", global = true, value_enum)]
    pub(crate) proxy: Option<crate::people::Proxy>,
    /// Whether messages go straight when your relay cannot bring them [default: as before, at first no]
    #[cfg(unix)]
    #[arg(long, value_name = "YES-OR-NO", global = true, value_parser = parse_yes_or_no, action = clap::ArgAction::Set)]
    pub(crate) proxy_fallback: Option<bool>,
    /// For how long your relay holds a message while theirs cannot be reached, and tries by itself, whether or not you are
    /// online [default: as before, at first weeks]
    #[cfg(unix)]
    #[arg(long, value_name = "HOW-LONG", global = true, value_enum)]
    pub(crate) proxy_hold: Option<crate::people::ProxyHold>,
    /// Who shares your connections to relays: all the people you know, or each has their own, so that relays cannot tell that they
    /// are one person's [default: as before, at first all]
    #[cfg(unix)]
    #[arg(long, value_name = "WHO", global = true, value_enum)]
    pub(crate) share: Option<crate::people::Share>,
    /// Print one JSON object a line instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds to wait for a connection, and for each answer of the relay.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = parse_seconds, global = true)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[cfg(unix)]
    #[command(flatten)]
    People(crate::people::People),
    /// Connect to a relay, check who it is, and measure how fast it answers.
    Ping(Ping),
    /// Make queues, send to them, and receive from them.
    #[command(subcommand)]
    Queue(Queue),
    /// Understand links and addresses, without asking any relay.
    #[command(subcommand)]
    Link(Link),
    /// Load a relay and measure it. Make sure that its operator agrees.
    Bench(Box<Bench>),
    /// Print the completions of a shell: `smp completions bash > /etc/bash_completion.d/smp`
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// The relay's address: smp://FINGERPRINT@HOST[:PORT]
    pub(crate) address: String,
    /// How many times to ask.
    #[arg(long, short = 'c', default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) count: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queue {
    /// Make a queue on a relay, and print the address to give to whoever may send to it.
    New {
        /// The relay's address, with its password if it has one: smp://FINGERPRINT[:PASSWORD]@HOST[:PORT]
        /// [default: that of the queue made before]
        #[arg(long, short = 'a', env = "SMP_ADDRESS", hide_env_values = true)]
        address: Option<String>,
        /// Your own name for the queue; nobody else sees it.
        #[arg(default_value = "main")]
        name: String,
    },
    /// Send a message to a queue; the first one secures the queue, so that nobody else can send to it.
    Send {
        /// The queue's address, as `smp queue new` printed it.
        #[arg(value_name = "QUEUE-ADDRESS")]
        queue: String,
        /// The message; without it, or with `-`, it is read from the standard input to its end.
        message: Option<String>,
        /// Send each line of the standard input as a message of its own.
        #[arg(long, conflicts_with = "message")]
        lines: bool,
        /// Have this relay bring the message, so that the queue's relay does not see your address: its address, with
        /// its password if it asks for one.
        #[arg(long, value_name = "RELAY-ADDRESS")]
        through: Option<String>,
    },
    /// Receive the messages of a queue, waiting for more until it is interrupted.
    Listen {
        /// Your name for the queue.
        #[arg(default_value = "main")]
        name: String,
        /// Stop after this many messages.
        #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
        /// Take what waits now, and stop.
        #[arg(long)]
        no_wait: bool,
    },
    /// Delete a queue, on its relay and here, with all messages that wait in it.
    Delete {
        /// Your name for the queue.
        name: String,
        /// Forget it here even when the relay cannot be reached.
        #[arg(long)]
        force: bool,
    },
    /// List your queues.
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Link {
    /// Explain a link, or the address of a relay or a queue, field by field. Keys and passwords are not shown.
    Show {
        /// What to explain; without it, or with `-`, it is read from the standard input, where nobody else on this machine
        /// sees it.
        link: Option<String>,
        /// Print a QR code of it too, with its key.
        #[arg(long)]
        qr: bool,
    },
}

/// What a run of `smp bench` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Full-size messages through queues: sent, delivered, acknowledged.
    Messages,
    /// Connections made and closed again: TCP, TLS and SMP handshakes.
    Connections,
    /// Connections that do nothing: what each costs in memory.
    Idle,
    /// Queues created, in full batches.
    New,
    /// Queues subscribed to, in full batches.
    Subscribe,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The relay's address, with its password if it has one: smp://FINGERPRINT[:PASSWORD]@HOST[:PORT]
    pub(crate) address: String,
    /// What to measure.
    #[arg(long, short, value_enum, default_value_t = Mode::Messages)]
    pub(crate) mode: Mode,
    /// How many connections [default: 16; with `--mode idle` 1000]
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: Option<u32>,
    /// How many queues in all [default: one for each two connections; with `--mode new` and `subscribe` 10000]
    #[arg(long, short = 'q', value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) queues: Option<u32>,
    /// How many messages each queue has under way.
    #[arg(long, short = 'p', default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pipeline: u32,
    /// Measure for this many seconds [default: 10 when no count is given]
    #[arg(long, short = 'd', value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) duration: Option<Duration>,
    /// Stop after this many messages or connections.
    #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Bytes of each message's body [default: the most that the version allows]
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<u32>,
    /// The newest version to speak [default: the newest known]
    #[arg(long, value_name = "VERSION")]
    pub(crate) smp_version: Option<u16>,
    /// Threads that make the load.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,
    /// The process id of the relay, when it runs on this machine: reports its processor time and memory.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Also measure the cryptography that one message cannot do without, and compare.
    #[arg(long)]
    pub(crate) floor: bool,
}

#[cfg(unix)]
fn parse_yes_or_no(text: &str) -> Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("say yes or no".to_owned()),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() && seconds <= 31_536_000.0 => Ok(duration),
        _ => Err("it must be more than 0 and at most a year".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn times_are_positive_and_bounded() {
        assert_eq!(parse_seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["0", "-1", "NaN", "inf", "1e30", "soon", ""] {
            assert!(parse_seconds(wrong).is_err(), "{wrong}");
        }
    }
}
