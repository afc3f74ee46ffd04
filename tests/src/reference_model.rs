//! What a relay does, as plainly as it can be written: the model that the broker is compared with.
//!
//! A model carries out one command after the other, wholly, on vectors that it searches from the front. It knows no
//! bytes: queues, notifiers and messages are named by the number of the command that made them. Storage may fail while
//! a command is carried out; the rule is one for all cases: what could not be written has not happened, and a queue with
//! which anything went wrong is read again, after which its subscriber gets the oldest message (once more).
//!
//! WIRE-FACTS 7 is where the rules are from.

use smp_proto::wire::command::QueueMode;
use smp_proto::wire::error::{Blocked, CommandError, SmpError};

/// The number of a command, and the name of what it made.
pub type Number = u64;

/// A connection's number; never used twice.
pub type Connection = usize;

/// A key pair's number.
pub type Key = usize;

/// The operator's decisions.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whether queues may be created.
    pub new_queues: bool,
    /// Whether a password is asked for.
    pub asks_password: bool,
    /// Messages a queue.
    pub quota: usize,
    /// Queues in all.
    pub queues: usize,
    /// Connections at once.
    pub connections: usize,
    /// Queues that a connection may be attached to.
    pub subscriptions: usize,
    /// Notifications that wait, a queue.
    pub waiting_notifications: usize,
    /// How long a message lives, in seconds.
    pub message_life: i64,
    /// How long news lives, in seconds.
    pub news_life: i64,
    /// How long news is gathered, in milliseconds.
    pub news_delay: i64,
}

/// How storage is while something is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Every write fails.
    pub writes_fail: bool,
    /// Every read fails.
    pub reads_fail: bool,
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entity {
    /// Nothing.
    None,
    /// A queue, by its recipient's id.
    Recipient(Number),
    /// A queue, by its sender's id.
    Sender(Number),
    /// A notifier.
    Notifier(Number),
    /// A link, by the command that gave it its name.
    Link(Number),
    /// An id that nobody has.
    Unknown(u8),
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `NEW`
    New {
        /// The recipient's key.
        key: Key,
        /// What the queue is for.
        mode: Option<QueueMode>,
        /// The fixed data of a link that it comes with; the link's name is the command's number.
        link: Option<u8>,
        /// Whether to subscribe.
        subscribe: bool,
        /// Whether the right password is given, a wrong one, or none.
        password: Option<bool>,
    },
    /// `SUB`
    Subscribe,
    /// `KEY`
    Secure(Key),
    /// `SKEY`
    SecureBySender(Key),
    /// `SEND`
    Send {
        /// The notification flag.
        notification: bool,
    },
    /// `LSET`; the user data is the command's number.
    SetLink {
        /// The link's name; `None`: a new one, the command's number.
        link: Option<Number>,
        /// The fixed data.
        fixed: u8,
    },
    /// `LDEL`
    DeleteLink,
    /// `LKEY`
    SecureByLink(Key),
    /// `LGET`
    GetLink,
    /// `GET`
    Get,
    /// `ACK`
    Acknowledge(Acknowledged),
    /// `OFF`
    Suspend,
    /// `DEL`
    Delete,
    /// `QUE`
    Describe,
    /// `NKEY`
    EnableNotifications(Key),
    /// `NDEL`
    DisableNotifications,
    /// `NSUB`
    SubscribeNotifications,
    /// `PING`
    Ping,
}

/// Which message is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// Whichever was delivered: the id is empty.
    Delivered,
    /// This one.
    Message(Number),
    /// One that nobody has.
    Unknown,
}

/// One transmission of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// To whom.
    pub to: Connection,
    /// About what.
    pub about: Entity,
    /// Which command it answers.
    pub answers: Option<Number>,
    /// What.
    pub what: Saying,
}

/// What a relay says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying {
    /// `IDS`, and whether there is a link.
    Created(Option<QueueMode>, bool),
    /// `LNK`: of which queue, and its data.
    Link(Number, LinkData),
    /// `NID`
    NotifierId,
    /// `OK`
    Ok,
    /// `SOK`
    Subscribed,
    /// `PONG`
    Pong,
    /// `MSG`
    Message(Message),
    /// `NMSG`
    Notification {
        /// Of which message.
        message: Number,
        /// When the relay received it.
        time: i64,
    },
    /// `END`
    End,
    /// `DELD`
    Deleted,
    /// `INFO`
    Information(Description),
    /// `ERR`
    Refused(SmpError),
}

/// A message in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The `SEND` that it came with.
    pub number: Number,
    /// Whether it is the marker that the queue was full.
    pub marker: bool,
    /// The notification flag.
    pub notification: bool,
    /// When the relay received it, in seconds.
    pub time: i64,
}

/// What `QUE` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// `qiSnd`
    pub secured: bool,
    /// `qiNtf`
    pub notifies: bool,
    /// `qiSub`: its state, and what is delivered and not acknowledged.
    pub subscription: Option<(&'static str, Option<Number>)>,
    /// `qiSize`
    pub size: usize,
    /// `qiMsg`: the oldest message, and whether it is the marker.
    pub oldest: Option<(Number, bool)>,
}

/// The data of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkData {
    /// What never changes.
    pub fixed: u8,
    /// The command that set the rest.
    pub user: Number,
}

/// Whether a queue accepts messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Active,
    /// The recipient said `OFF`.
    Suspended,
    /// The operator blocked it.
    Blocked(Blocked),
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The command that made it.
    pub number: Number,
    /// The recipient's key.
    pub recipient_key: Key,
    /// What it is for.
    pub mode: Option<QueueMode>,
    /// The sender's key.
    pub sender_key: Option<Key>,
    /// Whether it accepts messages.
    pub status: Status,
    /// The notifier and its key.
    pub notifier: Option<(Number, Key)>,
    /// The link's name, and its data.
    pub link: Option<(Number, LinkData)>,
    /// Waiting messages, oldest first.
    pub messages: Vec<Message>,
    /// Who is subscribed.
    pub subscriber: Option<Connection>,
    /// What the subscriber was given and has not acknowledged.
    delivered: Option<Number>,
    /// Who takes messages one by one, and what each was given and has not acknowledged.
    getters: Vec<(Connection, Option<Number>)>,
    /// Who is notified.
    notified: Option<Connection>,
    /// Messages that the notifier has not heard of, with their times.
    news: Vec<(Number, i64)>,
    /// Reading has failed so often, and is tried again then.
    trouble: Option<(u32, i64)>,
}

/// A connection.
#[derive(Clone, Debug)]
struct Peer {
    number: Connection,
    /// When it gets its news.
    news_at: Option<i64>,
}

/// A relay.
#[derive(Clone, Debug)]
pub struct Relay {
    rules: Rules,
    queues: Vec<Queue>,
    peers: Vec<Peer>,
    /// Milliseconds.
    now: i64,
    said: Vec<Said>,
}

/// Why a command is refused.
type Refused = SmpError;

/// What a refused write and a queue in trouble are answered with.
#[must_use]
pub fn storage_failed() -> SmpError {
    SmpError::Store(b"storage is not available, try later".to_vec())
}

impl Relay {
    /// A relay without queues, at this time in seconds.
    #[must_use]
    pub fn new(rules: Rules, now: i64) -> Self {
        Self { rules, queues: Vec::new(), peers: Vec::new(), now: now * 1000, said: Vec::new() }
    }

    /// All queues.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// All connections.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.peers.iter().map(|peer| peer.number).collect()
    }

    /// What the subscriber of the queue, or this connection when it takes messages itself, has to acknowledge.
    #[must_use]
    pub fn delivered(&self, queue: Number, to: Connection) -> Option<Number> {
        let queue = self.queues.iter().find(|one| one.number == queue)?;
        if queue.subscriber == Some(to) {
            return queue.delivered;
        }
        queue.getters.iter().find(|(connection, _)| *connection == to)?.1
    }

    /// What has been said since the last call.
    pub fn take_said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// A connection opens. False when there are too many.
    pub fn connect(&mut self, number: Connection) -> bool {
        let accepted = self.peers.len() < self.rules.connections;
        if accepted {
            self.peers.push(Peer { number, news_at: None });
        }
        accepted
    }

    /// A connection closes: what it was subscribed to, it is not any more.
    pub fn disconnect(&mut self, number: Connection) {
        self.peers.retain(|peer| peer.number != number);
        for queue in &mut self.queues {
            if queue.subscriber == Some(number) {
                (queue.subscriber, queue.delivered) = (None, None);
            }
            if queue.notified == Some(number) {
                queue.notified = None;
            }
            queue.getters.retain(|(connection, _)| *connection != number);
        }
    }

    /// The relay starts again: what was not stored is forgotten.
    pub fn restart(&mut self) {
        for number in self.connections() {
            self.disconnect(number);
        }
        for queue in &mut self.queues {
            queue.news.clear();
            queue.trouble = None;
        }
    }

    /// The operator blocks a queue. The relay does not run meanwhile.
    pub fn block(&mut self, queue: Number, blocked: Blocked) {
        for one in &mut self.queues {
            if one.number == queue {
                one.status = Status::Blocked(blocked.clone());
            }
        }
    }

    /// Seconds pass. Nothing expires: it is for whoever drives the model to let so few pass that nothing may.
    pub fn pass(&mut self, seconds: i64, storage: Storage) {
        let end = self.now + seconds * 1000;
        for index in 0..self.queues.len() {
            while let Some((attempts, at)) = self.queues[index].trouble
                && at <= end
            {
                if storage.reads_fail {
                    self.queues[index].trouble = Some((attempts + 1, at + (1000 << attempts.min(6))));
                } else {
                    self.queues[index].trouble = None;
                    self.recover(index, storage);
                }
            }
        }
        for peer in 0..self.peers.len() {
            if self.peers[peer].news_at.is_some_and(|at| at <= end) {
                self.peers[peer].news_at = None;
                self.notify(self.peers[peer].number);
            }
        }
        self.now = end;
    }

    /// Everything that has outlived its life is gone.
    pub fn forget_old(&mut self) {
        let now = self.seconds();
        for queue in &mut self.queues {
            queue.messages.retain(|message| message.time + self.rules.message_life > now);
            queue.news.retain(|(_, time)| time + self.rules.news_life > now);
        }
    }

    fn seconds(&self) -> i64 {
        self.now / 1000
    }

    fn notify(&mut self, connection: Connection) {
        for index in 0..self.queues.len() {
            let queue = &mut self.queues[index];
            if let Some((notifier, _)) = queue.notifier
                && queue.notified == Some(connection)
            {
                for (message, time) in std::mem::take(&mut queue.news) {
                    let what = Saying::Notification { message, time };
                    self.tell(connection, Entity::Notifier(notifier), what);
                }
            }
        }
    }

    /// Says something that answers no command.
    fn tell(&mut self, to: Connection, about: Entity, what: Saying) {
        self.said.push(Said { to, about, answers: None, what });
    }

    /// How many queues a connection is attached to.
    fn attachments(&self, connection: Connection) -> usize {
        let one = |attached: bool| usize::from(attached);
        self.queues
            .iter()
            .map(|queue| {
                one(queue.subscriber == Some(connection))
                    + one(queue.notified == Some(connection))
                    + one(queue.getters.iter().any(|(getter, _)| *getter == connection))
            })
            .sum()
    }

    fn may_attach(&self, connection: Connection) -> Result<(), Refused> {
        if self.attachments(connection) < self.rules.subscriptions { Ok(()) } else { Err(SmpError::Quota) }
    }

    /// The queue could not be read: nothing is accepted for it until it has been.
    fn trouble(&mut self, index: usize) {
        let at = self.now + 1000;
        self.queues[index].trouble.get_or_insert((1, at));
    }

    /// Something was not written: the queue is read again.
    fn not_written(&mut self, index: usize, storage: Storage) -> Refused {
        if storage.reads_fail {
            self.trouble(index);
        } else {
            self.recover(index, storage);
        }
        storage_failed()
    }

    /// The queue has been read again.
    fn recover(&mut self, index: usize, storage: Storage) {
        let queue = &mut self.queues[index];
        let is_there = |number| queue.messages.iter().any(|message| message.number == number);
        queue.delivered = queue.delivered.filter(|number| is_there(*number));
        self.give_oldest(index, storage);
    }

    /// The subscriber, if there is one, gets the oldest message, if there is one.
    fn give_oldest(&mut self, index: usize, storage: Storage) {
        let queue = &mut self.queues[index];
        if let (Some(subscriber), Some(oldest)) = (queue.subscriber, queue.messages.first().copied()) {
            if storage.reads_fail {
                self.trouble(index);
            } else {
                queue.delivered = Some(oldest.number);
                let about = Entity::Recipient(queue.number);
                self.tell(subscriber, about, Saying::Message(oldest));
            }
        }
    }

    /// Whether a write takes effect.
    fn write(&mut self, index: usize, storage: Storage) -> Result<(), Refused> {
        if storage.writes_fail { Err(self.not_written(index, storage)) } else { Ok(()) }
    }

    /// Carries out a command, signed with a key or not at all.
    pub fn command(
        &mut self,
        number: Number,
        from: Connection,
        about: Entity,
        order: Order,
        signed: Option<Key>,
        storage: Storage,
    ) {
        let place = self.said.len();
        let done = check_credentials(about, order, signed).and_then(|()| match order {
            Order::Ping => Ok(Saying::Pong),
            Order::New { .. } => self.create(number, from, order, signed, storage),
            Order::Send { notification } => self.send(number, about, notification, signed, storage),
            Order::SecureBySender(key) => self.secure_by_sender(about, key, signed, storage),
            Order::SubscribeNotifications => self.subscribe_notifications(from, about, signed),
            Order::SecureByLink(key) => self.secure_by_link(about, key, signed, storage),
            Order::GetLink => self.get_link(about, storage),
            _ => self.recipient(number, from, about, order, signed, storage),
        });
        let what = done.unwrap_or_else(Saying::Refused);
        // The answer comes before everything that the command caused.
        self.said.insert(place, Said { to: from, about, answers: Some(number), what });
    }

    fn create(
        &mut self,
        number: Number,
        from: Connection,
        order: Order,
        signed: Option<Key>,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        let Order::New { key, mode, link, subscribe, password } = order else { unreachable!("NEW") };
        let password_fits = !self.rules.asks_password || password == Some(true);
        if signed != Some(key) || !self.rules.new_queues || !password_fits {
            return Err(SmpError::Authorization);
        }
        if self.queues.len() >= self.rules.queues {
            return Err(SmpError::Quota);
        }
        if subscribe {
            self.may_attach(from)?;
        }
        if storage.writes_fail {
            return Err(storage_failed());
        }
        self.queues.push(Queue {
            number,
            recipient_key: key,
            mode,
            sender_key: None,
            status: Status::Active,
            notifier: None,
            link: link.map(|fixed| (number, LinkData { fixed, user: number })),
            messages: Vec::new(),
            subscriber: subscribe.then_some(from),
            delivered: None,
            getters: Vec::new(),
            notified: None,
            news: Vec::new(),
            trouble: None,
        });
        Ok(Saying::Created(mode, link.is_some()))
    }

    /// The queue, if the command is authorized for it and storage is in order.
    fn usable(&self, about: Entity, key: impl Fn(&Queue) -> bool) -> Result<usize, Refused> {
        let index = index_of(&self.queues, about).ok_or(SmpError::Authorization)?;
        let queue = &self.queues[index];
        if !key(queue) {
            return Err(SmpError::Authorization);
        }
        if queue.trouble.is_some() { Err(storage_failed()) } else { Ok(index) }
    }

    fn not_blocked(&self, index: usize) -> Result<(), Refused> {
        match &self.queues[index].status {
            Status::Blocked(blocked) => Err(SmpError::Blocked(blocked.clone())),
            Status::Active | Status::Suspended => Ok(()),
        }
    }

    fn send(
        &mut self,
        number: Number,
        about: Entity,
        notification: bool,
        signed: Option<Key>,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        if !matches!(about, Entity::Sender(_)) {
            return Err(SmpError::Authorization);
        }
        let time = self.seconds();
        let index = self.usable(about, |queue| queue.sender_key == signed)?;
        self.not_blocked(index)?;
        let queue = &self.queues[index];
        if queue.status == Status::Suspended {
            return Err(SmpError::Authorization);
        }
        if queue.messages.last().is_some_and(|last| last.marker) {
            return Err(SmpError::Quota);
        }
        let marker = queue.messages.len() >= self.rules.quota;
        if storage.writes_fail {
            let failed = self.not_written(index, storage);
            return Err(if marker { SmpError::Quota } else { failed });
        }
        let queue = &mut self.queues[index];
        // Who used the link has what was behind it.
        if queue.mode == Some(QueueMode::Messaging) && queue.sender_key.is_some() {
            queue.link = None;
        }
        let notification = notification && !marker;
        let message = Message { number, marker, notification, time };
        queue.messages.push(message);
        // It is still in memory: a subscriber that waits for it gets it without any reading.
        if let (Some(subscriber), None) = (queue.subscriber, queue.delivered) {
            queue.delivered = Some(number);
            let about = Entity::Recipient(queue.number);
            self.tell(subscriber, about, Saying::Message(message));
        }
        let queue = &mut self.queues[index];
        if notification && queue.notifier.is_some() {
            queue.news.push((number, time));
            if queue.news.len() > self.rules.waiting_notifications {
                queue.news.remove(0);
            }
            self.plan_news(index);
        }
        if marker { Err(SmpError::Quota) } else { Ok(Saying::Ok) }
    }

    /// The notifier of a queue with news gets it in a while.
    fn plan_news(&mut self, index: usize) {
        let queue = &self.queues[index];
        for peer in &mut self.peers {
            if queue.notified == Some(peer.number) && !queue.news.is_empty() {
                peer.news_at.get_or_insert(self.now + self.rules.news_delay);
            }
        }
    }

    fn secure_by_sender(
        &mut self,
        about: Entity,
        key: Key,
        signed: Option<Key>,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        if !matches!(about, Entity::Sender(_)) || signed != Some(key) {
            return Err(SmpError::Authorization);
        }
        let index = self.usable(about, |queue| queue.mode == Some(QueueMode::Messaging))?;
        self.secure(index, key, storage)
    }

    fn secure(&mut self, index: usize, key: Key, storage: Storage) -> Result<Saying, Refused> {
        self.not_blocked(index)?;
        if self.queues[index].sender_key.is_some_and(|present| present != key) {
            return Err(SmpError::Authorization);
        }
        self.write(index, storage)?;
        self.queues[index].sender_key = Some(key);
        Ok(Saying::Ok)
    }

    fn secure_by_link(
        &mut self,
        about: Entity,
        key: Key,
        signed: Option<Key>,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        if !matches!(about, Entity::Link(_)) || signed != Some(key) {
            return Err(SmpError::Authorization);
        }
        let index = self.usable(about, |queue| {
            queue.mode == Some(QueueMode::Messaging) && queue.sender_key.is_none_or(|present| present == key)
        })?;
        self.secure(index, key, storage)?;
        self.read_link(index, storage)
    }

    fn get_link(&mut self, about: Entity, storage: Storage) -> Result<Saying, Refused> {
        if !matches!(about, Entity::Link(_)) {
            return Err(SmpError::Authorization);
        }
        let index = self.usable(about, |queue| match queue.mode {
            Some(mode) => mode == QueueMode::Contact,
            None => queue.sender_key.is_none(),
        })?;
        self.not_blocked(index)?;
        self.read_link(index, storage)
    }

    fn read_link(&mut self, index: usize, storage: Storage) -> Result<Saying, Refused> {
        if storage.reads_fail {
            self.trouble(index);
            return Err(storage_failed());
        }
        let queue = &self.queues[index];
        queue.link.map(|(_, data)| Saying::Link(queue.number, data)).ok_or(SmpError::Authorization)
    }

    fn set_link(
        &mut self,
        number: Number,
        index: usize,
        link: Option<Number>,
        fixed: u8,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        let queue = &self.queues[index];
        let is_secured = queue.mode == Some(QueueMode::Messaging) && queue.sender_key.is_some();
        let name = link.unwrap_or(number);
        let fits = match queue.link {
            Some((present, data)) => present == name && data.fixed == fixed,
            None => index_of(&self.queues, Entity::Link(name)).is_none(),
        };
        if is_secured || !fits {
            return Err(SmpError::Authorization);
        }
        self.write(index, storage)?;
        self.queues[index].link = Some((name, LinkData { fixed, user: number }));
        Ok(Saying::Ok)
    }

    fn subscribe_notifications(
        &mut self,
        from: Connection,
        about: Entity,
        signed: Option<Key>,
    ) -> Result<Saying, Refused> {
        if !matches!(about, Entity::Notifier(_)) {
            return Err(SmpError::Authorization);
        }
        let index = self.usable(about, |queue| queue.notifier.map(|(_, key)| key) == signed)?;
        let before = self.queues[index].notified;
        if before != Some(from) {
            self.may_attach(from)?;
            self.queues[index].notified = Some(from);
            if let Some(before) = before {
                self.tell(before, about, Saying::End);
            }
        }
        self.plan_news(index);
        Ok(Saying::Subscribed)
    }

    fn recipient(
        &mut self,
        number: Number,
        from: Connection,
        about: Entity,
        order: Order,
        signed: Option<Key>,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        if !matches!(about, Entity::Recipient(_)) {
            return Err(SmpError::Authorization);
        }
        let index = self.usable(about, |queue| Some(queue.recipient_key) == signed)?;
        if !matches!(order, Order::Suspend | Order::Delete) {
            self.not_blocked(index)?;
        }
        match order {
            Order::Subscribe => {
                self.subscribe(index, from)?;
                // What is not acknowledged comes again, under the same id.
                self.give_oldest(index, storage);
                Ok(Saying::Subscribed)
            }
            Order::Get => self.get(index, from, storage),
            Order::Acknowledge(which) => self.acknowledge(index, from, which, storage),
            Order::Secure(key) => self.secure(index, key, storage),
            Order::SetLink { link, fixed } => self.set_link(number, index, link, fixed, storage),
            Order::DeleteLink => {
                self.write(index, storage)?;
                self.queues[index].link = None;
                Ok(Saying::Ok)
            }
            Order::Suspend => {
                self.write(index, storage)?;
                let queue = &mut self.queues[index];
                if queue.status == Status::Active {
                    queue.status = Status::Suspended;
                }
                Ok(Saying::Ok)
            }
            Order::Delete => {
                self.write(index, storage)?;
                let queue = self.queues.remove(index);
                if let Some(subscriber) = queue.subscriber.filter(|one| *one != from) {
                    self.tell(subscriber, about, Saying::Deleted);
                }
                if let (Some(notified), Some((notifier, _))) =
                    (queue.notified.filter(|one| *one != from), queue.notifier)
                {
                    self.tell(notified, Entity::Notifier(notifier), Saying::Deleted);
                }
                Ok(Saying::Ok)
            }
            Order::Describe => self.describe(index, from, storage),
            Order::EnableNotifications(key) => {
                self.replace_notifier(index, Some((number, key)), storage)?;
                Ok(Saying::NotifierId)
            }
            Order::DisableNotifications => {
                self.replace_notifier(index, None, storage)?;
                Ok(Saying::Ok)
            }
            _ => unreachable!("a recipient's command"),
        }
    }

    fn subscribe(&mut self, index: usize, from: Connection) -> Result<(), Refused> {
        let queue = &self.queues[index];
        if queue.getters.iter().any(|(getter, _)| *getter == from) {
            return Err(CommandError::Prohibited.into());
        }
        let before = queue.subscriber;
        if before != Some(from) {
            self.may_attach(from)?;
            let queue = &mut self.queues[index];
            (queue.subscriber, queue.delivered) = (Some(from), None);
            let about = Entity::Recipient(queue.number);
            if let Some(before) = before {
                self.tell(before, about, Saying::End);
            }
        }
        Ok(())
    }

    fn get(&mut self, index: usize, from: Connection, storage: Storage) -> Result<Saying, Refused> {
        let queue = &self.queues[index];
        if queue.subscriber == Some(from) {
            return Err(CommandError::Prohibited.into());
        }
        if !queue.getters.iter().any(|(getter, _)| *getter == from) {
            self.may_attach(from)?;
            self.queues[index].getters.push((from, None));
        }
        let queue = &mut self.queues[index];
        let Some(oldest) = queue.messages.first().copied() else { return Ok(Saying::Ok) };
        if storage.reads_fail {
            self.trouble(index);
            return Err(storage_failed());
        }
        for (getter, delivered) in &mut queue.getters {
            if *getter == from {
                *delivered = Some(oldest.number);
            }
        }
        Ok(Saying::Message(oldest))
    }

    fn acknowledge(
        &mut self,
        index: usize,
        from: Connection,
        which: Acknowledged,
        storage: Storage,
    ) -> Result<Saying, Refused> {
        let queue = &mut self.queues[index];
        let delivered = if queue.subscriber == Some(from) {
            &mut queue.delivered
        } else {
            let getter = queue.getters.iter_mut().find(|(getter, _)| *getter == from);
            &mut getter.ok_or(SmpError::NoMessage)?.1
        };
        let fits = match which {
            Acknowledged::Delivered => true,
            Acknowledged::Message(number) => *delivered == Some(number),
            Acknowledged::Unknown => false,
        };
        let number = delivered.take_if(|_| fits).ok_or(SmpError::NoMessage)?;
        if queue.messages.iter().any(|message| message.number == number) {
            self.write(index, storage)?;
            self.queues[index].messages.retain(|message| message.number != number);
        }
        if self.queues[index].subscriber == Some(from) {
            self.give_oldest(index, storage);
        }
        Ok(Saying::Ok)
    }

    fn describe(&mut self, index: usize, from: Connection, storage: Storage) -> Result<Saying, Refused> {
        let queue = &self.queues[index];
        let getter = queue.getters.iter().find(|(getter, _)| *getter == from);
        let subscription = if queue.subscriber == Some(from) {
            Some(("noSub", queue.delivered))
        } else {
            getter.map(|(_, delivered)| ("prohibitSub", *delivered))
        };
        let description = Description {
            secured: queue.sender_key.is_some(),
            notifies: queue.notifier.is_some(),
            subscription,
            size: queue.messages.len(),
            oldest: queue.messages.first().map(|oldest| (oldest.number, oldest.marker)),
        };
        if description.oldest.is_some() && storage.reads_fail {
            self.trouble(index);
            return Err(storage_failed());
        }
        Ok(Saying::Information(description))
    }

    /// Even when it fails, news for the notifier before is dropped.
    fn replace_notifier(
        &mut self,
        index: usize,
        notifier: Option<(Number, Key)>,
        storage: Storage,
    ) -> Result<(), Refused> {
        self.queues[index].news.clear();
        self.write(index, storage)?;
        let queue = &mut self.queues[index];
        let (before, notified) = (queue.notifier, queue.notified.take());
        queue.notifier = notifier;
        if let (Some((before, _)), Some(notified)) = (before, notified) {
            self.tell(notified, Entity::Notifier(before), Saying::Deleted);
        }
        Ok(())
    }
}

/// The queue that has this id.
fn index_of(queues: &[Queue], id: Entity) -> Option<usize> {
    queues.iter().position(|queue| {
        let notifier = queue.notifier.map(|(notifier, _)| Entity::Notifier(notifier));
        let link = queue.link.map(|(link, _)| Entity::Link(link));
        let own = [Some(Entity::Recipient(queue.number)), Some(Entity::Sender(queue.number)), notifier, link];
        own.contains(&Some(id))
    })
}

/// What a command must come with, whatever it is about (WIRE-FACTS 4.7).
fn check_credentials(about: Entity, order: Order, signed: Option<Key>) -> Result<(), Refused> {
    let names = about != Entity::None;
    let error = match order {
        Order::Ping if signed.is_some() || names => CommandError::HasAuthorization,
        Order::Ping => return Ok(()),
        Order::Send { .. } | Order::GetLink if !names => CommandError::NoEntity,
        Order::GetLink if signed.is_some() => CommandError::HasAuthorization,
        Order::GetLink => return Ok(()),
        Order::Send { .. } => return Ok(()),
        Order::New { .. } if signed.is_some() && names => CommandError::HasAuthorization,
        Order::New { .. } if signed.is_some() => return Ok(()),
        _ if signed.is_some() && names => return Ok(()),
        _ => CommandError::NoAuthorization,
    };
    Err(error.into())
}
