//! What is measured runs in processes of its own: this program again, told to be one of them.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Numbers of system calls below those that count as one, that no kernel has: each counts as one of its own, and
/// does nothing.
fn nowhere() -> impl Iterator<Item = i64> {
    (340..424).chain(470..512)
}

/// System calls that are timed together.
const PIECE: i64 = 2_000;

/// Acts as the workload that the arguments name; false where they name none.
pub fn run(args: &[String]) -> bool {
    let number = |at: usize| {
        args.get(at)
            .and_then(|text| text.parse::<i64>().ok())
            .unwrap_or(0)
    };
    match args.first().map(String::as_str) {
        Some("workload-getppid") => {
            // By pieces that are shorter than a turn on a CPU, so that the median is not of waiting for one.
            let mut pieces: Vec<f64> = (0..number(1) / PIECE)
                .map(|_| {
                    let start = Instant::now();
                    for _ in 0..PIECE {
                        // SAFETY: getppid takes nothing and changes nothing.
                        unsafe { libc::syscall(libc::SYS_getppid) };
                    }
                    start.elapsed().as_nanos() as f64 / PIECE as f64
                })
                .collect();
            println!("{}", crate::at(&mut pieces, 0.5));
        }
        Some("workload-many") => {
            for nr in nowhere().take(number(1) as usize) {
                // SAFETY: there is no such system call; it only fails.
                unsafe { libc::syscall(nr) };
            }
        }
        Some("workload-idle") => loop {
            for nr in nowhere().take(40) {
                // SAFETY: there is no such system call; it only fails.
                unsafe { libc::syscall(nr) };
            }
            std::thread::sleep(Duration::from_millis(200));
        },
        _ => return false,
    }
    true
}

/// This program as a workload.
pub fn this(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(args);
    command
}

/// The command, run in a cgroup.
pub fn inside(mut command: Command, procs: PathBuf) -> Command {
    // SAFETY: between fork and exec the closure writes a file; it takes no lock that another thread could hold.
    unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
    command
}
