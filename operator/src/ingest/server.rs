//! TLS connections to the gRPC server.
//!
//! tonic's own TLS takes one certificate for ever; here each handshake asks for the certificate of now, so a
//! rotation needs no restart. Handshakes are done aside: a peer that connects and says nothing holds up nobody.
//! Connections are counted, all of them and those of each address, before anything is read from them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once.
const HANDSHAKES: usize = 256;
/// Connections at once: one of each of 5,000 agents, and training pods.
const CONNECTIONS: usize = 8192;
/// Of one address; behind a proxy or a masquerading node it may stand for many.
const CONNECTIONS_OF_ONE: usize = 64;
/// Calls of one connection at once.
const CALLS: u32 = 8;
/// What a peer may send of one call, and of all calls, before it is read.
const WINDOW: (u32, u32) = (256 << 10, 512 << 10);
/// A peer that has lost its power sends no word of it.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Address of the peer of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub IpAddr);

/// Connections that are open, by address.
#[derive(Debug, Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place, given back when it is dropped.
#[derive(Debug)]
struct Slot {
    open: Arc<Open>,
    peer: IpAddr,
}

impl Open {
    fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= CONNECTIONS {
            return None;
        }
        let of_one = open.entry(peer).or_insert(0);
        if *of_one >= CONNECTIONS_OF_ONE {
            return None;
        }
        *of_one += 1;
        Some(Slot {
            open: self.clone(),
            peer,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_one) = open.get_mut(&self.peer) {
            *of_one -= 1;
            if *of_one == 0 {
                open.remove(&self.peer);
            }
        }
    }
}

/// A connection that holds its place.
struct Counted {
    stream: TlsStream<TcpStream>,
    slot: Slot,
}

impl Connected for Counted {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.slot.peer)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Accepts connections and shakes hands until `shutdown`.
fn connections(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    shutdown: CancellationToken,
) -> impl Stream<Item = io::Result<Counted>> {
    let acceptor = TlsAcceptor::from(tls);
    let (ready, receiver) = mpsc::channel(64);
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let open: Arc<Open> = Arc::default();
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Too many open files, most likely: without a pause this would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(place) = open.take(peer.ip().to_canonical()) else {
                tracing::warn!(target: "audit", %peer, "too many connections: one is closed");
                continue;
            };
            let Ok(handshake) = slots.clone().acquire_owned().await else {
                return;
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                let _handshake = handshake;
                if let Some(stream) = shake_hands(&acceptor, stream, peer).await {
                    let _ = ready.send(Ok(Counted { stream, slot: place })).await;
                }
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            None
        }
    }
}

/// Serves until `shutdown`; calls under way are finished.
///
/// # Errors
/// The server cannot go on.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    routes: Routes,
    shutdown: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = connections(listener, tls, shutdown.clone());
    Server::builder()
        .max_concurrent_streams(CALLS)
        .initial_stream_window_size(WINDOW.0)
        .initial_connection_window_size(WINDOW.1)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_address_and_in_all() {
        let open: Arc<Open> = Arc::default();
        let flood: Vec<_> = (0..2 * CONNECTIONS_OF_ONE)
            .filter_map(|_| open.take([10, 0, 0, 1].into()))
            .collect();
        assert_eq!(flood.len(), CONNECTIONS_OF_ONE);
        assert!(open.take([10, 0, 0, 2].into()).is_some());
        drop(flood);
        assert!(open.0.lock().unwrap().is_empty());
        let all: Vec<_> = (0..2 * CONNECTIONS as u32)
            .filter_map(|n| open.take(n.to_be_bytes().into()))
            .collect();
        assert_eq!(all.len(), CONNECTIONS);
    }
}
