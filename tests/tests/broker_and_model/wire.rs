//! What the model names by numbers, as it is on the wire.

use smp_proto::crypto::{Portable, Provider};
use smp_proto::keys::{AuthKey, Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::session::AuthSecret;
use smp_proto::wire::Identifier;
use smp_proto::wire::command::{
    Command, LinkData, MessageFlags, NewQueue, NotifierKeys, Password, QueueMode, QueueRequest,
    SubscriptionMode,
};
use smp_tests::reference_model::{Acknowledged, Key, Number, Order};
use smp_tests::sessions::{Certificates, Pair, PairOptions};

/// What `NEW` must carry, if anything.
pub const PASSWORD: &[u8] = b"correct";

/// The recipient's key for message bodies: where it comes from is not the broker's business.
pub const RECIPIENT_DH: X25519Public = X25519Public([9; 32]);

/// The versions of the connections.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 6..=18;

/// A session with each version.
pub struct Sessions(Vec<Pair>);

impl Sessions {
    pub fn connect() -> Self {
        let certificates = Certificates::named("ed25519");
        Self(
            VERSIONS
                .map(|version| Pair::connect(&certificates, &PairOptions::at(version)).unwrap())
                .collect(),
        )
    }

    pub fn at(&mut self, version: u16) -> &mut Pair {
        &mut self.0[usize::from(version - VERSIONS.start())]
    }
}

/// Key pairs by their numbers: even ones sign, odd ones authenticate.
pub struct Keys(Vec<(AuthSecret, AuthKey)>);

/// How many there are.
pub const KEYS: Key = 8;

impl Keys {
    pub fn new() -> Self {
        let secret = |number: usize| {
            let seed = [number as u8 + 1; 32];
            if number.is_multiple_of(2) {
                AuthSecret::Ed25519(Ed25519Secret::from_bytes(seed))
            } else {
                AuthSecret::X25519(X25519Secret::from_bytes(seed))
            }
        };
        Self((0..KEYS).map(secret).map(|secret| (secret.clone(), secret.public(&Portable))).collect())
    }

    pub fn secret(&self, key: Key) -> &AuthSecret {
        &self.0[key].0
    }

    pub fn public(&self, key: Key) -> AuthKey {
        self.0[key].1
    }

    /// Whether it can authorize: below v7 the relay gives no key to authenticate with.
    pub fn usable_at(&self, key: Key, version: u16) -> bool {
        version >= 7 || matches!(self.public(key), AuthKey::Ed25519(_))
    }
}

/// The body of the message that a command sends.
pub fn body_of(number: Number) -> Vec<u8> {
    let length = 8 + (number as usize * 37) % 300;
    number.to_be_bytes().iter().copied().cycle().take(length).collect()
}

/// Which command has sent this body; 0 when none has.
pub fn number_of(body: &[u8]) -> Number {
    let number = body.first_chunk().map_or(0, |bytes| Number::from_be_bytes(*bytes));
    if body == body_of(number) { number } else { 0 }
}

/// The public key of a relay's key.
pub fn public_of(relay: [u8; 32]) -> [u8; 32] {
    Portable.x25519_public(&X25519Secret::from_bytes(relay)).0
}

/// The fixed data of a link.
pub fn fixed_of(fixed: u8) -> Vec<u8> {
    vec![fixed; 40]
}

/// The id of the link that a command names.
pub fn link_of(number: Number) -> Identifier {
    let mut id = [b'l'; 24];
    id[16..].copy_from_slice(&number.to_be_bytes());
    Identifier::from(id)
}

/// What a command has beside its order.
pub struct Parts<'a> {
    /// The id of the message that it acknowledges.
    pub acknowledged: Option<[u8; 24]>,
    /// The sender id that it must choose, if it chooses one.
    pub sender: Identifier,
    /// The id of the link that it is to set.
    pub link: Identifier,
    /// The fixed data of that link.
    pub fixed: &'a [u8],
    /// The body of its message, or the user data of its link.
    pub body: &'a [u8],
}

/// A command.
pub fn command<'a>(order: Order, version: u16, keys: &Keys, parts: Parts<'a>) -> Command<'a> {
    let Parts { acknowledged, sender, link: link_id, fixed, body } = parts;
    let data = LinkData { fixed, user: body };
    match order {
        Order::New { key, mode, link, subscribe, password } => Command::New(NewQueue {
            recipient_key: keys.public(key),
            recipient_dh: RECIPIENT_DH,
            password: password.map(|right| Password(if right { PASSWORD } else { b"wrong" })),
            subscription: if subscribe { SubscriptionMode::Subscribe } else { SubscriptionMode::CreateOnly },
            request: mode.filter(|_| version >= 9).map(|mode| match mode {
                QueueMode::Messaging => QueueRequest::Messaging(link.map(|_| (sender.clone(), data))),
                QueueMode::Contact => {
                    QueueRequest::Contact(link.map(|_| (link_id.clone(), sender.clone(), data)))
                }
            }),
            notifier: None,
        }),
        Order::Subscribe => Command::Subscribe,
        Order::Secure(key) => Command::SecureByRecipient(keys.public(key)),
        Order::SecureBySender(key) => Command::SecureBySender(keys.public(key)),
        Order::Send { notification } => Command::Send { flags: MessageFlags { notification }, body },
        Order::SetLink { .. } => Command::SetLink { link: link_id, data },
        Order::DeleteLink => Command::DeleteLink,
        Order::SecureByLink(key) => Command::SecureByLink(keys.public(key)),
        Order::GetLink => Command::GetLink,
        Order::Get => Command::Get,
        Order::Acknowledge(which) => Command::Acknowledge {
            message: match which {
                Acknowledged::Delivered => Identifier::EMPTY,
                Acknowledged::Message(_) => {
                    acknowledged.map_or(Identifier::from([254; 24]), Identifier::from)
                }
                Acknowledged::Unknown => Identifier::from([253; 24]),
            },
        },
        Order::Suspend => Command::Suspend,
        Order::Delete => Command::Delete,
        Order::Describe => Command::QueueInformation,
        Order::EnableNotifications(key) => {
            Command::EnableNotifications(NotifierKeys { key: keys.public(key), dh: RECIPIENT_DH })
        }
        Order::DisableNotifications => Command::DisableNotifications,
        Order::SubscribeNotifications => Command::SubscribeNotifications,
        Order::Ping => Command::Ping,
    }
}

/// Whether clients of this version have such a command; what they cannot say with it is left out.
pub fn is_known(order: &mut Order, version: u16) -> bool {
    if let Order::New { mode, link, .. } = order {
        if version < 9 {
            *mode = None;
        }
        if version < 15 || mode.is_none() {
            *link = None;
        }
    }
    let of_links =
        matches!(order, Order::SetLink { .. } | Order::DeleteLink | Order::SecureByLink(_) | Order::GetLink);
    version >= 15 || !of_links
}
