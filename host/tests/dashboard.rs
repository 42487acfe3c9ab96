//! The dashboard: what its script reads is what the pages say, it asks for nothing else, and a browser shows it.

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use edgeweir::admin::{DASHBOARD, history_json, policy, stats_json};
use edgeweir_host_monitor::Metric;
use serde_json::Value;

/// What stands between the first `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text
        .split_once(from)
        .unwrap_or_else(|| panic!("no {from:?}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to:?}")).0
}

/// The body of a function of the script.
fn function<'a>(script: &'a str, head: &str) -> &'a str {
    between(script, head, "\n}\n")
}

/// The fields read of a variable: `name.field`, where `name` is a word of its own.
fn fields(code: &str, name: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$' || c == '.';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&format!("{name}.")) {
        if code[..at].chars().next_back().is_some_and(word) {
            continue;
        }
        let rest = &code[at + name.len() + 1..];
        let field: String = rest.chars().take_while(|c| word(*c) && *c != '.').collect();
        found.insert(field);
    }
    found
}

fn has_all(value: &Value, wanted: &BTreeSet<String>, what: &str) {
    assert!(!wanted.is_empty(), "the script reads nothing of {what}");
    for field in wanted {
        assert!(
            value.get(field).is_some(),
            "{what} has no `{field}`: {value:#}"
        );
    }
}

#[test]
fn the_page_loads_nothing_and_may_load_nothing() {
    let policy = policy();
    for part in [
        "default-src 'none'",
        "script-src 'sha256-",
        "style-src 'sha256-",
        "connect-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{part}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    for forbidden in [
        " style=",
        " onclick=",
        " onload=",
        " onerror=",
        "<iframe",
        "<link rel=\"stylesheet",
        "@import",
        "url(",
        "eval(",
        "<script src",
        "https://",
        "//cdn",
        "new Function",
    ] {
        assert!(!DASHBOARD.contains(forbidden), "{forbidden}");
    }
    // The only addresses are the listeners' own, and a name space that nobody fetches.
    for (at, _) in DASHBOARD.match_indices("http://") {
        let rest = &DASHBOARD[at..];
        let own = rest.starts_with("http://${") || rest.starts_with("http://www.w3.org/2000/svg");
        assert!(own, "{}", &rest[..40]);
    }
    let script = between(DASHBOARD, "<script>", "</script>");
    for (at, _) in script.match_indices("ask(\"") {
        let path = between(&script[at..], "ask(\"", "\"");
        assert!(["/stats.json", "/history.json"].contains(&path), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_script_reads_is_there() {
    let host = support::host(support::origin().await, "").await;
    support::get_raw(host.addresses()[0], "/", "").await;
    let stats = stats_json(&host.state);
    let script = between(DASHBOARD, "<script>", "</script>");
    let whole: BTreeSet<_> = ["show(s)", "groups(s)", "recent(s)", "tiles(s)", "notes(s)"]
        .iter()
        .flat_map(|head| fields(function(script, head), "s"))
        .collect();
    has_all(&stats, &whole, "/stats.json");
    let monitor = &stats["monitor"];
    let of_monitor = function(script, "show(s)");
    has_all(monitor, &fields(of_monitor, "m"), "monitor");
    has_all(
        monitor,
        &fields(function(script, "notes(s)"), "m"),
        "monitor",
    );
    has_all(
        &stats["listeners"][0],
        &fields(function(script, "listener(l)"), "l"),
        "a listener",
    );
    let (upstream, of_upstream) = (&stats["upstreams"][0], function(script, "upstream(u)"));
    has_all(upstream, &fields(of_upstream, "u"), "an upstream");
    let mut endpoint = fields(of_upstream, "e");
    endpoint.extend(fields(between(script, "const against = ", "\n"), "e"));
    has_all(&upstream["endpoints"][0], &endpoint, "an endpoint");
    let mut reloads = fields(of_monitor, "s.reloads");
    reloads.extend(fields(function(script, "notes(s)"), "s.reloads"));
    has_all(&stats["reloads"], &reloads, "reloads");
    let exchange = &stats["recent"][0];
    has_all(
        exchange,
        &fields(function(script, "recent(s)"), "e"),
        "an exchange",
    );
    has_all(
        exchange,
        &fields(function(script, "why(e)"), "e"),
        "an exchange",
    );
    let mut process = fields(of_monitor, "s.process");
    process.retain(|field| !field.is_empty());
    has_all(&stats["process"], &process, "process");

    // Every metric it plots or shows is one that is sampled, and has a past.
    let plots = between(script, "const PLOTS = [", "\n];");
    let mut metrics: BTreeSet<String> = Metric::ALL
        .iter()
        .map(|metric| metric.name().to_owned())
        .filter(|name| plots.contains(&format!("[\"{name}\"")))
        .collect();
    assert!(metrics.len() >= 8, "{metrics:?}");
    metrics.extend(fields(function(script, "tiles(s)"), "v"));
    has_all(&monitor["sample"], &metrics, "the sample");
    let history = history_json(&host.state);
    has_all(&history["metrics"], &metrics, "the history");
    let one = &history["metrics"]["requests"];
    for part in ["fine", "coarse"] {
        assert!(
            one[part]["ago"].is_array() && one[part]["value"].is_array(),
            "{one}"
        );
    }
    host.stop().await;
}

/// A real browser, `EDGEWEIR_BROWSER` as `cargo edge test` sets it: the page fills, and its policy stops nothing of it. Without
/// one there is nothing to see.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_shows_it() {
    let Some(browser) = std::env::var_os("EDGEWEIR_BROWSER") else {
        println!("EDGEWEIR_BROWSER is not set: no page is rendered");
        return;
    };
    let host = support::host(support::origin().await, "").await;
    for _ in 0..5 {
        support::get_raw(host.addresses()[0], "/chunks", "").await;
    }
    let address = host.admin.expect("admin pages");
    let profile = tempfile::tempdir().expect("a folder");
    let shown = tokio::task::spawn_blocking(move || {
        Command::new(browser)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--virtual-time-budget=4000", "--dump-dom"])
            .arg(format!("http://{address}/"))
            .output()
            .expect("it runs")
    });
    let shown = tokio::time::timeout(Duration::from_secs(120), shown)
        .await
        .expect("in time")
        .unwrap();
    let (dom, log) = (
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr),
    );
    for words in [
        "level minimal",
        "/chunks",
        "Resident memory",
        "<b>main</b>",
        "1 of 1 take requests",
        "class=\"line s1\" d=\"M",
    ] {
        assert!(dom.contains(words), "{words}:\n{dom}\n{log}");
    }
    let refused = log
        .lines()
        .find(|line| line.contains("Content Security Policy") || line.contains("Uncaught"));
    assert_eq!(refused, None, "{log}");
    host.stop().await;
}
