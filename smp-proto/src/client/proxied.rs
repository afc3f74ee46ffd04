//! Commands to a relay that shall not see who sends them: through another relay, its proxy (WIRE-FACTS 10, steps 1 to 3 and 6).
//!
//! A [`ProxiedRelay`] is what `PKEY` says, checked: the proxy cannot put another relay in the place of the wanted one, for
//! the certificates and the key that it shows must lead to the fingerprint in the address. It is good for as long as
//! the proxy keeps its connection to that relay; after that the proxy answers `NO_SESSION`, and is asked again.
//!
//! Each command is sealed with a key of its own: neither the proxy nor the relay can tell whether two commands come from
//! one client.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;

use core::fmt;

use bytes::Bytes;
use subtle::ConstantTimeEq;

use super::command::ClientCommand;
use crate::crypto::certificates::{self, ChainRoles, InvalidChain};
use crate::crypto::proxy_layers::{self, INNER_SEALED_LENGTH};
use crate::crypto::signed_key::SignedKey;
use crate::crypto::{BoxKey, Nonce, Provider, TAG_LENGTH, nacl_box, padding};
use crate::entropy::Entropy;
use crate::keys::{PublicKey, SignatureKey, X25519Public, X25519Secret};
use crate::session::client::{AddError, write_alone};
use crate::session::{OpenedBlock, SessionId};
use crate::time::UnixTime;
use crate::wire::address::ServerAddress;
use crate::wire::hello::{CertificateChain, SignedKey as SignedKeyBytes};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::transmission::SessionLayout;
use crate::wire::version::{Version, VersionRange};

/// A relay that can be reached through the relay of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxiedRelay {
    session: SessionId,
    name: Identifier,
    version: Version,
    key: X25519Public,
}

/// Why what a proxy shows is not the relay that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTheRelay {
    /// The certificates are not those of the address: the proxy is mistaken, or in between.
    WrongFingerprint,
    /// The certificates do not vouch for each other.
    InvalidChain(InvalidChain),
    /// The session key is not signed by the relay.
    KeyNotVerified,
    /// The relay and this client have no version in common that can be forwarded.
    NoCommonVersion(VersionRange),
    /// The session has no id.
    NoSession,
}

impl fmt::Display for NotTheRelay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongFingerprint => formatter.write_str(
                "the proxy shows another relay than the address says: check the address, or do not use this proxy",
            ),
            Self::InvalidChain(error) => write!(formatter, "the relay behind the proxy: {error}"),
            Self::KeyNotVerified => formatter
                .write_str("the relay behind the proxy did not sign the key that the proxy shows: do not use this proxy"),
            Self::NoCommonVersion(offered) => write!(
                formatter,
                "the relay behind the proxy speaks versions {} to {}, and this client none of them",
                offered.min().0,
                offered.max().0
            ),
            Self::NoSession => formatter.write_str("the proxy gave no name to its session with the relay"),
        }
    }
}

impl core::error::Error for NotTheRelay {}

impl ProxiedRelay {
    /// Checks what a proxy shows of `relay`.
    ///
    /// # Errors
    /// [`NotTheRelay`].
    pub(super) fn check(
        provider: &dyn Provider,
        relay: &ServerAddress,
        shown: (&Identifier, VersionRange, CertificateChain<'_>, SignedKeyBytes<'_>),
        spoken: VersionRange,
        now: UnixTime,
    ) -> Result<Self, NotTheRelay> {
        let (name, versions, chain, key) = shown;
        let certificates: heapless::Vec<&[u8], 4> = chain.certificates().take(4).collect();
        if chain.len() != certificates.len() {
            return Err(NotTheRelay::WrongFingerprint);
        }
        let signer = signer(provider, relay, &certificates, now)?;
        let signed = SignedKey::from_der(key.0).ok_or(NotTheRelay::KeyNotVerified)?;
        let key = match signed.key {
            PublicKey::X25519(key) if signed.verify(provider, &signer) => key,
            _ => return Err(NotTheRelay::KeyNotVerified),
        };
        let common = versions.intersection(spoken).filter(|common| common.max() >= Version::PROXY);
        let version = common.ok_or(NotTheRelay::NoCommonVersion(versions))?.max();
        let session = SessionId::new(name.as_bytes()).ok_or(NotTheRelay::NoSession)?;
        Ok(Self { session, name: name.clone(), version, key })
    }

    /// The version at which the relay processes what is forwarded.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The proxy's name for its session with the relay.
    #[must_use]
    pub const fn session(&self) -> &Identifier {
        &self.name
    }

    pub(super) const fn key(&self) -> &X25519Public {
        &self.key
    }

    pub(super) fn layout(&self) -> SessionLayout<'_> {
        SessionLayout { version: self.version, session: self.session.as_bytes() }
    }
}

impl fmt::Debug for ProxiedRelay {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProxiedRelay").field("version", &self.version).finish_non_exhaustive()
    }
}

/// The key with which `relay` signs its own keys: that of the leaf of these certificates, if they lead to the fingerprint in
/// its address, and vouch for each other now.
///
/// # Errors
/// [`NotTheRelay`].
pub(super) fn signer(
    provider: &dyn Provider,
    relay: &ServerAddress,
    certificates: &[&[u8]],
    now: UnixTime,
) -> Result<SignatureKey, NotTheRelay> {
    let Ok(ChainRoles::Chain { leaf, identity, .. }) = ChainRoles::of(certificates) else {
        return Err(NotTheRelay::WrongFingerprint);
    };
    let found = certificates::fingerprint(identity);
    if !bool::from(found.as_slice().ct_eq(&relay.fingerprint)) {
        return Err(NotTheRelay::WrongFingerprint);
    }
    certificates::verify_chain(provider, certificates, now).map_err(NotTheRelay::InvalidChain)?;
    certificates::public_key(leaf).ok_or(NotTheRelay::KeyNotVerified)
}

/// A command for a [`ProxiedRelay`].
#[derive(Clone, Debug)]
pub struct Through {
    /// The relay.
    pub relay: Arc<ProxiedRelay>,
    /// What it shall do: `SEND`, `SKEY`, `LKEY`, `LGET` or `READ`.
    pub command: ClientCommand,
}

/// A sealed command, and what its answer is opened with.
pub(super) struct Sealed {
    pub(super) ephemeral: X25519Public,
    pub(super) bytes: Box<[u8]>,
    pub(super) answer_key: BoxKey,
}

impl Through {
    /// Seals the command with a fresh key.
    pub(super) fn seal(
        &self,
        provider: &'static dyn Provider,
        correlation: &[u8; IDENTIFIER_LENGTH],
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Sealed, AddError> {
        let secret = X25519Secret::generate(entropy);
        let answer_key = BoxKey::agree(provider, &secret, &self.relay.key);
        let mut bytes = vec![0; INNER_SEALED_LENGTH].into_boxed_slice();
        let content = bytes.get_mut(TAG_LENGTH + padding::LENGTH_BYTES..).ok_or(AddError::TooLarge)?;
        let length = write_alone(
            provider,
            (&self.relay.session, self.relay.version, self.relay.key),
            &Identifier::from(*correlation),
            &self.command.entity,
            &self.command.as_command(),
            self.command.key.as_deref(),
            content,
        )?;
        let nonce = Nonce::from_id(correlation);
        nacl_box::seal_padded_in_place(provider, &answer_key, &nonce, &mut bytes, length)
            .map_err(|_| AddError::TooLarge)?;
        Ok(Sealed { ephemeral: provider.x25519_public(&secret), bytes, answer_key })
    }
}

/// Opens the answer to a forwarded command: a batch, in a block of its own.
pub(super) fn open_answer(
    provider: &dyn Provider,
    key: &BoxKey,
    correlation: &Identifier,
    sealed: &[u8],
) -> Option<OpenedBlock> {
    let mut buffer = bytes::BytesMut::from(sealed);
    let text = proxy_layers::open_response(provider, key, correlation.as_bytes(), &mut buffer).ok()?;
    let length = text.len();
    let block: Bytes = buffer.freeze();
    Some(OpenedBlock::part_of(block, TAG_LENGTH + padding::LENGTH_BYTES, length))
}
