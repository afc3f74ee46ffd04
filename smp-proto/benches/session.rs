//! What a relay's session does for one block: `cargo bench -p smp-proto --bench session`.
#![allow(missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use smp_proto::crypto::{Portable, Provider};
use smp_proto::keys::X25519Secret;
use smp_proto::session::outgoing::{DeliveredMessage, Delivery, DeliverySecret, Outgoing, OutgoingContent};
use smp_proto::session::request::{Authority, Request};
use smp_proto::session::{AuthSecret, OpenedBlock};
use smp_proto::time::{Now, UnixTime};
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{Command, MessageFlags};
use smp_proto::wire::{CorrelationId, Identifier};

#[path = "support/mod.rs"]
mod support;
use support::Connection;

fn verify(connection: &mut Connection, block: &OpenedBlock, authority: &Authority) -> usize {
    let mut authorized = 0;
    let mut requests = connection.server.parse(block);
    let mut chunks = Vec::new();
    while let Some(chunk) = requests.next_chunk() {
        chunks.push(chunk);
    }
    for mut chunk in chunks {
        for request in &mut chunk {
            if let Request::Command { authority: place, .. } = request {
                *place = authority.clone();
            }
        }
        let verified = connection.server.verify(chunk, &mut connection.entropy);
        authorized += verified.iter().filter(|one| one.is_authorized()).count();
    }
    authorized
}

/// Blocks in the order in which they must be read.
fn blocks(
    connection: &mut Connection,
    command: &Command<'_>,
    key: Option<&AuthSecret>,
) -> VecDeque<BytesMut> {
    (0..64).map(|_| connection.seal(command, key, 1)).collect()
}

fn receive(criterion: &mut Criterion) {
    let body = vec![5; 16_000];
    let send = Command::Send { flags: MessageFlags::default(), body: &body };
    let keys = [
        ("authenticator, remembered secret", AuthSecret::X25519(X25519Secret::from_bytes([1; 32]))),
        ("Ed25519 signature", AuthSecret::Ed25519(smp_proto::keys::Ed25519Secret::from_bytes([1; 32]))),
    ];
    for (name, key) in &keys {
        let authority = Authority::Key(key.public(&Portable));
        let mut connection = Connection::new();
        let mut ready = VecDeque::new();
        criterion.bench_function(&format!("receive and verify SEND of 16,000 bytes, {name}"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..rounds {
                    if ready.is_empty() {
                        ready = blocks(&mut connection, &send, Some(key));
                    }
                    let Some(block) = ready.pop_front() else { continue };
                    let start = std::time::Instant::now();
                    let block = connection.receive(block);
                    assert_eq!(black_box(verify(&mut connection, &block, &authority)), 1);
                    spent += start.elapsed();
                }
                spent
            });
        });
    }

    let key = &keys[1].1;
    let authority = Authority::Key(key.public(&Portable));
    let mut connection = Connection::new();
    let block = connection.seal(&Command::Subscribe, Some(key), 128);
    let block = connection.receive(block);
    criterion.bench_function("verify a block of 128 SUB, Ed25519", |bencher| {
        bencher.iter(|| assert_eq!(verify(&mut connection, &block, &authority), 128));
    });
    criterion.bench_function("refuse a block of 128 SUB to unknown queues, Ed25519", |bencher| {
        bencher.iter(|| assert_eq!(verify(&mut connection, &block, &Authority::Unknown), 0));
    });
}

fn delivery(peer: u8) -> Outgoing {
    let secret = DeliverySecret {
        relay: [1; 32],
        peer: Portable.x25519_public(&X25519Secret::from_bytes([peer; 32])),
    };
    let message = DeliveredMessage { notification: false, body: Bytes::from(vec![5; 16_000]) };
    Outgoing::new(
        CorrelationId::EMPTY,
        Identifier::from([2; 24]),
        OutgoingContent::Message(Delivery {
            secret,
            id: [4; 24],
            timestamp: UnixTime(1),
            message: Some(message),
        }),
    )
}

fn pack(criterion: &mut Criterion) {
    let mut connection = Connection::new();
    let mut block = Box::new([0; BLOCK_LENGTH]);
    let one = delivery(1);
    criterion.bench_function("pack MSG of 16,000 bytes, remembered secret", |bencher| {
        bencher.iter_batched(
            || VecDeque::from([one.clone()]),
            |mut outgoing| connection.server.pack_into(&mut outgoing, &mut block, Now::default()),
            BatchSize::SmallInput,
        );
    });
    let many: Vec<_> = (0..200).map(delivery).collect();
    let mut next = many.iter().cycle();
    criterion.bench_function("pack MSG of 16,000 bytes, new secret", |bencher| {
        bencher.iter_batched(
            || next.next().cloned().into_iter().collect::<VecDeque<_>>(),
            |mut outgoing| connection.server.pack_into(&mut outgoing, &mut block, Now::default()),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("pack 255 OK", |bencher| {
        let ok = Outgoing::new(Identifier::from([1; 24]), Identifier::from([2; 24]), OutgoingContent::Ok);
        bencher.iter_batched(
            || (0..255).map(|_| ok.clone()).collect::<VecDeque<_>>(),
            |mut outgoing| connection.server.pack_into(&mut outgoing, &mut block, Now::default()),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("a whole handshake, both sides", |bencher| bencher.iter(Connection::new));
}

criterion_group!(benches, receive, pack);
criterion_main!(benches);
