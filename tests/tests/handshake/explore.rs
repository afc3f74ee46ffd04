//! An explicit-state model checker: visits every state that a model can reach, breadth first, so that whatever is found
//! wrong comes with one of the shortest ways to it.
//!
//! Three things are checked. *Safety*: [`Model::check`] holds in every state. *Liveness*: a fair world without further
//! faults always does [`Model::next`]; from every state that leads to a state in which nothing is left to do, and never
//! into a circle. *Verdict*: those last states satisfy [`Model::verdict`].
//!
//! Why not the crate `stateright`: it brings a web server, `rand`, `serde` and 30 further crates which cannot be turned
//! off, and its states must be cloned with all that is in them, which agents deliberately cannot be.

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Something that goes from state to state.
pub trait Model {
    /// Small: it is kept for every state that is reached.
    type State: Clone + Eq + Hash;
    /// What leads from one state to another.
    type Action: Clone + Debug;

    fn initial(&mut self) -> Self::State;

    /// Everything that may happen next.
    fn actions(&mut self, state: &Self::State, actions: &mut Vec<Self::Action>);

    /// What happens next when nothing goes wrong any more; `None` when all is done.
    fn next(&mut self, state: &Self::State) -> Option<Self::Action>;

    /// The state after an action that [`actions`](Self::actions) or [`next`](Self::next) gave; or what is wrong with it.
    fn apply(&mut self, state: &Self::State, action: &Self::Action) -> Result<Self::State, String>;

    /// What must hold in every state.
    fn check(&mut self, state: &Self::State) -> Result<(), String>;

    /// What must hold when nothing is left to do.
    fn verdict(&mut self, state: &Self::State) -> Result<(), String>;
}

/// What was visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visited {
    pub states: usize,
    pub transitions: usize,
    /// States in which nothing is left to do.
    pub ends: usize,
    /// The most actions that it takes to get anywhere.
    pub depth: usize,
}

/// What is wrong, and how to get there.
#[derive(Debug)]
pub struct Counterexample<A> {
    pub what: String,
    pub way: Vec<A>,
}

impl<A: Debug> Display for Counterexample<A> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "{}; after {} steps:", self.what, self.way.len())?;
        self.way.iter().enumerate().try_for_each(|(step, action)| writeln!(formatter, "{step:4} {action:?}"))
    }
}

/// Hashes small numbers quickly, also without optimisation; nobody here chooses them to collide.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 29)
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }
    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}

struct Place<M: Model> {
    state: M::State,
    /// From where, and by what, it was reached first.
    from: Option<(usize, M::Action)>,
    depth: usize,
    /// The state that follows without faults.
    next: Option<usize>,
}

struct Explorer<'a, M: Model> {
    model: &'a mut M,
    places: Vec<Place<M>>,
    known: HashMap<M::State, usize, BuildHasherDefault<Quick>>,
    transitions: usize,
}

/// Visits everything, unless it is more than `most` states: that is an error too.
pub fn explore<M: Model>(model: &mut M, most: usize) -> Result<Visited, Counterexample<M::Action>> {
    let initial = model.initial();
    let mut explorer = Explorer { model, places: Vec::new(), known: HashMap::default(), transitions: 0 };
    explorer.enter(initial, None)?;
    let mut place = 0;
    let mut actions = Vec::new();
    while place < explorer.places.len() {
        if place >= most {
            return Err(explorer.wrong(place, format!("there are more than {most} states")));
        }
        let state = explorer.places[place].state.clone();
        if let Some(action) = explorer.model.next(&state) {
            explorer.places[place].next = Some(explorer.follow(place, &state, &action)?);
        }
        actions.clear();
        explorer.model.actions(&state, &mut actions);
        for action in &actions {
            explorer.follow(place, &state, action)?;
        }
        place += 1;
    }
    explorer.everything_ends()
}

impl<M: Model> Explorer<'_, M> {
    fn follow(
        &mut self,
        place: usize,
        state: &M::State,
        action: &M::Action,
    ) -> Result<usize, Counterexample<M::Action>> {
        self.transitions += 1;
        match self.model.apply(state, action) {
            Ok(state) => self.enter(state, Some((place, action.clone()))),
            Err(what) => {
                let mut wrong = self.wrong(place, what);
                wrong.way.push(action.clone());
                Err(wrong)
            }
        }
    }

    fn enter(
        &mut self,
        state: M::State,
        from: Option<(usize, M::Action)>,
    ) -> Result<usize, Counterexample<M::Action>> {
        if let Some(place) = self.known.get(&state) {
            return Ok(*place);
        }
        let place = self.places.len();
        let depth = from.as_ref().map_or(0, |(before, _)| self.places[*before].depth + 1);
        let checked = self.model.check(&state);
        self.known.insert(state.clone(), place);
        self.places.push(Place { state, from, depth, next: None });
        checked.map_err(|what| self.wrong(place, what)).map(|()| place)
    }

    /// From every state, following what happens without faults.
    fn everything_ends(self) -> Result<Visited, Counterexample<M::Action>> {
        let mut ends = 0;
        // Which states are known to lead to a good end, and in which round a state was passed.
        let mut good = vec![false; self.places.len()];
        let mut passed = vec![usize::MAX; self.places.len()];
        for start in 0..self.places.len() {
            let mut place = start;
            while !good[place] && passed[place] != start {
                passed[place] = start;
                let Some(next) = self.places[place].next else {
                    let state = self.places[place].state.clone();
                    if let Err(what) = self.model.verdict(&state) {
                        return Err(self.wrong(place, what));
                    }
                    ends += 1;
                    good[place] = true;
                    break;
                };
                place = next;
            }
            if !good[place] {
                return Err(self.wrong(place, "it goes in a circle although nothing goes wrong".to_owned()));
            }
            let mut place = start;
            while !good[place] {
                good[place] = true;
                let Some(next) = self.places[place].next else { break };
                place = next;
            }
        }
        let depth = self.places.iter().map(|place| place.depth).max().unwrap_or(0);
        Ok(Visited { states: self.places.len(), transitions: self.transitions, ends, depth })
    }

    fn wrong(&self, place: usize, what: String) -> Counterexample<M::Action> {
        let mut way = Vec::new();
        let mut at = place;
        while let Some((before, action)) = &self.places[at].from {
            way.push(action.clone());
            at = *before;
        }
        way.reverse();
        Counterexample { what, way }
    }
}

/// The checker is checked with models of which everything is known.
mod tests {
    use super::*;

    /// Two walkers over a bridge of some planks, one step at a time; a walker may be pushed back to where it began.
    struct Bridge {
        planks: u8,
        pushes: u8,
        /// Whether walkers wait for each other: both may not be on the bridge.
        polite: bool,
        /// A walker who was pushed does not walk any more, or walks back and forth.
        sulks: bool,
        wanders: bool,
    }

    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    struct Walkers {
        at: [u8; 2],
        pushes: u8,
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Step {
        Walk(usize),
        Push(usize),
    }

    impl Bridge {
        fn is_on(&self, at: u8) -> bool {
            at > 0 && at <= self.planks
        }
        fn may_walk(&self, state: &Walkers, who: usize) -> bool {
            let starts = state.at[who] == 0;
            state.at[who] <= self.planks && !(self.polite && starts && self.is_on(state.at[1 - who]))
        }
    }

    impl Model for Bridge {
        type State = Walkers;
        type Action = Step;
        fn initial(&mut self) -> Walkers {
            Walkers { at: [0, 0], pushes: self.pushes }
        }
        fn actions(&mut self, state: &Walkers, actions: &mut Vec<Step>) {
            actions.extend((0..2).filter(|who| self.may_walk(state, *who)).map(Step::Walk));
            if state.pushes > 0 {
                actions.extend((0..2).filter(|who| self.is_on(state.at[*who])).map(Step::Push));
            }
        }
        fn next(&mut self, state: &Walkers) -> Option<Step> {
            if self.sulks && state.pushes < self.pushes {
                return None;
            }
            (0..2).find(|who| self.may_walk(state, *who)).map(Step::Walk)
        }
        fn apply(&mut self, state: &Walkers, action: &Step) -> Result<Walkers, String> {
            let mut state = state.clone();
            match action {
                Step::Walk(who) if self.wanders && state.at[*who] == self.planks => state.at[*who] = 0,
                Step::Walk(who) => state.at[*who] += 1,
                Step::Push(who) => {
                    state.at[*who] = 0;
                    state.pushes -= 1;
                }
            }
            Ok(state)
        }
        fn check(&mut self, state: &Walkers) -> Result<(), String> {
            let both = state.at.iter().all(|at| self.is_on(*at));
            if both { Err("both are on the bridge".to_owned()) } else { Ok(()) }
        }
        fn verdict(&mut self, state: &Walkers) -> Result<(), String> {
            let over = state.at.iter().all(|at| *at > self.planks);
            if over { Ok(()) } else { Err("somebody did not get over".to_owned()) }
        }
    }

    const GOOD: Bridge = Bridge { planks: 3, pushes: 2, polite: true, sulks: false, wanders: false };

    #[test]
    fn every_state_of_a_good_model_is_visited() {
        // Without pushes: each of the two walks first, or the other: 2 * 3 states on the bridge for either order, and the
        // four in which nobody is on it; 16 steps, and the 15 that follow when nothing goes wrong.
        let visited = explore(&mut Bridge { pushes: 0, ..GOOD }, 100).unwrap();
        assert_eq!(visited, Visited { states: 16, transitions: 31, ends: 1, depth: 8 });
        let with_pushes = explore(&mut Bridge { ..GOOD }, 1000).unwrap();
        assert_eq!((with_pushes.states, with_pushes.ends), (48, 3));
    }

    #[test]
    fn what_is_unsafe_is_found_by_the_shortest_way() {
        let wrong = explore(&mut Bridge { polite: false, ..GOOD }, 1000).unwrap_err();
        assert_eq!(wrong.what, "both are on the bridge");
        assert_eq!(wrong.way.len(), 2);
        assert!(wrong.to_string().contains("Walk(0)"));
    }

    #[test]
    fn bad_ends_and_circles_are_found() {
        let wrong = explore(&mut Bridge { sulks: true, ..GOOD }, 1000).unwrap_err();
        assert_eq!(wrong.what, "somebody did not get over");
        assert!(wrong.way.contains(&Step::Push(0)));
        let wrong = explore(&mut Bridge { wanders: true, ..GOOD }, 1000).unwrap_err();
        assert!(wrong.what.contains("circle"));
    }

    #[test]
    fn too_many_states_are_no_success() {
        assert!(explore(&mut Bridge { ..GOOD }, 5).unwrap_err().what.contains("more than 5"));
    }
}
