//! Revocations are remembered: who deletes a revoked ModelVersion and creates another of the same artifact
//! must not have it run again.
//!
//! The Model's status is the memory. What the watch saw is kept beside it, since a version may be revoked and
//! deleted before its Model is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use vigia_crds::ModelStatus;

use super::version::{Verdict, VersionView};

/// Digests that a status remembers: the bound of the schema.
const MAX_REVOKED: usize = 256;

/// Revocations that were seen since the start, by the Model's namespace and name.
#[derive(Debug, Default)]
pub struct Revocations(RwLock<BTreeMap<(String, String), BTreeSet<String>>>);

impl Revocations {
    /// A version of a Model was revoked.
    pub fn put(&self, namespace: &str, model: &str, digest: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), model.to_owned());
        let of_model = all.entry(key).or_default();
        if of_model.len() < MAX_REVOKED {
            of_model.insert(digest.to_owned());
        }
    }

    /// Forgets a Model that is gone.
    pub fn remove(&self, namespace: &str, model: &str) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&(namespace.to_owned(), model.to_owned()));
    }

    /// All that is remembered of a Model, with what its status has: that first, so that it stays as it is.
    pub fn with(&self, status: Option<&ModelStatus>, namespace: &str, model: &str) -> Vec<String> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let seen = all.get(&(namespace.to_owned(), model.to_owned()));
        let mut revoked = status.map(|s| s.revoked.clone()).unwrap_or_default();
        for digest in seen.into_iter().flatten() {
            if !revoked.contains(digest) {
                revoked.push(digest.clone());
            }
        }
        let surplus = revoked.len().saturating_sub(MAX_REVOKED);
        revoked.drain(..surplus);
        revoked
    }
}

/// Revokes the versions whose digest was revoked under any name.
pub fn latch(versions: &mut [VersionView], revoked: &[String]) {
    for version in versions.iter_mut().filter(|v| revoked.contains(&v.digest)) {
        version.verdict = Verdict::Bad {
            reason: "Revoked".to_owned(),
            message: "its digest is revoked".to_owned(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_revoked_stays_so_under_any_name() {
        let seen = Revocations::default();
        seen.put("shop", "m", "d1");
        let status = ModelStatus {
            revoked: vec!["d2".to_owned()],
            ..ModelStatus::default()
        };
        let revoked = seen.with(Some(&status), "shop", "m");
        assert_eq!(revoked, ["d2", "d1"]);
        // Written, it is the same again: nothing is left to write.
        let written = ModelStatus {
            revoked: revoked.clone(),
            ..ModelStatus::default()
        };
        assert_eq!(seen.with(Some(&written), "shop", "m"), revoked);
        assert!(seen.with(None, "shop", "other").is_empty());
        let mut versions = ["d1", "d3"].map(|digest| VersionView {
            name: format!("again-{digest}"),
            digest: digest.to_owned(),
            size_bytes: 1,
            stored: true,
            lacking: vec![],
            silent: false,
            age: (None, 0, String::new()),
            verdict: Verdict::Good,
        });
        latch(&mut versions, &revoked);
        assert!(!versions[0].is_good() && versions[1].is_good());
        seen.remove("shop", "m");
        assert!(seen.with(None, "shop", "m").is_empty());
    }

    #[test]
    fn a_status_stays_in_its_bounds() {
        let seen = Revocations::default();
        for n in 0..2 * MAX_REVOKED {
            seen.put("shop", "m", &format!("d{n}"));
        }
        let status = ModelStatus {
            revoked: (0..MAX_REVOKED).map(|n| format!("old{n}")).collect(),
            ..ModelStatus::default()
        };
        assert_eq!(seen.with(Some(&status), "shop", "m").len(), MAX_REVOKED);
    }
}
