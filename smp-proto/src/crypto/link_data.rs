//! What a relay keeps for a short link: sealed, opened, and verified (WIRE-FACTS 8.1, 8.2).
//!
//! A blob is a nonce and the box of a signed part, padded to one size. Whoever has the link can check everything: the
//! link's key is the hash of the fixed part, the root key in the fixed part signs that part, and the part that may change
//! is signed by the root key or by an owner whom a chain of signatures leads back to it.
//!
//! [`VerifiedFixedPart`] and [`VerifiedOwnedPart`] are made here only, and only from data that pass all of that: code that
//! takes them cannot be handed anything else. Nothing is decoded before its hash or signature holds, where that is
//! possible. A relay can still hide the data, or give an older state of the changeable part: neither can be seen.
//!
//! The work of a reader is bounded by the size of a blob: some 120 owners fit, and each is compared with those before.
//!
//! The caller brings a fresh nonce for every blob. Plaintexts and keys are wiped.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::link_keys::LinkKey;
use super::nacl_box::{self, BoxError, BoxKey, TAG_LENGTH};
use super::nonce::{NONCE_LENGTH, Nonce};
use super::padding::LENGTH_BYTES;
use super::provider::{ED25519_SIGNATURE_LENGTH, Provider};
use crate::keys::{Ed25519Public, Ed25519Secret, PublicKey};
use crate::wire::identifier::{IDENTIFIER_LENGTH, Identifier};
use crate::wire::links::connection_request::ConnectionRequest;
use crate::wire::links::link_data::{
    FIXED_PADDED_LENGTH, FixedLinkData, OWNED_PADDED_LENGTH, OwnedLinkData, OwnerAuthorization,
    SIGNATURE_OVERHEAD,
};
use crate::wire::links::short_link::ShortLinkTarget;
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::version::VersionRange;

/// The length of the fixed part as a relay keeps it: 2,048 bytes.
pub const FIXED_BLOB_LENGTH: usize = NONCE_LENGTH + TAG_LENGTH + FIXED_PADDED_LENGTH;
/// The length of the owner's part as a relay keeps it: 13,824 bytes.
pub const OWNED_BLOB_LENGTH: usize = NONCE_LENGTH + TAG_LENGTH + OWNED_PADDED_LENGTH;

/// One of the two parts of link data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPart {
    /// The part whose hash is the link's key.
    Fixed,
    /// The part that owners may change.
    Owned,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkPurpose {
    /// For one person, once.
    Invitation,
    /// An address, for anybody.
    Contact,
}

/// What is wrong with link data. Owners are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkDataError {
    /// It is not encrypted with the key that follows from the link, or was changed.
    NotOpened(LinkPart),
    /// It was decrypted, but has another form than this version knows.
    Malformed(LinkPart),
    /// The fixed part is not the one that the link was made for: its hash is not the link's key.
    OtherLink,
    /// It is that of an invitation, and the link is an address, or the other way round.
    Purpose(LinkPart),
    /// The signature is not by the key that must have signed it.
    Signature(LinkPart),
    /// An owner is authorized neither by the root key nor by an owner before them.
    OwnerNotAuthorized(usize),
    /// An owner's key is the root key.
    OwnerIsRoot(usize),
    /// An owner has the key or the id of an owner before them.
    OwnerRepeated(usize),
    /// Only when writing: it does not fit.
    TooLong(LinkPart),
}

impl fmt::Display for LinkPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fixed => "the fixed part of the link's data",
            Self::Owned => "the changeable part of the link's data",
        })
    }
}

impl fmt::Display for LinkPurpose {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Invitation => "an invitation",
            Self::Contact => "an address",
        })
    }
}

impl fmt::Display for LinkDataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let person = |index: &usize| index.saturating_add(1);
        match self {
            Self::NotOpened(part) => write!(
                formatter,
                "{part} cannot be decrypted with this link: the link was changed, or the relay gave something else"
            ),
            Self::Malformed(part) => {
                write!(formatter, "{part} has an unknown form: a newer version may understand it")
            }
            Self::OtherLink => formatter.write_str(
                "the data are not those that the link was made for (their hash is not the link's key): do not connect, \
                 the relay may be hostile",
            ),
            Self::Purpose(part) => {
                write!(formatter, "{part} is of another kind than the link (invitation or address)")
            }
            Self::Signature(part) => {
                write!(formatter, "{part} is not signed by an owner of the link: do not trust it")
            }
            Self::OwnerNotAuthorized(index) => {
                let person = person(index);
                write!(formatter, "owner {person} of the link is authorized by no owner before: do not trust it")
            }
            Self::OwnerIsRoot(index) => {
                write!(formatter, "owner {} of the link has the link's own root key", person(index))
            }
            Self::OwnerRepeated(index) => {
                let person = person(index);
                write!(formatter, "owner {person} of the link has the key or the id of an owner before")
            }
            Self::TooLong(part) => {
                let most = part.padded_length() - SIGNATURE_OVERHEAD - LENGTH_BYTES;
                write!(formatter, "{part} does not fit: it may have {most} bytes, encoded")
            }
        }
    }
}

impl core::error::Error for LinkDataError {}

impl LinkPart {
    /// What the signed part is padded to.
    const fn padded_length(self) -> usize {
        match self {
            Self::Fixed => FIXED_PADDED_LENGTH,
            Self::Owned => OWNED_PADDED_LENGTH,
        }
    }

    /// The length of its blob: 2,048 or 13,824 bytes.
    #[must_use]
    pub const fn blob_length(self) -> usize {
        NONCE_LENGTH + TAG_LENGTH + self.padded_length()
    }
}

impl LinkPurpose {
    /// What a short link is for.
    #[must_use]
    pub const fn of_target(target: &ShortLinkTarget) -> Self {
        match target {
            ShortLinkTarget::Invitation { .. } => Self::Invitation,
            ShortLinkTarget::Contact { .. } => Self::Contact,
        }
    }

    const fn of_request(request: &ConnectionRequest) -> Self {
        match request {
            ConnectionRequest::Invitation(..) => Self::Invitation,
            ConnectionRequest::Contact(_) => Self::Contact,
        }
    }

    const fn of_owned(data: &OwnedLinkData) -> Self {
        match data {
            OwnedLinkData::Invitation { .. } => Self::Invitation,
            OwnedLinkData::Contact { .. } => Self::Contact,
        }
    }

    /// The key that both parts are boxed with.
    fn box_key(self, key: &LinkKey, provider: &dyn Provider) -> BoxKey {
        match self {
            Self::Invitation => key.invitation(provider),
            Self::Contact => key.contact(provider).1,
        }
    }
}

/// What a link was made for: its hash is the link's key, and it is signed by the root key that it names.
#[derive(Clone, Debug)]
pub struct VerifiedFixedPart {
    key: LinkKey,
    data: FixedLinkData,
}

impl VerifiedFixedPart {
    /// Makes a link to a connection request: the fixed part, and the blob of it for the relay.
    ///
    /// # Errors
    /// [`LinkDataError::TooLong`].
    pub fn create(
        provider: &dyn Provider,
        root: &Ed25519Secret,
        versions: VersionRange,
        request: ConnectionRequest,
        entity: Option<Identifier>,
        nonce: &Nonce,
    ) -> Result<(Self, Vec<u8>), LinkDataError> {
        let data = FixedLinkData { versions, root_key: provider.ed25519_public(root), request, entity };
        let mut bytes = Vec::new();
        data.encode(&mut bytes).map_err(|Full| LinkDataError::TooLong(LinkPart::Fixed))?;
        let key = LinkKey::of(&bytes);
        let box_key = LinkPurpose::of_request(&data.request).box_key(&key, provider);
        let blob = seal_part(provider, &box_key, root, LinkPart::Fixed, &bytes, nonce)?;
        Ok((Self { key, data }, blob))
    }

    /// Opens and verifies what a relay keeps for a link.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(
        provider: &dyn Provider,
        purpose: LinkPurpose,
        key: LinkKey,
        blob: &[u8],
    ) -> Result<Self, LinkDataError> {
        const PART: LinkPart = LinkPart::Fixed;
        let opened = OpenedPart::open(provider, &purpose.box_key(&key, provider), PART, blob)?;
        let (signature, bytes) = opened.signed(PART)?;
        let hash = LinkKey::of(bytes);
        if !bool::from(hash.as_bytes().ct_eq(key.as_bytes())) {
            return Err(LinkDataError::OtherLink);
        }
        let data = FixedLinkData::decode(bytes).ok_or(LinkDataError::Malformed(PART))?;
        if LinkPurpose::of_request(&data.request) != purpose {
            return Err(LinkDataError::Purpose(PART));
        }
        if !provider.ed25519_verify(&data.root_key, &[bytes], signature) {
            return Err(LinkDataError::Signature(PART));
        }
        Ok(Self { key, data })
    }

    /// The key of the link.
    #[must_use]
    pub const fn key(&self) -> &LinkKey {
        &self.key
    }

    /// What the link leads to.
    #[must_use]
    pub const fn data(&self) -> &FixedLinkData {
        &self.data
    }

    /// What the link is for.
    #[must_use]
    pub const fn purpose(&self) -> LinkPurpose {
        LinkPurpose::of_request(&self.data.request)
    }

    /// Where a relay keeps the data of an address: 24 bytes. The relay chooses that of an invitation.
    #[must_use]
    pub fn contact_id(&self, provider: &dyn Provider) -> Option<[u8; IDENTIFIER_LENGTH]> {
        (self.purpose() == LinkPurpose::Contact).then(|| self.key.contact(provider).0)
    }

    /// Signs and seals the changeable part, for the relay. What readers would refuse is not written.
    ///
    /// # Errors
    /// What readers would say: [`LinkDataError::Signature`] when the signer is neither root nor owner.
    pub fn seal_owned(
        &self,
        provider: &dyn Provider,
        signer: &Ed25519Secret,
        data: &OwnedLinkData,
        nonce: &Nonce,
    ) -> Result<Vec<u8>, LinkDataError> {
        const PART: LinkPart = LinkPart::Owned;
        let owners = self.owners(provider, data)?;
        self.signer(owners, |key| *key == provider.ed25519_public(signer))?;
        let mut bytes = Zeroizing::new(Vec::new());
        data.encode(&mut *bytes).map_err(|Full| LinkDataError::TooLong(PART))?;
        seal_part(provider, &self.box_key(provider), signer, PART, &bytes, nonce)
    }

    /// Opens and verifies the changeable part of the same link.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open_owned(
        &self,
        provider: &dyn Provider,
        blob: &[u8],
    ) -> Result<VerifiedOwnedPart, LinkDataError> {
        const PART: LinkPart = LinkPart::Owned;
        let opened = OpenedPart::open(provider, &self.box_key(provider), PART, blob)?;
        let (signature, bytes) = opened.signed(PART)?;
        let data = OwnedLinkData::decode(bytes).ok_or(LinkDataError::Malformed(PART))?;
        let owners = self.owners(provider, &data)?;
        let signer = self.signer(owners, |key| provider.ed25519_verify(key, &[bytes], signature))?;
        Ok(VerifiedOwnedPart { data, signer })
    }

    fn box_key(&self, provider: &dyn Provider) -> BoxKey {
        self.purpose().box_key(&self.key, provider)
    }

    /// The owners, when every one of them is authorized by the root key or by one before, and is not one of those.
    fn owners<'a>(
        &self,
        provider: &dyn Provider,
        data: &'a OwnedLinkData,
    ) -> Result<&'a [OwnerAuthorization], LinkDataError> {
        if LinkPurpose::of_owned(data) != self.purpose() {
            return Err(LinkDataError::Purpose(LinkPart::Owned));
        }
        let OwnedLinkData::Contact { owners, .. } = data else { return Ok(&[]) };
        let root = &self.data.root_key;
        for (index, owner) in owners.iter().enumerate() {
            let before = owners.get(..index).unwrap_or_default();
            if owner.key == *root {
                return Err(LinkDataError::OwnerIsRoot(index));
            }
            if before.iter().any(|other| other.key == owner.key || other.id == owner.id) {
                return Err(LinkDataError::OwnerRepeated(index));
            }
            let key = PublicKey::from(owner.key).to_der();
            let authorized_by = |signer: &Ed25519Public| {
                provider.ed25519_verify(signer, &[owner.id.as_bytes(), &key], &owner.signature)
            };
            if !authorized_by(root) && !before.iter().any(|other| authorized_by(&other.key)) {
                return Err(LinkDataError::OwnerNotAuthorized(index));
            }
        }
        Ok(owners)
    }

    /// Who of root and owners has signed.
    fn signer(
        &self,
        owners: &[OwnerAuthorization],
        has_signed: impl Fn(&Ed25519Public) -> bool,
    ) -> Result<LinkSigner, LinkDataError> {
        if has_signed(&self.data.root_key) {
            return Ok(LinkSigner::Root);
        }
        let owner = owners.iter().position(|owner| has_signed(&owner.key));
        owner.map(LinkSigner::Owner).ok_or(LinkDataError::Signature(LinkPart::Owned))
    }
}

/// Who has signed the changeable part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkSigner {
    /// Who made the link.
    Root,
    /// This owner, counted from 0.
    Owner(usize),
}

/// What the owners of a link say now: signed by the root key, or by an owner whom signatures lead back to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedOwnedPart {
    data: OwnedLinkData,
    signer: LinkSigner,
}

impl VerifiedOwnedPart {
    /// What they say.
    #[must_use]
    pub const fn data(&self) -> &OwnedLinkData {
        &self.data
    }

    /// Who has signed it.
    #[must_use]
    pub const fn signer(&self) -> LinkSigner {
        self.signer
    }
}

/// All that is behind a link, verified.
#[derive(Clone, Debug)]
pub struct VerifiedLinkData {
    fixed: VerifiedFixedPart,
    owned: VerifiedOwnedPart,
}

impl VerifiedLinkData {
    /// Opens and verifies both parts, as a relay gives them in `LNK`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn open(
        provider: &dyn Provider,
        target: &ShortLinkTarget,
        fixed_blob: &[u8],
        owned_blob: &[u8],
    ) -> Result<Self, LinkDataError> {
        let key = LinkKey::from(target.key());
        let fixed = VerifiedFixedPart::open(provider, LinkPurpose::of_target(target), key, fixed_blob)?;
        let owned = fixed.open_owned(provider, owned_blob)?;
        Ok(Self { fixed, owned })
    }

    /// What the link was made for.
    #[must_use]
    pub const fn fixed(&self) -> &VerifiedFixedPart {
        &self.fixed
    }

    /// What its owners say.
    #[must_use]
    pub const fn owned(&self) -> &VerifiedOwnedPart {
        &self.owned
    }

    /// Takes a newer state of the changeable part. After an error everything is as it was.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn update(&mut self, provider: &dyn Provider, owned_blob: &[u8]) -> Result<(), LinkDataError> {
        self.owned = self.fixed.open_owned(provider, owned_blob)?;
        Ok(())
    }
}

/// Authorizes an owner: `signer` is the root key, or that of an owner before.
#[must_use]
pub fn authorize_owner(
    provider: &dyn Provider,
    signer: &Ed25519Secret,
    id: Identifier,
    key: Ed25519Public,
) -> OwnerAuthorization {
    let der = PublicKey::from(key).to_der();
    let signature = provider.ed25519_sign(signer, &[id.as_bytes(), &der]);
    OwnerAuthorization { id, key, signature }
}

/// The blob of a part: a nonce, and the box of the signed bytes.
///
/// This does not look at the bytes, nor at who signs them: [`VerifiedFixedPart`] does.
///
/// # Errors
/// [`LinkDataError::TooLong`].
pub fn seal_part(
    provider: &dyn Provider,
    key: &BoxKey,
    signer: &Ed25519Secret,
    part: LinkPart,
    bytes: &[u8],
    nonce: &Nonce,
) -> Result<Vec<u8>, LinkDataError> {
    let mut signed = Zeroizing::new(Vec::with_capacity(SIGNATURE_OVERHEAD + bytes.len()));
    let signature = provider.ed25519_sign(signer, &[bytes]);
    let written = signed.short(&signature).and_then(|()| signed.put(bytes));
    written.map_err(|Full| LinkDataError::TooLong(part))?;

    let mut blob = vec![0; part.blob_length()];
    let (start, sealed) = blob.split_at_mut(NONCE_LENGTH);
    start.copy_from_slice(&nonce.0);
    nacl_box::seal_padded(provider, key, nonce, &signed, sealed).map_err(|_| LinkDataError::TooLong(part))?;
    Ok(blob)
}

/// The plaintext of a part: a signature and what is signed. Nothing is verified.
struct OpenedPart {
    /// Tag, length, text and padding: only the text is of interest.
    buffer: Zeroizing<Vec<u8>>,
    length: usize,
}

impl OpenedPart {
    fn open(
        provider: &dyn Provider,
        key: &BoxKey,
        part: LinkPart,
        blob: &[u8],
    ) -> Result<Self, LinkDataError> {
        let (nonce, sealed) =
            blob.split_first_chunk::<NONCE_LENGTH>().ok_or(LinkDataError::NotOpened(part))?;
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let opened = nacl_box::open_padded(provider, key, &Nonce(*nonce), &mut buffer);
        let length = opened.map(|text| text.len()).map_err(|error| match error {
            BoxError::NotPadded => LinkDataError::Malformed(part),
            BoxError::Forged | BoxError::TooLong => LinkDataError::NotOpened(part),
        })?;
        Ok(Self { buffer, length })
    }

    fn signed(&self, part: LinkPart) -> Result<(&[u8; ED25519_SIGNATURE_LENGTH], &[u8]), LinkDataError> {
        let text = self.buffer.get(TAG_LENGTH + LENGTH_BYTES..).and_then(|text| text.get(..self.length));
        let mut read = Reader::new(text.unwrap_or_default());
        let signature = read.short().and_then(|signature| signature.try_into().ok());
        Ok((signature.ok_or(LinkDataError::Malformed(part))?, read.tail()))
    }
}
