//! Other forms of a pipeline: its networks in fewer bits, its forests as somebody else wants them.

use super::spec::{EstimatorSpec, MemberSpec, PipelineSpec};
use crate::estimators::quantized::{Precision, QuantizedMlp};
use crate::estimators::vector::VectorEstimator;

impl<F> PipelineSpec<F> {
    /// Stores the weights of all networks with `precision`, and says how many networks there are. Calibrations stay: how
    /// much scores differ is to be measured on windows.
    pub fn quantize(&mut self, precision: Precision) -> usize {
        let mut networks = 0;
        for member in &mut self.members {
            let EstimatorSpec::Vector(staged) = &mut member.estimator else {
                continue;
            };
            let network = match &staged.estimator {
                VectorEstimator::Mlp(network) => network,
                VectorEstimator::QuantizedMlp(quantized) => quantized.network(),
                _ => continue,
            };
            staged.estimator = VectorEstimator::QuantizedMlp(QuantizedMlp::new(network, precision));
            networks += 1;
        }
        networks
    }

    /// The same pipeline with its forests in another form.
    pub fn map_forests<G>(self, form: impl Fn(F) -> G) -> PipelineSpec<G> {
        let member = |member: MemberSpec<F>| MemberSpec {
            estimator: match member.estimator {
                EstimatorSpec::Deviation => EstimatorSpec::Deviation,
                EstimatorSpec::IsolationForest(forest) => EstimatorSpec::IsolationForest(form(forest)),
                EstimatorSpec::Vector(staged) => EstimatorSpec::Vector(staged),
                EstimatorSpec::PairNgram(none) | EstimatorSpec::PairStide(none) => match none {},
                EstimatorSpec::Ngram(counts) => EstimatorSpec::Ngram(counts),
                EstimatorSpec::NgramPeak(counts) => EstimatorSpec::NgramPeak(counts),
                EstimatorSpec::Stide(counts) => EstimatorSpec::Stide(counts),
                EstimatorSpec::Ets(ets) => EstimatorSpec::Ets(ets),
                EstimatorSpec::Arima(arima) => EstimatorSpec::Arima(arima),
                EstimatorSpec::Novelty(novelty) => EstimatorSpec::Novelty(novelty),
            },
            calibration: member.calibration,
        };
        PipelineSpec {
            deviation: self.deviation,
            members: self.members.into_iter().map(member).collect(),
            tests: self.tests,
            reference: self.reference,
        }
    }
}
