//! The words and fields for every kind of link and address.

use serde_json::{Value, json};
use smp_proto::crypto::link_keys::LinkKey;
use smp_proto::keys::X25519Public;
use smp_proto::wire::address::{AddressWithPassword, DEFAULT_PORT, ServerAddress};
use smp_proto::wire::base64url;
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::links::Link;
use smp_proto::wire::links::blob_link::{BlobLink, BlobLinkKind};
use smp_proto::wire::links::connection_request::{ConnectionRequest, RequestData};
use smp_proto::wire::links::ratchet_parameters::{KemParameters, RatchetParameters};
use smp_proto::wire::links::short_link::{ContactKind, LinkScheme, ShortLink, ShortLinkTarget};
use smp_proto::wire::queue_uri::QueueUri;
use smp_proto::wire::version::VersionRange;
use smp_runtime_std::fast_cryptography::FAST;

use super::explanation::{Explanation, Fields};

/// A relay's address.
pub(crate) fn relay_address(address: &AddressWithPassword) -> Explanation {
    let password = match address.password {
        Some(_) => "yes, for making queues there (not shown)",
        None => "none",
    };
    Explanation {
        kind: "relay",
        summary: "The address of a relay: clients make queues there.",
        fields: relay_fields(Fields::default(), &address.address, None).value(
            "password",
            "password",
            address.password.is_some(),
            password,
        ),
    }
}

/// A queue's address.
pub(crate) fn queue_address(uri: &QueueUri) -> Explanation {
    Explanation {
        kind: "queue",
        summary: "The address of one queue: whoever has it can send to the one who made the queue.",
        fields: queue(uri),
    }
}

/// A link of any kind.
pub(crate) fn link(link: &Link) -> Explanation {
    match link {
        Link::Full(request) => full(request),
        Link::Short(link) => short(link),
        Link::Blob(link) => blob(link),
    }
}

fn full(request: &ConnectionRequest) -> Explanation {
    match request {
        ConnectionRequest::Invitation(data, ratchet) => Explanation {
            kind: "invitation",
            summary: "A one-time invitation: the first person who uses it is connected, nobody else.",
            fields: request_fields(data).group("encryption", "encryption", ratchet_fields(ratchet)),
        },
        ConnectionRequest::Contact(data) => Explanation {
            kind: "contact",
            summary: "A contact address: anybody who has it can ask to be connected, any number of times.",
            fields: request_fields(data),
        },
    }
}

fn short(link: &ShortLink) -> Explanation {
    let (kind, summary) = match &link.target {
        ShortLinkTarget::Invitation { .. } => (
            "short-invitation",
            "A short one-time invitation: a relay keeps the invitation, encrypted, and the link has the key.",
        ),
        ShortLinkTarget::Contact { kind, .. } => match kind {
            ContactKind::Contact => (
                "short-contact",
                "A short contact address: a relay keeps the address, encrypted, and the link has the key.",
            ),
            ContactKind::Channel => (
                "short-channel",
                "A short link to a channel: a relay keeps its address, encrypted, and the link has the key.",
            ),
            ContactKind::Group => (
                "short-group",
                "A short link to a group: a relay keeps its address, encrypted, and the link has the key.",
            ),
            ContactKind::Relay => (
                "short-relay",
                "A short link to a chat relay: a relay keeps its address, encrypted, and the link has the key.",
            ),
        },
    };
    let scheme = match link.scheme {
        LinkScheme::Simplex => "simplex:",
        LinkScheme::Https => "https://",
    };
    let relay = relay_fields(
        Fields::default(),
        &link.relay,
        Some("not said: only readers who know this relay find it"),
    );
    let fields = Fields::default().text("scheme", "begins with", scheme).group("relay", "relay", relay);
    let fields = match &link.target {
        ShortLinkTarget::Invitation { link, .. } => {
            fields.text("link_id", "link id", base64url::encode_unpadded(link.as_bytes()))
        }
        ShortLinkTarget::Contact { key, .. } => {
            let (id, _) = LinkKey::from(key).contact(&FAST);
            let id = base64url::encode_unpadded(&id);
            fields.value("link_id", "link id", id.clone(), format!("{id} (follows from the key)"))
        }
    };
    let key = "32 bytes, the hash of what it leads to (not shown: whoever has it can read that)";
    Explanation { kind, summary, fields: fields.value("key_bytes", "key", 32, key) }
}

fn blob(link: &BlobLink) -> Explanation {
    let (kind, summary) = match link.kind() {
        BlobLinkKind::Invitation => (
            "blob-invitation",
            "A one-time invitation as a blob: a relay keeps it, encrypted, and the link has the private key. Deployed \
             clients do not know this form.",
        ),
        BlobLinkKind::Contact => (
            "blob-contact",
            "A contact address as a blob: a relay keeps it, encrypted, and the link has the private key. Deployed \
             clients do not know this form.",
        ),
    };
    let page = link.page().map(ToString::to_string);
    let words = page.clone().unwrap_or_else(|| "none, it begins with simplex:".to_owned());
    let key = "32 bytes, an X25519 private key (not shown: whoever has it can read the blob)";
    let fields = Fields::default()
        .value("page", "web page", page, words)
        .group("relay", "relay", relay_fields(Fields::default(), link.relay(), None))
        .value("key_bytes", "key", 32, key);
    Explanation { kind, summary, fields }
}

fn request_fields(data: &RequestData) -> Fields {
    let fields = versions(Fields::default(), "agent_versions", "agent versions", data.versions).list(
        "queues",
        "queue",
        data.queues.iter().map(queue).collect(),
    );
    match &data.client_data {
        Some(data) => fields.text("client_data", "application data", data.clone()),
        None => fields,
    }
}

fn queue(uri: &QueueUri) -> Fields {
    let (mode, words) = match uri.mode {
        Some(QueueMode::Messaging) => (json!("messaging"), "messaging: for one sender, who secures it"),
        Some(QueueMode::Contact) => (json!("contact"), "contact: anybody can send, at any time"),
        None => (Value::Null, "not said"),
    };
    let sender = base64url::encode(uri.sender.as_bytes());
    let fields =
        Fields::default().group("relay", "relay", relay_fields(Fields::default(), &uri.server, None));
    versions(
        fields.text("sender_id", "queue id", sender).value("mode", "kind", mode, words),
        "client_versions",
        "client versions",
        uri.versions,
    )
    .text("dh_key", "encryption key", x25519(&uri.dh))
}

fn x25519(key: &X25519Public) -> String {
    base64url::encode(&key.to_der())
}

fn ratchet_fields(ratchet: &RatchetParameters) -> Fields {
    let (kem, words) = match &ratchet.kem {
        None => (Value::Null, "no key in the link; it may be agreed later"),
        Some(KemParameters::Proposed(_)) => (json!("proposed"), "a key (sntrup761) is proposed"),
        Some(KemParameters::Accepted { .. }) => (json!("accepted"), "a secret (sntrup761), and a key"),
    };
    let keys: Vec<String> = ratchet.keys.iter().map(|key| base64url::encode(&key.to_der())).collect();
    versions(Fields::default(), "ratchet_versions", "ratchet versions", ratchet.versions)
        .value("x448_keys", "X448 keys", keys.clone(), keys.join(" "))
        .value("post_quantum", "post-quantum", kem, words)
}

fn versions(fields: Fields, name: &'static str, label: &'static str, range: VersionRange) -> Fields {
    let (min, max) = (range.min().0, range.max().0);
    let words = if min == max { min.to_string() } else { format!("{min} to {max}") };
    fields.value(name, label, vec![min, max], words)
}

/// The fields of a relay; `no_fingerprint` says what it means that there is none.
fn relay_fields(fields: Fields, relay: &ServerAddress, no_fingerprint: Option<&str>) -> Fields {
    let hosts: Vec<String> = relay.hosts.iter().map(ToString::to_string).collect();
    let (port, words) = if relay.port.is_empty() {
        (json!(null), format!("{DEFAULT_PORT}, as none is named"))
    } else {
        (relay.port_number().map_or_else(|| json!(relay.port), Value::from), relay.port.clone())
    };
    let fields =
        fields.value("hosts", "hosts", hosts.clone(), hosts.join(", ")).value("port", "port", port, words);
    match no_fingerprint.filter(|_| relay.fingerprint.is_empty()) {
        Some(words) => fields.value("fingerprint", "identity", Value::Null, words),
        None => {
            let fingerprint = base64url::encode(&relay.fingerprint);
            let words = format!("{fingerprint} (SHA-256 of its certificate)");
            fields.value("fingerprint", "identity", fingerprint, words)
        }
    }
}
