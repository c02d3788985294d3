//! What rank 0 has heard, and from whom. Everything may be said twice; the first time counts.

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Status;
use vigia_model::deviation::Moments;

use super::MAX_PART;
use super::checkpoint::Checkpoints;
use super::plan::Plan;
use crate::fit::{self, Partial, Share};

/// A worker's contribution on the wire and on disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Contribution {
    /// Whose.
    pub rank: u32,
    /// Of which plan.
    pub fingerprint: [u8; 32],
    /// Its share.
    pub share: Share,
}

fn options() -> impl bincode::Options {
    use bincode::Options;
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MAX_PART as u64)
        .reject_trailing_bytes()
}

impl Contribution {
    /// The bytes that are sent and kept.
    pub fn encode(&self) -> Result<Vec<u8>, bincode::Error> {
        bincode::Options::serialize(options(), self)
    }

    /// From bytes of at most [`MAX_PART`].
    pub fn decode(bytes: &[u8]) -> Result<Self, bincode::Error> {
        bincode::Options::deserialize(options(), bytes)
    }
}

/// Moments as the contracts' list of numbers: rows, then the four sums of each feature. Counts are exact below 2^53.
pub fn flatten(moments: &Moments) -> Vec<f64> {
    let present = moments.present.iter().map(|&n| n as f64);
    let sums = [&moments.sum, &moments.squares, &moments.rates]
        .into_iter()
        .flatten()
        .copied();
    std::iter::once(moments.rows as f64)
        .chain(present)
        .chain(sums)
        .collect()
}

/// The reverse of [`flatten`].
pub fn unflatten(values: &[f64], width: usize) -> Option<Moments> {
    let count = |x: f64| (x >= 0.0 && x <= (1u64 << 53) as f64 && x.fract() == 0.0).then_some(x as u64);
    if values.len() != 1 + 4 * width || values.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let (rows, rest) = values.split_first()?;
    let mut parts = rest.chunks_exact(width);
    Some(Moments {
        rows: count(*rows)?,
        present: parts.next()?.iter().map(|&x| count(x)).collect::<Option<_>>()?,
        sum: parts.next()?.to_vec(),
        squares: parts.next()?.to_vec(),
        rates: parts.next()?.to_vec(),
    })
}

#[derive(Default)]
struct Heard {
    moments: Option<Moments>,
    share: Option<Share>,
    /// Was told that the result is submitted.
    dismissed: bool,
}

struct State {
    ranks: Vec<Heard>,
    submitted: bool,
}

/// See the module's head.
pub struct Board {
    plan: Plan,
    checkpoints: Checkpoints,
    state: watch::Sender<State>,
}

impl Board {
    /// A board with what the checkpoints hold of this plan.
    pub fn new(plan: Plan, checkpoints: Checkpoints) -> Self {
        let ranks = (0..plan.params.workers).map(|_| Heard::default()).collect();
        let board = Self {
            plan,
            checkpoints,
            state: watch::Sender::new(State {
                ranks,
                submitted: false,
            }),
        };
        for rank in 0..board.workers() {
            if let Some(kept) = board.checkpoints.get(&format!("moments-{rank}"))
                && let Some(values) = numbers(&kept)
            {
                let _ = board.accept_moments(rank, &values);
            }
            if let Some(kept) = board.checkpoints.get(&format!("share-{rank}")) {
                let _ = board.accept_contribution(&kept);
            }
        }
        board
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn workers(&self) -> u32 {
        self.plan.params.workers
    }

    /// True when this rank's moments, or its share, are there.
    pub fn has(&self, rank: u32) -> (bool, bool) {
        let state = self.state.borrow();
        let heard = &state.ranks[rank as usize];
        (heard.moments.is_some(), heard.share.is_some())
    }

    /// Takes a rank's sums, and keeps them on disk.
    pub fn moments(&self, rank: u32, values: &[f64]) -> Result<(), Status> {
        if self.accept_moments(rank, values)? {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            self.checkpoints.put(&format!("moments-{rank}"), &bytes);
        }
        Ok(())
    }

    /// Takes a rank's share, and keeps them on disk.
    pub fn contribution(&self, bytes: &[u8]) -> Result<u32, Status> {
        let (rank, new) = self.accept_contribution(bytes)?;
        if new {
            self.checkpoints.put(&format!("share-{rank}"), bytes);
        }
        Ok(rank)
    }

    fn accept_moments(&self, rank: u32, values: &[f64]) -> Result<bool, Status> {
        self.known(rank)?;
        let width = self.plan.schema.width();
        let moments = unflatten(values, width)
            .filter(|m| m.rows > 0 && m.present.iter().all(|&n| n <= m.rows))
            .ok_or_else(|| {
                Status::invalid_argument(format!("worker {rank}: these are not sums over {width} features"))
            })?;
        let mut result = Ok(false);
        self.state.send_if_modified(|state| {
            let heard = &mut state.ranks[rank as usize].moments;
            match heard {
                None => {
                    *heard = Some(moments);
                    result = Ok(true);
                    true
                }
                // Another machine may differ in last bits; other data differ in rows.
                Some(first) if first.rows == moments.rows => false,
                Some(_) => {
                    result = Err(Status::failed_precondition(format!(
                        "worker {rank} sent sums over other windows before"
                    )));
                    false
                }
            }
        });
        result
    }

    fn accept_contribution(&self, bytes: &[u8]) -> Result<(u32, bool), Status> {
        let bad = |why: String| Status::invalid_argument(format!("contribution: {why}"));
        let part = Contribution::decode(bytes).map_err(|error| bad(error.to_string()))?;
        self.known(part.rank)?;
        if part.fingerprint != self.plan.fingerprint {
            return Err(Status::failed_precondition(format!(
                "worker {} follows another plan",
                part.rank
            )));
        }
        let width = self.plan.schema.width();
        fit::check_share(part.rank, &part.share, &self.plan.params, width)
            .map_err(|error| bad(error.to_string()))?;
        let new = self.state.send_if_modified(|state| {
            let heard = &mut state.ranks[part.rank as usize].share;
            let new = heard.is_none();
            heard.get_or_insert(part.share);
            new
        });
        Ok((part.rank, new))
    }

    /// Whether this rank is one of the plan's.
    pub fn known(&self, rank: u32) -> Result<(), Status> {
        if rank < self.workers() {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "worker {rank}: the plan has {} workers",
            self.workers()
        )))
    }

    /// Waits for everyone's sums, and adds them in the order of ranks.
    pub async fn sum(&self) -> Moments {
        let mut sum = Moments::new(self.plan.schema.width());
        let mut states = self.state.subscribe();
        if let Ok(state) = states
            .wait_for(|s| s.ranks.iter().all(|r| r.moments.is_some()))
            .await
        {
            for moments in state.ranks.iter().filter_map(|r| r.moments.as_ref()) {
                // Widths were checked when they came.
                let _ = sum.merge(moments);
            }
        }
        sum
    }

    /// Waits for everyone's part.
    pub async fn parts(&self) -> Vec<Partial> {
        let mut states = self.state.subscribe();
        let Ok(state) = states
            .wait_for(|s| s.ranks.iter().all(|r| r.moments.is_some() && r.share.is_some()))
            .await
        else {
            return vec![];
        };
        let part = |(rank, heard): (u32, &Heard)| {
            Some(Partial {
                rank,
                moments: heard.moments.clone()?,
                share: heard.share.clone()?,
            })
        };
        (0..).zip(&state.ranks).filter_map(part).collect()
    }

    /// Whose sums, and whose shares, are still awaited; for people.
    pub fn awaited(&self) -> String {
        let state = self.state.borrow();
        let list = |missing: &dyn Fn(&Heard) -> bool| {
            let ranks = (0..).zip(&state.ranks).filter(|(_, heard)| missing(heard));
            ranks
                .map(|(rank, _): (u32, _)| rank.to_string())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let (moments, shares) = (list(&|h| h.moments.is_none()), list(&|h| h.share.is_none()));
        match (moments.is_empty(), shares.is_empty()) {
            (false, _) => format!("moments of workers {moments}"),
            (true, false) => format!("shares of workers {shares}"),
            (true, true) => "the operator's receipt".to_owned(),
        }
    }

    /// The result is with the operator.
    pub fn submitted(&self) {
        self.state.send_modify(|state| state.submitted = true);
    }

    /// Waits for [`Board::submitted`], on behalf of a rank that is then dismissed.
    pub async fn dismissal(&self, rank: u32) {
        let _ = self.state.subscribe().wait_for(|s| s.submitted).await;
        self.state
            .send_modify(|state| state.ranks[rank as usize].dismissed = true);
    }

    /// Waits until every rank but 0 is dismissed.
    pub async fn all_dismissed(&self) {
        let _ = self
            .state
            .subscribe()
            .wait_for(|s| s.ranks.iter().skip(1).all(|r| r.dismissed))
            .await;
    }
}

fn numbers(bytes: &[u8]) -> Option<Vec<f64>> {
    let (chunks, rest) = bytes.as_chunks::<8>();
    rest.is_empty()
        .then(|| chunks.iter().map(|&c| f64::from_le_bytes(c)).collect())
}
