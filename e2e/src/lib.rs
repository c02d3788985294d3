//! A real Kubernetes on one machine: a whole cluster with nodes, or an API server alone.
//!
//! Everything else of the project is tested against what this crate starts, so it hides nothing: the
//! programs are the upstream ones, built from their Go modules (`e2e/parts`), each with its own log.

pub mod cluster;

mod api_server;
mod images;
mod parts;
mod pki;

pub use api_server::{ApiServer, Options as ApiServerOptions};
pub use cluster::{Cluster, Config, Node};
pub use images::Image;
pub use parts::Parts;
