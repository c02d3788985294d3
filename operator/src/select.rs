//! Label selectors, as the API server's own controllers read them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

/// A selector that was read once, to be asked of many labels. One that is not well formed matches nothing.
#[derive(Clone, Debug)]
pub struct Ready(Option<Selector>);

impl Ready {
    /// Reads a selector.
    pub fn new(selector: &LabelSelector) -> Self {
        Self(Selector::try_from(selector.clone()).ok())
    }

    /// Whether the labels match.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// What is wrong with a selector.
pub fn problem(selector: &LabelSelector) -> Option<String> {
    Selector::try_from(selector.clone()).err().map(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn selectors_match_as_in_kubernetes() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}),
                false,
            ),
        ] {
            let selector: LabelSelector = serde_json::from_value(selector).expect("a selector");
            assert_eq!(Ready::new(&selector).matches(&web), expected, "{selector:?}");
            assert_eq!(problem(&selector), None);
        }
        let bad: LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Like"}]}))
                .expect("parses");
        assert!(!Ready::new(&bad).matches(&web));
        assert!(problem(&bad).is_some());
    }
}
