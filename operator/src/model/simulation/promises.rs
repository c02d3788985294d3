//! What a rollout promises, checked after each write and at the end.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proptest::prelude::*;
use vigia_crds::{ModelStatus, PlannedModel, RolloutPhase, StepMode, VersionMode, VersionState};

use super::{Nature, Sim};
use crate::model::assign::is_forward;
use crate::model::choose::{self, Target};
use crate::model::nodes;
use crate::model::rollout::Scores;
use crate::model::version;

impl Sim {
    /// No step forward but with every node of the step there, for its hold, and quiet.
    pub fn check_transition(&self, before: &ModelStatus, after: &ModelStatus) -> Result<(), TestCaseError> {
        prop_assert!(after.failed.len() <= 16);
        let (Some(old), Some(new)) = (&before.rollout, &after.rollout) else {
            return Ok(());
        };
        if old.phase == RolloutPhase::RollingBack && new.phase == RolloutPhase::RolledBack {
            for node in self.nodes.values().filter(|node| node.reachable) {
                let state = |digest: &String| node.states.get(digest);
                prop_assert!(
                    after
                        .serving
                        .as_ref()
                        .is_none_or(|s| state(&s.digest) == Some(&VersionState::Active)
                            || node.refused.contains(&s.digest)),
                    "rolled back, and a node does not serve as before"
                );
            }
        }
        if !is_forward(old.phase) || old.version != new.version {
            return Ok(());
        }
        let completed = new.phase == RolloutPhase::Complete;
        let advanced = is_forward(new.phase) && new.step > old.step;
        if !completed && !advanced {
            let withdrawn = before
                .serving
                .as_ref()
                .is_some_and(|s| version::good(&self.versions, &s.digest).is_none());
            prop_assert!(
                before.serving == after.serving || withdrawn,
                "only a whole rollout or a withdrawal changes what serves"
            );
            return Ok(());
        }
        prop_assert!(!self.model.spec.rollout.paused, "a step forward while paused");
        prop_assert!(completed || new.step == old.step + 1, "a step was left out");
        let steps = &self.model.spec.rollout.steps;
        let left = &steps[usize::try_from(old.step).expect("not negative")];
        let ready_at = old
            .step_ready_at
            .as_ref()
            .expect("a step that is left was ready")
            .0;
        prop_assert!(
            self.now.duration_since(ready_at)
                >= SignedDuration::try_from(std::time::Duration::from(left.hold)).expect("short")
        );
        let views = self.views();
        let covered = nodes::covered(&views, nodes::count(&left.nodes, views.len()));
        let state = match left.mode {
            StepMode::Shadow => VersionState::Shadow,
            StepMode::Active => VersionState::Active,
        };
        let reachable: Vec<_> = views
            .iter()
            .filter(|v| v.reachable && covered.contains(&v.name))
            .collect();
        prop_assert!(!reachable.is_empty(), "nothing is known of the step");
        prop_assert!(reachable.iter().all(|v| v.does(&old.version.digest, state)));
        let scored = self.scored(&old.version.digest, ready_at, Some(&covered));
        prop_assert!(
            scored.windows >= 20 && scored.above_threshold * 20 <= scored.windows,
            "gate"
        );
        prop_assert!(version::good(&self.versions, &old.version.digest).is_some());
        if completed {
            prop_assert_eq!(after.serving.as_ref(), Some(&old.version));
            prop_assert_eq!(&after.previous, &before.serving);
        }
        Ok(())
    }

    pub fn check_assignment(
        &self,
        status: &ModelStatus,
        planned: &PlannedModel,
    ) -> Result<(), TestCaseError> {
        let versions = &planned.versions;
        let count = |mode| versions.iter().filter(|v| v.mode == mode).count();
        prop_assert!(
            count(VersionMode::Active) <= 1 && count(VersionMode::Shadow) <= 1 && versions.len() <= 4
        );
        let digests: BTreeSet<_> = versions.iter().map(|v| &v.digest).collect();
        prop_assert_eq!(digests.len(), versions.len(), "a version twice");
        for version in versions {
            prop_assert!(
                version::good(&self.versions, &version.digest).is_some(),
                "{} may not run",
                version.name
            );
        }
        let Some(serving) = status
            .serving
            .as_ref()
            .filter(|s| version::good(&self.versions, &s.digest).is_some())
        else {
            return Ok(());
        };
        let of_serving = versions.iter().find(|v| v.digest == serving.digest);
        prop_assert!(
            of_serving.is_some_and(|v| v.mode != VersionMode::Shadow),
            "a rollback would need the network"
        );
        if let Some(rollout) = status.rollout.as_ref().filter(|r| !is_forward(r.phase))
            && matches!(
                rollout.phase,
                RolloutPhase::RollingBack | RolloutPhase::RolledBack
            )
        {
            prop_assert_eq!(of_serving.map(|v| v.mode), Some(VersionMode::Active));
            let ran = versions.iter().find(|v| v.digest == rollout.version.digest);
            prop_assert!(
                rollout.version.digest == serving.digest
                    || ran.is_none_or(|v| v.mode == VersionMode::Prefetch),
                "rolled back, and still there"
            );
        }
        Ok(())
    }

    pub fn check_end(&self) -> Result<(), TestCaseError> {
        let status = self.status();
        if let Some(rollout) = &status.rollout {
            prop_assert!(
                !is_forward(rollout.phase) && rollout.phase != RolloutPhase::RollingBack,
                "rests under way: {rollout:?}"
            );
        }
        for (name, node) in &self.nodes {
            let active: Vec<_> = node
                .states
                .iter()
                .filter(|(_, s)| **s == VersionState::Active)
                .map(|(d, _)| d)
                .collect();
            let serving: Vec<_> = status.serving.iter().map(|s| &s.digest).collect();
            prop_assert_eq!(active, serving, "{} does not serve what the status says", name);
            prop_assert!(!node.states.values().any(|s| *s == VersionState::Shadow));
        }
        if let Some(serving) = &status.serving {
            prop_assert_eq!(self.natures.get(&serving.digest), Some(&Nature::Fine));
            prop_assert!(version::good(&self.versions, &serving.digest).is_some());
        }
        let target = choose::target(
            &self.model.spec,
            &self.versions,
            status.serving.as_ref(),
            &status.failed,
        );
        if let Target::Version(target) = target
            && self.natures.get(&target.digest) == Some(&Nature::Fine)
        {
            prop_assert_eq!(
                status.serving.as_ref(),
                Some(&target),
                "what is chosen and fine serves in the end"
            );
        }
        Ok(())
    }
}
