//! The broker against a simple reference model, under random commands, failures of storage, restarts and passing time.
//!
//! In the first property one command is carried out at a time, and everything may fail; in the second many are under way
//! at once for different queues (and many messages for one), which must not disturb each other, however late and in
//! whatever order storage answers. In the third everything happens at once, also for one queue: what is answered then
//! depends on who was faster, and only what is promised is looked at.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)]

mod broker_and_model;

use std::cell::RefCell;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use smp_proto::wire::command::QueueMode;
use smp_proto::wire::error::{Blocked, BlockingReason};
use smp_tests::reference_model::{Acknowledged, Entity, Key, Number, Order, Rules, Storage};

use broker_and_model::{Ask, BrokerAndModel, Checked, Keys, Options, Sessions};

/// Recipients' keys, senders' keys (one of which only authenticates) and notifiers' keys; further ones are nobody's.
const RECIPIENTS: [Key; 2] = [0, 2];
const SENDERS: [Key; 2] = [4, 1];
const NOTIFIERS: [Key; 2] = [6, 3];
const STRANGER: Key = 5;

/// Long enough that nothing is between too young and too old: see [`rules`].
const LONG: i64 = 1000;

/// One step of a script. Numbers choose among what there is at that time.
#[derive(Clone, Debug)]
enum Step {
    Connect { version: u16 },
    Disconnect { connection: usize },
    Hear { connection: usize },
    Pass { seconds: i64, storage: Storage },
    PassLong { times: usize },
    Restart { block: Option<usize> },
    Commands { asks: Vec<Choice>, storage: Storage },
}

/// A command, before it is known what there is.
#[derive(Clone, Debug)]
struct Choice {
    from: usize,
    /// Whether it comes from whoever has the queue's messages, if anybody has.
    from_holder: bool,
    queue: usize,
    order: Order,
    party: Party,
    signer: Signer,
    which: Which,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Party {
    Right,
    Other(u8),
    Nobody(u8),
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signer {
    Right,
    Other(Key),
    None,
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Right,
    Empty,
    Unknown,
}

fn order() -> impl Strategy<Value = Order> {
    let key = |keys: [Key; 2]| prop::sample::select(keys.to_vec());
    let mode = prop_oneof![3 => Just(QueueMode::Messaging), 1 => Just(QueueMode::Contact)];
    let password = prop_oneof![4 => Just(Some(true)), 1 => Just(Some(false)), 2 => Just(None)];
    prop_oneof![
        4 => (key(RECIPIENTS), mode, prop::option::of(0..2u8), any::<bool>(), password).prop_map(
            |(key, mode, link, subscribe, password)| {
                Order::New { key, mode: Some(mode), link, subscribe, password }
            }
        ),
        3 => (0..2u8).prop_map(|fixed| Order::SetLink { link: None, fixed }),
        1 => Just(Order::DeleteLink),
        2 => key(SENDERS).prop_map(Order::SecureByLink),
        4 => Just(Order::GetLink),
        8 => Just(Order::Subscribe),
        2 => key(SENDERS).prop_map(Order::Secure),
        2 => key(SENDERS).prop_map(Order::SecureBySender),
        20 => prop::bool::weighted(0.7).prop_map(|notification| Order::Send { notification }),
        5 => Just(Order::Get),
        12 => Just(Order::Acknowledge(Acknowledged::Delivered)),
        1 => Just(Order::Suspend),
        1 => Just(Order::Delete),
        4 => Just(Order::Describe),
        4 => key(NOTIFIERS).prop_map(Order::EnableNotifications),
        1 => Just(Order::DisableNotifications),
        6 => Just(Order::SubscribeNotifications),
        1 => Just(Order::Ping),
    ]
}

fn choice() -> impl Strategy<Value = Choice> {
    let party = prop_oneof![
        30 => Just(Party::Right),
        2 => (0..4u8).prop_map(Party::Other),
        2 => (0..3u8).prop_map(Party::Nobody),
        1 => Just(Party::None),
    ];
    let signer = prop_oneof![
        30 => Just(Signer::Right),
        3 => (0..=STRANGER).prop_map(Signer::Other),
        1 => Just(Signer::None),
    ];
    let which = prop_oneof![6 => Just(Which::Right), 2 => Just(Which::Empty), 1 => Just(Which::Unknown)];
    (any::<usize>(), any::<bool>(), any::<usize>(), order(), party, signer, which).prop_map(
        |(from, from_holder, queue, order, party, signer, which)| Choice {
            from,
            from_holder,
            queue,
            order,
            party,
            signer,
            which,
        },
    )
}

fn storage() -> impl Strategy<Value = Storage> + Clone {
    prop_oneof![
        12 => Just(Storage::default()),
        1 => Just(Storage { writes_fail: true, reads_fail: false }),
        1 => Just(Storage { writes_fail: false, reads_fail: true }),
        1 => Just(Storage { writes_fail: true, reads_fail: true }),
    ]
}

fn writing() -> impl Strategy<Value = Storage> + Clone {
    prop_oneof![12 => Just(false), 1 => Just(true)]
        .prop_map(|writes_fail| Storage { writes_fail, reads_fail: false })
}

fn step(at_once: usize, storage: impl Strategy<Value = Storage> + Clone) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => broker_and_model::versions().prop_map(|version| Step::Connect { version }),
        1 => any::<usize>().prop_map(|connection| Step::Disconnect { connection }),
        4 => any::<usize>().prop_map(|connection| Step::Hear { connection }),
        4 => (1..=3i64, storage.clone()).prop_map(|(seconds, storage)| Step::Pass { seconds, storage }),
        1 => (1..=3usize).prop_map(|times| Step::PassLong { times }),
        1 => prop::option::weighted(0.3, any::<usize>()).prop_map(|block| Step::Restart { block }),
        40 => (vec(choice(), 1..=at_once), storage).prop_map(|(asks, storage)| Step::Commands { asks, storage }),
    ]
}

/// Steps of [`LONG`] and of a few seconds: messages are gone after three of the long ones and there after two, news
/// after two and one, whatever the steps in which expiry looks at them (at most 90 seconds late).
fn rules() -> Rules {
    Rules {
        new_queues: true,
        asks_password: false,
        quota: 3,
        queues: 100,
        connections: 100,
        subscriptions: 100,
        waiting_notifications: 1,
        message_life: 5 * LONG / 2,
        news_life: 3 * LONG / 2,
        news_delay: 1500,
    }
}

/// Everything is scarce.
fn scarce() -> impl Strategy<Value = Rules> {
    (
        any::<bool>(),
        1..4usize,
        1..5usize,
        2..5usize,
        1..5usize,
        prop_oneof![9 => Just(true), 1 => Just(false)],
    )
        .prop_map(|(asks_password, quota, queues, connections, subscriptions, new_queues)| Rules {
            new_queues,
            asks_password,
            quota,
            queues,
            connections,
            subscriptions,
            ..rules()
        })
}

fn run(relay: &mut BrokerAndModel<'_>, steps: &[Step]) -> Checked {
    for version in [6, 9, 15, 18] {
        relay.connect(version)?;
    }
    for (index, step) in steps.iter().enumerate() {
        match step {
            Step::Connect { version } => {
                if relay.connections().len() < 5 {
                    relay.connect(*version)?;
                }
            }
            Step::Disconnect { connection } => {
                if let Some(connection) = chosen(&relay.connections(), *connection) {
                    relay.disconnect(connection)?;
                }
            }
            Step::Hear { connection } => {
                if let Some(connection) = chosen(&relay.connections(), *connection) {
                    relay.hear(connection)?;
                }
            }
            Step::Pass { seconds, storage } => relay.pass(*seconds, *storage)?,
            Step::PassLong { times } => (0..*times).try_for_each(|_| relay.pass_long(LONG))?,
            Step::Restart { block } => {
                let queues: Vec<Number> = relay.model.queues().iter().map(|queue| queue.number).collect();
                let reason = BlockingReason::Spam;
                let blocked = block.and_then(|block| chosen(&queues, block));
                relay.restart(blocked.map(|queue| (queue, Blocked { reason, notice: None })))?;
                for version in [7, 18] {
                    relay.connect(version)?;
                }
            }
            Step::Commands { asks, storage } => {
                let asks = apart(asks.iter().filter_map(|choice| resolve(relay, choice)), *storage);
                relay.ask(&asks, *storage)?;
            }
        }
        // Nobody is so slow that much waits for it.
        if index % 10 == 9 {
            for connection in relay.connections() {
                relay.hear(connection)?;
            }
        }
    }
    relay.pass(100, Storage::default())?;
    for connection in relay.connections() {
        relay.hear(connection)?;
    }
    Ok(())
}

fn chosen<T: Clone>(things: &[T], number: usize) -> Option<T> {
    things.get(number % things.len().max(1)).cloned()
}

/// The command that a choice means with what there is now.
fn resolve(relay: &BrokerAndModel<'_>, choice: &Choice) -> Option<Ask> {
    let mut from = chosen(&relay.connections(), choice.from)?;
    let queue = chosen(relay.model.queues(), choice.queue);
    let mut order = choice.order;
    if matches!(order, Order::New { .. } | Order::Ping) {
        let right = match order {
            Order::New { key, .. } => Some(key),
            _ => None,
        };
        let about = match choice.party {
            Party::Nobody(byte) => Entity::Unknown(byte),
            _ => Entity::None,
        };
        return Some(Ask { from, about, order, signed: signer(choice.signer, right) });
    }
    let queue = queue?;
    if let (Some(subscriber), true) = (queue.subscriber, choice.from_holder)
        && matches!(order, Order::Acknowledge(_) | Order::Subscribe | Order::Describe)
    {
        from = subscriber;
    }
    if let Order::Acknowledge(which) = &mut order {
        *which = match (choice.which, relay.model.delivered(queue.number, from)) {
            (Which::Right, Some(number)) => Acknowledged::Message(number),
            (Which::Unknown, _) => Acknowledged::Unknown,
            _ => Acknowledged::Delivered,
        };
    }
    if let Order::SetLink { link, .. } = &mut order {
        *link = match choice.which {
            Which::Right => queue.link.map(|(link, _)| link),
            Which::Empty => None,
            Which::Unknown => relay.model.queues().iter().find_map(|other| other.link).map(|(link, _)| link),
        };
    }
    // What is no link any more, or never was one, is nobody's.
    let link = Entity::Link(queue.link.map_or(queue.number, |(link, _)| link));
    let (right, key) = match order {
        Order::SecureByLink(key) => (link, Some(key)),
        Order::GetLink => (link, None),
        Order::Send { .. } => (Entity::Sender(queue.number), queue.sender_key),
        Order::SecureBySender(key) => (Entity::Sender(queue.number), Some(key)),
        Order::SubscribeNotifications => {
            let (notifier, key) = queue.notifier?;
            (Entity::Notifier(notifier), Some(key))
        }
        _ => (Entity::Recipient(queue.number), Some(queue.recipient_key)),
    };
    let about = match choice.party {
        Party::Right => right,
        Party::Other(0) => Entity::Recipient(queue.number),
        Party::Other(1) => Entity::Sender(queue.number),
        Party::Other(2) => link,
        Party::Other(_) => queue.notifier.map_or(right, |(notifier, _)| Entity::Notifier(notifier)),
        Party::Nobody(byte) => Entity::Unknown(byte),
        Party::None => Entity::None,
    };
    Some(Ask { from, about, order, signed: signer(choice.signer, key) })
}

fn signer(signer: Signer, right: Option<Key>) -> Option<Key> {
    match signer {
        Signer::Right => right,
        Signer::Other(key) => Some(key),
        Signer::None => None,
    }
}

/// Leaves out what would disturb another command that is under way: one for the same queue (unless both are messages, and
/// none fails), and a queue that comes or goes unless it is the last.
fn apart(asks: impl Iterator<Item = Ask>, storage: Storage) -> Vec<Ask> {
    let (mut kept, mut last): (Vec<Ask>, Option<Ask>) = (Vec::new(), None);
    for ask in asks {
        let is_message =
            |one: &Ask| matches!((one.order, one.about), (Order::Send { .. }, Entity::Sender(_)));
        let disturbs = |one: &Ask| {
            same_queue(one.about, ask.about)
                && (storage != Storage::default() || !is_message(one) || !is_message(&ask))
        };
        if kept.iter().chain(&last).any(disturbs) {
            continue;
        }
        if !matches!(ask.order, Order::New { .. } | Order::Delete) {
            kept.push(ask);
        } else if last.is_none() {
            last = Some(ask);
        }
    }
    kept.extend(last);
    kept
}

fn same_queue(one: Entity, other: Entity) -> bool {
    // The queue of a notifier or a link is not seen in its name: any two may be the same.
    let queue = |entity| match entity {
        Entity::Recipient(queue) | Entity::Sender(queue) => Some(queue),
        Entity::None | Entity::Notifier(_) | Entity::Link(_) | Entity::Unknown(_) => None,
    };
    match (one, other) {
        (Entity::Notifier(_) | Entity::Link(_), other) | (other, Entity::Notifier(_) | Entity::Link(_)) => {
            queue(other).is_some() || matches!(other, Entity::Notifier(_) | Entity::Link(_))
        }
        _ => queue(one).is_some() && queue(one) == queue(other),
    }
}

fn check(name: &'static str, strategy: impl Strategy<Value = (Options, Vec<Step>)>) {
    let (sessions, keys) = (RefCell::new(Sessions::connect()), Keys::new());
    let config = Config { source_file: Some(file!()), test_name: Some(name), ..Config::default() };
    TestRunner::new(config)
        .run(&strategy, |(options, steps)| {
            let mut sessions = sessions.borrow_mut();
            run(&mut BrokerAndModel::new(options, &mut sessions, &keys), &steps)
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn one_command_at_a_time_is_answered_as_the_model_says_whatever_fails() {
    let options = (scarce(), any::<u64>()).prop_map(|(rules, seed)| Options {
        rules,
        deliveries_in_flight: 1000,
        takes_at_once: false,
        seed,
    });
    check("one", (options, vec(step(1, storage()), 1..80)));
}

#[test]
fn many_commands_at_once_are_answered_as_if_they_had_come_one_by_one() {
    let options = (1..4usize, 1..4u16, any::<u64>()).prop_map(|(quota, deliveries_in_flight, seed)| {
        Options { rules: Rules { quota, ..rules() }, deliveries_in_flight, takes_at_once: true, seed }
    });
    check("many", (options, vec(step(8, writing()), 1..60)));
}

/// A command of a storm: it knows of queues and notifiers what clients have been told.
fn resolve_in_storm(relay: &BrokerAndModel<'_>, choice: &Choice) -> Option<Ask> {
    let mut from = chosen(&relay.connections(), choice.from)?;
    let (queues, notifiers) = relay.known();
    let order = choice.order;
    let (right, key) = match order {
        Order::New { key, .. } => (Entity::None, Some(key)),
        Order::Ping => (Entity::None, None),
        Order::SubscribeNotifications => {
            let notifier = chosen(&notifiers, choice.queue)?;
            let Some(Order::EnableNotifications(key)) = relay.order(notifier) else { return None };
            (Entity::Notifier(notifier), Some(key))
        }
        _ => {
            let (queue, is_secured) = chosen(&queues, choice.queue)?;
            let Some(Order::New { key, .. }) = relay.order(queue) else { return None };
            if matches!(order, Order::Acknowledge(_)) && choice.from_holder {
                from = relay.subscriber(queue).unwrap_or(from);
            }
            match order {
                // With what key it is secured is not known here.
                Order::Send { .. } => (Entity::Sender(queue), is_secured.then_some(SENDERS[0])),
                Order::SecureBySender(key) => (Entity::Sender(queue), Some(key)),
                Order::SecureByLink(key) => (Entity::Link(queue), Some(key)),
                Order::GetLink => (Entity::Link(queue), None),
                _ => (Entity::Recipient(queue), Some(key)),
            }
        }
    };
    let about = if let Party::Nobody(byte) = choice.party { Entity::Unknown(byte) } else { right };
    // What nobody is authorized for stays without consequences, and is left to the other properties.
    Some(Ask { from, about, order, signed: key })
}

fn run_storm(relay: &mut BrokerAndModel<'_>, odds: usize, steps: &[Step]) -> Checked {
    relay.ledger.odds = odds;
    for version in [6, 9, 15, 18] {
        relay.connect(version)?;
    }
    for step in steps {
        match step {
            Step::Connect { version } if relay.connections().len() < 5 => relay.connect(*version)?,
            Step::Disconnect { connection } => {
                if let Some(connection) = chosen(&relay.connections(), *connection) {
                    relay.leave(connection)?;
                }
            }
            Step::Pass { seconds, .. } => relay.let_time_pass(*seconds)?,
            Step::PassLong { .. } => relay.let_time_pass(LONG)?,
            Step::Restart { .. } => {
                relay.crash()?;
                for version in [7, 18] {
                    relay.connect(version)?;
                }
            }
            Step::Commands { asks, .. } => {
                let asks: Vec<_> = asks.iter().filter_map(|choice| resolve_in_storm(relay, choice)).collect();
                relay.storm(&asks)?;
            }
            Step::Connect { .. } | Step::Hear { .. } => {}
        }
    }
    relay.calm()
}

#[test]
fn whatever_happens_at_once_every_command_is_answered_and_every_promise_kept() {
    let options = (1..4usize, 1..4u16, any::<u64>(), any::<bool>()).prop_map(
        |(quota, deliveries_in_flight, seed, takes_at_once)| Options {
            rules: Rules { quota, queues: 3, ..rules() },
            deliveries_in_flight,
            takes_at_once,
            seed,
        },
    );
    let odds = prop_oneof![Just(0usize), Just(4), Just(20)];
    let (sessions, keys) = (RefCell::new(Sessions::connect()), Keys::new());
    // A case is as long as several of the others.
    let cases = Config::default().cases.div_ceil(2);
    let config = Config { cases, source_file: Some(file!()), test_name: Some("storm"), ..Config::default() };
    TestRunner::new(config)
        .run(&(options, odds, vec(step(8, Just(Storage::default())), 20..60)), |(options, odds, steps)| {
            let mut sessions = sessions.borrow_mut();
            run_storm(&mut BrokerAndModel::new(options, &mut sessions, &keys), odds, &steps)
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
