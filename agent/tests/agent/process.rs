//! The whole process: a plan comes, a container is traced and scored, everything goes away and comes back.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use tokio::time::{Interval, interval, timeout};
use vigia_crds::conditions::is_true;
use vigia_crds::{VersionMode, VersionState};

use crate::api::{Api, NODE};
use crate::ground::{Ground, grounds};
use crate::model::{Signed, key, signed};
use crate::operator::{DEADLINE, Setup, until};
use crate::planned::Pod;

const WINDOW_MS: i64 = 200;

struct World {
    setup: Setup,
    api: Api,
    pod: Pod,
    root: std::path::PathBuf,
    port: u16,
    agent: Option<Child>,
    paced: Interval,
}

impl World {
    async fn new(ground: &Ground) -> Self {
        let mut setup = Setup::new();
        setup.serve();
        let api = Api::start(setup.folder.path()).await;
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|it| it.local_addr())
            .expect("a port")
            .port();
        let paced = interval(Duration::from_millis(20));
        let root = ground.cgroup_root.clone();
        Self {
            setup,
            api,
            pod: Pod::new(ground),
            root,
            port,
            agent: None,
            paced,
        }
    }

    fn start(&mut self) {
        let folder = self.setup.folder.path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .expect("a log");
        let agent = Command::new(env!("CARGO_BIN_EXE_vigia-agent"))
            .env("KUBECONFIG", &self.api.kubeconfig)
            .env("VIGIA_NODE_NAME", NODE)
            .env(
                "VIGIA_OPERATOR",
                format!("https://localhost:{}", self.setup.address.port()),
            )
            .arg("--operator-ca")
            .arg(folder.join("ca.crt"))
            .arg("--token")
            .arg(folder.join("token"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--cgroup-root")
            .arg(&self.root)
            .arg(format!("--listen=127.0.0.1:{}", self.port))
            .arg("--report-every=1")
            .stdout(log)
            .spawn()
            .expect("the agent starts");
        self.agent = Some(agent);
    }

    /// Sends the agent a signal and waits for its end.
    async fn end(&mut self, signal: i32) -> ExitStatus {
        let mut agent = self.agent.take().expect("runs");
        let id = i32::try_from(agent.id()).expect("a process id");
        // SAFETY: kill takes no pointers; the process is our child and has not been waited for.
        unsafe { libc::kill(id, signal) };
        timeout(DEADLINE, tokio::task::spawn_blocking(move || agent.wait()))
            .await
            .expect("it ends in time")
            .expect("no panic")
            .expect("waited for")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.setup.folder.path().join("log")).unwrap_or_default()
    }

    fn samples(&self) -> Vec<Vec<f32>> {
        self.setup.fake.with(|seen| {
            seen.stored
                .iter()
                .flat_map(|batch| &batch.samples)
                .map(|sample| sample.features.clone())
                .collect()
        })
    }

    fn scored(&self, digest: &str) -> u64 {
        self.setup.fake.with(|seen| {
            let scores = seen.stored.iter().flat_map(|batch| &batch.scores);
            scores
                .filter(|score| score.digest == digest)
                .map(|score| score.windows)
                .sum()
        })
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return text;
        };
        let asked = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        asked
            .and_then(|()| stream.read_to_string(&mut text))
            .map(|_| text)
            .unwrap_or_default()
    }

    /// Keeps the container busy, steadily, until something holds.
    async fn work_until(&mut self, what: &str, failing: u32, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: not within {DEADLINE:?}\n{}",
                self.log()
            );
            self.pod.container.as_ref().expect("is there").run(50, failing);
            self.paced.tick().await;
        }
    }

    fn state(&self, artifact: &Signed) -> Option<VersionState> {
        self.api
            .status()
            .versions
            .iter()
            .find(|version| version.digest == artifact.digest)
            .map(|v| v.state)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
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
    let vectors = world.samples();
    let good = signed("m", &vectors, &key());
    let foreign = signed("m", &vectors, &vigia_model::keys::SigningKey::from_seed([9; 32]));
    world.setup.fake.with(|seen| {
        for artifact in [&good, &foreign] {
            seen.artifacts
                .insert(artifact.digest.clone(), artifact.bytes.clone());
        }
    });
    world.api.plan(world.pod.spec(
        WINDOW_MS,
        &[(&good, VersionMode::Active), (&foreign, VersionMode::Prefetch)],
    ));
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
        .work_until("alerts are noticed alone", 2000, |world| {
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
