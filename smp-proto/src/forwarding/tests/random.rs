//! Random commands and repeats, connections that end, storage that fails, and kills between any two commits.

use alloc::collections::BTreeSet;

use super::*;
use crate::entropy::Entropy;

/// What is known of a command from outside.
struct Tracked {
    made: Made,
    queue: usize,
    body: [u8; 2],
    options: ForwardOptions,
    /// The first answer that was heard.
    answer: Option<Bytes>,
    asked: BTreeSet<(FirstStepId, Correlation)>,
}

struct Run {
    world: World,
    queues: Vec<Ids>,
    secret: AuthSecret,
    published: Published,
    tracked: Vec<Tracked>,
    next_id: u64,
    random: SeededEntropy,
}

impl Run {
    fn new(seed: u8) -> Self {
        let limits =
            ForwardingLimits { commands_of_connection: 4, commands: 8, ..ForwardingConfig::default().limits };
        let config = ForwardingConfig { limits, ..ForwardingConfig::default() };
        let mut world = World::with(config, BrokerConfig { message_quota: 12, ..BrokerConfig::default() });
        let queues = vec![world.queue(QueueMode::Contact), world.queue(QueueMode::Messaging)];
        let id = world.attach(1);
        let published = world.published(id);
        let secret = AuthSecret::generate_ed25519(&mut world.entropy);
        let random = SeededEntropy::new([seed; 32]);
        Self { world, queues, secret, published, tracked: Vec::new(), next_id: 2, random }
    }

    fn below(&mut self, most: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill_public(&mut bytes);
        usize::try_from(u64::from_be_bytes(bytes) % most as u64).unwrap()
    }

    fn relay(&mut self) -> FirstStepId {
        if self.world.relays.is_empty() || (self.world.relays.len() < 3 && self.below(8) == 0) {
            self.next_id += 1;
            return self.world.attach(self.next_id);
        }
        let at = self.below(self.world.relays.len());
        self.world.relays[at]
    }

    fn new_command(&mut self) {
        let number = u16::try_from(self.tracked.len()).unwrap();
        let (body, queue) = (number.to_be_bytes(), self.below(2));
        let options = [PLAIN, UNSECURED, FULL][self.below(3)];
        // The second queue is secured by one of the commands: until then they are refused.
        let secret = self.secret.clone();
        let made = match self.below(12) {
            0 => {
                let command = Command::SecureBySender(secret.public(&Portable));
                let sender = self.queues[1].sender.clone();
                self.world.make(self.published, &sender, &command, Some(&secret))
            }
            1 => {
                let nobody = EntityId::from([6; 24]);
                self.world.make(self.published, &nobody, &Command::GetLink, None)
            }
            _ => {
                let key = (queue == 1).then_some(&secret);
                let to = self.queues[queue].clone();
                self.world.send(self.published, &to, &body, key)
            }
        };
        self.tracked.push(Tracked { made, queue, body, options, answer: None, asked: BTreeSet::new() });
        self.ask(self.tracked.len() - 1);
    }

    fn ask(&mut self, which: usize) {
        let id = self.relay();
        if !self.world.room.has_room(id) {
            return;
        }
        let options = self.tracked[which].options;
        let made = &self.tracked[which].made;
        let correlation = self.world.give(id, made, options);
        self.tracked[which].asked.insert((id, correlation));
    }

    /// Two different answers are never sealed under one key.
    fn listen(&mut self) {
        for (id, correlation, heard) in core::mem::take(&mut self.world.heard) {
            let Some(of) = self.tracked.iter_mut().find(|one| one.asked.contains(&(id, correlation))) else {
                continue;
            };
            match heard {
                Heard::Sealed(sealed) => match &of.answer {
                    Some(before) => assert_eq!(*before, sealed),
                    None => {
                        of.made.open(&Heard::Sealed(sealed.clone()));
                        of.answer = Some(sealed);
                    }
                },
                Heard::Error(FirstStepError::NotYet) => {
                    assert!(of.options != PLAIN && of.answer.is_none());
                }
                Heard::Error(FirstStepError::Internal | FirstStepError::Quota) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn step(&mut self) {
        match self.below(40) {
            0..=9 if self.tracked.len() < 60 => self.new_command(),
            0..=17 if !self.tracked.is_empty() => {
                let which = self.below(self.tracked.len());
                self.ask(which);
            }
            18..=25 => self.world.turn(),
            26..=35 => {
                self.world.complete_one();
            }
            36 => {
                let id = self.relay();
                self.world.detach(id);
            }
            37 => self.world.fails = |action| !action.is_read(),
            38 => self.world.fails = |_| false,
            39 if self.below(3) == 0 => {
                self.listen();
                self.world.fails = |_| false;
                self.world.restart();
            }
            _ => self.world.fails = |_| false,
        }
        self.listen();
    }

    /// In the end everything is asked once more, and answered.
    fn finish(&mut self) {
        self.world.fails = |_| false;
        self.world.settle();
        self.listen();
        self.world.restart();
        self.world.settle();
        for which in 0..self.tracked.len() {
            for _ in 0..2 {
                self.ask(which);
                self.world.settle();
                self.listen();
            }
        }
        let mut counted: BTreeMap<(usize, Vec<u8>), usize> = BTreeMap::new();
        for (number, queue) in self.queues.iter().enumerate() {
            for body in self.world.bodies(queue) {
                *counted.entry((number, body)).or_default() += 1;
            }
        }
        let mut executed = 0;
        for one in &self.tracked {
            let times = counted.get(&(one.queue, one.body.to_vec())).copied().unwrap_or(0);
            assert!(times <= 1, "executed {times} times");
            let said = one.answer.clone().map(|answer| one.made.open(&Heard::Sealed(answer)));
            match said {
                // An answer that is not an error is given to those that took effect, all of which it can be seen of.
                Some(Said::Ok) => executed += times,
                Some(_) => assert_eq!(times, 0, "executed and refused"),
                None => assert_eq!(times, 0, "executed and never answered"),
            }
        }
        assert_eq!(executed, counted.values().sum::<usize>() - self.markers());
        assert_eq!(self.world.room.statistics().under_way, 0);
    }

    /// Markers of full queues have no body.
    fn markers(&self) -> usize {
        self.queues.iter().flat_map(|queue| self.world.bodies(queue)).filter(Vec::is_empty).count()
    }
}

#[test]
fn each_command_takes_effect_once_if_it_is_answered_and_never_twice() {
    for seed in 0..12 {
        let mut run = Run::new(seed);
        for _ in 0..250 {
            run.step();
        }
        run.finish();
        assert!(run.tracked.iter().filter(|one| one.answer.is_some()).count() > run.tracked.len() / 3);
    }
}
