//! What an agent may say: the border where its messages become rows and sums.
//!
//! An agent drops a batch that is refused as invalid, so one bad item must not cost the others: items that do
//! not hold are left out and counted by reason; a batch is refused only where it cannot be told what it is.
//! A node may speak of what its NodePlan names or named of late, and of nothing else.

use std::collections::{BTreeMap, HashMap};

use prost::Message;
use vigia_crds::{NodePlanSpec, is_digest};
use vigia_model::context::Context;
use vigia_model::histogram::BINS;
use vigia_model::schema::Schema;
use vigia_proto::v1::{ReportBatch, Sample, ScoreSummary, Verdict};
use vigia_proto::{MAX_ALERTS, MAX_SAMPLES, MAX_SCORES};

use crate::store::{Row, Summary};

/// A clock that is further off than this is corrected.
pub const MAX_SKEW_MS: i64 = 10_000;
/// Windows that are older than this say nothing of the present.
const MAX_AGE_MS: i64 = 7 * 86_400_000;
/// What a plan no longer names may still be spoken of for so long: an agent that was cut off delivers then.
const GRACE_MS: i64 = 86_400_000;
/// Shortest and longest window, as TraceProfile has them, with room for a late drain.
const WINDOW_MS: std::ops::RangeInclusive<i64> = 100..=900_000;
/// Most windows that one summary may count.
const MAX_WINDOWS: u64 = 10_000_000;
/// Longest name in Kubernetes.
const MAX_NAME: usize = 253;
/// Most versions of models, and profiles, that one node is remembered to have had.
const MAX_NAMED: usize = 4096;

/// What a node may speak of, with the time until which.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    profiles: HashMap<(String, String), i64>,
    versions: HashMap<(String, String, String), i64>,
}

impl Allowed {
    /// Takes in what the node's plan names now, and forgets what it has not named for long.
    pub fn refresh(&mut self, plan: &NodePlanSpec, now_ms: i64) {
        let until = now_ms.saturating_add(GRACE_MS);
        self.profiles.retain(|_, until| *until > now_ms);
        self.versions.retain(|_, until| *until > now_ms);
        for profile in &plan.profiles {
            if self.profiles.len() < MAX_NAMED {
                let key = (profile.namespace.clone(), profile.name.clone());
                self.profiles.insert(key, until);
            }
        }
        for model in &plan.models {
            for version in &model.versions {
                if self.versions.len() < MAX_NAMED {
                    let key = (
                        model.namespace.clone(),
                        model.name.clone(),
                        version.digest.clone(),
                    );
                    self.versions.insert(key, until);
                }
            }
        }
    }

    /// What may still be spoken of although the plan names it no more. All else a plan says again.
    pub fn beyond(&self, plan: &NodePlanSpec, node: &str, now_ms: i64) -> Vec<LateName> {
        let mut named = Self::default();
        named.refresh(plan, now_ms);
        let late = |namespace: &String, name: &String, digest: &str, until_ms: i64| LateName {
            node: node.to_owned(),
            namespace: namespace.clone(),
            name: name.clone(),
            digest: digest.to_owned(),
            until_ms,
        };
        let profiles = self
            .profiles
            .iter()
            .filter(|(key, _)| !named.profiles.contains_key(*key));
        let versions = self
            .versions
            .iter()
            .filter(|(key, _)| !named.versions.contains_key(*key));
        profiles
            .map(|((namespace, name), until)| late(namespace, name, "", *until))
            .chain(versions.map(|((namespace, name, digest), until)| late(namespace, name, digest, *until)))
            .filter(|late| late.until_ms > now_ms)
            .collect()
    }

    /// Takes in what was named before a restart.
    pub fn recall(&mut self, late: LateName) {
        let LateName {
            namespace,
            name,
            digest,
            until_ms,
            ..
        } = late;
        if self.profiles.len() + self.versions.len() >= MAX_NAMED {
            return;
        }
        let until = if digest.is_empty() {
            self.profiles.entry((namespace, name)).or_insert(until_ms)
        } else {
            self.versions.entry((namespace, name, digest)).or_insert(until_ms)
        };
        *until = until_ms.max(*until);
    }

    /// Whether there is nothing that may be spoken of any more.
    pub fn is_over(&self, now_ms: i64) -> bool {
        let mut until = self.profiles.values().chain(self.versions.values());
        until.all(|until| *until <= now_ms)
    }

    fn profile(&self, namespace: &str, name: &str) -> bool {
        self.profiles
            .contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    fn version(&self, namespace: &str, model: &str, digest: &str) -> bool {
        let key = (namespace.to_owned(), model.to_owned(), digest.to_owned());
        self.versions.contains_key(&key)
    }
}

/// A profile, or a version of a Model, that a node's plan named of late.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LateName {
    /// The node.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Namespace of the profile or Model.
    #[prost(string, tag = "2")]
    pub namespace: String,
    /// Its name.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Digest of the version; empty for a profile.
    #[prost(string, tag = "4")]
    pub digest: String,
    /// Until when the node may speak of it.
    #[prost(int64, tag = "5")]
    pub until_ms: i64,
}

/// What outlives a restart of what nodes may speak of.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LateNames {
    /// By node and name.
    #[prost(message, repeated, tag = "1")]
    pub names: Vec<LateName>,
}

/// Why an item is left out, as a metric's label.
pub type Reason = &'static str;

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
    /// How far the agent's clock is ahead, where that is too far: times were corrected by it.
    pub skew_ms: Option<i64>,
    /// Items left out, by reason.
    pub left_out: BTreeMap<Reason, u64>,
    /// What the agent itself lost since its start.
    pub dropped_batches: u64,
    /// System calls that it did not count since its start.
    pub lost_calls: u64,
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
    #[error("a batch has at most {MAX_ALERTS} alerts, {MAX_SCORES} scores and {MAX_SAMPLES} samples")]
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
        match check_sample(sample, allowed, clock) {
            Ok(row) => report.rows.push(row),
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
        return Err("BadNumber");
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
    if !sample.features.iter().all(|f| f.is_finite()) {
        return Err("BadNumber");
    }
    if !WINDOW_MS.contains(&sample.window_ms) {
        return Err("BadWindow");
    }
    let Ok(context) = Context::counted(&sample.pairs, &sample.pair_counts, sample.past) else {
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
        context,
    })
}

/// A name or UID as Kubernetes has them.
fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use vigia_crds::{PlannedModel, PlannedProfile, PlannedVersion, Task, VersionMode};
    use vigia_proto::v1::Driver;

    pub(crate) const NOW: i64 = 1_800_000_000_000;

    pub(crate) fn digest() -> String {
        format!("sha256:{}", "ab".repeat(32))
    }

    pub(crate) fn plan() -> NodePlanSpec {
        NodePlanSpec {
            profiles: vec![PlannedProfile {
                namespace: "shop".into(),
                name: "redis".into(),
                ..PlannedProfile::default()
            }],
            models: vec![PlannedModel {
                namespace: "shop".into(),
                name: "m".into(),
                task: Task::Anomaly,
                versions: vec![PlannedVersion {
                    name: "m-v1".into(),
                    digest: digest(),
                    size_bytes: 10,
                    mode: VersionMode::Active,
                }],
                trusted_keys: vec![],
            }],
        }
    }

    fn allowed() -> Allowed {
        let mut allowed = Allowed::default();
        allowed.refresh(&plan(), NOW);
        allowed
    }

    pub(crate) fn sample(start_ms: i64) -> Sample {
        let schema = Schema::syscalls_v1();
        Sample {
            namespace: "shop".into(),
            profile: "redis".into(),
            source: 7,
            window_start_unix_ms: start_ms,
            window_ms: 2000,
            schema: schema.hash().to_string(),
            features: vec![0.5; schema.width()],
            above_threshold: false,
            pairs: vec![3, 700],
            pair_counts: vec![9, 1],
            past: vec![1.5; 4],
        }
    }

    pub(crate) fn scores(start_ms: i64) -> ScoreSummary {
        let mut histogram = vec![0; BINS];
        histogram[2] = 5;
        ScoreSummary {
            namespace: "shop".into(),
            profile: "redis".into(),
            model: "m".into(),
            digest: digest(),
            mode: 2,
            windows: 5,
            above_threshold: 1,
            histogram,
            first_window_unix_ms: start_ms,
            last_window_unix_ms: start_ms + 1,
            max_latency_us: 9,
        }
    }

    pub(crate) fn alert() -> Verdict {
        Verdict {
            namespace: "shop".into(),
            profile: "redis".into(),
            model: "m".into(),
            digest: digest(),
            pod: "redis-0".into(),
            pod_uid: "u-1".into(),
            container: "redis".into(),
            window_start_unix_ms: NOW - 5000,
            window_ms: 2000,
            score: 0.9,
            p_value: 1e-6,
            threshold: 0.7,
            severity: 3,
            drivers: vec![Driver {
                syscall: "execve".into(),
                observed_per_second: 3.0,
                expected_per_second: 0.0,
            }],
            consecutive: 2,
        }
    }

    pub(crate) fn batch(sequence: u64) -> ReportBatch {
        ReportBatch {
            instance: "a1".into(),
            sequence,
            sent_unix_ms: NOW,
            alerts: vec![alert()],
            scores: vec![scores(NOW - 5000)],
            samples: vec![sample(NOW - 5000), sample(NOW - 3000)],
            dropped_batches: 0,
            lost_calls: 0,
        }
    }

    fn checked(batch: ReportBatch) -> Report {
        check(batch, "n1", &allowed(), NOW).unwrap()
    }

    #[test]
    fn a_good_batch_is_taken_whole() {
        let report = checked(batch(1));
        assert!(report.left_out.is_empty(), "{:?}", report.left_out);
        assert_eq!(
            (report.alerts.len(), report.summaries.len(), report.rows.len()),
            (1, 1, 2)
        );
        assert_eq!(report.summaries[0].node, "n1");
        assert_eq!(report.skew_ms, None);
    }

    #[test]
    fn one_bad_item_is_left_out_and_the_others_stay() {
        type Spoil = fn(&mut ReportBatch);
        let bad: [(Reason, Spoil); 17] = [
            ("NotPlanned", |b| b.samples[0].profile = "other".into()),
            ("NotPlanned", |b| b.samples[0].namespace = "../x".into()),
            ("NotPlanned", |b| b.scores[0].model = "other".into()),
            ("NotPlanned", |b| b.alerts[0].digest = "sha256:00".into()),
            ("UnknownSchema", |b| b.samples[0].schema = "00".repeat(32)),
            ("BadWidth", |b| b.samples[0].features.push(0.0)),
            ("BadNumber", |b| b.samples[0].features[3] = f32::NAN),
            ("BadNumber", |b| b.samples[0].features[3] = f32::INFINITY),
            ("BadNumber", |b| b.alerts[0].score = f64::NAN),
            ("BadWindow", |b| b.samples[0].window_ms = 0),
            ("BadContext", |b| b.samples[0].pairs = vec![7]),
            ("BadContext", |b| {
                b.samples[0].pairs = vec![7, 7];
                b.samples[0].pair_counts = vec![1, 1];
            }),
            ("BadContext", |b| b.samples[0].past = vec![f32::NAN]),
            ("BadHistogram", |b| b.scores[0].histogram.push(0)),
            ("BadHistogram", |b| b.scores[0].above_threshold = 6),
            ("BadHistogram", |b| b.scores[0].histogram = vec![u64::MAX; BINS]),
            ("BadName", |b| b.alerts[0].pod = "a\nb".into()),
        ];
        for (reason, spoil) in bad {
            let mut spoilt = batch(1);
            spoil(&mut spoilt);
            let report = checked(spoilt);
            assert_eq!(report.left_out, BTreeMap::from([(reason, 1)]));
            assert_eq!(
                report.alerts.len() + report.summaries.len() + report.rows.len(),
                3,
                "{reason}"
            );
        }
    }

    #[test]
    fn a_batch_without_a_key_is_refused() {
        let refused = |spoil: fn(&mut ReportBatch)| {
            let mut spoilt = batch(1);
            spoil(&mut spoilt);
            check(spoilt, "n1", &allowed(), NOW)
        };
        assert_eq!(refused(|b| b.instance.clear()), Err(Refused::Instance));
        assert_eq!(refused(|b| b.instance = "x".repeat(65)), Err(Refused::Instance));
        assert_eq!(refused(|b| b.sequence = 0), Err(Refused::Sequence));
        assert_eq!(
            refused(|b| b.alerts = vec![alert(); MAX_ALERTS + 1]),
            Err(Refused::Size)
        );
    }

    #[test]
    fn a_clock_five_minutes_off_is_corrected() {
        for ahead in [300_000, -300_000] {
            let mut off = batch(1);
            off.sent_unix_ms += ahead;
            off.samples = vec![sample(NOW + ahead - 4000)];
            off.scores = vec![scores(NOW + ahead - 4000)];
            let report = checked(off);
            assert_eq!(report.skew_ms, Some(ahead));
            assert_eq!(report.rows[0].start_ms, NOW - 4000);
            assert_eq!(report.summaries[0].start_ms, NOW - 4000);
        }
        // A little off is left as it is, but never in the future.
        let mut off = batch(1);
        off.sent_unix_ms += MAX_SKEW_MS;
        off.samples = vec![sample(NOW + 9_000)];
        let report = checked(off);
        assert_eq!((report.skew_ms, report.rows[0].start_ms), (None, NOW));
    }

    #[test]
    fn what_a_plan_named_of_late_may_still_be_delivered() {
        let mut allowed = allowed();
        allowed.refresh(&NodePlanSpec::default(), NOW + 3_600_000);
        assert!(check(batch(1), "n1", &allowed, NOW).unwrap().left_out.is_empty());
        allowed.refresh(&NodePlanSpec::default(), NOW + GRACE_MS);
        assert!(allowed.is_over(NOW + GRACE_MS) && !self::allowed().is_over(NOW));
        assert_eq!(
            check(batch(1), "n1", &allowed, NOW).unwrap().left_out["NotPlanned"],
            4
        );
    }

    prop_compose! {
        fn any_sample()(
            known in any::<bool>(), namespace in ".{0,8}", start in any::<i64>(), window_ms in any::<i64>(),
            features in prop::collection::vec(any::<f32>(), 0..140), schema in any::<bool>(),
            pairs in prop::collection::vec(any::<u32>(), 0..4), pair_counts in prop::collection::vec(any::<u32>(), 0..4),
            past in prop::collection::vec(any::<f32>(), 0..40),
        ) -> Sample {
            let good = sample(start);
            Sample {
                namespace: if known { good.namespace } else { namespace },
                schema: if schema { good.schema } else { "x".into() },
                window_ms, features, pairs, pair_counts, past, ..good
            }
        }
    }

    prop_compose! {
        fn any_scores()(
            windows in any::<u64>(), above in any::<u64>(), histogram in prop::collection::vec(any::<u64>(), 0..30),
            first in any::<i64>(), last in any::<i64>(),
        ) -> ScoreSummary {
            ScoreSummary {
                windows, above_threshold: above, histogram, first_window_unix_ms: first, last_window_unix_ms: last,
                ..scores(0)
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Whatever an agent says, what comes out holds, and every item is taken or counted.
        #[test]
        fn what_is_taken_holds(
            instance in "[a-z0-9-]{1,10}", sequence in 1u64.., sent in any::<i64>(),
            samples in prop::collection::vec(any_sample(), 0..5),
            scores in prop::collection::vec(any_scores(), 0..5),
        ) {
            let items = (samples.len() + scores.len()) as u64;
            let batch = ReportBatch { instance, sequence, sent_unix_ms: sent, samples, scores, ..ReportBatch::default() };
            let report = checked(batch);
            let taken = (report.rows.len() + report.summaries.len()) as u64;
            prop_assert_eq!(taken + report.left_out.values().sum::<u64>(), items);
            let present = NOW - MAX_AGE_MS..=NOW;
            for row in &report.rows {
                prop_assert!(present.contains(&row.start_ms));
                prop_assert!(row.features.iter().all(|f| f.is_finite()));
                prop_assert_eq!(row.features.len(), Schema::syscalls_v1().width());
            }
            for summary in &report.summaries {
                prop_assert!(present.contains(&summary.start_ms) && present.contains(&summary.last_ms));
                prop_assert_eq!(summary.histogram.iter().sum::<u64>(), summary.windows);
            }
        }

        /// Bytes from anywhere are a batch or an error, and a batch is checked without a panic.
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(batch) = ReportBatch::decode(bytes.as_slice()) {
                let _ = check(batch, "n1", &allowed(), NOW);
            }
        }

        /// The same, near to good bytes: flipped, cut, doubled.
        #[test]
        fn bent_batches_do_not_panic(at in any::<prop::sample::Index>(), flip in 1u8.., cut in any::<prop::sample::Index>()) {
            let mut bytes = batch(1).encode_to_vec();
            let i = at.index(bytes.len());
            bytes[i] ^= flip;
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(batch) = ReportBatch::decode(bytes.as_slice()) {
                let _ = check(batch, "n1", &allowed(), NOW);
            }
        }
    }
}
