//! A whole Kubernetes on one machine: control plane, nodes, DNS, volumes, and the faults that nodes suffer.

mod addons;
pub(crate) mod control_plane;
mod faults;
mod kubectl;
mod layout;
mod node;
mod space;
mod state;
mod wait;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::images::Image;
use crate::parts::Parts;
use crate::pki::Authority;
pub use faults::Node;
use layout::{Layout, MOST_NODES, NodeLayout};
pub(crate) use space::tail;
use space::{Process, Space};
use state::{Claim, Found, State};
pub(crate) use wait::ready;

/// The parts that a cluster is made of.
const PARTS: &[&str] = &["init", "etcd", "kubernetes", "containerd", "cni"];
/// How long a cluster may take to come up: seconds on an idle machine, more where everything is built at once.
const UP: Duration = Duration::from_secs(240);

/// What cluster is wanted.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its name, which tells clusters on one machine apart.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// Whether it stays up when this process ends. One that does not goes even when this process is killed.
    pub stays: bool,
}

impl Config {
    /// A cluster for a test: it has a name of its own and ends with this process.
    pub fn for_test(nodes: u8) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            name: format!("test-{}-{number}", std::process::id()),
            nodes,
            stays: false,
        }
    }
}

/// A cluster that runs.
pub struct Cluster {
    layout: Layout,
    nodes: Vec<NodeLayout>,
    space: Space,
    parts: Parts,
    /// The process whose standard input holds a test's cluster up.
    holder: Option<Child>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("name", &self.layout.name())
            .field("nodes", &self.nodes.len())
            .finish()
    }
}

impl Cluster {
    /// Brings a cluster up and waits until its nodes are ready and DNS answers. One of that name which already
    /// runs is returned as it is.
    pub async fn up(config: Config) -> Result<Self> {
        let layout = Layout::new(&config.name)?;
        ensure!(
            (1..=MOST_NODES).contains(&config.nodes),
            "a cluster has 1 to {MOST_NODES} nodes, not {}",
            config.nodes
        );
        let parts = Parts::find(PARTS)?;
        let state = State {
            nodes: config.nodes,
            port: free_port()?,
            starter: Some(Process::current()?),
            init: None,
        };
        let deadline = Instant::now() + UP;
        loop {
            match state::claim(&layout, &state)? {
                Claim::Running(state) => {
                    ensure!(
                        state.nodes == config.nodes,
                        "the cluster '{}' is up with {} nodes, not {}: take it down first, or give another name",
                        config.name,
                        state.nodes,
                        config.nodes
                    );
                    let cluster = Self::of(layout, state.nodes, state.init.context("no process 1")?, parts);
                    cluster.wait_until_ready(deadline).await?;
                    return Ok(cluster);
                }
                Claim::Starting => {
                    ensure!(
                        Instant::now() < deadline,
                        "another process has been bringing '{}' up",
                        config.name
                    );
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Claim::Ours => break,
            }
        }
        match Self::start(&layout, state, parts, config.stays, deadline).await {
            Ok(cluster) => Ok(cluster),
            Err(error) => {
                let kept = keep_logs(&layout);
                let mut error = error.context(format!("the cluster '{}' did not come up", config.name));
                if let Err(also) = state::clear(&layout) {
                    error = error.context(format!("and could not be cleared away: {also:#}"));
                }
                Err(match kept {
                    Some(path) => error.context(format!("its logs are kept in {}", path.display())),
                    None => error,
                })
            }
        }
    }

    /// The cluster of that name, if it runs.
    pub fn open(name: &str) -> Result<Option<Self>> {
        let layout = Layout::new(name)?;
        let Found::Running(state) = state::find(&layout) else {
            return Ok(None);
        };
        let parts = Parts::find(PARTS)?;
        Ok(Some(Self::of(
            layout,
            state.nodes,
            state.init.context("no process 1")?,
            parts,
        )))
    }

    /// Ends the cluster of that name, in whatever state it is, and removes all that it left.
    pub fn remove(name: &str) -> Result<()> {
        let layout = Layout::new(name)?;
        state::clear(&layout)?;
        let remains = state::remains(&layout);
        ensure!(
            remains.is_empty(),
            "the cluster '{name}' left behind:\n{}",
            remains.join("\n")
        );
        Ok(())
    }

    /// Whatever can still be found of a cluster of that name on this machine. Nothing, after a clean end.
    pub fn remains(name: &str) -> Result<Vec<String>> {
        Ok(state::remains(&Layout::new(name)?))
    }

    fn of(layout: Layout, nodes: u8, init: Process, parts: Parts) -> Self {
        let space = Space::open(&layout, init);
        Self {
            nodes: (1..=nodes).map(|number| layout.node(number)).collect(),
            layout,
            space,
            parts,
            holder: None,
        }
    }

    async fn start(
        layout: &Layout,
        mut state: State,
        parts: Parts,
        stays: bool,
        deadline: Instant,
    ) -> Result<Self> {
        for (file, script) in [
            ("top.sh", include_str!("scripts/top.sh")),
            ("keep.sh", include_str!("scripts/keep.sh")),
            ("node.sh", include_str!("scripts/node.sh")),
            ("node-net.sh", include_str!("scripts/node-net.sh")),
        ] {
            fs::write(layout.path(file), script)?;
        }
        let (space, child) = Space::start(layout, &parts.program("init")?, !stays)?;
        state.init = Some(space.init());
        state.write(layout)?;
        let holder = (!stays).then_some(child);
        let nodes: Vec<_> = (1..=state.nodes).map(|number| layout.node(number)).collect();
        let cluster = Self {
            layout: layout.clone(),
            nodes,
            space,
            parts,
            holder,
        };

        let authority = Authority::new(&layout.dir().join("pki"))?;
        control_plane::start(layout, &cluster.space, &cluster.parts, &authority, state.port)?;
        for image in [
            (node::PAUSE, "/pause", cluster.parts.program("init")?),
            (addons::COREDNS, "/coredns", cluster.parts.program("coredns")?),
        ] {
            let (name, inside, outside) = image;
            let file = format!("images/{}.tar", inside.trim_start_matches('/'));
            Image {
                name,
                programs: &[(inside, &outside)],
                entrypoint: &[inside],
            }
            .write(&layout.dir().join(file))?;
        }
        for node in &cluster.nodes {
            node::write_files(layout, node, &cluster.parts, &authority)?;
            node::start(layout, &cluster.space, node, &cluster.parts)?;
        }
        fs::copy(layout.path("pki/admin.kubeconfig"), cluster.kubeconfig())?;
        cluster.wait_for_api(deadline).await?;
        cluster
            .apply(&addons::manifests(&cluster.nodes), deadline)
            .await?;
        cluster.wait_until_ready(deadline).await?;
        state.starter = None;
        state.write(layout)?;
        Ok(cluster)
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        self.layout.name()
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.dir().join("kubeconfig")
    }

    /// A client with an administrator's rights.
    pub async fn client(&self) -> Result<kube::Client> {
        client(&self.kubeconfig()).await
    }

    /// Number of nodes.
    pub fn size(&self) -> u8 {
        self.nodes.len().try_into().unwrap_or(u8::MAX)
    }

    /// Ends the cluster and checks that nothing of it is left.
    pub fn down(mut self) -> Result<()> {
        self.end();
        Self::remove(self.layout.name())
    }

    async fn apply(&self, manifests: &str, deadline: Instant) -> Result<()> {
        let path = self.layout.dir().join("addons.yaml");
        fs::write(&path, manifests)?;
        loop {
            let output = self
                .kubectl()?
                .args(["apply", "--server-side", "--filename"])
                .arg(&path)
                .output()?;
            if output.status.success() {
                return Ok(());
            }
            // The API server is ready a moment before all that it makes itself is there.
            ensure!(
                Instant::now() < deadline,
                "the cluster's own objects were refused:\n{}",
                String::from_utf8_lossy(&output.stderr)
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn end(&mut self) {
        if let Some(mut holder) = self.holder.take() {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.holder.is_some() {
            self.end();
            if let Err(error) = Self::remove(self.layout.name()) {
                eprintln!("cluster: {error:#}");
            }
        }
    }
}

/// A client from a kubeconfig.
pub(crate) async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let config = kube::config::Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await?;
    Ok(kube::Client::try_from(config)?)
}

/// A port of this machine that nothing listens on.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Moves the logs of a cluster that did not come up to where they outlive it.
fn keep_logs(layout: &Layout) -> Option<PathBuf> {
    let kept = std::env::temp_dir().join(format!("vigia-cluster-{}-logs", layout.name()));
    let _ = fs::remove_dir_all(&kept);
    fs::create_dir_all(&kept).ok()?;
    for entry in fs::read_dir(layout.dir().join("logs")).ok()?.flatten() {
        fs::copy(entry.path(), kept.join(entry.file_name())).ok()?;
    }
    Some(kept)
}
