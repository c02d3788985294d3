//! Which sample files there are, and what is in them. Kept in memory, rebuilt from names and footers.
//!
//! Files are named by the range of commits that they hold, `<first>-<last>.parquet`, so that a crash between
//! writing a merged file and removing its parts is seen at the next start: what another file of the same
//! folder contains is left over, and what lies beyond the checkpoint was not finished.

use std::collections::BTreeMap;

use super::rows::{Kind, MOST_HELD};
use super::segment::{FINE_MS, Meta, ProfileCounts};

/// A range of commits, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Range {
    pub first: u64,
    pub last: u64,
}

/// Names have 16 digits: a larger number is in none that the store has written.
pub(super) const BEYOND: u64 = 10_u64.pow(16);

impl Range {
    /// `<first>-<last>`, padded so that names sort by it.
    pub fn name(self) -> String {
        format!("{:016}-{:016}", self.first, self.last)
    }

    /// Reads the name of a file.
    pub fn of_path(path: &str) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let (first, last) = name.split_once('.')?.0.split_once('-')?;
        let range = Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
        };
        (range.first <= range.last && range.last < BEYOND).then_some(range)
    }

    /// Whether it holds all of another one, and more.
    pub fn covers(self, other: Self) -> bool {
        self != other && self.first <= other.first && other.last <= self.last
    }
}

/// A profile and a day: a folder of sample files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Partition {
    pub namespace: String,
    pub profile: String,
    /// yyyy-mm-dd, UTC.
    pub day: String,
}

impl Partition {
    pub fn folder(&self) -> String {
        format!("samples/{}/{}/{}", self.namespace, self.profile, self.day)
    }

    /// Reads `samples/<namespace>/<profile>/<day>/<file>`.
    pub fn of_path(path: &str) -> Option<Self> {
        let mut parts = path.split('/');
        let (samples, namespace, profile, day, file) = (
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
            parts.next()?,
        );
        (samples == "samples" && file.ends_with(".parquet") && parts.next().is_none()).then(|| Self {
            namespace: namespace.to_owned(),
            profile: profile.to_owned(),
            day: day.to_owned(),
        })
    }
}

fn rows(profiles: &[ProfileCounts]) -> u64 {
    let counts = profiles.iter().flat_map(|p| &p.counts);
    counts.fold(0, |sum, count| sum.saturating_add(count.rows))
}

/// A file with samples.
#[derive(Clone, Debug)]
pub(super) struct SampleFile {
    pub path: String,
    pub bytes: u64,
    pub profiles: Vec<ProfileCounts>,
    /// Bytes that its rows take in memory.
    pub held: u64,
}

impl SampleFile {
    pub fn new(path: String, bytes: u64, meta: Meta) -> Self {
        Self {
            path,
            bytes,
            // Of files that do not say it, they may have as many sequences as a window can.
            held: match meta.held {
                0 => rows(&meta.profiles).saturating_mul(MOST_HELD),
                held => held,
            },
            profiles: meta.profiles,
        }
    }

    /// The counts of a profile, by kind.
    fn of_profile(&self, namespace: &str, profile: &str) -> impl Iterator<Item = &ProfileCounts> {
        let all = self.profiles.iter();
        all.filter(move |p| p.namespace == namespace && p.profile == profile)
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        rows(&self.profiles)
    }

    /// End of the latest span.
    pub fn until_ms(&self) -> i64 {
        let ends = self.profiles.iter().filter_map(|p| p.counts.last());
        ends.map(|c| c.start_ms.saturating_add(c.span_ms))
            .max()
            .unwrap_or(i64::MIN)
    }

    /// Keeps counts that are [`FINE_MS`] old by the hour.
    pub fn coarsen(&mut self, now_ms: i64) {
        for profile in &mut self.profiles {
            profile.coarsen(now_ms.saturating_sub(FINE_MS));
        }
    }

    /// Whether it may hold rows of a profile that begin in a time.
    pub fn overlaps(&self, namespace: &str, profile: &str, since_ms: i64, until_ms: i64) -> bool {
        self.of_profile(namespace, profile)
            .flat_map(|p| &p.counts)
            .any(|c| c.start_ms <= until_ms && c.start_ms.saturating_add(c.span_ms) > since_ms)
    }
}

/// Every sample file.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Commits that are not yet in partitions, by number.
    pub journal: BTreeMap<u64, SampleFile>,
    /// The rest.
    pub partitions: BTreeMap<Partition, BTreeMap<Range, SampleFile>>,
}

impl Index {
    /// Every file.
    pub fn files(&self) -> impl Iterator<Item = &SampleFile> {
        self.journal
            .values()
            .chain(self.partitions.values().flat_map(BTreeMap::values))
    }

    /// Windows of a profile that are `wanted` (of their kind, with or without an alert) in spans that lie in a time as
    /// a whole, so never too many.
    pub fn count(
        &self,
        namespace: &str,
        profile: &str,
        (since_ms, until_ms): (i64, i64),
        wanted: impl Fn(Kind<'_>, bool) -> bool,
    ) -> u64 {
        let of_profile = self.files().flat_map(|file| file.of_profile(namespace, profile));
        let of_profile = of_profile.map(|p| {
            let (calm, alerted) = (wanted(p.kind(), false), wanted(p.kind(), true));
            let counts = p.counts.iter();
            let whole = counts
                .filter(|c| c.start_ms >= since_ms && c.start_ms.saturating_add(c.span_ms) <= until_ms)
                .map(|c| u64::from(calm) * c.rows.saturating_sub(c.alerted) + u64::from(alerted) * c.alerted);
            whole.sum::<u64>()
        });
        of_profile.sum()
    }

    /// Files that may hold rows of a profile that begin in a time, with their ends, the latest first.
    pub fn overlapping(
        &self,
        namespace: &str,
        profile: &str,
        since_ms: i64,
        until_ms: i64,
    ) -> Vec<(i64, String)> {
        let mut files: Vec<_> = self
            .files()
            .filter(|f| f.overlaps(namespace, profile, since_ms, until_ms))
            .map(|f| (f.until_ms(), f.path.clone()))
            .collect();
        files.sort_by(|a, b| b.cmp(a));
        files
    }

    /// Keeps the counts of files that have grown old by the hour.
    pub fn coarsen(&mut self, now_ms: i64) {
        let files = self.partitions.values_mut().flat_map(BTreeMap::values_mut);
        self.journal
            .values_mut()
            .chain(files)
            .for_each(|file| file.coarsen(now_ms));
    }

    /// Forgets a file.
    pub fn remove(&mut self, path: &str) {
        self.journal.retain(|_, file| file.path != path);
        self.partitions.retain(|_, files| {
            files.retain(|_, file| file.path != path);
            !files.is_empty()
        });
    }
}

/// Paths of one folder that a crash left over: ranges that another one covers.
pub(super) fn leftovers<'a>(ranges: impl Iterator<Item = &'a Range> + Clone) -> Vec<Range> {
    ranges
        .clone()
        .filter(|range| ranges.clone().any(|other| other.covers(**range)))
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        let range = Range { first: 3, last: 12 };
        let partition = Partition {
            namespace: "shop".into(),
            profile: "redis.v1".into(),
            day: "2026-11-21".into(),
        };
        let path = format!("{}/{}.parquet", partition.folder(), range.name());
        assert_eq!(Range::of_path(&path), Some(range));
        assert_eq!(Partition::of_path(&path), Some(partition));
        for bad in [
            "samples/a/b/c",
            "samples/a/b/c/d/1-2.parquet",
            "x/a/b/c/1-2.parquet",
        ] {
            assert_eq!(Partition::of_path(bad), None, "{bad}");
        }
        for bad in [
            "a/2-1.parquet",
            "a/1.parquet",
            "a/x-1.parquet",
            "a/1-2",
            "a/1-10000000000000000.pb",
        ] {
            assert_eq!(Range::of_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_a_merged_file_holds_is_left_over() {
        let range = |first, last| Range { first, last };
        let all = [range(1, 4), range(5, 8), range(1, 8), range(9, 9)];
        assert_eq!(leftovers(all.iter()), [range(1, 4), range(5, 8)]);
    }
}
