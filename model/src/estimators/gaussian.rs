//! How unlikely a vector is under a mixture of Gaussians with full covariances: modes whose features move together.

use super::front::LIMIT;
use super::table::dot;
use super::vector::Scorer;
use super::{Refused, rule};
use crate::bounded;
use crate::pipeline::EstimatorKind;
use crate::schema::MAX_FEATURES;
use serde::{Deserialize, Serialize};

/// Most components.
pub const MAX_COMPONENTS: usize = 16;
/// Largest value of a factor: a standard deviation of 1e-4 behind the scaler.
pub const MAX_FACTOR: f32 = 1e4;
/// Most values of a factor.
const TRIANGLE: usize = MAX_FEATURES * (MAX_FEATURES + 1) / 2;

/// One Gaussian.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Component {
    /// Logarithm of its share.
    pub log_weight: f32,
    /// Where it lies.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub mean: Vec<f32>,
    /// L⁻¹, where L Lᵀ is the covariance: the lower triangle, row by row.
    #[serde(deserialize_with = "bounded::list::<_, _, TRIANGLE>")]
    pub factor: Vec<f32>,
}

/// The mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GaussianMixture {
    /// Its components, at least one.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_COMPONENTS>")]
    pub components: Vec<Component>,
}

impl Component {
    /// Logarithm of share times density.
    fn log_density(&self, x: &[f32]) -> f32 {
        const HALF_LN_TAU: f32 = 0.918_938_5;
        let mut centred = [0.0; MAX_FEATURES];
        for (c, (x, mean)) in centred.iter_mut().zip(x.iter().zip(&self.mean)) {
            *c = x - mean;
        }
        let (mut rest, mut squares, mut log_det) = (&self.factor[..], 0.0, 0.0);
        for i in 0..x.len() {
            let (row, after) = rest.split_at(i + 1);
            let along = dot(row, &centred[..=i]);
            squares += along * along;
            log_det += row[i].ln();
            rest = after;
        }
        self.log_weight + log_det - 0.5 * squares - HALF_LN_TAU * x.len() as f32
    }
}

impl GaussianMixture {
    /// The logarithm of the density at `x`; `memberships` gets each component's share of it, where it has room.
    pub fn log_density(&self, x: &[f32], memberships: &mut [f32]) -> f32 {
        let mut logs = [f32::NEG_INFINITY; MAX_COMPONENTS];
        for (log, component) in logs.iter_mut().zip(&self.components) {
            *log = component.log_density(x);
        }
        let most = logs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = logs.iter().map(|log| (log - most).exp()).sum();
        for (share, log) in memberships.iter_mut().zip(logs) {
            *share = (log - most).exp() / sum;
        }
        most + sum.ln()
    }
}

impl Scorer for GaussianMixture {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::GaussianMixture
    }

    fn least_scale(&self) -> f32 {
        1.0
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        let refuse = |holds, why| rule(holds, self.name(), why);
        refuse(
            (1..=MAX_COMPONENTS).contains(&self.components.len()),
            "there are 1 to 16 components",
        )?;
        for c in &self.components {
            let sizes = c.mean.len() == width && c.factor.len() == width * (width + 1) / 2;
            refuse(sizes, "a component is of another width")?;
            let means = c.mean.iter().all(|x| x.abs() <= LIMIT);
            let factors = c.factor.iter().all(|x| x.abs() <= MAX_FACTOR);
            refuse(means && factors, "a value of a component is out of range")?;
            refuse(
                (-1e3..=0.0).contains(&c.log_weight),
                "a component's share is out of range",
            )?;
            // The diagonal's logarithms are added.
            let diagonal = (0..width).all(|i| c.factor[i * (i + 3) / 2] >= 1.0 / LIMIT);
            refuse(diagonal, "a factor's diagonal is out of range")?;
        }
        Ok(())
    }

    /// The negative logarithm of the density, in nats.
    fn score(&self, x: &[f32]) -> f32 {
        -self.log_density(x, &mut [])
    }
}
