//! smp-server: a relay for the SimpleX Messaging Protocol.

mod block;
mod command_line;
mod failure;
mod folder;
mod initialise;
mod report;
mod start;

use std::process::ExitCode;

use clap::Parser;

use crate::command_line::{Command, CommandLine, Init};
use crate::failure::Failure;
use crate::folder::{DataFolder, Found};
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

fn run(folder: DataFolder, command: Option<Command>, report: Report) -> Result<(), Failure> {
    match command {
        Some(Command::Init(asked)) => initialise::initialise(&folder, asked, report),
        Some(Command::Cert) => initialise::renew(&folder, report),
        Some(Command::Block { queue, reason }) => block::block(&folder, queue, reason, report),
        Some(Command::Unblock { queue }) => block::unblock(&folder, queue, report),
        Some(Command::Delete { yes }) => initialise::delete(&folder, yes, report),
        Some(Command::Start) => start::start(&folder, report),
        None => {
            if folder.look()? == Found::Nothing {
                initialise::initialise(&folder, Init::by_default(), report)?;
            }
            start::start(&folder, report)
        }
    }
}
