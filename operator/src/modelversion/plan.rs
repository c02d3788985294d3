//! What is found of an artifact, and what the ModelVersion's status then says.

use jiff::Timestamp;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{Model, ModelVersion, ModelVersionStatus};
use vigia_model::artifact::{self, Artifact, ArtifactError};
use vigia_model::keys::TrustedKeys;

/// Beside kstatus' own: whether the operator has the bytes, to give them to nodes.
pub const STORED: &str = "Stored";

/// Every reason for which a version may not run, as a condition has it. Those of
/// [`ArtifactError::reason`] are among them, which a test checks.
pub const REASONS: [&str; 30] = [
    "TooLarge",
    "Truncated",
    "TrailingBytes",
    "BadHeader",
    "ChecksumMismatch",
    "Unsigned",
    "AlreadySigned",
    "UntrustedKey",
    "BadSignature",
    "Encrypted",
    "WrongContentKey",
    "Undecryptable",
    "EncryptionMismatch",
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
    /// Verified before and signed by a key that is still trusted, but its bytes are not in the store any
    /// more. Nodes that hold it verify it themselves and keep serving.
    Unstored {
        /// Size of the artifact, as it was.
        size_bytes: i64,
        /// Id of the key that signed it.
        signer: String,
        /// A sentence with a next step.
        message: String,
    },
    /// Withdrawn by `spec.revoked`.
    Revoked,
    /// The artifact must not be used, and looking again will not change that, unless its source is put right.
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

    /// The same with the step that ends a waiting; what else there is to say has its own.
    #[must_use]
    pub fn to_go_on(self, step: &str) -> Self {
        match self {
            Self::Waiting { reason, message } => Self::Waiting {
                reason,
                message: format!("{message}; {step}"),
            },
            said => said,
        }
    }
}

/// What there is to say of a version whose bytes cannot be had, given its status and the ids of the keys
/// that are trusted now. Only a refusal takes a verified version away: what was lost here says nothing
/// against what nodes hold.
pub fn without_bytes(
    status: Option<&ModelVersionStatus>,
    trusted: impl IntoIterator<Item = String>,
    reason: &'static str,
    message: String,
) -> Finding {
    let verified = status.and_then(|s| Some((s.size_bytes, s.signer.clone().filter(|k| !k.is_empty())?)));
    match verified {
        Some((_, signer)) if trusted.into_iter().all(|key| key != signer) => Finding::Refused {
            reason: "UntrustedKey",
            message: format!(
                "signed by key {signer}, which the Model does not trust{}",
                advice_untrusted()
            ),
        },
        Some((size_bytes, signer)) => Finding::Unstored {
            size_bytes,
            signer,
            message: format!(
                "{message}; nodes that hold it keep serving, others wait. Create another ModelVersion with the same \
                 digest and the bytes in spec.source, or train anew"
            ),
        },
        None => Finding::Waiting { reason, message },
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
        reason: error.reason(),
        message: format!("{error}{}", advice(&error)),
    })
}

/// What to do next.
fn advice(error: &ArtifactError) -> &'static str {
    match error {
        ArtifactError::UntrustedKey(_) => advice_untrusted(),
        ArtifactError::Unsigned => ": sign it with a key that the Model trusts (vigia sign)",
        ArtifactError::BadSignature(_) | ArtifactError::Checksum { .. } => {
            ": it was changed after it was signed; take it from its source again"
        }
        ArtifactError::Truncated { .. } | ArtifactError::Trailing(_) => {
            ": take the whole file, and nothing else"
        }
        ArtifactError::Schema { .. } => ": train it again with this version of Vigía",
        ArtifactError::Encrypted(_) => {
            ": decrypt it (vigia decrypt) and sign that, a cluster takes no encrypted one"
        }
        ArtifactError::Task { .. } => ": name the Model that it is for in spec.modelRef",
        _ => "",
    }
}

fn advice_untrusted() -> &'static str {
    ": if the key is good, add it to the Model's spec.trust.publicKeys"
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
        Finding::Verified { size_bytes, signer }
        | Finding::Unstored {
            size_bytes, signer, ..
        } => (
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
                "its digest is withdrawn by spec.revoked, here or of another ModelVersion: it runs nowhere",
            ),
            old.size_bytes,
            old.signer.clone(),
        ),
        Finding::Refused { reason, message } => (three(false, false, true, reason, message), 0, None),
        // What was verified once is known to be, whatever it waits for now.
        Finding::Waiting { reason, message } => (
            three(false, true, false, reason, message),
            old.size_bytes,
            old.signer.clone(),
        ),
    };
    let stored = match finding {
        Finding::Verified { .. } => Wanted::new(STORED, true, "Stored", "the operator's store has its bytes"),
        Finding::Unstored { message, .. } => Wanted::new(STORED, false, "NotInStore", message.clone()),
        Finding::Revoked | Finding::Refused { .. } | Finding::Waiting { .. } => {
            Wanted::unknown(STORED, "NotVerified", "")
        }
    };
    let wanted = wanted.into_iter().chain([stored]).collect::<Vec<_>>();
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
    let lost =
        |s: &ModelVersionStatus| conditions::find(&s.conditions, STORED).is_some_and(|c| c.status == "False");
    before.and_then(said) != said(after) || before.is_some_and(lost) != lost(after)
}

/// Whether a Model serves an artifact, did so before what serves now, rolls it out, or names it.
pub fn is_in_use(model: &Model, digest: &str) -> bool {
    let status = model.status.as_ref();
    let served = status.iter().flat_map(|s| s.serving.iter().chain(&s.previous));
    let rolled_out = status.and_then(|s| s.rollout.as_ref()).map(|r| &r.version);
    let used = served.chain(rolled_out).map(|version| &version.digest);
    used.chain(model.spec.version.iter().map(|v| &v.digest))
        .any(|used| used == digest)
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

    #[test]
    fn what_a_model_needs_is_told_from_what_it_had() {
        let served = |digest: &str| json!({"name": digest, "digest": digest});
        let mut model = crate::fixture::model(
            "shop",
            "m",
            json!({"task": "Anomaly", "version": {"digest": "d4"}}),
        );
        model.status = serde_json::from_value(json!({
            "serving": served("d3"), "previous": served("d2"),
            "rollout": {"version": served("d5"), "phase": "Progressing", "step": 0, "progress": "",
                        "startedAt": "2026-01-01T00:00:00Z", "message": ""},
        }))
        .expect("a status");
        let used = ["d1", "d2", "d3", "d4", "d5"].map(|digest| is_in_use(&model, digest));
        assert_eq!(used, [false, true, true, true, true]);
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
    fn what_was_verified_stays_so_when_the_store_has_lost_it() {
        let keys = || ["k".to_owned()];
        let lost = |version: &ModelVersion, keys: Vec<String>| {
            without_bytes(
                version.status.as_ref(),
                keys,
                "NotInStore",
                "it is gone".to_owned(),
            )
        };
        let mut version = version();
        let message = |finding: Finding| match finding.to_go_on("do this") {
            Finding::Waiting { message, .. } | Finding::Unstored { message, .. } => message,
            other => panic!("{other:?}"),
        };
        assert_eq!(message(lost(&version, keys().into())), "it is gone; do this");
        let verified = Finding::Verified {
            size_bytes: 7,
            signer: "k".to_owned(),
        };
        let good = status(&version, &verified, at(1));
        version.status = Some(good.clone());
        let unstored = status(&version, &lost(&version, keys().into()), at(2));
        assert!(!message(lost(&version, keys().into())).contains("do this"));
        let find = |s: &ModelVersionStatus, t: &str| conditions::find(&s.conditions, t).cloned();
        assert_eq!(find(&good, READY), find(&unstored, READY));
        assert_eq!(find(&unstored, STORED).expect("said").status, "False");
        assert_eq!((unstored.size_bytes, unstored.signer.as_deref()), (7, Some("k")));
        assert!(is_news(Some(&good), &unstored));
        // Its Model goes and comes back: what is known of it is not forgotten.
        let waiting = Finding::Waiting {
            reason: "ModelNotFound",
            message: "no Model".to_owned(),
        };
        version.status = Some(status(&version, &waiting, at(3)));
        assert!(matches!(lost(&version, keys().into()), Finding::Unstored { .. }));
        // Trust that was withdrawn is a refusal, with or without the bytes.
        assert!(matches!(
            lost(&version, vec![]),
            Finding::Refused {
                reason: "UntrustedKey",
                ..
            }
        ));
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
