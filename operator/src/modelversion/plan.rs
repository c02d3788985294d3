//! What is found of an artifact, and what the ModelVersion's status then says.

use jiff::Timestamp;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{ModelVersion, ModelVersionStatus};
use vigia_model::artifact::{self, Artifact, ArtifactError};
use vigia_model::keys::TrustedKeys;

/// Every reason for which a version may not run, as a condition has it. Those of
/// [`ArtifactError::reason`] are among them, which a test checks.
pub const REASONS: [&str; 26] = [
    "TooLarge",
    "Truncated",
    "TrailingBytes",
    "BadHeader",
    "ChecksumMismatch",
    "Unsigned",
    "AlreadySigned",
    "UntrustedKey",
    "BadSignature",
    "BadMetadata",
    "TaskMismatch",
    "SchemaMismatch",
    "PayloadVersion",
    "DecompressionBomb",
    "BadCompression",
    "BadPayload",
    "InvalidModel",
    "EncodeFailed",
    "DigestMismatch",
    "SourceNotFound",
    "NotInStore",
    "ModelNotFound",
    "VersionNotFound",
    "Revoked",
    "Deleted",
    "Refused",
];

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Verified and stored.
    Verified {
        /// Size of the artifact.
        size_bytes: i64,
        /// Id of the key that signed it.
        signer: String,
    },
    /// Withdrawn by `spec.revoked`.
    Revoked,
    /// The artifact must not be used, and looking again will not change that.
    Refused {
        /// One of [`REASONS`].
        reason: &'static str,
        /// A sentence with a next step.
        message: String,
    },
    /// Something is not there yet.
    Waiting {
        /// One of [`REASONS`].
        reason: &'static str,
        /// A sentence with a next step.
        message: String,
    },
}

impl Finding {
    /// Why the artifact must not be used.
    pub fn refusal(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Refused { reason, message } => Some((reason, message)),
            _ => None,
        }
    }
}

/// Verifies bytes that should be the artifact of this digest.
///
/// # Errors
/// [`Finding::Refused`].
pub fn verify(
    bytes: &[u8],
    digest: &str,
    trusted: &TrustedKeys,
    task: artifact::Task,
) -> Result<Artifact, Finding> {
    let found = artifact::digest(bytes).to_string();
    if found != digest {
        return Err(Finding::Refused {
            reason: "DigestMismatch",
            message: format!(
                "the artifact has digest {found}, spec.digest is {digest}: \
                 create a ModelVersion with the digest of the very bytes (sha256sum model.apr)"
            ),
        });
    }
    artifact::open(bytes, trusted, task).map_err(|error| Finding::Refused {
        reason: word(&error),
        message: format!("{error}{}", advice(&error)),
    })
}

fn word(error: &ArtifactError) -> &'static str {
    error.reason()
}

/// What to do next.
fn advice(error: &ArtifactError) -> &'static str {
    match error {
        ArtifactError::UntrustedKey(_) => ": if the key is good, add it to the Model's spec.trust.publicKeys",
        ArtifactError::Unsigned => ": sign it with a key that the Model trusts (vigia sign)",
        ArtifactError::BadSignature(_) | ArtifactError::Checksum { .. } => {
            ": it was changed after it was signed; take it from its source again"
        }
        ArtifactError::Truncated { .. } | ArtifactError::Trailing(_) => {
            ": take the whole file, and nothing else"
        }
        ArtifactError::Schema { .. } | ArtifactError::PayloadVersion(_) => {
            ": train it again with this version of Vigía"
        }
        ArtifactError::Task { .. } => ": name the Model that it is for in spec.modelRef",
        _ => "",
    }
}

/// The status that follows.
pub fn status(version: &ModelVersion, finding: &Finding, now: Timestamp) -> ModelVersionStatus {
    let generation = version.metadata.generation.unwrap_or(0);
    let old = version.status.clone().unwrap_or_default();
    let three = |ready: bool, reconciling: bool, stalled: bool, reason: &'static str, message: &str| {
        let quiet = |on: bool| if on { message } else { "" };
        [
            Wanted::new(READY, ready, reason, message),
            Wanted::new(RECONCILING, reconciling, reason, quiet(reconciling)),
            Wanted::new(STALLED, stalled, reason, quiet(stalled)),
        ]
    };
    let (wanted, size_bytes, signer) = match finding {
        Finding::Verified { size_bytes, signer } => (
            three(
                true,
                false,
                false,
                "Verified",
                &format!("signed by key {signer}, {size_bytes} bytes"),
            ),
            *size_bytes,
            Some(signer.clone()),
        ),
        Finding::Revoked => (
            three(
                false,
                false,
                false,
                "Revoked",
                "withdrawn by spec.revoked: it runs nowhere",
            ),
            old.size_bytes,
            old.signer.clone(),
        ),
        Finding::Refused { reason, message } => (three(false, false, true, reason, message), 0, None),
        Finding::Waiting { reason, message } => (three(false, true, false, reason, message), 0, None),
    };
    ModelVersionStatus {
        observed_generation: generation,
        size_bytes,
        signer,
        conditions: conditions::apply(&old.conditions, &wanted, generation, now),
    }
}

/// Whether the status says something else than before, which is worth telling people.
pub fn is_news(before: Option<&ModelVersionStatus>, after: &ModelVersionStatus) -> bool {
    let said = |s: &ModelVersionStatus| {
        conditions::find(&s.conditions, READY).map(|c| (c.status.clone(), c.reason.clone()))
    };
    before.and_then(said) != said(after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::at;
    use serde_json::json;

    fn version() -> ModelVersion {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion",
            "metadata": {"name": "m-v1", "namespace": "shop", "generation": 1},
            "spec": {"modelRef": {"name": "m"}, "digest": "sha256:0"},
        }))
        .expect("a ModelVersion")
    }

    fn refused(reason: &'static str) -> Finding {
        Finding::Refused {
            reason,
            message: "why".to_owned(),
        }
    }

    #[test]
    fn the_same_finding_twice_is_no_news_and_no_write() {
        let mut version = version();
        let once = status(&version, &refused("BadSignature"), at(1));
        assert!(is_news(None, &once));
        version.status = Some(once.clone());
        let twice = status(&version, &refused("BadSignature"), at(2));
        assert_eq!(once, twice);
        assert!(!is_news(Some(&once), &twice));
        assert!(is_news(
            Some(&once),
            &status(&version, &refused("Truncated"), at(3))
        ));
    }

    #[test]
    fn kstatus_sees_what_waits_and_what_is_stuck() {
        let truth = |finding: &Finding| {
            let status = status(&version(), finding, at(1));
            [READY, RECONCILING, STALLED].map(|t| conditions::is_true(&status.conditions, t))
        };
        let verified = Finding::Verified {
            size_bytes: 1,
            signer: "k".to_owned(),
        };
        let waiting = Finding::Waiting {
            reason: "SourceNotFound",
            message: "no ConfigMap".to_owned(),
        };
        assert_eq!(truth(&verified), [true, false, false]);
        assert_eq!(truth(&waiting), [false, true, false]);
        assert_eq!(truth(&refused("Truncated")), [false, false, true]);
        assert_eq!(truth(&Finding::Revoked), [false, false, false]);
    }

    #[test]
    fn bytes_of_another_digest_are_refused_before_they_are_read() {
        let finding = verify(
            b"whatever",
            "sha256:00",
            &TrustedKeys::default(),
            artifact::Task::Anomaly,
        );
        assert!(matches!(
            finding,
            Err(Finding::Refused {
                reason: "DigestMismatch",
                ..
            })
        ));
    }

    #[test]
    fn what_is_no_artifact_is_refused_with_a_known_reason() {
        for bytes in [&b""[..], b"APRN", &[0; 4096]] {
            let digest = artifact::digest(bytes).to_string();
            match verify(bytes, &digest, &TrustedKeys::default(), artifact::Task::Anomaly) {
                Err(Finding::Refused { reason, message }) => {
                    assert!(REASONS.contains(&reason), "{reason}");
                    assert!(!message.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
