//! Both sides of a connection against each other, and against everything that a peer might send.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use smp_proto::crypto::message_body::{ReceivedMessage, open_message};
use smp_proto::crypto::{BoxKey, Ed25519Check, Forged, Nonce, Portable, Provider, SharedSecret};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::{AuthKey, Ed448Secret, Ed25519Public, Ed25519Secret, X25519Public, X25519Secret};
use smp_proto::session::client::{AddError, ClientSession, ClientSessionConfig};
use smp_proto::session::outgoing::{
    DeliveredMessage, Delivery, DeliverySecret, NotificationDelivery, Outgoing, OutgoingContent,
};
use smp_proto::session::request::{Authority, Request};
use smp_proto::session::server::ServerSession;
use smp_proto::session::{AuthSecret, CloseReason, Misuse, OpenedBlock, SessionError};
use smp_proto::time::{Duration, Instant, Now, UnixTime};
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{
    Command, MessageFlags, NewQueue, NotifierKeys, QueueRequest, SubscriptionMode,
};
use smp_proto::wire::error::{CommandError, SmpError};
use smp_proto::wire::response::Response;
use smp_proto::wire::version::Version;
use smp_proto::wire::{CorrelationId, EntityId, Identifier};
use smp_tests::sessions::{Certificates, GivenEntropy, NOW, Pair, PairOptions, facts, plain_block, versions};

fn named(byte: u8) -> Identifier {
    [byte; 24].into()
}

fn ed25519(byte: u8) -> AuthSecret {
    AuthSecret::Ed25519(Ed25519Secret::from_bytes([byte; 32]))
}

fn x25519(byte: u8) -> AuthSecret {
    AuthSecret::X25519(X25519Secret::from_bytes([byte; 32]))
}

fn ed448(byte: u8) -> AuthSecret {
    AuthSecret::Ed448(Ed448Secret::from_bytes([byte; 57]))
}

fn connect(options: &PairOptions) -> Pair {
    Pair::connect(&Certificates::named("ed25519"), options).expect("a handshake")
}

/// The client's block with these commands, each about its own entity.
fn sealed(client: &mut ClientSession, commands: &[(Command<'_>, Option<&AuthSecret>)]) -> BytesMut {
    let mut block = BytesMut::zeroed(BLOCK_LENGTH);
    let bytes = block.as_mut().try_into().unwrap();
    let done = client.seal(bytes, NOW, |writer| {
        for (index, (command, key)) in (1..).zip(commands) {
            let entity = if matches!(command, Command::New(_) | Command::Ping) {
                EntityId::EMPTY
            } else {
                named(index)
            };
            writer.add(&named(100 + index), &entity, command, *key).expect("fits");
        }
    });
    assert_eq!(done, Ok(true));
    block
}

/// What the relay makes of a block, when the broker says so of each request.
fn outcomes(
    server: &mut ServerSession,
    block: &OpenedBlock,
    authority: impl Fn(usize) -> Authority,
) -> Vec<Result<Option<AuthKey>, SmpError>> {
    let mut chunks = Vec::new();
    let mut requests = server.parse(block);
    while let Some(chunk) = requests.next_chunk() {
        chunks.push(chunk);
    }
    let (mut index, mut found) = (0, Vec::new());
    for mut chunk in chunks {
        for request in &mut chunk {
            if let Request::Command { authority: place, .. } = request {
                *place = authority(index);
            }
            index += 1;
        }
        for verified in server.verify(chunk, &mut SeededEntropy::new([1; 32])) {
            found.push(match verified.authorized() {
                Some((_, key)) => Ok(key.copied()),
                None => Err(verified.refusal().cloned().expect("an error")),
            });
        }
    }
    found
}

fn said(content: OutgoingContent) -> Outgoing {
    Outgoing::new(named(7), named(8), content)
}

fn owner(key: &AuthSecret) -> Authority {
    Authority::Key(key.public(&Portable))
}

#[test]
fn every_pair_of_versions_agrees_and_talks() {
    let certificates = [Certificates::named("ed25519"), Certificates::named("ed448")];
    for server in 6..=18 {
        for client in 6..=18 {
            for (alpn, sends_key, proxy) in [
                (true, true, false),
                (false, true, false),
                (true, false, false),
                (true, true, true),
                (true, false, true),
            ] {
                let options = PairOptions {
                    server_versions: versions(6, server),
                    client_versions: versions(6, client),
                    alpn,
                    sends_key,
                    proxy,
                    ..PairOptions::at(6)
                };
                let mut expected = server.min(client);
                if !alpn {
                    expected = 6;
                } else if proxy && expected < 14 {
                    expected = expected.min(10);
                }
                let which = &certificates[usize::from(server == client)];
                let mut pair = Pair::connect(which, &options).expect("a handshake");
                assert_eq!(
                    pair.client.version(),
                    Some(Version(expected)),
                    "{server} {client} {alpn} {proxy}"
                );
                assert_eq!(pair.server.version(), Some(Version(expected)));
                let encrypted = expected >= 11 && sends_key && !proxy;
                assert_eq!(
                    (pair.server.encrypts_blocks(), pair.client.encrypts_blocks()),
                    (encrypted, encrypted)
                );
                assert_eq!(pair.server.is_proxy(), proxy && expected >= 14);
                let keyed = expected >= 7 && sends_key;
                assert_eq!(pair.server.hello_secret().is_some(), keyed);
                assert_eq!(pair.client.hello_secret().is_some(), keyed || alpn && server >= 7 && sends_key);
                talk(&mut pair);
            }
        }
    }
}

/// Two blocks each way.
fn talk(pair: &mut Pair) {
    let (recipient, sender) = (ed25519(1), x25519(2));
    for _ in 0..2 {
        let has_key = pair.client.relay_key().is_some();
        let mut commands = vec![(Command::Subscribe, Some(&recipient)), (Command::Ping, None)];
        if has_key {
            let send = Command::Send { flags: MessageFlags { notification: true }, body: b"text" };
            commands.push((send, Some(&sender)));
        }
        let block = sealed(&mut pair.client, &commands);
        let block = pair.to_server(block).expect("a readable block");
        let keys = [Some(&recipient), None, Some(&sender)];
        let found = outcomes(&mut pair.server, &block, |index| keys[index].map_or(Authority::Nobody, owner));
        let expected: Vec<_> =
            keys.iter().take(commands.len()).map(|key| Ok(key.map(|key| key.public(&Portable)))).collect();
        assert_eq!(found, expected);

        let mut outgoing = VecDeque::from([
            said(OutgoingContent::Subscribed),
            said(OutgoingContent::Deleted),
            said(OutgoingContent::Error(SmpError::Quota)),
        ]);
        let block = pair.server.pack(&mut outgoing, NOW).expect("a block");
        assert!(outgoing.is_empty());
        let block = pair.to_client(block).expect("a readable block");
        let version = pair.client.version().unwrap();
        let subscribed =
            if version >= Version::SERVICES { Response::Subscribed { service: None } } else { Response::Ok };
        let deleted = if version >= Version::DELETED_EVENT { Response::Deleted } else { Response::End };
        let expected = [subscribed, deleted, Response::Error(SmpError::Quota)];
        let responses: Vec<_> = pair.client.responses(&block).map(|one| one.expect("readable")).collect();
        assert_eq!(responses.len(), 3);
        for (response, expected) in responses.iter().zip(expected) {
            assert_eq!((&response.correlation, &response.entity), (&named(7), &named(8)));
            assert_eq!(response.content, expected);
        }
    }
}

#[test]
fn an_x25519_key_needs_a_key_of_the_relay() {
    let mut pair = connect(&PairOptions { alpn: false, ..PairOptions::at(18) });
    let result = pair.client.seal(&mut [0; BLOCK_LENGTH], NOW, |writer| {
        let added = writer.add(&named(1), &named(2), &Command::Subscribe, Some(&x25519(1)));
        assert_eq!(added, Err(AddError::NoRelayKey));
    });
    assert_eq!(result, Ok(false));
}

#[test]
fn a_block_is_read_once_and_only_by_the_other_side() {
    for version in [11, 14, 18] {
        let mut pair = connect(&PairOptions::at(version));
        let block = sealed(&mut pair.client, &[(Command::Ping, None)]);
        assert_eq!(pair.to_client(block.clone()).unwrap_err(), CloseReason::BlockUnreadable);
        pair.to_server(block.clone()).expect("readable");
        assert_eq!(pair.to_server(block.clone()).unwrap_err(), CloseReason::BlockUnreadable);
        // A session that has ended stays so.
        assert_eq!(pair.server.receive(block, NOW).unwrap_err(), SessionError::Misuse(Misuse::Ended));
        assert_eq!(pair.server.close_reason(), Some(CloseReason::BlockUnreadable));
        assert!(pair.server.pack(&mut VecDeque::from([said(OutgoingContent::Ok)]), NOW).is_none());
        let sealed = pair.client.seal(&mut [0; BLOCK_LENGTH], NOW, |_| {});
        assert_eq!(sealed, Err(Misuse::Ended));
    }
}

#[test]
fn authorizations_of_another_connection_are_worth_nothing() {
    let send = Command::Send { flags: MessageFlags::default(), body: b"text" };
    for key in [ed25519(1), x25519(1), ed448(1)] {
        // Without block encryption a block can be carried over.
        let options = PairOptions { proxy: true, ..PairOptions::at(14) };
        let mut one = connect(&options);
        let mut same_session = connect(&PairOptions { server_secret: [0x77; 32], ..options.clone() });
        let mut other = connect(&PairOptions { session: vec![9; 32], ..options.clone() });
        let block = sealed(&mut one.client, &[(send.clone(), Some(&key))]);
        for (pair, same) in [(&mut one, true), (&mut other, false)] {
            let opened = pair.to_server(block.clone()).expect("readable");
            let found = outcomes(&mut pair.server, &opened, |_| owner(&key));
            assert_eq!(found[0].is_ok(), same, "{key:?}");
        }
        // An authenticator is bound to the relay's key of the connection, too.
        let opened = same_session.to_server(block.clone()).expect("readable");
        let found = outcomes(&mut same_session.server, &opened, |_| owner(&key));
        assert_eq!(found[0].is_ok(), !matches!(key, AuthSecret::X25519(_)));
    }
}

#[test]
fn many_signatures_are_verified_together_and_only_the_bad_are_refused() {
    let mut pair = connect(&PairOptions::at(14));
    let keys: Vec<_> = (0..100).map(ed25519).collect();
    let commands: Vec<_> = keys.iter().map(|key| (Command::Subscribe, Some(key))).collect();
    let block = sealed(&mut pair.client, &commands);
    let block = pair.to_server(block).expect("readable");
    for bad in [None, Some(0), Some(31), Some(32), Some(99)] {
        let found = outcomes(&mut pair.server, &block, |index| {
            if Some(index) == bad { owner(&ed25519(200)) } else { owner(&keys[index]) }
        });
        for (index, outcome) in found.iter().enumerate() {
            assert_eq!(outcome.is_err(), Some(index) == bad, "{index}");
        }
    }
}

#[test]
fn who_may_send_decides() {
    let mut pair = connect(&PairOptions::at(14));
    let (key, other) = (ed25519(1), ed25519(2));
    let send = Command::Send { flags: MessageFlags::default(), body: b"" };
    let block = sealed(&mut pair.client, &[(send.clone(), Some(&key)), (send, None)]);
    let block = pair.to_server(block).expect("readable");
    let refused = || Err(SmpError::Authorization);
    let public = key.public(&Portable);
    let any = |keys: &[&AuthSecret]| Authority::AnyOf(keys.iter().map(|key| key.public(&Portable)).collect());
    for (authority, expected) in [
        (owner(&key), [Ok(Some(public)), refused()]),
        (owner(&other), [refused(), refused()]),
        (any(&[&other, &key]), [Ok(Some(public)), refused()]),
        (any(&[&other]), [refused(), refused()]),
        (any(&[&x25519(1)]), [refused(), refused()]),
        (any(&[]), [refused(), refused()]),
        (Authority::Unsecured, [refused(), Ok(None)]),
        (Authority::Nobody, [refused(), Ok(None)]),
        (Authority::Unknown, [refused(), refused()]),
        (Authority::NotLookedUp, [Err(SmpError::Internal), Err(SmpError::Internal)]),
        (Authority::KeyInCommand, [Err(SmpError::Internal), Err(SmpError::Internal)]),
    ] {
        let found = outcomes(&mut pair.server, &block, |_| authority.clone());
        assert_eq!(found, expected, "{authority:?}");
    }
}

#[test]
fn commands_that_carry_their_key_are_verified_with_it() {
    let mut pair = connect(&PairOptions::at(18));
    for (key, other) in [(ed25519(1), ed25519(2)), (x25519(1), x25519(2)), (ed448(1), ed448(2))] {
        let new = |key: &AuthSecret| {
            Command::New(NewQueue {
                recipient_key: key.public(&Portable),
                recipient_dh: X25519Public([9; 32]),
                password: None,
                subscription: SubscriptionMode::Subscribe,
                request: Some(QueueRequest::Messaging(None)),
                notifier: Some(NotifierKeys { key: key.public(&Portable), dh: X25519Public([9; 32]) }),
            })
        };
        let secure = |key: &AuthSecret| Command::SecureBySender(key.public(&Portable));
        let commands = [
            (new(&key), Some(&key)),
            (new(&other), Some(&key)),
            (secure(&key), Some(&key)),
            (secure(&key), Some(&other)),
        ];
        let block = sealed(&mut pair.client, &commands);
        let block = pair.to_server(block).expect("readable");
        let found = outcomes(&mut pair.server, &block, |_| Authority::KeyInCommand);
        let public = Ok(Some(key.public(&Portable)));
        let refused = Err(SmpError::Authorization);
        assert_eq!(found, [public.clone(), refused.clone(), public, refused]);
    }
}

#[test]
fn long_messages_are_refused_by_version() {
    let body = vec![5; 16_089];
    for version in 6..=18 {
        let most = Version(version).max_message_length();
        for (length, unsigned) in [(most, true), (most + 1, true), (most, false)] {
            let key = ed25519(1);
            let options = PairOptions { sends_key: false, ..PairOptions::at(version) };
            let mut pair = connect(&options);
            let send = Command::Send { flags: MessageFlags::default(), body: &body[..length] };
            let block = sealed(&mut pair.client, &[(send, (!unsigned).then_some(&key))]);
            let block = pair.to_server(block).expect("readable");
            let authority = if unsigned { Authority::Unsecured } else { owner(&key) };
            let found = outcomes(&mut pair.server, &block, |_| authority.clone());
            match &found[0] {
                Ok(_) => assert!(length <= most),
                Err(error) => assert_eq!((error, length), (&SmpError::LargeMessage, most + 1)),
            }
            // Who may not send does not learn of the limit.
            let found = outcomes(&mut pair.server, &block, |_| Authority::Unknown);
            assert_eq!(found[0], Err(SmpError::Authorization));
        }
    }
}

/// Counts what is asked of the primitives.
#[derive(Debug, Default)]
struct Counting {
    agreements: AtomicUsize,
    hashes: AtomicUsize,
    boxes: AtomicUsize,
    verifications: AtomicUsize,
    others: AtomicUsize,
}

impl Counting {
    fn take(&self) -> [usize; 5] {
        [&self.agreements, &self.hashes, &self.boxes, &self.verifications, &self.others]
            .map(|counter| counter.swap(0, Ordering::Relaxed))
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Provider for Counting {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        count(&self.agreements);
        Portable.x25519(secret, public)
    }
    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        count(&self.others);
        Portable.x25519_public(secret)
    }
    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; 16] {
        count(&self.boxes);
        Portable.box_seal(key, nonce, text)
    }
    fn box_open(&self, key: &BoxKey, nonce: &Nonce, tag: &[u8; 16], text: &mut [u8]) -> Result<(), Forged> {
        count(&self.boxes);
        Portable.box_open(key, nonce, tag, text)
    }
    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        count(&self.hashes);
        Portable.sha512(parts)
    }
    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        count(&self.others);
        Portable.hkdf_sha512(salt, input, info, output);
    }
    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        count(&self.others);
        Portable.ed25519_public(secret)
    }
    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; 64] {
        count(&self.others);
        Portable.ed25519_sign(secret, message)
    }
    fn ed25519_verify(&self, key: &Ed25519Public, message: &[&[u8]], signature: &[u8; 64]) -> bool {
        count(&self.verifications);
        Portable.ed25519_verify(key, message, signature)
    }
    fn ed25519_verify_batch(&self, checks: &mut [Ed25519Check<'_>]) {
        count(&self.others);
        for check in checks {
            check.valid = self.ed25519_verify(&check.key, check.message, check.signature);
        }
    }
}

#[test]
fn an_unknown_queue_costs_what_a_wrong_key_costs() {
    static COUNTING: std::sync::LazyLock<Counting> = std::sync::LazyLock::new(Counting::default);
    let options = PairOptions { provider: &*COUNTING, ..PairOptions::at(14) };
    let mut pair = connect(&options);
    let send = Command::Send { flags: MessageFlags::default(), body: b"guess" };
    for key in [ed25519(1), x25519(1), ed448(1)] {
        let commands: Vec<_> = [(); 4].map(|()| (send.clone(), Some(&key))).into();
        let block = sealed(&mut pair.client, &commands);
        let block = pair.to_server(block).expect("readable");
        let mut costs = Vec::new();
        let owners = [ed25519(2), x25519(2), ed448(2)].map(|other| owner(&other));
        let refusing = [Authority::Unknown, Authority::Unsecured, Authority::Nobody];
        // Twice: nothing may be learnt from what is remembered.
        for authority in owners.iter().chain(&refusing).chain(&owners).chain(&refusing) {
            COUNTING.take();
            let found = outcomes(&mut pair.server, &block, |_| authority.clone());
            assert!(found.iter().all(|outcome| *outcome == Err(SmpError::Authorization)), "{authority:?}");
            costs.push(COUNTING.take());
        }
        assert!(costs.iter().all(|cost| *cost == costs[0]), "{key:?}: {costs:?}");
        assert!(costs[0].iter().sum::<usize>() > 0);
    }
    // A key that has verified something is remembered.
    let key = x25519(1);
    let block = sealed(&mut pair.client, &[(send, Some(&key))]);
    let block = pair.to_server(block).expect("readable");
    let mut agreements = || {
        COUNTING.take();
        assert!(outcomes(&mut pair.server, &block, |_| owner(&key))[0].is_ok());
        COUNTING.take()[0]
    };
    assert_eq!((agreements(), agreements()), (1, 0));
}

fn delivery(body: Option<Bytes>) -> Delivery {
    Delivery {
        secret: DeliverySecret {
            relay: [1; 32],
            peer: Portable.x25519_public(&X25519Secret::from_bytes([2; 32])),
        },
        id: [3; 24],
        timestamp: UnixTime(1_700_000_000),
        message: body.map(|body| DeliveredMessage { notification: true, body }),
    }
}

#[test]
fn messages_are_boxed_for_their_recipient() {
    let key = BoxKey::agree(
        &Portable,
        &X25519Secret::from_bytes([2; 32]),
        &Portable.x25519_public(&X25519Secret::from_bytes([1; 32])),
    );
    for version in [6, 10, 14, 18] {
        let mut pair = connect(&PairOptions::at(version));
        let body = Bytes::from(vec![8; 16_048]);
        let notification = NotificationDelivery {
            secret: delivery(None).secret.clone(),
            nonce: [4; 24],
            message: [3; 24],
            timestamp: UnixTime(5),
        };
        let mut outgoing = VecDeque::from([
            said(OutgoingContent::Message(delivery(Some(body.clone())))),
            said(OutgoingContent::Notification(Box::new(notification))),
            said(OutgoingContent::Message(delivery(None))),
        ]);
        let (mut messages, mut blocks) = (Vec::new(), 0);
        while let Some(block) = pair.server.pack(&mut outgoing, NOW) {
            blocks += 1;
            let block = pair.to_client(block).expect("readable");
            for response in pair.client.responses(&block) {
                match response.expect("readable").content {
                    Response::Message { id, body: sealed } => {
                        assert_eq!(id, Identifier::from([3; 24]));
                        let mut sealed = sealed.to_vec();
                        let opened =
                            open_message(&Portable, &key, &Nonce([3; 24]), &mut sealed).expect("ours");
                        messages.push(
                            matches!(opened, ReceivedMessage::Message { body: found, .. } if found == body),
                        );
                    }
                    Response::Notification { metadata, .. } => assert_eq!(metadata.len(), 144),
                    other => panic!("{other:?}"),
                }
            }
        }
        // A message leaves no room for anything but short answers.
        assert_eq!((messages, blocks), (vec![true, false], 3));
    }
}

#[test]
fn what_fits_in_no_block_becomes_an_error_and_the_rest_goes_on() {
    let mut pair = connect(&PairOptions::at(14));
    let long = CorrelationId::new(&[1; 255]).unwrap();
    let mut outgoing: VecDeque<_> = (0..600).map(|_| said(OutgoingContent::Pong)).collect();
    outgoing.push_back(Outgoing::new(
        long.clone(),
        named(1),
        OutgoingContent::Message(delivery(Some(Bytes::new()))),
    ));
    outgoing.push_back(said(OutgoingContent::Ok));
    let mut found = Vec::new();
    while let Some(block) = pair.server.pack(&mut outgoing, NOW) {
        let block = pair.to_client(block).expect("readable");
        let responses: Vec<_> =
            pair.client.responses(&block).map(|one| one.expect("readable").content).collect();
        assert!(responses.len() <= 255);
        found.extend(responses.iter().map(|one| match one {
            Response::Pong => 0,
            Response::Error(SmpError::Internal) => 1,
            Response::Ok => 2,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(found.len(), 602);
    assert_eq!(found[600..], [1, 2]);
}

#[test]
fn time_limits_and_misuse() {
    let certificates = Certificates::named("ed25519");
    let config = Arc::new(certificates.relay(versions(6, 14), &Portable));
    let mut entropy = GivenEntropy::new(&[1]);
    let mut session = ServerSession::new(&config, facts(true, &[]), NOW, &mut entropy).unwrap();
    let deadline = session.next_deadline().expect("a deadline");
    assert_eq!(deadline, NOW.instant + Duration::from_secs(120));
    let at = |instant| Now { instant, ..NOW };
    assert_eq!(session.handle_timeout(at(deadline - Duration::from_micros(1))), Ok(()));
    for length in [0, BLOCK_LENGTH - 1, BLOCK_LENGTH + 1] {
        let error = session.receive(BytesMut::zeroed(length), NOW).unwrap_err();
        assert_eq!(error, SessionError::Misuse(Misuse::BlockLength(length)));
    }
    assert_eq!(session.handle_timeout(at(deadline)), Err(CloseReason::HandshakeTimeout));
    assert_eq!((session.handle_timeout(at(deadline)), session.next_deadline()), (Ok(()), None));

    let config = Arc::new(ClientSessionConfig::new(certificates.fingerprint.clone(), &Portable));
    let mut session = ClientSession::new(&config, facts(true, &certificates.chain), NOW, &mut entropy);
    assert_eq!(session.seal(&mut [0; BLOCK_LENGTH], NOW, |_| {}), Err(Misuse::NotEstablished));
    let late = at(Instant::from_micros(u64::MAX));
    assert_eq!(
        session.receive(BytesMut::zeroed(BLOCK_LENGTH), late).unwrap_err(),
        SessionError::Close(CloseReason::HandshakeTimeout)
    );
}

#[test]
fn a_client_talks_only_to_the_relay_of_its_address() {
    let (one, other) = (Certificates::named("ed25519"), Certificates::named("ed448"));
    let relay = Arc::new(one.relay(versions(6, 14), &Portable));
    for (fingerprint, tls, expected) in [
        (&one.fingerprint, &one.chain, None),
        (&other.fingerprint, &one.chain, Some(CloseReason::WrongRelayFound)),
        (&one.fingerprint, &other.chain, Some(CloseReason::WrongRelayFound)),
        (&one.fingerprint, &Vec::new(), Some(CloseReason::WrongRelayFound)),
        (
            &one.fingerprint,
            &vec![other.chain[0].clone(), one.chain[1].clone()],
            Some(CloseReason::KeyNotVerified),
        ),
    ] {
        let mut entropy = SeededEntropy::new([1; 32]);
        let mut server = ServerSession::new(&relay, facts(true, &[]), NOW, &mut entropy).unwrap();
        let config = Arc::new(ClientSessionConfig::new(fingerprint.clone(), &Portable));
        let mut client = ClientSession::new(&config, facts(true, tls), NOW, &mut entropy);
        let result = client.receive(server.take_handshake_block().unwrap(), NOW);
        assert_eq!(result.err(), expected.map(SessionError::Close));
        if expected.is_none() {
            let early = client.seal(&mut [0; BLOCK_LENGTH], NOW, |_| {});
            assert_eq!(early, Err(Misuse::NotEstablished), "a command must not overtake the hello");
        }
        assert_eq!(client.take_handshake_block().is_some(), expected.is_none());
    }
}

#[test]
fn a_service_signature_without_a_service_is_refused() {
    let mut pair = connect(&PairOptions { sends_key: false, ..PairOptions::at(16) });
    // authorization ‖ '1' signature ‖ correlation ‖ entity ‖ SUB
    let transmission =
        [&[64][..], &[1; 64], b"1", &[64], &[2; 64], &[24], &[3; 24], &[24], &[4; 24], b"SUB"].concat();
    let length = u16::try_from(transmission.len()).unwrap().to_be_bytes();
    let block = plain_block(&[&[1][..], &length, &transmission].concat());
    let block = pair.to_server(block).expect("readable");
    assert_eq!(outcomes(&mut pair.server, &block, |_| owner(&ed25519(1))), [Err(SmpError::Service)]);
}

#[test]
fn the_same_inputs_give_the_same_session() {
    let run = || {
        let mut pair = connect(&PairOptions::at(14));
        talk(&mut pair);
        (pair.server.digest(), pair.client.digest())
    };
    assert_eq!(run(), run());
    assert_ne!(run().0, connect(&PairOptions::at(14)).server.digest());
}

/// Content of a block that is often nearly right.
fn contents() -> impl Strategy<Value = Vec<u8>> {
    let command = prop_oneof![
        Just(b"SUB".to_vec()),
        Just(b"PING".to_vec()),
        Just(b"ACK \x00".to_vec()),
        Just(b"SEND T text".to_vec()),
        Just(b"NEW ".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..80),
    ];
    let transmission = (
        prop_oneof![Just(0_usize), Just(64), Just(80), Just(114), 0..256_usize],
        proptest::option::of(Just(b'0')),
        0..40_usize,
        0..40_usize,
        command,
    )
        .prop_map(|(authorization, service, correlation, entity, command)| {
            let mut bytes = vec![authorization as u8];
            bytes.extend(vec![7; authorization]);
            bytes.extend(service);
            bytes.push(correlation as u8);
            bytes.extend(vec![8; correlation]);
            bytes.push(entity as u8);
            bytes.extend(vec![9; entity]);
            bytes.extend(command);
            bytes
        });
    let batch = proptest::collection::vec(transmission, 0..40).prop_map(|transmissions| {
        let mut content = vec![transmissions.len() as u8];
        for transmission in transmissions {
            content.extend(u16::try_from(transmission.len()).unwrap().to_be_bytes());
            content.extend(transmission);
        }
        content
    });
    prop_oneof![4 => batch, 1 => proptest::collection::vec(any::<u8>(), 0..300)]
}

fn authorities() -> impl Strategy<Value = Authority> {
    prop_oneof![
        Just(Authority::NotLookedUp),
        Just(Authority::Nobody),
        Just(Authority::KeyInCommand),
        Just(Authority::Unsecured),
        Just(Authority::Unknown),
        any::<[u8; 32]>().prop_map(|key| Authority::Key(AuthKey::Ed25519(Ed25519Public(key)))),
        any::<[u8; 32]>().prop_map(|key| Authority::Key(AuthKey::X25519(X25519Public(key)))),
        any::<[u8; 32]>().prop_map(|key| Authority::AnyOf(Arc::new([AuthKey::X25519(X25519Public(key))]))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_content_gets_an_answer_for_each_transmission(
        content in contents(), version in 6_u16..=18, authority in authorities(),
    ) {
        let mut pair = connect(&PairOptions { sends_key: false, ..PairOptions::at(version) });
        let block = pair.to_server(plain_block(&content)).expect("a plain block is always readable");
        let expected = pair.server.parse(&block).len();
        let found = outcomes(&mut pair.server, &block, |_| authority.clone());
        prop_assert_eq!(found.len(), expected);
        prop_assert!(!found.is_empty());
        for outcome in found {
            // Nobody holds a key here: only what needs none may be executed.
            match outcome {
                Ok(key) => prop_assert_eq!(key, None),
                Err(error) => prop_assert!(matches!(
                    error,
                    SmpError::Block | SmpError::Session | SmpError::Authorization | SmpError::Internal
                        | SmpError::Service | SmpError::Command(CommandError::Unknown | CommandError::Syntax
                        | CommandError::NoAuthorization | CommandError::HasAuthorization | CommandError::NoEntity)
                ), "{:?}", error),
            }
        }
    }

    #[test]
    fn any_blocks_are_survived_by_both_sides(
        blocks in proptest::collection::vec((any::<u8>(), proptest::collection::vec(any::<u8>(), 0..400)), 1..6),
        established in any::<bool>(),
        version in 6_u16..=18,
    ) {
        let certificates = Certificates::named("ed25519");
        let mut entropy = SeededEntropy::new([1; 32]);
        let mut pair = if established {
            connect(&PairOptions::at(version))
        } else {
            let relay = Arc::new(certificates.relay(versions(6, version), &Portable));
            let config = Arc::new(ClientSessionConfig::new(certificates.fingerprint.clone(), &Portable));
            Pair {
                server: ServerSession::new(&relay, facts(true, &[]), NOW, &mut entropy).unwrap(),
                client: ClientSession::new(&config, facts(true, &certificates.chain), NOW, &mut entropy),
            }
        };
        let mut ended = [false; 2];
        for (fill, start) in blocks {
            let mut block = BytesMut::zeroed(BLOCK_LENGTH);
            block.fill(fill);
            block[..start.len()].copy_from_slice(&start);
            match pair.server.receive(block.clone(), NOW) {
                Ok(smp_proto::session::server::Received::Commands(block)) => {
                    prop_assert!(!outcomes(&mut pair.server, &block, |_| Authority::Unknown).is_empty());
                }
                Ok(_) => {}
                Err(SessionError::Close(_)) => ended[0] = true,
                Err(SessionError::Misuse(misuse)) => prop_assert!(ended[0] && misuse == Misuse::Ended),
            }
            match pair.client.receive(block, NOW) {
                Ok(smp_proto::session::client::Received::Responses(block)) => {
                    prop_assert!(pair.client.responses(&block).count() > 0);
                }
                Ok(_) => {}
                Err(SessionError::Close(_)) => ended[1] = true,
                Err(SessionError::Misuse(misuse)) => prop_assert!(ended[1] && misuse == Misuse::Ended),
            }
        }
    }
}
