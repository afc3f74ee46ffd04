//! TLS from the outside: against OpenSSL in both roles, against rustls, and against itself.
#![allow(clippy::unwrap_used, reason = "a test")]

mod tls_support;

use std::collections::BTreeSet;

use openssl::ssl::SslVersion;
use proptest::prelude::*;
use smp_runtime_std::certificates::{Algorithm, Fingerprint};
use smp_runtime_std::tls::{
    ApplicationProtocol, BLOCK, ChainError, ClientTls, ClientTlsOptions, MAX_OUTGOING, ServerTls,
    ServerTlsOptions, Side, TlsFailure, TlsSession,
};
use tls_support::*;

/// A block of 16384 bytes as one TLS 1.3 record: header, content, content type, tag.
const BLOCK_RECORD: usize = 5 + 16_384 + 1 + 16;

/// Sessions move between the threads of a runtime.
const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<TlsSession>();
    is_send::<ServerTls>();
    is_send::<ClientTls>();
};

fn server() -> ServerTls {
    ServerTls::new(&identity(Algorithm::Ed25519).online).unwrap()
}

fn server_with(options: ServerTlsOptions) -> ServerTls {
    ServerTls::with_options(&identity(Algorithm::Ed25519).online, &options).unwrap()
}

/// A connected pair of ours: client, server.
fn connected() -> (TlsSession, TlsSession) {
    let identity = identity(Algorithm::Ed25519);
    let mut client = TlsSession::client(&ClientTls::new(identity.fingerprint()).unwrap()).unwrap();
    let mut server = TlsSession::server(&ServerTls::new(&identity.online).unwrap()).unwrap();
    let result = shake_hands_with_us(&mut client, &mut server);
    assert_eq!(result, (Ok(()), Ok(())));
    (client, server)
}

fn all_plaintext(session: &mut TlsSession, wire: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = wire;
    let mut some = [0; 10_000];
    loop {
        rest = &rest[session.feed(rest)..];
        let count = session.read_plaintext(&mut some).unwrap();
        all.extend_from_slice(&some[..count]);
        if count == 0 && rest.is_empty() {
            return all;
        }
    }
}

#[test]
fn session_id_of_our_server_is_what_openssl_sent() {
    let client_chain = chain(Purpose::Client, Algorithm::Ed25519, 2);
    let long_chain = chain(Purpose::Client, Algorithm::Ed25519, 4);
    let old_chain = chain(Purpose::Client, Algorithm::Ed448, 3);
    let alone = [issue("service", Purpose::Authority, Algorithm::Ed25519, None)];
    let asking = server();
    let asking_all = server_with(ServerTlsOptions { accept_ed448_from_clients: true, ..Default::default() });
    let not_asking =
        server_with(ServerTlsOptions { ask_for_client_certificate: false, ..Default::default() });
    type Case<'a> = (&'a str, &'a ServerTls, Option<&'a [Issued]>, &'a str, usize);
    let cases: [Case<'_>; 8] = [
        ("not asked", &not_asking, None, "X25519", 0),
        ("hello retry request", &not_asking, None, "X448:X25519", 0),
        ("asked, none given", &asking, None, "X25519", 0),
        ("asked, none given, hello retry request", &asking, None, "X448:X25519", 0),
        ("chain of 2", &asking, Some(&client_chain), "X25519", 2),
        ("chain of 4, hello retry request", &asking, Some(&long_chain), "X448:X25519", 4),
        ("Ed448 chain of 3", &asking_all, Some(&old_chain), "X25519", 3),
        ("self-signed", &asking, Some(&alone), "X25519", 1),
    ];
    for (name, configuration, credentials, groups, certificates) in cases {
        let mut ours = TlsSession::server(configuration).unwrap();
        let mut theirs = OpenSsl::new(false, &Settings { credentials, groups, ..Default::default() });
        assert!(ours.facts().is_none());
        shake_hands(&mut ours, &mut theirs).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(theirs.is_done(), "{name}");
        let facts = ours.take_facts().unwrap();
        assert_eq!(facts.session_id[..], theirs.session_id()[..], "{name}");
        assert_eq!(facts.protocol, Some(ApplicationProtocol::Smp1), "{name}");
        assert_eq!(theirs.protocol(), Some(&b"smp/1"[..]), "{name}");
        assert_eq!(facts.peer_certificates.len(), certificates, "{name}");
        if let Some(chain) = credentials {
            let expected: Vec<Vec<u8>> =
                chain.iter().map(|issued| issued.certificate.to_der().unwrap()).collect();
            assert_eq!(facts.peer_certificates, expected, "{name}");
        }
        assert!(ours.take_facts().is_none());
    }
}

#[test]
fn session_id_of_our_client_is_what_openssl_received() {
    let service = chain(Purpose::Client, Algorithm::Ed25519, 2);
    for (name, algorithm, length, asks, gives, groups) in [
        ("Ed25519", Algorithm::Ed25519, 2, false, false, "X25519"),
        ("Ed448", Algorithm::Ed448, 2, false, false, "X448:X25519"),
        ("chain of 3", Algorithm::Ed25519, 3, false, false, "X25519"),
        ("chain of 4, Ed448", Algorithm::Ed448, 4, false, false, "X25519"),
        ("asked, none given", Algorithm::Ed25519, 2, true, false, "X25519"),
        ("asked and given", Algorithm::Ed25519, 2, true, true, "X25519"),
        ("not asked", Algorithm::Ed25519, 2, false, true, "X25519"),
    ] {
        let their_chain = chain(Purpose::Server, algorithm, length);
        let options =
            ClientTlsOptions { credentials: gives.then(|| credentials(&service)), ..Default::default() };
        let mut ours =
            TlsSession::client(&ClientTls::with_options(fingerprint(&their_chain), &options).unwrap())
                .unwrap();
        let mut theirs = OpenSsl::new(
            true,
            &Settings {
                credentials: Some(&their_chain),
                groups,
                asks_for_certificate: asks,
                ..Default::default()
            },
        );
        shake_hands(&mut ours, &mut theirs).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(theirs.is_done(), "{name}");
        let facts = ours.facts().unwrap();
        assert_eq!(facts.session_id[..], theirs.session_id()[..], "{name}");
        assert_eq!(facts.protocol, Some(ApplicationProtocol::Smp1), "{name}");
        assert_eq!(facts.peer_certificates.len(), length, "{name}");
        assert_eq!(facts.certificate_requested, asks, "{name}");
        assert_eq!(theirs.peer_certificates(), if asks && gives { 2 } else { 0 }, "{name}");
    }
}

#[test]
fn blocks_travel_both_ways_with_openssl() {
    let mut ours = TlsSession::server(&server()).unwrap();
    let mut theirs = OpenSsl::new(false, &Settings::default());
    shake_hands(&mut ours, &mut theirs).unwrap();
    exchange_blocks(&mut ours, &mut theirs);

    // As a server OpenSSL also sends two tickets, which we pass over.
    let their_chain = chain(Purpose::Server, Algorithm::Ed25519, 2);
    let mut ours = TlsSession::client(&ClientTls::new(fingerprint(&their_chain)).unwrap()).unwrap();
    let mut theirs = OpenSsl::new(true, &Settings { credentials: Some(&their_chain), ..Default::default() });
    shake_hands(&mut ours, &mut theirs).unwrap();
    exchange_blocks(&mut ours, &mut theirs);
}

fn exchange_blocks(ours: &mut TlsSession, theirs: &mut OpenSsl) {
    for number in 0..5u8 {
        let block: Vec<u8> = (0..BLOCK).map(|index| (index % 251) as u8 ^ number).collect();
        ours.write_plaintext(&block).unwrap();
        let wire = outgoing(ours);
        assert_eq!(wire.len(), BLOCK_RECORD, "a block is exactly one record");
        assert_eq!(theirs.read(&wire), block);

        let wire = theirs.write(&block);
        assert_eq!(ours.feed(&wire), wire.len());
        assert_eq!(ours.read_block(|received| received.to_vec()).unwrap(), Some(block));
        assert_eq!(ours.read_block(|_| ()).unwrap(), None);
        assert_eq!(ours.buffered_memory(), 0, "an idle connection holds no buffers");
    }
}

#[test]
fn many_connections_interleaved_on_one_thread() {
    let identity = identity(Algorithm::Ed25519);
    let client = ClientTls::new(identity.fingerprint()).unwrap();
    let server = ServerTls::new(&identity.online).unwrap();
    let mut pairs: Vec<_> = (0..64)
        .map(|_| (TlsSession::client(&client).unwrap(), TlsSession::server(&server).unwrap()))
        .collect();
    for round in 0..4 {
        for index in 0..pairs.len() {
            let index = (index * 37 + round * 11) % pairs.len();
            let (client, server) = &mut pairs[index];
            deliver(server, &outgoing(client)).unwrap();
        }
        for index in 0..pairs.len() {
            let index = (index * 29 + round * 7) % pairs.len();
            let (client, server) = &mut pairs[index];
            deliver(client, &outgoing(server)).unwrap();
        }
    }
    let ids: BTreeSet<[u8; 32]> = pairs
        .iter()
        .map(|(client, server)| {
            assert_eq!(client.facts().unwrap().session_id, server.facts().unwrap().session_id);
            client.facts().unwrap().session_id
        })
        .collect();
    assert_eq!(ids.len(), pairs.len());
}

#[test]
fn several_threads_share_configurations() {
    let identity = identity(Algorithm::Ed25519);
    let client = ClientTls::new(identity.fingerprint()).unwrap();
    let server = ServerTls::new(&identity.online).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let mut client = TlsSession::client(&client).unwrap();
                    let mut server = TlsSession::server(&server).unwrap();
                    assert_eq!(shake_hands_with_us(&mut client, &mut server), (Ok(()), Ok(())));
                    assert_eq!(client.facts().unwrap().session_id, server.facts().unwrap().session_id);
                }
            });
        }
    });
}

#[test]
fn an_ed448_identity_is_hosted_and_verified() {
    let identity = identity(Algorithm::Ed448);
    let server = ServerTls::new(&identity.online).unwrap();
    let mut ours = TlsSession::client(&ClientTls::new(identity.fingerprint()).unwrap()).unwrap();
    let mut host = TlsSession::server(&server).unwrap();
    assert_eq!(shake_hands_with_us(&mut ours, &mut host), (Ok(()), Ok(())));
    assert_eq!(ours.facts().unwrap().session_id, host.facts().unwrap().session_id);

    let mut host = TlsSession::server(&server).unwrap();
    let mut theirs = OpenSsl::new(false, &Settings { groups: "X448:X25519", ..Default::default() });
    shake_hands(&mut host, &mut theirs).unwrap();
    assert_eq!(host.facts().unwrap().session_id[..], theirs.session_id()[..]);
}

#[test]
fn credentials_are_replaced_while_running() {
    let (first, second) = (identity(Algorithm::Ed25519), identity(Algorithm::Ed25519));
    let server = ServerTls::new(&first.online).unwrap();
    for expected in [&first, &second] {
        server.replace_credentials(&expected.online).unwrap();
        let mut client = TlsSession::client(&ClientTls::new(expected.fingerprint()).unwrap()).unwrap();
        let mut accepted = TlsSession::server(&server).unwrap();
        assert_eq!(shake_hands_with_us(&mut client, &mut accepted), (Ok(()), Ok(())));
    }
    let mut mismatch = first.online.clone();
    mismatch.key = second.online.key.clone();
    assert!(server.replace_credentials(&mismatch).is_err());
}

#[test]
fn the_application_protocol_is_optional_but_not_arbitrary() {
    // Offered none: accepted, and said so.
    let configuration = server();
    let mut ours = TlsSession::server(&configuration).unwrap();
    let mut theirs = OpenSsl::new(false, &Settings { protocols: b"", ..Default::default() });
    shake_hands(&mut ours, &mut theirs).unwrap();
    assert_eq!(ours.facts().unwrap().protocol, None);

    // Offered others only: refused.
    let mut ours = TlsSession::server(&configuration).unwrap();
    let mut theirs =
        OpenSsl::new(false, &Settings { protocols: b"\x02h2\x08http/1.1", ..Default::default() });
    let error = shake_hands(&mut ours, &mut theirs).unwrap_err();
    assert_eq!((error.peer, error.failure), (Side::Client, TlsFailure::NoCommonProtocol));

    // At the web port http/1.1 is what clients offer.
    let protocols = vec![ApplicationProtocol::Smp1, ApplicationProtocol::Http11];
    let web = server_with(ServerTlsOptions { protocols, ..Default::default() });
    let mut ours = TlsSession::server(&web).unwrap();
    let mut theirs = OpenSsl::new(false, &Settings { protocols: b"\x08http/1.1", ..Default::default() });
    shake_hands(&mut ours, &mut theirs).unwrap();
    assert_eq!(ours.facts().unwrap().protocol, Some(ApplicationProtocol::Http11));

    // A server that knows none of ours goes on without.
    let their_chain = chain(Purpose::Server, Algorithm::Ed25519, 2);
    let mut ours = TlsSession::client(&ClientTls::new(fingerprint(&their_chain)).unwrap()).unwrap();
    let settings = Settings { credentials: Some(&their_chain), protocols: b"\x02h2", ..Default::default() };
    shake_hands(&mut ours, &mut OpenSsl::new(true, &settings)).unwrap();
    assert_eq!(ours.facts().unwrap().protocol, None);
}

#[test]
fn peers_without_a_common_language_are_told_apart() {
    let configuration = server();
    for (settings, expected) in [
        (Settings { version: SslVersion::TLS1_2, ..Default::default() }, TlsFailure::NoCommonVersion),
        (
            Settings { suite: "TLS_AES_128_GCM_SHA256", ..Default::default() },
            TlsFailure::NoCommonCryptography,
        ),
        (Settings { groups: "X448", ..Default::default() }, TlsFailure::NoCommonCryptography),
    ] {
        let mut ours = TlsSession::server(&configuration).unwrap();
        let mut theirs = OpenSsl::new(false, &settings);
        let error = shake_hands(&mut ours, &mut theirs).unwrap_err();
        assert_eq!(error.failure, expected);
        assert!(!theirs.is_done());
        assert!(ours.facts().is_none());
    }
    let their_chain = chain(Purpose::Server, Algorithm::Ed25519, 2);
    let mut ours = TlsSession::client(&ClientTls::new(fingerprint(&their_chain)).unwrap()).unwrap();
    let settings =
        Settings { credentials: Some(&their_chain), version: SslVersion::TLS1_2, ..Default::default() };
    let error = shake_hands(&mut ours, &mut OpenSsl::new(true, &settings)).unwrap_err();
    assert_eq!((error.peer, error.failure), (Side::Server, TlsFailure::NoCommonVersion));
}

#[test]
fn a_server_that_is_not_the_one_is_refused_on_both_ends() {
    let their_chain = chain(Purpose::Server, Algorithm::Ed25519, 2);
    let expected = Fingerprint([7; 32]);
    let mut ours = TlsSession::client(&ClientTls::new(expected).unwrap()).unwrap();
    let mut theirs = OpenSsl::new(true, &Settings { credentials: Some(&their_chain), ..Default::default() });
    let error = shake_hands(&mut ours, &mut theirs).unwrap_err();
    let presented = fingerprint(&their_chain);
    assert_eq!(error.failure, TlsFailure::Certificates(ChainError::WrongFingerprint { expected, presented }));
    let text = error.to_string();
    assert!(text.contains(&presented.to_string()) && text.contains(&expected.to_string()), "{text}");
    assert!(!theirs.is_done());
    assert!(ours.facts().is_none());

    let identity = identity(Algorithm::Ed25519);
    let mut client = TlsSession::client(&ClientTls::new(expected).unwrap()).unwrap();
    let mut host = TlsSession::server(&ServerTls::new(&identity.online).unwrap()).unwrap();
    let (of_client, of_server) = shake_hands_with_us(&mut client, &mut host);
    assert!(matches!(
        of_client.unwrap_err().failure,
        TlsFailure::Certificates(ChainError::WrongFingerprint { .. })
    ));
    // unknown_ca, as from the reference.
    assert!(matches!(of_server.unwrap_err().failure, TlsFailure::Alert { code: 48, .. }));
}

#[test]
fn bad_chains_are_refused_by_clients() {
    let expired = {
        let root = issue("root", Purpose::Authority, Algorithm::Ed25519, None);
        let dates = (1_577_836_800, 1_609_459_200);
        vec![issue_dated("leaf", Purpose::Server, Algorithm::Ed25519, Some(&root), dates), root]
    };
    let early = {
        let root = issue("root", Purpose::Authority, Algorithm::Ed25519, None);
        let dates = (4_102_444_800, 4_733_510_400);
        vec![issue_dated("leaf", Purpose::Server, Algorithm::Ed25519, Some(&root), dates), root]
    };
    let unsigned = {
        let (root, other) =
            (chain(Purpose::Server, Algorithm::Ed25519, 2), chain(Purpose::Server, Algorithm::Ed25519, 2));
        vec![other[0].clone(), root[1].clone()]
    };
    let impostor = {
        let (victim, own) =
            (chain(Purpose::Server, Algorithm::Ed25519, 2), chain(Purpose::Server, Algorithm::Ed25519, 2));
        vec![own[0].clone(), victim[1].clone(), own[1].clone()]
    };
    let alone = vec![issue("alone", Purpose::Server, Algorithm::Ed25519, None)];
    for (chain, expected) in [
        (expired, ChainError::Expired { not_after: 1_609_459_200 }),
        (early, ChainError::NotYetValid { not_before: 4_102_444_800 }),
        (unsigned, ChainError::NotSigned),
        (impostor, ChainError::NotSignedByIdentity),
        (alone, ChainError::Length { length: 1 }),
        (chain(Purpose::Server, Algorithm::Ed25519, 5), ChainError::Length { length: 5 }),
    ] {
        let mut ours = TlsSession::client(&ClientTls::new(fingerprint(&chain)).unwrap()).unwrap();
        let mut theirs = OpenSsl::new(true, &Settings { credentials: Some(&chain), ..Default::default() });
        let error = shake_hands(&mut ours, &mut theirs).unwrap_err();
        assert_eq!(error.failure, TlsFailure::Certificates(expected));
        assert!(!theirs.is_done());
    }
}

#[test]
fn bad_chains_are_refused_by_servers() {
    let impostor = {
        let (victim, own) =
            (chain(Purpose::Client, Algorithm::Ed25519, 2), chain(Purpose::Client, Algorithm::Ed25519, 2));
        vec![own[0].clone(), victim[1].clone(), own[1].clone()]
    };
    let expired = vec![issue_dated(
        "old",
        Purpose::Authority,
        Algorithm::Ed25519,
        None,
        (1_577_836_800, 1_609_459_200),
    )];
    let configuration = server();
    // Ed448 where it is not welcome costs no verification.
    let mixed = {
        let root = issue("root", Purpose::Authority, Algorithm::Ed448, None);
        vec![issue("leaf", Purpose::Client, Algorithm::Ed25519, Some(&root)), root]
    };
    let mut ours = TlsSession::server(&configuration).unwrap();
    let mut theirs = OpenSsl::new(false, &Settings { credentials: Some(&mixed), ..Default::default() });
    let error = shake_hands(&mut ours, &mut theirs).unwrap_err();
    assert!(matches!(error.failure, TlsFailure::Certificates(ChainError::Unusable { .. })), "{error}");
    for (chain, expected) in [
        (impostor, ChainError::NotSignedByIdentity),
        (expired, ChainError::Expired { not_after: 1_609_459_200 }),
        (chain(Purpose::Client, Algorithm::Ed25519, 5), ChainError::Length { length: 5 }),
    ] {
        let mut ours = TlsSession::server(&configuration).unwrap();
        let mut theirs = OpenSsl::new(false, &Settings { credentials: Some(&chain), ..Default::default() });
        let error = shake_hands(&mut ours, &mut theirs).unwrap_err();
        assert_eq!(error.failure, TlsFailure::Certificates(expected));
        assert!(ours.facts().is_none());
    }
}

#[test]
fn what_is_not_tls_is_said_to_be_so() {
    let mut session = TlsSession::server(&server()).unwrap();
    let error = deliver(&mut session, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap_err();
    assert_eq!(error.failure, TlsFailure::NotTls);
    assert_eq!(session.process().unwrap_err().failure, TlsFailure::Closed);
    assert!(!outgoing(&mut session).is_empty(), "an alert");
    assert_eq!(session.buffered_memory(), 0);
}

#[test]
fn misuse_is_an_error_that_loses_nothing() {
    let mut client = TlsSession::client(&ClientTls::new(Fingerprint([0; 32])).unwrap()).unwrap();
    assert_eq!(client.write_plaintext(&[1]).unwrap_err().failure, TlsFailure::HandshakeNotComplete);
    assert_eq!(client.end_of_stream().unwrap_err().failure, TlsFailure::Truncated { during_handshake: true });

    let (mut client, mut server) = connected();
    let block = [1; BLOCK];
    let mut count = 0;
    let error = loop {
        match client.write_plaintext(&block) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.failure, TlsFailure::TooMuchOutgoing);
    assert!(client.outgoing().len() <= MAX_OUTGOING);
    assert_eq!(all_plaintext(&mut server, &outgoing(&mut client)).len(), count * BLOCK);
    client.write_plaintext(&block).unwrap();
    client.close();
    client.close();
    assert_eq!(client.write_plaintext(&block).unwrap_err().failure, TlsFailure::Closed);
    assert_eq!(all_plaintext(&mut server, &outgoing(&mut client)), block);
    assert!(server.peer_has_closed());
    assert!(!server.wants_read());
    assert_eq!(server.end_of_stream(), Ok(()));
    // The other direction is still open.
    server.write_plaintext(&block).unwrap();
    assert_eq!(all_plaintext(&mut client, &outgoing(&mut server)), block);
    assert_eq!(
        client.end_of_stream().unwrap_err().failure,
        TlsFailure::Truncated { during_handshake: false }
    );
}

#[test]
fn nothing_is_accepted_that_was_changed_on_its_way() {
    for position in [0, 3, 4, 5, 100, BLOCK_RECORD - 17, BLOCK_RECORD - 1] {
        let (mut client, mut server) = connected();
        client.write_plaintext(&[9; BLOCK]).unwrap();
        let mut wire = outgoing(&mut client);
        wire[position] ^= 0x40;
        server.feed(&wire);
        let error = match server.read_block(|_| ()) {
            Err(error) => error,
            // A length that grew: more is awaited, and that cannot authenticate either.
            Ok(None) => {
                server.feed(&[0; 20_000]);
                server.read_block(|_| ()).unwrap_err()
            }
            Ok(Some(())) => panic!("a block changed at {position} was accepted"),
        };
        let expected_alert = match &error.failure {
            TlsFailure::CorruptRecord => 20,
            TlsFailure::Misbehaved { .. } => 10,
            other => panic!("{other:?} at {position}"),
        };
        // The peer is told, under protection.
        let alert = outgoing(&mut server);
        client.feed(&alert);
        match client.plaintext().unwrap_err().failure {
            TlsFailure::Alert { code, .. } => {
                assert!(code == expected_alert || code == 22, "{code} at {position}")
            }
            other => panic!("{other:?} at {position}"),
        }
        assert_eq!(server.plaintext().unwrap_err().failure, TlsFailure::Closed);
        assert_eq!(server.write_plaintext(&[1]).unwrap_err().failure, TlsFailure::Closed);
        assert_eq!(server.buffered_memory(), 0);
    }
}

#[test]
fn records_cannot_be_repeated_swapped_or_dropped() {
    let deliver_records = |order: &[usize]| {
        let (mut client, mut server) = connected();
        let records: Vec<Vec<u8>> = (0..3u8)
            .map(|number| {
                client.write_plaintext(&[number; 100]).unwrap();
                outgoing(&mut client)
            })
            .collect();
        order.iter().try_for_each(|index| {
            server.feed(&records[*index]);
            server.plaintext().map(|plaintext| assert_eq!(plaintext, &[*index as u8; 100]))?;
            server.consume(100);
            Ok::<(), smp_runtime_std::tls::TlsError>(())
        })
    };
    assert!(deliver_records(&[0, 1, 2]).is_ok());
    for order in [[0, 0, 1], [1, 0, 2], [0, 2, 1]] {
        assert_eq!(deliver_records(&order).unwrap_err().failure, TlsFailure::CorruptRecord);
    }
}

#[test]
fn an_unprotected_or_oversized_record_ends_an_established_connection() {
    for wire in [
        &[21, 3, 3, 0, 2, 1, 0][..],
        &[20, 3, 3, 0, 1, 1],
        &[22, 3, 3, 0, 5, 24, 0, 0, 1, 0],
        &[23, 3, 3, 0x41, 0x01],
        &[23, 3, 3, 0xff, 0xff],
        &[0; 5],
    ] {
        let (_client, mut server) = connected();
        server.feed(wire);
        let error = server.plaintext().unwrap_err();
        assert!(matches!(error.failure, TlsFailure::Misbehaved { .. }), "{error}");
    }
    for wire in [&[23, 3, 3, 0, 0][..], &[23, 3, 3, 0, 3, 1, 2, 3]] {
        let (_client, mut server) = connected();
        server.feed(wire);
        assert_eq!(server.plaintext().unwrap_err().failure, TlsFailure::CorruptRecord);
    }
}

/// Keys that change while a connection lasts, against rustls itself, which can ask for it.
#[test]
fn keys_are_updated_when_the_peer_asks() {
    let identity = identity(Algorithm::Ed25519);
    let mut ours = TlsSession::server(&ServerTls::new(&identity.online).unwrap()).unwrap();
    let mut theirs = rustls_peer::client();
    let to_rustls = |theirs: &mut rustls::ClientConnection, wire: &[u8]| {
        let mut rest = wire;
        while !rest.is_empty() {
            theirs.read_tls(&mut rest).unwrap();
            theirs.process_new_packets().unwrap();
        }
    };
    let from_rustls = |theirs: &mut rustls::ClientConnection| {
        let mut wire = Vec::new();
        while theirs.wants_write() {
            theirs.write_tls(&mut wire).unwrap();
        }
        wire
    };
    for _ in 0..3 {
        deliver(&mut ours, &from_rustls(&mut theirs)).unwrap();
        to_rustls(&mut theirs, &outgoing(&mut ours));
    }
    assert!(ours.facts().is_some() && !theirs.is_handshaking());
    for number in 0..100u8 {
        if number.is_multiple_of(3) {
            theirs.refresh_traffic_keys().unwrap();
        }
        std::io::Write::write_all(&mut theirs.writer(), &[number; 1000]).unwrap();
        assert_eq!(all_plaintext(&mut ours, &from_rustls(&mut theirs)), [number; 1000]);
        ours.write_plaintext(&[number; 1000]).unwrap();
        to_rustls(&mut theirs, &outgoing(&mut ours));
        let mut received = [0; 1000];
        std::io::Read::read_exact(&mut theirs.reader(), &mut received).unwrap();
        assert_eq!(received, [number; 1000]);
    }
    // Without data in between it is an attack.
    for _ in 0..40 {
        theirs.refresh_traffic_keys().unwrap();
    }
    let wire = from_rustls(&mut theirs);
    ours.feed(&wire);
    assert!(matches!(ours.plaintext().unwrap_err().failure, TlsFailure::Misbehaved { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the network cuts the stream, and however the peer cuts blocks into records, the same blocks arrive.
    #[test]
    fn blocks_arrive_whole(
        writes in proptest::collection::vec(1..40_000usize, 1..8),
        cuts in proptest::collection::vec(1..30_000usize, 1..8),
    ) {
        let (mut client, mut server) = connected();
        let total: usize = writes.iter().sum();
        let stream: Vec<u8> = (0..total).map(|index| (index % 253) as u8).collect();
        let mut wire = Vec::new();
        let mut rest = &stream[..];
        for length in writes {
            client.write_plaintext(&rest[..length]).unwrap();
            wire.extend(outgoing(&mut client));
            rest = &rest[length..];
        }
        let mut received = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts.iter().cycle() {
            let taken = server.feed(&rest[..rest.len().min(*cut)]);
            rest = &rest[taken..];
            while let Some(block) = server.read_block(|block| *block).unwrap() {
                received.extend(block);
            }
            if rest.is_empty() {
                break;
            }
        }
        let whole = total / BLOCK * BLOCK;
        prop_assert_eq!(&received[..], &stream[..whole]);
        prop_assert!(server.buffered_memory() <= 2 * BLOCK);
    }

    /// Whatever bit of a handshake changes on its way: nothing panics, and two ends that both go on agree on the session.
    #[test]
    fn a_changed_handshake_is_never_misunderstood(flight in 0..4usize, position in 0..2000usize, bit in 0..8u8) {
        let identity = identity(Algorithm::Ed25519);
        let mut server = TlsSession::server(&ServerTls::new(&identity.online).unwrap()).unwrap();
        let mut client = TlsSession::client(&ClientTls::new(identity.fingerprint()).unwrap()).unwrap();
        for round in 0..4 {
            let (from, to) = if round % 2 == 0 { (&mut client, &mut server) } else { (&mut server, &mut client) };
            let mut wire = outgoing(from);
            if round == flight && !wire.is_empty() {
                let position = position % wire.len();
                wire[position] ^= 1 << bit;
            }
            let _ = deliver(to, &wire);
        }
        if let (Some(of_client), Some(of_server)) = (client.facts(), server.facts()) {
            prop_assert_eq!(of_client.session_id, of_server.session_id);
        }
    }

    /// Whatever arrives before or in place of a handshake is refused or awaited, and takes bounded memory.
    #[test]
    fn garbage_is_refused_in_the_handshake(
        kind in 0..30u8,
        garbage in proptest::collection::vec(any::<u8>(), 0..2000),
        position in 0..400usize,
    ) {
        let identity = identity(Algorithm::Ed25519);
        let mut server = TlsSession::server(&ServerTls::new(&identity.online).unwrap()).unwrap();
        let mut client = TlsSession::client(&ClientTls::new(identity.fingerprint()).unwrap()).unwrap();
        let mut hello = outgoing(&mut client);
        let at = position.min(hello.len());
        if kind < 10 {
            hello.splice(at.., garbage.iter().copied());
        } else if kind < 20 {
            hello.splice(..0, garbage.iter().copied());
        } else if at < hello.len() {
            hello[at] ^= 1 << (kind % 8);
        }
        let _ = deliver(&mut server, &hello);
        let _ = deliver(&mut client, &garbage);
        prop_assert!(server.facts().is_none() && client.facts().is_none());
        prop_assert!(client.buffered_memory() <= 2 * 40_000 && server.buffered_memory() <= 2 * 40_000);
    }
}
