//! The store: artifacts by digest, samples as Parquet, summaries of scores, and what training runs make.
//!
//! ```text
//! blobs/sha256/<hex>                                     artifacts
//! journal/<commit>-<commit>.parquet                      group commits: samples, summaries, marks
//! samples/<namespace>/<profile>/<day>/<first>-<last>.parquet   the same samples, sorted out and merged
//! summaries/<first>-<last>.pb                            the same summaries, merged
//! late-names.pb                                          what nodes may speak of though their plans no longer do
//! checkpoint.pb                                          up to which commit that is done, and the marks of agents
//! runs/<uid>/…                                           shards and output of a training run
//! damaged/…                                              files that could not be read, as they were
//! lock                                                   held by the process that has the store
//! ```
//!
//! What is acknowledged is in `journal/`, synced. [`maintain`] moves it on; each of its steps can be cut off
//! by a crash and is finished or undone by the next start. A volume that is full refuses commits, so agents
//! keep what they have; artifacts are never removed to make room, only once nobody has named them for long.

mod blobs;
mod checkpoint;
mod disk;
mod error;
mod index;
mod maintain;
mod marks;
mod open;
mod plan;
mod rows;
mod runs;
mod segment;

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

pub use blobs::{MAX_ARTIFACT, digest_of};
pub use disk::Space;
pub use error::StoreError;
pub use rows::{Kind, Length, Row};
pub use runs::{MAX_OUTPUT, Output};
pub use segment::{Mark, Segment, Summary};

use checkpoint::Checkpoint;
use disk::Disk;
use index::{Index, Range, SampleFile};
use marks::Marks;

/// Largest file of samples or summaries that is read; merging keeps them far below.
const MAX_FILE: u64 = 256 << 20;

/// How much the store keeps.
#[derive(Clone, Debug)]
pub struct Options {
    /// Samples older than this are removed.
    pub max_age: std::time::Duration,
    /// Bytes of samples above which the oldest are removed; 0 for 70 % of the volume.
    pub max_bytes: u64,
    /// Bytes of the volume that samples leave free for artifacts and runs.
    pub reserve: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_age: std::time::Duration::from_secs(14 * 86_400),
            max_bytes: 0,
            reserve: 64 << 20,
        }
    }
}

/// Whether commits are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Why not, where they are not.
    pub full: Option<String>,
}

/// What there is, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sample files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// Of the volume.
    pub space: Space,
}

/// The store.
#[derive(Debug)]
pub struct Store {
    disk: Disk,
    options: Options,
    index: Mutex<Index>,
    marks: Mutex<Marks>,
    /// Number of the next commit; held while one is written, so there is one at a time.
    next: tokio::sync::Mutex<u64>,
    /// Commits up to this one are in partitions and summaries.
    through: AtomicU64,
    /// Held for reading while files are read, for writing while files are removed.
    files: tokio::sync::RwLock<()>,
    health: watch::Sender<Health>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these; if it did, what is inside is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs encoding and decoding where it does not hold up other tasks, and where a panic is damage of a file.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => Err(StoreError::Rows(format!(
            "a file could not be worked on: {panic}"
        ))),
    }
}

impl Store {
    /// Opens the store in a folder, once no other process has it, finishing or undoing what a crash cut off.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub async fn open(root: &Path, options: Options) -> Result<Self, StoreError> {
        let disk = Disk::open(root).await?;
        let checkpoint = Checkpoint::find(&disk).await?;
        let store = Self {
            disk,
            options,
            index: Mutex::default(),
            marks: Mutex::default(),
            next: tokio::sync::Mutex::new(checkpoint.through + 1),
            through: AtomicU64::new(checkpoint.through),
            files: tokio::sync::RwLock::new(()),
            health: watch::Sender::new(Health::default()),
        };
        store.raise_marks(&checkpoint.marks);
        store.open_partitions(checkpoint.through).await?;
        store.open_summaries(checkpoint.through).await?;
        store.open_journal(checkpoint.through).await?;
        Ok(store)
    }

    /// From now on nothing is written: another operator may take over before this process has ended.
    pub fn fence(&self) {
        self.disk.fence();
    }

    fn raise_marks(&self, marks: &[Mark]) {
        let mut known = lock(&self.marks);
        for mark in marks {
            known.raise(mark);
        }
    }

    /// Up to which sequence number the batches of an agent are stored; 0 where that is not known.
    pub fn mark(&self, node: &str, instance: &str) -> u64 {
        lock(&self.marks).sequence(node, instance)
    }

    /// Stores a group of reports. When it returns, they outlive a power cut; when it fails, none of them is
    /// stored.
    ///
    /// # Errors
    /// [`StoreError::Full`], or another one of the volume.
    pub async fn commit(&self, segment: Segment) -> Result<(), StoreError> {
        let mut next = self.next.lock().await;
        let done = self.write_segment(*next, segment).await;
        if done.is_ok() {
            *next += 1;
        }
        let full = match &done {
            Err(StoreError::Full(why)) => Some(why.clone()),
            _ => None,
        };
        self.set_health(Health { full });
        done
    }

    async fn write_segment(&self, number: u64, segment: Segment) -> Result<(), StoreError> {
        self.check_reserve(0)?;
        let (bytes, meta) = blocking(move || segment.encode()).await?;
        let range = Range {
            first: number,
            last: number,
        };
        let path = format!("journal/{}.parquet", range.name());
        let size = bytes.len() as u64;
        if let Err(error) = self.disk.put(&path, bytes).await {
            // It may have got its name before it failed. The number is used again, so at worst it is
            // overwritten; where even that fails, agents send again what is in it, and it is dropped as stored.
            if let Err(error) = self.disk.delete(&path).await {
                tracing::warn!(path, %error, "what a failed commit left could not be removed");
            }
            return Err(error);
        }
        self.raise_marks(&meta.marks);
        let file = SampleFile::new(path, size, meta);
        lock(&self.index).journal.insert(number, file);
        Ok(())
    }

    /// Refuses samples, or so many bytes of them, where less than the reserve would be free.
    fn check_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let Space { free, .. } = self.disk.space()?;
        if free.saturating_sub(bytes) < self.options.reserve {
            return Err(StoreError::Full(format!(
                "{free} bytes are free, {bytes} are asked for, and {} are kept for artifacts",
                self.options.reserve
            )));
        }
        Ok(())
    }

    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|old| {
            let changed = old.full.is_some() != health.full.is_some();
            if changed {
                match &health.full {
                    Some(why) => tracing::error!(
                        why,
                        "the store is full: reports are not acknowledged, agents keep them"
                    ),
                    None => tracing::info!("the store takes reports again"),
                }
            }
            *old = health;
            changed
        });
    }

    /// A small document of the operator's own.
    ///
    /// # Errors
    /// Not there, or the volume.
    pub async fn document(&self, name: &str) -> Result<Bytes, StoreError> {
        self.disk.get(name, MAX_FILE).await
    }

    /// Writes a small document of the operator's own.
    ///
    /// # Errors
    /// The volume.
    pub async fn put_document(&self, name: &'static str, bytes: Bytes) -> Result<(), StoreError> {
        self.disk.put(name, bytes).await
    }

    /// Whether commits are taken, as the last one found.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What there is.
    ///
    /// # Errors
    /// The volume does not say.
    pub fn stats(&self) -> Result<Stats, StoreError> {
        let space = self.disk.space()?;
        let index = lock(&self.index);
        Ok(index.files().fold(
            Stats {
                space,
                ..Stats::default()
            },
            |sum, file| Stats {
                files: sum.files + 1,
                bytes: sum.bytes + file.bytes,
                rows: sum.rows + file.rows(),
                space,
            },
        ))
    }

    /// Windows of a profile in a time that are `wanted` (of their kind, with or without an alert), never too many: spans
    /// of five seconds that are not in it as a whole do not count.
    pub fn count(
        &self,
        namespace: &str,
        profile: &str,
        between: (i64, i64),
        wanted: impl Fn(Kind<'_>, bool) -> bool,
    ) -> u64 {
        lock(&self.index).count(namespace, profile, between, wanted)
    }

    /// Calls `take` with each window of a profile that began in a time (both ends included), those of newer
    /// files first, else in no order. What `take` answers is the time before which no window is wanted any more.
    /// Damaged files are set aside.
    ///
    /// # Errors
    /// The volume.
    pub async fn each_row(
        &self,
        namespace: &str,
        profile: &str,
        (mut since_ms, until_ms): (i64, i64),
        mut take: impl FnMut(Row) -> i64 + Send,
    ) -> Result<(), StoreError> {
        let mut damaged = vec![];
        let files = self.files.read().await;
        let paths = lock(&self.index).overlapping(namespace, profile, since_ms, until_ms);
        for (end_ms, path) in paths {
            if end_ms <= since_ms {
                break;
            }
            let rows = match self.rows(&path).await {
                Ok(rows) => rows,
                Err(error) if error.is_damage() => {
                    damaged.push((path, error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for row in rows {
                if *row.namespace == *namespace
                    && *row.profile == *profile
                    && (since_ms..=until_ms).contains(&row.start_ms)
                {
                    since_ms = since_ms.max(take(row));
                }
            }
        }
        drop(files);
        for (path, error) in damaged {
            self.quarantine(&path, error).await?;
        }
        Ok(())
    }

    /// The rows of a file.
    async fn rows(&self, path: &str) -> Result<Vec<Row>, StoreError> {
        let bytes = self.disk.get(path, MAX_FILE).await?;
        blocking(move || {
            let mut all = vec![];
            rows::decode(bytes, |row| all.push(row))?;
            Ok(all)
        })
        .await
    }

    /// Every summary there is, in no order: what [`crate::observed`] is rebuilt from at a start.
    ///
    /// # Errors
    /// The volume, or a damaged file.
    pub async fn summaries(&self) -> Result<Vec<Summary>, StoreError> {
        let _files = self.files.read().await;
        let mut all = vec![];
        for range in self.summary_ranges().await? {
            all.extend(self.summary_file(range).await?);
        }
        let journal: Vec<String> = lock(&self.index)
            .journal
            .values()
            .map(|f| f.path.clone())
            .collect();
        for path in journal {
            all.extend(self.meta(&path).await?.summaries);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests;
