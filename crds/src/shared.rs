//! Types that more than one kind uses.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A reference to an object of a known kind in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object.
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')")
        .message("no object can have this name: write lower-case letters, digits, '-' and '.', the first and the last a letter or a digit"))]
    pub name: String,
}

impl From<&str> for LocalRef {
    fn from(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }
}

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
    fn digests_are_lower_case_sha256() {
        assert!(is_digest(&format!("sha256:{}", "0a".repeat(32))));
        assert!(!is_digest(&format!("sha256:{}", "0A".repeat(32))));
        assert!(!is_digest("sha256:00"));
        assert!(!is_digest(&"0".repeat(71)));
    }
}
