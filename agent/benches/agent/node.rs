//! The engine and the whole process at work.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vigia_agent::node::desired::{Desired, Key};
use vigia_agent::node::engine::{Engine, EngineConfig};
use vigia_agent::node::models::load::{Pinned, load};
use vigia_agent::node::models::shelf::VersionKey;
use vigia_agent::node::score::Scorer;
use vigia_agent::window::Now;
use vigia_crds::{NodePlanSpec, Task, VersionMode};
use vigia_model::artifact::{self, Metadata, encode, sign};
use vigia_model::deviation::{Deviation, Moments};
use vigia_model::pipeline::{EstimatorSpec, PipelineSpec};
use vigia_model::schema::Schema;

use crate::at;
use crate::ground::{Ground, grounds};
use crate::model::{Signed, key};
use crate::planned::Pod;
use crate::row::{Row, Target};
use crate::support::{Random, random_forest};
use crate::workload::{inside, this};
use crate::world::World;

const WINDOW_MS: i64 = 1000;
const MIB: f64 = 1024.0 * 1024.0;

/// A model of the size that is served: 100 trees, and what is normal for each feature.
fn model() -> Signed {
    let schema = Schema::syscalls_v1();
    let mut random = Random(1);
    let mut moments = Moments::new(schema.width());
    let rows: Vec<Vec<f32>> = (0..200)
        .map(|_| {
            (0..schema.width())
                .map(|_| random.normal().abs() as f32)
                .collect()
        })
        .collect();
    for row in &rows[..100] {
        moments.add(row).expect("a vector of the schema");
    }
    let forest = random_forest(2, u16::try_from(schema.width()).expect("narrow"), 100, 1.0);
    let estimators = vec![EstimatorSpec::IsolationForest(forest), EstimatorSpec::Deviation];
    let deviation = Deviation::from_moments(&moments).expect("enough vectors");
    let spec =
        PipelineSpec::calibrate(schema, deviation, estimators, &rows[100..].concat()).expect("calibrated");
    let metadata = Metadata::new("m", artifact::Task::Anomaly, schema);
    Signed::of(sign(&encode(&metadata, &spec).expect("encoded"), &key()).expect("signed"))
}

/// One plan for all of them.
fn spec(pods: &[&Pod], versions: &[(&Signed, VersionMode)]) -> NodePlanSpec {
    let mut spec = pods[0].spec(WINDOW_MS, versions);
    for pod in &pods[1..] {
        let one = pod.spec(WINDOW_MS, versions);
        spec.profiles[0]
            .pods
            .extend(one.profiles.into_iter().flat_map(|profile| profile.pods));
    }
    spec.profiles[0].sample_per_mille = 50;
    spec
}

pub fn verdict() {
    const PODS: usize = 30;
    let ground = grounds().remove(0);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| Pod::below(&ground, &format!("node-{number}")))
        .collect();
    let model = model();
    let config = EngineConfig {
        cgroup_root: ground.cgroup_root.clone(),
        tallies: 16_384,
    };
    let mut engine = Engine::new(config, BTreeMap::new(), Scorer::new([0; 32], 1));
    let planned = spec(&pods.iter().collect::<Vec<_>>(), &[(&model, VersionMode::Active)]);
    engine.plan(Desired::parse(&planned, 1), Duration::ZERO);
    let trusted = Pinned::default()
        .admit(&[key().public().to_base64()])
        .expect("a key");
    let name = Key {
        namespace: "shop".to_owned(),
        name: "m".to_owned(),
    };
    let loaded = load(&model.bytes, &model.digest, &trusted, Task::Anomaly);
    engine.obtained(
        &VersionKey {
            model: name,
            digest: model.digest.clone(),
        },
        loaded,
    );

    let at_second = |second: u64| Now {
        mono: Duration::from_secs(second),
        wall_ms: second * 1000,
    };
    engine.tick(at_second(1));
    let busy: Vec<Child> = pods.iter().map(idle).collect();
    // The first window is a container's start, which does not count.
    engine.tick(at_second(2));
    let mut ours = Vec::new();
    for second in 3..503 {
        let start = Instant::now();
        let tick = engine.tick(at_second(second));
        ours.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(tick.findings.scores[0].windows, PODS as u64);
    }
    end(busy);
    let p99 = at(&mut ours, 0.99);
    let median = at(&mut ours, 0.5);
    Row {
        name: "agent.verdict",
        unit: "ms from the begin of a drain to the last verdict, P99",
        ours: vec![p99],
        peers: vec![],
        rivals: true,
        target: Target::AtMost(10.0),
        note: format!(
            "{PODS} containers a drain, 100 trees and deviation, 500 drains; median {median:.2} ms"
        ),
    }
    .print();
}

/// A process that makes forty kinds of system calls, five times a second.
fn idle(pod: &Pod) -> Child {
    let procs = pod.container.as_ref().expect("is there").procs();
    inside(this(&["workload-idle"]), procs)
        .spawn()
        .expect("the workload runs")
}

fn end(children: Vec<Child>) {
    for mut child in children {
        child
            .kill()
            .and_then(|()| child.wait())
            .expect("the workload ends");
    }
}

/// An agent that scores a pod of its own and `pods` with a full model, and its plan.
async fn scoring(ground: &Ground, pods: &[Pod]) -> (World, NodePlanSpec) {
    let mut world = World::new(ground).await;
    let model = model();
    world
        .setup
        .fake
        .with(|seen| seen.artifacts.insert(model.digest.clone(), model.bytes.clone()));
    let all: Vec<&Pod> = std::iter::once(&world.pod).chain(pods).collect();
    let (plan, wanted) = (spec(&all, &[(&model, VersionMode::Active)]), all.len() as u64);
    world.api.plan(plan.clone());
    world.start();
    crate::fake::until("every container is scored", || {
        world.scored(&model.digest) >= 2 * wanted
    })
    .await;
    (world, plan)
}

fn status(agent: &Child, field: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.id())).expect("the agent runs");
    let line = status
        .lines()
        .find(|line| line.starts_with(field))
        .expect("the field is there");
    let kib: f64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .expect("a number");
    kib * 1024.0 / MIB
}

fn cpu_seconds(agent: &Child) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", agent.id())).expect("the agent runs");
    let after = stat.rsplit(')').next().expect("fields after the name");
    let ticks: f64 = after
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|text| text.parse::<f64>().ok())
        .sum();
    // SAFETY: sysconf takes no pointers.
    ticks / unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64
}

fn blocking<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

/// redis in the container, on a port of its own.
struct Redis {
    server: Child,
    port: String,
}

impl Redis {
    fn start(pod: &Pod) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port().to_string();
        drop(listener);
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ]);
        let procs = pod.container.as_ref().expect("is there").procs();
        let server = inside(command, procs)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
            assert!(Instant::now() < deadline, "redis does not listen");
            std::thread::yield_now();
        }
        Self { server, port }
    }

    /// Requests a second.
    fn benchmark(&self, requests: u32) -> f64 {
        let output = Command::new("redis-benchmark")
            .args([
                "-p",
                &self.port,
                "-n",
                &requests.to_string(),
                "-c",
                "20",
                "-t",
                "get",
                "--csv",
            ])
            .output()
            .expect("redis-benchmark runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let row = text
            .lines()
            .find(|line| line.starts_with("\"GET\""))
            .expect("a row of GET");
        row.split(',')
            .nth(1)
            .and_then(|field| field.trim_matches('"').parse().ok())
            .expect("a rate")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub fn redis() {
    const ROUNDS: usize = 21;
    const REQUESTS: u32 = 100_000;
    let ground = grounds().remove(0);
    blocking(async {
        let (world, plan) = scoring(&ground, &[]).await;
        let redis = Redis::start(&world.pod);
        redis.benchmark(REQUESTS);
        let (mut ours, mut rates, mut costs) = (vec![], vec![], vec![]);
        // What redis itself used for each request says more where the machine has other work.
        let round = || {
            let used = cpu_seconds(&redis.server);
            (redis.benchmark(REQUESTS), cpu_seconds(&redis.server) - used)
        };
        for _ in 0..ROUNDS {
            world.api.plan(NodePlanSpec::default());
            crate::fake::until("nothing is traced", || world.api.status().targets == 0).await;
            let (untraced, used) = round();
            world.api.plan(plan.clone());
            crate::fake::until("redis is traced", || world.api.status().targets == 1).await;
            let (traced, used_traced) = round();
            ours.push(traced / untraced);
            rates.push(untraced);
            costs.push(used_traced / used);
        }
        let (rate, cost) = (at(&mut rates, 0.5), at(&mut costs, 0.5));
        Row {
            name: "probe.redis",
            unit: "redis-benchmark GET throughput, traced / untraced",
            ours,
            peers: vec![],
            rivals: true,
            target: Target::AtLeast(0.98),
            note: format!(
                "20 clients; untraced {rate:.0} requests a second; CPU that redis used, traced / untraced: {cost:.2}"
            ),
        }
        .print();
    });
}

pub fn memory() {
    let ground = grounds().remove(0);
    blocking(async {
        let (world, _) = scoring(&ground, &[]).await;
        let redis = Redis::start(&world.pod);
        let agent = world.agent.as_ref().expect("runs");
        let mut ours = Vec::new();
        for _ in 0..10 {
            redis.benchmark(200_000);
            ours.push(status(agent, "VmRSS"));
        }
        let peak = status(agent, "VmHWM");
        Row {
            name: "agent.memory",
            unit: "MiB resident",
            ours,
            peers: vec![],
            rivals: true,
            target: Target::AtMost(32.0),
            note: format!("one redis under load, one model of 100 trees; most ever {peak:.1} MiB"),
        }
        .print();
    });
}

pub fn hundred() {
    const PODS: usize = 99;
    const SECONDS: u64 = 30;
    let ground = grounds().remove(0);
    let pods: Vec<Pod> = (0..PODS)
        .map(|number| Pod::below(&ground, &format!("node-{number}")))
        .collect();
    let busy: Vec<Child> = pods.iter().map(idle).collect();
    blocking(async {
        let (world, _) = scoring(&ground, &pods).await;
        let agent = world.agent.as_ref().expect("runs");
        let mut shares = Vec::new();
        for _ in 0..3 {
            let (start, used) = (Instant::now(), cpu_seconds(agent));
            tokio::time::sleep(Duration::from_secs(SECONDS / 3)).await;
            shares.push(100.0 * (cpu_seconds(agent) - used) / start.elapsed().as_secs_f64());
        }
        let note = format!("100 containers, windows of {WINDOW_MS} ms (ten times as many as by default)");
        Row {
            name: "agent.100",
            unit: "MiB resident",
            ours: vec![status(agent, "VmRSS")],
            peers: vec![],
            rivals: true,
            target: Target::AtMost(32.0),
            note: note.clone(),
        }
        .print();
        Row {
            name: "agent.100.cpu",
            unit: "% of a core",
            ours: shares,
            peers: vec![],
            rivals: true,
            target: Target::AtMost(1.0),
            note,
        }
        .print();
    });
    end(busy);
}
