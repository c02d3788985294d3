//! What the operator is told at its start: flags, each with an environment variable of the same
//! meaning. Parsed once; nothing reads the environment later.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration};
use serde::Deserialize;

/// Flags of `vigia-operator`.
#[derive(Clone, Debug, Parser)]
#[command(name = "vigia-operator", version, about = "The operator of Vigía")]
pub struct Config {
    /// Namespace of the operator: its Secrets, its Lease and the training Jobs.
    #[arg(long, env = "VIGIA_NAMESPACE", default_value = "vigia-system")]
    pub namespace: String,

    /// Name of this pod; identity in the Lease and on Events.
    #[arg(long, env = "VIGIA_POD_NAME", default_value = "vigia-operator")]
    pub pod_name: String,

    /// Folder for artifacts, samples and runs; a mounted volume.
    #[arg(long, env = "VIGIA_STORE", default_value = "/var/lib/vigia")]
    pub store: PathBuf,

    /// Address of the gRPC server for agents and trainers (TLS).
    #[arg(long, env = "VIGIA_GRPC_LISTEN", default_value = "0.0.0.0:8443")]
    pub grpc_listen: SocketAddr,

    /// Address of /metrics, /healthz and /readyz.
    #[arg(long, env = "VIGIA_HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,

    /// Name of the Service of the gRPC server, in the operator's namespace: the server
    /// certificate is for it.
    #[arg(long, env = "VIGIA_SERVICE", default_value = "vigia-operator")]
    pub service: String,

    /// Image of the training pods.
    #[arg(
        long,
        env = "VIGIA_TRAINER_IMAGE",
        default_value = "localhost/vigia/trainer:dev"
    )]
    pub trainer_image: String,

    /// Where training pods run and what they may use, as JSON: imagePullPolicy, resources, nodeSelector,
    /// tolerations, priorityClassName, each as in a pod.
    #[arg(long, env = "VIGIA_TRAINER_POD", default_value = "{}", value_parser = trainer_pod)]
    pub trainer_pod: TrainerPod,

    /// Service account of the training pods, in the operator's namespace.
    #[arg(long, env = "VIGIA_TRAINER_SERVICE_ACCOUNT", default_value = "vigia-trainer")]
    pub trainer_service_account: String,

    /// Service account of the agents, in the operator's namespace.
    #[arg(long, env = "VIGIA_AGENT_SERVICE_ACCOUNT", default_value = "vigia-agent")]
    pub agent_service_account: String,

    /// How long samples and summaries are kept, in hours.
    #[arg(long, env = "VIGIA_RETENTION_HOURS", default_value_t = 24 * 90, value_parser = clap::value_parser!(u32).range(1..))]
    pub retention_hours: u32,

    /// Bytes of samples above which the oldest are removed; 0 for 70 % of the volume.
    #[arg(long, env = "VIGIA_STORE_MAX_BYTES", default_value_t = 0)]
    pub store_max_bytes: u64,

    /// Trainings at the same time, of all namespaces.
    #[arg(long, env = "VIGIA_MAX_TRAININGS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_trainings: u16,

    /// Bytes of the volume that samples leave free, for artifacts and training.
    #[arg(long, env = "VIGIA_STORE_RESERVE_BYTES", default_value_t = 64 << 20)]
    pub store_reserve_bytes: u64,

    /// Duration of the leader's Lease in seconds; another replica takes over after it.
    #[arg(long, env = "VIGIA_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=120))]
    pub lease_seconds: u64,

    /// Reconciles of one kind at the same time.
    #[arg(long, env = "VIGIA_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,

    /// How long triggers of one object are gathered before it is reconciled, in milliseconds.
    #[arg(long, env = "VIGIA_DEBOUNCE_MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub debounce_ms: u64,

    /// Address of an OpenTelemetry collector for alerts and sums of windows (OTLP over gRPC), such as
    /// http://otel-collector:4317; empty: none.
    #[arg(long, env = "VIGIA_OTLP_ENDPOINT", default_value = "")]
    pub otlp_endpoint: String,

    /// Certificate of the CA that signed an https:// collector's, as PEM.
    #[arg(long, env = "VIGIA_OTLP_CA")]
    pub otlp_ca: Option<PathBuf>,

    /// Write logs as JSON lines.
    #[arg(long, env = "VIGIA_LOG_JSON", default_value_t = false)]
    pub log_json: bool,

    /// Filter of log lines, in the syntax of tracing-subscriber's EnvFilter.
    #[arg(long, env = "VIGIA_LOG", default_value = "info,kube_lease_manager=warn")]
    pub log: String,
}

/// What of a training pod is the cluster's owner to say.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TrainerPod {
    /// When the image is pulled; IfNotPresent where it is not said.
    pub image_pull_policy: Option<String>,
    /// What a worker asks for and may use.
    pub resources: Option<ResourceRequirements>,
    /// Which nodes.
    pub node_selector: BTreeMap<String, String>,
    /// Which taints, beside nodes that are gone for half a minute.
    pub tolerations: Vec<Toleration>,
    /// How important.
    pub priority_class_name: Option<String>,
}

fn trainer_pod(text: &str) -> Result<TrainerPod, serde_json::Error> {
    serde_json::from_str(text)
}

impl Config {
    /// See [`Config::retention_hours`].
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_hours) * 3600)
    }

    /// How much the store keeps.
    pub fn store_options(&self) -> crate::store::Options {
        crate::store::Options {
            max_age: self.retention(),
            max_bytes: self.store_max_bytes,
            reserve: self.store_reserve_bytes,
        }
    }

    /// See [`Config::debounce_ms`].
    pub fn debounce(&self) -> Duration {
        Duration::from_millis(self.debounce_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_well_formed_and_all_have_defaults() {
        Config::command().debug_assert();
        let config = Config::try_parse_from(["vigia-operator"]).expect("defaults suffice");
        assert_eq!(config.grpc_listen.port(), 8443);
        assert!(Config::try_parse_from(["vigia-operator", "--lease-seconds", "1"]).is_err());
    }
}
