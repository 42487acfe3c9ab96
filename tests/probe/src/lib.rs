//! A filter that does what a request asks of it, to try an adapter or a host: one effect and one treatment of heads,
//! bodies and trailers after the other, chosen by the words of the request's `probe` field.
//!
//! | word | what happens |
//! |---|---|
//! | `reply` | a reply to the request, 203, a body of 26 bytes |
//! | `reply-later` | the same in place of the response |
//! | `wait=MS`, `wait-later=MS` | the request, the response waits |
//! | `fetch=CLUSTER`, `fetch-later=CLUSTER` | `GET /fetched` there; its status or failure in `probe-fetched`, its body's length in `probe-fetched-length` |
//! | `fetch-onward` | the same to where the request goes |
//! | `background=CLUSTER` | the same without waiting |
//! | `task=CLUSTER` | a task fetches the same (where the request goes, if none is named) and keeps as many bytes as the status says under the object key `task` |
//! | `lead`, `follow=MS` | the first opens a gate with its response's end or when it goes, the second waits there; whether the gate was open in `probe-gate` |
//! | `came` | whether the origin answered, in `probe-came` |
//! | `store=KEY:LENGTH`, `load=KEY`, `remove=KEY` | objects; the outcome in `probe-object` |
//! | `count=KEY` | adds one to a cell; the value before in `probe-count` |
//! | `times=COUNT` | does so as often, each an update of its own, and says the first value |
//! | `upper`, `upper-request` | a body in upper case, with `[end]` after it, and pieces marked with `marks` |
//! | `observe` | counts the body; the total is kept under the object key `observed` |
//! | `hold` | a body is held back to its end |
//! | `fields` | sets, appends and removes fields of both heads |
//! | `peer` | the client's address in `probe-peer` |
//! | `path` | the request goes on to `/probed` |
//! | `status` | the response goes on as 299 |
//! | `trailers` | a trailer `probe-trailer` is added |
#![forbid(unsafe_code)]

mod work;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use edgeweir_filter::{
    Answer, Body, Change, ConfigError, Configured, Cx, Effect, Exchange, Fields, Filter, Gate,
    Level, Reply, RequestHead, ResponseHead, Step, Task, To, Wants,
};

use work::{Opener, Refresh, Startup};

/// The probe.
pub struct Probe {
    cluster: String,
    gate: Rc<RefCell<Gate>>,
}

/// Its configuration.
#[derive(serde::Deserialize, schemars::JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The cluster words without one mean.
    cluster: String,
}

impl Configured for Probe {
    const NAME: &'static str = "probe";
    type Config = Config;
    fn new(config: Config) -> Result<Self, ConfigError> {
        if config.cluster.len() > 64 {
            return Err(ConfigError::new("cluster", "at most 64 characters"));
        }
        Ok(Self {
            cluster: config.cluster,
            gate: Rc::default(),
        })
    }
}

impl Filter for Probe {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Probing {
            cluster: self.cluster.clone(),
            gate: Rc::clone(&self.gate),
            ..Probing::default()
        })
    }
    fn wants(&self) -> Wants {
        Wants {
            peer: true,
            exact_updates: true,
            shared_bytes: 64 << 20,
            ..Wants::default()
        }
    }
    fn startup(&self) -> Vec<Box<dyn Task>> {
        vec![Box::new(Startup)]
    }
    fn notes(&self) -> Vec<String> {
        vec!["for tests: does what the client asks".into()]
    }
}

#[derive(Default)]
struct Probing {
    cluster: String,
    gate: Rc<RefCell<Gate>>,
    opens: Option<Opener>,
    words: Vec<String>,
    /// Effects still to do, and fields to add to the response.
    todo: Vec<Effect>,
    found: Vec<(&'static str, String)>,
    seen: usize,
    held: Vec<u8>,
}

impl Probing {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    fn value(&self, word: &str) -> Option<&str> {
        self.words
            .iter()
            .find_map(|w| w.strip_prefix(word)?.strip_prefix('='))
    }

    fn fetch(&self, word: &str) -> Option<Effect> {
        let to = self.value(word)?;
        let to = if to.is_empty() { &self.cluster } else { to };
        Some(work::fetch(To::Named(to.to_owned())))
    }

    fn wait(&self, word: &str) -> Option<Effect> {
        Some(Effect::Wait {
            gate: None,
            limit: Duration::from_millis(self.value(word)?.parse().ok()?),
        })
    }

    fn reply() -> Step {
        Step::Reply(Reply::new(
            203,
            &[("content-type", "text/x-probe"), ("probe", "replied")],
            "abcdefghijklmnopqrstuvwxyz",
        ))
    }

    fn note(&mut self, answer: Answer) {
        let found = match answer {
            Answer::Loaded(Ok(Some(value))) => ("probe-object", value.len().to_string()),
            Answer::Loaded(Ok(None)) => ("probe-object", "none".into()),
            Answer::Loaded(Err(failed)) | Answer::Stored(Err(failed)) => {
                ("probe-object", failed.name().into())
            }
            Answer::Stored(Ok(_)) => ("probe-object", "done".into()),
            Answer::Updated(Ok(before)) => ("probe-count", number(before.as_deref()).to_string()),
            Answer::Updated(Err(failed)) => ("probe-count", failed.name().into()),
            Answer::Fetched(Ok(reply)) => {
                self.found
                    .push(("probe-fetched-length", reply.body.len().to_string()));
                ("probe-fetched", reply.head.status.to_string())
            }
            Answer::Fetched(Err(failed)) => ("probe-fetched", failed.name().into()),
            Answer::Waited => {
                if self.value("follow").is_some() {
                    let open = self.gate.borrow().is_open();
                    self.found.push(("probe-gate", open.to_string()));
                }
                ("probe-waited", "1".into())
            }
        };
        self.found.push(found);
    }

    fn change(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>) {
        let mut piece = chunk.to_ascii_uppercase();
        if self.has("marks") && !chunk.is_empty() {
            piece.push(b'|');
        }
        if self.has("hold") {
            self.held.extend_from_slice(&piece);
            if end {
                out.append(&mut self.held);
            }
        } else {
            out.append(&mut piece);
        }
        if end {
            out.extend_from_slice(b"[end]");
        }
    }

    fn next_request(&mut self, head: &mut RequestHead) -> Step {
        if let Some(effect) = self.todo.pop() {
            return Step::Do(effect);
        }
        if self.has("reply") {
            return Self::reply();
        }
        if self.has("fields") {
            head.fields.remove("probe-remove");
            head.fields.set("probe-set", "set");
            head.fields.append("probe-append", "one");
            head.fields.append("probe-append", "two");
        }
        if self.has("path") {
            head.path = "/probed".into();
        }
        Step::Forward(if self.has("upper-request") {
            Body::Transform
        } else {
            Body::Pass
        })
    }

    fn next_response(&mut self, head: &mut ResponseHead) -> Step {
        if let Some(effect) = self.todo.pop() {
            return Step::Do(effect);
        }
        if self.has("reply-later") {
            return Self::reply();
        }
        for (name, value) in self.found.drain(..) {
            head.fields.append(name, value);
        }
        if self.has("fields") {
            head.fields.remove("probe-remove");
            head.fields.set("probe-set", "set");
            head.fields.append("probe-append", "one");
            head.fields.append("probe-append", "two");
        }
        if self.has("status") {
            head.status = 299;
        }
        if self.has("upper") {
            head.fields.remove("content-length");
            return Step::Forward(Body::Transform);
        }
        Step::Forward(if self.has("observe") || self.has("lead") {
            Body::Observe
        } else {
            Body::Pass
        })
    }
}

fn number(value: Option<&[u8]>) -> u64 {
    value
        .and_then(|value| value.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

impl Exchange for Probing {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        cx.count("probe.requests");
        self.words = head
            .fields
            .text("probe")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        if self.has("peer") {
            let peer = head
                .peer
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or("none".into());
            self.found.push(("probe-peer", peer.into_owned()));
        }
        if let Some(text) = self.value("log") {
            cx.log(Level::Warn, text.to_owned());
        }
        if let Some(effect) = self.fetch("background") {
            cx.detach(effect);
        }
        if let Some(to) = self.value("task") {
            let to = match to {
                "" => To::Onward,
                to => To::Named(to.to_owned()),
            };
            cx.spawn(Refresh(to));
        }
        if self.has("lead") {
            let gate = Gate::new();
            self.gate.replace(gate.clone());
            self.opens = Some(Opener(gate));
        }
        let mut todo: Vec<Effect> = ["wait", "fetch"]
            .iter()
            .filter_map(|word| {
                if *word == "wait" {
                    self.wait(word)
                } else {
                    self.fetch(word)
                }
            })
            .collect();
        if self.has("fetch-onward") {
            todo.push(work::fetch(To::Onward));
        }
        if let Some(limit) = self.value("follow") {
            todo.push(Effect::Wait {
                gate: Some(self.gate.borrow().clone()),
                limit: Duration::from_millis(limit.parse().unwrap_or(0)),
            });
        }
        if let Some((key, size)) = self.value("store").and_then(|value| value.split_once(':')) {
            todo.push(Effect::Store {
                key: key.to_owned().into(),
                value: vec![b'v'; size.parse().unwrap_or(0)].into(),
                ttl: Duration::from_secs(2),
            });
        }
        if let Some(key) = self.value("load") {
            todo.push(Effect::Load {
                key: key.to_owned().into(),
            });
        }
        if let Some(key) = self.value("remove") {
            todo.push(Effect::Remove {
                key: key.to_owned().into(),
            });
        }
        if let Some(key) = self.value("count") {
            let times = self.value("times").and_then(|times| times.parse().ok());
            todo.extend((0..times.unwrap_or(1)).map(|_| Effect::Update {
                table: "probe",
                key: key.to_owned().into(),
                change: Change::new(|before| Some((number(before) + 1).to_le_bytes().to_vec())),
                ttl: Duration::from_secs(60),
            }));
        }
        self.todo = todo;
        self.next_request(head)
    }

    fn request_answer(&mut self, answer: Answer, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        self.note(answer);
        self.next_request(head)
    }

    fn request_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, _: &mut Cx<'_>) {
        self.change(chunk, end, out);
    }

    fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        if self.has("came") {
            let came = if head.unreached {
                "unreached"
            } else {
                "straight"
            };
            self.found.push(("probe-came", came.to_owned()));
        }
        self.todo = [self.wait("wait-later"), self.fetch("fetch-later")]
            .into_iter()
            .flatten()
            .collect();
        self.next_response(head)
    }

    fn response_answer(&mut self, answer: Answer, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        self.note(answer);
        self.next_response(head)
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        if self.has("observe") {
            self.seen += chunk.len();
            if end {
                cx.detach(Effect::Store {
                    key: "observed".into(),
                    value: vec![b'o'; self.seen.min(1_000_000)].into(),
                    ttl: Duration::from_secs(5),
                });
            }
            return;
        }
        self.change(chunk, end, out);
        if end {
            self.opens = None;
        }
    }

    fn response_trailers(&mut self, trailers: &mut Fields, _: &mut Cx<'_>) {
        if self.has("trailers") {
            trailers.append("probe-trailer", "added");
        }
    }
}
