//! Rollouts under every accident that we could think of, in any order: the operator killed between
//! any two writes, decisions taken on what has changed since, nodes lost and returned, agents that
//! refuse or hang, versions revoked, deleted, added and lost from the store, targets changed and rollouts paused
//! under way.
//!
//! After each write the promises of a rollout are checked; at the end the accidents stop, and the
//! cluster must come to rest where the spec says.

mod promises;
mod stories;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use vigia_crds::{Model, ModelStatus, PlannedVersion, PromotionMode, VersionMode, VersionRef, VersionState};
use vigia_model::histogram::ScoreHistogram;

use super::assign::Assignment;
use super::lost;
use super::nodes::{self, NodeView};
use super::rollout::{Next, Observed, Scores, step};
use super::version::{Verdict, VersionView};
use crate::fixture::{at, model};
use crate::observed::Merged;

/// How a version behaves wherever it runs. It never changes, so the end can be foretold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    /// It is quiet.
    Fine,
    /// It raises an alert on every second window.
    Noisy,
    /// Every node refuses it.
    Refused,
}

#[derive(Clone, Debug)]
enum Op {
    /// Read, decide, write the status, publish; then write the plans of all nodes.
    Reconcile,
    /// Read and decide, and write later.
    Decide,
    /// Write what was decided, if the status is still the one that it was decided on.
    Commit,
    /// Write one node's plan from what was published.
    WritePlan(usize),
    /// The operator dies: what it decided and published is lost.
    Kill,
    /// An agent carries its plan out.
    Sync(usize),
    Lose(usize),
    Return(usize),
    /// An agent stands still, and its node is Ready all the same.
    Hang(usize),
    /// The gate lets noisy versions through, or not.
    Loosen(bool),
    Revoke(usize),
    Delete(usize),
    /// A version is not known to be good any more, and nothing is known against it either.
    Doubt(usize),
    /// It is again.
    Verify(usize),
    /// The store loses its bytes.
    Forget(usize),
    /// Somebody brings them back.
    Bring(usize),
    Name(usize),
    Pause(bool),
    Mode(bool),
    Pass(i64),
}

fn op(nodes: usize, versions: usize) -> impl Strategy<Value = Op> {
    let node = 0..nodes;
    let version = 0..versions;
    prop_oneof![
        12 => Just(Op::Reconcile),
        5 => Just(Op::Decide),
        6 => Just(Op::Commit),
        4 => node.clone().prop_map(Op::WritePlan),
        2 => Just(Op::Kill),
        12 => node.clone().prop_map(Op::Sync),
        2 => node.clone().prop_map(Op::Lose),
        2 => node.clone().prop_map(Op::Return),
        1 => node.prop_map(Op::Hang),
        1 => any::<bool>().prop_map(Op::Loosen),
        2 => version.clone().prop_map(Op::Revoke),
        1 => version.clone().prop_map(Op::Delete),
        2 => version.clone().prop_map(Op::Doubt),
        2 => version.clone().prop_map(Op::Verify),
        1 => version.clone().prop_map(Op::Forget),
        1 => version.clone().prop_map(Op::Bring),
        2 => version.prop_map(Op::Name),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => any::<bool>().prop_map(Op::Mode),
        10 => (1i64..40).prop_map(Op::Pass),
    ]
}

#[derive(Clone, Debug, Default)]
struct SimNode {
    reachable: bool,
    hangs: bool,
    plan: Vec<PlannedVersion>,
    /// Bytes on its disk.
    held: BTreeSet<String>,
    states: BTreeMap<String, VersionState>,
    refused: BTreeSet<String>,
}

struct Sim {
    model: Model,
    /// Changes with each write of the status, like a resource version.
    revision: u64,
    versions: Vec<VersionView>,
    natures: BTreeMap<String, Nature>,
    nodes: BTreeMap<String, SimNode>,
    decided: Option<(u64, Next)>,
    /// Noisy versions may have come to serve.
    was_loose: bool,
    published: Option<Assignment>,
    now: Timestamp,
}

impl Scores for Sim {
    /// Five windows a second on each node that scores with the version now.
    fn scored(&self, digest: &str, since: Timestamp, nodes: Option<&BTreeSet<String>>) -> Merged {
        let running = self
            .nodes
            .iter()
            .filter(|(name, node)| {
                node.reachable
                    && nodes.is_none_or(|nodes| nodes.contains(*name))
                    && matches!(
                        node.states.get(digest),
                        Some(VersionState::Active | VersionState::Shadow)
                    )
            })
            .count();
        let seconds = u64::try_from(self.now.duration_since(since).as_secs()).unwrap_or(0);
        let windows = running as u64 * seconds * 5;
        let above_threshold = match self.natures.get(digest) {
            Some(Nature::Noisy) => windows / 2,
            _ => 0,
        };
        Merged {
            windows,
            above_threshold,
            ..Merged::default()
        }
    }

    fn validation(&self, _: &str) -> Option<ScoreHistogram> {
        None
    }
}

fn digest(n: usize) -> String {
    format!("d{n}")
}

impl Sim {
    fn new(nodes: usize, natures: &[Nature]) -> Self {
        let spec = json!({
            "task": "Anomaly",
            "version": {"digest": "d0"},
            "rollout": {
                "steps": [
                    {"nodes": if nodes.is_multiple_of(2) { json!("100%") } else { json!(1) }, "mode": "Shadow", "hold": "10s"},
                    {"nodes": "40%", "mode": "Active", "hold": "5s"},
                    {"nodes": "100%", "mode": "Active"}],
                "gates": [{"metric": "AlertRate", "atMost": "0.05", "minSamples": 20}]},
        });
        let versions = (0..natures.len()).map(|n| VersionView {
            name: format!("m-v{n}"),
            digest: digest(n),
            size_bytes: 1,
            stored: true,
            lacking: vec![],
            silent: false,
            age: (None, n as i64, String::new()),
            verdict: Verdict::Good,
        });
        Self {
            model: model("shop", "m", spec),
            revision: 0,
            versions: versions.collect(),
            natures: natures.iter().enumerate().map(|(n, k)| (digest(n), *k)).collect(),
            nodes: (0..nodes)
                .map(|n| {
                    let node = SimNode {
                        reachable: true,
                        ..SimNode::default()
                    };
                    (format!("n{n}"), node)
                })
                .collect(),
            decided: None,
            was_loose: false,
            published: None,
            now: at(1000),
        }
    }

    fn status(&self) -> ModelStatus {
        self.model.status.clone().unwrap_or_default()
    }

    fn views(&self) -> Vec<NodeView> {
        let mut views: Vec<NodeView> = self
            .nodes
            .iter()
            .map(|(name, node)| NodeView {
                name: name.clone(),
                reachable: node.reachable,
                states: node.states.clone(),
                refused: node
                    .refused
                    .iter()
                    .filter(|d| node.plan.iter().any(|v| v.digest == **d))
                    .map(|d| (d.clone(), ("BadSignature".to_owned(), "forged".to_owned())))
                    .collect(),
                allowed: 0.0,
            })
            .collect();
        nodes::sort(&mut views, "uid");
        views
    }

    /// The versions, and who cannot get which.
    fn marked(&self) -> Vec<VersionView> {
        let mut versions = self.versions.clone();
        lost::mark(&mut versions, &self.views());
        versions
    }

    fn decide(&self) -> Next {
        let status = self.status();
        step(&Observed {
            spec: &self.model.spec,
            generation: self.model.metadata.generation.unwrap_or(0),
            status: &status,
            versions: &self.marked(),
            nodes: &self.views(),
            scores: self,
            now: self.now,
        })
    }

    /// Writes a status that was derived from the present one, and publishes what follows.
    fn commit(&mut self, next: Next) -> Result<(), TestCaseError> {
        if self.status() != next.status {
            self.model.status = Some(next.status);
            self.revision += 1;
        }
        let status = self.status();
        let assignment = Assignment::of(&self.model, &status, &self.versions, &self.views(), "key");
        for (name, node) in &self.nodes {
            self.check_assignment(&status, &assignment.of_node(name), node)?;
        }
        self.published = Some(assignment);
        Ok(())
    }

    fn write_plan(&mut self, name: &str) {
        let Some(assignment) = &self.published else { return };
        let planned = assignment.of_node(name).versions;
        if let Some(node) = self.nodes.get_mut(name)
            && node.plan != planned
        {
            node.plan = planned;
        }
    }

    /// What a real agent does: it refuses what it must, and does what else it is told.
    fn sync(&mut self, name: &str) {
        let natures = &self.natures;
        let lost: BTreeSet<&str> = self
            .versions
            .iter()
            .filter(|v| !v.stored)
            .map(|v| &*v.digest)
            .collect();
        let Some(node) = self.nodes.get_mut(name).filter(|n| n.reachable && !n.hangs) else {
            return;
        };
        node.states.clear();
        node.refused.clear();
        node.held
            .retain(|digest| node.plan.iter().any(|v| v.digest == *digest));
        for version in &node.plan {
            if !node.held.contains(&version.digest) {
                if lost.contains(&*version.digest) {
                    node.states.insert(version.digest.clone(), VersionState::Fetching);
                    continue;
                }
                node.held.insert(version.digest.clone());
            }
            if natures.get(&version.digest) == Some(&Nature::Refused) {
                node.refused.insert(version.digest.clone());
                continue;
            }
            let state = match version.mode {
                VersionMode::Prefetch => VersionState::Prefetched,
                VersionMode::Shadow => VersionState::Shadow,
                VersionMode::Active => VersionState::Active,
            };
            node.states.insert(version.digest.clone(), state);
        }
    }

    fn change_spec(&mut self, change: impl FnOnce(&mut vigia_crds::ModelSpec)) {
        let before = self.model.spec.clone();
        change(&mut self.model.spec);
        if before != self.model.spec {
            self.model.metadata.generation = self.model.metadata.generation.map(|g| g + 1);
            self.revision += 1;
        }
    }

    fn apply(&mut self, op: &Op) -> Result<(), TestCaseError> {
        let name = |n: &usize| format!("n{n}");
        match op {
            Op::Reconcile => self.reconcile()?,
            Op::Decide => {
                let next = self.decide();
                self.check_transition(&self.status(), &next.status)?;
                self.decided = Some((self.revision, next));
            }
            // The world may have changed since; the API server takes it as long as the Model did not.
            Op::Commit => {
                if let Some((revision, next)) = self.decided.take()
                    && revision == self.revision
                {
                    self.commit(next)?;
                }
            }
            Op::WritePlan(n) => self.write_plan(&name(n)),
            Op::Kill => {
                self.decided = None;
                self.published = None;
            }
            Op::Sync(n) => self.sync(&name(n)),
            Op::Lose(n) | Op::Return(n) => {
                if let Some(node) = self.nodes.get_mut(&name(n)) {
                    node.reachable = matches!(op, Op::Return(_));
                }
            }
            Op::Hang(n) => {
                if let Some(node) = self.nodes.get_mut(&name(n)) {
                    node.hangs = true;
                }
            }
            Op::Loosen(loose) => {
                self.was_loose |= loose;
                let bound = if *loose { "0.6" } else { "0.05" };
                self.change_spec(|spec| bound.clone_into(&mut spec.rollout.gates[0].at_most));
            }
            Op::Revoke(n) => self.judge(*n, |_| Verdict::Bad {
                reason: "Revoked".to_owned(),
                message: "it is revoked".to_owned(),
            }),
            Op::Doubt(n) => self.judge(*n, |was| match was {
                Verdict::Good => Verdict::Pending,
                other => other,
            }),
            Op::Verify(n) => self.judge(*n, |was| match was {
                Verdict::Pending => Verdict::Good,
                other => other,
            }),
            Op::Forget(n) | Op::Bring(n) => {
                for version in self.versions.iter_mut().filter(|v| v.digest == digest(*n)) {
                    version.stored = matches!(op, Op::Bring(_));
                }
            }
            Op::Delete(n) => self.versions.retain(|v| v.digest != digest(*n)),
            Op::Name(n) => self.change_spec(|spec| {
                if spec.promotion.mode == PromotionMode::GitOps {
                    spec.version = Some(VersionRef { digest: digest(*n) });
                }
            }),
            Op::Pause(paused) => self.change_spec(|spec| spec.rollout.paused = *paused),
            Op::Mode(auto) => self.change_spec(|spec| {
                if *auto {
                    spec.promotion.mode = PromotionMode::Auto;
                    spec.version = None;
                } else {
                    spec.promotion.mode = PromotionMode::GitOps;
                }
            }),
            Op::Pass(seconds) => self.pass(*seconds),
        }
        Ok(())
    }

    fn judge(&mut self, n: usize, verdict: impl Fn(Verdict) -> Verdict) {
        for version in self.versions.iter_mut().filter(|v| v.digest == digest(n)) {
            version.verdict = verdict(version.verdict.clone());
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now = self
            .now
            .saturating_add(SignedDuration::from_secs(seconds))
            .expect("not that far");
    }

    fn reconcile(&mut self) -> Result<(), TestCaseError> {
        let next = self.decide();
        self.check_transition(&self.status(), &next.status)?;
        self.commit(next)?;
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.write_plan(&name);
        }
        Ok(())
    }

    /// The accidents are over: all nodes are there, nothing is paused, everybody does its work.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.change_spec(|spec| spec.rollout.paused = false);
        self.versions.iter_mut().for_each(|v| v.stored = true);
        let names: Vec<_> = self.nodes.keys().cloned().collect();
        for node in self.nodes.values_mut() {
            node.reachable = true;
            node.hangs = false;
        }
        let mut quiet = 0;
        for _ in 0..400 {
            let before = (
                self.status(),
                self.nodes.values().map(|n| n.plan.clone()).collect::<Vec<_>>(),
            );
            self.reconcile()?;
            for name in &names {
                self.sync(name);
            }
            self.pass(7);
            let after = (
                self.status(),
                self.nodes.values().map(|n| n.plan.clone()).collect::<Vec<_>>(),
            );
            let changed = |status: &ModelStatus| {
                let mut status = status.clone();
                if let Some(rollout) = &mut status.rollout {
                    rollout.message.clear();
                }
                status
            };
            quiet = if changed(&before.0) == changed(&after.0) && before.1 == after.1 {
                quiet + 1
            } else {
                0
            };
            if quiet == 20 {
                return Ok(());
            }
        }
        Err(TestCaseError::fail(format!("never at rest: {:?}", self.status())))
    }
}

fn nature() -> impl Strategy<Value = Nature> {
    prop_oneof![3 => Just(Nature::Fine), 1 => Just(Nature::Noisy), 1 => Just(Nature::Refused)]
}

fn story() -> impl Strategy<Value = (usize, Vec<Nature>, Vec<Op>)> {
    (1usize..7, prop::collection::vec(nature(), 1..5)).prop_flat_map(|(nodes, natures)| {
        let ops = prop::collection::vec(op(nodes, natures.len()), 0..120);
        (Just(nodes), Just(natures), ops)
    })
}
