//! A host in memory, and exchanges against it.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use edgeweir_filter::{
    Body, Chain, Cx, Effect, Exchange, Filter, Reply, RequestHead, ResponseHead, Step,
};

use crate::heads;
use crate::hostcalls::Side;
use crate::root::Root;
use crate::stream::{Action, Stream};

type Lines = Vec<(Vec<u8>, Vec<u8>)>;

/// What the host holds, and what it was asked to do.
#[derive(Default)]
struct Host {
    maps: HashMap<u32, Lines>,
    buffers: HashMap<u32, Vec<u8>>,
    done: Vec<String>,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

fn host<T>(call: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(call)
}

/// The functions a module imports; those no test needs are refused.
pub mod raw {
    use super::*;

    unsafe fn bytes(data: *const u8, size: usize) -> Vec<u8> {
        unsafe { std::slice::from_raw_parts(data, size) }.to_vec()
    }

    unsafe fn give(value: &[u8], data: *mut *mut u8, size: *mut usize) -> u32 {
        let block = crate::hostcalls::allocate(value.len());
        unsafe {
            if !block.is_null() {
                std::ptr::copy_nonoverlapping(value.as_ptr(), block, value.len());
            }
            *data = block;
            *size = value.len();
        }
        0
    }

    fn note(what: String) -> u32 {
        host(|host| host.done.push(what));
        0
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    pub unsafe fn __wasm_call_ctors() {}
    pub unsafe fn proxy_log(_: u32, _: *const u8, _: usize) -> u32 {
        0
    }
    pub unsafe fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
        unsafe { *time = 1_000_000_000 };
        0
    }
    pub unsafe fn proxy_get_property(
        _: *const u8,
        _: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        unsafe { give(b"192.0.2.1:80", data, size) }
    }
    pub unsafe fn proxy_get_buffer_bytes(
        kind: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        note(format!("read {kind}"));
        let Some(all) = host(|host| host.buffers.get(&kind).cloned()) else {
            return 1;
        };
        let start = start.min(all.len());
        unsafe {
            give(
                &all[start..all.len().min(start.saturating_add(max))],
                data,
                size,
            )
        }
    }
    pub unsafe fn proxy_set_buffer_bytes(
        kind: u32,
        start: usize,
        length: usize,
        data: *const u8,
        size: usize,
    ) -> u32 {
        let value = unsafe { bytes(data, size) };
        host(|host| {
            let Some(all) = host.buffers.get_mut(&kind) else {
                return 1;
            };
            match start {
                0 => drop(all.splice(..length.min(all.len()), value)),
                _ if start >= all.len() => all.extend(value),
                _ => return 2,
            }
            0
        })
    }
    pub unsafe fn proxy_get_header_map_pairs(
        kind: u32,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32 {
        let Some(lines) = host(|host| host.maps.get(&kind).cloned()) else {
            return 1;
        };
        unsafe {
            give(
                &heads::pairs(lines.iter().map(|(n, v)| (&n[..], &v[..]))),
                data,
                size,
            )
        }
    }
    pub unsafe fn proxy_replace_header_map_value(
        _: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32 {
        let (name, value) = unsafe { (bytes(name, name_size), bytes(value, size)) };
        note(format!("replace {}: {}", text(&name), text(&value)))
    }
    pub unsafe fn proxy_add_header_map_value(
        _: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        size: usize,
    ) -> u32 {
        let (name, value) = unsafe { (bytes(name, name_size), bytes(value, size)) };
        note(format!("add {}: {}", text(&name), text(&value)))
    }
    pub unsafe fn proxy_remove_header_map_value(_: u32, name: *const u8, name_size: usize) -> u32 {
        note(format!(
            "remove {}",
            text(&unsafe { bytes(name, name_size) })
        ))
    }
    pub unsafe fn proxy_get_shared_data(
        _: *const u8,
        _: usize,
        _: *mut *mut u8,
        _: *mut usize,
        _: *mut u32,
    ) -> u32 {
        10
    }
    pub unsafe fn proxy_set_shared_data(
        _: *const u8,
        _: usize,
        _: *const u8,
        _: usize,
        _: u32,
    ) -> u32 {
        10
    }
    pub unsafe fn proxy_continue_stream(side: u32) -> u32 {
        note(format!("continue {side}"))
    }
    pub unsafe fn proxy_close_stream(side: u32) -> u32 {
        note(format!("close {side}"))
    }
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn proxy_send_local_response(
        status: u32,
        _: *const u8,
        _: usize,
        body: *const u8,
        body_size: usize,
        fields: *const u8,
        fields_size: usize,
        _: i32,
    ) -> u32 {
        let (body, fields) = unsafe { (bytes(body, body_size), bytes(fields, fields_size)) };
        let declared = text(&fields).contains("content-length");
        note(format!("reply {status} {} {declared}", text(&body)))
    }
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn proxy_http_call(
        _: *const u8,
        _: usize,
        _: *const u8,
        _: usize,
        _: *const u8,
        _: usize,
        _: *const u8,
        _: usize,
        _: u32,
        _: *mut u32,
    ) -> u32 {
        2
    }
    pub unsafe fn proxy_set_effective_context(_: u32) -> u32 {
        0
    }
    pub unsafe fn proxy_set_tick_period_milliseconds(period: u32) -> u32 {
        note(format!("tick {period}"))
    }
    pub unsafe fn proxy_define_metric(_: u32, _: *const u8, _: usize, _: *mut u32) -> u32 {
        12
    }
    pub unsafe fn proxy_increment_metric(_: u32, _: i64) -> u32 {
        12
    }
}

/// Does what the request's path says, and notes what it is told of bodies.
struct Plan(Rc<RefCell<Vec<String>>>, String);

impl Filter for Plan {
    fn name(&self) -> &'static str {
        "plan"
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Plan(self.0.clone(), String::new()))
    }
}

impl Exchange for Plan {
    fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        self.1 = String::from_utf8_lossy(&head.path).into_owned();
        match self.1.as_str() {
            "/reply" => Step::Reply(Reply::new(203, &[], "body")),
            "/wait" => Step::Do(Effect::Wait {
                gate: None,
                limit: std::time::Duration::from_millis(5),
            }),
            "/fields" => {
                head.fields.set("twice", "new");
                head.fields.remove("gone");
                head.fields.remove("never");
                head.fields.append("more", "1");
                head.fields.append("more", "2");
                head.path = "/else".into();
                Step::Forward(Body::Pass)
            }
            _ => Step::Forward(Body::Pass),
        }
    }
    fn request_answer(
        &mut self,
        _: edgeweir_filter::Answer,
        _: &mut RequestHead,
        _: &mut Cx<'_>,
    ) -> Step {
        Step::Forward(Body::Pass)
    }
    fn response(&mut self, _: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        Step::Forward(match self.1.as_str() {
            "/transform" => Body::Transform,
            "/observe" => Body::Observe,
            _ => Body::Pass,
        })
    }
    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, _: &mut Cx<'_>) {
        self.0.borrow_mut().push(format!(
            "{}{}",
            String::from_utf8_lossy(chunk),
            if end { "." } else { "" }
        ));
        out.extend_from_slice(&chunk.to_ascii_uppercase());
        if end {
            out.push(b'!');
        }
    }
}

struct Play {
    stream: Stream,
    told: Rc<RefCell<Vec<String>>>,
}

impl Play {
    /// An exchange whose request has this path.
    fn of(path: &str) -> (Self, Action) {
        HOST.take();
        let told = Rc::default();
        let root = Root::new(1, "plan", Chain::of(Plan(Rc::clone(&told), String::new())));
        let lines = [
            (":method", "GET"),
            (":path", path),
            ("gone", "x"),
            ("twice", "1"),
            ("twice", "2"),
            ("kept", "\u{fffd}"),
        ];
        host(|host| host.maps.insert(0, owned(&lines)));
        let mut play = Self {
            stream: Stream::new(2, Rc::new(root)),
            told,
        };
        let action = play.stream.on_request(true);
        (play, action)
    }

    fn response(&mut self, lines: &[(&str, &str)]) -> Action {
        host(|host| host.maps.insert(2, owned(lines)));
        self.stream.on_response(false)
    }

    /// A body callback with `more` appended to what the host still holds; the action, and what it holds after.
    fn body(&mut self, more: &str, end: bool) -> (Action, String) {
        let size = host(|host| {
            let all = host.buffers.entry(1).or_default();
            all.extend_from_slice(more.as_bytes());
            all.len()
        });
        let action = self.stream.on_body(Side::Response, size, end);
        let held = host(|host| String::from_utf8_lossy(&host.buffers[&1]).into_owned());
        if action == Action::Continue {
            host(|host| host.buffers.clear());
        }
        (action, held)
    }

    fn told(&self) -> Vec<String> {
        self.told.take()
    }
}

fn owned(lines: &[(&str, &str)]) -> Lines {
    lines
        .iter()
        .map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec()))
        .collect()
}

fn done() -> Vec<String> {
    host(|host| std::mem::take(&mut host.done))
}

const OK: (&str, &str) = (":status", "200");

#[test]
fn only_what_changed_is_written() {
    let (_, action) = Play::of("/fields");
    assert_eq!(action, Action::Continue);
    assert_eq!(
        done(),
        [
            "remove twice",
            "add twice: new",
            "remove gone",
            "replace more: 1",
            "add more: 2",
            "replace :path: /else"
        ]
    );
    let (mut play, _) = Play::of("/");
    assert_eq!(
        play.response(&[OK, ("content-length", "3")]),
        Action::Continue
    );
    assert_eq!(play.body("abc", true), (Action::Continue, "abc".to_owned()));
    assert_eq!(done(), [""; 0], "a body nobody looks at is not read");
}

#[test]
fn one_reply_and_nothing_after_it() {
    let (mut play, action) = Play::of("/reply");
    assert_eq!(
        (action, done()),
        (Action::Pause, vec!["reply 203 body false".to_owned()])
    );
    assert_eq!(play.response(&[(":status", "203")]), Action::Continue);
    assert_eq!(
        play.body("body", true),
        (Action::Continue, "body".to_owned())
    );
    assert_eq!(done(), [""; 0]);
}

#[test]
fn a_declared_length_ends_the_body_once() {
    let (mut play, _) = Play::of("/transform");
    assert_eq!(
        play.response(&[OK, ("content-length", "4")]),
        Action::Continue
    );
    assert_eq!(done(), ["remove content-length"]);
    assert_eq!(play.body("ab", false), (Action::Continue, "AB".to_owned()));
    assert_eq!(play.body("cd", false), (Action::Continue, "CD!".to_owned()));
    assert_eq!(play.body("", true).0, Action::Continue);
    assert_eq!(play.told(), ["ab", "cd."]);
}

#[test]
fn who_looks_on_is_not_told_the_end_of_a_part() {
    let (mut play, _) = Play::of("/observe");
    play.response(&[OK, ("content-length", "4")]);
    assert_eq!(play.body("ab", true), (Action::Continue, "ab".to_owned()));
    assert_eq!(play.told(), ["ab"]);
}

#[test]
fn chunks_of_http1_go_on_at_once() {
    let (mut play, _) = Play::of("/transform");
    play.response(&[OK, ("transfer-encoding", "chunked")]);
    assert_eq!(play.body("ab", false), (Action::Continue, "AB".to_owned()));
    assert_eq!(play.body("", true), (Action::Continue, "!".to_owned()));
    assert_eq!(play.told(), ["ab", "."]);
}

#[test]
fn the_end_is_added_when_trailers_come() {
    for release in [false, true] {
        let (mut play, _) = Play::of("/transform");
        play.response(&[OK]);
        assert_eq!(play.body("ab", false), (Action::Pause, "AB".to_owned()));
        assert_eq!(play.body("cd", false), (Action::Pause, "ABCD".to_owned()));
        assert_eq!(
            done()
                .iter()
                .filter(|what| what.starts_with("tick"))
                .count(),
            1
        );
        if release {
            play.stream.release();
            assert_eq!(done(), ["continue 1"]);
            host(|host| host.buffers.insert(1, Vec::new()));
        }
        host(|host| host.maps.insert(3, owned(&[("x-t", "1")])));
        let action = play.stream.on_trailers(Side::Response);
        let held = host(|host| host.buffers[&1].clone());
        match release {
            false => assert_eq!((action, &held[..]), (Action::Continue, &b"ABCD!"[..])),
            true => {
                assert_eq!((action, &held[..]), (Action::Pause, &b"!"[..]));
                play.stream.release();
                assert_eq!(done().last().map(String::as_str), Some("continue 1"));
            }
        }
        assert_eq!(play.told(), ["ab", "cd", "."]);
    }
}

#[test]
fn a_long_body_stops_pausing_and_is_reset_rather_than_cut() {
    let (mut play, _) = Play::of("/transform");
    play.response(&[OK]);
    assert_eq!(play.body("ab", false).0, Action::Pause);
    assert_eq!(play.body(&"x".repeat(20_000), false).0, Action::Continue);
    assert_eq!(play.body("y", false), (Action::Continue, "Y".to_owned()));
    done();
    assert_eq!(play.stream.on_trailers(Side::Response), Action::Pause);
    assert_eq!(done(), ["close 1"]);
}

#[test]
fn a_host_without_the_head_or_the_bytes_costs_one_exchange_at_most() {
    let (mut play, _) = Play::of("/transform");
    host(|host| host.maps.clear());
    assert_eq!(play.stream.on_response(false), Action::Continue);
    let (mut play, _) = Play::of("/transform");
    play.response(&[OK]);
    assert_eq!(
        play.stream.on_body(Side::Response, 10, false),
        Action::Pause
    );
    assert_eq!(done().last().map(String::as_str), Some("close 1"));
}

#[test]
fn a_wait_is_resumed_once() {
    let (mut play, action) = Play::of("/wait");
    assert_eq!((action, done()), (Action::Pause, vec!["tick 5".to_owned()]));
    play.stream.resume(edgeweir_filter::Answer::Waited);
    play.stream.resume(edgeweir_filter::Answer::Waited);
    assert_eq!(done(), ["continue 0"]);
}
