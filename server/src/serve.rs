//! Connections: accepting them, bounding what each may cost in time and memory, and ending them in order.
//!
//! `axum::serve` has no limit on headers, on silence or on the number of connections, so the loop is written out here.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::Limits;
use crate::http::{Certified, Peer};
use crate::tls::{self, Tls};

/// Bytes of a connection's buffers: what one part of an upload can hold, and about what waits to be sent. With half of it a download by slow
/// clients costs a fifth more processor time, with a quarter two fifths.
const BUFFER_BYTES: usize = 256 << 10;
/// Pause after `accept` failed, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `shutdown` is done, then lets open requests finish within the grace time. With `tls`, nothing but TLS is spoken.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let connections = Arc::new(Semaphore::new(limits.max_connections));
    // Every connection holds a receiver: when all are gone, all requests have been answered.
    let (stop, stopping) = watch::channel(());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(BUFFER_BYTES);
    let (write_stall, handshake) = (limits.write_stall, limits.handshake);
    let desk = Desk { http, router, write_stall, handshake, stopping };
    tokio::pin!(shutdown);
    loop {
        let accept = async {
            // The semaphore is never closed, so there is always a permit to wait for.
            let permit = connections.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let welcomed = desk.clone().welcome(stream, peer, tls.as_ref().map(|tls| tls.acceptor()));
        tokio::spawn(async move {
            welcomed.await;
            drop(permit);
        });
    }
    drop((listener, desk));
    stop.send_replace(());
    if timeout(limits.shutdown_grace, stop.closed()).await.is_err() {
        log::warn!("requests were still open after {} s and are cut off", limits.shutdown_grace.as_secs());
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    http: http1::Builder,
    router: Router,
    write_stall: Duration,
    handshake: Duration,
    stopping: watch::Receiver<()>,
}

impl Desk {
    /// Makes a connection an encrypted one, if that is wanted, and answers on it.
    async fn welcome(mut self, stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>) {
        // Small answers should not wait for more bytes; an error here only costs time.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("cannot set TCP_NODELAY for {peer}: {error}");
        }
        let Some(tls) = tls else { return self.answer(stream, peer, None).await };
        let shaken = tokio::select! {
            shaken = timeout(self.handshake, tls.accept(stream)) => shaken,
            _ = self.stopping.changed() => return,
        };
        match shaken {
            Err(_) => log::debug!("{peer} does not finish its handshake"),
            // Probes that only connect are no news; a device whose certificate is refused is.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Ok(Err(error)) => log::info!("{peer}: no TLS: {error}"),
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let certified = shown.map(|certificate| Certified(tls::device(certificate)));
                self.answer(stream, peer, certified).await;
            }
        }
    }

    /// Answers the requests of one connection, one after the other.
    async fn answer<S>(mut self, stream: S, peer: SocketAddr, certified: Option<Certified>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let routes = TowerToHyperService::new(self.router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            if let Some(certified) = &certified {
                request.extensions_mut().insert(certified.clone());
            }
            routes.call(request)
        });
        let stream = TokioIo::new(Guarded::new(stream, self.write_stall));
        let mut connection = pin!(self.http.serve_connection(stream, service).with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = self.stopping.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            log::debug!("connection of {peer}: {error}");
        }
    }
}

/// A stream that fails when the other end takes no bytes for too long. Silence in the other direction is bounded where
/// it is known what is waited for: headers by hyper, bodies by the routes.
struct Guarded<S> {
    stream: S,
    stall: Duration,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Guarded<S> {
    fn new(stream: S, stall: Duration) -> Self {
        Guarded { stream, stall, deadline: Box::pin(sleep(stall)), waiting: false }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.waiting = false;
            return progress;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.stall);
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no bytes")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, progress)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, progress)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
