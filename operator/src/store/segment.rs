//! What one group commit writes, and what every sample file says of itself in its footer.
//!
//! A commit is one Parquet file in `journal/`: its rows are the samples of all profiles, its footer holds the
//! score summaries and the high-water marks of the same reports. So one atomic write makes all of it durable,
//! and a report is stored whole or not at all.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use vigia_model::syscalls::ALL_CALLS;

use super::StoreError;
use super::rows::{self, Kind, Length, Row};

/// Key of the footer's entry.
const KEY: &str = "vigia.meta";

/// Scores of one version on one node that began in one span of time. Summaries add up.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Summary {
    /// Namespace of the Model.
    #[prost(string, tag = "1")]
    pub namespace: String,
    /// Name of the Model.
    #[prost(string, tag = "2")]
    pub model: String,
    /// Digest of the version.
    #[prost(string, tag = "3")]
    pub digest: String,
    /// Node that scored; empty in sums over all nodes.
    #[prost(string, tag = "4")]
    pub node: String,
    /// Start of the earliest window that is counted, or of the span that it was put into.
    #[prost(int64, tag = "5")]
    pub start_ms: i64,
    /// Start of the latest window that is counted.
    #[prost(int64, tag = "6")]
    pub last_ms: i64,
    /// Windows scored.
    #[prost(uint64, tag = "7")]
    pub windows: u64,
    /// Windows above the alert threshold.
    #[prost(uint64, tag = "8")]
    pub above_threshold: u64,
    /// Windows by calibrated score; empty where only the sums are kept.
    #[prost(uint64, repeated, tag = "9")]
    pub histogram: Vec<u64>,
}

impl Summary {
    /// Adds another one of the same version.
    pub fn add(&mut self, other: &Self) {
        self.start_ms = self.start_ms.min(other.start_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.windows = self.windows.saturating_add(other.windows);
        self.above_threshold = self.above_threshold.saturating_add(other.above_threshold);
        if self.histogram.len() < other.histogram.len() {
            self.histogram.resize(other.histogram.len(), 0);
        }
        for (mine, theirs) in self.histogram.iter_mut().zip(&other.histogram) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

/// Up to which sequence number an agent's batches are stored.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Mark {
    /// Node of the agent.
    #[prost(string, tag = "1")]
    pub node: String,
    /// Instance of the agent's state.
    #[prost(string, tag = "2")]
    pub instance: String,
    /// Highest sequence number stored.
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// When, by the operator's clock.
    #[prost(int64, tag = "4")]
    pub seen_ms: i64,
}

/// Rows of a profile that begin in one span: of [`SPAN_MS`] in files, of [`COARSE_MS`] in memory once they are
/// [`FINE_MS`] old.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Count {
    #[prost(int64, tag = "1")]
    pub start_ms: i64,
    /// Length of the span.
    #[prost(int64, tag = "2")]
    pub span_ms: i64,
    #[prost(uint64, tag = "3")]
    pub rows: u64,
    #[prost(uint64, tag = "4")]
    pub alerted: u64,
}

/// The rows of one profile and kind in a file.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct ProfileCounts {
    #[prost(string, tag = "1")]
    pub namespace: String,
    #[prost(string, tag = "2")]
    pub profile: String,
    /// By start.
    #[prost(message, repeated, tag = "3")]
    pub counts: Vec<Count>,
    /// Hash of the feature schema. Empty in files of an operator that did not write it.
    #[prost(string, tag = "4")]
    pub schema: String,
    /// [`Length`]; 0 in the same files.
    #[prost(int32, tag = "5")]
    pub length: i32,
    /// Fingerprint of the filter. Empty in files of an operator that did not write it: all calls.
    #[prost(string, tag = "6")]
    pub capture: String,
}

/// Footer of a sample file.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Meta {
    #[prost(message, repeated, tag = "1")]
    pub marks: Vec<Mark>,
    #[prost(message, repeated, tag = "2")]
    pub summaries: Vec<Summary>,
    #[prost(message, repeated, tag = "3")]
    pub profiles: Vec<ProfileCounts>,
    /// Bytes that the rows take in memory; 0 in files of an operator that did not write it.
    #[prost(uint64, tag = "4")]
    pub held: u64,
}

/// Finest span of counts: fine enough for "windows since" of a run to be exact within it.
pub(super) const SPAN_MS: i64 = 5_000;
/// How long they are kept as fine as that in memory.
pub(super) const FINE_MS: i64 = 86_400_000;
/// Span of older ones: else a profile that runs for 90 days has 1.5 million of them.
pub(super) const COARSE_MS: i64 = 3_600_000;

/// What a group commit stores.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Segment {
    /// Feature vectors.
    pub rows: Vec<Row>,
    /// Scores.
    pub summaries: Vec<Summary>,
    /// High-water marks after it.
    pub marks: Vec<Mark>,
}

impl ProfileCounts {
    /// What the rows have in common. Of files that do not say it, it is none that anybody asks for.
    pub fn kind(&self) -> Kind<'_> {
        Kind {
            schema: &self.schema,
            length: Length(self.length),
            capture: match self.capture.as_str() {
                "" => ALL_CALLS,
                said => said,
            },
        }
    }

    /// Puts spans that ended before a time into coarse ones; says whether there were any.
    pub fn coarsen(&mut self, before_ms: i64) -> bool {
        let is_old = |c: &Count| c.span_ms < COARSE_MS && c.start_ms.saturating_add(c.span_ms) <= before_ms;
        if !self.counts.iter().any(is_old) {
            return false;
        }
        let mut coarse: Vec<Count> = vec![];
        for count in std::mem::take(&mut self.counts) {
            let mut count = count;
            if is_old(&count) {
                count.start_ms = count.start_ms.div_euclid(COARSE_MS) * COARSE_MS;
                count.span_ms = COARSE_MS;
            }
            match coarse.last_mut() {
                Some(last) if (last.start_ms, last.span_ms) == (count.start_ms, count.span_ms) => {
                    last.rows += count.rows;
                    last.alerted += count.alerted;
                }
                _ => coarse.push(count),
            }
        }
        coarse.shrink_to_fit();
        self.counts = coarse;
        true
    }
}

impl Meta {
    /// Counts of rows.
    pub fn of_rows<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut profiles: BTreeMap<(&str, &str, Kind<'_>), BTreeMap<i64, Count>> = BTreeMap::new();
        let mut held = 0;
        for row in rows {
            held += row.held() as u64;
            let start_ms = row.start_ms.div_euclid(SPAN_MS) * SPAN_MS;
            let count = profiles
                .entry((&row.namespace, &row.profile, row.kind()))
                .or_default()
                .entry(start_ms)
                .or_insert(Count {
                    start_ms,
                    span_ms: SPAN_MS,
                    ..Count::default()
                });
            count.rows += 1;
            count.alerted += u64::from(row.above_threshold);
        }
        Self {
            held,
            profiles: profiles
                .into_iter()
                .map(|((namespace, profile, kind), counts)| ProfileCounts {
                    namespace: namespace.to_owned(),
                    profile: profile.to_owned(),
                    counts: counts.into_values().collect(),
                    schema: kind.schema.to_owned(),
                    length: kind.length.0,
                    capture: kind.capture.to_owned(),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// As the footer's entry.
    pub fn entry(&self) -> (String, String) {
        (KEY.to_owned(), STANDARD.encode(self.encode_to_vec()))
    }

    /// Reads the footer's entry.
    pub fn from_entries(entries: &[(String, String)]) -> Result<Self, StoreError> {
        let value = entries
            .iter()
            .find_map(|(key, value)| (key == KEY).then_some(value))
            .ok_or_else(|| StoreError::Rows(format!("no {KEY} in the footer")))?;
        let bytes = STANDARD
            .decode(value)
            .map_err(|e| StoreError::Rows(format!("{KEY}: {e}")))?;
        Self::decode(bytes.as_slice()).map_err(|e| StoreError::Rows(format!("{KEY}: {e}")))
    }
}

impl Segment {
    /// The bytes of the commit's file, and its footer.
    pub(super) fn encode(mut self) -> Result<(Bytes, Meta), StoreError> {
        let mut meta = Meta::of_rows(&self.rows);
        meta.marks = std::mem::take(&mut self.marks);
        meta.summaries = std::mem::take(&mut self.summaries);
        let bytes = rows::encode(&self.rows, vec![meta.entry()])?;
        Ok((bytes, meta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::tests::row;

    #[test]
    fn a_commit_says_what_is_in_it() {
        let rows = vec![
            row("a", 7, 12_000),
            row("a", 8, 14_999),
            row("a", 9, 15_000),
            row("b", 1, -1),
        ];
        let mark = Mark {
            node: "n".into(),
            instance: "i".into(),
            sequence: 3,
            seen_ms: 5,
        };
        let segment = Segment {
            rows,
            marks: vec![mark.clone()],
            summaries: vec![],
        };
        let (bytes, meta) = segment.encode().unwrap();
        let footer = rows::footer(&bytes, bytes.len() as u64).unwrap();
        let rows::Footer::Whole(entries, count) = footer else {
            panic!("{footer:?}");
        };
        assert_eq!(count, 4);
        assert_eq!(Meta::from_entries(&entries).unwrap(), meta);
        assert_eq!(meta.marks, [mark]);
        let a: Vec<_> = meta.profiles[0]
            .counts
            .iter()
            .map(|c| (c.start_ms, c.rows, c.alerted))
            .collect();
        assert_eq!(a, [(10_000, 2, 1), (15_000, 1, 0)]);
        assert_eq!(meta.profiles[1].counts[0].start_ms, -5_000);
    }

    #[test]
    fn rows_of_another_filter_are_counted_apart() {
        let mut rows = vec![row("a", 7, 12_000), row("a", 8, 14_000)];
        rows[1].capture = "c0".repeat(16).into();
        let mut meta = Meta::of_rows(&rows);
        let captures: Vec<&str> = meta.profiles.iter().map(|p| p.kind().capture).collect();
        assert_eq!(captures, [ALL_CALLS, &*"c0".repeat(16)]);
        // A file from before it was said.
        meta.profiles[0].capture.clear();
        assert_eq!(meta.profiles[0].kind().capture, ALL_CALLS);
    }

    #[test]
    fn old_counts_are_put_into_hours_and_lose_no_row() {
        let rows: Vec<Row> = (0..2000).map(|i| row("a", i, i as i64 * 5_000)).collect();
        let mut profile = Meta::of_rows(&rows).profiles.remove(0);
        assert_eq!(profile.counts.len(), 2000);
        assert!(profile.coarsen(COARSE_MS * 2));
        let sum = |p: &ProfileCounts| {
            let counts = p.counts.iter();
            counts.fold((0, 0), |sum, c| (sum.0 + c.rows, sum.1 + c.alerted))
        };
        assert_eq!(sum(&profile), (2000, 286));
        // Two hours as two spans, the rest as it was.
        assert_eq!(profile.counts.len(), 2 + 2000 - 1440);
        assert!(profile.counts.is_sorted_by_key(|c| c.start_ms));
        let once = profile.clone();
        assert!(!profile.coarsen(COARSE_MS * 2));
        assert_eq!(profile, once);
    }
}
