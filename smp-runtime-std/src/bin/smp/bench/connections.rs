//! Connections: what making one costs, and what one costs that does nothing.

use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use super::crew::{Crew, ping};
use super::histogram::Histogram;
use super::link::{Heard, Link, Target};
use super::process::Process;
use super::{DURATION, Results, per, rounded, to_float};
use crate::command_line::Bench;
use crate::failure::{Failure, Kind};

/// Connections before the first look at the relay's memory: it then has what it has once for all of them.
const WARM_UP: usize = 16;

/// Connections made and closed again. Each is counted when the relay has read our hello, and then that we leave: it closes the
/// connection then.
pub(super) fn made(
    target: &Target,
    process: Option<Process>,
    options: &Bench,
    bar: &ProgressBar,
) -> Result<Results, Failure> {
    let at_once = options.connections.unwrap_or(16) as usize;
    let wanted = options.count.unwrap_or(u64::MAX);
    let lasts = options.duration.or(options.count.is_none().then_some(DURATION));
    let mut crew = Crew::new(target)?;
    // That a session made in this way can be used is shown once.
    crew.connect(1, || ())?;
    crew.links.clear();
    let before = process.map(|process| process.usage()).transpose()?;
    let start = Instant::now();
    let until = start + lasts.unwrap_or(Duration::from_secs(365 * 24 * 3600));
    // When each was dialled, and whether its handshakes are over.
    let mut slots: Vec<(Instant, bool)> = Vec::new();
    for _ in 0..at_once {
        slots.push((Instant::now(), false));
        crew.links.push(Link::dial(target)?);
    }
    let mut histogram = Histogram::new();
    let mut done = 0_u64;
    let mut last_progress = Instant::now();
    while done < wanted && Instant::now() < until {
        let mut finished = Vec::new();
        crew.serve(until, 0, |_, link, event| {
            if matches!(event.heard, Heard::Closed) {
                finished.push(link);
            }
            Ok(())
        })?;
        for link in finished {
            let (Some(slot), Some(place)) = (slots.get_mut(link), crew.links.get_mut(link)) else { continue };
            done += 1;
            bar.inc(1);
            last_progress = Instant::now();
            *slot = (Instant::now(), false);
            *place = Link::dial(target)?;
        }
        for ((dialled, open), link) in slots.iter_mut().zip(&mut crew.links).filter(|((_, open), _)| !*open) {
            if link.version().is_some() {
                histogram.record(dialled.elapsed());
                link.leave()?;
                *open = true;
            }
        }
        if last_progress.elapsed() > target.timeout {
            return Err(Failure::new(Kind::Network, "the relay does not answer new connections in time")
                .advise("it may limit connections from one address; try fewer at once with -n"));
        }
    }
    let elapsed = start.elapsed();
    let after = process.map(|process| process.usage()).transpose()?;
    bar.finish_and_clear();
    let mut results = Results::new("connections");
    results.field("at_once", at_once);
    results.rate("connections", done, elapsed);
    results.latency("connect", "connect to session", &histogram);
    if let (Some(before), Some(after)) = (before, after) {
        results.usage("connection", done, before, after, elapsed);
    }
    Ok(results)
}

/// Connections that are made and then do nothing.
pub(super) fn idle(
    target: &Target,
    process: Option<Process>,
    options: &Bench,
    bar: &ProgressBar,
) -> Result<Results, Failure> {
    let count = options.connections.unwrap_or(1000) as usize;
    let mut crew = Crew::new(target)?;
    crew.connect(WARM_UP, || ())?;
    let look = || process.map(|process| process.usage()).transpose();
    settle();
    let (before, start) = (look()?, Instant::now());
    crew.connect(WARM_UP + count, || bar.inc(1))?;
    let connected = start.elapsed();
    bar.finish_and_clear();
    settle();
    let (full, quiet) = (look()?, Instant::now());
    thread::sleep(options.duration.unwrap_or(Duration::from_secs(2)));
    let (after, waited) = (look()?, quiet.elapsed());
    // They must all still be there.
    let mut answered = 0;
    let now = crew.now();
    crew.links.iter_mut().try_for_each(|link| link.send(now, ping))?;
    let until = Instant::now() + target.timeout;
    while answered < crew.links.len() && Instant::now() < until {
        crew.serve(until, 0, |_, _, event| {
            answered += usize::from(matches!(event.heard, Heard::Pong));
            Ok(())
        })?;
    }
    if answered < crew.links.len() {
        let lost = crew.links.len() - answered;
        return Err(Failure::new(Kind::Network, format!("{lost} idle connections do not answer any more")));
    }
    let mut results = Results::new("idle");
    results.rate("connections", count as u64, connected);
    if let (Some(before), Some(full), Some(after)) = (before, full, after) {
        let grown = full.resident_bytes.saturating_sub(before.resident_bytes);
        let each = per(grown, to_float(count as u64));
        results.field("relay_bytes_per_connection", rounded(each));
        results.field("relay_resident_bytes", after.resident_bytes);
        results.line(format!("relay: {each:.0} bytes of memory per idle connection"));
        let cpu = after.cpu_us.saturating_sub(full.cpu_us);
        results.field("relay_idle_cpu_us_per_second", rounded(per(cpu, waited.as_secs_f64())));
        results.line(format!(
            "relay: {:.0} µs of processor time a second while all were idle",
            per(cpu, waited.as_secs_f64())
        ));
    }
    Ok(results)
}

/// Lets the relay finish what follows a handshake.
fn settle() {
    thread::sleep(Duration::from_millis(300));
}
