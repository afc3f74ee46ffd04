//! A server's identity: its keys and certificates, made, kept in files, renewed.
//!
//! Owns: what `smp-server init` and `smp-server cert` do with certificates, in the layout of the reference
//! (`ca.key ca.crt server.key server.crt fingerprint`), and loading what the reference made, Ed448 included.
//! Takes randomness and the time from the operating system. It must never: print a private key, leave a key file
//! readable by others, or overwrite an identity: whoever loses `ca.key` loses the address of the server.

mod folder;
mod issue;
mod private_key;

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64Url, Base64UrlUnpadded, Encoding};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};

pub use folder::{CertificateFolder, FolderError, FolderProblem, LoadedIdentity};
pub use issue::{DEFAULT_VALIDITY_DAYS, IssueError, NewIdentity, Validity};
pub use private_key::{Algorithm, PrivateKey, PrivateKeyError};

/// The identity of a server: SHA-256 of the DER of its identity certificate, 32 bytes (WIRE-FACTS 4.3).
///
/// As text it is base64url with padding (44 characters), as in addresses; reading accepts it without padding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of one certificate. Which one of a chain is the caller's business: see [`Credentials::fingerprint`].
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&Base64Url::encode_string(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text that is not the base64url form of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAFingerprint;

impl fmt::Display for NotAFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "a fingerprint is 43 or 44 characters of base64url, such as the part of an address before @",
        )
    }
}

impl std::error::Error for NotAFingerprint {}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, NotAFingerprint> {
        let mut bytes = [0; 32];
        let decoded =
            Base64UrlUnpadded::decode(text.trim_end_matches('='), &mut bytes).map_err(|_| NotAFingerprint)?;
        if decoded.len() == 32 { Ok(Self(bytes)) } else { Err(NotAFingerprint) }
    }
}

/// A certificate chain, leaf first, and the private key of the leaf.
#[derive(Clone)]
pub struct Credentials {
    /// DER certificates as they are sent: leaf, identity, and whatever leads to the anchor.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate of the chain.
    pub key: PrivateKey,
}

impl Credentials {
    /// The identity that the chain stands for: of its second certificate, or of the only one. `None` when it is empty.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.chain.get(1).or(self.chain.first()).map(Fingerprint::of)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credentials").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}
