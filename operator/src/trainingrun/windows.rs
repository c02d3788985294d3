//! Which windows a run trains on, and who gets which: pure, and the same for the same windows in
//! any order. What a policy counts before it starts a run is asked here too, or runs would fail for want of
//! windows that were counted.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use sha2::{Digest, Sha256};
use vigia_crds::{HOLDOUT_WINDOWS, SHARD_WINDOWS, TraceProfile, TrainingRun};
use vigia_model::calibration::MIN_HOLDOUT;
use vigia_model::context::Context;
use vigia_model::pipeline::EstimatorKind;
use vigia_model::schema::{Schema, is_value};
use vigia_model::syscalls::ALL_CALLS;

use super::data::kind_of;
use crate::store::{Kind, Length, Row};
use crate::traceprofile::capture;

/// Share of windows that is held out for calibration and validation, and the least number of them.
const HOLDOUT_SHARE: f64 = 0.25;
const HOLDOUT_MIN: usize = HOLDOUT_WINDOWS as usize;
const _: () = assert!(
    HOLDOUT_MIN >= MIN_HOLDOUT,
    "a run that has its windows must not fail for want of them"
);
/// Fewest windows of a shard.
const SHARD_MIN: usize = SHARD_WINDOWS as usize;
/// Most windows that are gathered, whatever a run asks for: what the API allows.
const MOST: usize = 200_000;
/// Bytes that they take at most, and a quarter more while they are gathered. There is room for [`MOST`] without sequences of
/// calls, and for 29,000 that have as many of them as a window may have.
const ROOM: usize = 256 << 20;

/// Which of a profile's windows a run takes.
#[derive(Clone, Debug)]
pub struct Selection {
    schema: String,
    length: Length,
    /// Fingerprint of the profile's filter; none where the profile lets in nothing that there is.
    capture: Option<String>,
    include_alerted: bool,
}

impl Selection {
    /// Those of the present feature schema that are as long as the profile's `window` is now, and made of the system calls
    /// that it lets in now: what is counted in ten seconds is no example of what is counted in thirty, and what is counted
    /// without some calls none of what is counted with them. With `include_alerted` those that raised an alert too.
    pub fn of(profile: &TraceProfile, include_alerted: bool) -> Self {
        let window = Duration::from(profile.spec.window);
        Self {
            schema: Schema::syscalls_v1().hash().to_string(),
            length: Length::of(i64::try_from(window.as_millis()).unwrap_or(i64::MAX)),
            capture: capture::fingerprint(&profile.spec.capture),
            include_alerted,
        }
    }

    /// Whether a window of this kind is taken that did or did not raise an alert.
    pub fn takes(&self, kind: Kind<'_>, alerted: bool) -> bool {
        kind.schema == self.schema
            && kind.length.is_about(self.length)
            && self.capture.as_deref() == Some(kind.capture)
            && (self.include_alerted || !alerted)
    }
}

/// Fewest windows that a run with this `minWindows` and so many workers can do with.
pub fn wanted(min_windows: i32, workers: i32) -> usize {
    let workers = u32::try_from(workers).unwrap_or(1).max(1);
    usize::try_from(min_windows).unwrap_or(0).max(least(workers))
}

/// Lengths that a version remembers: the bound of the schema.
const MAX_LENGTHS: usize = 64;

/// Gathers the newest windows up to a limit, in bounded memory.
#[derive(Debug)]
pub(super) struct Newest {
    limit: usize,
    room: usize,
    /// Whether the run looks at which calls come after which; else that is not kept.
    keeps_order: bool,
    rows: Vec<Row>,
    /// Bytes of them.
    held: usize,
    /// Once there are enough, the first in the order of [`newest_first`] that is not wanted any more. Nothing that comes can
    /// change that: what goes before it only grows.
    floor: Option<(i64, Arc<str>, u64)>,
    /// Windows that the selection does not take.
    pub(super) left_out: u64,
}

/// Names of the run's estimators that look at sequences of calls.
pub(super) fn of_order(run: &TrainingRun) -> impl Iterator<Item = &'static str> {
    let kinds = run.spec.estimator.types.iter().map(|kind| kind_of(*kind));
    kinds.filter(|kind| kind.is_order()).map(EstimatorKind::api_name)
}

impl Newest {
    pub(super) fn new(run: &TrainingRun) -> Self {
        Self {
            limit: usize::try_from(run.spec.data.max_windows)
                .unwrap_or(1)
                .clamp(1, MOST),
            room: ROOM,
            keeps_order: of_order(run).next().is_some(),
            rows: vec![],
            held: 0,
            floor: None,
            left_out: 0,
        }
    }

    /// Takes a window, if it is one of the selection; answers the time before which no window is wanted any more.
    pub(super) fn take(&mut self, selection: &Selection, mut row: Row) -> i64 {
        if !selection.takes(row.kind(), row.above_threshold) || !is_possible(&row) {
            self.left_out += 1;
        } else if self.wants(&row) {
            if !self.keeps_order && !row.context.grams().is_empty() {
                row.context = Context::new(vec![], row.context.past().to_vec()).unwrap_or_default();
            }
            self.held += row.held();
            self.rows.push(row);
            if self.rows.len() > self.limit + self.limit / 4 || self.held > self.room + self.room / 4 {
                self.cut();
            }
        }
        self.floor.as_ref().map_or(i64::MIN, |(start_ms, ..)| *start_ms)
    }

    fn wants(&self, row: &Row) -> bool {
        self.floor.as_ref().is_none_or(|(start_ms, profile, source)| {
            newest_first(row) < (Reverse(*start_ms), &**profile, *source)
        })
    }

    /// The windows, sorted by profile, source and time, each once, and whether older ones found no room though there are
    /// fewer than the limit.
    pub(super) fn finish(mut self) -> (Vec<Row>, bool) {
        self.cut();
        let is_full = self.floor.is_some() && self.rows.len() < self.limit;
        self.rows.sort_unstable_by(|a, b| identity(a).cmp(&identity(b)));
        (self.rows, is_full)
    }

    /// Leaves the newest, each once. Ties in time are told apart, or which windows are kept would
    /// hang on the order of files.
    fn cut(&mut self) {
        self.rows
            .sort_unstable_by(|a, b| newest_first(a).cmp(&newest_first(b)));
        self.rows.dedup_by(|a, b| identity(a) == identity(b));
        let mut held = 0;
        let beyond = self.rows.iter().position(|row| {
            held += row.held();
            held > self.room
        });
        let fit = beyond.unwrap_or(self.rows.len()).min(self.limit);
        if let Some(first) = self.rows.get(fit) {
            self.floor = Some((first.start_ms, first.profile.clone(), first.source));
        }
        self.rows.truncate(fit);
        self.held = self.rows.iter().map(Row::held).sum();
    }
}

/// Whether some window has these numbers. None that has not is stored any more; of one that was stored before, a training
/// could make nothing, and neither could the next.
fn is_possible(row: &Row) -> bool {
    let values = row.features.iter().chain(row.context.past());
    values.into_iter().all(|&value| is_value(value))
}

fn identity(row: &Row) -> (&str, u64, i64) {
    (&row.profile, row.source, row.start_ms)
}

fn newest_first(row: &Row) -> (Reverse<i64>, &str, u64) {
    (Reverse(row.start_ms), &row.profile, row.source)
}

/// How long windows are, by the profiles that they are of, each length once.
pub(super) fn lengths<'a>(rows: &[Row], profiles: impl Iterator<Item = &'a TraceProfile>) -> Vec<i64> {
    let of: BTreeSet<&str> = rows.iter().map(|row| &*row.profile).collect();
    let used = profiles.filter(|p| of.contains(p.name_any().as_str()));
    let lengths: BTreeSet<i64> = used
        .map(|p| i64::try_from(Duration::from(p.spec.window).as_millis()).unwrap_or(i64::MAX))
        .collect();
    lengths.into_iter().take(MAX_LENGTHS).collect()
}

/// By which filters windows were made, each once.
pub(super) fn captures(rows: &[Row]) -> Vec<String> {
    let captures: BTreeSet<&str> = rows.iter().map(|row| &*row.capture).collect();
    captures
        .into_iter()
        .take(MAX_LENGTHS)
        .map(str::to_owned)
        .collect()
}

/// Windows, divided. No window is in two parts.
#[derive(Debug, PartialEq)]
pub(super) struct Division {
    /// One for each worker.
    pub shards: Vec<Vec<Row>>,
    /// For calibration and validation.
    pub holdout: Vec<Row>,
}

/// Fewest windows that can be divided among so many workers.
fn least(workers: u32) -> usize {
    HOLDOUT_MIN + SHARD_MIN * workers as usize
}

/// Divides windows among workers and a held-out part, at random by `seed`.
///
/// The order is by a keyed hash of each window's identity, so that one window more moves few others.
pub(super) fn divide(rows: Vec<Row>, workers: u32, seed: u64) -> Division {
    let mut keyed: Vec<_> = rows.into_iter().map(|row| (order(&row, seed), row)).collect();
    keyed.sort_by_key(|(key, _)| *key);
    let held = ((keyed.len() as f64 * HOLDOUT_SHARE) as usize)
        .max(HOLDOUT_MIN)
        .min(keyed.len());
    let mut rows = keyed.into_iter().map(|(_, row)| row);
    let holdout = rows.by_ref().take(held).collect();
    let mut shards = vec![vec![]; workers as usize];
    for (i, row) in rows.enumerate() {
        shards[i % workers as usize].push(row);
    }
    Division { shards, holdout }
}

fn order(row: &Row, seed: u64) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(row.source.to_le_bytes());
    hash.update(row.start_ms.to_le_bytes());
    hash.update(row.profile.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    key
}

/// Digest of windows in the order of [`Newest::finish`].
pub(super) fn digest(rows: &[Row]) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    for row in rows {
        for text in [&row.namespace, &row.profile, &row.schema] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(row.source.to_le_bytes());
        hash.update(row.start_ms.to_le_bytes());
        hash.update(row.window_ms.to_le_bytes());
        for feature in &row.features {
            hash.update(feature.to_le_bytes());
        }
        // As with what follows.
        if *row.capture != *ALL_CALLS {
            hash.update((row.capture.len() as u64).to_le_bytes());
            hash.update(row.capture.as_bytes());
        }
        // Rows of which nothing else is known have the digest that they had before anything else was kept.
        let (past, grams) = (row.context.past(), row.context.grams());
        if !past.is_empty() || !grams.is_empty() {
            hash.update((past.len() as u64).to_le_bytes());
            past.iter().for_each(|rate| hash.update(rate.to_le_bytes()));
            hash.update((grams.len() as u64).to_le_bytes());
            for gram in grams {
                hash.update(gram.id.to_le_bytes());
                hash.update(gram.count.to_le_bytes());
            }
        }
    }
    let mut text = "sha256:".to_owned();
    for byte in hash.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vigia_model::context::{Gram, MAX_GRAMS, MAX_PAST};
    use vigia_model::syscalls::Filter;

    fn row(source: u64, start_ms: i64) -> Row {
        Row {
            namespace: "shop".into(),
            profile: "redis".into(),
            source,
            start_ms,
            window_ms: 2000,
            schema: Schema::syscalls_v1().hash().to_string().into(),
            features: vec![(start_ms as f32).abs().ln_1p(), (source as f32).ln_1p()],
            above_threshold: false,
            unscored: false,
            capture: ALL_CALLS.into(),
            context: Default::default(),
        }
    }

    fn with_grams(row: Row, n: usize) -> Row {
        let gram = |place| Gram {
            id: Gram::id_of([place, place]),
            count: 1,
        };
        Row {
            context: Context::new((0..n).map(gram).collect(), vec![1.0; 3]).expect("a context"),
            ..row
        }
    }

    /// What is gathered, and of which selection.
    struct Gathering(Newest, Selection);

    impl Gathering {
        fn take(&mut self, row: Row) -> i64 {
            self.0.take(&self.1, row)
        }

        fn finish(self) -> Vec<Row> {
            self.0.finish().0
        }
    }

    fn newest(limit: i32, include_alerted: bool) -> Gathering {
        let run: TrainingRun = serde_json::from_value(serde_json::json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"modelRef": {"name": "m"}, "data": {"maxWindows": limit}},
        }))
        .expect("a TrainingRun");
        let mut profile = crate::fixture::profile("shop", "redis", 1);
        profile.spec.window = Duration::from_secs(2).into();
        let selection = Selection::of(&profile, include_alerted);
        Gathering(Newest::new(&run), selection)
    }

    proptest! {
        #[test]
        fn the_newest_are_kept_whatever_the_order(
            mut starts in prop::collection::vec((0u64..4, 0i64..200), 1..300),
            limit in 1i32..50,
            seed: u64,
        ) {
            let gather = |starts: &[(u64, i64)]| {
                let mut newest = newest(limit, false);
                for &(source, start) in starts {
                    newest.take(row(source, start));
                }
                newest.finish()
            };
            let one = gather(&starts);
            starts.sort_by_key(|s| s.0.wrapping_mul(seed) ^ (s.1 as u64).wrapping_mul(seed | 1));
            let other = gather(&starts);
            prop_assert_eq!(&one, &other);
            prop_assert!(one.len() <= limit as usize);
            let oldest = one.iter().map(|r| r.start_ms).min().unwrap();
            let newer: std::collections::BTreeSet<_> = starts.iter().filter(|s| s.1 > oldest).collect();
            prop_assert!(newer.len() <= one.len());
        }

        #[test]
        fn the_newest_that_there_is_room_for_are_kept_whatever_the_order(
            windows in prop::collection::btree_map((0u64..4, 0i64..60), 0usize..20, 1..120),
            limit in 1i32..80,
            seed: u64,
        ) {
            let all: Vec<Row> = windows.iter().map(|(&(source, at), &n)| with_grams(row(source, at), n)).collect();
            let gather = |rows: &[Row]| {
                let mut newest = newest(limit, false);
                (newest.0.keeps_order, newest.0.room) = (true, 9 * with_grams(row(0, 0), 20).held());
                for row in rows {
                    newest.take(row.clone());
                    prop_assert!(newest.0.held <= newest.0.room + newest.0.room / 4);
                }
                Ok((newest.0.room, newest.0.finish()))
            };
            let (room, (mut kept, is_full)) = gather(&all)?;
            let mut mixed = all.clone();
            mixed.sort_by_key(|row| (row.source + 1).wrapping_mul(seed) ^ (row.start_ms as u64).wrapping_mul(seed | 1));
            let (_, other) = gather(&mixed)?;
            prop_assert_eq!((&kept, is_full), (&other.0, other.1));
            let (mut held, mut wanted) = (0, all);
            wanted.sort_unstable_by(|a, b| newest_first(a).cmp(&newest_first(b)));
            wanted.truncate(limit as usize);
            let enough = wanted.len();
            wanted.retain(|row| {
                held += row.held();
                held <= room
            });
            kept.sort_unstable_by(|a, b| newest_first(a).cmp(&newest_first(b)));
            prop_assert_eq!((&kept, is_full), (&wanted, wanted.len() < enough));
        }

        #[test]
        fn no_window_is_in_two_parts_and_none_is_lost(n in 46usize..400, workers in 1u32..5, seed: u64) {
            let rows: Vec<Row> = (0..n).map(|i| row(i as u64 % 3, i as i64)).collect();
            prop_assume!(n >= least(workers));
            let division = divide(rows.clone(), workers, seed);
            prop_assert_eq!(&division, &divide(rows.iter().rev().cloned().collect(), workers, seed));
            prop_assert!(division.holdout.len() >= HOLDOUT_MIN);
            prop_assert!(division.shards.iter().all(|s| s.len() >= SHARD_MIN));
            let mut all: Vec<Row> = division.shards.into_iter().flatten().chain(division.holdout).collect();
            all.sort_unstable_by_key(|r| r.start_ms);
            prop_assert_eq!(all, rows);
        }
    }

    #[test]
    fn sequences_are_kept_for_a_run_that_looks_at_them() {
        for (types, kept) in [
            (r#"["Deviation", "Novelty"]"#, 0),
            (r#"["Deviation", "STIDE"]"#, 5),
        ] {
            let mut run: TrainingRun = serde_json::from_value(serde_json::json!({
                "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
                "metadata": {"name": "r", "namespace": "shop"}, "spec": {"modelRef": {"name": "m"}},
            }))
            .expect("a TrainingRun");
            run.spec.estimator.types = serde_json::from_str(types).expect("types");
            let mut gathering = newest(50, false);
            gathering.0 = Newest::new(&run);
            gathering.take(with_grams(row(1, 1), 5));
            let rows = gathering.finish();
            let context = &rows[0].context;
            assert_eq!(
                (context.grams().len(), context.past().len()),
                (kept, 3),
                "{types}"
            );
        }
    }

    #[test]
    fn there_is_room_for_what_is_said() {
        let window = Row {
            features: vec![0.0; Schema::syscalls_v1().width()],
            context: Context::new(vec![], vec![1.0; MAX_PAST]).expect("a context"),
            ..row(1, 1)
        };
        assert!(MOST * window.held() <= ROOM, "{}", window.held());
        assert!(29_000 * (window.held() + MAX_GRAMS * size_of::<Gram>()) <= ROOM);
    }

    #[test]
    fn alerted_windows_and_other_schemas_are_left_out() {
        let mut newest = newest(50, false);
        newest.take(Row {
            above_threshold: true,
            ..row(1, 1)
        });
        newest.take(Row {
            schema: "old".into(),
            ..row(1, 2)
        });
        newest.take(row(1, 3));
        assert_eq!(newest.0.left_out, 2);
        assert_eq!(newest.finish(), [row(1, 3)]);
    }

    #[test]
    fn windows_with_numbers_of_no_window_are_left_out() {
        let mut newest = newest(50, false);
        for (at, value) in [1000.0, -3e38, f32::NAN, 0.0].into_iter().enumerate() {
            newest.take(Row {
                features: vec![0.0, value],
                ..row(1, at as i64)
            });
        }
        assert_eq!(newest.0.left_out, 3);
        assert_eq!(newest.finish().len(), 1);
    }

    #[test]
    fn windows_of_another_length_are_left_out() {
        let mut newest = newest(50, false);
        for window_ms in [1400, 1600, 2004, 2500, 2900, 10_000] {
            newest.take(Row {
                window_ms,
                ..row(1, window_ms)
            });
        }
        assert_eq!(newest.0.left_out, 3);
        assert_eq!(newest.finish().len(), 3);
    }

    #[test]
    fn windows_made_by_another_filter_are_left_out() {
        let mut newest = newest(50, false);
        let capture = |include: &[&str]| Filter::fingerprint(include, &[]).expect("names");
        for include in [&["network"][..], &[], &["read"]] {
            newest.take(Row {
                capture: capture(include).into(),
                ..row(1, include.len() as i64)
            });
        }
        assert_eq!(newest.0.left_out, 2);
        assert_eq!(newest.finish().len(), 1);
        let mut profile = crate::fixture::profile("shop", "redis", 1);
        profile.spec.capture.syscalls.include = vec!["network".to_owned(), "not_a_call".to_owned()];
        let network = capture(&["network"]);
        profile.spec.window = Duration::from_secs(2).into();
        let one = row(1, 1);
        let of = |capture| Kind {
            capture,
            ..one.kind()
        };
        let selection = Selection::of(&profile, false);
        assert!(selection.takes(of(&network), false) && !selection.takes(of(ALL_CALLS), false));
        // Nothing is left of what it lets in, so nothing is traced.
        profile.spec.capture.syscalls.include = vec!["not_a_call".to_owned()];
        assert!(!Selection::of(&profile, false).takes(row(1, 1).kind(), false));
    }

    #[tokio::test]
    async fn what_is_counted_is_what_is_taken() {
        use crate::store::{Options, Segment, Store};
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path(), Options::default())
            .await
            .expect("a store");
        // Every fourth of another length, every fifth of another schema, every third alerted.
        let rows: Vec<Row> = (0..600)
            .map(|i| Row {
                window_ms: if i % 4 == 0 { 10_000 } else { 1990 + i % 20 },
                schema: if i % 5 == 0 {
                    "old".into()
                } else {
                    row(0, 0).schema
                },
                above_threshold: i % 3 == 0,
                ..row(i as u64 % 7, i * 2000)
            })
            .collect();
        for rows in rows.chunks(150) {
            let segment = Segment {
                rows: rows.to_vec(),
                ..Segment::default()
            };
            store.commit(segment).await.expect("room");
        }
        for include_alerted in [false, true] {
            let mut gathering = newest(10_000, include_alerted);
            let selection = gathering.1.clone();
            let all = (i64::MIN, i64::MAX);
            let counted = store.count("shop", "redis", all, |kind, alerted| {
                selection.takes(kind, alerted)
            });
            let taken = store
                .each_row("shop", "redis", all, |row| gathering.take(row))
                .await;
            taken.expect("rows");
            let taken = gathering.finish().len() as u64;
            assert_eq!(counted, taken, "{include_alerted}");
            assert_eq!(counted, if include_alerted { 360 } else { 240 });
        }
    }

    #[test]
    fn no_more_is_held_than_a_quarter_above_the_limit() {
        let mut newest = newest(1000, false);
        let mut most = 0;
        let mut floor = i64::MIN;
        for start in 0..10_000 {
            floor = newest.take(row(1, start));
            most = most.max(newest.0.rows.len());
        }
        assert!(most <= 1250, "{most}");
        assert!(floor >= 8_000, "{floor}");
        // What is older than the oldest that is kept is not even looked at.
        assert_eq!(newest.take(row(2, 5)), floor);
        assert_eq!(newest.finish().first(), Some(&row(1, 9_000)));
        assert_eq!(self::newest(i32::MAX, false).0.limit, MOST);
    }

    #[test]
    fn alerted_windows_are_the_new_normal_where_asked() {
        let mut newest = newest(50, true);
        newest.take(Row {
            above_threshold: true,
            ..row(1, 1)
        });
        assert_eq!(newest.finish().len(), 1);
    }

    #[test]
    fn the_digest_is_of_every_value() {
        let rows = vec![row(1, 1), row(1, 2)];
        let mut filtered = rows.clone();
        filtered[0].capture = "c0".repeat(16).into();
        assert_ne!(digest(&rows), digest(&filtered));
        assert_eq!(captures(&filtered), ["all".to_owned(), "c0".repeat(16)]);
        let mut changed = rows.clone();
        changed[1].features[0] += 1.0;
        assert!(vigia_crds::is_digest(&digest(&rows)));
        assert_ne!(digest(&rows), digest(&changed));
        assert_ne!(digest(&rows), digest(&rows[..1]));
    }
}
