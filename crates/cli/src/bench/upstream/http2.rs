//! The same upstream for Web PubSub alone, by HTTP/2 over TLS.

use std::convert::Infallible;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Collected, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::Shared;
use crate::local_certificate::LocalCertificate;
use crate::service::random_key;

/// Calls at once: as many as the service makes.
const STREAMS_MAX: u32 = 1_024;

/// A certificate in a folder that goes with this value.
#[derive(Debug)]
pub(super) struct Certificate {
    folder: PathBuf,
    certificate: LocalCertificate,
}

impl Certificate {
    pub(super) fn new() -> anyhow::Result<Self> {
        let name = format!("hookwire-bench-upstream-{}", &random_key()?[..16]);
        let folder = std::env::temp_dir().join(name);
        let certificate = LocalCertificate::kept(&folder)?;
        Ok(Self { folder, certificate })
    }

    /// Returns the file of the authority.
    pub(super) fn authority(&self) -> &Path {
        self.certificate.authority()
    }

    /// Returns how a server speaks TLS with it that offers HTTP/2 alone.
    pub(super) fn tls(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let tls = self.certificate.tls();
        let files = tls.certificates.first().context("there is no certificate")?;
        let chain = CertificateDer::pem_file_iter(&files.chain)?.collect::<Result<_, _>>()?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key)?)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // Whatever is left lies in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Serves until the process ends.
pub(super) fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shared: &Arc<Shared>,
) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let acceptor = TlsAcceptor::from(tls);
        let mut connections = JoinSet::new();
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (acceptor, shared) = (acceptor.clone(), shared.clone());
            connections.spawn(async move {
                let stream = acceptor.accept(socket).await?;
                let service = service_fn(move |request| answer(request, shared.clone()));
                Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(STREAMS_MAX)
                    .serve_connection(TokioIo::new(stream), service)
                    .await?;
                anyhow::Ok(())
            });
            // The others have ended, as they do when the service has.
            while connections.try_join_next().is_some() {}
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let mut response = Response::new(Full::default());
    let event = head.headers.get("ce-type").map_or(&b""[..], HeaderValue::as_bytes);
    if head.method == Method::OPTIONS {
        let anyone = HeaderValue::from_static("*");
        response.headers_mut().insert("webhook-allowed-origin", anyone);
    } else if event.starts_with(b"azure.webpubsub.user.") {
        // One that breaks off is answered to nobody.
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        shared.sample.get_or_init(|| sample(&head, &body));
        let text = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, text);
        *response.body_mut() = Full::new(body);
    } else {
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response)
}

/// Returns a request as HTTP/1.1 would write it.
fn sample(head: &Parts, body: &[u8]) -> Vec<u8> {
    let mut sample = format!("{} {} HTTP/1.1\r\n", head.method, head.uri.path()).into_bytes();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            sample.extend_from_slice(part);
        }
    }
    sample.extend_from_slice(b"\r\n");
    sample.extend_from_slice(body);
    sample
}
