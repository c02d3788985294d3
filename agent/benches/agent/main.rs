//! Figures of the probe and of the agent's process, as rows that `make bench` collects.
//!
//! `cargo bench -p vigia-agent [-- <part of a row's name>…]` prints one JSON object a row and, with `BENCH_OUT` set to
//! a folder, writes each to `<name>.json` there. Needs root. Rounds of ours and of the others take turns; a figure is
//! the median of its rounds, with the 10th and 90th percentiles beside it.

#[path = "../../tests/agent/api.rs"]
#[expect(dead_code, reason = "the tests' own; not all of it is measured")]
mod api;
#[path = "../../tests/agent/fake.rs"]
#[expect(dead_code, reason = "the tests' own; not all of it is measured")]
mod fake;
#[path = "../../tests/agent/ground.rs"]
#[expect(dead_code, reason = "the tests' own; not all of it is measured")]
mod ground;
#[path = "../../tests/agent/model.rs"]
#[expect(dead_code, reason = "the tests' own; not all of it is measured")]
mod model;
mod node;
#[path = "../../tests/agent/planned.rs"]
#[expect(dead_code, reason = "the tests' own; not all of it is measured")]
mod planned;
mod probe;
#[path = "../../../model/tests/it/support.rs"]
#[expect(
    dead_code,
    reason = "the model's tests' own; only its random forests are used"
)]
mod support;
mod workload;
#[path = "../../tests/agent/world.rs"]
#[expect(dead_code, reason = "the tests' own; not all of it is measured")]
mod world;

use serde_json::{Map, Value, json};

/// One figure.
struct Row {
    name: &'static str,
    unit: &'static str,
    ours: Vec<f64>,
    peers: Vec<(&'static str, Vec<f64>)>,
    /// What is wanted.
    target: Target,
    note: String,
}

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    fn print(mut self) {
        let (ours, low, high) = summary(&mut self.ours);
        let peers: Map<String, Value> = self
            .peers
            .iter_mut()
            .map(|(name, values)| ((*name).to_owned(), summary(values).0.into()))
            .collect();
        let ratio = peers
            .values()
            .next()
            .and_then(Value::as_f64)
            .map(|peer| peer / ours);
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
    (at(values, 0.5), at(values, 0.1), at(values, 0.9))
}

fn at(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with("--"))
        .collect();
    if workload::run(&args) {
        return;
    }
    let rows: [(&str, fn()); 7] = [
        ("probe.counts", probe::counts),
        ("probe.full, probe.sampled", probe::detail),
        ("probe.drain", probe::drain),
        ("agent.verdict", node::verdict),
        ("probe.redis", node::redis),
        ("agent.memory", node::memory),
        ("agent.100", node::hundred),
    ];
    for (name, measure) in rows {
        if args.is_empty() || args.iter().any(|wanted| name.contains(wanted.as_str())) {
            measure();
        }
    }
}
