//! Both sides of a connection of `smp-proxy/1` against each other, and against everything that somebody might send.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use smp_proto::crypto::Portable;
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::first_step::{FirstStepDial, FirstStepSession, Received};
use smp_proto::session::server::ServerSessionConfig;
use smp_proto::session::{CloseReason, Misuse, Protocol, SessionError, TransportFacts};
use smp_proto::time::{Duration, Now};
use smp_proto::wire::block::{BLOCK_LENGTH, plain_content};
use smp_proto::wire::hello::{ClientHello, HelloLayout, ServerHello};
use smp_proto::wire::primitives::Writer;
use smp_proto::wire::version::{Version, VersionRange};
use smp_tests::sessions::{Certificates, NOW, SESSION_ID, closed, facts_of, plain_block};

/// The most that a block can say.
const MOST: usize = BLOCK_LENGTH - 18;

fn first_step_facts(session: &[u8], peer_chain: &[Vec<u8>]) -> TransportFacts {
    TransportFacts { protocol: Protocol::FirstStep, ..facts_of(session, true, peer_chain) }
}

fn relay(certificates: &Certificates) -> Arc<ServerSessionConfig> {
    Arc::new(certificates.relay(ServerSessionConfig::OFFERED, &Portable))
}

fn accepting(certificates: &Certificates) -> FirstStepSession {
    let facts = first_step_facts(&SESSION_ID, &[]);
    FirstStepSession::accept(&relay(certificates), facts, NOW, &mut SeededEntropy::new([1; 32])).unwrap()
}

fn dialling(certificates: &Certificates) -> FirstStepSession {
    dialling_to(certificates.fingerprint.clone(), &SESSION_ID, &certificates.chain)
}

fn dialling_to(fingerprint: Vec<u8>, session: &[u8], chain: &[Vec<u8>]) -> FirstStepSession {
    let config = FirstStepDial::new(fingerprint, &Portable);
    FirstStepSession::dial(&config, first_step_facts(session, chain), NOW, &mut SeededEntropy::new([2; 32]))
}

fn later(seconds: u64) -> Now {
    Now { instant: NOW.instant + Duration::from_secs(seconds), ..NOW }
}

/// A relay and who dialled it, after their handshake.
fn connected(certificates: &Certificates) -> (FirstStepSession, FirstStepSession) {
    let (mut relay, mut client) = (accepting(certificates), dialling(certificates));
    assert!(client.take_handshake_block().is_none(), "nothing is said to somebody unknown");
    let hello = relay.take_handshake_block().unwrap();
    assert!(matches!(client.receive(hello, NOW), Ok(Received::Established)));
    assert!(!client.is_established(), "its hello goes first");
    assert_eq!(client.seal(&mut [0; BLOCK_LENGTH], NOW, |_| true), Err(Misuse::NotEstablished));
    let hello = client.take_handshake_block().unwrap();
    assert!(matches!(relay.receive(hello, NOW), Ok(Received::Established)));
    assert!(relay.is_established() && client.is_established());
    assert!(relay.next_deadline().is_none() && client.next_deadline().is_none());
    (relay, client)
}

fn seal(session: &mut FirstStepSession, content: &[u8]) -> BytesMut {
    let mut block = BytesMut::zeroed(BLOCK_LENGTH);
    let sealed = session.seal(block.as_mut().try_into().unwrap(), NOW, |out| out.put(content).is_ok());
    assert_eq!(sealed, Ok(true));
    block
}

fn open(session: &mut FirstStepSession, block: BytesMut) -> Result<Vec<u8>, CloseReason> {
    match closed(session.receive(block, NOW))? {
        Received::Content(content) => Ok(content.content().to_vec()),
        Received::Established => panic!("a second hello"),
    }
}

#[test]
fn both_sides_understand_each_other_in_both_directions() {
    for name in ["ed25519", "ed448"] {
        let (mut relay, mut client) = connected(&Certificates::named(name));
        for length in [0, 1, 100, MOST - 1, MOST] {
            let content: Vec<u8> = (0..length).map(|index| index as u8).collect();
            for _ in 0..2 {
                let block = seal(&mut client, &content);
                assert!(length < 16 || !block.windows(16).any(|part| part == &content[..16]));
                assert_eq!(open(&mut relay, block), Ok(content.clone()));
                let block = seal(&mut relay, &content);
                assert_eq!(open(&mut client, block), Ok(content.clone()));
            }
        }
    }
}

#[test]
fn who_has_nothing_to_say_says_nothing_and_too_much_is_not_written() {
    let (mut relay, mut client) = connected(&Certificates::named("ed25519"));
    let mut block = [0; BLOCK_LENGTH];
    assert_eq!(client.seal(&mut block, NOW, |_| false), Ok(false));
    assert_eq!(client.seal(&mut block, NOW, |out| out.put(&[1; MOST + 1]).is_ok()), Ok(false));
    // The keys have not moved on.
    let block = seal(&mut client, b"after that");
    assert_eq!(open(&mut relay, block), Ok(b"after that".to_vec()));
}

#[test]
fn hellos_have_the_fields_of_this_protocol() {
    let certificates = Certificates::named("ed25519");
    let (mut relay, mut client) = (accepting(&certificates), dialling(&certificates));
    let hello = relay.take_handshake_block().unwrap();
    let read = ServerHello::decode_in(HelloLayout::FirstStep, plain_content(&hello).unwrap()).unwrap();
    assert_eq!((read.versions, read.session), (VersionRange::only(Version(1)), &SESSION_ID[..]));
    let (chain, _) = read.authentication.unwrap();
    assert!(chain.certificates().eq(certificates.chain.iter().map(Vec::as_slice)));
    client.receive(hello, NOW).unwrap();
    let hello = client.take_handshake_block().unwrap();
    let read = ClientHello::decode_in(HelloLayout::FirstStep, plain_content(&hello).unwrap()).unwrap();
    assert_eq!((read.version, read.fingerprint), (Version(1), &certificates.fingerprint[..]));
    assert!(read.key.is_some() && !read.proxy && read.service.is_none());
    assert_eq!(plain_content(&hello).unwrap().len(), 2 + 33 + 45);
}

#[test]
fn whoever_dials_checks_whom_he_reaches() {
    let (certificates, other) = (Certificates::named("ed25519"), Certificates::named("ed448"));
    let refusal = |mut client: FirstStepSession, hello: BytesMut| {
        let reason = closed(client.receive(hello.clone(), NOW)).unwrap_err();
        assert!(client.take_handshake_block().is_none(), "nothing is said");
        assert_eq!(client.close_reason(), Some(reason));
        assert_eq!(client.receive(hello, NOW).unwrap_err(), SessionError::Misuse(Misuse::Ended));
        reason
    };
    let hello = || accepting(&certificates).take_handshake_block().unwrap();
    let (fingerprint, chain) = (&certificates.fingerprint, &certificates.chain);
    let right = || dialling_to(fingerprint.clone(), &SESSION_ID, chain);
    assert!(right().receive(hello(), NOW).is_ok());

    let wrong = dialling_to(other.fingerprint.clone(), &SESSION_ID, chain);
    assert_eq!(refusal(wrong, hello()), CloseReason::WrongRelayFound, "fingerprint");
    for short in [0, 31] {
        let wrong = dialling_to(fingerprint[..short].to_vec(), &SESSION_ID, chain);
        assert_eq!(refusal(wrong, hello()), CloseReason::WrongRelayFound, "fingerprint of {short} bytes");
    }
    let wrong = dialling_to(fingerprint.clone(), &SESSION_ID, &other.chain);
    assert_eq!(refusal(wrong, hello()), CloseReason::WrongRelayFound, "certificates in TLS");
    let wrong = dialling_to(fingerprint.clone(), &SESSION_ID, &[]);
    assert_eq!(refusal(wrong, hello()), CloseReason::WrongRelayFound, "no certificates in TLS");
    let wrong = dialling_to(fingerprint.clone(), &[9; 32], chain);
    assert_eq!(refusal(wrong, hello()), CloseReason::WrongSession);

    // What somebody in between might change.
    let original = hello();
    let content = plain_content(&original).unwrap();
    let read = ServerHello::decode_in(HelloLayout::FirstStep, content).unwrap();
    let (_, key) = read.authentication.unwrap();
    let changed = |versions: u16, chain: &[Vec<u8>], key: &[u8]| {
        let mut content = Vec::new();
        let versions = VersionRange::only(Version(versions));
        let layout = HelloLayout::FirstStep;
        ServerHello::encode_in(layout, versions, &SESSION_ID, chain, key, &mut content).unwrap();
        plain_block(&content)
    };
    assert!(right().receive(changed(1, chain, key.0), NOW).is_ok());
    for version in [0, 2, 18] {
        let reason = refusal(right(), changed(version, chain, key.0));
        assert!(matches!(reason, CloseReason::NoCommonVersion { .. }), "version {version}");
    }
    assert_eq!(refusal(right(), changed(1, &other.chain, key.0)), CloseReason::WrongRelayFound);
    for index in 0..key.0.len() {
        let mut forged = key.0.to_vec();
        forged[index] ^= 1;
        assert_eq!(refusal(right(), changed(1, chain, &forged)), CloseReason::KeyNotVerified, "byte {index}");
    }
    assert_eq!(refusal(right(), plain_block(b"?")), CloseReason::HelloUnreadable);
    // Without a key nothing could be encrypted.
    let without_key = &content[..4 + 33];
    assert_eq!(refusal(right(), plain_block(without_key)), CloseReason::HelloUnreadable);
    // The hello of SMP is none of this protocol.
    let mut smp = Vec::new();
    ServerHello::encode(ServerSessionConfig::OFFERED, &SESSION_ID, chain, key.0, &mut smp).unwrap();
    assert!(matches!(refusal(right(), plain_block(&smp)), CloseReason::NoCommonVersion { .. }));
}

#[test]
fn a_relay_refuses_hellos_all_in_the_same_silence() {
    let certificates = Certificates::named("ed25519");
    let good = {
        let mut client = dialling(&certificates);
        client.receive(accepting(&certificates).take_handshake_block().unwrap(), NOW).unwrap();
        client.take_handshake_block().unwrap()
    };
    let content = plain_content(&good).unwrap().to_vec();
    let changed = |index: usize, to: u8| {
        let mut content = content.clone();
        content[index] = to;
        plain_block(&content)
    };
    for (what, block, reason) in [
        ("fingerprint", changed(3, content[3] ^ 1), CloseReason::WrongRelayWanted),
        ("shorter fingerprint", changed(2, 31), CloseReason::WrongRelayWanted),
        ("version 0", changed(1, 0), CloseReason::VersionNotOffered(Version(0))),
        ("version 18", changed(1, 18), CloseReason::VersionNotOffered(Version(18))),
        ("no key", plain_block(&content[..2 + 33]), CloseReason::HelloUnreadable),
        ("half a key", plain_block(&content[..2 + 33 + 20]), CloseReason::HelloUnreadable),
        ("nothing", plain_block(b""), CloseReason::HelloUnreadable),
        ("noise", BytesMut::from(&[0xFF; BLOCK_LENGTH][..]), CloseReason::HelloUnreadable),
    ] {
        let mut relay = accepting(&certificates);
        relay.take_handshake_block().unwrap();
        assert_eq!(closed(relay.receive(block, NOW)).unwrap_err(), reason, "{what}");
        assert!(relay.take_handshake_block().is_none(), "{what}");
        assert_eq!(relay.close_reason(), Some(reason), "{what}");
        assert_eq!(relay.seal(&mut [0; BLOCK_LENGTH], NOW, |_| true), Err(Misuse::Ended), "{what}");
    }
}

#[test]
fn a_block_is_read_once_unchanged_and_only_by_the_other_side() {
    let certificates = Certificates::named("ed25519");
    for place in [0, 15, 16, 20, BLOCK_LENGTH - 1] {
        let (mut relay, mut client) = connected(&certificates);
        let mut block = seal(&mut client, b"content");
        block[place] ^= 1;
        assert_eq!(open(&mut relay, block), Err(CloseReason::BlockUnreadable), "byte {place}");
        let last = seal(&mut client, b"content");
        assert_eq!(relay.receive(last, NOW).unwrap_err(), SessionError::Misuse(Misuse::Ended));
    }
    let (mut relay, mut client) = connected(&certificates);
    let block = seal(&mut client, b"content");
    assert_eq!(open(&mut client, block.clone()), Err(CloseReason::BlockUnreadable), "its own");
    assert_eq!(open(&mut relay, block.clone()), Ok(b"content".to_vec()));
    assert_eq!(open(&mut relay, block), Err(CloseReason::BlockUnreadable), "again");
    let (mut relay, mut client) = connected(&certificates);
    seal(&mut client, b"lost on the way");
    let block = seal(&mut client, b"content");
    assert_eq!(open(&mut relay, block), Err(CloseReason::BlockUnreadable), "after a lost one");
}

#[test]
fn a_handshake_that_takes_too_long_ends() {
    let certificates = Certificates::named("ed25519");
    for (mut session, limit) in [(accepting(&certificates), 120), (dialling(&certificates), 30)] {
        assert_eq!(session.next_deadline(), Some(later(limit).instant));
        assert_eq!(session.handle_timeout(later(limit - 1)), Ok(()));
        assert_eq!(session.handle_timeout(later(limit)), Err(CloseReason::HandshakeTimeout));
        assert_eq!(session.handle_timeout(later(limit)), Ok(()), "once");
        assert_eq!(session.next_deadline(), None);
        assert!(session.take_handshake_block().is_none());
    }
    // Also when nobody looked at the clock meanwhile.
    let (mut relay, mut client) = (accepting(&certificates), dialling(&certificates));
    let hello = relay.take_handshake_block().unwrap();
    assert_eq!(closed(client.receive(hello, later(30))).unwrap_err(), CloseReason::HandshakeTimeout);
}

#[test]
fn equal_inputs_give_equal_digests_and_others_others() {
    let certificates = Certificates::named("ed25519");
    let ((relay, client), (again, mut other)) = (connected(&certificates), connected(&certificates));
    assert_eq!(relay.digest(), again.digest());
    assert_eq!(client.digest(), other.digest());
    seal(&mut other, b"");
    assert_ne!(client.digest(), other.digest());
    assert_ne!(accepting(&certificates).digest(), dialling(&certificates).digest());
}

proptest! {
    #[test]
    fn arbitrary_blocks_end_a_session_and_nothing_else(
        start in prop::collection::vec(any::<u8>(), 0..300),
        is_relay: bool,
        established: bool,
        length in prop_oneof![Just(BLOCK_LENGTH), 0..20_000_usize],
    ) {
        let certificates = Certificates::named("ed25519");
        let mut session = match (is_relay, established) {
            (true, true) => connected(&certificates).0,
            (false, true) => connected(&certificates).1,
            (true, false) => accepting(&certificates),
            (false, false) => dialling(&certificates),
        };
        let mut block = BytesMut::zeroed(length);
        let most = start.len().min(length);
        block[..most].copy_from_slice(&start[..most]);
        let received = session.receive(block, NOW);
        if length == BLOCK_LENGTH {
            let ended = matches!(received, Err(SessionError::Close(_)));
            prop_assert!(ended && session.close_reason().is_some());
        } else {
            prop_assert!(matches!(received, Err(SessionError::Misuse(Misuse::BlockLength(_)))));
            prop_assert!(session.close_reason().is_none());
        }
    }

    #[test]
    fn hellos_that_were_changed_are_refused_or_say_the_same(place in 0..2000_usize, bit in 0..8_u8) {
        let certificates = Certificates::named("ed25519");
        let mut hello = accepting(&certificates).take_handshake_block().unwrap();
        let length = plain_content(&hello).unwrap().len();
        let place = place % (length + 10);
        hello[place] ^= 1 << bit;
        let mut client = dialling(&certificates);
        if client.receive(hello, NOW).is_ok() {
            // Padding, or the length of what is ignored behind the fields; a wider range of versions; the leaf, which is
            // that of TLS whatever is repeated here.
            let leaf = 2 + 4 + 33 + 1 + 2;
            let leaf = leaf..leaf + certificates.chain[0].len();
            let allowed = place < 2 + 4 || place >= 2 + length || leaf.contains(&place);
            prop_assert!(allowed, "byte {} was changed", place);
        }
    }
}
