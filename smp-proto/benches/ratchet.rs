//! What the double ratchet costs beside the primitives that it is made of: `cargo bench -p smp-proto --bench ratchet`.
//!
//! One message of full size (15,840 bytes padded) is sent and read. In the same chain that is, for both sides together: 2
//! HKDF, and AES-256-GCM over 2 headers and 2 texts. The first message of a new chain costs the reader a header more (the
//! key of the old chain is tried first), 2 HKDF, and X448: two secrets and a public key. Before criterion's own figures the
//! ratios are printed, from rounds that take turns, so that a busy machine slows both alike. Asked: at most 1.5.
#![allow(missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use smp_proto::crypto::ratchet::{InitialKeys, Ratchet, SUPPORTED_VERSIONS, SkippedKeys};
use smp_proto::crypto::{Portable, provider::derive, ratchet_aead, x448};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{X448Public, X448Secret};

/// What a text is padded to, and the longest text in it.
const PADDED: usize = 15_840;
const TEXT: usize = PADDED - 2;
/// The associated data of a header, and of a text at version 3.
const HEADER_ASSOCIATED: usize = 112;
const TEXT_ASSOCIATED: usize = 112 + 124;

struct Party {
    ratchet: Ratchet,
    late: SkippedKeys,
}

struct Pair {
    parties: [Party; 2],
    entropy: SeededEntropy,
    text: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let mut entropy = SeededEntropy::new([1; 32]);
        let (initiating, joining) =
            (InitialKeys::generate(&mut entropy), InitialKeys::generate(&mut entropy));
        let [link, confirmation] = [&initiating, &joining].map(|keys| keys.parameters(SUPPORTED_VERSIONS));
        let one = Ratchet::join(&Portable, &joining, &link, SUPPORTED_VERSIONS, &mut entropy);
        let other = Ratchet::initiate(&Portable, &initiating, &confirmation, SUPPORTED_VERSIONS);
        let (Ok(one), Ok(other)) = (one, other) else { panic!("both speak the same versions") };
        let parties = [one, other].map(|ratchet| Party { ratchet, late: SkippedKeys::new() });
        let mut pair = Self { parties, entropy, text: vec![5; TEXT] };
        for from in [0, 1, 0] {
            pair.talk(from);
        }
        pair
    }

    /// One message, sent and read.
    fn talk(&mut self, from: usize) {
        let Ok(key) = self.parties[from].ratchet.prepare(&Portable) else { panic!("can send") };
        let Ok(mut message) = key.seal(&self.text, PADDED) else { panic!("fits") };
        let reader = &mut self.parties[1 - from];
        let read = reader.ratchet.decrypt(&Portable, &mut reader.late, &mut self.entropy, &mut message);
        assert_eq!(black_box(read).map(|read| read.text.len()), Ok(TEXT));
    }

    /// A message after another of the same party.
    fn same_chain(&mut self) {
        self.talk(0);
    }

    /// Two messages in turn: each is the first of a new chain.
    fn turns(&mut self) {
        self.talk(1);
        self.talk(0);
    }
}

struct Primitives {
    text: Vec<u8>,
    sealed: Vec<u8>,
    header: [u8; 88],
    secret: X448Secret,
    public: X448Public,
}

impl Primitives {
    fn new() -> Self {
        let secret = X448Secret::from_bytes([3; 56]);
        let public = x448::public_key(&X448Secret::from_bytes([4; 56]));
        Self { text: vec![5; TEXT], sealed: vec![0; PADDED], header: [0; 88], secret, public }
    }

    fn hkdf(&self, salt: &[u8], input: &[u8]) {
        black_box(derive::<96>(&Portable, salt, black_box(input), b"SimpleXChainRatchet"));
    }

    fn seal_and_open_header(&mut self, attempts: usize) {
        let tag = ratchet_aead::seal_padded(
            &[1; 32],
            &[2; 16],
            &[3; HEADER_ASSOCIATED],
            &[4; 80],
            black_box(&mut self.header),
        );
        let Ok(tag) = tag else { panic!("fits") };
        for attempt in 1..attempts {
            let wrong = [attempt as u8; 16];
            let opened =
                ratchet_aead::open(&[9; 32], &[2; 16], &[3; HEADER_ASSOCIATED], &wrong, &mut self.header);
            assert!(black_box(opened).is_err());
        }
        let opened = ratchet_aead::open(&[1; 32], &[2; 16], &[3; HEADER_ASSOCIATED], &tag, &mut self.header);
        assert!(black_box(opened).is_ok());
    }

    fn seal_and_open_text(&mut self) {
        let sealed = black_box(&mut self.sealed);
        let tag = ratchet_aead::seal_padded(&[1; 32], &[2; 16], &[3; TEXT_ASSOCIATED], &self.text, sealed);
        let Ok(tag) = tag else { panic!("fits") };
        let opened = ratchet_aead::open(&[1; 32], &[2; 16], &[3; TEXT_ASSOCIATED], &tag, &mut self.sealed);
        assert!(black_box(opened).is_ok());
    }

    fn same_chain(&mut self) {
        self.hkdf(b"", &[7; 32]);
        self.hkdf(b"", &[7; 32]);
        self.seal_and_open_header(1);
        self.seal_and_open_text();
    }

    fn turn(&mut self) {
        self.hkdf(b"", &[7; 32]);
        self.seal_and_open_header(2);
        self.hkdf(&[8; 32], &[7; 56]);
        self.hkdf(&[8; 32], &[7; 56]);
        black_box(x448::agree(&self.secret, &self.public));
        black_box(x448::public_key(&self.secret));
        black_box(x448::agree(&self.secret, &self.public));
        self.hkdf(b"", &[7; 32]);
        self.seal_and_open_text();
    }
}

/// The median of the ratios of rounds that take turns, and of the durations of one operation.
fn compare(
    rounds: usize,
    operations: u32,
    mut ratchet: impl FnMut(),
    mut primitives: impl FnMut(),
) -> (f64, Duration, Duration) {
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..operations).for_each(|_| work());
        start.elapsed() / operations
    };
    let mut measured: Vec<_> = (0..rounds)
        .map(|_| {
            let (one, other) = (time(&mut ratchet), time(&mut primitives));
            (one.as_secs_f64() / other.as_secs_f64(), one, other)
        })
        .collect();
    measured.sort_by(|one, other| one.0.total_cmp(&other.0));
    measured[rounds / 2]
}

fn ratios() {
    let (mut pair, mut primitives) = (Pair::new(), Primitives::new());
    let same = compare(201, 20, || pair.same_chain(), || primitives.same_chain());
    let (mut pair, mut primitives) = (Pair::new(), Primitives::new());
    let turn = compare(
        201,
        1,
        || pair.turns(),
        || {
            primitives.turn();
            primitives.turn();
        },
    );
    for (name, (ratio, ratchet, sum)) in [("in the same chain", same), ("two messages in turn", turn)] {
        println!("{name}: ratchet {ratchet:?}, primitives {sum:?}, ratio {ratio:.2} (at most 1.5 is asked)");
    }
}

fn ratchet(criterion: &mut Criterion) {
    ratios();
    let (mut pair, mut primitives) = (Pair::new(), Primitives::new());
    criterion.bench_function("same chain: ratchet", |bench| bench.iter(|| pair.same_chain()));
    criterion.bench_function("same chain: primitives", |bench| bench.iter(|| primitives.same_chain()));
    criterion.bench_function("in turn, 2 messages: ratchet", |bench| bench.iter(|| pair.turns()));
    criterion.bench_function("in turn, 2 messages: primitives", |bench| {
        bench.iter(|| {
            primitives.turn();
            primitives.turn();
        });
    });
    let secret = X448Secret::from_bytes([3; 56]);
    criterion.bench_function("x448 public key", |bench| bench.iter(|| x448::public_key(black_box(&secret))));
    criterion.bench_function("AES-256-GCM of a text, sealed and opened", |bench| {
        bench.iter(|| primitives.seal_and_open_text());
    });
    criterion.bench_function("stored form, there and back", |bench| {
        bench.iter(|| Ratchet::from_bytes(&black_box(&pair.parties[0].ratchet).to_bytes()).is_ok());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = ratchet
}
criterion_main!(benches);
