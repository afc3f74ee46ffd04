//! Wire structures as the JSON of the vector files, both ways.

use serde_json::{Value, json};
use smp_proto::keys::{AuthKey, X25519Public};
use smp_proto::wire::Identifier;
use smp_proto::wire::address::{Host, ServerAddress};
use smp_proto::wire::command::{
    Command, LinkData, MessageFlags, NewQueue, NotifierKeys, Password, QueueMode, QueueRequest,
    SubscriptionMode,
};
use smp_proto::wire::error::{
    Blocked, BlockingReason, BrokerError, HandshakeError, NetworkError, ProxyError, SmpError, TransportError,
};
use smp_proto::wire::response::{CreatedQueue, NotifierIds, Response};
use smp_proto::wire::version::{Version, VersionRange};

use crate::vectors::Fields;

/// What a reader returns: `Err` names the field that is not what it should be.
type Read<T> = Result<T, String>;

/// Full hex of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Test data lives as long as the test: commands borrow from it.
fn leaked(fields: &Fields, key: &str) -> Read<&'static [u8]> {
    Ok(Vec::leak(fields.bytes(key)?))
}

fn identifier(fields: &Fields, key: &str) -> Read<Identifier> {
    Identifier::new(&fields.bytes(key)?).ok_or_else(|| format!("{key}: too long"))
}

fn optional<T>(fields: &Fields, key: &str, read: impl Fn(&Fields) -> Read<T>) -> Read<Option<T>> {
    let value = fields.get(key);
    if value.is_null() { Ok(None) } else { read(&value).map(Some) }
}

fn auth_key(fields: &Fields, key: &str) -> Read<AuthKey> {
    AuthKey::from_der(&fields.bytes(key)?).map_err(|error| format!("{key}: {error:?}"))
}

fn dh_key(fields: &Fields, key: &str) -> Read<X25519Public> {
    X25519Public::from_der(&fields.bytes(key)?).map_err(|error| format!("{key}: {error:?}"))
}

fn version(fields: &Fields, key: &str) -> Read<Version> {
    u16::try_from(fields.integer(key)?).map(Version).map_err(|error| error.to_string())
}

fn link_data(fields: &Fields) -> Read<LinkData<'static>> {
    Ok(LinkData { fixed: leaked(fields, "fixedData")?, user: leaked(fields, "userData")? })
}

fn notifier_keys(fields: &Fields, key: &str, dh: &str) -> Read<NotifierKeys> {
    Ok(NotifierKeys { key: auth_key(fields, key)?, dh: dh_key(fields, dh)? })
}

fn password(fields: &Fields) -> Read<Option<Password<'static>>> {
    optional(fields, "password", |value| Ok(Password(Vec::leak(value.as_bytes()?))))
}

/// A relay's address.
///
/// # Errors
/// When a field is missing or wrong.
pub fn server(fields: &Fields) -> Read<ServerAddress> {
    let hosts = fields.get("hosts").items()?;
    let hosts = hosts
        .iter()
        .map(|host| host.0.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| host.shown()))
        .collect::<Read<Vec<Host>>>()?;
    Ok(ServerAddress { hosts, port: fields.text("port")?, fingerprint: fields.bytes("keyHash")? })
}

/// A relay's address as JSON.
#[must_use]
pub fn server_json(server: &ServerAddress) -> Value {
    let hosts: Vec<String> = server
        .hosts
        .iter()
        .map(|host| match host {
            Host::Ip(ip) => ip.to_string(),
            Host::Onion(name) | Host::Domain(name) => name.clone(),
        })
        .collect();
    json!({"hosts": hosts, "port": server.port, "keyHash": hex(&server.fingerprint)})
}

/// A command.
///
/// # Errors
/// When a field is missing or wrong.
pub fn command(fields: &Fields) -> Read<Command<'static>> {
    Ok(match fields.text("tag")?.as_str() {
        "NEW" => Command::New(NewQueue {
            recipient_key: auth_key(fields, "rcvAuthKey")?,
            recipient_dh: dh_key(fields, "rcvDhKey")?,
            password: password(fields)?,
            subscription: match fields.text("subMode")?.as_str() {
                "S" => SubscriptionMode::Subscribe,
                "C" => SubscriptionMode::CreateOnly,
                other => return Err(format!("subMode: {other}")),
            },
            request: optional(fields, "queueReq", |request| {
                Ok(match request.text("mode")?.as_str() {
                    "M" => QueueRequest::Messaging(optional(request, "data", |data| {
                        Ok((identifier(data, "senderId")?, link_data(data)?))
                    })?),
                    "C" => QueueRequest::Contact(optional(request, "data", |data| {
                        Ok((identifier(data, "linkId")?, identifier(data, "senderId")?, link_data(data)?))
                    })?),
                    other => return Err(format!("mode: {other}")),
                })
            })?,
            notifier: optional(fields, "ntfCreds", |keys| notifier_keys(keys, "ntfAuthKey", "ntfDhKey"))?,
        }),
        "SUB" => Command::Subscribe,
        "KEY" => Command::SecureByRecipient(auth_key(fields, "key")?),
        "RKEY" => {
            let keys = fields.get("keys").items()?;
            let read =
                |key: &Fields| AuthKey::from_der(&key.as_bytes()?).map_err(|error| format!("{error:?}"));
            Command::RecipientKeys(keys.iter().map(read).collect::<Read<_>>()?)
        }
        "LSET" => Command::SetLink { link: identifier(fields, "linkId")?, data: link_data(fields)? },
        "LDEL" => Command::DeleteLink,
        "NKEY" => Command::EnableNotifications(notifier_keys(fields, "key", "dhKey")?),
        "NDEL" => Command::DisableNotifications,
        "GET" => Command::Get,
        "ACK" => Command::Acknowledge { message: identifier(fields, "msgId")? },
        "OFF" => Command::Suspend,
        "DEL" => Command::Delete,
        "QUE" => Command::QueueInformation,
        "SKEY" => Command::SecureBySender(auth_key(fields, "key")?),
        "SEND" => Command::Send {
            flags: MessageFlags { notification: fields.get("flags").boolean("notification")? },
            body: leaked(fields, "body")?,
        },
        "PING" => Command::Ping,
        "LKEY" => Command::SecureByLink(auth_key(fields, "key")?),
        "LGET" => Command::GetLink,
        "NSUB" => Command::SubscribeNotifications,
        "SUBS" => Command::SubscribeService,
        "NSUBS" => Command::SubscribeServiceNotifications,
        "PRXY" => {
            Command::ProxyConnect { relay: server(&fields.get("server"))?, password: password(fields)? }
        }
        "PFWD" => Command::ProxyForward {
            version: version(fields, "version")?,
            key: dh_key(fields, "key")?,
            transmission: leaked(fields, "encTransmission")?,
        },
        "RFWD" => Command::RelayForward { transmission: leaked(fields, "encFwdTransmission")? },
        other => return Err(format!("unknown tag {other}")),
    })
}

/// A response. `INFO` and `PKEY` borrow from what the caller made of their nested fields.
///
/// # Errors
/// When a field is missing or wrong, or the response is one of those two.
pub fn response(fields: &Fields) -> Read<Response<'static>> {
    let notifier = |fields: &Fields| {
        Ok(NotifierIds {
            notifier: identifier(fields, "notifierId")?,
            relay_dh: dh_key(fields, "srvNtfDhKey")?,
        })
    };
    let id = |value: &Fields| Identifier::new(&value.as_bytes()?).ok_or_else(|| value.shown());
    Ok(match fields.text("tag")?.as_str() {
        "IDS" => Response::Created(CreatedQueue {
            recipient: identifier(fields, "rcvId")?,
            sender: identifier(fields, "sndId")?,
            relay_dh: dh_key(fields, "srvDhKey")?,
            mode: match fields.get("queueMode").0.as_str() {
                None => None,
                Some("M") => Some(QueueMode::Messaging),
                Some("C") => Some(QueueMode::Contact),
                Some(other) => return Err(format!("queueMode: {other}")),
            },
            link: optional(fields, "linkId", id)?,
            service: optional(fields, "serviceId", id)?,
            notifier: optional(fields, "ntf", notifier)?,
        }),
        "LNK" => Response::Link { sender: identifier(fields, "sndId")?, data: link_data(fields)? },
        "SOK" => Response::Subscribed { service: optional(fields, "serviceId", id)? },
        "SOKS" => Response::ServiceSubscribed(fields.integer("count")?),
        "ENDS" => Response::ServiceEnd(fields.integer("count")?),
        "MSG" => Response::Message { id: identifier(fields, "msgId")?, body: leaked(fields, "body")? },
        "NID" => Response::NotifierId(notifier(fields)?),
        "NMSG" => {
            Response::Notification { nonce: fields.array("nonce")?, metadata: leaked(fields, "encMeta")? }
        }
        "RRES" => Response::RelayResponse(leaked(fields, "encFwdResponse")?),
        "PRES" => Response::ProxyResponse(leaked(fields, "encResponse")?),
        "END" => Response::End,
        "DELD" => Response::Deleted,
        "OK" => Response::Ok,
        "PONG" => Response::Pong,
        "ERR" => Response::Error(smp_error(&fields.get("error"))?),
        other => return Err(format!("{other} is not read from JSON")),
    })
}

/// A protocol error.
///
/// # Errors
/// When a field is missing or wrong.
pub fn smp_error(fields: &Fields) -> Read<SmpError> {
    use smp_proto::wire::error::CommandError;
    Ok(match fields.text("type")?.as_str() {
        "BLOCK" => SmpError::Block,
        "SESSION" => SmpError::Session,
        "CMD" => SmpError::Command(match fields.get("cmdErr").text("type")?.as_str() {
            "UNKNOWN" => CommandError::Unknown,
            "SYNTAX" => CommandError::Syntax,
            "PROHIBITED" => CommandError::Prohibited,
            "NO_AUTH" => CommandError::NoAuthorization,
            "HAS_AUTH" => CommandError::HasAuthorization,
            "NO_ENTITY" => CommandError::NoEntity,
            other => return Err(format!("cmdErr: {other}")),
        }),
        "PROXY" => {
            let proxy = fields.get("proxyErr");
            SmpError::Proxy(match proxy.text("type")?.as_str() {
                "PROTOCOL" => ProxyError::Protocol(Box::new(smp_error(&proxy.get("protocolErr"))?)),
                "BROKER" => ProxyError::Broker(broker_error(&proxy.get("brokerErr"))?),
                "BASIC_AUTH" => ProxyError::BasicAuth,
                "NO_SESSION" => ProxyError::NoSession,
                other => return Err(format!("proxyErr: {other}")),
            })
        }
        "AUTH" => SmpError::Authorization,
        "BLOCKED" => {
            let info = fields.get("blockInfo");
            SmpError::Blocked(Blocked {
                reason: match info.text("reason")?.as_str() {
                    "spam" => BlockingReason::Spam,
                    "content" => BlockingReason::Content,
                    other => return Err(format!("reason: {other}")),
                },
                notice: optional(&info, "notice", |notice| Ok(notice.get("ttl").0.as_i64()))?,
            })
        }
        "SERVICE" => SmpError::Service,
        "CRYPTO" => SmpError::Crypto,
        "QUOTA" => SmpError::Quota,
        "STORE" => SmpError::Store(fields.text("storeErr")?.into_bytes()),
        "EXPIRED" => SmpError::Expired,
        "NO_MSG" => SmpError::NoMessage,
        "LARGE_MSG" => SmpError::LargeMessage,
        "INTERNAL" => SmpError::Internal,
        "DUPLICATE_" => SmpError::Duplicate,
        other => return Err(format!("unknown error {other}")),
    })
}

/// A broker error.
///
/// # Errors
/// When a field is missing or wrong.
pub fn broker_error(fields: &Fields) -> Read<BrokerError> {
    Ok(match fields.text("type")?.as_str() {
        "RESPONSE" => BrokerError::Response(fields.text("respErr")?.into_bytes()),
        "UNEXPECTED" => BrokerError::Unexpected(fields.text("respErr")?.into_bytes()),
        "TRANSPORT" => BrokerError::Transport(transport_error(&fields.get("transportErr"))?),
        "NETWORK" => BrokerError::Network(network_error(&fields.get("networkError"))?),
        "TIMEOUT" => BrokerError::Timeout,
        "HOST" => BrokerError::Host,
        "NO_SERVICE" => BrokerError::NoService,
        other => return Err(format!("unknown broker error {other}")),
    })
}

/// A transport error.
///
/// # Errors
/// When a field is missing or wrong.
pub fn transport_error(fields: &Fields) -> Read<TransportError> {
    Ok(match fields.text("type")?.as_str() {
        "badBlock" => TransportError::Block,
        "version" => TransportError::Version,
        "largeMsg" => TransportError::LargeMessage,
        "badSession" => TransportError::Session,
        "noServerAuth" => TransportError::NoAuthorization,
        "handshake" => TransportError::Handshake(match fields.get("handshakeErr").text("type")?.as_str() {
            "PARSE" => HandshakeError::Parse,
            "IDENTITY" => HandshakeError::Identity,
            "BAD_AUTH" => HandshakeError::BadAuthorization,
            "BAD_SERVICE" => HandshakeError::BadService,
            other => return Err(format!("handshakeErr: {other}")),
        }),
        other => return Err(format!("unknown transport error {other}")),
    })
}

/// A network error.
///
/// # Errors
/// When a field is missing or wrong.
pub fn network_error(fields: &Fields) -> Read<NetworkError> {
    Ok(match fields.text("type")?.as_str() {
        "connectError" => NetworkError::Connect(fields.text("connectError")?.into_bytes()),
        "tLSError" => NetworkError::Tls(fields.text("tlsError")?.into_bytes()),
        "unknownCAError" => NetworkError::UnknownCertificate,
        "failedError" => NetworkError::Failed,
        "timeoutError" => NetworkError::Timeout,
        "subscribeError" => NetworkError::Subscribe(fields.text("subscribeError")?.into_bytes()),
        other => return Err(format!("unknown network error {other}")),
    })
}

/// A version range, as a list of two.
///
/// # Errors
/// When it is something else.
pub fn version_range(fields: &Fields, key: &str) -> Read<VersionRange> {
    let items = fields.get(key).items()?;
    let number = |place: usize| {
        items
            .get(place)
            .and_then(|value| value.0.as_u64())
            .and_then(|value| u16::try_from(value).ok())
            .map(Version)
            .ok_or_else(|| format!("{key}: not a version"))
    };
    VersionRange::new(number(0)?, number(1)?).ok_or_else(|| format!("{key}: empty range"))
}
