//! Windows of known classes: classifiers learn them as scikit-learn's do, and nothing else does.

use crate::support::{MADE, Random, answers, blobs, moments, numbers, params, settings, table};
use proptest::prelude::*;
use vigia_model::artifact::{Reader, Task};
use vigia_model::calibration::Severity;
use vigia_model::estimators::table::Table;
use vigia_model::pipeline::{EstimatorKind, EstimatorSpec, MemberSpec};
use vigia_model::schema::{Schema, from_rate};
use vigia_trainer::data::{About, Class, Labelled, Rows};
use vigia_trainer::estimators::EstimatorError;
use vigia_trainer::estimators::contrast::contrast;
use vigia_trainer::estimators::vectors::fit;
use vigia_trainer::fit::{self as rounds, Trained};
use vigia_trainer::validate::INJECTION_RECALL;

const CLASSIFIERS: [EstimatorKind; 2] = [EstimatorKind::RandomForest, EstimatorKind::MlpClassifier];

/// `labelled` of `make.py`: normal, suspicious and malicious rows.
fn parts() -> [Vec<Vec<f32>>; 3] {
    let mut parts = [vec![], vec![], vec![]];
    for (i, mut row) in blobs(MADE.seed(8), 1200, 12, 3, 2.0).into_iter().enumerate() {
        match i % 3 {
            1 => row[..3].iter_mut().for_each(|x| *x += 1.5),
            2 => {
                row[3..6].iter_mut().for_each(|x| *x -= 1.5);
                row[6] += 1.5;
            }
            _ => {}
        }
        parts[i % 3].push(row);
    }
    parts
}

#[test]
fn few_windows_of_a_class_are_learnt_as_well_as_by_scikit_learn() {
    let parts = parts();
    let normal = table(&parts[0][..200]);
    let labelled = [
        (Class::Suspicious, table(&parts[1][..20])),
        (Class::Malicious, table(&parts[2][..20])),
    ];
    for kind in CLASSIFIERS {
        let staged = fit(kind, &normal, &labelled, &moments(&normal), &settings(None))
            .expect("fits")
            .staged;
        let theirs = numbers(&answers()["labelled"][kind.as_str()]);
        for (class, theirs) in (1..).zip(theirs) {
            let rows = &parts[class][200..];
            let is_told = |row: &&Vec<f32>| {
                let shares = staged.classes(row).expect("a classifier");
                shares.iter().all(|share| *share <= shares[class])
            };
            let ours = rows.iter().filter(is_told).count() as f64 / rows.len() as f64;
            assert!(
                ours >= theirs - 0.1,
                "{kind} {class}: {ours}, scikit-learn's {theirs}"
            );
        }
    }
}

proptest! {
    #[test]
    fn few_labelled_windows_weigh_as_much_as_many_and_as_those_that_are_made_up(
        normal in 2usize..80,
        given in 1usize..120,
        is_malicious: bool,
        seed: u64,
    ) {
        let of = |count: usize, at: f32| table(&(0..count).map(|i| vec![at + i as f32, 0.0, 0.0]).collect::<Vec<_>>());
        let class = if is_malicious { Class::Malicious } else { Class::Suspicious };
        let (usual, labelled) = (of(normal, 0.0), of(given, 1e4));
        let (rows, classes) = contrast(&usual, &[(class, labelled.clone())], seed);
        let of_class = |wanted: usize| {
            let all = rows.rows().zip(&classes).filter(move |(_, class)| usize::from(**class) == wanted);
            all.map(|(row, _)| row)
        };
        let is_given = |row: &&[f32]| row[0] >= 1e4;
        let half = of_class(0).count().div_ceil(2);
        prop_assert!(!of_class(0).any(|row| is_given(&row)));
        prop_assert!(!of_class(3 - class as usize).any(|row| is_given(&row)));
        prop_assert_eq!(of_class(class as usize).filter(is_given).count(), half);
        let made_up = of_class(class as usize).count() - half;
        prop_assert!(half - made_up <= 1 && half >= given.min(1024));
        // All of them, each as often as another or once more.
        let times = |row: &[f32]| of_class(class as usize).filter(|other| *other == row).count();
        let often: Vec<usize> = labelled.rows().map(times).collect();
        let (least, most) = (often.iter().min().expect("some"), often.iter().max().expect("some"));
        prop_assert!(most - least <= 1 && *least > 0, "{:?}", often);
        prop_assert_eq!((rows, classes), contrast(&usual, &[(class, labelled)], seed));
    }
}

#[test]
fn rows_that_are_none_are_refused() {
    let normal = table(&blobs(1, 40, 3, 2, 1.0));
    let of = |rows: Table| {
        let labelled = [(Class::Malicious, rows)];
        fit(
            EstimatorKind::RandomForest,
            &normal,
            &labelled,
            &moments(&normal),
            &settings(None),
        )
        .map(|_| ())
    };
    assert_eq!(of(table(&blobs(2, 10, 3, 2, 1.0))), Ok(()));
    let wrong = [
        Table::new(3, vec![]),
        Table::new(3, vec![f32::NAN; 6]),
        Table::new(2, vec![1.0; 6]),
    ];
    for rows in wrong {
        assert_eq!(of(rows), Err(EstimatorError::Shape("random-forest")));
    }
}

/// Windows of a server whose load goes up and down; in an attack it writes more than it reads, at rates that both have.
fn windows(count: usize, seed: u64, attacked: bool) -> Rows {
    let (mut random, mut rows) = (Random(seed), Rows::new(Schema::syscalls_v1()));
    for i in 0..count {
        let mut row = vec![0.0; rows.width()];
        let load = (0.5 * random.normal()).exp();
        for (feature, often) in [60.0, 40.0, 20.0, 10.0].into_iter().enumerate() {
            let turned = if attacked {
                [0.5, 1.8, 1.0, 1.0][feature]
            } else {
                1.0
            };
            row[feature] = from_rate(often * turned * load * (0.1 * random.normal()).exp());
        }
        let about = About {
            source: seed,
            started_ms: 1_000 * i as i64,
            window_ms: 1_000,
            ..About::default()
        };
        rows.push(&row, about).expect("a row");
    }
    rows
}

fn train(estimators: &[EstimatorKind], labelled: &[Labelled]) -> Trained {
    let params = params(estimators);
    let part = rounds::fit(&windows(300, 1, false), &params, 0).expect("fits");
    rounds::combine(vec![part], &params, &windows(200, 2, false), labelled).expect("combines")
}

fn attack(taught: usize) -> Labelled {
    Labelled {
        class: Class::Malicious,
        taught: windows(taught, 3, true),
        holdout: windows(100, 4, true),
    }
}

#[test]
fn an_attack_of_usual_calls_is_found_once_some_windows_of_it_are_given() {
    for kind in CLASSIFIERS {
        let recall = |trained: &Trained, name: &str| trained.metrics[&format!("{name}MaliciousRecall")];
        let trained = train(&[kind], &[attack(20)]);
        // Few normal windows do not say how rare what it calls malicious is: not all that is found has a severity.
        let model = Reader::unsigned()
            .open(&trained.artifact, Task::Anomaly)
            .expect("opens");
        let held_out = attack(20).holdout;
        let (mut found, mut shown) = (0, 0);
        for i in 0..held_out.len() {
            let verdict = model
                .pipeline
                .score_vector(held_out.row(i), &held_out.contexts()[i])
                .expect("scores");
            found += usize::from(verdict.p_value < 0.01);
            shown += usize::from(verdict.severity != Severity::None);
        }
        assert!(found >= 80, "{kind}: {found}");
        assert_eq!(recall(&trained, ""), shown as f64 / 100.0, "{kind}");
        assert!(
            recall(&trained, kind.api_name()) >= 0.8,
            "{kind}: {:?}",
            trained.metrics
        );
        // And it is blind to nothing that it would have found without.
        assert!(
            trained.metrics[INJECTION_RECALL] >= 0.9,
            "{kind}: {:?}",
            trained.metrics
        );
        assert_eq!(trained.metrics["MaliciousTrainingWindows"], 20.0);
        assert_eq!(trained.metrics["MaliciousHoldoutWindows"], 100.0);
        assert!(!trained.metrics.contains_key("SuspiciousRecall"));
        // What is made up is not that attack.
        let blind = train(&[kind], &[]);
        let model = Reader::unsigned()
            .open(&blind.artifact, Task::Anomaly)
            .expect("opens");
        let (rows, mut named) = (windows(100, 4, true), 0);
        for i in 0..rows.len() {
            let verdict = model
                .pipeline
                .score_vector(rows.row(i), &rows.contexts()[i])
                .expect("scores");
            named += usize::from(verdict.p_value < 0.01 && verdict.class == Some("malicious"));
        }
        assert!(named < 50, "{kind}: {named}");
        assert!(!blind.metrics.keys().any(|name| name.starts_with("Malicious")));
        assert_eq!(trained, train(&[kind], &[attack(20)]), "the same bytes");
    }
}

#[test]
fn nothing_but_classifiers_learns_from_labelled_windows_nor_is_calibrated_by_them() {
    let kinds = [
        EstimatorKind::Deviation,
        EstimatorKind::IsolationForest,
        EstimatorKind::Novelty,
        EstimatorKind::KMeans,
        EstimatorKind::RandomForest,
    ];
    let members = |trained: &Trained| {
        let (_, spec) = Reader::unsigned()
            .spec(&trained.artifact, Task::Anomaly)
            .expect("opens");
        spec.members
    };
    let (with, without) = (train(&kinds, &[attack(20)]), train(&kinds, &[]));
    let (with, without): (Vec<MemberSpec>, Vec<MemberSpec>) = (members(&with), members(&without));
    for (i, kind) in kinds.iter().enumerate() {
        let is_same =
            with[i].estimator == without[i].estimator && with[i].calibration == without[i].calibration;
        assert_eq!(is_same, !kind.is_classifier(), "{kind}");
    }
    let front = |member: &MemberSpec| match &member.estimator {
        EstimatorSpec::Vector(staged) => staged.front.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(front(&with[4]), front(&without[4]), "scaled alike");
}
