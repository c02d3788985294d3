//! A small multilayer perceptron: an autoencoder, whose error says how unlike training a vector is, or a classifier.
//!
//! Weights lie input by input, so that a layer is a few passes over its outputs, in vector registers and without a
//! sum across them.

use super::front::{LIMIT, Space};
use super::table::squared_distance;
use super::trees::CLASSES;
use super::vector::Scorer;
use super::{Refused, rule};
use crate::bounded;
use crate::pipeline::EstimatorKind;
use crate::schema::MAX_FEATURES;
use serde::{Deserialize, Serialize};

/// Most layers.
pub const MAX_LAYERS: usize = 8;
/// Largest weight: with it and the limit between layers nothing overflows.
pub const MAX_WEIGHT: f32 = 1e4;

/// A layer: `weights` times the input, plus `bias`; all but the last are followed by max(0, ·).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// One after the other, those of each input.
    #[serde(deserialize_with = "bounded::list::<_, _, { MAX_FEATURES * MAX_FEATURES }>")]
    pub weights: Vec<f32>,
    /// One for each output.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    pub bias: Vec<f32>,
}

/// What the outputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Head {
    /// The input again.
    Reconstruction,
    /// Logits of normal, suspicious, malicious.
    Classes,
}

/// A trained network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mlp {
    /// From the input on.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LAYERS>")]
    pub layers: Vec<Layer>,
    /// What comes out.
    pub head: Head,
}

impl Layer {
    /// Sums of the inputs by their weights, added in the order of inputs, and at least `least`.
    fn apply(&self, input: &[f32], least: f32, sums: &mut [f32]) {
        // As many at once as there are registers for, and what is left over in ever fewer.
        let mut done = self.blocks::<16>(input, least, 0, sums);
        done += self.blocks::<8>(input, least, done, sums);
        done += self.blocks::<4>(input, least, done, sums);
        self.blocks::<1>(input, least, done, sums);
    }

    /// As many outputs from `from` on as make whole blocks of `BLOCK`, whose sums stay in registers while the inputs go
    /// by; how many those are.
    fn blocks<const BLOCK: usize>(&self, input: &[f32], least: f32, from: usize, sums: &mut [f32]) -> usize {
        let outputs = sums.len();
        let (Some(sums), Some(bias)) = (sums.get_mut(from..), self.bias.get(from..)) else {
            return 0;
        };
        let (sums, bias) = (sums.as_chunks_mut::<BLOCK>().0, bias.as_chunks::<BLOCK>().0);
        let count = sums.len().min(bias.len());
        for (i, (block, bias)) in sums.iter_mut().zip(bias).enumerate() {
            let mut kept = *bias;
            let at = from + i * BLOCK;
            for (x, weights) in input.iter().zip(self.weights.chunks_exact(outputs)) {
                if let Some(weights) = weights[at..].first_chunk::<BLOCK>() {
                    for lane in 0..BLOCK {
                        kept[lane] += x * weights[lane];
                    }
                }
            }
            for lane in 0..BLOCK {
                block[lane] = kept[lane].clamp(least, LIMIT);
            }
        }
        count * BLOCK
    }
}

impl Mlp {
    /// The outputs, in the first or the second of `spaces`.
    fn forward<'a>(&self, x: &[f32], spaces: &'a mut [Space; 2]) -> &'a [f32] {
        let [mut from, mut to] = spaces.each_mut();
        let mut width = 0;
        let last = self.layers.len().saturating_sub(1);
        for (i, layer) in self.layers.iter().enumerate() {
            let input = if i == 0 { x } else { &from[..width] };
            let least = if i < last { 0.0 } else { -LIMIT };
            let outputs = layer.bias.len().min(to.len());
            layer.apply(input, least, &mut to[..outputs]);
            width = outputs;
            std::mem::swap(&mut from, &mut to);
        }
        &from[..width]
    }

    /// Probability of each class, for [`Head::Classes`].
    pub fn classes(&self, x: &[f32]) -> [f32; CLASSES] {
        let mut spaces = [[0.0; MAX_FEATURES]; 2];
        let mut logits = [0.0; CLASSES];
        let out = self.forward(x, &mut spaces);
        for (logit, out) in logits.iter_mut().zip(out) {
            *logit = *out;
        }
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = logits.map(|logit| (logit - most).exp());
        let sum: f32 = powers.iter().sum();
        powers.map(|power| power / sum)
    }
}

impl Scorer for Mlp {
    fn kind(&self) -> EstimatorKind {
        match self.head {
            Head::Reconstruction => EstimatorKind::Autoencoder,
            Head::Classes => EstimatorKind::MlpClassifier,
        }
    }

    fn least_scale(&self) -> f32 {
        0.01
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        let refuse = |holds, why| rule(holds, self.name(), why);
        refuse(
            (1..=MAX_LAYERS).contains(&self.layers.len()),
            "there are 1 to 8 layers",
        )?;
        let mut inputs = width;
        for layer in &self.layers {
            let outputs = layer.bias.len();
            let fits = (1..=MAX_FEATURES).contains(&outputs) && layer.weights.len() == inputs * outputs;
            refuse(fits, "a layer does not fit the one before")?;
            let within = |values: &[f32]| values.iter().all(|x| x.abs() <= MAX_WEIGHT);
            refuse(
                within(&layer.weights) && within(&layer.bias),
                "a weight is out of range",
            )?;
            inputs = outputs;
        }
        let outputs = match self.head {
            Head::Reconstruction => width,
            Head::Classes => CLASSES,
        };
        refuse(inputs == outputs, "the last layer is of another width")
    }

    /// Mean squared error of the reconstruction, or the probability that the window is not normal.
    fn score(&self, x: &[f32]) -> f32 {
        match self.head {
            Head::Reconstruction => {
                let mut spaces = [[0.0; MAX_FEATURES]; 2];
                let out = self.forward(x, &mut spaces);
                squared_distance(out, x) / out.len() as f32
            }
            Head::Classes => 1.0 - self.classes(x)[0],
        }
    }
}
