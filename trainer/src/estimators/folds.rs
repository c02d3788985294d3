//! K-fold cross-validation: each row is tested once, by what was trained on the others.

use crate::forest::Draw;

/// A training and a test part, as places of rows.
pub type Fold = (Vec<usize>, Vec<usize>);

/// `folds` parts of `rows` rows, drawn, as even as can be; as many as there are rows where there are fewer.
pub fn folds(rows: usize, folds: usize, seed: u64) -> Vec<Fold> {
    let folds = folds.min(rows);
    let mut order: Vec<usize> = (0..rows).collect();
    let mut draw = Draw::new(seed, 1 << 45);
    for last in (1..rows).rev() {
        order.swap(last, draw.below(last + 1));
    }
    let mut place = vec![0; rows];
    order
        .iter()
        .enumerate()
        .for_each(|(i, &row)| place[row] = i % folds);
    (0..folds)
        .map(|fold| (0..rows).partition(|&row| place[row] != fold))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_tested_once_and_never_trained_on_in_that_fold() {
        for (rows, parts) in [(0, 3), (1, 3), (7, 3), (100, 5)] {
            let all = folds(rows, parts, 1);
            assert_eq!(all.len(), parts.min(rows));
            let mut tested = vec![0; rows];
            for (train, test) in &all {
                assert_eq!(train.len() + test.len(), rows);
                assert!(test.iter().all(|row| !train.contains(row)));
                assert!(test.len() >= rows / parts && test.len() <= rows.div_ceil(parts));
                test.iter().for_each(|&row| tested[row] += 1);
            }
            assert!(tested.iter().all(|&n| n == 1));
        }
        assert_eq!(folds(50, 5, 1), folds(50, 5, 1));
        assert_ne!(folds(50, 5, 1), folds(50, 5, 2));
    }
}
