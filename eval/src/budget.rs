//! Whether the alert budget is held on normal data that neither the model nor its calibration saw.

use anyhow::Result;
use vigia_model::budget::Keeper;
use vigia_model::calibration::Calibration;

use crate::row::{Row, Target};

/// Smallest tail of a sequence model's scores that makes sense: a twentieth of a standard deviation.
const LEAST_SCALE: f32 = 0.05;
/// One alarm among so many normal runs is allowed.
const RUNS_AN_ALARM: f64 = 100.0;

/// Realised over allowed alarms for normal runs in the order of the data: calibrated on the training runs'
/// held-out scores and nothing else, which is what agents do; beside it what a [`Keeper`] would realise, which
/// no agent uses yet.
pub fn of_runs(held_out: &[f64], normal: &[f64]) -> Result<Row> {
    let budget = 1.0 / RUNS_AN_ALARM;
    let calibration = Calibration::fit(
        &held_out.iter().map(|&s| s as f32).collect::<Vec<_>>(),
        LEAST_SCALE,
    )?;
    let p_values: Vec<f64> = normal.iter().map(|&s| calibration.p_value(s as f32)).collect();
    let mut keeper = Keeper::new(budget);
    let share = |alarms: usize| alarms as f64 / normal.len() as f64 / budget;
    let kept = share(p_values.iter().filter(|&&p| keeper.alarm(p)).count());
    let alone = share(p_values.iter().filter(|&&p| p < budget).count());
    let peers = [("with a keeper, in no agent yet", kept)];
    Ok(Row::new(
        "budget.realised",
        "realised / budget",
        alone,
        Target::Within(2.0),
        peers,
    )
    .with_parts([("budget, alarms a run".to_owned(), budget)]))
}
