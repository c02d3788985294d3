//! An agent's process with all that it speaks to.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use tokio::time::{Interval, interval, timeout};
use vigia_crds::VersionState;

use crate::api::{Api, NODE};
use crate::fake::{DEADLINE, Setup};
use crate::ground::Ground;
use crate::model::Signed;
use crate::planned::Pod;

pub struct World {
    pub setup: Setup,
    pub api: Api,
    pub pod: Pod,
    root: std::path::PathBuf,
    port: u16,
    pub agent: Option<Child>,
    paced: Interval,
}

impl World {
    pub async fn new(ground: &Ground) -> Self {
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

    pub fn start(&mut self) {
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
    pub async fn end(&mut self, signal: i32) -> ExitStatus {
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

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setup.folder.path().join("log")).unwrap_or_default()
    }

    pub fn samples(&self) -> Vec<Vec<f32>> {
        self.setup.fake.with(|seen| {
            seen.stored
                .iter()
                .flat_map(|batch| &batch.samples)
                .map(|sample| sample.features.clone())
                .collect()
        })
    }

    pub fn scored(&self, digest: &str) -> u64 {
        self.setup.fake.with(|seen| {
            let scores = seen.stored.iter().flat_map(|batch| &batch.scores);
            scores
                .filter(|score| score.digest == digest)
                .map(|score| score.windows)
                .sum()
        })
    }

    pub fn metrics(&self) -> String {
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

    /// Lets the agent run for a moment: the moment at which it is then killed is what a test varies.
    pub async fn pause(&self, moment: Duration) {
        tokio::time::sleep_until(tokio::time::Instant::now() + moment).await;
    }

    /// Keeps the container busy, steadily, until something holds.
    pub async fn work_until(&mut self, what: &str, failing: u32, holds: impl Fn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: not within {DEADLINE:?}\n{}\n{}",
                self.log(),
                self.metrics()
            );
            self.pod.container.as_ref().expect("is there").run(50, failing);
            self.paced.tick().await;
        }
    }

    pub fn state(&self, artifact: &Signed) -> Option<VersionState> {
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
