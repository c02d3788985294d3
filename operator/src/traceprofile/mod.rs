//! TraceProfile: what is traced for it at present, and what is wrong with it.

pub mod alerts;
pub mod budget;
pub mod capture;
pub mod observed;
pub mod plan;
mod reconcile;

pub use observed::told_here;
pub use reconcile::{Shares, run};
