//! Moves commits on from the journal, merges small files, and removes what is too old or too much.
//!
//! Every step writes first and removes after. Compaction is finished by the write of the checkpoint: files
//! beyond it are undone at the next start, journal files within it are removed. A merge is finished by the
//! write of the merged file, whose range covers those it was made from.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;

use super::index::{Partition, Range, SampleFile, leftovers};
use super::rows::{self, Row};
use super::segment::{Mark, Meta, Summary};
use super::{CHECKPOINT, Checkpoint, MAX_FILE, Space, Store, StoreError, blocking, lock};

/// Commits in the journal from which it is compacted at once …
const COMPACT_COMMITS: usize = 64;
/// … or the age of the oldest, by the clock of its marks.
const COMPACT_AGE_MS: i64 = 120_000;
/// Rows that are held in memory while files are merged.
const MERGE_ROWS: u64 = 50_000;
/// Files of a partition that are merged at once.
const MERGE_FILES: usize = 8;
/// Files of summaries that are merged at once.
const MERGE_SUMMARIES: usize = 16;
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
/// Marks of agents that were not heard of for so long are forgotten.
const MARK_AGE_MS: i64 = 30 * 86_400_000;

/// Samples by the folder that they belong to.
fn partition(rows: Vec<Row>) -> BTreeMap<Partition, Vec<Row>> {
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
fn plan_compaction<'a>(
    journal: impl Iterator<Item = (&'a u64, &'a SampleFile)> + Clone,
    oldest_ms: Option<i64>,
    now_ms: i64,
) -> Option<Range> {
    let count = journal.clone().count();
    let aged = oldest_ms.is_some_and(|oldest| now_ms.saturating_sub(oldest) >= COMPACT_AGE_MS);
    if count < COMPACT_COMMITS && !aged {
        return None;
    }
    let mut rows = 0;
    let mut range: Option<Range> = None;
    for (number, file) in journal {
        rows += file.rows();
        if rows > MERGE_ROWS && range.is_some() {
            break;
        }
        let first = range.map_or(*number, |r| r.first);
        range = Some(Range { first, last: *number });
    }
    range
}

/// Neighbours in a partition that are worth merging: many, and together small enough.
fn plan_merge(files: &BTreeMap<Range, SampleFile>) -> Vec<Range> {
    let mut run: Vec<Range> = vec![];
    let mut rows = 0;
    for (range, file) in files {
        // A large file ends a run: what is merged covers all that lies between its ends.
        let large = file.rows() > MERGE_ROWS / 2;
        if large || rows + file.rows() > MERGE_ROWS {
            if run.len() >= MERGE_FILES {
                break;
            }
            run.clear();
            rows = 0;
        }
        if !large {
            run.push(*range);
            rows += file.rows();
        }
    }
    if run.len() >= MERGE_FILES { run } else { vec![] }
}

/// Files to remove: all that ended too long ago, then the oldest until the rest is small enough.
fn plan_retention(files: &[(String, u64, i64)], min_end_ms: i64, max_bytes: u64) -> Vec<String> {
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
fn room(held: u64, free: u64, reserve: u64) -> u64 {
    match free < reserve {
        true => held.saturating_sub(reserve.saturating_mul(2) - free),
        false => u64::MAX,
    }
}

impl Store {
    /// One round of upkeep; true where there was something to do, so that there may be more.
    ///
    /// # Errors
    /// The volume. What was done stays done, and the next round goes on.
    pub async fn maintain(&self, now_ms: i64) -> Result<bool, StoreError> {
        // First, because on a full volume it is what makes room for the rest.
        let removed = self.retain(now_ms).await?;
        lock(&self.index).coarsen(now_ms);
        let compacted = self.compact(now_ms).await?;
        let merged = self.merge().await?;
        let summed = self.merge_summary_files(now_ms).await?;
        if self.health.borrow().full.is_some() && self.check_reserve().is_ok() {
            self.set_health(super::Health::default());
        }
        Ok(removed || compacted || merged || summed)
    }

    pub(super) async fn compact(&self, now_ms: i64) -> Result<bool, StoreError> {
        let oldest = {
            let index = lock(&self.index);
            index.journal.values().next().map(|f| f.path.clone())
        };
        let Some(oldest) = oldest else {
            return Ok(false);
        };
        let oldest_ms = match self.meta(&oldest).await {
            Ok(meta) => meta.marks.iter().map(|m| m.seen_ms).min(),
            Err(error) => {
                self.quarantine(&oldest, error).await?;
                return Ok(true);
            }
        };
        let (range, paths) = {
            let index = lock(&self.index);
            let Some(range) = plan_compaction(index.journal.iter(), oldest_ms, now_ms) else {
                return Ok(false);
            };
            let paths: Vec<String> = index
                .journal
                .range(range.first..=range.last)
                .map(|(_, f)| f.path.clone())
                .collect();
            (range, paths)
        };
        let (mut rows, mut summaries, mut damaged) = (vec![], vec![], vec![]);
        for path in &paths {
            // Its footer may be whole where its rows are not: what is in that is used.
            let read = match self.meta(path).await {
                Ok(meta) => {
                    summaries.extend(meta.summaries);
                    self.rows(path).await
                }
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => rows.extend(read),
                Err(error) if error.is_damage() => damaged.push((path.clone(), error)),
                Err(error) => return Err(error),
            }
        }
        let mut written = vec![];
        for (partition, rows) in partition(rows) {
            let path = format!("{}/{}.parquet", partition.folder(), range.name());
            written.push((partition, self.write_rows(path, rows).await?));
        }
        if !summaries.is_empty() {
            let merged = merge_summaries(summaries, now_ms);
            self.write_summaries(range, merged).await?;
        }
        let marks = self.young_marks(now_ms);
        let checkpoint = Checkpoint {
            through: range.last,
            marks,
        };
        self.disk
            .put(CHECKPOINT, checkpoint.encode_to_vec().into())
            .await?;
        self.through.store(range.last, Ordering::SeqCst);

        let _files = self.files.write().await;
        {
            let mut index = lock(&self.index);
            index.journal.retain(|number, _| *number > range.last);
            for (partition, file) in written {
                index.partitions.entry(partition).or_default().insert(range, file);
            }
        }
        for (path, error) in damaged {
            self.set_aside(&path, error).await?;
        }
        for path in &paths {
            self.disk.delete(path).await?;
        }
        Ok(true)
    }

    /// The marks that are worth keeping; the others are forgotten.
    fn young_marks(&self, now_ms: i64) -> Vec<Mark> {
        let mut marks = lock(&self.marks);
        marks.retain(|_, mark| now_ms.saturating_sub(mark.seen_ms) < MARK_AGE_MS);
        let mut young: Vec<Mark> = marks.values().cloned().collect();
        young.sort_by(|a, b| (&a.node, &a.instance).cmp(&(&b.node, &b.instance)));
        young
    }

    async fn write_rows(&self, path: String, rows: Vec<Row>) -> Result<SampleFile, StoreError> {
        let (bytes, meta) = blocking(move || {
            let meta = Meta::of_rows(&rows);
            Ok((rows::encode(&rows, vec![meta.entry()])?, meta))
        })
        .await?;
        let size = bytes.len() as u64;
        self.disk.put(&path, bytes).await?;
        Ok(SampleFile::new(path, size, meta))
    }

    async fn merge(&self) -> Result<bool, StoreError> {
        let found = {
            let index = lock(&self.index);
            index.partitions.iter().find_map(|(partition, files)| {
                let run = plan_merge(files);
                let range = Range {
                    first: run.first()?.first,
                    last: run.last()?.last,
                };
                let paths: Vec<String> = run.iter().map(|r| files[r].path.clone()).collect();
                Some((partition.clone(), range, paths))
            })
        };
        let Some((partition, range, paths)) = found else {
            return Ok(false);
        };
        let mut rows = vec![];
        for path in &paths {
            match self.rows(path).await {
                Ok(read) => rows.extend(read),
                Err(error) => {
                    self.quarantine(path, error).await?;
                    return Ok(true);
                }
            }
        }
        rows.sort_by_key(|row| (row.start_ms, row.source));
        let path = format!("{}/{}.parquet", partition.folder(), range.name());
        let file = self.write_rows(path, rows).await?;
        let _files = self.files.write().await;
        {
            let mut index = lock(&self.index);
            for path in &paths {
                index.remove(path);
            }
            index.partitions.entry(partition).or_default().insert(range, file);
        }
        for path in &paths {
            self.disk.delete(path).await?;
        }
        Ok(true)
    }

    async fn retain(&self, now_ms: i64) -> Result<bool, StoreError> {
        let Space { total, free } = self.disk.space()?;
        let max_bytes = match self.options.max_bytes {
            0 => total / 10 * 7,
            bytes => bytes,
        };
        let max_age_ms = i64::try_from(self.options.max_age.as_millis()).unwrap_or(i64::MAX);
        let gone = {
            let index = lock(&self.index);
            let files: Vec<_> = index
                .partitions
                .values()
                .flat_map(BTreeMap::values)
                .map(|f| (f.path.clone(), f.bytes, f.until_ms()))
                .collect();
            let held = files.iter().map(|(_, bytes, _)| bytes).sum();
            let max_bytes = max_bytes.min(room(held, free, self.options.reserve));
            plan_retention(&files, now_ms.saturating_sub(max_age_ms), max_bytes)
        };
        if gone.is_empty() {
            return Ok(false);
        }
        tracing::info!(files = gone.len(), "samples past the retention are removed");
        let _files = self.files.write().await;
        for path in &gone {
            self.disk.delete(path).await?;
            lock(&self.index).remove(path);
        }
        Ok(true)
    }

    pub(super) async fn open_summaries(&self, through: u64) -> Result<(), StoreError> {
        let entries = self.disk.list("summaries").await?;
        let ranges: Vec<Range> = entries.iter().filter_map(|e| Range::of_path(&e.path)).collect();
        let left = leftovers(ranges.iter());
        for range in ranges {
            if range.last > through || left.contains(&range) {
                self.disk.delete(&summary_path(range)).await?;
            } else if let Err(error) = self.summary_file(range).await {
                self.set_aside(&summary_path(range), error).await?;
            }
        }
        Ok(())
    }

    /// The files of summaries that count. A compaction that failed before its checkpoint leaves one whose
    /// commits are in the journal still, and in the next one's file.
    pub(super) async fn summary_ranges(&self) -> Result<Vec<Range>, StoreError> {
        let through = self.through.load(Ordering::SeqCst);
        let entries = self.disk.list("summaries").await?;
        let mut ranges: Vec<Range> = entries.iter().filter_map(|e| Range::of_path(&e.path)).collect();
        ranges.retain(|range| range.last <= through);
        let left = leftovers(ranges.iter());
        ranges.retain(|range| !left.contains(range));
        ranges.sort();
        Ok(ranges)
    }

    pub(super) async fn summary_file(&self, range: Range) -> Result<Vec<Summary>, StoreError> {
        let path = summary_path(range);
        let bytes = self.disk.get(&path, MAX_FILE).await?;
        let file = SummaryFile::decode(bytes).map_err(|e| StoreError::Corrupt {
            path,
            why: e.to_string(),
        })?;
        Ok(file.summaries)
    }

    async fn write_summaries(&self, range: Range, summaries: Vec<Summary>) -> Result<(), StoreError> {
        let bytes: Bytes = SummaryFile { summaries }.encode_to_vec().into();
        self.disk.put(&summary_path(range), bytes).await
    }

    async fn merge_summary_files(&self, now_ms: i64) -> Result<bool, StoreError> {
        let ranges = self.summary_ranges().await?;
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else {
            return Ok(false);
        };
        if ranges.len() < MERGE_SUMMARIES {
            return Ok(false);
        }
        let mut all = vec![];
        for range in &ranges {
            match self.summary_file(*range).await {
                Ok(read) => all.extend(read),
                Err(error) => {
                    self.set_aside(&summary_path(*range), error).await?;
                    return Ok(true);
                }
            }
        }
        let max_age_ms = i64::try_from(self.options.max_age.as_millis()).unwrap_or(i64::MAX);
        all.retain(|s| now_ms.saturating_sub(s.last_ms) < max_age_ms);
        let whole = Range {
            first: first.first,
            last: last.last,
        };
        let _files = self.files.write().await;
        self.write_summaries(whole, merge_summaries(all, now_ms)).await?;
        for range in ranges {
            self.disk.delete(&summary_path(range)).await?;
        }
        Ok(true)
    }
}

/// `summaries/<first>-<last>.pb`.
#[derive(Clone, PartialEq, Eq, Message)]
struct SummaryFile {
    #[prost(message, repeated, tag = "1")]
    summaries: Vec<Summary>,
}

fn summary_path(range: Range) -> String {
    format!("summaries/{}.pb", range.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::segment::Count;
    use crate::store::segment::ProfileCounts;

    fn file(number: u64, rows: u64) -> (Range, SampleFile) {
        let range = Range {
            first: number,
            last: number,
        };
        let count = Count {
            rows,
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
        (range, SampleFile::new(range.name(), 1, meta))
    }

    #[test]
    fn the_journal_moves_on_by_number_or_by_age() {
        let journal = |n: u64, rows| (1..=n).map(|i| (i, file(i, rows).1)).collect::<BTreeMap<_, _>>();
        let range = |first, last| Some(Range { first, last });
        let few = journal(3, 10);
        assert_eq!(plan_compaction(few.iter(), Some(0), COMPACT_AGE_MS - 1), None);
        assert_eq!(plan_compaction(few.iter(), Some(0), COMPACT_AGE_MS), range(1, 3));
        let many = journal(64, 10);
        assert_eq!(plan_compaction(many.iter(), None, 0), range(1, 64));
        let large = journal(64, MERGE_ROWS / 2);
        assert_eq!(plan_compaction(large.iter(), None, 0), range(1, 2));
        let huge = journal(64, MERGE_ROWS * 2);
        assert_eq!(plan_compaction(huge.iter(), None, 0), range(1, 1));
    }

    #[test]
    fn small_neighbours_are_merged_and_large_files_are_left() {
        let files = |rows: &[u64]| {
            (1..)
                .zip(rows)
                .map(|(i, rows)| file(i, *rows))
                .collect::<BTreeMap<_, _>>()
        };
        assert!(plan_merge(&files(&[5; 7])).is_empty());
        assert_eq!(plan_merge(&files(&[5; 9])).len(), 9);
        let one_large = [&[MERGE_ROWS][..], &[5; 8]].concat();
        assert_eq!(
            plan_merge(&files(&one_large)).first(),
            Some(&Range { first: 2, last: 2 })
        );
        assert!(plan_merge(&files(&[MERGE_ROWS / 2; 20])).is_empty());
        // One that is neither, between small ones: what comes after it is a run of its own.
        let middling = [&[5; 4][..], &[MERGE_ROWS / 2 + 1], &[5; 8]].concat();
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
