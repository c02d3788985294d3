//! Counts as a table, in the manner of `strace -c`.

use anstyle::Style;

use crate::record::Record;
use crate::say;

/// Lines of a table of one window, or of a whole trace.
pub fn table(record: &Record) -> Vec<String> {
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
    lines.push(format!(
        "{:>7} {:>13} {:>11} {:>11}  {}",
        "% calls", "calls", "errors", "per second", "syscall"
    ));
    let row = |count: u64, errors: u64, name: &str| {
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
        format!(
            "{share:>7.2} {:>13} {errors:>11} {rate:>11}  {name}",
            say::count(count)
        )
    };
    lines.extend(record.syscalls.iter().map(|e| row(e.calls, e.errors, &e.name)));
    lines.push(row(record.calls, record.errors, "total"));
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
    use vigia_model::syscalls::Arch;
    use vigia_model::window::{Calls, Window};

    #[test]
    fn the_table_adds_up() {
        let call = |nr, count, errors| Calls { nr, count, errors };
        let window = Window::new(Arch::X86_64, 0, 2000, [call(0, 3000, 0), call(2, 1000, 250)]);
        let lines = table(&Record::new(&window, "make", false));
        assert!(
            lines[0].contains("1970-01-01T00:00:00Z make 4,000 system calls in 2.0 s"),
            "{}",
            lines[0]
        );
        assert_eq!(lines[2], "  75.00         3,000                   1,500  read");
        assert_eq!(lines[3], "  25.00         1,000         250         500  open");
        assert_eq!(lines[4], " 100.00         4,000         250       2,000  total");
    }
}
