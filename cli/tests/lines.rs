//! `vigia trace` printing a line for each call: by ptrace, on real programs, beside strace.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a machine that is busy with others may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is looked whether something has come.
const LOOK: Duration = Duration::from_millis(20);
/// The least that a pipe holds.
const PAGE: i32 = 4096;

fn vigia() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vigia"));
    command.arg("trace");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lines_of(args: &[&str]) -> (Output, Vec<String>) {
    let output = vigia().args(args).output().expect("runs");
    let lines = text(&output.stderr).lines().map(str::to_owned).collect();
    (output, lines)
}

/// Without what differs from run to run: addresses.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("0x") {
        plain.push_str(&rest[..at + 2]);
        rest = rest[at + 2..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    plain + rest
}

fn compiled(source: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, program) = (folder.path().join("x.c"), folder.path().join("x"));
    fs::write(&file, source).expect("a file");
    let status = Command::new("cc")
        .args(["-pthread", "-o"])
        .args([&program, &file])
        .status();
    assert!(status.expect("a compiler").success());
    let program = program.to_str().expect("text").to_owned();
    (folder, program)
}

#[test]
fn lines_are_those_of_strace() {
    let strace = Command::new("strace").args(["ls", "/"]).output();
    let strace = strace.expect("strace, which `make test` installs and this test compares with");
    let theirs: Vec<String> = text(&strace.stderr).lines().map(plain).collect();
    let (output, ours) = lines_of(&["--", "ls", "/"]);
    assert_eq!(output.stdout, strace.stdout);
    assert_eq!(ours.len(), theirs.len());
    let mut same = 0;
    for (ours, theirs) in ours.iter().map(|line| plain(line)).zip(&theirs) {
        assert_eq!(ours.split('(').next(), theirs.split('(').next());
        same += usize::from(ours == *theirs);
    }
    // Random bytes and thread ids differ by nature, and structures are not shown in full.
    assert!(same * 100 >= theirs.len() * 95, "{same} of {}", theirs.len());
}

#[test]
fn odd_arguments_are_those_of_strace() {
    let (_folder, program) = compiled(include_str!("calls.c"));
    // Without chance in where things lie: addresses are compared too.
    let run = |tracer: &[&str]| {
        let output = Command::new("setarch")
            .arg("-R")
            .args(tracer)
            .arg(&program)
            .output();
        let stderr = text(&output.expect("runs").stderr);
        let own = |line: &&str| !line.starts_with("getpid()");
        let id = stderr
            .lines()
            .find(|line| !own(line))
            .and_then(|line| line.rsplit(' ').next());
        let id = id.expect("its id").to_owned();
        let calls = stderr.lines().skip_while(own).map(|line| line.replace(&id, "ID"));
        calls.collect::<Vec<_>>()
    };
    let ours = run(&[env!("CARGO_BIN_EXE_vigia"), "trace", "--"]);
    assert!(ours.len() > 180, "{ours:#?}");
    assert_eq!(ours.last().map(String::as_str), Some("+++ exited with 0 +++"));
    for expected in [
        ", 1, {tv_sec=0, tv_nsec=1000000}, [USR1], 8) = 0 (Timeout)",
        ", revents=POLLOUT}])",
        "SO_LINGER, {l_onoff=1, l_linger=2}, 8) = 0",
        "0x4d /* SEEK_??? */",
        "rt_sigreturn({mask=[",
    ] {
        assert!(
            ours.iter().any(|line| line.contains(expected)),
            "{expected} in {ours:#?}"
        );
    }
    let strace = Command::new("strace").arg("-V").output();
    strace.expect("strace, which `make test` installs and this test compares with");
    let theirs = run(&["strace"]);
    let differ: Vec<_> = ours
        .iter()
        .zip(&theirs)
        .filter(|(ours, theirs)| ours != theirs)
        .collect();
    assert_eq!(ours.len(), theirs.len(), "{differ:#?}");
    // A strace of another version may have another word here and there.
    assert!(differ.len() * 100 <= 3 * theirs.len(), "{differ:#?}");
}

#[test]
fn every_one_of_a_thousand_children_is_followed() {
    let script = "i=0; while [ $i -lt 1000 ]; do (exit 3); i=$((i+1)); done";
    let (output, lines) = lines_of(&["-f", "-e", "trace=%process", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(0));
    let ends = |words: &str| lines.iter().filter(|line| line.ends_with(words)).count();
    assert_eq!(
        (ends("+++ exited with 3 +++"), ends("+++ exited with 0 +++")),
        (1000, 1)
    );
    let (_, alone) = lines_of(&["--", "sh", "-c", script]);
    assert_eq!(
        alone.iter().filter(|line| line.starts_with("+++ exited")).count(),
        1
    );
    assert!(alone.iter().all(|line| !line.contains("[pid")));
}

#[test]
fn times_and_json_say_the_same() {
    let begun = Instant::now();
    let (_, timed) = lines_of(&["-T", "-e", "clock_nanosleep", "--", "sleep", "0.2"]);
    let whole = begun.elapsed();
    let line = timed
        .iter()
        .find(|line| line.starts_with("clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=0, tv_nsec=200000000}, "));
    let time = line.and_then(|line| line.rsplit_once(" <")).map(|(_, time)| time);
    let digits = time.and_then(|time| time.strip_suffix('>')).expect("a time");
    let fraction = digits.split_once('.').map(|(_, fraction)| fraction.len());
    assert_eq!(fraction, Some(6), "microseconds: {digits}");
    let slept = Duration::from_secs_f64(digits.parse().expect("seconds"));
    // A busy machine may wake it late, but not after the whole command is over.
    assert!(
        (Duration::from_millis(200)..whole).contains(&slept),
        "{slept:?} of {whole:?}"
    );

    let output = vigia()
        .args(["-o", "json", "--ml-anomaly", "--", "ls", "/no/such/folder"])
        .output()
        .expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let documents: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("json"))
        .collect();
    let first = &documents[0];
    assert_eq!(
        (&first["syscall"], &first["result"]),
        (&"execve".into(), &0.into())
    );
    assert_eq!(first["args"][1], "[\"ls\", \"/no/such/folder\"]");
    let missing = |d: &&Value| d["args"][1] == "\"/no/such/folder\"" && d["error"] == "ENOENT";
    assert!(documents.iter().filter(missing).count() >= 1);
    let last = documents.last().expect("a document");
    assert!(last["ml_analysis"]["anomalies"].is_array(), "{last}");
    assert!(documents.iter().any(|d| d["exited"] == 2));
}

#[test]
fn ends_are_told_as_they_were() {
    let (output, lines) = lines_of(&["--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!(output.status.code(), Some(143));
    assert_eq!(
        lines.last().map(String::as_str),
        Some("+++ killed by SIGTERM +++")
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid="))
    );
    let (output, lines) = lines_of(&["--", "sh", "-c", "exit 9"]);
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(lines[lines.len() - 2], format!("{:<40}= ?", "exit_group(9)"));

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("program");
    fs::write(&file, "\x7fELF, but no program").expect("a file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&file, mode).expect("changed");
    let (output, lines) = lines_of(&["--", file.to_str().expect("text")]);
    let said = lines.join("\n");
    // Whether it is a script is for the C library to try.
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("= -1 ENOEXEC (Exec format error)"), "{said}");
    let (output, lines) = lines_of(&["--", folder.path().to_str().expect("text")]);
    assert_eq!(output.status.code(), Some(3), "{lines:?}");
    assert!(lines.join("\n").contains("Permission denied"), "{lines:?}");
    // How our own child ends that could not become the command is not shown.
    assert!(!lines.join("\n").contains("exit_group"), "{lines:?}");
}

#[test]
fn what_is_resumed_is_named() {
    // The child waits until it sees its parent asleep (the stops of a tracer are another state). That its own end is
    // blocked keeps it from interrupting the sleep a second time.
    let (_folder, program) = compiled(
        "#include <signal.h>\n#include <stdio.h>\n#include <sys/wait.h>\n#include <time.h>\n#include <unistd.h>\n\
         static char state(pid_t task) { char file[64], state = 0; snprintf(file, sizeof file, \"/proc/%d/stat\", task); \
         FILE *stat = fopen(file, \"r\"); if (stat) { fscanf(stat, \"%*d %*s %c\", &state); fclose(stat); } return state; }\n\
         int main(void) { pid_t self = getpid(); sigset_t ends; sigemptyset(&ends); sigaddset(&ends, SIGCHLD); \
         sigprocmask(SIG_BLOCK, &ends, 0); if (fork() == 0) { while (getppid() == self && state(self) != 'S') usleep(1000); \
         kill(self, SIGSTOP); usleep(100000); kill(self, SIGCONT); _exit(0); } struct timespec t = {5, 0}; \
         clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0); wait(0); return 0; }",
    );
    let (output, lines) = lines_of(&["--", &program]);
    assert_eq!(output.status.code(), Some(0));
    let resumed = "restart_syscall(<... resuming interrupted clock_nanosleep ...>) = 0";
    assert_eq!(
        lines.iter().filter(|line| *line == resumed).count(),
        1,
        "{lines:#?}"
    );
}

#[test]
fn a_thread_may_become_the_process() {
    let (_folder, program) = compiled(
        "#include <pthread.h>\n#include <unistd.h>\n\
         static void *go(void *x) { char *a[] = {\"/bin/echo\", \"new\", 0}; execv(a[0], a); return x; }\n\
         int main(void) { pthread_t t; pthread_create(&t, 0, go, 0); for (;;) pause(); }",
    );
    let (output, lines) = lines_of(&["--", &program]);
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "new\n")
    );
    let said = lines.join("\n");
    assert!(said.contains("+++ superseded by execve in pid"), "{said}");
    assert!(said.contains("<... execve resumed>)"), "{said}");
    assert_eq!(lines.last().map(String::as_str), Some("+++ exited with 0 +++"));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bits_are_told_by_their_native_names() {
    let (_folder, program) = compiled(
        "int main(void) { int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(20) : \"memory\"); \
         return r > 0 ? 5 : 6; }",
    );
    let (output, lines) = lines_of(&["--", &program]);
    assert_eq!(output.status.code(), Some(5));
    let call = |line: &&String| line.starts_with("getpid@ia32(") && line.contains(" = ");
    assert_eq!(lines.iter().filter(call).count(), 1, "{lines:?}");
    // And what comes after is still told.
    assert_eq!(lines.last().map(String::as_str), Some("+++ exited with 5 +++"));
    let (_, lines) = lines_of(&["-e", "trace=getpid", "--", &program]);
    assert_eq!(lines.iter().filter(call).count(), 1, "{lines:?}");
    let (_, lines) = lines_of(&["-e", "trace=!getpid", "--", &program]);
    assert_eq!(lines.iter().filter(call).count(), 0, "{lines:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bits_show_what_is_the_same_in_both() {
    // access, and mmap by a structure of its arguments.
    let (_folder, program) = compiled(
        "#include <sys/mman.h>\n#include <string.h>\n\
         static int call(int n, void *a, int b) { int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(n), \"b\"(a), \
         \"c\"(b) : \"memory\"); return r; }\n\
         int main(void) { char *low = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0); \
         strcpy(low, \"/no/file\"); call(33, low, 4); memset(low, 0, 24); call(90, low, 0); return 0; }",
    );
    let (_, lines) = lines_of(&["--", &program]);
    let starts = |words: &str| lines.iter().any(|line| line.starts_with(words));
    assert!(starts("access@ia32(\"/no/file\", R_OK) "), "{lines:#?}");
    assert!(starts("mmap@ia32(0x4"), "{lines:#?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bits_are_counted_where_a_filter_has_the_native_ones() {
    // getpid; and connect by socketcall, which from a 64-bit program fails for its address.
    let (_folder, program) = compiled(
        "static int call(int n, int a) { int r; __asm__ volatile(\"int $0x80\" : \"=a\"(r) : \"a\"(n), \"b\"(a), \
         \"c\"(0) : \"memory\"); return r; }\n\
         int main(void) { for (int i = 0; i < 40; i++) { call(20, 0); } call(102, 3); return 0; }",
    );
    let counted = |filter: &str| {
        let output = vigia()
            .args(["-c", "-o", "json", "-e", filter, "--", &program])
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let record: Value = serde_json::from_slice(&output.stdout).expect("json");
        let calls = record["syscalls"].as_array().expect("a list").iter();
        calls
            .map(|call| {
                (
                    call["name"].as_str().expect("a name").to_owned(),
                    call["calls"].as_u64(),
                )
            })
            .collect::<Vec<_>>()
    };
    let of = |name: &str, calls| vec![(name.to_owned(), Some(calls))];
    assert_eq!(counted("getpid"), of("getpid", 40));
    assert_eq!(counted("connect"), of("socket", 1));
    assert!(counted("!getpid").iter().all(|(name, _)| name != "getpid"));
}

struct Running(Child);

impl Running {
    /// A process of five threads that make calls all the time.
    fn start(program: &str) -> Self {
        let mut child = Command::new(program)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut ready = [0];
        child
            .stdout
            .as_mut()
            .expect("piped")
            .read_exact(&mut ready)
            .expect("ready");
        Self(child)
    }

    fn status(&self, key: &str) -> Vec<String> {
        let tasks = Path::new("/proc").join(self.0.id().to_string()).join("task");
        let of = |folder: std::path::PathBuf| {
            let status = fs::read_to_string(folder.join("status")).expect("a task");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .expect("a line");
            line.trim().to_owned()
        };
        fs::read_dir(tasks)
            .expect("tasks")
            .map(|entry| of(entry.expect("a task").path()))
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const THREADS: &str = "#include <pthread.h>\n#include <unistd.h>\n#include <stdio.h>\n\
    static void *loop(void *x) { for (;;) { getppid(); usleep(500); } return x; }\n\
    int main(void) { pthread_t t[4]; for (int i = 0; i < 4; i++) pthread_create(&t[i], 0, loop, 0);\n\
    putchar('r'); fflush(stdout); loop(0); }";

#[test]
fn threads_that_run_are_attached_to_and_let_go() {
    let (_folder, program) = compiled(THREADS);
    let running = Running::start(&program);
    let mut tracer = vigia()
        .args(["-p", &running.0.id().to_string(), "-e", "getppid"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut seen = std::collections::BTreeSet::new();
    let mut lines = BufReader::new(tracer.stdout.take().expect("piped")).lines();
    while seen.len() < 5 {
        let line = lines.next().expect("a line").expect("text");
        if let Some(rest) = line.strip_prefix("[pid ") {
            seen.insert(rest.trim_start().split(']').next().map(str::to_owned));
        }
    }
    let kill = Command::new("kill")
        .args(["-INT", &tracer.id().to_string()])
        .status();
    assert!(kill.expect("runs").success());
    lines.for_each(drop);
    assert_eq!(tracer.wait().expect("ends").code(), Some(0));
    assert!(running.status("TracerPid:").iter().all(|tracer| tracer == "0"));
    let states = running.status("State:");
    assert!(
        states.len() == 5 && states.iter().all(|s| !s.starts_with(['t', 'T'])),
        "{states:?}"
    );
}

#[test]
fn a_process_that_dies_midway_ends_the_trace() {
    let (_folder, program) = compiled(THREADS);
    let running = Running::start(&program);
    let mut tracer = vigia()
        .args(["-p", &running.0.id().to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut lines = BufReader::new(tracer.stdout.take().expect("piped")).lines();
    lines.next().expect("a line").expect("text");
    drop(running);
    let ends = lines.filter(|line| {
        line.as_ref()
            .is_ok_and(|line| line.ends_with("+++ killed by SIGKILL +++"))
    });
    assert_eq!(ends.count(), 5);
    assert_eq!(tracer.wait().expect("ends").code(), Some(0));
}

/// A shell and its child in a process group of their own with their tracer, gone at the end whatever they ignore.
struct Group(Child);

impl Group {
    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.expect("runs").success());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = self.0.id().cast_signed();
        // SAFETY: kill has no memory effects; the group is the one that was made for our child.
        unsafe {
            libc::kill(-group, libc::SIGKILL);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn a_second_signal_leaves_a_command_that_ignores_them() {
    use std::os::unix::process::CommandExt;
    for (options, signal, code) in [
        (&["-f"][..], "-TERM", 143),
        (&["-f"][..], "-INT", 130),
        (&["-c", "-f"][..], "-TERM", 143),
    ] {
        let child = vigia()
            .args(options)
            .args(["--", "sh", "-c", "trap '' TERM INT; echo $$; sleep 1000; :"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut group = Group(child.expect("starts"));
        let mut line = String::new();
        let mut stdout = BufReader::new(group.0.stdout.take().expect("piped"));
        stdout.read_line(&mut line).expect("a line");
        // Standard error does not end with the tracer, as the command has it too.
        let stderr = group.0.stderr.take().expect("piped");
        let (said, lines) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let deadline = Instant::now() + DEADLINE;
        let pause = |what: &str| {
            let until = Instant::now() + Duration::from_millis(400);
            while let Ok(line) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                if line.contains(what) {
                    return true;
                }
            }
            false
        };
        group.signal(signal);
        assert!(!pause("a second signal"), "{options:?} {signal}");
        assert!(
            group.0.try_wait().expect("ours").is_none(),
            "{options:?} {signal}"
        );
        group.signal(signal);
        while !pause("a second signal") {
            assert!(Instant::now() < deadline, "{options:?} {signal}");
            // Those of a Ctrl-C that came too late are the first of two.
            group.signal(signal);
        }
        assert_eq!(group.0.wait().expect("ends").code(), Some(code));
        // It was let go, which it may not have had its turn to notice.
        let deadline = Instant::now() + DEADLINE;
        loop {
            let status = fs::read_to_string(format!("/proc/{}/status", line.trim())).expect("it goes on");
            assert!(status.contains("TracerPid:\t0"), "{status}");
            if status.contains("State:\tS") {
                break;
            }
            assert!(Instant::now() < deadline, "{status}");
            std::thread::park_timeout(LOOK);
        }
        drop(group);
        reader.join().expect("ends");
    }
}

#[test]
fn what_a_command_leaves_behind_does_not_outlast_the_duration() {
    use std::os::unix::process::CommandExt;
    let child = vigia()
        .args(["-f", "--duration", "1s", "--", "sh", "-c", "sleep 1000 & wait"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn();
    let mut group = Group(child.expect("starts"));
    assert_eq!(group.0.wait().expect("ends").code(), Some(143));
}

#[test]
fn arguments_mean_what_the_call_was_given() {
    let (_folder, program) = compiled(
        "#include <sys/stat.h>\n#include <sys/socket.h>\n#include <sys/prctl.h>\n#include <sys/inotify.h>\n\
         #include <sys/syscall.h>\n#include <sys/sysmacros.h>\n#include <fcntl.h>\n#include <time.h>\n#include <unistd.h>\n\
         int main(void) { mknod(\"/no/x\", S_IFIFO | 0600, 0); mknod(\"/no/x\", S_IFBLK | 0640, makedev(8, 1));\n\
         struct timespec s = {0, 1000}, left = {7, 7}; clock_nanosleep(CLOCK_MONOTONIC, 0, &s, &left);\n\
         socket(99, SOCK_STREAM, 1); socket(AF_INET, SOCK_STREAM, 6); prctl(PR_SET_NAME, \"worker\"); inotify_init1(0);\n\
         long how[3] = {O_RDONLY | O_CLOEXEC, 0, 4}; syscall(SYS_openat2, AT_FDCWD, \"/no/y\", how, 24); return 0; }",
    );
    let (_, lines) = lines_of(&["--", &program]);
    for expected in [
        "mknodat(AT_FDCWD, \"/no/x\", S_IFIFO|0600) = ",
        "mknodat(AT_FDCWD, \"/no/x\", S_IFBLK|0640, makedev(0x8, 0x1)) = ",
        "socket(0x63 /* AF_??? */, SOCK_STREAM, 1) ",
        "socket(AF_INET, SOCK_STREAM, IPPROTO_TCP) ",
        "prctl(PR_SET_NAME, \"worker\") ",
        "inotify_init1(0) ",
        "openat2(AT_FDCWD, \"/no/y\", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_NO_SYMLINKS}, 24) = ",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(expected)),
            "{expected} in {lines:#?}"
        );
    }
    let slept = lines.iter().find(|line| line.starts_with("clock_nanosleep("));
    let slept = slept.expect("it slept");
    assert!(
        slept.contains("{tv_sec=0, tv_nsec=1000}, 0x") && !slept.contains("tv_nsec=7"),
        "{slept}"
    );
}

/// Waits until one of a process's threads is in a write that takes its time.
fn until_held_up(process: u32) {
    let write = format!("{} ", libc::SYS_write);
    let writes = || {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("tasks");
        tasks.flatten().any(|task| {
            let now = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
            now.starts_with(&write)
        })
    };
    let deadline = Instant::now() + DEADLINE;
    let mut seen = 0;
    while seen < 5 {
        assert!(Instant::now() < deadline, "it is never held up");
        std::thread::park_timeout(Duration::from_millis(50));
        seen = if writes() { seen + 1 } else { 0 };
    }
}

/// The code of a process that ends by itself, if need be after further signals.
fn ended(group: &mut Group, signal: &str) -> Option<i32> {
    let deadline = Instant::now() + DEADLINE;
    let mut next = Instant::now();
    loop {
        if let Some(status) = group.0.try_wait().expect("ours") {
            return status.code();
        }
        assert!(Instant::now() < deadline, "no signal ends it");
        if next <= Instant::now() {
            group.signal(signal);
            next = Instant::now() + Duration::from_secs(1);
        }
        std::thread::park_timeout(LOOK);
    }
}

/// A pipe of a page.
fn narrow() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: takes two integers and a descriptor that is open.
    let size = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, PAGE) };
    assert!(size > 0, "{}", std::io::Error::last_os_error());
    (reader, writer)
}

#[test]
fn who_does_not_read_holds_nobody_up_for_longer_than_two_signals() {
    use std::os::unix::process::CommandExt;
    let busy = "trap '' TERM; exec yes >/dev/null";
    let mut target = Command::new("sh").args(["-c", busy]).spawn().expect("starts");
    let pid = target.id().to_string();
    let running = ["-p", pid.as_str()];
    let windows = ["-p", pid.as_str(), "--window", "100ms", "-o", "json"];
    for (options, code) in [
        (&["--", "sh", "-c", busy][..], 143),
        (&running, 143),
        (&windows, 143),
    ] {
        // A reader that has gone to sleep: what is written is less than a page.
        let ((stdout, out), (stderr, err)) = (narrow(), narrow());
        let child = vigia()
            .args(options)
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .spawn();
        let mut group = Group(child.expect("starts"));
        until_held_up(group.0.id());
        assert_eq!(ended(&mut group, "-TERM"), Some(code), "{options:?}");
        drop((stdout, stderr));
        assert!(target.try_wait().expect("ours").is_none(), "{options:?}");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it goes on");
        assert!(status.contains("TracerPid:\t0"), "{options:?} {status}");
    }
    target.kill().expect("killed");
    target.wait().expect("ended");
}

#[test]
fn who_does_not_read_lets_nobody_run_for_longer_than_was_said() {
    use std::os::unix::process::CommandExt;
    let busy = "trap '' TERM; echo $$; while :; do read x </dev/null; done";
    let mut tracer = vigia();
    tracer.args([
        "--window",
        "100ms",
        "--duration",
        "3s",
        "-o",
        "json",
        "--",
        "sh",
        "-c",
        busy,
    ]);
    // Nothing more goes in, however few windows there are.
    let (stdout, mut out) = narrow();
    out.write_all(&[b' '; PAGE as usize]).expect("a page");
    let child = tracer.stdout(out).stderr(Stdio::piped()).process_group(0).spawn();
    let mut group = Group(child.expect("starts"));
    let mut line = String::new();
    let mut stderr = BufReader::new(group.0.stderr.take().expect("piped"));
    stderr.read_line(&mut line).expect("its id");
    assert_eq!(group.0.wait().expect("ends").code(), Some(4));
    // Killed, and maybe not yet waited for by who has it now.
    let status = fs::read_to_string(format!("/proc/{}/status", line.trim())).unwrap_or_default();
    assert!(
        status.is_empty() || status.contains("State:\tZ"),
        "{line} {status}"
    );
    drop(stdout);
}

#[test]
fn a_thread_and_an_ancestor_can_be_named() {
    let (_folder, program) = compiled(THREADS);
    let running = Running::start(&program);
    let process = running.0.id();
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("tasks");
    let ids = tasks.map(|task| task.expect("a task").file_name().into_string().expect("digits"));
    let thread = ids.max().expect("a thread");
    assert_ne!(thread, process.to_string());
    for options in [&["-c"][..], &["-e", "getppid"]] {
        let output = vigia()
            .args(options)
            .args(["--duration", "1s", "-p", &thread])
            .output()
            .expect("runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains(&format!("{thread} is a thread of process {process}")),
            "{said}"
        );
        assert!(text(&output.stdout).contains("getppid"), "{options:?}");
    }
    // The tracer is among what the shell has started, and traces all but itself. It starts when the other is asleep.
    let script = "sleep 100 & until grep -q '^State:.S' /proc/$!/status; do :; done; \
                  \"$0\" trace -f --duration 1s -p $$; code=$?; kill $!; exit $code";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_vigia")])
        .output()
        .expect("runs");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines = text(&output.stdout);
    assert!(
        lines.contains("] wait4(-1") && lines.contains("] restart_syscall("),
        "{lines} {said}"
    );
}

#[test]
fn the_end_of_the_terminal_keeps_what_was_recorded() {
    let mut target = Command::new("sleep").arg("1000").spawn().expect("starts");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.jsonl");
    let mut tracer = vigia()
        .args(["-p", &target.id().to_string(), "--window", "100ms", "--output"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = [0];
    let mut stdout = tracer.stdout.take().expect("piped");
    stdout.read_exact(&mut said).expect("a window");
    let tracer = Group(tracer);
    tracer.signal("-HUP");
    let mut tracer = tracer;
    assert_eq!(tracer.0.wait().expect("ends").code(), Some(0));
    let lines = fs::read_to_string(&file).expect("recorded");
    assert!(!lines.is_empty() && lines.ends_with('\n'), "{lines}");
    target.kill().expect("killed");
    target.wait().expect("ended");
}
