//! Where windows go: to the report, to a file, to a model.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use vigia_model::artifact::{Artifact, write_atomic};
use vigia_model::calibration::Severity;
use vigia_model::context::Context;
use vigia_model::pipeline::{ScoreError, Scratch};
use vigia_model::schema::Schema;
use vigia_model::syscalls::Arch;
use vigia_model::window::{Calls, Window};
use vigia_trainer::data::Rows;
use vigia_trainer::parquet;

use super::{table, target};
use crate::analysis::baseline::{self, Difference, Run};
use crate::analysis::realtime::Odd;
use crate::analysis::{self, Analysis};
use crate::args::{Format, Trace};
use crate::error::Failure;
use crate::record::{Opinion, Record};
use crate::say::{self, Out};
use crate::times::{self, Times};
use crate::{input, score, train};

enum Recorder {
    Parquet(PathBuf, Rows),
    Lines(PathBuf, BufWriter<File>),
}

/// See the module's head.
pub struct Sink<'a> {
    args: &'a Trace,
    target: String,
    out: Out,
    model: Option<(Artifact, Scratch)>,
    recorder: Option<Recorder>,
    /// Windows to train on.
    lesson: Option<Rows>,
    baseline: Option<Run>,
    pasts: input::Pasts,
    total: Total,
}

/// Sums of a whole trace.
#[derive(Default)]
struct Total {
    started_ms: Option<u64>,
    duration_ms: u32,
    lost: u64,
    calls: BTreeMap<u32, (u64, u64)>,
    times: Times,
}

/// The document of `-c --format json`.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    total: &'a Record,
    #[serde(skip_serializing_if = "Option::is_none")]
    ml_analysis: Option<Analysis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Difference>,
}

impl<'a> Sink<'a> {
    /// Opens what can be opened before the target starts.
    pub fn new(args: &'a Trace, model: Option<Artifact>) -> Result<Self, Failure> {
        let recorder = args.output.as_deref().map(recorder).transpose()?;
        Ok(Self {
            args,
            target: target::name(args),
            out: args.out(),
            model: model.map(|model| (model, Scratch::default())),
            recorder,
            lesson: lesson(args)?,
            baseline: args.baseline.as_deref().map(baseline::read).transpose()?,
            pasts: input::Pasts::default(),
            total: Total::default(),
        })
    }

    /// Takes a window that has ended.
    pub fn window(&mut self, window: &Window, times: &Times, partial: bool) -> Result<(), Failure> {
        self.total.add(window, times);
        let mut record = Record::new(window, &self.target, partial);
        if self.args.wants_times() {
            record = record.with_times(times);
        }
        let mut severity = Severity::None;
        let context = if partial {
            Context::default()
        } else {
            self.pasts.before(Schema::syscalls_v1(), window, &self.target)
        };
        if let Some((model, scratch)) = &mut self.model
            && !partial
        {
            match model.pipeline.score_within(window, &context, scratch) {
                Ok(verdict) => {
                    severity = verdict.severity;
                    record.verdict = Some(Opinion::from(&verdict));
                }
                // The windows before tell nothing yet.
                Err(ScoreError::Silent) => {}
                Err(error) => return Err(Failure::tracing(error.to_string())),
            }
        }
        if let (Some(rows), false) = (&mut self.lesson, partial) {
            input::push(rows, window, &self.target, context.clone()).map_err(Failure::tracing)?;
        }
        match &mut self.recorder {
            Some(Recorder::Parquet(path, rows)) if !partial => {
                input::push(rows, window, &self.target, context)
                    .map_err(|error| Failure::write(path, error))?;
            }
            Some(Recorder::Lines(path, file)) => {
                write_line(file, &record).map_err(|error| Failure::write(path, error))?
            }
            _ => {}
        }
        // Of a run that is compared, the comparison is what was asked for.
        let quiet = self.args.summary || self.args.prints_lines() || self.compares_only();
        if !quiet {
            self.report(&record, severity);
        }
        Ok(())
    }

    fn compares_only(&self) -> bool {
        self.baseline.is_some() && self.args.window.is_none() && self.model.is_none()
    }

    fn report(&self, record: &Record, severity: Severity) {
        match (self.args.format, &record.verdict) {
            (Format::Json, _) => say::json_line(record),
            (Format::Text, Some(opinion)) => {
                let started = i64::try_from(record.started_ms).unwrap_or(i64::MAX);
                self.out
                    .line(&score::verdict_line(severity, opinion, started, &self.target));
            }
            // With a model, verdicts are what was asked for, and a partial window has none.
            (Format::Text, None) if self.model.is_some() => {}
            (Format::Text, None) => table::window(record).iter().for_each(|line| self.out.line(line)),
        }
    }

    /// Says that a time is odd.
    pub fn odd(&self, odd: &Odd) {
        match self.args.format {
            Format::Json => say::json_line(&json!({"anomaly": odd})),
            Format::Text => self.out.line(&odd.line()),
        }
    }

    /// Closes the file, and says the sum of everything where that was asked for.
    pub fn finish(self) -> Result<(), Failure> {
        let total = self.total.record(&self.target);
        let wanted = &self.args.ml;
        let ml_analysis = wanted
            .is_wanted()
            .then(|| analysis::analyse(&total.samples(), wanted));
        let baseline = self.baseline.as_ref().map(|run| baseline::compare(run, &total));
        match self.args.format {
            Format::Json if self.args.summary => say::json(&Summary {
                total: &total,
                ml_analysis,
                baseline,
            }),
            Format::Json => {
                if let Some(ml_analysis) = ml_analysis {
                    say::json_line(&json!({"ml_analysis": ml_analysis}));
                }
                if let Some(baseline) = baseline {
                    say::json_line(&json!({"baseline": baseline}));
                }
            }
            Format::Text => {
                let table = self.args.summary.then(|| table::summary(&total));
                let analysis = ml_analysis.map(|analysis| analysis.lines());
                let baseline = baseline.map(|difference| difference.lines());
                let lines = table.into_iter().chain(analysis).chain(baseline).flatten();
                lines.for_each(|line| self.out.line(&line));
            }
        }
        if total.lost > 0 {
            Out::Stderr.line(&format!(
                "warning: {} system calls were not counted, because the kernel's table was full",
                say::count(total.lost)
            ));
        }
        if let (Some(rows), Some(path)) = (self.lesson, &self.args.save_model) {
            learn(rows, path, &self.target)?;
        }
        match self.recorder {
            Some(Recorder::Parquet(path, rows)) => {
                let bytes =
                    parquet::write(&rows, "", &self.target).map_err(|error| Failure::write(&path, error))?;
                write_atomic(&path, &bytes).map_err(|error| Failure::write(&path, error))?;
                Out::Stderr.line(&format!("{} in {}", say::windows(rows.len()), path.display()));
            }
            Some(Recorder::Lines(path, mut file)) => {
                file.flush().map_err(|error| Failure::write(&path, error))?
            }
            None => {}
        }
        Ok(())
    }
}

/// What is written at the end needs a folder that is there, which should be known at the beginning.
fn in_a_folder(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    if folder.unwrap_or(Path::new(".")).is_dir() {
        Ok(())
    } else {
        Err(Failure::write(path, "its folder is not there"))
    }
}

fn lesson(args: &Trace) -> Result<Option<Rows>, Failure> {
    let Some(path) = &args.save_model else {
        return Ok(None);
    };
    in_a_folder(path)?;
    Ok(Some(Rows::new(Schema::syscalls_v1())))
}

fn learn(mut rows: Rows, path: &Path, target: &str) -> Result<(), Failure> {
    rows.sort();
    let bar = say::progress(&format!("training on {}", say::windows(rows.len())));
    let fitted = train::fit_rows(&rows, train::usual(target))?;
    bar.finish_and_clear();
    write_atomic(path, &fitted.trained.artifact).map_err(|error| Failure::write(path, error))?;
    Out::Stderr.line(&format!(
        "{}: a model of {}, unsigned",
        path.display(),
        say::windows(rows.len())
    ));
    Ok(())
}

fn recorder(path: &Path) -> Result<Recorder, Failure> {
    match path.extension().and_then(|e| e.to_str()) {
        Some("parquet") => {
            in_a_folder(path)?;
            Ok(Recorder::Parquet(
                path.to_owned(),
                Rows::new(Schema::syscalls_v1()),
            ))
        }
        Some("jsonl") => {
            let file = File::create(path).map_err(|error| Failure::write(path, error))?;
            Ok(Recorder::Lines(path.to_owned(), BufWriter::new(file)))
        }
        _ => {
            Err(Failure::write(path, "not .parquet and not .jsonl")
                .next("end the name with .parquet or .jsonl"))
        }
    }
}

fn write_line(file: &mut BufWriter<File>, record: &Record) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, record)?;
    file.write_all(b"\n")?;
    // A window is seconds apart from the next: whoever follows the file wants it now.
    file.flush()
}

impl Total {
    fn add(&mut self, window: &Window, times: &Times) {
        times::add(&mut self.times, times);
        self.started_ms.get_or_insert(window.started_ms);
        self.duration_ms = self.duration_ms.saturating_add(window.duration_ms);
        self.lost = self.lost.saturating_add(window.lost);
        for call in &window.calls {
            let sum = self.calls.entry(call.nr).or_default();
            sum.0 = sum.0.saturating_add(call.count);
            sum.1 = sum.1.saturating_add(call.errors);
        }
    }

    fn record(&self, target: &str) -> Record {
        let calls = self
            .calls
            .iter()
            .map(|(&nr, &(count, errors))| Calls { nr, count, errors });
        let window = Window::new(
            Arch::NATIVE,
            self.started_ms.unwrap_or(0),
            self.duration_ms,
            calls,
        );
        Record::new(&window.with_lost(self.lost), target, false).with_times(&self.times)
    }
}
