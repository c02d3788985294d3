//! The Kubernetes API of Vigía, `vigia.dev/v1alpha1`: one file a kind, and what they share.
//!
//! Everything a person may write is validated here first, as CEL that the API server runs at
//! `kubectl apply`; every rule's message says what to write instead. A field that nothing acts
//! on is not in the schema.

#![expect(
    clippy::duplicated_attributes,
    reason = "each printcolumn of kube's derive has a type and a path"
)]

pub mod conditions;
#[cfg(feature = "generate")]
pub mod generate;
mod shared;

mod model;
mod modelversion;
mod nodeplan;
mod retrainingpolicy;
mod traceprofile;
mod trainingrun;

pub use model::*;
pub use modelversion::*;
pub use nodeplan::*;
pub use retrainingpolicy::*;
pub use shared::*;
pub use traceprofile::*;
pub use trainingrun::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every kind.
pub const GROUP: &str = "vigia.dev";
/// The one served version.
pub const VERSION: &str = "v1alpha1";

/// Every CustomResourceDefinition, in the order in which a reader meets the kinds.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        TraceProfile::crd(),
        Model::crd(),
        ModelVersion::crd(),
        RetrainingPolicy::crd(),
        TrainingRun::crd(),
        NodePlan::crd(),
    ]
}
