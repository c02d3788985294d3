//! Which members of a version say nothing where a budget keeps the windows of a profile to counts: those that look at which
//! calls come after which. What is left of them still scores, so that nothing but words tells it. Pure.

use std::collections::BTreeSet;

use kube::ResourceExt;
use vigia_crds::{KeptMode, NodePlan, TraceProfile};
use vigia_model::pipeline::{EstimatorKind, Pipeline};

use crate::events::listed;

/// Nodes in a message before "and N more".
const NAMED: usize = 3;

/// Names, as the API writes them, of the members that look at which calls come after which.
pub fn of_order(pipeline: &Pipeline) -> Vec<&'static str> {
    let of_order = pipeline.kinds().filter(|kind| kind.is_order());
    of_order.map(EstimatorKind::api_name).collect()
}

/// What there is to say, after a sentence, of a profile that is kept to counts somewhere and of the members of its Models;
/// nothing where there are none. While the members of one are not known, what was said before is said still: else each
/// start of the operator would take it back and tell it anew.
pub fn of_profile(models: &[(String, Option<Vec<&'static str>>)], before: Option<&str>) -> String {
    if models.iter().any(|(_, members)| members.is_none())
        && let Some((_, kept)) = before.and_then(|before| before.split_once(SILENT))
    {
        return format!(". {SILENT}{kept}");
    }
    let said: Vec<String> = models
        .iter()
        .filter_map(|(model, members)| Some((model, members.as_deref().filter(|all| !all.is_empty())?)))
        .map(|(model, members)| format!("{} of Model {model}", listed(members)))
        .collect();
    match said.as_slice() {
        [] => String::new(),
        said => format!(
            ". {SILENT}, as members that look at which calls come after which: {}",
            said.join(", ")
        ),
    }
}

/// By which the sentence is known, which is the last of its message.
pub const SILENT: &str = "Without a say in mode Counts";
/// The same of a Model.
const SILENT_ON: &str = "; without a say on ";

/// What there is to say, after a sentence, of a version with these members where nodes keep profiles that name its Model to
/// counts. While they are not known, what was said before is said still.
pub fn of_model<'a>(
    members: Option<&[&str]>,
    before: Option<&str>,
    profiles: &[impl AsRef<TraceProfile>],
    plans: impl Iterator<Item = &'a NodePlan>,
) -> String {
    let Some(members) = members else {
        let kept = before.and_then(|before| before.split_once(SILENT_ON));
        return kept.map_or_else(String::new, |(_, kept)| format!("{SILENT_ON}{kept}"));
    };
    if members.is_empty() {
        return String::new();
    }
    let named = |namespace: &str, name: &str| {
        let mut profiles = profiles.iter().map(AsRef::as_ref);
        profiles.any(|p| p.name_any() == name && p.namespace().as_deref() == Some(namespace))
    };
    let (mut kept, mut nodes) = (BTreeSet::new(), Vec::new());
    for plan in plans {
        let here = plan.status.iter().flat_map(|status| &status.profiles);
        let here =
            here.filter(|here| here.over_budget && here.mode == KeptMode::Counts && here.containers > 0);
        let here: Vec<&str> = here
            .filter(|here| named(&here.namespace, &here.name))
            .map(|here| here.name.as_str())
            .collect();
        if !here.is_empty() {
            nodes.push(plan.name_any());
            kept.extend(here);
        }
    }
    let Some(profile) = kept.first() else {
        return String::new();
    };
    let more = |all: usize, shown: usize| match all.saturating_sub(shown) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{SILENT_ON}{}{}, where spec.budget leaves TraceProfile {profile}{} no more than counts, as members that \
         look at which calls come after which: {}",
        nodes.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "),
        more(nodes.len(), NAMED),
        more(kept.len(), 1),
        listed(members),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::profile;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn the_members_that_are_silent_are_named_with_their_model() {
        let model = |name: &str, members: &[&'static str]| (name.to_owned(), Some(members.to_vec()));
        assert_eq!(of_profile(&[], None), "");
        assert_eq!(of_profile(&[model("m", &[])], None), "");
        let models = [
            model("m", &["NGram", "NGramPeak", "STIDE"]),
            model("n", &[]),
            model("o", &["STIDE"]),
        ];
        let said = of_profile(
            &models,
            Some("the probe takes more. Without a say in mode Counts: all"),
        );
        assert_eq!(
            said,
            ". Without a say in mode Counts, as members that look at which calls come after which: NGram, NGramPeak and \
             STIDE of Model m, STIDE of Model o"
        );
        // The operator has started, and has not looked at the artifact.
        let [known, _, _] = models;
        let starting = [known, ("o".to_owned(), None)];
        let before = format!("the probe takes more{said}");
        assert_eq!(of_profile(&starting, Some(&before)), said);
        for before in [None, Some("all is well")] {
            assert!(of_profile(&starting, before).ends_with("STIDE of Model m"));
            assert_eq!(of_profile(&starting[1..], before), "");
        }
    }

    #[test]
    fn a_model_says_where_its_members_are_silent() {
        let plan = |node: &str, profile: &str, mode: &str, over: bool| -> NodePlan {
            serde_json::from_value(json!({
                "metadata": {"name": node}, "spec": {},
                "status": {"profiles": [{
                    "namespace": "shop", "name": profile, "containers": 1, "mode": mode, "overBudget": over,
                }]},
            }))
            .expect("a plan")
        };
        let profiles = [Arc::new(profile("shop", "web", 1))];
        let said =
            |members: &[&str], plans: &[NodePlan]| of_model(Some(members), None, &profiles, plans.iter());
        let down = [
            plan("n1", "web", "Counts", true),
            plan("n2", "web", "Sampled", true),
        ];
        assert_eq!(
            said(&["STIDE"], &down),
            "; without a say on n1, where spec.budget leaves TraceProfile web no more than counts, as members that look at \
             which calls come after which: STIDE"
        );
        assert_eq!(said(&[], &down), "", "it looks at counts");
        let before = format!("m-v1 serves on 2 nodes{}", said(&["STIDE"], &down));
        let starting = |before| of_model(None, before, &profiles, down.iter());
        assert_eq!(starting(Some(&before)), said(&["STIDE"], &down), "as it was");
        assert_eq!(
            [starting(None), starting(Some("m-v1 serves on 2 nodes"))],
            ["", ""]
        );
        assert_eq!(said(&["STIDE"], &down[1..]), "", "a part is measured");
        assert_eq!(
            said(&["STIDE"], &[plan("n1", "web", "Counts", false)]),
            "",
            "as it wants"
        );
        assert_eq!(
            said(&["STIDE"], &[plan("n1", "db", "Counts", true)]),
            "",
            "another's"
        );
        let many: Vec<NodePlan> = (0..5)
            .map(|n| plan(&format!("n{n}"), "web", "Counts", true))
            .collect();
        let said = said(&["NGram", "NGramPeak", "STIDE"], &many);
        assert!(
            said.contains("on n0, n1, n2 and 2 more, where")
                && said.ends_with(": NGram, NGramPeak and STIDE"),
            "{said}"
        );
    }
}
