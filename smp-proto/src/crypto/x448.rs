//! X448, which only the ratchet of agents uses (WIRE-FACTS 2). Pure Rust, in no [`Provider`](super::Provider): it is rare.

use zeroize::Zeroizing;

use crate::keys::{X448Public, X448Secret};

/// The public key of `secret`.
#[must_use]
pub fn public_key(secret: &X448Secret) -> X448Public {
    X448Public(x448::x448_unchecked(*secret.as_bytes(), x448::X448_BASEPOINT_BYTES))
}

/// The raw shared secret: 56 bytes, wiped on drop. All zeros when `public` is of small order: like in the reference that is
/// no error.
#[must_use]
pub fn agree(secret: &X448Secret, public: &X448Public) -> Zeroizing<[u8; 56]> {
    Zeroizing::new(x448::x448_unchecked(*secret.as_bytes(), public.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree_and_small_order_gives_zeros() {
        let [one, two] = [1, 2].map(|byte| X448Secret::from_bytes([byte; 56]));
        assert_eq!(agree(&one, &public_key(&two)), agree(&two, &public_key(&one)));
        assert_ne!(agree(&one, &public_key(&two)), agree(&one, &public_key(&one)));
        assert_eq!(*agree(&one, &X448Public([0; 56])), [0; 56]);
        // Not reduced, and on no curve: only panics matter.
        let _ = agree(&one, &X448Public([0xFF; 56]));
    }
}
