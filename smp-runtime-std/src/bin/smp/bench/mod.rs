//! `smp bench`: loads a relay and measures it.
//!
//! The load is made by few threads with sockets that do not block and the client's sessions of the core, so that it takes
//! as little as possible of a machine that it shares with the relay. Everything that it makes on the relay it deletes.

mod connections;
mod crew;
mod floor;
mod histogram;
mod link;
mod messages;
mod process;
mod queues;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use smp_proto::wire::command::Command;
use smp_runtime_std::fast_cryptography::FAST;

use crate::command_line::{Bench, Mode};
use crate::connecting::Address;
use crate::failure::{Failure, Kind};
use crate::report::Report;

use self::crew::Crew;
use self::floor::Floor;
use self::histogram::Histogram;
use self::link::Target;
use self::messages::{Load, Measured, Plan, Shared};
use self::process::{Process, Usage};
use self::queues::{LoadQueue, NewKeys};

/// How long a run lasts that has neither a duration nor a count.
const DURATION: Duration = Duration::from_secs(10);

/// What is printed at the end: fields for programs, lines for people.
struct Results {
    fields: Map<String, Value>,
    lines: Vec<String>,
}

impl Results {
    fn new(mode: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("mode".to_owned(), mode.into());
        Self { fields, lines: Vec::new() }
    }

    fn field(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    fn latency(&mut self, name: &str, text: &str, histogram: &Histogram) {
        if let Some(percentiles) = histogram.percentiles() {
            self.field(name, json!(percentiles));
            self.line(format!("{text}: {}", percentiles.text()));
        }
    }

    /// How much there was in how much time.
    fn rate(&mut self, what: &str, count: u64, elapsed: Duration) {
        let rate = per(count, elapsed.as_secs_f64());
        self.field(what, count);
        self.field("seconds", rounded(elapsed.as_secs_f64()));
        self.field(&format!("{what}_per_second"), rounded(rate));
        self.line(format!("{count} {what} in {:.2} s: {rate:.0} a second", elapsed.as_secs_f64()));
    }

    /// What the relay's process used for `count` of something.
    fn usage(&mut self, each: &str, count: u64, before: Usage, after: Usage, elapsed: Duration) {
        let cpu = after.cpu_us.saturating_sub(before.cpu_us);
        #[allow(clippy::cast_precision_loss)] // for people
        let cores = cpu as f64 / 1e6 / elapsed.as_secs_f64().max(1e-9);
        self.field("relay_cpu_cores", rounded(cores));
        self.field("relay_resident_bytes", after.resident_bytes);
        if count > 0 {
            let each_us = per(cpu, to_float(count));
            self.field(&format!("relay_cpu_us_per_{each}"), rounded(each_us));
            self.line(format!(
                "relay: {each_us:.1} µs of processor time per {each}, {cores:.2} cores, {:.1} MiB resident",
                to_float(after.resident_bytes) / 1_048_576.0
            ));
        }
    }
}

#[allow(clippy::cast_precision_loss)] // counts are far below 2^52
fn to_float(count: u64) -> f64 {
    count as f64
}

fn per(count: u64, of: f64) -> f64 {
    if of > 0.0 { to_float(count) / of } else { 0.0 }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Runs one measurement.
pub(crate) fn run(report: Report, timeout: Duration, options: &Bench) -> Result<(), Failure> {
    let address = Address::parse(&options.address)?;
    let target = Target::new(&address, options.smp_version, timeout, &FAST)?;
    let process = options.pid.map(Process::new).transpose()?;
    allow_many_files();
    let of_connections = matches!(options.mode, Mode::Connections | Mode::Idle);
    let floor = if options.floor && !of_connections { Some(floor::measure(&FAST)?) } else { None };
    let connection_floor =
        if options.floor && of_connections { Some(floor::measure_connection(&FAST)?) } else { None };
    let mut results = match options.mode {
        Mode::Messages => messages(report, &target, process, options, floor.as_ref())?,
        Mode::Connections => connections::made(&target, process, options, &bar(report, "connections", None))?,
        Mode::Idle => connections::idle(&target, process, options, &bar(report, "connections", None))?,
        Mode::New => batches(report, &target, process, options, false)?,
        Mode::Subscribe => batches(report, &target, process, options, true)?,
    };
    if let Some(floor) = &floor {
        results.field("floor", json!(floor));
        results.line(floor.text());
    }
    if let Some(floor) = &connection_floor {
        results.field("floor", json!(floor));
        results.line(floor.text());
        if let Some(actual) = results.fields.get("relay_cpu_us_per_connection").and_then(Value::as_f64)
            && actual > 0.0
        {
            let ratio = floor.total_us / actual;
            results.field("floor_ratio", rounded(ratio));
            results.line(format!("floor ÷ actual: {ratio:.2}"));
        }
    }
    report.result("bench", &results.fields, &results.lines.join("\n"))?;
    Ok(())
}

/// What is shown while it runs, on a terminal only.
fn bar(report: Report, what: &str, length: Option<u64>) -> ProgressBar {
    if report.is_json() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), format!("{{bar:40}} {{pos}}/{{len}} {what}, {{per_sec}}")),
        None => (ProgressBar::no_length(), format!("{{spinner}} {{pos}} {what}, {{per_sec}} [{{elapsed}}]")),
    };
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Each connection is a file.
fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it may not be raised, connecting fails at the limit and says so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// A part of `whole`, when it is dealt to `parts`.
fn share(whole: usize, parts: usize, index: usize) -> usize {
    whole / parts + usize::from(index < whole % parts)
}

fn messages(
    report: Report,
    target: &Target,
    process: Option<Process>,
    options: &Bench,
    floor: Option<&Floor>,
) -> Result<Results, Failure> {
    let connections = options.connections.unwrap_or(16) as usize;
    let queues = options.queues.map_or((connections / 2).max(1), |queues| queues as usize);
    let threads = (options.threads as usize).min(connections).min(queues);
    let shared = Shared {
        tickets: AtomicU64::new(options.count.unwrap_or(u64::MAX)),
        delivered: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let lasts = options.duration.or(options.count.is_none().then_some(DURATION));
    let own = Process::new(std::process::id())?;
    let bar = bar(report, "messages", options.count);
    let (ready_sender, ready) = mpsc::channel();
    let outcome = thread::scope(|scope| {
        let mut starters = Vec::new();
        let mut workers = Vec::new();
        for index in 0..threads {
            let (starter, start) = mpsc::channel::<Instant>();
            starters.push(starter);
            let (ready, shared) = (ready_sender.clone(), &shared);
            let plan = Plan {
                connections: share(connections, threads, index),
                queues: share(queues, threads, index),
                pipeline: options.pipeline,
                size: options.size.map(|size| size as usize),
            };
            workers.push(scope.spawn(move || -> Result<Measured, Failure> {
                let load = Crew::new(target).and_then(|crew| Load::set_up(crew, &plan, shared));
                // Nobody listens any more only when another thread has failed.
                let _ = ready.send(load.is_ok());
                let load = load?;
                let Ok(until) = start.recv() else {
                    return Err(Failure::new(Kind::Unexpected, "another thread of the load failed"));
                };
                let measured = load.run(until);
                if measured.is_err() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                measured
            }));
        }
        let all_ready = (0..threads).all(|_| ready.recv().unwrap_or(false));
        let before = process.map(|process| process.usage()).transpose();
        let own_before = own.usage();
        let start = Instant::now();
        if all_ready {
            let until = start + lasts.unwrap_or(Duration::from_secs(365 * 24 * 3600));
            for starter in &starters {
                // A worker that has ended says why when it is joined.
                let _ = starter.send(until);
            }
        }
        drop(starters);
        // Cores that share their parts, caches and a clock make everything slower while they are busy, the primitives too.
        let loaded_floor = (floor.is_some() && all_ready).then(|| scope.spawn(Floor::under_load));
        while workers.iter().any(|worker| !worker.is_finished()) {
            bar.set_position(shared.delivered.load(Ordering::Relaxed));
            thread::sleep(Duration::from_millis(20));
        }
        bar.finish_and_clear();
        let after = process.map(|process| process.usage()).transpose();
        let own_after = own.usage();
        let mut failed: Option<Failure> = None;
        let mut measured = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(Ok(one)) => measured.push(one),
                // The first failure is the reason of the others.
                Ok(Err(failure)) if failed.as_ref().is_none_or(|known| known.kind == Kind::Unexpected) => {
                    failed = Some(failure);
                }
                Ok(Err(_)) => {}
                Err(_) => failed = Some(Failure::new(Kind::Unexpected, "a thread of the load panicked")),
            }
        }
        let loaded_floor = match loaded_floor.map(thread::ScopedJoinHandle::join) {
            None => None,
            Some(Ok(floor)) => Some(floor?),
            Some(Err(_)) => return Err(Failure::new(Kind::Unexpected, "measuring the floor panicked")),
        };
        match failed {
            Some(failure) => Err(failure),
            None => Ok((measured, before?.zip(after?), own_before?, own_after?, loaded_floor)),
        }
    });
    let (measured, usage, own_before, own_after, loaded_floor) = outcome?;
    let mut results = Results::new("messages");
    let mut all = Measured::default();
    let (mut to_ok, mut to_message, mut acknowledge) = (Histogram::new(), Histogram::new(), Histogram::new());
    for one in measured {
        all.messages += one.messages;
        all.elapsed = all.elapsed.max(one.elapsed);
        (all.version, all.size) = (one.version, one.size);
        for (mine, theirs) in [
            (&mut to_ok, one.send_to_ok),
            (&mut to_message, one.send_to_message),
            (&mut acknowledge, one.acknowledge),
        ] {
            theirs.iter().for_each(|histogram| mine.merge(histogram));
        }
        for (error, count) in one.errors {
            *all.errors.entry(error).or_default() += count;
        }
    }
    for (name, value) in [("connections", connections), ("queues", queues), ("bytes", all.size)] {
        results.field(name, value);
    }
    results.field("pipeline", options.pipeline);
    results.field("version", all.version);
    results.line(format!(
        "SMP version {}, {connections} connections, {queues} queues, {} messages of {} bytes under way in each",
        all.version, options.pipeline, all.size
    ));
    results.rate("messages", all.messages, all.elapsed);
    results.latency("send_to_ok", "SEND to OK", &to_ok);
    results.latency("send_to_message", "SEND to MSG", &to_message);
    results.latency("ack", "ACK to answer", &acknowledge);
    results.field("errors", json!(all.errors));
    for (error, count) in &all.errors {
        results.line(format!("{count} times: {error}"));
    }
    let own_cpu = own_after.cpu_us.saturating_sub(own_before.cpu_us);
    let for_floor = loaded_floor.as_ref().map_or(0, |(_, time)| u64::try_from(time.as_micros()).unwrap_or(0));
    let own_cpu = own_cpu.saturating_sub(for_floor);
    results.field("load_cpu_us_per_message", rounded(per(own_cpu, to_float(all.messages))));
    if let Some((before, after)) = usage {
        results.usage("message", all.messages, before, after, all.elapsed);
        let actual = per(after.cpu_us.saturating_sub(before.cpu_us), to_float(all.messages));
        if let Some(floor) = floor
            && actual > 0.0
        {
            results.field("floor_ratio", rounded(floor.total_us / actual));
            results.line(format!("floor ÷ actual: {:.2}", floor.total_us / actual));
            if let Some((loaded, _)) = &loaded_floor {
                let ratio = loaded.total_us / actual;
                results.field("floor_under_load", json!(loaded));
                results.field("floor_ratio_under_load", rounded(ratio));
                results.line(format!(
                    "floor ÷ actual: {ratio:.2} with the floor of {:.1} µs that was measured beside the load",
                    loaded.total_us
                ));
            }
        }
    }
    if all.messages == 0 {
        return Err(Failure::new(Kind::Refused, format!("no message came through: {:?}", all.errors)));
    }
    Ok(results)
}

/// Queues created, or subscribed to, in full blocks.
fn batches(
    report: Report,
    target: &Target,
    process: Option<Process>,
    options: &Bench,
    subscribe: bool,
) -> Result<Results, Failure> {
    let count = options.queues.unwrap_or(10_000) as usize;
    let connections = (options.connections.unwrap_or(16) as usize).min(count);
    let (mode, what) = if subscribe { ("subscribe", "subscriptions") } else { ("new", "queues") };
    let bar = bar(report, what, Some(count as u64));
    let mut crew = Crew::new(target)?;
    crew.connect(connections, || ())?;
    let links: Vec<usize> = (0..count).map(|index| index % connections).collect();
    let keys = links.iter().map(|_| NewKeys::generate(&mut crew.entropy)).collect();
    let look = || process.map(|process| process.usage()).transpose();
    let (mut before, mut start) = (look()?, Instant::now());
    let until = |start: Instant| options.duration.map(|duration| start + duration);
    let (limit, shown) = if subscribe { (None, ProgressBar::hidden()) } else { (until(start), bar.clone()) };
    let queues = queues::create(&mut crew, &links, keys, false, limit, || shown.inc(1))?;
    let made: Vec<(usize, &LoadQueue)> =
        links.iter().zip(&queues).filter_map(|(link, queue)| Some((*link, queue.as_ref()?))).collect();
    let (links, queues): (Vec<usize>, Vec<&LoadQueue>) = made.into_iter().unzip();
    let mut done = queues.len();
    if subscribe {
        (before, start) = (look()?, Instant::now());
        let limit = until(start);
        done =
            queues::about_each(&mut crew, "SUB", &links, &queues, limit, &Command::Subscribe, || bar.inc(1))?;
    }
    let (after, elapsed) = (look()?, start.elapsed());
    bar.finish_and_clear();
    queues::delete(&mut crew, &links, &queues)?;
    let mut results = Results::new(mode);
    results.field("connections", connections);
    results.rate(what, done as u64, elapsed);
    if let (Some(before), Some(after)) = (before, after) {
        results.usage(if subscribe { "subscription" } else { "queue" }, done as u64, before, after, elapsed);
        if !subscribe && done > 0 {
            let grown = after.resident_bytes.saturating_sub(before.resident_bytes);
            results.field("relay_bytes_per_queue", rounded(per(grown, to_float(done as u64))));
            results.line(format!("relay: grew by {:.0} bytes per queue", per(grown, to_float(done as u64))));
        }
    }
    Ok(results)
}
