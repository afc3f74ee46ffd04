//! Verification of requests: who really sent them (WIRE-FACTS 4.8).
//!
//! Expensive, and therefore done in the session, without the broker, and for many requests together. A request that is
//! refused costs what one costs that is accepted, whether its queue exists or not: where there is no key to verify
//! with, or only one of another kind, a fixed key of the kind that the authorization's length tells is used, and the
//! result ignored. Shared secrets are remembered only after they have verified something: a forger cannot tell
//! by time whether a key was known. (A contact address with several owners costs more with each owner.)

use alloc::boxed::Box;

use sha2::{Digest, Sha256};

use super::forwarded::{Forwarded, through_proxy};
use super::forwarding::{COMMAND_VERSION, OpenedCommand};
use super::request::{Authority, Outcome, Prepared, RelayKeyPair, Request, Verified};
use super::server::{CHUNK_LENGTH, RequestChunk, ServerSession, State};
use super::service::SessionService;
use super::shared_secrets::SharedSecrets;
use crate::crypto::{BoxKey, Ed25519Check, Provider, authenticator, signatures};
use crate::entropy::Entropy;
use crate::keys::{AuthKey, Ed448Public, Ed25519Public, X25519Public, X25519Secret};
use crate::wire::CorrelationId;
use crate::wire::command::{Command, LinkData, QueueRequest};
use crate::wire::error::{CommandError, SmpError};
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
    /// Whether the service's fingerprint is signed, too.
    bound: bool,
}

type WaitingSignatures<'a> = heapless::Vec<Waiting<'a>, CHUNK_LENGTH>;

/// What verification needs of a session.
struct Verifier<'s> {
    provider: &'static dyn Provider,
    /// A length byte and the session id.
    session: &'s [u8],
    secret: &'s X25519Secret,
    remembered: &'s mut SharedSecrets,
    /// The service that the client is.
    service: Option<&'s SessionService>,
}

impl ServerSession {
    /// Verifies requests whose [`Authority`] the broker has filled in, all Ed25519 signatures together, and makes the
    /// relay's keys for those that create something.
    pub fn verify<'b>(
        &mut self,
        mut requests: RequestChunk<'b>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> VerifiedChunk<'b> {
        let mut verified = VerifiedChunk::new();
        self.verify_into(&mut requests, entropy, &mut verified);
        verified
    }

    /// The same without moving the chunks: takes the requests out, and puts what came of them in the place of what was
    /// in `verified`.
    pub fn verify_into<'b>(
        &mut self,
        requests: &mut RequestChunk<'b>,
        entropy: &mut (impl Entropy + ?Sized),
        verified: &mut VerifiedChunk<'b>,
    ) {
        let version = self.version().unwrap_or(Version::OLDEST);
        self.verify_at(version, false, requests, entropy, verified);
    }

    /// Verifies a command that came through a proxy, and sees to it that its answer goes back the same way.
    pub fn verify_forwarded<'f>(
        &mut self,
        request: Request<'f>,
        forwarded: &'f Forwarded,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<Verified<'f>> {
        let mut requests = RequestChunk::new();
        requests.push(request).ok()?;
        let mut verified = VerifiedChunk::new();
        self.verify_at(forwarded.version(), true, &mut requests, entropy, &mut verified);
        verified.pop().map(|verified| through_proxy(verified, forwarded))
    }

    fn verify_at<'b>(
        &mut self,
        version: Version,
        is_forwarded: bool,
        requests: &mut RequestChunk<'b>,
        entropy: &mut (impl Entropy + ?Sized),
        verified: &mut VerifiedChunk<'b>,
    ) {
        verified.clear();
        let mut verifier = Verifier {
            provider: self.config.provider,
            session: self.facts.session_id.prefixed(),
            secret: &self.secret,
            remembered: &mut self.authenticators,
            service: match &self.state {
                // Who sent what was forwarded is not the service that forwards it.
                State::Established(established) if !is_forwarded => established.service.as_deref(),
                _ => None,
            },
        };
        let verdicts = verifier.judge(requests);
        let open = |correlation: &CorrelationId, sealed: &[u8]| self.open_forwarded(correlation, sealed);
        conclude(verdicts, version, self.config.provider, requests, entropy, verified, open);
    }
}

/// Makes of each request and its verdict what the broker gets. `open` opens what a proxy has forwarded.
fn conclude<'b>(
    mut verdicts: heapless::Vec<Verdict, CHUNK_LENGTH>,
    version: Version,
    provider: &dyn Provider,
    requests: &mut RequestChunk<'b>,
    entropy: &mut (impl Entropy + ?Sized),
    verified: &mut VerifiedChunk<'b>,
    open: impl Fn(&CorrelationId, &[u8]) -> Result<Box<Forwarded>, SmpError>,
) {
    let mut verdicts = verdicts.drain(..);
    for request in requests.drain(..) {
        let verdict = verdicts.next().unwrap_or(Verdict::Refuse(SmpError::Internal));
        let one = match request {
            Request::Malformed { correlation, entity, error } => {
                Verified { correlation, entity, outcome: Outcome::Refuse(error), forwarded: None }
            }
            Request::Command { transmission, .. } => {
                let Transmission { correlation, entity, content: command, .. } = transmission;
                let outcome = match verdict {
                    Verdict::Refuse(error) => Outcome::Refuse(error),
                    Verdict::Execute(_) if is_too_long(&command, version) => {
                        Outcome::Refuse(SmpError::LargeMessage)
                    }
                    Verdict::Execute(_) if let Command::RelayForward { transmission } = &command => {
                        match open(&correlation, transmission) {
                            Ok(forwarded) => Outcome::Forwarded(forwarded),
                            Err(error) => Outcome::Refuse(error),
                        }
                    }
                    Verdict::Execute(key) => {
                        let prepared = Prepared::for_command(&command, provider, entropy);
                        Outcome::Execute { command, key, prepared }
                    }
                };
                Verified { correlation, entity, outcome, forwarded: None }
            }
        };
        // Both chunks have the same room.
        let pushed = verified.push(one);
        debug_assert!(pushed.is_ok());
    }
}

/// Verifies commands that came through a first-step relay, with the forwarding key that they were sealed for in place of a
/// session. It belongs to a connection, like a session, and remembers what it has computed for senders.
pub struct CommandVerifier {
    provider: &'static dyn Provider,
    remembered: SharedSecrets,
}

impl core::fmt::Debug for CommandVerifier {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("CommandVerifier(..)")
    }
}

impl CommandVerifier {
    /// One that remembers at most so many shared secrets of senders, at 100 bytes each.
    #[must_use]
    pub const fn new(provider: &'static dyn Provider, remembered: usize) -> Self {
        Self { provider, remembered: SharedSecrets::new(remembered) }
    }

    /// Verifies the request in a command whose [`Authority`] the broker has filled in, and sees to it that its answer
    /// goes back the same way.
    pub fn verify<'c>(
        &mut self,
        command: &'c OpenedCommand,
        request: Request<'c>,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Option<Verified<'c>> {
        let mut requests = RequestChunk::new();
        requests.push(request).ok()?;
        let mut verified = VerifiedChunk::new();
        let key = command.key()?;
        let mut verifier = Verifier {
            provider: self.provider,
            session: key.session().prefixed(),
            secret: key.secret(),
            remembered: &mut self.remembered,
            service: None,
        };
        let verdicts = verifier.judge(&requests);
        // Envelopes are not forwarded in envelopes: such a request is malformed already.
        let open = |_: &CorrelationId, _: &[u8]| Err(SmpError::from(CommandError::Prohibited));
        conclude(verdicts, COMMAND_VERSION, self.provider, &mut requests, entropy, &mut verified, open);
        let verified = verified.pop()?;
        Some(Verified { forwarded: Some(command.envelope()), ..verified })
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
                Request::Command { transmission, authority } => match self.check_service(transmission) {
                    Err(error) => Verdict::Refuse(error),
                    Ok(bound) => self.judge_one(index, transmission, authority, bound, &mut waiting),
                },
            };
            // A chunk has as much room as its requests.
            let pushed = verdicts.push(verdict);
            debug_assert!(pushed.is_ok());
        }
        self.settle(&waiting, &mut verdicts);
        verdicts
    }

    /// Checks what a service adds to a command, or must not. Returns whether the authorization covers its fingerprint.
    fn check_service(&self, transmission: &Transmission<'_, Command<'_>>) -> Result<bool, SmpError> {
        let Some(service) = self.service else {
            return transmission.service_signature.map_or(Ok(false), |_| Err(SmpError::Service));
        };
        let command = &transmission.content;
        if !service.may(command) {
            return Err(CommandError::Prohibited.into());
        }
        let is_bound =
            matches!(command, Command::New(_) | Command::Subscribe | Command::SubscribeNotifications);
        match transmission.service_signature {
            None if !is_bound => Ok(false),
            Some(signature) if is_bound => {
                let signed: [&[u8]; 2] = [self.session, transmission.signed_tail];
                let valid = self.provider.ed25519_verify(&service.claim.key, &signed, signature);
                valid.then_some(true).ok_or(SmpError::Service)
            }
            _ => Err(SmpError::Service),
        }
    }

    /// What is before the session id in what is signed.
    fn prefix(&self, bound: bool) -> &[u8] {
        match self.service {
            Some(service) if bound => &service.claim.fingerprint,
            _ => &[],
        }
    }

    /// The verdict, or, for an Ed25519 signature, a provisional one until [`settle`](Self::settle).
    fn judge_one<'a>(
        &mut self,
        index: usize,
        transmission: &Transmission<'a, Command<'a>>,
        authority: &Authority,
        bound: bool,
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
                Command::SecureBySender(key)
                | Command::SecureByLink(key)
                | Command::WriteBlob { key, .. } => Some(*key),
                _ => return Verdict::Refuse(SmpError::Internal),
            },
            Authority::Key(key) => Some(*key),
            Authority::Service => self
                .service
                .filter(|service| transmission.entity.as_bytes() == service.id)
                .map(|service| AuthKey::Ed25519(service.claim.key)),
            Authority::AnyOf(keys) => return self.judge_any(transmission, keys, bound),
        };
        match transmission.authorization {
            Authorization::None => Verdict::UNAUTHORIZED,
            Authorization::Ed25519(signature) => {
                let (key, counts) = match key {
                    Some(AuthKey::Ed25519(key)) => (key, true),
                    _ => (DUMMY_ED25519, false),
                };
                let signed_tail = transmission.signed_tail;
                let pushed =
                    waiting.push(Waiting { request: index, key, counts, signature, signed_tail, bound });
                debug_assert!(pushed.is_ok());
                Verdict::UNAUTHORIZED
            }
            Authorization::Ed448(_) => match key {
                Some(key @ AuthKey::Ed448(_)) => {
                    Verdict::when(self.is_authorized_by(transmission, key, bound), key)
                }
                _ => {
                    let _ = self.is_authorized_by(transmission, AuthKey::Ed448(DUMMY_ED448), bound);
                    Verdict::UNAUTHORIZED
                }
            },
            Authorization::Authenticator(_) => match key {
                Some(key @ AuthKey::X25519(_)) => {
                    Verdict::when(self.is_authorized_by(transmission, key, bound), key)
                }
                _ => {
                    let _ = self.is_authorized_by(transmission, AuthKey::X25519(DUMMY_X25519), bound);
                    Verdict::UNAUTHORIZED
                }
            },
        }
    }

    /// The verdict on a command of one of several owners. Every key of the right kind is tried, whichever fits.
    fn judge_any(
        &mut self,
        transmission: &Transmission<'_, Command<'_>>,
        keys: &[AuthKey],
        bound: bool,
    ) -> Verdict {
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
                if self.is_authorized_by(transmission, *key, bound) {
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
            let _ = self.is_authorized_by(transmission, dummy, bound);
        }
        authorized_by.map_or(Verdict::UNAUTHORIZED, |key| Verdict::Execute(Some(key)))
    }

    /// Whether `key` authorized the command. The work depends on the authorization only.
    fn is_authorized_by(
        &mut self,
        transmission: &Transmission<'_, Command<'_>>,
        key: AuthKey,
        bound: bool,
    ) -> bool {
        let prefix: &[u8] = match self.service {
            Some(service) if bound => &service.claim.fingerprint,
            _ => &[],
        };
        let authorized: [&[u8]; 3] = [prefix, self.session, transmission.signed_tail];
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
        let messages: heapless::Vec<[&[u8]; 3], CHUNK_LENGTH> =
            waiting.iter().map(|one| [self.prefix(one.bound), self.session, one.signed_tail]).collect();
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
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    use super::*;
    use crate::crypto::Portable;
    use crate::keys::Ed25519Secret;
    use crate::session::service::ServiceClaim;
    use crate::wire::hello::ServiceRole;
    use crate::wire::identifier::Identifier;
    use crate::wire::transmission::{SessionLayout, write_head};

    #[test]
    fn the_fixed_keys_are_points_so_that_verifying_with_them_is_work() {
        assert!(ed448_goldilocks::VerifyingKey::from_bytes(&DUMMY_ED448.0).is_ok());
        assert!(ed25519_dalek::VerifyingKey::from_bytes(&DUMMY_ED25519.0).is_ok());
        let secret = X25519Secret::from_bytes([1; 32]);
        assert_eq!(Portable.x25519(&secret, &DUMMY_X25519).as_bytes(), &Portable.x25519_public(&secret).0);
    }

    const SESSION: [u8; 5] = [4, 9, 9, 9, 9];
    const SERVICE: [u8; 24] = [7; 24];
    const FINGERPRINT: [u8; 32] = [5; 32];

    fn queue_key() -> Ed25519Secret {
        Ed25519Secret::from_bytes([1; 32])
    }

    fn session_key() -> Ed25519Secret {
        Ed25519Secret::from_bytes([2; 32])
    }

    /// What a client sends: `key` signs, over the fingerprint too if `bound`; `service` adds its signature.
    fn transmission(
        command: &Command<'_>,
        entity: [u8; 24],
        key: &Ed25519Secret,
        bound: bool,
        service: Option<&Ed25519Secret>,
    ) -> Vec<u8> {
        let (correlation, entity) = (Identifier::from([3; 24]), Identifier::from(entity));
        let layout = SessionLayout { version: Version::SERVICES, session: &SESSION[1..] };
        let mut tail = Vec::new();
        tail.extend_from_slice(&[24]);
        tail.extend_from_slice(correlation.as_bytes());
        tail.extend_from_slice(&[24]);
        tail.extend_from_slice(entity.as_bytes());
        command.encode(layout.version, &mut tail).unwrap();
        let prefix: &[u8] = if bound { &FINGERPRINT } else { &[] };
        let authorization = Portable.ed25519_sign(key, &[prefix, &SESSION, &tail]);
        let signature = service.map(|key| Portable.ed25519_sign(key, &[&SESSION, &tail]));
        let mut out = Vec::new();
        let authorization = Authorization::Ed25519(&authorization);
        write_head(authorization, signature.as_ref(), layout, &correlation, &entity, &mut out).unwrap();
        command.encode(layout.version, &mut out).unwrap();
        out
    }

    /// What a session makes of it, in which the client is a service of this role, or none.
    fn verdict(role: Option<ServiceRole>, authority: Authority, bytes: &[u8]) -> Result<(), SmpError> {
        let layout = SessionLayout { version: Version::SERVICES, session: &SESSION[1..] };
        let transmission = Transmission::decode_command(bytes, layout).unwrap();
        let key = Portable.ed25519_public(&session_key());
        let claim = |role| ServiceClaim { role, fingerprint: FINGERPRINT, key };
        let service = role.map(|role| Box::new(SessionService { claim: claim(role), id: SERVICE }));
        let mut verifier = Verifier {
            provider: &Portable,
            session: &SESSION,
            secret: &X25519Secret::from_bytes([8; 32]),
            remembered: &mut SharedSecrets::new(1),
            service: service.as_deref(),
        };
        match verifier.judge(&[Request::Command { transmission, authority }]).pop() {
            Some(Verdict::Execute(_)) => Ok(()),
            Some(Verdict::Refuse(error)) => Err(error),
            None => panic!("no verdict"),
        }
    }

    fn queue_authority() -> Authority {
        Authority::Key(AuthKey::Ed25519(Portable.ed25519_public(&queue_key())))
    }

    #[test]
    fn a_services_subscription_is_signed_twice_and_bound_to_its_certificate() {
        let nsub = |bound, service: Option<&Ed25519Secret>| {
            transmission(&Command::SubscribeNotifications, [6; 24], &queue_key(), bound, service)
        };
        let notifier = Some(ServiceRole::Notifier);
        let (own, other) = (session_key(), Ed25519Secret::from_bytes([3; 32]));
        assert_eq!(verdict(notifier, queue_authority(), &nsub(true, Some(&own))), Ok(()));
        assert_eq!(
            verdict(notifier, queue_authority(), &nsub(false, Some(&own))),
            Err(SmpError::Authorization)
        );
        for wrong in [nsub(true, None), nsub(false, None), nsub(true, Some(&other))] {
            assert_eq!(verdict(notifier, queue_authority(), &wrong), Err(SmpError::Service));
            // Whether the queue exists or not.
            assert_eq!(verdict(notifier, Authority::Unknown, &wrong), Err(SmpError::Service));
        }
        assert_eq!(
            verdict(notifier, Authority::Unknown, &nsub(true, Some(&own))),
            Err(SmpError::Authorization)
        );
        // Who is no service signs once.
        assert_eq!(verdict(None, queue_authority(), &nsub(false, None)), Ok(()));
        assert_eq!(verdict(None, queue_authority(), &nsub(true, None)), Err(SmpError::Authorization));
        assert_eq!(verdict(None, queue_authority(), &nsub(true, Some(&own))), Err(SmpError::Service));
    }

    #[test]
    fn other_commands_of_services_have_no_second_signature() {
        let (messaging, own) = (Some(ServiceRole::Messaging), session_key());
        let command = |service| transmission(&Command::Delete, [6; 24], &queue_key(), false, service);
        assert_eq!(verdict(messaging, queue_authority(), &command(None)), Ok(()));
        assert_eq!(verdict(messaging, queue_authority(), &command(Some(&own))), Err(SmpError::Service));
    }

    #[test]
    fn a_service_does_what_its_role_is_for() {
        let prohibited = Err(SmpError::Command(CommandError::Prohibited));
        let own = session_key();
        let sub = transmission(&Command::Subscribe, [6; 24], &queue_key(), true, Some(&own));
        let nsub = transmission(&Command::SubscribeNotifications, [6; 24], &queue_key(), true, Some(&own));
        for (role, subscribes, notified) in [
            (ServiceRole::Messaging, Ok(()), prohibited.clone()),
            (ServiceRole::Notifier, prohibited.clone(), Ok(())),
            (ServiceRole::Proxy, prohibited.clone(), prohibited.clone()),
        ] {
            assert_eq!(verdict(Some(role), queue_authority(), &sub), subscribes);
            assert_eq!(verdict(Some(role), queue_authority(), &nsub), notified);
        }
    }

    #[test]
    fn the_key_of_the_session_subscribes_the_service_itself_and_no_other() {
        let notifier = Some(ServiceRole::Notifier);
        let nsubs = |entity, key: &Ed25519Secret| {
            transmission(&Command::SubscribeServiceNotifications, entity, key, false, None)
        };
        assert_eq!(verdict(notifier, Authority::Service, &nsubs(SERVICE, &session_key())), Ok(()));
        for (role, wrong) in [
            (notifier, nsubs([6; 24], &session_key())),
            (notifier, nsubs(SERVICE, &queue_key())),
            (None, nsubs(SERVICE, &session_key())),
        ] {
            assert_eq!(verdict(role, Authority::Service, &wrong), Err(SmpError::Authorization));
        }
    }
}
