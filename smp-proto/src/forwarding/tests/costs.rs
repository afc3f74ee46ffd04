//! What is unknown costs the same as what is forbidden, also for commands that come through a first-step relay: operations
//! of cryptography and what is asked of storage are counted.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::crypto::{BoxKey, Ed25519Check, Forged, Nonce, SharedSecret};
use crate::keys::Ed25519Public;
use crate::wire::command::LinkData;
use crate::wire::error::SmpError;

/// Primitives that count what they do, one count for each kind.
#[derive(Default)]
struct Counting {
    used: [AtomicUsize; 5],
}

impl Counting {
    fn used(&self, kind: usize, bytes: usize) {
        self.used[kind].fetch_add(1 + (bytes << 16), Ordering::Relaxed);
    }

    fn take(&self) -> [usize; 5] {
        [0, 1, 2, 3, 4].map(|kind| self.used[kind].swap(0, Ordering::Relaxed))
    }
}

fn length(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}

impl Provider for Counting {
    fn x25519(&self, secret: &X25519Secret, public: &X25519Public) -> SharedSecret {
        self.used(0, 0);
        Portable.x25519(secret, public)
    }
    fn x25519_public(&self, secret: &X25519Secret) -> X25519Public {
        self.used(0, 0);
        Portable.x25519_public(secret)
    }
    fn box_seal(&self, key: &BoxKey, nonce: &Nonce, text: &mut [u8]) -> [u8; 16] {
        self.used(1, text.len());
        Portable.box_seal(key, nonce, text)
    }
    fn box_open(&self, key: &BoxKey, nonce: &Nonce, tag: &[u8; 16], text: &mut [u8]) -> Result<(), Forged> {
        self.used(2, text.len());
        Portable.box_open(key, nonce, tag, text)
    }
    fn sha512(&self, parts: &[&[u8]]) -> [u8; 64] {
        self.used(3, length(parts));
        Portable.sha512(parts)
    }
    fn hkdf_sha512(&self, salt: &[u8], input: &[u8], info: &[u8], output: &mut [u8]) {
        self.used(3, output.len());
        Portable.hkdf_sha512(salt, input, info, output);
    }
    fn ed25519_public(&self, secret: &Ed25519Secret) -> Ed25519Public {
        Portable.ed25519_public(secret)
    }
    fn ed25519_sign(&self, secret: &Ed25519Secret, message: &[&[u8]]) -> [u8; 64] {
        Portable.ed25519_sign(secret, message)
    }
    fn ed25519_verify(&self, key: &Ed25519Public, message: &[&[u8]], signature: &[u8; 64]) -> bool {
        self.used(4, length(message));
        Portable.ed25519_verify(key, message, signature)
    }
    fn ed25519_verify_batch(&self, checks: &mut [Ed25519Check<'_>]) {
        checks.iter().for_each(|check| self.used(4, length(check.message)));
        Portable.ed25519_verify_batch(checks);
    }
}

/// Makes a command for a key.
type Making = fn(AuthKey) -> Command<'static>;

/// What a command costs: operations, and kinds of storage actions; and how long the answer is.
fn cost(
    world: &mut World,
    counting: &Counting,
    id: FirstStepId,
    made: &Made,
    options: ForwardOptions,
) -> ([usize; 5], Vec<&'static str>, Heard) {
    counting.take();
    let correlation = world.give(id, made, options);
    let mut asked = Vec::new();
    world.turn();
    loop {
        world.hold();
        let Some((_, action)) = world.held.front() else { break };
        asked.push(match action {
            StorageAction::WriteRecords { writes } if writes.len() == 1 => "a receipt",
            StorageAction::ReadRecord { .. } => "a look",
            StorageAction::WithRecords { .. } => "a commit",
            StorageAction::ReadLink { .. } => "link data",
            _ => "something else",
        });
        world.complete_one();
        world.turn();
    }
    (counting.take(), asked, world.answer_to(id, correlation))
}

#[test]
fn what_is_unknown_costs_the_same_as_what_is_forbidden() {
    let counting: &'static Counting = alloc::boxed::Box::leak(alloc::boxed::Box::default());
    let mut world = World::new();
    world.provider = counting;
    world.verifier = CommandVerifier::new(counting, 4);
    let id = world.attach(1);
    let published = world.published(id);
    let nobody = EntityId::from([9; 24]);
    // A queue that is secured, and its link.
    let queue = world.queue(QueueMode::Messaging);
    let link = EntityId::from([5; 24]);
    let from = world.broker.connect(world.now).unwrap();
    let data = LinkData { fixed: &[1; 300], user: &[2; 900] };
    let set = Command::SetLink { link: link.clone(), data };
    world.believe(from, queue.recipient.clone(), set, Some(World::recipient_key()));
    let owner = AuthSecret::generate_ed25519(&mut world.entropy).public(&Portable);
    let secure = Command::SecureByRecipient(owner);
    world.believe(from, queue.recipient.clone(), secure, Some(World::recipient_key()));
    // A key of its own for each: what was computed for one that was right is remembered, whatever became of its command.
    let ed25519: fn(&mut SeededEntropy) -> AuthSecret = AuthSecret::generate_ed25519;
    let x25519: fn(&mut SeededEntropy) -> AuthSecret = AuthSecret::generate_x25519;
    let send = |_| Command::Send { flags: MessageFlags { notification: false }, body: &[7; 3000] };
    let send: Making = send;
    let cases = [
        (send, &queue.sender),
        (Command::SecureBySender as Making, &queue.sender),
        (Command::SecureByLink as Making, &link),
        (Command::SecureByLink as Making, &queue.sender),
    ];
    for generate in [ed25519, x25519] {
        for (command, somebodys) in cases {
            for options in [PLAIN, UNSECURED] {
                let [unknown, forbidden] = [&nobody, somebodys].map(|entity| {
                    let secret = generate(&mut world.entropy);
                    let command = command(secret.public(&Portable));
                    let made = world.make(published, entity, &command, Some(&secret));
                    let (operations, asked, heard) = cost(&mut world, counting, id, &made, options);
                    match (&heard, options == UNSECURED) {
                        (Heard::Error(FirstStepError::NotYet), true) => {}
                        (heard, false) => {
                            assert_eq!(made.open(heard), Said::Error(SmpError::Authorization));
                        }
                        other => panic!("{other:?}"),
                    }
                    (operations, asked)
                });
                assert_eq!(unknown, forbidden);
                assert_eq!(unknown.1.len(), usize::from(options == PLAIN));
            }
        }
    }
    // Without authorization, too: the link's data is for whoever secures the queue.
    let [unknown, forbidden] = [&nobody, &link].map(|entity| {
        let made = world.make(published, entity, &Command::GetLink, None);
        let (operations, asked, heard) = cost(&mut world, counting, id, &made, PLAIN);
        assert_eq!(made.open(&heard), Said::Error(SmpError::Authorization));
        (operations, asked)
    });
    assert_eq!(unknown, forbidden);
}
