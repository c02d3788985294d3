//! What a training run leaves in the store, below `runs/<uid>/`: its shards, its plan and its output.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rows::{self, Row};
use super::{MAX_FILE, Store, StoreError, blocking, digest_of};

/// Largest output that a trainer may submit.
pub const MAX_OUTPUT: u64 = super::MAX_ARTIFACT;
/// Largest JSON document of a run.
const MAX_JSON: u64 = 1 << 20;

/// What a trainer submitted.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Output {
    /// Digest of the unsigned artifact.
    pub digest: String,
    /// Metrics of validation.
    pub metrics: std::collections::BTreeMap<String, f64>,
}

impl Output {
    /// Its name among a run's documents.
    pub const NAME: &str = "output";
}

/// A UID, or another name that is one folder.
fn folder(uid: &str) -> Result<String, StoreError> {
    let plain =
        !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain {
        Ok(format!("runs/{uid}"))
    } else {
        Err(StoreError::Name(uid.chars().take(80).collect()))
    }
}

impl Store {
    /// Writes rows as a Parquet file of a run.
    ///
    /// # Errors
    /// [`StoreError::Full`], also where the reserve for artifacts would be touched, or another one of the volume.
    pub async fn put_run_rows(&self, uid: &str, name: &str, rows: Vec<Row>) -> Result<(), StoreError> {
        let path = format!("{}/{name}.parquet", folder(uid)?);
        let bytes = blocking(move || rows::encode(&rows, vec![])).await?;
        self.check_reserve(bytes.len() as u64)?;
        self.disk.put(&path, bytes).await
    }

    /// The bytes of a Parquet file of a run.
    ///
    /// # Errors
    /// Not there, or the volume.
    pub async fn run_rows(&self, uid: &str, name: &str) -> Result<Bytes, StoreError> {
        self.disk
            .get(&format!("{}/{name}.parquet", folder(uid)?), MAX_FILE)
            .await
    }

    /// Writes a JSON document of a run.
    ///
    /// # Errors
    /// The volume.
    pub async fn put_run_json(
        &self,
        uid: &str,
        name: &str,
        document: &impl Serialize,
    ) -> Result<(), StoreError> {
        let path = format!("{}/{name}.json", folder(uid)?);
        let bytes = serde_json::to_vec(document).map_err(|e| StoreError::Rows(e.to_string()))?;
        self.disk.put(&path, bytes.into()).await
    }

    /// Reads a JSON document of a run, where there is one.
    ///
    /// # Errors
    /// Damaged, or the volume.
    pub async fn run_json<T: DeserializeOwned>(
        &self,
        uid: &str,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let path = format!("{}/{name}.json", folder(uid)?);
        match self.disk.get(&path, MAX_JSON).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| StoreError::Corrupt {
                    path,
                    why: e.to_string(),
                }),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps what a trainer submitted: the artifact first, then what says that it is whole.
    ///
    /// # Errors
    /// The volume.
    pub async fn put_output(&self, uid: &str, output: &Output, artifact: Bytes) -> Result<(), StoreError> {
        self.disk
            .put(&format!("{}/output.apr", folder(uid)?), artifact)
            .await?;
        self.put_run_json(uid, Output::NAME, output).await
    }

    /// What a trainer submitted, where it has.
    ///
    /// # Errors
    /// Damaged, or the volume.
    pub async fn output(&self, uid: &str) -> Result<Option<(Output, Bytes)>, StoreError> {
        let Some(output) = self.run_json::<Output>(uid, Output::NAME).await? else {
            return Ok(None);
        };
        let path = format!("{}/output.apr", folder(uid)?);
        let artifact = self.disk.get(&path, MAX_OUTPUT).await?;
        if digest_of(&artifact) == output.digest {
            Ok(Some((output, artifact)))
        } else {
            Err(StoreError::Corrupt {
                path,
                why: "its bytes do not have its digest".to_owned(),
            })
        }
    }

    /// Removes the windows of a run and the artifact that was submitted; what it was told and what it said stay.
    ///
    /// # Errors
    /// The volume.
    pub async fn delete_run_data(&self, uid: &str) -> Result<(), StoreError> {
        for entry in self.disk.list(&folder(uid)?).await? {
            if !entry.path.ends_with(".json") {
                self.disk.delete(&entry.path).await?;
            }
        }
        Ok(())
    }

    /// UIDs of the runs that the store has something of.
    ///
    /// # Errors
    /// The volume.
    pub async fn run_uids(&self) -> Result<std::collections::BTreeSet<String>, StoreError> {
        let entries = self.disk.list("runs").await?;
        let uid = |path: &str| path.split('/').nth(1).map(str::to_owned);
        Ok(entries.iter().filter_map(|entry| uid(&entry.path)).collect())
    }

    /// Removes everything of a run.
    ///
    /// # Errors
    /// The volume.
    pub async fn delete_run(&self, uid: &str) -> Result<(), StoreError> {
        for entry in self.disk.list(&folder(uid)?).await? {
            self.disk.delete(&entry.path).await?;
        }
        Ok(())
    }
}
