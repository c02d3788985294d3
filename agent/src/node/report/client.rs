//! The operator, over gRPC with TLS.
//!
//! The CA and the token are mounted files that change under us: the token is read for each call, the CA for each
//! connection, and a connection that failed is not used again.

use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use vigia_proto::v1::node_client::NodeClient;
use vigia_proto::v1::{FetchRequest, ReportAck, ReportBatch};

/// How long to wait for a connection, and for an answer to a report.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long an artifact may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Where the operator is and how to prove who asks.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// `https://` address.
    pub url: String,
    /// PEM of the CA that signs the operator's certificate.
    pub ca_file: PathBuf,
    /// The projected service-account token.
    pub token_file: PathBuf,
}

/// Why the operator did not answer.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A mounted file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The token is no header value.
    #[error("{} holds no token", .0.display())]
    Token(PathBuf),
    /// The address is no address.
    #[error("{0:?} is not an https:// address")]
    Address(String),
    /// No connection.
    #[error("cannot reach the operator: {0}")]
    Connect(#[source] tonic::transport::Error),
    /// An answer that is an error.
    #[error("the operator answers {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// More bytes than the plan says the artifact has.
    #[error("the operator sent more than the {0} bytes that the plan names")]
    TooLarge(u64),
}

impl OperatorError {
    /// It will say so again: what was sent is at fault.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == Code::InvalidArgument)
    }
}

/// A client that connects when it is used.
#[derive(Debug, Clone)]
pub struct Operator {
    config: OperatorConfig,
    channel: Option<Channel>,
}

impl Operator {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(config: OperatorConfig) -> Self {
        Self {
            config,
            channel: None,
        }
    }

    /// Hands over a batch; the answer means that it is stored.
    ///
    /// # Errors
    ///
    /// When it may not be stored.
    pub async fn report(&mut self, batch: ReportBatch) -> Result<ReportAck, OperatorError> {
        let mut client = self.client().await?;
        let mut request = self.request(batch).await?;
        request.set_timeout(TIMEOUT);
        let answer = client.report(request).await;
        self.settle(answer).map(tonic::Response::into_inner)
    }

    /// An artifact's bytes, as they come: nothing is verified yet, but no more than `size` are read.
    ///
    /// # Errors
    ///
    /// When they do not all come.
    pub async fn fetch(&mut self, digest: &str, size: u64) -> Result<Vec<u8>, OperatorError> {
        let mut client = self.client().await?;
        let mut request = self
            .request(FetchRequest {
                digest: digest.to_owned(),
            })
            .await?;
        request.set_timeout(FETCH_TIMEOUT);
        let answer = client.fetch(request).await;
        let mut stream = self.settle(answer)?.into_inner();
        let mut bytes = Vec::new();
        loop {
            let chunk = stream.message().await;
            let Some(chunk) = self.settle(chunk)? else {
                return Ok(bytes);
            };
            if bytes.len() as u64 + chunk.data.len() as u64 > size {
                return Err(OperatorError::TooLarge(size));
            }
            bytes.extend_from_slice(&chunk.data);
        }
    }

    async fn client(&mut self) -> Result<NodeClient<Channel>, OperatorError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let channel = connect(&self.config).await?;
                self.channel = Some(channel.clone());
                channel
            }
        };
        Ok(NodeClient::new(channel).max_decoding_message_size(vigia_proto::MAX_MESSAGE))
    }

    async fn request<T>(&self, message: T) -> Result<Request<T>, OperatorError> {
        let path = &self.config.token_file;
        let token = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| OperatorError::File {
                path: path.clone(),
                source,
            })?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| OperatorError::Token(path.clone()))?;
        value.set_sensitive(true);
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    fn settle<T>(&mut self, answer: Result<T, Status>) -> Result<T, OperatorError> {
        answer.map_err(|status| {
            if matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
            ) {
                self.channel = None;
            }
            OperatorError::Status(Box::new(status))
        })
    }
}

async fn connect(config: &OperatorConfig) -> Result<Channel, OperatorError> {
    if !config.url.starts_with("https://") {
        return Err(OperatorError::Address(config.url.clone()));
    }
    let ca = tokio::fs::read(&config.ca_file)
        .await
        .map_err(|source| OperatorError::File {
            path: config.ca_file.clone(),
            source,
        })?;
    Endpoint::from_shared(config.url.clone())
        .and_then(|endpoint| {
            endpoint.tls_config(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)))
        })
        .map_err(OperatorError::Connect)?
        .connect_timeout(TIMEOUT)
        // A peer that has lost its power sends no word of it.
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(TIMEOUT)
        .connect()
        .await
        .map_err(OperatorError::Connect)
}
