//! Waiting for a cluster, and saying who is to blame when it is in vain.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, ListParams};

use super::{Cluster, node, space};

impl Cluster {
    /// Waits until the API server answers, every node that has power is ready, and DNS is served.
    pub async fn wait_until_ready(&self, deadline: Instant) -> Result<()> {
        self.wait_for_api(deadline).await?;
        let client = self.client().await?;
        let nodes = Api::<NodeObject>::all(client.clone());
        let deployments = Api::<Deployment>::namespaced(client, "kube-system");
        let mut powered = Vec::new();
        for node in &self.nodes {
            if node::has_power(&self.layout, &self.space, node)? {
                powered.push(node.name.as_str());
            }
        }
        self.wait(deadline, "nodes and DNS to be ready", async || {
            let list = nodes.list(&ListParams::default()).await?;
            let missing: Vec<_> = powered
                .iter()
                .filter(|name| !list.items.iter().any(|node| is_ready(node, name)))
                .copied()
                .collect();
            if !missing.is_empty() {
                return Ok(Err(format!("not ready: {}", missing.join(", "))));
            }
            let dns = deployments
                .get_status("coredns")
                .await?
                .status
                .and_then(|status| status.available_replicas);
            Ok(if dns.is_some_and(|available| available > 0) {
                Ok(())
            } else {
                Err("no DNS".to_owned())
            })
        })
        .await
    }

    pub(super) async fn wait_for_api(&self, deadline: Instant) -> Result<()> {
        let client = self.client().await?;
        self.wait(deadline, "the API server", async || Ok(ready(&client).await))
            .await
    }

    /// Waits for a condition, saying at the end what was missing and which daemon is to blame.
    async fn wait(
        &self,
        deadline: Instant,
        what: &str,
        condition: impl AsyncFn() -> kube::Result<Result<(), String>>,
    ) -> Result<()> {
        let before = space::ends(&self.layout);
        loop {
            let missing = match condition().await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(missing)) => missing,
                Err(error) => error.to_string(),
            };
            if let Some(daemon) = space::hopeless(&before, &space::ends(&self.layout)) {
                bail!(
                    "{daemon} keeps ending, while waiting for {what} ({missing})\n{}",
                    self.diagnose()
                );
            }
            if Instant::now() > deadline {
                bail!("gave up waiting for {what}: {missing}\n{}", self.diagnose());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What the cluster's daemons say, for a message to a person.
    pub fn diagnose(&self) -> String {
        space::diagnose(&self.layout)
    }
}

/// Whether the API server says that it is ready, and if not, what it says.
pub(crate) async fn ready(client: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(Duration::from_secs(5), client.request_text(request)).await {
        Ok(Ok(text)) if text == "ok" => Ok(()),
        Ok(Ok(text)) => Err(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in 5 s".to_owned()),
    }
}

fn is_ready(node: &NodeObject, name: &str) -> bool {
    node.metadata.name.as_deref() == Some(name)
        && node
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref())
            .is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
}
