//! Load of machines of a Google cluster, forecast one step and one hour ahead.
//!
//! Features, least absolute deviations, and refitting on all the past every half day were chosen on the last
//! fifth of the training part. The forecaster is fitted on what is known at the time, as it would be at work.

use std::path::Path;

use anyhow::{Context, Result};
use vigia_model::estimators::forecast::Past;
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::forecast;

use crate::data::{Table, stems};
use crate::linear::Autoregression;
use crate::metrics::{mase, mean};
use crate::node;
use crate::row::{Row, Subject, Target};

/// Rows after which the forecaster is fitted again.
const REFIT: usize = 144;
/// Share of the rows to fit on.
const TRAIN: f64 = 0.8;

const NODE: Subject = Subject::Model(&[EstimatorKind::Arima]);
const FORECASTER: Subject = Subject::Library("direct forecaster of a series");

/// Errors over the last fifth: ours, last value, mean of 12, autoregression, and ours had it been fitted to that fifth.
fn errors(series: &[f64], steps: u32) -> Result<[f64; 5]> {
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
    // About the best that one set of weights over the same features could do.
    let oracle = forecast::fit_from(series, split - h, &[steps])?;
    let (mut past, mut known) = (Past::default(), Vec::with_capacity(origins.len()));
    for (at, &value) in series.iter().enumerate() {
        past.push(value);
        if origins.contains(&at) {
            known.push(oracle.forecast(&past, steps));
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
        against(&mut known.into_iter()),
    ])
}

/// Errors one step ahead over the last fifth, of what an artifact trained on the others forecasts: by ARIMA, by ETS; and
/// last value. Nothing is fitted again meanwhile, and what an artifact carries looks no further ahead.
fn errors_on_node(series: &[f64]) -> Result<[f64; 3]> {
    let split = (series.len() as f64 * TRAIN) as usize;
    let kinds = [EstimatorKind::Arima, EstimatorKind::Ets];
    let forecasters = node::Model::train(node::loads(&series[..split]), &kinds)?.forecasters()?;
    let windows = node::loads(series);
    let error = |kind: EstimatorKind| -> Result<f64> {
        let forecast = forecasters.get(kind.as_str()).context("the artifact lacks it")?;
        let expected = windows[split..]
            .iter()
            .map(|(_, context)| node::expected_load(forecast, context))
            .collect::<Option<Vec<f64>>>()
            .context("too little came before")?;
        let truth = series[split..].iter().copied();
        Ok(mase(expected.into_iter().zip(truth), &series[..split]))
    };
    let last = series[split - 1..].iter().zip(&series[split..]);
    Ok([
        error(EstimatorKind::Arima)?,
        error(EstimatorKind::Ets)?,
        mase(last.map(|(before, now)| (*before, *now)), &series[..split]),
    ])
}

/// The rows of this data.
pub fn judge(folder: &Path) -> Result<Vec<Row>> {
    let machines = stems(folder, ".csv.gz")?;
    let mut loads = Vec::with_capacity(machines.len());
    for machine in &machines {
        // Columns: start, finish, CPU, …
        let series = Table::read(&folder.join(format!("{machine}.csv.gz")))?.column(2);
        anyhow::ensure!(series.len() > 1000, "{machine}: too short to judge a forecast by");
        loads.push(series);
    }
    let forecasting = |i: usize| format!("forecasting {}", machines[i]);
    let mut rows = Vec::new();
    for (steps, name, target) in [(1, "cpu.mase_1", 1.05), (12, "cpu.mase_12", 1.25)] {
        let mut all = Vec::new();
        for (i, series) in loads.iter().enumerate() {
            all.push(errors(series, steps).with_context(|| forecasting(i))?);
        }
        let of = |method: usize| mean(&all.iter().map(|e| e[method]).collect::<Vec<_>>());
        let peers = [
            ("last value", of(1)),
            ("mean of 12", of(2)),
            ("autoregression 24", of(3)),
        ];
        rows.push(
            Row::new(name, FORECASTER, "MASE", of(0), Target::Below(target), peers)
                .with_oracle("weights fitted on the test part", of(4))
                .with_parts(machines.iter().cloned().zip(all.iter().map(|e| e[0]))),
        );
    }
    let mut all = Vec::new();
    for (i, series) in loads.iter().enumerate() {
        all.push(errors_on_node(series).with_context(|| forecasting(i))?);
    }
    let of = |method: usize| mean(&all.iter().map(|e| e[method]).collect::<Vec<_>>());
    let peers = [("ets of the same artifact", of(1)), ("last value", of(2))];
    rows.push(
        Row::new("cpu.node.mase_1", NODE, "MASE", of(0), Target::None, peers)
            .with_parts(machines.iter().cloned().zip(all.iter().map(|e| e[0]))),
    );
    Ok(rows)
}
