//! The runs of a policy: their numbers and names, and how long after one the next may be. Pure.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use vigia_crds::LastRun;

use super::plan::{Observed, RunView};

/// Longest wait after runs that failed one after the other.
const LONGEST_COOLDOWN: SignedDuration = SignedDuration::from_hours(24);

/// Least time between the starts of two runs: twice as long with each run of this policy that failed since the last
/// run that did not, as what fails for its data would fail again a moment later. What people start fails for reasons of
/// its own.
pub(super) fn cooldown(o: &Observed<'_>) -> SignedDuration {
    cooldown_after(o, failures(o))
}

fn cooldown_after(o: &Observed<'_>, failures: usize) -> SignedDuration {
    let cooldown =
        SignedDuration::try_from(std::time::Duration::from(o.spec.cooldown)).unwrap_or(SignedDuration::MAX);
    let longest = cooldown.max(LONGEST_COOLDOWN);
    cooldown
        .checked_mul(1 << failures.min(16))
        .unwrap_or(longest)
        .min(longest)
}

/// Runs of this policy that failed since the last run that did not.
pub(super) fn failures(o: &Observed<'_>) -> usize {
    let mut runs: Vec<&RunView> = o.runs.iter().collect();
    runs.sort_by_key(|run| std::cmp::Reverse((run.created, run.name.len(), &run.name)));
    let failures = runs
        .iter()
        .filter(|run| !run.failed || number(o.name, &run.name).is_some())
        .take_while(|run| run.failed)
        .count();
    // Of the failed ones only the newest are kept; numbers tell how many there were since the last that did not.
    let numbered = runs
        .iter()
        .filter_map(|run| Some((number(o.name, &run.name)?, run.failed)));
    let (mut newest, mut held) = (0, 0);
    for (number, failed) in numbered {
        newest = newest.max(number);
        held = if failed { held } else { held.max(number) };
    }
    match failures {
        0 => 0,
        some => usize::try_from(newest - held).unwrap_or(usize::MAX).max(some),
    }
}

/// The run of this policy just before one, where it failed and is still there: with what an older one had, nothing could
/// be said of this one.
pub(super) fn before<'a>(o: &Observed<'a>, run: &RunView) -> Option<&'a RunView> {
    let this = number(o.name, &run.name)?;
    let is_before =
        |other: &&RunView| number(o.name, &other.name).is_some_and(|n| n.checked_add(1) == Some(this));
    o.runs.iter().find(|other| other.failed && is_before(other))
}

/// Whether the last run, one that failed, did not wait for the cooldown that held after the one before it.
pub(super) fn was_early(o: &Observed<'_>, last: &RunView, before: &RunView) -> bool {
    // When an object was created is told in whole seconds.
    let apart = last
        .created
        .duration_since(before.created)
        .saturating_add(SignedDuration::from_secs(1));
    apart < cooldown_after(o, failures(o).saturating_sub(1))
}

/// Number of a run of this policy.
pub(super) fn number(policy: &str, run: &str) -> Option<u64> {
    run.strip_prefix(policy)?.strip_prefix('-')?.parse().ok()
}

/// `<policy>-<n>`, one more than any there is or was: the same until a run of this name is seen.
pub(super) fn next_name(o: &Observed<'_>) -> String {
    let last = o.status.last_run.iter().map(|r| r.name.as_str());
    // A run of another Model may have a name of this form too, where a person chose it.
    let names = o.taken.iter().map(String::as_str).chain(last);
    let largest = names.filter_map(|name| number(o.name, name)).max().unwrap_or(0);
    format!("{}-{}", o.name, largest.saturating_add(1))
}

/// The last run that this policy started: as the status has it, or the newest there is, should the operator
/// have been killed between the start and the write of the status.
pub(super) fn last_run(o: &Observed<'_>) -> Option<LastRun> {
    let newest = o
        .runs
        .iter()
        .filter_map(|run| Some((number(o.name, &run.name)?, run)))
        .max_by_key(|(number, _)| *number);
    let known = o.status.last_run.as_ref().and_then(|r| number(o.name, &r.name));
    match newest {
        Some((number, run)) if Some(number) > known => Some(LastRun {
            name: run.name.clone(),
            reason: run.reason.clone(),
            started_at: Time(run.created),
        }),
        _ => o.status.last_run.clone(),
    }
}
