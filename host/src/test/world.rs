//! The world of a case: a clock that stands still, clusters that answer what it says, a witness, a fault.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use edgeweir_host_cases::model::Answer;
use edgeweir_host_cases::torture::{CALLOUT, Fault};
use edgeweir_host_chain::{Answering, Clock, Clusters, Faults, Request, Witness, lock};
use tokio::time::Instant;

use super::origin;

/// The runtime's clock, which moves only where everybody waits, counted from a case's beginning.
pub struct Standing {
    began: Instant,
    at: SystemTime,
}

impl Standing {
    /// A clock that shows `at`, in seconds since 1970.
    pub fn at(at: u64) -> Self {
        Self {
            began: Instant::now(),
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
        }
    }
}

impl Clock for Standing {
    fn wall(&self) -> SystemTime {
        self.at + self.began.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed()
    }
}

/// What filters logged and which callbacks they had.
#[derive(Default)]
pub struct Watching {
    log: Mutex<Vec<(Option<u8>, String)>>,
    callbacks: Mutex<Vec<String>>,
}

/// The root context, which is of no exchange.
const ROOT: u32 = 1;
/// Callbacks of every exchange that say nothing of its course.
const PLAIN: [&str; 4] = [
    "proxy_on_context_create",
    "proxy_on_done",
    "proxy_on_log",
    "proxy_on_delete",
];
/// The most lines kept of one exchange.
const LINES: usize = 10_000;

impl Watching {
    /// The lines since the last call.
    pub fn log(&self) -> Vec<(Option<u8>, String)> {
        std::mem::take(&mut lock(&self.log))
    }

    /// The callbacks since the last call.
    pub fn callbacks(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.callbacks))
    }
}

impl Witness for Watching {
    fn log(&self, level: Option<u8>, line: &str) {
        let mut log = lock(&self.log);
        if log.len() < LINES {
            log.push((level, line.to_owned()));
        }
    }

    fn callback(&self, context: u32, name: &'static str) {
        let mut callbacks = lock(&self.callbacks);
        let again = callbacks.last().is_some_and(|last| last == name);
        if context != ROOT && !PLAIN.contains(&name) && !again && callbacks.len() < LINES {
            callbacks.push(name.to_owned());
        }
    }
}

/// Counts calls of host functions once the modules have started, and makes one of them fail.
#[derive(Default)]
pub struct Failing {
    fault: Option<Fault>,
    armed: AtomicBool,
    hit: AtomicBool,
    counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl Failing {
    /// Without a fault calls are only counted.
    pub fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    /// From here on calls count.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Calls by name.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    /// Whether the fault was reached.
    pub fn was_hit(&self) -> bool {
        self.hit.load(Ordering::Relaxed)
    }
}

impl Faults for Failing {
    fn hit(&self, call: &'static str) -> Option<u32> {
        if !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        let mut counts = lock(&self.counts);
        let count = counts.entry(call).or_default();
        *count += 1;
        let fault = self.fault.as_ref()?;
        if fault.call != call || fault.nth != *count {
            return None;
        }
        self.hit.store(true, Ordering::Relaxed);
        Some(fault.status)
    }
}

/// Clusters that answer in order; the last answer counts for all after it.
pub struct Scripted {
    answers: Mutex<BTreeMap<String, Vec<Answer>>>,
    failing: Arc<Failing>,
}

impl Scripted {
    /// The clusters of a case.
    pub fn new(answers: BTreeMap<String, Vec<Answer>>, failing: Arc<Failing>) -> Self {
        Self {
            answers: Mutex::new(answers),
            failing,
        }
    }
}

impl Clusters for Scripted {
    fn knows(&self, name: &str) -> bool {
        lock(&self.answers).contains_key(name)
    }

    fn call(&self, name: &str, request: Request) -> Answering {
        let mut answers = lock(&self.answers);
        let answer = match answers.get_mut(name) {
            Some(answers) if answers.len() > 1 => Some(answers.remove(0)),
            Some(answers) => answers.first().cloned(),
            None => None,
        };
        drop(answers);
        let fault = self.failing.hit(CALLOUT);
        Box::pin(async move {
            let answer = match fault {
                Some(504) => Answer::Silent,
                Some(_) => Answer::Refused,
                None => answer.unwrap_or(Answer::Refused),
            };
            let to_head = request.method() == http::Method::HEAD;
            match &answer {
                Answer::Response(scripted) => {
                    origin::received(request, &answer).await?;
                    tokio::time::sleep(scripted.delay).await;
                    Ok(origin::response(scripted, 0, to_head, Duration::ZERO))
                }
                Answer::Silent => std::future::pending().await,
                Answer::Refused | Answer::Closed => Err("no answer".into()),
            }
        })
    }
}
