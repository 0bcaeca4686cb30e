//! Callers with tokens of an identity provider, which here is a socket that serves keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use hookwire_server::config::{OidcConfig, RestAccess};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::node::{TestNode, start};

const AUDIENCE: &str = "https://webpubsub.azure.com";

/// A provider with one key.
struct Provider {
    address: SocketAddr,
    algorithm: Algorithm,
    key: EncodingKey,
    /// How often its keys were asked for.
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(algorithm: Algorithm, status: &'static str) -> Self {
        let key = if algorithm == Algorithm::RS256 {
            let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
            // Behind what PKCS #8 wraps around a key of this size.
            EncodingKey::from_rsa_der(&der.as_ref()[26..])
        } else {
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
            EncodingKey::from_ec_der(key.to_pkcs8v1().unwrap().as_ref())
        };
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        jwk["kid"] = "k1".into();
        let keys = json!({ "keys": [jwk, { "kty": "something new" }] }).to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"));
                let length = keys.len();
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{keys}");
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self { address, algorithm, key, asked }
    }

    fn issuer(&self) -> String {
        format!("http://{}/tenant", self.address)
    }

    fn config(&self) -> OidcConfig {
        let roles = [("Owner", RestAccess::Full), ("Reader", RestAccess::Read)];
        OidcConfig {
            issuer: self.issuer(),
            jwks_url: format!("http://{}/keys", self.address).parse().unwrap(),
            audience: AUDIENCE.to_owned(),
            roles_claim: "roles".to_owned(),
            roles: BTreeMap::from(roles.map(|(role, access)| (role.to_owned(), access))),
        }
    }

    fn token(&self, key_id: &str, changes: &Value) -> String {
        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({ "iss": self.issuer(), "aud": AUDIENCE, "exp": now + 60 });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some(key_id.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    async fn node(&self) -> TestNode {
        start(None, |config| config.oidc = vec![self.config()]).await
    }
}

async fn call(node: &TestNode, token: &str, method: &str, path: &str) -> u16 {
    node.raw(method, path, &format!("Authorization: Bearer {token}\r\n"), b"").await.0
}

#[tokio::test]
async fn roles_decide_what_a_caller_may_do() {
    let provider = Provider::start(Algorithm::RS256, "200 OK").await;
    let node = provider.node().await;
    assert_eq!(provider.asked.load(Ordering::SeqCst), 0, "nobody has needed the keys");
    let token = |roles: Value| provider.token("k1", &json!({ "roles": roles }));
    let (owner, reader) = (token(json!(["Owner"])), token(json!(["Reader", "x"])));
    for (token, method, path, status) in [
        (&owner, "POST", "/api/hubs/chat/:send", 202),
        (&owner, "POST", "/api/hubs/chat/:generateToken", 200),
        (&owner, "GET", "/admin/v1/hubs", 200),
        (&reader, "GET", "/admin/v1/hubs", 200),
        (&reader, "HEAD", "/api/hubs/chat/users/u", 404),
        (&reader, "POST", "/api/hubs/chat/:send", 403),
        (&reader, "DELETE", "/api/hubs/chat/connections/x", 403),
        (&token(json!(["Other"])), "GET", "/admin/v1/hubs", 403),
        (&token(json!(null)), "HEAD", "/api/hubs/chat/users/u", 403),
        // What takes tokens of access keys alone.
        (&owner, "POST", "/ws/api/v1/hubs/chat/", 401),
        (&owner, "GET", "/manage/v1/ws/upstream", 401),
    ] {
        assert_eq!(call(&node, token, method, path).await, status, "{method} {path}");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    // The access keys go on opening everything.
    assert_eq!(node.signed("POST", "/api/hubs/chat/:send", "", b"").await.0, 202);
    // A client's door is for client tokens.
    let path = format!("/client/hubs/chat?access_token={owner}");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(node.raw("GET", &path, upgrade, b"").await.0, 401);
}

#[tokio::test]
async fn tokens_that_are_not_right_are_refused_and_do_not_bother_the_provider() {
    let provider = Provider::start(Algorithm::ES256, "200 OK").await;
    let stranger = Provider::start(Algorithm::ES256, "200 OK").await;
    let node = provider.node().await;
    let role = json!(["Owner"]);
    let path = "/api/hubs/chat/:send";
    for changes in [
        json!({ "roles": role, "iss": stranger.issuer() }),
        json!({ "roles": role, "aud": "https://management.azure.com" }),
        json!({ "roles": role, "iss": null }),
    ] {
        let token = provider.token("k1", &changes);
        assert_eq!(call(&node, &token, "POST", path).await, 401, "{changes}");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 0, "there was nothing to check");
    let claims = json!({ "roles": role, "iss": provider.issuer() });
    assert_eq!(call(&node, &provider.token("k1", &claims), "POST", path).await, 202);
    for token in [
        stranger.token("k1", &claims),
        provider.token("k1", &json!({ "roles": role, "exp": 1 })),
        provider.token("k1", &json!({ "roles": role, "nbf": 99_999_999_999_u64 })),
        provider.token("k2", &claims),
        provider.token("k3", &claims),
    ] {
        assert_eq!(call(&node, &token, "POST", path).await, 401);
    }
    // A key that is not known is not looked for again at once.
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    assert_eq!(stranger.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_published_key_opens_nothing_as_a_secret() {
    let provider = Provider::start(Algorithm::RS256, "200 OK").await;
    let node = provider.node().await;
    let (address, mut keys) = (provider.address, String::new());
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    socket.write_all(b"GET /keys HTTP/1.1\r\n\r\n").await.unwrap();
    socket.read_to_string(&mut keys).await.unwrap();
    let keys: Value = serde_json::from_str(keys.split_once("\r\n\r\n").unwrap().1).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({ "iss": provider.issuer(), "aud": AUDIENCE, "exp": now + 60, "roles": "Owner" });
    let key = &keys["keys"][0];
    for secret in [key["n"].as_str().unwrap().to_owned(), key.to_string()] {
        let secret = EncodingKey::from_secret(secret.as_bytes());
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("k1".to_owned()), ..Header::new(algorithm) };
            let token = jsonwebtoken::encode(&header, &claims, &secret).unwrap();
            assert_eq!(call(&node, &token, "POST", "/api/hubs/chat/:send").await, 401);
        }
    }
}

#[tokio::test]
async fn a_provider_in_trouble_is_a_503_and_is_not_asked_at_every_call() {
    let provider = Provider::start(Algorithm::ES256, "302 Found").await;
    let node = provider.node().await;
    let token = provider.token("k1", &json!({ "roles": "Owner" }));
    for _ in 0..3 {
        assert_eq!(call(&node, &token, "POST", "/api/hubs/chat/:send").await, 503);
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1);
    assert_eq!(node.signed("POST", "/api/hubs/chat/:send", "", b"").await.0, 202);
}
