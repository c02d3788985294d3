//! What a node needs to score a window, and nothing else: no Kubernetes, no async, no training.
//!
//! ```text
//! Window ──Schema::vector──▶ [f32; width], Context ──estimators──▶ raw scores ──Calibration──▶ p ──▶ Verdict
//!                                                                                            ▲
//! .apr bytes ──artifact::open (verify, cap, decode, check)──▶ Pipeline ──────────────────────┘
//! ```
//!
//! | who | uses |
//! | --- | --- |
//! | agent | [`window::Window`], [`artifact::open`], [`context::Context::observe`], [`pipeline::Pipeline::score_within`], [`calibration::AlertBudget::threshold`], [`histogram::ScoreHistogram`] |
//! | trainer | [`schema::Schema::vector`], [`deviation::Moments`], [`forest::ForestSpec::merge`], [`pipeline::PipelineSpec::calibrate`], [`artifact::encode`] |
//! | operator | [`artifact::open_unsigned`], [`artifact::sign`], [`pipeline::Pipeline::score_rows`], [`histogram::ScoreHistogram`]'s distances |
//!
//! Everything that scores is allocation-free per vector, total (no panic, whatever the window holds) and the
//! same on every architecture, up to the last bit of its `ln` and `exp`.

pub mod artifact;
pub mod bounded;
pub mod budget;
pub mod calibration;
pub mod context;
pub mod deviation;
pub mod estimators;
pub mod forest;
pub mod histogram;
pub mod keys;
pub mod pipeline;
pub mod schema;
mod strict;
pub mod syscalls;
pub mod window;
