//! A cluster with Vigía and the demo's workload on it, and how a test looks at it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;
use vigia_e2e::{Cluster, Config, Parts};

/// Between two looks at what is waited for.
const PAUSE: Duration = Duration::from_millis(250);
/// Where Vigía runs, and where what it watches does.
pub const SYSTEM: &str = "vigia-system";
pub const SHOP: &str = "shop";

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Where `scripts/build-images.sh` put the images and the `vigia` command: `VIGIA_IMAGES`, or those that ship.
fn images() -> PathBuf {
    std::env::var_os("VIGIA_IMAGES").map_or_else(|| target().join("images"), PathBuf::from)
}

/// A cluster that Vigía is installed on.
pub struct World {
    pub cluster: Cluster,
}

impl World {
    /// Brings a cluster up and installs the chart as the demo does, with more values.
    pub async fn install(nodes: u8, values: &[&str]) -> Result<Self> {
        let cluster = Cluster::up(Config::for_test(nodes)).await?;
        let world = Self { cluster };
        for image in ["agent", "operator", "trainer", "demo-workload"] {
            let archive = images().join(format!("{image}.tar"));
            ensure!(archive.is_file(), "{} is missing: make images", archive.display());
            world.cluster.load_image(&archive)?;
        }
        world.helm(values)?;
        Ok(world)
    }

    fn helm(&self, values: &[&str]) -> Result<()> {
        let mut helm = Command::new(Parts::find(&["kubernetes"])?.program("helm")?);
        helm.env("KUBECONFIG", self.cluster.kubeconfig())
            .current_dir(root());
        helm.args([
            "upgrade",
            "--install",
            "vigia",
            "charts/vigia",
            "--namespace",
            SYSTEM,
            "--create-namespace",
        ]);
        helm.args([
            "--values",
            "examples/demo/values.yaml",
            "--wait",
            "--timeout",
            "3m",
        ]);
        for value in values {
            helm.args(["--set", value]);
        }
        let output = helm.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            bail!(
                "helm: {}\n{}",
                String::from_utf8_lossy(&output.stderr),
                self.dump("install")
            );
        }
        Ok(())
    }

    /// Applies the demo's workload and what watches it, and waits until six containers are traced.
    pub fn start_demo(&self) -> Result<()> {
        self.apply("examples/demo/workload.yaml")?;
        self.kubectl(&[
            "-n",
            SHOP,
            "rollout",
            "status",
            "statefulset/redis",
            "--timeout=120s",
        ])?;
        self.kubectl(&[
            "-n",
            SHOP,
            "rollout",
            "status",
            "statefulset/load",
            "--timeout=120s",
        ])?;
        self.apply("examples/demo/vigia.yaml")?;
        self.until("six traced containers", 90, || {
            Ok(self.get("traceprofile", "redis")?["status"]["tracedContainers"] == 6)
        })
    }

    /// `kubectl apply` of a file, its path from the repository's root.
    fn apply(&self, path: &str) -> Result<()> {
        self.cluster
            .apply_manifests(&fs::read_to_string(root().join(path))?)
    }

    /// What `kubectl` answers; an error where it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.cluster.ask_kubectl(arguments)
    }

    /// An object of the namespace shop, or of the cluster.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.kubectl(&["-n", SHOP, "get", kind, name, "-o", "json"])?,
        )?)
    }

    /// Objects of a namespace.
    pub fn list(&self, namespace: &str, kind: &str) -> Result<Vec<Value>> {
        let answer: Value =
            serde_json::from_str(&self.kubectl(&["-n", namespace, "get", kind, "-o", "json"])?)?;
        Ok(answer["items"].as_array().cloned().unwrap_or_default())
    }

    /// Asks again until the answer is yes; at the end keeps what the cluster's objects and logs say.
    pub fn until(&self, what: &str, seconds: u64, condition: impl Fn() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let answer = condition();
            if matches!(answer, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not within {seconds} s: {what} ({answer:?})\n{}", self.dump(what));
            }
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Fails with what the cluster's objects and logs say, unless `holds`.
    pub fn ensure(&self, holds: bool, what: &str) -> Result<()> {
        if holds {
            Ok(())
        } else {
            bail!("{what}\n{}", self.dump(what))
        }
    }

    /// The pods that SyscallAnomaly Events speak of, each with the Event's sentence.
    pub fn alerts(&self) -> Result<Vec<(String, String)>> {
        let events = self.list(SHOP, "events")?;
        let of = |event: &Value, path: &str| {
            event
                .pointer(path)
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned()
        };
        Ok(events
            .iter()
            .filter(|event| event["reason"] == "SyscallAnomaly")
            .map(|event| (of(event, "/involvedObject/name"), of(event, "/message")))
            .collect())
    }

    /// The version that serves the Model redis, with no rollout under way.
    pub fn serving(&self) -> Result<Option<String>> {
        let status = &self.get("model", "redis")?["status"];
        let name = status["serving"]["name"].as_str();
        Ok(name
            .filter(|_| status["rollout"]["phase"] == "Complete")
            .map(str::to_owned))
    }

    /// Whether that version is it.
    pub fn serves(&self, version: &str) -> Result<bool> {
        Ok(self.serving()?.as_deref() == Some(version))
    }

    /// The digest that each node serves for the Model redis.
    pub fn served_on_nodes(&self) -> Result<Vec<(String, String)>> {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let mut served = Vec::new();
        for plan in self.list(SHOP, "nodeplans")? {
            for version in plan["status"]["versions"].as_array().into_iter().flatten() {
                if version["model"] == "redis" && version["state"] == "Active" {
                    served.push((text(&plan["metadata"]["name"]), text(&version["digest"])));
                }
            }
        }
        Ok(served)
    }

    /// The status of a condition, `-` where there is none.
    pub fn condition(object: &Value, type_: &str) -> (String, String, String) {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == type_)
            .map_or_else(
                || ("-".to_owned(), "-".to_owned(), "-".to_owned()),
                |found| {
                    (
                        text(&found["status"]),
                        text(&found["reason"]),
                        text(&found["message"]),
                    )
                },
            )
    }

    /// Runs the `vigia` command.
    pub fn vigia(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .vigia_command()
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "vigia {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The `vigia` command, as it was built with the images.
    pub fn vigia_command(&self) -> Command {
        Command::new(images().join("vigia"))
    }

    /// A folder for a test's files; it goes with the cluster.
    pub fn folder(&self) -> Result<PathBuf> {
        let folder = std::env::temp_dir().join(self.cluster.name());
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Makes a ModelVersion of the Model redis from a file.
    pub fn create_version(&self, name: &str, file: &Path) -> Result<()> {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(fs::read(file)?);
        let from = format!("--from-file=model.apr={}", file.display());
        self.kubectl(&["-n", SHOP, "create", "configmap", name, &from])?;
        self.cluster.apply_manifests(&format!(
            "apiVersion: vigia.dev/v1alpha1
kind: ModelVersion
metadata: {{name: {name}, namespace: {SHOP}}}
spec:
  modelRef: {{name: redis}}
  digest: sha256:{digest:x}
  source: {{configMap: {{name: {name}}}}}
"
        ))
    }

    /// Writes all that one would look at into target/e2e, and says where.
    pub fn dump(&self, what: &str) -> String {
        let slug: String = what
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let folder = target()
            .join("e2e")
            .join(format!("{}-{slug}", self.cluster.name()));
        if let Err(error) = fs::create_dir_all(&folder) {
            return format!("nothing could be kept: {error}");
        }
        let keep = |file: &str, arguments: &[&str]| {
            let text = self
                .kubectl(arguments)
                .unwrap_or_else(|error| format!("{error:#}"));
            // What cannot be kept is missed by whoever looks; the test fails for another reason.
            let _ = fs::write(folder.join(file), text);
        };
        keep("objects.txt", &["get", "vigia,pods,jobs", "-A", "-o", "wide"]);
        keep("vigia.yaml", &["get", "vigia", "-A", "-o", "yaml"]);
        keep(
            "events.txt",
            &["get", "events", "-A", "--sort-by=.metadata.creationTimestamp"],
        );
        keep("pods.txt", &["describe", "pods", "-A"]);
        for pod in self.list(SYSTEM, "pods").unwrap_or_default() {
            let Some(name) = pod["metadata"]["name"].as_str() else {
                continue;
            };
            keep(&format!("{name}.log"), &["-n", SYSTEM, "logs", name]);
            keep(
                &format!("{name}.before.log"),
                &["-n", SYSTEM, "logs", name, "--previous"],
            );
        }
        let _ = fs::write(folder.join("cluster.txt"), self.cluster.diagnose());
        format!("objects, events and logs are kept in {}", folder.display())
    }
}
