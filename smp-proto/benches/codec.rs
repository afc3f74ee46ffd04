//! Reading and writing without cryptography: `cargo bench -p smp-proto --bench codec`.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use smp_proto::wire::Identifier;
use smp_proto::wire::block::{BLOCK_LENGTH, PLAIN_CONTENT_START, pad_plain, plain_content};
use smp_proto::wire::command::{Command, MessageFlags};
use smp_proto::wire::response::Response;
use smp_proto::wire::transmission::{
    Authorization, Batch, BatchWriter, SessionLayout, Transmission, write_head,
};
use smp_proto::wire::version::Version;

const LAYOUT: SessionLayout<'_> = SessionLayout { version: Version(14), session: &[7; 32] };

/// A block, not encrypted, with `count` commands that carry a signature of zeros.
fn block(command: &Command<'_>, count: usize) -> Box<[u8; BLOCK_LENGTH]> {
    let mut block = Box::new([0; BLOCK_LENGTH]);
    let name = Identifier::from([3; 24]);
    let mut batch = BatchWriter::new(&mut block[PLAIN_CONTENT_START..]).expect("room");
    for _ in 0..count {
        batch
            .add(|out| {
                write_head(Authorization::Ed25519(&[0; 64]), None, LAYOUT, &name, &name, out)?;
                command.encode(LAYOUT.version, out)
            })
            .expect("fits");
    }
    let length = batch.finish();
    pad_plain(&mut block[..], length).expect("fits");
    block
}

fn decode(block: &[u8; BLOCK_LENGTH]) -> usize {
    let batch = plain_content(block).and_then(Batch::parse).expect("a batch");
    batch.filter(|bytes| Transmission::decode_command(black_box(bytes), LAYOUT).is_ok()).count()
}

fn reading(criterion: &mut Criterion) {
    let body = vec![5; 16_000];
    let send = block(&Command::Send { flags: MessageFlags::default(), body: &body }, 1);
    criterion.bench_function("read a block with SEND of 16,000 bytes", |bencher| {
        bencher.iter(|| assert_eq!(decode(black_box(&send)), 1));
    });
    let subscriptions = block(&Command::Subscribe, 130);
    criterion.bench_function("read a block with 130 SUB", |bencher| {
        bencher.iter(|| assert_eq!(decode(black_box(&subscriptions)), 130));
    });
}

fn writing(criterion: &mut Criterion) {
    let body = vec![5; 16_122];
    let name = Identifier::from([3; 24]);
    let mut block = Box::new([0; BLOCK_LENGTH]);
    let mut write = |response: &Response<'_>, count: usize| {
        let mut batch = BatchWriter::new(&mut block[PLAIN_CONTENT_START..]).expect("room");
        for _ in 0..count {
            batch
                .add(|out| {
                    write_head(Authorization::None, None, LAYOUT, &name, &name, out)?;
                    response.encode(LAYOUT.version, out)
                })
                .expect("fits");
        }
        let length = batch.finish();
        pad_plain(&mut block[..], length).expect("fits");
        black_box(&block);
    };
    let message = Response::Message { id: name.clone(), body: &body };
    criterion
        .bench_function("write a block with MSG", |bencher| bencher.iter(|| write(black_box(&message), 1)));
    criterion.bench_function("write a block with 255 OK", |bencher| {
        bencher.iter(|| write(black_box(&Response::Ok), 255))
    });
}

criterion_group!(benches, reading, writing);
criterion_main!(benches);
