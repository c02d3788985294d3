//! `vigia trace` on real programs. Needs what tracing needs: run as root on a kernel with BTF.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn vigia() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vigia"))
}

fn json_lines(output: &Output) -> Vec<Value> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect()
}

fn count(record: &Value, name: &str) -> (u64, u64) {
    let entries = record["syscalls"].as_array().expect("a list");
    let find = |key: &str| {
        entries
            .iter()
            .find(|e| e["name"] == name)
            .and_then(|e| e[key].as_u64())
            .unwrap_or(0)
    };
    (find("calls"), find("errors"))
}

fn summary_with(more: &[&str], command: &[&str]) -> Value {
    let output = vigia()
        .args(["trace", "-c", "-f", "-o", "json"])
        .args(more)
        .arg("--")
        .args(command)
        .output()
        .expect("runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("json")
}

fn summary(command: &[&str]) -> Value {
    summary_with(&[], command)
}

/// Rows of a table in the columns of `strace -c`: name, calls, errors.
fn rows(table: &str) -> BTreeMap<String, (u64, u64)> {
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("---"))
        .skip(1)
        .take_while(|line| !line.starts_with("---"));
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let errors = if columns.len() == 6 { columns[4] } else { "0" };
        let number = |text: &str| text.parse().expect("a number");
        (
            columns[columns.len() - 1].to_owned(),
            (number(columns[3]), number(errors)),
        )
    };
    rows.map(row).collect()
}

/// What strace counts.
fn strace(options: &[&str], command: &[&str]) -> BTreeMap<String, (u64, u64)> {
    let mut strace = Command::new("strace");
    let output = strace.arg("-c").args(options).args(command).output();
    let output = output.expect("strace, which `make test` installs and these tests compare with");
    rows(&String::from_utf8(output.stderr).expect("text"))
}

/// What is counted, as strace's table has it.
fn table(options: &[&str], command: &[&str]) -> BTreeMap<String, (u64, u64)> {
    let output = vigia()
        .args(["trace", "-c"])
        .args(options)
        .arg("--")
        .args(command)
        .output()
        .expect("runs");
    rows(&String::from_utf8(output.stderr).expect("text"))
}

#[test]
fn a_command_without_the_dashes_and_one_that_is_not_there_are_told() {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vigia"));
        let output = command.args(args).output().expect("runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, said) = run(&["trace", "ls", "-l"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("vigia trace -- ls"), "{said}");
    let (code, said) = run(&["trace", "--", "/no/such/prog"]);
    assert_eq!(code, Some(3));
    assert!(said.contains("/no/such/prog: No such file"), "{said}");
}

#[test]
fn counts_are_exact() {
    let seen = summary(&[
        "dd",
        "if=/dev/zero",
        "of=/dev/null",
        "bs=1",
        "count=12345",
        "status=none",
    ]);
    assert_eq!(count(&seen, "write"), (12345, 0));
    assert_eq!(count(&seen, "execve"), (1, 0));
}

#[test]
fn counts_are_those_of_strace() {
    let expected = strace(&["-f"], &["ls", "/"]);
    assert!(expected.len() > 5, "{expected:?}");
    assert_eq!(table(&["-f"], &["ls", "/"]), expected);
}

#[test]
fn a_filter_leaves_what_straces_leaves() {
    for set in [
        "%file",
        "%desc",
        "%process",
        "%memory",
        "%signal",
        "%network",
        "%creds",
        "!%file,%desc",
        "openat,read",
        "/^m",
        "file",
    ] {
        let filter = ["-e", &format!("trace={set}")];
        let expected = strace(&filter, &["ls", "/"]);
        assert_eq!(table(&filter, &["ls", "/"]), expected, "{set}");
    }
}

#[test]
fn only_the_process_itself_unless_it_is_followed() {
    let script = ["sh", "-c", "/bin/true; /bin/true; exit 0"];
    let alone = table(&[], &script);
    assert_eq!(alone.get("execve"), Some(&(1, 0)));
    let expected = strace(&[], &script);
    // Whether a signal of a child comes within wait4 is chance.
    for name in ["openat", "mmap", "vfork", "clone", "read", "close"] {
        assert_eq!(alone.get(name), expected.get(name), "{name}");
    }
    assert_eq!(table(&["-f"], &script).get("execve"), Some(&(3, 0)));
}

#[test]
fn slow_calls_are_found_by_their_clusters() {
    // Far longer than a busy machine holds anything else up. Who waits for the sleep would be as slow.
    let script = ["sh", "-c", "sleep 1; ls / > /dev/null"];
    let seen = summary_with(&["--ml-compare", "-e", "!wait4"], &script);
    let analysis = &seen["ml_analysis"];
    assert_eq!(analysis["clusters"], 3, "{analysis}");
    let score = analysis["silhouette_score"].as_f64().expect("a score");
    assert!((0.5..=1.0).contains(&score), "{analysis}");
    let anomalies = analysis["anomalies"].as_array().expect("a list");
    assert!(
        anomalies
            .iter()
            .any(|a| a["syscall"] == "clock_nanosleep" && a["avg_time_us"].as_f64() > Some(1_000_000.0)),
        "{analysis}"
    );
    assert!(
        anomalies
            .iter()
            .all(|a| a["cluster"].is_u64() && a["distance"].is_f64())
    );
    let listed = &analysis["comparison"]["common"];
    assert!(
        listed
            .as_array()
            .expect("a list")
            .contains(&"clock_nanosleep".into()),
        "{analysis}"
    );
    assert!(summary(&["true"]).get("ml_analysis").is_none());
}

#[test]
fn clusters_are_as_many_as_make_sense() {
    let script = ["sh", "-c", "ls / > /dev/null"];
    let few = summary_with(&["--ml-anomaly", "-e", "openat,read,close"], &script);
    assert_eq!(few["ml_analysis"]["clusters"], 2);
    let kinds = ["--ml-clusters", "500", "-e", "%file"];
    let many = summary_with(&kinds, &script);
    let kinds = many["syscalls"].as_array().expect("a list").len() as u64;
    // As many as there are different times, of which two may be equal by chance.
    let clusters = many["ml_analysis"]["clusters"].as_u64().expect("a number");
    assert!((2..=kinds).contains(&clusters), "{many}");

    let output = vigia()
        .args(["trace", "-c", "--ml-anomaly", "-e", "read,close", "--", "ls", "/"])
        .output()
        .expect("runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let words = "Insufficient data for ML analysis (need at least 3 syscall types, found 2)";
    assert!(output.status.success() && said.contains(words), "{said}");
}

#[test]
fn children_are_counted_and_the_exit_code_is_the_commands() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true; done; exit 7";
    let output = vigia()
        .args(["trace", "-c", "-f", "--", "sh", "-c", script])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(7));
    let table = String::from_utf8(output.stderr).expect("text");
    let execve = table
        .lines()
        .find(|line| line.ends_with("execve"))
        .expect("a row");
    assert!(execve.contains(" 11 "), "{table}");
    let killed = vigia()
        .args(["trace", "-c", "--", "sh", "-c", "kill -9 $$"])
        .output()
        .expect("runs");
    assert_eq!(killed.status.code(), Some(137));
}

#[test]
fn the_commands_own_output_stays_apart() {
    let text = vigia()
        .args(["trace", "-c", "--", "echo", "hello"])
        .output()
        .expect("runs");
    assert_eq!(text.stdout, b"hello\n");
    let json = vigia()
        .args(["trace", "-c", "-o", "json", "--", "echo", "hello"])
        .output()
        .expect("runs");
    assert_eq!(json.stderr, b"hello\n");
    assert!(serde_json::from_slice::<Value>(&json.stdout).is_ok());
}

/// A shell that makes one directory system call for each line it is told.
struct Shell(Child);

impl Shell {
    fn start() -> Self {
        let script = "while read line; do cd /; echo done; done";
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(child.expect("starts"))
    }

    fn tell(&mut self, times: usize) {
        let lines = "go\n".repeat(times);
        self.0
            .stdin
            .as_mut()
            .expect("piped")
            .write_all(lines.as_bytes())
            .expect("told");
        let mut answers = BufReader::new(self.0.stdout.as_mut().expect("piped"));
        for _ in 0..times {
            let mut line = String::new();
            answers.read_line(&mut line).expect("an answer");
            assert_eq!(line, "done\n");
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It has ended already, or is to end now.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_running_process_is_followed_until_it_ends() {
    let mut shell = Shell::start();
    let pid = shell.0.id().to_string();
    let mut tracer = vigia()
        .args(["trace", "-p", &pid, "-o", "json", "--window", "100ms"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(tracer.stdout.take().expect("piped")).lines();
    // The first window has ended, so counting has begun.
    lines.next().expect("a window").expect("text");
    shell.tell(200);
    drop(shell);
    let seen: u64 = lines
        .map(|line| {
            count(
                &serde_json::from_str(&line.expect("text")).expect("json"),
                "chdir",
            )
            .0
        })
        .sum();
    assert_eq!(seen, 200);
    assert!(tracer.wait().expect("ends").success());
}

/// A cgroup of our own, in the hierarchy that containers are told apart by.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make() -> Self {
        let root = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"]
            .into_iter()
            .find(|root| Path::new(root).join("cgroup.procs").exists());
        let folder =
            Path::new(root.expect("a hierarchy")).join(format!("vigia-cli-test-{}", std::process::id()));
        fs::create_dir(&folder).expect("a cgroup");
        Self(folder)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_cgroup_is_traced_for_a_while() {
    let cgroup = Cgroup::make();
    let mut shell = Shell::start();
    fs::write(cgroup.0.join("cgroup.procs"), shell.0.id().to_string()).expect("moved");
    let name = cgroup.0.file_name().expect("a name").to_str().expect("text");
    let mut tracer = vigia()
        .args([
            "trace",
            "--cgroup",
            name,
            "-o",
            "json",
            "--window",
            "100ms",
            "--duration",
            "3s",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(tracer.stdout.take().expect("piped")).lines();
    lines.next().expect("a window").expect("text");
    shell.tell(50);
    let seen: u64 = lines
        .map(|line| {
            count(
                &serde_json::from_str(&line.expect("text")).expect("json"),
                "chdir",
            )
            .0
        })
        .sum();
    assert_eq!(seen, 50);
    assert!(tracer.wait().expect("ends").success());
    drop(shell);
}

#[test]
fn recorded_windows_train_a_model_that_scores_live() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let work = "while :; do read x < /proc/self/stat; done";
    let (parquet, model) = (at("normal.parquet"), at("model.apr"));
    let output = vigia()
        .args([
            "trace",
            "-c",
            "--window",
            "100ms",
            "--duration",
            "15s",
            "--output",
            &parquet,
            "--",
            "sh",
            "-c",
            work,
        ])
        .output()
        .expect("runs");
    // It is told to terminate, and says so in its code.
    assert_eq!(
        output.status.code(),
        Some(143),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let train = vigia()
        .args(["train", "--input", &parquet, "-o", &model])
        .output()
        .expect("runs");
    assert!(
        train.status.success(),
        "{}",
        String::from_utf8_lossy(&train.stderr)
    );

    let odd = "i=0; while [ $i -lt 3000 ]; do read x < /proc/self/stat; i=$((i+1)); done; \
               for n in 1 2 3 4 5 6 7 8; do ls / > /dev/null; mkdir -p /tmp; done; sleep 0.3";
    let live = vigia()
        .args([
            "trace",
            "-o",
            "json",
            "--window",
            "100ms",
            "--model",
            &model,
            "--unsigned",
            "--",
            "sh",
            "-c",
            odd,
        ])
        .output()
        .expect("runs");
    let records = json_lines(&live);
    let high = records
        .iter()
        .filter(|r| r["verdict"]["severity"] == "high")
        .count();
    assert!(high > 0, "{records:#?}");
}

#[test]
fn which_calls_come_after_which_is_recorded_learnt_and_scored() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let run = |args: &[&str]| {
        let output = vigia().args(args).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    // The other makes the same calls, in another order. Who sleeps has its turn on a machine that is busy with others.
    let usual = "while :; do : < /proc/self/stat; sleep 0.005; done";
    let other = "while :; do : < /proc/self/stat < /dev/null; sleep 0.005; done";
    let record = |to: &str, duration: &str, more: &[&str]| {
        let trace = [
            "trace",
            "-c",
            "--window",
            "200ms",
            "--warm-up",
            "400ms",
            "--output",
            to,
            "--duration",
            duration,
        ];
        let (code, said) = run(&[&trace, more, &["--", "sh", "-c", usual]].concat());
        assert_eq!(code, Some(143), "{said}");
    };
    let train = |from: &str| {
        let order = ["--estimator", "n-gram,stide", "-o", &at("order.apr")];
        run(&[&["train", "--input", from], &order[..]].concat())
    };
    record(&at("without.parquet"), "2s", &[]);
    let (code, said) = train(&at("without.parquet"));
    assert_eq!(code, Some(3));
    assert!(said.contains("vigia trace --sequences"), "{said}");

    record(&at("few.parquet"), "2s", &["--sequences"]);
    let (code, said) = run(&["convert", &at("few.parquet"), &at("few.jsonl")]);
    assert_eq!(code, Some(0), "{said}");
    let vectors = fs::read_to_string(at("few.jsonl")).expect("a file");
    assert!(vectors.contains("wait4>openat"), "{vectors}");

    record(&at("sequences.jsonl"), "16s", &["--sequences"]);
    // On a machine that is busy with others there are windows in which nothing ran.
    let lines = fs::read_to_string(at("sequences.jsonl")).expect("a file");
    let lines: String = lines
        .split_inclusive('\n')
        .filter(|line| line.contains("\"sequences\":"))
        .collect();
    fs::write(at("sequences.jsonl"), &lines).expect("a file");
    let (code, said) = train(&at("sequences.jsonl"));
    assert_eq!(code, Some(0), "{said}");
    // Calls are read a moment before sequences are, so what comes between belongs to two windows: the sums are compared.
    let (mut calls, mut opened) = (0, 0);
    for line in lines.lines() {
        let window: Value = serde_json::from_str(line).expect("json");
        if !window["edge"].is_null() {
            continue;
        }
        calls += count(&window, "openat").0;
        let sequences = window["sequences"].as_object().expect("sequences");
        let after = sequences.iter().filter(|(calls, _)| calls.ends_with(">openat"));
        opened += after.filter_map(|(_, count)| count.as_u64()).sum::<u64>();
    }
    assert!(calls > 100, "{lines}");
    assert!(
        (calls / 2..=calls * 2).contains(&opened),
        "{opened} of {calls}: {lines}"
    );

    // A model that looks at sequences has them counted without being told.
    let judged = |script: &str| {
        let trace = [
            "trace",
            "-o",
            "json",
            "--window",
            "200ms",
            "--warm-up",
            "400ms",
            "--duration",
            "3s",
        ];
        let model = at("order.apr");
        let output = vigia()
            .args(trace)
            .args(["--load-model", &model, "--", "sh", "-c", script])
            .output()
            .expect("runs");
        let lines = String::from_utf8(output.stdout).expect("text");
        let records = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("json"));
        let amid: Vec<Value> = records
            .filter(|r| r["edge"].is_null() && r["partial"] == false)
            .collect();
        let told: Vec<&Value> = amid.iter().filter(|r| r["verdict"].is_object()).collect();
        assert!(told.len() > 5, "{lines}");
        let odd = told.iter().filter(|r| r["verdict"]["severity"] != "none");
        let odd: Vec<Value> = odd.map(|r| r["verdict"].clone()).collect();
        (odd, told.len())
    };
    let (odd, all) = judged(usual);
    assert!(odd.len() * 4 <= all, "{} of {all}", odd.len());
    let (odd, all) = judged(other);
    assert!(odd.len() * 4 >= all * 3, "{} of {all}", odd.len());
    // Who spoke is named, and in which order the calls came that usually come in another.
    for verdict in &odd {
        let estimator = verdict["estimator"].as_str();
        assert!(matches!(estimator, Some("NGram" | "STIDE")), "{verdict}");
        let sequences = verdict["sequences"].as_array().expect("sequences");
        assert!((1..=3).contains(&sequences.len()), "{verdict}");
    }
    // What the other script does is to open a second file before it sleeps.
    let opens = |verdict: &Value| {
        let mut sequences = verdict["sequences"].as_array().into_iter().flatten();
        sequences.any(|one| one["seen"] == false && one["calls"].to_string().contains("openat"))
    };
    assert!(odd.iter().any(opens), "{odd:#?}");
}

#[test]
fn a_thousand_children_are_counted_as_strace_counts_them() {
    let script = "i=0; while [ $i -lt 1000 ]; do (exit 3); i=$((i+1)); done";
    let command = ["sh", "-c", script];
    let seen = table(&["-f"], &command);
    assert_eq!(seen.get("clone"), Some(&(1000, 0)));
    let expected = strace(&["-f"], &command);
    for name in ["clone", "execve", "openat", "read", "mmap"] {
        assert_eq!(seen.get(name), expected.get(name), "{name}");
    }
}

#[test]
fn what_a_command_leaves_behind_is_counted_to_its_end_if_it_is_followed() {
    let script = ["sh", "-c", "sleep 0.5 & exit 4"];
    let counted = |options: &[&str], script: [&str; 3]| {
        let output = vigia()
            .args(["trace", "-c", "-o", "json"])
            .args(options)
            .arg("--")
            .args(script)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let record: Value = serde_json::from_slice(&output.stdout).expect("json");
        let length = record["duration_ms"].as_u64().expect("a number");
        (count(&record, "clock_nanosleep").0, length)
    };
    let (slept, length) = counted(&["-f"], script);
    assert!((slept, length >= 500) == (1, true), "{slept} {length}");
    assert_eq!(counted(&[], script).0, 0);
    let expected = strace(&["-f"], &script);
    assert_eq!(table(&["-f"], &script), expected);
    // Not for longer than it was to take, which is long enough for the command itself on a busy machine.
    let longer = ["sh", "-c", "sleep 10 >/dev/null 2>&1 & exit 4"];
    let (slept, length) = counted(&["-f", "--duration", "2s"], longer);
    assert!((slept, length < 10_000) == (0, true), "{slept} {length}");
}

#[test]
fn a_trace_makes_a_model_that_another_is_scored_with() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model.apr");
    let model = model.to_str().expect("text");
    let busy = "while :; do read x < /proc/self/stat; done";
    let learned = vigia()
        .args([
            "trace",
            "-c",
            "--window",
            "100ms",
            "--duration",
            "15s",
            "--save-model",
            model,
        ])
        .args(["--", "sh", "-c", busy])
        .output()
        .expect("runs");
    let said = String::from_utf8(learned.stderr).expect("text");
    assert_eq!(learned.status.code(), Some(143), "{said}");
    assert!(
        said.contains("a model of ") && said.contains("unsigned"),
        "{said}"
    );

    let scored = |options: &[&str]| {
        vigia()
            .args(["trace", "-o", "json", "--window", "100ms", "--load-model", model])
            .args(options)
            .args([
                "--",
                "sh",
                "-c",
                "for n in 1 2 3 4 5 6; do ls / > /dev/null; mkdir -p /tmp; done; sleep 0.3",
            ])
            .output()
            .expect("runs")
    };
    let records = json_lines(&scored(&[]));
    assert!(
        records.iter().any(|r| r["verdict"]["severity"] == "high"),
        "{records:#?}"
    );
    // One table of counts is no reason to say nothing of windows.
    let document = scored(&["-c"]).stdout;
    let document: Value = serde_json::from_slice(&document).expect("a document");
    let verdicts = document["verdicts"].as_array().expect("verdicts");
    assert!(
        verdicts.iter().any(|v| v["verdict"]["severity"] == "high"),
        "{document:#}"
    );
    assert!(verdicts.iter().all(|v| v["duration_ms"].as_u64() > Some(0)));
    let table = vigia()
        .args(["trace", "-c", "--window", "100ms", "--load-model", model])
        .args(["--", "sh", "-c", "ls / > /dev/null; sleep 0.3"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&table.stderr);
    assert!(said.contains(" score ") && said.contains("usecs/call"), "{said}");
    // Of other calls a score would say nothing, of windows of another length it says little.
    let other = scored(&["-e", "trace=%file"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(3), "{said}");
    assert!(said.contains("next: leave -e out"), "{said}");
    assert!(scored(&["-e", "trace=all"]).status.success());
    let longer = vigia()
        .args(["trace", "--load-model", model, "--", "true"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&longer.stderr).into_owned();
    assert!(
        longer.status.success() && said.contains("and these have 2 s"),
        "{said}"
    );
    // What others could have written needs a word.
    fs::set_permissions(model, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("changed");
    let refused = scored(&[]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--unsigned"));
    assert!(scored(&["--unsigned"]).status.success());

    let few = vigia()
        .args(["trace", "--save-model", model, "--", "true"])
        .output()
        .expect("runs");
    assert_eq!(few.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&few.stderr).contains("windows are too few"));
}

#[test]
fn how_a_command_begins_and_ends_is_recorded_and_teaches_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let record = |to: &str, more: &[&str]| {
        let output = vigia()
            .args(["trace", "-c", "--output", to])
            .args(more)
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = record(&at("short.parquet"), &["--", "sh", "-c", "exit 7"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("short.parquet: nothing to learn from in ")
            && said.contains("over within the command's first 2 s"),
        "{said}"
    );
    assert!(!folder.path().join("short.parquet").exists());
    let (code, said) = record(&at("short.jsonl"), &["--", "sh", "-c", "exit 7"]);
    assert_eq!(code, Some(7), "{said}");
    assert!(
        said.contains("warning: ") && said.contains("nothing to learn from"),
        "{said}"
    );

    let windows = |name: &str| -> Vec<Value> {
        let lines = fs::read_to_string(at(name)).expect("a file");
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).expect("json"));
        lines.collect()
    };
    let (long, many) = (
        [
            "--window",
            "100ms",
            "--warm-up",
            "300ms",
            "--",
            "sh",
            "-c",
            "sleep 3",
        ],
        at("long.jsonl"),
    );
    let (code, said) = record(&many, &long);
    assert_eq!(code, Some(0), "{said}");
    let seen = windows("long.jsonl");
    let edge = |window: &Value| window["edge"].as_str().map(str::to_owned);
    let (mut after, mut starts) = (0, 0);
    for window in &seen {
        assert_eq!(edge(window).as_deref() == Some("start"), after < 300, "{seen:#?}");
        starts += usize::from(after < 300);
        after += window["duration_ms"].as_u64().expect("a number");
    }
    assert_eq!(edge(&seen[seen.len() - 1]).as_deref(), Some("end"), "{seen:#?}");
    let between = &seen[starts..seen.len() - 1];
    assert!(
        between.len() > 5 && between.iter().all(|window| edge(window).is_none()),
        "{seen:#?}"
    );
    // Neither a model nor Parquet has more of them, whichever way the windows go.
    let converted = vigia()
        .args(["convert", &many, &at("long.parquet")])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&converted.stderr).into_owned();
    assert!(said.contains(&format!("{} windows in ", between.len())), "{said}");
    let few = vigia()
        .args(["train", "--input", &many, "-o", &at("m.apr")])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&few.stderr).into_owned();
    assert!(
        said.contains(&format!("{} windows are too few", between.len())),
        "{said}"
    );

    // As long as it starts if nothing is said, whatever the windows' length.
    let (code, said) = record(
        &at("starting.parquet"),
        &["--window", "100ms", "--", "sh", "-c", "sleep 0.3"],
    );
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("over within the command's first 2 s"), "{said}");

    // What runs already neither begins nor ends.
    let shell = Shell::start();
    let pid = shell.0.id().to_string();
    let (code, said) = record(
        &at("running.jsonl"),
        &["--window", "100ms", "--duration", "2s", "-p", &pid],
    );
    assert_eq!(code, Some(0), "{said}");
    let seen = windows("running.jsonl");
    assert!(
        seen.len() > 3 && seen.iter().all(|window| edge(window).is_none()),
        "{seen:#?}"
    );
    drop(shell);
}

#[test]
fn a_run_is_compared_with_one_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let base = folder.path().join("base.json");
    fs::write(&base, summary(&["ls", "/"]).to_string()).expect("a file");
    let base = base.to_str().expect("text");
    let script = ["sh", "-c", "ls /; sleep 0.1"];
    let seen = summary_with(&["--baseline", base], &script);
    let rows = seen["baseline"]["syscalls"].as_array().expect("a list");
    let row = |name: &str| rows.iter().find(|row| row["syscall"] == name).expect("a row");
    assert_eq!(row("clock_nanosleep")["change"], "new");
    assert_eq!(row("openat")["change"], "both");
    assert!(row("openat")["baseline_avg_time_us"].is_f64() && row("openat")["avg_time_us"].is_f64());

    let output = vigia()
        .args(["trace", "-f", "--baseline", base, "--"])
        .args(script)
        .output()
        .expect("runs");
    let said = String::from_utf8(output.stderr).expect("text");
    let line = said
        .lines()
        .find(|line| line.ends_with("  clock_nanosleep"))
        .expect("a line");
    assert!(line.contains(" new "), "{said}");
    let other = vigia()
        .args(["trace", "-f", "-e", "%file", "--baseline", base, "--", "ls"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(
        said.contains("recorded of other system calls than these"),
        "{said}"
    );
    let wrong = vigia()
        .args(["trace", "--baseline", "/dev/null", "--", "true"])
        .output()
        .expect("runs");
    assert_eq!(wrong.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no system call in it"));
    let folder = tempfile::tempdir().expect("a folder");
    let windows = folder.path().join("w.parquet");
    std::fs::write(&windows, b"PAR1 and the rest").expect("a file");
    let wrong = vigia()
        .args(["trace", "--baseline"])
        .arg(&windows)
        .args(["--", "true"])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert_eq!(wrong.status.code(), Some(3));
    assert!(
        said.contains("windows in Parquet") && said.contains("--output run.jsonl"),
        "{said}"
    );
}

#[test]
fn who_may_not_load_programs_is_told_what_is_missing_and_traced_by_ptrace() {
    // A user without capabilities: uid 65534 with all of them dropped by the change of user.
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("vigia");
    fs::copy(env!("CARGO_BIN_EXE_vigia"), &copy).expect("a copy");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("changed");
    let nobody = |args: &[&str]| {
        let output = Command::new(&copy)
            .arg("trace")
            .args(args)
            .uid(65534)
            .gid(65534)
            .output()
            .expect("runs");
        (
            output.status.code(),
            String::from_utf8(output.stderr).expect("text"),
        )
    };
    let (code, said) = nobody(&["--cgroup", "/"]);
    assert_eq!(code, Some(5));
    assert!(said.contains("CAP_BPF") && said.contains("setcap"), "{said}");

    // What can be traced by ptrace is, and that is said.
    let (code, said) = nobody(&["-c", "-f", "--", "ls", "/"]);
    assert_eq!(code, Some(0), "{said}");
    let note = said.lines().next().expect("a line");
    assert!(
        note.contains("CAP_BPF") && note.contains("counting by ptrace"),
        "{said}"
    );
    let expected = strace(&["-f"], &["ls", "/"]);
    // Which folders may be searched for libraries differs with the user.
    for name in [
        "execve",
        "read",
        "mmap",
        "close",
        "getdents64",
        "write",
        "ioctl",
        "brk",
    ] {
        assert_eq!(rows(&said).get(name), expected.get(name), "{name}");
    }
    let (code, said) = nobody(&["-p", "1"]);
    assert_eq!(code, Some(5));
    assert!(
        said.contains("Operation not permitted") && said.contains("next:"),
        "{said}"
    );
}

#[test]
fn a_file_with_capabilities_traces_by_ptrace_all_the_same() {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("vigia");
    fs::copy(env!("CARGO_BIN_EXE_vigia"), &copy).expect("a copy");
    fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("changed");
    // What `setcap cap_bpf,cap_perfmon+ep` writes: version 2 and "effective", then permitted and inheritable, 32 each.
    let high = 1u32 << (39 - 32) | 1 << (38 - 32);
    let value: Vec<u8> = [0x0200_0001u32, 0, 0, high, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    let file = std::ffi::CString::new(copy.as_os_str().as_bytes()).expect("a path");
    // SAFETY: strings that end with a null, and as many bytes as are said.
    let set = unsafe {
        libc::setxattr(
            file.as_ptr(),
            c"security.capability".as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    let output = Command::new(&copy)
        .args(["trace", "--", "true"])
        .uid(65534)
        .gid(65534)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("execve("), "{said}");
}

#[test]
fn a_compiler_a_database_and_a_pipeline_are_counted_as_strace_counts_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    fs::write(at("x.c"), "int main(void) { return 0; }").expect("a file");
    let compile = format!("rm -f {1}; cc -pipe -c {0} -o {1}", at("x.c"), at("x.o"));
    let database = format!(
        "rm -f {0}; sqlite3 {0} 'create table t(x); insert into t values (1);'",
        at("db")
    );
    // What is the same in every run; where memory lies and who waits for whom is not.
    let same = [
        "execve",
        "openat",
        "pread64",
        "pwrite64",
        "unlink",
        "fdatasync",
        "exit",
        "pipe2",
        "rename",
        "dup2",
    ];
    for script in [
        compile.as_str(),
        database.as_str(),
        "ls / | sort | head -n 2 | wc -l",
    ] {
        let command = ["sh", "-c", script];
        let expected = strace(&["-f"], &command);
        let seen = table(&["-f"], &command);
        for name in same {
            assert_eq!(seen.get(name), expected.get(name), "{script}: {name}");
        }
        assert!(seen["execve"].0 >= 2, "{script}");
    }
}

#[test]
fn wrong_targets_are_said() {
    let ends = |code: i32, args: &[&str], words: &str| {
        let output = vigia().arg("trace").args(args).output().expect("runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words), "{said}");
    };
    let fails = |args: &[&str], words: &str| ends(3, args, words);
    ends(2, &[], "what should be traced?");
    // What would have no effect is no wish that was granted.
    ends(2, &["--sequences", "--", "true"], "add --output FILE");
    ends(
        2,
        &["-c", "--sequences", "--format", "json", "--", "true"],
        "without -c",
    );
    ends(
        2,
        &["--warm-up", "1s", "-p", "1"],
        "--warm-up is of a command that is started here",
    );
    for given in [
        &["--key", "k.pub"][..],
        &["--unsigned"],
        &["--content-key", "c.key"],
    ] {
        ends(
            2,
            &[given, &["-c", "--", "true"]].concat(),
            "add --load-model FILE",
        );
    }
    fails(&["-p", "4194305"], "no process 4194305");
    fails(&["--cgroup", "no/such/cgroup"], "no/such/cgroup");
    fails(&["--", "no-such-command"], "no-such-command: no such command");
}

#[test]
fn what_cannot_be_written_at_the_end_is_told_at_the_beginning() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("folder.parquet")).expect("a folder");
    for output in [
        // The kernel's: nobody makes files there.
        ["--output", "/sys/w.parquet"],
        ["--save-model", "/sys/m.apr"],
        ["--output", "folder.parquet"],
        ["--output", "none/w.parquet"],
    ] {
        let mut command = vigia();
        command.current_dir(folder.path()).arg("trace").args(output);
        let output = command.args(["--", "touch", "ran"]).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(!folder.path().join("ran").exists(), "{said}");
    }
}

#[test]
fn wrong_options_are_said() {
    let fails = |args: &[&str], words: &str| {
        let output = vigia()
            .arg("trace")
            .args(args)
            .args(["--", "true"])
            .output()
            .expect("runs");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    };
    fails(&["--ml-clusters", "1"], "at least 2 clusters are needed");
    fails(&["-e", "trace=read,opne"], "no system call \"opne\" on");
    fails(&["-e", "trace=read,opne"], "did you mean open?");
    fails(&["-e", "trace=%netwrok"], "did you mean %network?");
    fails(&["-e", "signal=all"], "\"signal\" cannot be filtered by");
    for counted in [&["-c"][..], &["--window", "1s"], &["--output", "/no/such.jsonl"]] {
        let args = [&["--anomaly-realtime"], counted].concat();
        fails(&args, "--anomaly-realtime is about the time of each single call");
    }
}

#[test]
fn a_trace_that_never_began_costs_no_recording() {
    let folder = tempfile::tempdir().expect("a folder");
    let (there, new) = (folder.path().join("there.jsonl"), folder.path().join("new.jsonl"));
    fs::write(&there, "what was recorded\n").expect("a file");
    for args in [
        &["--", "no-such-command"][..],
        &["--", "/no/such/prog"],
        &["-p", "4194305"],
        &["--cgroup", "no/such/cgroup"],
        &["--save-model", "/no/such/folder/m.apr", "--", "true"],
    ] {
        for output in [&there, &new] {
            let mut command = vigia();
            command.args(["trace", "--output"]).arg(output).args(args);
            let output = command.output().expect("runs");
            assert!(!output.status.success(), "{args:?}: {output:?}");
        }
        let kept = fs::read_to_string(&there).expect("there");
        assert_eq!(kept, "what was recorded\n", "{args:?}");
        assert!(!new.exists(), "{args:?}");
    }
    let mut command = vigia();
    let output = command
        .args(["trace", "--output"])
        .arg(&there)
        .args(["--", "true"]);
    assert!(output.status().expect("runs").success());
    let written = fs::read_to_string(&there).expect("there");
    assert!(
        written.starts_with('{') && !written.contains("recorded"),
        "{written}"
    );
    let csv = vigia()
        .args(["trace", "--output", "w.csv", "--", "true"])
        .output();
    let csv = csv.expect("runs");
    assert_eq!(csv.status.code(), Some(2), "{csv:?}");
    assert!(String::from_utf8_lossy(&csv.stderr).contains("w.csv: not .parquet and not .jsonl"));
}
