//! A filter that does what its request's path says: waits at gates, asks onward, begins tasks.

use std::time::Duration;

use edgeweir_filter::{
    Answer, Body, ConfigError, Configured, Cx, Effect, Exchange, Fetch, Filter, Gate, Reply,
    RequestHead, ResponseHead, Step, Task, To,
};

const LONG: Duration = Duration::from_secs(20);

struct Paths {
    /// Opened by the path `/open`, and by any response to `/opening`.
    gate: Gate,
}

impl Configured for Paths {
    const NAME: &'static str = "paths";
    type Config = ();
    fn new(_: ()) -> Result<Self, ConfigError> {
        Ok(Self { gate: Gate::new() })
    }
}

impl Filter for Paths {
    fn name(&self) -> &'static str {
        Self::NAME
    }
    fn exchange(&self) -> Box<dyn Exchange> {
        Box::new(One {
            gate: self.gate.clone(),
            ..One::default()
        })
    }
    fn startup(&self) -> Vec<Box<dyn Task>> {
        vec![Box::new(Later {
            wait: None,
            ask: onward("/startup", "edge.test"),
        })]
    }
}

#[derive(Default)]
struct One {
    gate: Gate,
    path: String,
    authority: String,
    first: String,
}

impl Exchange for One {
    fn request(&mut self, head: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        self.path = String::from_utf8_lossy(head.path_only()).into_owned();
        self.authority = String::from_utf8_lossy(&head.authority).into_owned();
        match self.path.as_str() {
            "/wait" => Step::Do(self.wait(LONG)),
            "/wait-briefly" => Step::Do(self.wait(Duration::from_millis(50))),
            "/open" => {
                self.gate.open();
                Step::Reply(Reply::new(200, &[], "opened it"))
            }
            "/changed" => {
                head.fields.set("changed", "yes");
                Step::Forward(Body::Pass)
            }
            "/onward" => Step::Do(Effect::Fetch(onward("/first", &self.authority))),
            _ => Step::Forward(Body::Pass),
        }
    }

    fn request_answer(&mut self, answer: Answer, _: &mut RequestHead, _: &mut Cx<'_>) -> Step {
        match answer {
            Answer::Fetched(Ok(fetched)) => {
                let body = String::from_utf8_lossy(&fetched.body);
                self.first = format!("{} {body}", fetched.head.status);
                Step::Forward(Body::Pass)
            }
            Answer::Fetched(Err(failed)) => {
                self.first = failed.name().to_owned();
                Step::Forward(Body::Pass)
            }
            _ if self.gate.is_open() => Step::Reply(Reply::new(200, &[], "it opened")),
            _ => Step::Reply(Reply::new(200, &[], "it did not open")),
        }
    }

    fn response(&mut self, head: &mut ResponseHead, cx: &mut Cx<'_>) -> Step {
        head.fields.set("unreached", head.unreached.to_string());
        let tasks = match self.path.as_str() {
            "/task" => 1,
            "/tasks" => 80,
            "/opening" => {
                self.gate.open();
                0
            }
            "/onward" => {
                head.fields.set("first", self.first.clone());
                0
            }
            _ => 0,
        };
        for _ in 0..tasks {
            cx.spawn(Later {
                wait: Some(Duration::from_millis(200)),
                ask: onward("/later", &self.authority),
            });
        }
        Step::Forward(Body::Pass)
    }
}

impl One {
    fn wait(&self, limit: Duration) -> Effect {
        let gate = Some(self.gate.clone());
        Effect::Wait { gate, limit }
    }
}

/// Waits, then asks.
struct Later {
    wait: Option<Duration>,
    ask: Fetch,
}

impl Task for Later {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        Some(match self.wait {
            Some(limit) => Effect::Wait { gate: None, limit },
            None => Effect::Fetch(self.ask.clone()),
        })
    }
    fn answer(&mut self, answer: Answer, _: &mut Cx<'_>) -> Option<Effect> {
        matches!(answer, Answer::Waited).then(|| Effect::Fetch(self.ask.clone()))
    }
}

fn onward(path: &str, authority: &str) -> Fetch {
    Fetch {
        to: To::Onward,
        head: RequestHead {
            method: "GET".into(),
            scheme: "http".into(),
            authority: authority.to_owned().into(),
            path: path.to_owned().into(),
            end: true,
            ..RequestHead::default()
        },
        body: Default::default(),
        timeout: Duration::from_secs(5),
    }
}

edgeweir_adapter_wasi_http::component!(Paths);
