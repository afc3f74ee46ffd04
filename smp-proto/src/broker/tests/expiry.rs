//! What nobody fetches in time goes, and nothing goes before its time.

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[test]
fn messages_expire_after_their_time_to_live_and_not_before() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    relay.pass(DAY);
    relay.send(&queue, b"two");
    let recipient = relay.connect();
    relay.pass(DAY * 20 - Duration::from_secs(60));
    assert_eq!(body_of(&relay.recipient(recipient, &queue, Command::Get)).1, b"one");
    relay.pass(Duration::from_secs(2 * 3600));
    assert_eq!(body_of(&relay.recipient(recipient, &queue, Command::Get)).1, b"two");
    relay.pass(DAY);
    assert_eq!(relay.recipient(recipient, &queue, Command::Get), Said::Ok);
    assert!(relay.storage.queues().all(|queue| queue.messages.is_empty()));
}

#[test]
fn messages_of_before_a_restart_expire() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    relay.pass(DAY * 15);
    relay.restart();
    relay.pass(DAY * 7);
    let recipient = relay.connect();
    assert_eq!(relay.recipient(recipient, &queue, Command::Get), Said::Ok);
}

#[test]
fn the_marker_expires_with_the_messages_and_the_queue_opens_again() {
    let mut relay = Relay::with(|config| config.message_quota = 2);
    let queue = relay.messaging_queue();
    for answer in [Said::Ok, Said::Ok, QUOTA, QUOTA] {
        assert_eq!(relay.send(&queue, b"x"), answer);
    }
    relay.pass(DAY * 22);
    assert_eq!(relay.send(&queue, b"y"), Said::Ok);
}

#[test]
fn what_expires_after_it_was_delivered_can_be_acknowledged() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    let recipient = relay.connect();
    relay.recipient(recipient, &queue, Command::Subscribe);
    relay.send(&queue, b"one");
    assert_eq!(relay.hear(recipient).len(), 1);
    relay.pass(DAY * 22);
    relay.send(&queue, b"two");
    assert_eq!(relay.hear(recipient), []);
    assert_eq!(body_of(&relay.recipient(recipient, &queue, acknowledge(b""))).1, b"two");
}

#[test]
fn one_call_looks_at_a_bounded_number_of_queues_and_the_rest_is_due_at_once() {
    let mut relay = Relay::new();
    let queues: Vec<_> = (0..300).map(|_| relay.messaging_queue()).collect();
    for queue in &queues {
        relay.send(queue, b"x");
    }
    relay.now.wall = relay.now.wall.saturating_add(DAY * 22);
    relay.now.instant = relay.now.instant + DAY * 22;
    relay.broker.handle_timeout(relay.now);
    assert_eq!(relay.broker.statistics().actions_waiting, 256);
    assert_eq!(relay.broker.next_deadline(), Some(relay.now.instant));
    relay.broker.handle_timeout(relay.now);
    assert_eq!(relay.broker.statistics().actions_waiting, 300);
    relay.settle();
    assert_eq!(relay.broker.next_deadline(), None);
}

#[test]
fn a_relay_without_messages_waits_for_nothing() {
    let mut relay = Relay::new();
    relay.messaging_queue();
    relay.connect();
    assert_eq!(relay.broker.next_deadline(), None);
}

#[test]
fn a_wall_clock_that_jumps_ahead_expires_nothing_at_once() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    relay.send(&queue, b"one");
    relay.pass(Duration::from_secs(3600));
    let right = relay.now.wall;
    relay.now.wall = right.saturating_add(DAY * 365);
    relay.pass(Duration::from_secs(3600));
    relay.now.wall = right.saturating_add(Duration::from_secs(3600));
    relay.pass(DAY);
    let recipient = relay.connect();
    assert_eq!(body_of(&relay.recipient(recipient, &queue, Command::Get)).1, b"one");
    relay.pass(DAY * 21);
    assert_eq!(relay.recipient(recipient, &queue, Command::Get), Said::Ok);
}

#[test]
fn a_wall_clock_that_steps_back_loses_nothing_and_does_not_panic() {
    let mut relay = Relay::new();
    let queue = relay.messaging_queue();
    for wall in [relay.now.wall.0, 0, -1, i64::MIN, i64::MAX, 1_700_000_000] {
        relay.now.wall = UnixTime(wall);
        assert_eq!(relay.send(&queue, b"x"), Said::Ok);
        relay.now.instant = relay.now.instant + Duration::from_secs(3600);
        relay.broker.handle_timeout(relay.now);
        relay.check();
    }
    assert!(relay.storage.queues().any(|queue| !queue.messages.is_empty()));
}
