//! Certificates of clients: who gets in with which, and what upstreams are told.

use std::fmt::Write as _;
use std::sync::Arc;

use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_server::config::{ClientCertificates, Config};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::authority::{Authority, Issued, speaks_tls};
use super::{doors, websocket};
use crate::data_plane::sign;
use crate::node::{TestNode, start};
use crate::upstream::{Upstream, ok, welcome};

fn thumbprint(issued: &Issued) -> String {
    let mut text = String::new();
    for byte in Sha1::digest(&issued.certificate) {
        write!(text, "{byte:02X}").unwrap();
    }
    text
}

fn wants(config: &mut Config, wanted: ClientCertificates, issuer: Option<&Authority>) {
    config.tls.client_certificates = wanted;
    if let Some(issuer) = issuer {
        let file = config.data_dir.join("clients.pem");
        std::fs::write(&file, &issuer.pem).unwrap();
        config.tls.client_ca_files = vec![file];
    }
}

/// Whether a client is served: in TLS 1.3 it hears of a refusal only when it reads.
async fn is_served(node: &TestNode, config: ClientConfig) -> bool {
    let Ok(mut stream) = node.secure(config).await else { return false };
    let request = b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    stream.write_all(request).await.is_ok()
        && stream.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn who_gets_in_is_as_the_configuration_says() {
    use ClientCertificates::{Off, Optional, Required};
    let (authority, other) = (Authority::new(), Authority::new());
    let (known, stranger) = (authority.issue(&["client"]), other.issue(&["client"]));
    for (wanted, by_issuer, expected) in [
        // Without a certificate, with one of the authority, with one of another.
        (Off, false, [true, true, true]),
        (Optional, false, [true, true, true]),
        (Required, false, [false, true, true]),
        (Optional, true, [true, true, false]),
        (Required, true, [false, true, false]),
    ] {
        let node = start(None, |config| {
            speaks_tls(config, &authority);
            wants(config, wanted, by_issuer.then_some(&authority));
        })
        .await;
        for version in [&TLS12, &TLS13] {
            for (own, expected) in [None, Some(&known), Some(&stranger)].into_iter().zip(expected) {
                let served = is_served(&node, authority.client_with(&[version], own)).await;
                assert_eq!(
                    served,
                    expected,
                    "{wanted:?}, authorities: {by_issuer}, {:?}, with one: {}",
                    version.version,
                    own.is_some()
                );
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_needs_its_key() {
    let authority = Authority::new();
    let node = start(None, |config| {
        speaks_tls(config, &authority);
        wants(config, ClientCertificates::Optional, None);
    })
    .await;
    let (stolen, thief) = (authority.issue(&["client"]), authority.issue(&["client"]));
    let forged = Issued { certificate: stolen.certificate, ..thief };
    for version in [&TLS12, &TLS13] {
        let config = authority.forging_client(&[version], &forged);
        assert!(!is_served(&node, config).await, "{:?}", version.version);
    }
}

#[tokio::test]
async fn upstreams_of_both_doors_are_told_the_certificate_at_connect() {
    let authority = Authority::new();
    let own = authority.issue(&["client"]);
    let mut upstream = Upstream::start(|request| match request.event() {
        "connect" => ok("X-ASRS-User-Id: u\r\n", ""),
        _ if request.ce_event() == "validate" => welcome(),
        _ => ok("", ""),
    })
    .await;
    let url = HandlerUrl::parse(&format!("http://{}/{{event}}", upstream.address)).unwrap();
    let node = start(Some(upstream.address), |config| {
        speaks_tls(config, &authority);
        wants(config, ClientCertificates::Optional, None);
        let handler = EventHandler {
            url,
            user_events: EventPattern::any(),
            system_events: SystemEvents { connect: true, ..SystemEvents::default() },
            auth: HandlerAuth::None,
            timeout: None,
        };
        let defaults = HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
        config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    })
    .await;
    let header = "X-ASRS-Client-Cert-Thumbprint";
    for (with, expected) in [(Some(&own), Some(thumbprint(&own))), (None, None)] {
        let stream = node.secure(authority.client_with(&[&TLS13], with)).await.unwrap();
        let client = websocket(stream, &doors()[0]).await;
        let connect = upstream.next().await;
        assert_eq!(connect.event(), "connect");
        assert_eq!(connect.header(header), expected.as_deref());
        drop(client);
        let disconnect = upstream.next().await;
        assert_eq!((disconnect.event(), disconnect.header(header)), ("disconnect", None));
    }
    let token = sign("http://localhost/client/hubs/chat", Some("ann"), &json!({}));
    let stream = node.secure(authority.client_with(&[&TLS12], Some(&own))).await.unwrap();
    let path = format!("/client/hubs/chat?access_token={token}");
    let _client = websocket(stream, &path).await;
    assert_eq!(upstream.next().await.ce_event(), "validate");
    let connect = upstream.next().await;
    let body: Value = serde_json::from_slice(&connect.body).unwrap();
    let shown =
        json!([{ "thumbprint": thumbprint(&own), "content": own.pem.replace("\r\n", "\n") }]);
    assert_eq!(body["clientCertificates"], shown);
}
