//! The namespaces that a cluster lives in, and the daemons in them.
//!
//! One PID namespace with one mount namespace holds the whole cluster. Killing its process 1 is certain to end
//! every process, mount, link and network namespace of it, whoever started them and whatever state they are in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::layout::{CONTROL_PLANE, Layout, NAME_VARIABLE};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pid: i32,
    /// When it started, in clock ticks since boot.
    started: u64,
}

impl Process {
    /// This process.
    pub fn current() -> Result<Self> {
        Self::of(std::process::id().cast_signed())
    }

    /// The process that has that number now.
    pub fn of(pid: i32) -> Result<Self> {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        let (_, started) = parse_stat(&stat).context("unreadable process status")?;
        Ok(Self { pid, started })
    }

    /// Whether the process still runs; one that waits to be reaped does not.
    pub fn alive(self) -> bool {
        fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .ok()
            .and_then(|stat| parse_stat(&stat))
            .is_some_and(|(state, started)| started == self.started && state != 'Z' && state != 'X')
    }

    fn kill(self) {
        if let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.alive()) {
            // It may have ended in between, which is what was wanted.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The state and the start time out of `/proc/<pid>/stat` (proc(5)); the command in it may hold any character.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// A cluster's namespaces, seen from outside.
#[derive(Debug, Clone)]
pub struct Space {
    layout: Layout,
    init: Process,
}

impl Space {
    /// Makes the namespaces and the control plane's network. With `held`, all of it ends when the returned
    /// child's standard input closes, so also when this process dies.
    pub fn start(layout: &Layout, init_program: &str, held: bool) -> Result<(Self, Child)> {
        let boot_log = fs::File::create(layout.log("init"))?;
        // A session of its own, so that neither a terminal's Ctrl-C nor its end reaches it.
        let mut command = Command::new("setsid");
        command
            .args([
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--",
                "bash",
            ])
            .arg(layout.path("top.sh"))
            .arg(layout.dir())
            .arg(init_program)
            .env("CONTROL_PLANE", CONTROL_PLANE.to_string())
            .env(NAME_VARIABLE, layout.name())
            .stdin(if held { Stdio::piped() } else { Stdio::null() })
            .stdout(boot_log.try_clone()?)
            .stderr(boot_log);
        if held {
            command.arg("-");
        }
        let mut child = command
            .spawn()
            .context("cannot run unshare (package util-linux)")?;
        let pid_file = layout.path("run/init.pid");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(text) = fs::read_to_string(&pid_file) {
                let init = Process::of(text.trim().parse().context("unreadable init.pid")?)?;
                return Ok((
                    Self {
                        layout: layout.clone(),
                        init,
                    },
                    child,
                ));
            }
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "the cluster's namespaces could not be made (are you root?):\n{}",
                    tail(&layout.log("init"), 10)
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The namespaces whose process 1 is `init`.
    pub fn open(layout: &Layout, init: Process) -> Self {
        Self {
            layout: layout.clone(),
            init,
        }
    }

    /// Process 1.
    pub fn init(&self) -> Process {
        self.init
    }

    /// Runs a script inside and returns what it prints. `$1` and so on are `args`.
    pub fn sh(&self, script: &str, args: &[&str]) -> Result<String> {
        ensure!(
            self.init.alive(),
            "the cluster '{}' is not running",
            self.layout.name()
        );
        let output = self
            .enter()
            .args(["bash", "-euo", "pipefail", "-c", script, "bash"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .context("cannot run nsenter (package util-linux)")?;
        ensure!(
            output.status.success(),
            "a step inside the cluster failed ({}): {script}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts a daemon inside, in a network namespace of the cluster or, with none, in the machine's. It is
    /// started again whenever it ends, until [`Space::stop_daemon`].
    pub fn start_daemon(&self, name: &str, network: Option<&str>, command: &[String]) -> Result<()> {
        let mut outer = self.enter();
        if let Some(network) = network {
            outer.arg("nsenter").arg(format!("--net=/run/netns/{network}"));
        }
        let status = outer
            .args(["setsid", "--fork", "bash"])
            .arg(self.layout.path("keep.sh"))
            .arg(self.layout.dir())
            .arg(name)
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot run nsenter (package util-linux)")?;
        ensure!(
            status.success(),
            "the daemon {name} could not be started: {status}"
        );
        Ok(())
    }

    /// Kills a daemon and what keeps it, as a crash would.
    pub fn stop_daemon(&self, name: &str) -> Result<()> {
        self.sh(
            r#"file=$1; [[ -e $file ]] || exit 0
               kill -KILL -- "-$(<"$file")" 2>/dev/null || true
               while kill -0 -- "-$(<"$file")" 2>/dev/null; do sleep 0.02; done
               rm -f "$file""#,
            &[&self.layout.path(&format!("run/{name}.pid"))],
        )
        .map(drop)
    }

    /// Ends all of it and waits until it is gone.
    pub fn kill(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        self.init.kill();
        while self.init.alive() {
            ensure!(
                Instant::now() < deadline,
                "process {} of the cluster does not end",
                self.init.pid
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .env(NAME_VARIABLE, self.layout.name())
            .arg(format!("--target={}", self.init.pid))
            .args(["--pid", "--mount", "--"]);
        command
    }
}

/// What the daemons of a cluster say about why something is not as it should be: which ended, how often, and
/// the last lines of their logs; of all of them where none ended.
pub fn diagnose(layout: &Layout) -> String {
    let mut logs: Vec<_> = fs::read_dir(layout.dir().join("logs"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()?
                .strip_suffix(".log")
                .map(str::to_owned)
        })
        .collect();
    logs.sort();
    let ended: Vec<_> = logs
        .iter()
        .filter(|daemon| layout.ends(daemon).exists())
        .cloned()
        .collect();
    let all = ended.is_empty();
    let mut text = String::new();
    for daemon in if all { &logs } else { &ended } {
        let ends = fs::read_to_string(layout.ends(daemon)).unwrap_or_default();
        let times = ends.lines().count();
        let log = tail(&layout.log(daemon), if all { 3 } else { 12 });
        if times > 0 {
            text += &format!(
                "{daemon} ended {times} times, last: {}\n",
                ends.lines().last().unwrap_or_default()
            );
        }
        if !log.is_empty() {
            text += &format!("--- {}\n{log}\n", layout.log(daemon).display());
        }
    }
    text
}

/// How often each daemon has ended.
pub fn ends(layout: &Layout) -> BTreeMap<String, usize> {
    let files = fs::read_dir(layout.dir().join("run"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|entry| {
            let daemon = entry.file_name().to_str()?.strip_suffix(".ends")?.to_owned();
            Some((daemon, fs::read_to_string(entry.path()).ok()?.lines().count()))
        })
        .collect()
}

/// The daemon that has ended so often in between that it will not come up.
pub fn hopeless(before: &BTreeMap<String, usize>, now: &BTreeMap<String, usize>) -> Option<String> {
    now.iter()
        .find(|(daemon, ends)| **ends >= before.get(*daemon).unwrap_or(&0) + HOPELESS)
        .map(|(daemon, _)| daemon.clone())
}

/// Controllers end a few times on a slow machine, until the API server answers.
const HOPELESS: usize = 8;

/// The last lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_status_is_read_past_any_command_name() {
        let stat = "42 (a) b (c) R 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2";
        assert_eq!(parse_stat(stat), Some(('R', 987_654)));
        assert_eq!(parse_stat("42 (a"), None);
    }

    #[test]
    fn a_daemon_is_given_up_for_how_often_it_ended_of_late() {
        let counts = |ends| BTreeMap::from([("kubelet".to_owned(), ends)]);
        assert_eq!(hopeless(&counts(20), &counts(20 + HOPELESS - 1)), None);
        assert_eq!(
            hopeless(&counts(20), &counts(20 + HOPELESS)).as_deref(),
            Some("kubelet")
        );
        assert_eq!(
            hopeless(&BTreeMap::new(), &counts(HOPELESS)).as_deref(),
            Some("kubelet")
        );
    }

    #[test]
    fn a_process_is_itself_only_while_its_start_time_matches() {
        let me = Process::current().unwrap();
        assert!(me.alive());
        assert!(
            !Process {
                started: me.started + 1,
                ..me
            }
            .alive()
        );
    }
}
