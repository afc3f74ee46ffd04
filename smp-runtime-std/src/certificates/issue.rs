//! Making certificates: the authority of a new server, and the certificates that it signs.
//!
//! What is in them is what `smp-server init` of the reference puts there (TLS.md): an authority `CN=SMP server CA,
//! O=SimpleX` that lives offline, and a leaf with the host as its name for the server to use.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::builder::{Builder, CertificateBuilder, profile::BuilderProfile};
use x509_cert::der::asn1::{BitString, OctetString, SetOfVec, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::{rfc4519, rfc5280};
use x509_cert::der::referenced::OwnedToRef;
use x509_cert::der::{Any, DateTime, Decode, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{self, SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity as CertificateValidity};

use super::{Algorithm, Credentials, Fingerprint, PrivateKey, PrivateKeyError};

/// How long certificates are valid, as in the reference: 2737 years.
pub const DEFAULT_VALIDITY_DAYS: u32 = 999_999;

/// From when to when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: u64,
    /// The last second.
    pub not_after: u64,
}

impl Validity {
    /// From now on, for `days`. By the clock of this machine, with a day's grace for the clocks of others.
    #[must_use]
    pub fn days_from_now(days: u32) -> Self {
        const DAY: u64 = 86_400;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { not_before: now.saturating_sub(DAY), not_after: now + u64::from(days) * DAY }
    }

    fn for_certificate(self) -> Result<CertificateValidity, IssueError> {
        Ok(CertificateValidity::new(time(self.not_before)?, time(self.not_after)?))
    }
}

/// RFC 5280 4.1.2.5: two-digit years until 2049, and four digits from 2050.
fn time(seconds: u64) -> Result<Time, IssueError> {
    let date = DateTime::from_unix_duration(Duration::from_secs(seconds))
        .map_err(|_| IssueError::Date { seconds })?;
    if date.year() < 2050 {
        let time =
            x509_cert::der::asn1::UtcTime::from_date_time(date).map_err(|_| IssueError::Date { seconds })?;
        Ok(Time::UtcTime(time))
    } else {
        Ok(Time::GeneralTime(date.into()))
    }
}

/// Why a certificate cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueError {
    /// A date that certificates cannot express: they end with the year 9999.
    Date {
        /// Seconds since 1970.
        seconds: u64,
    },
    /// A host name that a certificate cannot hold: 1 to 64 characters.
    Host {
        /// The name.
        host: String,
    },
    /// The authority's certificate cannot be read, or is not of that key.
    Authority {
        /// What is wrong.
        reason: String,
    },
    /// No key could be made.
    Key(PrivateKeyError),
    /// The certificate could not be put together.
    Encoding {
        /// What the encoder says.
        reason: String,
    },
}

impl fmt::Display for IssueError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Date { seconds } => write!(
                formatter,
                "certificates cannot be dated to second {seconds} since 1970: choose fewer days (999999 at most)"
            ),
            Self::Host { host } => {
                write!(formatter, "{host:?} cannot be the name in a certificate: give 1 to 64 characters")
            }
            Self::Authority { reason } => write!(formatter, "the authority cannot sign: {reason}"),
            Self::Key(error) => write!(formatter, "no key for the certificate: {error}"),
            Self::Encoding { reason } => write!(formatter, "the certificate cannot be written: {reason}"),
        }
    }
}

impl std::error::Error for IssueError {}

impl From<PrivateKeyError> for IssueError {
    fn from(error: PrivateKeyError) -> Self {
        Self::Key(error)
    }
}

fn encoding(error: impl fmt::Display) -> IssueError {
    IssueError::Encoding { reason: error.to_string() }
}

/// A new server: the authority that is its identity, and what it runs with.
#[derive(Clone, Debug)]
pub struct NewIdentity {
    /// The key of the authority, for a safe place away from the server.
    pub authority_key: PrivateKey,
    /// The authority's certificate, whose fingerprint is the server's identity.
    pub authority: CertificateDer<'static>,
    /// What the server runs with.
    pub online: Credentials,
}

impl NewIdentity {
    /// Makes keys and certificates for a server at `host`.
    ///
    /// # Errors
    /// When the host cannot be a name, the dates cannot be written, or there is no randomness.
    pub fn make(host: &str, algorithm: Algorithm, validity: Validity) -> Result<Self, IssueError> {
        let authority_key = PrivateKey::generate(algorithm)?;
        let name = name(&[(rfc4519::CN, "SMP server CA"), (rfc4519::O, "SimpleX")])?;
        let profile = AuthorityProfile { name };
        let authority = issue(profile, &authority_key.public_key_der(), &authority_key, validity)?;
        let online = issue_online(host, algorithm, &authority_key, &authority, validity)?;
        Ok(Self { authority_key, authority, online })
    }

    /// The identity as it stands in the server's address.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.authority)
    }
}

/// Makes a new key and certificate for `host`, signed by an authority: for a new server, and for `smp-server cert`.
///
/// # Errors
/// As [`NewIdentity::make`], and when the authority's certificate is not of its key.
pub(super) fn issue_online(
    host: &str,
    algorithm: Algorithm,
    authority_key: &PrivateKey,
    authority: &CertificateDer<'static>,
    validity: Validity,
) -> Result<Credentials, IssueError> {
    if host.is_empty() || host.chars().count() > 64 {
        return Err(IssueError::Host { host: host.into() });
    }
    let parsed = Certificate::from_der(authority)
        .map_err(|error| IssueError::Authority { reason: error.to_string() })?;
    let public_key = parsed.tbs_certificate().subject_public_key_info();
    if public_key.subject_public_key.raw_bytes() != authority_key.public_key() {
        return Err(IssueError::Authority { reason: "its certificate is of another key".into() });
    }
    let identifier = match parsed.tbs_certificate().get_extension::<SubjectKeyIdentifier>() {
        Ok(Some((_, identifier))) => identifier.0,
        _ => key_identifier(public_key.owned_to_ref())?,
    };
    let profile = OnlineProfile {
        subject: name(&[(rfc4519::CN, host)])?,
        issuer: parsed.tbs_certificate().subject().clone(),
        issuer_identifier: identifier,
    };
    let key = PrivateKey::generate(algorithm)?;
    let leaf = issue(profile, &key.public_key_der(), authority_key, validity)?;
    Ok(Credentials { chain: vec![leaf, authority.clone()], key })
}

fn issue(
    profile: impl BuilderProfile,
    public_key: &[u8],
    signer: &PrivateKey,
    validity: Validity,
) -> Result<CertificateDer<'static>, IssueError> {
    let public_key = SubjectPublicKeyInfoOwned::from_der(public_key).map_err(encoding)?;
    let builder = CertificateBuilder::new(profile, serial_number()?, validity.for_certificate()?, public_key)
        .map_err(encoding)?;
    let certificate =
        builder.build::<_, CertificateSignature>(&CertificateSigner(signer)).map_err(encoding)?;
    Ok(certificate.to_der().map_err(encoding)?.into())
}

/// 20 random bytes that are a positive number, the most that RFC 5280 4.1.2.2 allows.
fn serial_number() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)
        .map_err(|error| PrivateKeyError::NoRandomness { reason: error.to_string() })?;
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::new(&bytes).map_err(encoding)
}

fn name(attributes: &[(ObjectIdentifier, &str)]) -> Result<Name, IssueError> {
    let parts = attributes.iter().map(|(oid, value)| {
        let value = Any::encode_from(&Utf8StringRef::new(value)?)?;
        let attribute = AttributeTypeAndValue { oid: *oid, value };
        Ok(RelativeDistinguishedName::from(SetOfVec::try_from(vec![attribute])?))
    });
    let parts = parts.collect::<Result<Vec<_>, x509_cert::der::Error>>().map_err(encoding)?;
    let sequence = RdnSequence::from(parts).to_der().map_err(encoding)?;
    Name::from_der(&sequence).map_err(encoding)
}

fn key_identifier(public_key: SubjectPublicKeyInfoRef<'_>) -> Result<OctetString, IssueError> {
    Ok(SubjectKeyIdentifier::try_from(public_key).map_err(encoding)?.0)
}

fn extension(
    identifier: ObjectIdentifier,
    critical: bool,
    value: &impl Encode,
) -> x509_cert::builder::Result<Extension> {
    Ok(Extension { extn_id: identifier, critical, extn_value: OctetString::new(value.to_der()?)? })
}

fn of_authority(identifier: OctetString) -> AuthorityKeyIdentifier {
    AuthorityKeyIdentifier { key_identifier: Some(identifier), ..Default::default() }
}

struct AuthorityProfile {
    name: Name,
}

impl BuilderProfile for AuthorityProfile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        public_key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _content: &x509_cert::TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let identifier = SubjectKeyIdentifier::try_from(public_key)?;
        Ok(vec![
            extension(rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER, false, &identifier)?,
            extension(rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER, false, &of_authority(identifier.0))?,
            extension(
                rfc5280::ID_CE_BASIC_CONSTRAINTS,
                true,
                &BasicConstraints { ca: true, path_len_constraint: None },
            )?,
        ])
    }
}

struct OnlineProfile {
    subject: Name,
    issuer: Name,
    issuer_identifier: OctetString,
}

impl BuilderProfile for OnlineProfile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        public_key: SubjectPublicKeyInfoRef<'_>,
        _issuer_key: SubjectPublicKeyInfoRef<'_>,
        _content: &x509_cert::TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let usage =
            KeyUsage(KeyUsages::DigitalSignature | KeyUsages::NonRepudiation | KeyUsages::KeyAgreement);
        let purpose = ExtendedKeyUsage(vec![rfc5280::ID_KP_SERVER_AUTH]);
        Ok(vec![
            extension(
                rfc5280::ID_CE_BASIC_CONSTRAINTS,
                false,
                &BasicConstraints { ca: false, path_len_constraint: None },
            )?,
            extension(rfc5280::ID_CE_KEY_USAGE, false, &usage)?,
            extension(rfc5280::ID_CE_EXT_KEY_USAGE, false, &purpose)?,
            extension(
                rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER,
                false,
                &SubjectKeyIdentifier::try_from(public_key)?,
            )?,
            extension(
                rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
                false,
                &of_authority(self.issuer_identifier.clone()),
            )?,
        ])
    }
}

/// A private key in the shape in which the builder takes it.
struct CertificateSigner<'a>(&'a PrivateKey);

/// The public key of [`CertificateSigner`], as DER.
#[derive(Clone)]
struct SignerPublicKey(Vec<u8>);

struct CertificateSignature(Vec<u8>);

impl signature::Keypair for CertificateSigner<'_> {
    type VerifyingKey = SignerPublicKey;

    fn verifying_key(&self) -> SignerPublicKey {
        SignerPublicKey(self.0.public_key_der())
    }
}

impl spki::EncodePublicKey for SignerPublicKey {
    fn to_public_key_der(&self) -> spki::Result<x509_cert::der::Document> {
        Ok(x509_cert::der::Document::try_from(&self.0[..])?)
    }
}

impl spki::DynSignatureAlgorithmIdentifier for CertificateSigner<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<spki::AlgorithmIdentifierOwned> {
        Ok(spki::AlgorithmIdentifierOwned { oid: self.0.algorithm().oid(), parameters: None })
    }
}

impl signature::Signer<CertificateSignature> for CertificateSigner<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<CertificateSignature, signature::Error> {
        Ok(CertificateSignature(self.0.sign(message)))
    }
}

impl spki::SignatureBitStringEncoding for CertificateSignature {
    fn to_bitstring(&self) -> x509_cert::der::Result<BitString> {
        BitString::from_bytes(&self.0)
    }
}
