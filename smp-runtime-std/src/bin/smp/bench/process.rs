//! What the system says of a local relay: processor time and memory, from `/proc`.

use std::fs;

use crate::failure::{Failure, Kind};

/// A process on this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
    micros_per_tick: u64,
}

/// One look at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time of all its threads since it started, in its own code and in the system's.
    pub(crate) cpu_us: u64,
    /// Resident memory.
    pub(crate) resident_bytes: u64,
}

impl Process {
    /// The process with this number.
    pub(crate) fn new(pid: u32) -> Result<Self, Failure> {
        let process =
            Self { pid, micros_per_tick: 1_000_000 / rustix::param::clock_ticks_per_second().max(1) };
        process.usage()?;
        Ok(process)
    }

    /// What it has used up to now. Processor time comes in steps of 10 ms.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/{}/{file}", self.pid)).map_err(|error| {
                Failure::new(Kind::Usage, format!("process {} cannot be observed: {error}", self.pid))
                    .advise("--pid wants the process id of a relay on this machine, which you may look at")
            })
        };
        let ticks = cpu_ticks(&read("stat")?);
        let kibibytes = resident_kibibytes(&read("status")?);
        match (ticks, kibibytes) {
            (Some(ticks), Some(kibibytes)) => {
                Ok(Usage { cpu_us: ticks * self.micros_per_tick, resident_bytes: kibibytes * 1024 })
            }
            _ => Err(Failure::new(Kind::Usage, format!("process {} has ended", self.pid))
                .advise("its log may say why")),
        }
    }
}

/// `utime` and `stime`, fields 14 and 15 of `stat`. The name in field 2 may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kibibytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_name() {
        let stat = "12 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 700 33 0 0 20 0 1 0 5";
        assert_eq!(cpu_ticks(stat), Some(733));
        assert_eq!(resident_kibibytes("Name:\tx\nVmRSS:\t   512 kB\nThreads: 1\n"), Some(512));
        assert_eq!(cpu_ticks("nonsense"), None);
        assert_eq!(resident_kibibytes("Name:\tzombie\n"), None);
    }

    #[test]
    fn this_process_can_be_observed_and_an_absent_one_cannot() {
        let process = Process::new(std::process::id()).unwrap();
        assert!(process.usage().unwrap().resident_bytes > 100_000);
        assert_eq!(Process::new(u32::MAX).unwrap_err().kind, Kind::Usage);
    }
}
