//! People and relays, and what is on its way between them.

use std::collections::VecDeque;
use std::rc::Rc;

use super::explore::Model;
use super::people::{Contact, Input, Node, People, Role, USED_TWICE, View, Wish};
use super::relays::{Answer, Archive, Cause, Defects, Delivery, Histories};

/// The whole world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    people: Vec<Side>,
    /// The state of the relays.
    relays: u32,
    /// The first one's link, once it was there: links go from hand to hand, and stay where they are.
    link: Option<u32>,
    /// Commands whose senders have given up waiting: they may come at any time, or never.
    strays: Vec<u32>,
    /// How many more things may go wrong.
    faults: u8,
}

/// Somebody, and their connections to the two relays: what was sent first arrives first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Side {
    node: Node,
    to: [VecDeque<u32>; 2],
    from: [VecDeque<Item>; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    Answer(u32, Answer),
    Delivery(Delivery),
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A person creates their link, or joins.
    Begin(usize),
    /// A batch is written.
    Write(usize),
    /// A relay does the oldest command of this person.
    Do(usize, usize),
    /// The oldest of what this relay sent arrives.
    Arrive(usize, usize),
    /// The time comes that somebody waits for.
    Time(usize),
    /// A command comes late.
    Stray(usize),
    /// A program is killed and started again.
    Kill(usize),
    /// As before; what it was about to write is there.
    KillWritten(usize),
    /// Somebody's connections break: all that is on its way is lost.
    HangUp(usize),
    /// A command is lost, and its sender knows that there is no answer.
    LoseCommand(usize, usize),
    /// An answer is lost.
    LoseAnswer(usize, usize),
    /// As before, and the command comes all the same, at any later time.
    Delay(usize, usize),
}

/// The model of how people connect.
pub struct Handshake {
    people: People,
    archive: Archive,
    relays: Histories,
    links: Vec<Rc<str>>,
    faults: u8,
    defects: Defects,
    /// Whether somebody who comes too late is always told. Not with peers who know no `SKEY`: then nobody is there to tell.
    losers_are_told: bool,
    /// Only keys that are used twice count as wrong.
    only_keys: bool,
}

fn number(who: usize) -> u8 {
    u8::try_from(who).expect("few people")
}

impl Handshake {
    /// The first role makes a link, the others join by it; this many things may go wrong.
    pub fn new(roles: Vec<Role>, faults: u8, defects: Defects, losers_are_told: bool) -> Self {
        let (people, archive, relays) = (People::new(roles), Archive::default(), Histories::new());
        Self {
            people,
            archive,
            relays,
            links: Vec::new(),
            faults,
            defects,
            losers_are_told,
            only_keys: false,
        }
    }

    /// Looks only for keys that are used twice.
    pub fn only_keys(self) -> Self {
        Self { only_keys: true, ..self }
    }

    /// How many histories of single people there were, and how many inputs it took to go through them.
    pub fn effort(&self) -> (usize, usize) {
        (self.people.histories(), self.people.inputs)
    }

    fn view(&self, state: &State, who: usize) -> Rc<View> {
        self.people.view(state.people[who].node)
    }

    fn may_begin(&self, state: &State, who: usize) -> bool {
        self.view(state, who).may_begin && (who == 0 || state.link.is_some())
    }

    fn give(&mut self, state: &mut State, who: usize, input: &Input) {
        let node = self.people.happens(&mut self.archive, state.people[who].node, input);
        self.arrive_at(state, who, node);
    }

    fn arrive_at(&mut self, state: &mut State, who: usize, node: Node) {
        let view = self.people.view(node);
        if let (0, None, Some(link)) = (who, state.link, &view.link) {
            let place = self.links.iter().position(|other| other == link).unwrap_or_else(|| {
                self.links.push(Rc::clone(link));
                self.links.len() - 1
            });
            state.link = u32::try_from(place).ok();
        }
        let side = &mut state.people[who];
        side.node = node;
        for (host, question) in &view.sent {
            side.to[*host as usize].push_back(*question);
        }
    }

    /// Something happens to the relays: what they deliver then is on its way, after their answer.
    fn ask(&mut self, state: &mut State, cause: Cause) {
        let provider = self.people.role(0).config.provider;
        let effect = self.relays.happens(&mut self.archive, provider, self.defects, state.relays, cause);
        state.relays = effect.relays;
        if let Cause::Asked(Some(who), question) = cause {
            let host = self.archive.host(question);
            state.people[who as usize].from[host as usize].push_back(Item::Answer(question, effect.answer));
        }
        for (to, host, delivery) in effect.deliveries.iter() {
            state.people[*to as usize].from[*host as usize].push_back(Item::Delivery(*delivery));
        }
    }

    /// What goes on without faults.
    fn ordinary(&self, state: &State, mut give: impl FnMut(Action) -> bool) {
        for (who, side) in state.people.iter().enumerate() {
            let view = self.people.view(side.node);
            let mut may = Vec::new();
            if self.may_begin(state, who) {
                may.push(Action::Begin(who));
            }
            if view.has_to_write {
                may.push(Action::Write(who));
            }
            may.extend((0..2).filter(|host| !side.to[*host].is_empty()).map(|host| Action::Do(who, host)));
            may.extend(
                (0..2).filter(|host| !side.from[*host].is_empty()).map(|host| Action::Arrive(who, host)),
            );
            // Waiting is longer than any answer takes that comes.
            let is_quiet = may.is_empty();
            if is_quiet && view.waits_for_time {
                may.push(Action::Time(who));
            }
            if !may.into_iter().all(&mut give) {
                return;
            }
        }
    }

    fn faults(&self, state: &State, actions: &mut Vec<Action>) {
        for (who, side) in state.people.iter().enumerate() {
            let view = self.people.view(side.node);
            actions.push(Action::Kill(who));
            if view.has_to_write {
                actions.push(Action::KillWritten(who));
            }
            actions.push(Action::HangUp(who));
            for host in 0..2 {
                if let Some(question) = side.to[host].front() {
                    actions.push(Action::LoseCommand(who, host));
                    if self.archive.may_come_late(*question) {
                        actions.push(Action::Delay(who, host));
                    }
                }
                if let Some(Item::Answer(..)) = side.from[host].front() {
                    actions.push(Action::LoseAnswer(who, host));
                }
            }
        }
    }

    /// The contacts of the first who are people, not the address.
    fn contacts(view: &View) -> impl Iterator<Item = &Contact> {
        view.contacts.values().filter(|contact| !contact.is_address)
    }

    fn is_address(&self) -> bool {
        matches!(self.people.role(0).wants, Wish::Address { .. })
    }
}

impl Model for Handshake {
    type State = State;
    type Action = Action;

    fn initial(&mut self) -> State {
        let count = number(self.people.len());
        let people = (0..count).map(|who| Side {
            node: self.people.newcomer(&mut self.archive, who),
            to: Default::default(),
            from: Default::default(),
        });
        State { people: people.collect(), relays: 0, link: None, strays: Vec::new(), faults: self.faults }
    }

    fn actions(&mut self, state: &State, actions: &mut Vec<Action>) {
        self.ordinary(state, |action| {
            actions.push(action);
            true
        });
        actions.extend((0..state.strays.len()).map(Action::Stray));
        if state.faults > 0 {
            self.faults(state, actions);
        }
    }

    fn next(&mut self, state: &State) -> Option<Action> {
        let mut first = None;
        let mut time = None;
        self.ordinary(state, |action| {
            match action {
                Action::Time(_) => time = time.or(Some(action)),
                _ => first = first.or(Some(action)),
            }
            first.is_none()
        });
        first.or(time)
    }

    fn apply(&mut self, state: &State, action: &Action) -> Result<State, String> {
        let mut state = state.clone();
        match *action {
            Action::Begin(who) => {
                let link = state.link.filter(|_| who > 0).map(|link| Rc::clone(&self.links[link as usize]));
                self.give(&mut state, who, &Input::Begin(link));
            }
            Action::Write(who) => self.give(&mut state, who, &Input::Write),
            Action::Time(who) => self.give(&mut state, who, &Input::Time),
            Action::Do(who, host) => {
                let question = state.people[who].to[host].pop_front().expect("a command");
                self.ask(&mut state, Cause::Asked(Some(number(who)), question));
            }
            Action::Arrive(who, host) => {
                let input = match state.people[who].from[host].pop_front().expect("an item") {
                    Item::Answer(question, answer) => Input::Answered(question, answer),
                    Item::Delivery(delivery) => Input::Arrived(delivery),
                };
                self.give(&mut state, who, &input);
            }
            Action::Stray(place) => {
                let question = state.strays.remove(place);
                self.ask(&mut state, Cause::Asked(None, question));
            }
            _ => {
                state.faults -= 1;
                self.apply_fault(&mut state, action);
            }
        }
        Ok(state)
    }

    fn check(&mut self, state: &State) -> Result<(), String> {
        for who in 0..state.people.len() {
            let view = self.view(state, who);
            let wrong = view.wrong.as_ref().filter(|wrong| !self.only_keys || wrong.contains(USED_TWICE));
            if let Some(wrong) = wrong {
                return Err(wrong.clone());
            }
        }
        if self.only_keys {
            return Ok(());
        }
        let owner = self.view(state, 0);
        let joined: Vec<_> = (1..state.people.len()).map(|who| self.view(state, who)).collect();
        let connected = |view: &View| Self::contacts(view).any(|contact| contact.connected);
        if !self.is_address() && joined.iter().filter(|view| connected(view)).count() > 1 {
            return Err("two people are connected by one link".to_owned());
        }
        // Whoever shows a connection as up, has somebody at the other end who has it too.
        for contact in Self::contacts(&owner).filter(|contact| contact.connected) {
            let Some(name) = &contact.told else { continue };
            let who = (1..state.people.len()).find(|who| self.people.role(*who).name.as_bytes() == name);
            let view = &joined[who.expect("somebody who is known") - 1];
            let other =
                Self::contacts(view).any(|contact| contact.failed.is_none() && contact.stage.is_some());
            if !other {
                return Err(format!("connected with {}, who is not", String::from_utf8_lossy(name)));
            }
        }
        for view in joined.iter().filter(|view| connected(view)) {
            let mut others = Self::contacts(&owner);
            if !others.any(|contact| contact.stage.is_some() && contact.failed.is_none()) {
                return Err("connected with somebody who has no connection".to_owned());
            }
            if Self::contacts(view).any(|contact| contact.connected && contact.failed.is_some()) {
                return Err("connected and failed".to_owned());
            }
        }
        Ok(())
    }

    fn verdict(&mut self, state: &State) -> Result<(), String> {
        if self.only_keys {
            return Ok(());
        }
        let owner = self.view(state, 0);
        let name = self.people.role(0).name;
        let is_up = |contact: &Contact, peer: &str| {
            let said = [peer.as_bytes(), b" speaks"].concat();
            let got: Vec<_> = contact.got.iter().map(|(_, body)| body.clone()).collect();
            contact.connected && contact.waiting == 0 && got == [said]
        };
        let mut up = 0;
        for who in 1..state.people.len() {
            let joiner = self.people.role(who).name;
            let view = self.view(state, who);
            let Some(contact) = Self::contacts(&view).next() else {
                return Err(format!("{joiner} did not begin"));
            };
            if is_up(contact, name) && Self::contacts(&owner).any(|contact| is_up(contact, joiner)) {
                up += 1;
                continue;
            }
            let one_at_most = !self.is_address() && state.people.len() > 2;
            let told = contact.failed.is_some() || contact.stage.is_none();
            let waits = !self.losers_are_told && !contact.connected && !contact.may_send;
            if !one_at_most || !(told || waits) {
                return Err(format!(
                    "{joiner} does not get through: {contact:?}; {name} has {:?}",
                    owner.contacts
                ));
            }
        }
        let expected = if self.is_address() { state.people.len() - 1 } else { 1 };
        let connected = Self::contacts(&owner).filter(|contact| contact.connected).count();
        if up == expected && connected == expected {
            Ok(())
        } else {
            Err(format!("{up} got through, and {name} shows {connected} as connected"))
        }
    }
}

impl Handshake {
    fn apply_fault(&mut self, state: &mut State, action: &Action) {
        match *action {
            Action::Kill(who) | Action::KillWritten(who) => {
                let written = matches!(action, Action::KillWritten(_));
                let node = self.people.killed(&mut self.archive, state.people[who].node, written);
                state.people[who].to = Default::default();
                state.people[who].from = Default::default();
                self.ask(state, Cause::Over { who: number(who), comes_back: false });
                self.arrive_at(state, who, node);
            }
            Action::HangUp(who) => {
                let side = &mut state.people[who];
                let answered = side.from.iter().flatten().filter_map(|item| match item {
                    Item::Answer(question, _) => Some(*question),
                    Item::Delivery(_) => None,
                });
                let questions = answered.chain(side.to.iter().flatten().copied()).collect();
                side.to = Default::default();
                side.from = Default::default();
                self.give(state, who, &Input::HungUp(questions));
                self.ask(state, Cause::Over { who: number(who), comes_back: true });
            }
            Action::LoseCommand(who, host) | Action::Delay(who, host) => {
                let question = state.people[who].to[host].pop_front().expect("a command");
                if matches!(action, Action::Delay(..)) {
                    state.strays.push(question);
                }
                self.give(state, who, &Input::Answered(question, Answer::Unknown));
            }
            Action::LoseAnswer(who, host) => {
                if let Some(Item::Answer(question, _)) = state.people[who].from[host].pop_front() {
                    self.give(state, who, &Input::Answered(question, Answer::Unknown));
                }
            }
            _ => unreachable!("not a fault"),
        }
    }
}
