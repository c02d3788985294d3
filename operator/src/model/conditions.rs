//! What a Model's status says to people and to kstatus, from where its rollout is.

use vigia_crds::conditions::{READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{ModelStatus, RolloutPhase, ServedVersion, VersionState};

use super::assign::is_forward;
use super::choose::{self, Target};
use super::lost;
use super::nodes::NodeView;
use super::version::{Verdict, VersionView, find};
use crate::events::counted;

/// Nodes in a message before "and N more".
const NAMED: usize = 3;

/// Beside kstatus' own: whether the newest version's artifact was accepted.
pub const ARTIFACT_VERIFIED: &str = "ArtifactVerified";

/// The conditions of a Model. `nodes` are those that run something that it scores.
pub fn of(
    status: &ModelStatus,
    target: &Target,
    versions: &[VersionView],
    nodes: &[NodeView],
) -> Vec<Wanted> {
    let lost = waits_for_lost(status, target, versions);
    let mut wanted = vec![ready(status, target, versions, nodes, lost.as_deref())];
    wanted.extend(progress(status, target, nodes.len(), lost));
    wanted.push(artifact(status, versions));
    wanted.push(lost::condition(status, versions));
    wanted
}

/// What there is to say where a rollout, or the first one that could begin, waits for nodes that cannot get its version.
fn waits_for_lost(status: &ModelStatus, target: &Target, versions: &[VersionView]) -> Option<String> {
    let rollout = status.rollout.as_ref().filter(|r| is_forward(r.phase));
    let waits = match (rollout, &status.serving, target) {
        (Some(rollout), ..) => find(versions, &rollout.version.digest),
        (None, None, Target::Nothing) => {
            let lost = versions.iter().filter(|v| v.is_good() && !v.lacking.is_empty());
            lost.max_by(|a, b| a.age.cmp(&b.age))
        }
        _ => None,
    };
    lost::sentence(waits?)
}

fn ready(
    status: &ModelStatus,
    target: &Target,
    versions: &[VersionView],
    nodes: &[NodeView],
    lost: Option<&str>,
) -> Wanted {
    match (&status.serving, target) {
        (Some(serving), _) => serves(status, serving, versions, nodes),
        (None, _) if lost.is_some() => Wanted::new(READY, false, "NotInStore", lost.unwrap_or_default()),
        (None, Target::Unfit { reason, message, .. }) => {
            Wanted::new(READY, false, known(reason), message.clone())
        }
        (None, Target::Version(version)) if nodes.is_empty() => Wanted::new(
            READY,
            false,
            "NoNodes",
            format!(
                "{} waits: no running pod is selected by a TraceProfile that names this Model",
                version.name
            ),
        ),
        (None, Target::Version(version)) if status.rollout.is_none() => {
            Wanted::new(READY, false, "RollingOut", format!("{} is next", version.name))
        }
        (None, _)
            if status
                .rollout
                .as_ref()
                .is_some_and(|r| r.phase == RolloutPhase::RolledBack) =>
        {
            Wanted::new(
                READY,
                false,
                "RolledBack",
                format!("no version serves{}", rollout(status)),
            )
        }
        (None, Target::Version(version)) => Wanted::new(
            READY,
            false,
            "RollingOut",
            format!("{} is on its way{}", version.name, rollout(status)),
        ),
        (None, Target::Pending(name)) => Wanted::new(
            READY,
            false,
            "Verifying",
            format!("ModelVersion {name} is being verified"),
        ),
        (None, Target::Nothing) => Wanted::new(
            READY,
            false,
            "NoVersion",
            "there is no version to serve: name one in spec.version, or let a RetrainingPolicy with coldStart train one",
        ),
    }
}

/// What serves, as far as nodes report it: one that is told to and does not detects nothing.
fn serves(
    status: &ModelStatus,
    serving: &ServedVersion,
    versions: &[VersionView],
    nodes: &[NodeView],
) -> Wanted {
    let ahead = status.rollout.as_ref().filter(|r| is_forward(r.phase));
    let digests: Vec<&str> = std::iter::once(serving.digest.as_str())
        .chain(ahead.map(|r| r.version.digest.as_str()))
        .collect();
    let scores = |n: &&NodeView| n.reachable && digests.iter().any(|d| n.does(d, VersionState::Active));
    let (done, all) = (nodes.iter().filter(scores).count(), nodes.len());
    let (name, rollout) = (&serving.name, rollout(status));
    if done == all {
        let on = match all {
            0 => "; no node runs anything that it scores just now".to_owned(),
            all => format!(" on {}", counted(all as u64, "node")),
        };
        return Wanted::new(READY, true, "Serving", format!("{name} serves{on}{rollout}"));
    }
    let is_lost = find(versions, &serving.digest).is_some_and(|v| !v.stored);
    let silent = nodes.iter().filter(|n| !scores(n));
    let missing: Vec<String> = silent
        .clone()
        .take(NAMED)
        .map(|n| format!("{} ({})", n.name, why_not(n, &serving.digest, is_lost)))
        .collect();
    let more = match silent.count().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let all = counted(all as u64, "node");
    let missing = missing.join(", ");
    let message = format!("{name} serves on {done} of {all}, not on {missing}{more}{rollout}");
    Wanted::new(
        READY,
        done > 0,
        if done > 0 { "ServingPartly" } else { "NotServing" },
        message,
    )
}

/// Why a node does not serve a version.
fn why_not(node: &NodeView, digest: &str, is_lost: bool) -> String {
    if !node.reachable {
        return "it cannot be reached, or no agent runs on it".to_owned();
    }
    if let Some((reason, _)) = node.refused.get(digest) {
        return format!("Refused: {reason}");
    }
    match node.states.get(digest) {
        Some(VersionState::Fetching) | None if is_lost => {
            "ArtifactLost: it cannot get what the store has lost".to_owned()
        }
        Some(state) => format!("{state:?}"),
        None => "its agent has not answered yet".to_owned(),
    }
}

/// What there is to say about the rollout, after a sentence.
fn rollout(status: &ModelStatus) -> String {
    let Some(rollout) = &status.rollout else {
        return String::new();
    };
    let because = match rollout.message.as_str() {
        "" => String::new(),
        message => format!(" ({message})"),
    };
    match rollout.phase {
        RolloutPhase::Complete => String::new(),
        RolloutPhase::Progressing => format!(
            "; {} is rolled out, {}{because}",
            rollout.version.name, rollout.progress
        ),
        RolloutPhase::Paused => format!(
            "; the rollout of {} is paused, {}",
            rollout.version.name, rollout.progress
        ),
        RolloutPhase::RollingBack => format!(
            "; {} is being rolled back, {}{because}",
            rollout.version.name, rollout.progress
        ),
        RolloutPhase::RolledBack => format!("; {} was rolled back{because}", rollout.version.name),
    }
}

/// `Reconciling` and `Stalled`: never both, and neither when what serves is what should.
fn progress(status: &ModelStatus, target: &Target, nodes: usize, lost: Option<String>) -> [Wanted; 2] {
    let reconciling = |on: bool, reason, message: String| Wanted::new(RECONCILING, on, reason, message);
    let stalled = |on: bool, reason, message: String| Wanted::new(STALLED, on, reason, message);
    let calm = |reason| {
        (
            reconciling(false, reason, String::new()),
            stalled(false, reason, String::new()),
        )
    };
    let phase = status.rollout.as_ref().map(|r| r.phase);
    if let Some(lost) = lost {
        return [
            reconciling(false, "NotInStore", String::new()),
            stalled(true, "NotInStore", lost),
        ];
    }
    let (a, b) = match (target, phase) {
        (_, Some(RolloutPhase::Progressing | RolloutPhase::Paused | RolloutPhase::RollingBack)) => (
            reconciling(
                true,
                "Rollout",
                rollout(status).trim_start_matches("; ").to_owned(),
            ),
            stalled(false, "Rollout", String::new()),
        ),
        (Target::Unfit { reason, message, .. }, _) => (
            reconciling(false, "Stalled", String::new()),
            stalled(true, known(reason), message.clone()),
        ),
        (Target::Pending(name), _) => (
            reconciling(
                true,
                "Verifying",
                format!("ModelVersion {name} is being verified"),
            ),
            stalled(false, "Verifying", String::new()),
        ),
        (Target::Version(version), _)
            if status
                .serving
                .as_ref()
                .is_some_and(|s| s.digest == version.digest) =>
        {
            calm("Settled")
        }
        (Target::Version(version), Some(RolloutPhase::RolledBack))
            if choose::is_out(&status.failed, &version.digest, status.observed_generation) =>
        {
            let why = format!(
                "{} failed and is not tried again under this spec: name another version, or change what it failed by, or where it \
                 failed by what is over, set spec.rollout.paused to true and back{}",
                version.name,
                rollout(status)
            );
            (
                reconciling(false, "RolledBack", String::new()),
                stalled(true, "RolledBack", why),
            )
        }
        (Target::Version(_), _) if nodes == 0 => calm("NoNodes"),
        (Target::Version(version), _) => (
            reconciling(true, "Rollout", format!("{} is next", version.name)),
            stalled(false, "Rollout", String::new()),
        ),
        (Target::Nothing, _) => calm("NothingChosen"),
    };
    [a, b]
}

/// Whether the newest of the versions that are not older than the one that serves was accepted.
fn artifact(status: &ModelStatus, versions: &[VersionView]) -> Wanted {
    let serving = status.serving.as_ref().and_then(|s| find(versions, &s.digest));
    let newest = versions
        .iter()
        .filter(|v| v.verdict != Verdict::Pending && !is_revoked(v))
        .filter(|v| serving.is_none_or(|s| v.age >= s.age))
        .max_by(|a, b| a.age.cmp(&b.age));
    match newest {
        None => Wanted::unknown(ARTIFACT_VERIFIED, "NoVersion", "no artifact was looked at"),
        Some(version) => match &version.verdict {
            Verdict::Bad { reason, message } => Wanted::new(
                ARTIFACT_VERIFIED,
                false,
                known(reason),
                format!("ModelVersion {} is refused: {message}", version.name),
            ),
            _ => Wanted::new(
                ARTIFACT_VERIFIED,
                true,
                "Verified",
                format!("ModelVersion {} is verified", version.name),
            ),
        },
    }
}

fn is_revoked(version: &VersionView) -> bool {
    matches!(&version.verdict, Verdict::Bad { reason, .. } if reason == "Revoked" || reason == "Deleted")
}

/// Reasons are words of the API, and those of artifacts come from vigia-model.
fn known(reason: &str) -> &'static str {
    crate::modelversion::REASONS
        .iter()
        .find(|known| **known == reason)
        .copied()
        .unwrap_or("Refused")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_serve_is_named_with_what_it_does_instead() {
        let node = |name: &str, state: Option<VersionState>| NodeView {
            name: name.to_owned(),
            reachable: true,
            states: state.map(|state| ("d".to_owned(), state)).into_iter().collect(),
            ..NodeView::default()
        };
        let serving = ServedVersion {
            name: "m-v1".to_owned(),
            digest: "d".to_owned(),
        };
        let version = |stored| VersionView {
            name: serving.name.clone(),
            digest: serving.digest.clone(),
            size_bytes: 1,
            age: (None, 0, String::new()),
            verdict: Verdict::Good,
            stored,
            lacking: vec![],
            silent: false,
        };
        let said = |nodes: &[NodeView], stored| {
            let ready = serves(&ModelStatus::default(), &serving, &[version(stored)], nodes);
            (ready.status, ready.reason, ready.message)
        };
        let (active, fetching) = (Some(VersionState::Active), Some(VersionState::Fetching));
        let all = [node("a", active), node("b", active)];
        assert_eq!(
            said(&all, true),
            (Some(true), "Serving", "m-v1 serves on 2 nodes".to_owned())
        );
        assert_eq!(
            said(&[], true),
            (
                Some(true),
                "Serving",
                "m-v1 serves; no node runs anything that it scores just now".to_owned()
            )
        );
        let some = [node("a", active), node("b", fetching)];
        let (status, reason, message) = said(&some, true);
        assert_eq!((status, reason), (Some(true), "ServingPartly"));
        assert_eq!(message, "m-v1 serves on 1 of 2 nodes, not on b (Fetching)");
        assert!(
            said(&some, false).2.contains("not on b (ArtifactLost: "),
            "{:?}",
            said(&some, false)
        );

        let mut away = node("b", active);
        away.reachable = false;
        let mut refuses = node("c", None);
        refuses
            .refused
            .insert("d".to_owned(), ("SignatureInvalid".to_owned(), String::new()));
        let many = [away, refuses, node("d", None), node("e", None), node("f", None)];
        let (status, reason, message) = said(&many, true);
        assert_eq!((status, reason), (Some(false), "NotServing"));
        assert_eq!(
            message,
            "m-v1 serves on 0 of 5 nodes, not on b (it cannot be reached, or no agent runs on it), c (Refused: \
             SignatureInvalid), d (its agent has not answered yet) and 2 more"
        );
    }
}
