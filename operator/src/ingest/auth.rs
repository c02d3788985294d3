//! Who calls: a TokenReview of the bearer token, remembered for a short while.
//!
//! Reviews cost the API server something, so they are few at once, and an address whose tokens are no good gets
//! few of them; one whose token was good before is not held up by its neighbours.
//!
//! The API server says which service account a token is of, and, in `extra`, which pod and node it was bound
//! to (KEP-4193). Only tokens for our own audience count, so a token that leaks from elsewhere is worth
//! nothing here, and one that leaks from here is worth nothing elsewhere.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tonic::{Request, Status};
use vigia_proto::TOKEN_AUDIENCE;

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

const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// A caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The agent of a node.
    Agent {
        /// The node.
        node: String,
    },
    /// A training pod.
    Trainer {
        /// Name of the pod.
        pod: String,
        /// UID of the pod.
        uid: String,
    },
}

impl Identity {
    /// The caller of a request, as the gate found it.
    ///
    /// # Errors
    /// It did not come through the gate.
    pub fn of<T>(request: &Request<T>) -> Result<&Self, Status> {
        let found = request.extensions().get::<Self>();
        found.ok_or_else(|| Status::unauthenticated("nobody knows who calls"))
    }

    /// The node whose agent calls.
    ///
    /// # Errors
    /// It is no agent.
    pub fn agent(&self) -> Result<&str, Status> {
        match self {
            Self::Agent { node } => Ok(node),
            Self::Trainer { .. } => Err(Status::permission_denied("training pods do not report")),
        }
    }

    /// Name and UID of the training pod that calls.
    ///
    /// # Errors
    /// It is none.
    pub fn trainer(&self) -> Result<(&str, &str), Status> {
        match self {
            Self::Trainer { pod, uid } => Ok((pod, uid)),
            Self::Agent { .. } => Err(Status::permission_denied("agents do not train")),
        }
    }

    /// What tells it from other callers.
    pub fn key(&self) -> &str {
        match self {
            Self::Agent { node } => node,
            Self::Trainer { uid, .. } => uid,
        }
    }
}

/// The way to ask what a token is worth.
#[tonic::async_trait]
pub trait Reviewer: Send + Sync + 'static {
    /// Reviews a token for our audience.
    ///
    /// # Errors
    /// Nobody could be asked.
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String>;
}

/// Asks the API server.
pub struct ApiServer(pub Client);

#[tonic::async_trait]
impl Reviewer for ApiServer {
    async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let answer = Api::<TokenReview>::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|e| e.to_string())?;
        Ok(answer.status.unwrap_or_default())
    }
}

/// The service accounts that may call.
#[derive(Clone, Debug)]
pub struct Accounts {
    /// `system:serviceaccount:<namespace>:<agents>`.
    pub agent: String,
    /// `system:serviceaccount:<namespace>:<trainers>`.
    pub trainer: String,
}

impl Accounts {
    /// Of the operator's namespace.
    pub fn new(namespace: &str, agent: &str, trainer: &str) -> Self {
        let user = |name| format!("system:serviceaccount:{namespace}:{name}");
        Self {
            agent: user(agent),
            trainer: user(trainer),
        }
    }

    /// What a review says, or why it is not enough. Pure.
    fn identify(&self, review: &TokenReviewStatus) -> Result<Identity, String> {
        if review.authenticated != Some(true) {
            return Err("the token is not valid".to_owned());
        }
        let ours = |audiences: &Vec<String>| audiences.iter().any(|a| a == TOKEN_AUDIENCE);
        if !review.audiences.as_ref().is_some_and(ours) {
            return Err(format!("the token is not for audience {TOKEN_AUDIENCE}"));
        }
        let user = review.user.clone().unwrap_or_default();
        let extra = user.extra.unwrap_or_default();
        let claim = |name: &str| match extra.get(name).map(Vec::as_slice) {
            Some([value]) if !value.is_empty() => Ok(value.clone()),
            _ => Err(format!(
                "the token has no {name}: it must be a projected token of a pod"
            )),
        };
        let name = user.username.unwrap_or_default();
        if name == self.agent {
            Ok(Identity::Agent {
                node: claim(NODE_NAME)?,
            })
        } else if name == self.trainer {
            Ok(Identity::Trainer {
                pod: claim(POD_NAME)?,
                uid: claim(POD_UID)?,
            })
        } else {
            Err(format!("{name} may not call the operator"))
        }
    }
}

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
pub(crate) mod tests {
    use super::*;
    use k8s_openapi::api::authentication::v1::UserInfo;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(crate) fn review(account: &str, extra: &[(&str, &str)]) -> TokenReviewStatus {
        let extra: BTreeMap<_, _> = extra
            .iter()
            .map(|(k, v)| ((*k).to_owned(), vec![(*v).to_owned()]))
            .collect();
        TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec![TOKEN_AUDIENCE.to_owned()]),
            user: Some(UserInfo {
                username: Some(format!("system:serviceaccount:vigia-system:{account}")),
                extra: Some(extra),
                ..UserInfo::default()
            }),
            ..TokenReviewStatus::default()
        }
    }

    /// Stands in for the API server's TokenReview: a token `agent:<node>` is of that node's agent,
    /// `trainer:<pod>:<uid>` of that training pod, `down` finds nobody to ask, anything else is no token.
    #[derive(Default)]
    pub(crate) struct FakeTokenReview {
        pub asked: AtomicUsize,
    }

    #[tonic::async_trait]
    impl Reviewer for FakeTokenReview {
        async fn review(&self, token: &str) -> Result<TokenReviewStatus, String> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let parts: Vec<&str> = token.split(':').collect();
            match parts.as_slice() {
                ["agent", node] => Ok(review("vigia-agent", &[(NODE_NAME, node)])),
                ["trainer", pod, uid] => Ok(review("vigia-trainer", &[(POD_NAME, pod), (POD_UID, uid)])),
                ["down"] => Err("no API server".to_owned()),
                _ => Ok(TokenReviewStatus::default()),
            }
        }
    }

    pub(crate) fn accounts() -> Accounts {
        Accounts::new("vigia-system", "vigia-agent", "vigia-trainer")
    }

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, format!("Bearer {token}").parse().unwrap())])
    }

    #[test]
    fn only_bound_tokens_of_our_accounts_for_our_audience_count() {
        let accounts = accounts();
        let node = [(NODE_NAME, "n1")];
        let agent = Identity::Agent { node: "n1".into() };
        assert_eq!(accounts.identify(&review("vigia-agent", &node)), Ok(agent));
        let good = review("vigia-agent", &node);
        let bad = [
            TokenReviewStatus::default(),
            TokenReviewStatus {
                authenticated: Some(false),
                ..good.clone()
            },
            TokenReviewStatus {
                audiences: Some(vec!["https://kubernetes.default.svc".into()]),
                ..good.clone()
            },
            TokenReviewStatus {
                audiences: None,
                ..good
            },
            review("default", &node),
            review("vigia-agent", &[]),
            review("vigia-agent", &[(NODE_NAME, "")]),
            review("vigia-trainer", &[(POD_NAME, "p")]),
        ];
        for review in bad {
            assert!(accounts.identify(&review).is_err(), "{review:?}");
        }
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
