//! Many Ed25519 signatures in one equation: 25 µs each at 64, against 43 µs one by one.
//!
//! Each signature `(R, s)` of `M` under `A` satisfies `sB = R + H(R‖A‖M)A`. The sum of all these equations, each multiplied
//! by its own random 128-bit factor, holds for valid signatures, and with negligible probability otherwise (but for parts
//! of small order, see [`Provider::ed25519_verify_batch`]). The factors come from a hash of everything that is checked:
//! whoever chooses a signature cannot choose the factor, and the same input always gives the same answer.

use alloc::vec::Vec;
use core::iter::once;

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use sha2::{Digest, Sha512};

use super::provider::{Ed25519Check, Provider};

/// From how many signatures on the batch is faster than single checks.
pub const WORTHWHILE: usize = 3;

/// Separates the factors' hash from every other use of SHA-512.
const FACTOR_DOMAIN: &[u8] = b"smp Ed25519 batch factors 1";

/// Whether the common equation of `checks` holds. False when a key or signature is malformed.
#[must_use]
pub fn holds(provider: &(impl Provider + ?Sized), checks: &[Ed25519Check<'_>]) -> bool {
    let mut transcript = Sha512::new_with_prefix(FACTOR_DOMAIN);
    let mut signatures = Vec::with_capacity(checks.len());
    let mut parts: Vec<&[u8]> = Vec::new();
    for check in checks {
        let Some(signature) = Signature::parse(check.signature) else { return false };
        let (commitment, _) = check.signature.split_at(32);
        parts.clear();
        parts.extend_from_slice(&[commitment, &check.key.0]);
        parts.extend_from_slice(check.message);
        let challenge = provider.sha512(&parts);
        // The challenge binds R, A and M.
        transcript.update(challenge);
        transcript.update(signature.response.as_bytes());
        signatures.push((signature, Scalar::from_bytes_mod_order_wide(&challenge)));
    }
    let seed = transcript.finalize();

    let mut base_factor = Scalar::ZERO;
    let mut commitment_factors = Vec::with_capacity(checks.len());
    let mut key_factors = Vec::with_capacity(checks.len());
    for (index, (signature, challenge)) in (0u64..).zip(&signatures) {
        let factor = factor(&seed, index);
        base_factor += factor * signature.response;
        commitment_factors.push(factor);
        key_factors.push(factor * challenge);
    }

    let scalars = once(-base_factor).chain(commitment_factors).chain(key_factors);
    let commitments = signatures.iter().map(|(signature, _)| signature.commitment.decompress());
    let keys = checks.iter().map(|check| CompressedEdwardsY(check.key.0).decompress());
    let points = once(Some(ED25519_BASEPOINT_POINT)).chain(commitments).chain(keys);
    EdwardsPoint::optional_multiscalar_mul(scalars, points).is_some_and(|sum| sum.is_identity())
}

/// The two halves of a signature.
struct Signature {
    commitment: CompressedEdwardsY,
    response: Scalar,
}

impl Signature {
    /// `None` when the scalar is not reduced, or the commitment is not the one encoding of its point: single checks
    /// refuse both.
    fn parse(bytes: &[u8; 64]) -> Option<Self> {
        let (commitment, response) = bytes.split_first_chunk::<32>()?;
        let response = Option::from(Scalar::from_canonical_bytes(response.try_into().ok()?))?;
        let commitment = is_canonical(commitment).then_some(CompressedEdwardsY(*commitment))?;
        Some(Self { commitment, response })
    }
}

/// Whether an encoded point is the encoding that compression gives: y below 2^255 − 19, and no sign on x = 0 (y = ±1).
fn is_canonical(encoded: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = encoded;
    let (sign, high) = (high >> 7, high & 0x7F);
    let all_ones = high == 0x7F && middle.iter().all(|&byte| byte == 0xFF);
    let all_zeros = high == 0 && middle.iter().all(|&byte| byte == 0);
    let x_is_zero = (all_zeros && *low == 1) || (all_ones && *low == 0xEC);
    let y_is_reduced = !all_ones || *low < 0xED;
    y_is_reduced && (sign == 0 || !x_is_zero)
}

/// The random factor of signature `index`: 128 bits.
fn factor(seed: &[u8], index: u64) -> Scalar {
    let digest = Sha512::new_with_prefix(seed).chain_update(index.to_be_bytes()).finalize();
    let mut half = [0; 16];
    for (place, &byte) in half.iter_mut().zip(digest.iter()) {
        *place = byte;
    }
    Scalar::from(u128::from_le_bytes(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_encoding_of_a_point_is_canonical() {
        let mut minus_one = [0xFF; 32];
        (minus_one[0], minus_one[31]) = (0xEC, 0x7F);
        let mut prime = minus_one;
        prime[0] = 0xED;
        let mut one = [0; 32];
        one[0] = 1;
        let mut negative_zero = one;
        negative_zero[31] = 0x80;
        assert!(is_canonical(&one) && is_canonical(&minus_one) && is_canonical(&[0; 32]));
        assert!(!is_canonical(&prime) && !is_canonical(&[0xFF; 32]) && !is_canonical(&negative_zero));
        minus_one[31] = 0xFF;
        assert!(!is_canonical(&minus_one));
    }
}
