//! When the phases of the duty cycle begin and end, and who takes part: pure.
//!
//! The probe has one phase at a time for the whole node. The profile that wants the most gives the rhythm; one that
//! wants a third of it takes part in a third of the phases.

use std::time::Duration;

/// Length of a phase. Short, so that a window of a second has some; long against what attaching costs.
const ON: Duration = Duration::from_millis(50);

/// The duty cycle.
#[derive(Debug, Default)]
pub struct Duty {
    /// Where there is a cycle: one in so many.
    one_in: Option<u32>,
    active: bool,
    /// When the phase, or the pause, ends.
    until: Duration,
    phases: u64,
}

impl Duty {
    /// When there is something to do, by the monotonic clock.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.one_in.map(|_| self.until)
    }

    /// Goes on to `now`, with the smallest `one_in` of those that take part. Whether a phase is on, where that changed.
    pub fn turn(&mut self, now: Duration, one_in: Option<u32>) -> Option<bool> {
        if self.one_in != one_in {
            self.one_in = one_in;
            // Another rhythm begins with a phase, none with a pause.
            self.until = now;
            let was_active = std::mem::take(&mut self.active);
            if one_in.is_none() {
                return was_active.then_some(false);
            }
        }
        let one_in = one_in?;
        if now < self.until {
            return None;
        }
        // Late wake-ups must not make the share larger: each part is as long as it should be from when it began.
        self.active = !self.active || one_in < 2;
        self.until = now + if self.active { ON } else { ON * (one_in - 1) };
        self.phases += u64::from(self.active);
        Some(self.active)
    }

    /// Whether one that wants one in so many takes part in the phase that is on: in as many phases as add up to its
    /// share of the time.
    #[must_use]
    pub fn takes_part(&self, one_in: u32) -> bool {
        let base = u64::from(self.one_in.unwrap_or(one_in).max(1));
        let share = |phases: u64| phases.wrapping_mul(base) / u64::from(one_in.max(1));
        share(self.phases) != share(self.phases.wrapping_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn there_is_no_cycle_where_nobody_takes_part() {
        let mut duty = Duty::default();
        assert_eq!((duty.turn(MS, None), duty.next()), (None, None));
        assert_eq!(duty.turn(MS, Some(16)), Some(true));
        assert_eq!(duty.turn(2 * MS, Some(16)), None);
        assert_eq!(duty.turn(3 * MS, None), Some(false));
        assert_eq!((duty.turn(4 * MS, None), duty.next()), (None, None));
    }

    #[test]
    fn another_rhythm_begins_with_a_phase() {
        let mut duty = Duty::default();
        assert_eq!(duty.turn(MS, Some(16)), Some(true));
        assert_eq!(duty.turn(2 * MS, Some(8)), Some(true));
        assert_eq!(duty.next(), Some(2 * MS + ON));
    }

    proptest! {
        #[test]
        fn the_share_of_time_is_what_was_asked_for(one_in in 2u32..200, late in 0u64..5) {
            let mut duty = Duty::default();
            let (mut now, mut on, mut begun) = (Duration::ZERO, Duration::ZERO, None);
            let end = ON * one_in * 40;
            while now < end {
                match duty.turn(now, Some(one_in)) {
                    Some(true) => begun = Some(now),
                    Some(false) => on += begun.take().map_or(Duration::ZERO, |since| now - since),
                    None => {}
                }
                now = duty.next().expect("a cycle").max(now) + MS * u32::try_from(late).expect("small");
            }
            let share = on.as_secs_f64() / now.as_secs_f64() * f64::from(one_in);
            prop_assert!((0.85..1.2).contains(&share), "{share}");
        }

        #[test]
        fn who_wants_less_takes_part_by_its_share(one_in in 2u32..50, less in 0u32..250) {
            let mut duty = Duty::default();
            let (mut all, mut some, mut now) = (0, 0, Duration::ZERO);
            for _ in 0..600 {
                if duty.turn(now, Some(one_in)) == Some(true) {
                    all += 1;
                    some += u32::from(duty.takes_part(one_in + less));
                    prop_assert!(duty.takes_part(one_in));
                }
                now = duty.next().expect("a cycle");
            }
            let wanted = all * one_in / (one_in + less);
            prop_assert!(some.abs_diff(wanted) <= 1, "{some} of {all}, {wanted} wanted");
        }
    }
}
