//! How far a vector lies from the plane that principal components of training span: features that usually move
//! together and now do not (Jackson and Mudholkar, Technometrics 21, 1979).

use super::Refused;
use super::front::Space;
use super::table::{Table, dot};
use super::vector::Scorer;
use crate::pipeline::EstimatorKind;
use crate::schema::MAX_FEATURES;
use serde::{Deserialize, Serialize};

/// The plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Orthogonal unit vectors, a row a component; none where training saw one single window.
    pub components: Table,
}

impl Scorer for Reconstruction {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::Pca
    }

    fn least_scale(&self) -> f32 {
        0.3
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        self.components.check(self.name(), width, 0..=width, 1.001)
    }

    fn score(&self, x: &[f32]) -> f32 {
        rest(&self.components, x)
    }
}

/// Euclidean norm of what orthogonal unit vectors do not explain.
pub(super) fn rest(components: &Table, x: &[f32]) -> f32 {
    let mut rest: Space = [0.0; MAX_FEATURES];
    let rest = &mut rest[..x.len()];
    rest.copy_from_slice(x);
    for component in components.rows() {
        let along = dot(component, x);
        for (rest, c) in rest.iter_mut().zip(component) {
            *rest -= along * c;
        }
    }
    dot(rest, rest).sqrt()
}
