//! Scoring allocates nothing, whichever estimator scores. This program counts each thread's allocations.

#[path = "../../../model/tests/counting/mod.rs"]
#[expect(dead_code, reason = "the model's own tests use more of it")]
mod counting;

use std::hint::black_box;

use vigia_model::context::Context;
use vigia_model::estimators::forecast::Past;
use vigia_model::estimators::sequence::Run;
use vigia_model::estimators::stream::Detector;
use vigia_model::pipeline::EstimatorKind;
use vigia_trainer::estimators::{forecast, sequence, tracked};

use self::counting::allocations;
use crate::beside::{trained, windows};
use crate::support::{Random, blobs, fitted, kinds, settings, table};

#[test]
fn no_estimator_allocates_when_it_scores() {
    assert!(
        allocations(|| drop(black_box(Box::new(1)))) > 0,
        "allocations are counted"
    );
    let rows = table(&blobs(5, 100, 9, 3, 2.0));
    for kind in kinds() {
        for components in [None, Some(4)] {
            let staged = fitted(kind, &rows, &settings(components)).expect("fits").staged;
            let counted = allocations(|| {
                for row in rows.rows() {
                    black_box(staged.score(black_box(row)));
                }
            });
            assert_eq!(counted, 0, "{kind}");
        }
    }
}

#[test]
fn no_model_allocates_when_it_scores_whichever_estimator_is_in_it() {
    let (rows, holdout, later) = (windows(200, 1), windows(60, 2), windows(20, 3));
    let mut scores = vec![0.0; later.len()];
    for kind in EstimatorKind::ALL {
        // Few components, so that networks are trained at once.
        let pipeline = trained(&[kind], Some(4), &rows, &holdout).expect("trains");
        let mut odd = later.row(0).to_vec();
        odd[60..70].fill(3.0);
        let counted = allocations(|| {
            for (i, context) in later.contexts().iter().enumerate() {
                black_box(pipeline.score_vector(black_box(later.row(i)), context)).expect("scores");
                black_box(pipeline.score_vector(&odd, context)).expect("scores");
                // Nothing to say is no reason to allocate either.
                let _ = black_box(pipeline.score_vector(&odd, Context::NONE));
            }
            pipeline.score_rows(later.values(), &mut scores).expect("scores");
        });
        assert_eq!(counted, 0, "{kind}");
    }
}

#[test]
fn what_scores_runs_and_streams_allocates_nothing_a_step() {
    let mut random = Random(3);
    let runs: Vec<Vec<u16>> = (0..20)
        .map(|_| (0..60).map(|_| (12.0 * random.unit()) as u16).collect())
        .collect();
    let metrics: Vec<f64> = (0..600).map(|_| random.normal()).collect();
    let sequences = sequence::fit(&runs, 6).expect("fits").model;
    let model = tracked::fit(&metrics, 3, tracked::Settings::default()).expect("fits");
    let forecaster = forecast::fit(&metrics, &[1, 12]).expect("fits");
    let (mut stream, mut detector, mut past) = (model.start(), Detector::default(), Past::default());
    let mut begun = vec![Run::default(); runs.len()];
    let counted = allocations(|| {
        for (run, calls) in begun.iter_mut().zip(&runs) {
            calls.iter().for_each(|&call| {
                black_box(sequences.push(run, call));
            });
            black_box(sequences.score(run));
        }
        metrics.chunks(3).for_each(|row| {
            black_box(stream.push(row));
        });
        for (&value, time_s) in metrics.iter().zip(0..) {
            black_box(detector.push(time_s, value));
            past.push(value);
            black_box(forecaster.forecast(&past, 12));
        }
    });
    assert_eq!(counted, 0);
}
