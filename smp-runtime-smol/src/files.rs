//! How many files the system lets the process open: every connection is one.

/// Files that the process needs besides connections: storage, listeners, what the runtime has.
const RESERVED: u64 = 128;

/// Raises the limit on open files as far as the process may, and says how many connections fit under it; `None` when
/// there is no limit.
#[must_use]
pub fn room_for_connections() -> Option<usize> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
            // A refusal leaves the old limit, which is as good a bound.
            if setrlimit(Resource::Nofile, raised).is_ok() {
                limit.current = limit.maximum;
            }
        }
        limit
            .current
            .map(|files| usize::try_from(files.saturating_sub(RESERVED).max(1)).unwrap_or(usize::MAX))
    }
    #[cfg(not(unix))]
    None
}
