//! The agent's parts on the running kernel, in both kinds of cgroup hierarchy, and against an operator over TLS.
//!
//! Needs root (or CAP_BPF + CAP_PERFMON and a writable cgroupfs). Of the two kinds of hierarchy, those that this
//! machine has are tried; one it must have.

mod api;
mod arches;
mod engine;
mod fake;
mod ground;
mod model;
mod operator;
mod planned;
mod probe;
mod process;
mod score;
mod world;
