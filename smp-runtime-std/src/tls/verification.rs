//! Who the peer is: roles in a certificate chain, and what makes a chain acceptable (WIRE-FACTS 4.3).
//!
//! Owns: the rules for chains of one to four certificates and the verifiers that rustls calls. Names are never looked
//! at: the identity of a server is the SHA-256 of the DER of the *second* certificate of its chain, known beforehand.
//!
//! The trust anchor is the last certificate, and it comes from the peer. Validating the leaf against it proves nothing
//! about the identity certificate in the middle: anybody can put a stranger's certificate there. So the leaf has to be
//! signed by the identity certificate itself, and only then is the whole chain validated to its anchor.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{
    CertificateDer, InvalidSignature, ServerName, SignatureVerificationAlgorithm, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use subtle::ConstantTimeEq;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::der::{Decode, Encode};

use super::ed448::Ed448;
use super::provider::record;
use crate::certificates::Fingerprint;

/// The signatures that a side accepts, in order of preference.
#[derive(Debug)]
struct Accepted {
    in_certificates: &'static [&'static dyn SignatureVerificationAlgorithm],
    in_handshakes: &'static [SignatureScheme],
}

/// All that occur in SMP's certificates.
static EVERYTHING: Accepted = Accepted {
    in_certificates: &[webpki::aws_lc_rs::ED25519, &Ed448],
    in_handshakes: &[SignatureScheme::ED25519, SignatureScheme::ED448],
};

/// What a relay verifies for whoever asks: a chain of Ed448 would cost it as much as a hundred other handshakes.
static CHEAP: Accepted =
    Accepted { in_certificates: &[webpki::aws_lc_rs::ED25519], in_handshakes: &[SignatureScheme::ED25519] };

/// The certificates of a chain by what they are for (WIRE-FACTS 4.3), each as an index into the chain, leaf first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainRoles {
    /// One certificate, which vouches for itself. Only clients may come with it.
    SelfSigned,
    /// Two to four certificates.
    Chain {
        /// The certificate whose key signs the handshake: always 0.
        leaf: usize,
        /// The certificate whose fingerprint is the identity: always 1.
        identity: usize,
        /// The trust anchor: the last one, the same as `identity` in a chain of two.
        anchor: usize,
    },
}

impl ChainRoles {
    /// The roles in a chain of `length` certificates.
    ///
    /// # Errors
    /// [`ChainError::Length`] when there are none or more than four.
    pub fn of(length: usize) -> Result<Self, ChainError> {
        match length {
            1 => Ok(Self::SelfSigned),
            2..=4 => Ok(Self::Chain { leaf: 0, identity: 1, anchor: length - 1 }),
            _ => Err(ChainError::Length { length }),
        }
    }

    /// The index of the certificate whose fingerprint is the identity of whoever presents the chain.
    pub fn identity(self) -> usize {
        match self {
            Self::SelfSigned => 0,
            Self::Chain { identity, .. } => identity,
        }
    }
}

/// Why a certificate chain is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// A server sends two to four certificates, a client one to four.
    Length {
        /// How many there were.
        length: usize,
    },
    /// The peer is not the server that the address names.
    WrongFingerprint {
        /// What the address says.
        expected: Fingerprint,
        /// What the peer's chain has.
        presented: Fingerprint,
    },
    /// A certificate is past its last day.
    Expired {
        /// Seconds since 1970 of its last moment.
        not_after: u64,
    },
    /// A certificate is not valid yet.
    NotYetValid {
        /// Seconds since 1970 of its first moment.
        not_before: u64,
    },
    /// The certificate that carries the identity did not sign the leaf.
    NotSignedByIdentity,
    /// A certificate is not signed by the next one.
    NotSigned,
    /// A certificate is not a certificate, or not one for this purpose.
    Unusable {
        /// What is wrong with it.
        reason: String,
    },
}

impl fmt::Display for ChainError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length { length } => {
                write!(formatter, "it has {length} certificates, where 2 to 4 are expected (1 to 4 from a client)")
            }
            Self::WrongFingerprint { expected, presented } => write!(
                formatter,
                "its fingerprint is {presented}, but the address says {expected}; either the address is outdated or \
                 mistyped, or something between you and the server answers in its place: do not connect until the \
                 server's operator has confirmed the fingerprint"
            ),
            Self::Expired { not_after } => write!(
                formatter,
                "a certificate expired on {}; if the clock of this machine is right, its operator has to renew it",
                Date(*not_after)
            ),
            Self::NotYetValid { not_before } => write!(
                formatter,
                "a certificate is valid only from {}; check the clock of this machine",
                Date(*not_before)
            ),
            Self::NotSignedByIdentity => formatter.write_str(
                "the certificate with the identity did not sign the one in use; this is what an impostor's chain looks like",
            ),
            Self::NotSigned => formatter.write_str("a certificate is not signed by the next one: the chain is damaged or forged"),
            Self::Unusable { reason } => write!(formatter, "a certificate cannot be used: {reason}"),
        }
    }
}

impl std::error::Error for ChainError {}

/// A moment as the day it falls on.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match x509_cert::der::DateTime::from_unix_duration(std::time::Duration::from_secs(self.0)) {
            Ok(date) => write!(formatter, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day()),
            Err(_) => write!(formatter, "second {} since 1970", self.0),
        }
    }
}

impl From<webpki::Error> for ChainError {
    fn from(error: webpki::Error) -> Self {
        match error {
            webpki::Error::CertExpired { not_after, .. } => Self::Expired { not_after: not_after.as_secs() },
            webpki::Error::CertNotValidYet { not_before, .. } => {
                Self::NotYetValid { not_before: not_before.as_secs() }
            }
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => Self::NotSigned,
            other => Self::Unusable { reason: other.to_string() },
        }
    }
}

impl ChainError {
    /// The same for rustls, which picks the alert to send by it.
    fn for_rustls(&self) -> Error {
        match self {
            Self::Length { .. } | Self::Unusable { .. } => CertificateError::BadEncoding.into(),
            Self::WrongFingerprint { .. } | Self::NotSignedByIdentity => {
                CertificateError::UnknownIssuer.into()
            }
            Self::Expired { .. } => CertificateError::Expired.into(),
            Self::NotYetValid { .. } => CertificateError::NotValidYet.into(),
            Self::NotSigned => CertificateError::BadSignature.into(),
        }
    }
}

/// Checks a server's chain, leaf first: fingerprint of the second certificate, then signatures, dates and purpose.
///
/// # Errors
/// The first thing found wrong. A chain of one is refused: a server's leaf never is its own identity.
pub fn verify_server_chain(
    chain: &[CertificateDer<'_>],
    expected: &Fingerprint,
    now: UnixTime,
) -> Result<(), ChainError> {
    let ChainRoles::Chain { identity, .. } = ChainRoles::of(chain.len())? else {
        return Err(ChainError::Length { length: chain.len() });
    };
    let presented = chain.get(identity).map(|certificate| Fingerprint::of(certificate));
    match presented {
        Some(presented) if bool::from(presented.0.ct_eq(&expected.0)) => {}
        Some(presented) => return Err(ChainError::WrongFingerprint { expected: *expected, presented }),
        None => return Err(ChainError::Length { length: chain.len() }),
    }
    verify_signed_chain(chain, now, &EVERYTHING, KeyUsage::server_auth)
}

/// Checks a client's chain, leaf first, and says whose it is: SHA-256 of the second certificate, or of the only one.
///
/// # Errors
/// The first thing found wrong.
pub fn verify_client_chain(chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Fingerprint, ChainError> {
    verify_accepted_client_chain(chain, now, &EVERYTHING)
}

fn verify_accepted_client_chain(
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    accepted: &Accepted,
) -> Result<Fingerprint, ChainError> {
    let roles = ChainRoles::of(chain.len())?;
    match (roles, chain) {
        (ChainRoles::SelfSigned, [certificate]) => verify_self_signed(certificate, now, accepted)?,
        _ => verify_signed_chain(chain, now, accepted, KeyUsage::client_auth)?,
    }
    match chain.get(roles.identity()) {
        Some(certificate) => Ok(Fingerprint::of(certificate)),
        None => Err(ChainError::Length { length: chain.len() }),
    }
}

fn verify_signed_chain(
    chain: &[CertificateDer<'_>],
    now: UnixTime,
    accepted: &Accepted,
    usage: impl Fn() -> KeyUsage,
) -> Result<(), ChainError> {
    let [leaf, identity, rest @ ..] = chain else {
        return Err(ChainError::Length { length: chain.len() });
    };
    let leaf = EndEntityCert::try_from(leaf)?;
    let identity_anchor = [anchor_from_trusted_cert(identity)?];
    let issued =
        leaf.verify_for_usage(accepted.in_certificates, &identity_anchor, &[], now, usage(), None, None);
    issued.map(|_path| ()).map_err(|error| match ChainError::from(error) {
        ChainError::NotSigned if !rest.is_empty() => ChainError::NotSignedByIdentity,
        other => other,
    })?;
    if let [between @ .., anchor] = rest {
        let anchor = anchor_from_trusted_cert(anchor)?;
        let between: Vec<CertificateDer<'_>> = std::iter::once(identity).chain(between).cloned().collect();
        leaf.verify_for_usage(accepted.in_certificates, &[anchor], &between, now, usage(), None, None)?;
    }
    Ok(())
}

/// webpki refuses a self-signed certificate that may sign others, as the ones made by OpenSSL may; so this is ours:
/// its dates, and its signature by its own key. That the peer has the key is proven by the handshake.
fn verify_self_signed(
    certificate: &CertificateDer<'_>,
    now: UnixTime,
    accepted: &Accepted,
) -> Result<(), ChainError> {
    let unusable = |error: x509_cert::der::Error| ChainError::Unusable { reason: error.to_string() };
    let parsed = x509_cert::Certificate::from_der(certificate).map_err(unusable)?;
    let content = parsed.tbs_certificate();
    let not_before = content.validity().not_before.to_unix_duration().as_secs();
    let not_after = content.validity().not_after.to_unix_duration().as_secs();
    if now.as_secs() < not_before {
        return Err(ChainError::NotYetValid { not_before });
    }
    if now.as_secs() > not_after {
        return Err(ChainError::Expired { not_after });
    }
    let algorithm = parsed.signature_algorithm();
    let key = content.subject_public_key_info();
    if algorithm != content.signature() || algorithm.oid != key.algorithm.oid {
        return Err(ChainError::NotSigned);
    }
    let identifier = algorithm.oid.to_der().map_err(unusable)?;
    let verifier = accepted
        .in_certificates
        .iter()
        .find(|known| known.signature_alg_id().as_ref() == identifier)
        .ok_or_else(|| ChainError::Unusable {
            reason: "its key is of a kind that is not accepted here".into(),
        })?;
    let signed = signed_part(certificate).map_err(unusable)?;
    verifier
        .verify_signature(key.subject_public_key.raw_bytes(), signed, parsed.signature().raw_bytes())
        .map_err(|InvalidSignature| ChainError::NotSigned)
}

/// The bytes of a certificate that its signature is over, as they are: a certificate written again need not be the same.
fn signed_part(certificate: &[u8]) -> Result<&[u8], x509_cert::der::Error> {
    use x509_cert::der::{Reader, SliceReader, asn1::AnyRef};
    let outer = AnyRef::from_der(certificate)?;
    let mut reader = SliceReader::new(outer.value())?;
    reader.tlv_bytes()
}

/// Checks a handshake signature with the key of the leaf certificate.
fn verify_handshake_signature(
    message: &[u8],
    leaf: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    let algorithm: &dyn SignatureVerificationAlgorithm = match signed.scheme {
        SignatureScheme::ED25519 => webpki::aws_lc_rs::ED25519,
        SignatureScheme::ED448 => &Ed448,
        _ => return Err(PeerIncompatible::NoSignatureSchemesInCommon.into()),
    };
    EndEntityCert::try_from(leaf)
        .and_then(|leaf| leaf.verify_signature(algorithm, message, signed.signature()))
        .map_err(|_| CertificateError::BadSignature)?;
    Ok(HandshakeSignatureValid::assertion())
}

fn whole_chain<'a>(leaf: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(leaf).chain(rest).cloned().collect()
}

fn refuse(error: ChainError) -> Error {
    let for_rustls = error.for_rustls();
    record(|recorder| recorder.chain_error = Some(error));
    for_rustls
}

/// How a client checks the server that it reached.
#[derive(Debug)]
pub(super) struct ServerVerifier {
    pub(super) expected: Fingerprint,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_chain(&whole_chain(leaf, rest), &self.expected, now).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        EVERYTHING.in_handshakes.to_vec()
    }
}

/// How a server checks a client that comes with a certificate; it may come without.
#[derive(Debug)]
pub(super) struct ClientVerifier(&'static Accepted);

impl ClientVerifier {
    pub(super) fn shared(with_ed448: bool) -> Arc<Self> {
        Arc::new(Self(if with_ed448 { &EVERYTHING } else { &CHEAP }))
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify_accepted_client_chain(&whole_chain(leaf, rest), now, self.0).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_handshake_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.in_handshakes.to_vec()
    }
}
