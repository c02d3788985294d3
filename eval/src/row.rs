//! One figure: ours, the others', and whether the target holds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use serde::{Serialize, Serializer};
use vigia_model::pipeline::EstimatorKind;

/// What a row judges. Estimators of a pipeline are named by the kinds that a Model can name, so that what no Model
/// reaches cannot pass for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Estimators that an artifact carried, as a node scores them.
    Model(&'static [EstimatorKind]),
    /// Of the library; no artifact carries it, and no node runs it.
    Library(&'static str),
}

impl Subject {
    const fn place(self) -> &'static str {
        match self {
            Self::Model(_) => "node",
            Self::Library(_) => "eval",
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(kinds) => {
                let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
                write!(f, "{}: what a node runs, from an artifact", kinds.join(" + "))
            }
            Self::Library(name) => write!(f, "{name}: eval and library only, in no Model"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

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
    /// What `ours` was measured on.
    subject: Subject,
    unit: &'static str,
    ours: f64,
    /// The baselines', measured in the same run, and oracles.
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
        subject: Subject,
        unit: &'static str,
        ours: f64,
        target: Target,
        peers: [(&str, f64); N],
    ) -> Self {
        let peers: BTreeMap<String, f64> = peers.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect();
        Self {
            name: name.to_owned(),
            subject,
            unit,
            ours,
            ratio: target.best(&peers).filter(|b| *b != 0.0).map(|b| ours / b),
            peers,
            target: target.text(),
            holds: target.holds(ours),
            parts: BTreeMap::new(),
        }
    }

    /// Puts beside the baselines what knows the answers: it says how far `ours` could go at best, and is not one to beat.
    pub fn with_oracle(mut self, name: &str, value: f64) -> Self {
        self.peers.insert(format!("oracle: {name}"), value);
        self
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
        "{:<24} {:<4} {:>10}  {:<12} {:>7}  {}\n",
        "figure", "of", "ours", "target", "", "beside"
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
            "{:<24} {:<4} {:>10.4}  {:<12} {:>7}  {}",
            row.name,
            row.subject.place(),
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
    let mut subjects: Vec<(Subject, Vec<&str>)> = Vec::new();
    for row in rows {
        match subjects.iter_mut().find(|(subject, _)| *subject == row.subject) {
            Some((_, names)) => names.push(&row.name),
            None => subjects.push((row.subject, vec![&row.name])),
        }
    }
    for (subject, names) in subjects {
        let _ = writeln!(out, "{}  {subject} ({})", subject.place(), names.join(", "));
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

    const ORDER: Subject = Subject::Model(&[EstimatorKind::Ngram, EstimatorKind::Stide]);

    #[test]
    fn an_oracle_is_shown_and_not_to_be_beaten() {
        let row = Row::new("b", ORDER, "MASE", 1.0, Target::Below(0.9), [("x", 2.0)]).with_oracle("y", 0.5);
        assert_eq!(row.ratio, Some(0.5));
        assert!(table(&[row]).contains("oracle: y 0.500"));
    }

    #[test]
    fn a_row_says_whether_a_node_runs_what_it_judges() {
        let of = |subject| Row::new("a", subject, "AUC", 0.9, Target::None, []);
        let rows = [of(ORDER), of(Subject::Library("a thing")), of(ORDER)];
        let table = table(&rows);
        assert!(
            table.contains("node  n-gram + stide: what a node runs, from an artifact (a, a)"),
            "{table}"
        );
        assert!(
            table.contains("eval  a thing: eval and library only, in no Model (a)"),
            "{table}"
        );
        let json = serde_json::to_value(&rows[1]).expect("json");
        assert_eq!(json["subject"], "a thing: eval and library only, in no Model");
    }

    #[test]
    fn the_ratio_is_to_the_best_baseline() {
        let up = Row::new(
            "a",
            ORDER,
            "AUC",
            0.9,
            Target::AtLeast(0.8),
            [("x", 0.6), ("y", 0.75)],
        );
        assert_eq!(up.ratio, Some(0.9 / 0.75));
        let down = Row::new(
            "b",
            ORDER,
            "MASE",
            1.0,
            Target::Below(1.1),
            [("x", 2.0), ("y", 4.0)],
        );
        assert_eq!(down.ratio, Some(0.5));
        assert!(table(&[up, down]).contains("y 4.000"));
    }
}
