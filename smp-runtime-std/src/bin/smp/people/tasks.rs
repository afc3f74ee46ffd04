//! What each command does: it begins, hears what happens, and is done at some time.
//!
//! A task never waits and never prints: it looks at the [`Messenger`], and says lines. Several run at the same time, one for
//! every `smp` that has asked for something.

use serde_json::{Value, json};

use super::exchange::{Line, Request};
use super::messenger::{Happened, Messenger};
use super::records::{ContactId, Progress};
use crate::failure::{Failure, Kind};
use crate::link::qr::Code;
use crate::report::printable;

/// Whether a task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Done,
}

/// What a task is called with.
pub(crate) struct Desk<'a> {
    pub(crate) messenger: &'a mut Messenger,
    pub(crate) lines: Vec<Line>,
}

impl Desk<'_> {
    fn result(&mut self, event: &str, value: Value, text: impl Into<String>) {
        self.lines.push(Line::Result { event: event.to_owned(), value, text: text.into() });
    }

    fn notice(&mut self, text: impl Into<String>) {
        self.lines.push(Line::Notice(text.into()));
    }

    fn name(&self, contact: ContactId) -> String {
        let known = self.messenger.records().contacts.get(&contact);
        known.map_or_else(|| "somebody".to_owned(), |contact| printable(&contact.name))
    }
}

/// A command on its way.
#[derive(Debug)]
pub(crate) enum Task {
    /// The address's link is waited for.
    Address { long: bool, qr: bool, updates: bool },
    /// An invitation's link is waited for.
    Invite { contact: ContactId, long: bool, qr: bool },
    /// The other side's relay is waited for.
    Join { contact: ContactId, request: bool },
    /// A message is to leave.
    Send { contact: ContactId, message: u64 },
    /// Everything is told, of one contact or of all.
    Listen { contact: Option<ContactId>, left: Option<u64> },
    /// What is typed is sent; once nothing more will be typed, what was typed is to leave.
    Chat { contact: ContactId, waiting: Vec<u64>, ended: bool },
    /// A move to another queue is to be agreed.
    Switch { contact: ContactId },
    /// The relays are to delete their queues.
    Delete,
}

/// Begins a command; without a task it is done.
pub(crate) fn begin(request: Request, desk: &mut Desk<'_>) -> Result<Option<Task>, Failure> {
    match request {
        Request::Address { my_name, relay, accept_everybody, delete, long, qr } => {
            if delete {
                desk.messenger.delete_address()?;
                return Ok(Some(Task::Delete));
            }
            desk.messenger.set_up(my_name.as_deref(), relay.as_deref())?;
            if let Some(accept) = accept_everybody {
                desk.messenger.set_accept_everybody(accept);
            }
            if let Some(links) = desk.messenger.address() {
                if my_name.is_none() {
                    show_link(desk, None, &links, long, qr)?;
                    return Ok(None);
                }
                desk.messenger.make_address()?;
                return Ok(Some(Task::Address { long, qr, updates: true }));
            }
            if desk.messenger.records().settings.address.is_none() {
                desk.messenger.make_address()?;
            }
            Ok(Some(Task::Address { long, qr, updates: false }))
        }
        Request::Invite { name, my_name, relay, long, qr } => {
            desk.messenger.set_up(my_name.as_deref(), relay.as_deref())?;
            // An invitation that nobody has used yet is shown again.
            if let Some(contact) =
                name.as_deref().and_then(|name| desk.messenger.records().contact(name).ok())
                && let Some(links) = desk.messenger.invitation(contact)
            {
                show_link(desk, Some(contact), &links, long, qr)?;
                return Ok(None);
            }
            let contact = desk.messenger.invite(name.as_deref())?;
            Ok(Some(Task::Invite { contact, long, qr }))
        }
        Request::Connect { link, name, my_name, relay } => {
            desk.messenger.set_up(my_name.as_deref(), relay.as_deref())?;
            let (contact, borrowed) = desk.messenger.connect(&link, name.as_deref())?;
            if borrowed {
                desk.notice(
                    "you have named no relay of your own: messages to you wait on the relay of the link, which can see that \
                     both directions belong together. `--relay` names another",
                );
            }
            Ok(Some(Task::Join { contact, request: false }))
        }
        Request::Contacts { links } => {
            contacts(desk, links);
            Ok(None)
        }
        Request::Accept { request, name } => {
            let contact = desk.messenger.accept(request, name.as_deref())?;
            Ok(Some(Task::Join { contact, request: true }))
        }
        Request::Reject { request } => {
            desk.messenger.reject(request)?;
            desk.result("rejected", json!({ "request": request }), "rejected; they are not told");
            Ok(None)
        }
        Request::Send { contact, text } => {
            let contact = desk.messenger.records().contact(&contact)?;
            let message = desk.messenger.say(contact, &text)?;
            Ok(Some(Task::Send { contact, message }))
        }
        Request::Listen { contact, count } => {
            let contact = contact.map(|name| desk.messenger.records().contact(&name)).transpose()?;
            let mut task = Task::Listen { contact, left: count };
            let flow = task.catch_up(desk);
            Ok((flow == Flow::Continue).then_some(task))
        }
        Request::Chat { contact, history } => {
            let contact = desk.messenger.records().contact(&contact)?;
            show_history(desk, contact, history);
            let mut task = Task::Chat { contact, waiting: Vec::new(), ended: false };
            task.catch_up(desk);
            Ok(Some(task))
        }
        Request::History { contact, count } => {
            let contact = desk.messenger.records().contact(&contact)?;
            show_history(desk, contact, count);
            let mut task = Task::Listen { contact: Some(contact), left: None };
            task.catch_up(desk);
            Ok(None)
        }
        Request::Switch { contact, relay } => {
            let contact = desk.messenger.records().contact(&contact)?;
            desk.messenger.set_up(None, relay.as_deref())?;
            desk.messenger.switch(contact)?;
            Ok(Some(Task::Switch { contact }))
        }
        Request::Delete { contact } => {
            let contact = desk.messenger.records().contact(&contact)?;
            desk.messenger.delete(contact)?;
            Ok(Some(Task::Delete))
        }
    }
}

impl Task {
    /// Whether the program that has the agent ends only after this.
    pub(crate) const fn is_short(&self) -> bool {
        !matches!(self, Self::Listen { .. } | Self::Chat { ended: false, .. })
    }

    /// Something happened.
    pub(crate) fn happened(&mut self, happened: &Happened, desk: &mut Desk<'_>) -> Result<Flow, Failure> {
        match happened {
            Happened::Notice(text) => {
                desk.notice(printable(text));
                return Ok(Flow::Continue);
            }
            Happened::NotStored(text) => {
                if !self.is_short() {
                    desk.notice(format!("{text}; trying again"));
                    return Ok(Flow::Continue);
                }
                return Err(Failure::new(Kind::State, text.clone())
                    .advise("nothing was sent; make room or repair the folder, and try again"));
            }
            _ => {}
        }
        match (&mut *self, happened) {
            (
                Self::Address { long, qr, updates: false },
                Happened::Link { contact: None, short, long: full },
            ) => {
                show_link(desk, None, &(short.clone(), full.clone()), *long, *qr)?;
                Ok(Flow::Done)
            }
            (Self::Address { long, qr, updates: true }, Happened::AddressUpdated) => {
                if let Some(links) = desk.messenger.address() {
                    show_link(desk, None, &links, *long, *qr)?;
                }
                Ok(Flow::Done)
            }
            (Self::Address { .. }, Happened::Failed { contact: None, failure }) => {
                Err(Failure::new(Kind::Refused, failure.clone()))
            }
            (
                Self::Invite { contact, long, qr },
                Happened::Link { contact: Some(made), short, long: full },
            ) if contact == made => {
                show_link(desk, Some(*contact), &(short.clone(), full.clone()), *long, *qr)?;
                Ok(Flow::Done)
            }
            (Self::Join { contact, request }, Happened::Joined { contact: joined, may_send })
                if contact == joined =>
            {
                let name = desk.name(*contact);
                let text = match (may_send, &request) {
                    (true, _) => format!("connected to {name}: `smp send` and `smp chat` work right away"),
                    (false, true) => format!("accepted {name}; they have to come online for the rest"),
                    (false, false) => format!("asked {name}: keep `smp listen` running until they answer"),
                };
                desk.result("joined", json!({ "contact": name, "may_send": may_send }), text);
                Ok(Flow::Done)
            }
            (
                Self::Join { contact, .. } | Self::Invite { contact, .. },
                Happened::Failed { contact: Some(failed), failure },
            ) if contact == failed => {
                // It is of no use to anybody: the name is free again.
                let id = *contact;
                desk.messenger.delete(id)?;
                Err(Failure::new(Kind::Refused, failure.clone()))
            }
            (Self::Send { contact, message }, Happened::Progress { contact: whose, message: which })
                if contact == whose && message == which =>
            {
                sent(desk, *contact, *message)
            }
            (Self::Send { contact, .. }, Happened::Full { contact: full }) if contact == full => {
                let name = desk.name(*contact);
                desk.notice(format!("{name}'s queue is full: the message waits until they have read"));
                Ok(Flow::Continue)
            }
            (Self::Switch { contact }, Happened::Switched { contact: switched, phase })
                if contact == switched =>
            {
                use smp_proto::agent::SwitchPhase::{Completed, Failed};
                let name = desk.name(*contact);
                match phase {
                    Completed => {
                        desk.result(
                            "switched",
                            json!({ "contact": name }),
                            format!("messages of {name} come by another queue now"),
                        );
                        Ok(Flow::Done)
                    }
                    Failed => {
                        Err(Failure::new(Kind::Refused, "the new queue cannot be used: the old one stays"))
                    }
                    _ => Ok(Flow::Continue),
                }
            }
            (Self::Listen { .. } | Self::Chat { .. }, _) => self.tell(happened, desk),
            _ => Ok(Flow::Continue),
        }
    }

    /// Whether it is done without anything having happened that can be told.
    pub(crate) fn turned(&mut self, desk: &mut Desk<'_>) -> Flow {
        match self {
            Self::Delete if !desk.messenger.is_deleting() => {
                desk.result("deleted", json!({}), "deleted");
                Flow::Done
            }
            Self::Chat { waiting, ended: true, .. } if waiting.is_empty() => Flow::Done,
            _ => Flow::Continue,
        }
    }

    /// A line was typed.
    pub(crate) fn say(&mut self, text: &str, desk: &mut Desk<'_>) {
        let Self::Chat { contact, waiting, .. } = self else { return };
        if text.trim().is_empty() {
            return;
        }
        match desk.messenger.say(*contact, text) {
            Ok(message) => {
                waiting.push(message);
                // People see what they typed; programs learn that it will not be lost.
                if let Some(said) = find(desk, *contact, message) {
                    let name = desk.name(*contact);
                    let value = json!({ "contact": name, "number": said.number, "text": said.text });
                    desk.result("waiting", value, "");
                }
            }
            Err(failure) => desk.notice(failure.to_string()),
        }
    }

    /// Nothing more will be typed.
    pub(crate) fn end(&mut self) {
        if let Self::Chat { ended, .. } = self {
            *ended = true;
        }
    }

    /// The time for it is over; what was begun goes on whenever the agent runs.
    pub(crate) fn late(&self, desk: &Desk<'_>) -> Failure {
        let later = "it goes on by itself whenever an `smp` runs, `smp listen` for example";
        match self {
            Self::Address { .. } | Self::Invite { .. } => {
                Failure::new(Kind::Network, "the relay has not answered in time").advise(later)
            }
            Self::Join { contact, .. } => {
                let name = desk.name(*contact);
                Failure::new(Kind::Network, format!("the connection to {name} is not made yet")).advise(later)
            }
            Self::Send { contact, .. } => {
                let name = desk.name(*contact);
                let what = format!("the message is kept, but {name}'s relay has not taken it in time");
                Failure::new(Kind::Network, what).advise(later)
            }
            Self::Switch { contact } => {
                let name = desk.name(*contact);
                Failure::new(Kind::Network, format!("{name} has not agreed yet")).advise(later)
            }
            Self::Delete => {
                Failure::new(Kind::Network, "it is deleted here, but a relay has not answered in time")
                    .advise(later)
            }
            Self::Listen { .. } | Self::Chat { .. } => Failure::new(Kind::Network, "the time is over"),
        }
    }

    /// Tells messages that were not shown yet, and requests that wait.
    fn catch_up(&mut self, desk: &mut Desk<'_>) -> Flow {
        let whose = self.whose();
        let mut new = Vec::new();
        for (id, history) in &desk.messenger.records().history {
            if whose.is_none_or(|contact| contact == *id) {
                let unseen = history.iter().filter(|(_, said)| said.progress == Progress::New);
                new.extend(unseen.map(|(message, said)| (said.time, *id, *message)));
            }
        }
        new.sort_by_key(|(time, ..)| *time);
        if whose.is_none() {
            for (request, name) in desk.messenger.requests().clone() {
                asks(desk, request, &name);
            }
        }
        for (_, contact, message) in new {
            if self.tell_message(desk, contact, message) == Flow::Done {
                return Flow::Done;
            }
        }
        Flow::Continue
    }

    const fn whose(&self) -> Option<ContactId> {
        match self {
            Self::Listen { contact, .. } => *contact,
            Self::Chat { contact, .. } => Some(*contact),
            _ => None,
        }
    }

    fn tell_message(&mut self, desk: &mut Desk<'_>, contact: ContactId, message: u64) -> Flow {
        tell_message(desk, contact, message);
        if let Self::Listen { left: Some(left), .. } = self {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Flow::Done;
            }
        }
        Flow::Continue
    }

    fn tell(&mut self, happened: &Happened, desk: &mut Desk<'_>) -> Result<Flow, Failure> {
        let whose = self.whose();
        let concerns = |contact: &ContactId| whose.is_none_or(|whose| whose == *contact);
        match happened {
            Happened::Message { contact, message } if concerns(contact) => {
                return Ok(self.tell_message(desk, *contact, *message));
            }
            Happened::Progress { contact, message } if concerns(contact) => {
                progress(desk, *contact, *message);
                if let Self::Chat { waiting, .. } = self {
                    waiting.retain(|waits| waits != message);
                }
            }
            Happened::Connected { contact } if concerns(contact) => {
                let name = desk.name(*contact);
                desk.result("connected", json!({ "contact": name }), format!("* {name} is connected"));
            }
            Happened::Joined { contact, may_send: true } if concerns(contact) => {
                let name = desk.name(*contact);
                desk.result(
                    "joined",
                    json!({ "contact": name, "may_send": true }),
                    format!("* {name} can be written to"),
                );
            }
            Happened::Failed { contact: Some(contact), failure } if concerns(contact) => {
                let name = desk.name(*contact);
                desk.result(
                    "failed",
                    json!({ "contact": name, "message": failure }),
                    format!("* {name} cannot be connected: {failure}"),
                );
            }
            Happened::Failed { contact: None, failure } if whose.is_none() => {
                desk.notice(format!("the address cannot be made: {failure}"));
            }
            Happened::Full { contact } if concerns(contact) => {
                let name = desk.name(*contact);
                desk.notice(format!("{name}'s queue is full: messages wait until they have read"));
            }
            Happened::Requested { request, name } if whose.is_none() => asks(desk, *request, name),
            Happened::Switched { contact, phase } if concerns(contact) => {
                use smp_proto::agent::SwitchPhase::Completed;
                if *phase == Completed {
                    let name = desk.name(*contact);
                    desk.notice(format!("messages with {name} go by another queue now"));
                }
            }
            _ => {}
        }
        Ok(Flow::Continue)
    }
}

fn asks(desk: &mut Desk<'_>, request: u64, name: &str) {
    let name = printable(name);
    desk.result(
        "requested",
        json!({ "request": request, "name": name }),
        format!("* {name} wants to connect: `smp accept {request}` or `smp reject {request}`"),
    );
}

/// How a message of mine is, in a sign and a word.
fn sign(progress: &Progress) -> (&'static str, &'static str) {
    match progress {
        Progress::Waiting => ("…", "waiting"),
        Progress::Held { .. } => ("⌛", "held"),
        Progress::Sent => ("✓", "sent"),
        Progress::Delivered => ("✓✓", "delivered"),
        Progress::Failed(_) => ("✗", "failed"),
        Progress::New | Progress::Shown => ("", "received"),
    }
}

fn find(desk: &Desk<'_>, contact: ContactId, message: u64) -> Option<super::records::Said> {
    let history = desk.messenger.records().history.get(&contact)?;
    history.iter().find(|(number, _)| *number == message).map(|(_, said)| said.clone())
}

fn sent(desk: &mut Desk<'_>, contact: ContactId, message: u64) -> Result<Flow, Failure> {
    let Some(said) = find(desk, contact, message) else { return Ok(Flow::Done) };
    let name = desk.name(contact);
    match &said.progress {
        Progress::Waiting => Ok(Flow::Continue),
        Progress::Held { attempts, next } => {
            let mut value = json!({ "contact": name, "number": said.number, "proxied": said.proxied });
            tell_of_tries(&mut value, *attempts, *next);
            let tried = tries(*attempts, *next);
            let text = format!(
                "held by your relay, since theirs cannot be reached now{tried}: it arrives by itself when {name}'s is back"
            );
            desk.result("held", value, text);
            Ok(Flow::Done)
        }
        Progress::Failed(failure) => {
            Err(Failure::new(Kind::Refused, format!("the message to {name} cannot be sent: {failure}")))
        }
        _ => {
            let value = json!({ "contact": name, "number": said.number, "proxied": said.proxied });
            let way = if said.proxied { " through your relay, so that theirs has not seen you" } else { "" };
            desk.result("sent", value, format!("sent{way}: it waits for {name} on their relay"));
            Ok(Flow::Done)
        }
    }
}

/// How often a message was tried, and when it is tried next: for people, nothing before the first time.
fn tries(attempts: u16, next: i64) -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let wait = u64::try_from(next).unwrap_or(0).saturating_sub(now);
    let tried = match attempts {
        0 => "not tried yet".to_owned(),
        1 => "tried once".to_owned(),
        attempts => format!("tried {attempts} times"),
    };
    match (attempts, wait) {
        (0, 0) => String::new(),
        (_, 0) => format!(" ({tried})"),
        (_, wait) => format!(" ({tried}, next in {wait} s)"),
    }
}

fn tell_of_tries(value: &mut Value, attempts: u16, next: i64) {
    value["attempts"] = attempts.into();
    value["next"] = next.into();
}

/// The beginning of a text, for reference.
fn beginning(text: &str) -> String {
    let line = printable(text.lines().next().unwrap_or_default());
    let cut: String = line.chars().take(40).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

fn progress(desk: &mut Desk<'_>, contact: ContactId, message: u64) {
    let Some(said) = find(desk, contact, message) else { return };
    let (sign, word) = sign(&said.progress);
    let name = desk.name(contact);
    let mut value = json!({ "contact": name, "number": said.number, "proxied": said.proxied });
    let way = if said.proxied && said.progress == Progress::Sent { " (through your relay)" } else { "" };
    let mut text = format!("  {sign} {}{way}", beginning(&said.text));
    if let Progress::Failed(failure) = &said.progress {
        value["message"] = failure.as_str().into();
        text = format!("{text}: {failure}");
    }
    if let Progress::Held { attempts, next } = &said.progress {
        tell_of_tries(&mut value, *attempts, *next);
        text = format!("{text}: held by your relay{}", tries(*attempts, *next));
    }
    desk.result(word, value, text);
}

fn tell_message(desk: &mut Desk<'_>, contact: ContactId, message: u64) {
    let Some(said) = find(desk, contact, message) else { return };
    let name = desk.name(contact);
    let value = json!({ "contact": name, "number": said.number, "time": said.time, "text": said.text });
    let text = format!("{name}: {}", printable(&said.text));
    desk.lines.push(Line::Message { contact, message, value, text });
}

/// What was said and shown before.
fn show_history(desk: &mut Desk<'_>, contact: ContactId, count: usize) {
    let name = desk.name(contact);
    let history = desk.messenger.records().history.get(&contact).cloned().unwrap_or_default();
    let shown: Vec<_> = history.into_iter().filter(|(_, said)| said.progress != Progress::New).collect();
    for (_, said) in shown.iter().skip(shown.len().saturating_sub(count)) {
        let (sign, word) = sign(&said.progress);
        let who = if said.is_mine() { format!("you {sign}") } else { name.clone() };
        let mut value = json!({
            "contact": name, "number": said.number, "time": said.time, "text": said.text, "state": word,
            "proxied": said.proxied,
        });
        if let Progress::Held { attempts, next } = &said.progress {
            tell_of_tries(&mut value, *attempts, *next);
        }
        desk.result("history", value, format!("{who}: {}", printable(&said.text)));
    }
}

fn show_link(
    desk: &mut Desk<'_>,
    contact: Option<ContactId>,
    (short, full): &(Option<String>, String),
    long: bool,
    qr: bool,
) -> Result<(), Failure> {
    let link = short.as_ref().filter(|_| !long).unwrap_or(full);
    let mut value = json!({ "link": link, "short": short, "long": full });
    let mut text = link.clone();
    if qr {
        let code = Code::of(link)?;
        text = format!("{text}\n\n{}", code.to_text());
        value["qr"] = code.to_json();
    }
    match contact {
        Some(contact) => {
            let name = desk.name(contact);
            value["contact"] = name.as_str().into();
            desk.result("invitation", value, text);
            desk.notice(format!(
                "give this link to one person, by a channel that you trust; they are `{name}` here. They can write before \
                 you are online again: `smp listen` shows it"
            ));
        }
        None => {
            desk.result("address", value, text);
            desk.notice(if desk.messenger.records().settings.accept_everybody {
                "whoever has this link can connect to you while `smp listen` runs"
            } else {
                "whoever has this link can ask to connect to you: `smp listen` shows it"
            });
        }
    }
    Ok(())
}

fn contacts(desk: &mut Desk<'_>, links: bool) {
    let known: Vec<_> = desk.messenger.records().contacts.iter().map(|(id, c)| (*id, c.clone())).collect();
    for (id, contact) in known {
        let status = desk.messenger.status(id);
        let stage = match (&contact.failure, &status) {
            (Some(failure), _) => failure.clone(),
            (None, Some(status)) => status.stage.to_owned(),
            (None, None) => "gone".to_owned(),
        };
        let waiting = status.as_ref().map_or(0, |status| status.waiting);
        let held = status.as_ref().map_or(0, |status| status.held);
        let history = desk.messenger.records().history.get(&id);
        let unseen = history.map_or(0, |all| all.iter().filter(|(_, s)| s.progress == Progress::New).count());
        let may_send = status.as_ref().is_some_and(|status| status.may_send);
        let name = printable(&contact.name);
        let mut value = json!({
            "name": name, "state": stage, "may_send": may_send, "waiting": waiting, "held": held,
            "new": unseen,
            "connected": status.as_ref().is_some_and(|status| status.connected),
        });
        let mut text = format!("{name}: {stage}");
        if waiting > 0 {
            text = format!("{text}, {waiting} to be sent");
        }
        if held > 0 {
            text = format!("{text}, {held} held by your relay");
        }
        if unseen > 0 {
            text = format!("{text}, {unseen} new");
        }
        if let Some((short, full)) = desk.messenger.invitation(id).filter(|_| links) {
            let link = short.unwrap_or(full);
            text = format!("{text}\n  {link}");
            value["link"] = link.into();
        }
        desk.result("contact", value, text);
    }
    for (request, name) in desk.messenger.requests().clone() {
        asks(desk, request, &name);
    }
    if desk.lines.is_empty() {
        desk.notice(
            "you know nobody yet: `smp invite` makes a link for somebody, `smp connect LINK` uses one",
        );
    }
}
