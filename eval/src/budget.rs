//! Whether the alert budget is held on normal data that neither the model nor its calibration saw.

use anyhow::Result;
use vigia_model::budget::{Pool, Rule, Scored, Stream, Told};
use vigia_model::calibration::{AlertBudget, Calibration, calibrated};
use vigia_model::pipeline::EstimatorKind;

use crate::row::{Row, Subject, Target};

/// Smallest tail of a sequence model's scores that makes sense: a twentieth of a standard deviation.
const LEAST_SCALE: f32 = 0.05;
/// One alert among so many normal runs, or windows, is allowed.
const AN_ALERT: f64 = 100.0;

/// What p-values come to, as shares of the budget.
struct Realised {
    /// Told by the agents' rule, also where an alert goes on.
    told: f64,
    /// Of these, those that begin one: at most the budget and three more, however p-values are, as the rule's keeper
    /// withholds the rest.
    begun: f64,
    /// What calibration alone would tell. Nothing bounds it.
    calibrated: f64,
}

/// Of windows of one container, in this order.
fn realised(p_values: &[f64]) -> Realised {
    let budget = AlertBudget {
        count: 1.0,
        period_s: AN_ALERT,
        containers: 1.0,
    };
    let rule = Rule::new(&budget, 1.0, 1);
    let (mut stream, mut pool) = (Stream::fresh(&rule), Pool::new(1));
    let (mut told, mut begun, mut below) = (0, 0, 0);
    for &p in p_values {
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
        below += usize::from(p * AN_ALERT < 1.0);
    }
    let share = |alerts: usize| alerts as f64 / p_values.len().max(1) as f64 * AN_ALERT;
    Realised {
        told: share(told),
        begun: share(begun),
        calibrated: share(below),
    }
}

/// What a node makes of normal windows that its model never saw: what calibration alone would tell is judged, since the
/// agents' keeper holds the budget from above whatever is calibrated.
pub fn of_windows(kinds: &'static [EstimatorKind], p_values: &[f64]) -> Row {
    let found = realised(p_values);
    Row::new(
        "budget.node",
        Subject::Model(kinds),
        "windows below the budget's p / budget",
        found.calibrated,
        Target::Within(2.0),
        [(
            "told by the agents' rule, its keeper a bound from above",
            found.told,
        )],
    )
    .with_parts([
        ("budget, alerts a window".to_owned(), 1.0 / AN_ALERT),
        ("alerts begun / budget".to_owned(), found.begun),
        ("windows".to_owned(), p_values.len() as f64),
    ])
}

/// Realised over allowed alerts for normal runs in the order of the data, calibrated on the training runs'
/// held-out scores: by what agents decide with, of which a run is one window of one container. Every run that is told
/// counts, also where it goes on with an alert; beside it those that begin one, and what calibration alone would tell.
pub fn of_runs(held_out: &[f64], normal: &[f64]) -> Result<Row> {
    let calibration = Calibration::fit(
        &held_out.iter().map(|&s| s as f32).collect::<Vec<_>>(),
        LEAST_SCALE,
    )?;
    let p_values: Vec<f64> = normal
        .iter()
        .map(|&run| calibration.p_value(run as f32))
        .collect();
    let found = realised(&p_values);
    let peers = [("calibration alone", found.calibrated)];
    Ok(Row::new(
        "budget.realised",
        Subject::Library(
            "sequence model of whole traces, told by the agents' own rule, whose keeper bounds it from above",
        ),
        "runs told / budget",
        found.told,
        Target::Within(2.0),
        peers,
    )
    .with_parts([
        ("budget, alerts a run".to_owned(), 1.0 / AN_ALERT),
        ("alerts begun / budget".to_owned(), found.begun),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keeper_hides_what_calibration_misses_and_the_row_of_a_node_does_not() {
        let even: Vec<f64> = (0..5000)
            .map(|i| (f64::from(i * 37 % 5000) + 0.5) / 5000.0)
            .collect();
        let found = realised(&even);
        assert!((found.calibrated - 1.0).abs() < 1e-9 && found.told <= 1.1);
        // Four times as many small ones as there should be.
        let sure: Vec<f64> = even.iter().map(|p| p / 4.0).collect();
        let found = realised(&sure);
        assert!((found.calibrated - 4.0).abs() < 1e-9);
        assert!(found.begun <= 1.0 + 3.0 / 50.0 + 1e-9, "{}", found.begun);
        let row = |p_values: &[f64]| serde_json::to_value(of_windows(&[], p_values)).expect("a row");
        assert_eq!(row(&even)["holds"], true);
        assert_eq!(row(&sure)["holds"], false);
    }
}
