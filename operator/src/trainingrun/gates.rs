//! Whether validation held. Pure.

use std::collections::BTreeMap;

use vigia_crds::{EstimatorType, TrainingGate, TrainingMetric, decimal};

/// The metric's name in what a trainer submits.
fn name(metric: TrainingMetric) -> &'static str {
    match metric {
        TrainingMetric::HoldoutExceedance => "HoldoutExceedance",
        TrainingMetric::InjectionRecall => "InjectionRecall",
    }
}

/// The first gate that does not hold, as a sentence. A metric that is missing or no number holds
/// no gate.
pub(super) fn failed(gates: &[TrainingGate], metrics: &BTreeMap<String, f64>) -> Option<String> {
    gates.iter().find_map(|gate| {
        let name = name(gate.metric);
        let Some(value) = metrics.get(name).copied().filter(|v| v.is_finite()) else {
            return Some(format!("the trainer did not report {name}"));
        };
        let bound = |text: &Option<String>| text.as_deref().map(decimal).transpose();
        match (bound(&gate.at_most), bound(&gate.at_least)) {
            (Err(why), _) | (_, Err(why)) => Some(format!("gate {name}: {why}")),
            (Ok(Some(most)), _) if value > most => {
                Some(format!("{name} is {value:.3}, its gate allows at most {most}"))
            }
            (_, Ok(Some(least))) if value < least => Some(format!(
                "{name} is {value:.3}, its gate asks for at least {least}"
            )),
            _ => None,
        }
    })
}

/// What a person can do about a gate that does not hold.
pub(super) fn advice(
    gates: &[TrainingGate],
    metrics: &BTreeMap<String, f64>,
    types: &[EstimatorType],
) -> &'static str {
    let recall = |is_upper: bool| {
        gates.iter().find(|gate| {
            gate.metric == TrainingMetric::InjectionRecall
                && gate.at_most.is_some() == is_upper
                && failed(std::slice::from_ref(gate), metrics).is_some()
        })
    };
    let sees_what_is_new =
        |kind: &EstimatorType| matches!(kind, EstimatorType::Deviation | EstimatorType::Novelty);
    if recall(true).is_some() {
        "Of InjectionRecall more is better: a version of which a gate asks for little of it tells little. Write atLeast instead of atMost, or leave that gate out"
    } else if recall(false).is_none() {
        "Train on more or cleaner windows, or change the gate"
    } else if !types.iter().any(sees_what_is_new) {
        "Add Novelty to estimator.types, which counts calls that a workload never makes, or change the gate"
    } else {
        "Three new calls are usual where containers still do something new now and then: train on more windows, or lower the gate"
    }
}

/// Metrics as a status holds them: at most 32, four decimals.
pub(super) fn texts(metrics: &BTreeMap<String, f64>) -> BTreeMap<String, String> {
    let text = |value: f64| {
        if value.fract() == 0.0 && value.abs() < 1e15 {
            format!("{value}")
        } else {
            format!("{value:.4}")
        }
    };
    metrics
        .iter()
        .take(32)
        .map(|(name, value)| (name.clone(), text(*value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_crds::default_gates;

    fn metrics(exceedance: f64, recall: f64) -> BTreeMap<String, f64> {
        BTreeMap::from([
            ("HoldoutExceedance".to_owned(), exceedance),
            ("InjectionRecall".to_owned(), recall),
        ])
    }

    #[test]
    fn bounds_hold_at_their_ends() {
        assert_eq!(failed(&default_gates(), &metrics(0.1, 0.9)), None);
        assert!(failed(&default_gates(), &metrics(0.11, 1.0)).is_some_and(|m| m.contains("at most 0.1")));
        assert!(failed(&default_gates(), &metrics(0.0, 0.89)).is_some_and(|m| m.contains("at least 0.9")));
    }

    #[test]
    fn what_is_not_reported_does_not_hold() {
        assert!(failed(&default_gates(), &BTreeMap::new()).is_some());
        assert!(failed(&default_gates(), &metrics(f64::NAN, 1.0)).is_some());
        assert_eq!(failed(&[], &BTreeMap::new()), None);
    }

    #[test]
    fn who_sees_no_new_call_is_told_who_does() {
        let said = |recall, types: &[EstimatorType]| advice(&default_gates(), &metrics(0.2, recall), types);
        assert!(said(0.1, &[EstimatorType::Lof]).contains("Add Novelty"));
        assert!(said(0.1, &[EstimatorType::Deviation, EstimatorType::Ets]).contains("lower the gate"));
        assert!(said(0.1, &[EstimatorType::Novelty]).contains("lower the gate"));
        assert!(said(1.0, &[EstimatorType::IsolationForest]).contains("cleaner windows"));
    }

    #[test]
    fn who_asks_for_less_of_what_is_good_is_told_so() {
        let gate = |bound: &str, text: &str| -> TrainingGate {
            let gate = serde_json::json!({"metric": "InjectionRecall", bound: text});
            serde_json::from_value(gate).expect("a gate")
        };
        let said =
            |gate: TrainingGate, recall| advice(&[gate], &metrics(0.0, recall), &[EstimatorType::Novelty]);
        let upside_down = said(gate("atMost", "0"), 1.0);
        assert!(upside_down.contains("atLeast instead of atMost"), "{upside_down}");
        assert!(said(gate("atLeast", "1"), 0.5).contains("lower the gate"));
    }

    #[test]
    fn numbers_are_written_short() {
        let texts = texts(&BTreeMap::from([
            ("a".to_owned(), 240.0),
            ("b".to_owned(), 1.0 / 3.0),
        ]));
        assert_eq!(texts["a"], "240");
        assert_eq!(texts["b"], "0.3333");
    }
}
