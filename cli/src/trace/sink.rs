//! Where windows go: to the report, to a model that scores them, to what is recorded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use vigia_agent::window::{Closed, Detail, Sequences};
use vigia_model::artifact::Artifact;
use vigia_model::calibration::Severity;
use vigia_model::context::Context;
use vigia_model::pipeline::{EstimatorKind, ScoreError, Scratch};
use vigia_model::schema::Schema;
use vigia_model::syscalls::{Arch, Fingerprint};
use vigia_model::window::{Calls, Window};

use super::lesson::{self, Lesson};
use super::target::{self, Keep};
use super::{WARM_UP, table};
use crate::analysis::baseline::{self, Difference, Run};
use crate::analysis::{self, Analysis};
use crate::args::{Format, Trace};
use crate::error::Failure;
use crate::input::{self, Seen};
use crate::record::{Edge, Opinion, Record};
use crate::say::{self, Out};
use crate::score::{self, Of};
use crate::times::{self, Times};

/// See the module's head.
pub struct Sink<'a> {
    args: &'a Trace,
    target: String,
    out: Out,
    model: Option<(Artifact, Scratch)>,
    /// Which calls are looked at.
    capture: Option<Fingerprint>,
    /// Whether it matters which calls come after which.
    sequences: bool,
    lesson: Lesson<'a>,
    baseline: Option<Run>,
    pasts: input::Pasts,
    total: Total,
    verdicts: Verdicts,
    /// Times and sequences of calls that found no room.
    unkept: u64,
}

/// Verdicts of a document, which are kept until it is written, some KiB each: windows of five and a half hours where
/// nothing is said of their length.
const MAX_VERDICTS: usize = 10_000;

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
    #[serde(flatten)]
    verdicts: &'a Verdicts,
}

/// Verdicts of a document, which has them at the end: those for which there was room.
#[derive(Default, Serialize)]
struct Verdicts {
    #[serde(rename = "verdicts", skip_serializing_if = "Vec::is_empty")]
    kept: Vec<Scored>,
    /// How many more there were.
    #[serde(rename = "verdicts_left_out", skip_serializing_if = "is_none")]
    left_out: u64,
}

impl Verdicts {
    /// Odd windows have as much room again, so that ordinary ones do not push them out.
    fn take(&mut self, scored: Scored, is_odd: bool) {
        if self.kept.len() < MAX_VERDICTS * (1 + usize::from(is_odd)) {
            self.kept.push(scored);
        } else {
            self.left_out += 1;
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

/// What a model makes of a window, as its line would say it.
#[derive(Serialize)]
struct Scored {
    started_ms: u64,
    duration_ms: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    edge: Option<Edge>,
    verdict: Opinion,
}

impl Scored {
    fn of(record: Record) -> Option<Self> {
        Some(Self {
            started_ms: record.started_ms,
            duration_ms: record.duration_ms,
            edge: record.edge,
            verdict: record.verdict?,
        })
    }
}

impl<'a> Sink<'a> {
    /// Opens what can be opened before the target starts.
    pub fn new(args: &'a Trace, model: Option<Artifact>) -> Result<Self, Failure> {
        let looks = |model: &Artifact| model.pipeline.kinds().any(EstimatorKind::is_order);
        let capture = args.capture();
        let baseline = args.baseline.as_deref().map(baseline::read).transpose()?;
        if let Some(other) = baseline.as_ref().and_then(|run| run.of_other_calls(capture)) {
            Out::Stderr.line(&other);
        }
        Ok(Self {
            args,
            capture,
            sequences: args.sequences || model.as_ref().is_some_and(looks),
            target: target::name(args),
            out: args.out(),
            model: model.map(|model| (model, Scratch::default())),
            lesson: Lesson::new(args)?,
            baseline,
            pasts: input::Pasts::default(),
            total: Total::default(),
            verdicts: Verdicts::default(),
            unkept: 0,
        })
    }

    /// What is to be kept of calls beside their counts.
    pub fn wanted(&self) -> Keep {
        Keep {
            times: self.args.wants_times(),
            sequences: self.sequences,
        }
    }

    /// So many times or sequences of calls found no room.
    pub fn unkept(&mut self, calls: u64) {
        self.unkept = self.unkept.saturating_add(calls);
    }

    /// Takes a window that has ended.
    pub fn window(&mut self, closed: &Closed<()>, times: &Times) -> Result<(), Failure> {
        let after = Duration::from_millis(self.total.duration_ms.into());
        let warm_up = self.args.warm_up.unwrap_or(WARM_UP);
        let edge = lesson::edge(!self.args.command.is_empty(), closed, after, warm_up);
        let seen = Seen {
            window: closed.window.clone(),
            target: self.target.clone(),
            sequences: self.sequences(closed),
            edge,
            capture: self.capture,
        };
        let window = &seen.window;
        self.total.add(window, times);
        let mut record = Record::new(window, &self.target, closed.partial)
            .with_sequences(&seen.sequences)
            .at(edge)
            .of(self.capture);
        if self.args.wants_times() {
            record = record.with_times(times);
        }
        let mut severity = Severity::None;
        let context = if closed.partial {
            Context::default()
        } else {
            self.pasts.before(Schema::syscalls_v1(), &seen)
        };
        if let Some((model, scratch)) = &mut self.model
            && !closed.partial
        {
            match model.pipeline.score_within(window, &context, scratch) {
                Ok(verdict) => {
                    severity = verdict.severity;
                    let why = match severity {
                        Severity::None => vec![],
                        _ => seen.why(&model.pipeline, &verdict, &context),
                    };
                    record.verdict = Some(Opinion::new(&verdict, why));
                }
                // The windows before tell nothing yet.
                Err(ScoreError::Silent) => {}
                Err(error) => return Err(Failure::tracing(error.to_string())),
            }
        }
        self.lesson.take(&seen, &record, context)?;
        // Of a run that is compared, the comparison is what was asked for.
        let counts_later = self.args.summary && self.model.is_none();
        let quiet = counts_later || self.args.prints_lines() || self.compares_only();
        if !quiet {
            self.report(record, severity);
        }
        Ok(())
    }

    /// Sequences of calls that are looked at, if any are.
    fn sequences(&self, closed: &Closed<()>) -> Sequences {
        if !self.sequences {
            return Sequences::new();
        }
        let mut kept = Detail {
            durations: Vec::new(),
            sequences: closed.detail.sequences.clone(),
        };
        if let Some(filter) = &self.args.filter {
            kept.retain(|nr| filter.has(nr));
        }
        kept.sequences
    }

    fn compares_only(&self) -> bool {
        self.baseline.is_some() && self.args.window.is_none() && self.model.is_none()
    }

    fn report(&mut self, record: Record, severity: Severity) {
        match (self.args.format, &record.verdict) {
            (Format::Json, _) if self.args.summary => {
                Scored::of(record)
                    .into_iter()
                    .for_each(|scored| self.verdicts.take(scored, severity != Severity::None));
            }
            (Format::Json, _) => say::json_line(&record),
            (Format::Text, Some(opinion)) => {
                let of = Of {
                    started_ms: i64::try_from(record.started_ms).unwrap_or(i64::MAX),
                    window_ms: record.duration_ms,
                    target: &self.target,
                    edge: record.edge,
                    is_idle: record.syscalls.is_empty(),
                };
                self.out.line(&score::verdict_line(severity, opinion, &of));
            }
            // With a model, verdicts are what was asked for, and a partial window has none.
            (Format::Text, None) if self.model.is_some() => {}
            (Format::Text, None) => table::window(&record).iter().for_each(|line| self.out.line(line)),
        }
    }

    /// Closes the file, and says the sum of everything where that was asked for.
    pub fn finish(self) -> Result<(), Failure> {
        let total = self.total.record(&self.target).of(self.capture);
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
                verdicts: &self.verdicts,
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
        if self.unkept > 0 {
            Out::Stderr.line(&format!(
                "warning: system calls whose time or sequence is not kept, because there was no room for more: {}",
                say::count(self.unkept)
            ));
        }
        if self.verdicts.left_out > 0 {
            Out::Stderr.line(&format!(
                "warning: the document has the verdicts of the first {}, and of odd ones as many again; {} are left out: \
                 without -c there is a line for each",
                say::windows(MAX_VERDICTS),
                say::count(self.verdicts.left_out)
            ));
        }
        self.lesson.end(&self.target)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_a_long_trace_has_the_first_verdicts_and_says_how_many_more_there_were() {
        let opinion = json!({"score": 0.2, "p_value": 0.8, "severity": "none", "drivers": []});
        let opinion: Opinion = serde_json::from_value(opinion).expect("an opinion");
        let scored = |started_ms| Scored {
            started_ms,
            duration_ms: 2_000,
            edge: None,
            verdict: opinion.clone(),
        };
        let mut verdicts = Verdicts::default();
        let mut take = |times| {
            for started_ms in 0..times {
                verdicts.take(scored(started_ms), false);
            }
            serde_json::to_value(&verdicts).expect("JSON")
        };
        let full = take(MAX_VERDICTS as u64);
        assert_eq!(full["verdicts"].as_array().map(Vec::len), Some(MAX_VERDICTS));
        assert!(full.get("verdicts_left_out").is_none());
        let over = take(3);
        assert_eq!(over["verdicts"], full["verdicts"]);
        assert_eq!(over["verdicts_left_out"], 3);
        verdicts.take(scored(0), true);
        assert_eq!((verdicts.kept.len(), verdicts.left_out), (MAX_VERDICTS + 1, 3));
    }
}
