//! What a file of cases says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::content::Body;
use crate::expect::Expect;
use crate::source::Source;

/// A file of cases.
#[derive(Clone, Debug)]
pub struct File {
    /// The file.
    pub source: Source,
    /// Its cases, in order, each once for every module named.
    pub cases: Vec<Case>,
}

/// One case on one chain of filters.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name, with the module in brackets where there are several.
    pub name: String,
    /// Where it is.
    pub line: usize,
    /// The filters, outermost first.
    pub filters: Vec<Filter>,
    /// The clock at its beginning, seconds since 1970.
    pub at: u64,
    /// It says a time of its own.
    pub timed: bool,
    /// Virtual machines of each module, workers of Envoy.
    pub workers: u32,
    /// The client's address.
    pub peer: SocketAddr,
    /// Properties the host tells beyond its own.
    pub properties: Vec<(String, String)>,
    /// Shared data before it begins.
    pub shared: Vec<(String, Vec<u8>)>,
    /// What the filters' own requests are answered, by cluster, in order; the last answer counts for all after it.
    pub clusters: BTreeMap<String, Vec<Answer>>,
    /// What it may cost.
    pub budget: Budget,
    /// Why it is not run under faults; `None`: it is.
    pub torture: bool,
    /// It runs on Envoy too.
    pub envoy: bool,
    /// Its exchanges.
    pub steps: Vec<Step>,
}

/// A filter of a chain.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Its name in reports; `plugin_name`.
    pub name: String,
    /// Its file.
    pub module: PathBuf,
    /// Where that is named.
    pub line: usize,
    /// Its configuration; nothing is empty.
    pub config: String,
    /// Modules: `plugin_root_id`.
    pub root_id: String,
    /// Modules: body callbacks run while a head answered with `StopIteration` waits.
    pub allow_on_headers_stop_iteration: bool,
    /// Modules: the configuration of the VM.
    pub vm_config: String,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Components: Spin's variables.
    pub variables: BTreeMap<String, String>,
}

/// What a case may cost, after its modules have started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Budget {
    /// Wasm instructions of all callbacks.
    pub fuel: Option<u64>,
    /// Linear memory of one instance, bytes.
    pub memory: Option<u64>,
    /// Calls of host functions.
    pub host_calls: Option<u64>,
    /// Bytes between host and guest.
    pub bytes_copied: Option<u64>,
    /// Wall time: noise on a busy machine, for a generous bound.
    pub wall: Option<Duration>,
}

/// One exchange of a case.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it is.
    pub line: usize,
    /// The clock moves by so much before it.
    pub advance: Duration,
    /// It is done so many times.
    pub times: u32,
    /// What the client asks.
    pub request: Request,
    /// What the origin answers.
    pub upstream: Answer,
    /// What is to come of it.
    pub expect: Expect,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its target: path and query.
    pub path: String,
    /// Its fields.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Body,
}

/// An answer.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A response, after a time.
    Response(Response),
    /// No connection.
    Refused,
    /// The connection ends before a response.
    Closed,
    /// Nothing ever comes.
    Silent,
}

/// A response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: Vec<(String, String)>,
    /// Its body.
    pub body: Body,
    /// The time before its head.
    pub delay: Duration,
}

impl Default for Response {
    /// 200 without fields and without a body.
    fn default() -> Self {
        Self {
            status: 200,
            fields: Vec::new(),
            body: Body::default(),
            delay: Duration::ZERO,
        }
    }
}

impl Case {
    /// How often it runs: once, or once for each point where a body of it is split.
    pub fn splits(&self) -> usize {
        let of = |step: &Step| {
            let upstream = match &step.upstream {
                Answer::Response(response) => response.body.splits(),
                _ => 1,
            };
            upstream.max(step.request.body.splits())
        };
        self.steps.iter().map(of).max().unwrap_or(1)
    }
}
