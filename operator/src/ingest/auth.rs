//! Who calls: a TokenReview of the bearer token, remembered for a short while.
//!
//! Reviews cost the API server something, so they are few at once, and an address whose tokens are no good gets
//! few of them; one whose token was good before is not held up by its neighbours.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tonic::Status;

use super::accounts::{Accounts, Identity, Reviewer};

/// A good token is asked about again after this; a pod that is gone is refused no later.
const GOOD: Duration = Duration::from_secs(120);
/// A bad one after this, so that an agent whose account was just created is not kept out for long.
const BAD: Duration = Duration::from_secs(5);
/// Tokens that are remembered.
const REMEMBERED: usize = 20_000;
/// Longest token that is looked at.
const MAX_TOKEN: usize = 16 << 10;
/// Reviews at once.
const REVIEWS: usize = 32;
/// Longest wait for a review, its turn included.
const REVIEW_TIME: Duration = Duration::from_secs(10);
/// Bad tokens of an address: at once, and a second after.
const BAD_TOKENS: (f64, f64) = (20.0, 0.2);
/// Addresses that are remembered to have sent bad tokens.
const ADDRESSES: usize = 4096;

type Known = HashMap<[u8; 32], (Instant, Result<Identity, String>)>;

/// What is remembered of a token.
enum Recalled {
    /// What it is.
    Known(Result<Identity, String>),
    /// It was good a while ago, and is most likely still.
    WasGood,
    Nothing,
}

/// Turns tokens into callers.
pub struct Authenticator {
    reviewer: Arc<dyn Reviewer>,
    accounts: Accounts,
    known: Mutex<Known>,
    reviews: Semaphore,
    strangers: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

impl Authenticator {
    /// An authenticator that asks `reviewer`.
    pub fn new(reviewer: Arc<dyn Reviewer>, accounts: Accounts) -> Self {
        Self {
            reviewer,
            accounts,
            known: Mutex::default(),
            reviews: Semaphore::new(REVIEWS),
            strangers: Mutex::default(),
        }
    }

    /// Who sent these headers from this address.
    ///
    /// # Errors
    /// `Unauthenticated`; `ResourceExhausted` where the address has sent too many bad tokens; `Unavailable` where
    /// the API server cannot be asked.
    pub async fn identify(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Result<Identity, Status> {
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.strip_prefix("Bearer "))
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN)
            .ok_or_else(|| {
                Status::unauthenticated("send the pod's token as \"authorization: Bearer ...\"")
            })?;
        // The hash, so that a dump of the operator's memory holds no more tokens than it must.
        let key: [u8; 32] = Sha256::digest(token).into();
        // What is charged is given back when the token turns out to be good.
        let charged = match (self.recall(&key), peer) {
            (Recalled::Known(known), _) => return known.map_err(Status::unauthenticated),
            (Recalled::Nothing, Some(peer)) => {
                let peer = subscriber(peer);
                if !self.charge(peer, Instant::now()) {
                    return Err(Status::resource_exhausted(
                        "too many bad tokens from this address; try again later",
                    ));
                }
                Some(peer)
            }
            (Recalled::WasGood, _) | (Recalled::Nothing, None) => None,
        };
        let reviewed = tokio::time::timeout(REVIEW_TIME, async {
            let _turn = self.reviews.acquire().await.map_err(|e| e.to_string())?;
            self.reviewer.review(token).await
        });
        let reviewed = reviewed
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let identity = match &reviewed {
            Ok(review) => self.accounts.identify(review),
            Err(why) => {
                self.give_back(charged);
                return Err(Status::unavailable(format!(
                    "the token cannot be reviewed now: {why}"
                )));
            }
        };
        match &identity {
            Ok(_) => self.give_back(charged),
            Err(why) => tracing::warn!(target: "audit", why, ?peer, "a caller is refused"),
        }
        self.remember(key, identity.clone());
        identity.map_err(Status::unauthenticated)
    }

    /// Whether an address may have another unknown token reviewed.
    fn charge(&self, peer: IpAddr, now: Instant) -> bool {
        let refill = |(left, at): (f64, Instant)| {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            (left + seconds * BAD_TOKENS.1).min(BAD_TOKENS.0)
        };
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() >= ADDRESSES && !strangers.contains_key(&peer) {
            strangers.retain(|_, bucket| refill(*bucket) < BAD_TOKENS.0);
        }
        // So many at once are no accident: those that come on top share one.
        let peer = match strangers.len() >= ADDRESSES && !strangers.contains_key(&peer) {
            true => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            false => peer,
        };
        let bucket = strangers.entry(peer).or_insert((BAD_TOKENS.0, now));
        let left = refill(*bucket);
        *bucket = (if left >= 1.0 { left - 1.0 } else { left }, now);
        left >= 1.0
    }

    fn give_back(&self, peer: Option<IpAddr>) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((left, _)) = peer.and_then(|peer| strangers.get_mut(&peer)) {
            *left = (*left + 1.0).min(BAD_TOKENS.0);
        }
    }

    fn recall(&self, key: &[u8; 32]) -> Recalled {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(key) {
            Some((until, identity)) if *until > Instant::now() => Recalled::Known(identity.clone()),
            Some((_, Ok(_))) => Recalled::WasGood,
            _ => Recalled::Nothing,
        }
    }

    fn remember(&self, key: [u8; 32], identity: Result<Identity, String>) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.retain(|_, (until, _)| *until > now);
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, (_, identity)| identity.is_ok());
        }
        if known.len() < REMEMBERED {
            let keep = if identity.is_ok() { GOOD } else { BAD };
            known.insert(key, (now + keep, identity));
        }
    }
}

/// Who an address belongs to: of IPv6 one subscriber has 2⁶⁴.
fn subscriber(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => IpAddr::V6(Ipv6Addr::from_bits(peer.to_bits() >> 64 << 64)),
        peer @ IpAddr::V4(_) => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::accounts::tests::{FakeTokenReview, accounts};
    use std::sync::atomic::Ordering;

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    async fn node_of(auth: &Authenticator, token: &str, peer: Option<IpAddr>) -> Result<String, Status> {
        let identity = auth.identify(&bearer(token), peer).await?;
        Ok(identity.agent()?.to_owned())
    }

    #[tokio::test]
    async fn answers_are_remembered_and_outages_are_not() {
        let fake = Arc::new(FakeTokenReview::default());
        let auth = Authenticator::new(fake.clone(), accounts());
        for _ in 0..3 {
            assert_eq!(node_of(&auth, "agent:n1", None).await.unwrap(), "n1");
            let refused = node_of(&auth, "nonsense", None).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 2);
        for _ in 0..2 {
            let down = node_of(&auth, "down", None).await.unwrap_err();
            assert_eq!(down.code(), tonic::Code::Unavailable);
        }
        assert_eq!(fake.asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn an_address_with_bad_tokens_costs_the_api_server_little_and_its_neighbours_nothing() {
        let fake = Arc::new(FakeTokenReview::default());
        let auth = Authenticator::new(fake.clone(), accounts());
        let peer = Some(IpAddr::from([10, 0, 0, 7]));
        assert_eq!(node_of(&auth, "agent:n1", peer).await.unwrap(), "n1");
        for number in 0..500 {
            let refused = node_of(&auth, &format!("made-up-{number}"), peer).await;
            assert!(refused.is_err());
        }
        let asked = fake.asked.load(Ordering::Relaxed);
        assert!(asked <= 22, "{asked} reviews");
        let code = |answer: Result<String, Status>| answer.unwrap_err().code();
        assert_eq!(
            code(node_of(&auth, "agent:n2", peer).await),
            tonic::Code::ResourceExhausted
        );
        // From elsewhere, and what is known or was good before.
        let other = Some(IpAddr::from([10, 0, 0, 8]));
        assert_eq!(node_of(&auth, "agent:n2", other).await.unwrap(), "n2");
        assert_eq!(node_of(&auth, "agent:n1", peer).await.unwrap(), "n1");
        for (until, _) in auth.known.lock().unwrap().values_mut() {
            *until = Instant::now();
        }
        assert_eq!(node_of(&auth, "agent:n1", peer).await.unwrap(), "n1");
    }

    #[test]
    fn buckets_of_addresses_refill_and_are_bounded() {
        let auth = Authenticator::new(Arc::new(FakeTokenReview::default()), accounts());
        let start = Instant::now();
        for number in 0..3 * ADDRESSES as u32 {
            auth.charge(IpAddr::from(number.to_be_bytes()), start);
        }
        assert!(auth.strangers.lock().unwrap().len() <= ADDRESSES + 1);
        let peer = IpAddr::from([0, 0, 0, 1]);
        while auth.charge(peer, start) {}
        assert!(!auth.charge(peer, start + Duration::from_secs(4)));
        assert!(auth.charge(peer, start + Duration::from_secs(9)));
        let of = |text: &str| subscriber(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[tokio::test]
    async fn agents_do_not_train_and_trainers_do_not_report() {
        let auth = Authenticator::new(Arc::new(FakeTokenReview::default()), accounts());
        let code = |r: Result<String, Status>| r.unwrap_err().code();
        assert_eq!(
            code(node_of(&auth, "trainer:p:u", None).await),
            tonic::Code::PermissionDenied
        );
        let agent = auth.identify(&bearer("agent:n"), None).await.unwrap();
        assert_eq!(agent.trainer().unwrap_err().code(), tonic::Code::PermissionDenied);
        let none = auth.identify(&HeaderMap::new(), None).await.unwrap_err();
        assert_eq!(none.code(), tonic::Code::Unauthenticated);
        let long = node_of(&auth, &"x".repeat(MAX_TOKEN + 1), None).await;
        assert_eq!(code(long), tonic::Code::Unauthenticated);
    }
}
