//! What a rollout promises, checked after each write and at the end.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use proptest::prelude::*;
use vigia_crds::{ModelStatus, PlannedModel, RolloutPhase, StepMode, VersionMode, VersionState};

use super::{Nature, Sim, SimNode};
use crate::model::assign::is_forward;
use crate::model::choose::{self, Target};
use crate::model::nodes;
use crate::model::rollout::Scores;
use crate::model::version;

impl Sim {
    /// No step forward but with every node of the step there, for its hold, and quiet.
    pub fn check_transition(&self, before: &ModelStatus, after: &ModelStatus) -> Result<(), TestCaseError> {
        prop_assert!(after.failed.len() <= 16);
        let kept = |digest: &str| version::kept(&self.versions, digest).is_some();
        prop_assert!(
            before.serving == after.serving || !is_kept_serving(before, kept) || completes(before, after),
            "only a whole rollout or a withdrawal changes what serves"
        );
        if let Some(previous) = before.previous.as_ref().filter(|p| kept(&p.digest)) {
            prop_assert!(
                before.serving != after.serving || after.previous.as_ref() == Some(previous),
                "the way back is forgotten"
            );
        }
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
        if !is_forward(old.phase)
            || old.version != new.version
            || before.serving.as_ref() == Some(&old.version)
        {
            return Ok(());
        }
        let completed = new.phase == RolloutPhase::Complete;
        let advanced = is_forward(new.phase) && new.step > old.step;
        if !completed && !advanced {
            return Ok(());
        }
        prop_assert!(!self.model.spec.rollout.paused, "a step forward while paused");
        prop_assert!(completed || new.step == old.step + 1, "a step was left out");
        let steps = &self.model.spec.rollout.steps;
        let index = usize::try_from(old.step).expect("not negative");
        let left = &steps[index];
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
        let covered = nodes::covered(&views, nodes::count_at(steps, index, views.len()));
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
            scored.windows >= 20 && (self.is_loose() || scored.above_threshold * 20 <= scored.windows),
            "gate"
        );
        prop_assert!(version::kept(&self.versions, &old.version.digest).is_some());
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
        node: &SimNode,
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
                version::kept(&self.versions, &version.digest).is_some(),
                "{} may not run",
                version.name
            );
        }
        // What the store has lost is asked of nobody for later, and taken from nobody who has it.
        let is_lost = |digest: &str| self.versions.iter().any(|v| v.digest == digest && !v.stored);
        let has = |digest: &str| {
            use VersionState::{Active, Prefetched, Shadow};
            matches!(node.states.get(digest), Some(Active | Prefetched | Shadow))
        };
        for version in versions.iter().filter(|v| v.mode == VersionMode::Prefetch) {
            prop_assert!(
                !is_lost(&version.digest) || has(&version.digest),
                "{} waits for ever",
                version.name
            );
        }
        let Some(serving) = status
            .serving
            .as_ref()
            .filter(|s| version::kept(&self.versions, &s.digest).is_some())
        else {
            return Ok(());
        };
        let of_serving = versions.iter().find(|v| v.digest == serving.digest);
        prop_assert!(
            of_serving.is_some_and(|v| v.mode != VersionMode::Shadow)
                || is_lost(&serving.digest) && !has(&serving.digest),
            "a rollback would need the network"
        );
        if let Some(previous) = &status.previous {
            prop_assert!(
                version::kept(&self.versions, &previous.digest).is_none()
                    || digests.contains(&previous.digest)
                    || is_lost(&previous.digest) && !has(&previous.digest),
                "the way back would need the network"
            );
        }
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

    fn is_loose(&self) -> bool {
        self.model.spec.rollout.gates[0].at_most == "0.6"
    }

    /// It comes through the gate as that is now.
    fn is_good_enough(&self, digest: &str) -> bool {
        match self.natures.get(digest) {
            Some(Nature::Fine) => true,
            Some(Nature::Noisy) => self.is_loose(),
            Some(Nature::Refused) | None => false,
        }
    }

    fn target(&self) -> Target {
        let status = self.status();
        choose::target(
            &self.model.spec,
            self.model.metadata.generation.unwrap_or(0),
            &self.marked(),
            status.serving.as_ref(),
            &status.failed,
        )
    }

    /// What is chosen serves or is rolled out after a few looks, whatever the nodes do meanwhile, unless it
    /// failed under this very spec.
    pub fn check_prompt(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..4 {
            self.reconcile()?;
        }
        let (status, generation) = (self.status(), self.model.metadata.generation.unwrap_or(0));
        let Target::Version(target) = self.target() else {
            return Ok(());
        };
        let serves = status.serving.as_ref() == Some(&target);
        let failed = status
            .failed
            .iter()
            .any(|f| f.digest == target.digest && f.generation == generation);
        let rolled_out = status
            .rollout
            .as_ref()
            .is_some_and(|r| is_forward(r.phase) && r.version == target);
        prop_assert!(
            serves || failed || rolled_out,
            "{} waits for nothing: {:?}",
            target.name,
            status.rollout
        );
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
            let nature = self.natures.get(&serving.digest);
            prop_assert!(nature == Some(&Nature::Fine) || self.was_loose && nature == Some(&Nature::Noisy));
            prop_assert!(version::kept(&self.versions, &serving.digest).is_some());
        }
        if let Target::Version(target) = self.target()
            && self.is_good_enough(&target.digest)
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

fn is_kept_serving(status: &ModelStatus, kept: impl Fn(&str) -> bool) -> bool {
    status.serving.as_ref().is_none_or(|s| kept(&s.digest))
}

/// The rollout that was under way is complete, and its version serves.
fn completes(before: &ModelStatus, after: &ModelStatus) -> bool {
    let (Some(old), Some(new)) = (&before.rollout, &after.rollout) else {
        return false;
    };
    is_forward(old.phase)
        && new.phase == RolloutPhase::Complete
        && new.version == old.version
        && after.serving.as_ref() == Some(&new.version)
}
