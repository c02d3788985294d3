//! Whether the alert budget is held on normal data that neither the model nor its calibration saw.

use anyhow::Result;
use vigia_model::calibration::{AlertBudget, Calibration, calibrated};

use crate::row::{Row, Target};

/// Smallest tail of a sequence model's scores that makes sense: a twentieth of a standard deviation.
const LEAST_SCALE: f32 = 0.05;
/// One alarm among so many normal runs is allowed.
const RUNS_AN_ALARM: f64 = 100.0;

/// Realised over allowed alarms for runs of calls: calibrated on the training runs' held-out scores.
pub fn of_runs(held_out: &[f64], normal: &[f64]) -> Result<Row> {
    let calibration = Calibration::fit(
        &held_out.iter().map(|&s| s as f32).collect::<Vec<_>>(),
        LEAST_SCALE,
    )?;
    // A run takes the place of a window: one "second" each.
    let threshold = AlertBudget {
        count: 1.0,
        period_s: RUNS_AN_ALARM,
        containers: 1.0,
    }
    .threshold(1.0, 1, 1.0);
    let alarms = normal
        .iter()
        .filter(|&&s| calibrated(calibration.p_value(s as f32)) >= threshold)
        .count();
    let realised = alarms as f64 / normal.len() as f64;
    Ok(Row::new(
        "budget.realised",
        "realised / budget",
        realised * RUNS_AN_ALARM,
        Target::Within(2.0),
        [],
    )
    .with_parts([
        ("budget".to_owned(), 1.0 / RUNS_AN_ALARM),
        ("realised".to_owned(), realised),
    ]))
}
