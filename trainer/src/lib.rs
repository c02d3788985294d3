//! Training: windows in, an unsigned `.apr` artifact out, on one machine or in rounds of many workers.

pub mod data;
pub mod estimators;
pub mod fit;
pub mod forest;
pub mod parquet;
#[cfg(feature = "rounds")]
pub mod rounds;
pub mod validate;
