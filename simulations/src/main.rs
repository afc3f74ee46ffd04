//! Runs simulations: `simulate --seeds 100` from a random seed on, `simulate --seed 42` again and in detail.
//!
//! Exit codes: 0 all is well, 2 a promise was broken, 3 something does not finish, 64 wrong arguments; a crash is the
//! process's own.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use smp_simulations::options::Options;
use smp_simulations::world::{Failure, World};

const USAGE: &str = "usage: simulate [--seed N] [--seeds COUNT]\n\
                     one run with --seed; COUNT runs (default 20) with seeds from N, or from the clock, upwards";

fn main() -> ExitCode {
    let (mut seed, mut count) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        match (argument.as_str(), value) {
            ("--seed", Some(value)) => seed = Some(value),
            ("--seeds", Some(value)) => count = Some(value),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(64);
            }
        }
    }
    let first = seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64 % 1_000_000_000)
    });
    let count = count.unwrap_or(if seed.is_some() { 1 } else { 20 });
    for seed in first..first.saturating_add(count) {
        let options = Options::from_seed(seed);
        if count == 1 {
            println!("{options:#?}");
        }
        match World::new(seed, options).run() {
            Ok(outcome) => println!(
                "seed {seed}: {} messages delivered, {} crashes, {} resets, {} events in {:.1} s, digest {}",
                outcome.messages,
                outcome.crashes,
                outcome.resets,
                outcome.events,
                outcome.took.as_secs_f64(),
                outcome.digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>(),
            ),
            Err(failure) => {
                let (code, what) = match failure {
                    Failure::Safety(what) => (2, format!("a promise was broken: {what}")),
                    Failure::Liveness(what) => (3, format!("it does not finish: {what}")),
                };
                eprintln!(
                    "seed {seed}: {what}\nreplay: cargo run -p smp-simulations --release -- --seed {seed}"
                );
                return ExitCode::from(code);
            }
        }
    }
    ExitCode::SUCCESS
}
