//! A real node, an application behind it, and a wire that can be cut.

mod client;
mod recovery;
mod rest;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hookwire_client::webhook::{Answer, CloudEvent, Webhook};
use hookwire_client::{
    AccessKey, Client, ClientAccess, ClientBuilder, ClientEvent, Events, Permission, ServiceClient,
};
use hookwire_proto::deflate::Compression;
use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use url::Url;

use crate::server::KEY;

/// A node with its folder, and an application behind it.
struct Live {
    service: ServiceClient,
    /// What the application was told.
    heard: mpsc::UnboundedReceiver<CloudEvent>,
    /// A wire between clients and the node.
    wire: Wire,
    _node: Node,
    _folder: TempDir,
    _tasks: JoinSet<()>,
}

impl Live {
    /// Starts all three; `answer` is the application.
    async fn start(answer: impl Fn(&CloudEvent) -> Answer + Send + Sync + 'static) -> Self {
        let key = AccessKey::parse(KEY).unwrap();
        let mut tasks = JoinSet::new();
        let (tell, heard) = mpsc::unbounded_channel();
        let application = application(key.clone(), tell, answer, &mut tasks).await;

        let folder = tempfile::tempdir().unwrap();
        let mut config =
            Config::for_one_machine("127.0.0.1:0".parse().unwrap(), key, folder.path());
        config.shards = 2;
        config.hubs = handled_by(application);
        let node = Node::start(config).await.unwrap();
        let address = node.addresses()[0];
        let line = format!("Endpoint=http://127.0.0.1;Port={};AccessKey={KEY};", address.port());
        let service = ServiceClient::new(&line, "chat").unwrap();
        let wire = Wire::to(address, &mut tasks).await;
        Self { service, heard, wire, _node: node, _folder: folder, _tasks: tasks }
    }

    /// Starts a node whose application says nothing.
    async fn quiet() -> Self {
        Self::start(|_| Answer::nothing()).await
    }

    /// Returns a URL over the wire for a user who may do everything.
    fn url(&self, user: &str) -> Url {
        let access = ClientAccess::new()
            .user(user)
            .may(Permission::JoinLeaveGroup)
            .may(Permission::SendToGroup);
        let mut url = self.service.client_access(&access).unwrap().url;
        url.set_port(Some(self.wire.port)).unwrap();
        url
    }

    /// Connects over the wire; the connected event is taken.
    async fn connect(
        &self,
        user: &str,
        change: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> (Client, Events) {
        let (client, mut events) = change(Client::builder(self.url(user))).connect().await.unwrap();
        assert!(matches!(events.next().await, Some(ClientEvent::Connected(_))));
        (client, events)
    }
}

fn handled_by(address: SocketAddr) -> HubsSettings {
    let handler = EventHandler {
        url: HandlerUrl::parse(&format!("http://{address}/{{event}}")).unwrap(),
        user_events: EventPattern::any(),
        system_events: SystemEvents { connect: true, connected: true, disconnected: true },
        auth: HandlerAuth::None,
        timeout: None,
    };
    let defaults = HubSettings {
        handlers: vec![Arc::new(handler)],
        // For those that ask for it.
        compression: Some(Compression::default()),
        ..HubSettings::default()
    };
    HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() }
}

/// Serves an application; every event goes to `tell` before it is answered.
async fn application(
    key: AccessKey,
    tell: mpsc::UnboundedSender<CloudEvent>,
    answer: impl Fn(&CloudEvent) -> Answer + Send + Sync + 'static,
    tasks: &mut JoinSet<()>,
) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let webhook = Webhook::new([key]).hub("chat").unwrap();
    let answer = Arc::new(answer);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let (webhook, tell, answer) = (webhook.clone(), tell.clone(), Arc::clone(&answer));
            let service = service_fn(move |request| {
                let (webhook, tell, answer) = (webhook.clone(), tell.clone(), Arc::clone(&answer));
                async move {
                    let handler = async move |event: CloudEvent| {
                        let answer = answer(&event);
                        // A test that has heard enough may be over.
                        drop(tell.send(event));
                        answer
                    };
                    Ok::<_, std::convert::Infallible>(webhook.handle(request, handler).await)
                }
            });
            connections.spawn(async move {
                let serving = hyper::server::conn::http1::Builder::new();
                drop(serving.serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    address
}

/// A TCP proxy whose connections can be cut and which can be closed to new ones.
struct Wire {
    port: u16,
    state: watch::Sender<State>,
    /// Bytes to the node and from it, by the last connection that has ended well.
    carried: watch::Receiver<Option<(u64, u64)>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct State {
    /// Connections of an older age are cut.
    age: u64,
    is_open: bool,
}

impl Wire {
    async fn to(address: SocketAddr, tasks: &mut JoinSet<()>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(State { age: 0, is_open: true });
        let (count, carried) = watch::channel(None);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (mut watched, count) = (watched.clone(), count.clone());
                let State { age, is_open } = *watched.borrow();
                if !is_open {
                    continue;
                }
                connections.spawn(async move {
                    let mut far = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        carried = tokio::io::copy_bidirectional(&mut near, &mut far) => {
                            count.send_replace(carried.ok());
                        }
                        _ = watched.wait_for(|state| state.age != age) => {
                            // As a broken network: without a close frame, and what is on its way is gone.
                            drop(near.set_zero_linger());
                            drop(far.set_zero_linger());
                        }
                    }
                });
            }
        });
        Self { port, state, carried }
    }

    /// Cuts all connections.
    fn cut(&self) {
        self.state.send_modify(|state| state.age += 1);
    }

    /// Cuts all connections and lets in no new ones until [`Wire::mend`].
    fn cut_for_long(&self) {
        self.state.send_modify(|state| *state = State { age: state.age + 1, is_open: false });
    }

    fn mend(&self) {
        self.state.send_modify(|state| state.is_open = true);
    }
}

/// Waits for something that has to come.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), what).await.expect("it comes")
}

/// Returns the text of the next message, whoever sent it.
async fn text(events: &mut Events) -> String {
    let payload = match soon(events.next()).await {
        Some(ClientEvent::Group(message)) => message.payload,
        Some(ClientEvent::Server(message)) => message.payload,
        other => panic!("{other:?} is no message"),
    };
    payload.as_text().unwrap().to_owned()
}
