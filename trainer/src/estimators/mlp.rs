//! Trains small dense networks; `vigia-model` scores them.
//!
//! Own code, and no library, because of one promise: the same rows and seed make the same bytes on whichever machine a
//! Job's pod is started again. A library's matrix products pick instructions by the processor, and with them the order
//! of their sums. Here every sum is taken in one order, in `f64` and on one thread; these networks are three small
//! matrices, and their training takes a second.
//!
//! Gradients by back-propagation (Rumelhart, Hinton and Williams, Nature 323, 1986), steps by Adam (Kingma and Ba, ICLR
//! 2015), first weights as Glorot and Bengio (AISTATS 2010) draw them.

use vigia_model::estimators::mlp::{Head, Layer, MAX_WEIGHT, Mlp};
use vigia_model::estimators::table::Table;
use vigia_model::estimators::trees::CLASSES;

use super::EstimatorError;
use crate::forest::Draw;

/// Rows of one step.
const BATCH: usize = 128;
/// Steps, and the learning rates of the first and of the last: it falls in a straight line.
const STEPS: usize = 400;
const RATES: (f64, f64) = (2e-2, 1e-3);
/// Adam's decay of the mean and of the square of gradients, and what keeps it from dividing by nothing.
const DECAY: (f64, f64) = (0.9, 0.999);
const LEAST: f64 = 1e-8;
/// Widest hidden layer, and the narrowest beside an autoencoder's waist.
const HIDDEN: usize = 32;
const NARROWEST: usize = 8;

/// An autoencoder with three hidden layers: half as wide as the rows, a quarter, and half again; but not so narrow that
/// units which rest for all rows leave nothing through.
///
/// # Errors
/// No rows, or a training that does not converge.
pub fn autoencoder(rows: &Table, seed: u64) -> Result<Mlp, EstimatorError> {
    let width = rows.width();
    let hidden = (width / 2).clamp(NARROWEST, HIDDEN);
    let waist = (width / 4).clamp(if width < 6 { 2 } else { 3 }, HIDDEN / 2);
    let target = Target::Reconstruction;
    train(&[width, hidden, waist, hidden, width], rows, &target, seed)
}

/// A classifier with one hidden layer.
///
/// # Errors
/// No rows, not one class below [`CLASSES`] for each, or a training that does not converge.
pub fn classifier(rows: &Table, classes: &[u8], seed: u64) -> Result<Mlp, EstimatorError> {
    if classes.len() != rows.len() || classes.iter().any(|&c| usize::from(c) >= CLASSES) {
        return Err(EstimatorError::Shape("mlp-classifier"));
    }
    let hidden = rows.width().clamp(NARROWEST, HIDDEN);
    let target = Target::Classes(classes);
    train(&[rows.width(), hidden, CLASSES], rows, &target, seed)
}

/// What the outputs are compared with.
enum Target<'a> {
    /// The row itself, by the mean of squared differences.
    Reconstruction,
    /// The row's class, by cross-entropy.
    Classes(&'a [u8]),
}

impl Target<'_> {
    /// The loss of one row, and its derivative by each output, written over the outputs.
    fn compare(&self, index: usize, row: &[f32], outputs: &mut [f64]) -> f64 {
        match self {
            Self::Reconstruction => {
                let width = outputs.len() as f64;
                let mut sum = 0.0;
                for (output, &x) in outputs.iter_mut().zip(row) {
                    let error = *output - f64::from(x);
                    sum += error * error;
                    *output = 2.0 * error / width;
                }
                sum / width
            }
            Self::Classes(classes) => {
                let class = usize::from(classes[index]);
                let most = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let own = outputs[class] - most;
                let sum: f64 = outputs.iter().map(|output| (output - most).exp()).sum();
                for (i, output) in outputs.iter_mut().enumerate() {
                    let share = (*output - most).exp() / sum;
                    *output = share - f64::from(u8::from(i == class));
                }
                sum.ln() - own
            }
        }
    }

    const fn head(&self) -> Head {
        match self {
            Self::Reconstruction => Head::Reconstruction,
            Self::Classes(_) => Head::Classes,
        }
    }
}

/// Dense layers with max(0, ·) between them. All parameters lie in one list, layer after layer: the weights of each
/// input, then the biases.
struct Network {
    widths: Vec<usize>,
    parameters: Vec<f64>,
}

/// What one row makes in a network: the values of every layer, the input among them, and a derivative for each.
struct Pass {
    values: Vec<Vec<f64>>,
    deltas: Vec<Vec<f64>>,
}

impl Network {
    fn new(widths: &[usize], draw: &mut Draw) -> Self {
        let mut parameters = Vec::new();
        for pair in widths.windows(2) {
            let bound = (6.0 / (pair[0] + pair[1]) as f64).sqrt();
            parameters.extend((0..pair[0] * pair[1]).map(|_| bound * (2.0 * draw.unit() - 1.0)));
            parameters.resize(parameters.len() + pair[1], 0.0);
        }
        Self {
            widths: widths.to_vec(),
            parameters,
        }
    }

    fn pass(&self) -> Pass {
        let zeros: Vec<Vec<f64>> = self.widths.iter().map(|&width| vec![0.0; width]).collect();
        Pass {
            values: zeros.clone(),
            deltas: zeros,
        }
    }

    /// Where each layer's weights begin, and how many inputs and outputs it has.
    fn layers(&self) -> impl DoubleEndedIterator<Item = (usize, usize, usize)> + ExactSizeIterator {
        let mut at = 0;
        let starts: Vec<_> = self
            .widths
            .windows(2)
            .map(|pair| {
                let start = at;
                at += (pair[0] + 1) * pair[1];
                (start, pair[0], pair[1])
            })
            .collect();
        starts.into_iter()
    }

    fn forward(&self, row: &[f32], pass: &mut Pass) {
        for (value, &x) in pass.values[0].iter_mut().zip(row) {
            *value = f64::from(x);
        }
        let last = self.widths.len() - 2;
        for (i, (start, inputs, outputs)) in self.layers().enumerate() {
            let (before, after) = pass.values.split_at_mut(i + 1);
            let (input, sums) = (&before[i], &mut after[0]);
            let (weights, bias) = self.parameters[start..].split_at(inputs * outputs);
            sums.copy_from_slice(&bias[..outputs]);
            for (&x, weights) in input.iter().zip(weights.chunks_exact(outputs)) {
                // Most features are of calls that are never made, and more than half of a hidden layer rests.
                if x != 0.0 {
                    add(sums, x, weights);
                }
            }
            if i < last {
                sums.iter_mut().for_each(|sum| *sum = sum.max(0.0));
            }
        }
    }

    /// Adds the gradient of one row's loss to `gradient`; the loss.
    fn backward(
        &self,
        target: &Target<'_>,
        (index, row): (usize, &[f32]),
        pass: &mut Pass,
        gradient: &mut [f64],
    ) -> f64 {
        self.forward(row, pass);
        let top = self.widths.len() - 1;
        pass.deltas[top].copy_from_slice(&pass.values[top]);
        let loss = target.compare(index, row, &mut pass.deltas[top]);
        for (i, (start, inputs, outputs)) in self.layers().enumerate().rev() {
            let (before, after) = pass.deltas.split_at_mut(i + 1);
            let (below, above) = (&mut before[i], &after[0]);
            let weights = &self.parameters[start..start + inputs * outputs];
            let (by_weight, by_bias) = gradient[start..].split_at_mut(inputs * outputs);
            add(&mut by_bias[..outputs], 1.0, above);
            for (j, &x) in pass.values[i].iter().enumerate() {
                let places = j * outputs..(j + 1) * outputs;
                // A value of 0 moves no weight; and behind a resting unit nothing moves the loss.
                below[j] = 0.0;
                if x != 0.0 {
                    add(&mut by_weight[places.clone()], x, above);
                    if i > 0 {
                        below[j] = weights[places].iter().zip(above).map(|(w, d)| w * d).sum();
                    }
                }
            }
        }
        loss
    }

    fn into_layers(self) -> Result<Vec<Layer>, EstimatorError> {
        if self.parameters.iter().any(|x| !x.is_finite()) {
            return Err(EstimatorError::Singular("network"));
        }
        let bound = f64::from(MAX_WEIGHT);
        let single = |values: &[f64]| values.iter().map(|x| x.clamp(-bound, bound) as f32).collect();
        let layers = self.layers().map(|(start, inputs, outputs)| {
            let (weights, bias) = self.parameters[start..].split_at(inputs * outputs);
            Layer {
                weights: single(weights),
                bias: single(&bias[..outputs]),
            }
        });
        Ok(layers.collect())
    }
}

/// Adds `by` times `values` to `sums`.
fn add(sums: &mut [f64], by: f64, values: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += by * value;
    }
}

fn train(widths: &[usize], rows: &Table, target: &Target<'_>, seed: u64) -> Result<Mlp, EstimatorError> {
    if rows.is_empty() {
        return Err(EstimatorError::TooFew {
            estimator: "network",
            least: 1,
            unit: "windows",
            got: 0,
        });
    }
    let mut draw = Draw::new(seed, 1 << 48);
    let mut network = Network::new(widths, &mut draw);
    let mut pass = network.pass();
    let count = network.parameters.len();
    let (mut gradient, mut mean, mut square) = (vec![0.0; count], vec![0.0; count], vec![0.0; count]);
    let (mut mean_left, mut square_left) = (1.0, 1.0);
    for step in 0..STEPS {
        gradient.fill(0.0);
        for _ in 0..BATCH {
            let index = draw.below(rows.len());
            network.backward(target, (index, rows.row(index)), &mut pass, &mut gradient);
        }
        mean_left *= DECAY.0;
        square_left *= DECAY.1;
        let rate = RATES.0 + step as f64 / STEPS as f64 * (RATES.1 - RATES.0);
        let moments = mean.iter_mut().zip(&mut square);
        for ((parameter, sum), (mean, square)) in network.parameters.iter_mut().zip(&gradient).zip(moments) {
            let slope = sum / BATCH as f64;
            *mean += (1.0 - DECAY.0) * (slope - *mean);
            *square += (1.0 - DECAY.1) * (slope * slope - *square);
            let spread = (*square / (1.0 - square_left)).sqrt() + LEAST;
            *parameter -= rate * (*mean / (1.0 - mean_left)) / spread;
        }
    }
    Ok(Mlp {
        layers: network.into_layers()?,
        head: target.head(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loss(network: &Network, target: &Target<'_>, row: &[f32]) -> f64 {
        let mut gradient = vec![0.0; network.parameters.len()];
        network.backward(target, (0, row), &mut network.pass(), &mut gradient)
    }

    /// Whether a hidden unit is so near its bend that a small step leads over it.
    fn at_a_bend(network: &Network, row: &[f32]) -> bool {
        let mut pass = network.pass();
        network.forward(row, &mut pass);
        network.layers().enumerate().any(|(i, (start, inputs, outputs))| {
            let (weights, bias) = network.parameters[start..].split_at(inputs * outputs);
            (0..outputs).any(|k| {
                let sum: f64 = (0..inputs)
                    .map(|j| pass.values[i][j] * weights[j * outputs + k])
                    .sum();
                (sum + bias[k]).abs() < 1e-3
            })
        })
    }

    proptest! {
        #[test]
        fn gradients_are_those_that_small_steps_measure(
            seed: u64,
            row in prop::collection::vec(-3f32..3.0, 4),
            hidden in 1usize..6,
            class in prop::option::of(0u8..3),
        ) {
            let classes = class.map(|class| [class]);
            let target = classes.as_ref().map_or(Target::Reconstruction, |c| Target::Classes(c));
            let outputs = if class.is_some() { CLASSES } else { 4 };
            let mut draw = Draw::new(seed, 0);
            let mut network = Network::new(&[4, hidden, hidden + 1, outputs], &mut draw);
            network.parameters.iter_mut().for_each(|p| *p += 0.2 * (draw.unit() - 0.5));
            prop_assume!(!at_a_bend(&network, &row));
            let mut gradient = vec![0.0; network.parameters.len()];
            network.backward(&target, (0, &row), &mut network.pass(), &mut gradient);
            const STEP: f64 = 1e-5;
            for (i, &slope) in gradient.iter().enumerate() {
                let at = network.parameters[i];
                network.parameters[i] = at + STEP;
                let above = loss(&network, &target, &row);
                network.parameters[i] = at - STEP;
                let below = loss(&network, &target, &row);
                network.parameters[i] = at;
                let measured = (above - below) / (2.0 * STEP);
                prop_assert!((slope - measured).abs() <= 1e-5 * (1.0 + measured.abs()), "{}: {} {}", i, slope, measured);
            }
        }
    }

    #[test]
    fn classes_that_do_not_fit_the_rows_are_refused() {
        let rows = Table::new(2, vec![0.0; 6]);
        for classes in [&[0u8, 1][..], &[0, 1, 3]] {
            assert_eq!(
                classifier(&rows, classes, 1),
                Err(EstimatorError::Shape("mlp-classifier"))
            );
        }
        assert!(autoencoder(&Table::new(2, vec![]), 1).is_err());
    }
}
