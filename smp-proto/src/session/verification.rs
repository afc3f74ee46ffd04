//! Verification of requests: who really sent them (WIRE-FACTS 4.8).
//!
//! Expensive, and therefore done in the session, without the broker, and for many requests together. A request that is
//! refused costs what one costs that is accepted, whether its queue exists or not: where there is no key to verify
//! with, or only one of another kind, a fixed key of the kind that the authorization's length tells is used, and the
//! result ignored. Shared secrets are remembered only after they have verified something: a forger cannot tell
//! by time whether a key was known. (A contact address with several owners costs more with each owner.)

use sha2::{Digest, Sha256};

use super::request::{Authority, Outcome, Prepared, RelayKeyPair, Request, Verified};
use super::server::{CHUNK_LENGTH, RequestChunk, ServerSession};
use super::shared_secrets::SharedSecrets;
use crate::crypto::{BoxKey, Ed25519Check, Provider, authenticator, signatures};
use crate::entropy::Entropy;
use crate::keys::{AuthKey, Ed448Public, Ed25519Public, X25519Public, X25519Secret};
use crate::wire::command::{Command, LinkData, QueueRequest};
use crate::wire::error::SmpError;
use crate::wire::transmission::{Authorization, Transmission};
use crate::wire::version::Version;

/// What came of a [`RequestChunk`], in the same order.
pub type VerifiedChunk<'b> = heapless::Vec<Verified<'b>, CHUNK_LENGTH>;

/// The base points: valid keys, with which nothing is decided.
const DUMMY_X25519: X25519Public = X25519Public({
    let mut bytes = [0; 32];
    bytes[0] = 9;
    bytes
});
const DUMMY_ED25519: Ed25519Public = Ed25519Public({
    let mut bytes = [0x66; 32];
    bytes[0] = 0x58;
    bytes
});
#[rustfmt::skip]
const DUMMY_ED448: Ed448Public = Ed448Public([
    0x14, 0xfa, 0x30, 0xf2, 0x5b, 0x79, 0x08, 0x98, 0xad, 0xc8, 0xd7, 0x4e, 0x2c, 0x13,
    0xbd, 0xfd, 0xc4, 0x39, 0x7c, 0xe6, 0x1c, 0xff, 0xd3, 0x3a, 0xd7, 0xc2, 0xa0, 0x05,
    0x1e, 0x9c, 0x78, 0x87, 0x40, 0x98, 0xa3, 0x6c, 0x73, 0x73, 0xea, 0x4b, 0x62, 0xc7,
    0xc9, 0x56, 0x37, 0x20, 0x76, 0x88, 0x24, 0xbc, 0xb6, 0x6e, 0x71, 0x46, 0x3f, 0x69,
    0x00,
]);

/// What is known of a request.
#[derive(Debug)]
enum Verdict {
    /// Execute it, with the key that authorized it.
    Execute(Option<AuthKey>),
    /// Answer this.
    Refuse(SmpError),
}

impl Verdict {
    const UNAUTHORIZED: Self = Self::Refuse(SmpError::Authorization);

    const fn when(valid: bool, key: AuthKey) -> Self {
        if valid { Self::Execute(Some(key)) } else { Self::UNAUTHORIZED }
    }
}

/// An Ed25519 signature that waits for the others of its chunk.
struct Waiting<'a> {
    request: usize,
    key: Ed25519Public,
    /// Whether the key is the queue's, so that the result counts.
    counts: bool,
    signature: &'a [u8; 64],
    signed_tail: &'a [u8],
}

type WaitingSignatures<'a> = heapless::Vec<Waiting<'a>, CHUNK_LENGTH>;

/// What verification needs of a session.
struct Verifier<'s> {
    provider: &'static dyn Provider,
    /// A length byte and the session id.
    session: &'s [u8],
    secret: &'s X25519Secret,
    remembered: &'s mut SharedSecrets,
}

impl ServerSession {
    /// Verifies requests whose [`Authority`] the broker has filled in, all Ed25519 signatures together, and makes the
    /// relay's keys for those that create something.
    pub fn verify<'b>(
        &mut self,
        requests: RequestChunk<'b>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> VerifiedChunk<'b> {
        let version = self.version().unwrap_or(Version::OLDEST);
        let mut verifier = Verifier {
            provider: self.config.provider,
            session: self.facts.session_id.prefixed(),
            secret: &self.secret,
            remembered: &mut self.authenticators,
        };
        let mut verdicts = verifier.judge(&requests).into_iter();
        let provider = self.config.provider;
        requests
            .into_iter()
            .map(|request| match request {
                Request::Malformed { correlation, entity, error } => {
                    verdicts.next();
                    Verified { correlation, entity, outcome: Outcome::Refuse(error) }
                }
                Request::Command { transmission, .. } => {
                    let Transmission { correlation, entity, content: command, .. } = transmission;
                    let verdict = verdicts.next().unwrap_or(Verdict::Refuse(SmpError::Internal));
                    let outcome = match verdict {
                        Verdict::Refuse(error) => Outcome::Refuse(error),
                        Verdict::Execute(_) if is_too_long(&command, version) => {
                            Outcome::Refuse(SmpError::LargeMessage)
                        }
                        Verdict::Execute(key) => {
                            let prepared = Prepared::for_command(&command, provider, entropy);
                            Outcome::Execute { command, key, prepared }
                        }
                    };
                    Verified { correlation, entity, outcome }
                }
            })
            .collect()
    }
}

fn is_too_long(command: &Command<'_>, version: Version) -> bool {
    matches!(command, Command::Send { body, .. } if body.len() > version.max_message_length())
}

impl Verifier<'_> {
    /// One verdict a request, in order.
    fn judge(&mut self, requests: &[Request<'_>]) -> heapless::Vec<Verdict, CHUNK_LENGTH> {
        let mut waiting = WaitingSignatures::new();
        let mut verdicts = heapless::Vec::new();
        for (index, request) in requests.iter().enumerate() {
            let verdict = match request {
                // Its own error is answered.
                Request::Malformed { .. } => Verdict::UNAUTHORIZED,
                Request::Command { transmission, .. } if transmission.service_signature.is_some() => {
                    Verdict::Refuse(SmpError::Service)
                }
                Request::Command { transmission, authority } => {
                    self.judge_one(index, transmission, authority, &mut waiting)
                }
            };
            // A chunk has as much room as its requests.
            let pushed = verdicts.push(verdict);
            debug_assert!(pushed.is_ok());
        }
        self.settle(&waiting, &mut verdicts);
        verdicts
    }

    /// The verdict, or, for an Ed25519 signature, a provisional one until [`settle`](Self::settle).
    fn judge_one<'a>(
        &mut self,
        index: usize,
        transmission: &Transmission<'a, Command<'a>>,
        authority: &Authority,
        waiting: &mut WaitingSignatures<'a>,
    ) -> Verdict {
        let is_unauthorized = matches!(transmission.authorization, Authorization::None);
        let key = match authority {
            // A mistake of the driver; the client is not told more than that.
            Authority::NotLookedUp => return Verdict::Refuse(SmpError::Internal),
            Authority::Nobody | Authority::Unsecured if is_unauthorized => return Verdict::Execute(None),
            Authority::Nobody | Authority::Unsecured | Authority::Unknown => None,
            Authority::KeyInCommand => match &transmission.content {
                Command::New(new) => Some(new.recipient_key),
                Command::SecureBySender(key) | Command::SecureByLink(key) => Some(*key),
                _ => return Verdict::Refuse(SmpError::Internal),
            },
            Authority::Key(key) => Some(*key),
            Authority::AnyOf(keys) => return self.judge_any(transmission, keys),
        };
        match transmission.authorization {
            Authorization::None => Verdict::UNAUTHORIZED,
            Authorization::Ed25519(signature) => {
                let (key, counts) = match key {
                    Some(AuthKey::Ed25519(key)) => (key, true),
                    _ => (DUMMY_ED25519, false),
                };
                let signed_tail = transmission.signed_tail;
                let pushed = waiting.push(Waiting { request: index, key, counts, signature, signed_tail });
                debug_assert!(pushed.is_ok());
                Verdict::UNAUTHORIZED
            }
            Authorization::Ed448(_) => match key {
                Some(key @ AuthKey::Ed448(_)) => Verdict::when(self.is_authorized_by(transmission, key), key),
                _ => {
                    let _ = self.is_authorized_by(transmission, AuthKey::Ed448(DUMMY_ED448));
                    Verdict::UNAUTHORIZED
                }
            },
            Authorization::Authenticator(_) => match key {
                Some(key @ AuthKey::X25519(_)) => {
                    Verdict::when(self.is_authorized_by(transmission, key), key)
                }
                _ => {
                    let _ = self.is_authorized_by(transmission, AuthKey::X25519(DUMMY_X25519));
                    Verdict::UNAUTHORIZED
                }
            },
        }
    }

    /// The verdict on a command of one of several owners. Every key of the right kind is tried, whichever fits.
    fn judge_any(&mut self, transmission: &Transmission<'_, Command<'_>>, keys: &[AuthKey]) -> Verdict {
        let (mut authorized_by, mut tried) = (None, false);
        for key in keys {
            let same_kind = matches!(
                (transmission.authorization, key),
                (Authorization::Ed25519(_), AuthKey::Ed25519(_))
                    | (Authorization::Ed448(_), AuthKey::Ed448(_))
                    | (Authorization::Authenticator(_), AuthKey::X25519(_))
            );
            if same_kind {
                tried = true;
                if self.is_authorized_by(transmission, *key) {
                    authorized_by = Some(*key);
                }
            }
        }
        if !tried {
            let dummy = match transmission.authorization {
                Authorization::None => return Verdict::UNAUTHORIZED,
                Authorization::Ed25519(_) => AuthKey::Ed25519(DUMMY_ED25519),
                Authorization::Ed448(_) => AuthKey::Ed448(DUMMY_ED448),
                Authorization::Authenticator(_) => AuthKey::X25519(DUMMY_X25519),
            };
            let _ = self.is_authorized_by(transmission, dummy);
        }
        authorized_by.map_or(Verdict::UNAUTHORIZED, |key| Verdict::Execute(Some(key)))
    }

    /// Whether `key` authorized the command. The work depends on the authorization only.
    fn is_authorized_by(&mut self, transmission: &Transmission<'_, Command<'_>>, key: AuthKey) -> bool {
        let authorized: [&[u8]; 2] = [self.session, transmission.signed_tail];
        match (transmission.authorization, key) {
            (Authorization::Ed25519(signature), AuthKey::Ed25519(key)) => {
                self.provider.ed25519_verify(&key, &authorized, signature)
            }
            (Authorization::Ed448(signature), AuthKey::Ed448(key)) => {
                signatures::ed448_verify(&key, &authorized, signature)
            }
            (Authorization::Authenticator(authenticator), AuthKey::X25519(key)) => {
                let verify = |box_key: &BoxKey| {
                    let correlation = transmission.correlation.as_bytes();
                    authenticator::verify(self.provider, box_key, correlation, &authorized, authenticator)
                };
                if let Some(box_key) = self.remembered.get(self.secret.as_bytes(), &key) {
                    return verify(box_key);
                }
                let box_key = BoxKey::agree(self.provider, self.secret, &key);
                let valid = verify(&box_key);
                if valid && key != DUMMY_X25519 {
                    self.remembered.remember(self.secret.as_bytes(), &key, &box_key);
                }
                valid
            }
            _ => false,
        }
    }

    /// Verifies the signatures that wait, together.
    fn settle(&self, waiting: &[Waiting<'_>], verdicts: &mut [Verdict]) {
        let messages: heapless::Vec<[&[u8]; 2], CHUNK_LENGTH> =
            waiting.iter().map(|one| [self.session, one.signed_tail]).collect();
        let mut checks: heapless::Vec<Ed25519Check<'_>, CHUNK_LENGTH> = waiting
            .iter()
            .zip(&messages)
            .map(|(one, message)| Ed25519Check {
                key: one.key,
                message,
                signature: one.signature,
                valid: false,
            })
            .collect();
        self.provider.ed25519_verify_batch(&mut checks);
        for (one, check) in waiting.iter().zip(&checks) {
            if let (true, true, Some(verdict)) = (check.valid, one.counts, verdicts.get_mut(one.request)) {
                *verdict = Verdict::Execute(Some(AuthKey::Ed25519(one.key)));
            }
        }
    }
}

impl Prepared {
    /// What a verified command needs.
    fn for_command(
        command: &Command<'_>,
        provider: &dyn Provider,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Self {
        match command {
            Command::New(new) => Self {
                queue: Some(RelayKeyPair::generate(provider, entropy)),
                notifier: new.notifier.as_ref().map(|_| RelayKeyPair::generate(provider, entropy)),
                fixed_data: new.request.as_ref().and_then(QueueRequest::link_data).map(digest_of_fixed),
            },
            Command::EnableNotifications(_) => {
                Self { notifier: Some(RelayKeyPair::generate(provider, entropy)), ..Self::default() }
            }
            Command::SetLink { data, .. } => {
                Self { fixed_data: Some(digest_of_fixed(*data)), ..Self::default() }
            }
            _ => Self::default(),
        }
    }
}

fn digest_of_fixed(data: LinkData<'_>) -> [u8; 32] {
    Sha256::digest(data.fixed).into()
}

impl RelayKeyPair {
    /// A fresh pair.
    pub(crate) fn generate(provider: &dyn Provider, entropy: &mut (impl Entropy + ?Sized)) -> Self {
        let secret = X25519Secret::generate(entropy);
        Self { public: provider.x25519_public(&secret), secret: *secret.as_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Portable;

    #[test]
    fn the_fixed_keys_are_points_so_that_verifying_with_them_is_work() {
        assert!(ed448_goldilocks::VerifyingKey::from_bytes(&DUMMY_ED448.0).is_ok());
        assert!(ed25519_dalek::VerifyingKey::from_bytes(&DUMMY_ED25519.0).is_ok());
        let secret = X25519Secret::from_bytes([1; 32]);
        assert_eq!(Portable.x25519(&secret, &DUMMY_X25519).as_bytes(), &Portable.x25519_public(&secret).0);
    }
}
