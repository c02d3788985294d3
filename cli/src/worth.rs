//! Whether a model is worth scoring with, by what its training measured. In a cluster, gates keep one that tells nothing
//! from being signed; on one host nobody but this does: what such a model says of an attack looks like all is well.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use vigia_crds::{TrainingMetric, decimal, default_gates};
use vigia_model::artifact::{ArtifactError, Metadata, Reader, Task};
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::data::{Class, Rows};
use vigia_trainer::fit::Trained;
use vigia_trainer::validate::{HOLDOUT_EXCEEDANCE, INJECTION_RECALL};

use crate::say::Out;

/// Of recorded attacks, the share that a model should show.
const HALF: f64 = 0.5;
/// Windows that are named as those that stand out.
const NAMED: usize = 3;

/// A metric that a cluster's gates would not let pass, where nobody has set others.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Short {
    metric: &'static str,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
}

/// Those of a model's metrics. Of what a model does not say, nothing is known.
pub fn short(metrics: &BTreeMap<String, f64>) -> Vec<Short> {
    let bound = |text: Option<String>| text.and_then(|text| decimal(&text).ok());
    let gates = default_gates().into_iter().filter_map(|gate| {
        let metric = match gate.metric {
            TrainingMetric::HoldoutExceedance => HOLDOUT_EXCEEDANCE,
            TrainingMetric::InjectionRecall => INJECTION_RECALL,
        };
        Some(Short {
            metric,
            value: *metrics.get(metric)?,
            at_least: bound(gate.at_least),
            at_most: bound(gate.at_most),
        })
    });
    gates.filter(Short::is_one).collect()
}

impl Short {
    fn is_one(&self) -> bool {
        self.at_least.is_some_and(|least| self.value < least)
            || self.at_most.is_some_and(|most| self.value > most)
    }

    /// Whether it says that the model tells too little, rather than too much.
    fn is_blind(&self) -> bool {
        self.metric == INJECTION_RECALL
    }

    /// What it means.
    fn meaning(&self) -> String {
        let percent = self.value * 100.0;
        let bound = match (self.at_least, self.at_most) {
            (Some(least), _) => format!("at least {least}"),
            (None, Some(most)) => format!("at most {most}"),
            (None, None) => String::new(),
        };
        let means = if self.is_blind() {
            format!(
                "of windows that calls were put into which it had never seen, the model finds {percent:.0} %: it will say \
                 nothing of most that is odd"
            )
        } else {
            format!(
                "the model calls {percent:.0} % of normal windows odd that it had not seen: expect false alarms"
            )
        };
        format!(
            "{} is {:.2}, a cluster's gate asks for {bound}: {means}",
            self.metric, self.value
        )
    }

    /// What to do about it where it was trained, and these windows (milliseconds since the epoch) stand out.
    fn advice(&self, estimators: &[EstimatorKind], odd: &[i64]) -> String {
        let sees_new =
            |kind: &EstimatorKind| matches!(kind, EstimatorKind::Deviation | EstimatorKind::Novelty);
        if !self.is_blind() {
            return "train on more windows".to_owned();
        }
        if !estimators.iter().any(sees_new) {
            return "add novelty to --estimator, which counts calls that are never made".to_owned();
        }
        let odd: Vec<String> = odd.iter().map(i64::to_string).collect();
        format!(
            "a few odd windows among those that are learnt from do that. The oddest have started_ms {}: leave such out, \
             give a command a longer --warm-up, or record for longer",
            odd.join(", ")
        )
    }
}

/// Says of a model that was trained here what speaks against it.
pub fn warn(path: &Path, short: &[Short], estimators: &[EstimatorKind], odd: &[i64]) {
    for short in short {
        let (path, meaning) = (path.display(), short.meaning());
        let advice = short.advice(estimators, odd);
        Out::Stderr.line(&format!("warning: {path}: {meaning}; {advice}"));
    }
}

/// Says of a model that was taught by recorded attacks where it would show few of them.
pub fn warn_of_attacks(path: &Path, metrics: &BTreeMap<String, f64>) {
    for class in Class::ALL {
        let recall = metrics.get(&format!("{}Recall", class.metric()));
        let Some(recall) = recall.filter(|recall| **recall < HALF) else {
            continue;
        };
        Out::Stderr.line(&format!(
            "warning: {}: of the windows of --{} that were held out {:.0} % have a severity: nobody would be told of most; record \
             them while it ran and no longer, train on more normal windows, and have deviation, isolation-forest and novelty \
             in --estimator too",
            path.display(),
            class.name(),
            recall * 100.0
        ));
    }
}

/// Says of a model that is about to score what speaks against it.
pub fn warn_of(path: &Path, metadata: &Metadata) {
    for short in short(&metadata.metrics) {
        let (path, meaning) = (path.display(), short.meaning());
        Out::Stderr.line(&format!(
            "warning: {path}: {meaning}; train it again: `vigia train` says what helps"
        ));
    }
}

/// When the windows began that the model finds the oddest of those that it was made of, the oddest first.
///
/// # Errors
/// The model does not hold.
pub fn oddest(trained: &Trained, made_of: [&Rows; 2]) -> Result<Vec<i64>, ArtifactError> {
    let model = Reader::unsigned().open(&trained.artifact, Task::Anomaly)?;
    let mut odd: Vec<(f64, i64)> = Vec::with_capacity(NAMED + 1);
    for rows in made_of {
        for (i, about) in rows.about().iter().enumerate() {
            let Ok(verdict) = model.pipeline.score_vector(rows.row(i), &rows.contexts()[i]) else {
                continue;
            };
            let at = odd.partition_point(|&(p, _)| p <= verdict.p_value);
            if at < NAMED {
                odd.insert(at, (verdict.p_value, about.started_ms));
                odd.truncate(NAMED);
            }
        }
    }
    Ok(odd.into_iter().map(|(_, started_ms)| started_ms).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(exceedance: f64, recall: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([
            (HOLDOUT_EXCEEDANCE.to_owned(), exceedance),
            (INJECTION_RECALL.to_owned(), recall),
        ])
    }

    #[test]
    fn what_a_clusters_gates_let_pass_is_no_word_worth() {
        assert_eq!(short(&metrics(0.1, 0.9)), []);
        assert_eq!(short(&BTreeMap::new()), []);
    }

    #[test]
    fn what_they_would_not_is_told_with_what_to_do() {
        let blind = short(&metrics(0.0, 0.0417));
        let [blind] = blind.as_slice() else {
            panic!("{blind:?}")
        };
        let said = blind.meaning();
        assert!(
            said.starts_with("InjectionRecall is 0.04, a cluster's gate asks for at least 0.9: ")
                && said.contains("finds 4 %"),
            "{said}"
        );
        let said = blind.advice(&EstimatorKind::DEFAULT, &[17, 4]);
        assert!(
            said.contains("started_ms 17, 4:") && said.contains("--warm-up"),
            "{said}"
        );
        assert!(
            blind
                .advice(&[EstimatorKind::IsolationForest], &[])
                .contains("add novelty")
        );

        let loud = short(&metrics(0.2, 1.0));
        let [loud] = loud.as_slice() else {
            panic!("{loud:?}")
        };
        let said = loud.meaning();
        assert!(
            said.contains("at most 0.1: the model calls 20 % of normal"),
            "{said}"
        );
        assert!(loud.advice(&EstimatorKind::DEFAULT, &[]).contains("more windows"));
    }
}
