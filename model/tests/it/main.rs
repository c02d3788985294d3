//! The crate as its users see it, with the oracles that its fast parts are held against.

mod artifact;
mod calibration;
mod deviation;
mod forest;
mod histogram;
mod keys;
mod pipeline;
mod quantized;
mod schema;
mod sealed;
mod support;
mod workload;
