//! Calls to the operator's Training service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status, Streaming};
use vigia_proto::v1::submit_request::Part;
use vigia_proto::v1::training_client::TrainingClient;
use vigia_proto::v1::{
    Chunk, HoldoutRequest, PlanRequest, RunPlan, ShardRequest, SubmitHeader, SubmitRequest, TraceRequest,
};
use vigia_proto::{MAX_CHUNK, MAX_MESSAGE};

use super::retry::{Budget, CallError, retry};
use super::{Fault, MAX_SHARD};

/// Longest single call; a shard of the largest size needs 10 MB/s.
const CALL: Duration = Duration::from_secs(60);

/// Where the operator is and how we show who we are.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// `https://host:port`.
    pub url: String,
    /// PEM file of the CA that signed its certificate. Read for every connection: it is rotated.
    pub ca: PathBuf,
    /// File of the projected token. Read for every connection: it is rotated.
    pub token: PathBuf,
}

/// Reads a small mounted file.
pub(super) fn read(path: &Path) -> Result<String, Fault> {
    const MOST: u64 = 1 << 20;
    let read = || {
        use std::io::Read;
        let mut text = String::new();
        std::fs::File::open(path)?.take(MOST).read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    read().map_err(|error| Fault::Config(format!("{}: {error}", path.display())))
}

/// Settings of every connection: a peer whose power was cut is noticed in 15 seconds.
pub(super) fn endpoint(url: &str, tls: ClientTlsConfig) -> Result<Endpoint, Fault> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| Fault::Config(format!("{url:?} is no https://host:port: {error}")))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    endpoint
        .tls_config(tls)
        .map_err(|error| Fault::Config(format!("TLS for {url}: {error}")))
}

/// The operator, as one rank sees it.
pub struct Operator<'a> {
    config: &'a OperatorConfig,
    budget: &'a Budget,
    rank: u32,
}

impl<'a> Operator<'a> {
    /// Nothing is called yet.
    pub fn new(config: &'a OperatorConfig, budget: &'a Budget, rank: u32) -> Self {
        Self { config, budget, rank }
    }

    /// The plan of the run that this pod belongs to.
    pub async fn plan(&self) -> Result<RunPlan, Fault> {
        let call = || async {
            let request = self.request(PlanRequest { rank: self.rank })?;
            Ok(self.client().await?.plan(request).await?.into_inner())
        };
        retry("asking the operator for the plan", self.budget, call).await
    }

    /// This rank's shard, as Parquet.
    pub async fn shard(&self) -> Result<Bytes, Fault> {
        let call = || async {
            let request = self.request(ShardRequest { rank: self.rank })?;
            collect(
                "the shard",
                self.client().await?.shard(request).await?.into_inner(),
                MAX_SHARD,
            )
            .await
        };
        retry("fetching the shard", self.budget, call).await
    }

    /// The held-out windows, as Parquet; rank 0 alone gets them.
    pub async fn holdout(&self) -> Result<Bytes, Fault> {
        let call = || async {
            let request = self.request(HoldoutRequest {})?;
            let stream = self.client().await?.holdout(request).await?.into_inner();
            collect("the held-out windows", stream, MAX_SHARD).await
        };
        retry("fetching the held-out windows", self.budget, call).await
    }

    /// Hands over the result.
    pub async fn submit(&self, header: &SubmitHeader, artifact: &Bytes) -> Result<(), Fault> {
        let call = || async {
            let data = (0..artifact.len()).step_by(MAX_CHUNK).map({
                let artifact = artifact.clone();
                move |start| Part::Data(artifact[start..artifact.len().min(start + MAX_CHUNK)].to_vec())
            });
            let parts = std::iter::once(Part::Header(header.clone())).chain(data);
            let stream = tokio_stream::iter(parts.map(|part| SubmitRequest { part: Some(part) }));
            let request = self.request(stream)?;
            self.client().await?.submit(request).await?;
            Ok(())
        };
        retry("submitting the artifact", self.budget, call).await
    }

    /// Tells what took how long; once.
    pub async fn trace(&self, trace: TraceRequest) -> Result<(), CallError> {
        let request = self.request(trace)?;
        self.client().await?.trace(request).await?;
        Ok(())
    }

    async fn client(&self) -> Result<TrainingClient<Channel>, CallError> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.config.ca)?));
        let channel = endpoint(&self.config.url, tls)?.timeout(CALL).connect().await?;
        Ok(TrainingClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }

    fn request<T>(&self, message: T) -> Result<Request<T>, CallError> {
        let token = read(&self.config.token)?;
        let value = MetadataValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| Fault::Config(format!("{} holds no token", self.config.token.display())))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }
}

/// All data of a stream, bounded.
pub(super) async fn collect(
    what: &str,
    mut stream: Streaming<Chunk>,
    most: usize,
) -> Result<Bytes, CallError> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if chunk.data.len() > MAX_CHUNK || all.len() + chunk.data.len() > most {
            return Err(Status::out_of_range(format!("{what} is larger than {most} bytes")).into());
        }
        all.extend_from_slice(&chunk.data);
    }
    Ok(all.into())
}
