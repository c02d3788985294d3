//! Numbers in sentences for people.

/// A number and what it counts: `1 window`, `2 windows`.
pub fn counted(number: impl Into<u64>, one: &str) -> String {
    match number.into() {
        1 => format!("1 {one}"),
        n => format!("{n} {one}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let said = [0u64, 1, 2].map(|n| counted(n, "window"));
        assert_eq!(said, ["0 windows", "1 window", "2 windows"]);
    }
}
