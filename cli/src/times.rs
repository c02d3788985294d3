//! How long system calls took: totals that only grow, as counts are, and differences of them.

use std::collections::BTreeMap;

/// By number of the system call.
pub type Times = BTreeMap<u32, Time>;

/// Of all calls of one kind that were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Time {
    /// Nanoseconds.
    pub ns: u64,
    /// Calls.
    pub calls: u64,
}

impl Time {
    /// Microseconds of one call.
    pub fn mean_us(&self) -> Option<f64> {
        (self.calls > 0).then(|| self.ns as f64 / self.calls as f64 / 1000.0)
    }
}

/// What came after `before`.
pub fn since(before: &Times, now: &Times) -> Times {
    let difference = |(&number, time): (&u32, &Time)| {
        let old = before.get(&number).copied().unwrap_or_default();
        let time = Time {
            ns: time.ns.saturating_sub(old.ns),
            calls: time.calls.saturating_sub(old.calls),
        };
        (time.calls > 0).then_some((number, time))
    };
    now.iter().filter_map(difference).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Times, more: &Times) {
    for (&number, time) in more {
        let total = sum.entry(number).or_default();
        total.ns = total.ns.saturating_add(time.ns);
        total.calls = total.calls.saturating_add(time.calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_add_up_again() {
        let time = |ns, calls| Time { ns, calls };
        let before = Times::from([(0, time(1000, 1)), (1, time(500, 2))]);
        let now = Times::from([(0, time(4000, 3)), (1, time(500, 2)), (2, time(7, 1))]);
        let between = since(&before, &now);
        assert_eq!(between, Times::from([(0, time(3000, 2)), (2, time(7, 1))]));
        let mut sum = before;
        add(&mut sum, &between);
        assert_eq!(sum, now);
        assert_eq!(between[&0].mean_us(), Some(1.5));
        assert_eq!(Time::default().mean_us(), None);
    }
}
