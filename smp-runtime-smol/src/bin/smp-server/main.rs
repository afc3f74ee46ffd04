//! smp-server: a relay for the SimpleX Messaging Protocol.

mod command_line;
mod failure;
mod folder;
mod initialise;
mod report;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::{Command, CommandLine};
use crate::failure::Failure;
use crate::folder::DataFolder;
use crate::report::Report;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let report = Report::new(line.json);
    match run(DataFolder::at(line.data), line.command, report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report.error(failure.message());
            ExitCode::FAILURE
        }
    }
}

fn run(folder: DataFolder, command: Command, report: Report) -> Result<(), Failure> {
    match command {
        Command::Init(asked) => initialise::initialise(&folder, asked, report),
        Command::Cert => initialise::renew(&folder, report),
        Command::Delete { yes } => initialise::delete(&folder, yes, report),
    }
}
