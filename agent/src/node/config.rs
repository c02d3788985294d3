//! The command line, parsed once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::report::client::OperatorConfig;

/// Counts and scores the system calls of this node's containers, as its NodePlan says.
#[derive(Debug, Clone, Parser)]
#[command(name = "vigia-agent", version, about)]
pub struct Config {
    /// Name of the node, which is that of its NodePlan.
    #[arg(long, env = "VIGIA_NODE_NAME")]
    pub node_name: String,
    /// Address of the operator: https://host:port.
    #[arg(long = "operator", env = "VIGIA_OPERATOR")]
    pub operator_url: String,
    /// PEM of the CA that signs the operator's certificate; read for each connection.
    #[arg(long, default_value = "/etc/vigia/ca/ca.crt")]
    pub operator_ca: PathBuf,
    /// Service-account token of audience "vigia"; read for each call.
    #[arg(long, default_value = "/var/run/secrets/vigia/token")]
    pub token: PathBuf,
    /// Folder of the agent's own, for models and the last plan.
    #[arg(long, default_value = "/var/lib/vigia")]
    pub state_dir: PathBuf,
    /// Where cgroups are mounted.
    #[arg(long, default_value = "/sys/fs/cgroup")]
    pub cgroup_root: PathBuf,
    /// Where metrics and health are served.
    #[arg(long, default_value = "0.0.0.0:9464")]
    pub listen: SocketAddr,
    /// File of Ed25519 public keys (PEM, or base64 by line): where it is given, a NodePlan can name no others.
    #[arg(long)]
    pub pinned_keys: Option<PathBuf>,
    /// Pairs of container and system call that can be counted at once; calls beyond are counted as lost.
    #[arg(long, default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub tallies: u32,
    /// What is logged: a level, or directives such as "info,vigia_agent=debug".
    #[arg(long, env = "VIGIA_LOG", default_value = "info")]
    pub log: String,
    /// Seconds between reports where nothing is urgent.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub report_every: u64,
}

impl Config {
    /// Where the operator is.
    #[must_use]
    pub fn operator(&self) -> OperatorConfig {
        OperatorConfig {
            url: self.operator_url.clone(),
            ca_file: self.operator_ca.clone(),
            token_file: self.token.clone(),
        }
    }

    /// Time between reports.
    #[must_use]
    pub fn report_interval(&self) -> Duration {
        Duration::from_secs(self.report_every)
    }
}
