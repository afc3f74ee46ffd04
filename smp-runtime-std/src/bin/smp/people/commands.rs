//! What can be typed about people.
#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "these texts are for a terminal, where brackets mean: may be left out"
)]

use clap::{Args, Subcommand, ValueEnum};

use super::exchange::Request;
use super::text_to_send;
use crate::failure::Failure;

/// How many messages a conversation begins with.
const HISTORY: usize = 20;

#[derive(Debug, Subcommand)]
pub(crate) enum People {
    /// Show your contact address, for everybody who shall be able to ask to connect to you; make it the first time.
    Address {
        #[command(flatten)]
        me: Me,
        /// Whether `smp listen` accepts everybody who asks, or leaves it to you [default: as before, at first you]
        #[arg(long, value_enum)]
        accept: Option<Accept>,
        /// Delete the address: nobody can ask by it any more; those who are connected stay so.
        #[arg(long)]
        delete: bool,
        #[command(flatten)]
        shape: Shape,
    },
    /// Make a link for one person: whoever uses it first is connected to you, and can write before you are online again.
    Invite {
        /// Your name for that person [default: what they call themselves]
        name: Option<String>,
        #[command(flatten)]
        me: Me,
        #[command(flatten)]
        shape: Shape,
    },
    /// Connect by somebody's link; by an invitation you can write at once.
    Connect {
        /// The link.
        link: String,
        /// Your name for that person [default: what they call themselves]
        name: Option<String>,
        #[command(flatten)]
        me: Me,
    },
    /// List the people you know, and those who ask to be connected.
    Contacts {
        /// Show the links of invitations that nobody has used.
        #[arg(long)]
        links: bool,
    },
    /// Accept somebody who used your address.
    Accept {
        /// The number that `smp listen` or `smp contacts` shows.
        request: u64,
        /// Your name for that person [default: what they call themselves]
        name: Option<String>,
    },
    /// Reject somebody who used your address; they are not told.
    Reject {
        /// The number that `smp listen` or `smp contacts` shows.
        request: u64,
    },
    /// Send a message to somebody; done when their relay has it, whether they are online or not.
    Send {
        /// Your name for them.
        name: String,
        /// The message; without it, or with `-`, it is read from the standard input to its end.
        message: Option<String>,
    },
    /// Show what happens and what people write, until it is interrupted.
    Listen {
        /// Only this person.
        name: Option<String>,
        /// Stop after this many messages.
        #[arg(long, short = 'c', value_parser = clap::value_parser!(u64).range(1..))]
        count: Option<u64>,
    },
    /// Talk to somebody: what you type is sent, what they write is shown.
    Chat {
        /// Your name for them.
        name: String,
        /// How many messages of before to show.
        #[arg(long, default_value_t = HISTORY)]
        history: usize,
    },
    /// Show what you and somebody wrote.
    History {
        /// Your name for them.
        name: String,
        /// How many messages.
        #[arg(long, short = 'c', default_value_t = HISTORY)]
        count: usize,
    },
    /// Move the messages of somebody to a new queue, on the same or another relay of yours; they have to come online for it.
    Switch {
        /// Your name for them.
        name: String,
        /// The relay, from now on for all new queues.
        #[arg(long, short = 'r', env = "SMP_ADDRESS", hide_env_values = true)]
        relay: Option<String>,
    },
    /// Delete somebody, with all that was written, here and on the relays; they are not told.
    Delete {
        /// Your name for them.
        name: String,
    },
}

/// Who makes a link.
#[derive(Debug, Args)]
pub(crate) struct Me {
    /// How you are called, for those who connect [default: as before, at first `anonymous`]
    #[arg(long = "as", value_name = "NAME")]
    my_name: Option<String>,
    /// The relay on which messages wait for you, with its password if it has one [default: as before]
    #[arg(long, short = 'r', env = "SMP_ADDRESS", hide_env_values = true)]
    relay: Option<String>,
}

/// How a link is shown.
#[derive(Debug, Args)]
pub(crate) struct Shape {
    /// Print the long form, which says everything itself: for programs that know no short links.
    #[arg(long)]
    long: bool,
    /// Print a QR code too.
    #[arg(long)]
    qr: bool,
}

/// Who is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accept {
    /// Everybody, without asking.
    Everybody,
    /// Those whom you accept.
    Ask,
}

impl People {
    /// What is asked of the agent.
    pub(crate) fn request(self) -> Result<Request, Failure> {
        Ok(match self {
            Self::Address { me, accept, delete, shape } => Request::Address {
                my_name: me.my_name,
                relay: me.relay,
                accept_everybody: accept.map(|accept| accept == Accept::Everybody),
                delete,
                long: shape.long,
                qr: shape.qr,
            },
            Self::Invite { name, me, shape } => {
                Request::Invite { name, my_name: me.my_name, relay: me.relay, long: shape.long, qr: shape.qr }
            }
            Self::Connect { link, name, me } => {
                Request::Connect { link, name, my_name: me.my_name, relay: me.relay }
            }
            Self::Contacts { links } => Request::Contacts { links },
            Self::Accept { request, name } => Request::Accept { request, name },
            Self::Reject { request } => Request::Reject { request },
            Self::Send { name, message } => Request::Send { contact: name, text: text_to_send(message)? },
            Self::Listen { name, count } => Request::Listen { contact: name, count },
            Self::Chat { name, history } => Request::Chat { contact: name, history },
            Self::History { name, count } => Request::History { contact: name, count },
            Self::Switch { name, relay } => Request::Switch { contact: name, relay },
            Self::Delete { name } => Request::Delete { contact: name },
        })
    }
}
