//! What a relay's session allocates for a block when everything is warm: nothing but the block itself.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use smp_proto::crypto::{Portable, Provider};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::X25519Secret;
use smp_proto::session::AuthSecret;
use smp_proto::session::outgoing::{DeliveredMessage, Delivery, DeliverySecret, Outgoing, OutgoingContent};
use smp_proto::session::request::{Authority, Request};
use smp_proto::session::server::Received;
use smp_proto::time::UnixTime;
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{Command, MessageFlags};
use smp_proto::wire::{EntityId, Identifier};
use smp_tests::sessions::{Certificates, NOW, Pair, PairOptions};

#[test]
fn a_message_in_and_a_message_out_allocate_nothing_but_blocks() {
    let mut pair = Pair::connect(&Certificates::named("ed25519"), &PairOptions::at(14)).expect("a handshake");
    let mut entropy = SeededEntropy::new([1; 32]);
    let keys =
        [AuthSecret::X25519(X25519Secret::from_bytes([1; 32])), AuthSecret::generate_ed25519(&mut entropy)];
    let body = vec![5; 16_000];
    let mut outgoing = VecDeque::with_capacity(4);
    for key in keys {
        let public = key.public(&Portable);
        for round in 0..4 {
            let mut block = BytesMut::zeroed(BLOCK_LENGTH);
            let send = Command::Send { flags: MessageFlags::default(), body: &body };
            let name = Identifier::from([round; 24]);
            pair.client
                .seal(block.as_mut().try_into().unwrap(), NOW, |writer| {
                    writer.add(&name, &name, &send, Some(&key)).expect("fits");
                })
                .expect("established");
            let delivery = Delivery {
                secret: DeliverySecret {
                    relay: [1; 32],
                    peer: Portable.x25519_public(&X25519Secret::from_bytes([2; 32])),
                },
                id: [round; 24],
                timestamp: UnixTime(1),
                message: Some(DeliveredMessage { notification: false, body: Bytes::from(body.clone()) }),
            };
            outgoing.push_back(Outgoing::new(
                Identifier::EMPTY,
                EntityId::EMPTY,
                OutgoingContent::Message(delivery),
            ));
            let mut out = [0; BLOCK_LENGTH];

            let received = allocation_counter::measure(|| {
                let Ok(Received::Commands(block)) = pair.server.receive(block, NOW) else {
                    panic!("not read")
                };
                let mut requests = pair.server.parse(&block);
                let mut chunk = requests.next_chunk().expect("a request");
                for request in &mut chunk {
                    let Request::Command { authority, .. } = request else { panic!("malformed") };
                    *authority = Authority::Key(public);
                }
                let verified = pair.server.verify(chunk, &mut entropy);
                assert!(verified.iter().all(|one| one.is_authorized()));
            });
            let packed = allocation_counter::measure(|| {
                assert!(pair.server.pack_into(&mut outgoing, &mut out, NOW));
            });
            if round > 0 {
                // The first round fills what is remembered of shared secrets.
                assert_eq!((received.count_total, packed.count_total), (0, 0), "{key:?}, round {round}");
            }
        }
    }
}
