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
#[path = "../../../model/benches/row/mod.rs"]
mod row;
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

/// A percentile.
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
