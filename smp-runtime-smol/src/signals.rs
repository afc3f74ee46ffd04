//! Asking the process to stop.

use async_signal::{Signal, Signals};
use smol::stream::StreamExt;

/// Signals that ask the process to stop: SIGINT and SIGTERM. They have their usual effect until this is made.
#[derive(Debug)]
pub struct StopSignals(Signals);

impl StopSignals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new() -> std::io::Result<Self> {
        Signals::new([Signal::Int, Signal::Term]).map(Self)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        // The stream ends never; an error while reading it must not look like a signal.
        while !matches!(self.0.next().await, Some(Ok(_)) | None) {}
    }
}
