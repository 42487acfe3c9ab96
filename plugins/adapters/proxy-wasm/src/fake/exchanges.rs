//! One exchange against the host in memory.

use std::cell::RefCell;
use std::rc::Rc;

use edgeweir_filter::{
    Body, Chain, Cx, Effect, Exchange, Filter, Reply, RequestHead, ResponseHead, Step, Wants, Way,
};

use super::{HOST, done, host, owned};
use crate::agenda::Agenda;
use crate::hostcalls::Side;
use crate::root::Root;
use crate::stream::{Action, Stream};

/// Does what the request's path says, and notes what it is told of bodies.
struct Plan(Rc<RefCell<Vec<String>>>, String);

impl Filter for Plan {
    fn name(&self) -> &'static str {
        "plan"
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(Plan(self.0.clone(), String::new()))
    }
    fn wants(&self) -> Wants {
        Wants {
            route: true,
            ..Wants::default()
        }
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
            "/given-up" => Step::Forward(Body::Transform),
            _ => Step::Forward(Body::Pass),
        }
    }
    fn request_body(&mut self, _: &[u8], _: bool, _: &mut Vec<u8>, cx: &mut Cx<'_>) {
        cx.cut(413);
    }
    fn request_answer(
        &mut self,
        _: edgeweir_filter::Answer,
        _: &mut RequestHead,
        _: &mut Cx<'_>,
    ) -> Step {
        Step::Forward(Body::Pass)
    }
    fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
        if self.1 == "/no-tail" {
            head.fields.set("coded", "yes");
        }
        head.has_tail = self.1 == "/transform";
        Step::Forward(match self.1.as_str() {
            "/transform" | "/given-up" | "/no-tail" => Body::Transform,
            "/observe" => Body::Observe,
            _ => Body::Pass,
        })
    }
    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        if self.1 == "/given-up" {
            cx.cut(502);
        }
        self.0.borrow_mut().push(format!(
            "{}{}",
            String::from_utf8_lossy(chunk),
            if end { "." } else { "" }
        ));
        out.extend_from_slice(&chunk.to_ascii_uppercase());
        if end && self.1 != "/no-tail" {
            out.push(b'!');
        }
    }
    fn sent(&mut self, Way { rewritten, to }: &Way) {
        self.0.borrow_mut().push(format!("{to} {rewritten}"));
    }
}

struct Play {
    stream: Stream,
    told: Rc<RefCell<Vec<String>>>,
}

impl Play {
    /// An exchange whose request has this path.
    fn of(path: &str) -> (Self, Action) {
        Self::begin(path, true)
    }

    /// As `of`; without `end` a body follows.
    fn begin(path: &str, end: bool) -> (Self, Action) {
        HOST.take();
        let told = Rc::default();
        let root = Root::new(
            Agenda::new(1),
            "plan",
            Chain::of(Plan(Rc::clone(&told), String::new())),
        );
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
        let action = play.stream.on_request(end);
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
            "add more: 1",
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
    let declared = "property edgeweir_response_length open";
    assert_eq!(done(), [declared, "remove content-length"]);
    assert_eq!(play.body("ab", false), (Action::Continue, "AB".to_owned()));
    done();
    assert_eq!(play.body("cd", false), (Action::Continue, "CD!".to_owned()));
    assert!(done().contains(&"property edgeweir_response_length whole".to_owned()));
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
fn a_body_without_a_tail_is_never_paused() {
    let (mut play, _) = Play::of("/no-tail");
    play.response(&[OK]);
    assert_eq!(play.body("ab", false), (Action::Continue, "AB".to_owned()));
    host(|host| host.maps.insert(3, owned(&[("x-t", "1")])));
    assert_eq!(play.stream.on_trailers(Side::Response), Action::Continue);
    assert_eq!(play.told(), ["ab", "."]);
}

#[test]
fn a_body_whose_length_a_module_before_took_away_is_never_paused() {
    let (mut play, _) = Play::of("/transform");
    let is = |value| host(|host| host.shown.insert(b"edgeweir_response_length", value));
    is("open");
    play.response(&[OK]);
    assert_eq!(play.body("ab", false), (Action::Continue, "AB".to_owned()));
    is("whole");
    assert_eq!(play.body("cd", false), (Action::Continue, "CD!".to_owned()));
    assert_eq!(play.stream.on_trailers(Side::Response), Action::Continue);
    assert_eq!(play.told(), ["ab", "cd."]);
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
fn a_body_that_is_given_up_is_answered_or_broken_off() {
    let (mut play, action) = Play::begin("/given-up", false);
    assert_eq!(action, Action::Continue);
    host(|host| host.buffers.insert(0, b"ab".to_vec()));
    assert_eq!(play.stream.on_body(Side::Request, 2, false), Action::Pause);
    let told = done();
    assert!(
        told.last().is_some_and(|what| what.contains("413")),
        "{told:?}"
    );
    assert_eq!(
        play.response(&[OK]),
        Action::Continue,
        "it is the host's own"
    );
    assert_eq!(
        play.stream.on_body(Side::Request, 2, true),
        Action::Continue
    );

    let (mut play, _) = Play::of("/given-up");
    play.response(&[OK]);
    assert_eq!(play.body("ab", false).0, Action::Pause);
    assert_eq!(done().last().map(String::as_str), Some("close 1"));
}

#[test]
fn how_a_request_went_is_learnt_when_it_is_over() {
    let (path, at) = (&b"request\0path"[..], &b"request\0host"[..]);
    let details = &b"response\0code_details"[..];
    for (name, shown, told) in [
        (
            "as it came",
            &[(path, "/"), (at, "")][..],
            Some("origin false"),
        ),
        (
            "another path",
            &[(path, "/x"), (at, "")],
            Some("origin true"),
        ),
        (
            "another host",
            &[(path, "/"), (at, "b")],
            Some("origin true"),
        ),
        ("not shown", &[], None),
        (
            "the host's own answer, before anything was rewritten",
            &[(path, "/"), (at, ""), (details, "direct_response")],
            None,
        ),
    ] {
        let (mut play, _) = Play::of("/");
        host(|host| {
            let early = shown.iter().filter(|(name, _)| *name == details);
            host.shown.extend(early.copied());
        });
        play.response(&[OK]);
        // What a reply in place of the response makes of it.
        host(|host| {
            host.shown.insert(details, "edgeweir");
            host.shown.extend(shown.iter().copied());
        });
        play.stream.on_log();
        assert_eq!(
            play.told(),
            Vec::from_iter(told.map(str::to_owned)),
            "{name}"
        );
    }
    let (mut play, _) = Play::of("/reply");
    host(|host| host.shown.extend([(path, "/reply"), (at, "")]));
    play.stream.on_log();
    assert_eq!(play.told(), [""; 0], "it went nowhere");
}

#[test]
fn a_wait_is_resumed_once() {
    let (mut play, action) = Play::of("/wait");
    assert_eq!((action, done()), (Action::Pause, vec!["tick 5".to_owned()]));
    for wait in [7, 1, 1] {
        if play.stream.awaits(wait) {
            play.stream.resume(edgeweir_filter::Answer::Waited);
        }
    }
    assert_eq!(done(), ["continue 0"]);
}

fn refuse(call: &'static str, times: u32) {
    host(|host| host.refused = (call, times));
}

#[test]
fn a_reply_that_is_refused_ends_as_an_error_or_a_reset() {
    for (times, want) in [(1, "reply 500  false"), (2, "close 0")] {
        HOST.take();
        let root = Root::new(
            Agenda::new(1),
            "plan",
            Chain::of(Plan(Rc::default(), String::new())),
        );
        host(|host| {
            let lines = owned(&[(":method", "GET"), (":path", "/reply")]);
            host.maps.insert(0, lines);
        });
        refuse("proxy_send_local_response", times);
        let mut stream = Stream::new(2, Rc::new(root));
        assert_eq!(stream.on_request(true), Action::Pause);
        assert_eq!(done(), [want], "refused {times} times");
    }
}

#[test]
fn a_body_under_a_head_that_was_not_written_goes_on_as_it_came() {
    let (mut play, _) = Play::of("/no-tail");
    refuse("proxy_replace_header_map_value", 1);
    let lines = [OK, ("content-length", "3"), ("coded", "no")];
    assert_eq!(play.response(&lines), Action::Continue);
    assert_eq!(
        done(),
        [
            "property edgeweir_response_length open",
            "remove content-length",
            "remove coded",
            "add coded: no",
            "remove content-length",
            "add content-length: 3",
            "replace :status: 200",
        ]
    );
    assert_eq!(play.body("abc", true), (Action::Continue, "abc".to_owned()));
    assert_eq!(play.told(), [""; 0], "the filter sees nothing more of it");

    let (mut play, _) = Play::of("/no-tail");
    refuse("proxy_replace_header_map_value", 2);
    play.response(&lines);
    assert_eq!(done().last().map(String::as_str), Some("close 1"));
}

#[test]
fn a_body_that_is_only_looked_at_goes_on_when_it_cannot_be_read() {
    let (mut play, _) = Play::of("/observe");
    play.response(&[OK]);
    refuse("proxy_get_buffer_bytes", 1);
    assert_eq!(play.body("ab", false).0, Action::Continue);
    assert_eq!(play.body("cd", true).0, Action::Continue);
    assert_eq!(play.told(), [""; 0], "no end of a part");
}

#[test]
fn a_stream_that_cannot_be_continued_is_reset() {
    let (mut play, _) = Play::of("/wait");
    done();
    refuse("proxy_continue_stream", 1);
    play.stream.resume(edgeweir_filter::Answer::Waited);
    assert_eq!(done(), ["close 0"]);
}
