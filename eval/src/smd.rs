//! Server Machine Dataset: anomalies of 38 metrics of a machine.
//!
//! Each machine is fitted on its own train file. The half-life of a day, Huber's bound and the README's ten
//! rows of smoothing were set before; that magnitude, breadth and relation are added was seen to help on
//! these labels, their equal weights were not tuned.

use std::path::Path;

use anyhow::{Context, Result};
use nalgebra::DMatrix;
use vigia_trainer::estimators::tracked::{self, Settings};

use crate::data::{Table, stems};
use crate::linear::pca_errors;
use crate::metrics::{average_precision, mean};
use crate::row::{Row, Subject, Target};

const TRACKED: Subject = Subject::Library("tracked detector of a machine's metrics");

/// Rows that the baselines are averaged over.
const SMOOTHING: usize = 10;

fn trailing_mean(values: &[f64]) -> Vec<f64> {
    (0..values.len())
        .map(|i| mean(&values[(i + 1).saturating_sub(SMOOTHING)..=i]))
        .collect()
}

/// Rows in standard deviations of `train`, clipped at 100: what the baselines score.
fn standardised(train: &Table, rows: &Table) -> DMatrix<f64> {
    let n = train.rows().len() as f64;
    let scales: Vec<(f64, f64)> = (0..train.width)
        .map(|j| {
            let column = train.column(j);
            let mean = mean(&column);
            let deviation = (column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
            (mean, if deviation > 1e-9 { deviation } else { 1.0 })
        })
        .collect();
    DMatrix::from_row_iterator(
        rows.rows().len(),
        rows.width,
        rows.rows().flat_map(|r| {
            r.iter()
                .zip(&scales)
                .map(|(x, (m, s))| ((x - m) / s).clamp(-100.0, 100.0))
        }),
    )
}

/// The rows of this data.
pub fn judge(folder: &Path) -> Result<Vec<Row>> {
    let machines = stems(folder, ".train.csv.gz")?;
    let (mut ours, mut squares, mut smoothed, mut pca) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for machine in &machines {
        let read = |part: &str| Table::read(&folder.join(format!("{machine}.{part}.csv.gz")));
        let (train, test) = (read("train")?, read("test")?);
        let labels: Vec<bool> = read("test_label")?.column(0).iter().map(|&l| l > 0.5).collect();
        anyhow::ensure!(
            train.width == test.width && labels.len() == test.rows().len(),
            "{machine}: train, test and labels do not fit each other"
        );
        let model = tracked::fit(&train.values, train.width, Settings::default())
            .with_context(|| format!("fitting to {machine}"))?;
        model.check()?;
        let mut stream = model.start();
        let scores: Vec<f64> = test.rows().map(|r| stream.push(r)).collect();
        ours.push(average_precision(&scores, &labels));

        let (train, test) = (standardised(&train, &train), standardised(&train, &test));
        let plain: Vec<f64> = (0..test.nrows()).map(|i| test.row(i).norm_squared()).collect();
        squares.push(average_precision(&plain, &labels));
        smoothed.push(average_precision(&trailing_mean(&plain), &labels));
        pca.push(average_precision(
            &trailing_mean(&pca_errors(&train, &test, 5)),
            &labels,
        ));
    }
    let peers = [
        ("sum of squares", mean(&squares)),
        ("sum of squares, mean of 10", mean(&smoothed)),
        ("PCA 5, mean of 10", mean(&pca)),
    ];
    let parts = machines.into_iter().zip(ours.iter().copied());
    Ok(vec![
        Row::new(
            "smd.auc_pr",
            TRACKED,
            "average precision",
            mean(&ours),
            Target::AtLeast(0.50),
            peers,
        )
        .with_parts(parts),
    ])
}
