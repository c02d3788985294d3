//! What estimators of vectors see, principal components in front of them or not, and how they explain it.

use vigia_model::artifact::{self, Task};
use vigia_model::calibration::Severity;
use vigia_model::context::Context;
use vigia_model::pipeline::{EstimatorKind, Pipeline, Scratch};
use vigia_model::schema::Schema;
use vigia_model::syscalls::{Arch, number};
use vigia_model::window::{Calls, Window};
use vigia_trainer::data::{About, Rows};
use vigia_trainer::fit::{self, Params};
use vigia_trainer::validate::INJECTION_RECALL;

use crate::support::{Random, kinds, params};

const WINDOW_MS: u32 = 2_000;
/// Calls a window that training never saw.
const NEVER: [(&str, u64); 3] = [("execve", 4), ("connect", 4), ("ptrace", 4)];

/// A server whose calls go up and down with its load, each a little by itself; `extra` are calls a window beside them.
/// `swapped` moves rates that go together apart, in logarithms.
fn window(random: &mut Random, extra: &[(&str, u64)], swapped: f64) -> Window {
    let (requests, files) = (
        100.0 * (0.5 * random.normal()).exp(),
        20.0 * (0.5 * random.normal()).exp(),
    );
    let usual = [
        ("epoll_wait", requests),
        ("read", 2.0 * requests * (-swapped).exp()),
        ("write", requests),
        ("futex", 3.0 * requests * swapped.exp()),
        ("openat", files),
        ("newfstatat", files),
        ("close", files),
    ];
    let usual = usual.map(|(name, often)| (name, (often * (0.1 * random.normal()).exp()).round() as u64));
    let calls = usual.iter().chain(extra).map(|&(name, count)| Calls {
        nr: number(Arch::X86_64, name).expect("a system call"),
        count,
        errors: 0,
    });
    Window::new(Arch::X86_64, 0, WINDOW_MS, calls)
}

fn row(random: &mut Random, extra: &[(&str, u64)]) -> Vec<f32> {
    let schema = Schema::syscalls_v1();
    let mut row = vec![0.0; schema.width()];
    schema
        .vector(&window(random, extra, 0.0), &mut row)
        .expect("a vector");
    row
}

fn rows(count: usize, seed: u64) -> Rows {
    let (mut random, mut rows) = (Random(seed), Rows::new(Schema::syscalls_v1()));
    for i in 0..count {
        let about = About {
            started_ms: i64::from(WINDOW_MS) * i as i64,
            window_ms: WINDOW_MS,
            ..About::default()
        };
        rows.push(&row(&mut random, &[]), about).expect("a row");
    }
    rows
}

/// And what share of the windows with calls added validation finds.
fn train(kind: EstimatorKind, components: Option<u32>) -> (Pipeline, f64) {
    let params = Params {
        components,
        ..params(&[kind])
    };
    let part = fit::fit(&rows(300, 1), &params, 0).expect("fits");
    let trained = fit::combine(vec![part], &params, &rows(200, 2), &[]).expect("combines");
    let opened = artifact::open_unsigned(&trained.artifact, Task::Anomaly).expect("opens");
    (opened.pipeline, trained.metrics[INJECTION_RECALL])
}

#[test]
fn calls_that_training_never_saw_are_odd_behind_components_too() {
    for kind in kinds() {
        let (pipeline, recall) = train(kind, Some(4));
        // Where normal windows leave a forest in doubt, so does the most that it can be sure of.
        let odd = if kind == EstimatorKind::RandomForest {
            2e-3
        } else {
            1e-3
        };
        let p = |row: &[f32]| pipeline.score_vector(row, Context::NONE).expect("scores").p_value;
        let mut random = Random(3);
        let mut usual = 0;
        for _ in 0..20 {
            let never = p(&row(&mut random, &NEVER));
            assert!(never < odd, "{kind}: {never}");
            usual += usize::from(p(&row(&mut random, &[])) > 0.01);
        }
        assert!(usual >= 19, "{kind}: {usual}");
        assert!(recall >= 0.9, "{kind}: {recall}");
    }
}

#[test]
fn a_mixture_that_never_was_is_explained_by_the_calls_that_part() {
    for (kind, components) in [
        (EstimatorKind::Pca, None),
        (EstimatorKind::GaussianMixture, None),
        (EstimatorKind::Lof, None),
        (EstimatorKind::KMeans, Some(4)),
        (EstimatorKind::Autoencoder, Some(4)),
    ] {
        let (pipeline, _) = train(kind, components);
        let (mut random, mut scratch) = (Random(3), Scratch::default());
        let mut told = 0;
        for _ in 0..20 {
            let window = window(&mut random, &[], 1.2);
            let verdict = pipeline.score(&window, &mut scratch).expect("scores");
            if verdict.severity == Severity::None {
                continue;
            }
            told += 1;
            let mut named: Vec<&str> = verdict.drivers.iter().map(|driver| driver.syscall).collect();
            named.sort_unstable();
            assert_eq!(named, ["futex", "read"], "{kind} {verdict:?}");
        }
        assert!(told >= 15, "{kind}: {told}");
    }
}

#[test]
fn a_classifier_says_what_it_finds_the_window_to_be() {
    for (kind, components, expected) in [
        (EstimatorKind::RandomForest, None, Some("malicious")),
        (EstimatorKind::MlpClassifier, Some(4), Some("malicious")),
        (EstimatorKind::KMeans, Some(4), None),
    ] {
        let (pipeline, _) = train(kind, components);
        let (mut random, mut scratch) = (Random(3), Scratch::default());
        for _ in 0..20 {
            let odd = window(&mut random, &NEVER, 0.0);
            let verdict = pipeline.score(&odd, &mut scratch).expect("scores");
            assert_eq!(verdict.class, expected, "{kind} {verdict:?}");
            let usual = window(&mut random, &[], 0.0);
            let verdict = pipeline.score(&usual, &mut scratch).expect("scores");
            assert!(verdict.class.is_none() || verdict.severity > Severity::None);
        }
    }
}
