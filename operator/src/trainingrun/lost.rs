//! Training pods that went down with their node.
//!
//! A Job replaces a pod only when it is gone; the pod of a node without power is never reported gone, until a
//! person or the node itself says so. A training pod holds nothing that two of it could harm (rank 0 takes each
//! part once, the operator the first output), so here it is taken away by force.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::DeleteParams;
use kube::runtime::reflector::ObjectRef;

use super::RUN_UID;
use crate::context::Context;
use crate::controller::Error;

/// A node that is not heard of for so long is taken for lost.
const LOST: SignedDuration = SignedDuration::from_secs(30);

/// Whether a node has not been Ready for long. Pure.
fn is_lost(node: &Node, now: Timestamp) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| {
        let since = c.last_transition_time.as_ref().map(|t| t.0);
        c.type_ == "Ready" && c.status != "True" && since.is_some_and(|at| now.duration_since(at) >= LOST)
    })
}

/// Deletes the run's pods that are on lost nodes, at once.
///
/// # Errors
/// The API server.
pub(super) async fn remove_pods(uid: &str, context: &Context, now: Timestamp) -> Result<(), Error> {
    let namespace = &context.config.namespace;
    for pod in context.caches.pods.in_namespace(namespace) {
        if pod.ended || pod.labels.get(RUN_UID).is_none_or(|of| of != uid) || pod.node.is_empty() {
            continue;
        }
        let node = context.caches.nodes.get(&ObjectRef::new(&pod.node));
        // A node that is deleted is lost too.
        if node.is_none_or(|node| is_lost(&node, now)) {
            tracing::warn!(target: "audit", pod = pod.name, node = pod.node, "a training pod of a lost node is removed");
            let api = Api::<Pod>::namespaced(context.client.clone(), namespace);
            let now = DeleteParams::default().grace_period(0);
            match api.delete(&pod.name, &now).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(status: &str, since: i64) -> Node {
        let at = Timestamp::from_second(since).expect("a time");
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": at.to_string()}]}}))
        .expect("a node")
    }

    #[test]
    fn a_node_is_lost_when_it_was_not_ready_for_long() {
        let now = Timestamp::from_second(100).expect("a time");
        assert!(is_lost(&node("Unknown", 70), now));
        assert!(is_lost(&node("False", 10), now));
        assert!(!is_lost(&node("Unknown", 71), now));
        assert!(!is_lost(&node("True", 10), now));
        assert!(!is_lost(&Node::default(), now));
    }
}
