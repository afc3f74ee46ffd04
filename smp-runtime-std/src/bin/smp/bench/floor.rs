//! What one message costs a relay in cryptography alone: the time below which no implementation of the protocol can get
//! with these primitives.
//!
//! One message is delivered with five blocks: `SEND` comes in, `OK` goes out, `MSG` goes out, `ACK` comes in and its `OK`
//! goes out. Measured are the same primitives that a relay uses, on one thread, in this process, in the same run; and
//! measured is processor time, like that of the relay. Twice: before the load, on a machine that is idle as far as we
//! are concerned, and while the load runs, where busy neighbours slow the primitives as they slow the relay.

use std::hint::black_box;
use std::time::Duration;

use serde::Serialize;
use smp_proto::crypto::chain_keys::{BLOCK_LENGTH, CONTENT_OFFSET, ChainKey, MAX_ENCRYPTED_CONTENT};
use smp_proto::crypto::message_body::{SEALED_LENGTH, seal_message};
use smp_proto::crypto::provider::Provider;
use smp_proto::crypto::{BoxKey, Nonce, authenticator};
use smp_proto::keys::{Ed25519Secret, X25519Secret};
use smp_proto::time::UnixTime;
use smp_runtime_std::certificates::{Algorithm, DEFAULT_VALIDITY_DAYS, NewIdentity, Validity};
use smp_runtime_std::fast_cryptography::FAST;
use smp_runtime_std::tls::{ClientTls, ServerTls, TlsSession};

use crate::failure::{Failure, Kind};

/// Repetitions of one measurement, of which the median is taken: others use the machine too.
const ROUNDS: usize = 25;
/// Messages of one repetition.
const MESSAGES: u32 = 40;
/// The largest body of today's versions.
const BODY: usize = 16_048;

/// The parts of the floor, in microseconds for one message.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Floor {
    /// Two TLS records read, three written.
    pub(crate) tls_us: f64,
    /// Block encryption: two blocks opened, three sealed.
    pub(crate) blocks_us: f64,
    /// One authenticator over a `SEND` of the largest body, SHA-512 included, with its shared secret at hand.
    pub(crate) authenticator_us: f64,
    /// One Ed25519 verification, of the `ACK`.
    pub(crate) signature_us: f64,
    /// One box of the message for its recipient.
    pub(crate) message_us: f64,
    /// Everything.
    pub(crate) total_us: f64,
}

/// What one new connection costs a relay in cryptography alone, until commands could follow, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ConnectionFloor {
    /// Two X25519 key pairs: one for TLS, one for SMP.
    pub(crate) keys_us: f64,
    /// Two X25519 shared secrets.
    pub(crate) secrets_us: f64,
    /// Two Ed25519 signatures: TLS proves the certificate, and SMP signs its key.
    pub(crate) signatures_us: f64,
    /// A TLS record of a block read and one written: both hellos.
    pub(crate) tls_us: f64,
    /// Everything.
    pub(crate) total_us: f64,
}

/// Measures the floor of a connection with `provider`.
pub(crate) fn measure_connection(provider: &'static dyn Provider) -> Result<ConnectionFloor, Failure> {
    let secret = X25519Secret::from_bytes([1; 32]);
    let peer = provider.x25519_public(&X25519Secret::from_bytes([2; 32]));
    let keys_us = 2.0 * median(|| timed(|| _ = black_box(provider.x25519_public(black_box(&secret)))));
    let secrets_us = 2.0 * median(|| timed(|| _ = black_box(provider.x25519(&secret, black_box(&peer)))));
    let signer = Ed25519Secret::from_bytes([4; 32]);
    // RFC 8446 4.4.3: 64 spaces, a text, a zero and a hash of 32 bytes.
    let text = [6; 64 + 34 + 32];
    let sign = || _ = black_box(provider.ed25519_sign(&signer, &[black_box(&text)]));
    let signatures_us = 2.0 * median(|| timed(sign));
    let tls_us = tls(1, 1)?;
    let total_us = keys_us + secrets_us + signatures_us + tls_us;
    Ok(ConnectionFloor { keys_us, secrets_us, signatures_us, tls_us, total_us })
}

impl ConnectionFloor {
    pub(crate) fn text(&self) -> String {
        format!(
            "floor: {:.1} µs a connection (X25519 keys {:.1} and secrets {:.1}, signatures {:.1}, TLS records {:.1})",
            self.total_us, self.keys_us, self.secrets_us, self.signatures_us, self.tls_us
        )
    }
}

/// Measures the floor with `provider`.
pub(crate) fn measure(provider: &'static dyn Provider) -> Result<Floor, Failure> {
    let tls_us = tls(2, 3)?;
    let blocks_us = blocks(provider, 2, &[MAX_ENCRYPTED_CONTENT, 100, 100]);
    let authenticator_us = authenticators(provider);
    let signature_us = signatures(provider);
    let message_us = messages(provider);
    let total_us = tls_us + blocks_us + authenticator_us + signature_us + message_us;
    Ok(Floor { tls_us, blocks_us, authenticator_us, signature_us, message_us, total_us })
}

/// The median of [`ROUNDS`] times for [`MESSAGES`] messages each, for one message in microseconds. `round` returns the
/// time that counts.
fn median(mut round: impl FnMut() -> Duration) -> f64 {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| round()).collect();
    times.sort_unstable();
    let median = times.get(ROUNDS / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e6 / f64::from(MESSAGES)
}

/// The processor time that this thread has used.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn timed(mut work: impl FnMut()) -> Duration {
    let start = processor_time();
    for _ in 0..MESSAGES {
        work();
    }
    processor_time().saturating_sub(start)
}

/// So many blocks opened, and one sealed for each length of content.
fn blocks(provider: &'static dyn Provider, opened: u32, lengths: &[usize]) -> f64 {
    let mut incoming = ChainKey::from_bytes([1; 32]);
    let mut client = ChainKey::from_bytes([1; 32]);
    let mut outgoing = ChainKey::from_bytes([2; 32]);
    let mut block = Box::new([0; BLOCK_LENGTH]);
    let mut sealed: Vec<Box<[u8; BLOCK_LENGTH]>> = Vec::new();
    median(|| {
        sealed.clear();
        for _ in 0..opened * MESSAGES {
            block.fill(7);
            // The client's part of the work does not count.
            black_box(client.seal_block(provider, &mut block, MAX_ENCRYPTED_CONTENT)).ok();
            sealed.push(block.clone());
        }
        let mut arriving = sealed.iter_mut();
        timed(|| {
            for block in arriving.by_ref().take(opened as usize) {
                black_box(incoming.open_block(provider, block)).ok();
            }
            for length in lengths {
                black_box(outgoing.seal_block(provider, &mut block, *length)).ok();
            }
        })
    })
}

fn authenticators(provider: &'static dyn Provider) -> f64 {
    let key = BoxKey::from_symmetric(&[3; 32]);
    let body = [7; BODY];
    let session = [9; 33];
    let authorized: [&[u8]; 2] = [&session, &body];
    let made = authenticator::create(provider, &key, &[5; 24], &authorized);
    median(|| {
        timed(|| {
            black_box(authenticator::verify(provider, &key, &[5; 24], black_box(&authorized), &made));
        })
    })
}

fn signatures(provider: &'static dyn Provider) -> f64 {
    let secret = Ed25519Secret::from_bytes([4; 32]);
    let public = provider.ed25519_public(&secret);
    // session id, correlation, entity, `ACK` and a message id
    let text = [6; 33 + 25 + 25 + 29];
    let signature = provider.ed25519_sign(&secret, &[&text]);
    median(|| {
        timed(|| {
            black_box(provider.ed25519_verify(&public, &[black_box(&text)], &signature));
        })
    })
}

fn messages(provider: &'static dyn Provider) -> f64 {
    let key = BoxKey::from_symmetric(&[8; 32]);
    let body = [7; BODY];
    let mut out = Box::new([0; SEALED_LENGTH]);
    median(|| {
        timed(|| {
            let time = UnixTime(1_700_000_000);
            black_box(seal_message(provider, &key, &Nonce([1; 24]), time, true, black_box(&body), &mut out))
                .ok();
        })
    })
}

// The first offset of the content is what sessions use; were it another, blocks would be measured wrongly.
const _: () = assert!(CONTENT_OFFSET + MAX_ENCRYPTED_CONTENT == BLOCK_LENGTH);

/// So many TLS records of a block read, and so many written.
fn tls(read: u32, written: u32) -> Result<f64, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(Kind::Unexpected, format!("the floor of TLS cannot be measured: {error}"))
    };
    let identity =
        NewIdentity::make("localhost", Algorithm::Ed25519, Validity::days_from_now(DEFAULT_VALIDITY_DAYS))
            .map_err(|error| failed(&error))?;
    let server = ServerTls::new(&identity.online).map_err(|error| failed(&error))?;
    let client = ClientTls::new(identity.fingerprint()).map_err(|error| failed(&error))?;
    let mut server = TlsSession::server(&server).map_err(|error| failed(&error))?;
    let mut client = TlsSession::client(&client).map_err(|error| failed(&error))?;
    while server.is_handshaking() || client.is_handshaking() {
        carry(&mut client, &mut server);
        server.process().map_err(|error| failed(&error))?;
        carry(&mut server, &mut client);
        client.process().map_err(|error| failed(&error))?;
    }
    let block = [7; BLOCK_LENGTH];
    let mut error = None;
    let micros = median(|| {
        let mut time = Duration::ZERO;
        for _ in 0..MESSAGES {
            for _ in 0..read {
                error = error.take().or(client.write_plaintext(&block).err());
                carry(&mut client, &mut server);
                let start = processor_time();
                let result = server.read_block(|block| {
                    black_box(block);
                });
                time += processor_time().saturating_sub(start);
                error = error.take().or(result.err());
            }
            let start = processor_time();
            for _ in 0..written {
                error = error.take().or(server.write_plaintext(black_box(&block)).err());
            }
            time += processor_time().saturating_sub(start);
            for _ in 0..written {
                carry(&mut server, &mut client);
                while let Ok(Some(())) = client.read_block(|block| {
                    black_box(block);
                }) {}
            }
        }
        time
    });
    match error {
        Some(error) => Err(failed(&error)),
        None => Ok(micros),
    }
}

/// Takes bytes from one end to the other, as many as that has room for.
fn carry(from: &mut TlsSession, to: &mut TlsSession) {
    while from.wants_write() {
        let taken = to.feed(from.outgoing());
        if taken == 0 {
            break;
        }
        from.consume_outgoing(taken);
    }
}

impl Floor {
    /// Measures the floor while the relay works, and says how much processor time that took: what is left when others
    /// compete for the machine.
    pub(crate) fn under_load() -> Result<(Self, Duration), Failure> {
        let start = processor_time();
        let floor = measure(&FAST)?;
        Ok((floor, processor_time().saturating_sub(start)))
    }

    pub(crate) fn text(&self) -> String {
        format!(
            "floor: {:.1} µs a message (TLS {:.1}, block encryption {:.1}, authenticator {:.1}, signature {:.1}, box {:.1})",
            self.total_us,
            self.tls_us,
            self.blocks_us,
            self.authenticator_us,
            self.signature_us,
            self.message_us
        )
    }
}
