//! What the pipeline is for: intruders are seen and named, ordinary windows are left alone.

use crate::workload::{CREDENTIALS, REVERSE_SHELL, SCAN, SECONDS, Store, learn, rows, train};
use vigia_model::calibration::{AlertBudget, Severity};
use vigia_model::context::Context;
use vigia_model::pipeline::{Driver, DriverKind, Pipeline, Scratch, Verdict};
use vigia_model::schema::Schema;
use vigia_model::syscalls::{Arch, number};
use vigia_model::window::{Calls, Window};

/// Windows trained on and held out: a quarter of an hour, an hour and a half, seven hours.
const SIZES: [(usize, usize); 3] = [(120, 60), (400, 100), (2000, 500)];

fn budget() -> f32 {
    let a_day = AlertBudget {
        count: 1.0,
        period_s: 86_400.0,
        containers: 1.0,
    };
    a_day.threshold(SECONDS, 2, 1.0)
}

fn pipeline(train_on: usize, held_out: usize) -> Pipeline {
    let mut store = Store::new(1);
    train(&mut store, train_on, held_out)
        .compile(Schema::syscalls_v1())
        .expect("compiles")
}

fn score(pipeline: &Pipeline, window: &Window) -> Verdict {
    pipeline.score(window, &mut Scratch::default()).expect("scores")
}

#[test]
fn intruders_are_above_a_budget_of_one_alarm_a_day_and_named() {
    for (train_on, held_out) in SIZES {
        let pipeline = pipeline(train_on, held_out);
        let mut store = Store::new(2);
        for (what, extra) in [
            ("credentials", CREDENTIALS),
            ("scan", SCAN),
            ("reverse shell", REVERSE_SHELL),
        ] {
            for _ in 0..100 {
                let verdict = score(&pipeline, &store.window_with(extra));
                assert!(
                    verdict.score >= budget(),
                    "{what} after {train_on} windows: {verdict:?}"
                );
                assert!(verdict.severity >= Severity::Low);
                assert_eq!(verdict.drivers.iter().count(), 3);
                for driver in verdict.drivers.iter() {
                    assert!(
                        extra.iter().any(|(name, ..)| *name == driver.syscall),
                        "{what}: {driver:?}"
                    );
                    assert!(driver.observed_per_s > 10.0 * driver.expected_per_s);
                }
            }
        }
    }
}

#[test]
fn ordinary_windows_stay_within_the_budget() {
    for (train_on, held_out) in SIZES {
        let pipeline = pipeline(train_on, held_out);
        let mut store = Store::new(3);
        let alarms = (0..8640)
            .filter(|_| score(&pipeline, &store.window()).score >= budget())
            .count();
        assert!(
            alarms <= 2,
            "{alarms} windows of a day above a budget of one, after {train_on} windows"
        );
    }
}

#[test]
fn twice_or_half_the_load_is_no_alarm_even_where_training_saw_a_steady_one() {
    for wander in [0.0, 0.15] {
        let mut store = Store::new(4);
        store.wander = wander;
        let pipeline = train(&mut store, 400, 100)
            .compile(Schema::syscalls_v1())
            .expect("compiles");
        for factor in [0.5f64, 2.0] {
            store.shift = factor.ln();
            let highest = (0..200)
                .map(|_| score(&pipeline, &store.window()).score)
                .fold(0.0, f32::max);
            assert!(
                highest < budget(),
                "load times {factor}, wander {wander}: {highest}"
            );
        }
    }
}

#[test]
fn what_tells_most_is_named_first_among_calls_odd_beyond_doubt() {
    let pipeline = pipeline(400, 100);
    let first = |extra| {
        let verdict = score(&pipeline, &Store::new(12).window_with(extra));
        verdict.drivers.iter().map(|d| d.syscall).next()
    };
    assert_eq!(first(CREDENTIALS), Some("execve"));
    assert_eq!(first(SCAN), Some("connect"));
    assert_eq!(first(REVERSE_SHELL), Some("execve"));
    assert_eq!(
        first(&[("mmap", 500, 0), ("finit_module", 1, 0)]),
        Some("finit_module")
    );
}

#[test]
fn a_container_at_rest_raises_no_alarm_and_is_explained_by_what_it_no_longer_does() {
    for (train_on, held_out) in SIZES {
        let pipeline = pipeline(train_on, held_out);
        let mut store = Store::new(11);
        store.shift = -8.0;
        for _ in 0..100 {
            let verdict = score(&pipeline, &store.window());
            assert!(verdict.score < budget(), "{verdict:?}");
        }
        let nothing = score(&pipeline, &Window::new(Arch::X86_64, 0, 10_000, []));
        assert!(nothing.score < budget(), "{nothing:?}");
        let named: Vec<&str> = nothing.drivers.iter().map(|d| d.syscall).collect();
        assert!(named.contains(&"read") && named.contains(&"write"), "{named:?}");
    }
}

/// In a steady container, whose held-out windows say nothing of how odd a normal one can be.
#[test]
fn one_new_call_in_a_short_window_waits_for_a_second_sign() {
    let schema = Schema::syscalls_v1();
    let window = |seconds: u64, extra: &[&str]| {
        let steady = [
            ("read", 5000 * seconds),
            ("write", 5000 * seconds),
            ("epoll_wait", 900 * seconds),
        ];
        let calls = steady.into_iter().chain(extra.iter().map(|&name| (name, 1)));
        let calls = calls.map(|(name, count)| Calls {
            nr: number(Arch::X86_64, name).expect("a system call"),
            count,
            errors: 0,
        });
        Window::new(Arch::X86_64, 0, 1000 * seconds as u32, calls)
    };
    for seconds in [1, 2, 10] {
        let steady = rows(schema, (0..200).map(|_| window(seconds, &[])));
        let spec = learn(schema, &steady[..steady.len() / 2], &steady[steady.len() / 2..]);
        let pipeline = spec.compile(schema).expect("compiles");
        let a_day = AlertBudget {
            count: 1.0,
            period_s: 86_400.0,
            containers: 1.0,
        };
        let at_once = a_day.at_once(seconds as f64);
        let one = score(&pipeline, &window(seconds, &["execve"]));
        let three = score(&pipeline, &window(seconds, &["execve", "connect", "clone"]));
        assert!(one.score < at_once && one.score > 0.4, "{seconds} s: {one:?}");
        assert!(three.score >= at_once, "{seconds} s: {three:?}");
    }
}

#[test]
fn one_new_call_is_less_odd_than_five() {
    let pipeline = pipeline(400, 100);
    let mut store = Store::new(5);
    let one = score(&pipeline, &store.window_with(&[("execve", 1, 0)]));
    let five = score(&pipeline, &store.window_with(REVERSE_SHELL));
    assert!(one.score > 0.3 && one.score < budget());
    assert!(five.p_value < one.p_value / 100.0);
}

#[test]
fn calls_without_a_feature_of_their_own_are_named_all_the_same() {
    let pipeline = pipeline(400, 100);
    let window = Store::new(6).window_with(&[("kexec_load", 3, 3), ("keyctl", 1, 0)]);
    let verdict = score(&pipeline, &window);
    let driver: Vec<&Driver> = verdict
        .drivers
        .iter()
        .filter(|d| d.syscall == "kexec_load")
        .collect();
    assert_eq!(driver.len(), 1, "{verdict:?}");
    assert!((driver[0].observed_per_s - 0.4).abs() < 1e-3);
}

#[test]
fn what_no_group_names_explains_a_window_of_which_only_the_vector_is_left_or_that_has_no_name_at_all() {
    let pipeline = pipeline(400, 100);
    let drivers = |verdict: &Verdict| -> Vec<(&'static str, DriverKind)> {
        verdict.drivers.iter().map(|d| (d.syscall, d.kind)).collect()
    };
    let window = Store::new(6).window_with(&[("keyctl", 50, 50)]);
    let mut vector = vec![0.0; pipeline.schema().width()];
    pipeline.schema().vector(&window, &mut vector).expect("a vector");
    let verdict = pipeline.score_vector(&vector, Context::NONE).expect("a verdict");
    let class = vigia_model::syscalls::class("keyctl");
    let told = drivers(&verdict);
    assert!(
        told.iter()
            .any(|(name, kind)| *name == format!("rest:{class}") && *kind == DriverKind::Calls),
        "{told:?}"
    );
    assert!(
        told.iter()
            .any(|(name, kind)| *name == format!("%{class}") && *kind == DriverKind::Errors),
        "{told:?}"
    );
    // The features are those of the schema.
    let features: Vec<String> = pipeline
        .schema()
        .features()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(features.contains(&format!("rest:{class}")));

    let mut window = Store::new(6).window();
    let nameless = Calls {
        nr: 999,
        count: 500,
        errors: 500,
    };
    window = Window::new(
        window.arch,
        window.started_ms,
        window.duration_ms,
        window.calls.into_iter().chain([nameless]),
    );
    let told = drivers(&score(&pipeline, &window));
    assert!(told.iter().any(|(name, _)| *name == "unknown"), "{told:?}");
}

#[test]
fn failures_are_named_with_the_call_that_failed_most() {
    let pipeline = pipeline(400, 100);
    let window = Store::new(7).window_with(&[("openat", 0, 200), ("close", 0, 3)]);
    let verdict = score(&pipeline, &window);
    let errors = verdict.drivers.iter().find(|d| d.kind == DriverKind::Errors);
    assert!(
        errors.is_some_and(|d| d.syscall == "openat" && d.observed_per_s > 19.0),
        "{verdict:?}"
    );
}

#[test]
fn the_same_behaviour_in_any_length_of_window_and_on_any_architecture_scores_alike() {
    let pipeline = pipeline(400, 100);
    let calls = [
        ("read", 200_000),
        ("write", 200_000),
        ("epoll_pwait", 25_000),
        ("openat", 10),
        ("close", 11),
    ];
    let window = |arch, factor: u64| {
        let calls = calls.map(|(name, count)| Calls {
            nr: number(arch, name).expect("on both"),
            count: count * factor,
            errors: 0,
        });
        Window::new(arch, 0, 10_000 * factor as u32, calls)
    };
    let base = score(&pipeline, &window(Arch::X86_64, 1));
    assert_eq!(base, score(&pipeline, &window(Arch::Aarch64, 1)));
    assert_eq!(base, score(&pipeline, &window(Arch::X86_64, 6)));
}

#[test]
fn batches_vectors_and_windows_score_the_same() {
    let schema = Schema::syscalls_v1();
    let pipeline = pipeline(400, 100);
    let mut store = Store::new(8);
    let windows: Vec<Window> = (0..200).map(|_| store.window()).collect();
    let rows = rows(schema, windows.iter().cloned());
    let mut batch = vec![0.0; windows.len()];
    pipeline.score_rows(&rows, &mut batch).expect("scores");
    for ((window, row), &batched) in windows.iter().zip(rows.chunks(schema.width())).zip(&batch) {
        assert_eq!(score(&pipeline, window).score.to_bits(), batched.to_bits());
        assert_eq!(
            pipeline
                .score_vector(row, Context::NONE)
                .expect("scores")
                .score
                .to_bits(),
            batched.to_bits()
        );
    }
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let schema = Schema::syscalls_v1();
    let pipeline = pipeline(120, 60);
    let mut row = vec![0.0; schema.width()];
    assert!(pipeline.score_vector(&row, Context::NONE).is_ok());
    assert!(pipeline.score_vector(&row[1..], Context::NONE).is_err());
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        row[7] = bad;
        assert!(pipeline.score_vector(&row, Context::NONE).is_err());
        assert!(pipeline.score_rows(&row, &mut [0.0]).is_err());
    }
    assert!(pipeline.score_rows(&row, &mut [0.0; 2]).is_err());
    assert!(
        pipeline
            .score(&Window::new(Arch::X86_64, 0, 0, []), &mut Scratch::default())
            .is_err()
    );
}

#[test]
fn extreme_windows_score() {
    let pipeline = pipeline(120, 60);
    let all = |count, errors| (0..600).map(move |nr| Calls { nr, count, errors });
    for window in [
        Window::new(Arch::X86_64, 0, 10_000, []),
        Window::new(Arch::X86_64, u64::MAX, 1, all(u64::MAX, u64::MAX)),
        Window::new(Arch::Aarch64, 0, u32::MAX, all(1, 1)),
        Window::new(
            Arch::X86_64,
            0,
            1_000,
            [Calls {
                nr: u32::MAX,
                count: 10_000_000,
                errors: 0,
            }],
        ),
    ] {
        let verdict = score(&pipeline, &window);
        assert!(
            (0.0..=1.0).contains(&verdict.score) && verdict.p_value > 0.0,
            "{verdict:?}"
        );
    }
}
