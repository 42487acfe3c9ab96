//! What the probe does beside exchanges.

use std::time::Duration;

use edgeweir_filter::{Answer, Cx, Effect, Fetch, Fields, Gate, RequestHead, Task, To};

/// `GET /fetched`.
pub fn fetch(to: To) -> Effect {
    let head = RequestHead {
        method: "GET".into(),
        scheme: "http".into(),
        authority: "probe".into(),
        path: "/fetched".into(),
        fields: Fields::of(&[("probe-own", "1")]),
        ..RequestHead::default()
    };
    Effect::Fetch(Fetch {
        to,
        head,
        body: Default::default(),
        timeout: Duration::from_millis(300),
    })
}

/// Opens a gate, at the latest when it goes.
#[derive(Default)]
pub struct Opener(pub Gate);

impl Drop for Opener {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn keep(key: &'static str, length: usize) -> Option<Effect> {
    Some(Effect::Store {
        key: key.into(),
        value: vec![b't'; length].into(),
        ttl: Duration::from_secs(10),
    })
}

/// Fetches, and keeps what came of it.
pub struct Refresh(pub To);

impl Task for Refresh {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        Some(fetch(self.0.clone()))
    }
    fn answer(&mut self, answer: Answer, _: &mut Cx<'_>) -> Option<Effect> {
        match answer {
            Answer::Fetched(Ok(reply)) => keep("task", reply.head.status.into()),
            Answer::Fetched(Err(_)) => keep("task", 1),
            _ => None,
        }
    }
}

/// Waits, then leaves a trace under the object key `startup`.
pub struct Startup;

impl Task for Startup {
    fn start(&mut self, _: &mut Cx<'_>) -> Option<Effect> {
        Some(Effect::Wait {
            gate: None,
            limit: Duration::from_millis(5),
        })
    }
    fn answer(&mut self, answer: Answer, _: &mut Cx<'_>) -> Option<Effect> {
        match answer {
            Answer::Waited => Some(Effect::Store {
                key: "startup".into(),
                value: "1".into(),
                ttl: Duration::from_secs(600),
            }),
            _ => None,
        }
    }
}
