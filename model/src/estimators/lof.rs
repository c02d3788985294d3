//! Local outlier factor (Breunig, Kriegel, Ng and Sander, SIGMOD 2000) of a new vector among remembered ones: how
//! much sparser it lies than its neighbours do. About 1 is usual.

use super::front::LIMIT;
use super::table::{Table, squared_distance};
use super::vector::Scorer;
use super::{Refused, rule};
use crate::bounded;
use crate::pipeline::EstimatorKind;
use serde::{Deserialize, Serialize};

/// Most vectors remembered: all are looked at for each score.
pub const MAX_POINTS: usize = 2_048;
/// Most neighbours.
pub const MAX_NEIGHBOURS: usize = 32;

/// Vectors of training, and how densely each lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Lof {
    /// The vectors.
    pub points: Table,
    /// Distance of each to its last neighbour.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_POINTS>")]
    pub reach: Vec<f32>,
    /// Local reachability density of each.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_POINTS>")]
    pub density: Vec<f32>,
    /// Neighbours that are looked at.
    pub neighbours: u32,
    /// Added to mean distances, so that a density is never infinite.
    pub smoothing: f32,
}

impl Scorer for Lof {
    fn kind(&self) -> EstimatorKind {
        EstimatorKind::Lof
    }

    fn least_scale(&self) -> f32 {
        0.05
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        let refuse = |holds, why| rule(holds, self.name(), why);
        self.points.check(self.name(), width, 2..=MAX_POINTS, LIMIT)?;
        let count = self.points.len();
        let sizes = self.reach.len() == count && self.density.len() == count;
        refuse(sizes, "a reach and a density belong to each vector")?;
        let neighbours = self.neighbours as usize;
        refuse(
            (1..=MAX_NEIGHBOURS.min(count)).contains(&neighbours),
            "there are 1 to 32 neighbours, no more than vectors",
        )?;
        refuse(
            (1e-10..=LIMIT).contains(&self.smoothing),
            "the smoothing is out of range",
        )?;
        let within = |values: &[f32], most: f32| values.iter().all(|x| (0.0..=most).contains(x));
        refuse(
            within(&self.reach, 1e9) && within(&self.density, 1.1e10),
            "a reach or a density is out of range",
        )
    }

    fn score(&self, x: &[f32]) -> f32 {
        // Squared distance and place of the nearest, in ascending order.
        let mut nearest = [(f32::INFINITY, 0usize); MAX_NEIGHBOURS];
        let nearest = &mut nearest[..(self.neighbours as usize).min(MAX_NEIGHBOURS)];
        for (i, point) in self.points.rows().enumerate() {
            let distance = squared_distance(point, x);
            let Some(last) = nearest.last_mut().filter(|last| distance < last.0) else {
                continue;
            };
            *last = (distance, i);
            let mut place = nearest.len() - 1;
            while place > 0 && nearest[place].0 < nearest[place - 1].0 {
                nearest.swap(place, place - 1);
                place -= 1;
            }
        }
        let (mut reach, mut density) = (0.0, 0.0);
        for &(squared, i) in nearest.iter() {
            reach += squared.sqrt().max(self.reach[i]);
            density += self.density[i];
        }
        let count = nearest.len() as f32;
        density / count * (reach / count + self.smoothing)
    }
}
