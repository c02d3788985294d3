//! A pod of one container, and plans that name it.

use std::sync::atomic::{AtomicU32, Ordering};

use vigia_crds::{
    Capture, NodePlanSpec, PlannedContainer, PlannedModel, PlannedPod, PlannedProfile, PlannedVersion, Task,
    TraceBudget, VersionMode,
};

use crate::ground::{Cgroup, Ground};
use crate::model::{Signed, key};

/// A pod's place in cgroupfs.
pub struct Pod {
    pub uid: String,
    pub folder: Cgroup,
    pub container: Option<Cgroup>,
    /// What is wanted of its calls.
    pub capture: Capture,
    /// What that may cost.
    pub budget: Option<TraceBudget>,
}

/// Id of the container.
pub fn id() -> String {
    "c0".repeat(32)
}

impl Pod {
    /// Tests run side by side and see each other's cgroups, as nodes on one kernel do: hence a UID of its own.
    pub fn new(ground: &Ground) -> Self {
        Self::below(ground, "kubelet")
    }

    /// A pod below a kubelet's root of this name.
    pub fn below(ground: &Ground, root: &str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let uid = format!("0f3c2b1a-90ab-4cde-8f01-{:08x}{number:04x}", std::process::id());
        let folder = ground
            .cgroup(root)
            .nested("kubepods")
            .nested("burstable")
            .nested(&format!("pod{uid}"));
        let container = Some(folder.nested(&id()));
        Self {
            uid,
            folder,
            container,
            capture: Capture::default(),
            budget: None,
        }
    }

    /// What an operator would plan for it.
    pub fn spec(&self, window_ms: i64, versions: &[(&Signed, VersionMode)]) -> NodePlanSpec {
        let profile = PlannedProfile {
            namespace: "shop".to_owned(),
            name: "checkout".to_owned(),
            window_ms,
            consecutive_windows: 2,
            alerts_per_hour: "0.05".to_owned(),
            sample_per_mille: 1000,
            capture: self.capture.clone(),
            budget: self.budget.clone(),
            models: vec!["m".to_owned()],
            pods: vec![PlannedPod {
                name: "pod-0".to_owned(),
                uid: self.uid.clone(),
                containers: vec![PlannedContainer {
                    name: "app".to_owned(),
                    id: id(),
                }],
            }],
        };
        let model = PlannedModel {
            namespace: "shop".to_owned(),
            name: "m".to_owned(),
            task: Task::Anomaly,
            versions: versions
                .iter()
                .map(|(signed, mode)| PlannedVersion {
                    traceparent: None,
                    name: "v".to_owned(),
                    digest: signed.digest.clone(),
                    size_bytes: i64::try_from(signed.bytes.len()).expect("small"),
                    mode: *mode,
                })
                .collect(),
            trusted_keys: vec![key().public().to_base64()],
        };
        NodePlanSpec {
            profiles: vec![profile],
            models: vec![model],
        }
    }
}
