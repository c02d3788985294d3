//! Rows of one width, one after the other: what vector estimators are fitted to, and keep points in.

use super::{Refused, rule};
use crate::bounded;
use serde::{Deserialize, Serialize};

/// Most values of a table from outside. Estimators allow far fewer; samples that trainers hand over are the largest.
pub const MAX_VALUES: usize = 1 << 22;

/// A row-major table of values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    width: u32,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_VALUES>")]
    values: Vec<f32>,
}

impl Table {
    /// A table of `values`; what is left over after the last whole row is cut off.
    pub fn new(width: usize, mut values: Vec<f32>) -> Self {
        values.truncate(values.len() / width.max(1) * width);
        Self {
            width: width as u32,
            values,
        }
    }

    /// Values in a row.
    pub const fn width(&self) -> usize {
        self.width as usize
    }

    /// Number of rows.
    pub const fn len(&self) -> usize {
        match self.width {
            0 => 0,
            width => self.values.len() / width as usize,
        }
    }

    /// True without rows.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows in their order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.width().max(1))
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width()..(index + 1) * self.width()]
    }

    /// All values.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Refuses a table from outside that does not hold whole rows of `width` values within ±`limit`, as many
    /// as `rows` allows.
    pub(super) fn check(
        &self,
        estimator: &'static str,
        width: usize,
        rows: std::ops::RangeInclusive<usize>,
        limit: f32,
    ) -> Result<(), Refused> {
        let whole = width > 0 && self.width() == width && self.values.len().is_multiple_of(width);
        rule(whole, estimator, "a table holds rows of another width")?;
        rule(
            rows.contains(&self.len()),
            estimator,
            "a table holds too few or too many rows",
        )?;
        let within = self.values.iter().all(|x| x.abs() <= limit);
        rule(within, estimator, "a value of a table is out of range")
    }
}

/// Sum of products. The order of additions is fixed, so that it is the same bits everywhere; eight sums side by
/// side let it run in vector registers.
#[inline]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    reduce(a, b, |x, y| x * y)
}

/// Squared Euclidean distance; as [`dot`].
#[inline]
pub fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    reduce(a, b, |x, y| (x - y) * (x - y))
}

#[inline]
fn reduce(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(&x, &y)| term(x, y)).sum();
    sums.iter().sum::<f32>() + rest
}
