//! Strategies of proptest for everything on the wire: valid values of every kind, of every size that the wire allows.
//!
//! Commands and responses borrow their long parts. Here these are slices of one constant pool of bytes, so that values
//! live as long as the test, nothing leaks, and shrinking is fast.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use smp_proto::keys::{AuthKey, Ed448Public, Ed25519Public, X448Public, X25519Public, X25519Secret};
use smp_proto::wire::address::{Host, ServerAddress};
use smp_proto::wire::command::{
    Command, LinkData, MessageFlags, NewQueue, NotifierKeys, Password, QueueMode, QueueRequest,
    SubscriptionMode,
};
use smp_proto::wire::error::{
    Blocked, BlockingReason, BrokerError, CommandError, HandshakeError, NetworkError, ProxyError, SmpError,
    TransportError,
};
use smp_proto::wire::hello::{CertificateChain, SignedKey};
use smp_proto::wire::identifier::Identifier;
use smp_proto::wire::links::blob_link::{BlobLink, BlobLinkKind};
use smp_proto::wire::links::connection_request::{ConnectionRequest, RequestData};
use smp_proto::wire::links::ratchet_parameters::{KemParameters, RatchetParameters};
use smp_proto::wire::links::short_link::{ContactKind, LinkKeyBytes, LinkScheme, ShortLink, ShortLinkTarget};
use smp_proto::wire::primitives::{Reader, Writer};
use smp_proto::wire::queue_uri::QueueUri;
use smp_proto::wire::response::{CreatedQueue, NotifierIds, Response};
use smp_proto::wire::version::{Version, VersionRange};

/// The versions of SMP that deployed peers speak.
pub const VERSIONS: RangeInclusive<u16> = 6..=18;

/// Bytes without a pattern that a reader could follow; every byte value occurs.
static POOL: [u8; POOL_LENGTH] = {
    let mut pool = [0; POOL_LENGTH];
    let mut state = 0x9e37_79b9_u32;
    let mut place = 0;
    while place < POOL_LENGTH {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        pool[place] = (state >> 24) as u8;
        place += 1;
    }
    pool
};
const POOL_LENGTH: usize = 40_000;

/// Any bytes of such a length, up to 20,000.
pub fn bytes(length: RangeInclusive<usize>) -> impl Strategy<Value = &'static [u8]> + Clone {
    (0..POOL_LENGTH / 2, length).prop_map(|(start, length)| &POOL[start..start + length])
}

/// A version of SMP.
pub fn version() -> impl Strategy<Value = Version> + Clone {
    VERSIONS.prop_map(Version)
}

/// A version range of anything.
pub fn version_range() -> impl Strategy<Value = VersionRange> + Clone {
    (any::<u16>(), any::<u16>()).prop_map(|(one, other)| VersionRange::between(Version(one), Version(other)))
}

/// An identifier: mostly of 24 bytes, sometimes empty or of another length.
pub fn identifier() -> impl Strategy<Value = Identifier> + Clone {
    prop_oneof![
        8 => bytes(24..=24),
        1 => bytes(0..=0),
        1 => bytes(1..=255),
    ]
    .prop_map(|bytes| Identifier::new(bytes).expect("at most 255 bytes"))
}

/// An X25519 key, not necessarily a good one.
pub fn x25519() -> impl Strategy<Value = X25519Public> + Clone {
    any::<[u8; 32]>().prop_map(X25519Public)
}

/// A key that may authorize, not necessarily a good one.
pub fn auth_key() -> impl Strategy<Value = AuthKey> + Clone {
    prop_oneof![
        any::<[u8; 32]>().prop_map(|raw| AuthKey::Ed25519(Ed25519Public(raw))),
        bytes(57..=57).prop_map(|raw| AuthKey::Ed448(Ed448Public(raw.try_into().expect("57 bytes")))),
        x25519().prop_map(AuthKey::X25519),
    ]
}

/// A relay's password; on the wire it may be empty.
pub fn password() -> impl Strategy<Value = Password<'static>> + Clone {
    /// What a password may consist of (WIRE-FACTS 1, 18).
    static CHARACTERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).filter(|byte| !b"@:/".contains(byte)).collect()
    });
    (0..CHARACTERS.len(), 0..40usize).prop_map(|(start, length)| {
        let end = (start + length).min(CHARACTERS.len());
        Password(&CHARACTERS[start..end])
    })
}

/// A host of each kind.
pub fn host() -> impl Strategy<Value = Host> + Clone {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| Host::Ip(IpAddr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| Host::Ip(IpAddr::from(octets))),
        "[a-z2-7]{1,56}".prop_map(|name| Host::Onion(name + ".onion")),
        "[a-z][a-z0-9-]{0,20}(\\.[a-z]{2,4}){0,2}".prop_map(Host::Domain),
    ]
}

/// A relay's address.
pub fn server() -> impl Strategy<Value = ServerAddress> + Clone {
    let port = prop_oneof![Just(String::new()), (0..=u16::MAX).prop_map(|port| port.to_string())];
    let fingerprint = prop_oneof![9 => bytes(32..=32), 1 => bytes(1..=255)];
    (fingerprint, vec(host(), 1..4), port).prop_map(|(fingerprint, hosts, port)| ServerAddress {
        fingerprint: fingerprint.into(),
        hosts,
        port,
    })
}

/// A queue's address whose range of client versions is one that peers write.
pub fn queue_uri() -> impl Strategy<Value = QueueUri> + Clone {
    let versions =
        (1..=4u16, 1..=4u16).prop_map(|(one, other)| VersionRange::between(Version(one), Version(other)));
    let sender = bytes(1..=24).prop_map(|bytes| Identifier::new(bytes).expect("at most 24 bytes"));
    (versions, server(), sender, x25519(), option::of(mode()))
        .prop_map(|(versions, server, sender, dh, mode)| QueueUri { versions, server, sender, dh, mode })
}

/// Ratchet parameters, with keys that are not good ones.
pub fn ratchet_parameters() -> impl Strategy<Value = RatchetParameters> + Clone {
    fn exactly<const LENGTH: usize>() -> impl Strategy<Value = Box<[u8; LENGTH]>> + Clone {
        bytes(LENGTH..=LENGTH).prop_map(|bytes| Box::new(bytes.try_into().expect("the length asked for")))
    }
    let versions =
        (1..=4u16, 1..=4u16).prop_map(|(one, other)| VersionRange::between(Version(one), Version(other)));
    let kem = prop_oneof![
        exactly().prop_map(KemParameters::Proposed),
        (exactly(), exactly()).prop_map(|(ciphertext, key)| KemParameters::Accepted { ciphertext, key }),
    ];
    (versions, exactly::<56>(), exactly::<56>(), option::of(kem)).prop_map(|(versions, one, other, kem)| {
        RatchetParameters { versions, keys: [X448Public(*one), X448Public(*other)], kem }
    })
}

/// A connection request.
pub fn connection_request() -> impl Strategy<Value = ConnectionRequest> + Clone {
    let versions =
        (2..=7u16, 2..=7u16).prop_map(|(one, other)| VersionRange::between(Version(one), Version(other)));
    let data = (versions, vec(queue_uri(), 1..4), option::of("\\PC{0,30}"))
        .prop_map(|(versions, queues, client_data)| RequestData { versions, queues, client_data });
    (data, option::of(ratchet_parameters())).prop_map(|(data, ratchet)| match ratchet {
        Some(ratchet) => ConnectionRequest::Invitation(data, ratchet),
        None => ConnectionRequest::Contact(data),
    })
}

/// A short link.
pub fn short_link() -> impl Strategy<Value = ShortLink> + Clone {
    let kinds = [
        None,
        Some(ContactKind::Contact),
        Some(ContactKind::Channel),
        Some(ContactKind::Group),
        Some(ContactKind::Relay),
    ];
    let scheme = prop_oneof![Just(LinkScheme::Simplex), Just(LinkScheme::Https)];
    (scheme, server(), any::<bool>(), 0..kinds.len(), any::<[u8; 32]>(), bytes(1..=24)).prop_map(
        move |(scheme, mut relay, known, kind, key, link)| {
            if known {
                relay.fingerprint.clear();
            }
            let key = LinkKeyBytes::new(key);
            let target = match kinds[kind] {
                Some(kind) => ShortLinkTarget::Contact { kind, key },
                None => ShortLinkTarget::Invitation { link: Identifier::new(link).expect("24 bytes"), key },
            };
            ShortLink { scheme, relay, target }
        },
    )
}

/// A link to a blob.
pub fn blob_link() -> impl Strategy<Value = BlobLink> + Clone {
    let kind = prop_oneof![Just(BlobLinkKind::Invitation), Just(BlobLinkKind::Contact)];
    let port = prop_oneof![Just(String::new()), any::<u16>().prop_map(|port| format!(":{port}"))];
    (kind, server(), 0..3, host(), port, any::<[u8; 32]>()).prop_map(
        |(kind, relay, page, other, port, key)| {
            // No page, a page of the relay, or one of somebody else.
            let page = match page {
                0 => None,
                1 => Some(relay.hosts[0].clone()),
                _ => Some(other),
            };
            let page = page.map(|host| format!("{host}{port}").parse().expect("a page"));
            BlobLink::new(kind, page, relay, X25519Secret::from_bytes(key))
                .expect("a relay with all it needs")
        },
    )
}

/// A queue's mode.
pub fn mode() -> impl Strategy<Value = QueueMode> + Clone {
    prop_oneof![Just(QueueMode::Messaging), Just(QueueMode::Contact)]
}

/// Link data, small enough for a block.
pub fn link_data() -> impl Strategy<Value = LinkData<'static>> + Clone {
    (bytes(0..=2048), bytes(0..=13_824)).prop_map(|(fixed, user)| LinkData { fixed, user })
}

/// The keys of a notifier.
pub fn notifier_keys() -> impl Strategy<Value = NotifierKeys> + Clone {
    (auth_key(), x25519()).prop_map(|(key, dh)| NotifierKeys { key, dh })
}

/// The parameters of `NEW`.
pub fn new_queue() -> impl Strategy<Value = NewQueue<'static>> + Clone {
    let request = prop_oneof![
        option::of((identifier(), link_data())).prop_map(QueueRequest::Messaging),
        option::of((identifier(), identifier(), link_data())).prop_map(QueueRequest::Contact),
    ];
    let subscription = prop_oneof![Just(SubscriptionMode::Subscribe), Just(SubscriptionMode::CreateOnly)];
    (
        auth_key(),
        x25519(),
        option::of(password()),
        subscription,
        option::of(request),
        option::of(notifier_keys()),
    )
        .prop_map(|(recipient_key, recipient_dh, password, subscription, request, notifier)| NewQueue {
            recipient_key,
            recipient_dh,
            password,
            subscription,
            request,
            notifier,
        })
}

/// Any command.
pub fn command() -> impl Strategy<Value = Command<'static>> + Clone {
    prop_oneof![
        3 => new_queue().prop_map(Command::New),
        1 => Just(Command::Subscribe),
        1 => auth_key().prop_map(Command::SecureByRecipient),
        1 => vec(auth_key(), 1..20).prop_map(Command::RecipientKeys),
        1 => (identifier(), link_data()).prop_map(|(link, data)| Command::SetLink { link, data }),
        1 => Just(Command::DeleteLink),
        1 => notifier_keys().prop_map(Command::EnableNotifications),
        1 => Just(Command::DisableNotifications),
        1 => Just(Command::Get),
        1 => identifier().prop_map(|message| Command::Acknowledge { message }),
        1 => Just(Command::Suspend),
        1 => Just(Command::Delete),
        1 => Just(Command::QueueInformation),
        1 => auth_key().prop_map(Command::SecureBySender),
        3 => (any::<bool>(), bytes(0..=16_088)).prop_map(|(notification, body)| Command::Send {
            flags: MessageFlags { notification },
            body,
        }),
        1 => Just(Command::Ping),
        1 => auth_key().prop_map(Command::SecureByLink),
        1 => Just(Command::GetLink),
        1 => (auth_key(), bytes(0..=16_200)).prop_map(|(key, blob)| Command::WriteBlob { key, blob }),
        1 => Just(Command::ClearBlob),
        1 => Just(Command::ReadBlob),
        1 => Just(Command::SubscribeNotifications),
        1 => Just(Command::SubscribeService),
        1 => Just(Command::SubscribeServiceNotifications),
        2 => (server(), option::of(password()))
            .prop_map(|(relay, password)| Command::ProxyConnect { relay, password }),
        1 => (any::<u16>(), x25519(), bytes(0..=16_242)).prop_map(|(version, key, transmission)| {
            Command::ProxyForward { version: Version(version), key, transmission }
        }),
        1 => bytes(0..=16_300).prop_map(|transmission| Command::RelayForward { transmission }),
    ]
}

/// What the wire tells of this command at this version (WIRE-FACTS 5): queue requests below v9, link data below v15 and
/// notifiers below v17 are lost, and from v9 to v14 a queue without a request is a contact address.
#[must_use]
pub fn command_as_read<'a>(command: &Command<'a>, version: Version) -> Command<'a> {
    let mut command = command.clone();
    if let Command::New(new) = &mut command {
        new.request = match (version.0, new.request.take()) {
            (..9, _) => None,
            (9..15, Some(QueueRequest::Messaging(_))) => Some(QueueRequest::Messaging(None)),
            (9..15, _) => Some(QueueRequest::Contact(None)),
            (_, request) => request,
        };
        if version.0 < 17 {
            new.notifier = None;
        }
    }
    command
}

/// A transport error.
pub fn transport_error() -> impl Strategy<Value = TransportError> + Clone {
    prop_oneof![
        Just(TransportError::Block),
        Just(TransportError::Version),
        Just(TransportError::LargeMessage),
        Just(TransportError::Session),
        Just(TransportError::NoAuthorization),
        Just(TransportError::Handshake(HandshakeError::Parse)),
        Just(TransportError::Handshake(HandshakeError::Identity)),
        Just(TransportError::Handshake(HandshakeError::BadAuthorization)),
        Just(TransportError::Handshake(HandshakeError::BadService)),
    ]
}

/// The detail of a network error.
pub fn network_error() -> impl Strategy<Value = NetworkError> + Clone {
    let text = || bytes(0..=255).prop_map(<[u8]>::to_vec);
    prop_oneof![
        text().prop_map(NetworkError::Connect),
        text().prop_map(NetworkError::Tls),
        Just(NetworkError::UnknownCertificate),
        Just(NetworkError::Failed),
        Just(NetworkError::Timeout),
        text().prop_map(NetworkError::Subscribe),
    ]
}

/// Why a relay could not be used; network errors without detail, which writers leave out.
pub fn broker_error() -> impl Strategy<Value = BrokerError> + Clone {
    let text = || bytes(0..=255).prop_map(<[u8]>::to_vec);
    prop_oneof![
        text().prop_map(BrokerError::Response),
        text().prop_map(BrokerError::Unexpected),
        transport_error().prop_map(BrokerError::Transport),
        Just(BrokerError::Network(NetworkError::Failed)),
        Just(BrokerError::Timeout),
        Just(BrokerError::Host),
        Just(BrokerError::NoService),
    ]
}

/// An error, with up to two errors of relays behind proxies inside.
pub fn smp_error() -> impl Strategy<Value = SmpError> + Clone {
    let command = prop_oneof![
        Just(CommandError::Unknown),
        Just(CommandError::Syntax),
        Just(CommandError::Prohibited),
        Just(CommandError::NoAuthorization),
        Just(CommandError::HasAuthorization),
        Just(CommandError::NoEntity),
    ];
    let reason = prop_oneof![Just(BlockingReason::Spam), Just(BlockingReason::Content)];
    let leaf = prop_oneof![
        Just(SmpError::Block),
        Just(SmpError::Session),
        command.prop_map(SmpError::Command),
        broker_error().prop_map(|error| SmpError::Proxy(ProxyError::Broker(error))),
        Just(SmpError::Proxy(ProxyError::BasicAuth)),
        Just(SmpError::Proxy(ProxyError::NoSession)),
        Just(SmpError::Authorization),
        (reason, option::of(option::of(any::<i64>())))
            .prop_map(|(reason, notice)| SmpError::Blocked(Blocked { reason, notice })),
        Just(SmpError::Service),
        Just(SmpError::Crypto),
        Just(SmpError::Quota),
        bytes(0..=300).prop_map(|text| SmpError::Store(text.to_vec())),
        Just(SmpError::Expired),
        Just(SmpError::NoMessage),
        Just(SmpError::LargeMessage),
        Just(SmpError::Internal),
        Just(SmpError::Duplicate),
    ];
    leaf.prop_recursive(2, 3, 1, |inner| {
        inner.prop_map(|error| SmpError::Proxy(ProxyError::Protocol(Box::new(error))))
    })
}

/// What the wire tells of this error at this version (WIRE-FACTS 5.2).
#[must_use]
pub fn error_as_read(error: &SmpError, version: Version) -> SmpError {
    match (error, version.0) {
        (SmpError::Blocked(_), ..12) => SmpError::Authorization,
        (SmpError::Blocked(blocked), 12..18) => {
            SmpError::Blocked(Blocked { reason: blocked.reason, notice: None })
        }
        _ => error.clone(),
    }
}

/// A chain of up to 4 certificates; their content is not DER.
pub fn certificate_chain() -> impl Strategy<Value = CertificateChain<'static>> + Clone {
    static CHAINS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
        let chain = |lengths: &[usize]| {
            let certificates: Vec<&[u8]> = lengths.iter().map(|length| &POOL[*length..2 * *length]).collect();
            let mut wire = Vec::new();
            CertificateChain::write(&certificates, &mut wire).expect("a vector takes everything");
            wire
        };
        [&[][..], &[0], &[300], &[300, 500], &[0, 0], &[200, 400, 600], &[1, 2, 3, 1000]]
            .into_iter()
            .map(chain)
            .collect()
    });
    (0..CHAINS.len())
        .prop_map(|index| CertificateChain::read(&mut Reader::new(&CHAINS[index])).expect("a chain"))
}

/// A signed key; its content is not DER.
pub fn signed_key() -> impl Strategy<Value = SignedKey<'static>> + Clone {
    bytes(0..=300).prop_map(SignedKey)
}

/// The ids of a notifier.
pub fn notifier_ids() -> impl Strategy<Value = NotifierIds> + Clone {
    (identifier(), x25519()).prop_map(|(notifier, relay_dh)| NotifierIds { notifier, relay_dh })
}

/// The parameters of `IDS`.
pub fn created_queue() -> impl Strategy<Value = CreatedQueue> + Clone {
    (
        identifier(),
        identifier(),
        x25519(),
        option::of(mode()),
        option::of(identifier()),
        option::of(identifier()),
        option::of(notifier_ids()),
    )
        .prop_map(|(recipient, sender, relay_dh, mode, link, service, notifier)| CreatedQueue {
            recipient,
            sender,
            relay_dh,
            mode,
            link,
            service,
            notifier,
        })
}

/// Any response.
pub fn response() -> impl Strategy<Value = Response<'static>> + Clone {
    let information = prop_oneof![Just(""), Just(r#"{"qiSnd":true,"qiNtf":false,"qiSize":0}"#), Just("å ß")];
    let nonce = bytes(24..=24).prop_map(|bytes| bytes.try_into().expect("24 bytes"));
    prop_oneof![
        3 => created_queue().prop_map(Response::Created),
        1 => (identifier(), link_data()).prop_map(|(sender, data)| Response::Link { sender, data }),
        1 => option::of(identifier()).prop_map(|service| Response::Subscribed { service }),
        1 => bytes(0..=16_300).prop_map(Response::Blob),
        1 => any::<i64>().prop_map(Response::ServiceSubscribed),
        2 => (identifier(), bytes(0..=16_122)).prop_map(|(id, body)| Response::Message { id, body }),
        1 => notifier_ids().prop_map(Response::NotifierId),
        1 => (nonce, bytes(0..=255)).prop_map(|(nonce, metadata)| Response::Notification { nonce, metadata }),
        1 => (identifier(), version_range(), certificate_chain(), signed_key()).prop_map(
            |(session, versions, chain, key)| Response::ProxySession { session, versions, chain, key },
        ),
        1 => bytes(0..=16_300).prop_map(Response::RelayResponse),
        1 => bytes(0..=16_300).prop_map(Response::ProxyResponse),
        1 => Just(Response::End),
        1 => any::<i64>().prop_map(Response::ServiceEnd),
        1 => Just(Response::Deleted),
        1 => information.prop_map(Response::Information),
        1 => Just(Response::Ok),
        1 => Just(Response::Pong),
        3 => smp_error().prop_map(Response::Error),
    ]
}

/// What the wire tells of this response at this version (WIRE-FACTS 5.1).
#[must_use]
pub fn response_as_read<'a>(response: &Response<'a>, version: Version) -> Response<'a> {
    match (response, version.0) {
        (Response::Created(created), _) => {
            let mut created = created.clone();
            created.mode = match (version.0, created.mode) {
                (..9, _) => None,
                (9..15, None) => Some(QueueMode::Contact),
                (_, mode) => mode,
            };
            if version.0 < 15 {
                created.link = None;
            }
            if version.0 < 16 {
                created.service = None;
            }
            if version.0 < 17 {
                created.notifier = None;
            }
            Response::Created(created)
        }
        (Response::Subscribed { .. }, ..16) => Response::Ok,
        (Response::Deleted, ..10) => Response::End,
        (Response::Error(error), _) => Response::Error(error_as_read(error, version)),
        (other, _) => other.clone(),
    }
}

/// A change to bytes that were valid.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// One byte becomes another.
    Set(usize, u8),
    /// Everything from here on is missing.
    Cut(usize),
    /// A byte is inserted.
    Insert(usize, u8),
    /// A byte is missing.
    Remove(usize),
}

/// A few changes, most of them near the front, where the structure is.
pub fn damages() -> impl Strategy<Value = Vec<Damage>> + Clone {
    let place = prop_oneof![4 => 0..80usize, 1 => 0..17_000usize];
    let byte = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(b' '), Just(b'0'), Just(b'1'), Just(b'=')];
    vec(
        prop_oneof![
            4 => (place.clone(), byte.clone()).prop_map(|(place, byte)| Damage::Set(place, byte)),
            1 => place.clone().prop_map(Damage::Cut),
            1 => (place.clone(), byte).prop_map(|(place, byte)| Damage::Insert(place, byte)),
            1 => place.prop_map(Damage::Remove),
        ],
        1..4,
    )
}

/// Damages bytes; places behind their end are taken modulo their length.
pub fn damage(bytes: &mut Vec<u8>, damages: &[Damage]) {
    for damage in damages {
        let length = bytes.len();
        match *damage {
            Damage::Insert(place, byte) => bytes.insert(place % (length + 1), byte),
            Damage::Cut(place) => bytes.truncate(place % (length + 1)),
            _ if length == 0 => {}
            Damage::Set(place, byte) => bytes[place % length] = byte,
            Damage::Remove(place) => {
                bytes.remove(place % length);
            }
        }
    }
}

/// What `write` writes into memory without a limit.
///
/// # Panics
/// When a part is longer than its length prefix can say.
pub fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), smp_proto::wire::primitives::Full>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out).expect("no part is too long for its prefix");
    out
}

/// A batch with these transmissions.
///
/// # Panics
/// When there are more than 255, or one is longer than 65,535 bytes.
#[must_use]
pub fn batch(transmissions: &[Vec<u8>]) -> Vec<u8> {
    written(|out| {
        out.byte(u8::try_from(transmissions.len()).expect("at most 255"))?;
        transmissions.iter().try_for_each(|transmission| out.large(transmission))
    })
}
