//! Fixed seeds, so that the gate always does the same; `simulate` runs as many others as one likes.

use smp_simulations::options::Options;
use smp_simulations::world::World;

fn run(seed: u64) -> smp_simulations::world::Outcome {
    World::new(seed, Options::from_seed(seed)).run().unwrap_or_else(|failure| {
        panic!("seed {seed}: {failure:?}\nreplay: cargo run -p smp-simulations -- --seed {seed}")
    })
}

#[test]
fn promises_are_kept_under_faults() {
    let outcomes: Vec<_> = (0..40).map(run).collect();
    // The swarm must have seen what it is for.
    assert!(outcomes.iter().map(|outcome| outcome.crashes).sum::<u32>() > 20, "hardly any crash");
    assert!(outcomes.iter().map(|outcome| outcome.resets).sum::<u32>() > 20, "hardly any reset");
    assert!(outcomes.iter().map(|outcome| outcome.messages).sum::<usize>() > 500, "hardly any message");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 7, 23] {
        assert_eq!(run(seed), run(seed));
    }
}
