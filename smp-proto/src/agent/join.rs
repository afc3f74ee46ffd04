//! How somebody joins by a link: what has to fit, and what is made for it.

use super::commands::CommandError;
use super::config::AgentConfig;
use super::live::Live;
use super::machine::Core;
use super::record::connection::Stage;
use crate::crypto::ratchet::{InitialKeys, Ratchet, agreed_version};
use crate::entropy::Entropy;
use crate::keys::X25519Secret;
use crate::wire::command::QueueMode;
use crate::wire::links::connection_request::{ConnectionRequest, RequestData};
use crate::wire::links::ratchet_parameters::RatchetParameters;
use crate::wire::queue_uri::QueueUri;
use crate::wire::version::{Version, VersionRange};

/// What is made when somebody joins, before anything is entered.
pub(super) struct Joining {
    stage: Stage,
    version: Version,
    /// The ratchet, and what the other side gets of it: with an invitation.
    ratchet: Option<(Ratchet, RatchetParameters)>,
    /// The keys of an invitation of ours: with a contact address.
    keys: Option<InitialKeys>,
    queue: super::record::queue::SendQueue,
}

impl Live {
    /// Makes everything that joining needs; `secured` is the key with which the queue was secured already.
    pub fn prepare_to_join(
        &mut self,
        core: &Core,
        link: &ConnectionRequest,
        secured: Option<&X25519Secret>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Joining, CommandError> {
        let (version, queue, client_version) = compatible(&core.config, link.data())?;
        let is_messaging =
            queue.mode == Some(QueueMode::Messaging) && core.config.client_versions.max() >= Version(3);
        let (stage, mode) = match (link, is_messaging) {
            (ConnectionRequest::Contact(_), _) => (Stage::CreatingForRequest, Some(QueueMode::Contact)),
            (ConnectionRequest::Invitation(..), true) if secured.is_some() => {
                (Stage::CreatingReply, Some(QueueMode::Messaging))
            }
            (ConnectionRequest::Invitation(..), true) => (Stage::SecuringPeer, Some(QueueMode::Messaging)),
            (ConnectionRequest::Invitation(..), false) => (Stage::CreatingReply, None),
        };
        let (ratchet, keys) = match link {
            ConnectionRequest::Contact(_) => (None, Some(InitialKeys::generate(entropy))),
            ConnectionRequest::Invitation(_, parameters) => {
                (Some(join_ratchet(&core.config, parameters, entropy)?), None)
            }
        };
        let QueueUri { server, sender, dh, .. } = queue.clone();
        let mut queue = self.new_send_queue(core, server, sender, &dh, client_version, mode, None, entropy);
        if let Some(key) = secured {
            queue.key = key.clone();
            queue.secured = true;
        }
        Ok(Joining { stage, version, ratchet, keys, queue })
    }

    /// Enters what was made.
    pub fn begin_to_join(&mut self, core: &mut Core, joining: Joining) {
        let Joining { stage, version, ratchet, keys, queue } = joining;
        self.connection.stage = stage;
        self.connection.version = version;
        self.connection.send.push(queue);
        if let Some(keys) = keys {
            self.connection.keys = Some(keys.to_bytes());
            // Who asks at an address wants to be connected.
            self.connection.answers = true;
        }
        if let Some((ratchet, parameters)) = ratchet {
            self.ratchet = Some(ratchet);
            self.connection.parameters = Some(parameters);
            self.ratchet_changed(core);
        }
        self.changed(core);
    }
}

/// The versions to speak with whoever made this link, and the queue to send to: the first, like deployed agents.
fn compatible<'a>(
    config: &AgentConfig,
    data: &'a RequestData,
) -> Result<(Version, &'a QueueUri, Version), CommandError> {
    let newest = |ours: VersionRange, theirs| {
        ours.intersection(theirs).map(VersionRange::max).ok_or(CommandError::Version)
    };
    let version = newest(config.agent_versions, data.versions)?;
    let queue = data.queues.first().ok_or(CommandError::Version)?;
    let client_version = newest(config.client_versions, queue.versions)?;
    Ok((version, queue, client_version))
}

/// Begins a ratchet with the keys of an invitation; the other side gets the parameters.
fn join_ratchet(
    config: &AgentConfig,
    peer: &RatchetParameters,
    entropy: &mut (impl Entropy + ?Sized),
) -> Result<(Ratchet, RatchetParameters), CommandError> {
    let supported = config.ratchet_versions;
    let version = agreed_version(supported, peer.versions).map_err(|_| CommandError::Version)?;
    let keys = InitialKeys::generate(entropy);
    let ratchet =
        Ratchet::join(config.provider, &keys, peer, supported, entropy).map_err(|_| CommandError::Keys)?;
    Ok((ratchet, keys.parameters(VersionRange::only(version))))
}
