//! What of a trace is recorded, and what there is to learn from it: its whole windows, but none in which a command
//! started or ended. To a model that has learnt how a program is loaded, whatever is started later is nothing new.
//!
//! Starting takes as long as it takes, whatever the windows' length: what begins within a fixed time is the start, and that
//! time is the user's to say. The calls themselves are no measure of it: a program that imports its
//! libraries makes the same few of them in its fourth window as in its second.

use std::path::{Path, PathBuf};
use std::time::Duration;

use vigia_agent::window::Closed;
use vigia_model::artifact::write_atomic;
use vigia_model::context::Context;
use vigia_model::pipeline::EstimatorKind;
use vigia_model::schema::Schema;
use vigia_trainer::data::Rows;
use vigia_trainer::fit::Params;
use vigia_trainer::parquet;

use super::recording::Recording;
use super::{WARM_UP, WINDOW};
use crate::alike;
use crate::args::Trace;
use crate::error::Failure;
use crate::files;
use crate::input::{self, Seen};
use crate::record::{Edge, Record};
use crate::say::{self, Out};
use crate::train;
use crate::worth;

/// What of a command is in a window beside its work: nothing, where those that are traced ran before and after. The window
/// began so long after the command, which takes `warm_up` to start.
pub fn edge(of_command: bool, closed: &Closed<()>, after: Duration, warm_up: Duration) -> Option<Edge> {
    if !of_command {
        return None;
    }
    let is_start = closed.age == 0 || after < warm_up;
    match is_start {
        true => Some(Edge::Start),
        false => closed.last.then_some(Edge::End),
    }
}

enum Recorder {
    Parquet(PathBuf),
    Lines(Recording),
}

/// See the module's head.
pub struct Lesson<'a> {
    args: &'a Trace,
    file: Option<Recorder>,
    /// Kept where they are needed at the end.
    rows: Option<Rows>,
    windows: usize,
    /// How long they were together.
    lasted: Duration,
    /// Of which something can be learnt.
    whole: usize,
    /// There was no room for one of these.
    is_full: bool,
}

impl<'a> Lesson<'a> {
    /// Opens what can be opened before the target starts.
    pub fn new(args: &'a Trace) -> Result<Self, Failure> {
        let file = args.output.as_deref().map(open).transpose()?;
        if let Some(path) = &args.save_model {
            files::writable(path)?;
        }
        let keeps = args.save_model.is_some() || matches!(file, Some(Recorder::Parquet(_)));
        Ok(Self {
            args,
            file,
            rows: keeps.then(|| Rows::new(Schema::syscalls_v1())),
            windows: 0,
            lasted: Duration::ZERO,
            whole: 0,
            is_full: false,
        })
    }

    /// Takes a window, the line that says it, and what is known beside.
    pub fn take(&mut self, seen: &Seen, record: &Record, context: Context) -> Result<(), Failure> {
        self.windows += 1;
        self.lasted += Duration::from_millis(seen.window.duration_ms.into());
        if let Some(Recorder::Lines(file)) = &mut self.file {
            let written = file.write(record);
            written.map_err(|error| Failure::write(file.path(), error))?;
        }
        if record.partial || seen.edge.is_some() {
            return Ok(());
        }
        if self.is_full {
            return Ok(());
        }
        if let Some(rows) = &mut self.rows {
            if let Err(full) = rows.held_with(&context) {
                // What there is must not be lost for what comes now.
                self.is_full = true;
                Out::Stderr.line(&format!(
                    "vigia: no room for {full}. What comes now is not learnt from"
                ));
                return Ok(());
            }
            input::push(rows, seen, context).map_err(Failure::tracing)?;
        }
        self.whole += 1;
        Ok(())
    }

    /// Closes the file, and trains, where that was asked for.
    pub fn end(mut self, target: &str) -> Result<(), Failure> {
        match &mut self.file {
            Some(Recorder::Lines(file)) => {
                let begun = file.begin();
                begun.map_err(|error| Failure::write(file.path(), error))?;
            }
            Some(Recorder::Parquet(path))
                if self.whole > 0
                    && let Some(rows) = &self.rows =>
            {
                let bytes = parquet::write(rows, "", target).map_err(|error| Failure::write(path, error))?;
                write_atomic(path, &bytes).map_err(|error| Failure::write(path, error))?;
                Out::Stderr.line(&format!("{} in {}", say::windows(self.whole), path.display()));
            }
            _ => {}
        }
        if self.args.save_model.is_some() {
            train::held_out(self.whole).map_err(|few| few.next(self.longer()))?;
        }
        if let (Some(path), Some(mut rows)) = (&self.args.save_model, self.rows.take()) {
            rows.sort();
            learn(rows, path, target)?;
        }
        match &self.file {
            Some(Recorder::Parquet(path)) if self.whole == 0 => Err(self.nothing(path)),
            // For people, or to compare with, lines are good all the same.
            Some(Recorder::Lines(file)) if self.whole == 0 => {
                Out::Stderr.line(&format!(
                    "warning: {}; {}",
                    self.nothing(file.path()).what(),
                    self.longer()
                ));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn nothing(&self, path: &Path) -> Failure {
        let windows = say::windows(self.windows);
        Failure::input(format!("{}: nothing to learn from in {windows}", path.display())).next(self.longer())
    }

    /// What to do where there were too few windows.
    fn longer(&self) -> String {
        let length = self.args.window.unwrap_or(WINDOW);
        let warm_up = self.args.warm_up.unwrap_or(WARM_UP);
        longer(
            length,
            (!self.args.command.is_empty()).then_some(warm_up),
            self.lasted,
        )
    }
}

/// What to do where a trace of this length had too few windows; `warm_up` is of one that began with a command.
fn longer(window: Duration, warm_up: Option<Duration>, lasted: Duration) -> String {
    let length = window.as_secs_f64();
    let Some(warm_up) = warm_up else {
        return format!(
            "trace for longer, or with a --window shorter than {length} s: windows that were cut short teach nothing"
        );
    };
    let start = warm_up.as_secs_f64();
    if lasted <= warm_up {
        // Whatever the windows' length is, all of them begin too early.
        return format!(
            "the trace of {} s was over within the command's first {start} s, from which nothing is learnt (--warm-up): \
             trace for longer, or give a shorter --warm-up, if it starts faster than that",
            lasted.as_secs_f64()
        );
    }
    format!(
        "trace for longer, or with a --window shorter than {length} s: the windows that begin in a command's first \
         {start} s (--warm-up) and that in which it ends teach nothing"
    )
}

fn learn(rows: Rows, path: &Path, target: &str) -> Result<(), Failure> {
    let windows = say::windows(rows.len());
    let bar = say::progress(&format!("training on {windows}"));
    let (captures, _) = alike::of_training(&rows)?;
    let params = Params {
        captures,
        ..train::usual(target)
    };
    let fitted = train::fit_rows(rows, vec![], params)?;
    bar.finish_and_clear();
    write_atomic(path, &fitted.trained.artifact).map_err(|error| Failure::write(path, error))?;
    Out::Stderr.line(&format!("{}: a model of {windows}, unsigned", path.display(),));
    worth::warn(path, &fitted.short, &EstimatorKind::DEFAULT, &fitted.odd);
    Ok(())
}

fn open(path: &Path) -> Result<Recorder, Failure> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("parquet") => {
            files::writable(path)?;
            Ok(Recorder::Parquet(path.to_owned()))
        }
        Some("jsonl") => {
            let file = Recording::open(path).map_err(|error| Failure::write(path, error))?;
            Ok(Recorder::Lines(file))
        }
        _ => Err(Failure::command_line(format!(
            "--output {}: not .parquet and not .jsonl",
            path.display()
        ))
        .next("end the name with .parquet or .jsonl")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_agent::window::Detail;
    use vigia_model::syscalls::Arch;
    use vigia_model::window::Window;

    #[test]
    fn what_would_help_is_advised() {
        let s = Duration::from_secs;
        let said = longer(s(2), Some(s(30)), Duration::from_millis(2500));
        assert!(
            said.contains("2.5 s was over within the command's first 30 s"),
            "{said}"
        );
        assert!(
            said.contains("a shorter --warm-up") && !said.contains("--window"),
            "{said}"
        );
        let said = longer(s(10), Some(s(2)), s(5));
        assert!(
            said.contains("a --window shorter than 10 s: the windows that begin in a command's first 2 s"),
            "{said}"
        );
        let said = longer(s(2), None, s(1));
        assert!(said.contains("--window") && !said.contains("--warm-up"), "{said}");
    }

    #[test]
    fn a_commands_start_and_end_are_no_work_and_those_of_a_trace_alone_are() {
        let closed = |age, last| Closed {
            key: (),
            window: Window::new(Arch::NATIVE, 0, 1000, []),
            detail: Detail::default(),
            partial: false,
            age,
            last,
        };
        let edges = |of_command, after_ms| {
            let after = Duration::from_millis(after_ms);
            [(0, false), (0, true), (9, false), (9, true)]
                .map(|(age, last)| edge(of_command, &closed(age, last), after, Duration::from_secs(2)))
        };
        let (start, end) = (Some(Edge::Start), Some(Edge::End));
        // However short windows are, and however long.
        assert_eq!(edges(true, 1999), [start; 4]);
        assert_eq!(edges(true, 2000), [start, start, None, end]);
        assert_eq!(edges(false, 0), [None; 4]);
        // The first window is the start however fast that is said to be.
        let first = edge(true, &closed(0, false), Duration::ZERO, Duration::ZERO);
        let second = edge(
            true,
            &closed(1, false),
            Duration::from_millis(100),
            Duration::ZERO,
        );
        assert_eq!((first, second), (start, None));
    }
}
