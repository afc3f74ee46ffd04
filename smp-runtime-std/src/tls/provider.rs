//! The cryptography that rustls runs on, and how the SMP session id gets out of it.
//!
//! Owns: one cipher suite (`TLS_CHACHA20_POLY1305_SHA256`), one key exchange (X25519), and the recorder that picks up
//! the client's `Finished.verify_data` while rustls computes it. rustls has no accessor for that value, but it is the
//! session id of SMP (WIRE-FACTS 4.2), and every TLS 1.3 `Finished` is made by the crypto provider:
//! `HMAC(HKDF-Expand-Label(client_handshake_traffic_secret, "finished", ""), transcript hash)`.
//!
//! The recorder follows keys, not the order of calls: an expansion labelled `c hs traffic` yields a secret, the
//! expansion of that secret labelled `finished` yields a key, and what is authenticated under that key is the id. So
//! nothing that rustls may add later (tickets, binders, key updates) can be mistaken for it.
//!
//! Which connection a computation belongs to is known from a slot of the current thread, filled for the time of one
//! call into rustls by [`Recorder::during`]. Calls into rustls are synchronous, so nothing else can run in between.
//! It must never: keep a secret after the id is known, or be read before the handshake is complete (rustls has then
//! compared the value with what the peer sent).

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use rustls::crypto::tls13::{Hkdf, HkdfExpander, OkmBlock, OutputLengthError};
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, aws_lc_rs, hmac};
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls13CipherSuite};
use subtle::ConstantTimeEq;

use super::verification::ChainError;

/// What is learned about one connection while rustls works for it.
///
/// Secrets inside are [`OkmBlock`]s, which are wiped on drop.
#[derive(Default)]
pub(super) struct Recorder {
    client_handshake_secret: Option<OkmBlock>,
    client_finished_key: Option<OkmBlock>,
    client_finished: Option<[u8; 32]>,
    /// The peer asked us for a certificate (client side only).
    pub(super) certificate_requested: bool,
    /// Why the peer's certificates were refused, in more words than rustls can carry.
    pub(super) chain_error: Option<ChainError>,
}

thread_local! {
    static CURRENT: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

impl Recorder {
    /// The client's `Finished.verify_data`: 32 bytes. Meaningful only once the handshake is complete.
    pub(super) fn client_finished(&self) -> Option<[u8; 32]> {
        self.client_finished
    }

    /// Runs one synchronous call into rustls with this recorder listening on the current thread.
    ///
    /// Calls may be nested and may panic: whoever listened before listens again afterwards.
    pub(super) fn during<R>(&mut self, call: impl FnOnce() -> R) -> R {
        struct Listening<'a> {
            recorder: &'a mut Recorder,
            outer: Option<Recorder>,
        }
        impl Drop for Listening<'_> {
            fn drop(&mut self) {
                if let Some(filled) = CURRENT.with(|slot| slot.replace(self.outer.take())) {
                    *self.recorder = filled;
                }
                if self.recorder.client_finished.is_some() {
                    self.recorder.client_handshake_secret = None;
                    self.recorder.client_finished_key = None;
                }
            }
        }
        let outer = CURRENT.with(|slot| slot.replace(Some(std::mem::take(self))));
        let _listening = Listening { recorder: self, outer };
        call()
    }
}

/// Tells the recorder that listens on this thread, if any.
pub(super) fn record(tell: impl FnOnce(&mut Recorder)) {
    CURRENT.with(|slot| {
        if let Some(recorder) = slot.borrow_mut().as_mut() {
            tell(recorder);
        }
    });
}

/// Whether `info` is an `HkdfLabel` (RFC 8446 7.1) with this label: length (2), label length (1), `tls13 `, label, …
fn is_label(info: &[&[u8]], label: &[u8]) -> bool {
    let mut bytes = info.iter().flat_map(|part| part.iter().copied()).skip(2);
    let wanted = b"tls13 ".iter().chain(label).copied();
    bytes.next().map(usize::from) == Some(6 + label.len()) && bytes.take(6 + label.len()).eq(wanted)
}

fn is_same(secret: Option<&OkmBlock>, other: &OkmBlock) -> bool {
    secret.is_some_and(|secret| bool::from(secret.as_ref().ct_eq(other.as_ref())))
}

struct RecordingHkdf(&'static dyn Hkdf);

struct RecordingExpander {
    inner: Box<dyn HkdfExpander>,
    of_client_handshake_secret: bool,
}

impl RecordingExpander {
    fn boxed(inner: Box<dyn HkdfExpander>) -> Box<dyn HkdfExpander> {
        Box::new(Self { inner, of_client_handshake_secret: false })
    }
}

impl HkdfExpander for RecordingExpander {
    fn expand_slice(&self, info: &[&[u8]], output: &mut [u8]) -> Result<(), OutputLengthError> {
        self.inner.expand_slice(info, output)
    }

    fn expand_block(&self, info: &[&[u8]]) -> OkmBlock {
        let block = self.inner.expand_block(info);
        if self.of_client_handshake_secret {
            if is_label(info, b"finished") {
                record(|recorder| recorder.client_finished_key = Some(block.clone()));
            }
        } else if is_label(info, b"c hs traffic") {
            record(|recorder| recorder.client_handshake_secret = Some(block.clone()));
        }
        block
    }

    fn hash_len(&self) -> usize {
        self.inner.hash_len()
    }
}

impl Hkdf for RecordingHkdf {
    fn extract_from_zero_ikm(&self, salt: Option<&[u8]>) -> Box<dyn HkdfExpander> {
        RecordingExpander::boxed(self.0.extract_from_zero_ikm(salt))
    }

    fn extract_from_secret(&self, salt: Option<&[u8]>, secret: &[u8]) -> Box<dyn HkdfExpander> {
        RecordingExpander::boxed(self.0.extract_from_secret(salt, secret))
    }

    fn extract_from_kx_shared_secret(
        &self,
        salt: Option<&[u8]>,
        exchange: Box<dyn ActiveKeyExchange>,
        peer_public_key: &[u8],
    ) -> Result<Box<dyn HkdfExpander>, rustls::Error> {
        Ok(RecordingExpander::boxed(self.0.extract_from_kx_shared_secret(salt, exchange, peer_public_key)?))
    }

    fn expander_for_okm(&self, okm: &OkmBlock) -> Box<dyn HkdfExpander> {
        let mut of_client_handshake_secret = false;
        record(|recorder| {
            of_client_handshake_secret = is_same(recorder.client_handshake_secret.as_ref(), okm)
        });
        let inner = self.0.expander_for_okm(okm);
        // Only the one secret is worth a second allocation.
        if of_client_handshake_secret {
            Box::new(RecordingExpander { inner, of_client_handshake_secret })
        } else {
            inner
        }
    }

    fn hmac_sign(&self, key: &OkmBlock, message: &[u8]) -> hmac::Tag {
        let tag = self.0.hmac_sign(key, message);
        record(|recorder| {
            if is_same(recorder.client_finished_key.as_ref(), key) {
                recorder.client_finished = tag.as_ref().try_into().ok();
            }
        });
        tag
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

/// The provider of every SMP connection of this process: aws-lc-rs reduced to what SMP uses, with the recorder in place.
///
/// rustls wants cipher suites for `'static`, so the one suite is leaked, once per process.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let base = aws_lc_rs::default_provider();
        let cipher_suites = match aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256 {
            SupportedCipherSuite::Tls13(suite) => {
                let hkdf_provider: &'static RecordingHkdf =
                    Box::leak(Box::new(RecordingHkdf(suite.hkdf_provider)));
                let recording: &'static Tls13CipherSuite = Box::leak(Box::new(Tls13CipherSuite {
                    common: CipherSuiteCommon {
                        suite: suite.common.suite,
                        hash_provider: suite.common.hash_provider,
                        confidentiality_limit: suite.common.confidentiality_limit,
                    },
                    hkdf_provider,
                    aead_alg: suite.aead_alg,
                    quic: None,
                }));
                vec![SupportedCipherSuite::Tls13(recording)]
            }
            #[allow(unreachable_patterns)] // there are TLS 1.2 suites only when that feature of rustls is on
            _ => Vec::new(),
        };
        Arc::new(CryptoProvider { cipher_suites, kx_groups: vec![aws_lc_rs::kx_group::X25519], ..base })
    });
    PROVIDER.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_apart_however_they_are_cut() {
        let info: [&[u8]; 4] = [&[0, 32, 18], b"tls13 ", b"c hs traffic", &[0]];
        assert!(is_label(&info, b"c hs traffic"));
        assert!(!is_label(&info, b"s hs traffic"));
        assert!(!is_label(&info, b"c hs traffi"));
        let joined = info.concat();
        assert!(is_label(&[&joined], b"c hs traffic"));
        assert!(!is_label(&[&joined[..8]], b"c hs traffic"));
        assert!(!is_label(&[], b"finished"));
    }

    #[test]
    fn a_panic_inside_a_call_leaves_the_outer_listener_in_place() {
        let mut outer = Recorder::default();
        outer.during(|| {
            let mut inner = Recorder::default();
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                inner.during(|| {
                    record(|recorder| recorder.certificate_requested = true);
                    panic!("as a defect in rustls would");
                })
            }));
            assert!(panicked.is_err());
            assert!(inner.certificate_requested);
            record(|recorder| recorder.client_finished = Some([7; 32]));
        });
        assert!(!outer.certificate_requested);
        assert_eq!(outer.client_finished(), Some([7; 32]));
        assert!(CURRENT.with(|slot| slot.borrow().is_none()));
    }
}
