//! What a restart must find again: the last plan, what served, what is spent of alert budgets and what they held back,
//! the secret that names containers in samples, and reports that the operator has not taken.
//!
//! With the cache of artifacts beside it, an agent that comes back while the API server and the operator are away goes
//! on as before. Each file is written whole or not at all; one that cannot be read is as one that is not there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vigia_crds::NodePlanSpec;
use vigia_model::artifact::{read, write_atomic};
use vigia_proto::v1::ReportBatch;

use super::desired::Key;
use super::score::Spent;
use super::withheld::LastWithheld;

const PLAN: &str = "plan.json";
const REPORTS: &str = "reports.pb";

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

/// What was spent of alert budgets, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastSpent {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was spent.
    pub spent: Spent,
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
        self.read(PLAN)
    }

    /// For how long the plan has been what it is; no time where that is not known.
    #[must_use]
    pub fn plan_age(&self, now: SystemTime) -> Duration {
        let written = fs::metadata(self.folder.join(PLAN)).and_then(|file| file.modified());
        let age = written.ok().and_then(|written| now.duration_since(written).ok());
        age.unwrap_or_default()
    }

    /// Keeps a plan.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep_plan(&self, plan: &LastPlan) -> io::Result<()> {
        self.write(PLAN, plan)
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

    /// What was spent of alert budgets.
    #[must_use]
    pub fn spent(&self) -> Option<LastSpent> {
        self.read("budgets.json")
    }

    /// Keeps what is spent of alert budgets.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep_spent(&self, spent: &LastSpent) -> io::Result<()> {
        self.write("budgets.json", spent)
    }

    /// What alert budgets held back.
    #[must_use]
    pub fn withheld(&self) -> Option<LastWithheld> {
        self.read("withheld.json")
    }

    /// Keeps what alert budgets held back.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep_withheld(&self, withheld: &LastWithheld) -> io::Result<()> {
        self.write("withheld.json", withheld)
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

    /// Reports that a former life could not deliver.
    #[must_use]
    pub fn reports(&self) -> Vec<ReportBatch> {
        let bytes = read(&self.folder.join(REPORTS)).unwrap_or_default();
        let mut rest = bytes.as_slice();
        let mut batches = Vec::new();
        while !rest.is_empty() {
            match ReportBatch::decode_length_delimited(&mut rest) {
                Ok(batch) => batches.push(batch),
                Err(error) => {
                    tracing::warn!(file = REPORTS, %error, "kept reports are not readable from here on and are left out");
                    break;
                }
            }
        }
        batches
    }

    /// Keeps reports; none removes what was kept.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn keep_reports(&self, batches: &[ReportBatch]) -> io::Result<()> {
        let path = self.folder.join(REPORTS);
        if batches.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut bytes = Vec::new();
        for batch in batches {
            batch
                .encode_length_delimited(&mut bytes)
                .map_err(io::Error::other)?;
        }
        write_atomic(&path, &bytes)
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
        let long_ago = SystemTime::UNIX_EPOCH;
        assert_eq!(state.plan_age(SystemTime::now()), Duration::ZERO, "there is none");
        state.keep_plan(&plan).expect("kept");
        let soon = SystemTime::now() + Duration::from_secs(60);
        assert!(state.plan_age(soon) >= Duration::from_secs(59));
        assert_eq!(state.plan_age(long_ago), Duration::ZERO, "the clock was set back");
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
    fn reports_are_kept_until_they_are_delivered_and_read_as_far_as_they_are_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::open(folder.path()).expect("opened");
        assert_eq!(state.reports(), []);
        let batches = [1, 2].map(|sequence| ReportBatch {
            sequence,
            instance: "i".into(),
            ..ReportBatch::default()
        });
        state.keep_reports(&batches).expect("kept");
        assert_eq!(state.reports(), batches);
        let file = folder.path().join(REPORTS);
        let mut bytes = fs::read(&file).expect("there");
        bytes.pop();
        fs::write(&file, bytes).expect("written");
        assert_eq!(state.reports(), batches[..1]);
        state.keep_reports(&[]).expect("removed");
        state.keep_reports(&[]).expect("is gone already");
        assert_eq!(state.reports(), []);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let state = State::open(folder.path()).expect("opened");
        fs::write(folder.path().join("plan.json"), b"{\"generation\": 3, \"spec\"").expect("written");
        assert_eq!(state.plan(), None);
    }
}
