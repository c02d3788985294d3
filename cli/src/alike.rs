//! Whether windows are like those that a model was trained on. Where they are not, a score says little: of windows of
//! another length what happens once is another rate, and in windows of other system calls the rest is missing or new.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use vigia_model::artifact::Metadata;
use vigia_model::syscalls::Fingerprint;
use vigia_trainer::data::{Rows, about_as_long};
use vigia_trainer::fit::WINDOW_MS;

use crate::error::Failure;
use crate::say;

/// Most filters that the windows of one model may have been made by, as in a cluster.
const MAX_CAPTURES: usize = 64;

/// Fewer than one in so many windows are nothing to speak of.
pub const FEW: usize = 20;
/// Most lengths that are read of a model: more than windows can have that are told apart.
const MAX_LENGTHS: usize = 64;

/// Which windows a model was trained on, as far as it says.
pub struct Learnt {
    /// How long they were, in milliseconds.
    lengths: Vec<u32>,
    /// Of which calls.
    captures: Vec<Fingerprint>,
}

impl Learnt {
    /// What a model says of it.
    pub fn of(metadata: &Metadata) -> Self {
        let lengths = metadata.hyperparameters.get(WINDOW_MS).map_or("", String::as_str);
        Self {
            lengths: lengths
                .split(' ')
                .filter_map(|ms| ms.parse().ok())
                .take(MAX_LENGTHS)
                .collect(),
            captures: metadata.captures().filter_map(|text| text.parse().ok()).collect(),
        }
    }

    /// What there is to say of a file with windows that are not about as long.
    pub fn other_lengths(&self, lengths: &[u32]) -> Option<String> {
        let others: Vec<u32> = lengths
            .iter()
            .copied()
            .filter(|ms| !self.has_length(*ms))
            .collect();
        let example = *others.first()?;
        // A few, a machine too busy for its drains made.
        if others.len() * FEW < lengths.len() {
            return None;
        }
        Some(format!(
            "{} of {} of another length than the model was trained on ({}, not {}): their scores say little; record \
             with that --window, or train on such windows",
            others.len(),
            say::windows(lengths.len()),
            seconds(&[example]),
            seconds(&self.lengths),
        ))
    }

    /// What there is to say of windows of this length that are about to be scored by the model of `path`.
    pub fn other_length(&self, path: &Path, window: Duration) -> Option<String> {
        let window_ms = u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        (!self.has_length(window_ms)).then(|| {
            format!(
                "warning: {}: trained on windows of {}, and these have {}: their scores say little; give that --window",
                path.display(),
                seconds(&self.lengths),
                seconds(&[window_ms]),
            )
        })
    }

    fn has_length(&self, ms: u32) -> bool {
        self.lengths.is_empty() || self.lengths.iter().any(|known| about_as_long(*known, ms))
    }

    /// Whether a window of these system calls is one for the model, as far as both say.
    pub fn fits(&self, capture: Option<Fingerprint>) -> bool {
        self.captures.is_empty() || capture.is_none_or(|capture| self.captures.contains(&capture))
    }

    /// That the model of `path` was trained on others than the calls that are traced, or that windows were recorded of, and
    /// what to do.
    pub fn of_other_calls(&self, path: &Path, capture: Fingerprint, are: Calls) -> Failure {
        let of_all = self.captures.contains(&Fingerprint::ALL);
        let first = match (are, of_all) {
            (Calls::Traced, true) => "leave -e out",
            (Calls::Traced, false) => "give the -e that its windows were recorded with",
            (Calls::Recorded, true) => "score windows that `vigia trace` recorded without -e",
            (Calls::Recorded, false) => {
                "score windows that `vigia trace` recorded with the -e of those that it was trained on"
            }
        };
        let like = match (are, capture == Fingerprint::ALL) {
            (_, true) => "of all system calls",
            (Calls::Traced, false) => "that are recorded with this -e",
            (Calls::Recorded, false) => "like these",
        };
        let next = format!("{first}, or train a model on windows {like}");
        let why = "trained on windows of other system calls than these (-e): its scores would say nothing";
        Failure::input(format!("{}: {why}", path.display())).next(next)
    }
}

/// The fingerprints of the filters that the windows of a training were made by, where each says its own, and what there
/// is to say of windows that differ.
///
/// # Errors
/// They are of more filters than a model may name.
pub fn of_training(rows: &Rows) -> Result<(Vec<String>, Vec<String>), Failure> {
    let mut warnings = Vec::new();
    let lengths = rows.lengths();
    if lengths.len() > 1 && drained_late(rows) {
        warnings.push(format!(
            "warning: windows of {} in one recording: the machine was too busy for windows as short as that, and what happens \
             once is another rate in each; record with a longer --window",
            seconds(&lengths)
        ));
    } else if lengths.len() > 1 {
        warnings.push(format!(
            "warning: windows of {}: what happens once is another rate in each; record with one --window, or train a model \
             for each length",
            seconds(&lengths)
        ));
    }
    let all: BTreeSet<Option<Fingerprint>> = rows.about().iter().map(|about| about.capture).collect();
    if all.len() > MAX_CAPTURES {
        return Err(Failure::input(format!(
            "windows of {} sets of system calls (-e): {MAX_CAPTURES} are the most",
            all.len()
        ))
        .next("train a model for each"));
    }
    if all.len() > 1 {
        let unsaid = if all.contains(&None) {
            ", one of which its file does not name"
        } else {
            ""
        };
        warnings.push(format!(
            "warning: windows of {} sets of system calls (-e){unsaid}: what some leave out is rare in all; train a model for each",
            all.len()
        ));
    }
    // One that is not known could be any.
    let known: Option<Vec<String>> = all.iter().map(|one| one.map(|one| one.to_string())).collect();
    Ok((known.unwrap_or_default(), warnings))
}

/// Whether windows are of several lengths because some ended late: then those that follow each other change theirs again
/// and again, where a recording with another --window does so once, or lies over the first.
fn drained_late(rows: &Rows) -> bool {
    const OFTEN: usize = 3;
    // What clocks are rounded by.
    const SLACK: i64 = 10;
    let mut last: BTreeMap<u64, (u32, i64)> = BTreeMap::new();
    let mut changes = 0;
    for about in rows.about() {
        let end = about.started_ms.saturating_add(about.window_ms.into());
        let Some((before, until)) = last.insert(about.source, (about.window_ms, end)) else {
            continue;
        };
        if about.started_ms.saturating_add(SLACK) < until {
            return false;
        }
        changes += usize::from(!about_as_long(before, about.window_ms));
    }
    changes >= OFTEN
}

/// Where the system calls come from that a model is not for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// They are about to be traced.
    Traced,
    /// Windows of them were recorded.
    Recorded,
}

fn seconds(ms: &[u32]) -> String {
    let words: Vec<String> = ms
        .iter()
        .map(|ms| format!("{} s", f64::from(*ms) / 1e3))
        .collect();
    words.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use vigia_model::artifact::Task;
    use vigia_model::schema::Schema;
    use vigia_trainer::data::About;

    fn learnt(lengths: &str, captures: &[String]) -> Learnt {
        let mut metadata = Metadata::new("m", Task::Anomaly, Schema::syscalls_v1());
        metadata
            .hyperparameters
            .insert(WINDOW_MS.to_owned(), lengths.to_owned());
        metadata.set_captures(captures);
        Learnt::of(&metadata)
    }

    fn other() -> Fingerprint {
        "0".repeat(32).parse().expect("a fingerprint")
    }

    fn rows(about: &[(u32, Option<Fingerprint>)]) -> Rows {
        let mut rows = Rows::new(Schema::syscalls_v1());
        let vector = vec![0.0; rows.width()];
        let mut started_ms = 0;
        for &(window_ms, capture) in about {
            let about = About {
                started_ms,
                window_ms,
                capture,
                ..About::default()
            };
            started_ms += i64::from(window_ms);
            rows.push(&vector, about).expect("a row");
        }
        rows
    }

    #[test]
    fn a_length_is_another_where_it_is_about_none_of_those_of_the_training() {
        let both = learnt("2003 10007", &[]);
        assert_eq!(both.other_lengths(&[1990, 2400, 10_000, 12_000]), None);
        let said = both.other_lengths(&[2000, 5000, 100]).expect("two others");
        assert!(
            said.starts_with("2 of 3 windows") && said.contains("5 s, not 2.003 s and 10.007 s"),
            "{said}"
        );
        let mut late = [2000; 30];
        late[7] = 3100;
        assert_eq!(both.other_lengths(&late), None);
        // A model that does not say, and no window at all.
        assert_eq!(learnt("", &[]).other_lengths(&[5]), None);
        assert_eq!(both.other_lengths(&[]), None);
        let said = |ms| both.other_length(Path::new("m.apr"), Duration::from_millis(ms));
        assert_eq!(said(2000), None);
        assert!(said(100).is_some_and(|said| said.contains("these have 0.1 s")));
    }

    #[test]
    fn other_calls_are_told_where_both_say_which_they_are() {
        let all = learnt("", &["all".to_owned()]);
        assert!(all.fits(None) && all.fits(Some(Fingerprint::ALL)) && !all.fits(Some(other())));
        assert!(learnt("", &[]).fits(Some(other())));
        let filtered = learnt("", &[other().to_string()]);
        for (model, capture, are, said) in [
            (
                &all,
                other(),
                Calls::Traced,
                ["leave -e out", "recorded with this -e"],
            ),
            (
                &filtered,
                Fingerprint::ALL,
                Calls::Traced,
                ["give the -e", "of all system calls"],
            ),
            (
                &all,
                other(),
                Calls::Recorded,
                ["recorded without -e", "windows like these"],
            ),
            (
                &filtered,
                Fingerprint::ALL,
                Calls::Recorded,
                ["with the -e of those", "of all system calls"],
            ),
        ] {
            let failure = format!("{:?}", model.of_other_calls(Path::new("m.apr"), capture, are));
            assert!(said.iter().all(|said| failure.contains(said)), "{failure}");
            assert!(
                are == Calls::Traced || !failure.contains("give the -e"),
                "{failure}"
            );
        }
    }

    #[test]
    fn a_training_says_its_calls_if_all_its_windows_do() {
        let all = Some(Fingerprint::ALL);
        let said = |windows: &[(u32, Option<Fingerprint>)]| of_training(&rows(windows)).expect("few filters");
        assert_eq!(said(&[(100, all), (101, all)]), (vec!["all".to_owned()], vec![]));
        assert_eq!(said(&[]), (vec![], vec![]));
        let (captures, warnings) = said(&[(100, all), (1000, Some(other()))]);
        assert_eq!((captures.len(), warnings.len()), (2, 2), "{warnings:?}");
        let (captures, warnings) = said(&[(100, all), (100, None)]);
        assert!(
            captures.is_empty() && warnings[0].contains("does not name"),
            "{warnings:?}"
        );
        let many = (0..=64).map(|i| (100, format!("{i:032x}").parse().ok()));
        assert!(of_training(&rows(&many.collect::<Vec<_>>())).is_err());
    }

    #[test]
    fn a_few_windows_that_were_drained_late_are_no_length() {
        let mut windows = vec![(100, None); 40];
        windows.push((1100, None));
        assert_eq!(rows(&windows).lengths(), [100]);
        windows.extend(vec![(1000, None); 10]);
        assert_eq!(rows(&windows).lengths(), [100, 1000]);
    }

    #[test]
    fn windows_that_end_late_are_not_taken_for_two_recordings() {
        let said =
            |windows: &[(u32, Option<Fingerprint>)]| of_training(&rows(windows)).expect("few filters").1;
        let late = [100, 100, 150].map(|ms| (ms, None)).repeat(10);
        let warned = said(&late);
        assert!(warned[0].contains("a longer --window"), "{warned:?}");
        let two = [vec![(100, None); 20], vec![(150, None); 10]].concat();
        let warned = said(&two);
        assert!(warned[0].contains("with one --window"), "{warned:?}");
        let mut both = Rows::new(Schema::syscalls_v1());
        for (i, window_ms) in [100, 150].repeat(15).into_iter().enumerate() {
            let about = About {
                started_ms: i as i64 / 2 * i64::from(window_ms),
                window_ms,
                ..About::default()
            };
            both.push(&vec![0.0; both.width()], about).expect("a row");
        }
        let warned = of_training(&both).expect("no filter").1;
        assert!(warned[0].contains("with one --window"), "at once: {warned:?}");
        let mut last = Rows::new(Schema::syscalls_v1());
        for window_ms in [100, 150].repeat(15) {
            let about = About {
                started_ms: i64::MAX,
                window_ms,
                ..About::default()
            };
            last.push(&vec![0.0; last.width()], about).expect("a row");
        }
        assert!(of_training(&last).is_ok(), "at the end of time");
    }

    #[test]
    fn each_window_of_a_training_is_about_as_long_as_one_of_its_lengths() {
        let trained = [1000, 1300, 1700, 2200, 2900].map(|ms| vec![(ms, None); 10]);
        let lengths = rows(&trained.concat()).lengths();
        let words: Vec<String> = lengths.iter().map(u32::to_string).collect();
        let learnt = learnt(&words.join(" "), &[]);
        assert_eq!(
            learnt.other_lengths(&[1000, 1300, 1700, 2200, 2900]),
            None,
            "{lengths:?}"
        );
    }
}
