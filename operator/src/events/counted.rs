//! Numbers in sentences for people.

/// A number and what it counts: `1 window`, `2 windows`.
pub fn counted(number: impl Into<u64>, one: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

/// Names as a sentence has them: `NGram, NGramPeak and STIDE`.
pub fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_one_and() {
        assert_eq!(listed(&[]), "");
        assert_eq!(listed(&["NGram"]), "NGram");
        assert_eq!(listed(&["NGram", "STIDE"]), "NGram and STIDE");
        assert_eq!(
            listed(&["NGram", "NGramPeak", "STIDE"]),
            "NGram, NGramPeak and STIDE"
        );
    }

    #[test]
    fn one_is_not_many() {
        let said = [0u64, 1, 2].map(|n| counted(n, "window"));
        assert_eq!(said, ["0 windows", "1 window", "2 windows"]);
    }
}
