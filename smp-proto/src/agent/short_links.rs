//! Short links: our relay keeps the whole link for us, encrypted, and whoever has the short one finds, opens and verifies it.
//!
//! The relay never has the key. An invitation is read and its queue secured in one step (`LKEY`), so that nobody can read it
//! without using it up; an address is read without leaving a trace (`LGET`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::event::{Event, FailedBecause};
use super::incoming::sha256;
use super::live::{Live, Task, is_permanent};
use super::machine::Core;
use super::record::connection::{OwnLink, Stage};
use crate::client::command::{OwnedLinkData as SealedLinkData, OwnedQueueRequest};
use crate::client::{ClientCommand, CommandBody, CommandFailure, Reply};
use crate::crypto::link_data::{LinkDataError, LinkPart, LinkPurpose, VerifiedFixedPart};
use crate::crypto::link_keys::LinkKey;
use crate::crypto::{Nonce, ids};
use crate::entropy::Entropy;
use crate::keys::{Ed25519Secret, X25519Secret};
use crate::session::AuthSecret;
use crate::time::Now;
use crate::wire::address::ServerAddress;
use crate::wire::command::QueueMode;
use crate::wire::error::SmpError;
use crate::wire::identifier::Identifier;
use crate::wire::links::link_data::OwnedLinkData;
use crate::wire::links::short_link::{ContactKind, LinkKeyBytes, LinkScheme, ShortLink, ShortLinkTarget};
use crate::wire::response::CreatedQueue;

impl OwnLink {
    /// A link that is to be made.
    pub fn new(user_data: &[u8], entropy: &mut (impl Entropy + ?Sized)) -> Self {
        Self {
            root: Ed25519Secret::generate(entropy),
            user_data: user_data.to_vec(),
            key: None,
            id: None,
            fixed: Vec::new(),
            changed: false,
        }
    }
}

impl Live {
    /// Puts link data into `NEW`, when a short link is wanted, and returns the link's key and
    /// the sealed fixed part.
    pub fn attach_link_data(
        &self,
        core: &Core,
        relay: &ServerAddress,
        dh: &X25519Secret,
        mode: QueueMode,
        command: &mut ClientCommand,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<(LinkKey, Bytes)> {
        let short = self.connection.short.as_ref().filter(|short| short.key.is_none())?;
        let CommandBody::New(new) = &mut command.body else { return None };
        let provider = core.config.provider;
        // The address is in the data, so the sender id must be known before the queue exists.
        let correlation = ids::random(entropy);
        let sender = Identifier::from(ids::sender_id(&correlation));
        let dh = provider.x25519_public(dh);
        let request = self.request(core, relay.clone(), sender.clone(), dh, Some(mode))?;
        let versions = core.config.agent_versions;
        let nonce = Nonce::generate(entropy);
        let made = VerifiedFixedPart::create(provider, &short.root, versions, request, None, &nonce);
        let (fixed, fixed_blob) = made.ok()?;
        let owned = owned_data(core, fixed.purpose(), short);
        let nonce = Nonce::generate(entropy);
        let owned_blob = fixed.seal_owned(provider, &short.root, &owned, &nonce).ok()?;
        let fixed_blob = Bytes::from(fixed_blob);
        let data = SealedLinkData { fixed: fixed_blob.clone(), user: Bytes::from(owned_blob) };
        new.request = Some(match fixed.contact_id(provider) {
            None => OwnedQueueRequest::Messaging(Some((sender, data))),
            Some(link) => OwnedQueueRequest::Contact(Some((link.into(), sender, data))),
        });
        new.correlation = Some(correlation);
        Some((fixed.key().clone(), fixed_blob))
    }

    /// The relay has created the queue: whether it keeps the link, it says with the link's id.
    pub fn keep_link(&mut self, link: Option<(LinkKey, Bytes)>, created: &CreatedQueue) {
        let Some(short) = &mut self.connection.short else { return };
        match (link, &created.link) {
            (Some((key, fixed)), Some(id)) => {
                short.key = Some(*key.as_bytes());
                short.id = Some(id.clone());
                if self.connection.stage == Stage::CreatingAddress {
                    short.fixed = fixed.to_vec();
                }
            }
            // An older relay: there is only the long link.
            _ => self.connection.short = None,
        }
    }

    /// Our short link.
    pub fn short_link(&self) -> Option<ShortLink> {
        let short = self.connection.short.as_ref()?;
        let key = LinkKeyBytes::new(short.key?);
        let target = if self.connection.keys.is_some() {
            ShortLinkTarget::Invitation { link: short.id.clone()?, key }
        } else {
            ShortLinkTarget::Contact { kind: ContactKind::Contact, key }
        };
        let relay = self.connection.receive.first()?.relay.clone();
        Some(ShortLink { scheme: LinkScheme::Simplex, relay, target })
    }

    /// `LSET`: what the application keeps behind the link of an address has changed.
    pub fn set_link(&mut self, core: &mut Core, entropy: &mut (impl Entropy + ?Sized)) {
        let short = self.connection.short.as_ref().filter(|short| short.changed);
        let (Some(short), Some(queue)) = (short, self.connection.receive.first()) else { return };
        let (Some(key), Some(link)) = (short.key, short.id.clone()) else { return };
        let provider = core.config.provider;
        let purpose = LinkPurpose::Contact;
        let fixed = VerifiedFixedPart::open(provider, purpose, LinkKey::from_bytes(key), &short.fixed);
        let sealed = fixed.and_then(|fixed| {
            let owned = owned_data(core, purpose, short);
            fixed.seal_owned(provider, &short.root, &owned, &Nonce::generate(entropy))
        });
        let Ok(sealed) = sealed else {
            self.link_is_not_set(core, CommandFailure::TooLarge);
            return;
        };
        let data = SealedLinkData { fixed: short.fixed.clone().into(), user: sealed.into() };
        let key = Some(Arc::new(AuthSecret::Ed25519(queue.key.clone())));
        let command = ClientCommand::new(queue.recipient.clone(), key, CommandBody::SetLink { link, data });
        let task = Task::SetLink(sha256(&short.user_data));
        core.command(self.id, task, &queue.relay, command);
        self.step.start();
    }

    /// The relay has answered `LSET`.
    pub fn link_set(
        &mut self,
        hash: [u8; 32],
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match result {
            Ok(_) => {
                self.step.succeeded();
                // Set once more meanwhile: that is the next step.
                if let Some(short) = self.connection.short.as_mut()
                    && sha256(&short.user_data) == hash
                {
                    short.changed = false;
                    core.event(Event::LinkUpdated { connection: self.id });
                    self.changed(core);
                }
            }
            Err(failure) if is_permanent(&failure) => {
                self.step.succeeded();
                self.link_is_not_set(core, failure);
            }
            Err(_) => self.step.failed(core, core.config.longest_delay, now, entropy),
        }
    }

    /// It cannot be set.
    fn link_is_not_set(&mut self, core: &mut Core, failure: CommandFailure) {
        if let Some(short) = self.connection.short.as_mut() {
            short.changed = false;
        }
        core.event(Event::QueueLost { connection: self.id, failure });
        self.changed(core);
    }

    /// `LKEY`, or `LGET`.
    pub fn read_link(&mut self, core: &mut Core) {
        let Stage::ReadingLink { link, key } = &self.connection.stage else { return };
        let provider = core.config.provider;
        let command = match &link.target {
            ShortLinkTarget::Invitation { link, .. } => {
                let key = Arc::new(AuthSecret::X25519(key.clone()));
                let body = CommandBody::SecureByLink(key.public(provider));
                ClientCommand::new(link.clone(), Some(key), body)
            }
            ShortLinkTarget::Contact { key, .. } => {
                let (id, _) = LinkKey::from(key).contact(provider);
                ClientCommand::new(id.into(), None, CommandBody::GetLink)
            }
        };
        self.step.start();
        core.command(self.id, Task::ReadLink, &link.relay, command);
    }

    /// The relay has told what is behind the link, or not.
    pub fn link_answered(
        &mut self,
        result: Result<Reply, CommandFailure>,
        core: &mut Core,
        now: Now,
        entropy: &mut (impl Entropy + ?Sized),
    ) {
        match result {
            Ok(Reply::Link { sender, data }) => {
                self.step.succeeded();
                if let Err(because) = self.link_read(core, &sender, &data, entropy) {
                    self.fail(core, because);
                }
            }
            Err(failure) if is_permanent(&failure) => {
                self.step.succeeded();
                self.fail(
                    core,
                    match failure {
                        CommandFailure::Refused(SmpError::Authorization) => FailedBecause::LinkGone,
                        failure => FailedBecause::Refused(failure),
                    },
                );
            }
            Ok(_) | Err(_) => self.step.failed(core, core.config.longest_delay, now, entropy),
        }
    }

    /// Verifies what is behind the link, and goes on as with the long one.
    fn link_read(
        &mut self,
        core: &mut Core,
        sender: &Identifier,
        data: &SealedLinkData,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<(), FailedBecause> {
        // Deleted meanwhile.
        let Stage::ReadingLink { link, key } = &self.connection.stage else { return Ok(()) };
        let provider = core.config.provider;
        let purpose = LinkPurpose::of_target(&link.target);
        let fixed = VerifiedFixedPart::open(provider, purpose, link.target.key().into(), &data.fixed)
            .map_err(FailedBecause::LinkData)?;
        let owned = fixed.open_owned(provider, &data.user).map_err(FailedBecause::LinkData)?;
        let request = fixed.data().request.clone();
        // The queue in the data must be the one that the relay keeps them for, and has just secured.
        let queue = request.data().queues.first();
        if queue
            .is_none_or(|queue| queue.sender != *sender || queue.server.fingerprint != link.relay.fingerprint)
        {
            return Err(FailedBecause::LinkData(LinkDataError::Malformed(LinkPart::Fixed)));
        }
        let (OwnedLinkData::Invitation { user_data, .. } | OwnedLinkData::Contact { user_data, .. }) =
            owned.data();
        let user_data = user_data.clone();
        let key = key.clone();
        let secured = (purpose == LinkPurpose::Invitation).then_some(&key);
        let joining = self
            .prepare_to_join(core, &request, secured, entropy)
            .map_err(|_| FailedBecause::Incompatible)?;
        self.begin_to_join(core, joining);
        core.event(Event::LinkRead { connection: self.id, user_data });
        Ok(())
    }
}

/// The part of the link data that its owner may change.
fn owned_data(core: &Core, purpose: LinkPurpose, short: &OwnLink) -> OwnedLinkData {
    let (versions, user_data) = (core.config.agent_versions, short.user_data.clone());
    match purpose {
        LinkPurpose::Invitation => OwnedLinkData::Invitation { versions, user_data },
        LinkPurpose::Contact => OwnedLinkData::Contact {
            versions,
            direct: true,
            owners: Vec::new(),
            relays: Vec::new(),
            user_data,
        },
    }
}
