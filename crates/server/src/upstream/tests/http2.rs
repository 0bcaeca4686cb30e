//! HTTP/2: who speaks it, and what becomes of calls when it breaks.

use std::collections::BTreeMap;
use std::convert::Infallible;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

/// An https upstream.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    roots: RootCertStore,
    url: String,
}

const BOTH: [&[u8]; 2] = [b"h2", b"http/1.1"];

impl Secure {
    async fn listen(protocols: &[&[u8]]) -> Self {
        let (listener, url) = listen().await;
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key.into())
                .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let url = url.replace("http:", "https:");
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), roots, url }
    }

    async fn caller(&self) -> Caller {
        Caller::with(UpstreamLimits::default(), Vec::new(), self.roots.clone()).await
    }

    async fn accept(&self) -> TlsStream<TcpStream> {
        let (socket, _) = self.listener.accept().await.unwrap();
        socket.set_nodelay(true).unwrap();
        self.acceptor.accept(socket).await.unwrap()
    }

    /// Accepts an HTTP/2 connection and says by `settings` what it may do.
    async fn accept_frames(&self, settings: &[u8]) -> Frames {
        let mut stream = self.accept().await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Frames { stream, begun: BTreeMap::new() };
        frames.write(SETTINGS, 0, 0, settings).await;
        frames
    }

    /// The same, and says on it that events are wanted.
    async fn welcome(&self, settings: &[u8]) -> Frames {
        let mut frames = self.accept_frames(settings).await;
        let stream = frames.head().await;
        let mut block = vec![STATUS_200, 0, 22];
        block.extend_from_slice(b"webhook-allowed-origin\x01*");
        frames.write(HEADERS, END_STREAM | END_HEADERS, stream, &block).await;
        frames
    }
}

/// The end of an HTTP/2 connection that an upstream holds, frame by frame (RFC 9113, section 4.1).
struct Frames {
    stream: TlsStream<TcpStream>,
    /// Requests that have begun, by their streams.
    begun: BTreeMap<u32, Vec<u8>>,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// Whole heads of answers (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;
const STATUS_204: u8 = 0x89;

impl Frames {
    async fn read(&mut self) -> Frame {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.unwrap();
        let number = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all << 8 | u32::from(*byte));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.stream.read_exact(&mut payload).await.unwrap();
        let frame = Frame { kind: head[3], flags: head[4], stream: number(&head[5..]), payload };
        if frame.kind == HEADERS {
            self.begun.insert(frame.stream, Vec::new());
        } else if frame.kind == DATA {
            let body = self.begun.get_mut(&frame.stream).expect("a request has a head");
            body.extend_from_slice(&frame.payload);
        }
        frame
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Waits for a frame of this kind.
    async fn wait_for(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.read().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits for the head of a request and returns its stream.
    async fn head(&mut self) -> u32 {
        self.wait_for(HEADERS).await.stream
    }

    /// Waits for a whole request and returns its stream and its body.
    async fn request(&mut self) -> (u32, Vec<u8>) {
        loop {
            let data = self.wait_for(DATA).await;
            if data.flags & END_STREAM != 0 {
                return self.begun.remove_entry(&data.stream).expect("it has begun");
            }
        }
    }

    /// Waits until the other side has read what was said so far.
    async fn synchronize(&mut self) {
        self.write(PING, 0, 0, &[0; 8]).await;
        self.wait_for(PING).await;
    }

    /// Answers that there is nothing to say.
    async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, END_STREAM | END_HEADERS, stream, &[STATUS_204]).await;
    }

    async fn reset(&mut self, stream: u32, code: u32) {
        self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Says that the connection goes, and which stream was the last that counts.
    async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
        self.write(GOAWAY, 0, 0, &payload).await;
    }
}

#[tokio::test]
async fn calls_share_a_connection_and_their_headers_are_in_lower_case() {
    const CALLS: usize = 20;
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    for at in 0..CALLS {
        caller.begin_event(&upstream.url, user_event(&at.to_string()));
    }
    let (heads, mut told) = mpsc::unbounded_channel();
    let all_are_here = Arc::new(Barrier::new(CALLS));
    let serve = async |stream: TlsStream<TcpStream>| {
        let service = service_fn(|request: Request<Incoming>| {
            let (heads, all_are_here) = (heads.clone(), all_are_here.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let mut response = Response::new(Empty::<Bytes>::new());
                if head.method == Method::OPTIONS {
                    let anyone = HeaderValue::from_static("*");
                    response.headers_mut().insert("webhook-allowed-origin", anyone);
                } else {
                    all_are_here.wait().await;
                    *response.status_mut() = StatusCode::NO_CONTENT;
                }
                heads.send((head, body)).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
    };
    let serving = async { serve(upstream.accept().await).await };
    let ending = async {
        for _ in 0..CALLS {
            assert_eq!(status(&caller.end().await.1), Some(204));
        }
    };
    tokio::select! {
        ended = serving => panic!("{ended:?}"),
        () = ending => {}
    }
    assert!(poll!(pin!(upstream.listener.accept())).is_pending(), "one connection is enough");

    let (asked, _) = told.recv().await.unwrap();
    assert_eq!((asked.version, asked.method), (Version::HTTP_2, Method::OPTIONS));
    let (head, body) = told.recv().await.unwrap();
    assert_eq!((head.version, head.method), (Version::HTTP_2, Method::POST));
    assert_eq!(head.uri.to_string(), upstream.url);
    let value = |name: &str| one(&head.headers, name);
    assert_eq!(value("host"), None, "it is named apart");
    assert_eq!(value("ce-type").as_deref(), Some("azure.webpubsub.user.order.paid"));
    assert_eq!(value("ce-signature"), Some(signature()));
    assert_eq!(value("content-length"), Some(body.len().to_string()));
}

fn one(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_preview_keeps_http1_and_its_spelling() {
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    let serving = async {
        let stream = upstream.accept().await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), None, "nothing else is offered");
        let mut peer = Peer::new(stream);
        let (head, body) = peer.request().await;
        assert!(head.starts_with("POST /chat/api/event?code=s3cret HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nX-ASRS-Event: message\r\n"), "{head}");
        assert_eq!(body, b"hello");
        peer.write(NO_CONTENT).await;
    };
    let (reply, ()) = caller.while_upstream(&upstream.url, message("hello"), serving).await;
    assert_eq!(status(&reply), Some(204));
}

#[tokio::test]
async fn an_upstream_that_knows_http1_alone_is_spoken_to_by_it() {
    for protocols in [&BOTH[1..], &[]] {
        let upstream = Secure::listen(protocols).await;
        let mut caller = upstream.caller().await;
        let serving = async {
            let stream = upstream.accept().await;
            assert_eq!(stream.get_ref().1.alpn_protocol(), protocols.first().copied());
            let mut peer = Peer::new(stream);
            let (head, _) = peer.request().await;
            assert!(head.starts_with("OPTIONS "), "{head}");
            peer.write(WELCOME).await;
            let (head, body) = peer.request().await;
            let host = upstream.listener.local_addr().unwrap();
            assert!(head.starts_with("POST /chat/api/event?code=s3cret HTTP/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
            assert!(head.contains("\r\nce-connectionid: "), "{head}");
            assert_eq!(body, b"hello");
            peer.write(NO_CONTENT).await;
        };
        let (reply, ()) = caller.event_while(&upstream.url, user_event("hello"), serving).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn what_a_going_connection_does_not_take_goes_over_another_at_once() {
    for event in [invocation("hello"), user_event("hello"), disconnected()] {
        let upstream = Secure::listen(&BOTH).await;
        let mut caller = upstream.caller().await;
        let serving = async {
            let mut going = upstream.welcome(&[]).await;
            let (_, sent) = going.request().await;
            going.go_away(1).await;
            let mut next = upstream.accept_frames(&[]).await;
            let (stream, body) = next.request().await;
            assert_eq!(body, sent);
            next.answer(stream).await;
        };
        let (reply, ()) = caller.event_while(&upstream.url, event, serving).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn what_a_going_connection_has_taken_is_answered_there() {
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    let first = caller.begin_event(&upstream.url, invocation("first"));
    let mut going = upstream.welcome(&[]).await;
    let (stream, _) = going.request().await;
    going.go_away(stream).await;
    going.synchronize().await;
    let second = caller.begin_event(&upstream.url, invocation("second"));
    let mut next = upstream.accept_frames(&[]).await;
    let (other, body) = next.request().await;
    assert_eq!(body, b"second");
    next.answer(other).await;
    assert_eq!(caller.end().await.0, second);
    going.answer(stream).await;
    let (ended, reply) = caller.end().await;
    assert_eq!((ended, status(&reply)), (first, Some(204)));
}

#[tokio::test]
async fn what_waits_for_room_on_a_going_connection_goes_over_another() {
    // SETTINGS_MAX_CONCURRENT_STREAMS: 1.
    let one_at_once = [0, 3, 0, 0, 0, 1];
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    caller.begin_event(&upstream.url, invocation("0"));
    let mut going = upstream.welcome(&one_at_once).await;
    let (stream, _) = going.request().await;
    for text in ["1", "2", "3"] {
        caller.begin_event(&upstream.url, invocation(text));
    }
    going.synchronize().await;
    going.go_away(stream).await;
    let mut next = upstream.accept_frames(&[]).await;
    let mut bodies = Vec::new();
    while bodies.len() < 3 {
        let (stream, body) = next.request().await;
        bodies.push(String::from_utf8(body).unwrap());
        next.answer(stream).await;
        assert_eq!(status(&caller.end().await.1), Some(204));
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["1", "2", "3"]);
    going.answer(stream).await;
    assert_eq!(status(&caller.end().await.1), Some(204));
}

#[tokio::test]
async fn what_is_refused_is_sent_again_over_the_same_connection() {
    for event in [invocation("hello"), user_event("hello"), disconnected()] {
        let upstream = Secure::listen(&BOTH).await;
        let mut caller = upstream.caller().await;
        let serving = async {
            let mut frames = upstream.welcome(&[]).await;
            for _ in 0..2 {
                let (stream, _) = frames.request().await;
                frames.reset(stream, REFUSED_STREAM).await;
            }
            let (stream, _) = frames.request().await;
            frames.answer(stream).await;
        };
        let (reply, ()) = caller.event_while(&upstream.url, event, serving).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_before_an_answer_is_silent() {
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    let serving = async {
        let mut frames = upstream.welcome(&[]).await;
        let (stream, _) = frames.request().await;
        frames.reset(stream, INTERNAL_ERROR).await;
        let (stream, _) = frames.request().await;
        frames.answer(stream).await;
        frames
    };
    let (reply, mut frames) = caller.event_while(&upstream.url, user_event("hello"), serving).await;
    assert_eq!(status(&reply), Some(204));

    let serving = async {
        let (stream, _) = frames.request().await;
        frames.reset(stream, INTERNAL_ERROR).await;
    };
    let (reply, ()) = caller.event_while(&upstream.url, invocation("hello"), serving).await;
    assert!(reason(reply).starts_with("the upstream broke off: "));
}

#[tokio::test]
async fn a_connection_that_breaks_before_an_answer_is_silent() {
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    let serving = async {
        let mut frames = upstream.welcome(&[]).await;
        frames.request().await;
        drop(frames);
        let mut frames = upstream.accept_frames(&[]).await;
        let (stream, _) = frames.request().await;
        frames.answer(stream).await;
        frames
    };
    let (reply, mut frames) = caller.event_while(&upstream.url, user_event("hello"), serving).await;
    assert_eq!(status(&reply), Some(204));

    let serving = async {
        frames.request().await;
        drop(frames);
    };
    let (reply, ()) = caller.event_while(&upstream.url, invocation("hello"), serving).await;
    assert!(reason(reply).starts_with("the upstream broke off: "));
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_too_long_is_final() {
    // A literal field, its name not indexed, with a value of 1,000 bytes (RFC 7541, sections 5.1 and 6.2.2).
    let field = [&[0, 1, b'x', 0x7f, 0xe9, 0x06][..], &[b'a'; 1_000]].concat();
    for is_too_long in [false, true] {
        let upstream = Secure::listen(&BOTH).await;
        let mut caller = upstream.caller().await;
        let serving = async {
            let mut frames = upstream.welcome(&[]).await;
            let (stream, _) = frames.request().await;
            if is_too_long {
                frames.write(HEADERS, END_STREAM, stream, &[STATUS_200]).await;
                for _ in 0..5 {
                    frames.write(CONTINUATION, 0, stream, &field.repeat(16)).await;
                }
                frames.write(CONTINUATION, END_HEADERS, stream, &[]).await;
            } else {
                frames.write(HEADERS, END_HEADERS, stream, &[STATUS_200]).await;
                frames.write(DATA, 0, stream, b"half").await;
                frames.reset(stream, INTERNAL_ERROR).await;
            }
            frames
        };
        let (reply, mut frames) =
            caller.event_while(&upstream.url, user_event("hello"), serving).await;
        assert!(reason(reply).starts_with("the upstream broke off: "), "{is_too_long}");
        // The connection lives, and the next request on it is the next event.
        let serving = async {
            let (stream, body) = frames.request().await;
            assert_eq!(body, b"next");
            frames.answer(stream).await;
        };
        let (reply, ()) = caller.event_while(&upstream.url, user_event("next"), serving).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn a_connection_without_a_sign_of_life_is_given_up() {
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    caller.begin_event(&upstream.url, user_event("hello"));
    let mut frames = upstream.welcome(&[]).await;
    frames.request().await;
    tokio::time::pause();
    let begin = Instant::now();
    let text = reason(caller.end().await.1);
    tokio::time::resume();
    assert!(text.starts_with("the upstream broke off: "), "{text}");
    let silence = client::PING_PAUSE + client::PING_TIME_MAX;
    assert!(begin.elapsed() <= silence + Duration::from_secs(1), "{:?}", begin.elapsed());
    frames.wait_for(PING).await;
}

#[tokio::test]
async fn at_the_end_an_event_is_written_when_the_upstream_had_room_for_it() {
    // SETTINGS_INITIAL_WINDOW_SIZE: 0.
    let no_room = [0, 4, 0, 0, 0, 0];
    let upstream = Secure::listen(&BOTH).await;
    let mut caller = upstream.caller().await;
    let id = caller.begin_event(&upstream.url, user_event("hello"));
    let mut frames = upstream.welcome(&no_room).await;
    let stream = frames.head().await;
    caller.upstream.finish();
    frames.synchronize().await;
    elapse(Duration::from_secs(10)).await;
    tokio::task::yield_now().await;
    assert!(caller.inputs.try_recv().is_err(), "it is on its way");
    frames.write(WINDOW_UPDATE, 0, stream, &5_u32.to_be_bytes()).await;
    assert_eq!(frames.wait_for(DATA).await.payload, b"hello");
    tokio::time::pause();
    assert_eq!(caller.passed().await, id);
    assert_eq!(reason(caller.end().await.1), "given up for newer calls");
}
