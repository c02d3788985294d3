//! Names, addresses and paths of a cluster: everything that follows from its name and a node's number.
//!
//! Every cluster uses the same addresses, because each lives in network namespaces of its own that nothing
//! routes out of. What clusters share is the machine's cgroups and disk, so those carry the cluster's name.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

/// Where clusters live while they are up. Not below `/tmp` or `/run`, which are a node's own inside a node.
pub const CLUSTERS: &str = "/var/lib/vigia-clusters";
/// The control plane's address on the bridge that joins the nodes.
pub const CONTROL_PLANE: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// What pods' addresses come from; each node has a /24 of it.
pub const POD_CIDR: &str = "10.201.0.0/16";
/// What Services' addresses come from.
pub const SERVICE_CIDR: &str = "10.202.0.0/24";
/// The Service `kubernetes`, the first of that range.
pub const KUBERNETES_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 1);
/// The Service of the cluster's DNS.
pub const DNS_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 202, 0, 10);
/// Nodes a cluster can have: each runs a kubelet and a containerd of some 150 MiB.
pub const MOST_NODES: u8 = 20;

/// The control plane's network namespace.
pub const NETWORK: &str = "control-plane";
/// How long a node's processes may take to die.
pub const DEATH: Duration = Duration::from_secs(30);
/// Names the cluster in the environment of everything that runs in it.
pub const NAME_VARIABLE: &str = "VIGIA_CLUSTER_NAME";

/// A cluster's paths.
#[derive(Debug, Clone)]
pub struct Layout {
    name: String,
    dir: PathBuf,
}

impl Layout {
    /// The layout of the cluster of that name.
    pub fn new(name: &str) -> Result<Self> {
        ensure!(
            !name.is_empty()
                && name.len() <= 32
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !name.starts_with('-'),
            "a cluster's name has 1 to 32 lower-case letters, digits and dashes; '{name}' does not"
        );
        Ok(Self {
            name: name.to_owned(),
            dir: Path::new(CLUSTERS).join(name),
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster's folder, which holds everything it writes.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in the cluster's folder.
    pub fn path(&self, inside: &str) -> String {
        self.dir.join(inside).display().to_string()
    }

    /// The log of a daemon.
    pub fn log(&self, daemon: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{daemon}.log"))
    }

    /// Where the daemon's keeper notes each time that the daemon ended.
    pub fn ends(&self, daemon: &str) -> PathBuf {
        self.dir.join("run").join(format!("{daemon}.ends"))
    }

    /// The cgroup below which the cluster's pods are, in every hierarchy.
    pub fn cgroup(&self) -> String {
        format!("/vigia/{}", self.name)
    }

    /// A node's place in the cluster; nodes are numbered from 1.
    pub fn node(&self, number: u8) -> NodeLayout {
        let name = format!("node-{number}");
        NodeLayout {
            cgroup: format!("{}/{name}", self.cgroup()),
            dir: self.dir.join(&name),
            name,
            number,
        }
    }
}

/// A node's name, addresses and paths.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    /// The node's name in Kubernetes, of its network namespace, and of the bridge's port that leads to it.
    pub name: String,
    /// The node's number, from 1.
    pub number: u8,
    /// The node's folder.
    pub dir: PathBuf,
    /// The kubelet's cgroup root.
    pub cgroup: String,
}

impl NodeLayout {
    /// The node's address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, 0, 10 + self.number)
    }

    /// What the node's pods get their addresses from.
    pub fn pod_cidr(&self) -> String {
        format!("10.201.{}.0/24", self.number)
    }

    /// A path in the node's folder.
    pub fn path(&self, inside: &str) -> String {
        self.dir.join(inside).display().to_string()
    }

    /// containerd's socket, which the machine can reach too.
    pub fn containerd(&self) -> String {
        self.path("containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_not_be_a_folder_or_a_cgroup_are_refused() {
        for name in ["", "-x", "a/b", "..", "UPPER", "a b", &"x".repeat(33)] {
            assert!(Layout::new(name).is_err(), "{name}");
        }
        assert!(Layout::new("demo-1").is_ok());
    }

    #[test]
    fn nodes_do_not_share_addresses_cgroups_or_folders() {
        let layout = Layout::new("a").unwrap();
        let (one, last) = (layout.node(1), layout.node(MOST_NODES));
        assert_eq!(one.address(), Ipv4Addr::new(10, 200, 0, 11));
        assert_eq!(last.pod_cidr(), "10.201.20.0/24");
        assert_ne!(one.dir, last.dir);
        assert_eq!(one.cgroup, "/vigia/a/node-1");
    }

    #[test]
    fn a_socket_s_path_fits_into_its_address() {
        let layout = Layout::new(&"x".repeat(32)).unwrap();
        assert!(layout.node(MOST_NODES).containerd().len() < 108);
    }
}
