//! The operator: turns profiles and models into node plans, takes in what agents see, trains,
//! signs and rolls out.
//!
//! One folder a kind: `reconcile` holds the effects, `plan` the pure decision with its tests.
//! Reads come from the caches of [`context::Context`], writes go through [`apply::Door`].

pub mod alert;
pub mod apply;
pub mod config;
pub mod context;
pub mod controller;
pub mod events;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod pods;
pub mod run;
pub mod select;
pub mod watch;

pub mod model;
pub mod modelversion;
pub mod nodeplan;
mod telemetry;
pub mod traceprofile;

#[cfg(test)]
mod fixture;

pub mod ingest;
pub mod observed;
pub mod retrainingpolicy;
pub mod signing;
pub mod store;
pub mod tls;
pub mod trainingrun;
