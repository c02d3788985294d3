//! An operator of our own, over real TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use vigia_agent::node::report::client::{Operator, OperatorConfig};
use vigia_proto::v1::node_server::{Node, NodeServer};
use vigia_proto::v1::{Chunk, FetchRequest, ReportAck, ReportBatch};

/// Long, because builds and clusters may run beside.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// What the operator has seen and how it behaves.
#[derive(Default)]
pub struct Behaviour {
    pub stored: Vec<ReportBatch>,
    pub calls: usize,
    pub tokens: BTreeSet<String>,
    /// Answers nothing but errors.
    pub away: bool,
    /// Answers to lose: the batch is stored, and the caller hears an error.
    pub lose: usize,
    pub artifacts: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Behaviour>>);

impl Fake {
    pub fn with<T>(&self, act: impl FnOnce(&mut Behaviour) -> T) -> T {
        act(&mut self.0.lock().expect("not poisoned"))
    }

    fn note<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = request
            .metadata()
            .get("authorization")
            .expect("a token")
            .to_str()
            .expect("text")
            .to_owned();
        self.with(|seen| {
            seen.calls += 1;
            seen.tokens.insert(token);
            if seen.away {
                Err(Status::unavailable("away"))
            } else {
                Ok(())
            }
        })
    }
}

#[tonic::async_trait]
impl Node for Fake {
    async fn report(&self, request: Request<ReportBatch>) -> Result<Response<ReportAck>, Status> {
        self.note(&request)?;
        let batch = request.into_inner();
        let sequence = batch.sequence;
        self.with(|seen| {
            let mut known = seen
                .stored
                .iter()
                .filter(|stored| stored.instance == batch.instance);
            if known.all(|stored| stored.sequence < sequence) {
                seen.stored.push(batch);
            }
            if seen.lose > 0 {
                seen.lose -= 1;
                return Err(Status::unavailable("the answer is lost"));
            }
            Ok(Response::new(ReportAck {
                sequence,
                received_unix_ms: 0,
            }))
        })
    }

    type FetchStream = tokio_stream::Iter<std::vec::IntoIter<Result<Chunk, Status>>>;

    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.note(&request)?;
        let digest = request.into_inner().digest;
        let bytes = self.with(|seen| seen.artifacts.get(&digest).cloned());
        let bytes = bytes.ok_or_else(|| Status::not_found("no such artifact"))?;
        let chunks: Vec<_> = bytes
            .chunks(1000)
            .map(|data| {
                Ok(Chunk {
                    data: data.to_vec().into(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }
}

pub struct Setup {
    pub folder: TempDir,
    pub fake: Fake,
    pub address: SocketAddr,
    listener: Option<std::net::TcpListener>,
    identity: Identity,
}

impl Setup {
    /// An operator that listens for connections and does not answer yet.
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let server_key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec!["localhost".to_owned()])
            .expect("a name")
            .signed_by(&server_key, &ca)
            .expect("a certificate");
        std::fs::write(folder.path().join("ca.crt"), ca.pem()).expect("written");
        std::fs::write(folder.path().join("token"), "first\n").expect("written");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a listener of tokio");
        Self {
            folder,
            fake: Fake::default(),
            address: listener.local_addr().expect("bound"),
            listener: Some(listener),
            identity: Identity::from_pem(server.pem(), server_key.serialize_pem()),
        }
    }

    pub fn client(&self) -> Operator {
        Operator::new(OperatorConfig {
            url: format!("https://localhost:{}", self.address.port()),
            ca_file: self.folder.path().join("ca.crt"),
            token_file: self.folder.path().join("token"),
        })
    }

    pub fn serve(&mut self) {
        let listener = TcpListener::from_std(self.listener.take().expect("not yet")).expect("a listener");
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(self.identity.clone()))
            .expect("a certificate")
            .add_service(NodeServer::new(self.fake.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }
}

pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let waited = timeout(DEADLINE, async {
        while !holds() {
            looks.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {DEADLINE:?}");
}
