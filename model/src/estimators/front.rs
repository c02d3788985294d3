//! What stands before a vector estimator: standard scaling, and where wanted a projection onto principal
//! components.
//!
//! Everything behind it lives in units of standard deviations and within ±[`LIMIT`], so that no sum of squares
//! overflows and no distance is NaN, whatever finite vector comes.

use super::table::{Table, dot};
use super::{Refused, rule};
use crate::bounded;
use crate::schema::MAX_FEATURES;
use serde::{Deserialize, Serialize};

/// Largest absolute value behind the front: what lies further says no more.
pub const LIMIT: f32 = 1e6;

const NAME: &str = "scaler";

/// A standard scaler, and principal components after it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Front {
    /// Mean of each feature in training.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub mean: Vec<f32>,
    /// Standard deviation of each feature in training, above 0.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub scale: Vec<f32>,
    /// Unit vectors over the scaled features, a row a component.
    pub components: Option<Table>,
}

/// Space for a vector behind the front.
pub(super) type Space = [f32; MAX_FEATURES];

impl Front {
    /// Features that it takes.
    pub const fn width(&self) -> usize {
        self.mean.len()
    }

    /// Values that it gives.
    pub fn outputs(&self) -> usize {
        self.components.as_ref().map_or(self.width(), Table::len)
    }

    /// Checks every parameter's range, for fronts from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), Refused> {
        let width = self.width();
        rule(
            (1..=MAX_FEATURES).contains(&width) && self.scale.len() == width,
            NAME,
            "means and scales are of different or impossible widths",
        )?;
        let means = self.mean.iter().all(|m| m.abs() <= LIMIT);
        rule(means, NAME, "a mean is out of range")?;
        let scales = self.scale.iter().all(|s| (1.0 / LIMIT..=LIMIT).contains(s));
        rule(scales, NAME, "a scale is out of range")?;
        match &self.components {
            Some(table) => table.check("pca", width, 1..=width, 1.001),
            None => Ok(()),
        }
    }

    /// The scaled and projected vector, and its width.
    pub(super) fn apply(&self, vector: &[f32], out: &mut Space) -> usize {
        let scaled = vector.iter().zip(&self.mean).zip(&self.scale);
        for (out, ((x, mean), scale)) in out.iter_mut().zip(scaled) {
            *out = ((x - mean) / scale).clamp(-LIMIT, LIMIT);
        }
        let width = self.width().min(MAX_FEATURES);
        let Some(components) = &self.components else {
            return width;
        };
        let scaled = *out;
        for (out, component) in out.iter_mut().zip(components.rows()) {
            *out = dot(component, &scaled[..width]).clamp(-LIMIT, LIMIT);
        }
        components.len().min(MAX_FEATURES)
    }

    /// A whole table's rows behind the front.
    pub fn table(&self, rows: &Table) -> Table {
        let mut space = [0.0; MAX_FEATURES];
        let mut values = Vec::with_capacity(rows.len() * self.outputs());
        for row in rows.rows() {
            let width = self.apply(row, &mut space);
            values.extend_from_slice(&space[..width]);
        }
        Table::new(self.outputs(), values)
    }
}
