//! Messages through queues: sent, delivered, acknowledged, again and again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use smp_proto::crypto::message_body::{ReceivedMessage, open_message};
use smp_proto::crypto::{BoxKey, Nonce};
use smp_proto::session::AuthSecret;
use smp_proto::wire::command::{Command, MessageFlags};
use smp_proto::wire::identifier::IDENTIFIER_LENGTH;
use smp_proto::wire::version::Version;

use super::crew::Crew;
use super::histogram::Histogram;
use super::link::{Event, Heard, Link};
use super::queues::{self, LoadQueue, NewKeys, full};
use crate::failure::{Failure, Kind};

/// What one thread is to do.
pub(super) struct Plan {
    pub(super) connections: usize,
    pub(super) queues: usize,
    pub(super) pipeline: u32,
    pub(super) size: Option<usize>,
}

/// What all threads share.
pub(super) struct Shared {
    /// Messages that may still be sent.
    pub(super) tickets: AtomicU64,
    /// Messages that were sent, delivered and acknowledged.
    pub(super) delivered: AtomicU64,
    /// Somebody failed, or the user does not want more.
    pub(super) stop: AtomicBool,
}

/// What one thread has measured.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) messages: u64,
    pub(super) send_to_ok: Option<Histogram>,
    pub(super) send_to_message: Option<Histogram>,
    pub(super) acknowledge: Option<Histogram>,
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) version: u16,
    pub(super) size: usize,
    /// From the first `SEND` to the last answer.
    pub(super) elapsed: Duration,
}

/// What a correlation's number says it is about.
const ABOUT_SEND: u64 = 0;
const ABOUT_ACKNOWLEDGE: u64 = 1 << 63;

/// One queue under load.
struct Lane {
    queue: LoadQueue,
    sender_key: AuthSecret,
    opens: BoxKey,
    recipient_link: usize,
    sender_link: usize,
    /// The number of the next message.
    next: u32,
    /// Sent, and not answered yet.
    unanswered: VecDeque<(u32, Instant)>,
    /// Sent, and not delivered yet.
    undelivered: VecDeque<(u32, Instant)>,
    /// When the message that is being acknowledged was.
    acknowledged_at: Option<Instant>,
    /// Sent, and not acknowledged yet.
    under_way: u32,
}

/// The load of one thread.
pub(super) struct Load<'t, 's> {
    crew: Crew<'t>,
    lanes: Vec<Lane>,
    by_recipient: HashMap<[u8; IDENTIFIER_LENGTH], usize>,
    body: Vec<u8>,
    pipeline: u32,
    shared: &'s Shared,
    sending: bool,
    measured: Measured,
}

impl<'t, 's> Load<'t, 's> {
    /// Connects, makes and secures the queues.
    pub(super) fn set_up(mut crew: Crew<'t>, plan: &Plan, shared: &'s Shared) -> Result<Self, Failure> {
        crew.connect(plan.connections, || ())?;
        // The first half of the connections receives, the other sends.
        let recipients = (plan.connections / 2).max(1);
        let recipient_links: Vec<usize> = (0..plan.queues).map(|queue| queue % recipients).collect();
        let senders = (plan.connections - recipients).max(1);
        let first_sender = plan.connections - senders;
        let sender_links: Vec<usize> = (0..plan.queues).map(|queue| first_sender + queue % senders).collect();
        let keys = recipient_links.iter().map(|_| NewKeys::generate(&mut crew.entropy)).collect();
        let made = queues::create(&mut crew, &recipient_links, keys, true, None, || ())?;
        let made: Vec<LoadQueue> = made.into_iter().flatten().collect();
        let sender_keys = queues::secure(&mut crew, &recipient_links, &sender_links, &made)?;
        let version = crew.links.first().and_then(Link::version).unwrap_or(Version::OLDEST);
        let largest = version.max_message_length();
        let size = plan.size.unwrap_or(largest);
        if size > largest || size < 16 {
            return Err(Failure::new(Kind::Usage, format!("a message cannot have {size} bytes here"))
                .advise(format!("at version {} it can have 16 to {largest}", version.0)));
        }
        let mut lanes = Vec::new();
        let mut by_recipient = HashMap::new();
        let links = recipient_links.into_iter().zip(sender_links);
        for ((queue, sender_key), (recipient_link, sender_link)) in
            made.into_iter().zip(sender_keys).zip(links)
        {
            by_recipient.extend(full(&queue.recipient).map(|id| (id, lanes.len())));
            lanes.push(Lane {
                opens: queue.opens(&crew),
                queue,
                sender_key,
                recipient_link,
                sender_link,
                next: 0,
                unanswered: VecDeque::new(),
                undelivered: VecDeque::new(),
                acknowledged_at: None,
                under_way: 0,
            });
        }
        let measured = Measured {
            send_to_ok: Some(Histogram::new()),
            send_to_message: Some(Histogram::new()),
            acknowledge: Some(Histogram::new()),
            version: version.0,
            size,
            ..Measured::default()
        };
        let body = (0..size).map(|at| (at % 251) as u8).collect();
        Ok(Self { crew, lanes, by_recipient, body, pipeline: plan.pipeline, shared, sending: true, measured })
    }

    /// Sends until `until` or until there are no tickets, then waits for what is under way, and cleans up.
    pub(super) fn run(mut self, until: Instant) -> Result<Measured, Failure> {
        let start = Instant::now();
        for lane in 0..self.lanes.len() {
            self.fill(lane)?;
        }
        let mut last_progress = Instant::now();
        let mut last_count = 0;
        while self.lanes.iter().any(|lane| lane.under_way > 0) {
            if self.sending && (Instant::now() >= until || self.shared.stop.load(Ordering::Relaxed)) {
                self.sending = false;
            }
            let wait = if self.sending { until } else { Instant::now() + Duration::from_millis(50) };
            self.turn(wait)?;
            let count = self.measured.messages + self.errors();
            if count > last_count {
                (last_count, last_progress) = (count, Instant::now());
            } else if last_progress.elapsed() > self.crew.target.timeout {
                let under_way: u32 = self.lanes.iter().map(|lane| lane.under_way).sum();
                *self.measured.errors.entry("no answer in time".to_owned()).or_default() +=
                    u64::from(under_way);
                break;
            }
        }
        self.measured.elapsed = start.elapsed();
        let links: Vec<usize> = self.lanes.iter().map(|lane| lane.recipient_link).collect();
        let queues: Vec<&LoadQueue> = self.lanes.iter().map(|lane| &lane.queue).collect();
        queues::delete(&mut self.crew, &links, &queues)?;
        Ok(self.measured)
    }

    fn errors(&self) -> u64 {
        self.measured.errors.values().sum()
    }

    fn turn(&mut self, until: Instant) -> Result<(), Failure> {
        let mut heard = Vec::new();
        self.crew.serve(until, 0, |_, _, event| {
            heard.push(event);
            Ok(())
        })?;
        heard.into_iter().try_for_each(|event| self.hear(event))
    }

    /// Sends as many messages to a lane as it may have under way.
    fn fill(&mut self, index: usize) -> Result<(), Failure> {
        while self.sending && self.lanes.get(index).is_some_and(|lane| lane.under_way < self.pipeline) {
            let take = |tickets: u64| tickets.checked_sub(1);
            if self.shared.tickets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
                self.sending = false;
                return Ok(());
            }
            let Some(lane) = self.lanes.get_mut(index) else { return Ok(()) };
            let number = ABOUT_SEND | ((index as u64) << 32) | u64::from(lane.next);
            let correlation = queues::correlation(number, &mut self.crew.entropy);
            if let Some(place) = self.body.first_chunk_mut() {
                *place = number.to_be_bytes();
            }
            let command = Command::Send { flags: MessageFlags::default(), body: &self.body };
            let sent = Instant::now();
            lane.unanswered.push_back((lane.next, sent));
            lane.undelivered.push_back((lane.next, sent));
            lane.next = lane.next.wrapping_add(1);
            lane.under_way += 1;
            let (entity, key) = (&lane.queue.sender, &lane.sender_key);
            let mut added = Ok(());
            self.crew.send(lane.sender_link, |writer| {
                added = writer.add(&correlation, entity, &command, Some(key));
            })?;
            added.map_err(|error| {
                Failure::new(Kind::Unexpected, format!("a message cannot be sent: {error}"))
            })?;
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<(), Failure> {
        let number = queues::number_of(&event.correlation);
        match number {
            None => match event.heard {
                Heard::Message(id, body) => {
                    match full(&event.entity).and_then(|id| self.by_recipient.get(&id)) {
                        Some(&lane) => self.delivered(lane, id, body),
                        None => self.count("a message of no queue"),
                    }
                }
                Heard::Error(error) => self.count(&error.to_string()),
                other => self.count(&format!("unexpected: {other:?}")),
            },
            Some(number) => {
                let lane = ((number & !ABOUT_ACKNOWLEDGE) >> 32) as usize;
                if number & ABOUT_ACKNOWLEDGE == 0 {
                    self.sent(lane, (number & u64::from(u32::MAX)) as u32, event.heard)
                } else {
                    self.acknowledged(lane, event.heard)
                }
            }
        }
    }

    fn count(&mut self, error: &str) -> Result<(), Failure> {
        *self.measured.errors.entry(error.to_owned()).or_default() += 1;
        if self.errors() > 1000 {
            return Err(Failure::new(
                Kind::Refused,
                format!("the relay answers with errors, of late: {error}"),
            ));
        }
        Ok(())
    }

    /// A `SEND` was answered.
    fn sent(&mut self, index: usize, number: u32, heard: Heard) -> Result<(), Failure> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(()) };
        if let Some(at) = lane.unanswered.iter().position(|(sent, _)| *sent == number)
            && let Some((_, sent)) = lane.unanswered.remove(at)
            && let Some(histogram) = &mut self.measured.send_to_ok
        {
            histogram.record(sent.elapsed());
        }
        match heard {
            Heard::Ok => Ok(()),
            other => {
                lane.undelivered.retain(|(sent, _)| *sent != number);
                lane.under_way = lane.under_way.saturating_sub(1);
                let error =
                    if let Heard::Error(error) = other { error.to_string() } else { format!("{other:?}") };
                self.count(&error)?;
                self.fill(index)
            }
        }
    }

    /// A message was delivered.
    fn delivered(&mut self, index: usize, id: [u8; 24], sealed: Option<Vec<u8>>) -> Result<(), Failure> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(()) };
        let Some((number, sent)) = lane.undelivered.pop_front() else {
            return self.count("a message that was not sent");
        };
        if let Some(histogram) = &mut self.measured.send_to_message {
            histogram.record(sent.elapsed());
        }
        let whole = sealed.is_none_or(|mut sealed| {
            match open_message(self.crew.target.provider, &lane.opens, &Nonce(id), &mut sealed) {
                Ok(ReceivedMessage::Message { body, .. }) => {
                    let expected = ((index as u64) << 32) | u64::from(number);
                    body.first_chunk() == Some(&expected.to_be_bytes()) && body.get(8..) == self.body.get(8..)
                }
                _ => false,
            }
        });
        lane.acknowledged_at = Some(Instant::now());
        let correlation =
            queues::correlation(ABOUT_ACKNOWLEDGE | ((index as u64) << 32), &mut self.crew.entropy);
        let command = Command::Acknowledge { message: id.into() };
        let (entity, key) = (&lane.queue.recipient, &lane.queue.authorization);
        let mut added = Ok(());
        self.crew.send(lane.recipient_link, |writer| {
            added = writer.add(&correlation, entity, &command, Some(key));
        })?;
        added.map_err(|error| Failure::new(Kind::Unexpected, format!("ACK cannot be sent: {error}")))?;
        if whole { Ok(()) } else { self.count("a message that is not the next one, or was changed") }
    }

    /// An `ACK` was answered: with `OK`, or with the next message.
    fn acknowledged(&mut self, index: usize, heard: Heard) -> Result<(), Failure> {
        let Some(lane) = self.lanes.get_mut(index) else { return Ok(()) };
        if let (Some(at), Some(histogram)) = (lane.acknowledged_at.take(), &mut self.measured.acknowledge) {
            histogram.record(at.elapsed());
        }
        lane.under_way = lane.under_way.saturating_sub(1);
        match heard {
            Heard::Ok | Heard::Message(..) => {
                self.measured.messages += 1;
                self.shared.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Heard::Error(ref error) => self.count(&error.to_string())?,
            ref other => self.count(&format!("{other:?}"))?,
        }
        if let Heard::Message(id, sealed) = heard {
            self.delivered(index, id, sealed)?;
        }
        self.fill(index)
    }
}
