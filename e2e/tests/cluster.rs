//! The cluster itself: what workloads find in it, what befalls its nodes, and that nothing of it stays.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use vigia_e2e::{Cluster, Config, Image};

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(100);
const SHELL: &str = "vigia.local/shell:1";

/// What `kubectl` answers; an error where it fails.
/// Asks again until the answer is as wanted; at the end says what the cluster's daemons say.
fn until(
    cluster: &Cluster,
    what: &str,
    within: Duration,
    condition: impl Fn() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let answer = condition();
        if matches!(answer, Ok(true)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "not within {within:?}: {what} ({answer:?})\n{}",
            cluster.diagnose()
        );
        std::thread::park_timeout(PAUSE);
    }
}

/// A node's `Ready` condition.
fn node_is(cluster: &Cluster, node: &str, ready: &str) -> Result<bool> {
    let path = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
    Ok(cluster.ask_kubectl(&["get", "node", node, "--output", path])? == ready)
}

/// One pod on each node that serves its own name, by the name `web`.
const WEB: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: vigia.local/shell:1
        imagePullPolicy: Never
        command: [/bin/busybox, sh, -c, 'echo hello from $HOSTNAME >/index.html; exec busybox httpd -f -p 80']
        readinessProbe: {httpGet: {path: /index.html, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: store}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

/// Asks `web` by its name, writes to a volume, and holds a token with an audience of its own.
const CLIENT: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: client}
spec:
  backoffLimit: 10
  template:
    spec:
      restartPolicy: OnFailure
      containers:
      - name: client
        image: vigia.local/shell:1
        imagePullPolicy: Never
        command:
        - /bin/busybox
        - sh
        - -ec
        - |
          busybox nslookup web.default.svc.cluster.local >/dev/null
          busybox wget -q -O /store/answer http://web/
          busybox cat /store/answer
          busybox cut -d. -f2 /token/token | busybox tr _- /+ | busybox base64 -d 2>/dev/null || true
        volumeMounts:
        - {name: store, mountPath: /store}
        - {name: token, mountPath: /token}
      volumes:
      - {name: store, persistentVolumeClaim: {claimName: store}}
      - name: token
        projected: {sources: [{serviceAccountToken: {path: token, audience: vigia}}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_serves_pods_survives_its_nodes_faults_and_leaves_nothing() -> Result<()> {
    let cluster = Cluster::up(Config::for_test(2)).await?;
    let name = cluster.name().to_owned();

    let archive = std::env::temp_dir().join(format!("{name}-shell.tar"));
    Image {
        name: SHELL,
        programs: &[("/bin/busybox", "/bin/busybox")],
        entrypoint: &["/bin/busybox"],
    }
    .write(&archive)?;
    cluster.load_image(&archive)?;
    std::fs::remove_file(&archive)?;

    cluster.apply_manifests(WEB)?;
    cluster.ask_kubectl(&["rollout", "status", "daemonset/web", "--timeout=90s"])?;
    cluster.apply_manifests(CLIENT)?;
    cluster.ask_kubectl(&["wait", "--for=condition=complete", "job/client", "--timeout=90s"])?;
    let said = cluster.ask_kubectl(&["logs", "job/client"])?;
    assert!(said.contains("hello from web-"), "{said}");
    assert!(
        said.contains(r#""aud":["vigia"]"#) && said.contains(r#""node":{"name":"node-"#),
        "{said}"
    );
    let execed = cluster.ask_kubectl(&["exec", "daemonset/web", "--", "busybox", "cat", "/index.html"])?;
    assert!(execed.starts_with("hello from web-"), "{execed}");
    assert!(
        std::path::Path::new(&format!(
            "/sys/fs/cgroup/memory{}/kubepods",
            cluster.node(2)?.cgroup()
        ))
        .exists()
    );

    a_node_loses_power_and_returns(&cluster)?;
    a_node_is_cut_off_and_returns(&cluster)?;
    the_api_server_is_away_and_returns(&cluster).await?;

    cluster.down()?;
    assert_eq!(Cluster::remains(&name)?, Vec::<String>::new());
    assert!(Cluster::open(&name)?.is_none());
    Ok(())
}

fn a_node_loses_power_and_returns(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(2)?;
    let pod = [
        "get",
        "pods",
        "--selector=app=web",
        "--field-selector=spec.nodeName=node-2",
    ];
    let restarts = || {
        let path = "jsonpath={.items[0].status.containerStatuses[0].restartCount}";
        cluster.ask_kubectl(&[&pod[..], &["--output", path]].concat())
    };
    let before = restarts()?;
    node.power_off()?;
    assert!(!node.has_power()?);
    let tasks = std::fs::read_to_string(format!("/sys/fs/cgroup/pids{}/pids.current", node.cgroup()))?;
    assert_eq!(tasks.trim(), "0", "a node without power runs nothing");
    until(
        cluster,
        "node-2 is seen to be gone",
        Duration::from_secs(90),
        || node_is(cluster, "node-2", "Unknown"),
    )?;

    node.power_on()?;
    until(cluster, "node-2 is ready again", Duration::from_secs(90), || {
        node_is(cluster, "node-2", "True")
    })?;
    until(
        cluster,
        "its pod was started again",
        Duration::from_secs(90),
        || Ok(restarts()? > before),
    )?;
    cluster.ask_kubectl(&["rollout", "status", "daemonset/web", "--timeout=90s"])?;
    Ok(())
}

fn a_node_is_cut_off_and_returns(cluster: &Cluster) -> Result<()> {
    let node = cluster.node(1)?;
    node.partition()?;
    until(
        cluster,
        "node-1 is seen to be gone",
        Duration::from_secs(90),
        || node_is(cluster, "node-1", "Unknown"),
    )?;
    let tasks = std::fs::read_to_string(format!("/sys/fs/cgroup/pids{}/pids.current", node.cgroup()))?;
    assert_ne!(tasks.trim(), "0", "a node that was cut off runs on");
    node.heal()?;
    until(cluster, "node-1 is ready again", Duration::from_secs(90), || {
        node_is(cluster, "node-1", "True")
    })
}

async fn the_api_server_is_away_and_returns(cluster: &Cluster) -> Result<()> {
    cluster.stop_api_server()?;
    assert!(
        cluster
            .ask_kubectl(&["get", "nodes", "--request-timeout=2s"])
            .is_err()
    );
    cluster.start_api_server()?;
    cluster
        .wait_until_ready(Instant::now() + Duration::from_secs(90))
        .await
}

/// A test that is killed cannot tidy up, so its cluster must not need it to.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_ends_with_the_process_that_wanted_it_and_its_remains_are_cleared_away() -> Result<()> {
    let name = format!("killed-{}", std::process::id());
    let mut holder = Command::new(env!("CARGO_BIN_EXE_vigia-cluster"))
        .args(["--name", &name, "up", "--nodes", "1", "--hold"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(200);
    while Cluster::open(&name)?.is_none() {
        ensure!(holder.try_wait()?.is_none(), "the cluster did not come up");
        ensure!(Instant::now() < deadline, "the cluster did not come up in time");
        std::thread::park_timeout(PAUSE);
    }
    holder.kill()?;
    holder.wait()?;

    let running = |name: &str| -> Result<bool> {
        Ok(Cluster::remains(name)?
            .iter()
            .any(|what| what.starts_with("process")))
    };
    while running(&name)? {
        ensure!(
            Instant::now() < deadline,
            "it outlives its holder: {:?}",
            Cluster::remains(&name)?
        );
    }
    // The next cluster that comes up clears away what the dead one has left on disk.
    Cluster::up(Config::for_test(1)).await?.down()?;
    assert_eq!(Cluster::remains(&name)?, Vec::<String>::new());
    Ok(())
}
