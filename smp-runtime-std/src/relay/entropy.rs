//! Randomness for the machines: streams that are seeded by the operating system once, one for each thread.
//!
//! A thread's stream is a ChaCha20 pair ([`SeededEntropy`]); its seed comes out of the process's own stream, so that no
//! call to the system, and no lock, stands in the way of a command.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use smp_proto::entropy::{Entropy, SeededEntropy};
use zeroize::Zeroize;

/// The process's stream, from which threads get their seeds.
#[derive(Debug)]
pub struct ProcessEntropy(Mutex<SeededEntropy>);

thread_local! {
    static OF_THREAD: RefCell<Option<SeededEntropy>> = const { RefCell::new(None) };
}

/// The operating system has no randomness; without it there is no relay.
#[derive(Debug)]
pub struct NoRandomness(getrandom::Error);

impl core::fmt::Display for NoRandomness {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "the operating system gives no randomness: {}", self.0)
    }
}

impl core::error::Error for NoRandomness {}

impl ProcessEntropy {
    /// Seeded by the operating system.
    ///
    /// # Errors
    /// When it has no randomness.
    pub fn from_system() -> Result<Self, NoRandomness> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(NoRandomness)?;
        let entropy = SeededEntropy::new(seed);
        seed.zeroize();
        Ok(Self(Mutex::new(entropy)))
    }

    /// Lends the stream of this thread.
    pub fn with<R>(&self, use_it: impl FnOnce(&mut SeededEntropy) -> R) -> R {
        OF_THREAD.with(|slot| {
            // Taken out while it is lent: a nested call then makes one of its own rather than repeat bytes.
            let mut entropy = slot.borrow_mut().take().unwrap_or_else(|| self.for_thread());
            let result = use_it(&mut entropy);
            *slot.borrow_mut() = Some(entropy);
            result
        })
    }

    fn for_thread(&self) -> SeededEntropy {
        let mut seed = [0; 32];
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill_secret(&mut seed);
        let entropy = SeededEntropy::new(seed);
        seed.zeroize();
        entropy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_and_nested_uses_draw_different_bytes() {
        let process =
            std::sync::Arc::new(ProcessEntropy::from_system().expect("this machine has randomness"));
        let draw = |process: &ProcessEntropy| {
            let mut bytes = [0; 32];
            process.with(|entropy| entropy.fill_public(&mut bytes));
            bytes
        };
        let here = draw(&process);
        let again = draw(&process);
        let there = std::thread::spawn({
            let process = std::sync::Arc::clone(&process);
            move || draw(&process)
        })
        .join()
        .expect("the other thread only draws");
        let nested = process.with(|_| draw(&process));
        let all = [here, again, there, nested];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other != one));
        }
    }
}
