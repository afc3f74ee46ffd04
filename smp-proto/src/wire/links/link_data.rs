//! What a relay keeps for a short link, before it is signed and encrypted (WIRE-FACTS 8.1).
//!
//! The fixed part never changes: the link's key is its hash. The other part belongs to the link's owner. Readers ignore
//! what follows the fields they know, so that later versions can add some. Signatures are read here and checked by
//! [`crypto::link_data`](crate::crypto::link_data).

use alloc::vec::Vec;
use core::fmt;

use super::connection_request::ConnectionRequest;
use super::short_link::{ShortLink, ShortLinkTarget};
use crate::keys::Ed25519Public;
use crate::wire::identifier::Identifier;
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::version::VersionRange;

/// What the signed fixed part is padded to before it is encrypted: 2,008 bytes, two of them its length.
pub const FIXED_PADDED_LENGTH: usize = 2008;
/// What the signed owner's part is padded to before it is encrypted: 13,784 bytes, two of them its length.
pub const OWNED_PADDED_LENGTH: usize = 13_784;
/// How much longer a part is when it is signed: a length byte and an Ed25519 signature in front of it.
pub const SIGNATURE_OVERHEAD: usize = 1 + 64;

/// The longest user data with a 1-byte length; longer ones have a marker and a 2-byte length.
const SHORT_USER_DATA: usize = 254;
/// The marker of a 2-byte length.
const LONG_USER_DATA: u8 = 0xff;

/// The part of link data that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedLinkData {
    /// Versions of the agent's protocol.
    pub versions: VersionRange,
    /// Verifies the signatures of both parts, and the first owners.
    pub root_key: Ed25519Public,
    /// What somebody needs to connect.
    pub request: ConnectionRequest,
    /// What the link is about, when the application has a name for it.
    pub entity: Option<Identifier>,
}

impl FixedLinkData {
    /// Reads the signed bytes; what follows the known fields is ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let versions = read.version_range()?;
        let root_key = Ed25519Public::from_der(read.short()?).ok()?;
        let request = ConnectionRequest::read(&mut read)?;
        // Absent without a marker: what cannot be read as an identifier is not one.
        Some(Self { versions, root_key, request, entity: read.identifier() })
    }

    /// Writes the bytes that are hashed and signed.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.version_range(self.versions)?;
        out.short(&self.root_key.to_der())?;
        self.request.write(out)?;
        self.entity.as_ref().map_or(Ok(()), |entity| out.identifier(entity))
    }
}

/// The part of link data that the owner may change.
#[derive(Clone, PartialEq, Eq)]
pub enum OwnedLinkData {
    /// `I`: of an invitation.
    Invitation {
        /// Versions of the agent's protocol.
        versions: VersionRange,
        /// What the application keeps there.
        user_data: Vec<u8>,
    },
    /// `C`: of an address.
    Contact {
        /// Versions of the agent's protocol.
        versions: VersionRange,
        /// Whether one may connect by the request in the fixed part, and not only through `relays`.
        direct: bool,
        /// Who else may change this part, each authorized by the root key or by one before.
        owners: Vec<OwnerAuthorization>,
        /// Where else one may connect.
        relays: Vec<ShortLink>,
        /// What the application keeps there.
        user_data: Vec<u8>,
    },
}

/// An owner of a link, and the signature that makes them one.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnerAuthorization {
    /// Names the owner.
    pub id: Identifier,
    /// Verifies what the owner signs.
    pub key: Ed25519Public,
    /// Over id and key (in DER), by the root key or that of an earlier owner. Not checked here.
    pub signature: [u8; 64],
}

impl fmt::Debug for OwnedLinkData {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invitation { versions, user_data } => {
                write!(formatter, "Invitation({versions:?}, {} bytes)", user_data.len())
            }
            Self::Contact { versions, direct, owners, relays, user_data } => formatter
                .debug_struct("Contact")
                .field("versions", versions)
                .field("direct", direct)
                .field("owners", owners)
                .field("relays", &relays.len())
                .field("bytes", &user_data.len())
                .finish(),
        }
    }
}

impl fmt::Debug for OwnerAuthorization {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("OwnerAuthorization(..)")
    }
}

impl OwnedLinkData {
    /// Reads the signed bytes; what follows the known fields is ignored.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut read = Reader::new(bytes);
        let read = &mut read;
        match read.byte()? {
            b'I' => {
                Some(Self::Invitation { versions: read.version_range()?, user_data: read_user_data(read)? })
            }
            b'C' => Some(Self::Contact {
                versions: read.version_range()?,
                direct: read.bool()?,
                owners: read.list(0, OwnerAuthorization::read)?,
                relays: read.list(0, |read| {
                    let link = ShortLink::read(read)?;
                    matches!(link.target, ShortLinkTarget::Contact { .. }).then_some(link)
                })?,
                user_data: read_user_data(read)?,
            }),
            _ => None,
        }
    }

    /// Writes the bytes that are signed.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn encode(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Invitation { versions, user_data } => {
                out.byte(b'I')?;
                out.version_range(*versions)?;
                write_user_data(user_data, out)
            }
            Self::Contact { versions, direct, owners, relays, user_data } => {
                out.byte(b'C')?;
                out.version_range(*versions)?;
                out.bool(*direct)?;
                out.list(owners, |out, owner| owner.write(out))?;
                out.list(relays, |out, relay| relay.write(out))?;
                write_user_data(user_data, out)
            }
        }
    }
}

impl OwnerAuthorization {
    fn read(read: &mut Reader<'_>) -> Option<Self> {
        let mut fields = Reader::new(read.short()?);
        let id = fields.identifier()?;
        let key = Ed25519Public::from_der(fields.short()?).ok()?;
        let signature = fields.short()?.try_into().ok()?;
        fields.end()?;
        Some(Self { id, key, signature })
    }

    fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        let mut fields = Vec::new();
        fields.identifier(&self.id)?;
        fields.short(&self.key.to_der())?;
        fields.short(&self.signature)?;
        out.short(&fields)
    }
}

/// Reads user data: a short string, or a marker and a large string.
pub fn read_user_data(read: &mut Reader<'_>) -> Option<Vec<u8>> {
    let data = if read.peek()? == LONG_USER_DATA {
        read.byte()?;
        read.large()?
    } else {
        read.short()?
    };
    Some(data.to_vec())
}

/// Writes user data.
///
/// # Errors
/// [`Full`] when it does not fit.
pub fn write_user_data(data: &[u8], out: &mut impl Writer) -> Result<(), Full> {
    if data.len() <= SHORT_USER_DATA {
        out.short(data)
    } else {
        out.byte(LONG_USER_DATA)?;
        out.large(data)
    }
}
