//! Effects of NodePlan: one for each node, owned by it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{Resource, ResourceExt};
use vigia_crds::{NodePlan, NodePlanSpec};

use super::claim::Claimants;
use super::plan::{Elsewhere, Wish, plan};
use crate::context::Context;
use crate::controller::{self, Error};
use crate::model::assign::Assignment;

/// Runs until the context's shutdown.
pub async fn run(context: Arc<Context>) {
    let (nodes, trigger) = (context.caches.nodes.clone(), context.triggers.nodes.clone());
    controller::run("nodeplan", context, nodes, trigger, reconcile).await;
}

async fn reconcile(node: Arc<Node>, context: Arc<Context>) -> Result<Option<Duration>, Error> {
    let name = node.name_any();
    if node.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let pods = context.caches.pods.on_node(&name);
    let mut claimants: BTreeMap<String, Claimants> = BTreeMap::new();
    for pod in &pods {
        if !claimants.contains_key(&pod.namespace) {
            let profiles = context.caches.profiles_in(&pod.namespace);
            claimants.insert(pod.namespace.clone(), Claimants::new(profiles));
        }
    }
    let current = context.caches.plan(&name);
    let here = Here {
        context: &context,
        node: &name,
    };
    let spec = plan(&pods, &claimants, current.as_deref().map(|p| &p.spec), &here);
    // A node that was never of interest has no plan, and its agent waits for one. One that no
    // longer is keeps an empty one, so that its agent detaches.
    if current.is_none() && spec == NodePlanSpec::default() {
        return Ok(None);
    }
    let mut desired = NodePlan::new(&name, spec);
    desired.metadata.owner_references = Some(node.owner_ref(&()).into_iter().collect());
    context.door.object(current.as_deref(), &desired).await?;
    Ok(None)
}

struct Here<'a> {
    context: &'a Context,
    node: &'a str,
}

impl Elsewhere for Here<'_> {
    fn containers_of(&self, namespace: &str, profile: &str) -> Option<u32> {
        self.context.shares.get(namespace, profile)
    }

    fn model(&self, namespace: &str, name: &str) -> Wish {
        let is_there = self.context.caches.model(namespace, name).is_some();
        let assigned = self.context.assignments.get(namespace, name);
        wish(is_there, assigned.as_deref(), self.node)
    }
}

/// What a Model wants of a node. A reconcile that was under way when its Model went may have put an assignment
/// after it: what is not there wants nothing.
fn wish(is_there: bool, assigned: Option<&Assignment>, node: &str) -> Wish {
    match assigned {
        _ if !is_there => Wish::Absent,
        Some(assignment) => Wish::Planned(assignment.of_node(node)),
        None => Wish::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::model;
    use serde_json::json;
    use vigia_crds::ModelStatus;

    #[test]
    fn a_model_that_is_gone_wants_nothing_whatever_was_assigned() {
        let model = model("shop", "m", json!({"task": "Anomaly"}));
        let assigned = Assignment::of(&model, &ModelStatus::default(), &[], &[], "key");
        assert!(matches!(wish(true, Some(&assigned), "n"), Wish::Planned(_)));
        assert_eq!(wish(true, None, "n"), Wish::Undecided);
        assert_eq!(wish(false, Some(&assigned), "n"), Wish::Absent);
        assert_eq!(wish(false, None, "n"), Wish::Absent);
    }
}
