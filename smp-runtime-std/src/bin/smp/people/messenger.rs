//! The messenger: an agent, the people it is connected to, and what they said.
//!
//! Owns: [`AgentRuntime`] and [`Records`], and keeps them together: what the agent did and what is remembered of it are
//! written in one transaction. It must never print, ask or wait: it is given commands by tasks, turns what the agent tells
//! into [`Happened`], and answers the agent where no person has to be asked.

use std::collections::BTreeMap;

use smp_proto::agent::{
    CommandError, ConnectionId, Event, Integrity, Isolation, ProxyMode, RequestId, Routing, Status,
    SwitchPhase,
};
use smp_proto::wire::address::AddressWithPassword;
use smp_proto::wire::first_step::Hold;
use smp_proto::wire::links::Link;
use smp_proto::wire::links::connection_request::ConnectionRequest;
use smp_proto::wire::links::short_link::ShortLinkTarget;
use smp_runtime_std::agent::{AgentRuntime, Told};

use super::chat_message::{self, Content};
use super::exchange::{Proxy, ProxyHold, Share};
use super::records::{Contact, ContactId, Progress, Records, Said};
use crate::connecting::{failure_of_client, failure_of_database};
use crate::failure::{Failure, Kind};

/// How I am called before I say otherwise.
const NAMELESS: &str = "anonymous";

/// The longest name that may be given, in bytes.
const LONGEST_NAME: usize = 100;

/// Something that tasks may want to tell.
#[derive(Clone, Debug)]
pub(crate) enum Happened {
    /// A link is ready: of a contact's invitation, or, without one, of the address.
    Link { contact: Option<ContactId>, short: Option<String>, long: String },
    /// The other side's relay has our part.
    Joined { contact: ContactId, may_send: bool },
    /// The connection is up in both directions.
    Connected { contact: ContactId },
    /// The connection, or the address, will not be.
    Failed { contact: Option<ContactId>, failure: String },
    /// Somebody used the address, and waits for an answer.
    Requested { request: u64, name: String },
    /// Somebody said something.
    Message { contact: ContactId, message: u64 },
    /// A message of mine is farther than it was.
    Progress { contact: ContactId, message: u64 },
    /// Messages to this contact wait until they have read.
    Full { contact: ContactId },
    /// The address's link leads to what was asked for.
    AddressUpdated,
    /// A move to another queue has come this far.
    Switched { contact: ContactId, phase: SwitchPhase },
    /// Worth knowing.
    Notice(String),
    /// Nothing can be kept at the moment.
    NotStored(String),
}

/// See the module.
pub(crate) struct Messenger {
    runtime: AgentRuntime,
    records: Records,
    /// Who asks to be accepted, by the agent's number.
    requests: BTreeMap<u64, String>,
}

fn failure_of_command(error: CommandError) -> Failure {
    let kind = match error {
        CommandError::TooMany => Kind::Full,
        CommandError::Stage(_) | CommandError::NotSynchronized => Kind::Refused,
        _ => Kind::Usage,
    };
    Failure::new(kind, error.to_string())
}

impl Messenger {
    pub(crate) fn new(runtime: AgentRuntime, records: Records) -> Self {
        let mut messenger = Self { runtime, records, requests: BTreeMap::new() };
        messenger.route();
        messenger
    }

    /// When messages go through my relay, and what else is chosen, from now on; `None` leaves what was.
    pub(crate) fn set_proxy(
        &mut self,
        proxy: Option<Proxy>,
        fallback: Option<bool>,
        hold: Option<ProxyHold>,
        share: Option<Share>,
    ) {
        let settings = &mut self.records.settings;
        let before = (settings.proxy, settings.proxy_fallback, settings.proxy_hold, settings.share);
        settings.proxy = proxy.unwrap_or(before.0);
        settings.proxy_fallback = fallback.unwrap_or(before.1);
        settings.proxy_hold = hold.unwrap_or(before.2);
        settings.share = share.unwrap_or(before.3);
        if (settings.proxy, settings.proxy_fallback, settings.proxy_hold, settings.share) != before {
            self.keep_settings();
            self.route();
        }
    }

    /// Tells the agent which way commands take. My relay is the one that may see me, and so the proxy to all others.
    fn route(&mut self) {
        // An address that cannot be read is reported where it is needed.
        let relay = self.own_relay().ok().flatten();
        let settings = &self.records.settings;
        let routing = Routing {
            mode: match settings.proxy {
                Proxy::Always => ProxyMode::Always,
                Proxy::Unknown => ProxyMode::UnknownRelays,
                Proxy::Unprotected => ProxyMode::UnknownWhenUnprotected,
                Proxy::Never => ProxyMode::Never,
            },
            fallback: settings.proxy_fallback,
            known: relay.iter().map(|relay| relay.address.clone()).collect(),
            proxies: relay.into_iter().collect(),
            is_protected: false,
            isolation: match settings.share {
                Share::All => Isolation::User,
                Share::None => Isolation::Connection,
            },
            hold: match settings.proxy_hold {
                ProxyHold::Never => Hold::Never,
                ProxyHold::Hour => Hold::Hour,
                ProxyHold::Day => Hold::Day,
                ProxyHold::Weeks => Hold::Weeks,
            },
        };
        self.runtime.command(|agent, now, entropy| agent.set_routing(routing, now, entropy));
    }

    pub(crate) const fn runtime(&mut self) -> &mut AgentRuntime {
        &mut self.runtime
    }

    pub(crate) const fn records(&self) -> &Records {
        &self.records
    }

    /// Those who wait for an answer.
    pub(crate) const fn requests(&self) -> &BTreeMap<u64, String> {
        &self.requests
    }

    /// How I am called.
    pub(crate) fn my_name(&self) -> &str {
        self.records.settings.name.as_deref().unwrap_or(NAMELESS)
    }

    /// What the agent says of a contact; nothing once the connection is deleted.
    pub(crate) fn status(&self, contact: ContactId) -> Option<Status> {
        let contact = self.records.contacts.get(&contact)?;
        self.runtime.agent().status(ConnectionId(contact.connection))
    }

    /// The links of a connection that can be given away, the short one and the long one.
    fn links(&self, connection: ConnectionId) -> Option<(Option<String>, String)> {
        let long = self.runtime.agent().link(connection)?;
        Some((self.runtime.agent().short_link(connection).map(|link| link.to_string()), long.to_string()))
    }

    /// The links of an invitation that nobody has used.
    pub(crate) fn invitation(&self, contact: ContactId) -> Option<(Option<String>, String)> {
        self.links(ConnectionId(self.records.contacts.get(&contact)?.connection))
    }

    /// The links of the address.
    pub(crate) fn address(&self) -> Option<(Option<String>, String)> {
        self.links(ConnectionId(self.records.settings.address?))
    }

    /// Remembers how I am called and which relay is mine; `None` leaves what was.
    pub(crate) fn set_up(&mut self, name: Option<&str>, relay: Option<&str>) -> Result<(), Failure> {
        if let Some(name) = name {
            check_name(name)?;
            self.records.settings.name = Some(name.to_owned());
        }
        if let Some(relay) = relay {
            let parsed = parse_relay(relay)?;
            self.records.settings.relay = Some(parsed.to_string());
        }
        if name.is_some() || relay.is_some() {
            self.keep_settings();
        }
        if relay.is_some() {
            self.route();
        }
        Ok(())
    }

    /// Whether everybody who uses the address is accepted.
    pub(crate) fn set_accept_everybody(&mut self, accept: bool) {
        self.records.settings.accept_everybody = accept;
        self.keep_settings();
    }

    fn keep_settings(&mut self) {
        let (name, content) = self.records.written_settings();
        self.runtime.keep(name, content);
    }

    fn own_relay(&self) -> Result<Option<AddressWithPassword>, Failure> {
        self.records.settings.relay.as_deref().map(parse_relay).transpose()
    }

    fn relay(&self) -> Result<AddressWithPassword, Failure> {
        self.own_relay()?.ok_or_else(|| {
            Failure::new(Kind::Usage, "no relay is known yet: messages to you have to wait somewhere").advise(
                "name one once with --relay smp://FINGERPRINT@HOST, or in SMP_ADDRESS; it is remembered",
            )
        })
    }

    /// Gives the agent a command that makes a connection, and keeps the contact with it.
    fn begin(
        &mut self,
        name: &str,
        chosen: bool,
        command: impl FnOnce(
            &mut smp_proto::agent::Agent,
            smp_proto::time::Now,
            &mut smp_proto::entropy::SeededEntropy,
        ) -> Result<ConnectionId, CommandError>,
    ) -> Result<ContactId, Failure> {
        let id = ContactId(self.records.settings.next_contact);
        let name = name.to_owned();
        let records = &mut self.records;
        let result = self.runtime.command_and_keep(command, |result| {
            let Ok(connection) = result else { return Vec::new() };
            records.settings.next_contact += 1;
            let contact = Contact { name, chosen, connection: connection.0, failure: None, next_message: 0 };
            records.contacts.insert(id, contact);
            vec![records.written_settings(), records.written_contact(id)]
        });
        result.map(|_| id).map_err(failure_of_command)
    }

    /// The name for somebody new: what was chosen, if it is free.
    fn new_name(&self, chosen: Option<&str>, otherwise: &str) -> Result<(String, bool), Failure> {
        let Some(name) = chosen else { return Ok((self.records.free_name(otherwise, None), false)) };
        check_name(name)?;
        if self.records.contact(name).is_ok() {
            return Err(Failure::new(Kind::Usage, format!("there is a contact `{name}` already"))
                .advise("choose another name; `smp contacts` shows those that are taken"));
        }
        Ok((name.to_owned(), true))
    }

    /// Makes an invitation for one person.
    pub(crate) fn invite(&mut self, name: Option<&str>) -> Result<ContactId, Failure> {
        let (name, chosen) = self.new_name(name, "invited")?;
        let relay = self.relay()?;
        let (answer, data) =
            (chat_message::introduction(self.my_name()), chat_message::link_data(self.my_name()));
        self.begin(&name, chosen, |agent, now, entropy| {
            agent.create_short_invitation(relay, Some(&answer), &data, now, entropy)
        })
    }

    /// Makes the contact address, or brings the one there is up to date with my name.
    pub(crate) fn make_address(&mut self) -> Result<(), Failure> {
        let data = chat_message::link_data(self.my_name());
        if let Some(address) = self.records.settings.address {
            return self
                .runtime
                .command(|agent, now, entropy| {
                    agent.set_link_data(ConnectionId(address), &data, now, entropy)
                })
                .map_err(failure_of_command);
        }
        let relay = self.relay()?;
        let records = &mut self.records;
        let result = self.runtime.command_and_keep(
            |agent, now, entropy| agent.create_short_address(relay, &data, now, entropy),
            |result| {
                let Ok(connection) = result else { return Vec::new() };
                records.settings.address = Some(connection.0);
                vec![records.written_settings()]
            },
        );
        result.map(drop).map_err(failure_of_command)
    }

    /// Deletes the address: nobody can ask by it any more.
    pub(crate) fn delete_address(&mut self) -> Result<(), Failure> {
        let address = self.records.settings.address.take().ok_or_else(|| {
            Failure::new(Kind::Usage, "there is no address").advise("`smp address` makes one")
        })?;
        self.keep_settings();
        self.runtime
            .command(|agent, now, entropy| agent.delete(ConnectionId(address), now, entropy))
            .map_err(failure_of_command)
    }

    /// Connects by a link. The flag says whether the link's own relay is used, as none is known.
    pub(crate) fn connect(&mut self, link: &str, name: Option<&str>) -> Result<(ContactId, bool), Failure> {
        let (name, chosen) = self.new_name(name, "contact")?;
        let own = self.own_relay()?;
        let invitation = chat_message::introduction(self.my_name());
        let request = chat_message::request(self.my_name());
        let borrowed = own.is_none();
        let id = match parse_link(link)? {
            Link::Short(link) => {
                let link = match &own {
                    Some(relay) => link.restored(std::slice::from_ref(&relay.address)),
                    None => link,
                };
                if link.relay.fingerprint.is_empty() {
                    return Err(Failure::new(Kind::Usage, "the link does not say which relay it is kept on")
                        .advise("ask for the link in its full form, with the relay's fingerprint"));
                }
                let relay = own.unwrap_or_else(|| without_password(link.relay.clone()));
                let information = match link.target {
                    ShortLinkTarget::Invitation { .. } => invitation,
                    ShortLinkTarget::Contact { .. } => request,
                };
                self.begin(&name, chosen, |agent, now, entropy| {
                    agent.join_by_short_link(&link, relay, &information, now, entropy)
                })?
            }
            Link::Full(link) => {
                let theirs = link.data().queues.first().map(|queue| queue.server.clone());
                let relay = own.or_else(|| theirs.map(without_password)).ok_or_else(|| {
                    Failure::new(Kind::Usage, "the link names no queue").advise("ask for a new one")
                })?;
                let information = match *link {
                    ConnectionRequest::Invitation(..) => invitation,
                    ConnectionRequest::Contact(..) => request,
                };
                self.begin(&name, chosen, |agent, now, entropy| {
                    agent.join(&link, relay, &information, now, entropy)
                })?
            }
            Link::Blob(_) => {
                return Err(Failure::new(Kind::Usage, "this link leads to a blob, and not to a person")
                    .advise("`smp link show` explains it"));
            }
        };
        Ok((id, borrowed))
    }

    /// Accepts somebody who used the address.
    pub(crate) fn accept(&mut self, request: u64, name: Option<&str>) -> Result<ContactId, Failure> {
        let theirs = self.requests.get(&request).cloned().ok_or_else(|| no_request(request))?;
        let (name, chosen) = self.new_name(name, &theirs)?;
        let relay = self.relay()?;
        let information = chat_message::introduction(self.my_name());
        let id = self.begin(&name, chosen, |agent, now, entropy| {
            agent.accept(RequestId(request), relay, &information, now, entropy)
        })?;
        self.requests.remove(&request);
        Ok(id)
    }

    /// Rejects somebody who used the address.
    pub(crate) fn reject(&mut self, request: u64) -> Result<(), Failure> {
        self.requests.remove(&request).ok_or_else(|| no_request(request))?;
        self.runtime
            .command(|agent, now, entropy| agent.reject(RequestId(request), now, entropy))
            .map_err(failure_of_command)
    }

    /// Says something to a contact: the number of the message in the history.
    pub(crate) fn say(&mut self, contact: ContactId, text: &str) -> Result<u64, Failure> {
        let known = self.records.contacts.get(&contact).ok_or_else(gone)?;
        let connection = ConnectionId(known.connection);
        let failed = known.failure.clone();
        let name = known.name.clone();
        let time = self.runtime.now().wall.0;
        let records = &mut self.records;
        let mut added = 0;
        let result = self.runtime.command_and_keep(
            |agent, now, entropy| {
                let body = chat_message::text(text, entropy);
                agent.send(connection, &body, true, now, entropy)
            },
            |result| {
                let Ok(number) = result else { return Vec::new() };
                let said = Said {
                    number: *number,
                    time,
                    text: text.to_owned(),
                    progress: Progress::Waiting,
                    proxied: false,
                };
                let (message, written) = records.add(contact, said);
                added = message;
                written
            },
        );
        result.map(|_| added).map_err(|error| match (failed, error) {
            (Some(failure), _) => Failure::new(Kind::Refused, format!("{name} is not connected: {failure}")),
            (None, CommandError::Stage(stage)) => Failure::new(
                Kind::Refused,
                format!("{name} cannot be written to yet: the connection is {stage}"),
            )
            .advise("keep `smp listen` running until the other side was there"),
            (None, error) => failure_of_command(error),
        })
    }

    /// A message was shown.
    pub(crate) fn shown(&mut self, contact: ContactId, message: u64) {
        let Some(history) = self.records.history.get_mut(&contact) else { return };
        if let Some((_, said)) = history.iter_mut().find(|(number, _)| *number == message)
            && said.progress == Progress::New
        {
            said.progress = Progress::Shown;
            let (name, content) = self.records.written_message(contact, message);
            self.runtime.keep(name, content);
        }
    }

    /// Moves a contact's messages to another queue.
    pub(crate) fn switch(&mut self, contact: ContactId) -> Result<(), Failure> {
        let connection = ConnectionId(self.records.contacts.get(&contact).ok_or_else(gone)?.connection);
        let relay = self.relay()?;
        self.runtime
            .command(|agent, now, entropy| agent.switch(connection, relay, now, entropy))
            .map_err(failure_of_command)
    }

    /// Deletes a contact, here and its queues on their relays. They are not told.
    pub(crate) fn delete(&mut self, contact: ContactId) -> Result<(), Failure> {
        let connection = ConnectionId(self.records.contacts.get(&contact).ok_or_else(gone)?.connection);
        for (name, content) in self.records.forget(contact) {
            self.runtime.keep(name, content);
        }
        match self.runtime.command(|agent, now, entropy| agent.delete(connection, now, entropy)) {
            // A connection that failed has deleted itself.
            Ok(()) | Err(CommandError::UnknownConnection) => Ok(()),
            Err(error) => Err(failure_of_command(error)),
        }
    }

    /// Whether connections that were deleted still have queues on their relays.
    pub(crate) fn is_deleting(&self) -> bool {
        let known = |id: ConnectionId| {
            self.records.contact_of(id.0).is_some() || self.records.settings.address == Some(id.0)
        };
        self.runtime.agent().connections().any(|(id, _)| !known(id))
    }

    /// Whether the agent has something for somebody that could leave now.
    pub(crate) fn has_something_to_send(&self) -> bool {
        // What my relay has been asked to hold, and the keys with which it can hold something later, as well.
        self.runtime.agent().is_registering()
            || self.runtime.agent().connections().any(|(_, status)| status.waiting > 0 || status.is_busy)
    }

    /// Takes what the runtime tells next, remembers it, and says what is worth telling.
    pub(crate) fn next(&mut self) -> Option<Vec<Happened>> {
        let told = self.runtime.next()?;
        Some(match told {
            Told::Event(event) => self.event(event),
            Told::Reached { .. } => Vec::new(),
            Told::Unreachable { relay, error } => {
                let host = relay.hosts.first().map(ToString::to_string).unwrap_or_default();
                let failure = failure_of_client("connecting", &error);
                vec![Happened::Notice(format!("the relay {host}: {}; trying again", failure.what))]
            }
            Told::NotStored(error) => vec![Happened::NotStored(failure_of_database(&error).to_string())],
        })
    }

    fn contact_of(&self, connection: ConnectionId) -> Option<ContactId> {
        self.records.contact_of(connection.0)
    }

    fn event(&mut self, event: Event) -> Vec<Happened> {
        let mut happened = Vec::new();
        match event {
            Event::InvitationCreated { connection, link, short } => {
                if let Some(contact) = self.contact_of(connection) {
                    let short = short.map(|link| link.to_string());
                    happened.push(Happened::Link { contact: Some(contact), short, long: link.to_string() });
                }
            }
            Event::AddressCreated { link, short, .. } => {
                let short = short.map(|link| link.to_string());
                happened.push(Happened::Link { contact: None, short, long: link.to_string() });
            }
            Event::LinkUpdated { .. } => happened.push(Happened::AddressUpdated),
            Event::LinkRead { connection, user_data } => {
                let name = chat_message::name_in_link_data(&user_data);
                self.introduced(connection, name);
            }
            Event::Joined { connection, may_send } => {
                happened.extend(
                    self.contact_of(connection).map(|contact| Happened::Joined { contact, may_send }),
                );
            }
            Event::Confirmed { connection, information } => {
                // Invitations are answered beforehand; this one was made by a release that asked.
                self.introduced(connection, chat_message::name_in(&information));
                let answer = chat_message::introduction(self.my_name());
                let allowed = self
                    .runtime
                    .command(|agent, now, entropy| agent.allow(connection, &answer, now, entropy));
                happened.extend(allowed.err().map(|error| Happened::Notice(error.to_string())));
            }
            Event::Information { connection, information } => {
                self.introduced(connection, chat_message::name_in(&information));
            }
            Event::Connected { connection } => {
                happened.extend(self.contact_of(connection).map(|contact| Happened::Connected { contact }));
            }
            Event::Requested { request, information, .. } => {
                let name = chat_message::name_in(&information).unwrap_or_else(|| NAMELESS.to_owned());
                self.requests.insert(request.0, name.clone());
                if self.records.settings.accept_everybody {
                    if let Err(failure) = self.accept(request.0, None) {
                        happened.push(Happened::Notice(format!("{name} cannot be accepted: {failure}")));
                    }
                } else {
                    happened.push(Happened::Requested { request: request.0, name });
                }
            }
            Event::Message { connection, number, integrity, sent_at, body, .. } => {
                return self.message(connection, number, integrity, sent_at.0, &body);
            }
            Event::Sent { connection, number, proxied } => {
                happened.extend(self.progress(connection, number, Progress::Sent, proxied));
            }
            Event::Held { connection, number, attempts, next } => {
                let progress = Progress::Held { attempts, next: next.0 };
                happened.extend(self.progress(connection, number, progress, true));
            }
            Event::NotSent { connection, number, failure } => {
                happened.extend(self.progress(
                    connection,
                    number,
                    Progress::Failed(failure.to_string()),
                    false,
                ));
            }
            Event::Received { connection, number, same, .. } => {
                if same {
                    happened.extend(self.progress(connection, number, Progress::Delivered, false));
                } else {
                    let name = self.name(connection);
                    happened.push(Happened::Notice(format!("{name} received something else than was sent")));
                }
            }
            Event::Full { connection } => {
                happened.extend(self.contact_of(connection).map(|contact| Happened::Full { contact }));
            }
            Event::Failed { connection, because } => {
                happened.extend(self.failed(connection, because.to_string()));
            }
            Event::Dropped { connection, because } => {
                let name = self.name(connection);
                happened.push(Happened::Notice(format!("a message of {name} was left out: {because}")));
            }
            Event::Synchronized { connection, state } => {
                use smp_proto::crypto::ratchet::Synchronization::{Agreed, Allowed, Good, Required, Started};
                let name = self.name(connection);
                match state {
                    Good => {}
                    Started | Agreed => happened
                        .push(Happened::Notice(format!("the encryption with {name} is being renewed"))),
                    // A person can do no more than to say yes to this.
                    Allowed | Required => {
                        let begun = self.runtime.command(|agent, now, entropy| {
                            agent.synchronize(connection, false, now, entropy)
                        });
                        happened.push(Happened::Notice(match begun {
                            Ok(()) => format!("the encryption with {name} is out of step, and is renewed"),
                            Err(error) => format!("the encryption with {name} is out of step: {error}"),
                        }));
                    }
                }
            }
            Event::Switched { connection, phase, .. } => {
                happened
                    .extend(self.contact_of(connection).map(|contact| Happened::Switched { contact, phase }));
            }
            Event::Ended { connection } => {
                let name = self.name(connection);
                happened.push(Happened::Notice(format!(
                    "messages of {name} go to another program now, which has the same keys"
                )));
            }
            Event::QueueLost { connection, failure } => {
                let name = self.name(connection);
                happened.push(Happened::Notice(format!(
                    "the relay keeps no messages of {name} any more ({failure}): `smp switch` moves to another queue"
                )));
            }
            Event::NotForwarded { relay, failure } => {
                let host = relay.hosts.first().map(ToString::to_string).unwrap_or_default();
                happened.push(Happened::Notice(format!(
                    "your relay does not bring messages to {host} now ({failure}); {}",
                    if self.records.settings.proxy_fallback {
                        "they go straight"
                    } else {
                        "they wait. `--proxy-fallback yes` lets them go straight, which shows your address"
                    }
                )));
            }
            Event::StorageFailing => {
                happened.push(Happened::NotStored("what happens cannot be written to disk".to_owned()));
            }
            Event::Continues { .. } | Event::Suspended { .. } | Event::Deleted { .. } => {}
        }
        happened
    }

    fn name(&self, connection: ConnectionId) -> String {
        let contact = self.contact_of(connection).and_then(|id| self.records.contacts.get(&id));
        contact.map_or_else(|| "the address".to_owned(), |contact| contact.name.clone())
    }

    /// Somebody says how they are called: that is their name here unless I chose one.
    fn introduced(&mut self, connection: ConnectionId, name: Option<String>) {
        let (Some(id), Some(name)) = (self.contact_of(connection), name) else { return };
        let name = self.records.free_name(&name, Some(id));
        if let Some(contact) = self.records.contacts.get_mut(&id).filter(|contact| !contact.chosen) {
            contact.name = name;
            let (name, content) = self.records.written_contact(id);
            self.runtime.keep(name, content);
        }
    }

    fn failed(&mut self, connection: ConnectionId, failure: String) -> Option<Happened> {
        if self.records.settings.address == Some(connection.0) {
            self.records.settings.address = None;
            self.keep_settings();
            return Some(Happened::Failed { contact: None, failure });
        }
        let id = self.contact_of(connection)?;
        self.records.contacts.get_mut(&id)?.failure = Some(failure.clone());
        let (name, content) = self.records.written_contact(id);
        self.runtime.keep(name, content);
        Some(Happened::Failed { contact: Some(id), failure })
    }

    fn progress(
        &mut self,
        connection: ConnectionId,
        number: i64,
        progress: Progress,
        proxied: bool,
    ) -> Option<Happened> {
        let contact = self.contact_of(connection)?;
        let message = self.records.progress(contact, number, progress, proxied)?;
        let (name, content) = self.records.written_message(contact, message);
        self.runtime.keep(name, content);
        Some(Happened::Progress { contact, message })
    }

    /// A message came: it is remembered and acknowledged in one transaction.
    fn message(
        &mut self,
        connection: ConnectionId,
        number: i64,
        integrity: Integrity,
        time: i64,
        body: &[u8],
    ) -> Vec<Happened> {
        let mut happened = Vec::new();
        let name = self.name(connection);
        match integrity {
            Integrity::Ok => {}
            Integrity::Skipped { first, last } if first == last => {
                happened.push(Happened::Notice(format!("a message of {name} is missing")));
            }
            Integrity::Skipped { first, last } => happened.push(Happened::Notice(format!(
                "{} messages of {name} are missing",
                last.saturating_sub(first).saturating_add(1)
            ))),
            Integrity::BadHash => happened.push(Happened::Notice(format!(
                "what {name} sent before the next message is not what came here"
            ))),
            Integrity::Duplicate | Integrity::Earlier => {
                happened.push(Happened::Notice(format!("a message of {name} came again, and is left out")));
            }
        }
        let again = matches!(integrity, Integrity::Duplicate | Integrity::Earlier);
        if let Some(contact) = self.contact_of(connection).filter(|_| !again) {
            for content in chat_message::understand(body) {
                let text = match content {
                    Content::Text(text) => text,
                    Content::Profile(name) => {
                        self.introduced(connection, name);
                        continue;
                    }
                    Content::Other(kind) => format!("[a message of a kind that is not known here: {kind}]"),
                    Content::Raw(bytes) => match String::from_utf8(bytes) {
                        Ok(text) => text,
                        Err(error) => format!("[{} bytes that are no text]", error.as_bytes().len()),
                    },
                };
                let said = Said { number, time, text, progress: Progress::New, proxied: false };
                let (message, written) = self.records.add(contact, said);
                for (name, content) in written {
                    self.runtime.keep(name, content);
                }
                happened.push(Happened::Message { contact, message });
            }
        }
        let acknowledged = self
            .runtime
            .command(|agent, now, entropy| agent.acknowledge(connection, number, Some(b""), now, entropy));
        happened.extend(
            acknowledged
                .err()
                .map(|error| Happened::Notice(format!("a message cannot be acknowledged: {error}"))),
        );
        happened
    }
}

fn gone() -> Failure {
    Failure::new(Kind::Usage, "the contact was deleted in the meantime")
}

fn no_request(request: u64) -> Failure {
    Failure::new(Kind::Usage, format!("nobody waits for an answer under the number {request}"))
        .advise("`smp contacts` shows who does")
}

fn check_name(name: &str) -> Result<(), Failure> {
    let fits = !name.trim().is_empty() && name.len() <= LONGEST_NAME && !name.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(Failure::new(Kind::Usage, format!("a name has 1 to {LONGEST_NAME} bytes, in one line")))
}

fn parse_relay(text: &str) -> Result<AddressWithPassword, Failure> {
    text.trim().parse().map_err(|error| {
        Failure::new(Kind::Usage, format!("this is not the address of a relay: {error}"))
            .advise("an address looks like smp://FINGERPRINT@HOST or smp://FINGERPRINT:PASSWORD@HOST:PORT")
    })
}

fn parse_link(text: &str) -> Result<Link, Failure> {
    text.trim().parse().map_err(|error| {
        Failure::new(Kind::Usage, format!("this is not a link: {error}"))
            .advise("ask for it again, or copy it whole: from its first character to its last")
    })
}

fn without_password(address: smp_proto::wire::address::ServerAddress) -> AddressWithPassword {
    AddressWithPassword { address, password: None }
}
