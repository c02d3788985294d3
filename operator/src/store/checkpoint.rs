//! `checkpoint.pb`: up to which commit the journal was moved on, and all marks.
//!
//! It is one file, and what it says decides which files of a folder count, so it must not be believed more than the files
//! beside it. Compaction writes samples, then summaries, then the checkpoint, and only then removes commits from the
//! journal. So a file whose commits are all in the journal still was not finished, or can be made again; a file with
//! a commit that the journal has no more was finished, whatever the checkpoint says. With that the store
//! goes on as it was where the checkpoint is missing, damaged, or older than the rest, and only marks are lost with it.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::disk::Disk;
use super::index::{BEYOND, Range};
use super::segment::Mark;
use super::{MAX_FILE, StoreError};

/// Its name.
pub(super) const CHECKPOINT: &str = "checkpoint.pb";
/// Where it is set aside; an operator of before may have put commits there, too.
const DAMAGED: &str = "damaged";
/// In front of what is written: field 3, of 32 bytes, the SHA-256 of all that follows. An operator of before skips it.
const SEAL: [u8; 2] = [3 << 3 | 2, 32];

/// What it says.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Checkpoint {
    /// Commits up to this one are in partitions and summaries.
    #[prost(uint64, tag = "1")]
    pub through: u64,
    #[prost(message, repeated, tag = "2")]
    pub marks: Vec<Mark>,
}

impl Checkpoint {
    /// As it is written.
    pub fn to_bytes(&self) -> Bytes {
        let body = self.encode_to_vec();
        [&SEAL[..], &Sha256::digest(&body), &body].concat().into()
    }

    /// Reads it. One of an operator of before has no digest, and begins with its first field.
    fn from_bytes(bytes: &[u8]) -> Result<Self, StoreError> {
        let corrupt = |why: String| StoreError::Corrupt {
            path: CHECKPOINT.to_owned(),
            why,
        };
        let body = match bytes.strip_prefix(&SEAL) {
            Some(sealed) => {
                let (digest, body) = sealed
                    .split_at_checked(32)
                    .ok_or_else(|| corrupt("it is cut off".to_owned()))?;
                if *Sha256::digest(body) != *digest {
                    return Err(corrupt("its bytes do not have its digest".to_owned()));
                }
                body
            }
            None if bytes.is_empty() => return Err(corrupt("it is empty".to_owned())),
            None => bytes,
        };
        let checkpoint = Self::decode(body).map_err(|e| corrupt(e.to_string()))?;
        // Written once a commit was moved on, and those are numbered from 1.
        match checkpoint.through {
            1..BEYOND => Ok(checkpoint),
            other => Err(corrupt(format!("there is no commit {other}"))),
        }
    }

    /// What holds at a start: the file's word, or where the files beside it know better, theirs. A damaged one is set
    /// aside.
    ///
    /// # Errors
    /// The volume.
    pub async fn find(disk: &Disk) -> Result<Self, StoreError> {
        let read = disk.get(CHECKPOINT, MAX_FILE).await;
        let (mut found, what) = match read.and_then(|bytes| Self::from_bytes(&bytes)) {
            Ok(checkpoint) => (checkpoint, "older than the samples beside it"),
            Err(StoreError::NotFound(_)) => (Self::default(), "missing"),
            Err(error) if error.is_damage() => {
                let to = format!("{DAMAGED}/{CHECKPOINT}");
                tracing::error!(path = CHECKPOINT, to, %error, "a file of the store is damaged: it is set aside");
                disk.rename(CHECKPOINT, &to).await?;
                (Self::default(), "damaged")
            }
            Err(error) => return Err(error),
        };
        let mut beside = ranges(disk, "samples").await?;
        beside.extend(ranges(disk, "summaries").await?);
        let journal = ranges(disk, "journal").await?;
        let aside = ranges(disk, &format!("{DAMAGED}/journal")).await?;
        let through = finished(found.through, &beside, &journal, &aside);
        if through > found.through {
            tracing::error!(
                path = CHECKPOINT,
                what,
                said = found.through,
                through,
                "the store's checkpoint is missing, damaged or too old: all samples and sums beside it are kept, and it \
                 is written anew; a report whose answer an agent had not got may be counted twice"
            );
            found.through = through;
        }
        Ok(found)
    }
}

/// The ranges of a folder's files.
async fn ranges(disk: &Disk, folder: &str) -> Result<Vec<Range>, StoreError> {
    let entries = disk.list(folder).await?;
    Ok(entries.iter().filter_map(|e| Range::of_path(&e.path)).collect())
}

/// Up to which commit the files beside a checkpoint were finished, which is at least what it says: up to the last one of
/// which a commit is in the journal no more. Pure.
fn finished(said: u64, beside: &[Range], journal: &[Range], aside: &[Range]) -> u64 {
    let waiting: BTreeSet<u64> = journal.iter().map(|commit| commit.last).collect();
    // A commit that was set aside is in the journal no more, though nothing was moved on.
    let there: BTreeSet<u64> = aside
        .iter()
        .map(|commit| commit.last)
        .chain(waiting.iter().copied())
        .collect();
    let is_unfinished = |file: &Range| {
        let commits = file.first..=file.last;
        waiting.range(commits.clone()).next().is_some()
            && there.range(commits).count() as u64 == (file.last - file.first).saturating_add(1)
    };
    let done = beside.iter().filter(|file| !is_unfinished(file));
    done.map(|file| file.last).fold(said, u64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commits(numbers: std::ops::RangeInclusive<u64>) -> Vec<Range> {
        numbers.map(|n| Range { first: n, last: n }).collect()
    }

    #[test]
    fn what_the_journal_has_no_more_was_finished() {
        let files = |ranges: &[(u64, u64)]| -> Vec<Range> {
            ranges
                .iter()
                .map(|&(first, last)| Range { first, last })
                .collect()
        };
        let beside = files(&[(1, 8), (9, 12), (9, 12)]);
        // Cut off before the checkpoint, and as it should be after it.
        assert_eq!(finished(8, &beside, &commits(9..=14), &[]), 8);
        assert_eq!(finished(12, &beside, &commits(13..=14), &[]), 12);
        // The checkpoint is gone: before the commits were removed, while they were, and after.
        assert_eq!(finished(0, &beside, &commits(9..=14), &[]), 8);
        assert_eq!(finished(0, &beside, &commits(12..=14), &[]), 12);
        assert_eq!(finished(0, &beside, &[], &[]), 12);
        assert_eq!(finished(8, &beside, &commits(13..=14), &[]), 12);
        // Damage in the journal does not make a file of it that was cut off whole.
        let gap: Vec<Range> = commits(9..=9).into_iter().chain(commits(11..=14)).collect();
        assert_eq!(finished(8, &beside, &gap, &commits(10..=10)), 8);
        assert_eq!(finished(8, &beside, &commits(13..=14), &commits(9..=12)), 12);
        assert_eq!(finished(0, &[], &commits(1..=3), &[]), 0);
        assert_eq!(
            finished(0, &files(&[(0, u64::MAX - 1)]), &commits(1..=3), &[]),
            u64::MAX - 1
        );
    }

    #[test]
    fn each_bent_byte_and_each_cut_is_seen_and_one_of_before_is_read() {
        let mark = Mark {
            node: "n".into(),
            instance: "i".into(),
            sequence: 3,
            seen_ms: 1_700_000_000_000,
        };
        let checkpoint = Checkpoint {
            through: 70,
            marks: vec![mark.clone(), mark],
        };
        let bytes = checkpoint.to_bytes();
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), checkpoint);
        assert_eq!(
            Checkpoint::from_bytes(&checkpoint.encode_to_vec()).unwrap(),
            checkpoint
        );
        assert_eq!(
            Checkpoint::decode(&*bytes).unwrap(),
            checkpoint,
            "an operator of before reads it"
        );
        for at in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
            // Without the first two bytes it looks as one of before.
            let mut bent = bytes.to_vec();
            bent[at] ^= 0x10;
            assert!(Checkpoint::from_bytes(&bent).is_err(), "bent at {at}");
        }
    }
}
