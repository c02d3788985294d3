//! `vigia-cluster`: brings a real Kubernetes up on this machine, breaks its nodes, takes it down.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use vigia_e2e::{Cluster, Config};

/// A real Kubernetes on this machine: etcd, the control plane, and nodes with containerd, kubelet and kube-proxy.
///
/// It needs root, because each node is a tree of namespaces. Nothing of it is routed outside the machine.
#[derive(Parser)]
#[command(name = "vigia-cluster", version)]
struct Cli {
    /// Which cluster; any number can run beside each other.
    #[arg(long, global = true, env = "VIGIA_CLUSTER", default_value = "vigia")]
    name: String,
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Bring the cluster up; does nothing when it is up. Prints the KUBECONFIG to use.
    Up {
        /// How many nodes.
        #[arg(long, env = "NODES", default_value_t = 3)]
        nodes: u8,
        /// Keep this command running, and end the cluster when it ends, however it ends.
        #[arg(long)]
        hold: bool,
    },
    /// End the cluster and check that nothing of it is left. Also ends one that came up half-way.
    Down,
    /// Say whether the cluster is up and which of its nodes have power.
    Status,
    /// Print the path of an administrator's kubeconfig.
    Kubeconfig,
    /// Load OCI or Docker archives into every node, for pods with imagePullPolicy Never or IfNotPresent.
    LoadImage {
        /// The archives, such as `buildah push IMAGE oci-archive:FILE` writes.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Cut nodes' power: all that runs on them is killed at once, their disks stay.
    PowerOff(Which),
    /// Give nodes power again.
    PowerOn(Which),
    /// Take nodes' cables out: they run on and reach nothing.
    Partition(Which),
    /// Put nodes' cables back.
    Heal(Which),
    /// Kill the API server.
    StopApiServer,
    /// Start the API server that was killed, and wait until it is ready.
    StartApiServer,
}

#[derive(clap::Args)]
struct Which {
    /// Numbers of nodes, from 1.
    #[arg(required = true)]
    nodes: Vec<u8>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vigia-cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let open = || {
        Cluster::open(&cli.name)?
            .with_context(|| format!("the cluster '{}' is not up: make cluster-up", cli.name))
    };
    match cli.command {
        Action::Up { nodes, hold } => {
            let started = Instant::now();
            eprintln!("cluster: bringing up '{}' with {nodes} nodes", cli.name);
            let config = Config {
                name: cli.name.clone(),
                nodes,
                stays: !hold,
            };
            let cluster = tokio::select! {
                cluster = Cluster::up(config) => cluster?,
                _ = tokio::signal::ctrl_c() => {
                    Cluster::remove(&cli.name)?;
                    anyhow::bail!("interrupted; nothing is left of '{}'", cli.name);
                }
            };
            eprintln!(
                "cluster: {nodes} nodes are ready after {:.1} s",
                started.elapsed().as_secs_f64()
            );
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
            if hold {
                tokio::signal::ctrl_c().await?;
                cluster.down()?;
            }
        }
        Action::Down => {
            let remains = Cluster::remains(&cli.name)?;
            Cluster::remove(&cli.name)?;
            let what = if remains.is_empty() {
                "was not up"
            } else {
                "is down and left nothing behind"
            };
            eprintln!("cluster: '{}' {what}", cli.name);
        }
        Action::Status => {
            let Some(cluster) = Cluster::open(&cli.name)? else {
                println!("the cluster '{}' is not up", cli.name);
                return Ok(ExitCode::from(3));
            };
            for number in 1..=cluster.size() {
                let node = cluster.node(number)?;
                println!(
                    "{}: {}",
                    node.name(),
                    if node.has_power()? {
                        "has power"
                    } else {
                        "no power"
                    }
                );
            }
            cluster
                .wait_until_ready(Instant::now() + Duration::from_secs(5))
                .await?;
            println!("ready; export KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Action::Kubeconfig => println!("{}", open()?.kubeconfig().display()),
        Action::LoadImage { archives } => {
            let cluster = open()?;
            for archive in archives {
                cluster.load_image(&archive)?;
                eprintln!("cluster: every node has {}", archive.display());
            }
        }
        Action::PowerOff(which) => each(&open()?, &which, |node| node.power_off())?,
        Action::PowerOn(which) => each(&open()?, &which, |node| node.power_on())?,
        Action::Partition(which) => each(&open()?, &which, |node| node.partition())?,
        Action::Heal(which) => each(&open()?, &which, |node| node.heal())?,
        Action::StopApiServer => open()?.stop_api_server()?,
        Action::StartApiServer => {
            let cluster = open()?;
            cluster.start_api_server()?;
            cluster
                .wait_until_ready(Instant::now() + Duration::from_secs(60))
                .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn each(cluster: &Cluster, which: &Which, what: impl Fn(vigia_e2e::Node<'_>) -> Result<()>) -> Result<()> {
    which
        .nodes
        .iter()
        .try_for_each(|number| what(cluster.node(*number)?))
}
