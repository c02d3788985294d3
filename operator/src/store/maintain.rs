//! Moves commits on from the journal, merges small files, and removes what is too old or too much.
//!
//! Every step writes first and removes after. Compaction is finished by the write of the checkpoint: files
//! beyond it whose commits the journal still has are undone at the next start ([`super::checkpoint`]), journal files
//! within it are removed. A merge is finished by the
//! write of the merged file, whose range covers those it was made from.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;

use super::checkpoint::{CHECKPOINT, Checkpoint};
use super::index::{Range, SampleFile, leftovers};
use super::plan::{
    MERGE_SUMMARIES, merge_summaries, partition, plan_compaction, plan_merge, plan_retention, room,
};
use super::rows::{self, Row};
use super::segment::{Meta, Summary};
use super::{MAX_FILE, Space, Store, StoreError, blocking, lock};

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
        if self.health.borrow().full.is_some() && self.check_reserve(0).is_ok() {
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
        let checkpoint = Checkpoint {
            through: range.last,
            marks: lock(&self.marks).settle(now_ms),
        };
        self.disk.put(CHECKPOINT, checkpoint.to_bytes()).await?;
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
