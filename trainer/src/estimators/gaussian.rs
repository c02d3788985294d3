//! Gaussian mixtures by expectation and maximisation (Dempster, Laird and Rubin, J. R. Stat. Soc. B 39, 1977), with the
//! number of components by cross-validated likelihood.
//!
//! It climbs from k-means' clusters, or from where a few rounds lead higher from rows that were drawn (Biernacki, Celeux and
//! Govaert, Comput. Stat. Data Anal. 41, 2003): of rows with long tails k-means makes a few clusters of one row each.
//!
//! Own code, in f64: aprender's breaks at 32 dimensions. Each covariance is held above `regular` on its diagonal,
//! which is also what makes features that never vary harmless.

use nalgebra::{Cholesky, DMatrix};
use vigia_model::estimators::gaussian::{Component, GaussianMixture, MAX_COMPONENTS, MAX_FACTOR};
use vigia_model::estimators::kmeans::KMeans;
use vigia_model::estimators::table::Table;

use super::EstimatorError;
use super::folds::folds;
use super::kmeans::{self, subsample};
use crate::forest::Draw;

/// Most components that [`best`] tries.
const TRIED: usize = 4;
/// Parts of the cross-validation.
const FOLDS: usize = 3;
/// Rows that the mixture is fitted to, and rows that the number of components is chosen on: the work grows with
/// the square of the width.
const ROWS: usize = 2_048;
const CHOOSING: usize = 600;
/// Most rounds, and the gain of the mean log-likelihood below which they end.
const ROUNDS: usize = 200;
const GAIN: f64 = 1e-6;
/// Rounds that are enough for a choice.
const FEW_ROUNDS: usize = 30;
/// Starts from rows that were drawn.
const DRAWN: usize = 6;
/// Rows a component must have for more of them to be tried.
const LEAST_ROWS: usize = 10;

/// Fits `k` components, or as many as there are different rows; and the mean log-likelihood of the rows.
///
/// # Errors
/// Fewer than two rows, k outside 1 to [`MAX_COMPONENTS`], or rows whose covariance has no factor.
pub fn fit(
    rows: &Table,
    k: usize,
    regular: f64,
    seed: u64,
) -> Result<(GaussianMixture, f64), EstimatorError> {
    let (labels, k) = clustered(rows, k, seed)?;
    let start = |labels: &[usize]| climb(rows, labelled(rows, labels, k, regular)?, regular, FEW_ROUNDS);
    let mut best = start(&labels)?;
    let mut draw = Draw::new(seed, 1 << 51);
    for _ in 0..if k > 1 { DRAWN } else { 0 } {
        let drawn = draw.sample(rows.len(), k);
        let centres = drawn.iter().flat_map(|&i| rows.row(i as usize)).copied();
        let near = KMeans {
            centres: Table::new(rows.width(), centres.collect()),
        };
        let labels: Vec<usize> = rows.rows().map(|row| near.nearest(row).0).collect();
        // A start that leads nowhere is none.
        if let Ok(found) = start(&labels)
            && found.1 > best.1
        {
            best = found;
        }
    }
    let (parts, likelihood) = climb(rows, best.0, regular, ROUNDS)?;
    Ok((mixture(parts), likelihood))
}

/// The number of components with the largest likelihood of rows that were not fitted to, the mixture of so many, and
/// that mean log-likelihood.
///
/// # Errors
/// As [`fit`].
pub fn best(rows: &Table, regular: f64, seed: u64) -> Result<(GaussianMixture, f64), EstimatorError> {
    let chosen = subsample(rows, CHOOSING, seed);
    let mut choice = (1, f64::NEG_INFINITY);
    for k in 1..=TRIED {
        if k > 1 && chosen.len() < k * LEAST_ROWS {
            break;
        }
        let held_out = cross_validated(&chosen, k, regular, seed)?;
        if held_out > choice.1 {
            choice = (k, held_out);
        }
    }
    let (mixture, _) = fit(&subsample(rows, ROWS, seed), choice.0, regular, seed)?;
    Ok((mixture, choice.1))
}

fn cross_validated(rows: &Table, k: usize, regular: f64, seed: u64) -> Result<f64, EstimatorError> {
    let pick = |places: &[usize]| {
        Table::new(
            rows.width(),
            places.iter().flat_map(|&i| rows.row(i)).copied().collect(),
        )
    };
    let mut sum = 0.0;
    for (train, test) in folds(rows.len(), FOLDS, seed) {
        if train.len() < 2 {
            continue;
        }
        let train = pick(&train);
        let (labels, k) = clustered(&train, k, seed)?;
        let (parts, _) = climb(
            &train,
            labelled(&train, &labels, k, regular)?,
            regular,
            FEW_ROUNDS,
        )?;
        let mixture = mixture(parts);
        sum += pick(&test)
            .rows()
            .map(|row| f64::from(mixture.log_density(row, &mut [])))
            .sum::<f64>();
    }
    Ok(sum / rows.len() as f64)
}

/// A component in f64.
struct Part {
    weight: f64,
    mean: Vec<f64>,
    /// Lower triangle of L⁻¹, row by row.
    factor: Vec<f64>,
    log_det: f64,
}

/// The cluster of each row, and how many there are.
fn clustered(rows: &Table, k: usize, seed: u64) -> Result<(Vec<usize>, usize), EstimatorError> {
    if !(1..=MAX_COMPONENTS).contains(&k) {
        return Err(EstimatorError::Setting(
            "gaussian-mixture: the number of components must be between 1 and 16",
        ));
    }
    let found = kmeans::fit(rows, k.max(2), seed)?;
    let k = k.min(found.model.centres.len());
    Ok((found.labels.iter().map(|&label| label.min(k - 1)).collect(), k))
}

/// The components whose rows are those of each label.
fn labelled(rows: &Table, labels: &[usize], k: usize, regular: f64) -> Result<Vec<Part>, EstimatorError> {
    let mut shares = vec![0.0; rows.len() * k];
    labels
        .iter()
        .enumerate()
        .for_each(|(i, &label)| shares[i * k + label] = 1.0);
    maximised(rows, &shares, k, regular)
}

/// The components that so many rounds lead to, and the mean log-likelihood of the rows before the last of them.
fn climb(
    rows: &Table,
    mut parts: Vec<Part>,
    regular: f64,
    rounds: usize,
) -> Result<(Vec<Part>, f64), EstimatorError> {
    let mut shares = vec![0.0; rows.len() * parts.len()];
    let mut before = f64::NEG_INFINITY;
    for _ in 0..rounds {
        let now = expected(rows, &parts, &mut shares);
        let gained = now - before;
        before = now;
        if gained < GAIN {
            break;
        }
        parts = maximised(rows, &shares, parts.len(), regular)?;
    }
    Ok((parts, before))
}

fn mixture(parts: Vec<Part>) -> GaussianMixture {
    let component = |part: Part| Component {
        log_weight: (part.weight.ln() as f32).clamp(-1e3, 0.0),
        mean: part.mean.iter().map(|&x| x as f32).collect(),
        factor: part
            .factor
            .iter()
            .map(|&x| (x as f32).clamp(-MAX_FACTOR, MAX_FACTOR))
            .collect(),
    };
    GaussianMixture {
        components: parts.into_iter().map(component).collect(),
    }
}

/// Each row's share in each component, and the mean log-likelihood.
fn expected(rows: &Table, parts: &[Part], shares: &mut [f64]) -> f64 {
    let mut centred = vec![0.0; rows.width()];
    let mut sum = 0.0;
    for (row, shares) in rows.rows().zip(shares.chunks_exact_mut(parts.len())) {
        for (share, part) in shares.iter_mut().zip(parts) {
            for (c, (&x, mean)) in centred.iter_mut().zip(row.iter().zip(&part.mean)) {
                *c = f64::from(x) - mean;
            }
            let (mut rest, mut squares) = (&part.factor[..], 0.0);
            for i in 0..row.len() {
                let (line, after) = rest.split_at(i + 1);
                let along: f64 = line.iter().zip(&centred).map(|(a, b)| a * b).sum();
                squares += along * along;
                rest = after;
            }
            let normal = 0.5 * std::f64::consts::TAU.ln() * row.len() as f64;
            *share = part.weight.ln() + part.log_det - 0.5 * squares - normal;
        }
        let most = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let whole: f64 = shares.iter().map(|log| (log - most).exp()).sum();
        shares
            .iter_mut()
            .for_each(|log| *log = (*log - most).exp() / whole);
        sum += most + whole.ln();
    }
    sum / rows.len() as f64
}

/// The components that the shares make likeliest.
fn maximised(rows: &Table, shares: &[f64], k: usize, regular: f64) -> Result<Vec<Part>, EstimatorError> {
    (0..k)
        .map(|part| {
            let own = || shares.iter().skip(part).step_by(k);
            maximised_one(rows, own, regular).ok_or(EstimatorError::Singular("gaussian-mixture"))
        })
        .collect()
}

fn maximised_one<'a, I: Iterator<Item = &'a f64>>(
    rows: &Table,
    shares: impl Fn() -> I,
    regular: f64,
) -> Option<Part> {
    let width = rows.width();
    // As scikit-learn: a component that lost its rows does not divide by zero.
    let whole = shares().sum::<f64>() + 10.0 * f64::EPSILON;
    let mut mean = vec![0.0; width];
    for (row, share) in rows.rows().zip(shares()) {
        mean.iter_mut()
            .zip(row)
            .for_each(|(m, &x)| *m += share * f64::from(x));
    }
    mean.iter_mut().for_each(|m| *m /= whole);
    let mut covariance = DMatrix::<f64>::zeros(width, width);
    let mut centred = vec![0.0; width];
    for (row, &share) in rows.rows().zip(shares()).filter(|(_, share)| **share > 1e-12) {
        for (c, (&x, mean)) in centred.iter_mut().zip(row.iter().zip(&mean)) {
            *c = f64::from(x) - mean;
        }
        for j in 0..width {
            let scaled = share * centred[j];
            let column = &mut covariance.as_mut_slice()[j * width + j..(j + 1) * width];
            column
                .iter_mut()
                .zip(&centred[j..])
                .for_each(|(sum, c)| *sum += scaled * c);
        }
    }
    covariance /= whole;
    for i in 0..width {
        covariance[(i, i)] += regular;
    }
    // Only the lower triangle is filled, and only that is read.
    let lower = Cholesky::new(covariance)?.l();
    let inverse = lower.solve_lower_triangular(&DMatrix::identity(width, width))?;
    let factor = (0..width)
        .flat_map(|i| (0..=i).map(move |j| (i, j)))
        .map(|at| inverse[at])
        .collect();
    let log_det = (0..width).map(|i| inverse[(i, i)].ln()).sum();
    Some(Part {
        weight: whole / rows.len() as f64,
        mean,
        factor,
        log_det,
    })
}
