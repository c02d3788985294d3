//! What a node's agent is made of, from its plan to its reports.
//!
//! [`engine`] does the work of a moment and decides nothing by itself: what to trace is [`targets`]' decision, what
//! serves is [`models::shelf`]'s, what is an alert is [`score`]'s, what is kept within a budget is
//! [`governor`]'s, and these are pure. [`run`] joins it to the world.

pub mod aside;
pub mod beside;
pub mod cluster;
pub mod config;
pub mod desired;
pub mod duty;
pub mod engine;
pub mod governor;
pub mod grace;
pub mod http;
pub mod lives;
pub mod meter;
pub mod metrics;
pub mod models;
pub mod obtain;
pub mod report;
pub mod run;
pub mod score;
pub mod state;
pub mod status;
pub mod targets;
mod told;
pub mod trace;
pub mod withheld;
