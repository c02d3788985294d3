//! Figures of the command line, as rows that `make bench` collects.
//!
//! `cargo bench -p vigia-cli` prints one JSON object a row and, with `BENCH_OUT` set to a folder, writes each to
//! `<name>.json` there. Needs root. What is compared takes turns, and a figure is the median of its rounds, with the
//! 10th and 90th percentiles beside it.

#[path = "../../model/benches/row/mod.rs"]
mod row;

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use row::{Row, Target};

const ROUNDS: usize = 31;
/// Bytes that dd copies one by one: twice as many system calls.
const COPIES: u32 = 400_000;
/// Windows of half an hour.
const WINDOWS: u32 = 900;

fn vigia(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vigia"));
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn run(mut command: Command) {
    assert!(command.status().expect("vigia runs").success(), "{command:?}");
}

/// Time on a CPU of all our children that have ended, and of theirs.
fn children() -> Duration {
    // SAFETY: all zeros is a rusage, which outlives the call.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec.cast_unsigned(), t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn cpu(command: Command) -> f64 {
    let before = children();
    run(command);
    (children() - before).as_secs_f64()
}

fn wall(command: Command) -> f64 {
    let start = Instant::now();
    run(command);
    start.elapsed().as_secs_f64()
}

fn ml() {
    let count = format!("count={COPIES}");
    let traced = |option: Option<&str>| {
        let mut command = vigia(&["trace", "-c"]);
        command
            .args(option)
            .args(["--", "dd", "if=/dev/zero", "of=/dev/null", "bs=1", &count]);
        cpu(command)
    };
    traced(None);
    let (mut ours, mut plain, mut analysed) = (vec![], vec![], vec![]);
    for round in 0..ROUNDS {
        // Turns are taken the other way round each time, so that neither is always the second.
        let (with, without) = if round % 2 == 0 {
            let with = traced(Some("--ml-anomaly"));
            (with, traced(None))
        } else {
            let without = traced(None);
            (traced(Some("--ml-anomaly")), without)
        };
        ours.push(with / without);
        plain.push(without);
        analysed.push(with);
    }
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    let fastest = least(&analysed) / least(&plain);
    Row {
        name: "cli.ml",
        unit: "x CPU of the same trace without --ml-anomaly",
        ours,
        peers: vec![("plain, s", plain), ("fastest round of each, x", vec![fastest])],
        rivals: false,
        target: Target::AtMost(1.01),
        note: format!("vigia trace -c -- dd, {COPIES} copies of a byte; CPU of vigia and of dd"),
    }
    .print();
}

/// Windows of a server under a load that wanders.
fn windows(path: &Path) {
    const NAMES: [&str; 12] = [
        "read",
        "write",
        "epoll_wait",
        "futex",
        "openat",
        "close",
        "mmap",
        "munmap",
        "recvfrom",
        "sendto",
        "fstat",
        "getpid",
    ];
    let mut text = String::new();
    for window in 0..WINDOWS {
        let calls: Vec<String> = (1u32..)
            .zip(NAMES)
            .map(|(n, name)| {
                let calls = 50 * n + (window * 37 * n) % 41 + (window * 11) % 13;
                format!(r#"{{"name":"{name}","calls":{calls},"errors":{}}}"#, calls % 3)
            })
            .collect();
        writeln!(
            text,
            r#"{{"started_ms":{},"duration_ms":2000,"arch":"x86_64","target":"server","calls":0,"errors":0,"syscalls":[{}]}}"#,
            2_000 * u64::from(window),
            calls.join(",")
        )
        .expect("written");
    }
    std::fs::write(path, text).expect("a file");
}

fn load() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (jsonl, parquet, model) = (at("w.jsonl"), at("w.parquet"), at("model.apr"));
    windows(Path::new(&jsonl));
    run(vigia(&["convert", &jsonl, &parquet]));
    let train = || wall(vigia(&["train", "--input", &parquet, "-o", &model]));
    train();
    let one = at("one.jsonl");
    let text = std::fs::read_to_string(&jsonl).expect("a file");
    std::fs::write(&one, text.lines().next().expect("a window")).expect("a file");
    let start = || {
        wall(vigia(&[
            "score",
            "--model",
            &model,
            "--unsigned",
            "--input",
            &one,
        ]))
    };
    let traced = || wall(vigia(&["trace", "--load-model", &model, "--", "true"]));
    let plain = || wall(vigia(&["trace", "--window", "2s", "--", "true"]));
    let (mut ratios, mut trained, mut started, mut with, mut without) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let (training, starting) = (train(), start());
        ratios.push(training / starting);
        trained.push(training);
        started.push(starting);
        with.push(traced());
        without.push(plain());
    }
    Row {
        name: "cli.load",
        unit: "x faster than training",
        ours: ratios,
        peers: vec![
            ("train, s", trained),
            ("start with model, s", started),
            ("trace with model, s", with),
            ("trace without, s", without),
        ],
        rivals: false,
        target: Target::AtLeast(10.0),
        note: format!(
            "from start to first verdict without the probe, whose loading is the same with and without a model \
             (last two columns), against vigia train on {WINDOWS} windows in Parquet"
        ),
    }
    .print();
}

fn main() {
    ml();
    load();
}
