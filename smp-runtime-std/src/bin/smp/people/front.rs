//! In front of a person or a program: gives a command to the agent, prints what comes back, and passes on what is typed.

use std::io::{self, BufRead, IsTerminal};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};

use rustyline::ExternalPrinter;

use super::exchange::{Asked, Line, Order, Request, Writing, ends};
use crate::failure::Failure;
use crate::report::Report;

/// How a command has ended.
pub(crate) enum Ended {
    /// It is done, or failed.
    With(Result<(), Failure>),
    /// The process that had the agent is gone.
    Lost,
}

/// Where lines are shown.
enum Screen {
    /// The standard output.
    Plain(Report),
    /// Above the line that is being typed.
    Typing(Report, Box<dyn ExternalPrinter + Send>),
}

impl Screen {
    fn show(&mut self, line: &Line) -> io::Result<()> {
        let (report, printer) = match self {
            Self::Plain(report) => return show(*report, line),
            Self::Typing(report, printer) => (report, printer),
        };
        match line {
            Line::Result { text, .. } if text.is_empty() => Ok(()),
            Line::Result { text, .. } | Line::Message { text, .. } | Line::Notice(text) => {
                printer.print(format!("{text}\n")).map_err(io::Error::other)
            }
            Line::Done | Line::Failed(_) => show(*report, line),
        }
    }
}

fn show(report: Report, line: &Line) -> io::Result<()> {
    match line {
        Line::Result { text, .. } if text.is_empty() && !report.is_json() => Ok(()),
        Line::Result { event, value, text } => report.result(event, value, text),
        Line::Message { value, text, .. } => report.result("message", value, text),
        Line::Notice(text) => {
            report.notice(text);
            Ok(())
        }
        Line::Done | Line::Failed(_) => Ok(()),
    }
}

/// Gives a command to the agent at the other end of `stream`, and shows what comes of it.
pub(crate) fn run(report: Report, stream: UnixStream, order: &Order) -> Result<Ended, Failure> {
    let (mut reading, mut writing) = ends(stream)?;
    if writing.write(&Asked::Do(order.clone())).is_err() {
        return Ok(Ended::Lost);
    }
    // One thread writes, whoever has something to say.
    let (says, to_say) = channel();
    std::thread::Builder::new().name("saying".to_owned()).spawn(move || passes_on(writing, &to_say))?;
    let mut screen = Screen::Plain(report);
    if matches!(order.request, Request::Chat { .. }) {
        screen = types(report, says.clone())?;
    }
    loop {
        // A line that was cut means the same: the other process was ended.
        let Ok(Some(line)) = reading.read::<Line>() else { return Ok(Ended::Lost) };
        screen.show(&line)?;
        match line {
            Line::Done => return Ok(Ended::With(Ok(()))),
            Line::Failed(failure) => return Ok(Ended::With(Err(failure))),
            Line::Message { contact, message, .. } => {
                if says.send(Asked::Shown { contact, message }).is_err() {
                    return Ok(Ended::Lost);
                }
            }
            Line::Result { .. } | Line::Notice(_) => {}
        }
    }
}

fn passes_on(mut writing: Writing, to_say: &std::sync::mpsc::Receiver<Asked>) {
    while let Ok(asked) = to_say.recv() {
        // The reading side sees that the other end is gone.
        if writing.write(&asked).is_err() {
            break;
        }
    }
}

/// Passes on what is typed, from an editor in a terminal, otherwise line by line.
fn types(report: Report, says: Sender<Asked>) -> Result<Screen, Failure> {
    if report.is_json() || !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        std::thread::Builder::new().name("typing".to_owned()).spawn(move || {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if says.send(Asked::Say(line)).is_err() {
                    return;
                }
            }
            // Nobody waits for it when the command is done.
            let _ = says.send(Asked::End);
        })?;
        return Ok(Screen::Plain(report));
    }
    let mut editor = rustyline::DefaultEditor::new().map_err(io::Error::other)?;
    let printer = editor.create_external_printer().map_err(io::Error::other)?;
    report.notice("type a message and press Enter; Ctrl-D ends; ✓ their relay has it, ✓✓ they have it");
    std::thread::Builder::new().name("typing".to_owned()).spawn(move || {
        // Ctrl-C, Ctrl-D, or a terminal that is gone: nothing more will be typed.
        while let Ok(line) = editor.readline("> ") {
            if says.send(Asked::Say(line)).is_err() {
                return;
            }
        }
        let _ = says.send(Asked::End);
    })?;
    Ok(Screen::Typing(report, Box::new(printer)))
}
