//! The callbacks of one exchange: gathered from the log of a side as they come, told apart by context, compared.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edgeweir_host_launch::{Callback, Hearer};
use tokio::sync::Notify;

use crate::compare::Difference;

/// How long the end of an exchange's contexts is waited for once the client has its response.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the first callback of an exchange is waited for once the client has its response: none on either side by then means
/// that it passed no filter.
const SILENCE: Duration = Duration::from_millis(250);
/// Callbacks of a virtual machine or of its clock, in no order with those of an exchange.
const OF_NO_EXCHANGE: [&str; 5] = [
    "proxy_on_memory_allocate",
    "proxy_on_vm_start",
    "proxy_on_configure",
    "proxy_on_tick",
    "proxy_on_queue_ready",
];
/// Callbacks by which a filter learns of nothing but its context.
const OF_THE_CONTEXT: [&str; 4] = ["context_create", "log", "done", "delete"];

/// What both sides call, one exchange at a time.
#[derive(Default)]
pub struct Callbacks {
    /// Of the first side.
    pub first: Arc<Heard>,
    /// Of the second.
    pub second: Arc<Heard>,
    /// Exchanges whose contexts had numbers that were not their own.
    mixed: AtomicU64,
}

impl Callbacks {
    /// Forgets what was heard: an exchange begins.
    pub fn begin(&self) {
        self.first.clear();
        self.second.clear();
    }

    /// Waits until the contexts of the exchange are over on both sides; how their callbacks differ.
    pub async fn end(&self) -> Vec<Difference> {
        if !self.any().await {
            return Vec::new();
        }
        let (first, second) = tokio::join!(
            self.first.contexts(PATIENCE),
            self.second.contexts(PATIENCE)
        );
        match (first, second) {
            (Some(first), Some(second)) => differences(&first, &second),
            _ => {
                self.mixed.fetch_add(1, Relaxed);
                Vec::new()
            }
        }
    }

    /// Whether anything is heard of the exchange. A module is called before the client has its response: what is still on its
    /// way is in a pipe.
    async fn any(&self) -> bool {
        let until = tokio::time::Instant::now() + SILENCE;
        loop {
            if self.first.any() || self.second.any() {
                return true;
            }
            if tokio::time::Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How many exchanges could not be compared.
    pub fn mixed(&self) -> u64 {
        self.mixed.load(Relaxed)
    }
}

/// What one side calls.
#[derive(Default)]
pub struct Heard {
    calls: Mutex<Vec<Callback>>,
    more: Notify,
}

impl Heard {
    /// Who hears it.
    pub fn hearer(self: &Arc<Self>) -> Hearer {
        let heard = Arc::clone(self);
        Hearer::new(move |callback| {
            let name = callback.name.as_str();
            if name.starts_with("proxy_on_") && !OF_NO_EXCHANGE.contains(&name) {
                let last = name == "proxy_on_delete";
                let mut calls = heard.calls.lock().unwrap_or_else(PoisonError::into_inner);
                calls.push(callback);
                if last {
                    heard.more.notify_one();
                }
            }
        })
    }

    fn any(&self) -> bool {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        !calls.is_empty()
    }

    fn clear(&self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.clear();
    }

    /// The contexts of the exchange, once all are over or no longer waited for. `None` if they cannot be told apart.
    async fn contexts(&self, patience: Duration) -> Option<Vec<Context>> {
        let look = || {
            let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
            contexts(&calls)
        };
        let ended = async {
            loop {
                let all = look();
                // The outermost is made first and ends when nothing follows: no other is made after all have ended.
                let over = |all: &Vec<Context>| {
                    all.iter().any(Context::reached) && all.iter().all(|it| it.over)
                };
                if all.as_ref().is_none_or(over) {
                    return all;
                }
                self.more.notified().await;
            }
        };
        match tokio::time::timeout(patience, ended).await {
            Ok(all) => all,
            Err(_) => look().map(|mut all| {
                for context in all.iter_mut().filter(|context| !context.over) {
                    context.calls.push(format!("(not over after {patience:?})"));
                }
                all
            }),
        }
    }
}

/// One filter's part in an exchange.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Context {
    /// Its filter, where the log says it.
    filter: Option<String>,
    id: u64,
    calls: Vec<String>,
    over: bool,
}

impl Context {
    /// Whether its filter learnt of more than the context: Envoy makes one for a filter the exchange does not reach too,
    /// only to log and to end it.
    fn reached(&self) -> bool {
        let of_it = |call: &String| OF_THE_CONTEXT.contains(&call.as_str());
        !self.calls.iter().all(of_it)
    }
}

/// The contexts that began among these calls, in their order, which is that of the chain: the first callback of a filter
/// is the request's head, and it comes from the filter before it. What belongs to no such context (a root context's, one
/// left over) is not of this exchange. `None` if a number is given out again while it is in use.
fn contexts(calls: &[Callback]) -> Option<Vec<Context>> {
    let mut all: Vec<Context> = Vec::new();
    for call in calls {
        let Some(id) = call.arguments.first().copied() else {
            continue;
        };
        let known = all
            .iter()
            .rposition(|it| !it.over && it.id == id && it.filter == call.filter);
        let name = call.name.trim_start_matches("proxy_on_");
        let created = name == "context_create" && call.arguments.get(1) != Some(&0);
        let at = match known {
            Some(_) if created => return None,
            Some(at) => at,
            None if created || name == "request_headers" => {
                all.push(Context {
                    filter: call.filter.clone(),
                    id,
                    calls: Vec::new(),
                    over: false,
                });
                all.len() - 1
            }
            None => continue,
        };
        let context = &mut all[at];
        context.over = name == "delete";
        let shown = shown(name, &call.arguments);
        match context.calls.last_mut() {
            // How a body is cut into pieces is the network's.
            Some(last) if name.ends_with("_body") && last.starts_with(name) => *last = shown,
            _ => context.calls.push(shown),
        }
    }
    Some(all)
}

/// A callback with what its arguments say of the exchange. How many fields a head has is not among it: Envoy joins lines of one
/// name and adds fields of its own, and the fields themselves are compared where they arrive.
fn shown(name: &str, arguments: &[u64]) -> String {
    let at = |at: usize| arguments.get(at).copied();
    match name {
        "request_headers" | "response_headers" | "request_body" | "response_body"
            if at(2) == Some(1) =>
        {
            format!("{name}(end)")
        }
        // Its status is not among its arguments; that there was no answer is.
        "http_call_response" if at(2) == Some(0) => format!("{name}(failed)"),
        _ => name.to_owned(),
    }
}

/// How the callbacks of an exchange differ, filter by filter.
fn differences(first: &[Context], second: &[Context]) -> Vec<Difference> {
    let reached = |all: &[Context]| {
        let reached = all.iter().filter(|context| context.reached());
        reached.cloned().collect::<Vec<_>>()
    };
    let (first, second) = (reached(first), reached(second));
    let mut all = Vec::new();
    for at in 0..first.len().max(second.len()) {
        let (a, b) = (first.get(at), second.get(at));
        let calls = |context: Option<&Context>| context.map(|it| it.calls.clone());
        let (a_calls, b_calls) = (calls(a).unwrap_or_default(), calls(b).unwrap_or_default());
        if a_calls == b_calls {
            continue;
        }
        let names = [a, b].map(|it| it.and_then(|it| it.filter.clone()));
        let what = match names {
            [Some(a), Some(b)] if a != b => format!("callbacks of {a} / {b}"),
            [Some(name), _] | [None, Some(name)] => format!("callbacks of {name}"),
            [None, None] => format!("callbacks of filter {}", at + 1),
        };
        let (first, second) = marked(&a_calls, &b_calls);
        all.push(Difference {
            what,
            first,
            second,
        });
    }
    all
}

/// Both sequences, with brackets around what differs.
fn marked(first: &[String], second: &[String]) -> (String, String) {
    let start = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let (rest_a, rest_b) = (&first[start..], &second[start..]);
    let end = rest_a.iter().rev().zip(rest_b.iter().rev());
    let end = end.take_while(|(a, b)| a == b).count();
    let shown = |all: &[String]| {
        let until = all.len() - end;
        let middle = format!("[{}]", all[start..until].join(", "));
        let parts = [&all[..start], &[middle], &all[until..]];
        parts.concat().join(", ")
    };
    (shown(first), shown(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls from lines such as `cache request_headers 4 10 0`; `-` where the log names no filter.
    fn calls(lines: &[&str]) -> Vec<Callback> {
        let call = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            Callback {
                filter: (words[0] != "-").then(|| words[0].to_owned()),
                name: format!("proxy_on_{}", words[1]),
                arguments: words[2..]
                    .iter()
                    .map(|word| word.parse().expect("a number"))
                    .collect(),
            }
        };
        lines.iter().map(call).collect()
    }

    fn shown_of(lines: &[&str]) -> Vec<String> {
        let all = contexts(&calls(lines)).expect("told apart");
        all.iter().map(|it| it.calls.join(" ")).collect()
    }

    #[test]
    fn contexts_are_told_apart_and_pieces_of_bodies_are_one() {
        // Two filters in Envoy, whose numbers differ; a root context's callout and one left over are of no exchange.
        let got = shown_of(&[
            "- http_call_response 1 9 3 0 0",
            "- delete 3",
            "- context_create 4 1",
            "- request_headers 4 9 0",
            "- context_create 7 1",
            "- request_headers 7 9 0",
            "- request_body 4 10 0",
            "- request_body 7 10 0",
            "- request_body 4 0 1",
            "- request_body 7 0 1",
            "- http_call_response 7 2 0 0 0",
            "- response_headers 7 6 1",
            "- response_headers 4 7 1",
            "- log 4",
            "- log 7",
            "- done 4",
            "- delete 4",
            "- done 7",
            "- delete 7",
        ]);
        assert_eq!(
            got,
            [
                "context_create request_headers request_body(end) response_headers(end) log done delete",
                "context_create request_headers request_body(end) http_call_response(failed) response_headers(end) \
                 log done delete",
            ]
        );
    }

    #[test]
    fn one_number_is_two_contexts_where_the_log_names_filters() {
        let ours = ["a context_create 2 1", "b context_create 2 1"];
        assert_eq!(shown_of(&ours).len(), 2);
        let envoys = calls(&["- context_create 2 1", "- context_create 2 1"]);
        assert_eq!(contexts(&envoys), None, "which is whose cannot be known");
    }

    #[test]
    fn what_differs_is_marked() {
        let of = |lines: &[&str]| contexts(&calls(lines)).expect("told apart");
        let first = of(&[
            "cache context_create 2 1",
            "cache request_headers 2 7 1",
            "cache done 2",
            "cache log 2",
            "cache delete 2",
        ]);
        let second = of(&[
            "- context_create 4 1",
            "- request_headers 4 9 1",
            "- log 4",
            "- done 4",
            "- delete 4",
            // Not reached: a reply came before.
            "- context_create 5 1",
            "- log 5",
            "- done 5",
            "- delete 5",
        ]);
        let all = differences(&first, &second);
        assert_eq!(
            all,
            [Difference {
                what: "callbacks of cache".to_owned(),
                first: "context_create, request_headers(end), [done, log], delete".to_owned(),
                second: "context_create, request_headers(end), [log, done], delete".to_owned(),
            }]
        );
        assert_eq!(all[0].kind(), "callbacks of cache [done, log] [log, done]");
        assert!(differences(&first, &first).is_empty());
    }

    #[tokio::test]
    async fn an_exchange_without_filters_is_not_waited_for() {
        let callbacks = Callbacks::default();
        let began = std::time::Instant::now();
        assert_eq!(callbacks.end().await, []);
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_context_is_waited_for_and_not_for_ever() {
        let heard = Arc::new(Heard::default());
        let hear = |lines: &[&str]| {
            for call in calls(lines) {
                heard.hearer().hear(call);
            }
        };
        hear(&["- context_create 4 1", "- request_headers 4 9 1"]);
        let (all, ()) = tokio::join!(heard.contexts(PATIENCE), async {
            tokio::task::yield_now().await;
            hear(&["- log 4", "- done 4", "- delete 4"]);
        });
        assert!(all.expect("told apart")[0].over);
        heard.clear();
        hear(&["- context_create 5 1", "- request_headers 5 9 1"]);
        let patience = Duration::from_millis(10);
        let all = heard.contexts(patience).await.expect("told apart");
        assert_eq!(all[0].calls.last().expect("some"), "(not over after 10ms)");
    }
}
