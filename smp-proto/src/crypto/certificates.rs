//! What SMP itself wants to know of certificates: fingerprints, roles, and the leaf's key (WIRE-FACTS 4.3).
//!
//! Validation of chains is TLS's business, except that of a relay behind a proxy, with which there is no TLS
//! ([`verify_chain`]). A server's identity is the SHA-256 of the *second* certificate of its chain; the
//! key in its hello is signed by the key of the *first*.

use core::fmt;

use sha2::{Digest, Sha256};

use super::der::{
    BIT_STRING, GENERALIZED_TIME, INTEGER, OBJECT_IDENTIFIER, Reader, SEQUENCE, UTC_TIME, VERSION,
};
use super::{Provider, signatures};
use crate::keys::SignatureKey;
use crate::time::UnixTime;

/// The length of a fingerprint: 32 bytes.
pub const FINGERPRINT_LENGTH: usize = 32;
/// The longest chain: leaf, identity, one more, CA.
pub const MAX_CHAIN_LENGTH: usize = 4;

/// The certificates of a chain by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainRoles<C> {
    /// There is only one, which is its own identity. Clients may have such a chain, servers may not.
    Single(C),
    /// Two to four.
    Chain {
        /// The first: its key made the TLS connection, and signs keys in hellos.
        leaf: C,
        /// The second: its fingerprint is the identity.
        identity: C,
        /// The last: what the chain is validated against.
        anchor: C,
    },
}

impl<C: Copy> ChainRoles<C> {
    /// The roles in a chain, leaf first.
    ///
    /// # Errors
    /// [`ChainError`] when there are no certificates, or more than four.
    pub const fn of(chain: &[C]) -> Result<Self, ChainError> {
        Ok(match *chain {
            [] => return Err(ChainError::Empty),
            [single] => Self::Single(single),
            [leaf, identity] => Self::Chain { leaf, identity, anchor: identity },
            [leaf, identity, anchor] | [leaf, identity, _, anchor] => Self::Chain { leaf, identity, anchor },
            _ => return Err(ChainError::TooLong),
        })
    }

    /// The certificate whose fingerprint names the party.
    pub const fn identity(&self) -> C {
        match *self {
            Self::Single(certificate) | Self::Chain { identity: certificate, .. } => certificate,
        }
    }

    /// The certificate whose key signs.
    pub const fn leaf(&self) -> C {
        match *self {
            Self::Single(certificate) | Self::Chain { leaf: certificate, .. } => certificate,
        }
    }
}

/// Why a chain has no roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainError {
    /// There is no certificate.
    Empty,
    /// There are more than four.
    TooLong,
}

impl fmt::Display for ChainError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Empty => "the certificate chain is empty",
            Self::TooLong => "the certificate chain has more than four certificates",
        })
    }
}

impl core::error::Error for ChainError {}

/// The SHA-256 of a certificate in DER.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> [u8; FINGERPRINT_LENGTH] {
    Sha256::digest(certificate).into()
}

/// The key of a certificate in DER, `None` when it cannot be found or is neither Ed25519 nor Ed448.
#[must_use]
pub fn public_key(certificate: &[u8]) -> Option<SignatureKey> {
    let mut to_be_signed = Reader::new(certificate).enter(SEQUENCE)?.enter(SEQUENCE)?;
    if to_be_signed.next_tag() == Some(VERSION) {
        to_be_signed.element(VERSION)?;
    }
    to_be_signed.element(INTEGER)?;
    // Signature algorithm, issuer, validity, subject.
    for _ in 0..4 {
        to_be_signed.element(SEQUENCE)?;
    }
    SignatureKey::from_der(to_be_signed.element(SEQUENCE)?.whole).ok()
}

/// Why a chain does not vouch for its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidChain {
    /// A certificate cannot be read, or has a key of a kind that relays do not have.
    Unreadable,
    /// A certificate is not signed by the one that should have.
    NotSigned,
    /// A certificate is not valid yet, or not any more.
    NotValidNow,
}

impl fmt::Display for InvalidChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unreadable => "a certificate cannot be read",
            Self::NotSigned => "a certificate is not signed by the one that should have signed it",
            Self::NotValidNow => {
                "a certificate is not valid now: its operator has to renew it, unless a clock is wrong"
            }
        })
    }
}

impl core::error::Error for InvalidChain {}

/// Checks that the identity certificate of a chain (its second) signed the leaf, that the last one stands behind the
/// identity, and that all but the last are valid at this time.
///
/// # Errors
/// [`InvalidChain`].
pub fn verify_chain(provider: &dyn Provider, chain: &[&[u8]], now: UnixTime) -> Result<(), InvalidChain> {
    let signed = |certificate: &[u8], signer: &[u8]| is_signed(provider, certificate, signer);
    let is_valid = match *chain {
        [leaf, identity] => signed(leaf, identity)?,
        [leaf, identity, anchor] => signed(leaf, identity)? && signed(identity, anchor)?,
        [leaf, identity, between, anchor] => {
            signed(leaf, identity)?
                && (signed(identity, anchor)? || (signed(identity, between)? && signed(between, anchor)?))
        }
        _ => return Err(InvalidChain::Unreadable),
    };
    if !is_valid {
        return Err(InvalidChain::NotSigned);
    }
    for certificate in chain.iter().rev().skip(1) {
        let (from, to) = validity(certificate).ok_or(InvalidChain::Unreadable)?;
        if now.0 < from || now.0 > to {
            return Err(InvalidChain::NotValidNow);
        }
    }
    Ok(())
}

/// Whether the key of `signer` made the signature of `certificate`.
fn is_signed(provider: &dyn Provider, certificate: &[u8], signer: &[u8]) -> Result<bool, InvalidChain> {
    let key = public_key(signer).ok_or(InvalidChain::Unreadable)?;
    let (signed, algorithm, signature) = signed_parts(certificate).ok_or(InvalidChain::Unreadable)?;
    let expected: &[u8] = match key {
        SignatureKey::Ed25519(_) => &[0x2b, 0x65, 0x70],
        SignatureKey::Ed448(_) => &[0x2b, 0x65, 0x71],
    };
    Ok(algorithm == expected && signatures::verify(provider, &key, &[signed], signature))
}

/// What is signed, with which algorithm, and the signature.
fn signed_parts(certificate: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut parts = Reader::new(certificate).enter(SEQUENCE)?;
    let signed = parts.element(SEQUENCE)?.whole;
    let algorithm = parts.enter(SEQUENCE)?.element(OBJECT_IDENTIFIER)?.content;
    let (&unused_bits, signature) = parts.element(BIT_STRING)?.content.split_first()?;
    (unused_bits == 0 && parts.is_at_end()).then_some((signed, algorithm, signature))
}

/// The seconds since 1970 of a certificate's first and last moment.
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let mut fields = Reader::new(certificate).enter(SEQUENCE)?.enter(SEQUENCE)?;
    if fields.next_tag() == Some(VERSION) {
        fields.element(VERSION)?;
    }
    fields.element(INTEGER)?;
    fields.element(SEQUENCE)?;
    fields.element(SEQUENCE)?;
    let mut times = fields.enter(SEQUENCE)?;
    Some((time(&mut times)?, time(&mut times)?))
}

/// `YYMMDDHHMMSSZ` (until 2049) or `YYYYMMDDHHMMSSZ`.
fn time(times: &mut Reader<'_>) -> Option<i64> {
    let (text, century) = match times.next_tag()? {
        UTC_TIME => (times.element(UTC_TIME)?.content, None),
        _ => {
            let (century, rest) = times.element(GENERALIZED_TIME)?.content.split_at_checked(2)?;
            (rest, Some(digits(century)?))
        }
    };
    let text = text.strip_suffix(b"Z").filter(|text| text.len() == 12)?;
    let mut numbers = text.chunks(2).map(digits);
    let mut next = || numbers.next().flatten();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let year = match century {
        Some(century) => century * 100 + year,
        None if year < 50 => 2000 + year,
        None => 1900 + year,
    };
    let fits =
        (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    // Days since 1970, in years that begin in March: leap days are at their end.
    let (shifted, months) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = shifted * 365 + shifted / 4 - shifted / 100 + shifted / 400 + (months * 153 + 2) / 5 + day - 1;
    fits.then_some((days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second)
}

fn digits(two: &[u8]) -> Option<i64> {
    let &[tens, ones] = two else { return None };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
    Some(digit(tens)? * 10 + digit(ones)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_go_by_place() {
        let chain = |leaf, identity, anchor| Ok(ChainRoles::Chain { leaf, identity, anchor });
        assert_eq!(ChainRoles::<u8>::of(&[]), Err(ChainError::Empty));
        assert_eq!(ChainRoles::of(&[1]), Ok(ChainRoles::Single(1)));
        assert_eq!(ChainRoles::of(&[1, 2]), chain(1, 2, 2));
        assert_eq!(ChainRoles::of(&[1, 2, 3]), chain(1, 2, 3));
        assert_eq!(ChainRoles::of(&[1, 2, 3, 4]), chain(1, 2, 4));
        assert_eq!(ChainRoles::of(&[1, 2, 3, 4, 5]), Err(ChainError::TooLong));
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let time_of = |tag, text: &[u8]| {
            let mut bytes = alloc::vec![tag, u8::try_from(text.len()).unwrap()];
            bytes.extend_from_slice(text);
            time(&mut Reader::new(&bytes))
        };
        assert_eq!(time_of(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time_of(UTC_TIME, b"000229235959Z"), Some(951_868_799));
        assert_eq!(time_of(UTC_TIME, b"491231000000Z"), Some(2_524_521_600));
        assert_eq!(time_of(UTC_TIME, b"500101000000Z"), Some(-631_152_000));
        assert_eq!(time_of(GENERALIZED_TIME, b"20231114221320Z"), Some(1_700_000_000));
        assert_eq!(time_of(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        for wrong in
            [&b"20231314221320Z"[..], b"20231114221320", b"2023111422132xZ", b"Z", b"", b"231114221320Z"]
        {
            assert_eq!(time_of(GENERALIZED_TIME, wrong), None);
        }
    }

    #[test]
    fn what_is_not_a_certificate_has_no_key() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x80], &[0x30, 2, 0x30, 0], &[0xFF; 600]] {
            assert_eq!(public_key(bytes), None);
        }
    }
}
