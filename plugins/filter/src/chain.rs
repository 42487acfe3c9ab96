//! Several filters as one: the boundary to the host is crossed once for all of them.

use std::mem;

use bytes::Bytes;

use crate::{
    Answer, Body, ConfigError, Cx, Exchange, Fields, Filter, Pipe, Reply, RequestHead,
    ResponseHead, Step, Task, Wants, Way,
};

/// An ordered list of filters, the outermost (nearest the client) first; itself a filter.
///
/// Requests run from the first to the last, responses back. A reply of one filter runs, body and all, through the
/// response side of those before it. `Buffer` is done here, so an adapter that drives a chain is only ever asked for
/// `Pass`, `Observe` or `Transform`.
pub struct Chain {
    name: &'static str,
    filters: Vec<Box<dyn Filter>>,
}

impl Chain {
    /// A chain under a name of its own.
    pub fn new(name: &'static str, filters: Vec<Box<dyn Filter>>) -> Self {
        Self { name, filters }
    }

    /// One filter as a chain.
    pub fn of(filter: impl Filter + 'static) -> Self {
        Self {
            name: filter.name(),
            filters: vec![Box::new(filter)],
        }
    }

    /// A fresh exchange of all of them, as its own type.
    pub fn start(&self) -> ChainExchange {
        let stages = self
            .filters
            .iter()
            .map(|filter| Stage::new(filter.exchange()))
            .collect();
        ChainExchange {
            stages,
            at: 0,
            reply: None,
            spare: Vec::new(),
            is_head: false,
        }
    }
}

impl Filter for Chain {
    fn name(&self) -> &'static str {
        self.name
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(self.start())
    }
    fn wants(&self) -> Wants {
        let wants = self.filters.iter().map(|filter| filter.wants());
        wants.reduce(Wants::and).unwrap_or_default()
    }
    fn startup(&self) -> Vec<Box<dyn Task>> {
        self.filters
            .iter()
            .flat_map(|filter| filter.startup())
            .collect()
    }
    fn notes(&self) -> Vec<String> {
        self.filters
            .iter()
            .flat_map(|filter| filter.notes())
            .collect()
    }
    fn targets_are_hosts(&self) -> Result<(), ConfigError> {
        self.filters
            .iter()
            .try_for_each(|filter| filter.targets_are_hosts())
    }
    fn routes_rewrite(&self) {
        for filter in &self.filters {
            filter.routes_rewrite();
        }
    }
}

struct Stage {
    exchange: Box<dyn Exchange>,
    request: Pipe,
    response: Pipe,
    /// It saw a response: trailers and body of that response are its business.
    saw_response: bool,
}

impl Stage {
    fn new(exchange: Box<dyn Exchange>) -> Self {
        Self {
            exchange,
            request: Pipe::default(),
            response: Pipe::default(),
            saw_response: false,
        }
    }
}

/// One exchange of a [`Chain`].
pub struct ChainExchange {
    stages: Vec<Stage>,
    /// The stage whose answer is awaited.
    at: usize,
    /// A reply on its way out through the stages before `at`.
    reply: Option<Reply>,
    spare: Vec<u8>,
    is_head: bool,
}

impl ChainExchange {
    fn run_request(
        &mut self,
        mut at: usize,
        mut step: Step,
        head: &mut RequestHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        loop {
            match step {
                Step::Forward(body) => {
                    if let Some(stage) = self.stages.get_mut(at) {
                        stage.request = Pipe::new(body);
                    }
                    at += 1;
                    let Some(next) = self.stages.get_mut(at) else {
                        return Step::Forward(combined(
                            self.stages.iter().map(|stage| stage.request.body()),
                        ));
                    };
                    step = next.exchange.request(head, cx);
                }
                Step::Reply(reply) => return self.send_reply(at, reply, cx),
                Step::Do(effect) => {
                    self.at = at;
                    return Step::Do(effect);
                }
            }
        }
    }

    /// Runs a response head outwards; `at` is the stage that made `step`.
    fn run_response(
        &mut self,
        mut at: usize,
        mut step: Step,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        loop {
            match step {
                Step::Forward(body) => {
                    if let Some(stage) = self.stages.get_mut(at) {
                        stage.response = Pipe::new(body);
                        stage.saw_response = true;
                    }
                    if at == 0 {
                        return Step::Forward(combined(
                            self.stages.iter().map(|stage| stage.response.body()),
                        ));
                    }
                    at -= 1;
                    let Some(next) = self.stages.get_mut(at) else {
                        return Step::Forward(Body::Pass);
                    };
                    step = next.exchange.response(head, cx);
                }
                Step::Reply(reply) => return self.send_reply(at, reply, cx),
                Step::Do(effect) => {
                    self.at = at;
                    return Step::Do(effect);
                }
            }
        }
    }

    /// Sends a reply of stage `from` outwards, through the heads and then the bodies of those before it.
    fn send_reply(&mut self, from: usize, mut reply: Reply, cx: &mut Cx<'_>) -> Step {
        for stage in self.stages.iter_mut().skip(from) {
            stage.response = Pipe::default();
            stage.saw_response = false;
        }
        let Some(outer) = from.checked_sub(1) else {
            return Step::Reply(reply);
        };
        reply.declare_length(self.is_head);
        let Some(stage) = self.stages.get_mut(outer) else {
            return Step::Reply(reply);
        };
        let step = stage.exchange.response(&mut reply.head, cx);
        self.continue_reply(outer, step, reply, cx)
    }

    fn continue_reply(&mut self, at: usize, step: Step, mut reply: Reply, cx: &mut Cx<'_>) -> Step {
        match self.run_response(at, step, &mut reply.head, cx) {
            Step::Forward(_) => {
                let mut body = Vec::new();
                if !reply.body.is_empty() {
                    let whole = mem::take(&mut reply.body);
                    if self
                        .stages
                        .iter()
                        .all(|stage| matches!(stage.response.body(), Body::Pass))
                    {
                        reply.body = whole;
                        return Step::Reply(reply);
                    }
                    self.response_body(&whole, true, &mut body, cx);
                }
                reply.body = Bytes::from(body);
                reply.declare_length(self.is_head);
                Step::Reply(reply)
            }
            Step::Do(effect) => {
                self.reply = Some(reply);
                Step::Do(effect)
            }
            reply => reply,
        }
    }
}

impl Exchange for ChainExchange {
    fn request(&mut self, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        self.is_head = head.method == "HEAD";
        let Some(first) = self.stages.first_mut() else {
            return Step::Forward(Body::Pass);
        };
        let step = first.exchange.request(head, cx);
        self.run_request(0, step, head, cx)
    }

    fn request_answer(&mut self, answer: Answer, head: &mut RequestHead, cx: &mut Cx<'_>) -> Step {
        let at = self.at;
        let Some(stage) = self.stages.get_mut(at) else {
            return Step::Forward(Body::Pass);
        };
        if let Some(mut reply) = self.reply.take() {
            let step = stage.exchange.response_answer(answer, &mut reply.head, cx);
            return self.continue_reply(at, step, reply, cx);
        }
        let step = stage.exchange.request_answer(answer, head, cx);
        self.run_request(at, step, head, cx)
    }

    fn request_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let spare = &mut self.spare;
        let stages = self
            .stages
            .iter_mut()
            .map(|stage| (&mut stage.request, &mut stage.exchange));
        through(
            stages,
            chunk,
            end,
            out,
            spare,
            |exchange, chunk, end, out| {
                exchange.request_body(chunk, end, out, cx);
                !cx.is_cut()
            },
        );
    }

    fn request_trailers(&mut self, trailers: &mut Fields, cx: &mut Cx<'_>) {
        for stage in &mut self.stages {
            stage.exchange.request_trailers(trailers, cx);
        }
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        let Some(last) = self.stages.len().checked_sub(1) else {
            return Step::Forward(Body::Pass);
        };
        let Some(stage) = self.stages.get_mut(last) else {
            return Step::Forward(Body::Pass);
        };
        let step = stage.exchange.response(head, cx);
        self.run_response(last, step, head, cx)
    }

    fn response_answer(
        &mut self,
        answer: Answer,
        head: &mut ResponseHead,
        cx: &mut Cx<'_>,
    ) -> Step {
        let at = self.at;
        let Some(stage) = self.stages.get_mut(at) else {
            return Step::Forward(Body::Pass);
        };
        if let Some(mut reply) = self.reply.take() {
            let step = stage.exchange.response_answer(answer, &mut reply.head, cx);
            return self.continue_reply(at, step, reply, cx);
        }
        let step = stage.exchange.response_answer(answer, head, cx);
        self.run_response(at, step, head, cx)
    }

    fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, cx: &mut Cx<'_>) {
        let spare = &mut self.spare;
        let stages = self
            .stages
            .iter_mut()
            .rev()
            .map(|stage| (&mut stage.response, &mut stage.exchange));
        through(
            stages,
            chunk,
            end,
            out,
            spare,
            |exchange, chunk, end, out| {
                exchange.response_body(chunk, end, out, cx);
                !cx.is_cut()
            },
        );
    }

    fn response_trailers(&mut self, trailers: &mut Fields, cx: &mut Cx<'_>) {
        for stage in self
            .stages
            .iter_mut()
            .rev()
            .filter(|stage| stage.saw_response)
        {
            stage.exchange.response_trailers(trailers, cx);
        }
    }

    fn sent(&mut self, way: &Way) {
        for stage in &mut self.stages {
            stage.exchange.sent(way);
        }
    }

    fn redirected(&mut self) {
        for stage in &mut self.stages {
            stage.exchange.redirected();
        }
    }
}

/// What the whole needs: the most that one of them asks for, with buffering done inside.
fn combined(bodies: impl Iterator<Item = Body>) -> Body {
    bodies.fold(Body::Pass, |all, body| match (all, body) {
        (Body::Transform, _) | (_, Body::Transform | Body::Buffer { .. }) => Body::Transform,
        (Body::Observe, _) | (_, Body::Observe) => Body::Observe,
        _ => Body::Pass,
    })
}

/// Feeds a chunk through the stages that care, in order, with two buffers in turn. `call` is false once a body was given
/// up: those that follow must not see its end.
fn through<'s>(
    stages: impl Iterator<Item = (&'s mut Pipe, &'s mut Box<dyn Exchange>)>,
    chunk: &[u8],
    end: bool,
    out: &mut Vec<u8>,
    spare: &mut Vec<u8>,
    mut call: impl FnMut(&mut dyn Exchange, &[u8], bool, &mut Vec<u8>) -> bool,
) {
    let start = out.len();
    let mut changed = false;
    let mut whole = true;
    for (pipe, exchange) in stages.filter(|(pipe, _)| pipe.body() != Body::Pass) {
        let observes = pipe.body() == Body::Observe;
        let mut stage = |chunk: &[u8], end: bool, out: &mut Vec<u8>| {
            whole &= call(exchange.as_mut(), chunk, end, out);
        };
        let input = if changed {
            out.get(start..).unwrap_or_default()
        } else {
            chunk
        };
        if input.is_empty() && !end {
            // A filter before holds everything back: there is nothing to see, and nothing to flush.
            break;
        }
        if observes {
            stage(input, end, &mut Vec::new());
            if whole {
                continue;
            }
            return;
        }
        if !changed {
            // The first one writes where the result goes: one filter alone copies nothing.
            pipe.push(chunk, end, out, &mut stage);
            if !whole {
                out.truncate(start);
                return;
            }
            changed = true;
            continue;
        }
        spare.clear();
        pipe.push(input, end, spare, &mut stage);
        if !whole {
            return;
        }
        if start == 0 {
            std::mem::swap(out, spare);
        } else {
            out.truncate(start);
            out.extend_from_slice(spare);
        }
    }
    if !changed {
        out.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Script, Timestamp};

    /// Marks heads and bodies, to see who ran and in which order.
    struct Mark(&'static str, Body);

    impl Filter for Mark {
        fn name(&self) -> &'static str {
            self.0
        }
        fn exchange(&self) -> Box<dyn Exchange> {
            Box::new(Mark(self.0, self.1))
        }
    }

    impl Exchange for Mark {
        fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
            head.fields.append("seen", self.0);
            if head.path == self.0 {
                return Step::Reply(Reply::new(203, &[], self.0));
            }
            Step::Forward(Body::Pass)
        }
        fn response(&mut self, head: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
            head.fields.append("seen", self.0);
            Step::Forward(self.1)
        }
        fn response_body(&mut self, chunk: &[u8], end: bool, out: &mut Vec<u8>, _: &mut Cx<'_>) {
            out.extend_from_slice(b"<");
            out.extend_from_slice(chunk);
            out.extend_from_slice(if end { b">." } else { b">" });
        }
    }

    fn three(middle: Body) -> Script {
        let filters: Vec<Box<dyn Filter>> = vec![
            Box::new(Mark("a", Body::Transform)),
            Box::new(Mark("b", middle)),
            Box::new(Mark("c", Body::Transform)),
        ];
        Script::new(Chain::new("test", filters)).at(Timestamp::from_secs(1))
    }

    #[test]
    fn responses_run_from_the_last_to_the_first() {
        let seen = three(Body::Observe).get("/").origin(200, &[], "x").run();
        assert_eq!(seen.all("seen"), ["c", "b", "a"]);
        assert_eq!(seen.body_text(), "<<x>.>.");
        assert_eq!(
            seen.upstream
                .as_ref()
                .map(|head| head.fields.values("seen").count()),
            Some(3)
        );
    }

    #[test]
    fn a_reply_runs_through_those_before_it() {
        let seen = three(Body::Pass).get("c").origin(200, &[], "x").run();
        assert_eq!(
            (seen.status, seen.all("seen")),
            (203, vec!["b".to_owned(), "a".to_owned()])
        );
        assert_eq!(seen.body_text(), "<c>.");
        assert_eq!(seen.field("content-length"), Some(&b"4"[..]));
        assert!(seen.upstream.is_none());
    }

    /// Gives up every body.
    struct GivesUp;

    impl Filter for GivesUp {
        fn name(&self) -> &'static str {
            "gives-up"
        }
        fn exchange(&self) -> Box<dyn Exchange> {
            Box::new(GivesUp)
        }
    }

    impl Exchange for GivesUp {
        fn response(&mut self, _: &mut ResponseHead, _: &mut Cx<'_>) -> Step {
            Step::Forward(Body::Transform)
        }
        fn response_body(&mut self, _: &[u8], _: bool, _: &mut Vec<u8>, cx: &mut Cx<'_>) {
            cx.cut(502);
        }
    }

    #[test]
    fn those_after_one_that_gave_a_body_up_do_not_see_its_end() {
        let filters: Vec<Box<dyn Filter>> = vec![
            Box::new(Mark("a", Body::Transform)),
            Box::new(Mark("b", Body::Observe)),
            Box::new(GivesUp),
        ];
        let script = Script::new(Chain::new("test", filters)).get("/");
        let seen = script.origin(200, &[], "x").run();
        assert!(seen.cut);
        assert_eq!(seen.body_text(), "");
    }

    #[test]
    fn a_buffering_filter_gets_the_whole_or_spills() {
        let seen = three(Body::Buffer { limit: 100 })
            .get("/")
            .origin_chunks(200, &[], &["x", "y"])
            .run();
        assert_eq!(seen.body_text(), "<<<x><y><>.>.>.");
        let seen = three(Body::Buffer { limit: 4 })
            .get("/")
            .origin_chunks(200, &[], &["x", "y", "z"])
            .run();
        assert_eq!(seen.body_text(), "<<<x>><<y>>><<<z>>><<<>.>.>.");
    }
}
