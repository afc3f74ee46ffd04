//! `start`: from a folder to a relay that serves, and back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use smp_runtime_smol::files::room_for_connections;
use smp_runtime_smol::listener::listen;
use smp_runtime_smol::service::{Service, shifts};
use smp_runtime_smol::signals::StopSignals;
use smp_runtime_smol::workers::Workers;
use smp_runtime_std::configuration::Configuration;
use smp_runtime_std::relay::Relay;
use smp_runtime_std::storage::StorageReport;

use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::initialise::address;
use crate::report::Report;

/// How long stopping may take: what is under way finishes in far less, unless the disk hangs.
const PATIENCE: Duration = Duration::from_secs(15);

/// `smp-server start`
pub(crate) fn start(folder: &DataFolder, report: Report) -> Result<(), Failure> {
    folder.require_relay()?;
    let mut configuration = Configuration::read(&folder.configuration_file())?;
    let _lock = folder.lock()?;
    let identity = folder.certificates().load()?;
    for warning in &identity.warnings {
        report.note(warning);
    }
    if let Some(room) = room_for_connections()
        && room < configuration.limits.connections
    {
        report.note(&format!(
            "at most {room} connections fit under this system's limit on open files; raise it (ulimit -n, LimitNOFILE) for \
             the {} of [LIMITS] connections",
            configuration.limits.connections
        ));
        configuration.limits.connections = room;
    }
    // Signals are taken over before anything is under way that they could interrupt.
    let mut signals = StopSignals::new()?;
    // Listening comes first, because what can go wrong there takes no time to find out; clients wait meanwhile.
    let listeners = listen(&configuration.listen, &configuration.ports, !configuration.listen_was_set)?;

    let progress = report.progress();
    let relay = Arc::new(Relay::open(
        &configuration,
        &identity,
        &folder.store(),
        |queues| progress.set_position(queues),
        move |storage| match storage {
            StorageReport::Failing(error) => report.error(&error.to_string()),
            StorageReport::Recovered => report.note("storage works again"),
        },
    )?);
    progress.finish_and_clear();

    let workers = Workers::start(configuration.threads, shifts(&relay))?;
    let service = Service::start(Arc::clone(&relay), listeners, &workers)?;
    let addresses: Vec<String> = service.addresses().iter().map(ToString::to_string).collect();
    let mut ports: Vec<u16> = service.addresses().iter().map(std::net::SocketAddr::port).collect();
    ports.dedup();
    let public = address(&identity.fingerprint, &configuration, &ports);
    report.event(
        "listening",
        json!({
            "addresses": addresses,
            "fingerprint": identity.fingerprint.to_string(),
            "address": public,
            "queues": relay.statistics().queues,
            "threads": workers.count(),
        }),
        &format!(
            "Listening on {}\nAddress: {public}\n{} queues, {} threads",
            addresses.join(", "),
            relay.statistics().queues,
            workers.count()
        ),
    );

    let finished = async_io::block_on(async {
        signals.next().await;
        report.event("stopping", json!({}), "Stopping");
        let stop = service.stop(PATIENCE);
        // Whoever asks a second time does not want to wait.
        smol::future::or(async { Some(stop.await) }, async {
            signals.next().await;
            None
        })
        .await
    });
    workers.stop();
    drop(relay);
    match finished {
        Some(true) => {
            report.event("stopped", json!({}), "Stopped");
            Ok(())
        }
        Some(false) => Err(Failure::new(format!(
            "stopped after {} seconds with work left: what was not confirmed may be lost; check the disk",
            PATIENCE.as_secs()
        ))),
        None => Err(Failure::new("stopped at once by a second signal: what was not confirmed may be lost")),
    }
}
