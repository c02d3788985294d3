//! Output that cannot be written: never lost without a word, never a panic.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// Where nothing can be written.
fn full() -> Stdio {
    Stdio::from(
        File::options()
            .write(true)
            .open("/dev/full")
            .expect("Linux has it"),
    )
}

fn vigia(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("vigia"));
    command.current_dir(folder).args(args).stdin(Stdio::null());
    command
}

fn done(folder: &Path, args: &[&str]) -> Output {
    let output = vigia(folder, args).output().expect("runs");
    assert!(output.status.success(), "{args:?}: {output:?}");
    output
}

/// A folder with windows, and a model of them that bears a signature.
fn trained() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let lines = (0..120u64).map(|i| {
        let started = 1_795_255_200_000 + 2_000 * i;
        let calls = 50 + (i * 37) % 41;
        format!(
            r#"{{"started_ms":{started},"duration_ms":2000,"arch":"x86_64","calls":0,"errors":0,"syscalls":[{{"name":"read","calls":{calls}}}]}}"#
        ) + "\n"
    });
    fs::write(folder.path().join("w.jsonl"), lines.collect::<String>()).expect("a file");
    let public = done(folder.path(), &["keygen", "k.key"]).stdout;
    fs::write(folder.path().join("k.pub"), public).expect("a file");
    let train = "train --input w.jsonl -o m.apr --sign-key k.key";
    done(folder.path(), &train.split(' ').collect::<Vec<_>>());
    folder
}

#[test]
fn a_full_disk_is_told_of_whatever_was_to_be_said() {
    let folder = trained();
    let at = folder.path();
    for line in [
        "--help",
        "trace --help",
        "--version",
        "completions bash",
        "keygen new.key",
        "keygen --content new.content",
        "keygen -y k.key",
        "inspect m.apr",
        "inspect m.apr -o json",
        "verify --key k.pub m.apr",
        "verify --key k.pub m.apr -o json",
        "score --model m.apr --key k.pub --input w.jsonl",
        "score --model m.apr --key k.pub --input w.jsonl --from none -o json",
        "train --input w.jsonl -o again.apr",
        "train --input w.jsonl -o again.apr --format json",
        "trace -o json -- true",
        "trace -c -o json -- true",
        "trace --window 1s -o json -- true",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let output = vigia(at, &args).stdout(full()).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{line}: {said}");
        let told = said
            .matches("error: standard output: No space left on device")
            .count();
        assert_eq!(told, 1, "{line}: {said}");
        assert!(!said.contains("panicked"), "{line}: {said}");
    }
    // What was to be done was done.
    assert!(at.join("again.apr").exists() && at.join("new.key").exists());
}

#[test]
fn where_nothing_can_be_said_the_code_does() {
    let folder = trained();
    for line in [
        "trace -- true",
        "trace -c -- true",
        "trace --window 1s -- true",
        "inspect --content-key none m.apr",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let mut command = vigia(folder.path(), &args);
        let status = command.stdout(full()).stderr(full()).status().expect("runs");
        let code = if line.starts_with("trace") { 4 } else { 3 };
        assert_eq!(status.code(), Some(code), "{line}");
    }
    // What is wrong with the command line is that, whoever hears of it.
    let status = vigia(folder.path(), &["nonsense"]).stderr(full()).status();
    assert_eq!(status.expect("runs").code(), Some(2));
}

#[test]
fn a_trace_goes_on_and_is_recorded_where_its_report_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let args = "trace --window 100ms --warm-up 0s --output w.jsonl -o json -- sh -c";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.push("for i in 1 2 3 4 5; do sleep 0.4; done; echo done > done; exit 7");
    let output = vigia(folder.path(), &args).stdout(full()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(folder.path().join("done").exists(), "{said}");
    let recorded = fs::read_to_string(folder.path().join("w.jsonl")).expect("a recording");
    assert!(
        recorded.lines().count() > 2 && recorded.ends_with("}\n"),
        "{recorded}"
    );
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = trained();
    for line in [
        "inspect m.apr",
        "score --model m.apr --key k.pub --input w.jsonl --from none",
        "--help",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = vigia(folder.path(), &args).stdout(writer).output().expect("runs");
        assert_eq!(output.status.signal(), Some(libc::SIGPIPE), "{line}: {output:?}");
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
    }
}

#[test]
fn the_public_half_of_a_key_can_be_had_again() {
    let folder = trained();
    let at = folder.path();
    let again = done(at, &["keygen", "-y", "k.key"]);
    assert_eq!(again.stdout, fs::read(at.join("k.pub")).expect("a key"));
    assert!(again.stderr.is_empty(), "{again:?}");
    let id = done(at, &["keygen", "--content", "c.key"]).stdout;
    assert_eq!(done(at, &["keygen", "--content", "-y", "c.key"]).stdout, id);

    let refused = |args: &[&str]| {
        let output = vigia(at, args).output().expect("runs");
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["keygen", "-y", "none.key"]).contains("none.key"));
    assert!(!at.join("none.key").exists(), "it makes none");
    assert!(refused(&["keygen", "-y", "c.key"]).contains("c.key"));
    assert!(refused(&["keygen", "-y", "k.pub"]).contains("k.pub"));

    let unsaid = vigia(at, &["keygen", "new.key"])
        .stdout(full())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&unsaid.stderr);
    assert!(said.contains("`vigia keygen -y new.key`"), "{said}");
    done(at, &["keygen", "-y", "new.key"]);
}

#[test]
fn a_key_that_cannot_be_written_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    // No byte may be written to a file, and the signal that says so is ignored, as where a disk is full.
    let limited = "ulimit -f 0; trap '' XFSZ; exec \"$0\" keygen k.key";
    let program = assert_cmd::cargo::cargo_bin("vigia");
    let mut command = Command::new("sh");
    command
        .args(["-c", limited])
        .arg(program)
        .current_dir(folder.path());
    let output = command.output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("k.key: File too large"), "{said}");
    assert!(!folder.path().join("k.key").exists(), "{said}");
    done(folder.path(), &["keygen", "k.key"]);
}

#[test]
fn a_closed_output_is_told_of_and_one_that_nobody_wants_more_of_is_not() {
    let folder = trained();
    let at = folder.path();
    let shell = |script: &str, args: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(assert_cmd::cargo::cargo_bin("vigia"));
        let output = command.args(args.split(' ')).current_dir(at).output();
        output.expect("runs")
    };
    for args in [
        "--help",
        "trace --help",
        "--version",
        "completions bash",
        "inspect m.apr",
        "score --model m.apr --key k.pub --input w.jsonl",
    ] {
        let closed = shell("exec \"$0\" \"$@\" >&-", args);
        let said = String::from_utf8_lossy(&closed.stderr);
        assert_eq!(closed.status.code(), Some(4), "{args}: {said}");
        assert!(
            said.contains("standard output: Bad file descriptor"),
            "{args}: {said}"
        );
        let nowhere = shell("exec \"$0\" \"$@\" >/dev/null", args);
        assert!(nowhere.status.success(), "{args}: {nowhere:?}");
        let headed = shell("\"$0\" \"$@\" | head -c 1", args);
        assert!(
            headed.status.success() && headed.stderr.is_empty(),
            "{args}: {headed:?}"
        );
    }
}
