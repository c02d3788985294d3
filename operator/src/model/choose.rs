//! Which version should serve.

use vigia_crds::{FailedVersion, ModelSpec, PromotionMode, ServedVersion};

use super::version::{self, Verdict, VersionView};

/// What should serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// This version, which may run.
    Version(ServedVersion),
    /// Nothing is chosen, and nothing need be done.
    Nothing,
    /// `spec.version` names a version that is not looked at yet.
    Pending(String),
    /// `spec.version` names one that is not there or must not run.
    Unfit {
        /// Its digest.
        digest: String,
        /// One CamelCase word.
        reason: String,
        /// A sentence.
        message: String,
    },
}

impl Target {
    /// The version's digest, if it may run.
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::Version(version) => Some(&version.digest),
            _ => None,
        }
    }
}

/// Whether a version failed under this spec, or under none that is older: it is not tried again by itself.
pub fn is_out(failed: &[FailedVersion], digest: &str, generation: i64) -> bool {
    failed
        .iter()
        .any(|f| f.digest == digest && f.generation >= generation)
}

/// Which version should serve: the one that Git names, or the newest one that may run and did not
/// fail. The newest is never older than the one that serves: going back is for revocations.
pub fn target(
    spec: &ModelSpec,
    generation: i64,
    versions: &[VersionView],
    serving: Option<&ServedVersion>,
    failed: &[FailedVersion],
) -> Target {
    match spec.promotion.mode {
        PromotionMode::GitOps => match &spec.version {
            None => Target::Nothing,
            Some(named) => by_digest(&named.digest, versions),
        },
        PromotionMode::Auto => {
            let floor = serving
                .and_then(|s| version::find(versions, &s.digest))
                .map(|v| &v.age);
            let newest = versions
                .iter()
                .filter(|v| version::good(versions, &v.digest).is_some() && v.is_good())
                .filter(|v| !is_out(failed, &v.digest, generation))
                .filter(|v| floor.is_none_or(|floor| v.age >= *floor))
                // One that some nodes cannot get is no better than what serves.
                .filter(|v| v.lacking.is_empty() || serving.is_some_and(|s| s.digest == v.digest))
                // Nor is one that would score nothing.
                .filter(|v| !v.silent || serving.is_none_or(|s| s.digest == v.digest))
                .max_by(|a, b| a.age.cmp(&b.age));
            match newest {
                Some(newest) => Target::Version(newest.served()),
                None => Target::Nothing,
            }
        }
    }
}

fn by_digest(digest: &str, versions: &[VersionView]) -> Target {
    let Some(version) = version::find(versions, digest) else {
        return Target::Unfit {
            digest: digest.to_owned(),
            reason: "VersionNotFound".to_owned(),
            message: format!(
                "spec.version names {digest}, of which this Model has no ModelVersion: \
                 create one, or name a digest of kubectl get modelversions"
            ),
        };
    };
    match &version.verdict {
        Verdict::Good => Target::Version(version.served()),
        Verdict::Pending => Target::Pending(version.name.clone()),
        Verdict::Bad { reason, message } => Target::Unfit {
            digest: digest.to_owned(),
            reason: reason.clone(),
            message: format!(
                "spec.version names ModelVersion {}, which may not run ({message}): name another one",
                version.name
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::model;
    use serde_json::json;

    fn version(n: i64, verdict: Verdict) -> VersionView {
        VersionView {
            name: format!("m-v{n}"),
            digest: format!("d{n}"),
            size_bytes: 1,
            stored: true,
            lacking: vec![],
            silent: false,
            age: (None, n, String::new()),
            verdict,
        }
    }

    fn bad() -> Verdict {
        Verdict::Bad {
            reason: "BadSignature".to_owned(),
            message: "forged".to_owned(),
        }
    }

    fn spec(value: serde_json::Value) -> ModelSpec {
        model("shop", "m", value).spec
    }

    #[test]
    fn git_names_the_version() {
        let versions = [
            version(1, Verdict::Good),
            version(2, Verdict::Pending),
            version(3, bad()),
        ];
        let choose = |digest: &str| {
            let mut spec = spec(json!({"task": "Anomaly"}));
            spec.version = Some(vigia_crds::VersionRef {
                digest: digest.to_owned(),
            });
            target(&spec, 1, &versions, None, &[])
        };
        assert_eq!(choose("d1").digest(), Some("d1"));
        assert_eq!(choose("d2"), Target::Pending("m-v2".to_owned()));
        assert!(matches!(choose("d3"), Target::Unfit { reason, .. } if reason == "BadSignature"));
        assert!(matches!(choose("d4"), Target::Unfit { reason, .. } if reason == "VersionNotFound"));
        assert_eq!(
            target(&spec(json!({"task": "Anomaly"})), 1, &versions, None, &[]),
            Target::Nothing
        );
    }

    #[test]
    fn auto_takes_the_newest_that_may_run_and_did_not_fail() {
        let auto = spec(json!({"task": "Anomaly", "promotion": {"mode": "Auto"}}));
        let versions = [
            version(2, Verdict::Good),
            version(1, Verdict::Good),
            version(10, Verdict::Good),
            version(11, bad()),
            version(12, Verdict::Pending),
        ];
        assert_eq!(target(&auto, 1, &versions, None, &[]).digest(), Some("d10"));
        let failed = [FailedVersion {
            digest: "d10".to_owned(),
            reason: "AlertRate".to_owned(),
            generation: 1,
        }];
        assert_eq!(target(&auto, 1, &versions, None, &failed).digest(), Some("d2"));
        // What it failed by may be another by now.
        assert_eq!(target(&auto, 2, &versions, None, &failed).digest(), Some("d10"));
        // Not one that the store has lost and a node does not hold, unless it serves already.
        let mut lost = versions.clone();
        lost[2].lacking = vec!["n1".to_owned()];
        assert_eq!(target(&auto, 1, &lost, None, &[]).digest(), Some("d2"));
        let there = lost[2].served();
        assert_eq!(target(&auto, 1, &lost, Some(&there), &[]).digest(), Some("d10"));
        // Nor one that would score nothing.
        let mut silent = versions.clone();
        silent[2].silent = true;
        let old = silent[1].served();
        assert_eq!(target(&auto, 1, &silent, Some(&old), &[]).digest(), Some("d2"));
        assert_eq!(target(&auto, 1, &silent, Some(&there), &[]).digest(), Some("d10"));
        assert_eq!(target(&auto, 1, &silent, None, &[]).digest(), Some("d10"));
        // Not back to an older one than the one that serves.
        let serving = versions[2].served();
        assert_eq!(
            target(&auto, 1, &versions[..2], Some(&serving), &[]).digest(),
            Some("d2")
        );
        assert_eq!(
            target(&auto, 1, &versions, Some(&serving), &failed),
            Target::Nothing
        );
        assert_eq!(target(&auto, 1, &[], None, &[]), Target::Nothing);
    }
}
