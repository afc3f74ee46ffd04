//! Kills the real `smp-server` with SIGKILL again and again, at random moments under load, and starts it again on the same
//! folder. A ledger of what it promised judges what it does afterwards:
//!
//! - a message that was answered `OK` is delivered, unless it was delivered and acknowledged before;
//! - a message whose `ACK` was answered never comes back;
//! - messages of a queue come in the order in which they were sent, and again only with the same id and body;
//! - a queue whose `NEW` was answered exists, a queue whose `DEL` was answered does not;
//! - link data whose `LSET` was answered are there, as they were last set, and those whose `LDEL` was answered are not.
//!
//! `SMP_SEED` repeats the moments and sizes of a run, `SMP_CRASHES` sets how many.
#![allow(clippy::unwrap_used, reason = "a test")]

mod programs;
mod raw_client;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use programs::{ServerFolder, ServerProcess};
use raw_client::{
    Key, NewOptions, PATIENCE, RawClient, RawQueue, acknowledge_command, large, open_delivery, random,
    send_command, short,
};
use smp_runtime_std::certificates::Fingerprint;

/// Queues under load.
const QUEUES: usize = 4;
/// Messages that a sender has under way.
const PIPELINE: usize = 8;
/// Messages that wait in a queue before its sender pauses: well below the quota, which would keep senders quiet for long.
const BACKLOG: i64 = 40;

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What is known of one message.
#[derive(Default)]
struct Message {
    accepted: bool,
    delivered: Option<[u8; 24]>,
    acknowledged: bool,
}

/// What is known of one queue.
struct Ledger {
    queue: RawQueue,
    next_number: u64,
    messages: BTreeMap<u64, Message>,
    /// The message that was delivered last.
    last_delivered: Option<u64>,
    redelivered: u64,
}

/// What a sender and a recipient learned in one life of the relay, in the order in which it happened to each.
#[derive(Default)]
struct Life {
    sent: Vec<u64>,
    accepted: Vec<u64>,
    deliveries: Vec<(u64, [u8; 24])>,
    acknowledged: Vec<u64>,
}

/// A body that says which message it is, and that it is whole.
fn body(number: u64, length: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.extend((body.len()..length.max(16)).map(|at| (number as usize * 31 + at) as u8));
    body
}

fn number_of(body: &[u8]) -> u64 {
    let (number, _) = body.split_first_chunk::<8>().expect("a body has its number");
    let number = u64::from_be_bytes(*number);
    assert_eq!(body, self::body(number, body.len()), "message {number} was changed");
    number
}

/// Sends until the relay is gone.
fn send(
    address: SocketAddr,
    fingerprint: Fingerprint,
    sender: &[u8],
    first: u64,
    dice: &mut Dice,
    backlog: &AtomicI64,
    stop: &AtomicBool,
) -> Life {
    let mut life = Life::default();
    let Ok(mut client) = RawClient::connect(address, fingerprint) else { return life };
    let mut under_way: VecDeque<(u64, [u8; 24])> = VecDeque::new();
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        while under_way.len() < PIPELINE && backlog.load(Ordering::Relaxed) < BACKLOG {
            let length = if dice.below(4) == 0 { 15_900 } else { 16 + dice.below(600) as usize };
            // It counts as sent whatever comes of writing it.
            life.sent.push(number);
            let Ok(correlation) = client.send(&Key::Nothing, sender, &send_command(&body(number, length)))
            else {
                return life;
            };
            under_way.push_back((number, correlation));
            number += 1;
        }
        let Some((oldest, correlation)) = under_way.pop_front() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        match client.answer(&correlation) {
            Ok(said) if said.content == b"OK" => {
                life.accepted.push(oldest);
                backlog.fetch_add(1, Ordering::Relaxed);
            }
            Ok(said) if said.content == b"ERR QUOTA" => thread::sleep(Duration::from_millis(5)),
            Ok(said) => panic!("SEND was answered {said:?}"),
            Err(_) => return life,
        }
    }
    life
}

/// Receives and acknowledges until the relay is gone, or until `enough` says so.
fn receive(
    address: SocketAddr,
    fingerprint: Fingerprint,
    queue: &RawQueue,
    received: &AtomicU64,
    backlog: &AtomicI64,
    patience: Duration,
    enough: impl Fn(&Life) -> bool,
) -> Life {
    let mut life = Life::default();
    let Ok(mut client) = RawClient::connect(address, fingerprint) else { return life };
    match client.command(&queue.recipient_key, &queue.recipient, b"SUB") {
        Ok(answer) => {
            assert!(matches!(answer.as_slice(), b"OK" | b"SOK 0"), "SUB: {}", answer.escape_ascii())
        }
        Err(_) => return life,
    }
    let mut next: Option<Vec<u8>> = None;
    while !enough(&life) {
        let content = match next.take() {
            Some(content) => content,
            None => match client.event(patience) {
                Ok(said) => said.content,
                Err(_) => return life,
            },
        };
        let (id, body) = open_delivery(queue, &content).expect("what is delivered can be opened");
        let number = body.map(|body| number_of(&body));
        if let Some(number) = number {
            life.deliveries.push((number, id));
            received.fetch_add(1, Ordering::Relaxed);
        }
        match client.command(&queue.recipient_key, &queue.recipient, &acknowledge_command(&id)) {
            Ok(answer) if answer == b"OK" => {}
            Ok(answer) if answer.starts_with(b"MSG ") => next = Some(answer),
            Ok(answer) => panic!("ACK was answered {}", answer.escape_ascii()),
            Err(_) => return life,
        }
        life.acknowledged.extend(number);
        backlog.fetch_sub(1, Ordering::Relaxed);
    }
    life
}

impl Ledger {
    /// Judges what was received in one life, and keeps it with what was sent.
    fn enter(&mut self, sender: Life, recipient: Life) {
        for number in sender.sent {
            self.messages.insert(number, Message::default());
            self.next_number = number + 1;
        }
        for number in sender.accepted {
            self.messages.get_mut(&number).unwrap().accepted = true;
        }
        for (number, id) in recipient.deliveries {
            let message = self.messages.get_mut(&number).expect("what is delivered was sent");
            assert!(!message.acknowledged, "message {number} was acknowledged, and came back");
            match message.delivered {
                Some(earlier) => {
                    assert_eq!(earlier, id, "message {number} came again with another id");
                    assert_eq!(self.last_delivered, Some(number), "message {number} came again out of order");
                    self.redelivered += 1;
                }
                None => {
                    let in_order = self.last_delivered.is_none_or(|last| last < number);
                    assert!(in_order, "message {number} came after message {:?}", self.last_delivered);
                    message.delivered = Some(id);
                    self.last_delivered = Some(number);
                }
            }
            if recipient.acknowledged.contains(&number) {
                message.acknowledged = true;
            }
        }
    }

    /// Messages that wait in the queue, as far as is known.
    fn waiting(&self) -> i64 {
        let waiting = self.messages.values().filter(|message| message.accepted && !message.acknowledged);
        i64::try_from(waiting.count()).unwrap()
    }

    /// At the end, with an empty queue.
    fn judge(&self, index: usize) {
        for (number, message) in &self.messages {
            assert!(
                message.delivered.is_some() || !message.accepted,
                "queue {index}: message {number} was accepted, and is lost"
            );
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

#[test]
fn nothing_that_was_promised_is_lost_however_the_relay_ends() {
    let seed = setting("SMP_SEED").unwrap_or_else(|| u64::from_be_bytes(random()));
    let crashes = setting("SMP_CRASHES").unwrap_or(50);
    println!("repeat with SMP_SEED={seed} SMP_CRASHES={crashes}");
    crash_and_judge(&ServerFolder::init(), seed, crashes);
}

/// A relay that says yes before the disk does breaks its promises, and this test must be able to see it.
#[test]
fn a_relay_that_promises_too_early_is_found_out() {
    let folder = ServerFolder::init();
    folder.set(&[("durability", "relaxed"), ("relaxed_window_milliseconds", "60000")]);
    let judged = std::panic::catch_unwind(|| crash_and_judge(&folder, 1, 5));
    assert!(judged.is_err(), "messages that cannot be there were not missed");
}

/// Crashes the relay of this folder again and again, and panics when it breaks a promise.
fn crash_and_judge(folder: &ServerFolder, seed: u64, crashes: u64) {
    let mut dice = Dice(seed);
    let server = folder.start();
    let mut setup = RawClient::connect(server.address, server.fingerprint).unwrap();
    let mut ledgers: Vec<Ledger> = (0..QUEUES)
        .map(|_| Ledger {
            queue: setup.new_queue(NewOptions { subscribe: false, ..NewOptions::default() }).unwrap(),
            next_number: 1,
            messages: BTreeMap::new(),
            last_delivered: None,
            redelivered: 0,
        })
        .collect();
    // Queues that exist and queues that were deleted, as the relay has said.
    let mut kept: VecDeque<RawQueue> = VecDeque::new();
    let mut deleted: Vec<RawQueue> = Vec::new();
    let mut links = Links::default();
    server.kill();

    for crash in 1..=crashes {
        // Starting is a moment like any other to be killed at.
        if dice.below(4) == 0 {
            let mut child = folder.spawn();
            thread::sleep(Duration::from_micros(dice.below(60_000)));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let server = folder.start();
        let (address, fingerprint) = (server.address, server.fingerprint);
        let life_time = Duration::from_micros(dice.below(120_000));
        let wanted = dice.below(40);
        let received = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        let mut link_dice = Dice(dice.next());
        let seeds: Vec<u64> = ledgers.iter().map(|_| dice.next()).collect();
        let backlogs: Vec<AtomicI64> =
            ledgers.iter().map(|ledger| AtomicI64::new(ledger.waiting())).collect();
        let lives: Vec<(Life, Life)> = thread::scope(|scope| {
            let (received, stop) = (&received, &stop);
            let threads: Vec<_> = ledgers
                .iter()
                .zip(&backlogs)
                .zip(seeds)
                .map(|((ledger, backlog), seed)| {
                    let (sender, first) = (ledger.queue.sender.clone(), ledger.next_number);
                    let sending = scope.spawn(move || {
                        send(address, fingerprint, &sender, first, &mut Dice(seed), backlog, stop)
                    });
                    let queue = &ledger.queue;
                    let receiving = scope.spawn(move || {
                        receive(address, fingerprint, queue, received, backlog, PATIENCE, |_| false)
                    });
                    (sending, receiving)
                })
                .collect();
            let changes = scope.spawn(|| change_queues(address, fingerprint, &mut kept, &mut deleted));
            let linking = scope.spawn(|| change_links(address, fingerprint, &mut links, &mut link_dice));
            // Under load, wherever that is slow: some messages, and then a random while.
            // Nobody ends before the relay does, except with a complaint.
            let patience = Instant::now() + PATIENCE;
            while received.load(Ordering::Relaxed) < wanted
                && Instant::now() < patience
                && !threads
                    .iter()
                    .any(|(sending, receiving)| sending.is_finished() || receiving.is_finished())
            {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(life_time);
            server.kill();
            stop.store(true, Ordering::Relaxed);
            changes.join().unwrap();
            linking.join().unwrap();
            threads
                .into_iter()
                .map(|(sending, receiving)| (sending.join().unwrap(), receiving.join().unwrap()))
                .collect()
        });
        for (ledger, (sender, recipient)) in ledgers.iter_mut().zip(lives) {
            ledger.enter(sender, recipient);
        }
        println!(
            "crash {crash}: {} messages so far, {} accepted, {} came twice",
            ledgers.iter().map(|ledger| ledger.messages.len()).sum::<usize>(),
            ledgers
                .iter()
                .flat_map(|ledger| ledger.messages.values())
                .filter(|message| message.accepted)
                .count(),
            ledgers.iter().map(|ledger| ledger.redelivered).sum::<u64>(),
        );
    }

    // The last life is a quiet one: everything that is left comes, and the relay ends in order.
    let server = folder.start();
    for ledger in &mut ledgers {
        drain(&server, ledger);
    }
    for (index, ledger) in ledgers.iter().enumerate() {
        ledger.judge(index);
    }
    check_queues(&server, &kept, &deleted);
    check_links(&server, &links);
    let accepted: usize = ledgers
        .iter()
        .map(|ledger| ledger.messages.values().filter(|message| message.accepted).count())
        .sum();
    assert!(accepted > 0, "the load was no load");
    server.terminate();
}

/// Takes everything that waits in a queue. It is empty when a last message, sent after all others, has come.
fn drain(server: &ServerProcess, ledger: &mut Ledger) {
    let last = ledger.next_number;
    let mut sender = Life::default();
    let mut client = RawClient::connect(server.address, server.fingerprint).unwrap();
    let queue = ledger.queue.clone();
    let (address, fingerprint) = (server.address, server.fingerprint);
    let recipient = thread::scope(|scope| {
        let receiving = scope.spawn(|| {
            let enough = |life: &Life| life.acknowledged.last() == Some(&last);
            receive(address, fingerprint, &queue, &AtomicU64::new(0), &AtomicI64::new(0), PATIENCE, enough)
        });
        // A queue at its quota takes messages again when it is empty.
        let until = Instant::now() + PATIENCE;
        loop {
            let answer =
                client.command(&Key::Nothing, &queue.sender, &send_command(&body(last, 16))).unwrap();
            if answer == b"OK" {
                break;
            }
            assert_eq!(answer, b"ERR QUOTA");
            assert!(Instant::now() < until, "the queue stays full");
            thread::sleep(Duration::from_millis(10));
        }
        sender.sent.push(last);
        sender.accepted.push(last);
        receiving.join().unwrap()
    });
    assert_eq!(recipient.acknowledged.last(), Some(&last), "the queue could not be emptied");
    ledger.enter(sender, recipient);
}

/// Creates queues and deletes earlier ones until the relay is gone, and keeps what it has answered.
fn change_queues(
    address: SocketAddr,
    fingerprint: Fingerprint,
    kept: &mut VecDeque<RawQueue>,
    deleted: &mut Vec<RawQueue>,
) {
    let Ok(mut client) = RawClient::connect(address, fingerprint) else { return };
    loop {
        match client.new_queue(NewOptions { subscribe: false, ..NewOptions::default() }) {
            Ok(queue) => kept.push_back(queue),
            Err(error) if error.starts_with("NEW was answered") => panic!("{error}"),
            Err(_) => return,
        }
        if kept.len() > 20 {
            // While it is not answered, the relay may have done it or not: such a queue is in neither list.
            let queue = kept.pop_front().unwrap();
            match client.command(&queue.recipient_key, &queue.recipient, b"DEL") {
                Ok(answer) => {
                    assert_eq!(answer, b"OK", "DEL was answered {}", answer.escape_ascii());
                    deleted.push(queue);
                }
                Err(_) => return,
            }
        }
    }
}

/// A contact address with link data.
struct Linked {
    queue: RawQueue,
    link: [u8; 24],
    fixed: Vec<u8>,
    /// What may be there: the last that was answered, and those after it that were not.
    user: Vec<Vec<u8>>,
}

/// Addresses with links, and links that were deleted, as the relay has said.
#[derive(Default)]
struct Links {
    kept: VecDeque<Linked>,
    deleted: Vec<[u8; 24]>,
}

impl Linked {
    /// `LSET`; false when the relay is gone.
    fn set(&mut self, client: &mut RawClient, user: Vec<u8>) -> bool {
        self.user.push(user.clone());
        let parts = [b"LSET ".to_vec(), short(&self.link), large(&self.fixed), large(&user)];
        match client.command(&self.queue.recipient_key, &self.queue.recipient, &parts.concat()) {
            Ok(answer) => {
                assert_eq!(answer, b"OK", "LSET was answered {}", answer.escape_ascii());
                self.user = vec![user];
                true
            }
            Err(_) => false,
        }
    }
}

/// Makes links, changes what is behind them, and deletes earlier ones until the relay is gone.
fn change_links(address: SocketAddr, fingerprint: Fingerprint, links: &mut Links, dice: &mut Dice) {
    let Ok(mut client) = RawClient::connect(address, fingerprint) else { return };
    loop {
        let options = NewOptions { subscribe: false, mode: b'C', ..NewOptions::default() };
        let queue = match client.new_queue(options) {
            Ok(queue) => queue,
            Err(error) if error.starts_with("NEW was answered") => panic!("{error}"),
            Err(_) => return,
        };
        let data = |dice: &mut Dice, most| vec![dice.next() as u8; 1 + dice.below(most) as usize];
        let mut linked = Linked { queue, link: random(), fixed: data(dice, 2000), user: Vec::new() };
        // When the first one is not answered there may be a link or not: it is in neither list.
        if !linked.set(&mut client, data(dice, 13_000)) {
            return;
        }
        links.kept.push_back(linked);
        let place = dice.below(links.kept.len() as u64) as usize;
        if !links.kept[place].set(&mut client, data(dice, 13_000)) {
            return;
        }
        if links.kept.len() > 10 {
            let linked = links.kept.pop_front().unwrap();
            match client.command(&linked.queue.recipient_key, &linked.queue.recipient, b"LDEL") {
                Ok(answer) => {
                    assert_eq!(answer, b"OK", "LDEL was answered {}", answer.escape_ascii());
                    links.deleted.push(linked.link);
                }
                Err(_) => return,
            }
            // Whether this is done or not: the link is gone before. So a run does not leave thousands of queues.
            if client.command(&linked.queue.recipient_key, &linked.queue.recipient, b"DEL").is_err() {
                return;
            }
        }
    }
}

fn check_links(server: &ServerProcess, links: &Links) {
    let mut client = RawClient::connect(server.address, server.fingerprint).unwrap();
    for linked in &links.kept {
        let answer = client.command(&Key::Nothing, &linked.link, b"LGET").unwrap();
        let start = [b"LNK ".to_vec(), short(&linked.queue.sender), large(&linked.fixed)].concat();
        let user = answer.strip_prefix(&start[..]).expect("a link is lost, or its fixed data are others");
        assert!(linked.user.iter().any(|known| large(known) == user), "link data are not what was set last");
    }
    for link in &links.deleted {
        let answer = client.command(&Key::Nothing, link, b"LGET").unwrap();
        assert_eq!(answer, b"ERR AUTH", "deleted link data are back");
    }
    println!("{} links lead where they should, {} are deleted", links.kept.len(), links.deleted.len());
    assert!(!links.kept.is_empty(), "no links were made");
}

fn check_queues(server: &ServerProcess, kept: &VecDeque<RawQueue>, deleted: &[RawQueue]) {
    let mut client = RawClient::connect(server.address, server.fingerprint).unwrap();
    for queue in kept {
        let answer = client.command(&queue.recipient_key, &queue.recipient, b"SUB").unwrap();
        assert!(matches!(answer.as_slice(), b"OK" | b"SOK 0"), "a queue is lost: {}", answer.escape_ascii());
    }
    for queue in deleted {
        let answer = client.command(&queue.recipient_key, &queue.recipient, b"SUB").unwrap();
        assert_eq!(answer, b"ERR AUTH", "a deleted queue is back");
    }
    println!("{} queues exist as promised, {} are deleted as promised", kept.len(), deleted.len());
}
