//! `smp link`: what a link or an address says, without asking any relay.
//!
//! The secrets in it (keys, passwords) are not printed again, except where the user asks for a QR code of it.

mod description;
mod explanation;
pub(crate) mod qr;

use std::io::{self, Read};

use serde_json::Value;
use smp_proto::wire::address::AddressWithPassword;
use smp_proto::wire::links::Link as LinkText;
use smp_proto::wire::queue_uri::QueueUri;
use zeroize::Zeroizing;

use crate::command_line::Link;
use crate::failure::{Failure, Kind};
use crate::report::Report;

/// More than any link has: with post-quantum keys they have some 5,000 characters.
const LONGEST: u64 = 65_536;

/// Runs one of the commands.
pub(crate) fn run(report: Report, command: Link) -> Result<(), Failure> {
    match command {
        Link::Show { link, qr } => show(report, link, qr),
    }
}

fn show(report: Report, link: Option<String>, qr: bool) -> Result<(), Failure> {
    let text = Zeroizing::new(match link {
        Some(text) if text != "-" => text,
        _ => read_input()?,
    });
    let given = Given::read(&text)?;
    let explanation = given.describe();
    let code = qr.then(|| qr::Code::of(&given.text())).transpose()?;
    if report.is_json() {
        let mut value = explanation.to_json();
        if let (Some(code), Value::Object(fields)) = (&code, &mut value) {
            fields.insert("qr".to_owned(), code.to_json());
        }
        report.result("link", &value, "")?;
    } else {
        let mut shown = explanation.to_text();
        if let Some(code) = &code {
            shown = shown + "\n\n" + &code.to_text();
        }
        report.result("link", &Value::Null, &shown)?;
    }
    Ok(())
}

fn read_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().lock().take(LONGEST).read_to_string(&mut text);
    let length = read
        .map_err(|error| Failure::new(Kind::Usage, format!("the standard input cannot be read: {error}")))?;
    if length as u64 == LONGEST {
        return Err(Failure::new(
            Kind::Usage,
            format!("the standard input has more than {LONGEST} bytes: that is no link"),
        ));
    }
    if text.trim().is_empty() {
        return Err(Failure::new(Kind::Usage, "there is nothing to explain: the standard input is empty")
            .advise("smp link show LINK, or smp link show < FILE"));
    }
    Ok(text)
}

/// What was given.
enum Given {
    Relay(AddressWithPassword),
    Queue(Box<QueueUri>),
    Link(Box<LinkText>),
}

impl Given {
    fn read(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            Failure::new(Kind::Usage, format!("this is not {what}: {error}"))
        };
        let asked_again = "ask for it again, or copy it whole: from its first character to its last";
        if text.starts_with("smp://") {
            if text.contains('#') {
                let uri: Result<QueueUri, _> = text.parse();
                return uri
                    .map(|uri| Self::Queue(Box::new(uri)))
                    .map_err(|error| wrong("the address of a queue", &error).advise(asked_again));
            }
            return text.parse().map(Self::Relay).map_err(|error| {
                wrong("the address of a relay", &error).advise(
                    "an address looks like smp://FINGERPRINT@HOST or smp://FINGERPRINT:PASSWORD@HOST:PORT",
                )
            });
        }
        text.parse()
            .map(|link| Self::Link(Box::new(link)))
            .map_err(|error| wrong("a link or an address of SMP", &error).advise(asked_again))
    }

    /// The whole text as this program writes it, with its secrets.
    fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(match self {
            Self::Relay(address) => address.to_string(),
            Self::Queue(uri) => uri.to_string(),
            Self::Link(link) => link.to_string(),
        })
    }

    fn describe(&self) -> explanation::Explanation {
        match self {
            Self::Relay(address) => description::relay_address(address),
            Self::Queue(uri) => description::queue_address(uri),
            Self::Link(link) => description::link(link),
        }
    }
}
