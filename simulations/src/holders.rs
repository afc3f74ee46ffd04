//! Clients of first-step relays in a [`Network`]: each gives messages of one queue to be held, one after the other, asks what
//! became of them when it comes back, and writes down what it was told.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use smp_proto::crypto::forwarding::{ForwardKeys, session_name};
use smp_proto::crypto::{Portable, Provider, ids};
use smp_proto::entropy::Entropy;
use smp_proto::keys::{X25519Public, X25519Secret};
use smp_proto::session::first_step::{FirstStepDial, FirstStepSession, Received};
use smp_proto::session::{CloseReason, SessionError};
use smp_proto::wire::block::BLOCK_LENGTH;
use smp_proto::wire::command::{Command, MessageFlags};
use smp_proto::wire::first_step::{
    Correlation, FirstStepError, Forward, ForwardOptions, Hold, Message, Register, RelayNumber as There,
    SEALED_LENGTH, Transmission,
};
use smp_proto::wire::transmission::{Authorization, BatchWriter, SessionLayout, write_head};
use smp_proto::wire::version::Version;
use smp_proto::wire::{EntityId, Identifier};

use crate::network::{Beginner, Network, RelayNumber};

/// Which client of a first-step relay.
pub type HolderNumber = usize;

/// What became of a message, as its sender was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Unknown,
    /// The first-step relay holds it: a promise.
    Held,
    /// The destination answered `OK`.
    Delivered,
    /// It failed.
    Failed(FirstStepError),
}

struct Sealed {
    ephemeral: X25519Public,
    bytes: Vec<u8>,
    keys: ForwardKeys,
}

struct Given {
    body: Vec<u8>,
    sealed: Option<Sealed>,
    outcome: Outcome,
    /// Whether it was forwarded over this connection.
    is_forwarded: bool,
}

#[derive(Clone, Copy)]
struct Registration {
    there: There,
    key_number: There,
    key: X25519Public,
}

pub(crate) struct Holder {
    first_step: RelayNumber,
    destination: RelayNumber,
    token: [u8; 32],
    sender: Identifier,
    pub(crate) pipe: Option<usize>,
    session: Option<FirstStepSession>,
    registration: Option<Registration>,
    outbox: VecDeque<Vec<u8>>,
    messages: BTreeMap<u64, Given>,
    asked: u64,
}

impl Network {
    /// Adds a client of a first-step relay, which sends to a queue on a destination.
    pub fn add_holder(
        &mut self,
        first_step: RelayNumber,
        destination: RelayNumber,
        sender: Identifier,
    ) -> HolderNumber {
        let mut token = [0; 32];
        self.entropy().fill_secret(&mut token);
        self.holders.push(Holder {
            first_step,
            destination,
            token,
            sender,
            pipe: None,
            session: None,
            registration: None,
            outbox: VecDeque::new(),
            messages: BTreeMap::new(),
            asked: 0,
        });
        self.holders.len() - 1
    }

    /// Gives a message to be held.
    pub fn hold(&mut self, holder: HolderNumber, body: Vec<u8>) {
        let messages = &mut self.holders[holder].messages;
        let number = messages.last_key_value().map_or(1, |(last, _)| last + 1);
        let given = Given { body, sealed: None, outcome: Outcome::Unknown, is_forwarded: false };
        messages.insert(number, given);
        self.go_on(holder);
    }

    /// What became of the messages of a client, in the order in which they were given.
    #[must_use]
    pub fn outcomes(&self, holder: HolderNumber) -> Vec<(Vec<u8>, Outcome)> {
        self.holders[holder].messages.values().map(|given| (given.body.clone(), given.outcome)).collect()
    }

    /// Those who are not connected, or not registered, try again.
    pub(crate) fn holders_try_again(&mut self) {
        for number in 0..self.holders.len() {
            let side = &self.holders[number];
            if side
                .messages
                .values()
                .all(|given| matches!(given.outcome, Outcome::Delivered | Outcome::Failed(_)))
            {
                continue;
            }
            match (side.pipe, &side.registration) {
                (None, _) => self.connect_holder(number),
                (Some(_), None) => self.register_holder(number),
                (Some(_), Some(_)) => {}
            }
        }
    }

    fn connect_holder(&mut self, number: HolderNumber) {
        let to = self.holders[number].first_step;
        if !self.accepts(to) {
            return;
        }
        let (pipe, facts) = self.connect_to_first_step(Beginner::Holder(number), to);
        let dial = FirstStepDial::new(self.address(to).fingerprint, &Portable);
        let now = self.now();
        let session = FirstStepSession::dial(&dial, facts, now, self.entropy());
        let side = &mut self.holders[number];
        side.pipe = Some(pipe);
        side.session = Some(session);
    }

    pub(crate) fn holder_lost(&mut self, number: HolderNumber) {
        let side = &mut self.holders[number];
        side.pipe = None;
        side.session = None;
        side.registration = None;
        side.outbox.clear();
        for given in side.messages.values_mut() {
            given.is_forwarded = false;
        }
    }

    fn register_holder(&mut self, number: HolderNumber) {
        let address = self.address(self.holders[number].destination);
        let side = &mut self.holders[number];
        if side.session.as_ref().is_none_or(|session| session.close_reason().is_some()) {
            return;
        }
        side.asked += 1;
        // Apart from the numbers of commands.
        let correlation = u64::MAX - side.asked;
        let register = Register { token: side.token, address: Some(address), password: None };
        say(side, correlation, There(0), Message::Register(register));
    }

    pub(crate) fn holder_receives(&mut self, number: HolderNumber, block: BytesMut) {
        let now = self.now();
        let Some(session) = &mut self.holders[number].session else { return };
        match session.receive(block, now) {
            Ok(Received::Established) => self.register_holder(number),
            Ok(Received::Content(content)) => {
                let heard = Transmission::decode(content.content()).expect("a transmission");
                self.holder_hears(number, &heard);
            }
            // The hello of a relay that was frozen came too late.
            Err(error) => {
                assert_eq!(error, SessionError::Close(CloseReason::HandshakeTimeout));
                if let Some(pipe) = self.holders[number].pipe {
                    self.reset(pipe);
                }
            }
        }
    }

    fn holder_hears(&mut self, number: HolderNumber, heard: &Transmission<'_>) {
        let side = &mut self.holders[number];
        let correlation = heard.correlation.0;
        match &heard.message {
            Message::Registered(registered) => {
                let key = &registered.key;
                side.registration =
                    Some(Registration { there: heard.relay, key_number: key.number, key: key.key });
                let held = side.messages.iter().filter(|(_, given)| given.outcome == Outcome::Held);
                let held: Vec<u64> = held.map(|(number, _)| *number).collect();
                for asked in held {
                    let check = Message::Check { acknowledged: Correlation(0) };
                    say(&mut self.holders[number], asked, heard.relay, check);
                }
                self.go_on(number);
            }
            Message::Response(sealed) => {
                if let Some(given) = side.messages.get_mut(&correlation) {
                    let keys = &given.sealed.as_ref().expect("it was sealed").keys;
                    let mut answer = sealed.to_vec();
                    let answer = keys.open_answer(&Portable, &mut answer).expect("sealed for us");
                    assert!(answer.ends_with(b"OK"), "{}", answer.escape_ascii());
                    given.outcome = Outcome::Delivered;
                }
                self.go_on(number);
            }
            Message::Error(FirstStepError::Held { .. }) => {
                if let Some(given) = side.messages.get_mut(&correlation) {
                    given.outcome = Outcome::Held;
                }
                self.go_on(number);
            }
            Message::Error(error) => {
                let Some(given) = side.messages.get_mut(&correlation) else { return };
                match error {
                    // It was never promised: it comes again.
                    FirstStepError::NoRelay | FirstStepError::Internal | FirstStepError::Unknown
                        if given.outcome == Outcome::Unknown =>
                    {
                        given.is_forwarded = false;
                        side.registration = None;
                    }
                    error => {
                        given.outcome = Outcome::Failed(*error);
                        self.go_on(number);
                    }
                }
            }
            _ => panic!("not said to clients"),
        }
    }

    /// Forwards the first message that was not promised yet, unless it is on its way.
    fn go_on(&mut self, number: HolderNumber) {
        let Some(at) = self.holders[number].registration else { return };
        let side = &self.holders[number];
        let next = side.messages.iter().find(|(_, given)| given.outcome == Outcome::Unknown);
        let Some((&next, given)) = next.filter(|(_, given)| !given.is_forwarded) else { return };
        if given.sealed.is_none() {
            let (sender, body) = (side.sender.clone(), given.body.clone());
            let sealed = seal(at, &sender, &body, self.entropy());
            self.holders[number].messages.get_mut(&next).expect("it is there").sealed = Some(sealed);
        }
        let side = &mut self.holders[number];
        let given = side.messages.get_mut(&next).expect("it is there");
        given.is_forwarded = true;
        let sealed = given.sealed.as_ref().expect("just sealed");
        let forward = Forward {
            options: ForwardOptions { hold: Hold::Weeks, ..ForwardOptions::default() },
            acknowledged: Correlation(0),
            delay: 0,
            key: sealed.ephemeral,
            sealed: &sealed.bytes.clone(),
        };
        say(side, next, at.there, Message::Forward(forward));
    }

    /// Sends what there is to say.
    pub(crate) fn run_holder(&mut self, number: HolderNumber) -> bool {
        let now = self.now();
        let side = &mut self.holders[number];
        let (Some(pipe), Some(session)) = (side.pipe, &mut side.session) else { return false };
        if let Some(hello) = session.take_handshake_block() {
            self.pipes[pipe].take_from_beginner(hello);
            return true;
        }
        if !session.is_established() {
            return false;
        }
        let Some(content) = side.outbox.pop_front() else { return false };
        let mut block = BytesMut::zeroed(BLOCK_LENGTH);
        let bytes = block.as_mut().try_into().expect("a whole block");
        let sealed =
            session.seal(bytes, now, |out| smp_proto::wire::primitives::Writer::put(out, &content).is_ok());
        assert_eq!(sealed, Ok(true));
        self.pipes[pipe].take_from_beginner(block);
        true
    }
}

fn say(side: &mut Holder, correlation: u64, relay: There, message: Message<'_>) {
    let mut content = Vec::new();
    Transmission { correlation: Correlation(correlation), relay, message }
        .encode(&mut content)
        .expect("it fits in a block");
    side.outbox.push_back(content);
}

/// `SEND` to a queue that anybody may send to, sealed for a forwarding key.
fn seal(at: Registration, sender: &Identifier, body: &[u8], entropy: &mut impl Entropy) -> Sealed {
    let name = session_name(at.key_number, &at.key);
    let layout = SessionLayout { version: Version::BLOCKED_NOTICE, session: &name };
    let correlation = Identifier::from(ids::random(entropy));
    let entity = EntityId::from(sender.clone());
    let command = Command::Send { flags: MessageFlags::default(), body };
    let mut content = [0; 2048];
    let mut batch = BatchWriter::new(&mut content).expect("room for a batch");
    batch
        .add(|out| {
            write_head(Authorization::None, None, layout, &correlation, &entity, out)?;
            command.encode(layout.version, out)
        })
        .expect("a small message");
    let length = batch.finish();
    let ephemeral = X25519Secret::generate(entropy);
    let keys = ForwardKeys::of_client(&Portable, &ephemeral, at.key_number, &at.key);
    let mut bytes = Box::new([0; SEALED_LENGTH]);
    keys.seal_command(&Portable, &content[..length], &mut bytes).expect("it fits");
    Sealed { ephemeral: Portable.x25519_public(&ephemeral), bytes: bytes.to_vec(), keys }
}
