//! Artifacts by the SHA-256 of their bytes. What is read is what was written, or an error.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Store, StoreError};

/// Largest artifact that is taken or served.
pub const MAX_ARTIFACT: u64 = vigia_model::artifact::MAX_FILE as u64;

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
        // Not skipped where the file is there: it may be damaged, and this is its repair.
        if self.get_artifact(&digest).await.is_err() {
            self.disk.put(&path(&digest)?, bytes).await?;
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

    /// Removes an artifact that no ModelVersion names any more.
    ///
    /// # Errors
    /// No digest, or the volume.
    pub async fn delete_artifact(&self, digest: &str) -> Result<(), StoreError> {
        self.disk.delete(&path(digest)?).await
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

        store.delete_artifact(&digest).await.unwrap();
        assert!(matches!(
            store.get_artifact(&digest).await,
            Err(StoreError::NotFound(_))
        ));
        assert!(matches!(
            store.get_artifact("sha256:../../x").await,
            Err(StoreError::Name(_))
        ));
    }
}
