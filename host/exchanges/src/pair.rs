//! The same exchanges through two sides, each with an origin of its own that says the same.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError};

use anyhow::Result;

use crate::callbacks::Callbacks;
use crate::client::Client;
use crate::compare::{self, Difference, Ignored};
use crate::generate::{Session, Step};
use crate::message::{Answer, Asked};
use crate::origin::{NUMBER, Origin, Scripts};

/// Two origins with one script.
pub struct Origins {
    scripts: Scripts,
    /// Behind the first side.
    pub first: Origin,
    /// Behind the second.
    pub second: Origin,
    next: AtomicU64,
}

impl Origins {
    /// Starts both.
    pub async fn start() -> Result<Self> {
        let scripts = Scripts::new(HashMap::new().into());
        Ok(Self {
            first: Origin::start(scripts.clone()).await?,
            second: Origin::start(scripts.clone()).await?,
            scripts,
            next: AtomicU64::new(1),
        })
    }
}

/// Where both sides are, and what they call.
#[derive(Clone)]
pub struct Subjects {
    /// The first side.
    pub first: SocketAddr,
    /// The second.
    pub second: SocketAddr,
    /// Their callbacks, where they are compared; then there is one lane at a time.
    pub callbacks: Option<Arc<Callbacks>>,
}

/// A connection to each side.
pub struct Lane {
    first: Client,
    second: Client,
    callbacks: Option<Arc<Callbacks>>,
}

impl Lane {
    /// To these two.
    pub fn new(subjects: &Subjects) -> Self {
        Self {
            first: Client::new(subjects.first),
            second: Client::new(subjects.second),
            callbacks: subjects.callbacks.clone(),
        }
    }

    /// One step through both sides at the same moment; what differs of the responses, of what the origins received and of
    /// the callbacks.
    pub async fn step(
        &mut self,
        origins: &Origins,
        step: &Step,
        ignored: &Ignored,
    ) -> Vec<Difference> {
        let number = origins.next.fetch_add(1, Relaxed);
        let script = Arc::new(step.script.clone());
        origins
            .scripts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, script);
        let mut asked = step.asked.clone();
        asked
            .fields
            .push((NUMBER.as_str().to_owned(), number.to_string().into_bytes()));
        if let Some(callbacks) = &self.callbacks {
            callbacks.begin();
        }
        let (first, second) = tokio::join!(self.first.send(&asked), self.second.send(&asked));
        let mut all = match (first, second) {
            (Ok(first), Ok(second)) => compare::answers(&first, &second, ignored),
            (Err(_), Err(_)) => Vec::new(),
            (first, second) => vec![Difference {
                what: "response".to_owned(),
                first: summary(&first),
                second: summary(&second),
            }],
        };
        let (first, second) = (
            origins.first.received(number),
            origins.second.received(number),
        );
        all.extend(compare::received(&first, &second, ignored));
        if let Some(callbacks) = &self.callbacks {
            all.extend(callbacks.end().await);
        }
        all
    }

    /// The steps of a session in order; the number of the first that differs, and how. Nothing after it is sent: what is
    /// stored differs from there on.
    pub async fn session(
        &mut self,
        origins: &Origins,
        session: &Session,
        ignored: &Ignored,
    ) -> Option<(usize, Vec<Difference>)> {
        for (at, step) in session.steps.iter().enumerate() {
            let differences = self.step(origins, step, ignored).await;
            if !differences.is_empty() {
                return Some((at, differences));
            }
        }
        None
    }
}

impl Origins {
    /// Forgets scripts whose exchanges are long over.
    pub fn forget(&self) {
        let next = self.next.load(Relaxed);
        let mut scripts = self.scripts.write().unwrap_or_else(PoisonError::into_inner);
        scripts.retain(|number, _| number + 4_096 > next);
    }
}

fn summary(answer: &Result<Answer>) -> String {
    match answer {
        Ok(answer) => format!("{} with {} bytes", answer.status, answer.whole().len()),
        Err(error) => format!("none: {error:#}"),
    }
}

/// A request as a person reads it.
pub fn shown(asked: &Asked) -> String {
    let mut text = format!("{} {}", asked.method, asked.target);
    for (name, value) in &asked.fields {
        text.push_str(&format!("\n{name}: {}", String::from_utf8_lossy(value)));
    }
    body_shown(&mut text, &asked.body);
    trailers_shown(&mut text, &asked.trailers);
    text
}

/// A response as a person reads it.
pub fn answer_shown(answer: &Answer) -> String {
    let mut text = answer.status.to_string();
    for (name, value) in &answer.fields {
        text.push_str(&format!("\n{name}: {}", String::from_utf8_lossy(value)));
    }
    body_shown(&mut text, &answer.body);
    if answer.cut {
        text.push_str("\n(the body is cut off)");
    }
    trailers_shown(&mut text, &answer.trailers);
    text
}

fn body_shown(text: &mut String, body: &[bytes::Bytes]) {
    if body.is_empty() {
        return;
    }
    let sizes: Vec<String> = body.iter().map(|piece| piece.len().to_string()).collect();
    let start = String::from_utf8_lossy(body[0].get(..60).unwrap_or(&body[0])).into_owned();
    text.push_str(&format!(
        "\n(a body of {} bytes: {start:?})",
        sizes.join(" + ")
    ));
}

fn trailers_shown(text: &mut String, trailers: &crate::message::Fields) {
    for (name, value) in trailers {
        text.push_str(&format!(
            "\n(trailer) {name}: {}",
            String::from_utf8_lossy(value)
        ));
    }
}
