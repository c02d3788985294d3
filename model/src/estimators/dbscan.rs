//! Distance to the nearest core point of the clusters that DBSCAN found (Ester, Kriegel, Sander and Xu, KDD 1996),
//! in units of its radius: up to 1 is within a cluster.

use super::front::LIMIT;
use super::table::{Table, squared_distance};
use super::vector::Scorer;
use super::{Refused, rule};
use crate::pipeline::EstimatorKind;
use serde::{Deserialize, Serialize};

/// Most core points kept: all are looked at for each score.
pub const MAX_CORE: usize = 512;

/// The core points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dbscan {
    /// A row a point.
    pub core: Table,
    /// Radius of a neighbourhood, widened by how far the core points that are kept leave one uncovered.
    pub eps: f32,
}

impl Scorer for Dbscan {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::Dbscan
    }

    fn least_scale(&self) -> f32 {
        0.05
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        let radius = (1.0 / LIMIT..=LIMIT).contains(&self.eps);
        rule(radius, self.name(), "the radius is out of range")?;
        self.core.check(self.name(), width, 1..=MAX_CORE, LIMIT)
    }

    fn score(&self, x: &[f32]) -> f32 {
        let nearest = self.core.rows().map(|point| squared_distance(point, x));
        nearest.fold(f32::MAX, f32::min).sqrt() / self.eps
    }
}
