//! One line for each system call, as strace writes them, or one JSON document.
//!
//! What is known when a call begins is written then, so that a call that takes its time can be seen to; the rest
//! follows when it returns. Where another task has something to say in between, the line is broken and resumed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::decode::{self, Begun, errno, signals};
use super::memory::Memory;
use super::watch::{Call, End};
use crate::analysis::realtime::Odd;
use crate::args::Format;
use crate::say::{self, Out};

/// Column of the equals sign.
const COLUMN: usize = 40;

/// Number of restart_syscall.
const RESTART: u32 = libc::SYS_restart_syscall as u32;
/// The kernel's own number for a call that is begun again where the signal has no handler (ERESTART_RESTARTBLOCK).
const INTERRUPTED: i64 = -516;

/// What is written of the calls that are under way.
pub struct Lines {
    style: Option<Style>,
    odd: (Out, Format),
    tasks: usize,
    /// Whose line has no end yet.
    open: Option<i32>,
    column: usize,
    calls: BTreeMap<i32, Begun>,
    /// What a signal has interrupted that the kernel will go on with.
    interrupted: BTreeMap<i32, String>,
}

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Text or JSON.
    pub format: Format,
    /// Whether times are written (JSON always has them).
    pub times: bool,
}

impl Lines {
    /// Lines on `out`, or nothing of calls without a style.
    pub fn new(out: Out, format: Format, style: Option<Style>) -> Self {
        Self {
            style,
            odd: (out, format),
            tasks: 1,
            open: None,
            column: 0,
            calls: BTreeMap::new(),
            interrupted: BTreeMap::new(),
        }
    }

    fn text(&self) -> Option<Style> {
        self.style.filter(|style| style.format == Format::Text)
    }

    fn write(&mut self, text: &str) {
        self.column += text.chars().count();
        self.odd.0.text(text);
    }

    fn end_line(&mut self, text: &str) {
        self.write(&format!("{text}\n"));
        self.open = None;
        self.column = 0;
    }

    fn start_line(&mut self, task: i32) {
        if self.open.is_some() {
            self.end_line(" <unfinished ...>");
        }
        if self.tasks > 1 {
            self.write(&format!("[pid {task:>5}] "));
            self.column = 0;
        }
    }

    fn whole_line(&mut self, task: i32, text: &str) {
        if self.text().is_some() {
            self.start_line(task);
            self.end_line(text);
        }
    }

    /// Another task.
    pub fn began(&mut self) {
        self.tasks += 1;
    }

    /// The beginning of a call's line.
    pub fn entered(&mut self, task: i32, call: &Call) {
        let Some(style) = self.style else { return };
        let begun = decode::at_entry(call, Memory(task));
        if style.format == Format::Text {
            self.start_line(task);
            let first: Vec<&str> = begun.first().collect();
            let is_all = first.len() == decode::count(call);
            let more = if is_all || first.is_empty() { "" } else { ", " };
            let name = call.name();
            let resumed = match self.interrupted.remove(&task) {
                Some(before) if call.nr() == RESTART => format!("<... resuming interrupted {before} ...>"),
                _ => String::new(),
            };
            self.write(&format!("{name}({}{more}{resumed}", first.join(", ")));
            self.open = Some(task);
        }
        self.calls.insert(task, begun);
    }

    /// The end of a call's line.
    pub fn left(&mut self, task: i32, call: &Call, value: i64, took: Duration) {
        let Some(style) = self.style else { return };
        let begun = self.calls.remove(&task).unwrap_or_default();
        let args = decode::at_exit(call, &begun, Memory(task), value);
        let (result, meaning) = decode::result(call, value, Memory(task));
        if style.format == Format::Json {
            let failed = (-4095..0).contains(&value);
            say::json_line(&json!({
                "pid": task,
                "syscall": call.name(),
                "args": args,
                "result": if failed { -1 } else { value },
                "meaning": meaning,
                "error": failed.then(|| errno::name(-value)),
                "time_us": took.as_nanos() as f64 / 1000.0,
            }));
            return;
        }
        if value == INTERRUPTED {
            self.interrupted.insert(task, call.name());
        }
        self.resume(task, call);
        self.write(&format!("{})", args[begun.first().count()..].join(", ")));
        let meaning = meaning.map(|meaning| format!(" ({meaning})")).unwrap_or_default();
        let time = if style.times {
            format!(" <{:.6}>", took.as_secs_f64())
        } else {
            String::new()
        };
        self.equals(&format!("{result}{meaning}{time}"));
    }

    fn resume(&mut self, task: i32, call: &Call) {
        if self.open != Some(task) {
            self.start_line(task);
            let name = call.name();
            self.write(&format!("<... {name} resumed>"));
        }
    }

    fn equals(&mut self, result: &str) {
        let gap = COLUMN.saturating_sub(self.column).max(1);
        self.end_line(&format!("{:gap$}= {result}", ""));
    }

    /// A signal's line.
    pub fn signalled(&mut self, task: i32, info: &libc::siginfo_t) {
        let text = signals::describe(info);
        if self.style.is_some_and(|style| style.format == Format::Json) {
            say::json_line(&json!({"pid": task, "signal": signals::name(info.si_signo), "info": text}));
        }
        self.whole_line(task, &format!("--- {} {text} ---", signals::name(info.si_signo)));
    }

    /// A task that is stopped.
    pub fn paused(&mut self, task: i32, signal: i32) {
        self.whole_line(task, &format!("--- stopped by {} ---", signals::name(signal)));
    }

    /// The end of a task.
    pub fn ended(&mut self, task: i32, call: Option<Call>, end: End) {
        self.calls.remove(&task);
        self.interrupted.remove(&task);
        if self.style.is_some_and(|style| style.format == Format::Json) {
            say::json_line(&match end {
                End::Exited(code) => json!({"pid": task, "exited": code}),
                End::Killed { signal, core } => {
                    json!({"pid": task, "killed": signals::name(signal), "core": core})
                }
            });
        }
        if let (Some(call), Some(_)) = (call, self.text()) {
            self.resume(task, &call);
            self.write(")");
            self.equals("?");
        }
        let text = match end {
            End::Exited(code) => format!("+++ exited with {code} +++"),
            End::Killed { signal, core } => format!(
                "+++ killed by {}{} +++",
                signals::name(signal),
                if core { " (core dumped)" } else { "" }
            ),
        };
        self.whole_line(task, &text);
        self.tasks = self.tasks.saturating_sub(1);
    }

    /// A thread that another has taken the place of.
    pub fn superseded(&mut self, task: i32, by: i32) {
        if let Some(args) = self.calls.remove(&by) {
            self.calls.insert(task, args);
        }
        self.whole_line(task, &format!("+++ superseded by execve in pid {by} +++"));
        self.tasks = self.tasks.saturating_sub(1);
    }

    /// A task that was let go.
    pub fn released(&mut self, task: i32, call: Option<Call>) {
        if let (Some(call), Some(_)) = (call, self.text()) {
            self.resume(task, &call);
            self.end_line(" <detached ...>");
        }
    }

    /// A time that is odd.
    pub fn odd(&mut self, odd: &Odd) {
        let (out, format) = self.odd;
        if format == Format::Json {
            say::json_line(&json!({"anomaly": odd}));
            return;
        }
        if self.open.is_some() {
            self.end_line(" <unfinished ...>");
        }
        out.line(&odd.line());
    }

    /// A remark, always on standard error.
    pub fn note(&mut self, text: &str) {
        if self.open.is_some() {
            self.end_line(" <unfinished ...>");
        }
        Out::Stderr.line(&format!("vigia: {text}"));
    }

    /// Ends a line that has none.
    pub fn finish(&mut self) {
        if self.open.is_some() {
            self.end_line("");
        }
    }
}
