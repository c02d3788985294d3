//! Counts as tables: of a window, and of a whole trace in the manner of `strace -c`.

use anstyle::Style;

use crate::record::Record;
use crate::say;

/// Lines of a table of one window.
pub fn window(record: &Record) -> Vec<String> {
    let bold = Style::new().bold();
    let seconds = f64::from(record.duration_ms) / 1000.0;
    let head = format!(
        "{bold}{} {} {} in {seconds:.1} s{bold:#}",
        say::time(i64::try_from(record.started_ms).unwrap_or(i64::MAX)),
        record.target,
        calls(record.calls),
    );
    let mut lines = vec![head];
    if record.calls == 0 {
        return lines;
    }
    let timed = record.syscalls.iter().any(|entry| entry.avg_time_us.is_some());
    let head = format!(
        "{:>7} {:>13} {:>11} {:>11}",
        "% calls", "calls", "errors", "per second"
    );
    lines.push(if timed {
        format!("{head} {:>11}  syscall", "usecs/call")
    } else {
        format!("{head}  syscall")
    });
    let row = |count: u64, errors: u64, avg: Option<f64>, name: &str| {
        let share = count as f64 * 100.0 / record.calls as f64;
        let errors = if errors > 0 {
            say::count(errors)
        } else {
            String::new()
        };
        let rate = if seconds > 0.0 {
            say::rate(count as f64 / seconds)
        } else {
            String::new()
        };
        let row = format!("{share:>7.2} {:>13} {errors:>11} {rate:>11}", say::count(count));
        if timed {
            let avg = avg.map_or_else(String::new, |us| format!("{us:.1}"));
            format!("{row} {avg:>11}  {name}")
        } else {
            format!("{row}  {name}")
        }
    };
    lines.extend(
        record
            .syscalls
            .iter()
            .map(|e| row(e.calls, e.errors, e.avg_time_us, &e.name)),
    );
    lines.push(row(record.calls, record.errors, None, "total"));
    lines
}

/// Lines of the table of a whole trace, in the columns of `strace -c`. Time is wall-clock time within the calls.
pub fn summary(record: &Record) -> Vec<String> {
    const RULE: &str = "------ ----------- ----------- --------- --------- ----------------";
    // Not `sum`, to which nothing is -0.
    let times = record.syscalls.iter().filter_map(|entry| entry.time_us);
    let all = times.fold(0.0, |all, us| all + us);
    let row = |us: f64, avg: f64, calls: u64, errors: u64, name: &str| {
        let share = if all > 0.0 { us * 100.0 / all } else { 0.0 };
        let errors = if errors > 0 {
            errors.to_string()
        } else {
            String::new()
        };
        format!(
            "{share:>6.2} {:>11.6} {avg:>11.0} {calls:>9} {errors:>9} {name}",
            us / 1e6
        )
    };
    let mut lines = vec![
        format!(
            "{:>6} {:>11} {:>11} {:>9} {:>9} syscall",
            "% time", "seconds", "usecs/call", "calls", "errors"
        ),
        RULE.to_owned(),
    ];
    lines.extend(record.syscalls.iter().map(|entry| {
        let (us, avg) = (entry.time_us.unwrap_or(0.0), entry.avg_time_us.unwrap_or(0.0));
        row(us, avg, entry.calls, entry.errors, &entry.name)
    }));
    lines.push(RULE.to_owned());
    let avg = if record.calls > 0 {
        all / record.calls as f64
    } else {
        0.0
    };
    lines.push(row(all, avg, record.calls, record.errors, "total"));
    lines
}

fn calls(n: u64) -> String {
    if n == 1 {
        "1 system call".to_owned()
    } else {
        format!("{} system calls", say::count(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::{Time, Times};
    use vigia_model::syscalls::Arch;
    use vigia_model::window::{Calls, Window};

    fn record() -> Record {
        let call = |nr, count, errors| Calls { nr, count, errors };
        let calls = [call(0, 3000, 0), call(2, 1000, 250)];
        Record::new(&Window::new(Arch::X86_64, 0, 2000, calls), "make", false)
    }

    #[test]
    fn the_table_adds_up() {
        let lines = window(&record());
        assert!(
            lines[0].contains("1970-01-01T00:00:00Z make 4,000 system calls in 2.0 s"),
            "{}",
            lines[0]
        );
        assert_eq!(lines[2], "  75.00         3,000                   1,500  read");
        assert_eq!(lines[3], "  25.00         1,000         250         500  open");
        assert_eq!(lines[4], " 100.00         4,000         250       2,000  total");
    }

    #[test]
    fn nothing_counted_is_nothing() {
        let nothing = Record::new(&Window::new(Arch::X86_64, 0, 2000, []), "true", false);
        let lines = summary(&nothing);
        assert_eq!(
            lines[3],
            "  0.00    0.000000           0         0           total"
        );
    }

    #[test]
    fn the_summary_is_straces() {
        let time = |ns, calls| Time { ns, calls };
        let times = Times::from([(0, time(1_000_000, 3000)), (2, time(3_000_000, 1000))]);
        let lines = summary(&record().with_times(&times));
        assert_eq!(
            lines,
            [
                "% time     seconds  usecs/call     calls    errors syscall",
                "------ ----------- ----------- --------- --------- ----------------",
                " 75.00    0.003000           3      1000       250 open",
                " 25.00    0.001000           0      3000           read",
                "------ ----------- ----------- --------- --------- ----------------",
                "100.00    0.004000           1      4000       250 total",
            ]
        );
    }
}
