//! Unix and TCP sockets of the operating system, those over TCP perhaps encrypted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use twintrack_link::Endpoint;

use super::settings::is_of_this_machine;
use super::tls::{LinkSecurity, ServerTls};
use crate::shell::Net;

/// A silent TCP peer is asked whether it is there after so long, …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// … then each so long, …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// … and given up after so many times.
const KEEPALIVE_PROBES: u32 = 6;
/// Who may connect to a Unix socket: its owner.
const SOCKET_MODE: u32 = 0o600;

/// Sockets of the operating system. Clones are the same.
#[derive(Clone)]
pub struct TokioNet {
    ready: Arc<Ready>,
    tls: Arc<BTreeMap<Endpoint, ServerTls>>,
    link: LinkSecurity,
}

struct Ready {
    told: AtomicBool,
    tell: Box<dyn Fn() + Send + Sync>,
}

impl TokioNet {
    /// Calls `ready` once, when the first connection could be taken: everything is open and loaded by then.
    pub fn new(ready: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            ready: Arc::new(Ready { told: AtomicBool::new(false), tell: Box::new(ready) }),
            tls: Arc::default(),
            link: LinkSecurity::default(),
        }
    }

    /// With TLS on these TCP addresses: there nothing is served without.
    #[must_use]
    pub fn with_tls(self, tls: BTreeMap<Endpoint, ServerTls>) -> Self {
        Self { tls: Arc::new(tls), ..self }
    }

    /// Connects so to other arrays over TCP.
    #[must_use]
    pub fn with_link(self, link: LinkSecurity) -> Self {
        Self { link, ..self }
    }
}

/// A bound socket. A Unix socket's file goes with it.
#[derive(Debug)]
pub struct Listener(Bound);

#[derive(Debug)]
enum Bound {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, Option<ServerTls>),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Bound::Unix(_, path) = &self.0 {
            // What is left behind is removed by the next start.
            let _ = fs::remove_file(path);
        }
    }
}

impl Net for TokioNet {
    type Listener = Listener;
    type Stream = Stream;

    async fn bind(&self, endpoint: &Endpoint) -> io::Result<Listener> {
        Ok(Listener(match endpoint {
            Endpoint::Unix(path) => Bound::Unix(bind_unix(path)?, path.clone()),
            Endpoint::Tcp(host, port) => {
                let listener = TcpListener::bind((host.as_str(), *port)).await?;
                Bound::Tcp(listener, self.tls.get(endpoint).cloned())
            }
        }))
    }

    async fn accept(&self, listener: &mut Listener) -> io::Result<Stream> {
        if !self.ready.told.swap(true, Ordering::AcqRel) {
            (self.ready.tell)();
        }
        // Nothing is awaited after the accept itself: a connection that was taken is returned.
        Ok(Stream(match &listener.0 {
            Bound::Unix(listener, _) => Socket::Unix(listener.accept().await?.0),
            Bound::Tcp(listener, tls) => {
                let stream = listener.accept().await?.0;
                // A peer that is gone already shows with the first read.
                let _ = tune(&stream);
                match tls {
                    None => Socket::Tcp(stream),
                    Some(tls) => Socket::BeforeTls(stream, tls.clone()),
                }
            }
        }))
    }

    async fn dial(&self, endpoint: &Endpoint) -> io::Result<Stream> {
        let (host, port) = match endpoint {
            Endpoint::Unix(path) => return Ok(Stream(Socket::Unix(UnixStream::connect(path).await?))),
            Endpoint::Tcp(host, port) => (host, *port),
        };
        if matches!(self.link, LinkSecurity::ThisMachine) && !is_of_this_machine(endpoint) {
            let what = "it is on another machine: set certificate, key and peer-ca in [link.tls], or insecure = true in \
                        [link] if the network is trusted";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        }
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        tune(&stream)?;
        let LinkSecurity::Tls(config) = &self.link else { return Ok(Stream(Socket::Tcp(stream))) };
        let name = ServerName::try_from(host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Ok(Stream(Socket::Tls(Encrypted(Box::new(stream.into())))))
    }

    fn requires_encryption(&self, stream: &Stream) -> bool {
        matches!(stream.0, Socket::BeforeTls(..))
    }

    async fn encrypt(&self, stream: Stream) -> io::Result<Stream> {
        let Socket::BeforeTls(stream, ServerTls(config)) = stream.0 else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        Ok(Stream(Socket::Tls(Encrypted(Box::new(stream.into())))))
    }
}

/// The file is there for its owner only; the daemon's umask sees to it that it is never there for others.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Removes the socket of a process that is gone; refuses anything else.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let what = "there is a file that is no socket: move it away or choose another path";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    // Replies are small and waited for.
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    Ok(())
}

/// A connection.
#[derive(Debug)]
pub struct Stream(Socket);

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// Nothing is to be served on it as it is.
    BeforeTls(TcpStream, ServerTls),
    Tls(Encrypted),
}

/// Says goodbye when it is dropped, so that a client can tell the end from a cut.
#[derive(Debug)]
struct Encrypted(Box<TlsStream<TcpStream>>);

impl Drop for Encrypted {
    fn drop(&mut self) {
        // As far as the socket takes it at once: a client that does not read is not waited for.
        let _ = match &mut *self.0 {
            TlsStream::Server(stream) => {
                let (socket, session) = stream.get_mut();
                session.send_close_notify();
                session.write_tls(&mut AtOnce(socket))
            }
            TlsStream::Client(stream) => {
                let (socket, session) = stream.get_mut();
                session.send_close_notify();
                session.write_tls(&mut AtOnce(socket))
            }
        };
    }
}

/// Writes without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.try_write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Socket::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tcp(stream) | Socket::BeforeTls(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(&mut *stream.0).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Socket::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tcp(stream) | Socket::BeforeTls(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(&mut *stream.0).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            Socket::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Tcp(stream) | Socket::BeforeTls(stream, _) => {
                Pin::new(stream).poll_write_vectored(cx, bufs)
            }
            Socket::Tls(stream) => Pin::new(&mut *stream.0).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Socket::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tcp(stream) | Socket::BeforeTls(stream, _) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(&mut *stream.0).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Socket::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tcp(stream) | Socket::BeforeTls(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(&mut *stream.0).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::Unix(folder.path().join("s.sock"));
        let net = TokioNet::new(|| {});
        let listener = net.bind(&endpoint).await.unwrap();
        let mode = fs::metadata(folder.path().join("s.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let error = net.bind(&endpoint).await.unwrap_err();
        assert_eq!(error.to_string(), "another process listens there");
        drop(listener);
        assert!(!folder.path().join("s.sock").exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let net = TokioNet::new(|| {});
        net.bind(&Endpoint::Unix(stale)).await.unwrap();

        let file = folder.path().join("file");
        fs::write(&file, "precious").unwrap();
        let error = net.bind(&Endpoint::Unix(file.clone())).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn ready_is_told_once_and_an_accept_that_is_dropped_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let told = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counter = Arc::clone(&told);
        let net = TokioNet::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut listener = net.bind(&Endpoint::Unix(path.clone())).await.unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 0);
        let nobody = tokio::time::timeout(Duration::from_millis(1), net.accept(&mut listener)).await;
        assert!(nobody.is_err());
        let _client = UnixStream::connect(&path).await.unwrap();
        net.accept(&mut listener).await.unwrap();
        assert_eq!(told.load(Ordering::Relaxed), 1);
    }
}
