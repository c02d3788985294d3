//! Metrics of ranking and of forecasts, exact and in f64.
//!
//! `tests/fixtures/metrics.json` holds scikit-learn's answers (`scripts/fixtures.py` makes it).

/// Scores with their labels, the highest score first, in groups of equal scores.
fn descending(scores: &[f64], labels: &[bool]) -> Vec<(u64, u64)> {
    debug_assert_eq!(scores.len(), labels.len());
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let mut groups: Vec<(u64, u64)> = Vec::new();
    let mut last = None;
    for i in order {
        if last != Some(scores[i]) {
            groups.push((0, 0));
            last = Some(scores[i]);
        }
        if let Some(group) = groups.last_mut() {
            if labels[i] {
                group.0 += 1;
            } else {
                group.1 += 1;
            }
        }
    }
    groups
}

/// Area under the ROC curve: the chance that a positive scores above a negative, ties counting half. NaN
/// where one of the classes is missing.
pub fn roc_auc(scores: &[f64], labels: &[bool]) -> f64 {
    let groups = descending(scores, labels);
    let (positives, negatives) = totals(&groups);
    let (mut above, mut wins) = (0u64, 0.0);
    for (p, n) in groups {
        wins += n as f64 * (above as f64 + p as f64 / 2.0);
        above += p;
    }
    wins / (positives as f64 * negatives as f64)
}

/// Largest share of positives found by a threshold that calls at most `fpr` of the negatives positive.
pub fn tpr_at_fpr(scores: &[f64], labels: &[bool], fpr: f64) -> f64 {
    let groups = descending(scores, labels);
    let (positives, negatives) = totals(&groups);
    let (mut found, mut wrong, mut best) = (0, 0, 0);
    for (p, n) in groups {
        found += p;
        wrong += n;
        if wrong as f64 > fpr * negatives as f64 {
            break;
        }
        best = found;
    }
    best as f64 / positives as f64
}

/// Average precision: Σ (R_i − R_{i−1}) P_i over thresholds, without interpolation. NaN without positives.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> f64 {
    let groups = descending(scores, labels);
    let (positives, _) = totals(&groups);
    let (mut found, mut called, mut area) = (0u64, 0u64, 0.0);
    for (p, n) in groups {
        found += p;
        called += p + n;
        area += p as f64 / positives as f64 * (found as f64 / called as f64);
    }
    if positives == 0 { f64::NAN } else { area }
}

fn totals(groups: &[(u64, u64)]) -> (u64, u64) {
    groups
        .iter()
        .fold((0, 0), |(p, n), group| (p + group.0, n + group.1))
}

/// Mean absolute scaled error: over the forecasts, divided by the mean absolute one-step change of `train`
/// (Hyndman and Koehler, Int. J. Forecasting 22, 2006).
pub fn mase(pairs: impl IntoIterator<Item = (f64, f64)>, train: &[f64]) -> f64 {
    let (mut error, mut n) = (0.0, 0.0);
    for (forecast, truth) in pairs {
        error += (forecast - truth).abs();
        n += 1.0;
    }
    let steps: f64 = train.windows(2).map(|w| (w[1] - w[0]).abs()).sum();
    (error / n) / (steps / (train.len() as f64 - 1.0))
}

/// Plain mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Fixture {
        scores: Vec<f64>,
        labels: Vec<bool>,
        roc_auc: f64,
        average_precision: f64,
        tpr_at_10fpr: f64,
    }

    #[test]
    fn agrees_with_scikit_learn() {
        let fixtures: Vec<Fixture> = serde_json::from_str(include_str!("../tests/fixtures/metrics.json"))
            .expect("the script writes it so");
        assert!(fixtures.len() >= 4);
        for f in fixtures {
            assert!((roc_auc(&f.scores, &f.labels) - f.roc_auc).abs() < 1e-12);
            assert!((average_precision(&f.scores, &f.labels) - f.average_precision).abs() < 1e-12);
            assert!((tpr_at_fpr(&f.scores, &f.labels, 0.1) - f.tpr_at_10fpr).abs() < 1e-12);
        }
    }

    #[test]
    fn mase_by_hand() {
        // Errors 1 and 3; steps of the training part 1, 1, 2.
        assert_eq!(mase([(2.0, 1.0), (5.0, 8.0)], &[0.0, 1.0, 2.0, 4.0]), 1.5);
    }

    #[test]
    fn one_class_only_is_not_a_number() {
        assert!(roc_auc(&[1.0, 2.0], &[true, true]).is_nan());
        assert!(average_precision(&[1.0, 2.0], &[false, false]).is_nan());
        assert!(roc_auc(&[], &[]).is_nan());
    }

    fn cases() -> impl Strategy<Value = (Vec<f64>, Vec<bool>)> {
        prop::collection::vec((0u8..20, any::<bool>()), 2..60)
            .prop_map(|v| v.into_iter().map(|(s, l)| (f64::from(s), l)).unzip())
            .prop_filter("both classes", |(_, l): &(Vec<f64>, Vec<bool>)| {
                l.iter().any(|x| *x) && l.iter().any(|x| !*x)
            })
    }

    proptest! {
        #[test]
        fn auc_is_the_share_of_pairs_in_order((scores, labels) in cases()) {
            let (mut wins, mut pairs) = (0.0, 0.0);
            for (i, p) in labels.iter().enumerate().filter(|(_, l)| **l) {
                for (j, _) in labels.iter().enumerate().filter(|(_, l)| !**l) {
                    let _ = p;
                    pairs += 1.0;
                    wins += if scores[i] > scores[j] { 1.0 } else if scores[i] == scores[j] { 0.5 } else { 0.0 };
                }
            }
            prop_assert!((roc_auc(&scores, &labels) - wins / pairs).abs() < 1e-12);
        }

        #[test]
        fn turning_scores_round_turns_auc_round((scores, labels) in cases()) {
            let back: Vec<f64> = scores.iter().map(|s| -s).collect();
            prop_assert!((roc_auc(&scores, &labels) + roc_auc(&back, &labels) - 1.0).abs() < 1e-12);
        }

        #[test]
        fn only_the_order_of_scores_matters((scores, labels) in cases()) {
            let cubed: Vec<f64> = scores.iter().map(|s| s.powi(3) - 7.0).collect();
            prop_assert_eq!(roc_auc(&scores, &labels), roc_auc(&cubed, &labels));
            prop_assert_eq!(average_precision(&scores, &labels), average_precision(&cubed, &labels));
            prop_assert_eq!(tpr_at_fpr(&scores, &labels, 0.3), tpr_at_fpr(&cubed, &labels, 0.3));
        }

        #[test]
        fn all_are_shares((scores, labels) in cases()) {
            for v in [roc_auc(&scores, &labels), average_precision(&scores, &labels), tpr_at_fpr(&scores, &labels, 0.1)] {
                prop_assert!((0.0..=1.0 + 1e-12).contains(&v));
            }
        }

        #[test]
        fn a_perfect_order_is_perfect((_, labels) in cases()) {
            let scores: Vec<f64> = labels.iter().map(|&l| f64::from(u8::from(l))).collect();
            prop_assert_eq!(roc_auc(&scores, &labels), 1.0);
            prop_assert!((average_precision(&scores, &labels) - 1.0).abs() < 1e-12);
            prop_assert_eq!(tpr_at_fpr(&scores, &labels, 0.0), 1.0);
        }
    }
}
