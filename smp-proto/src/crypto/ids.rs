//! Identifiers that are computed or drawn (WIRE-FACTS 7, 8.3).

use sha3::{Digest, Sha3_384};

use crate::entropy::Entropy;
use crate::wire::identifier::IDENTIFIER_LENGTH;

/// A fresh id, from the public stream: of a queue, a message, a correlation. Ids carry nothing but chance, so that a
/// queue's ids cannot be linked.
#[must_use]
pub fn random(entropy: &mut (impl Entropy + ?Sized)) -> [u8; IDENTIFIER_LENGTH] {
    let mut id = [0; IDENTIFIER_LENGTH];
    entropy.fill_public(&mut id);
    id
}

/// The sender id that a client must choose when it creates a queue together with its link: the first 24 bytes of the
/// SHA3-384 of the command's correlation id. So it cannot choose somebody else's.
#[must_use]
pub fn sender_id(correlation: &[u8]) -> [u8; IDENTIFIER_LENGTH] {
    let mut id = [0; IDENTIFIER_LENGTH];
    for (place, &byte) in id.iter_mut().zip(Sha3_384::digest(correlation).iter()) {
        *place = byte;
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SeededEntropy;

    #[test]
    fn random_ids_differ_and_computed_ones_follow_the_correlation() {
        let mut entropy = SeededEntropy::new([1; 32]);
        assert_ne!(random(&mut entropy), random(&mut entropy));
        assert_eq!(sender_id(b"one"), sender_id(b"one"));
        assert_ne!(sender_id(b"one"), sender_id(b"two"));
    }
}
