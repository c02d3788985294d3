//! What must hold of a new version before a rollout goes on, from what agents scored with it.

use vigia_crds::{GateMetric, OnNoData, RolloutGate, decimal};
use vigia_model::histogram::ScoreHistogram;

use crate::observed::Merged;

/// Share of windows above the threshold that a multiple is taken of where the serving version has
/// less: a multiple of next to nothing would fail on one window.
const LEAST_RATE: f64 = 0.01;
/// What a multiple comes to at most: one of a serving version that tells of every other window would hold whatever the
/// new one did.
const MOST_RATE: f64 = 0.99;

/// What a gate says.
#[derive(Clone, Debug, PartialEq)]
pub enum Opinion {
    /// It holds.
    Holds,
    /// There are not enough windows yet.
    Waits(String),
    /// It does not hold.
    Fails(String),
}

/// What the gates of a step look at.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// What the new version scored in this step.
    pub new: Merged,
    /// What the serving version scored at the same time, or before, where there is one.
    pub serving: Option<Merged>,
    /// Share of normal windows that the alert budget itself puts above the threshold.
    pub allowed: f64,
    /// The scores of the new version's validation.
    pub validation: Option<ScoreHistogram>,
    /// The step's hold is over.
    pub hold_over: bool,
}

/// What one gate says.
pub fn judge(gate: &RolloutGate, evidence: &Evidence) -> Opinion {
    let need = needed(gate);
    if evidence.new.windows < need {
        let why = format!(
            "gate {:?} has {} of {need} windows",
            gate.metric, evidence.new.windows
        );
        return without_data(gate, evidence.hold_over, why);
    }
    match gate.metric {
        GateMetric::AlertRate => alert_rate(gate, evidence),
        GateMetric::ScoreDrift => score_drift(gate, evidence),
    }
}

fn without_data(gate: &RolloutGate, hold_over: bool, why: String) -> Opinion {
    match gate.on_no_data {
        _ if !hold_over => Opinion::Waits(why),
        OnNoData::Hold => Opinion::Waits(why),
        OnNoData::Pass => Opinion::Holds,
        OnNoData::Fail => Opinion::Fails(format!("{why} at the end of the step's hold")),
    }
}

fn alert_rate(gate: &RolloutGate, evidence: &Evidence) -> Opinion {
    let rate = share(&evidence.new);
    let (text, multiple) = match gate.at_most.strip_suffix('x') {
        Some(text) => (text, true),
        None => (gate.at_most.as_str(), false),
    };
    // The API server has checked the form; what got past it must not let a version through.
    let Ok(bound) = decimal(text) else {
        return Opinion::Fails(format!("gate AlertRate: {:?} is not a bound", gate.at_most));
    };
    let (bound, of) = if multiple {
        let (base, of) = base(gate, evidence);
        match bound * base {
            times if times > MOST_RATE => (
                MOST_RATE,
                format!(", the most that counts of {} {of}", gate.at_most),
            ),
            times => (times, format!(", {} {of}", gate.at_most)),
        }
    } else {
        (bound, String::new())
    };
    if rate <= bound {
        Opinion::Holds
    } else {
        Opinion::Fails(format!(
            "AlertRate {rate:.4} over {} windows is above {bound:.4}{of}",
            evidence.new.windows
        ))
    }
}

/// Windows that a gate asks for.
fn needed(gate: &RolloutGate) -> u64 {
    u64::try_from(gate.min_samples).unwrap_or(1)
}

/// What a multiple is of: what the serving version does, what the budget allows, or [`LEAST_RATE`], whichever
/// is most. A few late windows of the serving version say nothing.
fn base(gate: &RolloutGate, evidence: &Evidence) -> (f64, String) {
    let serving = evidence.serving.as_ref().filter(|m| m.windows >= needed(gate));
    let rate = serving.map_or(0.0, share);
    let least = evidence.allowed.max(LEAST_RATE);
    match serving {
        Some(serving) if rate >= least => {
            let text = format!("the serving version's {rate:.4} over {} windows", serving.windows);
            (rate, text)
        }
        _ if evidence.allowed > LEAST_RATE => (least, format!("the {least:.4} that the alert budget allows")),
        _ => (LEAST_RATE, format!("{LEAST_RATE}")),
    }
}

fn share(merged: &Merged) -> f64 {
    if merged.windows == 0 {
        0.0
    } else {
        merged.above_threshold as f64 / merged.windows as f64
    }
}

fn score_drift(gate: &RolloutGate, evidence: &Evidence) -> Opinion {
    let Ok(bound) = decimal(&gate.at_most) else {
        return Opinion::Fails(format!("gate ScoreDrift: {:?} is not a bound", gate.at_most));
    };
    let Some(validation) = &evidence.validation else {
        return Opinion::Waits("gate ScoreDrift: the artifact is not read yet".to_owned());
    };
    match validation.jensen_shannon(&evidence.new.histogram) {
        Some(drift) if drift <= bound => Opinion::Holds,
        Some(drift) => Opinion::Fails(format!(
            "ScoreDrift {drift:.3} over {} windows is above {bound}",
            evidence.new.histogram.total()
        )),
        None => {
            let why = format!(
                "gate ScoreDrift needs {} windows here and in the validation, and has {} and {}",
                vigia_model::histogram::MIN_SAMPLES,
                evidence.new.histogram.total(),
                validation.total()
            );
            without_data(gate, evidence.hold_over, why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(metric: GateMetric, at_most: &str) -> RolloutGate {
        RolloutGate {
            metric,
            at_most: at_most.to_owned(),
            min_samples: 100,
            on_no_data: OnNoData::Hold,
        }
    }

    fn merged(windows: u64, above: u64, bins: &[u64]) -> Merged {
        let mut histogram = ScoreHistogram::default();
        histogram.counts[..bins.len()].copy_from_slice(bins);
        Merged {
            windows,
            above_threshold: above,
            histogram,
            last_window: None,
        }
    }

    fn evidence(new: Merged, serving: Option<Merged>) -> Evidence {
        Evidence {
            new,
            serving,
            validation: Some(merged(0, 0, &[100, 100, 100]).histogram),
            allowed: 0.0,
            hold_over: false,
        }
    }

    #[test]
    fn alert_rate_has_a_plain_bound() {
        let g = gate(GateMetric::AlertRate, "0.05");
        assert_eq!(judge(&g, &evidence(merged(1000, 50, &[]), None)), Opinion::Holds);
        assert!(matches!(
            judge(&g, &evidence(merged(1000, 51, &[]), None)),
            Opinion::Fails(_)
        ));
    }

    #[test]
    fn alert_rate_may_be_a_multiple_of_the_serving_versions() {
        let g = gate(GateMetric::AlertRate, "2x");
        let serving = Some(merged(1000, 40, &[]));
        assert_eq!(
            judge(&g, &evidence(merged(1000, 80, &[]), serving.clone())),
            Opinion::Holds
        );
        assert!(matches!(
            judge(&g, &evidence(merged(1000, 81, &[]), serving)),
            Opinion::Fails(_)
        ));
        // Where that has none, of one in a hundred.
        for serving in [None, Some(merged(0, 0, &[])), Some(merged(1000, 0, &[]))] {
            assert_eq!(
                judge(&g, &evidence(merged(1000, 20, &[]), serving.clone())),
                Opinion::Holds
            );
            assert!(matches!(
                judge(&g, &evidence(merged(1000, 21, &[]), serving)),
                Opinion::Fails(_)
            ));
        }
    }

    #[test]
    fn a_multiple_is_of_no_less_than_the_budget_allows_and_of_no_handful_of_windows() {
        let g = gate(GateMetric::AlertRate, "2x");
        // Ten an hour at ten seconds: what the budget itself lets through is above 0.02.
        let mut e = evidence(merged(1000, 28, &[]), Some(merged(1000, 0, &[])));
        assert!(matches!(judge(&g, &e), Opinion::Fails(_)));
        e.allowed = 10.0 / 360.0;
        assert_eq!(judge(&g, &e), Opinion::Holds);
        e.new = merged(1000, 56, &[]);
        assert!(matches!(judge(&g, &e), Opinion::Fails(why) if why.contains("budget")));
        // One late window of the serving version, above the threshold, is not its rate.
        let late = evidence(merged(1000, 900, &[]), Some(merged(1, 1, &[])));
        assert!(matches!(judge(&g, &late), Opinion::Fails(_)));
    }

    #[test]
    fn a_multiple_can_fail_whatever_the_serving_version_and_the_budget_are() {
        let g = gate(GateMetric::AlertRate, "2x");
        let judged = |above, serving, allowed| {
            let mut e = evidence(merged(1000, above, &[]), Some(merged(1000, serving, &[])));
            e.allowed = allowed;
            judge(&g, &e)
        };
        for (serving, allowed) in [(500, 0.0), (1000, 0.0), (0, 0.5), (0, 1.0), (900, 0.7)] {
            assert_eq!(
                judged(990, serving, allowed),
                Opinion::Holds,
                "{serving} {allowed}"
            );
            let Opinion::Fails(why) = judged(1000, serving, allowed) else {
                panic!("{serving} {allowed}: every window is an alert, and it holds");
            };
            let said = "AlertRate 1.0000 over 1000 windows is above 0.9900, the most that counts of 2x the ";
            assert!(why.starts_with(said), "{why}");
        }
    }

    #[test]
    fn score_drift_compares_with_the_validation() {
        let g = gate(GateMetric::ScoreDrift, "0.1");
        assert_eq!(
            judge(&g, &evidence(merged(300, 0, &[100, 110, 90]), None)),
            Opinion::Holds
        );
        assert!(matches!(
            judge(&g, &evidence(merged(300, 0, &[0, 0, 0, 300]), None)),
            Opinion::Fails(_)
        ));
        let mut unread = evidence(merged(300, 0, &[100, 100, 100]), None);
        unread.validation = None;
        unread.hold_over = true;
        assert!(matches!(judge(&g, &unread), Opinion::Waits(_)));
    }

    #[test]
    fn too_few_windows_wait_for_the_hold_and_then_do_as_told() {
        let few = |on_no_data, hold_over| {
            let mut g = gate(GateMetric::AlertRate, "0.05");
            g.on_no_data = on_no_data;
            let mut e = evidence(merged(99, 99, &[]), None);
            e.hold_over = hold_over;
            judge(&g, &e)
        };
        for on_no_data in [OnNoData::Hold, OnNoData::Pass, OnNoData::Fail] {
            assert!(matches!(few(on_no_data, false), Opinion::Waits(_)));
        }
        assert!(matches!(few(OnNoData::Hold, true), Opinion::Waits(_)));
        assert_eq!(few(OnNoData::Pass, true), Opinion::Holds);
        assert!(matches!(few(OnNoData::Fail, true), Opinion::Fails(_)));
    }

    #[test]
    fn a_bound_that_is_none_lets_nothing_through() {
        for metric in [GateMetric::AlertRate, GateMetric::ScoreDrift] {
            let g = gate(metric, "lots");
            assert!(matches!(
                judge(&g, &evidence(merged(1000, 0, &[1000]), None)),
                Opinion::Fails(_)
            ));
        }
    }
}
