//! What upkeep of the store would do: which commits move on, which files are merged, which are removed. Pure.

use std::collections::BTreeMap;

use super::index::{Partition, Range, SampleFile};
use super::rows::Row;
use super::segment::Summary;

/// Commits in the journal from which it is compacted at once …
const COMPACT_COMMITS: usize = 64;
/// … or the age of the oldest, by the clock of its marks.
const COMPACT_AGE_MS: i64 = 120_000;
/// Bytes of rows that are held in memory while files are merged: a hundred thousand windows without sequences of calls, and a
/// seventh of that with as many of them as a window may have.
const MERGE_HELD: u64 = 128 << 20;
/// Files of a partition that are merged at once.
const MERGE_FILES: usize = 8;
/// Files of summaries that are merged at once.
pub(super) const MERGE_SUMMARIES: usize = 16;
/// Span that compacted summaries of one node are put into, up to which age, and how long they are kept.
const NODE_SPAN_MS: i64 = 60_000;
const NODE_FINE_MS: i64 = 30 * 60_000;
const NODE_COARSE_MS: i64 = 86_400_000;
/// As long as a step of a rollout may hold, and a day.
const NODE_AGE_MS: i64 = 8 * 86_400_000;
/// The same of the sums over all nodes, which are kept as long as samples.
const ALL_SPAN_MS: i64 = 5_000;
const ALL_FINE_MS: i64 = 86_400_000;
/// Older ones are put into spans of an hour.
const COARSE_SPAN_MS: i64 = 3_600_000;

/// Samples by the folder that they belong to.
pub(super) fn partition(rows: Vec<Row>) -> BTreeMap<Partition, Vec<Row>> {
    let mut parts: BTreeMap<Partition, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let day = jiff::Timestamp::from_millisecond(row.start_ms)
            .map_or_else(|_| "unknown".to_owned(), |t| t.strftime("%Y-%m-%d").to_string());
        let key = Partition {
            namespace: row.namespace.as_ref().to_owned(),
            profile: row.profile.as_ref().to_owned(),
            day,
        };
        parts.entry(key).or_default().push(row);
    }
    for rows in parts.values_mut() {
        rows.sort_by_key(|row| (row.start_ms, row.source));
    }
    parts
}

/// Summaries in spans: one for each version, node and span, and one for each version and finer span over all
/// nodes, which keeps the histogram.
pub(super) fn merge_summaries(all: Vec<Summary>, now_ms: i64) -> Vec<Summary> {
    let mut merged: BTreeMap<(String, String, String, String, i64), Summary> = BTreeMap::new();
    let mut put = |summary: Summary| {
        let age = now_ms.saturating_sub(summary.start_ms);
        let of_all = summary.node.is_empty();
        if !of_all && age > NODE_AGE_MS {
            return;
        }
        let span = match of_all {
            true if age <= ALL_FINE_MS => ALL_SPAN_MS,
            false if age <= NODE_FINE_MS => NODE_SPAN_MS,
            false if age > NODE_COARSE_MS => 6 * COARSE_SPAN_MS,
            _ => COARSE_SPAN_MS,
        };
        let start = summary.start_ms.div_euclid(span) * span;
        let key = (
            summary.namespace.clone(),
            summary.model.clone(),
            summary.digest.clone(),
            summary.node.clone(),
            start,
        );
        match merged.get_mut(&key) {
            Some(sum) => sum.add(&summary),
            None => {
                merged.insert(key, summary);
            }
        }
    };
    for summary in all {
        if summary.node.is_empty() || summary.histogram.is_empty() {
            put(summary);
        } else {
            put(Summary {
                histogram: vec![],
                ..summary.clone()
            });
            put(Summary {
                node: String::new(),
                ..summary
            });
        }
    }
    merged.into_values().collect()
}

/// The journal's first commits to move on, where it is time.
pub(super) fn plan_compaction<'a>(
    journal: impl Iterator<Item = (&'a u64, &'a SampleFile)> + Clone,
    oldest_ms: Option<i64>,
    now_ms: i64,
) -> Option<Range> {
    let count = journal.clone().count();
    let aged = oldest_ms.is_some_and(|oldest| now_ms.saturating_sub(oldest) >= COMPACT_AGE_MS);
    if count < COMPACT_COMMITS && !aged {
        return None;
    }
    let mut held = 0u64;
    let mut range: Option<Range> = None;
    for (number, file) in journal {
        held = held.saturating_add(file.held);
        if held > MERGE_HELD && range.is_some() {
            break;
        }
        let first = range.map_or(*number, |r| r.first);
        range = Some(Range { first, last: *number });
    }
    range
}

/// Neighbours in a partition that are worth merging: many, and together small enough.
pub(super) fn plan_merge(files: &BTreeMap<Range, SampleFile>) -> Vec<Range> {
    let mut run: Vec<Range> = vec![];
    let mut held = 0;
    for (range, file) in files {
        // A large file ends a run: what is merged covers all that lies between its ends.
        let large = file.held > MERGE_HELD / 2;
        if large || held + file.held > MERGE_HELD {
            if run.len() >= MERGE_FILES {
                break;
            }
            run.clear();
            held = 0;
        }
        if !large {
            run.push(*range);
            held += file.held;
        }
    }
    if run.len() >= MERGE_FILES { run } else { vec![] }
}

/// Files to remove: all that ended too long ago, then the oldest until the rest is small enough.
pub(super) fn plan_retention(files: &[(String, u64, i64)], min_end_ms: i64, max_bytes: u64) -> Vec<String> {
    let mut by_age: Vec<_> = files.iter().collect();
    by_age.sort_by_key(|(path, _, end_ms)| (*end_ms, path.clone()));
    let mut left: u64 = by_age.iter().map(|(_, bytes, _)| bytes).sum();
    let mut gone = vec![];
    for (path, bytes, end_ms) in by_age {
        if *end_ms >= min_end_ms && left <= max_bytes {
            break;
        }
        left -= bytes;
        gone.push(path.clone());
    }
    gone
}

/// Bytes of samples that may stay where `held` are held and `free` are free: all, until the reserve is touched;
/// then so many fewer that it is free twice.
pub(super) fn room(held: u64, free: u64, reserve: u64) -> u64 {
    match free < reserve {
        true => held.saturating_sub(reserve.saturating_mul(2) - free),
        false => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::MOST_HELD;
    use crate::store::segment::{Count, Meta, ProfileCounts};

    fn file(number: u64, held: u64) -> (Range, SampleFile) {
        let range = Range {
            first: number,
            last: number,
        };
        let meta = Meta {
            held,
            ..Meta::default()
        };
        (range, SampleFile::new(range.name(), 1, meta))
    }

    #[test]
    fn rows_of_a_file_that_does_not_say_what_they_take_may_take_the_most() {
        let count = Count {
            rows: 3,
            ..Count::default()
        };
        let profiles = vec![ProfileCounts {
            counts: vec![count],
            ..ProfileCounts::default()
        }];
        let meta = Meta {
            profiles,
            ..Meta::default()
        };
        assert_eq!(SampleFile::new(String::new(), 1, meta).held, 3 * MOST_HELD);
    }

    #[test]
    fn the_journal_moves_on_by_number_or_by_age() {
        let journal = |n: u64, held| (1..=n).map(|i| (i, file(i, held).1)).collect::<BTreeMap<_, _>>();
        let range = |first, last| Some(Range { first, last });
        let few = journal(3, 10);
        assert_eq!(plan_compaction(few.iter(), Some(0), COMPACT_AGE_MS - 1), None);
        assert_eq!(plan_compaction(few.iter(), Some(0), COMPACT_AGE_MS), range(1, 3));
        let many = journal(64, 10);
        assert_eq!(plan_compaction(many.iter(), None, 0), range(1, 64));
        let large = journal(64, MERGE_HELD / 2);
        assert_eq!(plan_compaction(large.iter(), None, 0), range(1, 2));
        // A few rows with many sequences are as much as many with none.
        let heavy = journal(64, 2000 * MOST_HELD);
        let most = MERGE_HELD / (2000 * MOST_HELD);
        assert_eq!(plan_compaction(heavy.iter(), None, 0), range(1, most));
        let huge = journal(64, MERGE_HELD * 2);
        assert_eq!(plan_compaction(huge.iter(), None, 0), range(1, 1));
    }

    #[test]
    fn small_neighbours_are_merged_and_large_files_are_left() {
        let files = |held: &[u64]| {
            (1..)
                .zip(held)
                .map(|(i, held)| file(i, *held))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(plan_merge(&files(&[5; 7])).is_empty());
        assert_eq!(plan_merge(&files(&[5; 9])).len(), 9);
        let one_large = [&[MERGE_HELD][..], &[5; 8]].concat();
        assert_eq!(
            plan_merge(&files(&one_large)).first(),
            Some(&Range { first: 2, last: 2 })
        );
        assert!(plan_merge(&files(&[MERGE_HELD / 2; 20])).is_empty());
        // One that is neither, between small ones: what comes after it is a run of its own.
        let middling = [&[5; 4][..], &[MERGE_HELD / 2 + 1], &[5; 8]].concat();
        let run = plan_merge(&files(&middling));
        assert_eq!(run.len(), 8);
        assert_eq!(run[0], Range { first: 6, last: 6 });
    }

    #[test]
    fn the_oldest_go_first_and_no_more_than_needed() {
        let files = [
            ("c".to_owned(), 10, 300),
            ("a".to_owned(), 10, 100),
            ("b".to_owned(), 10, 200),
        ];
        assert_eq!(plan_retention(&files, 150, 100), ["a"]);
        assert_eq!(plan_retention(&files, 0, 15), ["a", "b"]);
        assert!(plan_retention(&files, 0, 30).is_empty());
        assert_eq!(room(1000, 100, 100), u64::MAX);
        assert_eq!(room(1000, 90, 100), 1000 - 110);
        assert_eq!(room(50, 90, 100), 0);
        assert_eq!(room(50, 0, u64::MAX), 0);
    }

    #[test]
    fn merging_summaries_keeps_their_sums() {
        let summary = |node: &str, start_ms: i64| Summary {
            namespace: "shop".into(),
            model: "m".into(),
            digest: "d".into(),
            node: node.into(),
            start_ms,
            last_ms: start_ms + 5,
            windows: 3,
            above_threshold: 1,
            histogram: vec![1, 2],
        };
        let all = vec![
            summary("a", 1000),
            summary("a", 2000),
            summary("b", 3000),
            summary("b", 11_000),
        ];
        let once = merge_summaries(all, 20_000);
        let twice = merge_summaries(once.clone(), 20_000);
        assert_eq!(once, twice);
        let (whole, nodes): (Vec<_>, Vec<_>) = once.iter().partition(|s| s.node.is_empty());
        assert_eq!(whole.iter().map(|s| s.windows).collect::<Vec<_>>(), [9, 3]);
        assert_eq!(whole[0].histogram, [3, 6]);
        assert_eq!(nodes.iter().map(|s| s.windows).collect::<Vec<_>>(), [6, 6]);
        let later = merge_summaries(once.clone(), 20_000 + NODE_AGE_MS);
        assert_eq!(
            later
                .iter()
                .map(|s| (s.node.as_str(), s.windows))
                .collect::<Vec<_>>(),
            [("", 12)]
        );
    }
}
