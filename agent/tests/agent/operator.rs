//! Reports and artifacts against an operator of our own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use vigia_agent::node::desired::{Key, Model, Version};
use vigia_agent::node::metrics::Metrics;
use vigia_agent::node::models::cache::Cache;
use vigia_agent::node::models::load::{Loaded, Pinned};
use vigia_agent::node::models::shelf::{Refusal, VersionKey};
use vigia_agent::node::obtain::{Fetcher, Obtained};
use vigia_agent::node::report::client::OperatorError;
use vigia_agent::node::report::{Findings, Limits, Outbox};
use vigia_agent::node::state::State;
use vigia_crds::{Task, VersionMode};
use vigia_proto::v1::{ReportBatch, Sample, Verdict};

use crate::fake::{DEADLINE, Setup, until};
use crate::model::{Signed, key, quiet, signed};

fn samples(count: usize) -> Findings {
    Findings {
        samples: vec![Sample::default(); count],
        ..Findings::default()
    }
}

fn outbox(instance: &str, limits: Limits, setup: &Setup) -> Outbox {
    let state = State::open(&setup.folder.path().join("state")).expect("opened");
    Outbox::new(instance.to_owned(), limits, Duration::from_millis(20), state)
}

#[tokio::test]
async fn what_could_not_be_told_in_one_life_is_told_in_the_next() {
    let mut setup = Setup::new();
    setup.fake.with(|seen| seen.away = true);
    setup.serve();
    let metrics = Arc::new(Metrics::default());
    let first = Arc::new(outbox("first", Limits::default(), &setup));
    let delivering = tokio::spawn(first.clone().deliver(setup.client(), metrics.clone()));
    let alert = Verdict {
        pod: "p".to_owned(),
        ..Verdict::default()
    };
    first.push(
        Findings {
            alerts: vec![alert],
            ..samples(3)
        },
        0,
    );
    // Killed: what was told of an alert by then is on disk.
    let kept = setup.folder.path().join("state/reports.pb");
    until("the alert is on disk", || kept.exists()).await;
    delivering.abort();

    // The next life has no operator either, and is told to end.
    let second = Arc::new(outbox("second", Limits::default(), &setup));
    let delivering = tokio::spawn(second.clone().deliver(setup.client(), metrics.clone()));
    second.push(samples(4), 0);
    second.finish(Duration::from_millis(50)).await;
    delivering.abort();

    setup.fake.with(|seen| seen.away = false);
    let third = Arc::new(outbox("third", Limits::default(), &setup));
    tokio::spawn(third.clone().deliver(setup.client(), metrics));
    third.finish(DEADLINE).await;
    let stored = setup.fake.with(|seen| seen.stored.clone());
    let told: Vec<_> = stored
        .iter()
        .map(|batch| (batch.instance.as_str(), batch.alerts.len(), batch.samples.len()))
        .collect();
    assert_eq!(told, [("first", 1, 3), ("second", 0, 4)]);
    until("nothing is left on disk", || !kept.exists()).await;
}

#[tokio::test]
async fn what_waited_while_the_operator_was_away_is_delivered_once_and_in_order() {
    let mut setup = Setup::new();
    setup.fake.with(|seen| seen.lose = 2);
    let limits = Limits {
        samples: 10,
        ..Limits::default()
    };
    let outbox = Arc::new(outbox("agent", limits, &setup));
    let metrics = Arc::new(Metrics::default());
    tokio::spawn(outbox.clone().deliver(setup.client(), metrics));
    outbox.push(samples(25), 3);
    setup.serve();
    outbox.push(samples(10), 3);
    outbox.finish(DEADLINE).await;

    let (stored, calls) = setup.fake.with(|seen| (seen.stored.clone(), seen.calls));
    let sequences: Vec<u64> = stored.iter().map(|batch| batch.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    assert_eq!(stored.iter().map(|batch| batch.samples.len()).sum::<usize>(), 35);
    assert_eq!(
        calls,
        stored.len() + 2,
        "the two whose answers were lost came again and were known"
    );
    assert!(
        stored
            .iter()
            .all(|batch| batch.instance == "agent" && batch.lost_calls == 3 && batch.sent_unix_ms > 0)
    );
}

#[tokio::test]
async fn a_token_that_is_renewed_is_used() {
    let mut setup = Setup::new();
    setup.serve();
    let mut client = setup.client();
    client
        .report(ReportBatch {
            sequence: 1,
            ..ReportBatch::default()
        })
        .await
        .expect("stored");
    std::fs::write(setup.folder.path().join("token"), "second").expect("written");
    client
        .report(ReportBatch {
            sequence: 2,
            ..ReportBatch::default()
        })
        .await
        .expect("stored");
    let tokens: Vec<String> = setup.fake.with(|seen| seen.tokens.iter().cloned().collect());
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn an_operator_of_another_ca_is_not_spoken_to() {
    let mut setup = Setup::new();
    setup.serve();
    let other = Setup::new();
    std::fs::copy(
        other.folder.path().join("ca.crt"),
        setup.folder.path().join("ca.crt"),
    )
    .expect("copied");
    let answer = setup.client().report(ReportBatch::default()).await;
    assert!(matches!(answer, Err(OperatorError::Connect(_))), "{answer:?}");
    assert_eq!(setup.fake.with(|seen| seen.calls), 0);
}

struct Node1 {
    fetcher: Fetcher,
    done: mpsc::Receiver<Obtained>,
    cache: Arc<Cache>,
}

fn node(setup: &Setup) -> Node1 {
    let cache = Arc::new(Cache::open(&setup.folder.path().join("models")).expect("opened"));
    let (to, done) = mpsc::channel(4);
    Node1 {
        fetcher: Fetcher::new(cache.clone(), Pinned::default(), setup.client(), to),
        done,
        cache,
    }
}

async fn obtain(node: &mut Node1, artifact: &Signed, size: u64) -> Result<Arc<Loaded>, Refusal> {
    let version = Version {
        traceparent: None,
        digest: artifact.digest.clone(),
        size,
        mode: VersionMode::Active,
    };
    let model = Model {
        task: Task::Anomaly,
        versions: vec![version.clone()],
        keys: vec![key().public().to_base64()],
    };
    let name = Key {
        namespace: "shop".to_owned(),
        name: "m".to_owned(),
    };
    let wanted = VersionKey {
        model: name,
        digest: artifact.digest.clone(),
    };
    match node.fetcher.obtain(&wanted, &version, &model) {
        Some(result) => result,
        None => {
            timeout(DEADLINE, node.done.recv())
                .await
                .expect("in time")
                .expect("told")
                .1
        }
    }
}

fn size(artifact: &Signed) -> u64 {
    artifact.bytes.len() as u64
}

#[tokio::test]
async fn an_artifact_is_fetched_verified_and_then_needs_no_network() {
    let mut setup = Setup::new();
    let good = signed("m", &quiet(), &key());
    setup
        .fake
        .with(|seen| seen.artifacts.insert(good.digest.clone(), good.bytes.clone()));
    setup.serve();
    let mut node = node(&setup);
    let loaded = obtain(&mut node, &good, size(&good)).await.expect("verified");
    assert_eq!(
        (loaded.digest.as_str(), loaded.metadata.name.as_str()),
        (good.digest.as_str(), "m")
    );
    assert_eq!(setup.fake.with(|seen| seen.calls), 1);

    setup.fake.with(|seen| seen.artifacts.clear());
    obtain(&mut node, &good, size(&good))
        .await
        .expect("from the cache");
    assert_eq!(setup.fake.with(|seen| seen.calls), 1);
}

#[tokio::test]
async fn what_does_not_hold_is_refused_with_its_reason() {
    let mut setup = Setup::new();
    setup.serve();
    let good = signed("m", &quiet(), &key());
    let mut changed = good.bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    let changed = Signed::of(changed);
    let foreign = signed("m", &quiet(), &vigia_model::keys::SigningKey::from_seed([9; 32]));
    setup.fake.with(|seen| {
        seen.artifacts
            .insert(changed.digest.clone(), changed.bytes.clone());
        seen.artifacts
            .insert(foreign.digest.clone(), foreign.bytes.clone());
        // A store that gives other bytes than it was asked for.
        seen.artifacts.insert(good.digest.clone(), foreign.bytes.clone());
    });
    let mut node = node(&setup);
    let mut reasons = Vec::new();
    for artifact in [&changed, &foreign, &good] {
        reasons.push(
            obtain(&mut node, artifact, size(artifact) + 100)
                .await
                .expect_err("refused")
                .reason,
        );
    }
    assert_eq!(reasons, ["ChecksumMismatch", "UntrustedKey", "DigestMismatch"]);
    assert!(node.cache.get(&good.digest, 1 << 20).is_none());

    let refused = obtain(
        &mut node,
        &Signed {
            digest: good.digest.clone(),
            bytes: vec![],
        },
        10,
    )
    .await;
    assert_eq!(refused.expect_err("refused").reason, "TooLarge");
}

#[tokio::test]
async fn a_fetch_waits_for_the_operator() {
    let mut setup = Setup::new();
    let good = signed("m", &quiet(), &key());
    let mut node = node(&setup);
    let fake = setup.fake.clone();
    setup.serve();
    let later = async {
        until("the first try", || fake.with(|seen| seen.calls > 0)).await;
        fake.with(|seen| seen.artifacts.insert(good.digest.clone(), good.bytes.clone()));
    };
    let (obtained, ()) = tokio::join!(obtain(&mut node, &good, size(&good)), later);
    obtained.expect("verified");
}
