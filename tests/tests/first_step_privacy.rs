//! All bytes on both sides of a first-step relay, recorded on real sockets under the traffic of many senders: nothing in common,
//! one size, one session towards the destination, and no queue in what the first-step relay can read.
#![allow(missing_docs, clippy::unwrap_used)]

mod cable;
mod holder;
mod raw_client;
mod relay_under_test;

use std::collections::HashSet;

use smp_proto::wire::base64url;
use smp_proto::wire::first_step::{FirstStepError, ForwardOptions, Hold, SEALED_LENGTH};

use cable::{Cable, Recorded};
use holder::{Heard, Holder};
use raw_client::{Key, NewOptions, PATIENCE, open_delivery, random, send_command};
use relay_under_test::{Options, RelayUnderTest, Runtime, address};

const HOLD: ForwardOptions = ForwardOptions { while_unsecured: false, while_full: false, hold: Hold::Day };
const AT_ONCE: ForwardOptions = ForwardOptions { hold: Hold::Never, ..HOLD };

const SENDERS: usize = 12;
const MESSAGES: usize = 3;
/// The same from everybody: what is equal inside must not be equal outside.
const TEXT: &[u8] = b"the very same text of everybody";

/// A block in a TLS record: the block, the type of its content, the authentication.
const FULL_RECORD: usize = 16_384 + 1 + 16;
/// A goodbye in a TLS record.
const ALERT_RECORD: usize = 2 + 1 + 16;

/// The TLS records of one direction of one connection: type and what is in it.
fn records(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        let Some((record, rest)) = rest.split_at_checked(length) else { break };
        found.push((head[0], record));
        bytes = rest;
    }
    found
}

/// What is encrypted in one direction of a connection. What TLS says in the open to begin with, such as the names of its
/// ciphers, is the same on every connection of the world.
fn encrypted(bytes: &[u8]) -> Vec<&[u8]> {
    records(bytes).into_iter().filter(|(kind, _)| *kind == 23).map(|(_, record)| record).collect()
}

fn pieces<'a>(records: impl IntoIterator<Item = &'a [u8]>) -> HashSet<[u8; 8]> {
    let windows = records.into_iter().flat_map(|record| record.windows(8));
    windows.map(|piece| piece.try_into().unwrap()).collect()
}

/// The sizes of what is said when the handshakes of TLS are over: from the first whole block on.
fn sizes(bytes: &[u8]) -> HashSet<usize> {
    let sizes = encrypted(bytes).into_iter().map(<[u8]>::len);
    sizes.skip_while(|size| *size != FULL_RECORD).filter(|size| *size != ALERT_RECORD).collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|part| part == needle)
}

#[test]
fn the_two_sides_of_a_first_step_relay_have_nothing_in_common() {
    for runtime in [Runtime::Smol, Runtime::Blocking] {
        let relay =
            RelayUnderTest::start(runtime, Options { private_destinations: true, ..Options::default() });
        let far = RelayUnderTest::start(runtime, Options::default());
        let far_cable = Cable::to(far.address);
        far_cable.record();
        let at = address(far.fingerprint, far_cable.address);
        let mut recipient = far.raw();
        let queue = recipient.new_queue(NewOptions::default()).unwrap();

        // Each sender has a cable of its own, so that what is recorded is one connection.
        let mut senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let cable = Cable::to(relay.address);
                cable.record();
                let mut client = Holder::connect(cable.address, relay.fingerprint).unwrap();
                let registration = client.registered(random(), &at);
                (cable, client, registration)
            })
            .collect();
        let mut sealed = Vec::new();
        for message in 0..MESSAGES {
            for (_, client, registration) in &mut senders {
                let command = registration.seal(&Key::Nothing, &queue.sender, &send_command(TEXT));
                let number = client.number();
                let options = if message % 2 == 0 { HOLD } else { AT_ONCE };
                client.forward(registration, number, options, &command);
                let answer = loop {
                    match client.hear_about(number) {
                        Heard::Error(FirstStepError::Held { .. }) => {}
                        Heard::Response(answer) => break answer,
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!(command.open(&answer), b"OK");
                sealed.push(command.bytes);
                sealed.push(answer);
            }
        }
        let said = recipient.event(PATIENCE).unwrap();
        assert_eq!(open_delivery(&queue, &said.content).unwrap().1.unwrap(), TEXT, "it arrives");

        let near: Vec<Recorded> = senders.iter().map(|(cable, ..)| cable.recorded()).collect();
        let away = far_cable.recorded();
        let near_records =
            near.iter().flat_map(|side| [encrypted(&side.to_target), encrypted(&side.from_target)]).flatten();
        let away_records = [encrypted(&away.to_target), encrypted(&away.from_target)].into_iter().flatten();
        let (near_pieces, away_pieces) = (pieces(near_records), pieces(away_records));
        // Blocks of 16 KB each way, for each message.
        let least = SENDERS * MESSAGES * 2 * 16_000;
        assert!(near_pieces.len() > least && away_pieces.len() > least, "everything was recorded");
        // Of two times a million pieces of 64 bits none would be equal by chance.
        let common: Vec<_> = near_pieces.intersection(&away_pieces).collect();
        assert!(common.is_empty(), "{} pieces are in common: {:?}", common.len(), common.first());

        // One size everywhere.
        let sides = near.iter().chain([&away]).flat_map(|side| [&side.to_target, &side.from_target]);
        for side in sides {
            assert_eq!(sizes(side), HashSet::from([FULL_RECORD]));
        }

        // The destination has one session for all of them.
        assert_eq!(far_cable.connections(), 1);
        let statistics = far.relay().forwarding_statistics();
        assert_eq!((statistics.relays, statistics.executed), (1, (SENDERS * MESSAGES) as u64));

        // What the first-step relay can read: no id, no link, no text; and what it cannot is different each time.
        let id = &queue.sender;
        let link = base64url::encode(id);
        for (_, client, _) in &senders {
            assert!(client.contents.len() > MESSAGES * 2);
            for content in &client.contents {
                for secret in [id.as_slice(), &queue.recipient, link.as_bytes(), TEXT, b"SEND", &id[..8]] {
                    assert!(!contains(content, secret), "{}", secret.escape_ascii());
                }
            }
        }
        assert!(sealed.iter().all(|bytes| bytes.len() == SEALED_LENGTH));
        let count: usize = sealed.iter().map(|bytes| bytes.len() - 7).sum();
        assert_eq!(pieces(sealed.iter().map(Vec::as_slice)).len(), count, "no piece of 8 bytes comes twice");
        drop(senders);
        assert!(relay.stop() && far.stop());
    }
}
