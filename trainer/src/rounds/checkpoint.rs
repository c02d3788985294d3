//! What a restart on the same volume need not do again. A help, never a need: what cannot be written or read is
//! made again.

use std::path::{Path, PathBuf};

use vigia_model::artifact::write_atomic;

use super::MAX_PART;

/// Parts on disk, of one plan.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    fingerprint: [u8; 32],
}

impl Checkpoints {
    /// Parts in `folder` that belong to the plan with this fingerprint.
    pub fn new(folder: &Path, fingerprint: [u8; 32]) -> Self {
        Self {
            folder: folder.to_owned(),
            fingerprint,
        }
    }

    /// Keeps a part; says in the log if it cannot.
    pub fn put(&self, name: &str, part: &[u8]) {
        let bytes = [&self.fingerprint[..], part].concat();
        if let Err(error) = write_atomic(&self.folder.join(name), &bytes) {
            tracing::warn!(name, %error, "not kept on disk, a restart will need it again");
        }
    }

    /// A part of this plan, if it is there.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        use std::io::Read;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(self.folder.join(name)).ok()?;
        file.take(MAX_PART as u64 + 33).read_to_end(&mut bytes).ok()?;
        let part = bytes.strip_prefix(&self.fingerprint)?;
        (part.len() <= MAX_PART).then(|| part.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parts_of_the_same_plan_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mine = Checkpoints::new(folder.path(), [1; 32]);
        mine.put("trees-0", b"abc");
        assert_eq!(mine.get("trees-0").as_deref(), Some(&b"abc"[..]));
        assert_eq!(Checkpoints::new(folder.path(), [2; 32]).get("trees-0"), None);
        assert_eq!(mine.get("trees-1"), None);
        Checkpoints::new(Path::new("/nowhere/at/all"), [1; 32]).put("trees-0", b"abc");
    }
}
