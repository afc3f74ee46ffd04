//! `smp ping`: is the relay there, is it the right one, and how fast does it answer?

use std::time::{Duration, Instant};

use serde_json::json;
use smp_runtime_std::client::{BlockingClient, ClientOptions};
use smp_runtime_std::dialing;
use smp_runtime_std::tls::{ClientTls, TlsSession};

use crate::command_line::Ping;
use crate::connecting::{Address, failure_of_client, failure_of_dialing, failure_of_tls};
use crate::failure::Failure;
use crate::report::Report;

/// Connects, and asks `count` times.
pub(crate) fn run(report: Report, timeout: Duration, options: &Ping) -> Result<(), Failure> {
    let address = Address::parse(&options.address)?;
    // The first TLS connection of a process waits some 40 ms for the cryptographic library to seed itself. That is not the
    // relay's time.
    let tls = dialing::fingerprint(&address.server).map_err(|error| failure_of_dialing(&error))?;
    let unused = ClientTls::new(tls).and_then(|tls| TlsSession::client(&tls));
    drop(unused.map_err(|error| failure_of_tls(&error))?);
    let millis = |time: Duration| (time.as_secs_f64() * 100_000.0).round() / 100.0;
    let start = Instant::now();
    let client = BlockingClient::connect(&address.server, ClientOptions::with_timeout(timeout))
        .map_err(|error| failure_of_client("connecting", &error))?;
    let (connected, version) = (millis(start.elapsed()), client.version().0);
    report.result(
        "connected",
        &json!({ "address": address.server.to_string(), "version": version, "milliseconds": connected }),
        &format!("connected in {connected} ms, the relay is the one of the address, SMP version {version}"),
    )?;
    for number in 1..=options.count {
        let start = Instant::now();
        client.ping().map_err(|error| failure_of_client("PING", &error))?;
        let took = millis(start.elapsed());
        report.result(
            "pong",
            &json!({ "number": number, "milliseconds": took }),
            &format!("answer {number} in {took} ms"),
        )?;
    }
    Ok(())
}
