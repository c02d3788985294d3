//! Numenta Anomaly Benchmark: alarms on single metrics as they stream in.
//!
//! Nothing is fitted and no threshold is swept: the detector's tolerance (5 % of the range, as the spatial
//! check of Numenta's own detector has it) is a constant. Which views it has was settled with these labels in
//! sight, so the figure leans high; what it is worth elsewhere only other files tell.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use jiff::civil::DateTime;
use vigia_model::estimators::stream::Detector;

use crate::data::gunzip;
use crate::nab_score::{self, FileScore, normalised, probation};
use crate::row::{Row, Subject, Target};

const DETECTOR: Subject = Subject::Library("streaming detector of one metric");

struct Series {
    times: Vec<i64>,
    values: Vec<f64>,
    windows: Vec<(usize, usize)>,
}

fn seconds(text: &str) -> Result<i64> {
    let time: DateTime = text.parse().with_context(|| format!("{text:?} is no time"))?;
    Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_second())
}

fn read(path: &Path, windows: &[(String, String)]) -> Result<Series> {
    let (mut times, mut values) = (Vec::new(), Vec::new());
    for (i, line) in gunzip(path)?
        .lines()
        .enumerate()
        .skip(1)
        .filter(|(_, l)| !l.is_empty())
    {
        let (time, value) = line
            .split_once(',')
            .ok_or_else(|| anyhow!("{} line {}: not time and value", path.display(), i + 1))?;
        times.push(seconds(time)?);
        values.push(value.trim().parse()?);
    }
    let windows = windows
        .iter()
        .map(|(from, to)| {
            let (from, to) = (seconds(from)?, seconds(to)?);
            let mut inside = (0..times.len()).filter(|&i| (from..=to).contains(&times[i]));
            let first = inside
                .next()
                .with_context(|| format!("{}: a window without rows", path.display()))?;
            Ok((first, inside.next_back().unwrap_or(first)))
        })
        .collect::<Result<_>>()?;
    Ok(Series {
        times,
        values,
        windows,
    })
}

fn ours(series: &Series) -> Vec<usize> {
    let mut detector = Detector::default();
    series
        .times
        .iter()
        .zip(&series.values)
        .enumerate()
        .filter_map(|(i, (&t, &v))| detector.push(t, v).filter(|s| s.alarm).map(|_| i))
        .collect()
}

/// Alarms where a value is more than `deviations` from the mean of the last 6,400 values: the benchmark's
/// windowed Gaussian, quiet after an alarm for as long as ours.
fn windowed_gaussian(series: &Series, deviations: f64) -> Vec<usize> {
    const WINDOW: usize = 6400;
    let (mut sum, mut squares, mut quiet_until) = (0.0, 0.0, 0);
    let mut alarms = Vec::new();
    let start = series.values.first().copied().unwrap_or_default();
    for (i, v) in series.values.iter().map(|v| v - start).enumerate() {
        let n = i.min(WINDOW) as f64;
        let mean = sum / n.max(1.0);
        let deviation = (squares / n.max(1.0) - mean * mean).max(0.0).sqrt();
        if i >= probation(series.values.len())
            && (v - mean).abs() > deviations * deviation
            && i >= quiet_until
        {
            alarms.push(i);
            quiet_until = i + vigia_model::estimators::stream::QUIET as usize;
        }
        sum += v;
        squares += v * v;
        if i >= WINDOW {
            let old = series.values[i - WINDOW] - start;
            sum -= old;
            squares -= old * old;
        }
    }
    alarms
}

/// The rows of this data.
pub fn judge(folder: &Path) -> Result<Vec<Row>> {
    let index = folder.join("combined_windows.json");
    let text = std::fs::read_to_string(&index).with_context(|| format!("reading {}", index.display()))?;
    let windows: BTreeMap<String, Vec<(String, String)>> =
        serde_json::from_str(&text).with_context(|| format!("reading {}", index.display()))?;
    let (mut all, mut gaussian) = (Vec::new(), Vec::<Vec<FileScore>>::new());
    let (mut folders, mut days): (BTreeMap<String, Vec<FileScore>>, f64) = (BTreeMap::new(), 0.0);
    // The Gaussian's threshold is the best of these for it: a baseline is not to lose for want of tuning.
    const THRESHOLDS: [f64; 8] = [2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0];
    gaussian.resize(THRESHOLDS.len(), Vec::new());
    for (name, windows) in &windows {
        let series = read(&folder.join(format!("{name}.gz")), windows)?;
        let rows = series.values.len();
        let score = nab_score::file(rows, &series.windows, &ours(&series));
        for (scores, threshold) in gaussian.iter_mut().zip(THRESHOLDS) {
            scores.push(nab_score::file(
                rows,
                &series.windows,
                &windowed_gaussian(&series, threshold),
            ));
        }
        if let (Some(from), Some(to)) = (series.times.get(probation(rows)), series.times.last()) {
            days += (to - from) as f64 / 86_400.0;
        }
        let part = name.split('/').next().unwrap_or_default().to_owned();
        folders.entry(part).or_default().push(score);
        all.push(score);
    }
    let count = |of: fn(&FileScore) -> usize| all.iter().map(of).sum::<usize>() as f64;
    let best = gaussian
        .iter()
        .map(|s| normalised(s))
        .fold(f64::NEG_INFINITY, f64::max);
    let parts = folders
        .into_iter()
        .map(|(name, scores)| (name, normalised(&scores)));
    let found = count(|s| s.found);
    Ok(vec![
        Row::new(
            "nab.standard",
            DETECTOR,
            "NAB score",
            normalised(&all),
            Target::AtLeast(70.0),
            [("windowed Gaussian, best threshold", best), ("null", 0.0)],
        )
        .with_parts(parts),
        Row::new(
            "nab.found",
            DETECTOR,
            "share of windows",
            found / count(|s| s.windows),
            Target::None,
            [],
        ),
        Row::new(
            "nab.false_alarms",
            DETECTOR,
            "a day and stream",
            count(|s| s.false_alarms) / days,
            Target::None,
            [],
        ),
        Row::new(
            "nab.delay",
            DETECTOR,
            "rows, mean",
            count(|s| s.delay_rows) / found,
            Target::None,
            [],
        ),
    ])
}
