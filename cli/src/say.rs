//! How the command speaks: tables for people, JSON for programs, colour on a terminal only, progress on long work.
//!
//! What cannot be written is told once, at once, and makes the exit code; the work goes on: a trace must not end, nor a
//! recording be lost, because a disk is full that something else is written to.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use vigia_model::calibration::Severity;

use crate::error::Failure;

/// Something that was to be said could not be written.
static UNSAID: AtomicBool = AtomicBool::new(false);

/// Where a report goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Out {
    /// Standard output.
    Stdout,
    /// Standard error, where a traced command has the other.
    Stderr,
}

impl Out {
    /// One line; colour goes where it is shown.
    pub fn line(self, text: &str) {
        self.noted(match self {
            Self::Stdout if was_closed() => Err(closed()),
            Self::Stdout => writeln!(anstream::stdout().lock(), "{text}"),
            Self::Stderr => writeln!(anstream::stderr().lock(), "{text}"),
        });
    }

    /// Text as it is, a part of a line perhaps, which is seen at once.
    pub fn text(self, text: &str) {
        self.noted(match self {
            Self::Stdout if was_closed() => Err(closed()),
            Self::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Self::Stderr => io::stderr().lock().write_all(text.as_bytes()),
        });
    }

    /// Takes note of how writing went.
    pub fn noted(self, outcome: io::Result<()>) {
        // Who has gone wants no more.
        let Some(error) = outcome
            .err()
            .filter(|error| error.kind() != ErrorKind::BrokenPipe)
        else {
            return;
        };
        if UNSAID.swap(true, Ordering::Relaxed) {
            return;
        }
        let stream = match self {
            Self::Stdout => "standard output",
            Self::Stderr => "standard error",
        };
        Failure::write(stream.as_ref(), error)
            .next("what is there is not all of it: make room, or write it elsewhere")
            .report();
    }
}

/// Standard output was closed when the program started.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Before `main`, Rust opens /dev/null where a standard stream is closed, and all that is written is lost without an error.
/// What the C library calls at the start comes earlier still.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = {
    extern "C" fn look() {
        // SAFETY: it reads a descriptor's flags, and sets none.
        let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
        CLOSED.store(flags < 0, Ordering::Relaxed);
    }
    look
};

/// Whether nobody can read what is written to standard output.
pub fn was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

/// What a write to it would have said.
pub fn closed() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

/// Whether something that was to be said could not be written.
pub fn is_unsaid() -> bool {
    UNSAID.load(Ordering::Relaxed)
}

/// Text from a file or a model, fit for a terminal: what would move its cursor, retitle its window or turn the
/// direction of a line is shown as an escape instead.
pub fn plain(text: &str) -> Cow<'_, str> {
    let acts = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A document on standard output, for people to read too.
pub fn json(document: &impl Serialize) {
    document_of(serde_json::to_string_pretty(document));
}

/// A document as one line of standard output, which is seen at once.
pub fn json_line(document: &impl Serialize) {
    document_of(serde_json::to_string(document));
}

fn document_of(text: serde_json::Result<String>) {
    match text {
        Ok(text) => Out::Stdout.text(&(text + "\n")),
        Err(error) => Out::Stdout.noted(Err(error.into())),
    }
}

/// Colour of a severity.
pub fn style(severity: Severity) -> Style {
    match severity {
        Severity::None => Style::new(),
        Severity::Low => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
        Severity::Medium => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Severity::High => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
    }
}

/// A line that says what is being done, on a terminal, while it is.
pub fn progress(what: &str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new_spinner()
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// A number with its thousands set apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// So many windows.
pub fn windows(n: usize) -> String {
    if n == 1 {
        "1 window".to_owned()
    } else {
        format!("{} windows", count(n as u64))
    }
}

/// A rate a second, to three digits or so.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 100.0 => count(r.round() as u64),
        r if r >= 10.0 => format!("{r:.1}"),
        r => format!("{r:.2}"),
    }
}

/// Wall-clock time of day, in UTC.
pub fn time(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).map_or_else(
        |_| unix_ms.to_string(),
        |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_moves_no_cursor() {
        assert!(matches!(plain("redis-7 é"), Cow::Borrowed("redis-7 é")));
        assert_eq!(
            plain("\x1b]0;pwn\x07\x1b[2Jx\ny\u{9b}\u{202e}"),
            r"\u{1b}]0;pwn\u{7}\u{1b}[2Jx\ny\u{9b}\u{202e}"
        );
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(
            [0, 1, 2_000].map(windows),
            ["0 windows", "1 window", "2,000 windows"]
        );
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [0.0, 0.5, 12.34, 1234.5].map(rate),
            ["0.00", "0.50", "12.3", "1,235"]
        );
        assert_eq!(time(1_795_255_200_000), "2026-11-21T10:00:00Z");
    }
}
