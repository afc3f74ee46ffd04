//! Links, link data and agents' messages from the JSON of the vector files.

use smp_proto::keys::{AuthKey, Ed25519Public, X448Public, X25519Public};
use smp_proto::wire::agent_message::{AgentMessage, AgentMessageContent, QueueAddress, Receipt};
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::links::connection_request::{ConnectionRequest, RequestData};
use smp_proto::wire::links::link_data::{FixedLinkData, OwnedLinkData, OwnerAuthorization};
use smp_proto::wire::links::ratchet_parameters::{KemParameters, RatchetParameters};
use smp_proto::wire::links::short_link::{ContactKind, LinkKeyBytes, LinkScheme, ShortLink, ShortLinkTarget};
use smp_proto::wire::queue_uri::{AgreedQueue, QueueUri};
use smp_proto::wire::version::{Version, VersionRange};

use crate::vectors::Fields;
use crate::wire_json::{server, version_range};

/// What a reader returns: `Err` names the field that is not what it should be.
type Read<T> = Result<T, String>;

fn identifier(fields: &Fields, key: &str) -> Read<Identifier> {
    Identifier::new(&fields.bytes(key)?).ok_or_else(|| format!("{key}: too long"))
}

fn x25519(fields: &Fields, key: &str) -> Read<X25519Public> {
    X25519Public::from_der(&fields.bytes(key)?).map_err(|error| format!("{key}: {error}"))
}

fn ed25519(fields: &Fields, key: &str) -> Read<Ed25519Public> {
    Ed25519Public::from_der(&fields.bytes(key)?).map_err(|error| format!("{key}: {error}"))
}

fn list<T>(fields: &Fields, key: &str, read: impl Fn(&Fields) -> Read<T>) -> Read<Vec<T>> {
    fields.get(key).items()?.iter().map(read).collect()
}

fn mode(fields: &Fields) -> Read<Option<QueueMode>> {
    Ok(match fields.get("queueMode").0.as_str() {
        None => None,
        Some("M") => Some(QueueMode::Messaging),
        Some("C") => Some(QueueMode::Contact),
        Some(other) => return Err(format!("queueMode: {other}")),
    })
}

fn leaked(fields: &Fields, key: &str) -> Read<&'static [u8]> {
    Ok(Vec::leak(fields.bytes(key)?))
}

/// A queue's address.
///
/// # Errors
/// When a field is missing or wrong.
pub fn queue_uri(fields: &Fields) -> Read<QueueUri> {
    Ok(QueueUri {
        versions: version_range(fields, "versionRange")?,
        server: server(&fields.get("server"))?,
        sender: identifier(fields, "senderId")?,
        dh: x25519(fields, "dhKey")?,
        mode: mode(fields)?,
    })
}

fn agreed_queue(fields: &Fields) -> Read<AgreedQueue> {
    Ok(AgreedQueue {
        version: version(fields, "version")?,
        server: server(&fields.get("server"))?,
        sender: identifier(fields, "senderId")?,
        dh: x25519(fields, "dhKey")?,
        mode: mode(fields)?,
    })
}

fn queue_address(fields: &Fields) -> Read<QueueAddress> {
    Ok(QueueAddress { server: server(&fields.get("server"))?, sender: identifier(fields, "senderId")? })
}

/// A version.
///
/// # Errors
/// When it is missing or no version.
pub fn version(fields: &Fields, key: &str) -> Read<Version> {
    u16::try_from(fields.integer(key)?).map(Version).map_err(|error| format!("{key}: {error}"))
}

/// Ratchet parameters, of a range of versions or of one.
///
/// # Errors
/// When a field is missing or wrong.
pub fn ratchet(fields: &Fields) -> Read<RatchetParameters> {
    let versions = if fields.has("versionRange") {
        version_range(fields, "versionRange")?
    } else {
        VersionRange::only(version(fields, "version")?)
    };
    let kem = fields.get("kem");
    let kem = match kem.0.get("type").and_then(serde_json::Value::as_str) {
        None => None,
        Some("P") => Some(KemParameters::Proposed(Box::new(kem.array("key")?))),
        Some("A") => Some(KemParameters::Accepted {
            ciphertext: Box::new(kem.array("ct")?),
            key: Box::new(kem.array("key")?),
        }),
        Some(other) => return Err(format!("kem: {other}")),
    };
    let keys = [X448Public(fields.array("key1")?), X448Public(fields.array("key2")?)];
    Ok(RatchetParameters { versions, keys, kem })
}

/// A connection request.
///
/// # Errors
/// When a field is missing or wrong.
pub fn request(fields: &Fields) -> Read<ConnectionRequest> {
    let data = RequestData {
        versions: version_range(fields, "agentVersionRange")?,
        queues: list(fields, "queues", queue_uri)?,
        client_data: fields.get("clientData").0.as_str().map(str::to_owned),
    };
    match fields.text("mode")?.as_str() {
        "invitation" => Ok(ConnectionRequest::Invitation(data, ratchet(&fields.get("e2e"))?)),
        "contact" => Ok(ConnectionRequest::Contact(data)),
        other => Err(format!("mode: {other}")),
    }
}

/// A short link.
///
/// # Errors
/// When a field is missing or wrong.
pub fn short_link(fields: &Fields) -> Read<ShortLink> {
    let key = LinkKeyBytes::new(fields.array("linkKey")?);
    let scheme = match fields.text("scheme")?.as_str() {
        "simplex" => LinkScheme::Simplex,
        "server" => LinkScheme::Https,
        other => return Err(format!("scheme: {other}")),
    };
    let target = match fields.text("mode")?.as_str() {
        "invitation" => ShortLinkTarget::Invitation { link: identifier(fields, "linkId")?, key },
        "contact" => {
            let kind = match fields.text("type")?.as_str() {
                "Contact" => ContactKind::Contact,
                "Channel" => ContactKind::Channel,
                "Group" => ContactKind::Group,
                "Relay" => ContactKind::Relay,
                other => return Err(format!("type: {other}")),
            };
            ShortLinkTarget::Contact { kind, key }
        }
        other => return Err(format!("mode: {other}")),
    };
    Ok(ShortLink { scheme, relay: server(&fields.get("server"))?, target })
}

/// The fixed part of link data.
///
/// # Errors
/// When a field is missing or wrong.
pub fn fixed_data(fields: &Fields) -> Read<FixedLinkData> {
    let entity = fields.optional_bytes("linkEntityId")?;
    Ok(FixedLinkData {
        versions: version_range(fields, "agentVersionRange")?,
        root_key: ed25519(fields, "rootKey")?,
        request: request(&fields.get("connReq"))?,
        entity: entity.map(|bytes| Identifier::new(&bytes).ok_or("too long")).transpose()?,
    })
}

/// The owner's part of link data.
///
/// # Errors
/// When a field is missing or wrong.
pub fn owned_data(fields: &Fields) -> Read<OwnedLinkData> {
    let versions = version_range(fields, "agentVersionRange")?;
    let user_data = fields.bytes("userData")?;
    let owner = |owner: &Fields| {
        Ok(OwnerAuthorization {
            id: identifier(owner, "ownerId")?,
            key: ed25519(owner, "ownerKey")?,
            signature: owner.array("signature")?,
        })
    };
    match fields.text("mode")?.as_str() {
        "invitation" => Ok(OwnedLinkData::Invitation { versions, user_data }),
        "contact" => Ok(OwnedLinkData::Contact {
            versions,
            direct: fields.boolean("direct")?,
            owners: list(fields, "owners", owner)?,
            relays: list(fields, "relays", short_link)?,
            user_data,
        }),
        other => Err(format!("mode: {other}")),
    }
}

/// A message of an agent.
///
/// # Errors
/// When a field is missing or wrong.
pub fn agent_message(fields: &Fields) -> Read<AgentMessage<'static>> {
    Ok(match fields.text("tag")?.as_str() {
        "AgentConnInfo" => AgentMessage::ConnectionInformation(leaked(fields, "connInfo")?),
        "AgentConnInfoReply" => AgentMessage::ConnectionInformationReply {
            queues: list(fields, "queues", agreed_queue)?,
            information: leaked(fields, "connInfo")?,
        },
        "AgentRatchetInfo" => AgentMessage::RatchetInformation(leaked(fields, "info")?),
        "AgentMessage" => AgentMessage::Numbered {
            id: fields.integer("sndMsgId")?,
            previous_hash: leaked(fields, "prevMsgHash")?,
            content: agent_message_content(&fields.get("message"))?,
        },
        other => return Err(format!("unknown tag {other}")),
    })
}

fn agent_message_content(fields: &Fields) -> Read<AgentMessageContent<'static>> {
    let receipt = |receipt: &Fields| {
        Ok(Receipt {
            message: receipt.integer("agentMsgId")?,
            hash: leaked(receipt, "msgHash")?,
            information: leaked(receipt, "rcptInfo")?,
        })
    };
    let added = |added: &Fields| {
        let replaced = added.get("replaced");
        let replaced = (!replaced.is_null()).then(|| queue_address(&replaced)).transpose()?;
        Ok((queue_uri(&added.get("queue"))?, replaced))
    };
    let secured = |secured: &Fields| {
        let key = AuthKey::from_der(&secured.bytes("senderKey")?).map_err(|error| error.to_string())?;
        Ok((agreed_queue(&secured.get("queue"))?, key))
    };
    Ok(match fields.text("tag")?.as_str() {
        "HELLO" => AgentMessageContent::Hello,
        "A_MSG" => AgentMessageContent::Body(leaked(fields, "body")?),
        "A_RCVD" => AgentMessageContent::Received(list(fields, "receipts", receipt)?),
        "EREADY" => AgentMessageContent::RatchetReady(fields.integer("lastDecryptedMsgId")?),
        "A_QCONT" => AgentMessageContent::Continue(queue_address(&fields.get("queue"))?),
        "QADD" => AgentMessageContent::AddQueues(list(fields, "queues", added)?),
        "QKEY" => AgentMessageContent::SecureQueues(list(fields, "queues", secured)?),
        "QUSE" => AgentMessageContent::UseQueues(list(fields, "queues", |used| {
            Ok((queue_address(&used.get("queue"))?, used.boolean("primary")?))
        })?),
        "QTEST" => AgentMessageContent::TestQueues(list(fields, "queues", queue_address)?),
        other => return Err(format!("unknown tag {other}")),
    })
}
