//! The agent: connections of two directions between two people, over queues on many relays.
//!
//! Owns: which queues and keys a connection has, how it comes about, the numbers and hashes of messages, the double
//! ratchet, what waits to be sent, what waits for the application, switches to other queues, and when to try again.
//! It must never touch a socket, a file or a clock, know what the application's bytes mean, or **speak before what it says
//! is durable**: a command leaves, and an event is told, when the batch that holds its intent is written.
//!
//! | in | out |
//! |---|---|
//! | what the application wants: [`Agent::create_invitation`], [`join`](Agent::join), [`send`](Agent::send) … | [`Agent::poll_event`]: what happened |
//! | [`Agent::stored`]: a batch is written, or not | [`Agent::poll_action`]: [`Store`](AgentAction::Store) a batch, [`Dial`](AgentAction::Dial), [`Close`](AgentAction::Close) |
//! | [`Agent::connected`], [`disconnected`](Agent::disconnected), [`not_spoken`](Agent::not_spoken), [`receive`](Agent::receive): the connections to relays | [`Agent::poll_block`], after [`MaySend`](AgentAction::MaySend) |
//! | [`Agent::handle_timeout`] | [`Agent::next_deadline`] |
//!
//! After any input the driver drains `poll_action` and `poll_event`, in any order. [`Agent`] has a client for every relay;
//! who brings clients of their own (behind proxies, say) drives [`Connections`], which gives out commands instead of
//! blocks.
//!
//! # The stages of a connection
//! **Fast form, two messages.** The queue in the link is a *messaging* queue: whoever joins secures it (`SKEY`) before
//! anything else. If that is refused the link is used up, and nothing was created. From `confirming` on the acceptor may
//! send, whether or not the initiator is there; so may the initiator from `replying` on.
//!
//! **Four messages**, with peers that know no `SKEY`: the key goes with the confirmation (K), its receiver secures the queue
//! (`KEY`), and greetings (`HELLO`) show that both directions work. Each direction decides for itself: it is the fast form
//! wherever the queue is one that its sender may secure.
//!
//! | side | stage | on its way | what comes | then |
//! |---|---|---|---|---|
//! | initiator | creating | `NEW` | queue | *tells the link*; invited |
//! | | invited | | confirmation | *asks*, or if the answer was given: as `allow` |
//! | | confirmed | | `allow` | K? securing own : securing reply or replying |
//! | | securing own | `KEY` | OK | securing reply, or replying (four messages) |
//! | | securing reply | `SKEY` | OK; refused | replying; failed |
//! | | replying | confirmation | OK | fast: connected; else greeting |
//! | acceptor | securing peer | `SKEY` | OK; refused | creating reply; failed |
//! | | creating reply | `NEW` | queue | confirming |
//! | | confirming | confirmation | OK | *tells whether it may send*; joined |
//! | | joined | | confirmation | *tells the information*; K? securing for hello : connected |
//! | | securing for hello | `KEY` | OK | greeting, and `HELLO` goes first |
//! | both | greeting | `HELLO` | `HELLO` sent and received | connected |
//! | owner | creating address | `NEW` | queue | *tells the link*; address |
//! | | address | | requests | *asks*; `accept` joins by the request's invitation |
//! | initiator at an address | creating for request | `NEW` | queue | invited; the request with our invitation goes to the address, unsigned, and the address is never secured |
//! | by a short link | reading link | `LKEY` (which secures an invitation's queue), `LGET` | data that are verified; refused | creating reply, or creating for request; failed |
//! | all | connected | messages | messages | switching and new ratchets: see `switch`, `synchronize` |
//! | | deleting | `DEL` | OK, or not known | gone |
//!
//! # What is durable when
//! | before this leaves | this is written |
//! |---|---|
//! | `NEW` | that a queue is to be created; not its keys: without an answer nobody learns its ids, and the next attempt takes fresh ones |
//! | `SKEY`, `KEY` | the key: asking again asks for the same |
//! | a message | its text, the ratchet's key and nonce that are for nothing else, the ratchet after it, its number, the hash of the chain |
//! | `ACK` | what the message changed; for the application's messages, that it has acknowledged them |
//! | `F` to a proxy that holds | its number and key, and a hash of its text, which is that of the message |
//! | an event | what it tells |
//!
//! So after a crash at any point everything goes on: what may have been done is done again with the same bytes, and the other
//! side knows it by the hash of its envelope. No message is sent twice under one number, none is lost, and no key is used
//! for two texts. An event may be lost with a crash, but nothing that it told: [`Agent::connections`], [`Agent::status`]
//! and [`Agent::link`] say it, and [`Event::Message`], [`Event::Requested`] and [`Event::Confirmed`] are told again until
//! the application has acted on them.
//!
//! Bounds: [`AgentLimits`]. A message that cannot be decrypted, or does not fit the stage, changes nothing and is reported
//! as [`Event::Dropped`]. What a relay or the network fails at is tried again, with waits that double up to
//! [`AgentConfig::longest_delay`] and are shortened at random.
//!
//! # An event loop
//! ```
//! use bytes::BytesMut;
//! use smp_proto::agent::{Agent, AgentAction, Batch, BatchId, CommandError, Event, RelayId, StorageFailed};
//! use smp_proto::entropy::Entropy;
//! use smp_proto::session::{Protocol, TransportFacts};
//! use smp_proto::time::{Instant, Now};
//! use smp_proto::wire::address::ServerAddress;
//!
//! /// What happens next in the embedder's world.
//! enum Input {
//!     /// A TLS connection to a relay is up.
//!     Connected(RelayId, TransportFacts),
//!     /// There is none, or no longer.
//!     Disconnected(RelayId),
//!     /// 16,384 bytes came from a relay.
//!     Block(RelayId, BytesMut),
//!     /// A batch is written, or not.
//!     Stored(BatchId, Result<(), StorageFailed>),
//!     /// The person has typed a line.
//!     Line(String),
//!     /// The time that was waited for has come.
//!     Time,
//!     /// The program shall stop.
//!     Stop,
//! }
//!
//! /// The embedder's own event loop, sockets, database and screen.
//! trait World {
//!     fn now(&self) -> Now;
//!     /// Waits for something to happen, at most until `deadline`; reads blocks only while the agent wants them.
//!     fn wait(&mut self, deadline: Option<Instant>, wants_blocks: bool) -> Input;
//!     /// Also which application protocol TLS is to offer. A relay that knows none of `smp-proxy/1`: `Agent::not_spoken`.
//!     fn dial(&mut self, relay: RelayId, address: &ServerAddress, protocol: Protocol);
//!     fn send(&mut self, relay: RelayId, block: BytesMut);
//!     fn close(&mut self, relay: RelayId);
//!     /// One transaction: encrypted at rest, since it holds keys.
//!     fn store(&mut self, batch: Batch);
//!     fn show(&mut self, text: String);
//! }
//!
//! fn run(agent: &mut Agent, world: &mut impl World, entropy: &mut impl Entropy) -> Result<(), CommandError> {
//!     // Subscribes, and goes on with what was not finished.
//!     agent.handle_timeout(world.now(), entropy);
//!     loop {
//!         while let Some(action) = agent.poll_action() {
//!             match action {
//!                 AgentAction::Store(batch) => world.store(batch),
//!                 AgentAction::Dial(relay, address, protocol) => world.dial(relay, &address, protocol),
//!                 AgentAction::Close(relay) => world.close(relay),
//!                 AgentAction::MaySend(relay) => {
//!                     while let Some(block) = agent.poll_block(relay, world.now(), entropy) {
//!                         world.send(relay, block);
//!                     }
//!                 }
//!             }
//!         }
//!         while let Some(event) = agent.poll_event() {
//!             match event {
//!                 Event::InvitationCreated { link, .. } => world.show(link.to_string()),
//!                 Event::Message { connection, number, body, .. } => {
//!                     world.show(String::from_utf8_lossy(&body).into_owned());
//!                     agent.acknowledge(connection, number, Some(b""), world.now(), entropy)?;
//!                 }
//!                 other => world.show(format!("{other:?}")),
//!             }
//!         }
//!         let input = world.wait(agent.next_deadline(), agent.wants_blocks());
//!         let now = world.now();
//!         match input {
//!             Input::Connected(relay, facts) => {
//!                 agent.connected(relay, facts, now, entropy).expect("the agent asked for it");
//!             }
//!             Input::Disconnected(relay) => agent.disconnected(relay, now, entropy),
//!             Input::Block(relay, block) => {
//!                 agent.receive(relay, block, now, entropy).expect("a whole block of a connection");
//!             }
//!             Input::Stored(batch, result) => agent.stored(batch, result, now, entropy),
//!             Input::Line(line) => {
//!                 let connected: Vec<_> = agent.connections().filter(|(_, status)| status.may_send).collect();
//!                 for (connection, _) in connected {
//!                     agent.send(connection, line.as_bytes(), true, now, entropy)?;
//!                 }
//!             }
//!             Input::Time => agent.handle_timeout(now, entropy),
//!             Input::Stop => return Ok(()),
//!         }
//!     }
//! }
//! # use smp_proto::agent::AgentConfig;
//! # use smp_proto::crypto::Portable;
//! # use smp_proto::entropy::SeededEntropy;
//! # struct Nothing { inputs: Vec<Input>, stored: Vec<BatchId>, dialled: usize }
//! # impl World for Nothing {
//! #     fn now(&self) -> Now { Now::default() }
//! #     fn wait(&mut self, _: Option<Instant>, _: bool) -> Input {
//! #         match self.stored.pop() { Some(id) => Input::Stored(id, Ok(())), None => Input::Stop }
//! #     }
//! #     fn dial(&mut self, _: RelayId, _: &ServerAddress, _: Protocol) { self.dialled += 1; }
//! #     fn send(&mut self, _: RelayId, _: BytesMut) {}
//! #     fn close(&mut self, _: RelayId) {}
//! #     fn store(&mut self, batch: Batch) { self.stored.push(batch.id); }
//! #     fn show(&mut self, _: String) {}
//! # }
//! # let mut entropy = SeededEntropy::new([1; 32]);
//! # let mut agent = Agent::new(AgentConfig::new(&Portable));
//! # let relay = "smp://LcJUMfVhwD8yxjAiSaDzzGF3-kLG4Uh0Fl_ZIjrRwjI=@localhost".parse().unwrap();
//! # agent.create_invitation(relay, Some(b"me"), Now::default(), &mut entropy).unwrap();
//! # let mut world = Nothing { inputs: Vec::new(), stored: Vec::new(), dialled: 0 };
//! # run(&mut agent, &mut world, &mut entropy).unwrap();
//! # assert_eq!(world.dialled, 1, "dialled when the intent was durable");
//! ```

#[expect(clippy::module_inception, reason = "the agent's facade is named as its room")]
mod agent;
mod application;
mod commands;
mod config;
mod establish;
mod event;
mod holding;
mod incoming;
mod join;
mod live;
mod machine;
mod outgoing;
mod record;
mod routing;
mod short_links;
mod storage;
mod switch;
mod synchronize;

pub use agent::{Agent, AgentAction};
pub use commands::{CommandError, Status};
pub use config::{AgentConfig, AgentLimits, MAX_BODY, MAX_USER_DATA};
pub use event::{Direction, DroppedBecause, Event, FailedBecause, Integrity, SwitchPhase};
pub use machine::{Connections, RelayCommand, RelayId, TaskId};
pub use record::RecordError;
pub use routing::{Isolation, ProxyMode, Routing};
pub use storage::{
    Batch, BatchId, ConnectionId, QueueNumber, RecordKey, RequestId, Sequence, StorageFailed, Write,
};
