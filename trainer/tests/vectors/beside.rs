//! Estimators of order and of time in a whole model: from windows to a verdict, and where nothing is known.

use vigia_model::artifact::{self, Task};
use vigia_model::context::{Context, Gram, MAX_PAST, ORDER};
use vigia_model::histogram::ScoreHistogram;
use vigia_model::pipeline::{DriverKind, EVERY_CALL, EstimatorKind, Pipeline, ScoreError};
use vigia_model::schema::{Schema, from_rate};
use vigia_model::syscalls::Arch;
use vigia_trainer::data::{About, Rows};
use vigia_trainer::fit::{self, FitError, Params};
use vigia_trainer::validate::{HOLDOUT_EXCEEDANCE, INJECTION_RECALL};

use crate::support::{Random, params};

const CALLS: usize = 10;

/// How the calls of a window follow each other: each after the one before it, `step` places on.
fn order(random: &mut Random, step: usize) -> Vec<Gram> {
    let mut grams: Vec<Gram> = (0..CALLS)
        .map(|first| Gram {
            id: Gram::id_of((0..ORDER).map(|at| (first + at * step) % CALLS)),
            count: 200 + (100.0 * random.unit()) as u32,
        })
        .collect();
    grams.sort_unstable();
    grams
}

/// Windows of one container at rates that go up and down, each with its sequences and the windows before.
pub fn windows(count: usize, seed: u64) -> Rows {
    let schema = Schema::syscalls_v1();
    let (mut random, mut rows, mut past) = (Random(seed), Rows::new(schema), Vec::new());
    for i in 0..count + MAX_PAST {
        let load = 100.0 * (1.0 + 0.5 * (i as f64 / 5.0).sin()) * (0.98 + 0.04 * random.unit());
        let mut row = vec![0.0; schema.width()];
        row[..CALLS].fill(from_rate(load));
        let total = from_rate(load * CALLS as f64);
        row[schema.total()] = total;
        row[schema.total() + 1] = (CALLS as f32).ln_1p();
        let about = About {
            started_ms: 2_000 * i as i64,
            window_ms: 2_000,
            ..About::default()
        };
        if i >= MAX_PAST {
            let context = Context::new(order(&mut random, 1), past.clone()).expect("a context");
            rows.push_within(&row, about, context).expect("a row");
        }
        past.insert(0, total);
        past.truncate(MAX_PAST);
    }
    rows
}

fn train(estimators: &[EstimatorKind], rows: &Rows, holdout: &Rows) -> Result<Pipeline, FitError> {
    trained(estimators, None, rows, holdout)
}

/// A model as a node reads it, with so many principal components in front.
pub fn trained(
    estimators: &[EstimatorKind],
    components: Option<u32>,
    rows: &Rows,
    holdout: &Rows,
) -> Result<Pipeline, FitError> {
    let params = Params {
        components,
        ..params(estimators)
    };
    let part = fit::fit(rows, &params, 0)?;
    let trained = fit::combine(vec![part], &params, holdout, &[])?;
    let opened = artifact::open_unsigned(&trained.artifact, Task::Anomaly).expect("opens");
    Ok(opened.pipeline)
}

fn p(pipeline: &Pipeline, vector: &[f32], context: &Context) -> f64 {
    pipeline.score_vector(vector, context).expect("scores").p_value
}

#[test]
fn another_order_of_the_same_calls_is_odd_to_those_that_look_at_order() {
    let (rows, holdout, later) = (windows(300, 1), windows(200, 2), windows(50, 3));
    for kind in [EstimatorKind::Ngram, EstimatorKind::Stide] {
        let pipeline = train(&[EstimatorKind::Deviation, kind], &rows, &holdout).expect("trains");
        let alone = train(&[EstimatorKind::Deviation], &rows, &holdout).expect("trains");
        let mut random = Random(9);
        for i in 0..later.len() {
            let past = later.contexts()[i].past().to_vec();
            let turned = Context::new(order(&mut random, 3), past).expect("a context");
            let vector = later.row(i);
            assert!(p(&pipeline, vector, &later.contexts()[i]) > 1e-3, "{kind} {i}");
            let verdict = pipeline.score_vector(vector, &turned).expect("scores");
            assert!(verdict.p_value < 1e-4, "{kind} {i}");
            // Who spoke is named, and what it spoke of, since the counts are as ever.
            assert_eq!(verdict.estimator, kind);
            assert_eq!(verdict.drivers.iter().count(), 0, "{verdict:?}");
            let gone = std::iter::empty::<[u32; 0]>();
            let told = pipeline.sequences(&verdict, &turned, Arch::NATIVE, gone);
            assert!((1..=3).contains(&told.len()), "{told:?}");
            assert!(
                told.iter().all(|one| !one.seen && !one.calls.is_empty()),
                "{told:?}"
            );
            let verdict = alone.score_vector(vector, &turned).expect("scores");
            assert!(verdict.p_value > 1e-3, "{kind} {i}");
            assert_eq!(verdict.estimator, EstimatorKind::Deviation);
            let gone = std::iter::empty::<[u32; 0]>();
            assert_eq!(alone.sequences(&verdict, &turned, Arch::NATIVE, gone), []);
        }
    }
}

#[test]
fn the_gate_of_new_calls_judges_those_that_look_at_order_by_the_sequences_that_such_calls_make() {
    let (rows, holdout) = (windows(300, 1), windows(200, 2));
    let recall = |kind| {
        let params = params(&[kind]);
        let part = fit::fit(&rows, &params, 0).expect("fits");
        let trained = fit::combine(vec![part], &params, &holdout, &[]).expect("combines");
        trained.metrics[INJECTION_RECALL]
    };
    for kind in [EstimatorKind::Ngram, EstimatorKind::Stide, EstimatorKind::Novelty] {
        assert!(recall(kind) > 0.9, "{kind}: {}", recall(kind));
    }
    // A forecaster sees a rate, of which nine calls more are nothing.
    assert!(recall(EstimatorKind::Ets) < 0.1);
}

#[test]
fn a_rate_that_is_usual_at_another_time_is_odd_to_those_that_look_at_time() {
    let (rows, holdout, later) = (windows(400, 1), windows(200, 2), windows(60, 3));
    for kind in [EstimatorKind::Ets, EstimatorKind::Arima] {
        let pipeline = train(&[kind], &rows, &holdout).expect("trains");
        let far = |i: usize| {
            let rate = |row: usize| later.row(row)[Schema::syscalls_v1().total()];
            (0..later.len()).max_by(|&a, &b| (rate(a) - rate(i)).abs().total_cmp(&(rate(b) - rate(i)).abs()))
        };
        for i in 0..later.len() {
            let usual = p(&pipeline, later.row(i), &later.contexts()[i]);
            let elsewhere = far(i).expect("windows");
            let verdict = pipeline
                .score_vector(later.row(elsewhere), &later.contexts()[i])
                .expect("scores");
            let jumped = verdict.p_value;
            assert!(usual > 1e-3, "{kind} {i}: {usual}");
            assert!(jumped < usual && jumped < 0.02, "{kind} {i}: {jumped}");
            // What was forecast and what came are told, and lie as far apart as the estimator says.
            let told: Vec<_> = verdict.drivers.iter().collect();
            assert_eq!(told.len(), 1, "{verdict:?}");
            assert_eq!(
                (told[0].syscall, told[0].kind),
                (EVERY_CALL, DriverKind::Forecast)
            );
            let log = |rate: f32| from_rate(f64::from(rate));
            let came = later.row(elsewhere)[Schema::syscalls_v1().total()];
            assert!((log(told[0].observed_per_s) - came).abs() < 1e-3, "{verdict:?}");
            let apart = (came - log(told[0].expected_per_s)).abs();
            assert!((apart - verdict.raw).abs() < 1e-3, "{apart} {verdict:?}");
        }
    }
}

#[test]
fn where_nothing_is_known_the_others_decide() {
    let (rows, holdout, later) = (windows(300, 1), windows(200, 2), windows(20, 3));
    let both = train(&[EstimatorKind::Deviation, EstimatorKind::Ngram], &rows, &holdout).expect("trains");
    let alone = train(&[EstimatorKind::Deviation], &rows, &holdout).expect("trains");
    let only = train(&[EstimatorKind::Ngram, EstimatorKind::Ets], &rows, &holdout).expect("trains");
    let mut scores = vec![0.0; later.len()];
    both.score_rows(later.values(), &mut scores).expect("scores");
    for (i, score) in scores.iter().enumerate() {
        let told = both.score_vector(later.row(i), Context::NONE).expect("scores");
        assert_eq!(
            told,
            alone.score_vector(later.row(i), Context::NONE).expect("scores")
        );
        assert_eq!(told.score, *score);
        assert_eq!(
            only.score_vector(later.row(i), Context::NONE),
            Err(ScoreError::Silent)
        );
    }
    only.score_rows(later.values(), &mut scores).expect("scores");
    assert_eq!(scores, vec![0.0; later.len()]);
}

#[test]
fn windows_that_carry_nothing_are_refused_with_what_to_do() {
    let full = windows(300, 1);
    let mut bare = Rows::new(full.schema());
    for i in 0..full.len() {
        bare.push(full.row(i), full.about()[i]).expect("a row");
    }
    let error = |kind, rows, holdout| train(&[kind], rows, holdout).expect_err("refused").to_string();
    let order = error(EstimatorKind::Ngram, &bare, &full);
    assert_eq!(
        order,
        "n-gram needs at least 1 sequence of calls (capture.mode Sampled and Full count them), got 0"
    );
    let holdout = error(EstimatorKind::Stide, &full, &bare);
    assert!(
        holdout.starts_with(
            "stide: 0 of the 300 held-out windows carry what it looks at, and 25 must, spread over all of their time: trace with \
             capture.mode"
        ),
        "{holdout}"
    );
    let time = error(EstimatorKind::Arima, &bare, &full);
    assert!(
        time.contains("windows of containers that ran for 32 windows before, got 0"),
        "{time}"
    );
}

#[test]
fn the_order_of_rows_and_their_shards_do_not_matter_to_counts() {
    let rows = windows(120, 1);
    let halves = [rows.slice(0..50), rows.slice(50..120)];
    let whole = fit::fit(&rows, &params(&[EstimatorKind::Ngram]), 0).expect("fits");
    let mut sums = std::collections::BTreeMap::new();
    for half in halves {
        let part = fit::fit(&half, &params(&[EstimatorKind::Ngram]), 0).expect("fits");
        for (id, count) in part.share.grams.expect("counts").seen {
            *sums.entry(id).or_insert(0) += count;
        }
    }
    assert_eq!(
        whole.share.grams.expect("counts").seen,
        sums.into_iter().collect::<Vec<_>>()
    );
}

/// The same windows, of which every second one has no sequences.
fn half_silent(rows: &Rows) -> Rows {
    let mut half = Rows::new(rows.schema());
    for i in 0..rows.len() {
        let context = match i % 2 {
            0 => rows.contexts()[i].clone(),
            _ => Context::new(vec![], rows.contexts()[i].past().to_vec()).expect("a context"),
        };
        half.push_within(rows.row(i), rows.about()[i], context)
            .expect("a row");
    }
    half
}

fn speaking(rows: &Rows) -> Rows {
    let mut all = Rows::new(rows.schema());
    for i in (0..rows.len()).filter(|&i| !rows.contexts()[i].grams().is_empty()) {
        all.push_within(rows.row(i), rows.about()[i], rows.contexts()[i].clone())
            .expect("a row");
    }
    all
}

#[test]
fn windows_of_which_nobody_says_anything_are_neither_calibrated_on_nor_taken_for_ordinary_ones() {
    let (rows, holdout) = (half_silent(&windows(600, 1)), half_silent(&windows(400, 2)));
    let later = half_silent(&windows(2000, 3));
    let kinds = [EstimatorKind::Ngram, EstimatorKind::Stide];
    let params = params(&kinds);
    let metrics = |holdout: &Rows| {
        let part = fit::fit(&rows, &params, 0).expect("fits");
        fit::combine(vec![part], &params, holdout, &[])
            .expect("combines")
            .metrics[HOLDOUT_EXCEEDANCE]
    };
    // The folds part the windows at the same places.
    assert_eq!(metrics(&holdout), metrics(&speaking(&holdout)));
    let pipeline = train(&kinds, &rows, &holdout).expect("trains");
    assert_eq!(pipeline.reference().total(), 200);
    let alone = train(&kinds, &rows, &speaking(&holdout)).expect("trains");
    assert_eq!(alone.reference(), pipeline.reference());
    let mut live = ScoreHistogram::default();
    for i in 0..later.len() {
        match pipeline.score_vector(later.row(i), &later.contexts()[i]) {
            Ok(verdict) => live.add(verdict.score),
            Err(error) => assert_eq!(error, ScoreError::Silent),
        }
    }
    assert_eq!(live.total(), 1000);
    let drift = pipeline.reference().jensen_shannon(&live).expect("enough scores");
    assert!(drift < 0.05, "{drift}");
}
