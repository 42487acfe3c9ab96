//! The admin pages: metrics for Prometheus, health, a live dashboard, and the level of saving.
//!
//! With a token, everything but the dashboard's empty page and the two health checks asks for it. To change anything
//! needs a token in any case: a page of another site can send requests to this address, but not with a field of its own.

mod metrics;
mod monitor;
mod process;
mod stats;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use edgeweir_host_chain::{Response, empty, full};
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use subtle::ConstantTimeEq as _;

use crate::config::Token;
use crate::host::{ListenerState, Live};
use crate::monitor::Setting;
use crate::serve::listener::Service;
use crate::serve::plain;

pub use metrics::{name_of as metric_name, text as metrics_text};
pub use monitor::history as history_json;
pub use stats::json as stats_json;

/// The dashboard: one page that loads nothing but `/stats.json` and `/history.json`.
pub const DASHBOARD: &str = include_str!("dashboard.html");
/// What the pages are.
const PAGES: &str = "pages: / /stats.json /history.json /baseline.json /metrics /healthz /readyz, and POST /level?to=LEVEL\n";

/// The pages of one host.
pub struct Admin {
    live: Live,
    token: RwLock<Option<Token>>,
    draining: AtomicBool,
}

impl Admin {
    /// Pages about what is served when they are asked for, for those who have the token, if there is one.
    pub fn new(live: Live, token: Option<Token>) -> Self {
        Self {
            live,
            token: RwLock::new(token),
            draining: AtomicBool::new(false),
        }
    }

    /// Asks for another token from now on.
    pub fn put_token(&self, token: Option<Token>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// The host stops: it is ready for nothing more.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    fn token(&self) -> Option<Token> {
        let token = self.token.read();
        token.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a request may see this page.
    fn admits(&self, request: &Request<Incoming>) -> bool {
        let open = matches!(request.uri().path(), "/" | "/healthz" | "/readyz");
        open || self.token().is_none() || self.has_token(request)
    }

    fn has_token(&self, request: &Request<Incoming>) -> bool {
        let Some(token) = self.token() else {
            return false;
        };
        // RFC 6750 §2.1; RFC 9110 §11.1: the scheme's name has no case.
        let said = request.headers().get(header::AUTHORIZATION);
        let said = said.and_then(|value| value.as_bytes().split_at_checked(7));
        said.is_some_and(|(scheme, said)| {
            scheme.eq_ignore_ascii_case(b"bearer ")
                && bool::from(said.trim_ascii().ct_eq(token.secret().as_bytes()))
        })
    }

    /// `POST /level?to=LEVEL`.
    fn set_level(&self, request: &Request<Incoming>) -> Response {
        if self.token().is_none() {
            let text = "to change the level, configure `admin.token`\n".to_owned();
            return plain(StatusCode::FORBIDDEN, None, text);
        }
        let query = request.uri().query().unwrap_or("");
        match query.strip_prefix("to=").and_then(Setting::of) {
            Some(setting) => {
                let level = self.live.now().watch.set(setting);
                typed("text/plain", format!("{}\n", level.name()))
            }
            None => plain(
                StatusCode::BAD_REQUEST,
                None,
                "want ?to=automatic, disabled, minimal, standard, aggressive or maximum\n"
                    .to_owned(),
            ),
        }
    }

    fn page(&self, path: &str) -> Response {
        match path {
            "/" => dashboard(),
            "/stats.json" => typed("application/json", stats_json(&self.live.now()).to_string()),
            "/history.json" => typed(
                "application/json",
                history_json(&self.live.now()).to_string(),
            ),
            "/baseline.json" => match monitor::baseline(&self.live.now()) {
                Ok(text) => typed("application/json", text),
                Err((status, why)) => plain(status, None, why),
            },
            // The version is what makes Prometheus read it as text format 0.0.4.
            "/metrics" => typed(
                "text/plain; version=0.0.4; charset=utf-8",
                metrics_text(&self.live.now()),
            ),
            // Alive is to answer at all; ready is to have loaded every filter and bound every listener, and not to stop.
            "/healthz" => typed("text/plain", "ok\n".to_owned()),
            "/readyz" => match self.unready() {
                None => typed("text/plain", "ready\n".to_owned()),
                Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, None, format!("{why}\n")),
            },
            _ => plain(StatusCode::NOT_FOUND, None, PAGES.to_owned()),
        }
    }

    /// Why no requests should be sent here.
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Relaxed) {
            return Some("stopping");
        }
        let state = self.live.now();
        let bound = |it: &ListenerState| it.address.get().is_some();
        (!state.listeners.iter().all(bound)).then_some("starting")
    }
}

impl Service for Admin {
    async fn answer(self: Arc<Self>, _: SocketAddr, request: Request<Incoming>) -> Response {
        if self.token().is_none() && !for_this_machine(&request) {
            return plain(
                StatusCode::FORBIDDEN,
                None,
                "the admin pages answer to an address or to localhost only\n".to_owned(),
            );
        }
        if !self.admits(&request) {
            let text = "want Authorization: Bearer with the token of the admin pages\n".to_owned();
            let mut response = plain(StatusCode::UNAUTHORIZED, None, text);
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"edgeweir\""),
            );
            return response;
        }
        match *request.method() {
            Method::POST if request.uri().path() == "/level" => self.set_level(&request),
            Method::GET => self.page(request.uri().path()),
            Method::HEAD => {
                let (parts, _) = self.page(request.uri().path()).into_parts();
                Response::from_parts(parts, empty())
            }
            _ => {
                let text = "these pages are to be read\n".to_owned();
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, None, text);
                response
                    .headers_mut()
                    .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        }
    }
}

/// A page of another site can point its own name at this address; its scripts would then read what is here.
fn for_this_machine(request: &Request<Incoming>) -> bool {
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.clone()),
        None => request
            .headers()
            .get(header::HOST)
            .and_then(|host| http::uri::Authority::try_from(host.as_bytes()).ok()),
    };
    host.is_none_or(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
    })
}

/// The page may run its own script and style, and ask this address; nothing else.
const POLICY: &str = "default-src 'none'; script-src 'sha256-SCRIPT'; style-src 'sha256-STYLE'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn dashboard() -> Response {
    let mut response = typed("text/html; charset=utf-8", DASHBOARD.to_owned());
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy()) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    );
    response
}

/// `Content-Security-Policy` of the dashboard: its script and style by their hashes.
pub fn policy() -> String {
    static MADE: LazyLock<String> = LazyLock::new(make_policy);
    MADE.clone()
}

fn make_policy() -> String {
    let between = |from: &str, to: &str| {
        let (_, rest) = DASHBOARD.split_once(from).unwrap_or_default();
        rest.split_once(to).map_or("", |(inner, _)| inner)
    };
    POLICY
        .replace("SCRIPT", &digest(between("<script>", "</script>")))
        .replace("STYLE", &digest(between("<style>", "</style>")))
}

fn digest(text: &str) -> String {
    use base64::Engine as _;
    use sha2::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(text.as_bytes()))
}

fn typed(kind: &'static str, text: String) -> Response {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}
