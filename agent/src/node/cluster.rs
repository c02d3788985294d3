//! The agent's one object: its NodePlan. It reads the spec and writes the status, by one door.

use futures::{StreamExt as _, pin_mut};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Client, ResourceExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, sleep};
use vigia_crds::{NodePlan, NodePlanSpec, NodePlanStatus};

/// Who the agent is in managed fields.
pub const FIELD_MANAGER: &str = "vigia-agent";
/// Between two writes, and after a failed one, at least.
const PAUSE: Duration = Duration::from_secs(1);
/// After failed ones, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A plan as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Generation of the spec.
    pub generation: i64,
    /// What to do; nothing, where there is no plan.
    pub spec: NodePlanSpec,
    /// What was written about it.
    pub status: NodePlanStatus,
}

/// Watches the plan until the receiver is gone. While the API server is away nothing is sent.
pub async fn watch_plan(client: Client, node: String, to: mpsc::Sender<Option<Seen>>) {
    let stream = watch_object(Api::<NodePlan>::all(client), &node).default_backoff();
    pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let seen = match event {
            Ok(Some(plan)) => Some(Seen {
                generation: plan.metadata.generation.unwrap_or(0),
                status: plan.status.unwrap_or_default(),
                spec: plan.spec,
            }),
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "cannot watch the NodePlan; what was last seen holds");
                continue;
            }
        };
        if to.send(seen).await.is_err() {
            return;
        }
    }
}

/// What should be written, and what the API server was last seen to have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statuses {
    /// The status of the facts; none where there is no plan to write it to.
    pub wanted: Option<NodePlanStatus>,
    /// What the API server has.
    pub observed: NodePlanStatus,
}

/// Writes the status whenever it is not what the API server has, until the sender is gone.
pub async fn write_status(client: Client, node: String, mut from: watch::Receiver<Statuses>) {
    let api = Api::<NodePlan>::all(client);
    let mut pause = PAUSE;
    let mut written: Option<(NodePlanStatus, NodePlanStatus)> = None;
    while from.changed().await.is_ok() {
        loop {
            let now = from.borrow_and_update().clone();
            let Some(wanted) = now.wanted else { break };
            // The second comparison is for a server that gives back something else than it was given.
            let settled = wanted == now.observed
                || written
                    .as_ref()
                    .is_some_and(|(gave, got)| *gave == wanted && *got == now.observed);
            if settled {
                break;
            }
            match apply(&api, &node, &wanted).await {
                Ok(plan) => {
                    pause = PAUSE;
                    written = Some((wanted, plan.status.unwrap_or_default()));
                    sleep(pause).await;
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot write the NodePlan's status; it is tried again");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

async fn apply(api: &Api<NodePlan>, node: &str, status: &NodePlanStatus) -> kube::Result<NodePlan> {
    let mut plan = NodePlan::new(node, NodePlanSpec::default());
    plan.status = Some(status.clone());
    let mut body = serde_json::to_value(&plan).map_err(kube::Error::SerdeError)?;
    // The spec is the operator's.
    if let Some(object) = body.as_object_mut() {
        object.remove("spec");
    }
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&plan.name_any(), &params, &Patch::Apply(&body))
        .await
}
