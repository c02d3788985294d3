//! Artifacts and samples on a volume.

use std::path::Path;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};

/// Artifacts by digest.
#[derive(Debug)]
pub struct Store(LocalFileSystem);

impl Store {
    /// Opens the folder.
    ///
    /// # Errors
    /// It is not there.
    pub async fn open(root: &Path) -> anyhow::Result<Self> {
        Ok(Self(LocalFileSystem::new_with_prefix(root)?.with_fsync(true)))
    }

    /// Stores an artifact; gives its digest.
    ///
    /// # Errors
    /// The volume.
    pub async fn put_artifact(&self, bytes: Bytes) -> anyhow::Result<String> {
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        self.0
            .put(&format!("blobs/sha256/{digest}").into(), bytes.into())
            .await?;
        Ok(format!("sha256:{digest}"))
    }

    /// The bytes of an artifact.
    ///
    /// # Errors
    /// Not there, or the volume.
    pub async fn get_artifact(&self, digest: &str) -> anyhow::Result<Bytes> {
        let path = digest.replacen("sha256:", "blobs/sha256/", 1);
        Ok(self.0.get(&path.into()).await?.bytes().await?)
    }
}
