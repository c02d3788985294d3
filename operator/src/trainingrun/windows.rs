//! Which windows a run trains on, and who gets which: pure, and the same for the same windows in
//! any order.

use std::cmp::Reverse;

use sha2::{Digest, Sha256};
use vigia_crds::TrainingRun;

use crate::store::Row;

/// Share of windows that is held out for calibration and validation, and the least number of them.
const HOLDOUT_SHARE: f64 = 0.25;
const HOLDOUT_MIN: usize = 30;
/// Fewest windows of a shard.
const SHARD_MIN: usize = 8;
/// Most windows that are gathered, whatever a run asks for: what the API allows, at 0.6 KiB each.
const MOST: usize = 200_000;

/// Gathers the newest windows up to a limit, in bounded memory.
#[derive(Debug)]
pub(super) struct Newest {
    limit: usize,
    include_alerted: bool,
    schema: String,
    window_ms: i64,
    rows: Vec<Row>,
    /// Once there are enough, the oldest one's time.
    floor_ms: i64,
    /// Windows that alerted, or were of another schema or length.
    pub(super) left_out: u64,
}

impl Newest {
    pub(super) fn new(run: &TrainingRun, schema: String) -> Self {
        Self {
            limit: usize::try_from(run.spec.data.max_windows)
                .unwrap_or(1)
                .clamp(1, MOST),
            include_alerted: run.spec.data.include_alerted,
            schema,
            window_ms: 0,
            rows: vec![],
            floor_ms: i64::MIN,
            left_out: 0,
        }
    }

    /// What comes next is of a profile with windows of this length.
    pub(super) fn of_length(&mut self, window_ms: i64) {
        self.window_ms = window_ms;
    }

    /// Takes a window; answers the time before which no window is wanted any more.
    pub(super) fn take(&mut self, row: Row) -> i64 {
        let other = *row.schema != *self.schema || !is_of_length(row.window_ms, self.window_ms);
        if other || (row.above_threshold && !self.include_alerted) {
            self.left_out += 1;
        } else if row.start_ms >= self.floor_ms {
            self.rows.push(row);
            if self.rows.len() > self.limit + self.limit / 4 {
                self.cut();
            }
        }
        self.floor_ms
    }

    /// The windows, sorted by profile, source and time, each once.
    pub(super) fn finish(mut self) -> Vec<Row> {
        self.cut();
        self.rows.sort_unstable_by(|a, b| identity(a).cmp(&identity(b)));
        self.rows
    }

    /// Leaves the newest, each once. Ties in time are told apart, or which windows are kept would
    /// hang on the order of files.
    fn cut(&mut self) {
        self.rows
            .sort_unstable_by(|a, b| newest_first(a).cmp(&newest_first(b)));
        self.rows.dedup_by(|a, b| identity(a) == identity(b));
        self.rows.truncate(self.limit);
        if let Some(oldest) = self.rows.get(self.limit - 1) {
            self.floor_ms = oldest.start_ms;
        }
    }
}

/// Whether a window is of a length, but for what an agent's clock adds to it. What is counted in ten seconds is no
/// example of what is counted in thirty.
fn is_of_length(window_ms: i64, wanted_ms: i64) -> bool {
    let slack = wanted_ms / 4;
    (wanted_ms - slack..=wanted_ms + slack).contains(&window_ms)
}

fn identity(row: &Row) -> (&str, u64, i64) {
    (&row.profile, row.source, row.start_ms)
}

fn newest_first(row: &Row) -> (Reverse<i64>, &str, u64) {
    (Reverse(row.start_ms), &row.profile, row.source)
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
pub(super) fn least(workers: u32) -> usize {
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

    fn row(source: u64, start_ms: i64) -> Row {
        Row {
            namespace: "shop".into(),
            profile: "redis".into(),
            source,
            start_ms,
            window_ms: 2000,
            schema: "s".into(),
            features: vec![start_ms as f32, source as f32],
            above_threshold: false,
        }
    }

    fn newest(limit: i32, include_alerted: bool) -> Newest {
        let run: TrainingRun = serde_json::from_value(serde_json::json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "TrainingRun",
            "metadata": {"name": "r", "namespace": "shop"},
            "spec": {"modelRef": {"name": "m"}, "data": {"maxWindows": limit, "includeAlerted": include_alerted}},
        }))
        .expect("a TrainingRun");
        let mut newest = Newest::new(&run, "s".into());
        newest.of_length(2000);
        newest
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
        assert_eq!(newest.left_out, 2);
        assert_eq!(newest.finish(), [row(1, 3)]);
    }

    #[test]
    fn windows_of_another_length_are_left_out() {
        let mut newest = newest(50, false);
        for window_ms in [1400, 1500, 2004, 2500, 2600, 10_000] {
            newest.take(Row {
                window_ms,
                ..row(1, window_ms)
            });
        }
        assert_eq!(newest.left_out, 3);
        assert_eq!(newest.finish().len(), 3);
    }

    #[test]
    fn no_more_is_held_than_a_quarter_above_the_limit() {
        let mut newest = newest(1000, false);
        let mut most = 0;
        let mut floor = i64::MIN;
        for start in 0..10_000 {
            floor = newest.take(row(1, start));
            most = most.max(newest.rows.len());
        }
        assert!(most <= 1250, "{most}");
        assert!(floor >= 8_000, "{floor}");
        // What is older than the oldest that is kept is not even looked at.
        assert_eq!(newest.take(row(2, 5)), floor);
        assert_eq!(newest.finish().first(), Some(&row(1, 9_000)));
        assert_eq!(self::newest(i32::MAX, false).limit, MOST);
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
        let mut changed = rows.clone();
        changed[1].features[0] += 1.0;
        assert!(vigia_crds::is_digest(&digest(&rows)));
        assert_ne!(digest(&rows), digest(&changed));
        assert_ne!(digest(&rows), digest(&rows[..1]));
    }
}
