//! The commands that need no kernel: keys, training, scoring, signatures, on files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use assert_cmd::Command;
use tempfile::TempDir;
use vigia_model::pipeline::EstimatorKind;

fn vigia(folder: &Path, args: &[&str]) -> std::process::Output {
    let mut command = Command::cargo_bin("vigia").expect("built");
    command.current_dir(folder).args(args).output().expect("runs")
}

fn ok(folder: &Path, args: &[&str]) -> String {
    let output = vigia(folder, args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

fn fails(folder: &Path, code: i32, args: &[&str]) -> String {
    let output = vigia(folder, args);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

/// When the first window of a server begins.
const STARTED_MS: u64 = 1_795_255_200_000;

/// Windows of a server under a load that wanders; window `odd` also starts programs and connects.
fn windows(n: u32, odd: Option<u32>) -> String {
    (0..n)
        .map(|i| {
            let load = 50 + (i * 37) % 41 + (i * 11) % 13;
            let mut calls = format!(
                r#"{{"name":"read","calls":{}}},{{"name":"write","calls":{}}},{{"name":"epoll_wait","calls":{},"errors":{}}}"#,
                load * 4,
                load * 3,
                load * 2,
                load % 3
            );
            if odd == Some(i) {
                calls += r#",{"name":"execve","calls":3},{"name":"connect","calls":20,"errors":18},{"name":"ptrace","calls":1}"#;
            }
            let started = STARTED_MS + 2_000 * u64::from(i);
            format!(
                r#"{{"started_ms":{started},"duration_ms":2000,"arch":"x86_64","target":"server","calls":0,"errors":0,"syscalls":[{calls}]}}"#
            ) + "\n"
        })
        .collect()
}

/// A folder with a trained and signed model.
fn trained() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("normal.jsonl"), windows(300, None)).expect("a file");
    let public = ok(at, &["keygen", "release.key"]);
    fs::write(at.join("release.pub"), public).expect("a file");
    ok(
        at,
        &[
            "train",
            "--input",
            "normal.jsonl",
            "-o",
            "model.apr",
            "--sign-key",
            "release.key",
            "--name",
            "shop/server",
        ],
    );
    folder
}

#[test]
fn a_key_is_private_and_never_written_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let public = ok(folder.path(), &["keygen", "a.key"]);
    assert_eq!(public.trim().len(), 44);
    let file = folder.path().join("a.key");
    assert_eq!(
        fs::metadata(&file).expect("there").permissions().mode() & 0o777,
        0o600
    );
    let before = fs::read(&file).expect("there");
    let said = fails(folder.path(), 4, &["keygen", "a.key"]);
    assert!(
        said.contains("is there already") && said.contains("next:"),
        "{said}"
    );
    assert_eq!(fs::read(&file).expect("there"), before);
}

#[test]
fn the_same_windows_make_the_same_model() {
    let folder = trained();
    let at = folder.path();
    let train = |to: &str| ok(at, &["train", "--input", "normal.jsonl", "-o", to]);
    train("a.apr");
    train("b.apr");
    assert_eq!(
        fs::read(at.join("a.apr")).expect("a"),
        fs::read(at.join("b.apr")).expect("b")
    );
}

#[test]
fn an_odd_window_is_found_and_explained() {
    let folder = trained();
    let at = folder.path();
    fs::write(at.join("today.jsonl"), windows(60, Some(33))).expect("a file");
    let score = [
        "score",
        "--model",
        "model.apr",
        "--key",
        "release.pub",
        "--input",
        "today.jsonl",
    ];
    let text = ok(at, &score);
    assert!(
        text.contains("60 windows: 1 high, 0 medium, 0 low, 59 none"),
        "{text}"
    );
    assert!(text.contains("2026-11-21T10:01:06Z server high"), "{text}");
    assert!(text.contains("connect") && text.contains("execve"), "{text}");
    fails(at, 1, &[&score[..], &["--fail"]].concat());
    let today = fs::read_to_string(at.join("today.jsonl")).expect("a file");
    let edges = today.replace(r#""target":"server""#, r#""target":"server","edge":"start""#);
    fs::write(at.join("edges.jsonl"), edges).expect("a file");
    let edges = [&score[..6], &["edges.jsonl", "--fail"]].concat();
    let said = ok(at, &edges);
    assert!(said.contains("server (its start) high"), "{said}");
    let json = ok(at, &[&score[..], &["-o", "json", "--from", "none"]].concat());
    assert_eq!(json.lines().count(), 60);
    let odd: serde_json::Value = serde_json::from_str(json.lines().nth(33).expect("a line")).expect("json");
    assert_eq!(odd["severity"], "high");
    assert_eq!(odd["drivers"][0]["expected_per_second"], 0.0);
    let estimator = odd["estimator"].as_str().expect("a name").to_owned();
    assert!(["Deviation", "Novelty"].contains(&estimator.as_str()), "{odd}");
    let text = ok(at, &[&score[..], &["--from", "high"]].concat());
    assert!(text.contains(&format!(" by {estimator}: ")), "{text}");
}

#[test]
fn only_the_right_key_verifies() {
    let folder = trained();
    let at = folder.path();
    assert!(ok(at, &["verify", "--key", "release.pub", "model.apr"]).contains("verified, signed by key"));
    let public = fs::read_to_string(at.join("release.pub")).expect("there");
    ok(at, &["verify", "--key", public.trim(), "model.apr"]);
    let other = ok(at, &["keygen", "other.key"]);
    let said = fails(at, 1, &["verify", "--key", other.trim(), "model.apr"]);
    assert!(said.contains("UntrustedKey") && said.contains("next:"), "{said}");
    // A file without an end is not read to it.
    let said = fails(at, 3, &["verify", "--key", "/dev/zero", "model.apr"]);
    assert!(said.contains("too large"), "{said}");

    let mut bytes = fs::read(at.join("model.apr")).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(at.join("bent.apr"), &bytes).expect("a file");
    assert!(fails(at, 1, &["verify", "--key", "release.pub", "bent.apr"]).contains("ChecksumMismatch"));
    let json = vigia(at, &["verify", "--key", "release.pub", "bent.apr", "-o", "json"]);
    assert_eq!(json.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("json");
    assert_eq!(
        (&json["verified"], &json["reason"]),
        (&false.into(), &"ChecksumMismatch".into())
    );
}

#[test]
fn inspecting_proves_nothing_and_says_so() {
    let folder = trained();
    let at = folder.path();
    let text = ok(at, &["inspect", "model.apr"]);
    assert!(
        text.contains("not verified: give --key") && text.contains("shop/server"),
        "{text}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ok(at, &["inspect", "model.apr", "-o", "json"])).expect("json");
    assert_eq!(json["verified"], false);
    assert_eq!(json["samples"], 300);
    assert!(json["metrics"]["HoldoutExceedance"].is_number());
    assert!(ok(at, &["inspect", "model.apr", "--key", "release.pub"]).contains("(verified)"));
}

#[test]
fn a_models_name_moves_no_cursor() {
    let folder = trained();
    let at = folder.path();
    let name = "\x1b]0;pwn\x07\x1b[2J";
    ok(
        at,
        &[
            "train",
            "--input",
            "normal.jsonl",
            "-o",
            "odd.apr",
            "--name",
            name,
        ],
    );
    // A file shows what a terminal would be sent: colours are left out, what a model says would not be.
    let text = ok(at, &["inspect", "odd.apr"]);
    assert!(text.contains(r"\u{1b}]0;pwn\u{7}\u{1b}[2J"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
}

#[test]
fn more_estimators_than_a_model_holds_cost_no_training() {
    let folder = tempfile::tempdir().expect("a folder");
    let kinds = EstimatorKind::ALL.map(EstimatorKind::as_str).join(",");
    let train = ["train", "--input", "missing.jsonl", "--estimator", &kinds];
    // Before the windows are looked for.
    let said = fails(folder.path(), 3, &train);
    assert!(said.contains("a model has 8 at most"), "{said}");
}

#[test]
fn an_unsigned_model_that_others_could_have_written_needs_a_word() {
    let folder = trained();
    let at = folder.path();
    ok(at, &["train", "--input", "normal.jsonl", "-o", "plain.apr"]);
    ok(at, &["score", "--model", "plain.apr", "--input", "normal.jsonl"]);
    let said = fails(at, 1, &["verify", "--key", "release.pub", "plain.apr"]);
    assert!(
        said.contains("next: sign it with") && !said.contains("--unsigned"),
        "{said}"
    );
    fs::set_permissions(at.join("plain.apr"), fs::Permissions::from_mode(0o666)).expect("changed");
    let said = fails(
        at,
        3,
        &["score", "--model", "plain.apr", "--input", "normal.jsonl"],
    );
    assert!(said.contains("--unsigned"), "{said}");
    ok(
        at,
        &[
            "score",
            "--model",
            "plain.apr",
            "--unsigned",
            "--input",
            "normal.jsonl",
        ],
    );
    fails(
        at,
        1,
        &[
            "score",
            "--model",
            "model.apr",
            "--unsigned",
            "--input",
            "normal.jsonl",
        ],
    );
    ok(at, &["sign", "--key", "release.key", "plain.apr"]);
    ok(
        at,
        &[
            "score",
            "--model",
            "plain.apr",
            "--key",
            "release.pub",
            "--input",
            "normal.jsonl",
        ],
    );
}

#[test]
fn errors_say_where_and_what_next() {
    let folder = trained();
    let at = folder.path();
    fs::write(at.join("few.jsonl"), windows(10, None)).expect("a file");
    let said = fails(at, 3, &["train", "--input", "few.jsonl"]);
    assert!(
        said.contains("10 windows are too few") && said.contains("next:"),
        "{said}"
    );
    let edge = r#""target":"server","edge":"start""#;
    let edges = windows(10, None).replace(r#""target":"server""#, edge);
    fs::write(at.join("edges.jsonl"), edges).expect("a file");
    for command in [
        &["train", "--input", "edges.jsonl"][..],
        &["convert", "edges.jsonl", "edges.parquet"],
    ] {
        let said = fails(at, 3, command);
        assert!(
            said.contains("10 windows left out") && said.contains("next:"),
            "{said}"
        );
    }
    assert!(!at.join("edges.parquet").exists());
    fs::write(
        at.join("bad.jsonl"),
        windows(3, None) + "{\"started_ms\": nonsense\n",
    )
    .expect("a file");
    assert!(fails(at, 3, &["train", "--input", "bad.jsonl"]).contains("bad.jsonl: line 4: "));
    fs::write(at.join("bad.parquet"), "PAR1 no").expect("a file");
    assert!(fails(at, 3, &["train", "--input", "bad.parquet"]).contains("not a Parquet file of windows"));
    assert!(fails(at, 3, &["train", "--input", "none.jsonl"]).contains("none.jsonl: No such file"));
    fs::set_permissions(at.join("release.key"), fs::Permissions::from_mode(0o644)).expect("changed");
    assert!(fails(at, 3, &["sign", "--key", "release.key", "model.apr"]).contains("chmod 600"));
    let pem = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
    fs::write(at.join("public.pem"), pem).expect("a file");
    ok(at, &["keygen", "--content", "content.key"]);
    for (file, words) in [
        ("release.pub", "if this is a public key, give the private one"),
        ("public.pem", "not an Ed25519 private key"),
        ("content.key", "a key to encrypt with, not one to sign with"),
    ] {
        fs::set_permissions(at.join(file), fs::Permissions::from_mode(0o644)).expect("changed");
        let said = fails(at, 3, &["sign", "--key", file, "model.apr"]);
        assert!(said.contains(words) && !said.contains("chmod"), "{file}: {said}");
    }
    assert!(fails(at, 2, &["score", "--model"]).contains("--help"));
}

#[test]
fn formats_are_converted_without_loss() {
    let folder = trained();
    let at = folder.path();
    ok(at, &["convert", "normal.jsonl", "a.parquet"]);
    ok(at, &["convert", "a.parquet", "b.jsonl"]);
    ok(at, &["convert", "b.jsonl", "c.parquet"]);
    assert_eq!(
        fs::read(at.join("a.parquet")).expect("there"),
        fs::read(at.join("c.parquet")).expect("there")
    );
    // The same model comes from each of them.
    for (input, model) in [
        ("normal.jsonl", "1.apr"),
        ("a.parquet", "2.apr"),
        ("b.jsonl", "3.apr"),
    ] {
        ok(at, &["train", "--input", input, "-o", model]);
    }
    let model = |name: &str| fs::read(at.join(name)).expect("there");
    assert!(model("1.apr") == model("2.apr") && model("2.apr") == model("3.apr"));

    ok(at, &["convert", "model.apr", "model.json"]);
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(at.join("model.json")).expect("there")).expect("json");
    assert_eq!(
        (&json["name"], &json["samples"]),
        (&"shop/server".into(), &300.into())
    );
    assert!(fails(at, 3, &["convert", "model.apr", "model.parquet"]).contains("nothing converts"));
    fs::write(at.join("mixed.jsonl"), windows(1, None) + "{\"features\":{}}\n").expect("a file");
    assert!(
        fails(at, 3, &["convert", "mixed.jsonl", "x.parquet"]).contains("line 2: a vector after windows")
    );
}

#[test]
fn help_teaches_and_the_shell_is_served() {
    let folder = tempfile::tempdir().expect("a folder");
    for command in [
        "trace",
        "train",
        "score",
        "keygen",
        "sign",
        "verify",
        "inspect",
        "convert",
        "completions",
    ] {
        let help = ok(folder.path(), &[command, "--help"]);
        assert!(help.contains("Examples:"), "{command}");
    }
    let asked = ok(folder.path(), &["help", "help"]);
    assert!(asked.contains("Print this message or the help"), "{asked}");
    for option in ["--help", "-h"] {
        assert_eq!(ok(folder.path(), &["help", option]), asked);
    }
    assert!(ok(folder.path(), &["completions", "bash"]).contains("complete -F _vigia"));
    ok(folder.path(), &["man", "."]);
    let page = fs::read_to_string(folder.path().join("vigia-trace.1")).expect("a page");
    assert!(page.contains(".TH"));
    let kubectl = Command::cargo_bin("kubectl-vigia")
        .expect("built")
        .arg("--version")
        .output()
        .expect("runs");
    assert!(String::from_utf8_lossy(&kubectl.stdout).starts_with("vigia "));
}

/// The window in which something is planted.
const ODD: u32 = 30;

/// Whether a model of this kind finds the window in which something is planted the oddest, and says why as it should.
fn tells(folder: &Path, kind: &str, input: &str) {
    let score = [
        "score",
        "--model",
        "one.apr",
        "--unsigned",
        "--input",
        input,
        "--from",
        "none",
        "-o",
        "json",
    ];
    let lines = ok(folder, &score);
    let lines = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let mut lines: Vec<serde_json::Value> = lines.collect();
    let score = |line: &serde_json::Value| line["score"].as_f64().expect("a number");
    assert!(lines.iter().all(|line| (0.0..=1.0).contains(&score(line))));
    let forecasts = lines
        .iter()
        .filter(|line| line["drivers"][0]["kind"] == "forecast");
    assert_eq!(forecasts.count() > 0, ["ets", "arima"].contains(&kind), "{kind}");
    lines.sort_by(|a, b| score(b).total_cmp(&score(a)));
    let is_planted = |line: &serde_json::Value| line["started_ms"] == STARTED_MS + 2_000 * u64::from(ODD);
    if kind == "isolation-forest" {
        // It knows no more than that a window lies at the edge of those that it was grown on, as some of them do.
        assert!(lines[..2].iter().any(is_planted), "{lines:?}");
    } else {
        assert!(
            is_planted(&lines[0]) && score(&lines[0]) >= 0.7,
            "{kind}: {lines:?}"
        );
        // A forecast is off for as long as it looks back on what was planted.
        assert!(score(&lines[12]) < 0.8, "{kind}: {lines:?}");
    }
}

#[test]
fn a_forecast_knows_only_windows_right_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let file = |name: &str, text: String| fs::write(at.join(name), text).expect("a file");
    file("normal.jsonl", windows(300, None));
    ok(
        at,
        &[
            "train",
            "--input",
            "normal.jsonl",
            "--estimator",
            "ets",
            "-o",
            "ets.apr",
        ],
    );
    let scored = |name: &str, text: String| {
        file(name, text);
        let score = [
            "score", "--model", "ets.apr", "--input", name, "--from", "none", "-o", "json",
        ];
        ok(at, &score).lines().count()
    };
    let first = windows(20, None);
    let alone = scored("alone.jsonl", first.clone());
    assert!((1..20).contains(&alone), "{alone}");
    // The same calls a day later, or one window late: what was before says nothing of them.
    let later = |by: u64| {
        let moved = |i: u64| {
            let started = |ms: u64| format!("\"started_ms\":{}", STARTED_MS + 2_000 * i + ms);
            (started(0), started(40_000 + by))
        };
        let lines = first.lines().zip(0..);
        let moved = lines.map(|(line, i)| line.replace(&moved(i).0, &moved(i).1) + "\n");
        first.clone() + &moved.collect::<String>()
    };
    assert_eq!(scored("on.jsonl", later(0)), alone + 20);
    assert_eq!(scored("late.jsonl", later(2_000)), 2 * alone);
    assert_eq!(scored("next-day.jsonl", later(86_400_000)), 2 * alone);
}

#[test]
fn any_estimator_can_be_asked_for_is_named_and_tells_what_it_is_for() {
    let folder = trained();
    let at = folder.path();
    let file = |name: &str, text: String| fs::write(at.join(name), text).expect("a file");
    file("new.jsonl", windows(50, Some(ODD)));
    // Windows hold sequences of calls only where they were counted.
    file("usual.jsonl", windows(50, None));
    with_sequences(at, "normal.jsonl", "in-order.jsonl", None);
    with_sequences(at, "usual.jsonl", "out-of-order.jsonl", Some(ODD));
    let mut busy: Vec<String> = windows(50, None)
        .lines()
        .map(|line| format!("{line}\n"))
        .collect();
    let calls = r#"{"name":"read","calls":90000},{"name":"write","calls":90000}"#;
    let before = busy[ODD as usize]
        .split("\"syscalls\":[")
        .next()
        .expect("a start")
        .to_owned();
    busy[ODD as usize] = format!("{before}\"syscalls\":[{calls}]}}\n");
    file("busy.jsonl", busy.concat());

    let help = ok(at, &["train", "--help"]);
    let kinds = EstimatorKind::ALL.map(|kind| kind.as_str());
    for kind in kinds {
        assert!(help.contains(kind), "{kind}");
        let (input, today) = match kind {
            "n-gram" | "n-gram-peak" | "stide" => {
                let bare = ["train", "--input", "normal.jsonl", "--estimator", kind];
                let said = fails_with(at, &bare);
                assert!(
                    said.contains("no sequence of calls") && said.contains("leave it out"),
                    "{said}"
                );
                assert!(!said.contains("capture.mode"), "{said}");
                ("in-order.jsonl", "out-of-order.jsonl")
            }
            // A forest grown where a call never came asks nothing of it.
            "ets" | "arima" | "isolation-forest" => ("normal.jsonl", "busy.jsonl"),
            _ => ("normal.jsonl", "new.jsonl"),
        };
        let train = ["train", "--input", input, "-o", "one.apr", "--estimator", kind];
        let components = [&train[..], &["--pca", "4"]].concat();
        let by_distance = kind.parse::<EstimatorKind>().expect("a kind").takes_components();
        let fewer = if by_distance {
            &components[..]
        } else {
            let said = fails_with(at, &components);
            assert!(
                said.contains("in front of estimators that measure distances"),
                "{said}"
            );
            &train
        };
        ok(at, fewer);
        let shown = ok(at, &["inspect", "one.apr"]);
        assert!(shown.contains(&format!("estimator = {kind}")), "{shown}");
        assert_eq!(shown.contains("components"), by_distance, "{shown}");
        let first = fs::read(at.join("one.apr")).expect("a model");
        tells(at, kind, today);
        // The same bytes again; then without components, where there were some.
        ok(at, fewer);
        assert_eq!(fs::read(at.join("one.apr")).expect("a model"), first, "{kind}");
        if by_distance {
            ok(at, &train);
            tells(at, kind, today);
        }
    }
    let list = kinds[..4].join(",");
    ok(
        at,
        &[
            "train",
            "--input",
            "normal.jsonl",
            "-o",
            "some.apr",
            "--estimator",
            &list,
        ],
    );
    let shown = ok(at, &["inspect", "some.apr"]);
    assert!(shown.contains(&kinds[..4].join("+")), "{shown}");

    let train = |more: &[&str]| fails_with(at, &[&["train", "--input", "normal.jsonl"], more].concat());
    assert!(train(&["--estimator", "oracle"]).contains("isolation-forest"));
    assert!(train(&["--estimator", "kmeans,kmeans"]).contains("each once"));
    assert!(train(&["--estimator", "kmeans", "--pca", "4000"]).contains("between 1 and"));
    assert!(train(&["--pca", "0", "--estimator", "kmeans"]).contains("--pca"));
}

/// The windows of a file as vectors with sequences of calls, in one of them other ones.
fn with_sequences(folder: &Path, from: &str, to: &str, odd: Option<u32>) {
    ok(folder, &["convert", from, "between.parquet"]);
    ok(folder, &["convert", "between.parquet", "between.jsonl"]);
    let lines = fs::read_to_string(folder.join("between.jsonl")).expect("vectors");
    let lines = (0..).zip(lines.lines()).map(|(at, line)| {
        let mut vector: serde_json::Value = serde_json::from_str(line).expect("JSON");
        // As many as a mean and a share say anything of.
        let (order, times) = match odd == Some(at) {
            true => (
                [
                    "write>read",
                    "epoll_wait>write",
                    "read>epoll_wait",
                    "write>read>epoll_wait",
                ],
                60,
            ),
            false => (
                [
                    "read>write",
                    "write>epoll_wait",
                    "epoll_wait>read",
                    "read>write>epoll_wait",
                ],
                80,
            ),
        };
        for (sequence, times) in order.iter().zip(times..) {
            vector["sequences"][sequence] = (times + at % 7).into();
        }
        format!("{vector}\n")
    });
    fs::write(folder.join(to), lines.collect::<String>()).expect("a file");
}

#[test]
fn too_few_windows_with_sequences_are_told_in_words_of_the_command_line() {
    let folder = trained();
    let at = folder.path();
    with_sequences(at, "normal.jsonl", "all.jsonl", None);
    let all = fs::read_to_string(at.join("all.jsonl")).expect("vectors");
    let part = |with: usize| {
        let lines = all.lines().enumerate().map(|(i, line)| {
            let mut vector: serde_json::Value = serde_json::from_str(line).expect("JSON");
            if i >= with {
                vector.as_object_mut().expect("a vector").remove("sequences");
            }
            format!("{vector}\n")
        });
        fs::write(at.join("part.jsonl"), lines.collect::<String>()).expect("a file");
        let train = [
            "train",
            "--input",
            "part.jsonl",
            "--estimator",
            "novelty,n-gram-peak",
        ];
        fails(at, 3, &train)
    };
    // Fewer than enough, and enough of one part of the time alone.
    for with in [10, all.lines().count() / 2] {
        let said = part(with);
        assert!(
            said.contains("n-gram-peak: ")
                && said.contains("windows held out carry sequences of calls, and 25 must"),
            "{said}"
        );
        assert!(said.contains("vigia trace --sequences"), "{said}");
        assert!(
            !said.contains("capture.mode") && !said.contains("20 must"),
            "{said}"
        );
    }
}

#[test]
fn what_a_list_names_twice_is_refused_before_any_work() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    let said = fails(
        at,
        2,
        &[
            "train",
            "--input",
            "none.jsonl",
            "--estimator",
            "n-gram-peak,n-gram-peak",
        ],
    );
    assert!(said.contains("--estimator: n-gram-peak twice"), "{said}");
    let said = fails(
        at,
        2,
        &[
            "score", "--model", "none.apr", "--input", "a.jsonl", "b.jsonl", "a.jsonl",
        ],
    );
    assert!(said.contains("--input: a.jsonl twice"), "{said}");
    let said = fails(at, 2, &["trace", "-c", "-p", "4711,1,4711"]);
    assert!(said.contains("-p: 4711 twice"), "{said}");
}

#[test]
fn what_is_no_model_is_wrong_input_and_to_verify_it_the_answer_is_no() {
    let folder = trained();
    let at = folder.path();
    fs::write(at.join("no.apr"), "no model").expect("a file");
    let good = fs::read(at.join("model.apr")).expect("a model");
    fs::write(at.join("half.apr"), &good[..good.len() / 2]).expect("a file");
    for file in ["no.apr", "half.apr"] {
        for wrong in [
            &["inspect", file][..],
            &[
                "score",
                "--model",
                file,
                "--key",
                "release.pub",
                "--input",
                "normal.jsonl",
            ],
            &["convert", file, "out.json"],
        ] {
            let said = fails(at, 3, wrong);
            assert!(said.contains(file), "{said}");
        }
        fails(at, 1, &["verify", "--key", "release.pub", file]);
    }
    // Whose a model is, is another question.
    ok(at, &["keygen", "another.key"]);
    let key = ok(at, &["keygen", "third.key"]);
    fails(
        at,
        1,
        &[
            "score",
            "--model",
            "model.apr",
            "--key",
            key.trim(),
            "--input",
            "normal.jsonl",
        ],
    );
}

/// What a refusal says, whatever its code.
fn fails_with(folder: &Path, args: &[&str]) -> String {
    let output = vigia(folder, args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn an_encrypted_model_scores_with_its_key_alone() {
    let folder = trained();
    let at = folder.path();
    ok(at, &["train", "--input", "normal.jsonl", "-o", "plain.apr"]);
    let id = ok(at, &["keygen", "--content", "content.key"]);
    ok(at, &["keygen", "--content", "other.key"]);
    let encrypt = [
        "encrypt",
        "--content-key",
        "content.key",
        "plain.apr",
        "--output",
        "sealed.apr",
    ];
    assert!(ok(at, &encrypt).contains(id.trim()));
    ok(at, &["sign", "--key", "release.key", "sealed.apr"]);
    assert!(ok(at, &["inspect", "sealed.apr"]).contains(&format!("with key {}", id.trim())));
    let verify = ["verify", "--key", "release.pub", "sealed.apr"];
    let said = fails(at, 1, &verify);
    assert!(
        said.contains("(Encrypted)") && said.contains("--content-key"),
        "{said}"
    );
    let said = fails(at, 1, &[&verify[..], &["--content-key", "other.key"]].concat());
    assert!(said.contains("(WrongContentKey)"), "{said}");
    let key = ["--content-key", "content.key"];
    assert!(ok(at, &[&verify[..], &key].concat()).contains("verified"));
    let score = [
        "score",
        "--model",
        "sealed.apr",
        "--key",
        "release.pub",
        "--input",
        "normal.jsonl",
    ];
    assert!(ok(at, &[&score[..], &key].concat()).contains("300 windows"));

    ok(
        at,
        &[
            "decrypt",
            "--content-key",
            "content.key",
            "sealed.apr",
            "--output",
            "back.apr",
        ],
    );
    let read = |name: &str| fs::read(at.join(name)).expect("there");
    assert_eq!(read("back.apr"), read("plain.apr"));
    let said = fails(at, 3, &["encrypt", "--content-key", "content.key", "model.apr"]);
    assert!(said.contains("sign then"), "{said}");

    let inspect = ["inspect", "sealed.apr", "--content-key"];
    assert!(ok(at, &[&inspect[..], &["content.key"]].concat()).contains("give --key"));
    let output = vigia(at, &[&inspect[..], &["other.key"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("(WrongContentKey)"));
}

#[test]
fn a_key_of_the_other_kind_is_refused() {
    let folder = trained();
    let at = folder.path();
    ok(at, &["train", "--input", "normal.jsonl", "-o", "plain.apr"]);
    ok(at, &["keygen", "--content", "content.key"]);
    let said = fails(at, 3, &["sign", "--key", "content.key", "plain.apr"]);
    let words = "content.key: a key to encrypt with, not one to sign with";
    assert!(said.contains(words), "{said}");
    let train = ["train", "--input", "normal.jsonl", "--sign-key", "content.key"];
    assert!(fails(at, 3, &train).contains(words));
    let encrypt = ["encrypt", "plain.apr", "--content-key", "release.key"];
    let said = fails(at, 3, &encrypt);
    assert!(
        said.contains("release.key: not a key to encrypt with") && said.contains("keygen --content"),
        "{said}"
    );

    // What once was written to sign with says no kind, and may be the one or the other.
    let text = fs::read_to_string(at.join("release.key")).expect("a key");
    let bare = text.strip_prefix("vigia-signing-key:").expect("says its kind");
    fs::write(at.join("old.key"), bare).expect("written");
    fs::set_permissions(at.join("old.key"), fs::Permissions::from_mode(0o600)).expect("chmod");
    let said = fails(at, 3, &["sign", "--key", "old.key", "plain.apr"]);
    assert!(
        said.contains("old.key: does not say") && said.contains("vigia-signing-key: before"),
        "{said}"
    );
    // A private key in the place of the public one, of both forms.
    let public = fs::read_to_string(at.join("release.pub")).expect("a key");
    let said = fails(at, 3, &["verify", "model.apr", "--key", "release.key"]);
    assert!(
        said.contains("a private key") && said.contains(public.trim()),
        "{said}"
    );
    let output = vigia(at, &["verify", "model.apr", "--key", "old.key"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    // What is no point of the curve is no public key; else it is the signer's private half.
    assert!(
        said.contains("not an Ed25519 public key") || said.contains(public.trim()),
        "{said}"
    );
    let said = fails(at, 3, &["verify", "model.apr", "--key", "content.key"]);
    assert!(said.contains("--content-key"), "{said}");

    // What was sealed when keys did not say their kind is read all the same.
    ok(at, &["encrypt", "plain.apr", "--content-key", "content.key"]);
    let text = fs::read_to_string(at.join("content.key")).expect("a key");
    let bare = text.strip_prefix("vigia-content-key:").expect("says its kind");
    fs::write(at.join("content.key"), bare).expect("written");
    let decrypt = ["decrypt", "plain.apr", "--content-key", "content.key"];
    ok(at, &[&decrypt[..], &["--output", "back.apr"]].concat());
}

#[test]
fn windows_given_twice_count_once() {
    let folder = trained();
    let at = folder.path();
    fs::copy(at.join("normal.jsonl"), at.join("copy.jsonl")).expect("copied");
    let train = |inputs: &[&str], to: &str| {
        let mut args = vec!["train", "-o", to];
        inputs.iter().for_each(|input| args.extend(["--input", input]));
        vigia(at, &args)
    };
    assert!(train(&["normal.jsonl"], "once.apr").status.success());
    let output = train(&["normal.jsonl", "normal.jsonl", "copy.jsonl"], "thrice.apr");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("600 windows given more than once"), "{said}");
    let read = |name: &str| fs::read(at.join(name)).expect("there");
    assert_eq!(read("once.apr"), read("thrice.apr"));
    // Nor does it matter in which order they come, or that they overlap: the digest is of what came before each, too.
    let lines = fs::read_to_string(at.join("normal.jsonl")).expect("a file");
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    fs::write(at.join("first.jsonl"), lines[..200].concat()).expect("a file");
    fs::write(at.join("then.jsonl"), lines[150..].concat()).expect("a file");
    let output = train(&["then.jsonl", "first.jsonl"], "parts.apr");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("50 windows given more than once"), "{said}");
    assert_eq!(read("once.apr"), read("parts.apr"));
}

#[test]
fn windows_of_another_length_than_the_models_are_told_of() {
    let folder = trained();
    let at = folder.path();
    let longer = windows(40, None).replace(r#""duration_ms":2000"#, r#""duration_ms":10000"#);
    fs::write(at.join("longer.jsonl"), longer).expect("a file");
    let score = |input: &str| {
        let output = vigia(
            at,
            &[
                "score",
                "--model",
                "model.apr",
                "--key",
                "release.pub",
                "--input",
                input,
            ],
        );
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(score("normal.jsonl"), "");
    let said = score("longer.jsonl");
    assert!(
        said.contains("longer.jsonl: 40 of 40 windows of another length") && said.contains("(10 s, not 2 s)"),
        "{said}"
    );
}

#[test]
fn windows_of_other_calls_are_not_scored_and_a_mix_is_told_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let of = |windows: String, capture: &str| {
        windows.replace(r#""calls":0"#, &format!(r#""capture":"{capture}","calls":0"#))
    };
    let other = "0123456789abcdef".repeat(2);
    fs::write(at.join("all.jsonl"), of(windows(300, None), "all")).expect("a file");
    fs::write(at.join("some.jsonl"), of(windows(60, None), &other)).expect("a file");
    let both = of(windows(20, None), &other) + &of(windows(40, None), "all");
    fs::write(at.join("both.jsonl"), both).expect("a file");
    ok(at, &["convert", "all.jsonl", "all.parquet"]);
    ok(at, &["convert", "all.parquet", "vectors.jsonl"]);
    // Whichever way the windows go, what they are of goes with them.
    for input in ["all.jsonl", "all.parquet", "vectors.jsonl"] {
        ok(at, &["train", "--input", input, "-o", "m.apr"]);
        let said: serde_json::Value =
            serde_json::from_str(&ok(at, &["inspect", "m.apr", "-o", "json"])).expect("json");
        assert_eq!(said["labels"]["captures"], "all", "{input}");
    }
    let score = |input| ["score", "--model", "m.apr", "--unsigned", "--input", input];
    let said = fails(at, 3, &score("some.jsonl"));
    assert!(
        said.contains("of other system calls than these (-e)") && said.contains("recorded without -e, or"),
        "{said}"
    );
    ok(at, &["convert", "some.jsonl", "some.parquet"]);
    fails(at, 3, &score("some.parquet"));
    let output = vigia(at, &score("both.jsonl"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("both.jsonl: 20 windows left out, of other system calls"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("40 windows: "));
    // Nor do they say what came before the others.
    fs::write(at.join("alone.jsonl"), of(windows(40, None), "all")).expect("a file");
    let train = [
        "train",
        "--estimator",
        "ets",
        "--input",
        "all.jsonl",
        "-o",
        "ets.apr",
    ];
    ok(at, &train);
    let score = |input| {
        ok(
            at,
            &["score", "--model", "ets.apr", "--unsigned", "--input", input],
        )
    };
    assert_eq!(score("both.jsonl"), score("alone.jsonl"));

    let train = |inputs: &[&str]| {
        let output = vigia(at, &[&["train", "-o", "mixed.apr", "--input"], inputs].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_eq!(train(&["all.jsonl"]), "");
    let said = train(&["all.jsonl", "some.jsonl"]);
    assert!(
        said.contains("warning: windows of 2 sets of system calls (-e): "),
        "{said}"
    );
    let longer = windows(60, None).replace(r#""duration_ms":2000"#, r#""duration_ms":10000"#);
    fs::write(at.join("longer.jsonl"), of(longer, "all")).expect("a file");
    let said = train(&["all.jsonl", "longer.jsonl"]);
    assert!(said.contains("warning: windows of 2 s and 10 s: "), "{said}");
    // A model of both lengths takes both for its own.
    let output = vigia(
        at,
        &[
            "score",
            "--model",
            "mixed.apr",
            "--unsigned",
            "--input",
            "all.jsonl",
            "longer.jsonl",
        ],
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");

    let wrong = of(windows(1, None), "All");
    fs::write(at.join("wrong.jsonl"), wrong).expect("a file");
    let said = fails(at, 3, &["train", "--input", "wrong.jsonl"]);
    assert!(
        said.contains("wrong.jsonl: line 1: neither \"all\" nor 32"),
        "{said}"
    );
}

/// A GGUF file's keys and, by name, its tensors' shapes, types and places, read by the format's own words.
struct Gguf<'a> {
    rest: &'a [u8],
}

impl<'a> Gguf<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(n);
        self.rest = rest;
        head
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn text(&mut self) -> String {
        let n = self.u64() as usize;
        String::from_utf8(self.take(n).to_vec()).expect("text")
    }
}

#[test]
fn a_model_is_exported_as_gguf() {
    let folder = trained();
    let at = folder.path();
    let convert = ["convert", "--key", "release.pub", "model.apr"];
    ok(at, &[&convert[..], &["model.gguf"]].concat());
    let bytes = fs::read(at.join("model.gguf")).expect("written");
    let mut file = Gguf { rest: &bytes };
    assert_eq!(file.take(4), b"GGUF");
    assert_eq!(file.u32(), 3);
    let (tensors, keys) = (file.u64(), file.u64());
    let mut names = Vec::new();
    for _ in 0..keys {
        names.push(file.text());
        match file.u32() {
            4 => drop(file.u32()),
            7 => drop(file.take(1)),
            8 => drop(file.text()),
            11 | 12 => drop(file.u64()),
            other => panic!("type {other} of {names:?}"),
        }
    }
    for key in [
        "general.architecture",
        "general.alignment",
        "vigia.task",
        "vigia.tests",
    ] {
        assert!(names.iter().any(|name| name == key), "{key}: {names:?}");
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        let name = file.text();
        let dimensions = file.u32();
        let count: u64 = (0..dimensions).map(|_| file.u64()).product();
        let element = file.u32();
        let size = match element {
            0 | 26 => 4 * count,
            27 => 8 * count,
            other => panic!("type {other} of {name}"),
        };
        places.push((name, element, file.u64() as usize, size as usize));
    }
    let start = (bytes.len() - file.rest.len()).next_multiple_of(32);
    let mut end = 0;
    for (name, _, place, size) in &places {
        assert_eq!(*place, end, "{name}");
        end = (place + size).next_multiple_of(32);
    }
    assert_eq!(start + end, bytes.len());
    let tensor = |name: &str| {
        let (_, element, place, size) = places.iter().find(|p| p.0 == name).expect("a tensor");
        (*element, &bytes[start + place..start + place + size])
    };
    let (element, thresholds) = tensor("members.1.IsolationForest.threshold");
    assert_eq!(element, 0);
    let (element, features) = tensor("members.1.IsolationForest.feature");
    assert_eq!((element, features.len()), (26, thresholds.len()));
    let finite = |b: &[u8; 4]| f32::from_le_bytes(*b).is_finite();
    assert!(thresholds.as_chunks().0.iter().all(finite));

    let said = fails(
        at,
        3,
        &[&convert[..], &["small.apr", "--quantize", "q8_0"]].concat(),
    );
    assert!(
        said.contains("no network") && said.contains("autoencoder"),
        "{said}"
    );
}

#[test]
fn a_network_in_few_bits_is_smaller_and_says_what_that_costs() {
    let folder = trained();
    let at = folder.path();
    ok(
        at,
        &[
            "train",
            "--input",
            "normal.jsonl",
            "-o",
            "network.apr",
            "--estimator",
            "autoencoder",
        ],
    );
    let size = |name: &str| fs::metadata(at.join(name)).expect("there").len();
    let quantize = ["convert", "network.apr", "small.apr", "--quantize"];
    let before = ["convert", "--quantize", "q8_0", "--on", "normal.jsonl"];
    let said = ok(at, &[&before[..], &["network.apr", "small.apr"]].concat());
    assert!(said.contains("300 windows: scores differ by 0."), "{said}");
    assert!(said.contains("weights in q8_0, unsigned"), "{said}");
    assert!(size("small.apr") < size("network.apr") / 2);
    let score = [
        "score",
        "--unsigned",
        "--input",
        "normal.jsonl",
        "--model",
        "small.apr",
    ];
    assert!(ok(at, &score).contains("300 windows: 0 high"));
    let described = ok(at, &["inspect", "-o", "json", "small.apr"]);
    assert!(described.contains("quantized.scoreDifferenceMax"), "{described}");
    let eight = size("small.apr");
    let said = ok(at, &[&quantize[..], &["q4_0"]].concat());
    assert!(
        said.contains("accuracy was not measured") && said.contains("--on"),
        "{said}"
    );
    let described = ok(at, &["inspect", "small.apr"]);
    assert!(described.contains("accuracyLost = not measured"), "{described}");
    assert!(size("small.apr") < eight);
    fails(at, 2, &[&quantize[..], &["q5_0"]].concat());

    // The weights as blocks: the same file as of a model that was quantized before.
    ok(
        at,
        &["convert", "network.apr", "small.gguf", "--quantize", "q4_0"],
    );
    ok(at, &["convert", "small.apr", "two-steps.gguf"]);
    let written = fs::read(at.join("small.gguf")).expect("written");
    assert!(written.starts_with(b"GGUF"));
    assert_eq!(written, fs::read(at.join("two-steps.gguf")).expect("written"));
    let said = fails(
        at,
        3,
        &["convert", "network.apr", "small.json", "--quantize", "q8_0"],
    );
    assert!(said.contains("nothing quantizes"), "{said}");
}

#[test]
fn a_model_that_sees_little_says_so_and_names_what_stands_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    // Steady, but for three bursts of what is loaded.
    let lines = (0..240u64).map(|i| {
        let started = 1_795_255_200_000 + 100 * i;
        let wander = (i * 37) % 41;
        let burst = match i {
            33 | 93 | 150 => format!(
                r#",{{"name":"openat","calls":{}}},{{"name":"mmap","calls":{}}},{{"name":"lseek","calls":200}}"#,
                100 + i,
                3 * i
            ),
            _ => String::new(),
        };
        format!(
            r#"{{"started_ms":{started},"duration_ms":100,"arch":"x86_64","calls":0,"errors":0,"syscalls":[{{"name":"read","calls":{}}}{burst}]}}"#,
            600 + wander
        ) + "\n"
    });
    fs::write(at.join("w.jsonl"), lines.collect::<String>()).expect("a file");
    let train = |estimators: &str| {
        let args = "train --input w.jsonl -o m.apr --format json --estimator";
        let args: Vec<&str> = args.split(' ').chain([estimators]).collect();
        let output = vigia(at, &args);
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
        (told, String::from_utf8(output.stderr).expect("text"))
    };
    // A forest sees no new calls, by how it works.
    let (told, said) = train("isolation-forest");
    assert!(
        said.contains("warning: m.apr: InjectionRecall is ") && said.contains("add novelty"),
        "{said} {told}"
    );
    assert_eq!(told["failedGates"][0]["metric"], "InjectionRecall", "{told}");
    assert_eq!(told["failedGates"][0]["atLeast"], 0.9, "{told}");
    let odd = told["oddestStartedMs"].as_array().expect("windows").iter();
    let mut odd: Vec<u64> = odd
        .filter_map(|ms| Some((ms.as_u64()? - 1_795_255_200_000) / 100))
        .collect();
    odd.sort_unstable();
    assert_eq!(odd, [33, 93, 150], "{told}");
    let scored = vigia(at, &["score", "--model", "m.apr", "--input", "w.jsonl"]);
    let said = String::from_utf8_lossy(&scored.stderr);
    assert_eq!(
        said.matches("warning: m.apr: InjectionRecall is ").count(),
        1,
        "{said}"
    );

    // What it advises helps.
    let (told, said) = train("isolation-forest,novelty");
    assert_eq!(told["failedGates"], serde_json::json!([]), "{told}");
    assert_eq!(said, "");
}

#[test]
fn a_recording_that_was_broken_off_is_good_for_its_whole_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let whole = windows(120, None);
    let path = folder.path().join("w.jsonl");
    fs::write(&path, &whole[..whole.len() - 40]).expect("a file");
    let output = vigia(folder.path(), &["train", "--input", "w.jsonl"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("w.jsonl: line 120 is cut short"), "{said}");
    // In the middle it is no recording any more, and a file of nothing else is none.
    fs::write(&path, format!("{}\n{whole}", &whole[..40])).expect("a file");
    assert!(fails(folder.path(), 3, &["train", "--input", "w.jsonl"]).contains("line 1"));
    fs::write(&path, &whole[..40]).expect("a file");
    assert!(fails(folder.path(), 3, &["train", "--input", "w.jsonl"]).contains("line 1"));
}

#[test]
fn no_output_is_written_over_an_input_or_another_output() {
    let folder = trained();
    let at = folder.path();
    ok(at, &["train", "--input", "normal.jsonl", "-o", "plain.apr"]);
    ok(at, &["keygen", "--content", "content.key"]);
    ok(
        at,
        &[
            "encrypt",
            "--content-key",
            "content.key",
            "plain.apr",
            "--output",
            "sealed.apr",
        ],
    );
    fs::hard_link(at.join("normal.jsonl"), at.join("twin.jsonl")).expect("a link");
    let all = || {
        let names = [
            "normal.jsonl",
            "plain.apr",
            "sealed.apr",
            "release.key",
            "content.key",
        ];
        names.map(|name| fs::read(at.join(name)).expect("there"))
    };
    let before = all();
    for line in [
        "train --input normal.jsonl -o normal.jsonl",
        "train --input normal.jsonl -o ./twin.jsonl",
        "train --input normal.jsonl --sign-key release.key -o release.key",
        "convert plain.apr plain.apr --quantize q8_0",
        "convert normal.jsonl WHERE/normal.jsonl",
        "sign --key release.key plain.apr --output release.key",
        "encrypt --content-key content.key plain.apr --output content.key",
        "decrypt --content-key content.key sealed.apr --output sealed.apr",
        "decrypt --content-key content.key sealed.apr --output content.key",
        "trace --output both.parquet --save-model ./both.parquet -- true",
        "trace --baseline normal.jsonl --output normal.jsonl -- true",
        "trace --load-model plain.apr --save-model plain.apr -- true",
    ] {
        let line = line.replace("WHERE", at.to_str().expect("text"));
        let said = fails(at, 2, &line.split(' ').collect::<Vec<_>>());
        assert!(said.contains("are the same file"), "{line}: {said}");
        assert!(all() == before, "{line}");
    }
    assert!(!at.join("both.parquet").exists());
    // In its own place, a model is signed on purpose.
    ok(at, &["sign", "--key", "release.key", "plain.apr"]);
}

#[test]
fn a_wrong_line_is_told_by_its_number_alone() {
    let folder = trained();
    let at = folder.path();
    let (good, zero) = (windows(2, None), windows(1, None).replace(":2000,", ":0,"));
    for (line, words) in [
        (zero.as_str(), "line 3: duration_ms: 0 is no window's length"),
        ("{\"started_ms\":\"soon\"}\n", "line 3: invalid type"),
    ] {
        fs::write(at.join("w.jsonl"), format!("{good}{line}")).expect("a file");
        for command in [
            "train --input w.jsonl -o m.apr",
            "score --model model.apr --key release.pub --input w.jsonl",
        ] {
            let said = fails(at, 3, &command.split(' ').collect::<Vec<_>>());
            assert!(said.contains(words) && !said.contains("column"), "{said}");
        }
    }
}

#[test]
fn of_no_window_it_is_not_said_that_nothing_is_odd() {
    let folder = trained();
    let at = folder.path();
    fs::write(at.join("none.jsonl"), "").expect("a file");
    let score = "score --model model.apr --key release.pub --input none.jsonl";
    let score: Vec<&str> = score.split(' ').collect();
    assert!(ok(at, &score).contains("0 windows"));
    let said = fails(at, 3, &[&score[..], &["--fail"]].concat());
    assert!(said.contains("none.jsonl: no window in it"), "{said}");
    let nameless = ["train", "--input", "normal.jsonl", "--name", ""];
    assert!(fails(at, 2, &nameless).contains("--name"));
}

/// Windows of the server while it is attacked with calls that it makes anyway: it writes more, and reads less.
fn attacked(n: u32) -> String {
    let lines = (0..n).map(|i| {
        let load = 50 + (i * 37) % 41 + (i * 11) % 13;
        let started = STARTED_MS + 10_000_000 + 2_000 * u64::from(i);
        format!(
            r#"{{"started_ms":{started},"duration_ms":2000,"arch":"x86_64","target":"server","calls":0,"errors":0,"syscalls":[{{"name":"read","calls":{}}},{{"name":"write","calls":{}}},{{"name":"epoll_wait","calls":{}}}]}}"#,
            load * 2,
            load * 4,
            load * 2
        ) + "\n"
    });
    lines.collect()
}

#[test]
fn recorded_attacks_teach_classifiers_and_validation_says_how_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    fs::write(at.join("normal.jsonl"), windows(300, None)).expect("a file");
    fs::write(at.join("attack.jsonl"), attacked(30)).expect("a file");
    fs::write(
        at.join("again.jsonl"),
        attacked(50).lines().skip(30).collect::<Vec<_>>().join("\n"),
    )
    .expect("a file");
    let train = |to: &str, more: &[&str]| {
        let usual = "train --input normal.jsonl --estimator novelty,random-forest --format json -o";
        let args: Vec<&str> = usual.split(' ').chain([to]).chain(more.iter().copied()).collect();
        serde_json::from_str::<serde_json::Value>(&ok(at, &args)).expect("json")
    };
    let made_up = train("made-up.apr", &[]);
    let told = train("m.apr", &["--malicious", "attack.jsonl"]);
    let metrics = &told["metrics"];
    assert_eq!(metrics["MaliciousRecall"], 1.0, "{told}");
    assert_eq!(metrics["RandomForestMaliciousRecall"], 1.0, "{told}");
    assert_eq!(metrics["MaliciousTrainingWindows"], 24.0, "{told}");
    assert_eq!(metrics["MaliciousHoldoutWindows"], 6.0, "{told}");
    assert_eq!(metrics.get("SuspiciousRecall"), None, "{told}");
    assert_eq!(metrics["TrainingWindows"], made_up["metrics"]["TrainingWindows"]);
    train("again.apr", &["--malicious", "attack.jsonl"]);
    let read = |name: &str| fs::read(at.join(name)).expect("there");
    assert_eq!(read("m.apr"), read("again.apr"));
    let inspect = |name: &str| {
        let said = ok(at, &["inspect", name, "-o", "json"]);
        serde_json::from_str::<serde_json::Value>(&said).expect("json")
    };
    let (with, without) = (inspect("m.apr"), inspect("made-up.apr"));
    assert_ne!(with["dataDigest"], without["dataDigest"], "{with}");
    assert_eq!(with["metrics"], *metrics, "{with}");

    // The same attack at another time is told, and by its name.
    let args = [
        "score",
        "--model",
        "m.apr",
        "--unsigned",
        "--input",
        "again.jsonl",
    ];
    let said = ok(at, &args);
    assert!(
        said.contains("20 windows: ") && said.contains(" 0 none"),
        "{said}"
    );
    assert!(said.contains("malicious"), "{said}");
    // What nobody would be told of is not found, whatever the classifier calls it: windows that look like normal ones.
    let later = windows(340, None)
        .lines()
        .skip(300)
        .collect::<Vec<_>>()
        .join("\n");
    fs::write(at.join("quiet.jsonl"), later).expect("a file");
    let quiet = "train --input normal.jsonl --malicious quiet.jsonl --estimator novelty,random-forest";
    let output = vigia(at, &quiet.split(' ').collect::<Vec<_>>());
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(
        said.contains("of the windows of --malicious that were held out"),
        "{said}"
    );
    // The other class is another word for it, and text says what json says.
    let args =
        "train --input normal.jsonl --estimator random-forest,mlp-classifier --suspicious attack.jsonl";
    let said = ok(at, &args.split(' ').collect::<Vec<_>>());
    for line in [
        "SuspiciousRecall 1",
        "RandomForestSuspiciousRecall 1",
        "MLPClassifierSuspiciousRecall 1",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
}

#[test]
fn labels_that_teach_nothing_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = folder.path();
    let write = |name: &str, text: String| fs::write(at.join(name), text).expect("a file");
    write("normal.jsonl", windows(100, None));
    write("copy.jsonl", windows(120, None));
    write("attack.jsonl", attacked(20));
    write("empty.jsonl", String::new());
    write("one.jsonl", attacked(1));
    write(
        "some.jsonl",
        attacked(20).replace(
            r#""calls":0"#,
            &format!(r#""capture":"{}","calls":0"#, "01".repeat(16)),
        ),
    );
    write(
        "all.jsonl",
        windows(100, None).replace(r#""calls":0"#, r#""capture":"all","calls":0"#),
    );
    write(
        "longer.jsonl",
        attacked(20).replace(r#""duration_ms":2000"#, r#""duration_ms":10000"#),
    );
    let vector = |schema: &str, value: &str| {
        format!(
            r#"{{"schema":"{schema}","source":"0000000000000001","started_ms":1,"window_ms":2000,"features":{{"total":{value}}}}}"#
        )
    };
    write("schema.jsonl", vector("syscalls/v0", "1"));
    write("wide.jsonl", vector("vigia.syscalls.v1", "1e9"));
    write("nan.jsonl", vector("vigia.syscalls.v1", "NaN"));
    let train = |more: &str| {
        let args = format!("train --estimator random-forest --input {more}");
        let output = vigia(at, &args.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8(output.stderr).expect("text");
        (output.status.code(), said)
    };
    for (more, code, words) in [
        (
            "normal.jsonl --malicious empty.jsonl",
            3,
            "--malicious: 0 windows, and at least 10",
        ),
        (
            "normal.jsonl --suspicious one.jsonl",
            3,
            "--suspicious: 1 window, and at least 10",
        ),
        (
            "normal.jsonl --malicious normal.jsonl",
            3,
            "--malicious: 100 of 100 windows are in --input too",
        ),
        (
            "normal.jsonl --malicious copy.jsonl",
            3,
            "--malicious: 100 of 120 windows are in --input too",
        ),
        (
            "normal.jsonl --suspicious attack.jsonl --malicious attack.jsonl",
            3,
            "--malicious: 20 of 20 windows are in --suspicious too",
        ),
        (
            "all.jsonl --malicious some.jsonl",
            3,
            "20 windows of other system calls",
        ),
        (
            "normal.jsonl --malicious schema.jsonl",
            3,
            "schema.jsonl: line 1: schema \"syscalls/v0\" is not",
        ),
        ("normal.jsonl --malicious wide.jsonl", 3, "wide.jsonl: line 1: "),
        ("normal.jsonl --malicious nan.jsonl", 3, "nan.jsonl: line 1: "),
        ("normal.jsonl --malicious missing.jsonl", 3, "missing.jsonl: "),
        (
            "normal.jsonl --malicious attack.jsonl -o attack.jsonl",
            2,
            "are the same file",
        ),
    ] {
        let (status, said) = train(more);
        assert_eq!(status, Some(code), "{more}: {said}");
        assert!(said.contains(words), "{more}: {said}");
    }
    let none = fails(
        at,
        2,
        &["train", "--input", "normal.jsonl", "--malicious", "attack.jsonl"],
    );
    assert!(
        none.contains("--malicious: no estimator of this model learns from")
            && none.contains("random-forest or mlp-classifier"),
        "{none}"
    );
    let (status, said) = train("normal.jsonl --malicious longer.jsonl");
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("warning: --malicious: 20 windows of another length"),
        "{said}"
    );
}
