//! What a shell does in a busy container is told of, however noisy its baseline was.

use vigia_model::artifact::{self, Task};
use vigia_model::calibration::AlertBudget;
use vigia_model::context::Context;
use vigia_model::pipeline::{EstimatorKind, Pipeline, Verdict};
use vigia_model::schema::Schema;
use vigia_model::syscalls::{Arch, number};
use vigia_model::window::{Calls, Window};
use vigia_trainer::data::{About, Rows};
use vigia_trainer::fit::{self, Params};
use vigia_trainer::forest;

use crate::support::Random;

type Made<'a> = (&'a str, f64);

const WINDOW_S: f64 = 2.0;

/// A web server of many threads under bursts: heavy-tailed rates, and now and then what is done seldom.
struct Web(Random);

impl Web {
    /// Pareto, of an index that has a mean and no variance.
    fn burst(&mut self) -> f64 {
        (1.0 - self.0.unit()).powf(-1.0 / 1.5)
    }

    fn calls(&mut self) -> Vec<Made<'static>> {
        let load = 20.0 * self.burst();
        let mut calls: Vec<Made> = Vec::new();
        for (name, each) in [
            ("accept4", 1.0),
            ("recvfrom", 1.2),
            ("sendto", 1.5),
            ("futex", 12.0),
            ("close", 2.2),
            ("poll", 1.1),
            ("getsockname", 1.0),
            ("setsockopt", 1.0),
            ("shutdown", 1.0),
            ("newfstatat", 0.8),
            ("ioctl", 0.8),
            ("lseek", 0.8),
            ("clock_gettime", 3.0),
            ("gettid", 0.7),
            ("write", 1.0),
        ] {
            // Each kind wanders by itself, and is absent from quiet windows.
            let made = load * each * (0.9 * self.0.normal()).exp();
            calls.push((name, made.round()));
        }
        for (chance, group) in [
            (
                0.15,
                &["clone", "mmap", "mprotect", "madvise", "rseq", "set_robust_list"] as &[_],
            ),
            (0.10, &["brk", "munmap", "mmap"]),
            (0.06, &["openat", "read", "getrandom"]),
            (0.02, &["socket", "connect", "sendmmsg", "uname"]),
            (0.01, &["sched_yield", "mremap"]),
            (0.01, &["getpid", "rename", "fchmod"]),
            (0.01, &["select", "epoll_ctl", "epoll_wait"]),
            (0.01, &["readlink", "getcwd"]),
        ] {
            if self.0.unit() < chance {
                let often = (3.0 * self.burst()).round();
                calls.extend(group.iter().map(|name| (*name, often)));
            }
        }
        calls
    }

    fn row(&mut self, extra: &[Made]) -> Vec<f32> {
        let mut calls = self.calls();
        calls.extend_from_slice(extra);
        let calls = calls.iter().map(|&(name, count)| Calls {
            nr: number(Arch::X86_64, name).expect("a system call"),
            count: count as u64,
            errors: if name == "futex" { count as u64 / 9 } else { 0 },
        });
        let window = Window::new(Arch::X86_64, 0, (WINDOW_S * 1000.0) as u32, calls);
        let schema = Schema::syscalls_v1();
        let mut row = vec![0.0; schema.width()];
        schema.vector(&window, &mut row).expect("a vector");
        row
    }

    fn rows(&mut self, windows: usize) -> Rows {
        let mut rows = Rows::new(Schema::syscalls_v1());
        for i in 0..windows {
            let about = About {
                started_ms: 2_000 * i as i64,
                window_ms: (WINDOW_S * 1000.0) as u32,
                ..About::default()
            };
            rows.push(&self.row(&[]), about).expect("a row");
        }
        rows
    }
}

/// `kubectl exec … cat /etc/shadow`: what the runtime does before, and the one program.
const CAT: &[Made] = &[
    ("execve", 2.0),
    ("setuid", 1.0),
    ("setgroups", 1.0),
    ("capget", 4.0),
    ("capset", 2.0),
    ("prctl", 12.0),
    ("fsopen", 1.0),
    ("getdents64", 4.0),
    ("openat", 9.0),
    ("fcntl", 14.0),
    ("epoll_create1", 1.0),
    ("pipe2", 1.0),
    ("chdir", 1.0),
    ("setsid", 1.0),
    ("keyctl", 2.0),
    ("prlimit64", 3.0),
    ("sched_getaffinity", 1.0),
    ("sigaltstack", 5.0),
    ("rt_sigaction", 70.0),
    ("rt_sigprocmask", 20.0),
    ("statfs", 2.0),
    ("mmap", 30.0),
    ("arch_prctl", 2.0),
    ("fadvise64", 1.0),
    ("exit_group", 1.0),
    ("tgkill", 2.0),
    ("dup3", 3.0),
    ("faccessat2", 1.0),
];

/// A shell that a program of the container starts, without a runtime's help.
const SHELL: &[Made] = &[
    ("execve", 3.0),
    ("dup2", 3.0),
    ("wait4", 4.0),
    ("rt_sigaction", 12.0),
    ("rt_sigprocmask", 8.0),
    ("getuid", 4.0),
    ("getppid", 1.0),
    ("arch_prctl", 3.0),
    ("prlimit64", 3.0),
    ("getdents64", 6.0),
    ("exit_group", 3.0),
    ("pipe2", 1.0),
    ("setpgid", 2.0),
    ("openat", 14.0),
    ("statfs", 2.0),
    ("fadvise64", 1.0),
];

fn budget(period_s: f64) -> AlertBudget {
    AlertBudget {
        count: 1.0,
        period_s,
        containers: 1.0,
    }
}

/// As a cluster trains: two workers, each its half.
fn train(kinds: &[EstimatorKind], windows: usize, seed: u64) -> Pipeline {
    let rows = Web(Random(seed)).rows(windows);
    let (shard, holdout) = rows.hold_out((windows / 5).max(25), 42);
    let params = Params {
        captures: vec![],
        name: "web".to_owned(),
        estimators: kinds.to_vec(),
        components: None,
        trees: 50,
        sample_size: 256,
        seed: 42,
        workers: 2,
        created_at: String::new(),
        data_digest: String::new(),
    };
    let parts = (0..2).map(|rank| {
        let part = forest::share(shard.len() as u32, rank, 2);
        let part = shard.slice(part.start as usize..part.end as usize);
        fit::fit(&part, &params, rank).expect("fits")
    });
    let trained = fit::combine(parts.collect(), &params, &holdout, &[]).expect("combines");
    artifact::open_unsigned(&trained.artifact, Task::Anomaly)
        .expect("opens")
        .pipeline
}

fn score(pipeline: &Pipeline, row: &[f32]) -> Verdict {
    pipeline.score_vector(row, Context::NONE).expect("scores")
}

#[test]
fn an_exec_is_told_of_in_its_one_window_whatever_the_baseline_and_its_new_calls_are_named() {
    let at_once = budget(3600.0).at_once(WINDOW_S);
    for (windows, seed) in [(60, 1), (60, 2), (120, 2), (300, 1)] {
        let pipeline = train(&EstimatorKind::DEFAULT, windows, seed);
        let mut web = Web(Random(seed + 1000));
        for _ in 0..50 {
            let verdict = score(&pipeline, &web.row(CAT));
            assert!(verdict.score >= at_once, "{windows}, {seed}: {verdict:?}");
            assert_eq!(verdict.drivers.iter().count(), 3);
            for driver in verdict.drivers.iter() {
                let made = CAT.iter().any(|(name, _)| *name == driver.syscall);
                assert!(made && driver.observed_per_s > 0.0, "{verdict:?}");
                assert_eq!(driver.expected_per_s, 0.0, "{verdict:?}");
            }
            // One that no runtime helps makes fewer kinds of calls: it takes more windows to be sure.
            let verdict = score(&pipeline, &web.row(SHELL));
            assert!(
                windows < 100 || verdict.score >= at_once,
                "{windows}, {seed}: {verdict:?}"
            );
        }
    }
}

#[test]
fn what_is_new_by_itself_keeps_to_the_budget() {
    let (mut above, mut windows) = (0, 0);
    for seed in 1..6 {
        let pipeline = train(&[EstimatorKind::Novelty], 120, seed);
        let mut web = Web(Random(seed + 1000));
        // Ten in a thousand: one that training with 120 windows can know of.
        let threshold = budget(100.0 * WINDOW_S).threshold(WINDOW_S, 1, 1.0);
        for _ in 0..1000 {
            above += u32::from(score(&pipeline, &web.row(&[])).score >= threshold);
            windows += 1;
        }
    }
    assert!(above * 100 <= 2 * windows, "{above} of {windows}");
}

#[test]
fn the_usual_estimators_keep_to_the_budget_whatever_is_held_out() {
    let (mut above, mut told, mut windows) = (0, 0, 0);
    let an_hour = budget(3600.0);
    for seed in 1..6 {
        let pipeline = train(&EstimatorKind::DEFAULT, 300, seed);
        let mut web = Web(Random(seed + 1000));
        for _ in 0..2000 {
            let verdict = score(&pipeline, &web.row(&[]));
            above += u32::from(verdict.p_value < 0.01);
            told += u32::from(verdict.score >= an_hour.threshold(WINDOW_S, 1, 1.0));
            windows += 1;
        }
    }
    assert!(above * 100 <= 2 * windows, "{above} of {windows}");
    assert!(told * 1800 <= 2 * windows, "{told} of {windows}");
}

#[test]
fn one_call_or_two_that_are_new_are_no_alert_to_what_counts_kinds() {
    let at_once = budget(3600.0).at_once(WINDOW_S);
    let pipeline = train(&[EstimatorKind::Novelty], 300, 1);
    let mut web = Web(Random(7));
    for extra in [&[("execve", 9.0)][..], &[("execve", 1.0), ("wait4", 1.0)]] {
        let verdict = score(&pipeline, &web.row(extra));
        assert!(verdict.p_value < 0.1 && verdict.score < at_once, "{verdict:?}");
    }
}
