//! Artifacts on the node, by digest: what serves, what served before, and what is about to.
//!
//! A file is complete or it is not there: `vigia_model::artifact::write_atomic` writes it under another name, syncs
//! and renames it. What a name promises is checked again on each read, because the folder outlives the process and a
//! disk may rot.
//!
//! What leaves the plan is kept for a while, as far as there is room: a node whose only pod of a profile is replaced
//! wants it again a second later, when the operator may no longer have it. The time of a file's last change is when it
//! left, so that a restart knows it too. Nothing is made of a file that the plan does not name.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use vigia_model::artifact::{Contents, MAX_FILE, contents, digest, write_atomic};

use crate::node::grace::GRACE;

const SUFFIX: &str = ".apr";
/// Artifacts that are kept beside those of the plan, at most.
const AWAY_FILES: usize = 64;
/// Bytes of them, at most: of the largest artifacts, two.
const AWAY_BYTES: u64 = 2 * MAX_FILE as u64;

/// A folder of artifacts.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
}

/// Why bytes were not kept.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// They are not what was asked for.
    #[error("the bytes have digest {got}, {wanted} was asked for")]
    DigestMismatch {
        /// What was asked for.
        wanted: String,
        /// What came.
        got: String,
    },
    /// `sha256:` and 64 hexadecimal digits it is not, so it names no file.
    #[error("{0:?} is not a sha256 digest")]
    NotADigest(String),
    /// The disk says no.
    #[error("cannot keep an artifact in {folder}: {source}")]
    Io {
        /// Where.
        folder: String,
        /// Why.
        source: io::Error,
    },
}

impl Cache {
    /// Opens the folder, makes it where it is missing, and clears away what a sudden end left unfinished.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, CacheError> {
        let cache = Self {
            folder: folder.to_owned(),
        };
        cache.prepare().map_err(|source| cache.io(source))?;
        Ok(cache)
    }

    fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            // Only artifacts have a name to be found by; the rest was never finished.
            if path.extension().is_none_or(|extension| extension != "apr") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The bytes of an artifact; none where they are not there, larger than `limit`, or no longer what they were.
    #[must_use]
    pub fn get(&self, wanted: &str, limit: u64) -> Option<Contents> {
        let path = self.path(wanted).ok()?;
        let file = File::open(&path).ok()?;
        if file.metadata().ok()?.len() > limit {
            return None;
        }
        let bytes = contents(file).ok()?;
        if bytes.len() as u64 > limit {
            return None;
        }
        if digest(&bytes).to_string() != wanted {
            tracing::warn!(
                digest = wanted,
                "a kept artifact has changed on disk and is fetched again"
            );
            // Left in place it would be read and refused at each start.
            let _ = fs::remove_file(path);
            return None;
        }
        Some(bytes)
    }

    /// Keeps an artifact, durably, if its bytes have the digest.
    ///
    /// # Errors
    ///
    /// When they have another, or cannot be written.
    pub fn put(&self, wanted: &str, bytes: &[u8]) -> Result<(), CacheError> {
        let path = self.path(wanted)?;
        let got = digest(bytes).to_string();
        if got != wanted {
            return Err(CacheError::DigestMismatch {
                wanted: wanted.to_owned(),
                got,
            });
        }
        write_atomic(&path, bytes).map_err(|source| self.io(source))
    }

    /// Notes when an artifact left the plan. Of one that is not here nothing is noted.
    ///
    /// # Errors
    ///
    /// When the folder cannot be changed.
    pub fn leave(&self, digest: &str, now: SystemTime) -> Result<(), CacheError> {
        let note = |path: PathBuf| match File::options().write(true).open(path) {
            Ok(file) => file.set_modified(now),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        note(self.path(digest)?).map_err(|source| self.io(source))
    }

    /// Deletes all but these and what left the plan of late.
    ///
    /// # Errors
    ///
    /// When the folder cannot be changed.
    pub fn retain(&self, digests: &BTreeSet<&str>, now: SystemTime) -> Result<(), CacheError> {
        let keep: BTreeSet<PathBuf> = digests
            .iter()
            .filter_map(|digest| self.path(digest).ok())
            .collect();
        let sweep = || -> io::Result<()> {
            let mut away = Vec::new();
            for entry in fs::read_dir(&self.folder)? {
                let entry = entry?;
                let path = entry.path();
                if path.to_string_lossy().ends_with(SUFFIX) && !keep.contains(&path) {
                    let file = entry.metadata()?;
                    away.push(Away {
                        path,
                        bytes: file.len(),
                        left: file.modified()?,
                    });
                }
            }
            outdated(away, now).into_iter().try_for_each(fs::remove_file)
        };
        sweep().map_err(|source| self.io(source))
    }

    fn path(&self, digest: &str) -> Result<PathBuf, CacheError> {
        match digest.strip_prefix("sha256:") {
            Some(hex) if vigia_crds::is_digest(digest) => Ok(self.folder.join(format!("{hex}{SUFFIX}"))),
            _ => Err(CacheError::NotADigest(digest.to_owned())),
        }
    }

    fn io(&self, source: io::Error) -> CacheError {
        CacheError::Io {
            folder: self.folder.display().to_string(),
            source,
        }
    }
}

/// An artifact that the plan does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Away {
    path: PathBuf,
    bytes: u64,
    left: SystemTime,
}

/// Which of them are not kept any longer: those that left too long ago, and where there is no room for all, those that
/// left before the others.
fn outdated(mut away: Vec<Away>, now: SystemTime) -> Vec<PathBuf> {
    away.sort_unstable_by_key(|one| Reverse(one.left));
    let mut bytes: u64 = 0;
    let kept = away.iter().take(AWAY_FILES).take_while(|one| {
        bytes = bytes.saturating_add(one.bytes);
        // Of a clock that was set back nothing is known, and what is kept is bounded all the same.
        bytes <= AWAY_BYTES && now.duration_since(one.left).unwrap_or_default() < GRACE
    });
    let kept = kept.count();
    away.drain(kept..).map(|one| one.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const LIMIT: u64 = 1 << 20;

    fn of(bytes: &[u8]) -> String {
        digest(bytes).to_string()
    }

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::open(&folder.path().join("models")).expect("opened");
        (folder, cache)
    }

    #[test]
    fn what_is_put_is_got_and_what_left_the_plan_goes_an_hour_later() {
        let (_folder, cache) = cache();
        let (one, two) = (of(b"one"), of(b"two"));
        cache.put(&one, b"one").expect("kept");
        cache.put(&two, b"two").expect("kept");
        assert_eq!(cache.get(&one, LIMIT).as_deref(), Some(&b"one"[..]));
        let left = SystemTime::now() + 9 * GRACE;
        cache.leave(&one, left).expect("noted");
        cache
            .leave(&of(b"three"), left)
            .expect("there is nothing to note");
        assert!(matches!(
            cache.leave("../x", left),
            Err(CacheError::NotADigest(_))
        ));
        let here = |later| {
            // Another life knows when it left, too.
            let cache = Cache::open(&cache.folder).expect("opened again");
            cache
                .retain(&BTreeSet::from([two.as_str()]), left + later)
                .expect("swept");
            [&one, &two].map(|digest| cache.get(digest, LIMIT).is_some())
        };
        assert_eq!(here(GRACE - Duration::from_secs(1)), [true, true]);
        assert_eq!(here(GRACE), [false, true]);
    }

    #[test]
    fn what_left_first_makes_room_for_what_left_later() {
        let now = SystemTime::UNIX_EPOCH + 100 * GRACE;
        let away = |minutes: u64, bytes| Away {
            path: PathBuf::from(minutes.to_string()),
            bytes,
            left: now - Duration::from_secs(60 * minutes),
        };
        let goes = |away: &[Away]| {
            outdated(away.to_vec(), now)
                .iter()
                .map(|path| path.display().to_string().parse().expect("a number"))
                .collect::<Vec<u64>>()
        };
        assert!(goes(&[]).is_empty());
        assert_eq!(goes(&[away(60, 1), away(59, 1), away(0, 1)]), [60]);
        let half = AWAY_BYTES / 2;
        assert_eq!(goes(&[away(3, 1), away(1, half), away(2, half)]), [3]);
        assert_eq!(
            goes(&[away(1, AWAY_BYTES + 1)]),
            [1],
            "no more than there is room"
        );
        let many: Vec<Away> = (0..1000)
            .map(|number| Away {
                path: PathBuf::from(number.to_string()),
                ..away(1, 0)
            })
            .collect();
        assert_eq!(goes(&many).len(), 1000 - AWAY_FILES);
        let ahead = Away {
            left: now + GRACE,
            ..away(7, 1)
        };
        assert!(goes(&[ahead]).is_empty(), "the clock was set back");
    }

    #[test]
    fn other_bytes_are_not_kept_and_changed_ones_not_given() {
        let (folder, cache) = cache();
        let digest = of(b"good");
        assert!(matches!(
            cache.put(&digest, b"evil"),
            Err(CacheError::DigestMismatch { .. })
        ));
        assert!(cache.get(&digest, LIMIT).is_none());

        cache.put(&digest, b"good").expect("kept");
        let file = folder.path().join("models").join(format!("{}.apr", &digest[7..]));
        fs::write(&file, b"goof").expect("changed");
        assert!(cache.get(&digest, LIMIT).is_none());
        assert!(!file.exists());
    }

    #[test]
    fn nothing_beyond_the_limit_is_read() {
        let (_folder, cache) = cache();
        let digest = of(&[7; 100]);
        cache.put(&digest, &[7; 100]).expect("kept");
        assert!(cache.get(&digest, 99).is_none());
        assert!(cache.get(&digest, 100).is_some());
    }

    #[test]
    fn a_half_written_file_is_never_seen_and_is_cleared() {
        let (folder, cache) = cache();
        let digest = of(b"whole");
        let unfinished = folder.path().join("models").join(".vigia-unfinished");
        fs::write(&unfinished, b"who").expect("written");
        assert!(cache.get(&digest, LIMIT).is_none());
        Cache::open(&folder.path().join("models")).expect("opened again");
        assert!(!unfinished.exists());
    }

    #[test]
    fn a_digest_cannot_lead_out_of_the_folder() {
        let (_folder, cache) = cache();
        for bad in ["sha256:../../etc/passwd", "../x", "", "sha256:"] {
            assert!(
                matches!(cache.put(bad, b""), Err(CacheError::NotADigest(_))),
                "{bad}"
            );
        }
    }
}
