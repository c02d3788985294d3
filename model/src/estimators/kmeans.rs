//! Distance to the nearest of the k modes that a workload has.

use super::Refused;
use super::front::LIMIT;
use super::table::{Table, squared_distance};
use super::vector::Scorer;
use crate::pipeline::EstimatorKind;
use serde::{Deserialize, Serialize};

/// Most clusters.
pub const MAX_CLUSTERS: usize = 32;

/// Centres of the clusters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KMeans {
    /// A row a centre.
    pub centres: Table,
}

impl KMeans {
    /// The nearest centre and the squared distance to it.
    pub fn nearest(&self, x: &[f32]) -> (usize, f32) {
        let mut best = (0, f32::INFINITY);
        for (i, centre) in self.centres.rows().enumerate() {
            let distance = squared_distance(centre, x);
            if distance < best.1 {
                best = (i, distance);
            }
        }
        best
    }
}

impl Scorer for KMeans {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::KMeans
    }

    fn least_scale(&self) -> f32 {
        0.3
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        self.centres.check(self.name(), width, 1..=MAX_CLUSTERS, LIMIT)
    }

    fn score(&self, x: &[f32]) -> f32 {
        self.nearest(x).1.sqrt()
    }
}
