//! `block` and `unblock`: what the operator decides about a queue, written into the folder of a relay that is not running.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use smp_proto::broker::BlockError;
use smp_proto::wire::error::{Blocked, BlockingReason};
use smp_runtime_std::configuration::Configuration;
use smp_runtime_std::relay::Relay;
use smp_runtime_std::storage::StorageReport;

use crate::command_line::{QueueId, Reason};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::report::Report;

/// How long one write may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// `smp-server block`
pub(crate) fn block(
    folder: &DataFolder,
    queue: QueueId,
    reason: Reason,
    report: Report,
) -> Result<(), Failure> {
    let reason = match reason {
        Reason::Spam => BlockingReason::Spam,
        Reason::Content => BlockingReason::Content,
    };
    let decide = |relay: &Relay| relay.block(&queue.0, Blocked { reason, notice: None });
    change(folder, queue, report, true, decide)?;
    report.event("blocked", json!({}), "The queue is blocked: its parties are told when the relay runs");
    Ok(())
}

/// `smp-server unblock`
pub(crate) fn unblock(folder: &DataFolder, queue: QueueId, report: Report) -> Result<(), Failure> {
    change(folder, queue, report, false, |relay| relay.unblock(&queue.0))?;
    report.event("unblocked", json!({}), "The queue is not blocked");
    Ok(())
}

/// Opens the relay without serving, changes it, and makes sure that the change is written.
fn change(
    folder: &DataFolder,
    queue: QueueId,
    report: Report,
    blocked: bool,
    decide: impl FnOnce(&Relay) -> Result<(), BlockError>,
) -> Result<(), Failure> {
    folder.require_relay()?;
    let configuration = Configuration::read(&folder.configuration_file())?;
    let _lock = folder.lock()?;
    let identity = folder.certificates().load()?;
    let relay = Relay::open(
        &configuration,
        &identity,
        &folder.store(),
        |_| {},
        move |storage| {
            if let StorageReport::Failing(error) = storage {
                report.error(&error.to_string());
            }
        },
    )?;
    decide(&relay)?;
    let end = Instant::now() + PATIENCE;
    while !relay.is_quiet() {
        if Instant::now() >= end {
            return Err(Failure::new("the decision could not be written in a minute: check the disk"));
        }
        thread::sleep(Duration::from_millis(5));
    }
    // What could not be written was taken back.
    if relay.is_blocked(&queue.0) != blocked {
        return Err(Failure::new("the decision could not be written: check the disk, and try again"));
    }
    Ok(())
}
