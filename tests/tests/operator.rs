//! What an operator does to queues with `smp-server block`, as their parties see it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod programs;
mod raw_client;

use programs::{ServerFolder, succeeded};
use raw_client::{Key, NewOptions, RawClient, send_command};
use smp_proto::wire::base64url;

#[test]
fn a_queue_is_blocked_and_unblocked_while_the_relay_rests() {
    let folder = ServerFolder::init();
    let server = folder.start();
    let mut client = RawClient::connect(server.address, server.fingerprint).unwrap();
    let queue = client.new_queue(NewOptions::default()).unwrap();
    let other = client.new_queue(NewOptions::default()).unwrap();
    let id = base64url::encode_unpadded(&queue.sender);
    let block = ["block", &id, "--reason", "spam"];
    // Two processes never share a folder.
    let refused = folder.run(&block);
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("stop it first"), "{text}");
    assert_eq!(client.command(&Key::Nothing, &queue.sender, &send_command(b"one")).unwrap(), b"OK");
    server.terminate();

    assert!(succeeded(&folder.run(&block)).contains("\"blocked\""));
    for _ in 0..2 {
        let server = folder.start();
        let mut client = RawClient::connect(server.address, server.fingerprint).unwrap();
        let send = send_command(b"two");
        let answer = client.command(&Key::Nothing, &queue.sender, &send).unwrap();
        assert_eq!(answer, b"ERR BLOCKED reason=spam", "{}", answer.escape_ascii());
        let answer = client.command(&queue.recipient_key, &queue.recipient, b"SUB").unwrap();
        assert_eq!(answer, b"ERR BLOCKED reason=spam", "{}", answer.escape_ascii());
        assert_eq!(client.command(&Key::Nothing, &other.sender, &send).unwrap(), b"OK");
        // Blocked for good, not only until the next start.
        server.kill();
    }

    let by_recipient = base64url::encode(&queue.recipient);
    assert!(succeeded(&folder.run(&["unblock", &by_recipient])).contains("\"unblocked\""));
    let server = folder.start();
    let mut client = RawClient::connect(server.address, server.fingerprint).unwrap();
    assert_eq!(client.command(&Key::Nothing, &queue.sender, &send_command(b"three")).unwrap(), b"OK");
    server.terminate();

    for (id, complaint) in [
        (base64url::encode(&[7; 24]), "no queue of this relay has this id"),
        ("short".to_owned(), "32 characters"),
    ] {
        let output = folder.run(&["block", &id, "--reason", "content"]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(complaint), "{text}");
    }
}
