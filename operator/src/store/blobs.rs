//! Artifacts by the SHA-256 of their bytes. What is read is what was written, or an error.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Store, StoreError};

/// Largest artifact that is taken or served.
pub const MAX_ARTIFACT: u64 = vigia_model::artifact::MAX_FILE as u64;

/// How long an artifact stays that nobody names: a ModelVersion may be deleted by mistake and made again.
pub const UNNAMED: Duration = Duration::from_secs(86_400);

/// `sha256:` and the hexadecimal digits of the digest of bytes.
pub fn digest_of(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn path(digest: &str) -> Result<String, StoreError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if vigia_crds::is_digest(digest) => Ok(format!("blobs/sha256/{hex}")),
        _ => Err(StoreError::Name(digest.chars().take(80).collect())),
    }
}

impl Store {
    /// Stores an artifact; storing it again changes nothing.
    ///
    /// # Errors
    /// Too large, or the volume.
    pub async fn put_artifact(&self, bytes: Bytes) -> Result<String, StoreError> {
        let size = bytes.len() as u64;
        if size > MAX_ARTIFACT {
            return Err(StoreError::TooLarge {
                what: "the artifact".to_owned(),
                size,
                limit: MAX_ARTIFACT,
            });
        }
        let digest = digest_of(&bytes);
        let path = path(&digest)?;
        // Not skipped where the file is there: it may be damaged, and this is its repair.
        match self.get_artifact(&digest).await {
            Ok(_) => self.disk.touch(&path, SystemTime::now())?,
            Err(_) => self.disk.put(&path, bytes).await?,
        }
        Ok(digest)
    }

    /// The bytes of an artifact, whose digest is checked again.
    ///
    /// # Errors
    /// Not there, damaged, or the volume.
    pub async fn get_artifact(&self, digest: &str) -> Result<Bytes, StoreError> {
        let path = path(digest)?;
        let bytes = self.disk.get(&path, MAX_ARTIFACT).await?;
        if digest_of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(StoreError::Corrupt {
                path,
                why: "its bytes do not have its digest".to_owned(),
            })
        }
    }

    /// Size of an artifact, where the store has it.
    ///
    /// # Errors
    /// No digest, or the volume.
    pub async fn artifact_size(&self, digest: &str) -> Result<Option<u64>, StoreError> {
        self.disk.size(&path(digest)?).await
    }

    /// Removes artifacts that nobody has named for [`UNNAMED`]; those in `named` are marked as named at `now`.
    /// Answers the digests of those that are gone.
    ///
    /// # Errors
    /// The volume. Nothing is removed unless all that are named could be marked.
    pub async fn sweep(&self, named: &HashSet<String>, now: SystemTime) -> Result<Vec<String>, StoreError> {
        let mut gone = vec![];
        for entry in self.disk.list("blobs/sha256").await? {
            let Some(digest) = entry.path.rsplit('/').next().map(|hex| format!("sha256:{hex}")) else {
                continue;
            };
            if named.contains(&digest) {
                self.disk.touch(&entry.path, now)?;
            } else if now.duration_since(entry.modified).is_ok_and(|age| age >= UNNAMED) {
                gone.push((digest, entry.path));
            }
        }
        for (_, path) in &gone {
            self.disk.delete(path).await?;
        }
        Ok(gone.into_iter().map(|(digest, _)| digest).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[tokio::test]
    async fn damage_is_seen_and_repaired_by_storing_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).await.unwrap();
        let bytes = Bytes::from_static(b"an artifact");
        let digest = store.put_artifact(bytes.clone()).await.unwrap();
        assert_eq!(store.get_artifact(&digest).await.unwrap(), bytes);
        assert_eq!(store.artifact_size(&digest).await.unwrap(), Some(11));

        let file = folder.path().join("blobs/sha256").join(&digest[7..]);
        std::fs::write(&file, b"an artefact").unwrap();
        assert!(matches!(
            store.get_artifact(&digest).await,
            Err(StoreError::Corrupt { .. })
        ));
        store.put_artifact(bytes.clone()).await.unwrap();
        assert_eq!(store.get_artifact(&digest).await.unwrap(), bytes);

        assert!(matches!(
            store.get_artifact("sha256:../../x").await,
            Err(StoreError::Name(_))
        ));
    }

    #[tokio::test]
    async fn what_nobody_has_named_for_a_day_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Options::default()).await.unwrap();
        let kept = store.put_artifact(Bytes::from_static(b"kept")).await.unwrap();
        let loose = store.put_artifact(Bytes::from_static(b"loose")).await.unwrap();
        let start = SystemTime::now();
        let named = HashSet::from([kept.clone()]);
        let nobody: [String; 0] = [];
        assert_eq!(store.sweep(&named, start + UNNAMED / 2).await.unwrap(), nobody);
        assert_eq!(store.sweep(&named, start + UNNAMED * 2).await.unwrap(), [&*loose]);
        assert!(store.get_artifact(&kept).await.is_ok());
        assert!(store.get_artifact(&loose).await.is_err());
        // Its day begins when it was last named, and anew when it is stored again.
        let unnamed = HashSet::new();
        let later = start + UNNAMED * 2 + UNNAMED / 2;
        assert_eq!(store.sweep(&unnamed, later).await.unwrap(), nobody);
        assert_eq!(
            store.sweep(&unnamed, start + UNNAMED * 3).await.unwrap(),
            [&*kept]
        );
        let again = store.put_artifact(Bytes::from_static(b"again")).await.unwrap();
        store
            .disk
            .touch(&path(&again).unwrap(), SystemTime::UNIX_EPOCH)
            .unwrap();
        store.put_artifact(Bytes::from_static(b"again")).await.unwrap();
        assert_eq!(store.sweep(&unnamed, SystemTime::now()).await.unwrap(), nobody);
    }
}
