//! The binary as a Job runs it: killed with SIGKILL and started again, told to stop, and its exit codes.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::ground::{Ground, free_port};

struct Process {
    child: Child,
    log: BufReader<ChildStdout>,
}

impl Process {
    fn start(flags: &[String]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_vigia-trainer"))
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let log = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, log }
    }

    /// Reads the log up to a stage.
    fn await_stage(&mut self, stage: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(
                self.log.read_line(&mut line).expect("a log") > 0,
                "it ended before {stage}"
            );
            let entry: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if entry["stage"] == stage {
                return;
            }
        }
    }

    fn end(mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(60);
        // A full pipe would hold it up.
        for line in self.log.lines() {
            assert!(Instant::now() < deadline, "it does not end");
            line.expect("a log");
        }
        self.child.wait().expect("ends").code()
    }
}

fn signal(process: &Process, signal: i32) {
    // SAFETY: kill has no memory effects; the child has not been waited for.
    let sent = unsafe { libc::kill(process.child.id().cast_signed(), signal) };
    assert_eq!(sent, 0);
}

#[test]
fn processes_that_are_killed_and_started_again_make_the_same_bytes() {
    let ground = Ground::new(2);
    let address = free_port();
    let start = |rank| Process::start(&ground.flags(rank, address));
    for (victim, stage) in [
        (0, "Serving"),
        (1, "Reduced"),
        (0, "Contributed"),
        (1, "Contributed"),
    ] {
        let (mut killed, other) = (start(victim), start(1 - victim));
        killed.await_stage(stage);
        signal(&killed, libc::SIGKILL);
        assert_eq!(killed.end(), None);
        let again = start(victim);
        assert_eq!(
            (again.end(), other.end()),
            (Some(0), Some(0)),
            "rank {victim} at {stage}"
        );
        assert_eq!(ground.submitted(), ground.alone());
        ground.forget_submission();
    }
}

#[test]
fn exit_codes_say_whether_another_pod_would_fare_better() {
    let ground = Ground::new(1);
    let flags = ground.flags(0, free_port());
    let code = |ground: &Ground, change: &dyn Fn(&mut Vec<String>)| {
        let mut flags = ground.flags(0, free_port());
        change(&mut flags);
        Process::start(&flags).end()
    };
    assert_eq!(Process::start(&flags).end(), Some(0));
    assert_eq!(
        code(&ground, &|flags| flags.push("--no-such-flag".to_owned())),
        Some(64)
    );
    let set = |flags: &mut Vec<String>, name: &str, value: &str| {
        flags.retain(|flag| !flag.starts_with(&format!("--{name}=")));
        flags.push(format!("--{name}={value}"));
    };
    assert_eq!(
        code(&ground, &|flags| set(flags, "rounds-tls", "/nowhere")),
        Some(78)
    );
    assert_eq!(
        code(&ground, &|flags| set(flags, "operator", "http://localhost:1")),
        Some(78)
    );
    assert_eq!(code(&ground, &|flags| set(flags, "rank", "5")), Some(78));
    // Nobody listens there, and a second is not enough to wait for it.
    let away = |flags: &mut Vec<String>| {
        set(
            flags,
            "operator",
            &format!("https://localhost:{}", free_port().port()),
        );
        set(flags, "deadline", "1");
    };
    assert_eq!(code(&ground, &away), Some(75));
    let bad = Ground::new(1).with_shard(0, b"no parquet".to_vec());
    assert_eq!(code(&bad, &|_| ()), Some(65));
}

#[test]
fn it_stops_when_it_is_told_to() {
    let ground = Ground::new(2);
    let mut process = Process::start(&ground.flags(0, free_port()));
    process.await_stage("ShardRead");
    signal(&process, libc::SIGTERM);
    assert_eq!(process.end(), Some(143));
}
