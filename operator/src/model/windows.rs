//! Whether the windows that a version scores are as long as those that it was trained on, and of the same system calls. A
//! profile's `spec.window` or `spec.capture` can be changed, and a profile be added, without anybody thinking of the Model.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use vigia_crds::conditions::{self, Wanted};
use vigia_crds::{ModelVersion, TraceProfile};

use super::version::VersionView;
use crate::events::{Note, Severity};
use crate::store::Length;
use crate::traceprofile::capture;

/// The condition that they are of the same system calls.
pub const CAPTURE_FITS: &str = "CaptureFits";

/// The profiles whose windows are made of other system calls than those that a version was trained on: name, and
/// fingerprint of the filter, by name: which of them run at the moment is no difference. None where the version does not
/// say.
pub fn other_capture(version: &ModelVersion, profiles: &[impl AsRef<TraceProfile>]) -> Vec<(String, String)> {
    let trained = version.spec.provenance.as_ref().map_or(&[][..], |p| &p.captures);
    let profiles = profiles.iter().map(AsRef::as_ref);
    let others = profiles.filter_map(|profile| {
        let capture = capture::fingerprint(&profile.spec.capture)?;
        let is_other = !trained.is_empty() && !trained.contains(&capture);
        is_other.then(|| (profile.name_any(), capture))
    });
    let mut others: Vec<_> = others.collect();
    others.sort();
    others
}

/// Whether there are profiles, and a version scores the windows of none of them.
pub fn scores_nothing(version: &ModelVersion, profiles: &[impl AsRef<TraceProfile>]) -> bool {
    !profiles.is_empty() && other_capture(version, profiles).len() == profiles.len()
}

/// Marks versions that score nothing.
pub fn mark(
    versions: &mut [VersionView],
    objects: &[impl AsRef<ModelVersion>],
    profiles: &[impl AsRef<TraceProfile>],
) {
    for version in versions {
        let mut objects = objects.iter().map(AsRef::as_ref);
        let object = objects.find(|object| object.spec.digest == version.digest);
        version.silent = object.is_some_and(|object| scores_nothing(object, profiles));
    }
}

/// Whether windows are made of the calls that versions were trained on.
pub struct CaptureFits {
    /// The condition.
    pub wanted: Wanted,
    /// The profiles that do not fit, as its message has them.
    named: Vec<String>,
}

impl From<Wanted> for CaptureFits {
    fn from(wanted: Wanted) -> Self {
        let named = vec![];
        Self { wanted, named }
    }
}

/// What there is to say of the calls that windows are made of, for the version that serves and the one that is rolled out.
/// A profile that does not fit is named with the beginning of its filter's fingerprint, as versions' provenance has it, so
/// that another change of the filter is told from none.
pub fn capture_fits(
    serving: Option<&ModelVersion>,
    rolled_out: Option<&ModelVersion>,
    profiles: &[impl AsRef<TraceProfile>],
) -> CaptureFits {
    let other = |named: Vec<String>, message| {
        let wanted = Wanted::new(CAPTURE_FITS, false, "OtherCapture", message);
        CaptureFits { wanted, named }
    };
    // Nodes that have it already score nothing, and gates wait for what it scores.
    if let Some(next) = rolled_out.filter(|next| scores_nothing(next, profiles)) {
        let named = with_filters(&other_capture(next, profiles));
        let message = format!(
            "{} is rolled out and was trained on windows of other system calls than any TraceProfile lets in, not on \
             those of {}, so it scores none and gates wait: set spec.capture.syscalls back, delete or revoke it, or let a \
             RetrainingPolicy or a TrainingRun make a newer one",
            next.name_any(),
            named.join(", ")
        );
        return other(named, message);
    }
    let Some(serving) = serving else {
        return Wanted::unknown(CAPTURE_FITS, "NoVersion", "no version serves").into();
    };
    let others = other_capture(serving, profiles);
    if !others.is_empty() {
        let named = with_filters(&others);
        let message = format!(
            "{} was trained on windows of other system calls than TraceProfile {} lets in, and does not score them: a \
             RetrainingPolicy with coldStart trains on the new windows; else set spec.capture.syscalls back, give it a \
             Model of its own, or start a TrainingRun once there are enough of the new windows",
            serving.name_any(),
            named.join(", ")
        );
        return other(named, message);
    }
    let says = serving
        .spec
        .provenance
        .as_ref()
        .is_some_and(|p| !p.captures.is_empty());
    if says {
        let message = "windows are made of the system calls that it was trained on";
        Wanted::new(CAPTURE_FITS, true, "AsTrained", message).into()
    } else {
        let message = format!(
            "ModelVersion {} does not say of which system calls the windows were that it was trained on",
            serving.name_any()
        );
        Wanted::unknown(CAPTURE_FITS, "NotKnown", message).into()
    }
}

/// An Event where the windows begin to be of other calls, and where they are then of others again: what was collected
/// meanwhile is of no use any more. Its key has the time since when they are what they were, to the second, what does not
/// fit, and which state of each profile that was: these are kept, so that a life of the operator that says it again says the
/// same, and the next time is another.
pub fn changed(
    before: &[Condition],
    now: &CaptureFits,
    serving: Option<&ModelVersion>,
    profiles: &[impl AsRef<TraceProfile>],
) -> Option<Note> {
    let before = conditions::find(before, CAPTURE_FITS);
    let told = before.filter(|before| before.status == "False");
    // Names have no spaces, and each stands behind one: `web` is not told by `api-web`. What an operator of before said has
    // no filters, and a new one is no change of them.
    let has = |told: &Condition, named: &String| told.message.contains(&format!(" {named}"));
    let is_told = |told: &Condition| {
        !told.message.contains(" (filter ") || now.named.iter().all(|named| has(told, named))
    };
    if now.wanted.status != Some(false) || told.is_some_and(is_told) {
        return None;
    }
    let digest = serving.map_or("", |version| &version.spec.digest);
    let states = profiles.iter().map(|p| &p.as_ref().metadata);
    let states: BTreeSet<_> = states
        .map(|meta| (meta.uid.as_deref(), meta.generation))
        .collect();
    let state = Sha256::digest(format!("{:?} {states:?}", now.named));
    let state: String = state.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let since = before.map_or(0, |before| before.last_transition_time.0.as_second());
    Some(Note {
        severity: Severity::Warning,
        reason: "CaptureChanged",
        action: "Score",
        note: now.wanted.message.clone(),
        key: format!("capture/{digest}/{since}/{state}"),
    })
}

/// The first three by name and filter; of the others, how many and by which filters.
fn with_filters(others: &[(String, String)]) -> Vec<String> {
    let short = |fingerprint: &str| fingerprint.chars().take(8).collect::<String>();
    let (named, more) = others.split_at(others.len().min(3));
    let mut said: Vec<String> = named
        .iter()
        .map(|(name, capture)| format!("{name} (filter {})", short(capture)))
        .collect();
    let filters: BTreeSet<String> = more.iter().map(|(_, capture)| short(capture)).collect();
    let filters: Vec<String> = filters.into_iter().take(3).collect();
    if !more.is_empty() {
        said.push(format!("{} more (filters {})", more.len(), filters.join(" ")));
    }
    said
}

/// The first three, and how many more.
fn some(names: &[String]) -> String {
    let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(3) {
        0 => shown,
        n => format!("{shown} and {n} more"),
    }
}

/// The condition.
pub const WINDOWS_FIT: &str = "WindowsFit";

/// What there is to say, given the version that serves and the profiles that name the Model.
pub fn condition(serving: Option<&ModelVersion>, profiles: &[impl AsRef<TraceProfile>]) -> Wanted {
    let Some(serving) = serving else {
        return Wanted::unknown(WINDOWS_FIT, "NoVersion", "no version serves");
    };
    let trained = serving.spec.provenance.as_ref().map_or(&[][..], |p| &p.window_ms);
    if trained.is_empty() {
        let message = format!(
            "ModelVersion {} does not say how long the windows were that it was trained on",
            serving.name_any()
        );
        return Wanted::unknown(WINDOWS_FIT, "NotKnown", message);
    }
    let fits = |profile: &&TraceProfile| {
        let length = Length::of(millis(profile));
        trained.iter().any(|ms| Length::of(*ms).is_about(length))
    };
    let profiles = profiles.iter().map(AsRef::as_ref);
    let others: Vec<String> = profiles
        .filter(|p| !fits(p))
        .map(|p| format!("{} ({})", p.name_any(), human(millis(p))))
        .collect();
    let lengths = trained
        .iter()
        .map(|ms| human(*ms))
        .collect::<Vec<_>>()
        .join(" or ");
    if others.is_empty() {
        let message = format!("windows are {lengths} long, as those that it was trained on");
        return Wanted::new(WINDOWS_FIT, true, "AsTrained", message);
    }
    let shown = some(&others);
    let message = format!(
        "{} was trained on windows of {lengths}, and TraceProfile {shown} has windows of another length: its \
         scores say little. Set its spec.window back, give it a Model of its own, or start a TrainingRun once there are \
         enough of the new windows",
        serving.name_any()
    );
    Wanted::new(WINDOWS_FIT, false, "OtherLength", message)
}

fn millis(profile: &TraceProfile) -> i64 {
    i64::try_from(Duration::from(profile.spec.window).as_millis()).unwrap_or(i64::MAX)
}

fn human(ms: i64) -> String {
    format!("{}s", ms as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::profile;
    use serde_json::json;
    use std::sync::Arc;

    fn version(window_ms: &[i64]) -> ModelVersion {
        serde_json::from_value(json!({
            "apiVersion": "vigia.dev/v1alpha1", "kind": "ModelVersion", "metadata": {"name": "m-v1"},
            "spec": {"modelRef": {"name": "m"}, "digest": "sha256:0",
                     "provenance": {"trainingRun": "r", "dataDigest": "d", "samples": 1, "windowMs": window_ms}},
        }))
        .expect("a ModelVersion")
    }

    #[test]
    fn profiles_with_other_windows_than_the_data_are_named() {
        let of = |name: &str, seconds| {
            let mut profile = profile("shop", name, 1);
            profile.spec.window = Duration::from_secs(seconds).into();
            Arc::new(profile)
        };
        let said = |trained: &[i64], profiles: &[Arc<TraceProfile>]| {
            let wanted = condition(Some(&version(trained)), profiles);
            (wanted.reason, wanted.message)
        };
        let both = [of("a", 10), of("b", 30)];
        assert_eq!(said(&[10_000], &both[..1]).0, "AsTrained");
        assert_eq!(said(&[10_000, 30_000], &both).0, "AsTrained");
        let (reason, message) = said(&[10_000], &both);
        assert_eq!(reason, "OtherLength");
        assert!(
            message.contains("windows of 10s, and TraceProfile b (30s)"),
            "{message}"
        );
        assert_eq!(said(&[], &both).0, "NotKnown");
        assert_eq!(condition(None, &both).reason, "NoVersion");
    }

    #[test]
    fn each_change_of_the_filter_is_told_once() {
        let mut serving = version(&[]);
        serving.spec.provenance.as_mut().expect("some").captures = vec!["all".to_owned()];
        let mut kept = vec![];
        let mut next = |include: &[&str], second, generation| {
            let mut profile = profile("shop", "a", 1);
            profile.metadata.generation = Some(generation);
            profile.spec.capture.syscalls.include = include.iter().map(|n| (*n).to_owned()).collect();
            let profiles = [Arc::new(profile)];
            let fits = capture_fits(Some(&serving), None, &profiles);
            let note = changed(&kept, &fits, Some(&serving), &profiles);
            let again = changed(&kept, &fits, Some(&serving), &profiles);
            assert_eq!(note, again, "a life that could not write it says the same");
            kept = conditions::apply(&kept, &[fits.wanted], 1, crate::fixture::at(second));
            note.map(|note| note.key)
        };
        let first = next(&["read"], 1, 1).expect("told");
        assert_eq!((next(&["read"], 2, 1), next(&[], 3, 1)), (None, None));
        // Another version served in between.
        let second = next(&["read"], 4, 1).expect("told again");
        assert_ne!(first, second);
        assert_eq!((next(&["read"], 4, 1), next(&[], 5, 2)), (None, None));
        let third = next(&["read"], 5, 3).expect("told again");
        assert_eq!(next(&[], 5, 4), None);
        let fourth = next(&["read"], 5, 5).expect("within a second");
        assert_ne!(fourth, third);
        assert_eq!(next(&["read"], 6, 6), None, "something else of it was changed");
        // While it does not fit already.
        let fifth = next(&["read", "write"], 7, 7).expect("another filter is told");
        assert_ne!(fifth, fourth);
        assert_eq!(next(&["read", "write"], 8, 7), None);
        let sixth = next(&["read"], 9, 8).expect("the one before is another, too");
        assert_ne!(sixth, fifth);
    }

    /// What is told of filters of profiles, each with its generation, and the condition then.
    fn told_of(before: &[Condition], filters: &[(&str, &str, i64)]) -> (Option<String>, Vec<Condition>) {
        let mut serving = version(&[]);
        serving.spec.provenance.as_mut().expect("some").captures = vec!["all".to_owned()];
        let profiles: Vec<_> = filters
            .iter()
            .map(|(name, call, generation)| {
                let mut profile = profile("shop", name, 1);
                profile.metadata.generation = Some(*generation);
                profile.spec.capture.syscalls.include = vec![(*call).to_owned()];
                Arc::new(profile)
            })
            .collect();
        let fits = capture_fits(Some(&serving), None, &profiles);
        let note = changed(before, &fits, Some(&serving), &profiles);
        let kept = conditions::apply(before, &[fits.wanted], 1, crate::fixture::at(1));
        (note.map(|note| note.key), kept)
    }

    #[test]
    fn which_profiles_run_at_the_moment_is_no_change_of_a_filter() {
        let all = ["a", "b", "c", "d"].map(|name| (name, "read", 1));
        let (first, kept) = told_of(&[], &all);
        assert!(first.is_some());
        assert_eq!(told_of(&kept, &[all[3], all[0], all[1], all[2]]).0, None);
    }

    #[test]
    fn a_filter_is_told_that_a_profile_of_a_longer_name_has_already() {
        let (_, kept) = told_of(&[], &[("api-web", "read", 1), ("web", "write", 1)]);
        let now = [("api-web", "read", 1), ("web", "read", 2)];
        let (told, kept) = told_of(&kept, &now);
        assert!(told.is_some());
        assert_eq!(told_of(&kept, &now).0, None);
    }

    #[test]
    fn a_change_is_told_where_another_profile_went_meanwhile() {
        let (_, kept) = told_of(&[], &[("a", "read", 5), ("b", "read", 1)]);
        let (first, kept) = told_of(&kept, &[("a", "write", 6), ("b", "read", 1)]);
        let (second, _) = told_of(&kept, &[("a", "read", 7)]);
        assert!(first.is_some() && second.is_some() && first != second);
    }

    #[test]
    fn what_an_operator_of_before_told_is_not_told_anew() {
        let filters = [("a", "read", 1)];
        let (_, mut kept) = told_of(&[], &filters);
        for condition in &mut kept {
            let end = condition.message.find(" (filter ").expect("its filter");
            condition.message.truncate(end);
        }
        let (told, kept) = told_of(&kept, &filters);
        assert_eq!(told, None);
        assert!(
            told_of(&kept, &[("a", "write", 2)]).0.is_some(),
            "now it is known"
        );
    }

    #[test]
    fn a_change_is_seen_of_each_of_many_profiles() {
        let filters = |fifth: &str| {
            let others = ["a", "b", "c", "d", "e"].map(|name| {
                let capture = if name == "e" { fifth } else { "0" };
                (name.to_owned(), capture.repeat(32))
            });
            with_filters(&others)
        };
        let said = filters("f");
        assert_eq!((said[0].as_str(), said.len()), ("a (filter 00000000)", 4));
        assert_eq!(said[3], "2 more (filters 00000000 ffffffff)");
        assert_ne!(said, filters("e"));
        assert!(with_filters(&[]).is_empty());
    }

    #[test]
    fn profiles_of_other_calls_than_the_data_are_named() {
        let of = |name: &str, include: &[&str]| {
            let mut profile = profile("shop", name, 1);
            profile.spec.capture.syscalls.include = include.iter().map(|n| (*n).to_owned()).collect();
            Arc::new(profile)
        };
        let trained = |captures: &[String]| {
            let mut version = version(&[10_000]);
            version.spec.provenance.as_mut().expect("some").captures = captures.to_vec();
            version
        };
        let both = [of("a", &[]), of("b", &["network"])];
        let network = capture::fingerprint(&both[1].spec.capture).expect("a filter");
        let said = |captures: &[String]| {
            let wanted = capture_fits(Some(&trained(captures)), None, &both).wanted;
            (wanted.reason, wanted.message)
        };
        assert_eq!(said(&["all".to_owned(), network.clone()]).0, "AsTrained");
        let (reason, message) = said(&["all".to_owned()]);
        assert_eq!(reason, "OtherCapture");
        let filter = format!("TraceProfile b (filter {}) lets in", &network[..8]);
        assert!(message.contains(&filter), "{message}");
        assert_eq!(said(&[]).0, "NotKnown");
        assert_eq!(capture_fits(None, None, &both).wanted.reason, "NoVersion");
        // One that is rolled out and scores something does no harm; one that scores nothing does.
        let (all, other) = (trained(&["all".to_owned()]), trained(&["c0".repeat(16)]));
        let fits = trained(&["all".to_owned(), network]);
        assert_eq!(
            capture_fits(Some(&fits), Some(&all), &both).wanted.reason,
            "AsTrained"
        );
        for serving in [None, Some(&fits)] {
            let wanted = capture_fits(serving, Some(&other), &both).wanted;
            assert_eq!((wanted.status, wanted.reason), (Some(false), "OtherCapture"));
            assert!(wanted.message.contains("is rolled out"), "{}", wanted.message);
        }
        let objects = [Arc::new(other.clone())];
        let mut views = [VersionView::of(&other)];
        for (profiles, silent) in [(&both[..], true), (&[][..], false)] {
            mark(&mut views, &objects, profiles);
            assert_eq!(views[0].silent, silent);
        }
        let none: [Arc<TraceProfile>; 0] = [];
        assert!(!scores_nothing(&other, &none) && !scores_nothing(&trained(&[]), &both));
        // A profile that lets in nothing that there is traces nothing.
        let nothing = [of("c", &["not_a_call"])];
        assert!(other_capture(&trained(&["all".to_owned()]), &nothing).is_empty());
    }
}
