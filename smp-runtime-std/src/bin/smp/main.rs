//! `smp`: people and relays of the SimpleX Messaging Protocol from a terminal.

mod bench;
mod command_line;
mod connecting;
mod failure;
mod link;
#[cfg(unix)]
mod people;
mod ping;
mod queue;
mod report;
mod state;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::command_line::{Command, CommandLine};
use crate::failure::Failure;
use crate::report::Report;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let report = Report::new(line.json);
    match run(line, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report.failure(&failure);
            failure.kind.exit_code().into()
        }
    }
}

fn run(line: CommandLine, report: Report) -> Result<(), Failure> {
    match line.command {
        Command::Bench(options) => bench::run(report, line.timeout, &options),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut CommandLine::command(), "smp", &mut std::io::stdout());
            Ok(())
        }
        Command::Link(command) => link::run(report, command),
        #[cfg(unix)]
        Command::People(command) => {
            let order = people::Order {
                request: command.request()?,
                seconds: line.timeout.as_secs_f64(),
                proxy: line.proxy,
                proxy_fallback: line.proxy_fallback,
                proxy_hold: line.proxy_hold,
                share: line.share,
            };
            people::run(report, line.timeout, line.data, line.passphrase_file, &order)
        }
        Command::Ping(options) => ping::run(report, line.timeout, &options),
        Command::Queue(command) => queue::run(report, line.timeout, line.data, command),
    }
}
