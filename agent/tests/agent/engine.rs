//! From the kernel to an alert: real cgroups and system calls, time as the test says.

use std::collections::BTreeMap;
use std::time::Duration;

use vigia_agent::node::desired::{Desired, Key};
use vigia_agent::node::engine::{Engine, EngineConfig, ProbeHealth, Tick};
use vigia_agent::node::governor::Level;
use vigia_agent::node::models::load::{Pinned, load};
use vigia_agent::node::models::shelf::{Step, VersionKey};
use vigia_agent::node::score::{Scorer, Spent};
use vigia_agent::probe::{HierarchyKind, Mode, Sequence, Tally};
use vigia_agent::window::{Detail, Now};
use vigia_crds::{CaptureMode, OnExceed, SignalKind, Task, TraceBudget, VersionMode};
use vigia_model::budget::Told;
use vigia_model::context::{Gram, ORDER};
use vigia_model::schema::Schema;
use vigia_model::syscalls::Arch;

use crate::ground::{Ground, grounds};
use crate::model::{Signed, key, signed};
use crate::planned::{Pod, id};

/// A node with one pod of one container, and an agent's engine on it.
struct Node {
    engine: Engine,
    pod: Pod,
    seconds: u64,
    generation: i64,
}

impl Node {
    fn new(ground: &Ground) -> Self {
        let config = EngineConfig {
            cgroup_root: ground.cgroup_root.clone(),
            tallies: 4096,
        };
        let engine = Engine::new(config, BTreeMap::new(), Scorer::new([1; 32], 42));
        Self {
            engine,
            pod: Pod::new(ground),
            seconds: 1_000_000,
            generation: 0,
        }
    }

    fn plan(&mut self, versions: &[(&Signed, VersionMode)]) -> Vec<Step> {
        self.generation += 1;
        let desired = Desired::parse(&self.pod.spec(1000, versions), self.generation);
        assert!(desired.problems.is_empty(), "{:?}", desired.problems);
        self.engine.plan(desired, Duration::from_secs(self.seconds))
    }

    fn obtain(&mut self, artifact: &Signed) {
        let trusted = Pinned::default()
            .admit(&[key().public().to_base64()])
            .expect("a key");
        let result = load(&artifact.bytes, &artifact.digest, &trusted, Task::Anomaly);
        let model = Key {
            namespace: "shop".to_owned(),
            name: "m".to_owned(),
        };
        self.engine.obtained(
            &VersionKey {
                model,
                digest: artifact.digest.clone(),
            },
            result,
        );
    }

    /// What the container does in one window, and what the agent says of it.
    fn window(&mut self, getppid: u32, failing: u32) -> Tick {
        if let Some(container) = &self.pod.container {
            container.run(getppid, failing);
        }
        self.seconds += 1;
        self.tick()
    }

    fn tick(&mut self) -> Tick {
        self.engine.tick(Now {
            mono: Duration::from_secs(self.seconds),
            wall_ms: self.seconds * 1000,
        })
    }
}

fn baseline(node: &mut Node) -> Vec<Vec<f32>> {
    node.tick();
    assert_eq!(
        (node.engine.health(), node.engine.traced().len()),
        (&ProbeHealth::Ready, 1)
    );
    let mut vectors = Vec::new();
    for round in 0..61 {
        let tick = node.window(900 + 10 * (round % 20), 0);
        assert_eq!(tick.windows, 1);
        assert!(tick.findings.samples.iter().all(|sample| sample.unscored));
        vectors.extend(tick.findings.samples.into_iter().map(|sample| sample.features));
    }
    assert_eq!(vectors.len(), 60, "every window but the first is sampled");
    vectors
}

#[test]
fn a_workload_is_learnt_and_what_is_new_is_told_with_its_cause() {
    for ground in grounds() {
        let mut node = Node::new(&ground);
        assert_eq!(node.plan(&[]), []);
        let model = signed("m", &baseline(&mut node), &key());
        assert_eq!(node.plan(&[(&model, VersionMode::Active)]).len(), 1);
        node.obtain(&model);

        for _ in 0..5 {
            let tick = node.window(1000, 0);
            assert_eq!(tick.findings.alerts, [], "{:?}", tick.scored);
            assert_eq!(tick.findings.scores[0].windows, 1);
            assert!(tick.findings.samples.iter().all(|sample| !sample.unscored));
        }
        // Thousands of calls never seen before need no second window, and go on being told.
        for consecutive in 1..=2 {
            let tick = node.window(1000, 5000);
            let alert = &tick.findings.alerts[0];
            assert_eq!(
                (alert.pod.as_str(), alert.container.as_str(), alert.consecutive),
                ("pod-0", "app", consecutive)
            );
        }
        let last = node.window(1000, 5000);
        let alert = &last.findings.alerts[0];
        let drivers: Vec<&str> = alert
            .drivers
            .iter()
            .map(|driver| driver.syscall.as_str())
            .collect();
        assert!(drivers.contains(&"fchdir"), "{:?}", alert.drivers);
        let fchdir = alert
            .drivers
            .iter()
            .find(|driver| driver.syscall == "fchdir")
            .expect("is there");
        assert!(
            fchdir.observed_per_second >= 5000.0 && fchdir.expected_per_second < 1.0,
            "{fchdir:?}"
        );
        assert_eq!(node.window(1000, 0).findings.alerts, [], "it is over");
    }
}

#[test]
fn the_alert_budget_is_held_whatever_comes_and_over_a_restart() {
    let ground = grounds().remove(0);
    let mut node = Node::new(&ground);
    node.plan(&[]);
    let model = signed("m", &baseline(&mut node), &key());
    node.plan(&[(&model, VersionMode::Active)]);
    node.obtain(&model);
    for _ in 0..3 {
        node.window(1000, 0);
    }
    // Each is an alert of its own, as there is a normal window in between.
    let mut asides = Vec::new();
    let mut told = |node: &mut Node| {
        let tick = node.window(1000, 5000);
        assert_eq!(node.window(1000, 0).findings.alerts, []);
        for one in &tick.scored {
            assert!(one.aside.is_none() || one.told == Told::Withheld);
        }
        asides.extend(tick.scored[0].aside.clone());
        (tick.findings.alerts.len(), tick.scored[0].told)
    };
    let ten: Vec<(usize, Told)> = (0..10).map(|_| told(&mut node)).collect();
    assert_eq!(ten[0], (1, Told::Begins), "the first is told at once: {ten:?}");
    let begun = ten.iter().filter(|one| **one == (1, Told::Begins)).count();
    let withheld = ten.iter().filter(|one| **one == (0, Told::Withheld)).count();
    assert!((2..=3).contains(&begun) && begun + withheld == 10, "{ten:?}");

    let left = node.engine.unsaid(u64::MAX);
    let spent = node.engine.spent(now(&node));
    let mut scorer = Scorer::new([1; 32], 43);
    scorer.restore(spent.clone(), 0.0, now(&node));
    let serving = node.engine.shelf().serving().clone();
    let config = EngineConfig {
        cgroup_root: ground.cgroup_root.clone(),
        tallies: 4096,
    };
    node.engine = Engine::new(config, serving, scorer);
    node.plan(&[(&model, VersionMode::Active)]);
    assert_eq!(node.engine.spent(now(&node)), spent);
    node.obtain(&model);
    node.tick();
    for _ in 0..3 {
        node.window(1000, 0);
    }
    assert_eq!(told(&mut node), (0, Told::Withheld));

    // What was not told is in the log with its causes; what goes on, once a minute.
    let of_withheld = asides.iter().map(|aside| &aside.verdict);
    for verdict in of_withheld {
        assert_eq!(
            (verdict.pod.as_str(), verdict.container.as_str()),
            ("pod-0", "app")
        );
        assert!(
            verdict.drivers.iter().any(|driver| driver.syscall == "fchdir"),
            "{verdict:?}"
        );
    }
    assert!(
        !asides.is_empty() && asides.len() < withheld + 1,
        "{} lines of {withheld} windows and one of another life",
        asides.len()
    );
    let [left] = &left[..] else {
        panic!("one sum of what had no line: {left:?}");
    };
    assert_eq!((left.pod.as_str(), left.container.as_str()), ("pod-0", "app"));
    let said: usize = asides.iter().map(|aside| 1 + aside.unsaid as usize).sum();
    assert_eq!(
        said + left.burst.unsaid as usize,
        withheld + 1,
        "none is forgotten"
    );
    assert_eq!(left.burst.windows as usize, withheld);
}

#[test]
fn a_pod_that_replaces_the_only_one_of_its_node_finds_the_budget_as_it_is() {
    let ground = grounds().remove(0);
    let mut node = Node::new(&ground);
    node.plan(&[]);
    let model = signed("m", &baseline(&mut node), &key());
    let begun = |node: &mut Node| {
        node.plan(&[(&model, VersionMode::Active)]);
        node.obtain(&model);
        node.tick();
        for _ in 0..3 {
            node.window(1000, 0);
        }
        let ten = (0..10).map(|_| {
            let told = node.window(1000, 5000).scored[0].told;
            node.window(1000, 0);
            told
        });
        ten.filter(|told| *told == Told::Begins).count()
    };
    let first = begun(&mut node);
    assert!((2..=3).contains(&first), "{first} begun");

    // Meanwhile nothing of it is planned, and the agent starts anew.
    node.pod.container.take().expect("is there").remove();
    node.engine.plan(Desired::default(), now(&node));
    node.tick();
    let spent = node.engine.spent(now(&node));
    let restart = |node: &mut Node, hours| {
        let mut scorer = Scorer::new([1; 32], 43);
        scorer.restore(spent.clone(), hours, now(node));
        let config = EngineConfig {
            cgroup_root: ground.cgroup_root.clone(),
            tallies: 4096,
        };
        node.engine = Engine::new(config, BTreeMap::new(), scorer);
    };
    restart(&mut node, 1.1);
    assert_eq!(node.engine.spent(now(&node)), Spent::default(), "too long ago");
    restart(&mut node, 0.9);
    assert_ne!(node.engine.spent(now(&node)), Spent::default());

    node.pod.container = Some(node.pod.folder.nested(&id()));
    let second = begun(&mut node);
    assert!(first + second <= 3, "{first} begun, and {second} more");
}

/// What a node's monotonic clock says.
fn now(node: &Node) -> Duration {
    Duration::from_secs(node.seconds)
}

#[test]
fn a_swap_loses_no_window_and_a_shadow_tells_no_alert() {
    for ground in grounds() {
        let mut node = Node::new(&ground);
        node.plan(&[]);
        let vectors = baseline(&mut node);
        let (one, two) = (
            signed("one", &vectors, &key()),
            signed("two", &vectors[10..], &key()),
        );
        node.plan(&[(&one, VersionMode::Active)]);
        node.obtain(&one);
        let by =
            |tick: &Tick| -> Vec<String> { tick.findings.scores.iter().map(|s| s.digest.clone()).collect() };
        assert_eq!(by(&node.window(1000, 0)), [one.digest.as_str()]);

        node.plan(&[(&one, VersionMode::Active), (&two, VersionMode::Shadow)]);
        assert_eq!(
            by(&node.window(1000, 0)),
            [one.digest.as_str()],
            "not obtained yet"
        );
        node.obtain(&two);
        let both = node.window(1000, 5000);
        assert_eq!(by(&both).len(), 2);
        let alerts = node.window(1000, 5000).findings.alerts;
        assert!(alerts.len() == 1 && alerts[0].digest == one.digest, "{alerts:?}");

        node.plan(&[(&one, VersionMode::Prefetch), (&two, VersionMode::Active)]);
        let swapped = node.window(1000, 0);
        assert_eq!((by(&swapped), swapped.windows), (vec![two.digest.clone()], 1));
        // And back, with nothing but what is held.
        assert_eq!(
            node.plan(&[(&one, VersionMode::Active), (&two, VersionMode::Prefetch)]),
            []
        );
        assert_eq!(by(&node.window(1000, 0)), [one.digest.as_str()]);
    }
}

#[test]
fn a_container_that_goes_is_let_go_and_one_made_anew_is_counted_again() {
    for ground in grounds() {
        let mut node = Node::new(&ground);
        node.plan(&[]);
        node.tick();
        assert_eq!(node.window(10, 0).windows, 1);
        node.pod.container.take().expect("is there").remove();
        node.seconds += 1;
        assert!(node.tick().changed);
        assert_eq!((node.engine.traced().len(), node.tick().windows), (0, 0));

        node.pod.container = Some(node.pod.folder.nested(&id()));
        node.seconds += 1;
        assert!(node.tick().changed);
        let tick = node.window(321, 0);
        assert_eq!((tick.windows, node.engine.traced().len()), (1, 1));
    }
}

#[test]
fn the_window_in_which_a_container_ended_is_its_last_and_teaches_nothing() {
    for ground in grounds() {
        let mut node = Node::new(&ground);
        node.plan(&[]);
        node.tick();
        let mut resident = node.pod.container.as_ref().expect("is there").inhabit();
        let ages: Vec<(u32, bool, usize)> = (0..3).map(|_| end_of(&node.window(9, 0))).collect();
        // How it began is not taught.
        assert_eq!(ages, [(0, false, 0), (1, false, 1), (2, false, 1)]);

        // Its process ends; the runtime is not that fast.
        resident.kill().expect("is there");
        resident.wait().expect("ends");
        let ended = end_of(&node.window(9, 0));
        if ground.tells_the_end() {
            assert_eq!(ended, (3, true, 0));
        }
        let (age, ..) = ended;
        assert_eq!(age, 3);
        // Its folder goes, just before a window is due.
        node.pod.container.as_ref().expect("is there").run(9, 0);
        node.pod.container.take().expect("is there").remove();
        node.seconds += 1;
        let (_, last, samples) = end_of(&node.tick());
        assert!(last && samples == 0);
    }
}

#[test]
fn a_container_that_ran_before_a_restart_is_no_beginner_and_one_made_anew_is() {
    let ground = grounds().remove(0);
    let mut node = Node::new(&ground);
    let known = Desired::parse(&node.pod.spec(1000, &[]), 1);
    for (ran, age) in [(900, 0), (1000, 1), (3_600_000, 2)] {
        let config = EngineConfig {
            cgroup_root: ground.cgroup_root.clone(),
            tallies: 4096,
        };
        node.engine = Engine::new(config, BTreeMap::new(), Scorer::new([1; 32], 43));
        node.engine.recall(&known, Duration::from_millis(ran));
        node.plan(&[]);
        node.tick();
        let ages = [(); 2].map(|()| end_of(&node.window(9, 0)).0);
        assert_eq!(ages, [age, age + 1], "it ran for {ran} ms");
    }
    node.pod.container.take().expect("is there").remove();
    node.pod.container = Some(node.pod.folder.nested(&id()));
    node.seconds += 1;
    assert!(end_of(&node.tick()).1, "the former one's last window");
    assert_eq!(end_of(&node.window(9, 0)).0, 0);
}

/// Age of a tick's one window, whether it is the last, and how many samples were taken.
fn end_of(tick: &Tick) -> (u32, bool, usize) {
    assert_eq!(tick.windows, 1);
    let (closed, _) = &tick.closed[0];
    (closed.age, closed.last, tick.findings.samples.len())
}

#[test]
fn a_node_without_cgroups_says_so_and_goes_on() {
    let nowhere = tempfile::tempdir().expect("a temporary folder");
    let config = EngineConfig {
        cgroup_root: nowhere.path().to_owned(),
        tallies: 64,
    };
    let mut engine = Engine::new(config, BTreeMap::new(), Scorer::new([0; 32], 1));
    let mut pod = Pod::new(&grounds()[0]);
    pod.budget = Some(TraceBudget {
        cpu: "1m".to_owned(),
        on_exceed: OnExceed::Degrade,
    });
    engine.plan(Desired::parse(&pod.spec(1000, &[]), 1), Duration::ZERO);
    engine.tick(Now {
        mono: Duration::from_secs(1),
        wall_ms: 0,
    });
    assert!(
        engine.wake_at() >= Duration::from_secs(2),
        "{:?}",
        engine.wake_at()
    );
    assert!(
        matches!(engine.health(), ProbeHealth::Failed("NoCgroups", _)),
        "{:?}",
        engine.health()
    );
    assert_eq!(
        engine
            .end(Now {
                mono: Duration::from_secs(2),
                wall_ms: 0
            })
            .windows,
        0
    );
}

#[test]
fn what_a_profile_wants_of_calls_is_kept_and_what_it_leaves_out_is_nowhere() {
    for ground in grounds() {
        let mut node = Node::new(&ground);
        node.plan(&[]);
        node.tick();
        let tick = node.window(100, 10);
        assert_eq!(
            tick.closed[0].0.detail,
            Detail::default(),
            "counts alone by default"
        );

        // From counts to all: the probe is loaded anew.
        node.pod.capture.mode = CaptureMode::Full;
        node.pod.capture.syscalls.exclude = vec!["fchdir".to_owned()];
        node.plan(&[]);
        node.seconds += 1;
        node.tick();
        assert_eq!((node.engine.no_detail(), node.engine.traced().len()), (None, 1));
        node.window(100, 10);
        let getppid = u32::try_from(libc::SYS_getppid).expect("small");
        let fchdir = u32::try_from(libc::SYS_fchdir).expect("small");
        let place = Schema::syscalls_v1().feature_of(Arch::NATIVE, getppid);
        let mut known = None;
        for _ in 0..14 {
            let tick = node.window(100, 10);
            let (closed, new) = &tick.closed[0];
            assert_eq!((new.calls.as_slice(), new.pairs.as_slice()), (&[][..], &[][..]));
            let calls: Vec<(u32, u64)> = closed.window.calls.iter().map(|c| (c.nr, c.count)).collect();
            assert!(calls.contains(&(getppid, 100)), "{calls:?}");
            assert!(calls.iter().all(|(nr, _)| *nr != fchdir), "{calls:?}");
            let durations = &closed.detail.durations;
            let measured = durations.iter().find(|one| one.nr == getppid).expect("measured");
            assert_eq!(measured.buckets.iter().sum::<u32>(), 100);
            assert!(durations.iter().all(|one| one.nr != fchdir));
            // The two that come first have less before them than the longest sequence.
            let six = (0..ORDER).fold(Sequence::default(), |sequence, _| sequence.then(getppid));
            assert!(
                closed.detail.sequences[&six] >= 95,
                "{:?}",
                closed.detail.sequences
            );

            // What is sampled for training carries the same, and the windows before.
            let sample = &tick.findings.samples[0];
            let at = sample
                .sequences
                .iter()
                .position(|id| *id == Gram::id_of([place; ORDER]))
                .expect("a sequence");
            assert!(sample.sequence_counts[at] >= 95, "{:?}", sample.sequence_counts);
            let before = known
                .replace(sample.past.len())
                .map_or(sample.past.len(), |n| n + 1);
            assert_eq!(sample.past.len(), before);
        }
        node.pod
            .container
            .as_ref()
            .expect("is there")
            .run_kinds(2000..2001);
        node.seconds += 1;
        assert_eq!(
            node.tick().closed[0].1.calls,
            [Tally::UNKNOWN],
            "after its habits, a new call is told"
        );
    }
}

#[test]
fn in_a_duty_cycle_a_part_is_measured_and_all_is_counted() {
    let ground = grounds().remove(0);
    let mut node = Node::new(&ground);
    node.pod.capture.mode = CaptureMode::Sampled;
    node.pod.capture.sample_one_in = 2;
    node.plan(&[]);
    node.tick();
    let base = Duration::from_secs(node.seconds);
    let (mut wall, mut measured, mut counted) = (node.seconds * 1000, 0, 0);
    for _ in 0..60 {
        wall += 50;
        node.pod.container.as_ref().expect("is there").run(100, 0);
        let tick = node.engine.tick(Now {
            mono: base + Duration::from_millis(wall - node.seconds * 1000),
            wall_ms: wall,
        });
        for (closed, _) in tick.closed {
            let getppid = u32::try_from(libc::SYS_getppid).expect("small");
            let of = |calls: &[u32]| calls.iter().map(|n| u64::from(*n)).sum::<u64>();
            let kept = closed.detail.durations.iter().filter(|one| one.nr == getppid);
            measured += kept.map(|one| of(&one.buckets)).sum::<u64>();
            let calls = closed.window.calls.iter().filter(|call| call.nr == getppid);
            counted += calls.map(|call| call.count).sum::<u64>();
        }
    }
    assert!(counted >= 4_000, "{counted} counted");
    let share = measured as f64 / counted as f64;
    assert!((0.3..0.7).contains(&share), "{measured} of {counted}");
}

#[test]
fn signals_are_told_where_they_are_wanted_and_what_the_kernel_lacks_is_named() {
    for ground in grounds() {
        let mut node = Node::new(&ground);
        node.plan(&[]);
        node.tick();
        assert_eq!(node.window(1, 0).signals, []);
        node.pod.capture.signals = vec![SignalKind::Resources, SignalKind::Processes];
        node.plan(&[]);
        node.seconds += 1;
        node.tick();
        let tick = node.window(1, 0);
        let (_, signals) = &tick.signals[0];
        // One process came in and executed a program.
        assert_eq!((signals.counts.programs, signals.counts.connections), (1, 0));
        let resources = signals.resources.expect("asked for");
        let lacks = node.engine.no_signals().unwrap_or_default();
        assert_eq!(resources.missing().is_empty(), lacks.is_empty(), "{lacks}");
        if ground.kind == HierarchyKind::V1 {
            assert!(resources.memory_bytes.is_some(), "{resources:?}");
            assert!(lacks.starts_with("kernel lacks "), "{lacks}");
        }
        assert_eq!(node.engine.health(), &ProbeHealth::Ready);
    }
}

#[test]
fn what_a_container_did_last_is_told_when_it_is_gone() {
    let ground = grounds().remove(0);
    let mut node = Node::new(&ground);
    node.pod.capture.signals = vec![SignalKind::Resources, SignalKind::Processes];
    node.plan(&[]);
    node.tick();
    node.window(1, 0);
    node.pod.container.as_ref().expect("is there").run(1, 0);
    node.pod.container.take().expect("is there").remove();
    node.seconds += 1;
    let tick = node.tick();
    let (_, signals) = &tick.signals[0];
    assert_eq!((tick.signals.len(), signals.counts.programs), (1, 2));
    let resources = signals.resources.expect("wanted");
    assert_eq!(
        resources.memory_bytes.is_some(),
        ground.kind == HierarchyKind::V1,
        "as it was before"
    );
}

#[test]
fn what_costs_more_than_its_budget_is_kept_down_step_by_step_and_comes_back() {
    let ground = grounds().remove(0);
    let mut node = Node::new(&ground);
    node.pod.capture.mode = CaptureMode::Full;
    node.pod.budget = Some(TraceBudget {
        cpu: "1m".to_owned(),
        on_exceed: OnExceed::Degrade,
    });
    node.plan(&[]);
    node.tick();
    let mut levels = vec![Level::Kept(Mode::Full)];
    let level = |node: &Node| node.engine.costs().values().next().expect("one profile").0;
    for _ in 0..50 {
        // Some hundred nanoseconds each, in a second as the engine sees it.
        node.window(100_000, 0);
        if levels.last() != Some(&level(&node)) {
            levels.push(level(&node));
        }
    }
    assert_eq!(
        levels,
        [
            Level::Kept(Mode::Full),
            Level::Kept(Mode::Sampled),
            Level::Kept(Mode::Counts),
            Level::Suspended
        ]
    );
    assert_eq!(
        (node.engine.traced().len(), node.tick().windows),
        (0, 0),
        "nothing is attached"
    );
    assert_eq!(node.engine.health(), &ProbeHealth::Ready);
    for _ in 0..75 {
        node.window(1, 0);
    }
    assert!(level(&node) > Level::Suspended && node.engine.traced().len() == 1);
    assert_eq!(node.window(1, 0).windows, 1);
}
