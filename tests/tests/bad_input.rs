//! What a relay answers to clients that break the rules: the exact error, or silence and a closed connection. Over real
//! TLS on loopback, with both runtimes.
#![allow(clippy::unwrap_used, reason = "a test")]

mod raw_client;
mod relay_under_test;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use raw_client::{
    Hello, Key, NewOptions, PATIENCE, RawClient, RawTls, acknowledge_command, large, random, send_command,
    short,
};
use relay_under_test::{Options, RelayUnderTest, Runtime};
use smp_proto::crypto::chain_keys::BLOCK_LENGTH;
use smp_proto::crypto::padding;
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::tls::{ApplicationProtocol, ClientTlsOptions};

/// What is done, with which key, about what, the command, and its answer.
type Case<'a> = (&'a str, &'a Key, &'a [u8], Vec<u8>, &'a [u8]);

/// Runs the test against a relay of each runtime.
fn with_both(test: impl Fn(&RelayUnderTest)) {
    for runtime in [Runtime::Smol, Runtime::Blocking] {
        println!("a relay of {runtime:?}");
        let relay = RelayUnderTest::start(runtime, Options::default());
        test(&relay);
        // Whatever happened to others, a new client is served.
        assert_eq!(relay.raw().command(&Key::Nothing, b"", b"PING").unwrap(), b"PONG");
        assert!(relay.stop(), "the relay of {runtime:?} did not stop in order");
    }
}

/// The connection must be closed without a block.
fn assert_closed_silently(what: &str, tls: &mut RawTls) {
    match tls.block(PATIENCE) {
        Ok(None) => {}
        Ok(Some(_)) => panic!("{what}: the relay answered"),
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn hellos_that_do_not_fit_are_answered_with_silence() {
    with_both(|relay| {
        let cases: [(&str, Hello); 3] = [
            ("another fingerprint", Hello { fingerprint: Some(vec![1; 32]), ..Hello::default() }),
            ("a version that is too new", Hello { forced_version: Some(999), ..Hello::default() }),
            ("a version that is too old", Hello { forced_version: Some(5), ..Hello::default() }),
        ];
        for (what, hello) in cases {
            let mut client = RawClient::connect_with(relay.address, relay.fingerprint, &hello).unwrap();
            assert_closed_silently(what, &mut client.tls);
        }
        let padded = |content: &[u8]| {
            let mut block = vec![0; BLOCK_LENGTH];
            padding::pad(content, &mut block).unwrap();
            block
        };
        let cut_key = [&14_u16.to_be_bytes()[..], &short(&relay.fingerprint.0), &[44, 1, 2]].concat();
        let blocks: [(&str, Vec<u8>); 5] = [
            ("nothing", padded(b"")),
            ("one byte", padded(b"\0")),
            ("a length that lies", vec![0xFF; BLOCK_LENGTH]),
            ("a key that is cut", padded(&cut_key)),
            ("random bytes", random::<BLOCK_LENGTH>().to_vec()),
        ];
        for (what, block) in blocks {
            let mut tls = RawTls::connect(relay.address, relay.fingerprint).unwrap();
            assert!(tls.block(PATIENCE).unwrap().is_some(), "{what}: no server hello");
            tls.send(&block).unwrap();
            assert_closed_silently(what, &mut tls);
        }
    });
}

#[test]
fn what_is_not_tls_or_not_a_block_ends_the_connection_and_nothing_else() {
    with_both(|relay| {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0x16, 3, 1, 0xFF, 0xFF], &[0x80; 5000]] {
            let mut socket = TcpStream::connect(relay.address).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // The relay may close before everything is written.
            let _ = socket.write_all(garbage);
            let _ = socket.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer);
            assert!(answer.len() <= 7, "more than a TLS alert: {} bytes", answer.len());
        }
        for length in [0, 1, 100, BLOCK_LENGTH - 1] {
            let mut client = relay.raw();
            client.tls.send(&vec![7; length]).unwrap();
            client.tls.tls.close();
            client.tls.socket_flush();
            client.tls.socket.shutdown(Shutdown::Write).unwrap();
            assert_closed_silently("a block that is cut", &mut client.tls);
        }
        let mut client = relay.raw();
        client.tls.send(&random::<BLOCK_LENGTH>()).unwrap();
        assert_closed_silently("a block that cannot be decrypted", &mut client.tls);
        let mut client = relay.raw();
        client.tls.socket.write_all(&[0x17, 3, 3, 0, 40]).unwrap();
        client.tls.socket.write_all(&[9; 40]).unwrap();
        assert_closed_silently("a TLS record that is forged", &mut client.tls);
    });
}

#[test]
fn identities_and_protocols_are_checked_on_both_sides() {
    with_both(|relay| {
        let refused = RawTls::connect(relay.address, Fingerprint([1; 32])).err().unwrap();
        assert!(refused.contains("certificate chain is refused"), "{refused}");
        let without_alpn = ClientTlsOptions { protocol: None, ..ClientTlsOptions::default() };
        let mut tls = RawTls::connect_with(relay.address, relay.fingerprint, &without_alpn).unwrap();
        let hello = tls.block(PATIENCE).unwrap().unwrap();
        assert_eq!(padding::unpad(hello.as_slice()).unwrap().get(..4).unwrap(), [0, 6, 0, 6]);
        let other =
            ClientTlsOptions { protocol: Some(ApplicationProtocol::Http11), ..ClientTlsOptions::default() };
        // Either both agree on a protocol for SMP, or the handshake ends with an alert: never a session of another kind.
        if let Ok(mut tls) = RawTls::connect_with(relay.address, relay.fingerprint, &other) {
            let _ = tls.block(PATIENCE);
        }
    });
}

#[test]
fn half_open_handshakes_keep_nobody_out() {
    with_both(|relay| {
        let sockets: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(relay.address).unwrap()).collect();
        let tls: Vec<RawTls> =
            (0..10).map(|_| RawTls::connect(relay.address, relay.fingerprint).unwrap()).collect();
        let mut client = relay.raw();
        assert_eq!(client.command(&Key::Nothing, b"", b"PING").unwrap(), b"PONG");
        drop((sockets, tls));
    });
}

#[test]
fn batches_and_transmissions_that_cannot_be_read_get_err_block() {
    with_both(|relay| {
        let mut client = relay.raw();
        let ping = |client: &RawClient| large(&client.transmission(&Key::Nothing, &[7; 24], b"", b"PING"));
        let contents: Vec<(&str, Vec<u8>)> = vec![
            ("no content", vec![]),
            ("no transmission", vec![0]),
            ("a transmission that is missing", vec![1]),
            ("a length that lies", vec![1, 0xFF, 0xFF, 1]),
            ("an empty transmission", vec![1, 0, 0]),
            ("a correlation that is cut", [&[1][..], &large(&[0, 24, 1, 2])].concat()),
            ("bytes after the last transmission", [&[1][..], &ping(&client), b"more"].concat()),
            ("fewer transmissions than said", [&[2][..], &ping(&client)].concat()),
        ];
        for (what, content) in contents {
            client.send_content(&content).unwrap();
            let said = client.next(PATIENCE).unwrap().unwrap_or_else(|| panic!("{what}: closed"));
            if said.content == b"PONG" {
                assert_eq!(what, "bytes after the last transmission", "only these may be ignored");
                continue;
            }
            assert_eq!(said.content, b"ERR BLOCK", "{what}");
            assert!(said.correlation.is_empty() && said.entity.is_empty(), "{what}");
        }
        for length in [1, 63, 65, 79, 81, 113, 115, 255] {
            let correlation = client.send(&Key::Bytes(vec![1; length]), &[1; 24], b"SUB").unwrap();
            let said = client.next(PATIENCE).unwrap().unwrap();
            assert_eq!(
                (said.content.as_slice(), said.correlation.as_slice()),
                (&b"ERR BLOCK"[..], &correlation[..])
            );
        }
    });
}

#[test]
fn commands_get_the_exact_error() {
    with_both(|relay| {
        let mut client = relay.raw();
        let queue = client.new_queue(NewOptions::default()).unwrap();
        let (own, other) = (queue.recipient_key.clone(), Key::new_ed25519());
        let (recipient, sender) = (queue.recipient.clone(), queue.sender.clone());
        let new = client.new_queue_command(
            &own,
            &smp_proto::keys::X25519Secret::from_bytes(random()),
            NewOptions::default(),
        );
        let cut = new.get(..new.len() - 30).unwrap().to_vec();
        let largest = vec![b'x'; 16_048];
        let too_large = vec![b'x'; 16_049];
        let random_id = random::<24>().to_vec();
        let nothing = Key::Nothing;
        let wrong_kind = Key::new_x25519();
        let table: Vec<Case<'_>> = vec![
            ("an unknown command", &nothing, b"", b"HELLO".to_vec(), b"ERR CMD UNKNOWN"),
            ("no command", &nothing, b"", b"".to_vec(), b"ERR CMD UNKNOWN"),
            ("lower case", &nothing, b"", b"ping".to_vec(), b"ERR CMD UNKNOWN"),
            ("a line break for a space", &own, &recipient, b"SUB\n".to_vec(), b"ERR CMD UNKNOWN"),
            ("trailing space", &own, &recipient, b"SUB ".to_vec(), b"ERR CMD SYNTAX"),
            ("trailing bytes", &own, &recipient, b"SUB more".to_vec(), b"ERR CMD SYNTAX"),
            ("missing parameters", &own, &recipient, b"ACK".to_vec(), b"ERR CMD SYNTAX"),
            ("NEW that is cut", &own, b"", cut, b"ERR CMD SYNTAX"),
            ("SEND without flags", &nothing, &sender, b"SEND  text".to_vec(), b"ERR CMD SYNTAX"),
            ("KEY that is no key", &own, &recipient, b"KEY \x03abc".to_vec(), b"ERR CMD SYNTAX"),
            ("NEW without authorization", &nothing, b"", new.clone(), b"ERR CMD NO_AUTH"),
            ("NEW with an entity", &own, &recipient, new.clone(), b"ERR CMD HAS_AUTH"),
            ("SUB without authorization", &nothing, &recipient, b"SUB".to_vec(), b"ERR CMD NO_AUTH"),
            ("SUB without an entity", &own, b"", b"SUB".to_vec(), b"ERR CMD NO_AUTH"),
            ("SEND without an entity", &nothing, b"", send_command(b"text"), b"ERR CMD NO_ENTITY"),
            ("PING with authorization", &own, b"", b"PING".to_vec(), b"ERR CMD HAS_AUTH"),
            ("PING with an entity", &nothing, &recipient, b"PING".to_vec(), b"ERR CMD HAS_AUTH"),
            ("NEW signed with another key", &other, b"", new, b"ERR AUTH"),
            ("SUB signed with another key", &other, &recipient, b"SUB".to_vec(), b"ERR AUTH"),
            ("SUB with another kind of key", &wrong_kind, &recipient, b"SUB".to_vec(), b"ERR AUTH"),
            ("SUB to the sender's id", &own, &sender, b"SUB".to_vec(), b"ERR AUTH"),
            ("SUB to no queue", &own, &random_id, b"SUB".to_vec(), b"ERR AUTH"),
            ("SUB with an id of another length", &own, b"short", b"SUB".to_vec(), b"ERR AUTH"),
            ("SEND to no queue", &nothing, &random_id, send_command(b"text"), b"ERR AUTH"),
            ("SEND to the recipient's id", &nothing, &recipient, send_command(b"text"), b"ERR AUTH"),
            ("a signed SEND before KEY", &other, &sender, send_command(b"text"), b"ERR AUTH"),
            ("a message that is too large", &nothing, &sender, send_command(&too_large), b"ERR LARGE_MSG"),
            ("ACK of nothing", &own, &recipient, acknowledge_command(&[1; 24]), b"ERR NO_MSG"),
            ("GET where there is a subscription", &own, &recipient, b"GET".to_vec(), b"ERR CMD PROHIBITED"),
            ("the largest message", &nothing, &sender, send_command(&largest), b"OK"),
        ];
        for (what, key, entity, command, expected) in table {
            let correlation = client.send(key, entity, &command).unwrap();
            let said = client.answer(&correlation).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(
                said.content.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{what}"
            );
            assert_eq!(said.entity, entity, "{what}");
        }
    });
}

#[test]
fn a_command_of_one_connection_is_worth_nothing_in_another() {
    with_both(|relay| {
        let (mut one, mut other) = (relay.raw(), relay.raw());
        let queue = one.new_queue(NewOptions { subscribe: false, ..NewOptions::default() }).unwrap();
        let correlation = random::<24>();
        let recorded = one.transmission(&queue.recipient_key, &correlation, &queue.recipient, b"SUB");
        other.send_batch(std::slice::from_ref(&recorded)).unwrap();
        assert_eq!(other.answer(&correlation).unwrap().content, b"ERR AUTH");
        one.send_batch(&[recorded]).unwrap();
        assert!(matches!(one.answer(&correlation).unwrap().content.as_slice(), b"OK" | b"SOK 0"));
    });
}

#[test]
fn every_version_that_is_offered_works() {
    with_both(|relay| {
        for version in 6..=18 {
            let hello = Hello { max_version: version, ..Hello::default() };
            for with_key in [true, false] {
                let hello = Hello { with_key, ..hello.clone() };
                let mut client = RawClient::connect_with(relay.address, relay.fingerprint, &hello).unwrap();
                assert!(client.version <= version);
                let queue = client.new_queue(NewOptions::default()).unwrap();
                let sent = client.command(&Key::Nothing, &queue.sender, &send_command(b"hello")).unwrap();
                assert_eq!(sent, b"OK", "version {version}");
                let delivered = client.event(PATIENCE).unwrap();
                let (id, body) = raw_client::open_delivery(&queue, &delivered.content).unwrap();
                assert_eq!(body.as_deref(), Some(&b"hello"[..]));
                let acknowledged = client
                    .command(&queue.recipient_key, &queue.recipient, &acknowledge_command(&id))
                    .unwrap();
                assert_eq!(acknowledged, b"OK", "version {version}");
            }
        }
    });
}
