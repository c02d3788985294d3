//! A policy whose TrainingRun the API server refuses: one from before a rule, which the API server lets be in the policy and
//! not in a new run. Nobody but its people can mend that, so it is said to them.

use jiff::Timestamp;
use vigia_crds::RetrainingPolicyStatus;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};

/// The status of a policy whose run was refused with these words: nothing was started.
pub(super) fn status(
    old: &RetrainingPolicyStatus,
    planned: RetrainingPolicyStatus,
    why: &str,
    now: Timestamp,
) -> RetrainingPolicyStatus {
    let message = format!(
        "no training can be started; correct spec.training, or what else refuses the TrainingRun: {why}"
    );
    let wanted = [
        Wanted::new(READY, false, "RunRefused", message.clone()),
        Wanted::new(RECONCILING, false, "RunRefused", ""),
        Wanted::new(STALLED, true, "RunRefused", message),
    ];
    RetrainingPolicyStatus {
        last_run: old.last_run.clone(),
        conditions: conditions::apply(&old.conditions, &wanted, planned.observed_generation, now),
        ..planned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_crds::LastRun;

    #[test]
    fn a_refused_run_is_said_and_was_not_started() {
        let started = RetrainingPolicyStatus {
            observed_generation: 3,
            windows: 700,
            last_run: Some(LastRun {
                name: "p-1".to_owned(),
                reason: "ColdStart".to_owned(),
                started_at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH),
            }),
            ..RetrainingPolicyStatus::default()
        };
        let old = RetrainingPolicyStatus::default();
        let said = status(&old, started, "atMost is 1", Timestamp::UNIX_EPOCH);
        assert_eq!((said.observed_generation, said.windows), (3, 700));
        assert_eq!(said.last_run, None);
        assert!(conditions::is_true(&said.conditions, STALLED));
        let ready = conditions::find(&said.conditions, READY).expect("Ready is always there");
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "RunRefused")
        );
        assert!(
            ready
                .message
                .ends_with("what else refuses the TrainingRun: atMost is 1")
        );
    }
}
