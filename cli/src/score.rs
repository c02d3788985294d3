//! `vigia score`: verdicts on recorded windows.

use serde::Serialize;
use vigia_model::calibration::Severity;
use vigia_model::pipeline::{ScoreError, Scratch, ToldSequence, Verdict};
use vigia_model::syscalls::Arch;

use crate::alike::{Calls, Learnt};
use crate::args::{self, Format, Score};
use crate::error::{Failure, NO};
use crate::input::{self, Pasts, Windows};
use crate::record::{Edge, Opinion};
use crate::say::{self, Out};
use crate::worth;

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    of: &'a Of<'a>,
    #[serde(flatten)]
    opinion: Opinion,
}

/// Which window a verdict is of.
#[derive(Serialize)]
pub struct Of<'a> {
    /// Milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Its length.
    pub window_ms: u32,
    /// What was traced.
    pub target: &'a str,
    /// See [`crate::record::Record::edge`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edge: Option<Edge>,
    /// No call was made.
    #[serde(skip)]
    pub is_idle: bool,
}

/// Windows by severity.
#[derive(Default)]
struct Tally {
    windows: usize,
    /// Of which nothing is known that the model looks at.
    silent: usize,
    /// So many of those have no call at all.
    idle: usize,
    by: [usize; 4],
    /// Those that are shown, but for how a command began or ended: that is odd, and nobody's fault.
    odd: usize,
}

/// Scores files of windows.
pub fn run(args: &Score) -> Result<u8, Failure> {
    // Each window would be told and counted twice.
    let files: Vec<String> = args.input.iter().map(|path| path.display().to_string()).collect();
    args::once("--input", &files)?;
    let model = input::model(&args.model, &args.trusted)?;
    worth::warn_of(&args.model, &model.metadata);
    let pipeline = &model.pipeline;
    let mut tally = Tally::default();
    let learnt = Learnt::of(&model.metadata);
    for path in &args.input {
        let (mut lengths, mut others, before) = (Vec::new(), Vec::new(), tally.all());
        match input::windows(path, pipeline.schema())? {
            Windows::Rows(rows) => {
                lengths.extend(rows.about().iter().map(|about| about.window_ms));
                for (i, about) in rows.about().iter().enumerate() {
                    if !learnt.fits(about.capture) {
                        others.extend(about.capture);
                        continue;
                    }
                    let context = &rows.contexts()[i];
                    let scored = pipeline.score_vector(rows.row(i), context);
                    // Of what ran, its places alone are left.
                    let none = std::iter::empty::<[u32; 0]>();
                    let why = |verdict: &Verdict| pipeline.sequences(verdict, context, Arch::NATIVE, none);
                    let of = Of {
                        started_ms: about.started_ms,
                        window_ms: about.window_ms,
                        target: &format!("{:016x}", about.source),
                        edge: None,
                        is_idle: rows.row(i).iter().all(|value| *value == 0.0),
                    };
                    tally
                        .take(args, scored, why, &of)
                        .map_err(|error| Failure::read(path, error))?;
                }
            }
            Windows::Whole(windows) => {
                let whole = windows.iter().filter(|seen| seen.edge.is_none());
                lengths.extend(whole.map(|seen| seen.window.duration_ms));
                let mut scratch = Scratch::default();
                let mut pasts = Pasts::default();
                for seen in &windows {
                    // First, or it would be what came before the next one.
                    if !learnt.fits(seen.capture) {
                        others.extend(seen.capture);
                        continue;
                    }
                    let context = pasts.before(pipeline.schema(), seen);
                    let scored = pipeline.score_within(&seen.window, &context, &mut scratch);
                    let why = |verdict: &Verdict| seen.why(pipeline, verdict, &context);
                    let of = Of {
                        started_ms: i64::try_from(seen.window.started_ms).unwrap_or(i64::MAX),
                        window_ms: seen.window.duration_ms,
                        target: &seen.target,
                        edge: seen.edge,
                        is_idle: seen.window.calls.is_empty(),
                    };
                    tally
                        .take(args, scored, why, &of)
                        .map_err(|error| Failure::read(path, error))?;
                }
            }
        }
        if let Some(other) = others.first() {
            if tally.all() == before {
                return Err(learnt.of_other_calls(&args.model, *other, Calls::Recorded));
            }
            Out::Stderr.line(&format!(
                "{}: {} left out, of other system calls than the model was trained on (-e)",
                path.display(),
                say::windows(others.len())
            ));
        }
        if let Some(odd) = learnt.other_lengths(&lengths) {
            Out::Stderr.line(&format!("{}: {odd}", path.display()));
        }
    }
    if tally.all() == 0 && args.fail {
        // That nothing is odd cannot be said of nothing.
        return Err(
            Failure::input(format!("{}: no window in it to score", files.join(", ")))
                .next("record it again: trace for longer, or with a shorter --window"),
        );
    }
    if args.format == Format::Text {
        let [none, low, medium, high] = tally.by;
        Out::Stdout.line(&format!(
            "{}: {high} high, {medium} medium, {low} low, {none} none",
            say::windows(tally.windows)
        ));
    }
    if tally.idle > 0 {
        Out::Stderr.line(&format!("{} more have no score: no call in them", tally.idle));
    }
    let silent = tally.silent - tally.idle;
    if silent > 0 {
        Out::Stderr.line(&format!(
            "{silent} more have no score: nothing in them that the model looks at. Sequences of calls are recorded by \
             `vigia trace --sequences` and by agents that trace in mode Sampled or Full; forecasts need windows before"
        ));
    }
    Ok(if args.fail && tally.odd > 0 { NO } else { 0 })
}

impl Tally {
    fn all(&self) -> usize {
        self.windows + self.silent
    }

    fn take(
        &mut self,
        args: &Score,
        scored: Result<Verdict, ScoreError>,
        why: impl FnOnce(&Verdict) -> Vec<ToldSequence>,
        of: &Of<'_>,
    ) -> Result<(), ScoreError> {
        match scored {
            Ok(verdict) => self.add(args, &verdict, why, of),
            Err(ScoreError::Silent) => {
                self.silent += 1;
                self.idle += usize::from(of.is_idle);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn add(
        &mut self,
        args: &Score,
        verdict: &Verdict,
        why: impl FnOnce(&Verdict) -> Vec<ToldSequence>,
        of: &Of<'_>,
    ) {
        self.windows += 1;
        self.by[verdict.severity as usize] += 1;
        if verdict.severity < args.from {
            return;
        }
        self.odd += usize::from(of.edge.is_none());
        let opinion = Opinion::new(verdict, why(verdict));
        match args.format {
            Format::Json => say::json_line(&Line { of, opinion }),
            Format::Text => Out::Stdout.line(&verdict_line(verdict.severity, &opinion, of)),
        }
    }
}

/// One verdict for people.
pub fn verdict_line(severity: Severity, opinion: &Opinion, of: &Of<'_>) -> String {
    let style = say::style(severity);
    format!(
        "{} {}{} {style}{:<6}{style:#} score {:.2} p {:.1e} by {}: {}",
        say::time(of.started_ms),
        say::plain(of.target),
        match of.edge {
            Some(Edge::Start) => " (its start)",
            Some(Edge::End) => " (its end)",
            None => "",
        },
        opinion.severity,
        opinion.score,
        opinion.p_value,
        opinion.by(),
        opinion.because()
    )
}
