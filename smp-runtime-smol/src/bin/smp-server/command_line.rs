//! What can be typed after `smp-server`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use smp_proto::wire::base64url;
use smp_proto::wire::identifier::IDENTIFIER_LENGTH;
use smp_runtime_std::configuration::CreatePassword;

/// A relay for the SimpleX Messaging Protocol.
///
/// Without a command it starts the relay in its folder, and initialises the folder first when it is not there yet.
#[derive(Parser)]
#[command(name = "smp-server", version)]
pub(crate) struct CommandLine {
    /// The relay's folder: configuration, certificates, queues and messages.
    #[arg(long, value_name = "DIR", default_value = "smp-data", global = true)]
    pub(crate) data: PathBuf,
    /// Print one JSON object a line instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make the folder: certificates, a commented configuration, and the address to give to clients.
    Init(Init),
    /// Start the relay; stops on SIGINT and SIGTERM.
    Start,
    /// Make a new online certificate. The relay keeps its identity and address; this needs the file `ca.key`.
    Cert,
    /// Block a queue that is used for spam or forbidden content: its parties are told so, and nobody can send. The relay must
    /// not be running.
    Block {
        /// Any id of the queue, as links and addresses have it: 32 characters of base64url.
        #[arg(allow_hyphen_values = true)]
        queue: QueueId,
        /// What its parties are told.
        #[arg(long, value_enum)]
        reason: Reason,
    },
    /// Let a blocked queue work again. The relay must not be running.
    Unblock {
        /// Any id of the queue.
        #[arg(allow_hyphen_values = true)]
        queue: QueueId,
    },
    /// Delete the folder with everything in it: identity, queues and messages.
    Delete {
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

/// Why a queue is blocked.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Reason {
    /// Unwanted messages.
    Spam,
    /// Content that the operator does not allow.
    Content,
}

/// An id of a queue.
#[derive(Clone, Copy)]
pub(crate) struct QueueId(pub(crate) [u8; IDENTIFIER_LENGTH]);

impl FromStr for QueueId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = base64url::decode(text).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("not the id of a queue: it has 32 characters, letters, digits, - and _")
    }
}

#[derive(Args)]
pub(crate) struct Init {
    /// A name or address under which clients reach the relay; may be repeated.
    #[arg(long, short = 'n', alias = "fqdn", alias = "ip", value_name = "HOST", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// A port to listen on; may be repeated, 0 is any free port [default: 5223]
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) port: Vec<u16>,
    /// An address of this machine to listen on; may be repeated [default: all]
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(crate) listen: Vec<IpAddr>,
    /// The password for creating queues [default: a random one]
    #[arg(long, conflicts_with = "no_password")]
    pub(crate) password: Option<CreatePassword>,
    /// Let everybody create queues.
    #[arg(long)]
    pub(crate) no_password: bool,
    /// Accepted for scripts that were written for other relays: nothing is ever asked here.
    #[arg(long, short, hide = true)]
    pub(crate) yes: bool,
}
