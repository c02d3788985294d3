//! Load of machines of a Google cluster, forecast one step and one hour ahead.
//!
//! Features, least absolute deviations, and refitting on all the past every half day were chosen on the last
//! fifth of the training part. The forecaster is fitted on what is known at the time, as it would be at work.

use std::path::Path;

use anyhow::{Context, Result};
use vigia_model::estimators::forecast::Past;
use vigia_trainer::estimators::forecast;

use crate::data::{Table, stems};
use crate::linear::Autoregression;
use crate::metrics::{mase, mean};
use crate::row::{Row, Target};

/// Rows after which the forecaster is fitted again.
const REFIT: usize = 144;
/// Share of the rows to fit on.
const TRAIN: f64 = 0.8;

/// Errors over the last fifth: ours, last value, mean of 12, autoregression.
fn errors(series: &[f64], steps: u32) -> Result<[f64; 4]> {
    let h = steps as usize;
    let split = (series.len() as f64 * TRAIN) as usize;
    let train = &series[..split];
    let origins = split - h..series.len() - h;
    let linear = Autoregression::fit(train, 24, h)?;
    let mut ours = Vec::with_capacity(origins.len());
    let (mut past, mut fed) = (Past::default(), 0);
    for chunk in origins.clone().collect::<Vec<_>>().chunks(REFIT) {
        let now = chunk.first().map_or(split, |f| f + 1);
        let fitted = forecast::fit(&series[..now], &[steps])?;
        fitted.check()?;
        for &at in chunk {
            while fed <= at {
                past.push(series[fed]);
                fed += 1;
            }
            ours.push(fitted.forecast(&past, steps));
        }
    }
    let against = |forecasts: &mut dyn Iterator<Item = f64>| {
        mase(forecasts.zip(origins.clone().map(|at| series[at + h])), train)
    };
    Ok([
        against(&mut ours.into_iter()),
        against(&mut origins.clone().map(|at| series[at])),
        against(&mut origins.clone().map(|at| mean(&series[at - 11..=at]))),
        against(&mut origins.clone().map(|at| linear.forecast(series, at))),
    ])
}

/// The rows of this data.
pub fn judge(folder: &Path) -> Result<Vec<Row>> {
    let machines = stems(folder, ".csv.gz")?;
    let mut rows = Vec::new();
    for (steps, name, target) in [(1, "cpu.mase_1", 1.05), (12, "cpu.mase_12", 1.25)] {
        let mut all = Vec::new();
        for machine in &machines {
            // Columns: start, finish, CPU, …
            let series = Table::read(&folder.join(format!("{machine}.csv.gz")))?.column(2);
            anyhow::ensure!(series.len() > 1000, "{machine}: too short to judge a forecast by");
            all.push(errors(&series, steps).with_context(|| format!("forecasting {machine}"))?);
        }
        let of = |method: usize| mean(&all.iter().map(|e| e[method]).collect::<Vec<_>>());
        let parts = machines.iter().cloned().zip(all.iter().map(|e| e[0]));
        rows.push(
            Row::new(
                name,
                "MASE",
                of(0),
                Target::Below(target),
                [
                    ("last value", of(1)),
                    ("mean of 12", of(2)),
                    ("autoregression 24", of(3)),
                ],
            )
            .with_parts(parts),
        );
    }
    Ok(rows)
}
