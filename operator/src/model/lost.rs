//! Versions whose bytes the store has lost. Nodes that hold them keep them and go on; others cannot get them, so what
//! waits for such a node waits for ever, and must say so.

use vigia_crds::conditions::Wanted;
use vigia_crds::{ModelStatus, ServedVersion};

use super::assign::is_forward;
use super::nodes::NodeView;
use super::version::{VersionView, find};

/// Whether the bytes of what a Model uses are in the operator's store.
pub const ARTIFACTS_STORED: &str = "ArtifactsStored";

/// Names nodes that can be reached and do not hold a version that the store has lost.
pub fn mark(versions: &mut [VersionView], nodes: &[NodeView]) {
    for version in versions.iter_mut().filter(|v| !v.stored) {
        let lacks = |n: &&NodeView| n.reachable && !n.holds(&version.digest);
        version.lacking = nodes.iter().filter(lacks).map(|n| n.name.clone()).collect();
    }
}

/// What is to be said of a version that some nodes cannot get.
pub fn sentence(version: &VersionView) -> Option<String> {
    let shown = version
        .lacking
        .iter()
        .take(3)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    let more = match version.lacking.len() {
        0 => return None,
        1..=3 => String::new(),
        n => format!(" and {} more", n - 3),
    };
    Some(format!(
        "the operator's store has lost the artifact of {}, and {shown}{more} cannot get it: {NEXT_STEP}",
        version.name
    ))
}

const NEXT_STEP: &str =
    "create another ModelVersion of the same digest with the bytes in spec.source, or start a TrainingRun";

/// The condition: what is lost of what serves, served, or is rolled out.
pub fn condition(status: &ModelStatus, versions: &[VersionView]) -> Wanted {
    let rolled = status.rollout.as_ref().filter(|r| is_forward(r.phase));
    let used = [
        ("serves", status.serving.as_ref()),
        ("is rolled out", rolled.map(|r| &r.version)),
        ("is kept to go back to", status.previous.as_ref()),
    ];
    let views = |(does, served): (&'static str, Option<&ServedVersion>)| {
        Some((does, find(versions, &served?.digest)?)).filter(|(_, v)| !v.stored)
    };
    let lost: Vec<String> = used
        .into_iter()
        .filter_map(views)
        .map(|(does, version)| format!("{}, which {does}", version.name))
        .collect();
    if lost.is_empty() {
        return Wanted::new(
            ARTIFACTS_STORED,
            true,
            "Stored",
            "the operator's store has lost none of the artifacts in use",
        );
    }
    let message = format!(
        "the operator's store has lost the artifact of {}: nodes that hold it go on, others cannot get it. To bring it \
         back, {NEXT_STEP}",
        lost.join(", and of ")
    );
    Wanted::new(ARTIFACTS_STORED, false, "ArtifactLost", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::version::Verdict;
    use vigia_crds::VersionState;

    fn version(name: &str, stored: bool) -> VersionView {
        VersionView {
            name: name.to_owned(),
            digest: format!("d-{name}"),
            size_bytes: 1,
            age: (None, 0, name.to_owned()),
            verdict: Verdict::Good,
            stored,
            lacking: vec![],
            silent: false,
        }
    }

    fn node(name: &str, reachable: bool, holds: &[&str]) -> NodeView {
        let states = holds.iter().map(|v| (format!("d-{v}"), VersionState::Prefetched));
        NodeView {
            name: name.to_owned(),
            reachable,
            states: states.collect(),
            ..NodeView::default()
        }
    }

    #[test]
    fn who_cannot_get_what_is_lost_is_named() {
        let mut versions = [version("v1", false), version("v2", true), version("v3", false)];
        let nodes = [
            node("a", true, &["v1", "v3"]),
            node("b", true, &["v3"]),
            node("c", false, &["v3"]),
        ];
        mark(&mut versions, &nodes);
        assert_eq!(versions[0].lacking, ["b"]);
        let said = sentence(&versions[0]).expect("a sentence");
        assert!(said.contains("artifact of v1, and b cannot get it"), "{said}");
        assert!(versions[1].lacking.is_empty() && versions[2].lacking.is_empty());
        assert_eq!(sentence(&versions[2]), None);
    }

    #[test]
    fn what_is_lost_of_what_is_used_is_said() {
        let served = |name: &str| {
            Some(ServedVersion {
                name: name.to_owned(),
                digest: format!("d-{name}"),
            })
        };
        let status = ModelStatus {
            serving: served("v2"),
            previous: served("v1"),
            ..ModelStatus::default()
        };
        let said = |v1, v2| condition(&status, &[version("v1", v1), version("v2", v2)]);
        assert_eq!(said(true, true).status, Some(true));
        let lost = said(false, true);
        assert_eq!((lost.status, lost.reason), (Some(false), "ArtifactLost"));
        assert!(
            lost.message.contains("v1, which is kept to go back to: nodes"),
            "{}",
            lost.message
        );
        assert!(said(false, false).message.contains("v2, which serves, and of v1"));
    }
}
