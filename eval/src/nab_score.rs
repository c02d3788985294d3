//! The score of the Numenta Anomaly Benchmark, standard profile.
//!
//! After Lavin and Ahmad, "Evaluating real-time anomaly detection algorithms" (ICMLA 2015). An alarm within a
//! window counts by where it lies: σ(y) = 2 / (1 + e^5y) − 1, with y from −1 at the window's start to 0 at its
//! end, over its value at −1; only the window's first alarm counts. An alarm outside costs 0.11, scaled down
//! just after a window by the same curve with y = rows past its end over its width − 1 (−1 beyond y = 3, and
//! before the first window). A window without an alarm costs 1. The score of a set of files is
//! 100 · (sum + windows) / (2 · windows): 0 is a detector that never fires, 100 a perfect one. Alarms in the
//! first 15 % of a file, at most 750 rows, are passed over.

/// What an alarm outside the windows costs.
const FALSE_POSITIVE: f64 = 0.11;

/// Rows of a file that are not scored.
pub fn probation(rows: usize) -> usize {
    ((0.15 * rows as f64).floor() as usize).min(750)
}

fn sigmoid(y: f64) -> f64 {
    if y > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + (5.0 * y).exp()) - 1.0
    }
}

/// What one file adds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct FileScore {
    /// Sum of its alarms' and missed windows' scores.
    pub sum: f64,
    /// Windows it has.
    pub windows: usize,
    /// Windows with an alarm.
    pub found: usize,
    /// Alarms outside windows.
    pub false_alarms: usize,
    /// Rows from the windows' starts to their first alarms, added up.
    pub delay_rows: usize,
}

/// Scores a file of `rows` rows: `windows` as first and last row, in order; `alarms` as rows, in order.
pub fn file(rows: usize, windows: &[(usize, usize)], alarms: &[usize]) -> FileScore {
    let mut score = FileScore {
        windows: windows.len(),
        ..FileScore::default()
    };
    let mut hit = vec![false; windows.len()];
    for &at in alarms.iter().filter(|&&a| a >= probation(rows)) {
        if let Some(w) = windows.iter().position(|&(from, to)| (from..=to).contains(&at)) {
            let (from, to) = windows[w];
            if !std::mem::replace(&mut hit[w], true) {
                let width = (to - from + 1) as f64;
                score.sum += sigmoid(-((to - at + 1) as f64) / width) / sigmoid(-1.0);
                score.found += 1;
                score.delay_rows += at - from;
            }
            continue;
        }
        let y = windows
            .iter()
            .rev()
            .find(|w| w.1 < at)
            // A window of one row has no width to measure by: an alarm after it is plainly false.
            .map_or(f64::INFINITY, |&(from, to)| (at - to) as f64 / (to - from) as f64);
        score.sum += FALSE_POSITIVE * sigmoid(y);
        score.false_alarms += 1;
    }
    score.sum -= (score.windows - score.found) as f64;
    score
}

/// The score of a set of files.
pub fn normalised(files: &[FileScore]) -> f64 {
    let windows = files.iter().map(|f| f.windows).sum::<usize>() as f64;
    let sum: f64 = files.iter().map(|f| f.sum).sum();
    100.0 * (sum + windows) / (2.0 * windows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn silence_is_0_and_the_first_row_of_each_window_100() {
        let windows = [(300, 399), (700, 799)];
        assert_eq!(normalised(&[file(1000, &windows, &[])]), 0.0);
        assert_eq!(normalised(&[file(1000, &windows, &[300, 700])]), 100.0);
    }

    #[test]
    fn alarms_by_hand() {
        let windows = [(300, 399)];
        // Before any window: the full cost.
        assert!((file(1000, &windows, &[200]).sum - (-1.0 - 0.11)).abs() < 1e-12);
        // In probation: nothing.
        assert_eq!(file(1000, &windows, &[149]).sum, -1.0);
        // In the middle: y = -50/100.
        let middle = (2.0 / (1.0 + (-2.5f64).exp()) - 1.0) / (2.0 / (1.0 + (-5.0f64).exp()) - 1.0);
        assert!((file(1000, &windows, &[350]).sum - middle).abs() < 1e-12);
        // Just after: y = 10/99; far after: the full cost.
        let after = 0.11 * (2.0 / (1.0 + (50.0f64 / 99.0).exp()) - 1.0);
        assert!((file(1000, &windows, &[409]).sum - (after - 1.0)).abs() < 1e-12);
        assert!((file(1000, &windows, &[900]).sum - (-0.11 - 1.0)).abs() < 1e-12);
    }

    #[test]
    fn agrees_with_a_plain_python_reading() {
        #[derive(serde::Deserialize)]
        struct Fixture {
            rows: usize,
            windows: Vec<(usize, usize)>,
            alarms: Vec<usize>,
            sum: f64,
        }
        let fixtures: Vec<Fixture> = serde_json::from_str(include_str!("../tests/fixtures/nab.json"))
            .expect("the script writes it so");
        assert!(fixtures.len() >= 5);
        for f in fixtures {
            let got = file(f.rows, &f.windows, &f.alarms).sum;
            assert!((got - f.sum).abs() < 1e-9, "{got} {}", f.sum);
        }
    }

    proptest! {
        #[test]
        fn within_bounds(alarms in prop::collection::btree_set(0usize..2000, 0..40)) {
            let alarms: Vec<usize> = alarms.into_iter().collect();
            let score = file(2000, &[(500, 599), (900, 1099)], &alarms);
            prop_assert!(score.sum <= 2.0 + 1e-12);
            prop_assert!(score.sum >= -2.0 - 0.11 * alarms.len() as f64);
        }

        #[test]
        fn an_earlier_alarm_is_worth_more(a in 500usize..699, by in 1usize..100) {
            let windows = [(500, 799)];
            prop_assert!(file(2000, &windows, &[a]).sum > file(2000, &windows, &[a + by]).sum);
        }

        #[test]
        fn only_the_first_alarm_in_a_window_counts(a in 500usize..799, more in prop::collection::btree_set(500usize..800, 0..9)) {
            let windows = [(500, 799)];
            let later: Vec<usize> = [a].into_iter().chain(more.into_iter().filter(|m| *m > a)).collect();
            prop_assert_eq!(file(2000, &windows, &later).sum, file(2000, &windows, &[a]).sum);
        }
    }
}
