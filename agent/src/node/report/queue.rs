//! What waits for the operator: bounded, in order, and never changed once it has been sent.
//!
//! Pure. The last batch takes in new results until it is sent or full: summaries are sums, so while the operator is
//! away they grow in number and not in size. A batch that was sent once keeps its sequence number and its content,
//! so that the operator can tell a repetition from news; only its samples may go. When there is no more room, the
//! oldest samples go first, since an alert is worth more than a vector to train on, and then the oldest batch, counted.
//!
//! What waits can be kept on disk ([`Queue::kept`]) and taken up by the agent's next life ([`Queue::restore`]).
//! Batches with a number keep it and their instance's name, and are stored once.

use std::collections::{BTreeMap, VecDeque};

use vigia_proto::MAX_SPANS;
use vigia_proto::v1::{ReportBatch, Sample, ScoreSummary, Verdict, VersionSpan};

/// Room for what waits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Batches.
    pub batches: usize,
    /// Feature vectors in one batch.
    pub samples: usize,
    /// Alerts in one batch.
    pub alerts: usize,
    /// Summaries in one batch.
    pub scores: usize,
}

impl Default for Limits {
    /// At most some 13 MiB altogether, where every sample has as many sequences of calls as it may, and a tenth of that
    /// where none are counted; each batch far below gRPC's 4 MiB for a message.
    fn default() -> Self {
        Self {
            batches: 16,
            samples: 128,
            alerts: 256,
            scores: 1024,
        }
    }
}

/// What one drain gave.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Findings {
    /// Alerts.
    pub alerts: Vec<Verdict>,
    /// Sums over the windows of the drain.
    pub scores: Vec<ScoreSummary>,
    /// Feature vectors.
    pub samples: Vec<Sample>,
    /// What became of versions of rollouts that are traced.
    pub versions: Vec<VersionSpan>,
}

impl Findings {
    /// Nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.alerts.is_empty()
            && self.scores.is_empty()
            && self.samples.is_empty()
            && self.versions.is_empty()
    }
}

/// Batches that wait for the operator.
#[derive(Debug)]
pub struct Queue {
    limits: Limits,
    instance: String,
    /// Sequence number of the next batch to be sealed.
    next: u64,
    /// Oldest first. Those with a sequence number are sealed.
    waiting: VecDeque<ReportBatch>,
    dropped: u64,
    dropped_samples: u64,
    revision: u64,
}

impl Queue {
    /// An empty queue of an agent instance.
    #[must_use]
    pub fn new(instance: String, limits: Limits) -> Self {
        Self {
            limits,
            instance,
            next: 1,
            waiting: VecDeque::new(),
            dropped: 0,
            dropped_samples: 0,
            revision: 0,
        }
    }

    /// Takes in what a drain gave.
    pub fn push(&mut self, findings: Findings) {
        if !findings.alerts.is_empty() {
            self.revision += 1;
        }
        for alert in findings.alerts {
            self.room(|batch, limits| batch.alerts.len() < limits.alerts)
                .alerts
                .push(alert);
        }
        for version in findings.versions {
            self.room(|batch, _| batch.versions.len() < MAX_SPANS)
                .versions
                .push(version);
        }
        for sample in findings.samples {
            self.room(|batch, limits| batch.samples.len() < limits.samples)
                .samples
                .push(sample);
        }
        for score in findings.scores {
            let batch = self.room(|batch, limits| {
                batch.scores.len() < limits.scores || batch.scores.iter().any(|have| same(have, &score))
            });
            match batch.scores.iter_mut().find(|have| same(have, &score)) {
                Some(have) => merge(have, &score),
                None => batch.scores.push(score),
            }
        }
    }

    /// What a former life kept. Batches with a number go first, as they are; alerts of the others are new.
    pub fn restore(&mut self, kept: Vec<ReportBatch>) {
        for batch in kept {
            if batch.sequence == 0 {
                self.push(Findings {
                    alerts: batch.alerts,
                    ..Findings::default()
                });
            } else {
                self.waiting.push_back(batch);
            }
        }
    }

    /// What should outlive a crash: numbered batches, and the alerts of the others. Sums of those would be counted
    /// twice if they were delivered after this and kept nevertheless.
    #[must_use]
    pub fn kept(&self) -> Vec<ReportBatch> {
        self.waiting
            .iter()
            .map(|batch| {
                if batch.sequence == 0 {
                    ReportBatch {
                        alerts: batch.alerts.clone(),
                        ..ReportBatch::default()
                    }
                } else {
                    batch.clone()
                }
            })
            .filter(|batch| batch.sequence != 0 || !batch.alerts.is_empty())
            .collect()
    }

    /// Numbers everything that waits: nothing comes after it.
    pub fn seal(&mut self, now_ms: i64, lost_calls: u64) {
        for at in 0..self.waiting.len() {
            self.number(at, lost_calls);
            self.waiting[at].sent_unix_ms = now_ms;
        }
    }

    fn number(&mut self, at: usize, lost_calls: u64) {
        let batch = &mut self.waiting[at];
        if batch.sequence == 0 {
            batch.instance.clone_from(&self.instance);
            batch.sequence = self.next;
            batch.lost_calls = lost_calls;
            batch.dropped_batches = self.dropped;
            self.next += 1;
            self.revision += 1;
        }
    }

    /// The oldest batch, sealed. `lost_calls` and the clock are put in when it is sealed.
    pub fn front(&mut self, now_ms: i64, lost_calls: u64) -> Option<&ReportBatch> {
        if self.waiting.is_empty() {
            return None;
        }
        self.number(0, lost_calls);
        let batch = self.waiting.front_mut()?;
        // Not part of what is stored once: it tells the clocks apart at the moment of sending.
        batch.sent_unix_ms = now_ms;
        Some(batch)
    }

    /// The operator has stored everything of the oldest batch's instance up to this sequence number.
    pub fn acknowledge(&mut self, sequence: u64) {
        let Some(instance) = self.waiting.front().map(|batch| batch.instance.clone()) else {
            return;
        };
        while self.waiting.front().is_some_and(|batch| {
            batch.instance == instance && batch.sequence != 0 && batch.sequence <= sequence
        }) {
            self.waiting.pop_front();
            self.revision += 1;
        }
    }

    /// Gives up a batch that the operator will never take.
    pub fn give_up(&mut self, sequence: u64) {
        if self
            .waiting
            .front()
            .is_some_and(|batch| batch.sequence == sequence)
        {
            self.waiting.pop_front();
            self.dropped += 1;
            self.revision += 1;
        }
    }

    /// Rises whenever [`Self::kept`] gives something else, samples aside that went to make room.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Batches that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Batches given up since the start.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Feature vectors given up since the start, to make room.
    #[must_use]
    pub fn dropped_samples(&self) -> u64 {
        self.dropped_samples
    }

    /// Makes room for a batch: takes out the oldest samples, and folds what they leave into the batch after it; where
    /// that is of no use, the oldest batch goes.
    fn shed(&mut self) {
        if let Some(batch) = self.waiting.iter_mut().find(|batch| !batch.samples.is_empty()) {
            self.dropped_samples += batch.samples.len() as u64;
            batch.samples = Vec::new();
        }
        let foldable = (1..self.waiting.len()).find(|&at| {
            let (one, next) = (&self.waiting[at - 1], &self.waiting[at]);
            let news = one
                .scores
                .iter()
                .filter(|s| !next.scores.iter().any(|have| same(have, s)));
            (one.sequence, next.sequence) == (0, 0)
                && one.samples.is_empty()
                && one.alerts.len() + next.alerts.len() <= self.limits.alerts
                && one.versions.len() + next.versions.len() <= MAX_SPANS
                && news.count() + next.scores.len() <= self.limits.scores
        });
        let folded = foldable.and_then(|at| Some((at, self.waiting.remove(at - 1)?)));
        if let Some((at, mut one)) = folded {
            let next = &mut self.waiting[at - 1];
            one.alerts.append(&mut next.alerts);
            next.alerts = one.alerts;
            one.versions.append(&mut next.versions);
            next.versions = one.versions;
            for score in one.scores {
                match next.scores.iter_mut().find(|have| same(have, &score)) {
                    Some(have) => merge(have, &score),
                    None => next.scores.push(score),
                }
            }
        } else if self.waiting.iter().all(|batch| batch.samples.is_empty()) {
            self.waiting.pop_front();
            self.dropped += 1;
            self.revision += 1;
        }
    }

    /// The last batch if it is open and has room, else a new one; for which the oldest may have to go.
    fn room(&mut self, has_room: impl Fn(&ReportBatch, &Limits) -> bool) -> &mut ReportBatch {
        let limits = self.limits;
        let fits = self
            .waiting
            .back()
            .is_some_and(|batch| batch.sequence == 0 && has_room(batch, &limits));
        if !fits {
            while self.waiting.len() >= limits.batches {
                self.shed();
            }
            self.waiting.push_back(ReportBatch::default());
        }
        let last = self.waiting.len() - 1;
        &mut self.waiting[last]
    }
}

fn same(a: &ScoreSummary, b: &ScoreSummary) -> bool {
    (&a.namespace, &a.profile, &a.model, &a.digest, a.mode)
        == (&b.namespace, &b.profile, &b.model, &b.digest, b.mode)
}

fn merge(into: &mut ScoreSummary, from: &ScoreSummary) {
    into.windows += from.windows;
    into.above_threshold += from.above_threshold;
    if into.histogram.len() < from.histogram.len() {
        into.histogram.resize(from.histogram.len(), 0);
    }
    for (have, more) in into.histogram.iter_mut().zip(&from.histogram) {
        *have += more;
    }
    into.first_window_unix_ms = into.first_window_unix_ms.min(from.first_window_unix_ms);
    into.last_window_unix_ms = into.last_window_unix_ms.max(from.last_window_unix_ms);
    into.max_latency_us = into.max_latency_us.max(from.max_latency_us);
}

/// Sums up summaries of one drain by what they speak of.
#[derive(Debug, Default)]
pub struct Sums(BTreeMap<(String, String, String, String, i32), ScoreSummary>);

impl Sums {
    /// Adds one window's.
    pub fn add(&mut self, score: ScoreSummary) {
        let key = (
            score.namespace.clone(),
            score.profile.clone(),
            score.model.clone(),
            score.digest.clone(),
            score.mode,
        );
        match self.0.get_mut(&key) {
            Some(have) => merge(have, &score),
            None => {
                self.0.insert(key, score);
            }
        }
    }

    /// The sums.
    #[must_use]
    pub fn into_vec(self) -> Vec<ScoreSummary> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> Limits {
        Limits {
            batches: 3,
            samples: 4,
            alerts: 2,
            scores: 8,
        }
    }

    fn queue() -> Queue {
        Queue::new("me".to_owned(), limits())
    }

    fn samples(count: usize) -> Findings {
        Findings {
            samples: vec![Sample::default(); count],
            ..Findings::default()
        }
    }

    fn score(model: &str, windows: u64, at: i64) -> ScoreSummary {
        ScoreSummary {
            model: model.to_owned(),
            windows,
            histogram: vec![windows, 0],
            first_window_unix_ms: at,
            last_window_unix_ms: at,
            ..ScoreSummary::default()
        }
    }

    #[test]
    fn summaries_of_one_version_become_one_until_they_are_sent() {
        let mut queue = queue();
        queue.push(Findings {
            scores: vec![score("a", 1, 10), score("b", 5, 10)],
            ..Findings::default()
        });
        queue.push(Findings {
            scores: vec![score("a", 2, 20)],
            ..Findings::default()
        });
        let batch = queue.front(1, 0).expect("one waits").clone();
        assert_eq!(batch.sequence, 1);
        assert_eq!(batch.scores.len(), 2);
        assert_eq!(
            (batch.scores[0].windows, &batch.scores[0].histogram[..]),
            (3, &[3, 0][..])
        );
        assert_eq!(
            (
                batch.scores[0].first_window_unix_ms,
                batch.scores[0].last_window_unix_ms
            ),
            (10, 20)
        );

        // Sent once, it does not change any more, and keeps its number.
        queue.push(Findings {
            scores: vec![score("a", 4, 30)],
            ..Findings::default()
        });
        assert_eq!(queue.len(), 2);
        let again = queue.front(2, 9).expect("still waits").clone();
        assert_eq!(
            again,
            ReportBatch {
                sent_unix_ms: 2,
                ..batch
            }
        );
        queue.acknowledge(1);
        assert_eq!(queue.front(3, 0).expect("the next").sequence, 2);
    }

    fn alert(pod: &str) -> Verdict {
        Verdict {
            pod: pod.to_owned(),
            ..Verdict::default()
        }
    }

    fn alerts(pods: &[&str]) -> Findings {
        Findings {
            alerts: pods.iter().map(|pod| alert(pod)).collect(),
            ..Findings::default()
        }
    }

    fn pods(batches: &[ReportBatch]) -> Vec<&str> {
        let alerts = batches.iter().flat_map(|batch| &batch.alerts);
        alerts.map(|alert| alert.pod.as_str()).collect()
    }

    #[test]
    fn samples_go_before_alerts_and_sums_and_are_counted() {
        let mut queue = queue();
        queue.push(Findings {
            scores: vec![score("a", 1, 10)],
            ..alerts(&["p"])
        });
        for _ in 0..100 {
            queue.push(Findings {
                scores: vec![score("a", 1, 20)],
                ..samples(4)
            });
        }
        assert_eq!((queue.len(), queue.dropped()), (3, 0));
        assert!(queue.dropped_samples() >= 4 * 97, "{}", queue.dropped_samples());
        queue.seal(0, 0);
        let kept = queue.kept();
        assert_eq!(pods(&kept), ["p"]);
        let windows: u64 = kept.iter().flat_map(|b| &b.scores).map(|s| s.windows).sum();
        assert_eq!(windows, 101);
    }

    #[test]
    fn what_became_of_versions_is_kept_where_samples_make_room() {
        let mut queue = queue();
        queue.push(Findings {
            versions: vec![VersionSpan::default()],
            ..Findings::default()
        });
        for _ in 0..100 {
            queue.push(samples(4));
        }
        assert_eq!((queue.len(), queue.dropped()), (3, 0));
        queue.seal(0, 0);
        assert_eq!(queue.kept().iter().map(|b| b.versions.len()).sum::<usize>(), 1);
    }

    #[test]
    fn the_oldest_alerts_go_when_there_is_nothing_else_and_are_counted() {
        let mut queue = queue();
        queue.push(alerts(&["1", "2", "3", "4", "5", "6"]));
        assert_eq!((queue.len(), queue.dropped()), (3, 0));
        queue.push(alerts(&["7"]));
        assert_eq!((queue.len(), queue.dropped()), (3, 1));
        assert_eq!(queue.front(0, 0).expect("waits").dropped_batches, 1);
        assert_eq!(pods(&queue.kept()), ["3", "4", "5", "6", "7"]);
    }

    #[test]
    fn a_former_life_s_batches_keep_their_numbers_and_its_alerts_come_again() {
        let mut former = queue();
        former.push(alerts(&["1", "2", "3"]));
        let sent = former.front(5, 0).expect("waits").clone();
        let mut queue = Queue::new("next".to_owned(), limits());
        queue.restore(former.kept());
        queue.push(Findings {
            scores: vec![score("a", 1, 10)],
            ..Findings::default()
        });

        let first = queue.front(9, 0).expect("waits").clone();
        assert_eq!((first.instance.as_str(), first.sequence), ("me", sent.sequence));
        assert_eq!(first.alerts, sent.alerts);
        queue.acknowledge(1);
        let second = queue.front(9, 0).expect("waits");
        assert_eq!((second.instance.as_str(), second.sequence), ("next", 1));
        assert_eq!((second.alerts.len(), second.scores.len()), (1, 1));
        queue.acknowledge(1);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_acknowledgement_takes_nothing_that_was_not_sent() {
        let mut queue = queue();
        queue.push(samples(1));
        queue.acknowledge(u64::MAX);
        assert_eq!(queue.len(), 1);
        queue.front(0, 0);
        queue.acknowledge(0);
        assert_eq!(queue.len(), 1);
        queue.acknowledge(u64::MAX);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn sums_survive_any_order_of_sending_and_answers(
            steps in proptest::collection::vec((0u64..5, any::<bool>(), any::<bool>()), 1..60)
        ) {
            let mut queue = Queue::new("me".to_owned(), Limits { batches: 1000, ..limits() });
            let (mut pushed, mut stored, mut last) = (0, 0, 0);
            let mut deliver = |queue: &mut Queue, answered: bool| {
                let Some(batch) = queue.front(0, 0).cloned() else { return };
                // As the operator does: each sequence number once.
                if batch.sequence > last {
                    assert_eq!(batch.sequence, last + 1);
                    last = batch.sequence;
                    stored += batch.scores.iter().map(|score| score.windows).sum::<u64>();
                }
                if answered {
                    queue.acknowledge(batch.sequence);
                }
            };
            for (windows, send, answered) in steps {
                queue.push(Findings { scores: vec![score("a", windows, 0)], ..Findings::default() });
                pushed += windows;
                if send {
                    deliver(&mut queue, answered);
                }
            }
            while !queue.is_empty() {
                deliver(&mut queue, true);
            }
            prop_assert_eq!(pushed, stored);
        }
    }
}
