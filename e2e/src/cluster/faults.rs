//! A cluster's nodes as a test handles them: images put in, power cut, cables pulled; and the API server away.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::layout::NodeLayout;
use super::{Cluster, control_plane, node};

impl Cluster {
    /// A node, by its number from 1.
    pub fn node(&self, number: u8) -> Result<Node<'_>> {
        let layout = number
            .checked_sub(1)
            .and_then(|index| self.nodes.get(usize::from(index)));
        let layout = layout.with_context(|| {
            format!(
                "the cluster '{}' has nodes 1 to {}, not {number}",
                self.name(),
                self.nodes.len()
            )
        })?;
        Ok(Node {
            cluster: self,
            layout,
        })
    }

    /// Loads an OCI or Docker archive into every node, also into those without power, once they have it again.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let name = archive
            .file_stem()
            .and_then(|name| name.to_str())
            .context("the archive's name is not UTF-8")?;
        let kept = self.layout.dir().join("images").join(format!("{name}.tar"));
        let new = kept.with_extension("new");
        fs::copy(archive, &new).with_context(|| format!("cannot read {}", archive.display()))?;
        fs::rename(&new, &kept)?;
        std::thread::scope(|scope| {
            let loads: Vec<_> = self
                .nodes
                .iter()
                .map(|layout| scope.spawn(|| self.load_into(layout, &kept)))
                .collect();
            loads.into_iter().try_for_each(|load| {
                load.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
        })
    }

    fn load_into(&self, layout: &NodeLayout, archive: &Path) -> Result<()> {
        let node = Node {
            cluster: self,
            layout,
        };
        // One without power takes it from the cluster's folder when it starts.
        if node.has_power()? {
            node.load_image(archive)
        } else {
            Ok(())
        }
    }

    /// Kills the API server, as if its machine had died.
    pub fn stop_api_server(&self) -> Result<()> {
        self.space.stop_daemon(control_plane::API_SERVER)
    }

    /// Starts the API server that was killed. It answers seconds later.
    pub fn start_api_server(&self) -> Result<()> {
        control_plane::start_api_server(&self.layout, &self.space, &self.parts)
    }
}

/// A node of a cluster that runs.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    layout: &'a NodeLayout,
}

impl Node<'_> {
    /// The node's name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// The cgroup below which the node's pods are: the kubelet's cgroup root.
    pub fn cgroup(&self) -> &str {
        &self.layout.cgroup
    }

    /// Kills everything that runs on the node at once. Its disk stays.
    pub fn power_off(&self) -> Result<()> {
        node::power_off(&self.cluster.layout, &self.cluster.space, self.layout)
    }

    /// Starts the node again.
    pub fn power_on(&self) -> Result<()> {
        ensure!(!self.has_power()?, "{} has power already", self.name());
        node::start(
            &self.cluster.layout,
            &self.cluster.space,
            self.layout,
            &self.cluster.parts,
        )
    }

    /// Whether the node has power.
    pub fn has_power(&self) -> Result<bool> {
        node::has_power(&self.cluster.layout, &self.cluster.space, self.layout)
    }

    /// Takes the node's cable out: it runs on, and reaches nothing.
    pub fn partition(&self) -> Result<()> {
        node::set_link(&self.cluster.space, self.layout, false)
    }

    /// Puts the node's cable back.
    pub fn heal(&self) -> Result<()> {
        node::set_link(&self.cluster.space, self.layout, true)
    }

    /// Loads an archive of images into this node alone.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let output = Command::new(self.cluster.parts.program("ctr")?)
            .args([
                "--address",
                &self.layout.containerd(),
                "--namespace",
                "k8s.io",
                "images",
                "import",
            ])
            .arg(archive)
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "{} did not take the image {}:\n{}",
            self.name(),
            archive.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        // What `node.sh` looks at to find images that were loaded while the node had no power.
        if let Some(name) = archive.file_name() {
            fs::write(self.layout.dir.join("images-seen").join(name), "")?;
        }
        Ok(())
    }
}
