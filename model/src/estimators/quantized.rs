//! Networks whose weights are stored in few bits, in GGML's blocks of 32: Q8_0 (a half-precision scale and a byte a
//! weight, 8.5 bits) and Q4_0 (half a byte, 4.5 bits).
//!
//! It is the artifact that gets smaller: what scores are the weights that the blocks stand for, in single precision, so
//! that a score costs what it did before. Reading and storing again changes nothing: the values that a block stands for
//! make the same block.

use super::mlp::{Head, Layer, MAX_LAYERS, Mlp};
use super::vector::Scorer;
use super::{Refused, rule};
use crate::bounded;
use crate::pipeline::EstimatorKind;
use crate::schema::MAX_FEATURES;
use apr_format::{f16_to_f32, f32_to_f16};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;
use std::str::FromStr;

/// Weights in a block.
pub const BLOCK: usize = 32;
/// Bytes of a block's scale.
const SCALE: usize = 2;

/// How many bits a weight is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// A byte.
    Q8_0,
    /// Half a byte.
    Q4_0,
}

/// The text names no precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write q8_0 or q4_0")]
pub struct UnknownPrecision;

impl FromStr for Precision {
    type Err = UnknownPrecision;

    fn from_str(text: &str) -> Result<Self, UnknownPrecision> {
        match text {
            "q8_0" => Ok(Self::Q8_0),
            "q4_0" => Ok(Self::Q4_0),
            _ => Err(UnknownPrecision),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        })
    }
}

impl Precision {
    /// Bytes of a block.
    pub const fn block(self) -> usize {
        match self {
            Self::Q8_0 => SCALE + BLOCK,
            Self::Q4_0 => SCALE + BLOCK / 2,
        }
    }

    /// Values as blocks; the last is filled up with zeros.
    pub fn store(self, values: &[f32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(values.len().div_ceil(BLOCK) * self.block());
        for values in values.chunks(BLOCK) {
            let mut block = [0.0; BLOCK];
            block[..values.len()].copy_from_slice(values);
            match self {
                Self::Q8_0 => store_q8(&block, &mut bytes),
                Self::Q4_0 => store_q4(&block, &mut bytes),
            }
        }
        bytes
    }

    /// The values that blocks stand for.
    pub fn values(self, bytes: &[u8]) -> Vec<f32> {
        let mut values = Vec::with_capacity(bytes.len() / self.block() * BLOCK);
        for block in bytes.chunks_exact(self.block()) {
            let scale = f16_to_f32(u16::from_le_bytes([block[0], block[1]]));
            let block = &block[SCALE..];
            match self {
                Self::Q8_0 => values.extend(block.iter().map(|b| f32::from(b.cast_signed()) * scale)),
                Self::Q4_0 => {
                    let value = |nibble: u8| (f32::from(nibble) - 8.0) * scale;
                    values.extend(block.iter().map(|b| value(b & 15)));
                    values.extend(block.iter().map(|b| value(b >> 4)));
                }
            }
        }
        values
    }
}

/// One over a scale; nothing where there is nothing to scale.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

fn store_q8(block: &[f32; BLOCK], out: &mut Vec<u8>) {
    let most = block.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = most / 127.0;
    out.extend(f32_to_f16(scale).to_le_bytes());
    let by = inverse(scale);
    out.extend(block.iter().map(|x| ((x * by).round() as i8).cast_unsigned()));
}

fn store_q4(block: &[f32; BLOCK], out: &mut Vec<u8>) {
    // The value that lies farthest from zero becomes -8, of which there is no counterpart above.
    let far = block
        .iter()
        .copied()
        .reduce(|far, x| if x.abs() > far.abs() { x } else { far });
    let scale = far.unwrap_or(0.0) / -8.0;
    out.extend(f32_to_f16(scale).to_le_bytes());
    let by = inverse(scale);
    let nibble = |x: f32| ((x * by + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    out.extend(low.iter().zip(high).map(|(&l, &h)| nibble(l) | nibble(h) << 4));
}

/// A layer as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredLayer {
    inputs: u16,
    weights: ByteBuf,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_FEATURES>")]
    bias: Vec<f32>,
}

/// A network as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stored {
    precision: Precision,
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LAYERS>")]
    layers: Vec<StoredLayer>,
    head: Head,
}

/// A network whose weights are stored in few bits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct QuantizedMlp {
    precision: Precision,
    network: Mlp,
}

impl QuantizedMlp {
    /// A network with its weights rounded to `precision`; biases, of which there are few, stay as they are.
    pub fn new(network: &Mlp, precision: Precision) -> Self {
        let layers = network.layers.iter().map(|layer| {
            let mut weights = precision.values(&precision.store(&layer.weights));
            weights.truncate(layer.weights.len());
            Layer {
                weights,
                bias: layer.bias.clone(),
            }
        });
        Self {
            precision,
            network: Mlp {
                layers: layers.collect(),
                head: network.head,
            },
        }
    }

    /// How its weights are stored.
    pub const fn precision(&self) -> Precision {
        self.precision
    }

    /// What scores.
    pub const fn network(&self) -> &Mlp {
        &self.network
    }
}

impl From<QuantizedMlp> for Stored {
    fn from(quantized: QuantizedMlp) -> Self {
        let precision = quantized.precision;
        let stored = |layer: Layer| StoredLayer {
            // Of at most MAX_FEATURES each: what is larger is refused by the network's own check.
            inputs: (layer.weights.len() / layer.bias.len().max(1)) as u16,
            weights: ByteBuf::from(precision.store(&layer.weights)),
            bias: layer.bias,
        };
        Self {
            precision,
            layers: quantized.network.layers.into_iter().map(stored).collect(),
            head: quantized.network.head,
        }
    }
}

impl TryFrom<Stored> for QuantizedMlp {
    type Error = Refused;

    fn try_from(stored: Stored) -> Result<Self, Refused> {
        let precision = stored.precision;
        let mut layers = Vec::with_capacity(stored.layers.len());
        for layer in stored.layers {
            let count = usize::from(layer.inputs) * layer.bias.len();
            let fits = usize::from(layer.inputs) <= MAX_FEATURES
                && layer.weights.len() == count.div_ceil(BLOCK) * precision.block();
            rule(
                fits,
                "network",
                "a layer's blocks are not as many as it has weights",
            )?;
            let mut weights = precision.values(&layer.weights);
            weights.truncate(count);
            layers.push(Layer {
                weights,
                bias: layer.bias,
            });
        }
        Ok(Self {
            precision,
            network: Mlp {
                layers,
                head: stored.head,
            },
        })
    }
}

impl Scorer for QuantizedMlp {
    fn kind(&self) -> EstimatorKind {
        self.network.kind()
    }

    fn least_scale(&self) -> f32 {
        self.network.least_scale()
    }

    fn check(&self, width: usize) -> Result<(), Refused> {
        self.network.check(width)
    }

    fn score(&self, x: &[f32]) -> f32 {
        self.network.score(x)
    }
}
