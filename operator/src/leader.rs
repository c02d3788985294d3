//! Leader election by a Lease: one operator decides at a time.
//!
//! Who loses the Lease ends its process; Kubernetes starts it again as a follower. That is simpler
//! than unwinding, and safe: every write of the operator is idempotent.

use std::time::Duration;

use anyhow::Context as _;
use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;

/// Name of the Lease.
const LEASE: &str = "vigia-operator";

/// The Lease, held or waited for.
pub struct Leadership {
    held: watch::Receiver<bool>,
    manager: JoinHandle<Result<LeaseManager, kube_lease_manager::LeaseManagerError>>,
}

impl Leadership {
    /// Begins to wait for the Lease.
    ///
    /// # Errors
    /// The Lease cannot be read or made.
    pub async fn seek(client: Client, config: &Config) -> anyhow::Result<Self> {
        // A pod that is started again keeps its name, and with it the Lease.
        let manager = LeaseManagerBuilder::new(client, LEASE)
            .with_namespace(&config.namespace)
            .with_identity(&config.pod_name)
            .with_field_manager(crate::apply::FIELD_MANAGER)
            .with_duration(config.lease_seconds)
            .with_grace((config.lease_seconds / 3).max(1))
            .build()
            .await
            .context("Lease vigia-operator")?;
        let (held, manager) = manager.watch().await;
        Ok(Self { held, manager })
    }

    /// Returns once the Lease is held.
    ///
    /// # Errors
    /// The election ended.
    pub async fn acquired(&mut self) -> anyhow::Result<()> {
        self.held
            .wait_for(|held| *held)
            .await
            .context("leader election ended")?;
        Ok(())
    }

    /// Returns once the Lease is lost.
    pub async fn lost(&mut self) {
        // An error means that the election ended, and with it the right to decide.
        let _ = self.held.wait_for(|held| !*held).await;
    }

    /// Gives the Lease back, so that another replica need not wait for its end.
    pub async fn release(self) {
        drop(self.held);
        match tokio::time::timeout(Duration::from_secs(5), self.manager).await {
            Ok(Ok(Ok(_))) => {}
            other => tracing::warn!(
                ?other,
                "Lease not given back; another replica takes over when it ends"
            ),
        }
    }
}
