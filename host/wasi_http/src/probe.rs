//! Asks a filter of this project what it thinks of its configuration, before it serves.
//!
//! A component has no load phase: it reads its configuration with its first request, and answers every one with problem
//! details where it refuses it. So an instance aside is asked one request that goes nowhere: its stores are its own, no server
//! is reached, what it logs is left out, and nothing is counted. Other components are not asked anything.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgeweir_host_chain::{Answering, Clusters, Next, Peer, Response, Witness, World, empty};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, Limited};

use crate::{Limits, Plugin, Program, Runtime};

/// What the problem details of a refusal are called.
const TITLE: &str = "Configuration Refused";
/// The longest answer that is looked at, bytes.
const MOST: usize = 64 << 10;
/// How long an answer may take; a filter that says nothing by then is taken on trust.
const PATIENCE: Duration = Duration::from_secs(10);

/// A configuration that its filter refuses, with what it says of it: where it was read (`EDGEWEIR_MINIFY`, or ``variable
/// `edgeweir_minify` ``), the field, and what is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the filter refuses its configuration: {}", self.0)
    }
}

impl std::error::Error for Refused {}

/// Asks; an error is a [`Refused`], or that no instance starts.
pub(crate) async fn ask(
    program: &Program,
    runtime: &Runtime,
    plugin: &Plugin,
) -> anyhow::Result<()> {
    let aside = Plugin {
        allowed_outbound: Vec::new(),
        limits: Limits {
            instances: 1,
            timeout: PATIENCE,
            ..plugin.limits.clone()
        },
        ..plugin.clone()
    };
    let world = World {
        clusters: Some(Arc::new(Nobody)),
        witness: Some(Arc::new(Nobody)),
        ..World::default()
    };
    let layer = program.start(&runtime.fork()?, aside, world).await?;
    let mut request = http::Request::new(empty());
    *request.uri_mut() = http::Uri::from_static("http://edgeweir.invalid/");
    let client = SocketAddr::from(([127, 0, 0, 1], 0));
    request.extensions_mut().insert(Peer(client));
    // Nothing is behind it: what is handed on comes back as an error.
    match layer.handle(request, Next::new(Vec::new())).await {
        Ok(response) => refusal(response)
            .await
            .map_or(Ok(()), |why| Err(Refused(why).into())),
        Err(_) => Ok(()),
    }
}

/// The detail of a refusal; `None` for any other answer.
async fn refusal(response: Response) -> Option<String> {
    let kind = response.headers().get(CONTENT_TYPE);
    let is_problem = kind.is_some_and(|kind| kind == "application/problem+json");
    if response.status() != StatusCode::INTERNAL_SERVER_ERROR || !is_problem {
        return None;
    }
    let body = Limited::new(response.into_body(), MOST).collect().await;
    let problem: serde_json::Value = serde_json::from_slice(&body.ok()?.to_bytes()).ok()?;
    let detail = problem.get("detail")?.as_str()?;
    (problem.get("title")? == TITLE).then(|| detail.to_owned())
}

/// No cluster is there, and nobody listens.
struct Nobody;

impl Clusters for Nobody {
    fn knows(&self, _name: &str) -> bool {
        false
    }

    fn call(&self, _name: &str, _request: edgeweir_host_chain::Request) -> Answering {
        Box::pin(async { Err("there is nobody to ask".into()) })
    }
}

impl Witness for Nobody {
    fn log(&self, _level: Option<u8>, _line: &str) {}

    fn callback(&self, _context: u32, _name: &'static str) {}
}

#[cfg(test)]
mod tests {
    use edgeweir_host_chain::full;

    use super::*;

    #[tokio::test]
    async fn only_problem_details_of_a_refusal_are_taken_for_one() {
        let refused = r#"{"title":"Configuration Refused","status":500,"detail":"EDGEWEIR_X: no"}"#;
        for (name, status, kind, body, want) in [
            (
                "a refusal",
                500,
                "application/problem+json",
                refused,
                Some("EDGEWEIR_X: no"),
            ),
            (
                "another status",
                503,
                "application/problem+json",
                refused,
                None,
            ),
            ("another type", 500, "application/json", refused, None),
            (
                "no JSON",
                500,
                "application/problem+json",
                "Configuration Refused",
                None,
            ),
            (
                "another problem",
                500,
                "application/problem+json",
                r#"{"title":"Internal Server Error","detail":"EDGEWEIR_X: no"}"#,
                None,
            ),
        ] {
            let mut response = Response::new(full(body));
            *response.status_mut() = StatusCode::from_u16(status).expect("a status");
            let value = http::HeaderValue::from_static(kind);
            response.headers_mut().insert(CONTENT_TYPE, value);
            assert_eq!(refusal(response).await.as_deref(), want, "{name}");
        }
    }
}
