//! Estimators over one window's vector, each behind a [`Front`].
//!
//! Every one is data that scores as it is: flat tables, walked in order, in `f32`. A score is finite for every
//! finite vector, larger is odder, and its calibration says what it means.

use super::dbscan::Dbscan;
use super::front::Front;
use super::gaussian::GaussianMixture;
use super::kmeans::KMeans;
use super::lof::Lof;
use super::mlp::{Head, Mlp};
use super::quantized::QuantizedMlp;
use super::reconstruction::Reconstruction;
use super::trees::{CLASSES, ClassTrees, NAMES};
use super::zscore::ZScore;
use super::{Refused, rule};
use crate::pipeline::EstimatorKind;
use crate::schema::MAX_FEATURES;
use serde::{Deserialize, Serialize};

/// What every vector estimator can do.
pub(super) trait Scorer {
    /// Which it is.
    fn kind(&self) -> EstimatorKind;

    /// Its name, as artifacts and the command line have it.
    fn name(&self) -> &'static str {
        self.kind().as_str()
    }

    /// Smallest scale of the calibrated tail, in the score's units.
    fn least_scale(&self) -> f32;

    /// Checks every parameter, for vectors of `width` values.
    fn check(&self, width: usize) -> Result<(), Refused>;

    /// Score of a vector that came through the front. Allocates nothing, and does not panic once checked.
    fn score(&self, x: &[f32]) -> f32;
}

/// A trained vector estimator as data. New kinds go to the end: the encoding counts from the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum VectorEstimator {
    /// Largest deviation of one feature.
    ZScore(ZScore),
    /// Distance from the plane of the principal components.
    Reconstruction(Reconstruction),
    /// Distance to the nearest cluster's centre.
    KMeans(KMeans),
    /// How unlikely it is under a mixture of Gaussians.
    GaussianMixture(GaussianMixture),
    /// How much sparser it lies than its neighbours.
    Lof(Lof),
    /// Distance to the nearest core point of a cluster.
    Dbscan(Dbscan),
    /// Probability that it is not normal, by trees.
    RandomForest(ClassTrees),
    /// A network: an autoencoder or a classifier.
    Mlp(Mlp),
    /// Such a network with its weights in few bits.
    QuantizedMlp(QuantizedMlp),
}

impl VectorEstimator {
    fn scorer(&self) -> &dyn Scorer {
        match self {
            Self::ZScore(e) => e,
            Self::Reconstruction(e) => e,
            Self::KMeans(e) => e,
            Self::GaussianMixture(e) => e,
            Self::Lof(e) => e,
            Self::Dbscan(e) => e,
            Self::RandomForest(e) => e,
            Self::Mlp(e) => e,
            Self::QuantizedMlp(e) => e,
        }
    }

    /// Probability of each class, of those that tell classes.
    fn classes(&self, x: &[f32]) -> Option<[f32; CLASSES]> {
        let network = match self {
            Self::RandomForest(trees) => return Some(trees.classes(x)),
            Self::Mlp(network) => network,
            Self::QuantizedMlp(quantized) => quantized.network(),
            _ => return None,
        };
        (network.head == Head::Classes).then(|| network.classes(x))
    }
}

/// A front and the estimator behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Staged {
    /// Scaler and projection.
    pub front: Front,
    /// What scores.
    pub estimator: VectorEstimator,
}

impl Staged {
    /// The estimator's kind.
    pub fn kind(&self) -> EstimatorKind {
        self.estimator.scorer().kind()
    }

    /// The estimator's name.
    pub fn name(&self) -> &'static str {
        self.kind().as_str()
    }

    pub(crate) fn least_scale(&self) -> f32 {
        self.estimator.scorer().least_scale()
    }

    /// Checks every size, index and value, for estimators from outside.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self, width: usize) -> Result<(), Refused> {
        let fits = self.front.width() == width;
        rule(fits, self.name(), "it was trained on vectors of another width")?;
        self.front.check()?;
        self.estimator.scorer().check(self.front.outputs())
    }

    /// Where it tells classes: the probability of each.
    pub fn classes(&self, vector: &[f32]) -> Option<[f32; CLASSES]> {
        let mut space = [0.0; MAX_FEATURES];
        let width = self.front.apply(vector, &mut space);
        self.estimator.classes(&space[..width])
    }

    /// Where it tells classes: the likeliest but for the first, which is normal.
    pub fn class(&self, vector: &[f32]) -> Option<&'static str> {
        let [_, suspicious, malicious] = self.classes(vector)?;
        Some(NAMES[if malicious > suspicious { 2 } else { 1 }])
    }

    /// Score of one vector of finite values: finite, larger is odder. Allocates nothing.
    pub fn score(&self, vector: &[f32]) -> f32 {
        let mut space = [0.0; MAX_FEATURES];
        let width = self.front.apply(vector, &mut space);
        self.estimator.scorer().score(&space[..width])
    }
}
