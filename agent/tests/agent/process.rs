//! The whole process: a plan comes, a container is traced and scored, everything goes away and comes back.

use std::time::Duration;

use vigia_crds::conditions::is_true;
use vigia_crds::{NodePlanSpec, VersionMode, VersionState};
use vigia_model::artifact::digest;
use vigia_proto::v1;

use crate::fake::until;
use crate::ground::grounds;
use crate::model::{key, quiet, signed};
use crate::world::World;

const WINDOW_MS: i64 = 200;
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Windows about the median of what the container did, by its features' sum, with a little noise of our own: of fifty live
/// ones, one in which the machine let the container run less makes a calibration that calls nothing odd beyond doubt.
fn steady(mut windows: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let sum = |window: &[f32]| window.iter().sum::<f32>();
    windows.sort_by(|a, b| sum(a).total_cmp(&sum(b)));
    let median = &windows[windows.len() / 2];
    let about = |row: u16| {
        let noise = (f32::from(row % 7) - 3.0) / 50.0;
        let of = |&x: &f32| if x > 0.0 { x + noise } else { 0.0 };
        median.iter().map(of).collect()
    };
    (0..80).map(about).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_plan_to_an_alert_through_every_absence() {
    let ground = grounds().remove(0);
    let mut world = World::new(&ground).await;
    world.start();
    until("a status without a plan", || {
        is_true(&world.api.status().conditions, "ProbeReady")
    })
    .await;
    assert_eq!(world.api.status().targets, 0);

    // A baseline is collected: every window's vector.
    world.api.plan(world.pod.spec(WINDOW_MS, &[]));
    world
        .work_until("a baseline", 0, |world| world.samples().len() >= 50)
        .await;
    let status = world.api.status();
    assert_eq!(
        (status.targets, status.profiles[0].containers, status.lost),
        (1, 1, 0)
    );
    assert!(is_true(&status.conditions, "Ready"), "{:?}", status.conditions);

    // A model comes, and a bad one beside it.
    let vectors = steady(world.samples());
    let good = signed("m", &vectors, &key());
    let foreign = signed("m", &vectors, &vigia_model::keys::SigningKey::from_seed([9; 32]));
    world.setup.fake.with(|seen| {
        for artifact in [&good, &foreign] {
            seen.artifacts
                .insert(artifact.digest.clone(), artifact.bytes.clone());
        }
    });
    let mut traced = world.pod.spec(
        WINDOW_MS,
        &[(&good, VersionMode::Active), (&foreign, VersionMode::Prefetch)],
    );
    for version in traced.models.iter_mut().flat_map(|model| &mut model.versions) {
        version.traceparent = Some(TRACEPARENT.to_owned());
    }
    world.api.plan(traced);
    world
        .work_until("the good one serves", 0, |world| {
            world.state(&good) == Some(VersionState::Active)
        })
        .await;
    world
        .work_until("the bad one is refused", 0, |world| {
            world.state(&foreign) == Some(VersionState::Refused)
        })
        .await;
    assert!(is_true(&world.api.status().conditions, "Stalled"));
    let plan = world.pod.spec(WINDOW_MS, &[(&good, VersionMode::Active)]);
    world.api.plan(plan);
    world
        .work_until("all is well", 0, |world| {
            is_true(&world.api.status().conditions, "Ready")
        })
        .await;
    world
        .work_until("scores arrive", 0, |world| world.scored(&good.digest) > 0)
        .await;
    let spans = world.setup.fake.with(|seen| {
        let spans = seen.stored.iter().flat_map(|batch| &batch.versions);
        let told = spans.map(|span| (span.digest.clone(), span.state(), span.traceparent.clone()));
        told.collect::<Vec<_>>()
    });
    assert_eq!(spans.len(), 2, "{spans:?}");
    for (artifact, state) in [
        (&good, v1::VersionState::Active),
        (&foreign, v1::VersionState::Refused),
    ] {
        let told = (artifact.digest.clone(), state, TRACEPARENT.to_owned());
        assert!(spans.contains(&told), "{spans:?}");
    }

    // A status that does not change is not written: windows pass, and no write.
    let (writes, scored) = (world.api.writes(), world.scored(&good.digest));
    world
        .work_until("more windows", 0, |world| {
            world.scored(&good.digest) >= scored + 4
        })
        .await;
    assert_eq!(world.api.writes(), writes);

    // Everything goes away, and the agent is killed: it comes back to what it was.
    world.api.away(true);
    world.setup.fake.with(|seen| seen.away = true);
    world.end(libc::SIGKILL).await;
    world.start();
    world
        .work_until("it scores alone", 0, |world| {
            world.metrics().contains("mode=\"active\"}")
        })
        .await;
    let alone = world.scored(&good.digest);
    world
        .work_until("alerts are noticed alone", 20_000, |world| {
            world.metrics().contains("vigia_agent_alerts_total{")
        })
        .await;

    // And what was kept is delivered.
    world.setup.fake.with(|seen| seen.away = false);
    world.api.away(false);
    world
        .work_until("what was kept arrives", 0, |world| {
            world.scored(&good.digest) > alone
        })
        .await;
    let told = |world: &World| {
        world.setup.fake.with(|seen| {
            let mut alerts = seen.stored.iter().flat_map(|batch| &batch.alerts);
            alerts.any(|alert| alert.pod == "pod-0" && alert.drivers[0].syscall == "fchdir")
        })
    };
    world.work_until("the alerts arrive", 0, told).await;
    assert_eq!(world.api.status().targets, 1);

    // Told to end, it ends, and its last windows arrive.
    assert!(world.end(libc::SIGTERM).await.success(), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_killed_at_any_moment_of_a_swap_comes_back_to_the_right_version() {
    let ground = grounds().remove(0);
    let mut world = World::new(&ground).await;
    let artifacts = [
        signed("one", &quiet(), &key()),
        signed("two", &quiet()[1..], &key()),
    ];
    world.setup.fake.with(|seen| {
        for artifact in &artifacts {
            seen.artifacts
                .insert(artifact.digest.clone(), artifact.bytes.clone());
        }
    });
    for round in 0..16u64 {
        let (next, former) = (
            &artifacts[round as usize % 2],
            &artifacts[(round as usize + 1) % 2],
        );
        // In every other pair of rounds the former one is let go, and deleted: it must be fetched the next time.
        let mut versions = vec![(next, VersionMode::Active)];
        if round / 2 % 2 == 0 {
            versions.push((former, VersionMode::Prefetch));
        }
        world.start();
        world.api.plan(world.pod.spec(WINDOW_MS, &versions));
        // From before its first step to after its last, some 100 ms later.
        world.pause(Duration::from_millis(12 * round)).await;
        world.end(libc::SIGKILL).await;

        // Whatever has a name in the cache is whole.
        for file in std::fs::read_dir(world.setup.folder.path().join("state/models"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = file.file_name().into_string().expect("text");
            if let Some(hex) = name.strip_suffix(".apr") {
                let bytes = std::fs::read(file.path()).expect("readable");
                assert_eq!(digest(&bytes).to_string(), format!("sha256:{hex}"));
            }
        }
        world.api.forget_status();
        world.start();
        let what = format!("round {round}: the wanted version serves");
        world
            .work_until(&what, 0, |world| world.state(next) == Some(VersionState::Active))
            .await;
        let active = world
            .api
            .status()
            .versions
            .iter()
            .filter(|v| v.state == VersionState::Active)
            .count();
        assert_eq!(active, 1);
        world.end(libc::SIGKILL).await;
        if versions.len() == 1 {
            let file = format!("state/models/{}.apr", &former.digest[7..]);
            // In the first rounds it was not there yet.
            let _ = std::fs::remove_file(world.setup.folder.path().join(file));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_left_the_plan_for_a_moment_comes_back_without_the_operator() {
    let ground = grounds().remove(0);
    let mut world = World::new(&ground).await;
    let model = signed("one", &quiet(), &key());
    world.setup.fake.with(|seen| {
        seen.artifacts.insert(model.digest.clone(), model.bytes.clone());
    });
    let plan = world.pod.spec(WINDOW_MS, &[(&model, VersionMode::Active)]);
    world.api.plan(plan.clone());
    world.start();
    world
        .work_until("it serves", 0, |world| {
            world.state(&model) == Some(VersionState::Active)
        })
        .await;

    // The operator's store is lost, and the only pod of the node is replaced.
    world.setup.fake.with(|seen| seen.artifacts.clear());
    world.api.plan(NodePlanSpec::default());
    world
        .work_until("nothing is listed", 0, |world| world.state(&model).is_none())
        .await;
    world.api.plan(plan);
    world
        .work_until("it serves again", 0, |world| {
            world.state(&model) == Some(VersionState::Active)
        })
        .await;
}
