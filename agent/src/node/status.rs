//! What the agent says about its node: pure, and the same for the same facts, so that a no-op writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vigia_crds::conditions::{self, READY, RECONCILING, STALLED, Wanted};
use vigia_crds::{KeptMode, NodePlanStatus, ProfileOnNode, VersionOnNode, VersionState, coarse};

use super::desired::{Desired, Key};
use super::engine::ProbeHealth;
use super::governor::Level;
use super::meter::Usage;
use super::models::shelf::Shelf;
use super::withheld::Withheld;
use crate::containers::ContainerId;
use crate::probe::Mode;

/// Condition: the probe can count.
pub const PROBE_READY: &str = "ProbeReady";

/// Condition: all is kept that profiles want of a call.
pub const CAPTURE_READY: &str = "CaptureReady";

/// Condition: all is counted that profiles want beside calls.
pub const SIGNALS_READY: &str = "SignalsReady";

/// Condition: every call of every process of the containers is counted.
pub const COUNTS_COMPLETE: &str = "CountsComplete";

/// Condition: what profiles want costs no more than their budgets.
pub const WITHIN_BUDGET: &str = "WithinBudget";

/// Condition: what scores was trained on windows of the same system calls.
pub const MODELS_FIT: &str = "ModelsFit";

/// Profiles that are named in a message.
const NAMED: usize = 3;

/// Profiles of a status: the schema's bound.
const PROFILES: usize = 512;

/// Longest message of a refused version.
const MESSAGE: usize = 512;

/// The facts.
pub struct View<'a, M> {
    /// What is wanted.
    pub desired: &'a Desired,
    /// What is held.
    pub shelf: &'a Shelf<M>,
    /// Containers that are counted.
    pub traced: &'a [&'a ContainerId],
    /// How the probe is.
    pub health: &'a ProbeHealth,
    /// What is kept of each profile's calls within its budget, and what that takes.
    pub costs: &'a BTreeMap<Key, (Level, Usage)>,
    /// What was kept of profiles that have left the plan of late, where that was less than they wanted.
    pub held_down: &'a BTreeMap<Key, Level>,
    /// What alert budgets held back of late.
    pub withheld: &'a Withheld,
    /// Calls not counted, since the start.
    pub lost: u64,
    /// Cgroups made inside containers that are not counted, since the start.
    pub lost_cgroups: u64,
    /// Latencies and sequences not kept, since the start, where they are many; of which profile is not known.
    pub lost_detail: u64,
    /// Why latencies and sequences cannot be kept, where a profile wants them.
    pub no_detail: Option<&'a str>,
    /// What this kernel lacks of the signals that profiles want, as a sentence.
    pub no_signals: Option<&'a str>,
    /// Profiles, with the Models that do not score their windows because they were trained on others.
    pub misfits: Vec<(Key, Key)>,
}

/// Which profiles are traced by another filter than those that a Model of theirs was trained on.
fn models_fit(misfits: &[(Key, Key)]) -> Wanted {
    let Some((profile, model)) = misfits.first() else {
        return Wanted::new(MODELS_FIT, true, "AsTrained", "");
    };
    let more = match misfits.len() - 1 {
        0 => String::new(),
        n => format!(" ({n} more like it)"),
    };
    let message = format!(
        "Model {model} was trained on windows of other system calls than TraceProfile {profile} lets in, and does not \
         score them{more}: set spec.capture.syscalls back, or let a RetrainingPolicy or a TrainingRun make a version of \
         the new windows"
    );
    Wanted::new(MODELS_FIT, false, "OtherCapture", message)
}

/// The status for these facts; times of what has not changed are those of `current`.
#[must_use]
pub fn build<M>(view: &View<'_, M>, current: &NodePlanStatus, now: Timestamp) -> NodePlanStatus {
    // The API keeps whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let versions = versions(view, current, now);
    let profiles = profiles(view, current);
    let mut wanted = conditions(view, &versions);
    wanted.push(within_budget(&profiles));
    wanted.push(models_fit(&view.misfits));
    NodePlanStatus {
        observed_generation: view.desired.generation,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        targets: count(view.traced.len()),
        profiles,
        summary: summary(&versions),
        lost: rounded(view.lost),
        conditions: conditions::apply(&current.conditions, &wanted, view.desired.generation, now),
        versions,
    }
}

/// The plan's profiles, and those that have left it and of which something was withheld, or less was kept than they
/// wanted: whoever can make a node's only pod of a profile end must not thereby remove the trace, and that a pod is
/// replaced changes nothing.
fn profiles<M>(view: &View<'_, M>, current: &NodePlanStatus) -> Vec<ProfileOnNode> {
    let mut profiles = planned(view, current);
    let away: BTreeSet<&Key> = view.withheld.profiles().chain(view.held_down.keys()).collect();
    let away = away
        .into_iter()
        .filter(|key| !view.desired.profiles.contains_key(*key));
    let room = PROFILES.saturating_sub(profiles.len());
    profiles.extend(away.take(room).map(|key| {
        let held = view.held_down.get(key);
        ProfileOnNode {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            mode: held.map(|level| kept(*level)).unwrap_or_default(),
            over_budget: held.is_some(),
            alerts_withheld: rounded(view.withheld.of(key)),
            withheld_alert: view.withheld.one_of(key).cloned(),
            ..ProfileOnNode::default()
        }
    }));
    profiles
}

/// A level in the API's words.
fn kept(level: Level) -> KeptMode {
    match level {
        Level::Suspended => KeptMode::Suspended,
        Level::Kept(Mode::Full) => KeptMode::Full,
        Level::Kept(Mode::Sampled) => KeptMode::Sampled,
        Level::Kept(Mode::Counts) => KeptMode::Counts,
    }
}

fn planned<M>(view: &View<'_, M>, current: &NodePlanStatus) -> Vec<ProfileOnNode> {
    let mut counts: BTreeMap<&Key, i32> = view.desired.profiles.keys().map(|key| (key, 0)).collect();
    for target in view.traced.iter().filter_map(|id| view.desired.targets.get(*id)) {
        for profile in &target.profiles {
            if let Some(count) = counts.get_mut(profile) {
                *count += 1;
            }
        }
    }
    counts
        .into_iter()
        .map(|(key, containers)| {
            let wanted = view
                .desired
                .profiles
                .get(key)
                .map_or(Mode::Counts, |profile| profile.mode);
            let none = (Level::Kept(wanted), Usage::default());
            let (level, usage) = view.costs.get(key).copied().unwrap_or(none);
            let old = current.profiles.iter();
            let old = old
                .filter(|old| (&old.namespace, &old.name) == (&key.namespace, &key.name))
                .map(|old| old.overhead_micro_cores)
                .next();
            ProfileOnNode {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                containers,
                mode: match level {
                    Level::Kept(_) if view.no_detail.is_some() => KeptMode::Counts,
                    level => kept(level),
                },
                over_budget: level < Level::Kept(wanted),
                overhead_micro_cores: coarse((usage.cores * 1e6).ceil() as i64, old.unwrap_or(0)),
                lost: rounded(usage.lost),
                alerts_withheld: rounded(view.withheld.of(key)),
                withheld_alert: view.withheld.one_of(key).cloned(),
            }
        })
        .collect()
}

/// Which profiles are kept down.
fn within_budget(profiles: &[ProfileOnNode]) -> Wanted {
    let over: Vec<&ProfileOnNode> = profiles.iter().filter(|one| one.over_budget).collect();
    let reason = match over.iter().map(|one| one.mode).min() {
        None => return Wanted::new(WITHIN_BUDGET, true, "WithinBudget", ""),
        Some(KeptMode::Suspended) => "Suspended",
        Some(_) => "Degraded",
    };
    let named: Vec<String> = over
        .iter()
        .take(NAMED)
        .map(|one| format!("{}/{} is {}", one.namespace, one.name, one.mode.as_str()))
        .collect();
    let more = match over.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more are kept down"),
    };
    let message = format!(
        "{}{more}: what the profile wants would cost more than its spec.budget; it is tried again by itself",
        named.join(", ")
    );
    Wanted::new(WITHIN_BUDGET, false, reason, message)
}

fn versions<M>(view: &View<'_, M>, current: &NodePlanStatus, now: Timestamp) -> Vec<VersionOnNode> {
    let mut versions = Vec::new();
    for (key, model) in &view.desired.models {
        for version in &model.versions {
            let (state, refusal) = view.shelf.state(key, version);
            let since = current
                .versions
                .iter()
                .find(|old| {
                    (&old.namespace, &old.model, &old.digest, old.state)
                        == (&key.namespace, &key.name, &version.digest, state)
                })
                .map_or(Time(now), |old| old.since.clone());
            versions.push(VersionOnNode {
                namespace: key.namespace.clone(),
                model: key.name.clone(),
                digest: version.digest.clone(),
                state,
                reason: refusal.map(|refusal| refusal.reason.clone()).unwrap_or_default(),
                message: refusal.map(|refusal| cut(&refusal.message)).unwrap_or_default(),
                since,
            });
        }
    }
    versions
}

fn summary(versions: &[VersionOnNode]) -> String {
    let active: Vec<String> = versions
        .iter()
        .filter(|version| version.state == VersionState::Active)
        .map(|version| {
            let hex = version.digest.strip_prefix("sha256:").unwrap_or(&version.digest);
            format!("{}@{}", version.model, hex.get(..8).unwrap_or(hex))
        })
        .collect();
    active.join(",")
}

fn conditions<M>(view: &View<'_, M>, versions: &[VersionOnNode]) -> Vec<Wanted> {
    let (wanted, traced) = (view.desired.targets.len(), view.traced.len());
    let refused = versions
        .iter()
        .find(|version| version.state == VersionState::Refused);
    let fetching = versions
        .iter()
        .filter(|version| version.state == VersionState::Fetching)
        .count();

    let probe = match view.health {
        ProbeHealth::Failed(reason, message) => Wanted::new(PROBE_READY, false, reason, message.clone()),
        ProbeHealth::Ready if traced == 0 => Wanted::new(
            PROBE_READY,
            true,
            "NoTargets",
            "loaded; nothing is attached without a target",
        ),
        ProbeHealth::Ready => Wanted::new(PROBE_READY, true, "Attached", "counting"),
    };
    let stalled = match (view.health, view.desired.problems.first(), refused) {
        (ProbeHealth::Failed(reason, message), ..) => Some((*reason, message.clone())),
        (_, Some(problem), _) => Some(("PlanInvalid", problem.clone())),
        (_, _, Some(version)) => {
            let message = format!(
                "{}/{} {}: {}",
                version.namespace, version.model, version.digest, version.message
            );
            Some(("ModelRefused", message))
        }
        (_, None, None) => None,
    };
    let reconciling =
        (fetching > 0).then(|| format!("{fetching} of {} versions are being fetched", versions.len()));
    let counted = format!("{traced} of {wanted} containers counted");
    let ready = match (&stalled, &reconciling) {
        (Some((reason, message)), _) => Wanted::new(READY, false, reason, message.clone()),
        (None, Some(message)) => Wanted::new(READY, false, "Fetching", message.clone()),
        (None, None) => Wanted::new(READY, true, "Traced", counted),
    };
    vec![
        ready,
        match reconciling {
            Some(message) => Wanted::new(RECONCILING, true, "Fetching", message),
            None => Wanted::new(RECONCILING, false, "Done", ""),
        },
        match stalled {
            Some((reason, message)) => Wanted::new(STALLED, true, reason, message),
            None => Wanted::new(STALLED, false, "Running", ""),
        },
        probe,
        complete(view.lost, view.lost_cgroups),
        detailed(view.no_detail, view.lost_detail),
        match view.no_signals {
            Some(message) => Wanted::new(SIGNALS_READY, false, "KernelLacks", message),
            None => Wanted::new(SIGNALS_READY, true, "AsWanted", ""),
        },
    ]
}

/// Rounded, so that a status does not change with each window.
fn complete(calls: u64, cgroups: u64) -> Wanted {
    let since = "since the agent's start";
    match (rounded(calls), rounded(cgroups)) {
        (0, 0) => Wanted::new(COUNTS_COMPLETE, true, "AllCounted", ""),
        (calls, 0) => {
            let message = format!("up to {calls} calls found no place in the kernel's tables {since}");
            Wanted::new(COUNTS_COMPLETE, false, "CallsLost", message)
        }
        (_, cgroups) => {
            let message = format!(
                "processes in up to {cgroups} cgroups made inside containers are not counted {since}"
            );
            Wanted::new(COUNTS_COMPLETE, false, "CgroupsLost", message)
        }
    }
}

/// Rounded likewise: where none can be kept at all, nothing is lost of them.
fn detailed(none: Option<&str>, lost: u64) -> Wanted {
    match (none, rounded(lost)) {
        (Some(message), _) => Wanted::new(CAPTURE_READY, false, "CountsOnly", message),
        (None, 0) => Wanted::new(CAPTURE_READY, true, "AsWanted", ""),
        (None, lost) => {
            let message = format!(
                "up to {lost} latencies and sequences of calls of this node found no place in the kernel's tables or in a \
                 window since the agent's start; which profiles they are of is not known"
            );
            Wanted::new(CAPTURE_READY, false, "DetailLost", message)
        }
    }
}

fn cut(message: &str) -> String {
    message.chars().take(MESSAGE).collect()
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// Up to the next power of two, so that a status does not change with each window.
pub(super) fn rounded(lost: u64) -> i64 {
    if lost == 0 {
        0
    } else {
        lost.checked_next_power_of_two()
            .and_then(|n| i64::try_from(n).ok())
            .unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::desired::key;
    use crate::node::desired::{Model, Profile, Target, Version};
    use crate::node::models::load::refusal;
    use crate::node::models::shelf::VersionKey;
    use crate::node::score::Scored;
    use std::time::Duration;
    use vigia_crds::{Task, VersionMode};
    use vigia_model::budget::Told;
    use vigia_model::syscalls::Filter;

    fn id() -> ContainerId {
        ContainerId {
            pod_uid: "u".to_owned(),
            id: "c".to_owned(),
        }
    }

    fn desired() -> Desired {
        let digest = format!("sha256:{}", "a".repeat(64));
        let target = Target {
            pod: "p".to_owned(),
            container: "c".to_owned(),
            profiles: BTreeSet::from([key("profile")]),
        };
        let profile = Profile {
            capture: "all".to_owned(),
            window: Duration::from_secs(1),
            consecutive: 1,
            alerts_per_hour: 1.0,
            sample_per_mille: 0,
            models: vec![key("m")],
            mode: Mode::Counts,
            one_in: 16,
            filter: Filter::default(),
            signals: BTreeSet::new(),
            resources: false,
            budget: None,
        };
        let model = Model {
            task: Task::Anomaly,
            versions: vec![Version {
                traceparent: None,
                digest,
                size: 1,
                mode: VersionMode::Active,
            }],
            keys: vec![],
        };
        Desired {
            generation: 4,
            profiles: BTreeMap::from([(key("profile"), profile)]),
            targets: BTreeMap::from([(id(), target)]),
            models: BTreeMap::from([(key("m"), model)]),
            problems: vec![],
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millisecond(second * 1000 + 123).expect("a small number is a timestamp")
    }

    fn status(
        shelf: &Shelf<()>,
        health: &ProbeHealth,
        current: &NodePlanStatus,
        second: i64,
    ) -> NodePlanStatus {
        let (desired, id) = (desired(), id());
        let usage = Usage {
            cores: 0.000_7 + second as f64 / 1e6,
            lost: 5,
        };
        let costs = BTreeMap::from([(key("profile"), (Level::Kept(Mode::Counts), usage))]);
        let mut withheld = Withheld::default();
        let scored = vec![Scored::of(key("profile"), Told::Withheld); 3];
        withheld.turn(&scored, Duration::ZERO);
        withheld.turn(&[Scored::of(key("away"), Told::Withheld)], Duration::ZERO);
        let held_down = BTreeMap::from([(key("down"), Level::Kept(Mode::Counts))]);
        let view = View {
            desired: &desired,
            shelf,
            traced: &[&id],
            health,
            costs: &costs,
            held_down: &held_down,
            withheld: &withheld,
            lost: 5,
            lost_cgroups: 0,
            lost_detail: 0,
            no_detail: None,
            no_signals: None,
            misfits: vec![],
        };
        build(&view, current, at(second))
    }

    fn shelf(result: Option<Result<(), crate::node::models::shelf::Refusal>>) -> Shelf<()> {
        let desired = desired();
        let mut shelf = Shelf::new(BTreeMap::new());
        shelf.want(&desired.models);
        if let Some(result) = result {
            let digest = desired.models[&key("m")].versions[0].digest.clone();
            shelf.obtained(
                &VersionKey {
                    model: key("m"),
                    digest,
                },
                result,
            );
        }
        shelf.swap(&desired.models);
        shelf
    }

    fn reason(status: &NodePlanStatus, type_: &str) -> (String, String) {
        let condition = conditions::find(&status.conditions, type_).expect("is there");
        (condition.status.clone(), condition.reason.clone())
    }

    #[test]
    fn what_is_not_counted_is_a_condition() {
        let reason = |calls, cgroups| {
            let wanted = complete(calls, cgroups);
            (wanted.status, wanted.reason)
        };
        assert_eq!(reason(0, 0), (Some(true), "AllCounted"));
        assert_eq!(reason(3, 0), (Some(false), "CallsLost"));
        assert_eq!(reason(3, 1), (Some(false), "CgroupsLost"));
        let kept = |none, lost| {
            let wanted = detailed(none, lost);
            (wanted.status, wanted.reason)
        };
        assert_eq!(kept(None, 0), (Some(true), "AsWanted"));
        assert_eq!(kept(None, 3), (Some(false), "DetailLost"));
        assert_eq!(kept(Some("no room"), 3), (Some(false), "CountsOnly"));
    }

    #[test]
    fn a_profile_that_is_kept_down_is_named() {
        let profile = |name: &str, mode, over_budget| ProfileOnNode {
            name: name.to_owned(),
            mode,
            over_budget,
            ..ProfileOnNode::default()
        };
        let fine = profile("a", KeptMode::Counts, false);
        assert_eq!(within_budget(std::slice::from_ref(&fine)).status, Some(true));
        let down = profile("b", KeptMode::Counts, true);
        let wanted = within_budget(&[fine.clone(), down.clone()]);
        assert_eq!((wanted.status, wanted.reason), (Some(false), "Degraded"));
        assert!(wanted.message.starts_with("/b is Counts: "), "{}", wanted.message);
        let off = profile("c", KeptMode::Suspended, true);
        let wanted = within_budget(&[down.clone(), down.clone(), down, off]);
        assert!(
            wanted.reason == "Suspended" && wanted.message.contains("and 1 more"),
            "{wanted:?}"
        );
    }

    #[test]
    fn the_same_facts_later_give_the_same_status() {
        let shelf = shelf(Some(Ok(())));
        let first = status(&shelf, &ProbeHealth::Ready, &NodePlanStatus::default(), 10);
        assert_eq!(first, status(&shelf, &ProbeHealth::Ready, &first, 20));
        assert_eq!(reason(&first, READY), ("True".to_owned(), "Traced".to_owned()));
        assert_eq!((first.targets, first.observed_generation, first.lost), (1, 4, 8));
        let profile = &first.profiles[0];
        assert_eq!(
            (
                profile.containers,
                profile.overhead_micro_cores,
                profile.lost,
                profile.over_budget,
                profile.alerts_withheld,
            ),
            (1, 1000, 8, false, 4)
        );
        let away = &first.profiles[1..];
        let named: Vec<_> = away
            .iter()
            .map(|one| {
                let kept = (one.mode.as_str(), one.over_budget);
                (one.name.as_str(), one.containers, one.alerts_withheld, kept)
            })
            .collect();
        assert_eq!(
            named,
            [
                ("away", 0, 1, ("Counts", false)),
                ("down", 0, 0, ("Counts", true))
            ],
            "what was withheld of it, and that it was held down, is still said"
        );
        assert_eq!(reason(&first, WITHIN_BUDGET).1, "Degraded");
        assert_eq!(first.summary, "m@aaaaaaaa");
    }

    #[test]
    fn what_goes_wrong_is_said_and_what_is_underway_is_not_wrong() {
        let fetching = status(&shelf(None), &ProbeHealth::Ready, &NodePlanStatus::default(), 10);
        assert_eq!(reason(&fetching, READY).1, "Fetching");
        assert_eq!(reason(&fetching, STALLED).0, "False");
        assert_eq!(reason(&fetching, RECONCILING).0, "True");

        let bad = shelf(Some(Err(refusal("BadSignature", "the signature does not match"))));
        let refused = status(&bad, &ProbeHealth::Ready, &fetching, 20);
        assert_eq!(
            reason(&refused, STALLED),
            ("True".to_owned(), "ModelRefused".to_owned())
        );
        assert_eq!(refused.versions[0].reason, "BadSignature");
        assert_eq!(refused.versions[0].since.0.as_second(), 20);

        let failed = ProbeHealth::Failed("MissingCapability", "missing CAP_BPF".to_owned());
        let blind = status(&shelf(Some(Ok(()))), &failed, &refused, 30);
        assert_eq!(
            reason(&blind, PROBE_READY),
            ("False".to_owned(), "MissingCapability".to_owned())
        );
        assert_eq!(reason(&blind, READY).0, "False");
    }

    #[test]
    fn a_model_of_other_calls_is_named_with_its_profile() {
        assert_eq!(models_fit(&[]).status, Some(true));
        let said = models_fit(&[(key("redis"), key("m")), (key("web"), key("m"))]);
        assert_eq!((said.status, said.reason), (Some(false), "OtherCapture"));
        assert!(said.message.contains("TraceProfile shop/redis") && said.message.contains("1 more"));
    }
}
