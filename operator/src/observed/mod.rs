//! What agents reported of each version, merged: the ground of gates and of drift.
//!
//! Bounded at 5,000 nodes: sums over all nodes keep their histogram, sums of one node only the two numbers
//! that a rate of alerts needs (about 6 KiB for a node and version that scores for a week). Filled by ingest as
//! reports become durable, and from the store after a restart.

mod cells;
pub mod drift;

use std::collections::{BTreeSet, HashMap};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use vigia_model::histogram::ScoreHistogram;

use crate::store::{Store, StoreError, Summary};
use cells::{ALL_SPANS, Cells, NODE_SPANS, Rate, Scores};

/// Versions that are remembered; the ones heard of longest ago go first.
const MAX_VERSIONS: usize = 1024;
/// Nodes of a version that are told apart; beyond, they count in the sums over all nodes only.
const MAX_NODES: usize = 10_000;

/// Sums over nodes and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Windows scored.
    pub windows: u64,
    /// Of these, above the alert threshold.
    pub above_threshold: u64,
    /// By calibrated score; of all nodes that scored with the version, also where only some were asked for.
    pub histogram: ScoreHistogram,
    /// Start of the latest window.
    pub last_window: Option<Timestamp>,
}

/// A version of a Model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    model: String,
    digest: String,
}

#[derive(Debug, Default)]
struct Version {
    all: Cells<Scores>,
    nodes: HashMap<String, Cells<Rate>>,
}

/// Summaries of agents.
#[derive(Debug, Default)]
pub struct Observations(RwLock<HashMap<Key, Version>>);

impl Observations {
    /// Reads what the store has.
    ///
    /// # Errors
    /// The volume.
    pub async fn open(store: &Store, now: Timestamp) -> Result<Self, StoreError> {
        let observations = Self::default();
        let now_ms = now.as_millisecond();
        for summary in store.summaries().await? {
            match (summary.node.is_empty(), summary.histogram.is_empty()) {
                // Merged by the store: of all nodes, or the sums of one.
                (true, _) => observations.add_all(&summary, now_ms),
                (false, true) => observations.add_node(&summary, now_ms),
                (false, false) => observations.add(&summary, now),
            }
        }
        Ok(observations)
    }

    /// Takes a summary of one node in.
    pub fn add(&self, summary: &Summary, now: Timestamp) {
        let now_ms = now.as_millisecond();
        self.add_all(summary, now_ms);
        self.add_node(summary, now_ms);
    }

    fn add_all(&self, summary: &Summary, now_ms: i64) {
        let scores = Scores {
            windows: summary.windows,
            above: summary.above_threshold,
            last_ms: summary.last_ms,
            // A width that is not ours was refused where it came in; a build with other edges reads none.
            histogram: ScoreHistogram::try_from(summary.histogram.as_slice()).unwrap_or_default(),
        };
        let mut versions = self.write();
        let version = versions.entry(key(summary)).or_default();
        version.all.add(ALL_SPANS, summary.start_ms, now_ms, &scores);
    }

    fn add_node(&self, summary: &Summary, now_ms: i64) {
        let rate = Rate {
            windows: u32::try_from(summary.windows).unwrap_or(u32::MAX),
            above: u32::try_from(summary.above_threshold).unwrap_or(u32::MAX),
        };
        let mut versions = self.write();
        let version = versions.entry(key(summary)).or_default();
        if version.nodes.len() < MAX_NODES || version.nodes.contains_key(&summary.node) {
            let cells = version.nodes.entry(summary.node.clone()).or_default();
            cells.add(NODE_SPANS, summary.start_ms, now_ms, &rate);
        }
    }

    /// What a version of a Model scored since a time, on all nodes or some.
    ///
    /// Never counts a window from before: spans of time with windows from before are left out as a whole (at
    /// most ten seconds for what is recent, a minute after a restart). Only of some nodes' long spans, of an
    /// hour or more, the share counts that comes after.
    pub fn scores(
        &self,
        namespace: &str,
        model: &str,
        digest: &str,
        since: Timestamp,
        nodes: Option<&BTreeSet<String>>,
    ) -> Merged {
        let key = Key {
            namespace: namespace.to_owned(),
            model: model.to_owned(),
            digest: digest.to_owned(),
        };
        let versions = self.read();
        let Some(version) = versions.get(&key) else {
            return Merged::default();
        };
        let since_ms = since.as_millisecond();
        let mut merged = sum(version.all.between(since_ms, i64::MAX));
        if let Some(nodes) = nodes {
            (merged.windows, merged.above_threshold) = (0, 0);
            for cells in nodes.iter().filter_map(|node| version.nodes.get(node)) {
                for (_, rate) in cells.between(since_ms, i64::MAX) {
                    merged.windows += u64::from(rate.windows);
                    merged.above_threshold += u64::from(rate.above);
                }
                if let Some((share, rate)) = cells.cut(since_ms) {
                    merged.windows += (f64::from(rate.windows) * share) as u64;
                    merged.above_threshold += (f64::from(rate.above) * share) as u64;
                }
            }
        }
        merged
    }

    /// What a version scored on all nodes in consecutive spans of a length, from the first one that is known;
    /// spans begin at multiples of the length. The last one may not be over yet.
    pub fn series(&self, namespace: &str, model: &str, digest: &str, every_ms: i64) -> Vec<(i64, Merged)> {
        let key = Key {
            namespace: namespace.to_owned(),
            model: model.to_owned(),
            digest: digest.to_owned(),
        };
        let versions = self.read();
        let Some(version) = versions.get(&key) else {
            return vec![];
        };
        let mut series: Vec<(i64, Vec<(i64, &Scores)>)> = vec![];
        for (start, scores) in version.all.between(i64::MIN, i64::MAX) {
            let span = start.div_euclid(every_ms.max(1)) * every_ms.max(1);
            match series.last_mut() {
                Some((last, cells)) if *last == span => cells.push((start, scores)),
                _ => series.push((span, vec![(start, scores)])),
            }
        }
        series
            .into_iter()
            .map(|(start, cells)| (start, sum(cells.into_iter())))
            .collect()
    }

    /// Puts what has aged into longer spans, drops what is too old or too much. Called now and then.
    pub fn tidy(&self, now: Timestamp) {
        let now_ms = now.as_millisecond();
        let mut versions = self.write();
        for version in versions.values_mut() {
            version.all.coarsen(ALL_SPANS, now_ms);
            version.nodes.retain(|_, cells| {
                cells.coarsen(NODE_SPANS, now_ms);
                cells.len() > 0
            });
        }
        versions.retain(|_, version| version.all.len() > 0);
        if versions.len() > MAX_VERSIONS {
            let mut by_age: Vec<_> = versions.iter().map(|(k, v)| (v.all.last(), k.clone())).collect();
            by_age.sort_by_key(|(last, _)| *last);
            for (_, key) in by_age.into_iter().take(versions.len() - MAX_VERSIONS) {
                versions.remove(&key);
            }
        }
    }

    /// Versions that are known: more are not told apart until [`Self::tidy`] has made room.
    pub fn has_room_for(&self, namespace: &str, model: &str, digest: &str) -> bool {
        let versions = self.read();
        let known = versions
            .keys()
            .any(|k| k.digest == digest && k.model == model && k.namespace == namespace);
        known || versions.len() < 2 * MAX_VERSIONS
    }

    /// Cells that are held: versions over all nodes, and of single nodes.
    pub fn size(&self) -> (usize, usize) {
        let versions = self.read();
        let all = versions.values().map(|v| v.all.len()).sum();
        let nodes = versions
            .values()
            .flat_map(|v| v.nodes.values())
            .map(Cells::len)
            .sum();
        (all, nodes)
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Key, Version>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Key, Version>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(summary: &Summary) -> Key {
    Key {
        namespace: summary.namespace.clone(),
        model: summary.model.clone(),
        digest: summary.digest.clone(),
    }
}

fn sum<'a>(cells: impl Iterator<Item = (i64, &'a Scores)>) -> Merged {
    let mut merged = Merged::default();
    let mut last_ms = None;
    for (_, scores) in cells {
        merged.windows += scores.windows;
        merged.above_threshold += scores.above;
        merged.histogram.merge(&scores.histogram);
        last_ms = last_ms.max(Some(scores.last_ms));
    }
    merged.last_window = last_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Options, Segment};
    use vigia_model::histogram::BINS;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).expect("a small number is a timestamp")
    }

    fn summary(node: &str, start_ms: i64) -> Summary {
        let mut histogram = vec![0; BINS];
        histogram[3] = 2;
        Summary {
            namespace: "shop".into(),
            model: "m".into(),
            digest: "d".into(),
            node: node.into(),
            start_ms,
            last_ms: start_ms + 4_000,
            windows: 2,
            above_threshold: 1,
            histogram,
        }
    }

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn nodes_and_times_are_told_apart() {
        let observed = Observations::default();
        let now = at(100_000);
        observed.add(&summary("a", 50_000), now);
        observed.add(&summary("b", 60_000), now);
        observed.add(&summary("b", 70_000), now);
        let scores = |since, names: Option<&[&str]>| {
            observed.scores("shop", "m", "d", at(since), names.map(nodes).as_ref())
        };
        assert_eq!(scores(0, None).windows, 6);
        assert_eq!(scores(0, None).histogram.counts[3], 6);
        assert_eq!(scores(0, None).last_window, Some(at(74_000)));
        assert_eq!(scores(55_000, None).windows, 4);
        assert_eq!(scores(0, Some(&["a"])).windows, 2);
        assert_eq!(scores(65_000, Some(&["a", "b"])).above_threshold, 1);
        assert_eq!(scores(0, Some(&["c"])).windows, 0);
        assert_eq!(
            observed.scores("shop", "m", "other", at(0), None),
            Merged::default()
        );
        assert_eq!(observed.series("shop", "m", "d", 30_000).len(), 2);
    }

    #[tokio::test]
    async fn a_restart_brings_them_back_from_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            reserve: 0,
            ..Options::default()
        };
        let store = Store::open(folder.path(), options.clone()).await.unwrap();
        let before = Observations::default();
        for i in 0..10 {
            let summary = summary(if i % 2 == 0 { "a" } else { "b" }, i * 10_000);
            before.add(&summary, at(100_000));
            let segment = Segment {
                summaries: vec![summary],
                ..Segment::default()
            };
            store.commit(segment).await.unwrap();
        }
        let all = |o: &Observations| o.scores("shop", "m", "d", at(0), None);
        let of_a = |o: &Observations| o.scores("shop", "m", "d", at(0), Some(&nodes(&["a"]))).windows;
        let after = Observations::open(&store, at(100_000)).await.unwrap();
        assert_eq!((all(&after), of_a(&after)), (all(&before), 10));
        drop(store);

        // The same once the store has merged them.
        let store = Store::open(folder.path(), options).await.unwrap();
        for i in 10..80 {
            let empty = Segment::default();
            store
                .commit(empty)
                .await
                .unwrap_or_else(|e| panic!("commit {i}: {e}"));
        }
        while store.maintain(200_000).await.unwrap() {}
        let merged = Observations::open(&store, at(100_000)).await.unwrap();
        assert_eq!((all(&merged), of_a(&merged)), (all(&before), 10));
    }

    #[test]
    fn memory_is_bounded_by_nodes_and_versions() {
        let observed = Observations::default();
        let hour = 3_600_000;
        for start in (0..hour).step_by(60_000) {
            for node in 0..200 {
                observed.add(&summary(&node.to_string(), start), at(start));
            }
            observed.tidy(at(start));
        }
        let (all, nodes) = observed.size();
        assert!(all <= 720 && nodes <= 200 * 70, "{all} {nodes}");
        for version in 0..MAX_VERSIONS + 50 {
            let digest = version.to_string();
            observed.add(
                &Summary {
                    digest,
                    ..summary("a", hour)
                },
                at(hour),
            );
        }
        observed.tidy(at(hour));
        assert_eq!(observed.read().len(), MAX_VERSIONS);
    }
}
