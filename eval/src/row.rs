//! One figure: ours, the others', and whether the target holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

/// Which way is better, and from where on it is good enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// At least this.
    AtLeast(f64),
    /// Below this.
    Below(f64),
    /// Within this factor of 1, either way.
    Within(f64),
    /// Said, not judged.
    None,
}

impl Target {
    fn holds(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(t) => Some(value >= t),
            Self::Below(t) => Some(value < t),
            Self::Within(t) => Some(value <= t && value * t >= 1.0),
            Self::None => None,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Self::AtLeast(t) => Some(format!(">= {t}")),
            Self::Below(t) => Some(format!("< {t}")),
            Self::Within(t) => Some(format!("within {t}x")),
            Self::None => None,
        }
    }

    /// The best of the others' values.
    fn best(self, peers: &BTreeMap<String, f64>) -> Option<f64> {
        let values = peers.values().copied();
        match self {
            Self::AtLeast(_) => values.reduce(f64::max),
            Self::Below(_) => values.reduce(f64::min),
            Self::Within(_) | Self::None => None,
        }
    }
}

/// A row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    /// The baselines', measured in the same run.
    peers: BTreeMap<String, f64>,
    /// Ours over the best of the baselines.
    ratio: Option<f64>,
    target: Option<String>,
    holds: Option<bool>,
    /// The parts that `ours` is made of, such as machines or attack classes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    parts: BTreeMap<String, f64>,
}

impl Row {
    /// A row; `peers` are the baselines.
    pub fn new<const N: usize>(
        name: &str,
        unit: &'static str,
        ours: f64,
        target: Target,
        peers: [(&str, f64); N],
    ) -> Self {
        let peers: BTreeMap<String, f64> = peers.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        Self {
            name: name.to_owned(),
            unit,
            ours,
            ratio: target.best(&peers).filter(|b| *b != 0.0).map(|b| ours / b),
            peers,
            target: target.text(),
            holds: target.holds(ours),
            parts: BTreeMap::new(),
        }
    }

    /// Says what `ours` is made of.
    pub fn with_parts(mut self, parts: impl IntoIterator<Item = (String, f64)>) -> Self {
        self.parts = parts.into_iter().collect();
        self
    }
}

/// What made the rows.
#[derive(Debug, Clone, Serialize)]
pub struct Provenance {
    code: String,
    /// Nothing that is judged here draws at random.
    seed: u64,
}

impl Provenance {
    /// Rows made by this version of the code.
    pub fn new(code: &str) -> Self {
        Self {
            code: code.to_owned(),
            seed: 0,
        }
    }
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    row: &'a Row,
    #[serde(flatten)]
    provenance: &'a Provenance,
}

/// The rows for people.
pub fn table(rows: &[Row]) -> String {
    let mut out = format!(
        "{:<24} {:>10}  {:<12} {:>7}  {}\n",
        "figure", "ours", "target", "", "beside"
    );
    for row in rows {
        let holds = match row.holds {
            Some(true) => "holds",
            Some(false) => "MISSED",
            None => "",
        };
        let mut peers: Vec<(&String, &f64)> = row.peers.iter().collect();
        peers.sort_by(|a, b| b.1.total_cmp(a.1));
        let peers: Vec<String> = peers.iter().map(|(n, v)| format!("{n} {v:.3}")).collect();
        let _ = writeln!(
            out,
            "{:<24} {:>10.4}  {:<12} {:>7}  {}",
            row.name,
            row.ours,
            row.target.as_deref().unwrap_or("-"),
            holds,
            peers.join(", "),
        );
        if !row.parts.is_empty() {
            let parts: Vec<String> = row.parts.iter().map(|(n, v)| format!("{n} {v:.3}")).collect();
            let _ = writeln!(out, "{:<24} {}", "", parts.join(", "));
        }
    }
    out
}

/// Writes each row to a file of its name.
pub fn write(folder: &Path, rows: &[Row], provenance: &Provenance) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for row in rows {
        let json = serde_json::to_string_pretty(&Written { row, provenance })?;
        std::fs::write(folder.join(format!("{}.json", row.name)), json + "\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hold_or_not() {
        assert_eq!(Target::AtLeast(0.5).holds(0.5), Some(true));
        assert_eq!(Target::Below(1.0).holds(1.0), Some(false));
        assert_eq!(Target::Within(2.0).holds(0.5), Some(true));
        assert_eq!(Target::Within(2.0).holds(0.49), Some(false));
        assert_eq!(Target::Within(2.0).holds(2.01), Some(false));
        assert_eq!(Target::AtLeast(0.5).holds(f64::NAN), Some(false));
        assert_eq!(Target::None.holds(3.0), None);
    }

    #[test]
    fn the_ratio_is_to_the_best_baseline() {
        let up = Row::new("a", "AUC", 0.9, Target::AtLeast(0.8), [("x", 0.6), ("y", 0.75)]);
        assert_eq!(up.ratio, Some(0.9 / 0.75));
        let down = Row::new("b", "MASE", 1.0, Target::Below(1.1), [("x", 2.0), ("y", 4.0)]);
        assert_eq!(down.ratio, Some(0.5));
        assert!(table(&[up, down]).contains("y 4.000"));
    }
}
