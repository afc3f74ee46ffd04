//! Messages through the binary: delivered, kept over restarts of every kind, and none lost that was confirmed.

#[path = "support/session_client.rs"]
mod session_client;
mod support;

use std::collections::HashSet;
use std::path::Path;

use session_client::{Queue, Said, SessionClient};
use smp_runtime_std::tls::ClientTls;
use support::{Server, init, run, set};

fn relay() -> (tempfile::TempDir, std::path::PathBuf) {
    let temporary = tempfile::tempdir().expect("there is room for temporary files");
    let data = temporary.path().join("relay");
    let output = run(&data, &["init", "--port", "0", "--listen", "127.0.0.1", "--password", "secret"]);
    assert!(output.status.success());
    (temporary, data)
}

fn connect(server: &Server) -> SessionClient {
    let tls = ClientTls::new(server.fingerprint).expect("TLS");
    SessionClient::connect(server.address, &tls, server.fingerprint).expect("it listens")
}

/// Sends and waits for the confirmation.
fn deliver(sender: &mut SessionClient, queue: &Queue, body: &[u8]) {
    sender.send_message(queue, body).expect("it reads");
    assert_eq!(sender.receive().expect("it answers"), [Said::Ok]);
}

/// Subscribes, and takes messages until there are no more: how many there were.
fn take_all(server: &Server, queue: &Queue) -> usize {
    let mut recipient = connect(server);
    recipient.subscribe(queue).expect("it reads");
    let mut seen = HashSet::new();
    let mut said: Vec<Said> = recipient.receive().expect("it answers");
    assert_eq!(said.remove(0), Said::Ok, "the subscription");
    // The first message may come in a block of its own, or there may be none: a ping tells.
    recipient
        .send(&smp_proto::wire::Identifier::EMPTY, &smp_proto::wire::command::Command::Ping, None)
        .expect("it reads");
    loop {
        let Some(next) = said.pop() else {
            said = recipient.receive().expect("it answers");
            continue;
        };
        match next {
            Said::Message(_, id) => {
                assert!(seen.insert(id.clone()), "every message once");
                recipient.acknowledge(queue, id).expect("it reads");
            }
            Said::Pong => {}
            Said::Ok => return seen.len(),
            Said::Created(..) | Said::Other(_) => panic!("{next:?}"),
        }
    }
}

#[test]
fn a_message_goes_from_one_to_the_other() {
    let (_folder, data) = relay();
    let server = Server::start(&data);
    let mut recipient = connect(&server);
    assert!(recipient.create(None).is_err(), "the password is needed");
    let mut recipient = connect(&server);
    let queue = recipient.create(Some("secret")).expect("a queue");
    let mut sender = connect(&server);
    deliver(&mut sender, &queue, &[7; 16_000]);
    let said = recipient.receive().expect("it delivers");
    let [Said::Message(entity, id)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(*entity, queue.recipient);
    deliver(&mut sender, &queue, b"second");
    recipient.acknowledge(&queue, id.clone()).expect("it reads");
    let said = recipient.receive().expect("it answers");
    assert!(matches!(&said[..], [Said::Message(_, second)] if second != id), "{said:?}");
    assert!(server.stop().success());
}

#[test]
fn messages_survive_an_orderly_stop_and_a_kill() {
    let (_folder, data) = relay();
    let server = Server::start(&data);
    let queue = connect(&server).create(Some("secret")).expect("a queue");
    deliver(&mut connect(&server), &queue, b"one");
    assert!(server.stop().success());
    let server = Server::start(&data);
    deliver(&mut connect(&server), &queue, b"two");
    // Dropping it kills the process where it stands.
    drop(server);
    let server = Server::start(&data);
    deliver(&mut connect(&server), &queue, b"three");
    assert_eq!(take_all(&server, &queue), 3);
    assert!(server.stop().success());
}

#[test]
fn stopping_under_load_loses_nothing_that_was_confirmed() {
    for durability in ["commit", "relaxed"] {
        let (_folder, data) = relay();
        set(&data, &[("durability", durability)]);
        let server = Server::start(&data);
        let queues: Vec<Queue> =
            (0..4).map(|_| connect(&server).create(Some("secret")).expect("a queue")).collect();
        let (ready, started) = std::sync::mpsc::channel();
        let senders: Vec<_> = queues
            .into_iter()
            .map(|queue| {
                let (mut sender, ready) = (connect(&server), ready.clone());
                std::thread::spawn(move || {
                    let mut confirmed = 0;
                    // Fewer than the quota; several under way at any time.
                    for number in 0..100 {
                        if sender.send_message(&queue, &[number; 8000]).is_err() {
                            break;
                        }
                        if number == 20 {
                            let _ = ready.send(());
                        }
                        if number >= 8 {
                            match sender.receive() {
                                Ok(said) => {
                                    confirmed += said.iter().filter(|said| **said == Said::Ok).count()
                                }
                                Err(_) => break,
                            }
                        }
                    }
                    while let Ok(said) = sender.receive() {
                        confirmed += said.iter().filter(|said| **said == Said::Ok).count();
                        if confirmed == 100 {
                            break;
                        }
                    }
                    (queue, confirmed)
                })
            })
            .collect();
        started.recv().expect("the senders run");
        assert!(server.stop().success(), "with {durability}");
        let server = Server::start(&data);
        for sender in senders {
            let (queue, confirmed) = sender.join().expect("a sender ends with its connection");
            assert!(confirmed > 0);
            let found = take_all(&server, &queue);
            assert!(found >= confirmed, "{found} of {confirmed} with {durability}");
        }
        assert!(server.stop().success());
    }
}

#[test]
fn what_is_wrong_with_the_store_is_explained() {
    let temporary = tempfile::tempdir().expect("there is room for temporary files");
    let data = temporary.path().join("relay");
    init(&data, &[]);
    std::fs::create_dir(data.join("store")).expect("a folder");
    std::fs::write(data.join("store/queues.redb"), b"my holiday photos").expect("a file");
    let complaint = complaint(&data);
    assert!(complaint.contains("queues.redb"), "{complaint}");
}

fn complaint(data: &Path) -> String {
    let output = run(data, &["start"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().filter(|line| line.contains("\"error\"")).count(), 1, "one line: {text}");
    text
}
