//! Rank 0's side of the Rounds service.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use vigia_proto::MAX_MESSAGE;
use vigia_proto::v1::rounds_server::{Rounds, RoundsServer};
use vigia_proto::v1::{Chunk, ContributeReply, ReduceReply, ReduceRequest};

use super::board::{Board, flatten};
use super::operator::{collect, endpoint};
use super::retry::CallError;
use super::{Fault, MAX_PART, RoundsTls, WAIT};

/// Name of the round that adds moments.
pub const MOMENTS: &str = "moments";
/// Name of the round that ends with the submission.
pub const DONE: &str = "done";
/// Longest that one contribution may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(60);

struct Service {
    board: Arc<Board>,
}

#[tonic::async_trait]
impl Rounds for Service {
    async fn reduce(&self, request: Request<ReduceRequest>) -> Result<Response<ReduceReply>, Status> {
        let ReduceRequest { rank, round, values } = request.into_inner();
        let later = |_| Status::deadline_exceeded(format!("waiting for {}", self.board.awaited()));
        match round.as_str() {
            MOMENTS => {
                let board = self.board.clone();
                blocking(move || board.moments(rank, &values)).await??;
                let sum = tokio::time::timeout(WAIT, self.board.sum())
                    .await
                    .map_err(later)?;
                Ok(Response::new(ReduceReply {
                    values: flatten(&sum),
                }))
            }
            DONE => {
                self.board.known(rank)?;
                tokio::time::timeout(WAIT, self.board.dismissal(rank))
                    .await
                    .map_err(later)?;
                Ok(Response::new(ReduceReply { values: vec![] }))
            }
            _ => Err(Status::invalid_argument("round: write \"moments\" or \"done\"")),
        }
    }

    async fn contribute(
        &self,
        request: Request<Streaming<Chunk>>,
    ) -> Result<Response<ContributeReply>, Status> {
        let arrival = tokio::time::timeout(
            ARRIVAL,
            collect("the contribution", request.into_inner(), MAX_PART),
        );
        let bytes = match arrival.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(CallError::Status(status))) => return Err(status),
            Ok(Err(CallError::Fault(fault))) => return Err(Status::invalid_argument(fault.to_string())),
            Err(_) => return Err(Status::cancelled("the contribution took too long to arrive")),
        };
        let board = self.board.clone();
        let rank = blocking(move || board.contribution(&bytes)).await??;
        tracing::info!(rank, "contribution kept");
        Ok(Response::new(ContributeReply {}))
    }
}

/// Disk writes and decoding, away from the threads that answer.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Status::internal(error.to_string()))
}

/// Serves until `end` is done, then lets calls under way finish.
pub async fn serve(
    board: Arc<Board>,
    tls: &RoundsTls,
    listener: TcpListener,
    end: impl Future<Output = ()>,
) -> Result<(), Fault> {
    let service = RoundsServer::new(Service { board }).max_decoding_message_size(MAX_MESSAGE);
    let mut server = Server::builder()
        .tls_config(tls.server())
        .map_err(|error| Fault::Config(format!("TLS of the rounds: {error}")))?
        .concurrency_limit_per_connection(8)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)));
    server
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), end)
        .await
        .map_err(|error| Fault::Passing(format!("serving the rounds: {error}")))
}

/// A connection to rank 0.
pub async fn connect(
    rank_zero: &str,
    tls: &RoundsTls,
) -> Result<vigia_proto::v1::rounds_client::RoundsClient<tonic::transport::Channel>, CallError> {
    let host = rank_zero.rsplit_once(':').map_or(rank_zero, |(host, _)| host);
    let endpoint = endpoint(&format!("https://{rank_zero}"), tls.client(host))?;
    let channel = endpoint.timeout(WAIT + ARRIVAL).connect().await?;
    Ok(vigia_proto::v1::rounds_client::RoundsClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}
