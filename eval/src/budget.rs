//! Whether the alert budget is held on normal data that neither the model nor its calibration saw.

use anyhow::Result;
use vigia_model::budget::{Pool, Rule, Scored, Stream, Told};
use vigia_model::calibration::{AlertBudget, Calibration, calibrated};

use crate::row::{Row, Subject, Target};

/// Smallest tail of a sequence model's scores that makes sense: a twentieth of a standard deviation.
const LEAST_SCALE: f32 = 0.05;
/// One alert among so many normal runs is allowed.
const RUNS_AN_ALERT: f64 = 100.0;

/// Realised over allowed alerts for normal runs in the order of the data, calibrated on the training runs'
/// held-out scores: by what agents decide with, of which a run is one window of one container. Every run that is told
/// counts, also where it goes on with an alert; beside it those that begin one, and what calibration alone would tell.
pub fn of_runs(held_out: &[f64], normal: &[f64]) -> Result<Row> {
    let budget = AlertBudget {
        count: 1.0,
        period_s: RUNS_AN_ALERT,
        containers: 1.0,
    };
    let rule = Rule::new(&budget, 1.0, 1);
    let calibration = Calibration::fit(
        &held_out.iter().map(|&s| s as f32).collect::<Vec<_>>(),
        LEAST_SCALE,
    )?;
    let (mut stream, mut pool) = (Stream::fresh(&rule), Pool::new(1));
    let (mut told, mut begun, mut below) = (0, 0, 0);
    for &run in normal {
        let p = calibration.p_value(run as f32);
        let window = Scored {
            p,
            score: calibrated(p),
            counts: true,
            settled: true,
            started_ms: 0,
        };
        let one = stream.window(&rule, &mut pool, &window);
        told += usize::from(one.is_alert());
        begun += usize::from(one == Told::Begins);
        below += usize::from(p * RUNS_AN_ALERT < 1.0);
    }
    let share = |alerts: usize| alerts as f64 / normal.len() as f64 * RUNS_AN_ALERT;
    let peers = [("calibration alone", share(below))];
    Ok(Row::new(
        "budget.realised",
        Subject::Library("sequence model of whole traces, told by the agents' own rule"),
        "runs told / budget",
        share(told),
        Target::Within(2.0),
        peers,
    )
    .with_parts([
        ("budget, alerts a run".to_owned(), 1.0 / RUNS_AN_ALERT),
        ("alerts begun / budget".to_owned(), share(begun)),
    ]))
}
