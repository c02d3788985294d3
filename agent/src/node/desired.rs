//! What the node should do: a NodePlan's spec, parsed once into the agent's own types.
//!
//! A part that does not parse is left out and named, so that one bad profile does not stop the others.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vigia_crds::{
    CaptureMode, NodePlanSpec, OnExceed, PlannedModel, PlannedProfile, SignalKind, Task, VersionMode,
};

use vigia_model::syscalls::{Arch, Filter};

use crate::containers::ContainerId;
use crate::node::governor::Budget;
use crate::probe::{Mode, Signal};

/// A namespaced name: of a TraceProfile or of a Model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// How to trace, and by which models to score.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Length of a window.
    pub window: Duration,
    /// Windows in a row that make an alert, at least 1.
    pub consecutive: u32,
    /// Alerts that one container may raise by chance in an hour.
    pub alerts_per_hour: f64,
    /// Share of windows whose vector is sent, in per mille.
    pub sample_per_mille: u32,
    /// Models that score.
    pub models: Vec<Key>,
    /// How much is kept of a call.
    pub mode: Mode,
    /// With [`Mode::Sampled`], the share of time in which more than counts is kept is one in this many.
    pub one_in: u32,
    /// Calls that windows are made of.
    pub filter: Filter,
    /// The filter's fingerprint.
    pub capture: String,
    /// What the probe counts beside calls.
    pub signals: BTreeSet<Signal>,
    /// Whether cgroupfs is asked, too.
    pub resources: bool,
    /// What that may cost on this node.
    pub budget: Option<Budget>,
}

/// A container to trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Profiles that want it; they are all of the pod's namespace.
    pub profiles: BTreeSet<Key>,
}

/// A version to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Digest of the artifact.
    pub digest: String,
    /// Its size; no more is read.
    pub size: u64,
    /// What to do with it.
    pub mode: VersionMode,
    /// What doing it is a part of, where that is traced.
    pub traceparent: Option<String>,
}

/// A Model with the versions to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Task that an artifact must be for.
    pub task: Task,
    /// Versions, at most one of them Active and one Shadow.
    pub versions: Vec<Version>,
    /// Public keys, as the plan has them.
    pub keys: Vec<String>,
}

impl Model {
    /// The version with this digest.
    #[must_use]
    pub fn version(&self, digest: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.digest == digest)
    }
}

/// A parsed plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Generation of the spec.
    pub generation: i64,
    /// Profiles by name.
    pub profiles: BTreeMap<Key, Profile>,
    /// Containers by where they are found.
    pub targets: BTreeMap<ContainerId, Target>,
    /// Models by name.
    pub models: BTreeMap<Key, Model>,
    /// Sentences about what was left out.
    pub problems: Vec<String>,
}

/// Largest artifact that is read, whatever a plan says.
pub const MAX_ARTIFACT: u64 = 64 << 20;

/// Longest W3C trace context that is told back.
const MAX_TRACEPARENT: usize = 55;

impl Desired {
    /// Parses a plan.
    #[must_use]
    pub fn parse(spec: &NodePlanSpec, generation: i64) -> Self {
        let mut desired = Self {
            generation,
            ..Self::default()
        };
        for planned in &spec.profiles {
            let key = Key {
                namespace: planned.namespace.clone(),
                name: planned.name.clone(),
            };
            match profile(planned) {
                Ok(profile) => {
                    desired.add_targets(&key, planned);
                    desired.profiles.insert(key, profile);
                }
                Err(problem) => desired.problems.push(format!("profile {key}: {problem}")),
            }
        }
        for planned in &spec.models {
            let key = Key {
                namespace: planned.namespace.clone(),
                name: planned.name.clone(),
            };
            match model(planned) {
                Ok(model) => {
                    desired.models.insert(key, model);
                }
                Err(problem) => desired.problems.push(format!("model {key}: {problem}")),
            }
        }
        desired
    }

    /// Whether a profile wants more than counts.
    #[must_use]
    pub fn wants_detail(&self) -> bool {
        self.profiles.values().any(|profile| profile.mode != Mode::Counts)
    }

    /// What profiles want to be counted beside calls.
    #[must_use]
    pub fn signals(&self) -> BTreeSet<Signal> {
        let all = self.profiles.values().flat_map(|profile| &profile.signals);
        // A kill for want of memory often ends the container, and with it what cgroupfs says.
        let resources = self.profiles.values().any(|profile| profile.resources);
        all.copied()
            .chain(resources.then_some(Signal::OomKills))
            .collect()
    }

    fn add_targets(&mut self, key: &Key, planned: &PlannedProfile) {
        for pod in &planned.pods {
            for container in &pod.containers {
                let id = ContainerId {
                    pod_uid: pod.uid.clone(),
                    id: container.id.clone(),
                };
                self.targets
                    .entry(id)
                    .or_insert_with(|| Target {
                        pod: pod.name.clone(),
                        container: container.name.clone(),
                        profiles: BTreeSet::new(),
                    })
                    .profiles
                    .insert(key.clone());
            }
        }
    }
}

fn profile(planned: &PlannedProfile) -> Result<Profile, String> {
    let window = u64::try_from(planned.window_ms)
        .ok()
        .filter(|ms| (100..=3_600_000).contains(ms))
        .ok_or_else(|| {
            format!(
                "a window of {} ms is not between 100 ms and an hour",
                planned.window_ms
            )
        })?;
    Ok(Profile {
        window: Duration::from_millis(window),
        consecutive: u32::try_from(planned.consecutive_windows).unwrap_or(1).max(1),
        alerts_per_hour: vigia_crds::decimal(&planned.alerts_per_hour)?,
        sample_per_mille: u32::try_from(planned.sample_per_mille).unwrap_or(0).min(1000),
        models: planned
            .models
            .iter()
            .map(|name| Key {
                namespace: planned.namespace.clone(),
                name: name.clone(),
            })
            .collect(),
        mode: mode(planned.capture.mode),
        one_in: u32::try_from(planned.capture.sample_one_in)
            .unwrap_or(2)
            .clamp(2, 1000),
        filter: Filter::parse(
            Arch::NATIVE,
            &planned.capture.syscalls.include,
            &planned.capture.syscalls.exclude,
        )
        .map_err(|error| error.to_string())?,
        capture: Filter::fingerprint(
            &planned.capture.syscalls.include,
            &planned.capture.syscalls.exclude,
        )
        .map_err(|error| error.to_string())?,
        signals: planned
            .capture
            .signals
            .iter()
            .filter_map(|kind| match kind {
                SignalKind::Resources => None,
                SignalKind::Processes => Some(Signal::Processes),
                SignalKind::Capabilities => Some(Signal::Capabilities),
                SignalKind::Connections => Some(Signal::Connections),
                SignalKind::Signals => Some(Signal::Signals),
            })
            .collect(),
        resources: planned.capture.signals.contains(&SignalKind::Resources),
        budget: planned
            .budget
            .as_ref()
            .map(|budget| {
                Ok::<_, String>(Budget {
                    cores: vigia_crds::cores(&budget.cpu)?,
                    suspend: budget.on_exceed == OnExceed::Suspend,
                })
            })
            .transpose()?,
    })
}

fn mode(wanted: CaptureMode) -> Mode {
    match wanted {
        CaptureMode::Counts => Mode::Counts,
        CaptureMode::Sampled => Mode::Sampled,
        CaptureMode::Full => Mode::Full,
    }
}

fn model(planned: &PlannedModel) -> Result<Model, String> {
    let versions = planned
        .versions
        .iter()
        .map(|version| {
            if !vigia_crds::is_digest(&version.digest) {
                return Err(format!("{:?} is not a digest", version.digest));
            }
            let size = u64::try_from(version.size_bytes)
                .ok()
                .filter(|size| *size <= MAX_ARTIFACT)
                .ok_or_else(|| {
                    format!(
                        "an artifact of {} bytes is beyond {MAX_ARTIFACT}",
                        version.size_bytes
                    )
                })?;
            Ok(Version {
                digest: version.digest.clone(),
                size,
                mode: version.mode,
                traceparent: version
                    .traceparent
                    .clone()
                    .filter(|text| text.len() <= MAX_TRACEPARENT),
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    for mode in [VersionMode::Active, VersionMode::Shadow] {
        if versions.iter().filter(|version| version.mode == mode).count() > 1 {
            return Err(format!("two versions are {mode:?}"));
        }
    }
    Ok(Model {
        task: planned.task,
        versions,
        keys: planned.trusted_keys.clone(),
    })
}

/// A name in the namespace of the tests.
#[cfg(test)]
pub(super) fn key(name: &str) -> Key {
    Key {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_crds::{Capture, PlannedContainer, PlannedPod, PlannedVersion, TraceBudget};

    fn planned(name: &str) -> PlannedProfile {
        PlannedProfile {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            window_ms: 10_000,
            consecutive_windows: 2,
            alerts_per_hour: "0.042".to_owned(),
            sample_per_mille: 100,
            models: vec!["m".to_owned()],
            capture: Capture::default(),
            budget: None,
            pods: vec![PlannedPod {
                name: "pod-0".to_owned(),
                uid: "uid-0".to_owned(),
                containers: vec![PlannedContainer {
                    name: "app".to_owned(),
                    id: "c0".to_owned(),
                }],
            }],
        }
    }

    fn planned_model(modes: &[VersionMode]) -> PlannedModel {
        PlannedModel {
            namespace: "shop".to_owned(),
            name: "m".to_owned(),
            task: Task::Anomaly,
            versions: modes
                .iter()
                .enumerate()
                .map(|(i, &mode)| PlannedVersion {
                    name: format!("m-{i}"),
                    digest: format!("sha256:{}", i.to_string().repeat(64)),
                    size_bytes: 1000,
                    mode,
                    traceparent: None,
                })
                .collect(),
            trusted_keys: vec![],
        }
    }

    #[test]
    fn a_container_that_two_profiles_want_is_one_target() {
        let spec = NodePlanSpec {
            profiles: vec![planned("a"), planned("b")],
            models: vec![planned_model(&[VersionMode::Active])],
        };
        let desired = Desired::parse(&spec, 7);
        assert!(desired.problems.is_empty(), "{:?}", desired.problems);
        assert_eq!(
            (desired.generation, desired.targets.len(), desired.profiles.len()),
            (7, 1, 2)
        );
        assert_eq!(
            desired
                .targets
                .values()
                .next()
                .map(|target| target.profiles.len()),
            Some(2)
        );
    }

    #[test]
    fn a_bad_part_is_named_and_the_rest_holds() {
        let mut bad = planned("bad");
        bad.alerts_per_hour = "many".to_owned();
        let mut typo = planned("typo");
        typo.capture.syscalls.include = vec!["raed".to_owned()];
        let mut dear = planned("dear");
        dear.budget = Some(TraceBudget {
            cpu: "10%".to_owned(),
            on_exceed: OnExceed::Degrade,
        });
        let two = planned_model(&[VersionMode::Active, VersionMode::Active]);
        let desired = Desired::parse(
            &NodePlanSpec {
                profiles: vec![bad, typo, dear, planned("good")],
                models: vec![two],
            },
            1,
        );
        assert_eq!(desired.profiles.len(), 1);
        assert_eq!(desired.problems.len(), 4);
        for (problem, said) in
            desired
                .problems
                .iter()
                .zip(["shop/bad", "\"raed\"", "\"10%\"", "two versions are Active"])
        {
            assert!(problem.contains(said), "{problem}");
        }
    }

    #[test]
    fn sizes_and_digests_are_bounded() {
        let mut model = planned_model(&[VersionMode::Active]);
        model.versions[0].size_bytes = i64::MAX;
        assert!(super::model(&model).is_err());
        model.versions[0].size_bytes = 1;
        model.versions[0].digest = "sha256:xyz".to_owned();
        assert!(super::model(&model).is_err());
    }
}
