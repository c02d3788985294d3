//! Profiles, what becomes of them on nodes, and alerts about their pods.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use vigia_crds::conditions::READY;
use vigia_crds::{Model, TraceProfile};
use vigia_operator::alert::{self, Refused};
use vigia_proto::v1::{Driver, Sequence, Severity, Verdict};

use crate::objects;
use crate::rollouts::condition;
use crate::world::{World, eventually};

async fn of_profile(world: &World, name: &str) -> Result<Vec<Condition>> {
    Ok(world
        .profile("shop", name)
        .await?
        .status
        .unwrap_or_default()
        .conditions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_reach_nodes_and_say_what_is_wrong() -> Result<()> {
    let mut world = World::new(&["n1", "n2"]).await?;
    let own = world.client.clone();
    let client = || own.clone();
    let ns = "shop";
    objects::namespace(&world.client, ns).await?;
    let profiles: Api<TraceProfile> = Api::namespaced(client(), ns);
    let create = async |name: &str, app: &str, models: &[&str]| -> Result<()> {
        profiles
            .create(&PostParams::default(), &objects::profile(ns, name, app, models)?)
            .await?;
        Ok(())
    };

    create("web", "web", &[]).await?;
    condition("web", (READY, "False", "NothingSelected"), async || {
        of_profile(&world, "web").await
    })
    .await?;

    // A pod starts on each node; a node that has none of them has no plan.
    let first = objects::pod(
        &world.client,
        ns,
        "web-1",
        "n1",
        "default",
        &[("app", "web")],
        &["app", "side"],
    )
    .await?;
    condition("web", (READY, "True", "Traced"), async || {
        of_profile(&world, "web").await
    })
    .await?;
    assert!(
        world.plan("n2").await.is_err(),
        "a node without targets needs no plan"
    );
    objects::pod(
        &world.client,
        ns,
        "web-2",
        "n2",
        "default",
        &[("app", "web")],
        &["app", "side"],
    )
    .await?;
    eventually("four containers on two nodes are traced", || async {
        let status = world.profile(ns, "web").await?.status.unwrap_or_default();
        let counts = (status.matched_pods, status.traced_containers, status.nodes);
        Ok(if counts == (2, 4, 2) {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        })
    })
    .await?;
    let planned = world.plan("n1").await?.spec.profiles.remove(0);
    assert_eq!((planned.name.as_str(), planned.window_ms), ("web", 2000));
    assert_eq!(planned.pods[0].uid, first.uid().unwrap_or_default());
    let owner = &world
        .plan("n1")
        .await?
        .metadata
        .owner_references
        .unwrap_or_default()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "n1"));

    // Containers that are started again have other ids.
    objects::run_containers(&world.client, &first, "again").await?;
    eventually("the plan follows", || async {
        let plan = world.plan("n1").await?;
        let id = plan.spec.profiles[0].pods[0].containers[0].id.clone();
        Ok(if id.starts_with("again") { Ok(()) } else { Err(id) })
    })
    .await?;

    // A younger profile for the same pods gets none of them, and says who has them.
    create("webby", "web", &[]).await?;
    condition("webby", (READY, "False", "Overlaps"), async || {
        of_profile(&world, "webby").await
    })
    .await?;
    profiles.delete("web", &DeleteParams::default()).await?;
    condition("webby", (READY, "True", "Traced"), async || {
        of_profile(&world, "webby").await
    })
    .await?;

    // An older one of which nothing is known to the kernel keeps nothing from the others, and no node hears of it.
    let mut wrong = objects::profile(ns, "wrong", "web", &[])?;
    wrong.spec.capture.syscalls.include = vec!["opnat".to_owned()];
    profiles.delete("webby", &DeleteParams::default()).await?;
    profiles.create(&PostParams::default(), &wrong).await?;
    condition("wrong", (READY, "False", "UnknownSyscall"), async || {
        of_profile(&world, "wrong").await
    })
    .await?;
    let said = of_profile(&world, "wrong").await?;
    let ready = vigia_crds::conditions::find(&said, READY).expect("Ready");
    assert!(ready.message.contains("did you mean openat"), "{}", ready.message);
    create("webby", "web", &[]).await?;
    condition("webby", (READY, "True", "Traced"), async || {
        of_profile(&world, "webby").await
    })
    .await?;
    for node in ["n1", "n2"] {
        let spec = world.plan(node).await?.spec;
        let names: Vec<_> = spec.profiles.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["webby"], "{node}");
    }
    profiles.delete("wrong", &DeleteParams::default()).await?;

    // A Model that is not there is named, and found once it is.
    world
        .merge::<TraceProfile>(ns, "webby", json!({"spec": {"models": [{"name": "m"}]}}))
        .await?;
    condition("webby", (READY, "False", "ModelNotFound"), async || {
        of_profile(&world, "webby").await
    })
    .await?;
    let models: Api<Model> = Api::namespaced(client(), ns);
    models
        .create(&PostParams::default(), &objects::model(ns, "m", json!({}))?)
        .await?;
    condition("webby", (READY, "True", "Traced"), async || {
        of_profile(&world, "webby").await
    })
    .await?;

    // What costs more than its budget is kept down by the agents, and said and told; and so is that it no longer is.
    let status = world.profile(ns, "webby").await?.status.unwrap_or_default();
    assert_eq!(
        (status.overhead.milli_cores, status.overhead.most_milli_cores),
        (5, 2)
    );
    for (cpu, is, reason, event) in [
        ("1m", "False", "Degraded", "OverBudget"),
        ("10m", "True", "WithinBudget", "WithinBudget"),
    ] {
        world
            .merge::<TraceProfile>(ns, "webby", json!({"spec": {"budget": {"cpu": cpu}}}))
            .await?;
        condition("webby", ("WithinBudget", is, reason), async || {
            of_profile(&world, "webby").await
        })
        .await?;
        eventually("an Event says so", || async {
            let said = world.events(ns, "webby", event).await?;
            Ok(if said.len() == 1 {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            })
        })
        .await?;
    }

    withheld(&world, ns).await?;
    alerts(&world, ns, &first).await?;

    // The last pod of a node goes: an empty plan stays, so that its agent detaches.
    let pods: Api<Pod> = Api::namespaced(client(), ns);
    pods.delete("web-1", &DeleteParams::default().grace_period(0))
        .await?;
    eventually("n1's plan is empty", || async {
        let spec = world.plan("n1").await?.spec;
        Ok(if spec.profiles.is_empty() && spec.models.is_empty() {
            Ok(())
        } else {
            Err(format!("{spec:?}"))
        })
    })
    .await?;
    // What its agent still has to say about it is heard.
    alert::publish(&world.operator(), &verdict(&first, "connect"), "n1").await?;
    flood(&mut world, ns).await
}

fn verdict(pod: &Pod, syscall: &str) -> Verdict {
    Verdict {
        namespace: "shop".to_owned(),
        profile: "webby".to_owned(),
        model: "m".to_owned(),
        pod: pod.name_any(),
        pod_uid: pod.uid().unwrap_or_default(),
        container: "app".to_owned(),
        window_ms: 2000,
        score: 0.95,
        severity: Severity::High.into(),
        consecutive: 2,
        drivers: vec![Driver {
            syscall: syscall.to_owned(),
            observed_per_second: 40.0,
            expected_per_second: 0.0,
            ..Driver::default()
        }],
        ..Verdict::default()
    }
}

/// What agents hold back is said of the profile, and told once, however much more of it there is.
async fn withheld(world: &World, ns: &str) -> Result<()> {
    let hold = |windows: i64| {
        let mut habits = world.habits.lock().expect("no panic");
        habits.withheld.insert("n2".to_owned(), windows);
    };
    let sum = async |wanted: i64| {
        eventually("the profile's status has the sum", || async {
            let status = world.profile(ns, "webby").await?.status.unwrap_or_default();
            Ok(if status.alerts_withheld == wanted {
                Ok(())
            } else {
                Err(status.alerts_withheld.to_string())
            })
        })
        .await
    };
    let is = async |status: &str, reason: &str| {
        condition("webby", ("AlertsTold", status, reason), async || {
            of_profile(world, "webby").await
        })
        .await
    };
    is("True", "AllTold").await?;
    hold(4);
    is("False", "BudgetSpent").await?;
    sum(4).await?;
    hold(8);
    sum(8).await?;
    let said = of_profile(world, "webby").await?;
    let message = &vigia_crds::conditions::find(&said, "AlertsTold")
        .expect("is there")
        .message;
    let one = "spent on n2 (up to 8); one of them was at 1970-01-01T00:00:00Z in container app of pod web-2 on n2, by \
               Novelty of Model m.";
    assert!(message.contains(one), "{message}");

    // It stays said while the node's only pod is replaced, or does not come back.
    let since = |said: &[Condition]| {
        let told = vigia_crds::conditions::find(said, "AlertsTold").expect("is there");
        assert_eq!(told.status, "False", "{}", told.message);
        told.last_transition_time.clone()
    };
    let first = since(&said);
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), ns);
    for there in [false, true] {
        if there {
            let labels = [("app", "web")];
            objects::pod(&world.client, ns, "web-2", "n2", "default", &labels, &["app"]).await?;
        } else {
            pods.delete("web-2", &DeleteParams::default().grace_period(0))
                .await?;
        }
        eventually("the agent and the profile know", || async {
            let of_agent = world.plan("n2").await?.status.unwrap_or_default().targets;
            let status = world.profile(ns, "webby").await?.status.unwrap_or_default();
            let (wanted, is) = (i32::from(there), (of_agent, status.nodes - 1));
            Ok(if is == (wanted, wanted) {
                Ok(())
            } else {
                Err(format!("{is:?}"))
            })
        })
        .await?;
        let status = world.profile(ns, "webby").await?.status.unwrap_or_default();
        assert_eq!(
            (since(&status.conditions), status.alerts_withheld),
            (first.clone(), 8)
        );
    }
    hold(0);
    is("True", "AllTold").await?;
    sum(0).await?;
    eventually("one Event says so", || async {
        let said = world.events(ns, "webby", "AlertsWithheld").await?;
        Ok(match said.len() {
            1 => Ok(()),
            n => Err(format!("{n} Events: {said:?}")),
        })
    })
    .await
}

/// How often each Event of a pod's alerts was said: those told one by one, and how many had no room for that.
async fn counts(world: &World, ns: &str, pod: &str) -> Result<(Vec<i32>, i32)> {
    let events: Api<Event> = Api::namespaced(world.client.clone(), ns);
    let events = events
        .list(&ListParams::default().fields(&format!("reason={}", alert::REASON)))
        .await?;
    let of = events.into_iter().filter(|event| {
        let about = event.regarding.as_ref().and_then(|r| r.name.as_deref());
        about == Some(pod)
    });
    let (mut told, mut others) = (vec![], 0);
    for event in of {
        let count = event.series.map_or(1, |s| s.count);
        match event.note.unwrap_or_default() {
            note if note.starts_with("more of these than") => others += count,
            _ => told.push(count),
        }
    }
    told.sort_unstable();
    Ok((told, others))
}

/// Waits until a pod's alerts are counted like that.
async fn counted(world: &World, ns: &str, pod: &str, wanted: (&[i32], i32)) -> Result<()> {
    eventually("every alert is counted", || async {
        let (told, others) = counts(world, ns, pod).await?;
        Ok(if (told.as_slice(), others) == wanted {
            Ok(())
        } else {
            Err(format!("{told:?} and {others}"))
        })
    })
    .await
}

/// What a pod has no room for is counted and said, and a life of the operator counts on where the one before it stood.
async fn flood(world: &mut World, ns: &str) -> Result<()> {
    let client = world.client.clone();
    let pod = objects::pod(&client, ns, "loud", "n2", "default", &[("app", "web")], &["app"]).await?;
    let alert_of = |began: i64| Verdict {
        began_unix_ms: began,
        ..verdict(&pod, "connect")
    };
    let known = async |world: &World| {
        let operator = world.operator();
        eventually("the operator knows the pod", || async {
            let pods = operator.caches.pods.on_node("n2");
            Ok(if pods.iter().any(|p| p.name == "loud") {
                Ok(())
            } else {
                Err("no pod loud".to_owned())
            })
        })
        .await
    };
    known(world).await?;
    for began in 1..=14 {
        alert::publish(&world.operator(), &alert_of(began), "n2").await?;
    }
    counted(world, ns, "loud", (&[1; 10], 4)).await?;

    world.kill().await;
    world.start().await?;
    known(world).await?;
    alert::publish(&world.operator(), &alert_of(1), "n2").await?;
    counted(world, ns, "loud", (&[1, 1, 1, 1, 1, 1, 1, 1, 1, 2], 4)).await?;

    // What waits to be written is written by an operator that is told to end, before it has ended.
    for _ in 0..2 {
        alert::publish(&world.operator(), &alert_of(1), "n2").await?;
    }
    world.end().await;
    let (told, _) = counts(world, ns, "loud").await?;
    assert_eq!(told.last(), Some(&4), "{told:?}");
    world.start().await
}

async fn alerts(world: &World, ns: &str, pod: &Pod) -> Result<()> {
    let operator = world.operator();
    // Not of a node that the pod is not on, nor of a container that it does not have.
    let foreign = alert::publish(&operator, &verdict(pod, "connect"), "n2").await;
    assert!(matches!(foreign, Err(Refused::NotOnNode { .. })), "{foreign:?}");
    let told = world.events("default", "n2", alert::UNKNOWN).await?;
    assert_eq!(told.len(), 1, "the node's plan answers for it: {told:?}");
    assert!(
        told[0].contains("node n2 has no pod") && told[0].contains("connect 40/s"),
        "{told:?}"
    );
    let mut other = verdict(pod, "connect");
    other.container = "ghost".to_owned();
    let ghost = alert::publish(&operator, &other, "n1").await;
    assert!(matches!(ghost, Err(Refused::NoContainer { .. })), "{ghost:?}");
    assert!(world.events(ns, "web-1", alert::REASON).await?.is_empty());

    // One alert is one Event, whatever call stands out; where it becomes graver it is another one.
    for call in ["connect", "connect", "execve", "connect", "openat"] {
        alert::publish(&operator, &verdict(pod, call), "n1").await?;
    }
    let mut less = verdict(pod, "execve");
    less.severity = Severity::Low.into();
    alert::publish(&operator, &less, "n1").await?;
    let notes = world.events(ns, "web-1", alert::REASON).await?;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes
            .iter()
            .any(|n| n.contains("container app") && n.contains("connect 40/s (expected 0/s)")),
        "{notes:?}"
    );

    // The next alert is told in its own words although the same call is in front of it, and each window of one counts.
    let mut next = verdict(pod, "connect");
    next.drivers[0].observed_per_second = 7.0;
    next.began_unix_ms = 8000;
    // As long as names and numbers can be, beside those of the longest system calls.
    let call = "sched_get_priority_max".to_owned();
    next.estimator = "STIDE".to_owned();
    next.sequences = ["clone", "execve", "setns"]
        .map(|first| Sequence {
            calls: [&[first.to_owned()][..], &vec![call.clone(); 5]].concat(),
            times: u32::MAX,
            ..Sequence::default()
        })
        .into();
    for _ in 0..3 {
        alert::publish(&operator, &next, "n1").await?;
    }
    let notes = world.events(ns, "web-1", alert::REASON).await?;
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(
        notes.iter().any(|n| n.contains("connect 7.00/s (expected 0/s)")),
        "{notes:?}"
    );
    assert!(
        notes.iter().any(|n| n.contains("by STIDE of m in 2 windows")
            && n.contains("; clone → sched_get_priority_max →")
            && n.matches("(never seen, 4294967295 times)").count() == 3),
        "{notes:?}"
    );
    counted(world, ns, "web-1", (&[1, 3, 5], 0)).await?;

    // A profile that wants no Events gets none.
    world
        .merge::<TraceProfile>(ns, "webby", json!({"spec": {"outputs": {"events": false}}}))
        .await?;
    eventually("the operator knows", || async {
        let profiles = operator.caches.profiles_in(ns);
        let wants = profiles
            .iter()
            .any(|p| p.name_any() == "webby" && p.spec.outputs.events);
        Ok(if wants {
            Err("it wants Events".to_owned())
        } else {
            Ok(())
        })
    })
    .await?;
    alert::publish(&operator, &verdict(pod, "ptrace"), "n1").await?;
    assert_eq!(world.events(ns, "web-1", alert::REASON).await?.len(), 3);
    world
        .merge::<TraceProfile>(ns, "webby", json!({"spec": {"outputs": {"events": true}}}))
        .await?;
    Ok(())
}
