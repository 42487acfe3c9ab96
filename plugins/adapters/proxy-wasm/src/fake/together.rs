//! Exchanges that meet: gates, tasks and calls, through the callbacks a host makes.

use std::cell::RefCell;
use std::time::Duration;

use edgeweir_filter::{
    Answer, Body, Chain, Change, Cx, Effect, Exchange, Fetch, Filter, Gate, Reply, RequestHead,
    ResponseHead, Step, Task, To,
};

use super::{HOST, done, host, owned};
use crate::hostcalls::Side;
use crate::vm::{self, Module};

const ROOT: u32 = 1;
const SECOND: u64 = 1_000_000_000;

/// What the exchanges of a test share.
#[derive(Default)]
struct Shared {
    gate: Gate,
    told: Vec<String>,
}

thread_local! {
    static SHARED: RefCell<Shared> = RefCell::default();
}

fn tell(what: impl Into<String>) {
    SHARED.with_borrow_mut(|shared| shared.told.push(what.into()));
}

fn told() -> Vec<String> {
    SHARED.with_borrow_mut(|shared| std::mem::take(&mut shared.told))
}

fn gate() -> Gate {
    SHARED.with_borrow(|shared| shared.gate.clone())
}

/// Does what the path says.
#[derive(Default)]
struct Meet {
    path: String,
    opens: Option<Opener>,
}

/// Opens the gate, at the latest when it goes.
struct Opener(Gate);

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl Filter for Meet {
    fn name(&self) -> &'static str {
        "meet"
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Meet::default())
    }
    fn startup(&self) -> Vec<Box<dyn Task>> {
        vec![Box::new(Work("startup", To::Onward))]
    }
}

impl Exchange for Meet {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        self.path = String::from_utf8_lossy(&head.path).into_owned();
        match self.path.as_str() {
            "/lead" => self.opens = Some(Opener(gate())),
            "/follow" => {
                return Step::Do(Effect::Wait {
                    gate: Some(gate()),
                    limit: Duration::from_secs(1),
                });
            }
            "/open" => gate().open(),
            "/spawn" => cx.spawn(Work("onward", To::Onward)),
            "/detach" => cx.detach(Effect::Fetch(fetch(To::Named("else".into())))),
            "/many" => (0..70).for_each(|_| cx.spawn(Work("many", To::Onward))),
            "/fetch" => return Step::Do(Effect::Fetch(fetch(To::Onward))),
            "/wait-in-task" => cx.spawn(Waiting),
            "/untyped" => return Step::Reply(Reply::new(200, &[], "body")),
            "/empty" => return Step::Reply(Reply::new(200, &[("content-type", "text/html")], "")),
            "/hit" => {
                return Step::Do(Effect::Update {
                    table: "meet",
                    key: "marker".into(),
                    change: Change::new(|_| None),
                    ttl: Duration::from_secs(1),
                });
            }
            _ => {}
        }
        Step::Forward(Body::Pass)
    }
    fn request_answer(&mut self, answer: Answer, _: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        if self.path == "/hit" {
            cx.count("meet.hit");
            let fields = [("age", "1"), ("content-type", "text/plain")];
            return Step::Reply(Reply::new(200, &fields, "body"));
        }
        tell(format!("{} {}", self.path, shown(&answer)));
        Step::Forward(Body::Pass)
    }
    fn response(&mut self, _: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        Step::Forward(Body::Observe)
    }
    fn response_body(&mut self, _: &[u8], end: bool, _: &mut Vec<u8>, _: &mut Cx<'_>) {
        if end {
            self.opens = None;
        }
    }
}

fn fetch(to: To) -> Fetch {
    Fetch {
        to,
        head: RequestHead::default(),
        body: Default::default(),
        timeout: Duration::from_millis(300),
    }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Fetched(Ok(reply)) => reply.head.status.to_string(),
        Answer::Fetched(Err(failed)) => failed.name().into(),
        _ => "waited".into(),
    }
}

/// One request, and its answer told.
struct Work(&'static str, To);

impl Task for Work {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        Some(Effect::Fetch(fetch(self.1.clone())))
    }
    fn answer(&mut self, answer: Answer, _: &mut Cx<'_>) -> Option<Effect> {
        tell(format!("{} {}", self.0, shown(&answer)));
        None
    }
}

/// A task that waits at the gate, and then for a time.
struct Waiting;

impl Task for Waiting {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        Some(Effect::Wait {
            gate: Some(gate()),
            limit: Duration::from_secs(10),
        })
    }
    fn answer(&mut self, _: Answer, _: &mut Cx<'_>) -> Option<Effect> {
        tell("task waited");
        None
    }
}

/// A VM with the filter loaded, its startup task over.
fn begin() {
    HOST.take();
    SHARED.take();
    vm::install(Module {
        name: "meet",
        load: |_| Ok(Chain::of(Meet::default())),
    });
    vm::delete(ROOT);
    vm::create(ROOT, 0);
    assert!(vm::configure(ROOT, 0));
    vm::tick(ROOT);
    done();
    told();
}

fn request(id: u32, path: &str) -> u32 {
    vm::create(id, ROOT);
    host(|host| {
        host.maps
            .insert(0, owned(&[(":method", "GET"), (":path", path)]))
    });
    vm::stream(id, |stream| stream.on_request(true))
}

fn response(id: u32) {
    host(|host| {
        let head = [
            (":status", "200"),
            ("content-type", "text/plain"),
            ("content-length", "1"),
        ];
        host.maps.insert(2, owned(&head));
        host.buffers.insert(1, b"x".to_vec());
    });
    vm::stream(id, |stream| stream.on_response(false));
    vm::stream(id, |stream| stream.on_body(Side::Response, 1, true));
}

fn answer(own: u32, token: u32, status: &str) {
    host(|host| host.maps.insert(6, owned(&[(":status", status)])));
    vm::called(own, token, 1, 0);
}

fn later(nanos: u64) {
    host(|host| host.time += nanos);
}

fn continued() -> Vec<String> {
    let mut all = done();
    all.retain(|what| what.starts_with("continue") || what.starts_with("as"));
    all
}

#[test]
fn startup_tasks_begin_with_the_first_tick_and_know_no_way_on() {
    begin();
    assert!(vm::configure(ROOT, 0));
    assert_eq!(done().last().map(String::as_str), Some("tick 1"));
    vm::tick(ROOT);
    assert_eq!(told(), ["startup unsupported"]);
}

#[test]
fn a_leaders_body_lets_those_who_wait_go_on_once() {
    begin();
    assert_eq!(request(2, "/lead"), 0);
    assert_eq!((request(3, "/follow"), request(4, "/follow")), (1, 1));
    done();
    response(2);
    assert_eq!(continued(), [""; 0], "not out of the leader's callback");
    vm::tick(ROOT);
    assert_eq!(
        continued(),
        ["as 3", "continue 0", "as 4", "continue 0", "as 1"]
    );
    later(2 * SECOND);
    vm::tick(ROOT);
    assert_eq!(
        continued(),
        ["as 1"],
        "their time is over, and so is their wait"
    );
    assert_eq!(told(), ["/follow waited", "/follow waited"]);
}

#[test]
fn a_leader_that_ends_lets_the_others_go_on_with_a_tick() {
    begin();
    request(2, "/lead");
    request(3, "/follow");
    done();
    vm::delete(2);
    assert_eq!(done(), ["tick 1"]);
    vm::tick(ROOT);
    assert_eq!(continued(), ["as 3", "continue 0", "as 1"]);
    assert_eq!(request(4, "/follow"), 0, "an open gate is no wait");
}

#[test]
fn a_wait_over_by_its_limit_is_not_over_again() {
    begin();
    request(2, "/lead");
    request(3, "/follow");
    later(SECOND);
    done();
    vm::tick(ROOT);
    assert_eq!(continued(), ["as 3", "continue 0", "as 1"]);
    response(2);
    vm::tick(ROOT);
    assert_eq!(continued(), ["as 1"]);
    assert_eq!(told(), ["/follow waited"]);
}

#[test]
fn out_of_a_headers_callback_they_go_on_with_a_tick() {
    begin();
    request(3, "/follow");
    request(4, "/follow");
    done();
    vm::delete(4);
    request(2, "/open");
    assert_eq!(done(), ["tick 1"]);
    vm::tick(ROOT);
    assert_eq!(continued(), ["as 3", "continue 0", "as 1"], "4 is gone");
}

#[test]
fn many_who_wait_go_on_a_few_with_each_tick() {
    begin();
    request(2, "/lead");
    for id in 10..410 {
        request(id, "/follow");
    }
    done();
    let went_on = |what: Vec<String>| what.iter().filter(|what| *what == "continue 0").count();
    response(2);
    assert_eq!(done().last().map(String::as_str), Some("tick 1"));
    vm::tick(ROOT);
    let few = went_on(done());
    assert_eq!(few, vm::AT_ONCE as usize);
    // The host is still within the first callback when those who went on are done: no more of them.
    for id in 10..20 {
        vm::delete(id);
    }
    assert_eq!(went_on(done()), 0);
    for _ in 0..400_usize.div_ceil(few) - 1 {
        assert_eq!(told().len(), few);
        vm::tick(ROOT);
        assert!(went_on(done()) <= few);
    }
    assert_eq!(told().len(), 400 % few);
}

#[test]
fn many_limits_that_end_together_are_a_few_with_each_tick() {
    begin();
    for id in 10..110 {
        request(id, "/follow");
    }
    host(|host| host.time += 3600 * SECOND);
    let mut all = 0;
    for _ in 0..100_usize.div_ceil(vm::AT_ONCE as usize) {
        vm::tick(ROOT);
        let told = told().len();
        assert!(told <= vm::AT_ONCE as usize);
        all += told;
    }
    assert_eq!(all, 100);
}

#[test]
fn a_task_outlives_its_stream_and_goes_where_the_stream_went() {
    begin();
    request(2, "/spawn");
    assert_eq!(done(), ["tick 1"], "not from within the stream's callback");
    vm::delete(2);
    vm::tick(ROOT);
    assert_eq!(done()[..1], ["call origin 300"]);
    let token = host(|host| host.token);
    answer(ROOT, token, "204");
    answer(ROOT, token, "204");
    assert_eq!(told(), ["onward 204"]);
}

#[test]
fn an_answer_too_late_is_nobodys() {
    begin();
    assert_eq!(request(2, "/fetch"), 1);
    let token = host(|host| host.token);
    vm::delete(2);
    answer(2, token, "200");
    assert_eq!(told(), [""; 0]);
    assert_eq!(request(3, "/fetch"), 1);
    let token = host(|host| host.token);
    answer(3, token, "200");
    assert_eq!(told(), ["/fetch 200"]);
}

#[test]
fn a_background_fetch_is_made_by_the_root() {
    begin();
    request(2, "/detach");
    assert_eq!(done(), ["tick 1"]);
    vm::tick(ROOT);
    assert_eq!(done()[..1], ["call else 300"]);
}

#[test]
fn tasks_are_bounded_and_wait_at_gates_too() {
    begin();
    request(2, "/many");
    let counts = done();
    let dropped = counts.iter().filter(|what| what.contains("tasks_dropped"));
    assert_eq!(dropped.count(), 6);
    vm::tick(ROOT);
    let calls = done();
    assert_eq!(
        calls.iter().filter(|what| what.starts_with("call")).count(),
        64
    );
    for token in 1..=64 {
        answer(ROOT, token, "200");
    }
    assert_eq!(told().len(), 64);
    request(3, "/wait-in-task");
    vm::tick(ROOT);
    request(4, "/lead");
    response(4);
    vm::tick(ROOT);
    assert_eq!(told(), ["task waited"]);
}

#[test]
fn a_configuration_that_comes_again_loses_no_wait() {
    begin();
    request(2, "/lead");
    request(3, "/follow");
    assert!(vm::configure(ROOT, 0));
    later(SECOND);
    done();
    vm::tick(ROOT);
    assert_eq!(continued(), ["as 3", "continue 0", "as 1"]);
    vm::delete(ROOT);
}

#[test]
fn a_reply_has_the_media_type_that_it_was_given_and_no_other() {
    begin();
    for (id, path, made, want) in [
        (
            2,
            "/untyped",
            Some("text/plain"),
            &["remove content-type"][..],
        ),
        // What the host made of it for a client that speaks another protocol.
        (3, "/untyped", Some("application/grpc"), &[]),
        (4, "/empty", None, &["add content-type: text/html"]),
    ] {
        assert_eq!(request(id, path), 1);
        done();
        let made = made.map(|made| ("content-type", made));
        let head: Vec<_> = [(":status", "200")].into_iter().chain(made).collect();
        host(|host| host.maps.insert(2, owned(&head)));
        assert!(vm::stream(id, |stream| stream.on_response(false)) == 0);
        assert_eq!(done(), want, "{path}");
        vm::delete(id);
    }
}

#[test]
fn a_hit_from_memory_is_five_calls_of_the_host() {
    begin();
    let exchange = |id| {
        assert_eq!(request(id, "/hit"), 1);
        response(id);
        vm::delete(id);
        host(|host| std::mem::take(&mut host.calls))
    };
    exchange(2);
    assert_eq!(
        exchange(3),
        [
            "proxy_get_current_time_nanoseconds",
            "proxy_get_header_map_pairs",
            "proxy_get_shared_data",
            "proxy_increment_metric",
            "proxy_send_local_response",
        ]
    );
}
