//! Windows of a made-up key-value store under changing load, and of what intruders do in it.

use crate::support::Random;
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::forest::{ForestSpec, MAX_DEPTH, Node, TreeSpec};
use vigia_model::pipeline::{EstimatorSpec, PipelineSpec};
use vigia_model::schema::Schema;
use vigia_model::syscalls::{Arch, number};
use vigia_model::window::{Calls, Window};

pub const SECONDS: f64 = 10.0;

/// A store whose load wanders by about a factor of two and that saves to disk now and then.
pub struct Store {
    pub random: Random,
    /// Logarithm of the load against the usual one.
    load: f64,
    pub shift: f64,
    /// How far the load wanders from window to window.
    pub wander: f64,
}

impl Store {
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            load: 0.0,
            shift: 0.0,
            wander: 0.15,
        }
    }

    fn poisson(&mut self, mean: f64) -> u64 {
        if mean > 50.0 {
            return (mean + mean.sqrt() * self.random.normal()).max(0.0).round() as u64;
        }
        let (limit, mut product, mut n) = ((-mean).exp(), self.random.unit(), 0);
        while product > limit {
            product *= self.random.unit();
            n += 1;
        }
        n
    }

    pub fn calls(&mut self) -> Vec<(&'static str, u64, u64)> {
        self.load = 0.9 * self.load + self.wander * self.random.normal();
        let requests = 20_000.0 * SECONDS * (self.load + self.shift).exp();
        let mut calls = vec![
            ("read", self.poisson(requests), 0),
            ("write", self.poisson(requests), 0),
            ("epoll_wait", self.poisson(requests / 8.0 + 10.0 * SECONDS), 0),
            ("clock_gettime", self.poisson(2.0 * SECONDS), 0),
            ("getpid", self.poisson(1.0 * SECONDS), 0),
            ("openat", self.poisson(1.0 * SECONDS), 0),
            ("close", self.poisson(1.1 * SECONDS), 0),
        ];
        let connections = self.poisson(0.3);
        if connections > 0 {
            for name in ["accept4", "epoll_ctl", "setsockopt", "fcntl"] {
                calls.push((name, connections, 0));
            }
        }
        if self.random.unit() < 0.03 {
            calls.extend([
                ("clone", 1, 0),
                ("wait4", 3, 1),
                ("rename", 1, 0),
                ("fdatasync", 2, 0),
                ("madvise", 40, 0),
            ]);
        }
        calls
    }

    pub fn window(&mut self) -> Window {
        to_window(&self.calls())
    }

    /// A window in which something else happens, too.
    pub fn window_with(&mut self, extra: &[(&'static str, u64, u64)]) -> Window {
        let mut calls = self.calls();
        calls.extend_from_slice(extra);
        to_window(&calls)
    }
}

fn to_window(calls: &[(&str, u64, u64)]) -> Window {
    let calls = calls.iter().map(|&(name, count, errors)| Calls {
        nr: number(Arch::X86_64, name).expect("a system call"),
        count,
        errors,
    });
    Window::new(Arch::X86_64, 0, (SECONDS * 1000.0) as u32, calls)
}

/// A shell that reads credentials.
pub const CREDENTIALS: &[(&str, u64, u64)] = &[
    ("execve", 2, 0),
    ("clone", 2, 0),
    ("mmap", 40, 0),
    ("openat", 25, 6),
    ("read", 30, 0),
    ("dup2", 3, 0),
    ("rt_sigaction", 30, 0),
    ("wait4", 4, 0),
    ("newfstatat", 20, 4),
    ("brk", 8, 0),
    ("exit_group", 2, 0),
];
/// A scan of a hundred ports.
pub const SCAN: &[(&str, u64, u64)] = &[
    ("socket", 100, 0),
    ("connect", 100, 97),
    ("close", 100, 0),
    ("fcntl", 200, 0),
    ("poll", 60, 0),
];
/// A child that connects out and becomes a shell.
pub const REVERSE_SHELL: &[(&str, u64, u64)] = &[
    ("clone", 1, 0),
    ("socket", 1, 0),
    ("connect", 1, 0),
    ("dup2", 3, 0),
    ("execve", 1, 0),
];

pub fn rows(schema: &Schema, windows: impl Iterator<Item = Window>) -> Vec<f32> {
    let mut rows = Vec::new();
    for window in windows {
        let start = rows.len();
        rows.resize(start + schema.width(), 0.0);
        schema.vector(&window, &mut rows[start..]).expect("a vector");
    }
    rows
}

/// An isolation forest over rows, splitting on features that vary.
pub fn grow(rows: &[f32], width: usize, trees: usize, random: &mut Random) -> ForestSpec {
    let count = rows.len() / width;
    let trees = (0..trees).map(|_| {
        let mut sample: Vec<usize> = (0..256.min(count)).map(|_| random.below(count)).collect();
        let mut nodes = Vec::new();
        split(rows, width, &mut sample, 0, &mut nodes, random);
        TreeSpec {
            samples: 256.min(count) as u32,
            nodes,
        }
    });
    ForestSpec {
        features: width as u16,
        trees: trees.collect(),
    }
}

fn split(
    rows: &[f32],
    width: usize,
    sample: &mut [usize],
    depth: usize,
    nodes: &mut Vec<Node>,
    random: &mut Random,
) {
    let range = |f: usize| {
        sample
            .iter()
            .map(|&r| rows[r * width + f])
            .fold((f32::MAX, f32::MIN), |(a, b), x| (a.min(x), b.max(x)))
    };
    let varying: Vec<usize> = (0..width)
        .filter(|&f| {
            let (a, b) = range(f);
            a < b
        })
        .collect();
    let at = nodes.len();
    nodes.push(Node::Leaf {
        size: sample.len() as u32,
    });
    if depth == MAX_DEPTH || varying.is_empty() {
        return;
    }
    let feature = varying[random.below(varying.len())];
    let (low, high) = range(feature);
    let threshold = (low + (high - low) * random.unit() as f32).clamp(low.next_up(), high);
    sample.sort_unstable_by_key(|&r| rows[r * width + feature] >= threshold);
    let cut = sample.partition_point(|&r| rows[r * width + feature] < threshold);
    let (less, more) = sample.split_at_mut(cut);
    let left = nodes.len() as u16;
    split(rows, width, less, depth + 1, nodes, random);
    let right = nodes.len() as u16;
    split(rows, width, more, depth + 1, nodes, random);
    nodes[at] = Node::Split {
        feature: feature as u16,
        threshold,
        left,
        right,
    };
}

/// Deviation and forest trained on `train` windows and calibrated on `held_out` more of them.
pub fn train(store: &mut Store, train: usize, held_out: usize) -> PipelineSpec {
    let schema = Schema::syscalls_v1();
    let seen = rows(schema, (0..train).map(|_| store.window()));
    let held_out = rows(schema, (0..held_out).map(|_| store.window()));
    learn(schema, &seen, &held_out)
}

/// Deviation and forest of rows, calibrated on others.
pub fn learn(schema: &'static Schema, seen: &[f32], held_out: &[f32]) -> PipelineSpec {
    let mut moments = Moments::new(schema.width());
    seen.chunks(schema.width())
        .for_each(|row| moments.add(row).expect("finite"));
    let forest = grow(seen, schema.width(), 100, &mut Random(5));
    let deviation = Deviation::from_moments(&moments).expect("rows");
    let estimators = vec![EstimatorSpec::Deviation, EstimatorSpec::IsolationForest(forest)];
    PipelineSpec::calibrate(schema, deviation, estimators, held_out).expect("calibrates")
}
