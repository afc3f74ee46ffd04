//! The keys with which a double ratchet begins (WIRE-FACTS 8.1, 11.3).
//!
//! Two X448 keys, and from version 3 on optionally a key of the post-quantum KEM. They are in invitations, for a range of
//! versions, and in confirmations, at one version. Readers check lengths, not that the keys are good.

use alloc::boxed::Box;
use core::fmt;
use core::str::FromStr;

use super::RatchetPart;
use crate::keys::X448Public;
use crate::wire::base64url;
use crate::wire::percent_encoding::Query;
use crate::wire::primitives::{Full, Reader, Writer};
use crate::wire::queue_uri::{TextVersions, read_versions};
use crate::wire::version::{Version, VersionRange};

/// The length of a sntrup761 public key, in bytes.
pub const KEM_KEY_LENGTH: usize = 1158;
/// The length of a sntrup761 ciphertext, in bytes.
pub const KEM_CIPHERTEXT_LENGTH: usize = 1039;
/// The first version of the ratchet that may have a KEM.
pub const KEM_VERSION: Version = Version(3);

/// The keys of one party, before a ratchet exists.
#[derive(Clone, PartialEq, Eq)]
pub struct RatchetParameters {
    /// Versions of the ratchet, not of SMP: 1 to 3.
    pub versions: VersionRange,
    /// The two X448 keys.
    pub keys: [X448Public; 2],
    /// The post-quantum part.
    pub kem: Option<KemParameters>,
}

/// The post-quantum part of ratchet parameters.
#[derive(Clone, PartialEq, Eq)]
pub enum KemParameters {
    /// `P`: a key for the other party to encapsulate to.
    Proposed(Box<[u8; KEM_KEY_LENGTH]>),
    /// `A`: a secret encapsulated to the other party's key, and a key for the next one.
    Accepted {
        /// The encapsulated secret.
        ciphertext: Box<[u8; KEM_CIPHERTEXT_LENGTH]>,
        /// The next key.
        key: Box<[u8; KEM_KEY_LENGTH]>,
    },
}

/// Public keys link people to queues: they are not shown.
impl fmt::Debug for RatchetParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RatchetParameters")
            .field("versions", &self.versions)
            .field("kem", &self.kem)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KemParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Proposed(_) => "Proposed(..)",
            Self::Accepted { .. } => "Accepted(..)",
        })
    }
}

impl RatchetParameters {
    /// Reads the binary form of an invitation: a range of versions, two keys, and whether there is a KEM.
    pub fn read(read: &mut Reader<'_>) -> Option<Self> {
        let versions = read.version_range()?;
        let keys = read_keys(read)?;
        Some(Self { versions, keys, kem: read.maybe(KemParameters::read)? })
    }

    /// Writes the binary form of an invitation.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.version_range(self.versions)?;
        self.write_keys(out)?;
        out.maybe(self.kem.as_ref(), |out, kem| kem.write(out))
    }

    /// Reads the form of one version, as in a confirmation: below version 3 it has no place for a KEM.
    pub fn read_agreed(read: &mut Reader<'_>) -> Option<Self> {
        let version = read.version()?;
        let keys = read_keys(read)?;
        let kem = if version >= KEM_VERSION { read.maybe(KemParameters::read)? } else { None };
        Some(Self { versions: VersionRange::only(version), keys, kem })
    }

    /// Writes the form of one version, the newest of the range.
    ///
    /// # Errors
    /// [`Full`] when it does not fit.
    pub fn write_agreed(&self, out: &mut impl Writer) -> Result<(), Full> {
        out.u16(self.versions.max().0)?;
        self.write_keys(out)?;
        if self.versions.max() >= KEM_VERSION {
            out.maybe(self.kem.as_ref(), |out, kem| kem.write(out))?;
        }
        Ok(())
    }

    fn write_keys(&self, out: &mut impl Writer) -> Result<(), Full> {
        self.keys.iter().try_for_each(|key| out.short(&key.to_der()))
    }
}

fn read_keys(read: &mut Reader<'_>) -> Option<[X448Public; 2]> {
    let mut key = || X448Public::from_der(read.short()?).ok();
    Some([key()?, key()?])
}

impl KemParameters {
    /// Reads the form that is in parameters and in the headers of messages.
    pub(crate) fn read(read: &mut Reader<'_>) -> Option<Self> {
        match read.byte()? {
            b'P' => boxed(read.large()?).map(Self::Proposed),
            b'A' => Some(Self::Accepted { ciphertext: boxed(read.large()?)?, key: boxed(read.large()?)? }),
            _ => None,
        }
    }

    /// Writes it.
    pub(crate) fn write(&self, out: &mut impl Writer) -> Result<(), Full> {
        match self {
            Self::Proposed(key) => {
                out.byte(b'P')?;
                out.large(key.as_slice())
            }
            Self::Accepted { ciphertext, key } => {
                out.byte(b'A')?;
                out.large(ciphertext.as_slice())?;
                out.large(key.as_slice())
            }
        }
    }
}

fn boxed<const LENGTH: usize>(bytes: &[u8]) -> Option<Box<[u8; LENGTH]>> {
    Box::<[u8]>::from(bytes).try_into().ok()
}

/// The query inside `e2e` of an invitation, before it is escaped as a whole.
impl FromStr for RatchetParameters {
    type Err = RatchetPart;

    fn from_str(text: &str) -> Result<Self, RatchetPart> {
        let query = Query(text);
        let versions = query.get("v").and_then(read_versions).ok_or(RatchetPart::Versions)?;
        let read_keys = || {
            let key = |text| X448Public::from_der(&base64url::decode_some(text)?).ok();
            let (one, other) = query.get("x3dh")?.split_once(',')?;
            Some([key(one)?, key(other)?])
        };
        let read_kem = || match (query.get("kem_ct"), query.get("kem_key")) {
            (None, None) => Some(None),
            (None, Some(key)) => boxed(&base64url::decode_some(key)?).map(KemParameters::Proposed).map(Some),
            (Some(ciphertext), key) => Some(Some(KemParameters::Accepted {
                ciphertext: boxed(&base64url::decode_some(ciphertext)?)?,
                key: boxed(&base64url::decode_some(key?)?)?,
            })),
        };
        let keys = read_keys().ok_or(RatchetPart::Keys)?;
        let kem =
            if versions.max() < KEM_VERSION { None } else { read_kem().ok_or(RatchetPart::PostQuantum)? };
        Ok(Self { versions, keys, kem })
    }
}

impl fmt::Display for RatchetParameters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = self.keys.map(|key| base64url::encode(&key.to_der()));
        write!(formatter, "v={}&x3dh={one},{other}", TextVersions(self.versions))?;
        match &self.kem {
            Some(KemParameters::Proposed(key)) if self.versions.max() >= KEM_VERSION => {
                write!(formatter, "&kem_key={}", base64url::encode(key.as_slice()))
            }
            Some(KemParameters::Accepted { ciphertext, key }) if self.versions.max() >= KEM_VERSION => {
                let ciphertext = base64url::encode(ciphertext.as_slice());
                write!(formatter, "&kem_ct={ciphertext}&kem_key={}", base64url::encode(key.as_slice()))
            }
            _ => Ok(()),
        }
    }
}
