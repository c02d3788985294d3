//! A ModelVersion, as far as the choice between versions needs it.

use jiff::Timestamp;
use kube::ResourceExt;
use vigia_crds::conditions::{self, READY, STALLED};
use vigia_crds::{ModelVersion, PlannedVersion, ServedVersion, VersionMode};

use crate::modelversion::STORED;

/// Label of a ModelVersion: its Model.
pub const MODEL_LABEL: &str = "vigia.dev/model";
/// Label of a ModelVersion: its number among those of its Model.
pub const SEQUENCE_LABEL: &str = "vigia.dev/sequence";

/// Whether a version may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Verified, not revoked.
    Good,
    /// Not looked at yet.
    Pending,
    /// It must not run.
    Bad {
        /// One CamelCase word, such as `Revoked` or `BadSignature`.
        reason: String,
        /// A sentence.
        message: String,
    },
}

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionView {
    /// Name of the ModelVersion.
    pub name: String,
    /// Digest of its artifact.
    pub digest: String,
    /// Size of its artifact.
    pub size_bytes: i64,
    /// The newest of two is the one created later; of one second, that with the larger sequence
    /// number. People's versions have no number, and theirs count as those of trainings do.
    pub age: (Option<Timestamp>, i64, String),
    /// Whether it may run.
    pub verdict: Verdict,
    /// Whether the store has its bytes, as far as is known: without, only nodes that hold it have it.
    pub stored: bool,
    /// Nodes that cannot get it: see [`super::lost`].
    pub lacking: Vec<String>,
    /// It would score no window of any profile: see [`super::windows`].
    pub silent: bool,
}

impl VersionView {
    /// What a ModelVersion says.
    pub fn of(version: &ModelVersion) -> Self {
        let name = version.name_any();
        let sequence = version.labels().get(SEQUENCE_LABEL).and_then(|s| s.parse().ok());
        Self {
            digest: version.spec.digest.clone(),
            size_bytes: version.status.as_ref().map_or(0, |s| s.size_bytes),
            age: (
                version.creation_timestamp().map(|t| t.0),
                sequence.unwrap_or(0),
                name.clone(),
            ),
            verdict: verdict(version),
            stored: !is_lost(version),
            lacking: vec![],
            silent: false,
            name,
        }
    }

    /// Whether it may run.
    pub fn is_good(&self) -> bool {
        self.verdict == Verdict::Good
    }

    /// Its name and digest.
    pub fn served(&self) -> ServedVersion {
        ServedVersion {
            name: self.name.clone(),
            digest: self.digest.clone(),
        }
    }

    /// As a part of a node's plan.
    pub fn planned(&self, mode: VersionMode) -> PlannedVersion {
        PlannedVersion {
            name: self.name.clone(),
            digest: self.digest.clone(),
            size_bytes: self.size_bytes,
            mode,
            traceparent: None,
        }
    }
}

/// Whether the store is known not to have a version's bytes: those of one that was verified, or those that a training
/// put there.
fn is_lost(version: &ModelVersion) -> bool {
    let conditions = version.status.iter().flat_map(|s| &s.conditions);
    let says = |type_: &str, reason: &str| {
        let mut of_type = conditions.clone().filter(|c| c.type_ == type_);
        of_type.any(|c| c.status == "False" && c.reason == reason)
    };
    says(STORED, "NotInStore") || says(READY, "NotInStore")
}

/// The number of a version: its label's, or what its name ends with where people made it.
pub fn sequence(version: &impl ResourceExt) -> Option<u32> {
    let label = version.labels().get(SEQUENCE_LABEL).and_then(|s| s.parse().ok());
    label.or_else(|| version.name_any().rsplit_once("-v")?.1.parse().ok())
}

/// The largest number of a version: with more digits there are names that no label can have.
pub const MAX_SEQUENCE: u32 = 999_999_999;
/// A number that is so much larger than those before it is none: people end names with dates, or with anything, and by
/// one such name all numbers would be used up.
const MAX_JUMP: u32 = 1_000_000;

/// The last number that a version of a Model had: the one remembered, or one that goes on from there. At most
/// [`MAX_SEQUENCE`].
pub fn last_sequence(remembered: i64, numbers: impl IntoIterator<Item = u32>) -> u32 {
    let remembered = u32::try_from(remembered).ok().filter(|n| *n <= MAX_SEQUENCE);
    let mut numbers: Vec<u32> = numbers.into_iter().filter(|n| *n <= MAX_SEQUENCE).collect();
    numbers.sort_unstable();
    let first = remembered.unwrap_or(0);
    numbers.into_iter().fold(first, |last, number| {
        let goes_on = number.checked_sub(last).is_some_and(|by| by <= MAX_JUMP);
        if goes_on { number } else { last }
    })
}

fn verdict(version: &ModelVersion) -> Verdict {
    let bad = |reason: &str, message: &str| Verdict::Bad {
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if version.spec.revoked {
        return bad("Revoked", "it is revoked");
    }
    if version.metadata.deletion_timestamp.is_some() {
        return bad("Deleted", "it is being deleted");
    }
    let conditions = version
        .status
        .as_ref()
        .map(|s| s.conditions.as_slice())
        .unwrap_or_default();
    match conditions::find(conditions, READY) {
        Some(ready) if ready.status == "True" => Verdict::Good,
        Some(ready) if conditions::is_true(conditions, STALLED) => bad(&ready.reason, &ready.message),
        _ => Verdict::Pending,
    }
}

/// The version with a digest. Where two ModelVersions name one artifact, a revocation of either
/// counts, and else the one that may run.
pub fn find<'a>(versions: &'a [VersionView], digest: &str) -> Option<&'a VersionView> {
    let same = || versions.iter().filter(|v| v.digest == digest);
    let revoked = |v: &&VersionView| matches!(&v.verdict, Verdict::Bad { reason, .. } if reason == "Revoked");
    same()
        .find(revoked)
        .or_else(|| same().find(|v| v.is_good()))
        .or_else(|| same().find(|v| v.verdict == Verdict::Pending))
        .or_else(|| same().next())
}

/// The version with a digest, if it may run.
pub fn good<'a>(versions: &'a [VersionView], digest: &str) -> Option<&'a VersionView> {
    find(versions, digest).filter(|v| v.is_good())
}

/// The version with a digest, unless it must not run. What serves, served or is rolled out was verified
/// before: that it is looked at again takes nothing away, a refusal does.
pub fn kept<'a>(versions: &'a [VersionView], digest: &str) -> Option<&'a VersionView> {
    find(versions, digest).filter(|v| !matches!(v.verdict, Verdict::Bad { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn version(revoked: bool, ready: &str, stalled: &str) -> VersionView {
        let condition = |type_: &str, status: &str| {
            json!({"type": type_, "status": status, "reason": "BadSignature", "message": "m",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let version: ModelVersion = serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
            "metadata": {"name": "m-v2", "namespace": "shop", "labels": {SEQUENCE_LABEL: "2"}},
            "spec": {"modelRef": {"name": "m"}, "digest": "sha256:0", "revoked": revoked},
            "status": {"sizeBytes": 7, "conditions": [condition("Ready", ready), condition("Stalled", stalled)]},
        }))
        .expect("a ModelVersion");
        VersionView::of(&version)
    }

    #[test]
    fn only_a_verified_version_that_is_not_revoked_may_run() {
        assert!(version(false, "True", "False").is_good());
        assert_eq!(version(false, "False", "False").verdict, Verdict::Pending);
        assert_eq!(version(false, "Unknown", "False").verdict, Verdict::Pending);
        assert!(
            matches!(version(false, "False", "True").verdict, Verdict::Bad { reason, .. } if reason == "BadSignature")
        );
        assert!(
            matches!(version(true, "True", "False").verdict, Verdict::Bad { reason, .. } if reason == "Revoked")
        );
        assert_eq!(version(false, "True", "False").age.1, 2);
    }

    #[test]
    fn a_name_that_ends_with_a_large_number_uses_up_none() {
        assert_eq!(last_sequence(0, []), 0);
        assert_eq!(last_sequence(0, [2, 7, 3]), 7);
        assert_eq!(last_sequence(9, [2, 7]), 9);
        assert_eq!(last_sequence(9, [12, 4_294_967_295, 20_261_122]), 12);
        assert_eq!(last_sequence(20_261_122, [20_261_123]), 20_261_123);
        // What was remembered before such names were told from numbers.
        for remembered in [4_294_967_295, i64::MAX, -1] {
            assert_eq!(last_sequence(remembered, [5]), 5);
        }
    }

    proptest! {
        /// There is always a next one that is a u32 and, unless the numbers went up to the largest step by step, a name.
        #[test]
        fn the_last_number_never_jumps(remembered in 0..=i64::from(MAX_SEQUENCE), numbers: Vec<u32>) {
            let last = last_sequence(remembered, numbers.iter().copied());
            prop_assert!(last <= MAX_SEQUENCE && i64::from(last) >= remembered);
            let most = u64::try_from(remembered).expect("not negative") + numbers.len() as u64 * u64::from(MAX_JUMP);
            prop_assert!(u64::from(last) <= most);
        }
    }

    #[test]
    fn a_revocation_of_the_same_artifact_under_another_name_counts() {
        let versions = [version(false, "True", "False"), version(true, "True", "False")];
        assert!(good(&versions, "sha256:0").is_none());
        let versions = [version(false, "False", "True"), version(false, "True", "False")];
        assert!(good(&versions, "sha256:0").is_some());
        assert!(find(&versions, "sha256:1").is_none());
    }
}
