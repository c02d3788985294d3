//! What went wrong, where, and what to do next.

use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use crate::say;

/// The answer is no: a signature does not hold, or, with `score --fail`, a window is odd.
pub const NO: u8 = 1;
/// What was asked for makes no sense; clap answers so too.
pub const COMMAND_LINE: u8 = 2;
/// What was given cannot be read, or makes no sense.
const INPUT: u8 = 3;
/// The result cannot be written.
pub const OUTPUT: u8 = 4;
/// This machine, or this user, cannot trace.
const TRACING: u8 = 5;

/// Why a command gives up.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    what: String,
    next: Option<String>,
    code: u8,
}

impl Failure {
    fn new(code: u8, what: impl Display) -> Self {
        Self {
            what: what.to_string(),
            next: None,
            code,
        }
    }

    /// The answer is no.
    pub fn no(what: impl Display) -> Self {
        Self::new(NO, what)
    }

    /// A command line that says too little, or too much.
    pub fn command_line(what: impl Display) -> Self {
        Self::new(COMMAND_LINE, what)
    }

    /// Input that is wrong.
    pub fn input(what: impl Display) -> Self {
        Self::new(INPUT, what)
    }

    /// A file that cannot be read, or holds something else.
    pub fn read(path: &Path, why: impl Display) -> Self {
        Self::new(INPUT, format!("{}: {why}", path.display()))
    }

    /// A file that cannot be written.
    pub fn write(path: &Path, why: impl Display) -> Self {
        Self::new(OUTPUT, format!("{}: {why}", path.display()))
    }

    /// Tracing does not work here.
    pub fn tracing(what: impl Display) -> Self {
        Self::new(TRACING, what)
    }

    /// The same, where what was asked is whether it holds: the answer is no.
    #[must_use]
    pub fn answering_no(self) -> Self {
        Self { code: NO, ..self }
    }

    /// What to do about it.
    #[must_use]
    pub fn next(mut self, next: impl Display) -> Self {
        self.next = Some(next.to_string());
        self
    }

    /// What went wrong, alone.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it, alone.
    pub fn way_out(&self) -> Option<&str> {
        self.next.as_deref()
    }

    /// Says it on standard error. If that cannot be written either, the exit code is what is left to say it.
    pub fn report(&self) -> ExitCode {
        let red = Style::new().fg_color(Some(AnsiColor::Red.into())).bold();
        let mut err = anstream::stderr().lock();
        let _ = writeln!(err, "{red}error:{red:#} {}", say::plain(&self.what));
        if let Some(next) = &self.next {
            let _ = writeln!(err, " next: {}", say::plain(next));
        }
        ExitCode::from(self.code)
    }
}
