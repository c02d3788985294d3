//! A figure, as `make bench` collects it: one JSON object a line and, with `BENCH_OUT` set to a folder, one file. The
//! benches of other crates take this file by its path.

use serde_json::{Map, Value, json};

/// A figure.
pub struct Row {
    /// What it is called.
    pub name: &'static str,
    /// What it is counted in.
    pub unit: &'static str,
    /// Measured, once a round.
    pub ours: Vec<f64>,
    /// What was measured in turns with it. The first, if it does the same work, is what ours is compared with.
    pub peers: Vec<(&'static str, Vec<f64>)>,
    /// Whether the first peer does the same work.
    pub rivals: bool,
    /// What is wanted.
    pub target: Target,
    /// What was measured, and how.
    pub note: String,
}

/// What is wanted of a figure.
#[derive(Clone, Copy)]
pub enum Target {
    /// The smaller the better.
    AtMost(f64),
    /// The larger the better.
    AtLeast(f64),
}

impl Row {
    /// Writes it.
    pub fn print(mut self) {
        let (ours, low, high) = summary(&mut self.ours);
        let first = self.peers.first_mut().map(|(_, values)| summary(values).0);
        let peers: Map<String, Value> = self
            .peers
            .iter_mut()
            .map(|(name, values)| ((*name).to_owned(), summary(values).0.into()))
            .collect();
        let ratio = first.filter(|_| self.rivals).map(|peer| peer / ours);
        let (target, holds) = match self.target {
            Target::AtMost(limit) => (format!("<= {limit}"), ours <= limit),
            Target::AtLeast(limit) => (format!(">= {limit}"), ours >= limit),
        };
        let row = json!({
            "name": self.name, "unit": self.unit, "ours": ours, "spread": [low, high], "peers": peers,
            "ratio": ratio, "target": target, "holds": holds, "note": self.note,
        });
        println!("{row}");
        if let Some(folder) = std::env::var_os("BENCH_OUT") {
            let folder = std::path::Path::new(&folder);
            std::fs::create_dir_all(folder).expect("BENCH_OUT can be made");
            std::fs::write(folder.join(format!("{}.json", self.name)), format!("{row}\n"))
                .expect("BENCH_OUT is writable");
        }
    }
}

/// Median and the 10th and 90th percentiles.
fn summary(values: &mut [f64]) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.1), at(0.9))
}
