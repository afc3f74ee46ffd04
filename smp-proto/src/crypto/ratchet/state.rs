//! The state of one party, and how it begins.

use core::fmt;

use super::agreement::{self, ASSOCIATED_LENGTH, Agreement, AgreementError, agreed_version};
use super::derivation::{self, ChainKey, HeaderKey, RootKey};
use super::initial_keys::{InitialKeys, OwnKey};
use crate::crypto::key_encapsulation::{KemCiphertext, KemKeyPair, KemShared};
use crate::crypto::provider::Provider;
use crate::crypto::x448;
use crate::entropy::Entropy;
use crate::wire::links::ratchet_parameters::{KEM_VERSION, RatchetParameters};
use crate::wire::version::{Version, VersionRange};

/// One chain: its messages, one after the other.
#[derive(Clone)]
pub(super) struct Chain {
    pub(super) key: ChainKey,
    pub(super) header: HeaderKey,
}

/// What there is of the KEM.
#[derive(Clone, Default)]
pub(super) struct KemState {
    /// The keys that the peer can encapsulate to.
    pub(super) own: Option<KemKeyPair>,
    /// What this side encapsulated for its sending chain.
    pub(super) ciphertext: Option<KemCiphertext>,
    /// Headers are long. Stays on.
    pub(super) supported: bool,
    /// The next step will use it, if the peer does too.
    pub(super) enabled: bool,
    pub(super) sending: bool,
    pub(super) receiving: bool,
}

/// The double ratchet of one party of a connection: less than 600 bytes, wiped on drop.
///
/// It cannot be cloned: two copies that both send would use a key twice. To go back (after a failed write, say), read the
/// [stored form](Self::from_bytes) again.
pub struct Ratchet {
    /// The version now; goes up when the peer shows a newer one.
    pub(super) version: Version,
    /// The newest that this side speaks.
    pub(super) newest: Version,
    pub(super) associated: [u8; ASSOCIATED_LENGTH],
    /// The key in the headers of the sending chain; agrees with the next key of the peer.
    pub(super) own: OwnKey,
    pub(super) root: RootKey,
    /// Absent until the initiating party got its first message.
    pub(super) sending: Option<Chain>,
    /// Absent until the first message.
    pub(super) receiving: Option<Chain>,
    pub(super) next_sending_header: HeaderKey,
    pub(super) next_receiving_header: HeaderKey,
    /// Messages sent in this chain: the number of the next one.
    pub(super) sent: u32,
    /// Messages received or skipped in this chain: the number of the next one that is expected.
    pub(super) received: u32,
    /// Messages sent in the chain before.
    pub(super) sent_before: u32,
    /// How many receiving chains there were: names the current one.
    pub(super) receiving_chains: u64,
    pub(super) kem: KemState,
}

impl Ratchet {
    /// The ratchet of the party who joins: it can send at once.
    ///
    /// `own` are the keys of which the peer gets (or got) the public half, at [`agreed_version`]; `supported` what this side
    /// speaks, usually [`SUPPORTED_VERSIONS`](super::SUPPORTED_VERSIONS). Takes one more private key from `entropy`.
    ///
    /// # Errors
    /// [`AgreementError`].
    pub fn join(
        provider: &dyn Provider,
        own: &InitialKeys,
        peer: &RatchetParameters,
        supported: VersionRange,
        entropy: &mut (impl Entropy + ?Sized),
    ) -> Result<Self, AgreementError> {
        let version = agreed_version(supported, peer.versions)?;
        let Agreement { associated, keys, kem } = agreement::join(provider, version, own, peer)?;
        let [_, peer_key] = &peer.keys;
        let key = OwnKey::generate(entropy);
        let step = derivation::root_step(
            provider,
            &keys.root,
            &x448::agree(&key.secret, peer_key),
            kem.shared.as_ref(),
        );
        let with_kem = kem.own.is_some();
        Ok(Self {
            version,
            newest: supported.max(),
            associated,
            own: key,
            root: step.root,
            sending: Some(Chain { key: step.chain, header: keys.header }),
            receiving: None,
            next_sending_header: step.next_header,
            next_receiving_header: keys.next_header,
            sent: 0,
            received: 0,
            sent_before: 0,
            receiving_chains: 0,
            kem: KemState {
                sending: kem.shared.is_some(),
                receiving: false,
                own: kem.own,
                ciphertext: kem.ciphertext,
                supported: with_kem,
                enabled: with_kem,
            },
        })
    }

    /// The ratchet of the party who shared the link: it can send when the peer's first message came.
    ///
    /// `peer` is what came with the confirmation: parameters of one version.
    ///
    /// # Errors
    /// [`AgreementError`].
    pub fn initiate(
        provider: &dyn Provider,
        own: &InitialKeys,
        peer: &RatchetParameters,
        supported: VersionRange,
    ) -> Result<Self, AgreementError> {
        let version = agreed_version(supported, peer.versions)?;
        let Agreement { associated, keys, kem } = agreement::initiate(provider, version, own, peer)?;
        let [_, key] = &own.keys;
        let with_kem = own.kem.is_some() && version >= KEM_VERSION;
        Ok(Self {
            version,
            newest: supported.max(),
            associated,
            own: key.clone(),
            root: keys.root,
            sending: None,
            receiving: None,
            next_sending_header: keys.next_header,
            next_receiving_header: keys.header,
            sent: 0,
            received: 0,
            sent_before: 0,
            receiving_chains: 0,
            kem: KemState { own: kem.own, supported: with_kem, enabled: with_kem, ..KemState::default() },
        })
    }

    /// Whether [`prepare`](Self::prepare) can work: always for the joining party, for the initiating party after its first
    /// message.
    #[must_use]
    pub const fn can_send(&self) -> bool {
        self.sending.is_some()
    }

    /// The version of the next message.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Says what this side speaks now: call it after loading a ratchet that an older program may have stored. A version in
    /// use is not given up.
    pub fn support(&mut self, newest: Version) {
        self.newest = newest.max(self.version);
    }

    /// Whether headers are long (2,346 bytes), so that texts must be padded to less.
    #[must_use]
    pub const fn has_long_headers(&self) -> bool {
        self.kem.supported && self.version.0 >= KEM_VERSION.0
    }

    /// Whether the chains are protected by a post-quantum secret: sending, receiving.
    #[must_use]
    pub const fn post_quantum(&self) -> (bool, bool) {
        (self.kem.sending, self.kem.receiving)
    }

    /// A copy to try a message on.
    pub(super) fn duplicate(&self) -> Self {
        Self {
            version: self.version,
            newest: self.newest,
            associated: self.associated,
            own: self.own.clone(),
            root: self.root.clone(),
            sending: self.sending.clone(),
            receiving: self.receiving.clone(),
            next_sending_header: self.next_sending_header.clone(),
            next_receiving_header: self.next_receiving_header.clone(),
            sent: self.sent,
            received: self.received,
            sent_before: self.sent_before,
            receiving_chains: self.receiving_chains,
            kem: self.kem.clone(),
        }
    }
}

/// What a step agrees on with the KEM.
#[derive(Default)]
pub(super) struct KemStep {
    pub(super) receiving: Option<KemShared>,
    pub(super) sending: Option<KemShared>,
    pub(super) own: Option<KemKeyPair>,
    pub(super) ciphertext: Option<KemCiphertext>,
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ratchet(..)")
    }
}
