//! TraceProfile: what is traced for it at present, and what is wrong with it.

pub mod alerts;
pub mod capture;
pub mod plan;
mod reconcile;

pub use reconcile::{Shares, run};
