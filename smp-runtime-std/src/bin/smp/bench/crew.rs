//! The connections of one thread, served as they become ready.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use smp_proto::entropy::SeededEntropy;
use smp_proto::session::client::CommandWriter;
use smp_proto::time::Now;
use smp_proto::wire::command::Command;
use smp_runtime_std::relay::clock::Clock;

use super::link::{Event, Heard, Link, Target};
use crate::connecting::entropy_of_system;
use crate::failure::{Failure, Kind};

/// Connections that are set up at the same time.
const SET_UP_AT_ONCE: usize = 64;

/// The connections of one thread.
pub(super) struct Crew<'t> {
    pub(super) target: &'t Target,
    pub(super) links: Vec<Link>,
    pub(super) entropy: SeededEntropy,
    clock: Clock,
    events: Vec<Event>,
}

impl<'t> Crew<'t> {
    /// No connection yet.
    pub(super) fn new(target: &'t Target) -> Result<Self, Failure> {
        let entropy = entropy_of_system()?;
        Ok(Self { target, links: Vec::new(), entropy, clock: Clock::start(), events: Vec::new() })
    }

    pub(super) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Makes connections until there are `count`, each asked for one `PONG`: both handshakes are over then.
    pub(super) fn connect(&mut self, count: usize, mut progress: impl FnMut()) -> Result<(), Failure> {
        while self.links.len() < count {
            let first = self.links.len();
            for _ in first..count.min(first + SET_UP_AT_ONCE) {
                self.links.push(Link::dial(self.target)?);
            }
            let mut asked = vec![false; self.links.len() - first];
            let mut missing = asked.len();
            let until = Instant::now() + self.target.timeout;
            while missing > 0 {
                self.serve(until, first, |crew, link, event| {
                    if matches!(event.heard, Heard::Pong) && link >= first {
                        missing = missing.saturating_sub(1);
                        progress();
                    }
                    drop(event);
                    let _ = crew;
                    Ok(())
                })?;
                for (offset, asked) in asked.iter_mut().enumerate().filter(|(_, asked)| !**asked) {
                    let now = self.clock.now();
                    if let Some(link) = self.links.get_mut(first + offset)
                        && link.version().is_some()
                    {
                        link.send(now, ping)?;
                        *asked = true;
                    }
                }
                if missing > 0 && Instant::now() >= until {
                    return Err(Failure::new(
                        Kind::Network,
                        "the relay does not answer new connections in time",
                    )
                    .advise("it may limit connections; try fewer, or a longer --timeout"));
                }
            }
        }
        Ok(())
    }

    /// Waits until something comes or `until`, and hands over what was heard, connection by connection from `first` on.
    pub(super) fn serve(
        &mut self,
        until: Instant,
        first: usize,
        mut handle: impl FnMut(&mut Self, usize, Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for index in self.wait(until, first)? {
            let now = self.clock.now();
            let mut events = std::mem::take(&mut self.events);
            if let Some(link) = self.links.get_mut(index) {
                link.flush()?;
                link.receive(self.target, now, &mut self.entropy, &mut events)?;
            }
            for event in events.drain(..) {
                handle(self, index, event)?;
            }
            self.events = events;
        }
        Ok(())
    }

    /// The connections that have something to say or to take.
    fn wait(&self, until: Instant, first: usize) -> Result<Vec<usize>, Failure> {
        let links = self.links.get(first..).unwrap_or_default();
        let mut fds: Vec<PollFd<'_>> = links
            .iter()
            .map(|link| {
                let mut wanted = PollFlags::IN;
                wanted.set(PollFlags::OUT, link.wants_write());
                PollFd::new(link, wanted)
            })
            .collect();
        let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(100));
        let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Failure::new(
                    Kind::Unexpected,
                    format!("waiting for connections failed: {error}"),
                ));
            }
        }
        Ok((first..).zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect())
    }

    /// Sends one block on a connection.
    pub(super) fn send(
        &mut self,
        link: usize,
        fill: impl FnOnce(&mut CommandWriter<'_>),
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        match self.links.get_mut(link) {
            Some(link) => link.send(now, fill),
            None => Err(Failure::new(Kind::Unexpected, "a command was to be sent on no connection")),
        }
    }
}

/// Adds a `PING`. It always fits.
pub(super) fn ping(writer: &mut CommandWriter<'_>) {
    let _ = writer.add(&[1; 24].into(), &smp_proto::wire::EntityId::EMPTY, &Command::Ping, None);
}
