//! Clients and relays of both runtimes, in all four pairings, over real TLS on loopback.
#![allow(clippy::unwrap_used, reason = "a test")]

mod any_client;
mod cable;
mod raw_client;
mod relay_under_test;

use std::sync::Arc;

use any_client::{AnyClient, options};
use bytes::Bytes;
use cable::Cable;
use raw_client::random;
use relay_under_test::{Options, RelayUnderTest, Runtime, address};
use smp_proto::client::command::{OwnedLinkData, OwnedQueueRequest};
use smp_proto::client::queue::{
    NotifierQueue, OwnedBlob, QueueToCreate, SenderQueue, get_link, read_blob, secure_by_link,
};
use smp_proto::client::{ClientCommand, CommandBody, Reply};
use smp_proto::crypto::{Nonce, Provider, SharedSecret, blob, ids};
use smp_proto::entropy::SeededEntropy;
use smp_proto::keys::X25519Secret;
use smp_proto::session::AuthSecret;
use smp_proto::wire::Identifier;
use smp_proto::wire::command::{NotifierKeys, QueueMode, SubscriptionMode};
use smp_proto::wire::error::{CommandError, SmpError};
use smp_runtime_std::certificates::Fingerprint;
use smp_runtime_std::client::{ClientError, ClientEvent};
use smp_runtime_std::fast_cryptography::FAST;
use smp_runtime_std::tls::TlsFailure;

/// Runs the test with each relay and each client.
fn with_all(options: &Options, test: impl Fn(&RelayUnderTest, Runtime)) {
    for relay_runtime in [Runtime::Smol, Runtime::Blocking] {
        for client_runtime in [Runtime::Smol, Runtime::Blocking] {
            println!("a relay of {relay_runtime:?} and a client of {client_runtime:?}");
            let relay = RelayUnderTest::start(relay_runtime, options.clone());
            test(&relay, client_runtime);
            assert!(relay.stop(), "the relay did not stop in order");
        }
    }
}

fn fresh() -> SeededEntropy {
    SeededEntropy::new(random())
}

fn refused(result: Result<Reply, ClientError>) -> SmpError {
    match result {
        Err(ClientError::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

#[test]
fn a_queue_from_its_creation_to_its_end() {
    with_all(&Options::default(), |relay, runtime| {
        let recipient = AnyClient::connect(runtime, &relay.server_address());
        let sender = AnyClient::connect(runtime, &relay.server_address());
        let queue = recipient.create_queue(SubscriptionMode::Subscribe);

        // Before it is secured anybody may send, without authorization.
        let mut to = SenderQueue { sender: queue.sender.clone(), key: None };
        sender.done(to.send(false, text("first")));
        assert_eq!(recipient.receive(&queue), b"first");

        // Secured by the recipient with a key of the sender: now only it may send.
        let key = Arc::new(AuthSecret::generate_x25519(&mut fresh()));
        recipient.done(queue.secure(key.public(&FAST)));
        recipient.done(queue.secure(key.public(&FAST)));
        let other = AuthSecret::generate_ed25519(&mut fresh()).public(&FAST);
        assert_eq!(refused(recipient.command(queue.secure(other))), SmpError::Authorization);
        assert_eq!(refused(sender.command(to.send(false, text("stranger")))), SmpError::Authorization);
        to.key = Some(key);
        for number in 0..5 {
            sender.done(to.send(false, text(&format!("message {number}"))));
        }
        for number in 0..5 {
            assert_eq!(recipient.receive(&queue), format!("message {number}").as_bytes());
        }

        // What is delivered and not acknowledged stays.
        sender.done(to.send(true, text("kept")));
        let (id, body) = recipient.message(&queue);
        assert_eq!(body.as_deref(), Some(&b"kept"[..]));
        recipient.subscribe(&queue).unwrap();
        let (again, body) = recipient.message(&queue);
        assert_eq!((again == id, body.as_deref()), (true, Some(&b"kept"[..])));
        match recipient.command(queue.information()).unwrap() {
            Reply::Information(json) => {
                let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                assert_eq!((&json["qiSnd"], &json["qiSize"]), (&true.into(), &1.into()));
            }
            other => panic!("QUE was answered {other:?}"),
        }
        recipient.acknowledge(&queue, id);

        // Suspended, it delivers what it has, and takes no more.
        sender.done(to.send(false, text("last")));
        recipient.done(queue.suspend());
        assert_eq!(refused(sender.command(to.send(false, text("late")))), SmpError::Authorization);
        assert_eq!(recipient.receive(&queue), b"last");

        recipient.done(queue.delete());
        assert_eq!(refused(recipient.command(queue.delete())), SmpError::Authorization);
        assert_eq!(refused(sender.command(to.send(false, text("too late")))), SmpError::Authorization);
        recipient.ping();
    });
}

#[test]
fn a_sender_secures_a_queue_and_messages_of_every_size_arrive() {
    with_all(&Options::default(), |relay, runtime| {
        let recipient = AnyClient::connect(runtime, &relay.server_address());
        let sender = AnyClient::connect(runtime, &relay.server_address());
        let queue = recipient.create_queue(SubscriptionMode::Subscribe);
        let key = Arc::new(AuthSecret::generate_x25519(&mut fresh()));
        let mut to = SenderQueue { sender: queue.sender.clone(), key: None };
        sender.done(to.secure(&FAST, &key));
        sender.done(to.secure(&FAST, &key));
        let late = Arc::new(AuthSecret::generate_x25519(&mut fresh()));
        assert_eq!(refused(sender.command(to.secure(&FAST, &late))), SmpError::Authorization);
        to.key = Some(key);
        for length in [0, 1, 100, 16_000, 16_048] {
            sender.done(to.send(false, vec![b'x'; length].into()));
            assert_eq!(recipient.receive(&queue), vec![b'x'; length]);
        }
        let too_large = sender.command(to.send(false, vec![b'x'; 16_049].into()));
        assert_eq!(refused(too_large), SmpError::LargeMessage);
    });
}

#[test]
fn messages_are_taken_one_by_one_without_a_subscription() {
    with_all(&Options::default(), |relay, runtime| {
        let recipient = AnyClient::connect(runtime, &relay.server_address());
        let queue = recipient.create_queue(SubscriptionMode::CreateOnly);
        let to = SenderQueue { sender: queue.sender.clone(), key: None };
        assert_eq!(recipient.get(&queue), None);
        for number in 0..3 {
            recipient.done(to.send(false, text(&format!("{number}"))));
        }
        for number in 0..3 {
            assert_eq!(recipient.get(&queue), Some(format!("{number}").into_bytes()));
        }
        assert_eq!(recipient.get(&queue), None);
        // GET and SUB do not go together on one connection.
        let prohibited = recipient.command(queue.subscribe());
        assert_eq!(refused(prohibited), SmpError::Command(CommandError::Prohibited));
        let another = AnyClient::connect(runtime, &relay.server_address());
        another.subscribe(&queue).unwrap();
    });
}

#[test]
fn a_second_subscriber_takes_over() {
    with_all(&Options::default(), |relay, runtime| {
        let first = AnyClient::connect(runtime, &relay.server_address());
        let second = AnyClient::connect(runtime, &relay.server_address());
        let queue = first.create_queue(SubscriptionMode::Subscribe);
        second.subscribe(&queue).unwrap();
        let to = SenderQueue { sender: queue.sender.clone(), key: None };
        first.done(to.send(false, text("to the second")));
        assert_eq!(second.receive(&queue), b"to the second");
        assert!(matches!(first.event(), ClientEvent::Ended { queue: of } if of == queue.recipient));
        // Deleted by another, the subscriber is told.
        first.done(queue.delete());
        assert!(matches!(second.event(), ClientEvent::Deleted { queue: of } if of == queue.recipient));
    });
}

#[test]
fn a_notifier_hears_of_messages_and_of_nothing_else() {
    with_all(&Options::default(), |relay, runtime| {
        let recipient = AnyClient::connect(runtime, &relay.server_address());
        let notified = AnyClient::connect(runtime, &relay.server_address());
        let queue = recipient.create_queue(SubscriptionMode::Subscribe);
        let (key, dh) = (AuthSecret::generate_ed25519(&mut fresh()), X25519Secret::generate(&mut fresh()));
        let keys = NotifierKeys { key: key.public(&FAST), dh: FAST.x25519_public(&dh) };
        let enable = ClientCommand::new(
            queue.recipient.clone(),
            Some(Arc::clone(&queue.key)),
            CommandBody::EnableNotifications(keys),
        );
        let Reply::NotifierId(ids) = recipient.command(enable).unwrap() else { panic!("NKEY gives NID") };
        let notifier = NotifierQueue {
            notifier: ids.notifier,
            key: Arc::new(key),
            delivery: SharedSecret::agree(&FAST, &dh, &ids.relay_dh),
        };
        assert!(matches!(notified.command(notifier.subscribe()).unwrap(), Reply::Subscribed | Reply::Ok));
        let to = SenderQueue { sender: queue.sender.clone(), key: None };
        recipient.done(to.send(false, text("quiet")));
        recipient.receive(&queue);
        recipient.done(to.send(true, text("loud")));
        let (id, _) = recipient.message(&queue);
        match notified.event() {
            ClientEvent::Notification { notifier: of, nonce, metadata } => {
                assert_eq!(of, notifier.notifier);
                let mut metadata = metadata.to_vec();
                let opened = notifier.open(&FAST, &Nonce(nonce), &mut metadata).unwrap();
                assert_eq!(opened.message, id.as_bytes(), "not of the quiet one");
            }
            other => panic!("not a notification: {other:?}"),
        }
        recipient.acknowledge(&queue, id);
        recipient.done(ClientCommand::new(
            queue.recipient.clone(),
            Some(Arc::clone(&queue.key)),
            CommandBody::DisableNotifications,
        ));
        assert_eq!(refused(notified.command(notifier.subscribe())), SmpError::Authorization);
    });
}

#[test]
fn a_full_queue_takes_messages_again_when_it_is_empty() {
    with_all(&Options { message_quota: Some(4), ..Options::default() }, |relay, runtime| {
        let recipient = AnyClient::connect(runtime, &relay.server_address());
        let sender = AnyClient::connect(runtime, &relay.server_address());
        let queue = recipient.create_queue(SubscriptionMode::CreateOnly);
        let to = SenderQueue { sender: queue.sender.clone(), key: None };
        let mut accepted = 0;
        let first_error = loop {
            match sender.command(to.send(false, text(&format!("{accepted}")))) {
                Ok(Reply::Ok) => accepted += 1,
                other => break refused(other),
            }
            assert!(accepted <= 4, "there is no quota");
        };
        assert_eq!((first_error, accepted), (SmpError::Quota, 4), "the quota is 4");
        assert_eq!(refused(sender.command(to.send(false, text("more")))), SmpError::Quota);
        recipient.subscribe(&queue).unwrap();
        for number in 0..accepted {
            assert_eq!(recipient.receive(&queue), format!("{number}").as_bytes());
            // Not before it is empty.
            assert_eq!(refused(sender.command(to.send(false, text("early")))), SmpError::Quota);
        }
        let (id, marker) = recipient.message(&queue);
        assert_eq!(marker, None, "the marker says that the sender had to stop");
        recipient.acknowledge(&queue, id);
        sender.done(to.send(false, text("again")));
        assert_eq!(recipient.receive(&queue), b"again");
    });
}

#[test]
fn a_connection_that_is_cut_is_made_again_with_its_subscriptions() {
    with_all(&Options::default(), |relay, runtime| {
        let cable = Cable::to(relay.address);
        let recipient = AnyClient::connect(runtime, &address(relay.fingerprint, cable.address));
        let sender = AnyClient::connect(runtime, &relay.server_address());
        let queues: Vec<_> = (0..10).map(|_| recipient.create_queue(SubscriptionMode::Subscribe)).collect();
        let send = |index: usize, what: &str| {
            let to = SenderQueue { sender: queues[index].sender.clone(), key: None };
            sender.done(to.send(false, text(what)));
        };
        send(0, "delivered and not acknowledged");
        let (id, _) = recipient.message(&queues[0]);
        for round in 0..3 {
            cable.cut();
            send(1, &format!("sent while the cable was cut, round {round}"));
            let mut messages = Vec::new();
            let mut connected = false;
            while !connected || messages.len() < 2 {
                match recipient.event() {
                    ClientEvent::Connected { .. } => connected = true,
                    ClientEvent::Disconnected { .. } => connected = false,
                    ClientEvent::Message { queue, id, .. } => messages.push((queue, id)),
                    other => panic!("{other:?}"),
                }
            }
            assert!(messages.contains(&(queues[0].recipient.clone(), id.clone())), "it comes again");
            let (_, other) = messages.iter().find(|(queue, _)| *queue == queues[1].recipient).unwrap();
            recipient.acknowledge(&queues[1], other.clone());
        }
        // Every subscription works on the new connection.
        for (index, queue) in queues.iter().enumerate().skip(2) {
            send(index, "after");
            assert_eq!(recipient.receive(queue), b"after");
        }
    });
}

#[test]
fn only_the_relay_of_the_address_is_talked_to() {
    with_all(&Options::default(), |relay, runtime| {
        let wrong = address(Fingerprint([7; 32]), relay.address);
        match AnyClient::try_connect(runtime, &wrong, options()) {
            Err(ClientError::Tls(error)) => {
                assert!(matches!(error.failure, TlsFailure::Certificates(_)), "{error}");
            }
            Err(other) => panic!("another reason: {other}"),
            Ok(_) => panic!("the wrong relay was accepted"),
        }
        // A port where nobody listens: it was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = address(relay.fingerprint, free);
        let error = AnyClient::try_connect(runtime, &nobody, options()).err().unwrap();
        assert!(matches!(error, ClientError::Dial(_)), "{error}");
    });
}

#[test]
fn queues_are_made_by_who_knows_the_password() {
    with_all(&Options { password: Some("correct"), ..Options::default() }, |relay, runtime| {
        let client = AnyClient::connect(runtime, &relay.server_address());
        for (password, allowed) in
            [(None, false), (Some("wrong"), false), (Some("correc"), false), (Some("correct"), true)]
        {
            let keys = QueueToCreate::generate(&mut fresh());
            let command =
                keys.command(&FAST, QueueMode::Contact, SubscriptionMode::CreateOnly, password.map(text));
            match client.command(command) {
                Ok(Reply::Created(_)) => assert!(allowed, "{password:?}"),
                other => {
                    assert_eq!(refused(other), SmpError::Authorization);
                    assert!(!allowed, "{password:?}");
                }
            }
        }
    });
}

#[test]
fn many_clients_do_not_disturb_each_other() {
    with_all(&Options::default(), |relay, runtime| {
        std::thread::scope(|scope| {
            for pair in 0..10 {
                scope.spawn(move || {
                    let recipient = AnyClient::connect(runtime, &relay.server_address());
                    let sender = AnyClient::connect(runtime, &relay.server_address());
                    let queue = recipient.create_queue(SubscriptionMode::Subscribe);
                    let to = SenderQueue { sender: queue.sender.clone(), key: None };
                    scope.spawn(move || {
                        for number in 0..20 {
                            sender.done(to.send(false, text(&format!("{pair} {number}"))));
                        }
                    });
                    for number in 0..20 {
                        assert_eq!(recipient.receive(&queue), format!("{pair} {number}").as_bytes());
                    }
                });
            }
        });
    });
}

#[test]
fn links_and_blobs_from_their_creation_to_their_end() {
    with_all(&Options::default(), |relay, runtime| {
        let owner = AnyClient::connect(runtime, &relay.server_address());
        let other = AnyClient::connect(runtime, &relay.server_address());
        let data = |user: &str| OwnedLinkData { fixed: text("fixed"), user: text(user) };
        let create = |contact: Option<Identifier>| {
            let (correlation, keys) = (random(), QueueToCreate::generate(&mut fresh()));
            let sender = Identifier::from(ids::sender_id(&correlation));
            let request = match contact {
                Some(link) => OwnedQueueRequest::Contact(Some((link, sender, data("user")))),
                None => OwnedQueueRequest::Messaging(Some((sender, data("user")))),
            };
            let mode = SubscriptionMode::Subscribe;
            match owner.command(keys.command_with_link(&FAST, request, correlation, mode, None)).unwrap() {
                Reply::Created(created) => (keys.created(&FAST, &created), created.link.clone().unwrap()),
                other => panic!("NEW was answered {other:?}"),
            }
        };

        // A contact address: its data can be read by all, and changed by its owner.
        let link = Identifier::from(random::<24>());
        let (address, created) = create(Some(link.clone()));
        assert_eq!(created, link);
        let link_of = |user| Ok(Reply::Link { sender: address.sender.clone(), data: data(user) });
        assert_eq!(other.command(get_link(link.clone())).map_err(drop), link_of("user"));
        owner.done(address.set_link(link.clone(), data("changed")));
        assert_eq!(other.command(get_link(link.clone())).map_err(drop), link_of("changed"));
        owner.done(address.set_owners(vec![address.key.public(&FAST)]));
        owner.done(address.delete_link());
        assert_eq!(refused(other.command(get_link(link))), SmpError::Authorization);

        // An invitation: whoever is first has it, and its data is gone with the first message.
        let (queue, link) = create(None);
        let key = Arc::new(AuthSecret::generate_x25519(&mut fresh()));
        let late = Arc::new(AuthSecret::generate_x25519(&mut fresh()));
        let expected = Reply::Link { sender: queue.sender.clone(), data: data("user") };
        assert_eq!(other.command(secure_by_link(&FAST, link.clone(), &key)).unwrap(), expected);
        let again = other.command(secure_by_link(&FAST, link.clone(), &late));
        assert_eq!(refused(again), SmpError::Authorization);
        let to = SenderQueue { sender: queue.sender.clone(), key: Some(key.clone()) };
        other.done(to.send(false, text("hello")));
        assert_eq!(owner.receive(&queue), b"hello");
        let after = other.command(secure_by_link(&FAST, link, &key));
        assert_eq!(refused(after), SmpError::Authorization);

        // A blob.
        let owned = OwnedBlob::generate(&mut fresh());
        owner.done(owned.write(&FAST, b"a value", &mut fresh()).unwrap());
        match other.command(read_blob(&FAST, &owned.secret)).unwrap() {
            Reply::Blob(blob) => {
                let mut blob = blob.to_vec();
                assert_eq!(blob::open(&FAST, &owned.secret, &mut blob).unwrap(), b"a value");
            }
            other => panic!("READ was answered {other:?}"),
        }
        owner.done(owned.clear(&FAST));
        assert_eq!(refused(other.command(read_blob(&FAST, &owned.secret))), SmpError::Authorization);
    });
}
