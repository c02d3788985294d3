//! What a person would type: `kubectl` with a cluster's kubeconfig.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Cluster;

impl Cluster {
    /// The command `kubectl` with the cluster's kubeconfig.
    pub fn kubectl(&self) -> Result<Command> {
        let mut command = Command::new(self.parts.program("kubectl")?);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .stdin(Stdio::null());
        Ok(command)
    }

    /// What `kubectl` answers, run in this folder; an error with its words where it fails.
    pub fn ask_kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl()?.args(arguments).output()?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// `kubectl apply` of a text of manifests.
    pub fn apply_manifests(&self, manifests: &str) -> Result<()> {
        let mut child = self
            .kubectl()?
            .args(["apply", "--filename", "-"])
            .stdin(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(manifests.as_bytes())?;
        ensure!(child.wait()?.success(), "refused:\n{manifests}");
        Ok(())
    }
}
