//! Anomalies of one metric as it streams in, with nothing trained before.
//!
//! Five views of the stream are watched, each for a new record: a value further out than any before, by more
//! than a share of the range so far. Records are rare by themselves (the n-th of exchangeable values is one
//! with probability 2/n), so one tolerance serves streams of any scale and distribution, and nothing has to be
//! calibrated. The views see different kinds of anomaly:
//!
//! - value: the metric itself; spikes and new levels
//! - season: its distance from the same half hour of the weeks before; the right value at the wrong time
//! - change: recent mean of how unusual its steps are; bursts
//! - level: recent mean of how far it is from its recent mean; drifts
//! - surprise: recent mean of how unlikely it is to follow the value before, by a first-order Markov model of
//!   the value in twelve bins; wrong order of ordinary values
//!
//! "Recent" is [`RECENT`] rows. Extremes are forgotten over [`FADE`] of a range a row, so that one wild value
//! does not blind the detector for ever. After an alarm there is none for [`QUIET`] rows: people were told.
//! Memory is fixed, and a row costs the same whenever it comes.

use serde::{Deserialize, Serialize};

/// Rows that a recent mean is over.
pub const RECENT: usize = 10;
/// Rows before the first record counts.
pub const WARM_UP: u64 = 50;
/// How far beyond the range so far a record is an alarm, as a share of the range.
pub const TOLERANCE: f64 = 0.05;
/// Rows without another alarm after one.
pub const QUIET: u64 = 80;
/// Share of its distance to the mean by which an extreme is forgotten each row: a third remains after 100,000.
pub const FADE: f64 = 1e-5;
/// Largest standardised value that enters a recent mean.
const CLIP: f64 = 10.0;
/// Rows that fix the bins of the surprise view.
const BINNING: usize = 300;
/// Bins; two on each side are beyond the range that fixed them.
const BINS: usize = 12;
/// Half hours in a week.
const SLOTS: usize = 336;
const SLOT_S: i64 = 1800;

/// What a view saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum View {
    /// The metric itself.
    Value,
    /// Its distance from the same half hour of the weeks before.
    Season,
    /// How unusual its steps are.
    Change,
    /// How far it is from its recent mean.
    Level,
    /// How unlikely it is after the value before.
    Surprise,
}

/// One row's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// Excess over the record so far as a share of the range, of the view where it is largest; negative within.
    pub excess: f64,
    /// That view.
    pub view: View,
    /// Whether it is an alarm.
    pub alarm: bool,
}

/// Largest and smallest so far.
#[derive(Debug, Clone, Copy, Default)]
struct Record {
    high: f64,
    low: f64,
    mean: f64,
    rows: u64,
}

impl Record {
    /// Excess of the next value, then counts it.
    fn push(&mut self, x: f64, both_sides: bool) -> f64 {
        if self.rows == 0 {
            (self.high, self.low, self.mean) = (x, x, x);
        }
        self.mean += (x - self.mean) / (self.rows + 1) as f64;
        let excess = if self.rows > WARM_UP {
            let range = (self.high - self.low).max(1e-9);
            let above = (x - self.high) / range;
            if both_sides {
                above.max((self.low - x) / range)
            } else {
                above
            }
        } else {
            -1.0
        };
        self.high = (self.high - FADE * (self.high - self.mean)).max(x);
        self.low = (self.low + FADE * (self.mean - self.low)).min(x);
        self.rows += 1;
        if excess.is_finite() { excess } else { -1.0 }
    }
}

/// Distance from an exponentially weighted mean in standard deviations.
#[derive(Debug, Clone, Copy)]
struct Standard {
    rate: f64,
    mean: f64,
    variance: f64,
    rows: u64,
}

impl Standard {
    const fn new(rate: f64) -> Self {
        Self {
            rate,
            mean: 0.0,
            variance: 0.0,
            rows: 0,
        }
    }

    fn push(&mut self, x: f64) -> f64 {
        if self.rows == 0 {
            self.mean = x;
        }
        let from_mean = x - self.mean;
        let floor = 1e-9 * (self.mean.abs() + 1.0);
        let standard = if self.rows > WARM_UP {
            (from_mean.abs() / (self.variance.sqrt() + floor)).min(CLIP)
        } else {
            0.0
        };
        // A plain mean until that many rows have come.
        let rate = self.rate.max(1.0 / (self.rows + 1) as f64);
        self.mean += rate * from_mean;
        self.variance = (1.0 - rate) * (self.variance + rate * from_mean * from_mean);
        self.rows += 1;
        if standard.is_finite() { standard } else { 0.0 }
    }
}

/// Mean over the last rows.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    values: [f64; RECENT],
    rows: usize,
}

impl Recent {
    fn push(&mut self, x: f64) -> f64 {
        self.values[self.rows % RECENT] = x;
        self.rows += 1;
        let held = &self.values[..self.rows.min(RECENT)];
        held.iter().sum::<f64>() / held.len() as f64
    }
}

/// Surprise of a value after the one before, in nats, with Witten–Bell estimates of orders 0 and 1.
#[derive(Debug, Clone)]
struct Markov {
    low: f64,
    width: f64,
    counts: [u32; BINS],
    after: [[u32; BINS]; BINS],
    last: Option<usize>,
}

impl Markov {
    fn over(values: &[f64]) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let range = high - low;
        Self {
            low,
            width: if range > 0.0 { range } else { 1.0 },
            counts: [0; BINS],
            after: [[0; BINS]; BINS],
            last: None,
        }
    }

    fn push(&mut self, x: f64) -> f64 {
        const INNER: f64 = (BINS - 4) as f64;
        // The cast saturates: whatever lies below is in the first bin, above in the last.
        let bin = (((x - self.low) / self.width * INNER + 2.0) as usize).min(BINS - 1);
        let blend = |counts: &[u32; BINS], p: f64| {
            let total: u32 = counts.iter().sum();
            let distinct = counts.iter().filter(|&&c| c > 0).count() as f64;
            if total == 0 {
                p
            } else {
                (f64::from(counts[bin]) + distinct * p) / (f64::from(total) + distinct)
            }
        };
        let mut p = blend(&self.counts, 1.0 / BINS as f64);
        if let Some(last) = self.last {
            p = blend(&self.after[last], p);
            halve_if_full(&mut self.after[last]);
            self.after[last][bin] += 1;
        }
        halve_if_full(&mut self.counts);
        self.counts[bin] += 1;
        self.last = Some(bin);
        -p.ln()
    }
}

/// Keeps sums of counts within their type, however long a stream runs.
fn halve_if_full(counts: &mut [u32; BINS]) {
    if counts.iter().sum::<u32>() >= 1 << 28 {
        for c in counts {
            *c /= 2;
        }
    }
}

/// The detector of one stream.
#[derive(Debug, Clone)]
pub struct Detector {
    rows: u64,
    quiet_until: u64,
    last: f64,
    records: [Record; 5],
    change: (Standard, Recent),
    level: (Standard, Recent),
    surprise: Recent,
    profile: [f64; SLOTS],
    first: [f64; BINNING],
    markov: Option<Markov>,
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            rows: 0,
            quiet_until: 0,
            last: 0.0,
            records: [Record::default(); 5],
            change: (Standard::new(0.003), Recent::default()),
            level: (Standard::new(0.02), Recent::default()),
            surprise: Recent::default(),
            profile: [f64::NAN; SLOTS],
            first: [0.0; BINNING],
            markov: None,
        }
    }
}

impl Detector {
    /// The next value and its time in seconds. None for a value that is not finite: it is passed over.
    pub fn push(&mut self, time_s: i64, value: f64) -> Option<Seen> {
        if !value.is_finite() {
            return None;
        }
        let step = if self.rows == 0 { 0.0 } else { value - self.last };
        let change = self.change.1.push(self.change.0.push(step));
        let level = self.level.1.push(self.level.0.push(value));
        let seasonal = self.season(time_s, value);
        let mut all = [
            (View::Value, self.records[0].push(value, true)),
            (View::Season, self.records[1].push(seasonal, true)),
            (View::Change, self.records[2].push(change, false)),
            (View::Level, self.records[3].push(level, false)),
            (View::Surprise, -1.0),
        ];
        all[4].1 = self.surprise(value);
        let (view, excess) = all.into_iter().fold((View::Value, f64::NEG_INFINITY), |best, v| {
            if v.1 > best.1 { v } else { best }
        });
        let alarm = excess >= TOLERANCE && self.rows >= self.quiet_until;
        if alarm {
            self.quiet_until = self.rows + QUIET;
        }
        self.last = value;
        self.rows += 1;
        Some(Seen { excess, view, alarm })
    }

    fn season(&mut self, time_s: i64, value: f64) -> f64 {
        let slot = &mut self.profile[time_s.div_euclid(SLOT_S).rem_euclid(SLOTS as i64) as usize];
        if slot.is_nan() {
            *slot = value;
            return 0.0;
        }
        let from = value - *slot;
        *slot += from / 2.0;
        from
    }

    fn surprise(&mut self, value: f64) -> f64 {
        let row = self.rows as usize;
        if let Some(held) = self.first.get_mut(row) {
            *held = value;
            if row + 1 < BINNING {
                return -1.0;
            }
            // The bins are known: what has passed is gone through again.
            let first = self.first;
            self.markov = Some(Markov::over(&first));
            return first.iter().fold(-1.0, |_, &v| self.judge(v));
        }
        self.judge(value)
    }

    fn judge(&mut self, value: f64) -> f64 {
        let nats = self.markov.as_mut().map_or(0.0, |m| m.push(value));
        let recent = self.surprise.push(nats);
        self.records[4].push(recent, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn alarms(values: impl IntoIterator<Item = f64>) -> Vec<(usize, View)> {
        let mut detector = Detector::default();
        values
            .into_iter()
            .enumerate()
            .filter_map(|(i, v)| detector.push(i as i64 * 300, v).map(|s| (i, s)))
            .filter(|(_, s)| s.alarm)
            .map(|(i, s)| (i, s.view))
            .collect()
    }

    /// A day of five-minute rows, again and again, with a little deterministic noise.
    fn daily(i: usize) -> f64 {
        let day = (i as f64 / 288.0 * std::f64::consts::TAU).sin();
        10.0 * day + ((i * 7919) % 101) as f64 / 101.0
    }

    #[test]
    fn a_quiet_series_raises_few_alarms_and_a_spike_one() {
        let quiet = alarms((0..8000).map(daily));
        assert!(quiet.iter().filter(|(i, _)| *i > 2016).count() <= 2, "{quiet:?}");
        let spike = alarms((0..8000).map(|i| daily(i) + if i == 6000 { 8.0 } else { 0.0 }));
        assert!(
            spike.contains(&(6000, View::Value)) || spike.iter().any(|a| a.0 == 6000),
            "{spike:?}"
        );
    }

    #[test]
    fn the_right_value_at_the_wrong_time_is_seen() {
        // A night's value by day: within the range, far from its hour.
        let found = alarms((0..8000).map(|i| {
            if (6100..6110).contains(&i) {
                daily(i + 144)
            } else {
                daily(i)
            }
        }));
        assert!(found.iter().any(|(i, _)| (6100..6120).contains(i)), "{found:?}");
    }

    #[test]
    fn a_constant_that_moves_is_an_alarm() {
        let found = alarms((0..1000).map(|i| if i < 700 { 5.0 } else { 6.0 }));
        assert_eq!(found.first().map(|a| a.0), Some(700));
    }

    proptest! {
        #[test]
        fn any_stream_is_survived(rows in prop::collection::vec((any::<i64>(), any::<f64>()), 0..700)) {
            let mut detector = Detector::default();
            for (t, v) in rows {
                let seen = detector.push(t, v);
                prop_assert_eq!(seen.is_some(), v.is_finite());
                prop_assert!(seen.is_none_or(|s| !s.excess.is_nan()));
            }
        }

        #[test]
        fn after_an_alarm_it_is_quiet(values in prop::collection::vec(-1e3..1e3f64, 0..900)) {
            let found = alarms(values);
            prop_assert!(found.windows(2).all(|w| w[1].0 - w[0].0 >= QUIET as usize));
        }

        #[test]
        fn nothing_is_said_before_it_is_warm(values in prop::collection::vec(-1e9..1e9f64, 0..51)) {
            prop_assert!(alarms(values).is_empty());
        }

        #[test]
        fn a_value_far_beyond_all_before_is_an_alarm(values in prop::collection::vec(-1.0..1.0f64, 400)) {
            let found = alarms(values.iter().copied().chain([1e3]));
            prop_assert!(found.iter().any(|a| a.0 > 400 - QUIET as usize));
        }

        #[test]
        fn units_of_a_power_of_two_do_not_matter(values in prop::collection::vec(1.0..2.0f64, 0..600)) {
            let scaled: Vec<f64> = values.iter().map(|v| v * 1024.0).collect();
            let positions = |v: Vec<f64>| alarms(v).into_iter().map(|a| a.0).collect::<Vec<_>>();
            prop_assert_eq!(positions(values), positions(scaled));
        }
    }
}
