//! Fits tracked deviations to the rows of a normal time.

use nalgebra::{Cholesky, DMatrix};
use vigia_model::estimators::tracked::{CLIPS, MAX_SMOOTHING, MAX_WIDTH, Tracked, VIEWS, ViewScale};

use super::EstimatorError;

const NAME: &str = "tracked deviations";
/// Fewest rows to fit to.
pub const MIN_ROWS: usize = 100;
/// Smallest standard deviation, for metrics scaled to 0..1: a metric that is constant in training is anomalous
/// when it moves by more than a thousandth of its range, and not before.
const LEAST_DEVIATION: f64 = 1e-3;
/// What is added to the correlation's diagonal. With thousands of rows the sample is not the problem; relations
/// that hold to within a tenth of a deviation by accident of the training data are.
const SHRINKAGE: f64 = 0.1;
/// Standard deviations at which an innovation is clipped: Huber's bound for three normal deviations.
const INNOVATION: f64 = 3.0;

/// How to track and smooth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Rows after which half of an old level is forgotten. A day: far longer than an incident, shorter than drift.
    pub half_life: f64,
    /// Rows that a score is averaged over.
    pub smoothing: u32,
}

impl Default for Settings {
    /// For a row a minute.
    fn default() -> Self {
        Self {
            half_life: 1440.0,
            smoothing: 10,
        }
    }
}

/// Fits to rows in time order, `width` values each.
///
/// # Errors
/// Too few rows, values that are not finite or do not make rows, settings out of range.
pub fn fit(rows: &[f64], width: usize, settings: Settings) -> Result<Tracked, EstimatorError> {
    if width == 0
        || width > MAX_WIDTH
        || !rows.len().is_multiple_of(width)
        || rows.iter().any(|x| !x.is_finite())
    {
        return Err(EstimatorError::Shape(NAME));
    }
    let n = rows.len() / width;
    if n < MIN_ROWS {
        return Err(EstimatorError::TooFew {
            estimator: NAME,
            least: MIN_ROWS,
            unit: "rows",
            got: n,
        });
    }
    // A NaN is not above 1 either.
    let tracks = settings.half_life > 1.0;
    if !tracks || !(1..=MAX_SMOOTHING as u32).contains(&settings.smoothing) {
        return Err(EstimatorError::Setting(
            "tracked deviations: a half-life above 1 row and smoothing over 1 to 64 rows are needed",
        ));
    }
    let column = |j: usize| rows.iter().skip(j).step_by(width);
    let mean: Vec<f64> = (0..width).map(|j| column(j).sum::<f64>() / n as f64).collect();
    let deviation: Vec<f64> = (0..width)
        .map(|j| {
            let variance = column(j).map(|x| (x - mean[j]).powi(2)).sum::<f64>() / n as f64;
            variance.sqrt().max(LEAST_DEVIATION)
        })
        .collect();
    let whitening = whitening(rows, &mean, &deviation).ok_or(EstimatorError::Singular(NAME))?;
    let mut model = Tracked {
        mean,
        deviation,
        whitening,
        rate: 1.0 - 0.5f64.powf(1.0 / settings.half_life),
        innovation: INNOVATION,
        smoothing: settings.smoothing,
        scales: [ViewScale {
            median: 0.0,
            q99: 1.0,
        }; VIEWS],
    };
    model.scales = scales(&model, rows);
    Ok(model)
}

/// The inverse of the Cholesky factor of C + λI, row by row.
fn whitening(rows: &[f64], mean: &[f64], deviation: &[f64]) -> Option<Vec<f64>> {
    let (width, clip) = (mean.len(), CLIPS[VIEWS - 1]);
    let n = rows.len() / width;
    let standard = DMatrix::from_fn(n, width, |i, j| {
        ((rows[i * width + j] - mean[j]) / deviation[j]).clamp(-clip, clip)
    });
    let centre = standard.row_mean();
    let mut covariance = standard.tr_mul(&standard) / n as f64 - centre.tr_mul(&centre);
    for j in 0..width {
        covariance[(j, j)] += SHRINKAGE;
    }
    let lower = Cholesky::new(covariance)?.l();
    let inverse = lower.solve_lower_triangular(&DMatrix::identity(width, width))?;
    // nalgebra keeps columns together: the transpose's columns are the rows.
    Some(inverse.transpose().as_slice().to_vec())
}

/// Where the views lie in training.
fn scales(model: &Tracked, rows: &[f64]) -> [ViewScale; VIEWS] {
    let mut stream = model.start();
    let views: Vec<[f64; VIEWS]> = rows
        .chunks_exact(model.width())
        .map(|row| stream.views(row))
        .collect();
    std::array::from_fn(|v| {
        let mut values: Vec<f64> = views.iter().map(|x| x[v]).collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
        ViewScale {
            median: at(0.5),
            q99: at(0.99).max(1e-9),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two metrics that move together and one on its own, deterministic.
    fn rows(n: usize) -> Vec<f64> {
        (0..n)
            .flat_map(|i| {
                let wave = (i as f64 * 0.1).sin();
                let noise = |k: usize| ((i * k) % 97) as f64 / 97.0 - 0.5;
                [wave + 0.1 * noise(31), 2.0 * wave + 0.1 * noise(57), noise(13)]
            })
            .collect()
    }

    #[test]
    fn a_broken_relation_is_seen_before_a_usual_value() {
        let model = fit(&rows(4000), 3, Settings::default()).expect("good rows");
        assert_eq!(model.check(), Ok(()));
        let relation = |row: &[f64]| model.start().views(row)[2];
        // Each value is ordinary; together the first two never are.
        assert!(relation(&[0.9, -1.8, 0.0]) > 5.0 * relation(&[0.9, 1.8, 0.0]));
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(fit(&[], 0, Settings::default()).is_err());
        assert!(fit(&rows(99), 3, Settings::default()).is_err());
        assert!(fit(&rows(200)[1..], 3, Settings::default()).is_err());
        let mut bad = rows(200);
        bad[7] = f64::NAN;
        assert!(fit(&bad, 3, Settings::default()).is_err());
        for settings in [
            Settings {
                half_life: f64::NAN,
                smoothing: 10,
            },
            Settings {
                half_life: 100.0,
                smoothing: 0,
            },
        ] {
            assert!(fit(&rows(200), 3, settings).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn what_is_fitted_passes_its_own_check(values in prop::collection::vec(-1e3..1e3f64, 400), width in 1usize..4) {
            let values = &values[..400 / width * width];
            let model = fit(values, width, Settings::default()).expect("good rows");
            prop_assert_eq!(model.check(), Ok(()));
        }

        #[test]
        fn constant_metrics_are_no_trouble(level in -1e3..1e3f64) {
            let model = fit(&vec![level; 300], 3, Settings::default()).expect("good rows");
            prop_assert_eq!(model.check(), Ok(()));
            prop_assert!(model.start().push(&[level, level + 1.0, level]) > model.start().push(&[level; 3]));
        }

        #[test]
        fn scale_of_a_metric_does_not_matter(by in 2.0..64.0f64) {
            let plain = rows(400);
            let scaled: Vec<f64> = plain.iter().map(|x| x * by).collect();
            let a = fit(&plain, 3, Settings::default()).expect("good rows");
            let b = fit(&scaled, 3, Settings::default()).expect("good rows");
            let (a, b) = (a.start().push(&[3.0, 1.0, 0.2]), b.start().push(&[3.0 * by, by, 0.2 * by]));
            prop_assert!((a - b).abs() < 1e-6, "{} {}", a, b);
        }

        #[test]
        fn ordinary_rows_score_below_wild_ones(i in 0usize..1000, far in 20.0..1e6f64) {
            let all = rows(2000);
            let model = fit(&all, 3, Settings::default()).expect("good rows");
            let usual = model.start().push(&all[i * 3..i * 3 + 3]);
            prop_assert!(model.start().push(&[far, -far, far]) > usual);
        }

        #[test]
        fn the_same_rows_make_the_same_model(n in 100usize..300) {
            prop_assert_eq!(fit(&rows(n), 3, Settings::default()), fit(&rows(n), 3, Settings::default()));
        }
    }
}
