//! A check of an upstream from outside of a service: the same calls that a node makes, by the same code, and what came of each.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookwire_hub::{
    Call, CallId, ClientContext, Dialect, Event, EventFacts, Input, Reply, UpstreamAnswer,
    UserEvent,
};
use hookwire_proto::data::{Data, Metadata};
use hookwire_proto::handler::{EventHandler, EventPattern, HandlerAuth, HandlerUrl, SystemEvents};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, HubName, UserId};
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{
    EventName, TemplateDocument, TemplateFault, Templates, TemplatesDocument,
};
use tokio::sync::mpsc;

use crate::config::{AddressRange, UpstreamLimits};
use crate::event_log::{EventLog, Kind, Record, Selection};
use crate::shards::random;
use crate::tls::{self, TlsError};
use crate::tunnel::Tunnels;
use crate::upstream::Upstream;

/// A blocking answer that takes longer is mentioned: somebody waits for it.
const SLOW: Duration = Duration::from_secs(1);

/// Entries of one call: the validation and the call.
const ENTRIES_PER_CALL: usize = 8;

/// What to check.
#[derive(Debug, Clone)]
pub struct Check {
    /// Where, as in the settings: with `{hub}`, `{event}` and, for the preview, `{category}`.
    pub url: String,
    /// How the upstream is spoken to.
    pub dialect: CheckDialect,
    /// For which hub.
    pub hub: HubName,
    /// As which user, whom a token would name.
    pub user: Option<UserId>,
    /// Keys that sign; empty: a random one, so that nothing can be said of signatures.
    pub keys: Vec<AccessKey>,
    /// The host by which the upstream knows the service.
    pub origin: String,
    /// Names of events that a client raises (Web PubSub).
    pub events: Vec<String>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Certificates of authorities that are believed too, PEM.
    pub ca_files: Vec<PathBuf>,
}

/// The protocols of upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckDialect {
    /// The 2020 preview.
    Preview,
    /// Web PubSub: abuse protection and `CloudEvents`.
    WebPubSub,
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The URL could stand in no settings.
    #[error("the URL {0}")]
    Url(#[from] TemplateFault),
    /// A file with authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] io::Error),
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// `validation`, `connect`, `connected`, `message`, `user`, `disconnected`, or `signature`.
    pub kind: &'static str,
    /// The event's name.
    pub event: String,
    /// Where it went, without a query.
    pub url: String,
    /// What was answered, if anything.
    pub status: Option<u16>,
    /// How long it took, all attempts together.
    pub duration: Duration,
    /// How often the upstream was asked.
    pub attempts: u32,
    /// Whether it went well.
    pub ok: bool,
    /// A word for programs; the event log has the same.
    pub verdict: &'static str,
    /// What is wrong and how to mend it.
    pub reason: Option<String>,
    /// What is not wrong, but may not be meant.
    pub notes: Vec<String>,
}

/// An upstream under check.
struct Checking {
    upstream: Upstream,
    log: EventLog,
    target: Target,
    hub: HubName,
    user: Option<UserId>,
    connection: ConnectionId,
    state: Option<Arc<str>>,
    last_call: AtomicU64,
    seen: Option<u64>,
}

/// Where calls go.
enum Target {
    Preview(Templates),
    WebPubSub(Arc<EventHandler>),
}

impl Check {
    /// Makes the calls that a node makes for one connection, one after the other, and returns what came of each. What cannot go well
    /// after an earlier failure is not tried.
    ///
    /// # Errors
    /// [`CheckError`]: nothing was sent.
    pub async fn run(self) -> Result<Vec<Step>, CheckError> {
        let mut steps = Vec::new();
        let mut checking = self.begin(self.keys.clone()).await?;
        for event in self.events() {
            let is_connect = event.is_connect();
            let made = checking.make(event).await;
            let is_hopeless = made.iter().any(is_hopeless);
            let is_in = is_connect && made.iter().all(|step| step.ok);
            steps.extend(made);
            if is_hopeless {
                return Ok(steps);
            }
            if is_in && !self.keys.is_empty() {
                steps.extend(self.try_another_key().await?);
            }
        }
        Ok(steps)
    }

    async fn begin(&self, keys: Vec<AccessKey>) -> Result<Checking, CheckError> {
        let target = match self.dialect {
            CheckDialect::Preview => {
                let template = TemplateDocument {
                    url_template: self.url.clone(),
                    ..TemplateDocument::default()
                };
                let document = TemplatesDocument { templates: vec![template] };
                let templates = Templates::parse(&document)
                    .map_err(|mut faults| CheckError::Url(faults.swap_remove(0).fault))?;
                Target::Preview(templates)
            }
            CheckDialect::WebPubSub => Target::WebPubSub(Arc::new(EventHandler {
                url: HandlerUrl::parse(&self.url)?,
                user_events: EventPattern::any(),
                system_events: SystemEvents { connect: true, connected: true, disconnected: true },
                auth: HandlerAuth::None,
                timeout: Some(self.timeout),
            })),
        };
        let limits = UpstreamLimits {
            connect_time_max: self.timeout,
            time_max: self.timeout,
            ..UpstreamLimits::default()
        };
        let (log, refused) = (EventLog::new(ENTRIES_PER_CALL), AddressRange::metadata_services());
        let roots = tls::roots(&self.ca_files)?;
        let keys = if keys.is_empty() { vec![random_key()] } else { keys };
        let origin = self.origin.clone();
        // A tunnel ends at a service; what is checked here is called directly.
        let tunnels = Tunnels::default();
        let upstream =
            Upstream::new(limits, refused, roots, keys, origin, log.clone(), tunnels).await;
        Ok(Checking {
            upstream: upstream.map_err(CheckError::Client)?,
            log,
            target,
            hub: self.hub.clone(),
            user: self.user.clone(),
            connection: ConnectionId::new(0, 0, random()),
            state: None,
            last_call: AtomicU64::new(0),
            seen: None,
        })
    }

    /// Returns the events of a short life.
    fn events(&self) -> Vec<Event> {
        let text = "a message of hookwire check";
        match self.dialect {
            CheckDialect::Preview => vec![
                Event::Connect { subprotocols: Vec::new() },
                Event::Message(Message::text(text)),
                Event::Disconnect,
            ],
            CheckDialect::WebPubSub => {
                let user_event = |name: &String| {
                    Event::User(UserEvent {
                        name: name.as_str().into(),
                        data: Data::text(text),
                        metadata: Metadata::default(),
                        is_invocation: false,
                    })
                };
                let mut events = vec![Event::Connecting(Arc::default()), Event::Connected];
                events.extend(self.events.iter().map(user_event));
                events.push(Event::Disconnected { reason: "hookwire check".to_owned() });
                events
            }
        }
    }

    /// Finds out whether events of somebody else are taken too.
    async fn try_another_key(&self) -> Result<Option<Step>, CheckError> {
        let mut checking = self.begin(vec![random_key()]).await?;
        let connect = self.events().swap_remove(0);
        let made = checking.make(connect).await;
        Ok(made.into_iter().find(|step| step.kind == Kind::Connect.as_str()).map(|step| {
            let (verdict, note) = if step.ok {
                let note = "an event that was signed with another key was taken too: the upstream does not check signatures, so that anybody \
                            who knows its URL can make up events";
                ("signature_not_checked", Some(note.to_owned()))
            } else {
                ("signature_checked", None)
            };
            let notes = note.into_iter().collect();
            Step { kind: "signature", ok: true, verdict, reason: None, notes, ..step }
        }))
    }
}

impl Checking {
    /// Makes a call and returns what came of it, and of a validation before it.
    async fn make(&mut self, event: Event) -> Vec<Step> {
        let number = self.last_call.fetch_add(1, Ordering::Relaxed);
        let name = event.name().to_owned();
        let (url, dialect) = match &self.target {
            Target::Preview(templates) => {
                let event = match event {
                    Event::Connect { .. } => EventName::Connect,
                    Event::Disconnect => EventName::Disconnect,
                    Event::Message(_)
                    | Event::Connecting(_)
                    | Event::Connected
                    | Event::User(_)
                    | Event::Disconnected { .. }
                    | Event::Joined(_)
                    | Event::Left(_) => EventName::Message,
                };
                // The template is for everything.
                let url = templates.url(self.hub.as_str(), event).unwrap_or_default();
                (url, Dialect::Preview(ClientContext::new("", "", "127.0.0.1")))
            }
            Target::WebPubSub(handler) => {
                let facts = EventFacts {
                    sequence: number,
                    subprotocol: None,
                    state: self.state.clone(),
                    cookies: None,
                };
                let url = handler.url.url(&self.hub, &name);
                (url, Dialect::WebPubSub { handler: handler.clone(), facts: Box::new(facts) })
            }
        };
        let is_preview = matches!(self.target, Target::Preview(_));
        let call = Call {
            id: CallId(number),
            url,
            hub: self.hub.clone(),
            connection: self.connection,
            user: self.user.clone(),
            dialect,
            event: event.clone(),
        };
        let (sender, mut inputs) = mpsc::unbounded_channel();
        // The receiver outlives the call.
        self.upstream.call(call, |input| sender.send(input).unwrap_or_default()).await;
        let mut answer = None;
        while let Ok(input) = inputs.try_recv() {
            if let Input::UpstreamReplied { reply: Reply::Answered(answered), .. } = input {
                answer = Some(answered);
            }
        }
        let page =
            self.log.page(&Selection::default(), self.seen.or(Some(0)), None, ENTRIES_PER_CALL);
        self.seen = page.ends.map(|(_, newest)| newest);
        let mut steps: Vec<Step> = page.records.iter().map(step).collect();
        // A call that failed since the upstream did not want events says nothing new.
        if steps.len() == 2 && !steps[0].ok {
            steps.truncate(1);
        }
        if let (Some(last), Some(answer)) = (steps.last_mut().filter(|step| step.ok), answer) {
            last.notes = notes(&event, &answer, last.duration, self.user.is_some(), is_preview);
            self.state = answer.state.or(self.state.take());
        }
        steps
    }
}

/// Returns what may not be meant about an answer that is right.
fn notes(
    event: &Event,
    answer: &UpstreamAnswer,
    duration: Duration,
    has_user: bool,
    is_preview: bool,
) -> Vec<String> {
    let mut notes = Vec::new();
    let is_blocking = is_preview || matches!(event, Event::Connecting(_) | Event::User(_));
    if is_blocking && SLOW < duration {
        notes.push(format!(
            "the answer took {:.1} s, and a client waits for it",
            duration.as_secs_f64()
        ));
    }
    if matches!(event, Event::Connect { .. }) && answer.user.is_none() && !has_user {
        notes.push(
            "the answer names no user by X-ASRS-User-Id: clients without a token get 401"
                .to_owned(),
        );
    }
    notes
}

fn step(record: &Arc<Record>) -> Step {
    let entry = &record.entry;
    Step {
        kind: entry.kind.as_str(),
        event: entry.event.to_string(),
        url: entry.url.as_deref().unwrap_or_default().to_owned(),
        status: entry.status,
        duration: entry.duration.unwrap_or_default(),
        attempts: entry.attempts,
        ok: entry.ok,
        verdict: entry.verdict,
        reason: entry.reason.as_deref().map(str::to_owned),
        notes: Vec::new(),
    }
}

/// Whether what follows a step would fail alike.
fn is_hopeless(step: &Step) -> bool {
    let of_the_upstream = [
        "bad_url",
        "no_tunnel",
        "refused_address",
        "connect_failed",
        "tls_failed",
        "timed_out",
        "broken_off",
    ];
    !step.ok && (step.kind == Kind::Validation.as_str() || of_the_upstream.contains(&step.verdict))
}

fn random_key() -> AccessKey {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(random::<32>());
    AccessKey::parse(&text).expect("44 characters are enough for a key")
}

/// What every check asks as a client would.
impl Default for Check {
    fn default() -> Self {
        Self {
            url: String::new(),
            dialect: CheckDialect::WebPubSub,
            hub: HubName::parse("chat").expect("a letter and then letters"),
            user: None,
            keys: Vec::new(),
            origin: "localhost".to_owned(),
            events: vec!["message".to_owned()],
            timeout: Duration::from_secs(10),
            ca_files: Vec::new(),
        }
    }
}
