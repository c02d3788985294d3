//! The windows that a model is trained on, as one matrix in one order.
//!
//! Whatever order files hold them in, [`Rows::sort`] puts them into that of time, so that the same windows
//! make the same bytes. Everything from outside is checked here once: width, range, schema.

use vigia_model::context::Context;
use vigia_model::estimators::trees::{CLASSES, NAMES};
use vigia_model::pipeline::Observed;
use vigia_model::schema::{MAX_VALUE, Schema, is_value};
use vigia_model::syscalls::Fingerprint;

use crate::forest::Draw;

/// Most windows in one shard, and in one input of the command line.
pub const MAX_ROWS: usize = 2_000_000;
/// Most bytes of memory that they take: room for all of them without sequences of calls, and for 450,000 that have as many of
/// them as a window may have.
pub const MAX_HELD: usize = 4 << 30;

/// What is known of a window beside its vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Tells containers apart; see the `Sample` of the contracts.
    pub source: u64,
    /// Start, milliseconds since the Unix epoch.
    pub started_ms: i64,
    /// Length in milliseconds.
    pub window_ms: u32,
    /// A model raised it above its alert threshold.
    pub above_threshold: bool,
    /// Which calls were looked at; none where that was not recorded.
    pub capture: Option<Fingerprint>,
}

impl Default for About {
    fn default() -> Self {
        Self {
            source: 0,
            started_ms: 0,
            window_ms: 10_000,
            above_threshold: false,
            capture: None,
        }
    }
}

/// Whether windows of these lengths are the same but for what clocks and a late drain add to them: what happens once in a
/// window is another rate in one that is longer.
pub fn about_as_long(a: u32, b: u32) -> bool {
    let (short, long) = (u64::from(a.min(b)), u64::from(a.max(b)));
    // Between the bounds of the operator's classes of lengths, 1.29 and 1.42.
    long * 3 <= short * 4
}

/// The lengths of windows in the order of their length, each of `least` or more.
fn lengths_of(sorted: &[u32], least: usize, lengths: &mut Vec<u32>) {
    // Halves of halves: it goes no deeper than there are bits in their number.
    let Some(&median) = sorted.get(sorted.len() / 2).filter(|_| sorted.len() >= least) else {
        return;
    };
    let from = sorted.partition_point(|&ms| ms < median && !about_as_long(ms, median));
    let to = sorted.partition_point(|&ms| ms <= median || about_as_long(ms, median));
    lengths_of(&sorted[..from], least, lengths);
    lengths.extend((to - from >= least).then_some(median));
    lengths_of(&sorted[to..], least, lengths);
}

/// What a window is that is not normal, as far as somebody knows who recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Nobody should do that, and it may be harmless.
    Suspicious = 1,
    /// An attack.
    Malicious = 2,
}

impl Class {
    /// Every class, in their order.
    pub const ALL: [Self; CLASSES - 1] = [Self::Suspicious, Self::Malicious];

    /// Its name, as verdicts say it.
    pub const fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Its name in those of metrics.
    pub const fn metric(self) -> &'static str {
        match self {
            Self::Suspicious => "Suspicious",
            Self::Malicious => "Malicious",
        }
    }
}

/// Windows of one class that is not normal.
#[derive(Debug, Clone)]
pub struct Labelled {
    /// Which.
    pub class: Class,
    /// What classifiers learn from.
    pub taught: Rows,
    /// What validation is left.
    pub holdout: Rows,
}

/// Vectors of one schema, one after the other.
#[derive(Debug, Clone)]
pub struct Rows {
    schema: &'static Schema,
    values: Vec<f32>,
    about: Vec<About>,
    contexts: Vec<Context>,
    /// Bytes that these take at most, and those beside which they lie.
    held: usize,
    /// How many lie beside them.
    beside: usize,
}

/// Bytes that a row takes.
fn size(width: usize, context: &Context) -> usize {
    size_of::<About>()
        + size_of::<Context>()
        + width * size_of::<f32>()
        + size_of_val(context.past())
        + size_of_val(context.grams())
}

/// Why a window is no row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// Another width than the schema's.
    #[error("window {row} has {got} features, schema {schema} makes {expected}")]
    Width {
        /// Which, from 0.
        row: usize,
        /// The schema's name.
        schema: &'static str,
        /// Its width.
        expected: usize,
        /// The window's width.
        got: usize,
    },
    /// A value that no window has.
    #[error(
        "window {row}: feature {feature} is {value}, and one of a window is 0 to {MAX_VALUE}: leave that window out"
    )]
    Value {
        /// Which, from 0.
        row: usize,
        /// Which feature.
        feature: String,
        /// What it is.
        value: String,
    },
    /// No length, so no rates.
    #[error("window {row} has a length of zero")]
    NoDuration {
        /// Which, from 0.
        row: usize,
    },
    /// See [`MAX_ROWS`].
    #[error("more than {MAX_ROWS} windows: train on fewer (TrainingRun spec.data.maxWindows)")]
    TooMany,
    /// See [`MAX_HELD`].
    #[error(
        "windows that take more than {} GiB of memory: train on fewer, or record them without sequences of calls",
        MAX_HELD >> 30
    )]
    TooLarge,
}

impl Rows {
    /// No rows yet.
    pub fn new(schema: &'static Schema) -> Self {
        Self {
            schema,
            values: Vec::new(),
            about: Vec::new(),
            contexts: Vec::new(),
            held: 0,
            beside: 0,
        }
    }

    /// No rows yet, which will lie beside these in memory: what bounds them bounds both together.
    #[must_use]
    pub fn beside(&self) -> Self {
        let (beside, held) = self.taken();
        Self {
            held,
            beside,
            ..Self::new(self.schema)
        }
    }

    /// How much of [`MAX_ROWS`] and of [`MAX_HELD`] is taken.
    pub fn taken(&self) -> (usize, usize) {
        (self.beside + self.len(), self.held)
    }

    /// Adds a window of which nothing else is known.
    ///
    /// # Errors
    /// It does not fit the schema, or no window has such values; nothing is added then.
    pub fn push(&mut self, vector: &[f32], about: About) -> Result<(), RowError> {
        self.push_within(vector, about, Context::default())
    }

    /// What all take with a window of which this is known; or why there is no room for it.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn held_with(&self, context: &Context) -> Result<usize, RowError> {
        if self.beside + self.len() >= MAX_ROWS {
            return Err(RowError::TooMany);
        }
        let held = self.held.saturating_add(size(self.width(), context));
        if held > MAX_HELD {
            return Err(RowError::TooLarge);
        }
        Ok(held)
    }

    /// Adds a window with what else is known of it.
    ///
    /// # Errors
    /// It does not fit the schema, or no window has such values; nothing is added then.
    pub fn push_within(
        &mut self,
        vector: &[f32],
        about: About,
        mut context: Context,
    ) -> Result<(), RowError> {
        let (row, width) = (self.len(), self.width());
        let held = self.held_with(&context)?;
        if vector.len() != width {
            return Err(RowError::Width {
                row,
                schema: self.schema.name(),
                expected: width,
                got: vector.len(),
            });
        }
        let named = vector.iter().zip(self.schema.features());
        if let Some((value, feature)) = named.into_iter().find(|(value, _)| !is_value(**value)) {
            return Err(RowError::Value {
                row,
                feature: feature.to_string(),
                value: value.to_string(),
            });
        }
        if about.window_ms == 0 {
            return Err(RowError::NoDuration { row });
        }
        self.held = held;
        context.shrink_to_fit();
        self.values.extend_from_slice(vector);
        self.about.push(about);
        self.contexts.push(context);
        Ok(())
    }

    /// Puts the rows into the order of time, then of source, then of content.
    pub fn sort(&mut self) {
        let width = self.width();
        let row = |i: usize| &self.values[i * width..(i + 1) * width];
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|&a, &b| {
            let key = |i: usize| {
                let about = &self.about[i];
                (
                    about.started_ms,
                    about.source,
                    about.window_ms,
                    about.above_threshold,
                    about.capture,
                )
            };
            let by_content = || {
                row(a)
                    .iter()
                    .map(|x| x.to_bits())
                    .cmp(row(b).iter().map(|x| x.to_bits()))
            };
            let by_context = || self.contexts[a].grams().cmp(self.contexts[b].grams());
            key(a).cmp(&key(b)).then_with(by_content).then_with(by_context)
        });
        self.values = order.iter().flat_map(|&i| row(i)).copied().collect();
        self.about = order.iter().map(|&i| self.about[i]).collect();
        let mut contexts = std::mem::take(&mut self.contexts);
        self.contexts = order.iter().map(|&i| std::mem::take(&mut contexts[i])).collect();
    }

    /// Keeps one of rows that are equal in all that was seen in the window itself, which in the order of [`Rows::sort`] are
    /// neighbours; answers how many went. The windows before are not compared: a second copy was read with the first one
    /// among them.
    pub fn drop_repeated(&mut self) -> usize {
        let same = |a: usize, b: usize| {
            let bits = |i: usize| self.row(i).iter().map(|x| x.to_bits());
            self.about[a] == self.about[b]
                && bits(a).eq(bits(b))
                && self.contexts[a].grams() == self.contexts[b].grams()
        };
        let keep: Vec<bool> = (0..self.len()).map(|i| i == 0 || !same(i - 1, i)).collect();
        let gone = keep.iter().filter(|kept| !**kept).count();
        if gone > 0 {
            let width = self.width();
            let kept = |i: usize| keep.get(i).copied().unwrap_or(true);
            let values = self.values.iter().enumerate();
            self.values = values.filter(|(i, _)| kept(i / width)).map(|(_, x)| *x).collect();
            let mut index = 0..;
            self.about.retain(|_| index.next().is_none_or(kept));
            let mut index = 0..;
            self.contexts.retain(|_| index.next().is_none_or(kept));
        }
        gone
    }

    /// How long the windows are, in milliseconds, from the shortest on: their median, and the same of those that are not
    /// about as long. What less than a twentieth of them is, a machine too busy for its drains made them.
    pub fn lengths(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.about.iter().map(|about| about.window_ms).collect();
        all.sort_unstable();
        let mut lengths = Vec::new();
        lengths_of(&all, all.len().div_ceil(20), &mut lengths);
        lengths
    }

    /// The rows of `range`, as rows of their own.
    #[must_use]
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let width = self.width();
        let contexts = self.contexts[range.clone()].to_vec();
        Self {
            schema: self.schema,
            values: self.values[range.start * width..range.end * width].to_vec(),
            about: self.about[range].to_vec(),
            held: contexts.iter().map(|context| size(width, context)).sum(),
            beside: 0,
            contexts,
        }
    }

    /// Parts the rows in two, in their order: those to train on, and `count` to hold out, drawn by `seed`.
    ///
    /// Drawn, and not every so-manieth: a workload that does something every ten seconds would do it in the windows
    /// held out and in no other.
    #[must_use]
    pub fn hold_out(mut self, count: usize, seed: u64) -> (Self, Self) {
        let (mut train, mut held) = (Self::new(self.schema), Self::new(self.schema));
        let mut drawn = vec![false; self.len()];
        // No tree's stream.
        for row in Draw::new(seed, u64::MAX).sample(self.len(), count) {
            drawn[row as usize] = true;
        }
        let contexts = std::mem::take(&mut self.contexts);
        for (i, (out, context)) in drawn.into_iter().zip(contexts).enumerate() {
            let part = if out { &mut held } else { &mut train };
            part.held += size(self.width(), &context);
            part.values.extend_from_slice(self.row(i));
            part.about.push(self.about[i]);
            part.contexts.push(context);
        }
        (train, held)
    }

    /// Adds all rows of `other`, which has the same schema.
    ///
    /// # Errors
    /// Too many rows together, or too large ones.
    pub fn append(&mut self, other: Self) -> Result<(), RowError> {
        if self.beside + self.len() + other.len() > MAX_ROWS {
            return Err(RowError::TooMany);
        }
        let held = self.held.saturating_add(other.held);
        if held > MAX_HELD {
            return Err(RowError::TooLarge);
        }
        self.held = held;
        self.values.extend(other.values);
        self.about.extend(other.about);
        self.contexts.extend(other.contexts);
        Ok(())
    }

    /// The schema that made the vectors.
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.schema.width()
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.about.len()
    }

    /// True without rows.
    pub fn is_empty(&self) -> bool {
        self.about.is_empty()
    }

    /// One row's features.
    pub fn row(&self, index: usize) -> &[f32] {
        let width = self.width();
        &self.values[index * width..(index + 1) * width]
    }

    /// What else is known of each row.
    pub fn about(&self) -> &[About] {
        &self.about
    }

    /// What is known of each row beside its vector.
    pub fn contexts(&self) -> &[Context] {
        &self.contexts
    }

    /// Vectors and contexts, to calibrate on.
    pub fn observed(&self) -> Observed<'_> {
        Observed {
            vectors: &self.values,
            contexts: &self.contexts,
        }
    }

    /// All features, row after row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use vigia_model::schema::from_rate;

    /// `n` windows of a made-up server: a dozen system calls at rates that wander.
    pub(crate) fn rows(n: usize, salt: u64) -> Rows {
        let schema = Schema::syscalls_v1();
        let mut rows = Rows::new(schema);
        let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut unit = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        for i in 0..n {
            let mut row = vec![0.0; schema.width()];
            let (mut total, load) = (0.0, 0.5 + unit());
            for (k, x) in row[..12].iter_mut().enumerate() {
                let rate = load * (1.0 + k as f64 * 40.0) * (0.8 + 0.4 * unit());
                total += rate;
                *x = from_rate(rate);
            }
            row[schema.width() - 2] = from_rate(total);
            row[schema.width() - 1] = 12f32.ln_1p();
            let about = About {
                source: i as u64 % 3,
                started_ms: 1_000 * i as i64,
                window_ms: 1_000,
                above_threshold: false,
                capture: [None, Some(Fingerprint::ALL), "5".repeat(32).parse().ok()][i % 3],
            };
            rows.push(&row, about).expect("a row");
        }
        rows
    }

    #[test]
    fn order_of_arrival_does_not_matter() {
        let ordered = rows(50, 1);
        let mut shuffled = Rows::new(ordered.schema());
        for i in (0..50).rev() {
            shuffled.push(ordered.row(i), ordered.about()[i]).expect("a row");
        }
        shuffled.sort();
        assert_eq!(shuffled.values(), ordered.values());
        assert_eq!(shuffled.about(), ordered.about());
    }

    #[test]
    fn rows_held_out_are_drawn_and_none_is_lost() {
        let rows = rows(103, 1);
        for count in [0, 1, 25, 103] {
            let (train, held) = rows.clone().hold_out(count, 7);
            assert_eq!((train.len(), held.len()), (103 - count, count));
        }
        let starts = |seed| {
            let (_, held) = rows.clone().hold_out(20, seed);
            held.about().iter().map(|a| a.started_ms).collect::<Vec<_>>()
        };
        assert_eq!(starts(7), starts(7));
        assert_ne!(starts(7), starts(8));
        // Whatever comes back every few windows is on both sides.
        let every_fifth = starts(7).iter().filter(|s| *s / 1_000 % 5 == 4).count();
        assert!((1..=12).contains(&every_fifth), "{every_fifth}");
    }

    #[test]
    fn what_lies_beside_others_in_memory_is_bounded_with_them() {
        let first = rows(20, 1);
        let (mut full, mut many) = (first.beside(), first.beside());
        assert_eq!((full.len(), full.taken()), (0, first.taken()));
        full.held = MAX_HELD - 10;
        assert_eq!(full.append(rows(1, 2)), Err(RowError::TooLarge));
        many.beside = MAX_ROWS - 1;
        many.append(rows(1, 2)).expect("room for one");
        assert_eq!(many.push(first.row(0), About::default()), Err(RowError::TooMany));
        assert_eq!(many.append(rows(1, 2)), Err(RowError::TooMany));
        // And again beside both.
        assert_eq!(many.beside().taken().0, MAX_ROWS);
    }

    #[test]
    fn what_is_no_vector_is_refused_and_changes_nothing() {
        let mut rows = rows(2, 1);
        let width = rows.width();
        assert!(matches!(
            rows.push(&[1.0], About::default()),
            Err(RowError::Width { row: 2, got: 1, .. })
        ));
        for bad in [f32::NAN, f32::INFINITY, -5.0, 1000.0, -3e38, MAX_VALUE + 0.1] {
            let mut vector = vec![0.0; width];
            vector[width - 2] = bad;
            let error = rows.push(&vector, About::default()).expect_err("refused");
            let words = format!("window 2: feature total is {bad}, and one of a window is 0 to 46.67");
            assert!(error.to_string().starts_with(&words), "{error}");
        }
        let mut most = vec![0.0; width];
        most[width - 2] = from_rate(u64::MAX as f64);
        assert!(most[width - 2] > MAX_VALUE - 0.01);
        rows.clone().push(&most, About::default()).expect("a row");
        let instant = About {
            window_ms: 0,
            ..About::default()
        };
        assert_eq!(
            rows.push(&vec![0.0; width], instant),
            Err(RowError::NoDuration { row: 2 })
        );
        assert_eq!(rows.len(), 2);
    }
}
