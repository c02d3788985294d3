//! Distances between histograms: near zero for samples of one distribution, however few, and far for others.

use crate::support::Random;
use proptest::prelude::*;
use vigia_model::calibration::calibrated;
use vigia_model::histogram::{BINS, MIN_SAMPLES, ScoreHistogram};

/// Scores whose p-values are uniform, to the power of `shift`: 1 is what calibration gives.
fn sample(random: &mut Random, n: u64, shift: f64) -> ScoreHistogram {
    let mut histogram = ScoreHistogram::default();
    (0..n).for_each(|_| histogram.add(calibrated(random.unit().powf(shift))));
    histogram
}

#[test]
fn few_samples_of_one_distribution_are_not_drift() {
    let mut random = Random(1);
    for (n, m) in [(MIN_SAMPLES, MIN_SAMPLES), (60, 20), (60, 200), (500, 500)] {
        let pairs: Vec<_> = (0..300)
            .map(|_| (sample(&mut random, n, 1.0), sample(&mut random, m, 1.0)))
            .collect();
        let mean = |distance: fn(&ScoreHistogram, &ScoreHistogram) -> Option<f64>| {
            pairs
                .iter()
                .map(|(a, b)| distance(a, b).expect("enough"))
                .sum::<f64>()
                / pairs.len() as f64
        };
        let divergence = mean(ScoreHistogram::jensen_shannon);
        assert!(divergence < 0.07, "{n} and {m}: {divergence} bits");
        let far = pairs
            .iter()
            .filter(|(a, b)| a.jensen_shannon(b).is_some_and(|d| d > 0.3))
            .count();
        assert!(
            far * 100 <= pairs.len() * 2,
            "{n} and {m}: {far} of {} above .3 bits",
            pairs.len()
        );
        assert!(n < 500 || mean(ScoreHistogram::psi) < 0.05);
    }
}

#[test]
fn a_shift_is_seen_in_few_samples() {
    let mut random = Random(2);
    for (n, m) in [(60, 40), (500, 500)] {
        // A p-value of .1 where .5 was, and so on.
        let (old, new) = (sample(&mut random, n, 1.0), sample(&mut random, m, 4.0));
        assert!(
            old.jensen_shannon(&new).is_some_and(|d| d > 0.1),
            "{n} and {m}: {:?}",
            old.jensen_shannon(&new)
        );
        assert!(
            old.psi(&new).is_some_and(|d| d > 0.25),
            "{n} and {m}: {:?}",
            old.psi(&new)
        );
        let gone = sample(&mut random, m, 40.0);
        assert!(
            old.jensen_shannon(&gone).is_some_and(|d| d > 0.5),
            "{n} and {m}: {:?}",
            old.jensen_shannon(&gone)
        );
    }
}

fn histograms() -> impl Strategy<Value = ScoreHistogram> {
    prop::collection::vec(0u64..1000, BINS)
        .prop_map(|counts| ScoreHistogram::try_from(&counts[..]).expect("all bins"))
        .prop_filter("enough", |h| h.total() >= MIN_SAMPLES)
}

proptest! {
    #[test]
    fn distances_are_symmetric_and_in_range(a in histograms(), b in histograms()) {
        let divergence = a.jensen_shannon(&b).expect("enough");
        prop_assert!((0.0..=1.0).contains(&divergence));
        prop_assert!((divergence - b.jensen_shannon(&a).expect("enough")).abs() < 1e-12);
        let index = a.psi(&b).expect("enough");
        prop_assert!(index >= 0.0 && index.is_finite());
        prop_assert!((index - b.psi(&a).expect("enough")).abs() < 1e-9);
        prop_assert_eq!(a.jensen_shannon(&a), Some(0.0));
    }

    #[test]
    fn merging_is_adding_in_any_order(a in histograms(), b in histograms(), c in histograms()) {
        let sum = |parts: [&ScoreHistogram; 3]| {
            let mut whole = ScoreHistogram::default();
            parts.into_iter().for_each(|part| whole.merge(part));
            whole
        };
        prop_assert_eq!(sum([&a, &b, &c]), sum([&c, &a, &b]));
        prop_assert_eq!(sum([&a, &b, &c]).total(), a.total() + b.total() + c.total());
    }

    #[test]
    fn every_score_is_counted_once(scores in prop::collection::vec(proptest::num::f32::ANY, 0..100)) {
        let mut histogram = ScoreHistogram::default();
        scores.iter().for_each(|&score| histogram.add(score));
        prop_assert_eq!(histogram.total(), scores.len() as u64);
    }
}
