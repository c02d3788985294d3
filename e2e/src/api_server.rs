//! An API server alone, with etcd: for tests of the API, which need no node.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cluster::control_plane::{self, ApiServerSettings};
use crate::cluster::{client, free_port, ready, tail};
use crate::parts::Parts;
use crate::pki::Authority;

/// What an API server is wanted with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The controller manager beside it: garbage collection, default service accounts, Jobs' pods (unscheduled).
    pub controllers: bool,
}

/// An API server with an etcd of its own on free ports of the loopback interface. Both end, and their folder
/// goes, when this value is dropped, and also when this process is killed.
pub struct ApiServer {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl ApiServer {
    /// Starts one and waits until it is ready. Any number can run beside each other.
    pub async fn up(options: Options) -> Result<Self> {
        let parts = Parts::find(&["init", "etcd", "kubernetes"])?;
        // Another process may take a port between our finding it free and our using it.
        let mut last = None;
        for _ in 0..3 {
            match Self::try_up(&parts, options).await {
                Ok(server) => return Ok(server),
                Err(error) if format!("{error:#}").contains("address already in use") => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.context("no free port")?)
    }

    async fn try_up(parts: &Parts, options: Options) -> Result<Self> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("vigia-api-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let authority = Authority::new(&folder.join("pki"))?;
        let mut server = Self {
            folder,
            daemons: Vec::new(),
        };

        let (client_port, peer_port, port) = (free_port()?, free_port()?, free_port()?);
        let etcd = format!("http://127.0.0.1:{client_port}");
        let url = format!("https://127.0.0.1:{port}");
        control_plane::write_api_server_files(&authority, Ipv4Addr::LOCALHOST, &url)?;
        let pki = server.folder.join("pki").display().to_string();
        let data = server.folder.join("etcd").display().to_string();
        let peer = format!("http://127.0.0.1:{peer_port}");
        server.start(
            parts,
            "etcd",
            &control_plane::etcd(parts.program("etcd")?, &data, &etcd, &peer),
        )?;
        let settings = ApiServerSettings {
            pki: &pki,
            etcd: &etcd,
            address: Ipv4Addr::LOCALHOST,
            port,
        };
        let command = control_plane::api_server(parts.program("kube-apiserver")?, &settings);
        server.start(parts, "api-server", &command)?;
        if options.controllers {
            authority.client("controller-manager", "system:kube-controller-manager", None, &url)?;
            let mut command =
                control_plane::controller_manager(parts.program("kube-controller-manager")?, &pki);
            command.push(format!("--secure-port={}", free_port()?));
            server.start(parts, "controller-manager", &command)?;
        }
        server.wait().await?;
        Ok(server)
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("pki/admin.kubeconfig")
    }

    /// A client with an administrator's rights.
    pub async fn client(&self) -> Result<kube::Client> {
        client(&self.kubeconfig()).await
    }

    /// The server's folder, for files that should go with it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn start(&mut self, parts: &Parts, name: &str, command: &[String]) -> Result<()> {
        let log = File::create(self.folder.join(format!("{name}.log")))?;
        // `init - COMMAND` ends the command when our end of its standard input closes.
        let child = Command::new(parts.program("init")?)
            .arg("-")
            .args(command)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.daemons.push(child);
        Ok(())
    }

    async fn wait(&mut self) -> Result<()> {
        let client = self.client().await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let Err(missing) = ready(&client).await else {
                return Ok(());
            };
            let mut ended = Instant::now() > deadline;
            for daemon in &mut self.daemons {
                ended |= daemon.try_wait()?.is_some();
            }
            if ended {
                let mut text = String::new();
                for name in ["etcd", "api-server", "controller-manager"] {
                    let path = self.folder.join(format!("{name}.log"));
                    text += &format!("--- {name}\n{}\n", tail(&path, 12));
                }
                bail!("the API server is not ready: {missing}\n{text}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            drop(daemon.stdin.take());
        }
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
