//! Receiving: which chain a message is of, the keys up to it, its text. Only a message whose text is authentic changes
//! anything.

use alloc::vec::Vec;
use core::fmt;

use super::derivation::{self, ChainStep, MessageKey};
use super::header::{Header, Parts, Unopened};
use super::initial_keys::OwnKey;
use super::skipped::{MAX_AHEAD, SkippedChange, SkippedId, SkippedKey, SkippedKeys};
use super::state::{Chain, KemState, KemStep, Ratchet};
use crate::crypto::padding;
use crate::crypto::provider::Provider;
use crate::crypto::{ratchet_aead, x448};
use crate::entropy::Entropy;
use crate::wire::links::ratchet_parameters::{KEM_VERSION, KemParameters};

/// Why a message cannot be read. The ratchet and the kept keys are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecryptError {
    /// It has not the form of a ratchet's message.
    Malformed,
    /// No key that this side has opens its header: it is forged, or the two ratchets have come apart (one side was
    /// restored from an old copy, say). It may also be of an earlier chain that was read completely and is forgotten:
    /// an agent compares the hash of the message with those that it read before it worries anybody.
    ForgedHeader,
    /// The header is the peer's own, but says what cannot be.
    Header,
    /// It is the last message of its chain once more.
    Duplicate,
    /// It is of the current chain and was read before, or its key is no longer kept: so many came after it.
    Old {
        /// Messages between it and the last one.
        behind: u32,
    },
    /// It is of an earlier chain and was read before, or its key is no longer kept.
    OldChain,
    /// More than [`MAX_AHEAD`] messages are missing before it.
    TooFarAhead {
        /// How many are missing.
        missing: u32,
    },
    /// The header is the peer's own, the text is not: it was changed on the way.
    ForgedText,
    /// The text is the peer's own, but not padded as it must be.
    Padding,
    /// The header has a post-quantum secret that this side has no key for.
    Kem,
}

impl DecryptError {
    /// Whether this can be a message that was delivered twice, which is no reason to worry anybody.
    #[must_use]
    pub const fn may_be_repeated(&self) -> bool {
        matches!(self, Self::Duplicate | Self::Old { .. } | Self::OldChain)
    }
}

impl fmt::Display for DecryptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => formatter.write_str("the message is not encrypted by a double ratchet"),
            Self::ForgedHeader => formatter.write_str(
                "the message is forged, or the two sides have lost each other's keys: synchronize the connection",
            ),
            Self::Header => formatter.write_str("the other side encrypted a header that makes no sense"),
            Self::Duplicate => formatter.write_str("the message was received before"),
            Self::Old { behind } => write!(
                formatter,
                "the message was received before, or is too late: {behind} others came in between"
            ),
            Self::OldChain => formatter.write_str("the message was received before, or is too late"),
            Self::TooFarAhead { missing } => write!(
                formatter,
                "{missing} messages before this one are missing, more than {MAX_AHEAD}: synchronize the connection"
            ),
            Self::ForgedText => formatter.write_str("the message was changed on its way"),
            Self::Padding => formatter.write_str("the other side padded the message wrongly"),
            Self::Kem => formatter.write_str(
                "the message needs a post-quantum key that this side does not have: synchronize the connection",
            ),
        }
    }
}

impl core::error::Error for DecryptError {}

/// A message that was read.
#[derive(Debug)]
pub struct Decrypted<'m> {
    /// The text, in the message's buffer.
    pub text: &'m mut [u8],
    /// What has to be persisted besides the ratchet.
    pub skipped: SkippedChange,
}

/// Whose header it is.
enum Found {
    /// A message of the current chain.
    Current,
    /// The first that comes of the peer's next chain.
    Next,
    /// A late message of this earlier chain.
    Earlier(u64),
}

impl Ratchet {
    /// Reads a message, in its own buffer, and moves the ratchet and the kept keys on. Persist both (the ratchet, and
    /// [`Decrypted::skipped`]) before the text is shown or acknowledged.
    ///
    /// Takes a private key from `entropy` when the peer's chain is a new one. Work is bounded: at most twice
    /// [`MAX_AHEAD`] steps of HKDF and 3 of X448 for an authentic header; a forged one costs an attempt for each chain of
    /// which keys are kept.
    ///
    /// # Errors
    /// [`DecryptError`]: ratchet and kept keys are unchanged, `message` is unspecified.
    pub fn decrypt<'m>(
        &mut self,
        provider: &dyn Provider,
        skipped: &mut SkippedKeys,
        entropy: &mut (impl Entropy + ?Sized),
        message: &'m mut [u8],
    ) -> Result<Decrypted<'m>, DecryptError> {
        let parts = Parts::of(message).ok_or(DecryptError::Malformed)?;
        let (found, header) = self.find(skipped, &parts)?;
        let chain = match found {
            Found::Next => {
                let mut entropy = entropy;
                return self.read_new(provider, skipped, &mut entropy, &header, true, parts);
            }
            Found::Current if header.number >= self.received => {
                let mut entropy = entropy;
                return self.read_new(provider, skipped, &mut entropy, &header, false, parts);
            }
            Found::Current => self.receiving_chains,
            Found::Earlier(chain) => chain,
        };
        let id = SkippedId { chain, number: header.number };
        let Some(key) = skipped.get(id) else {
            return Err(match found {
                Found::Earlier(_) => DecryptError::OldChain,
                _ => match self.received.saturating_sub(header.number).saturating_sub(1) {
                    0 => DecryptError::Duplicate,
                    behind => DecryptError::Old { behind },
                },
            });
        };
        let text = open_text(&self.associated, &key.message, parts)?;
        Ok(Decrypted { text, skipped: skipped.remove(id) })
    }

    /// Tries the keys of headers, the likely ones first.
    fn find(&self, skipped: &SkippedKeys, parts: &Parts<'_>) -> Result<(Found, Header), DecryptError> {
        let current = self.receiving.iter().map(|chain| (Found::Current, &chain.header));
        let next = core::iter::once((Found::Next, &self.next_receiving_header));
        let earlier = skipped.chains().filter(|key| key.id().chain != self.receiving_chains);
        let earlier = earlier.map(|key| (Found::Earlier(key.id().chain), &key.header));
        for (found, key) in current.chain(next).chain(earlier) {
            match parts.header.open(key, &self.associated) {
                Ok(header) => return Ok((found, header)),
                Err(Unopened::OtherKey) => {}
                Err(Unopened::Unreadable) => return Err(DecryptError::Header),
            }
        }
        Err(DecryptError::ForgedHeader)
    }

    /// Reads a message that is not late: all is tried on a copy.
    fn read_new<'m>(
        &mut self,
        provider: &dyn Provider,
        skipped: &mut SkippedKeys,
        entropy: &mut dyn Entropy,
        header: &Header,
        new_chain: bool,
        parts: Parts<'m>,
    ) -> Result<Decrypted<'m>, DecryptError> {
        let mut moved = self.duplicate();
        moved.version = moved.version.max(header.newest.min(moved.newest));
        let mut added = Vec::new();
        if new_chain {
            // The peer says how long its last chain was.
            moved.skip_to(provider, header.previous, &mut added)?;
            moved.step(provider, entropy, header)?;
        }
        moved.skip_to(provider, header.number, &mut added)?;
        let received = moved.received.checked_add(1).ok_or(DecryptError::Header)?;
        let Some(chain) = &mut moved.receiving else { return Err(DecryptError::Header) };
        let ChainStep { next, message, .. } = derivation::chain_step(provider, &chain.key);
        chain.key = next;
        moved.received = received;
        let text = open_text(&moved.associated, &message, parts)?;
        *self = moved;
        Ok(Decrypted { text, skipped: skipped.add(added) })
    }

    /// Makes the keys of messages of the receiving chain that did not come, up to number `until`.
    fn skip_to(
        &mut self,
        provider: &dyn Provider,
        until: u32,
        added: &mut Vec<SkippedKey>,
    ) -> Result<(), DecryptError> {
        let Some(chain) = &mut self.receiving else { return Ok(()) };
        // Only the length of a finished chain can be less than what was received of it, and only when the peer errs.
        let missing = until.checked_sub(self.received).ok_or(DecryptError::Header)?;
        if missing > MAX_AHEAD {
            return Err(DecryptError::TooFarAhead { missing });
        }
        for number in self.received..until {
            let ChainStep { next, message, .. } = derivation::chain_step(provider, &chain.key);
            chain.key = next;
            let id = SkippedId { chain: self.receiving_chains, number };
            added.push(SkippedKey::new(id, chain.header.clone(), message));
        }
        self.received = until;
        Ok(())
    }

    /// The step: the peer's new key agrees with this side's, and again with a new key of this side.
    fn step(
        &mut self,
        provider: &dyn Provider,
        entropy: &mut dyn Entropy,
        header: &Header,
    ) -> Result<(), DecryptError> {
        let kem = self.step_kem(provider, entropy, header.kem.as_ref())?;
        let received = derivation::root_step(
            provider,
            &self.root,
            &x448::agree(&self.own.secret, &header.key),
            kem.receiving.as_ref(),
        );
        let own = OwnKey::generate(entropy);
        let sent = derivation::root_step(
            provider,
            &received.root,
            &x448::agree(&own.secret, &header.key),
            kem.sending.as_ref(),
        );
        self.own = own;
        self.root = sent.root;
        let header_key = core::mem::replace(&mut self.next_sending_header, sent.next_header);
        self.sending = Some(Chain { key: sent.chain, header: header_key });
        let header_key = core::mem::replace(&mut self.next_receiving_header, received.next_header);
        self.receiving = Some(Chain { key: received.chain, header: header_key });
        self.sent_before = core::mem::take(&mut self.sent);
        self.received = 0;
        self.receiving_chains = self.receiving_chains.saturating_add(1);
        let enabled = kem.sending.is_some() || kem.receiving.is_some() || kem.own.is_some();
        self.kem = KemState {
            supported: self.kem.supported || enabled && self.version >= KEM_VERSION,
            enabled,
            sending: kem.sending.is_some(),
            receiving: kem.receiving.is_some(),
            own: kem.own,
            ciphertext: kem.ciphertext,
        };
        Ok(())
    }

    /// What the KEM adds to the step. Without an algorithm, or when it is off, the peer's proposals are not taken up.
    fn step_kem(
        &self,
        provider: &dyn Provider,
        entropy: &mut dyn Entropy,
        offered: Option<&KemParameters>,
    ) -> Result<KemStep, DecryptError> {
        let algorithm = provider.key_encapsulation();
        let enabled = algorithm.filter(|_| self.kem.enabled && self.version >= KEM_VERSION);
        let (receiving, peer) = match offered {
            None => {
                let proposal = enabled.filter(|_| self.kem.own.is_none());
                let own = proposal.map(|algorithm| algorithm.generate(entropy));
                return Ok(KemStep { own, ..KemStep::default() });
            }
            Some(KemParameters::Proposed(key)) => (None, key),
            Some(KemParameters::Accepted { ciphertext, key }) => {
                let (Some(algorithm), Some(own)) = (algorithm, &self.kem.own) else {
                    return Err(DecryptError::Kem);
                };
                (Some(algorithm.decapsulate(&own.secret, ciphertext)), key)
            }
        };
        let Some(algorithm) = enabled else {
            return Ok(KemStep { receiving, ..KemStep::default() });
        };
        let (ciphertext, sending) = algorithm.encapsulate(entropy, peer);
        let own = algorithm.generate(entropy);
        Ok(KemStep { receiving, sending: Some(sending), own: Some(own), ciphertext: Some(ciphertext) })
    }
}

/// Opens the text of a message, in its place.
fn open_text<'m>(
    associated: &[u8],
    key: &MessageKey,
    parts: Parts<'m>,
) -> Result<&'m mut [u8], DecryptError> {
    let associated = [associated, parts.header_bytes].concat();
    ratchet_aead::open(&key.key, &key.iv, &associated, parts.tag, parts.text)
        .map_err(|_| DecryptError::ForgedText)?;
    padding::unpad_mut(parts.text).map_err(|_| DecryptError::Padding)
}
