//! The kinds of estimator, by the names that artifacts, plans and the command line share.

use std::fmt;
use std::str::FromStr;

/// A kind of estimator that a pipeline can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EstimatorKind {
    /// Surprise of each feature on its own; see [`crate::deviation`].
    Deviation,
    /// Isolation forest; see [`crate::forest`].
    IsolationForest,
    /// Largest standardised deviation of one feature.
    ZScore,
    /// Distance from the plane of the principal components.
    Pca,
    /// Distance to the nearest cluster's centre.
    KMeans,
    /// How unlikely a window is under a mixture of Gaussians.
    GaussianMixture,
    /// Local outlier factor among remembered windows.
    Lof,
    /// Distance to the nearest core point of DBSCAN's clusters.
    Dbscan,
    /// Classification trees: normal, suspicious, malicious.
    RandomForest,
    /// Error of a network that learnt to give back what it is given.
    Autoencoder,
    /// A network that tells normal, suspicious and malicious.
    MlpClassifier,
    /// Surprise of which calls come right after which; see [`crate::estimators::order`].
    Ngram,
    /// Surprise of the oddest calls of a window alone, by the same model.
    NgramPeak,
    /// Share of sequences of calls that training never saw.
    Stide,
    /// Error of a forecast of the rate of calls by exponential smoothing; see [`crate::estimators::rate`].
    Ets,
    /// Error of a forecast of the rate of calls by an autoregression.
    Arima,
    /// How many kinds of calls training never saw; see [`crate::estimators::novelty`].
    Novelty,
}

impl EstimatorKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Deviation,
        Self::IsolationForest,
        Self::ZScore,
        Self::Pca,
        Self::KMeans,
        Self::GaussianMixture,
        Self::Lof,
        Self::Dbscan,
        Self::RandomForest,
        Self::Autoencoder,
        Self::MlpClassifier,
        Self::Ngram,
        Self::NgramPeak,
        Self::Stide,
        Self::Ets,
        Self::Arima,
        Self::Novelty,
    ];

    /// What is trained where nothing is said.
    pub const DEFAULT: [Self; 3] = [Self::Deviation, Self::IsolationForest, Self::Novelty];

    /// The kind's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deviation => "deviation",
            Self::IsolationForest => "isolation-forest",
            Self::ZScore => "z-score",
            Self::Pca => "pca",
            Self::KMeans => "kmeans",
            Self::GaussianMixture => "gaussian-mixture",
            Self::Lof => "lof",
            Self::Dbscan => "dbscan",
            Self::RandomForest => "random-forest",
            Self::Autoencoder => "autoencoder",
            Self::MlpClassifier => "mlp-classifier",
            Self::Ngram => "n-gram",
            Self::NgramPeak => "n-gram-peak",
            Self::Stide => "stide",
            Self::Ets => "ets",
            Self::Arima => "arima",
            Self::Novelty => "novelty",
        }
    }

    /// The kind's name as `spec.estimator.types` of the API writes it: what people are told.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Deviation => "Deviation",
            Self::IsolationForest => "IsolationForest",
            Self::ZScore => "ZScore",
            Self::Pca => "PCA",
            Self::KMeans => "KMeans",
            Self::GaussianMixture => "GaussianMixture",
            Self::Lof => "LOF",
            Self::Dbscan => "DBSCAN",
            Self::RandomForest => "RandomForest",
            Self::Autoencoder => "Autoencoder",
            Self::MlpClassifier => "MLPClassifier",
            Self::Ngram => "NGram",
            Self::NgramPeak => "NGramPeak",
            Self::Stide => "STIDE",
            Self::Ets => "ETS",
            Self::Arima => "ARIMA",
            Self::Novelty => "Novelty",
        }
    }

    /// The kind that the API calls so.
    pub fn by_api_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.api_name() == name)
    }

    /// True where it is fitted to standardised vectors, see [`crate::estimators::vector`].
    pub const fn is_vector(self) -> bool {
        !matches!(self, Self::Deviation | Self::IsolationForest | Self::Novelty)
            && !self.is_order()
            && !self.is_rate()
    }

    /// True where principal components can stand in front of it, or are what it is: it measures distances.
    pub const fn takes_components(self) -> bool {
        self.is_vector() && !matches!(self, Self::ZScore)
    }

    /// True where it learns from windows of several classes: normal, suspicious, malicious.
    pub const fn is_classifier(self) -> bool {
        matches!(self, Self::RandomForest | Self::MlpClassifier)
    }

    /// True where it looks at which calls come after which, see [`crate::estimators::order`].
    pub const fn is_order(self) -> bool {
        matches!(self, Self::Ngram | Self::NgramPeak | Self::Stide)
    }

    /// True where it forecasts rates from the windows before, see [`crate::estimators::rate`].
    pub const fn is_rate(self) -> bool {
        matches!(self, Self::Ets | Self::Arima)
    }
}

impl fmt::Display for EstimatorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no kind of estimator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown estimator {0:?}; write one of {list}", list = EstimatorKind::ALL.map(EstimatorKind::as_str).join(", "))]
pub struct UnknownEstimator(pub String);

impl FromStr for EstimatorKind {
    type Err = UnknownEstimator;

    fn from_str(text: &str) -> Result<Self, UnknownEstimator> {
        Self::ALL
            .into_iter()
            .find(|k| k.as_str() == text)
            .ok_or_else(|| UnknownEstimator(text.to_owned()))
    }
}
