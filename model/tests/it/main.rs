//! The crate as its users see it, with the oracles that its fast parts are held against.

mod artifact;
mod calibration;
mod forest;
mod pipeline;
mod support;
mod workload;
