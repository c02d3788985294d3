//! What an agent may say: the border where its messages become rows and sums.
//!
//! An agent drops a batch that is refused as invalid, so one bad item must not cost the others: items that do
//! not hold are left out and counted by reason; a batch is refused only where it cannot be told what it is.
//! A node may speak of what its NodePlan names or named of late, and of nothing else.

use std::collections::BTreeMap;

use jiff::Timestamp;
use vigia_crds::is_digest;
use vigia_model::context::{Context, ORDER};
use vigia_model::estimators::trees;
use vigia_model::histogram::BINS;
use vigia_model::schema::{Schema, is_value};
use vigia_model::syscalls::{ALL_CALLS, is_fingerprint};
use vigia_proto::v1::{ReportBatch, Sample, ScoreSummary, Verdict, VersionSpan};
use vigia_proto::{MAX_ALERTS, MAX_SAMPLES, MAX_SCORES, MAX_SPANS};

use super::allowed::Allowed;
use crate::model::trace::Done;
use crate::store::{Row, Summary};

const _: () = assert!(
    vigia_proto::MAX_GRAMS == vigia_model::context::MAX_GRAMS,
    "what is made of a window must find room in what is said of it"
);

/// A clock that is further off than this is corrected.
pub const MAX_SKEW_MS: i64 = 10_000;
/// Windows that are older than this say nothing of the present.
const MAX_AGE_MS: i64 = 7 * 86_400_000;
/// Shortest and longest window, as TraceProfile has them, with room for a late drain.
const WINDOW_MS: std::ops::RangeInclusive<i64> = 100..=900_000;
/// Most windows that one summary may count.
const MAX_WINDOWS: u64 = 10_000_000;
/// Longest name in Kubernetes.
const MAX_NAME: usize = 253;

/// Why an item is left out, as a metric's label.
pub type Reason = &'static str;

/// A value is not one that there can be.
const BAD_NUMBER: Reason = "BadNumber";

/// A batch that held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Instance of the agent's state.
    pub instance: String,
    /// Number of the batch.
    pub sequence: u64,
    /// What to tell people.
    pub alerts: Vec<Verdict>,
    /// What to merge.
    pub summaries: Vec<Summary>,
    /// What to keep for training.
    pub rows: Vec<Row>,
    /// What the node did with versions of rollouts that are traced.
    pub versions: Vec<Done>,
    /// How far the agent's clock is ahead, where that is too far: times were corrected by it.
    pub skew_ms: Option<i64>,
    /// Items left out, by reason.
    pub left_out: BTreeMap<Reason, u64>,
    /// What the agent itself lost since its start.
    pub dropped_batches: u64,
    /// System calls that it did not count since its start.
    pub lost_calls: u64,
    /// The first of the windows left out that have numbers of no window: whose it is.
    pub impossible: Option<Impossible>,
}

/// A window that nothing can have counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impossible {
    /// Namespace of its profile.
    pub namespace: String,
    /// Name of its profile.
    pub profile: String,
    /// Keyed hash that tells its container apart.
    pub source: u64,
    /// When it began, by the agent's clock.
    pub start_ms: i64,
}

/// Why a batch is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key of de-duplication is missing or none.
    #[error("instance must be 1 to 64 letters, digits or '-'")]
    Instance,
    /// The same.
    #[error("sequence must be from 1")]
    Sequence,
    /// More than an agent has to say.
    #[error(
        "a batch has at most {MAX_ALERTS} alerts, {MAX_SCORES} scores, {MAX_SAMPLES} samples and {MAX_SPANS} versions"
    )]
    Size,
}

/// Checks a batch of `node`, received at `now_ms`.
///
/// # Errors
/// [`Refused`].
pub fn check(batch: ReportBatch, node: &str, allowed: &Allowed, now_ms: i64) -> Result<Report, Refused> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if batch.instance.is_empty() || batch.instance.len() > 64 || !batch.instance.bytes().all(plain) {
        return Err(Refused::Instance);
    }
    if batch.sequence == 0 {
        return Err(Refused::Sequence);
    }
    let sizes = [
        (batch.alerts.len(), MAX_ALERTS),
        (batch.scores.len(), MAX_SCORES),
        (batch.samples.len(), MAX_SAMPLES),
        (batch.versions.len(), MAX_SPANS),
    ];
    if sizes.iter().any(|(size, most)| size > most) {
        return Err(Refused::Size);
    }
    let skew_ms = batch.sent_unix_ms.saturating_sub(now_ms);
    let skew_ms = (skew_ms.unsigned_abs() > MAX_SKEW_MS.unsigned_abs()).then_some(skew_ms);
    let clock = Clock {
        ahead_ms: skew_ms.unwrap_or(0),
        now_ms,
    };
    let mut report = Report {
        instance: batch.instance,
        sequence: batch.sequence,
        skew_ms,
        dropped_batches: batch.dropped_batches,
        lost_calls: batch.lost_calls,
        ..Report::default()
    };
    let mut left_out = BTreeMap::new();
    let mut leave = |reason: Reason| *left_out.entry(reason).or_insert(0) += 1;
    for alert in batch.alerts {
        match check_alert(alert, allowed, clock) {
            Ok(alert) => report.alerts.push(alert),
            Err(reason) => leave(reason),
        }
    }
    for scores in batch.scores {
        match check_scores(scores, node, allowed, clock) {
            Ok(summary) => report.summaries.push(summary),
            Err(reason) => leave(reason),
        }
    }
    for sample in batch.samples {
        let whose = Impossible {
            namespace: sample.namespace.clone(),
            profile: sample.profile.clone(),
            source: sample.source,
            start_ms: sample.window_start_unix_ms,
        };
        match check_sample(sample, allowed, clock) {
            Ok(row) => report.rows.push(row),
            Err(reason) => {
                if reason == BAD_NUMBER {
                    report.impossible.get_or_insert(whose);
                }
                leave(reason);
            }
        }
    }
    for version in batch.versions {
        match check_version(version, allowed, clock) {
            Ok(version) => report.versions.push(version),
            Err(reason) => leave(reason),
        }
    }
    report.left_out = left_out;
    Ok(report)
}

/// The agent's times as ours.
#[derive(Clone, Copy)]
struct Clock {
    ahead_ms: i64,
    now_ms: i64,
}

impl Clock {
    fn ours(self, theirs_ms: i64) -> Result<i64, Reason> {
        // Never later than now: nothing may be put into the future, whatever a clock says.
        let ours = theirs_ms.saturating_sub(self.ahead_ms).min(self.now_ms);
        if ours < self.now_ms.saturating_sub(MAX_AGE_MS) {
            return Err("TooOld");
        }
        Ok(ours)
    }
}

fn check_alert(mut alert: Verdict, allowed: &Allowed, clock: Clock) -> Result<Verdict, Reason> {
    if !allowed.profile(&alert.namespace, &alert.profile)
        || !allowed.version(&alert.namespace, &alert.model, &alert.digest)
    {
        return Err("NotPlanned");
    }
    let names = [&alert.pod, &alert.pod_uid, &alert.container];
    if !names.iter().all(|name| is_name(name)) {
        return Err("BadName");
    }
    let unit = 0.0..=1.0;
    if !unit.contains(&alert.score) || !unit.contains(&alert.p_value) || !unit.contains(&alert.threshold) {
        return Err(BAD_NUMBER);
    }
    if !WINDOW_MS.contains(&alert.window_ms) {
        return Err("BadWindow");
    }
    alert.window_start_unix_ms = clock.ours(alert.window_start_unix_ms)?;
    alert.drivers.truncate(3);
    let rate = |r: f64| (0.0..=1e12).contains(&r);
    let drives = |d: &vigia_proto::v1::Driver| {
        let named = d.syscall.bytes().all(|b| b.is_ascii_graphic());
        named
            && (1..=64).contains(&d.syscall.len())
            && rate(d.observed_per_second)
            && rate(d.expected_per_second)
    };
    alert.drivers.retain(drives);
    alert.sequences.truncate(3);
    let named = |name: &String| (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    alert.sequences.retain(|sequence| {
        (2..=ORDER).contains(&sequence.calls.len())
            && sequence.calls.iter().all(named)
            && sequence.times > 0
            && sequence.surprise.is_none_or(rate)
    });
    if !named(&alert.estimator) {
        alert.estimator.clear();
    }
    if !trees::NAMES[1..].contains(&alert.class.as_str()) {
        alert.class.clear();
    }
    Ok(alert)
}

fn check_scores(
    scores: ScoreSummary,
    node: &str,
    allowed: &Allowed,
    clock: Clock,
) -> Result<Summary, Reason> {
    if !is_digest(&scores.digest) || !allowed.version(&scores.namespace, &scores.model, &scores.digest) {
        return Err("NotPlanned");
    }
    if scores.histogram.len() != BINS {
        return Err("BadHistogram");
    }
    let counted = scores
        .histogram
        .iter()
        .try_fold(0u64, |sum, n| sum.checked_add(*n));
    let sound = (1..=MAX_WINDOWS).contains(&scores.windows)
        && counted == Some(scores.windows)
        && scores.above_threshold <= scores.windows
        && scores.first_window_unix_ms <= scores.last_window_unix_ms;
    if !sound {
        return Err("BadHistogram");
    }
    Ok(Summary {
        namespace: scores.namespace,
        model: scores.model,
        digest: scores.digest,
        node: node.to_owned(),
        start_ms: clock.ours(scores.first_window_unix_ms)?,
        last_ms: clock.ours(scores.last_window_unix_ms)?,
        windows: scores.windows,
        above_threshold: scores.above_threshold,
        histogram: scores.histogram,
    })
}

fn check_sample(sample: Sample, allowed: &Allowed, clock: Clock) -> Result<Row, Reason> {
    if !allowed.profile(&sample.namespace, &sample.profile) {
        return Err("NotPlanned");
    }
    let Some(schema) = Schema::all().find(|s| s.hash().to_string() == sample.schema) else {
        return Err("UnknownSchema");
    };
    if sample.features.len() != schema.width() {
        return Err("BadWidth");
    }
    if !sample.features.iter().all(|&f| is_value(f)) {
        return Err(BAD_NUMBER);
    }
    if !WINDOW_MS.contains(&sample.window_ms) {
        return Err("BadWindow");
    }
    // An agent of a version that did not say it is taken to let in all of them, as most do: where its profile leaves
    // out some, its windows are not trained on.
    let capture = match sample.capture {
        unsaid if unsaid.is_empty() => ALL_CALLS.to_owned(),
        said => said,
    };
    if !is_fingerprint(&capture) {
        return Err("BadCapture");
    }
    if !allowed.capture(&sample.namespace, &sample.profile, &capture) {
        return Err("NotPlanned");
    }
    let Ok(context) = Context::counted(&sample.sequences, &sample.sequence_counts, sample.past) else {
        return Err("BadContext");
    };
    Ok(Row {
        namespace: sample.namespace.into(),
        profile: sample.profile.into(),
        source: sample.source,
        start_ms: clock.ours(sample.window_start_unix_ms)?,
        window_ms: sample.window_ms,
        schema: sample.schema.into(),
        features: sample.features,
        above_threshold: sample.above_threshold,
        unscored: sample.unscored,
        capture: capture.into(),
        context,
    })
}

/// Whether its trace is one of ours is for who tells it to say.
fn check_version(said: VersionSpan, allowed: &Allowed, clock: Clock) -> Result<Done, Reason> {
    if !allowed.version(&said.namespace, &said.model, &said.digest) {
        return Err("NotPlanned");
    }
    let parent = said.traceparent.parse().map_err(|_| "BadTrace")?;
    let is_word = said.reason.bytes().all(|b| b.is_ascii_alphanumeric());
    if said.reason.len() > 64 || !is_word {
        return Err("BadName");
    }
    let ours = |us: i64| {
        let ms = clock.ours(us / 1000)?;
        Timestamp::from_microsecond(ms * 1000 + us.rem_euclid(1000)).map_err(|_| BAD_NUMBER)
    };
    Ok(Done {
        parent,
        state: said.state(),
        start: ours(said.start_unix_us)?,
        end: ours(said.end_unix_us)?,
        namespace: said.namespace,
        model: said.model,
        digest: said.digest,
        reason: said.reason,
    })
}

/// A name or UID as Kubernetes has them.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)
}

#[cfg(test)]
pub(crate) mod tests;
