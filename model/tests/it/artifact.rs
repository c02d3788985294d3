//! Artifacts: what is written can be read, and everything else is refused for the right reason.

use vigia_model::artifact::{self, ArtifactError, Metadata, Task};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::forest::{ForestSpec, Node, TreeSpec};
use vigia_model::keys::{SigningKey, TrustedKeys};
use vigia_model::pipeline::{EstimatorSpec, PipelineSpec, Scratch};
use vigia_model::schema::Schema;
use vigia_model::syscalls::{Arch, number};
use vigia_model::window::{Calls, Window};

fn window(seed: u64) -> Window {
    let nr = |name| number(Arch::X86_64, name).expect("known");
    let jitter = |n: u64| n + (seed * 7919 + n) % (n / 5 + 1);
    let call = |name, n| Calls {
        nr: nr(name),
        count: jitter(n),
        errors: 0,
    };
    Window::new(
        Arch::X86_64,
        0,
        10_000,
        [
            call("read", 50_000),
            call("write", 50_000),
            call("epoll_wait", 20_000),
        ],
    )
}

fn spec(schema: &'static Schema) -> PipelineSpec {
    let mut rows = Vec::new();
    let mut moments = Moments::new(schema.width());
    for seed in 0..200 {
        let mut row = vec![0.0; schema.width()];
        schema.vector(&window(seed), &mut row).expect("a vector");
        moments.add(&row).expect("finite");
        rows.extend(row);
    }
    let tree = TreeSpec {
        samples: 8,
        nodes: vec![
            Node::Split {
                feature: 0,
                threshold: 10.8,
                left: 1,
                right: 2,
            },
            Node::Leaf { size: 3 },
            Node::Leaf { size: 5 },
        ],
    };
    let forest = ForestSpec {
        features: schema.width() as u16,
        trees: vec![tree; 9],
    };
    let deviation = Deviation::from_moments(&moments).expect("moments");
    let estimators = vec![EstimatorSpec::Deviation, EstimatorSpec::IsolationForest(forest)];
    PipelineSpec::calibrate(schema, deviation, estimators, &rows).expect("calibrates")
}

#[test]
fn a_signed_artifact_opens_and_scores() {
    let schema = Schema::syscalls_v1();
    let key = SigningKey::from_seed([7; 32]);
    let trusted = TrustedKeys::new([key.public()]);
    let unsigned =
        artifact::encode(&Metadata::new("redis", Task::Anomaly, schema), &spec(schema)).expect("encodes");
    assert!(matches!(
        artifact::open(&unsigned, &trusted, Task::Anomaly),
        Err(ArtifactError::Unsigned)
    ));
    assert!(artifact::open_unsigned(&unsigned, Task::Anomaly).is_ok());
    let signed = artifact::sign(&unsigned, &key).expect("signs");
    let opened = artifact::open(&signed, &trusted, Task::Anomaly).expect("opens");
    let mut scratch = Scratch::default();
    let calm = opened.pipeline.score(&window(999), &mut scratch).expect("scores");
    let mut odd = window(999);
    for name in ["execve", "connect", "clone"] {
        odd.calls.push(Calls {
            nr: number(Arch::X86_64, name).expect("known"),
            count: 4,
            errors: 0,
        });
    }
    let alarm = opened.pipeline.score(&odd, &mut scratch).expect("scores");
    println!("{calm:?}\n{alarm:?}");
    assert!(calm.score < 0.5);
    assert!(alarm.score > 0.9);
    let mut names: Vec<_> = alarm.drivers.iter().map(|d| d.syscall).collect();
    names.sort_unstable();
    assert_eq!(names, ["clone", "connect", "execve"]);
}
