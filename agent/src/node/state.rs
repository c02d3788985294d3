//! What a restart must find again: the last plan, what served, and the secret that names containers in samples.
//!
//! With the cache of artifacts beside it, an agent that comes back while the API server and the operator are away goes
//! on as before. Each file is written whole or not at all; one that cannot be read is as one that is not there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vigia_crds::NodePlanSpec;
use vigia_model::artifact::{read, write_atomic};

use super::desired::Key;

/// The plan as it was seen last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastPlan {
    /// Generation of the spec.
    pub generation: i64,
    /// The spec.
    pub spec: NodePlanSpec,
}

#[derive(Debug, Serialize, Deserialize)]
struct Serving {
    namespace: String,
    model: String,
    digest: String,
}

/// A folder of the agent's own.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

impl State {
    /// Opens the folder, and makes it where it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Where artifacts are kept.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.folder.join("models")
    }

    /// The plan that was seen last.
    #[must_use]
    pub fn plan(&self) -> Option<LastPlan> {
        self.read("plan.json")
    }

    /// Keeps a plan.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep_plan(&self, plan: &LastPlan) -> io::Result<()> {
        self.write("plan.json", plan)
    }

    /// What served last, by Model.
    #[must_use]
    pub fn serving(&self) -> BTreeMap<Key, String> {
        let serving: Vec<Serving> = self.read("serving.json").unwrap_or_default();
        serving
            .into_iter()
            .map(|one| {
                (
                    Key {
                        namespace: one.namespace,
                        name: one.model,
                    },
                    one.digest,
                )
            })
            .collect()
    }

    /// Keeps what serves.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep_serving(&self, serving: &BTreeMap<Key, String>) -> io::Result<()> {
        let serving: Vec<Serving> = serving
            .iter()
            .map(|(key, digest)| Serving {
                namespace: key.namespace.clone(),
                model: key.name.clone(),
                digest: digest.clone(),
            })
            .collect();
        self.write("serving.json", &serving)
    }

    /// The node's secret, made where there is none yet.
    ///
    /// # Errors
    ///
    /// When there is no randomness, or it cannot be written.
    pub fn secret(&self) -> io::Result<[u8; 32]> {
        if let Some(secret) = self.read("secret.json") {
            return Ok(secret);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        self.write("secret.json", &secret)?;
        Ok(secret)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let bytes = read(&self.folder.join(name)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(
                |error| tracing::warn!(file = name, %error, "kept state is not readable and is left aside"),
            )
            .ok()
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        write_atomic(&self.folder.join(name), &serde_json::to_vec(value)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::open(folder.path()).expect("opened");
        assert_eq!(state.plan(), None);
        let plan = LastPlan {
            generation: 3,
            spec: NodePlanSpec::default(),
        };
        state.keep_plan(&plan).expect("kept");
        let serving = BTreeMap::from([(
            Key {
                namespace: "a".into(),
                name: "m".into(),
            },
            "d".to_owned(),
        )]);
        state.keep_serving(&serving).expect("kept");
        let secret = state.secret().expect("made");

        let again = State::open(folder.path()).expect("opened");
        assert_eq!((again.plan(), again.serving()), (Some(plan), serving));
        assert_eq!(again.secret().expect("kept"), secret);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::open(folder.path()).expect("opened");
        fs::write(folder.path().join("plan.json"), b"{\"generation\": 3, \"spec\"").expect("written");
        assert_eq!(state.plan(), None);
    }
}
