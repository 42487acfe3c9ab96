//! Whether what was seen is what was expected.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

use crate::expect::{BodyWant, Expect, LEVELS, Line, LogWant, Tests};
use crate::model::Case;
use crate::seen::{Exchange, Message, Seen, decoded};

/// What a host can be asked; what it cannot is said, never taken for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// Shared data, or the key-value store.
    pub shared: bool,
    /// Callbacks in their order.
    pub callbacks: bool,
    /// Traps.
    pub traps: bool,
    /// What the filters cost.
    pub cost: bool,
    /// Metrics of the filters.
    pub metrics: bool,
}

impl Reach {
    /// This host, for chains in which there is a module.
    pub const MODULES: Self = Self {
        shared: true,
        callbacks: true,
        traps: true,
        cost: true,
        metrics: true,
    };
    /// This host, for components alone: they have neither callbacks nor metrics.
    pub const COMPONENTS: Self = Self {
        callbacks: false,
        metrics: false,
        ..Self::MODULES
    };
    /// A real Envoy.
    pub const ENVOY: Self = Self {
        shared: false,
        callbacks: false,
        traps: false,
        cost: false,
        metrics: true,
    };
}

/// One expectation that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The line of the expectation.
    pub line: usize,
    /// The step, from 1, and which time of it, from 1.
    pub step: (usize, u32),
    /// What is looked at (`status`, ``field `age` ``).
    pub what: String,
    /// What was expected.
    pub want: String,
    /// What there is.
    pub got: String,
    /// Both line by line, where they are long.
    pub diff: Option<String>,
}

/// What came of judging a case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// What does not hold.
    pub failures: Vec<Failure>,
    /// Expectations that held.
    pub held: usize,
    /// What the host could not be asked.
    pub unchecked: Vec<String>,
}

/// Judges a case.
pub fn judge(case: &Case, seen: &Seen, reach: Reach) -> Verdict {
    let mut verdict = Verdict::default();
    for (at, time, exchange) in &seen.exchanges {
        let Some(step) = case.steps.get(*at) else {
            continue;
        };
        let mut judging = Judging {
            verdict: &mut verdict,
            line: step.expect.line,
            step: (at + 1, time + 1),
        };
        judging.exchange(&step.expect, exchange, reach);
    }
    let mut judging = Judging {
        verdict: &mut verdict,
        line: case.line,
        step: (case.steps.len(), 1),
    };
    judging.budget(case, seen, reach);
    verdict
}

struct Judging<'a> {
    verdict: &'a mut Verdict,
    line: usize,
    step: (usize, u32),
}

impl Judging<'_> {
    fn check(&mut self, holds: bool, what: impl Into<String>, want: String, got: String) {
        if holds {
            self.verdict.held += 1;
            return;
        }
        let long = want.len().max(got.len()) > 60 || want.contains('\n') || got.contains('\n');
        let diff = long.then(|| crate::diff::lines(&want, &got));
        self.verdict.failures.push(Failure {
            line: self.line,
            step: self.step,
            what: what.into(),
            want,
            got,
            diff,
        });
    }

    fn unchecked(&mut self, what: &str) {
        if !self.verdict.unchecked.iter().any(|other| other == what) {
            self.verdict.unchecked.push(what.to_owned());
        }
    }

    fn exchange(&mut self, expect: &Expect, seen: &Exchange, reach: Reach) {
        if seen.hung {
            let want = "an end of the exchange".to_owned();
            self.check(false, "the exchange", want, "it hangs".to_owned());
            return;
        }
        let complete = expect.complete.unwrap_or(true);
        let got = match (&seen.response, &seen.error) {
            (Some(response), _) => response.cut.clone(),
            (None, error) => Some(error.clone().unwrap_or_else(|| "no response".to_owned())),
        };
        let says = |complete: bool| match complete {
            true => "a whole response".to_owned(),
            false => "a response that is cut off, or none".to_owned(),
        };
        if expect.complete.is_some() || got.is_some() {
            let text = got
                .clone()
                .map_or(says(true), |why| format!("cut off: {why}"));
            self.check(
                complete == got.is_none(),
                "the response",
                says(complete),
                text,
            );
        }
        let nothing = crate::seen::Response::default();
        let response = match &seen.response {
            Some(response) => response,
            None if complete => return,
            None => &nothing,
        };
        if let Some(want) = expect.status {
            let got = response.status;
            self.check(got == want, "status", want.to_string(), got.to_string());
        }
        self.lines("field", &expect.fields, &response.message.fields);
        self.lines("trailer", &expect.trailers, &response.message.trailers);
        if let Some(want) = &expect.body {
            self.body("body", want, &response.message);
        }
        if let Some(local) = expect.local {
            let says = |local| match local {
                true => "answered by a filter".to_owned(),
                false => "answered by the origin".to_owned(),
            };
            let got = seen.upstream.is_empty();
            self.check(got == local, "the answer", says(local), says(got));
        }
        self.upstream(expect, seen);
        self.inside(expect, seen, reach);
    }

    fn upstream(&mut self, expect: &Expect, seen: &Exchange) {
        let Some(want) = &expect.upstream else { return };
        if let Some(count) = want.count {
            let got = seen.upstream.len() as u64;
            let text = |count: u64| match count {
                1 => "1 request".to_owned(),
                count => format!("{count} requests"),
            };
            self.check(got == count, "upstream", text(count), text(got));
        }
        let looks = want.method.is_some()
            || want.path.is_some()
            || !want.fields.is_empty()
            || want.body.is_some();
        if !looks {
            return;
        }
        let Some(got) = seen.upstream.last() else {
            return self.check(false, "upstream", "a request".into(), "none".into());
        };
        if let Some(want) = &want.method {
            self.check(
                *want == got.method,
                "upstream method",
                want.clone(),
                got.method.clone(),
            );
        }
        if let Some(want) = &want.path {
            self.line_of("upstream path", want, &[got.path.as_bytes()]);
        }
        self.lines("upstream field", &want.fields, &got.message.fields);
        if let Some(want) = &want.body {
            self.body("upstream body", want, &got.message);
        }
    }

    fn inside(&mut self, expect: &Expect, seen: &Exchange, reach: Reach) {
        self.logs(expect, &seen.log);
        for (name, want) in &expect.metrics {
            if !reach.metrics {
                self.unchecked("metrics");
                continue;
            }
            let got = seen.metrics.get(name).copied();
            let holds = want.holds(got.unwrap_or(0));
            let got = got.map_or("it is not there".to_owned(), |got| got.to_string());
            self.check(holds, format!("metric `{name}`"), want.to_string(), got);
        }
        for (key, want) in &expect.shared {
            if !reach.shared {
                self.unchecked("shared data");
                continue;
            }
            let got = seen.shared.get(key).cloned().flatten();
            let got: Vec<&[u8]> = got.iter().map(|value| &value[..]).collect();
            self.line_of(&format!("shared data `{key}`"), want, &got);
        }
        if let Some(want) = &expect.callbacks {
            match reach.callbacks {
                true => {
                    let (want, got) = (want.join("\n"), seen.callbacks.join("\n"));
                    self.check(want == got, "callbacks", want, got);
                }
                false => self.unchecked("callbacks"),
            }
        }
        match reach.traps {
            true if seen.traps == expect.traps => {
                self.verdict.held += usize::from(expect.traps > 0)
            }
            true => {
                let mut got = seen.traps.to_string();
                if !seen.trap.is_empty() {
                    let _ = write!(got, ": {}", seen.trap.lines().next().unwrap_or_default());
                }
                self.check(false, "traps", expect.traps.to_string(), got);
            }
            false if expect.traps > 0 => self.unchecked("traps"),
            false => {}
        }
    }

    fn logs(&mut self, expect: &Expect, log: &[(Option<u8>, String)]) {
        let said = |want: &LogWant| {
            log.iter().any(|(level, line)| {
                let level = match (want.level, level) {
                    (Some(want), Some(level)) => want == *level,
                    // Lines of components say their level themselves.
                    (Some(want), None) => line.contains(LEVELS[usize::from(want)]),
                    (None, _) => true,
                };
                level && want.matches.is_match(line.as_bytes())
            })
        };
        let text = |want: &LogWant| match want.level {
            Some(level) => format!(
                "a line ({}) with /{}/",
                LEVELS[usize::from(level)],
                want.text
            ),
            None => format!("a line with /{}/", want.text),
        };
        let all = || match log.is_empty() {
            true => "nothing was logged".to_owned(),
            false => {
                let lines = log.iter().map(|(level, line)| match level {
                    Some(level) => {
                        format!(
                            "{}: {line}",
                            LEVELS.get(usize::from(*level)).unwrap_or(&"?")
                        )
                    }
                    None => line.clone(),
                });
                lines.collect::<Vec<_>>().join("\n")
            }
        };
        for want in &expect.log {
            self.check(said(want), "log", text(want), all());
        }
        for want in &expect.no_log {
            let none = format!("not {}", text(want));
            self.check(!said(want), "log", none, all());
        }
    }

    fn lines(&mut self, kind: &str, wants: &[(String, Line)], fields: &[(String, Vec<u8>)]) {
        for (name, want) in wants {
            let lines: Vec<&[u8]> = fields
                .iter()
                .filter(|(other, _)| other == name)
                .map(|(_, line)| &line[..])
                .collect();
            self.line_of(&format!("{kind} `{name}`"), want, &lines);
        }
    }

    fn line_of(&mut self, what: &str, want: &Line, lines: &[&[u8]]) {
        let joined = (!lines.is_empty()).then(|| lines.join(&b", "[..]));
        let got = match &joined {
            None => "it is not there".to_owned(),
            Some(value) => format!("{:?}", String::from_utf8_lossy(value)),
        };
        match want {
            Line::Equals(text) => {
                let holds = joined.as_deref() == Some(text.as_bytes());
                self.check(holds, what, format!("{text:?}"), got);
            }
            Line::Lines(texts) => {
                let holds = lines.len() == texts.len()
                    && lines
                        .iter()
                        .zip(texts)
                        .all(|(line, text)| *line == text.as_bytes());
                let all: Vec<_> = lines.iter().map(|it| String::from_utf8_lossy(it)).collect();
                self.check(holds, what, format!("{texts:?}"), format!("{all:?}"));
            }
            Line::Present(present) => {
                let text = if *present {
                    "it is there"
                } else {
                    "it is not there"
                };
                self.check(joined.is_some() == *present, what, text.to_owned(), got);
            }
            Line::Is(tests) => self.tests(what, tests, joined.as_deref(), &got),
        }
    }

    fn tests(&mut self, what: &str, tests: &Tests, value: Option<&[u8]>, got: &str) {
        let holds = |text: &str| {
            value.is_some_and(|value| {
                text.is_empty()
                    || value
                        .windows(text.len())
                        .any(|part| part == text.as_bytes())
            })
        };
        for text in &tests.contains {
            self.check(
                holds(text),
                what,
                format!("contains {text:?}"),
                got.to_owned(),
            );
        }
        for text in &tests.lacks {
            self.check(
                !holds(text),
                what,
                format!("lacks {text:?}"),
                got.to_owned(),
            );
        }
        if let Some(regex) = &tests.matches {
            let found = value.is_some_and(|value| regex.is_match(value));
            self.check(found, what, format!("matches /{regex}/"), got.to_owned());
        }
        if let Some(texts) = &tests.one_of {
            let found = value.is_some_and(|value| texts.iter().any(|it| it.as_bytes() == value));
            self.check(found, what, format!("one of {texts:?}"), got.to_owned());
        }
    }

    fn body(&mut self, what: &str, want: &BodyWant, message: &Message) {
        let body = match want.decoded {
            false => message.body.clone(),
            true => match decoded(message) {
                Ok(body) => body,
                Err(why) => {
                    let want = "a body that can be decoded".to_owned();
                    return self.check(false, what, want, why);
                }
            },
        };
        if let Some(bytes) = &want.equals {
            let (want, got) = crate::diff::texts(bytes, &body);
            self.check(body == *bytes, what, want, got);
        }
        if let Some(json) = &want.json {
            match serde_json::from_slice::<serde_json::Value>(&body) {
                Ok(got) => {
                    let texts = (format!("{json:#}"), format!("{got:#}"));
                    self.check(got == *json, what, texts.0, texts.1);
                }
                Err(error) => {
                    let got = format!("{error}: {:?}", String::from_utf8_lossy(&body));
                    self.check(false, what, "JSON".to_owned(), got);
                }
            }
        }
        if let Some(length) = &want.length {
            let got = body.len() as u64;
            let what = format!("length of the {what}");
            self.check(length.holds(got), what, length.to_string(), got.to_string());
        }
        if let Some(sha256) = &want.sha256 {
            let mut got = String::new();
            for byte in Sha256::digest(&body) {
                let _ = write!(got, "{byte:02x}");
            }
            let what = format!("SHA-256 of the {what}");
            self.check(got == *sha256, what, sha256.clone(), got);
        }
        let got = format!("{:?}", String::from_utf8_lossy(&body));
        self.tests(what, &want.tests, Some(&body), &got);
    }

    fn budget(&mut self, case: &Case, seen: &Seen, reach: Reach) {
        let (budget, cost) = (&case.budget, &seen.cost);
        let wall = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (what, most, got) in [
            ("fuel", budget.fuel, cost.fuel),
            ("memory_bytes", budget.memory, cost.memory),
            ("host_calls", budget.host_calls, cost.host_calls),
            ("bytes_copied", budget.bytes_copied, cost.bytes_copied),
            ("wall (ms)", budget.wall.map(wall), wall(cost.wall)),
        ] {
            let Some(most) = most else { continue };
            if !reach.cost {
                self.unchecked("budget");
                continue;
            }
            let want = format!("at most {most}");
            self.check(
                got <= most,
                format!("budget of {what}"),
                want,
                got.to_string(),
            );
        }
    }
}
