//! How many standard deviations the oddest feature lies from its mean.

use super::Refused;
use super::vector::Scorer;
use crate::pipeline::EstimatorKind;
use serde::{Deserialize, Serialize};

/// The scaler in front knows everything; nothing is left to learn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ZScore;

impl Scorer for ZScore {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::ZScore
    }

    fn least_scale(&self) -> f32 {
        0.3
    }

    fn check(&self, _width: usize) -> Result<(), Refused> {
        Ok(())
    }

    fn score(&self, x: &[f32]) -> f32 {
        x.iter().fold(0.0, |most, x| most.max(x.abs()))
    }
}
