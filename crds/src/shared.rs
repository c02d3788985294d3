//! Types that more than one kind uses.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A reference to an object of a known kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object.
    #[schemars(length(max = 253))]
    #[x_kube(validation = object_name())]
    pub name: String,
}

/// What is asked of the name of another object: to be one.
pub(crate) fn object_name() -> kube::core::Rule {
    kube::core::Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')").message(
        "no object can have this name: write lower-case letters, digits, '-' and '.', the first and the last a letter or a digit",
    )
}

impl From<&str> for LocalRef {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }
}

/// Annotation of a TrainingRun or ModelVersion: W3C trace context (`traceparent`) of what it is a part of.
pub const TRACEPARENT: &str = "vigia.dev/traceparent";

/// A decimal that CEL and people read the same way: digits, and digits after a point.
///
/// Kubernetes' API conventions forbid floating point numbers in a schema, hence the string.
///
/// # Errors
/// A sentence that names the text when it is not such a decimal or not finite.
pub fn decimal(text: &str) -> Result<f64, String> {
    let shaped = !text.is_empty()
        && text.len() <= 16
        && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && text.bytes().filter(|&b| b == b'.').count() <= 1;
    match text.parse::<f64>() {
        Ok(value) if shaped && value.is_finite() => Ok(value),
        _ => Err(format!("{text:?} is not a decimal; write for example \"0.05\"")),
    }
}

/// The next of 1, 2, 5 and their multiples by ten that is not less. What was told before stays while it is no more
/// than one step too much, so that what swings around a step is told once.
#[must_use]
pub fn coarse(value: i64, told: i64) -> i64 {
    let mut steps = std::iter::successors(Some(1i64), |ten| ten.checked_mul(10))
        .flat_map(|ten| [Some(ten), ten.checked_mul(2), ten.checked_mul(5)])
        .flatten();
    let next = steps.find(|step| *step >= value).unwrap_or(i64::MAX);
    match value {
        ..=0 => 0,
        _ if told > next && told <= next.saturating_mul(5) / 2 => told,
        _ => next,
    }
}

/// A share of a core as Kubernetes writes it: `10m` is a hundredth, `0.5` a half.
///
/// # Errors
/// A sentence that names the text when it is neither.
pub fn cores(text: &str) -> Result<f64, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(number) => (number, 1000.0),
        None => (text, 1.0),
    };
    match decimal(number) {
        Ok(value) if value > 0.0 => Ok(value / unit),
        _ => Err(format!(
            "{text:?} is not a share of a core; write for example 10m"
        )),
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_plain() {
        assert_eq!(decimal("0.05"), Ok(0.05));
        assert_eq!(decimal("2"), Ok(2.0));
        for bad in [
            "",
            "-1",
            "1e3",
            "nan",
            "inf",
            "1.2.3",
            "0x1",
            " 1",
            "11111111111111111",
        ] {
            assert!(decimal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores_are_written_as_kubernetes_does() {
        assert_eq!(
            (cores("10m"), cores("1"), cores("0.5")),
            (Ok(0.01), Ok(1.0), Ok(0.5))
        );
        for bad in ["", "m", "0", "0m", "-1m", "10%", "1k"] {
            assert!(cores(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_swings_around_a_step_is_told_once() {
        let told: Vec<i64> = [0, 1, 3, 5, 6, 11, 999].map(|value| coarse(value, 0)).to_vec();
        assert_eq!(told, [0, 1, 5, 5, 10, 20, 1000]);
        assert_eq!(
            (coarse(490, 1000), coarse(501, 1000), coarse(190, 1000)),
            (1000, 1000, 200)
        );
        assert_eq!((coarse(i64::MAX, 0), coarse(-5, 7)), (i64::MAX, 0));
    }

    #[test]
    fn digests_are_lower_case_sha256() {
        assert!(is_digest(&format!("sha256:{}", "0a".repeat(32))));
        assert!(!is_digest(&format!("sha256:{}", "0A".repeat(32))));
        assert!(!is_digest("sha256:00"));
        assert!(!is_digest(&"0".repeat(71)));
    }
}
