//! Entropy as the machines see it: given by the driver, never taken from the operating system.
//!
//! There are two kinds of draw. *Public* bytes go out on the wire as they are (queue ids, correlation ids, message
//! ids); *secret* bytes become private keys. They come from separate streams, so that nothing which was published
//! says anything about a key, and so that a simulation which draws one more id still makes the same keys.

use chacha20::ChaCha20Legacy;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroize;

/// A source of random bytes, handed to a machine by its driver.
pub trait Entropy {
    /// Fills `buffer` with bytes that will be published: identifiers and nonces.
    fn fill_public(&mut self, buffer: &mut [u8]);

    /// Fills `buffer` with bytes that must stay secret: private keys.
    fn fill_secret(&mut self, buffer: &mut [u8]);
}

impl<E: Entropy + ?Sized> Entropy for &mut E {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        (**self).fill_public(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        (**self).fill_secret(buffer);
    }
}

/// Two independent ChaCha20 streams from one 32-byte seed: the same seed always gives the same bytes.
///
/// A runtime seeds one from the operating system; a simulation seeds it from its own number. Each stream is 2^70 bytes
/// long. The state is wiped on drop.
pub struct SeededEntropy {
    public: ChaCha20Legacy,
    secret: ChaCha20Legacy,
}

impl SeededEntropy {
    /// The streams of `seed`. The caller wipes its own copy of the seed.
    #[must_use]
    pub fn new(mut seed: [u8; 32]) -> Self {
        // The 8-byte nonces keep the streams apart.
        let stream = |nonce: &[u8; 8]| ChaCha20Legacy::new(&seed.into(), nonce.into());
        let streams = Self { public: stream(b"smp pub "), secret: stream(b"smp sec ") };
        seed.zeroize();
        streams
    }
}

impl Entropy for SeededEntropy {
    fn fill_public(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
        self.public.apply_keystream(buffer);
    }

    fn fill_secret(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
        self.secret.apply_keystream(buffer);
    }
}

impl core::fmt::Debug for SeededEntropy {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("SeededEntropy(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(entropy: &mut SeededEntropy, secret: bool) -> [u8; 40] {
        let mut bytes = [0xFF; 40];
        if secret {
            entropy.fill_secret(&mut bytes);
        } else {
            entropy.fill_public(&mut bytes);
        }
        bytes
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
        let (mut one, mut same, mut other) =
            (SeededEntropy::new([1; 32]), SeededEntropy::new([1; 32]), SeededEntropy::new([2; 32]));
        for secret in [false, true, false] {
            let bytes = draw(&mut one, secret);
            assert_eq!(bytes, draw(&mut same, secret));
            assert_ne!(bytes, draw(&mut other, secret));
        }
    }

    #[test]
    fn the_streams_are_apart_and_do_not_disturb_each_other() {
        let (mut interleaved, mut alone) = (SeededEntropy::new([3; 32]), SeededEntropy::new([3; 32]));
        let public = draw(&mut interleaved, false);
        let secret = draw(&mut interleaved, true);
        assert_ne!(public, secret);
        assert_eq!(secret, draw(&mut alone, true));
    }

    #[test]
    fn small_draws_continue_the_stream() {
        let (mut whole, mut pieces) = (SeededEntropy::new([4; 32]), SeededEntropy::new([4; 32]));
        let mut expected = [0; 150];
        whole.fill_public(&mut expected);
        let mut bytes = [0; 150];
        for piece in bytes.chunks_mut(7) {
            pieces.fill_public(piece);
        }
        assert_eq!(bytes, expected);
    }
}
