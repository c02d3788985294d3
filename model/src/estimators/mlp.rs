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
    /// Sums of the inputs by their weights, added in the order of inputs.
    fn apply(&self, input: &[f32], sums: &mut [f32]) {
        /// Sums that stay in registers while the inputs go by.
        const BLOCK: usize = 16;
        sums.copy_from_slice(&self.bias);
        let outputs = sums.len();
        let (blocks, rest) = sums.as_chunks_mut::<BLOCK>();
        let rows = || input.iter().zip(self.weights.chunks_exact(outputs));
        for (i, block) in blocks.iter_mut().enumerate() {
            let mut kept = *block;
            for (x, weights) in rows() {
                if let Some(weights) = weights[i * BLOCK..].first_chunk::<BLOCK>() {
                    for lane in 0..BLOCK {
                        kept[lane] += x * weights[lane];
                    }
                }
            }
            *block = kept;
        }
        let done = outputs - rest.len();
        for (x, weights) in rows() {
            for (sum, weight) in rest.iter_mut().zip(&weights[done..]) {
                *sum += x * weight;
            }
        }
    }
}

impl Mlp {
    fn forward(&self, x: &[f32], out: &mut Space) -> usize {
        let mut input: Space = [0.0; MAX_FEATURES];
        let mut width = x.len();
        input[..width].copy_from_slice(x);
        for (i, layer) in self.layers.iter().enumerate() {
            let outputs = layer.bias.len();
            let sums = &mut out[..outputs];
            layer.apply(&input[..width], sums);
            let least = if i + 1 < self.layers.len() { 0.0 } else { -LIMIT };
            for sum in sums.iter_mut() {
                *sum = sum.clamp(least, LIMIT);
            }
            input[..outputs].copy_from_slice(sums);
            width = outputs;
        }
        width
    }

    /// Probability of each class, for [`Head::Classes`].
    pub fn classes(&self, x: &[f32]) -> [f32; CLASSES] {
        let mut out = [0.0; MAX_FEATURES];
        self.forward(x, &mut out);
        let logits = [out[0], out[1], out[2]];
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = logits.map(|logit| (logit - most).exp());
        let sum: f32 = powers.iter().sum();
        powers.map(|power| power / sum)
    }
}

impl Scorer for Mlp {
    fn name(&self) -> &'static str {
        match self.head {
            Head::Reconstruction => "autoencoder",
            Head::Classes => "mlp-classifier",
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
                let mut out = [0.0; MAX_FEATURES];
                let width = self.forward(x, &mut out);
                squared_distance(&out[..width], x) / width as f32
            }
            Head::Classes => 1.0 - self.classes(x)[0],
        }
    }
}
