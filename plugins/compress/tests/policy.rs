//! What the configuration makes of exchanges: rules, presets, gain, load, emergencies, timing.

use std::time::Duration;

use edgeweir_compress::{Compress, Config};
use edgeweir_filter::{Configured, Script, Seen};

fn script(json: &str) -> Script {
    let config: Config = serde_json::from_str(json).expect(json);
    Script::new(Compress::new(config).expect(json))
}

fn text(bytes: usize) -> String {
    let mut text = String::new();
    for at in 0_u64.. {
        if text.len() >= bytes {
            break;
        }
        text += &format!("{{\"id\": {at}, \"of\": {}}}, ", at * at % 9973);
    }
    text.truncate(bytes);
    text
}

/// Bytes that no coding makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn ask(script: &mut Script, path: &str) -> Seen {
    script
        .request(&["GET", path], &[("accept-encoding", "gzip")])
        .run()
}

#[test]
fn rules_by_path() {
    let mut script = script(
        r#"{"rules": [
            {"path": "/live", "disabled": true},
            {"path": "/api/*", "media_types": ["application/json"], "min_bytes": 10},
            {"path": "/br/*", "codings": ["br"]},
            {"path": "/x/*", "except_media_types": ["application/json"]}
        ]}"#,
    );
    for (path, kind, bytes, want) in [
        ("/", "application/json", 600, "gzip"),
        ("/", "application/json", 400, "too_small"),
        ("/live", "application/json", 600, "disabled"),
        ("/live?a", "application/json", 600, "disabled"),
        ("/%6Cive", "application/json", 600, "disabled"),
        ("/live/1", "application/json", 600, "gzip"),
        ("/api/1", "application/json", 400, "gzip"),
        ("/api/1", "text/html", 600, "media_type"),
        ("/br/1", "application/json", 600, "not_acceptable"),
        ("/x/1", "application/json", 600, "excluded"),
        ("/x/1", "text/html", 600, "gzip"),
    ] {
        let (body, length) = (text(bytes), bytes.to_string());
        let lines = [("content-type", kind), ("content-length", &length)];
        script.answers(200, &lines, &[body.as_bytes()]);
        let seen = ask(&mut script, path);
        match want {
            "gzip" => assert_eq!(seen.text("content-encoding"), "gzip", "{path} {kind}"),
            skipped => {
                let counter = format!("compress.skipped.{skipped}");
                assert_eq!(
                    seen.counted(&counter),
                    1,
                    "{path} {kind}: {:?}",
                    seen.record
                );
            }
        }
        let same_for_all = ["too_small", "disabled", "media_type", "excluded"].contains(&want);
        assert_eq!(seen.field("vary").is_none(), same_for_all, "{path} {kind}");
    }
}

#[test]
fn what_gained_nothing_rests() {
    let mut script = script(r#"{"media_types": ["*/*"]}"#);
    let noise = noise(20_000);
    script.answers(200, &[("content-type", "a/b")], &[&noise]);
    let first = ask(&mut script, "/poor");
    assert_eq!(
        first.text("content-encoding"),
        "gzip",
        "the head is out before the body"
    );
    assert_eq!(first.counted("compress.incompressible"), 1);
    assert_eq!(first.counted("compress.ratio.more"), 1);
    let head = script
        .request(&["HEAD", "/poor"], &[("accept-encoding", "gzip")])
        .run();
    assert_eq!(head.counted("compress.skipped.poor_ratio"), 1, "as its GET");
    for round in 0..15 {
        let seen = ask(&mut script, "/poor");
        assert_eq!(seen.counted("compress.skipped.poor_ratio"), 1, "{round}");
        assert_eq!(seen.text("vary"), "Accept-Encoding");
        assert!(seen.body() == noise);
    }
    let other = ask(&mut script, "/other");
    assert_eq!(other.text("content-encoding"), "gzip");
    let body = text(20_000);
    script.answers(200, &[("content-type", "a/b")], &[body.as_bytes()]);
    for _ in 0..3 {
        let again = ask(&mut script, "/poor");
        assert_eq!(
            again.text("content-encoding"),
            "gzip",
            "it is tried again, and got better"
        );
    }
    let mut always = self::script(r#"{"media_types": ["*/*"], "max_ratio_percent": 100}"#);
    always.answers(200, &[("content-type", "a/b")], &[&noise]);
    for _ in 0..3 {
        assert_eq!(ask(&mut always, "/").text("content-encoding"), "gzip");
    }
}

#[test]
fn over_its_share_levels_go_down_and_come_back() {
    let mut script = script(r#"{"gzip_level": 6, "cpu_percent": 30, "server_timing": true}"#);
    let body = text(2000);
    script.answers(200, &[("content-type", "text/plain")], &[body.as_bytes()]);
    let mut seen = Vec::new();
    let mut round = |script: &mut Script, lap: u64, pause: u64, rounds: usize| {
        for _ in 0..rounds {
            script.lap(Duration::from_millis(lap));
            script.pass(Duration::from_millis(pause));
            let one = ask(script, "/").text("server-timing");
            if seen.last() != Some(&one) {
                seen.push(one);
            }
        }
    };
    round(&mut script, 1, 50, 40);
    round(&mut script, 90, 100, 30);
    round(&mut script, 1, 500, 100);
    let said: Vec<&str> = seen
        .iter()
        .filter_map(|entry| entry.split('"').nth(1))
        .collect();
    let ways = ["gzip 6", "gzip 6 to 4", "gzip 6 to 1", "cpu"];
    let back = ["gzip 6 to 1", "gzip 6 to 4", "gzip 6"];
    assert!(said.starts_with(&ways), "{said:?}");
    assert!(said.ends_with(&back), "{said:?}");
}

#[test]
fn without_a_clock_or_a_bound_nothing_is_lowered() {
    for (json, lap) in [(r#"{"cpu_percent": 1}"#, 0), ("{}", 500)] {
        let mut script = script(json);
        script.lap(Duration::from_millis(lap));
        script.answers(
            200,
            &[("content-type", "text/plain")],
            &[text(2000).as_bytes()],
        );
        for _ in 0..50 {
            script.pass(Duration::from_millis(10));
            let seen = ask(&mut script, "/");
            assert_eq!(seen.text("content-encoding"), "gzip", "{json}");
            assert_eq!(seen.counted("compress.lowered"), 0, "{json}");
        }
    }
}

#[test]
fn emergencies_lower_levels_and_the_worst_codes_nothing() {
    let mut script = script(r#"{"gzip_level": 6, "server_timing": true}"#);
    script.answers(
        200,
        &[("content-type", "text/plain")],
        &[text(2000).as_bytes()],
    );
    for (level, want) in [
        (0, "gzip 6"),
        (1, "gzip 6 to 4"),
        (2, "gzip 6 to 1"),
        (3, "emergency"),
    ] {
        script.request(&["GET", "/"], &[("accept-encoding", "gzip")]);
        let seen = script.emergency(level).run();
        let want = format!("edgeweir-compress;desc=\"{want}\"");
        assert_eq!(seen.text("server-timing"), want);
        let lowered = u64::from(matches!(level, 1 | 2));
        assert_eq!(seen.counted("compress.lowered"), lowered);
        assert_eq!(seen.text("vary"), "Accept-Encoding");
    }
}

#[test]
fn presets_are_what_they_say() {
    let body = text(100_000);
    let mut sizes = Vec::new();
    for (preset, says, small) in [
        ("fast", "gzip 1", 999),
        ("balanced", "gzip 4", 499),
        ("small", "gzip 7", 199),
    ] {
        let json = format!(r#"{{"preset": "{preset}", "server_timing": true}}"#);
        let mut script = script(&json);
        script.answers(200, &[("content-type", "text/plain")], &[body.as_bytes()]);
        let seen = ask(&mut script, "/");
        assert!(seen.text("server-timing").contains(says), "{preset}");
        sizes.push(seen.body().len());
        let length = small.to_string();
        let lines = [("content-type", "text/plain"), ("content-length", &length)];
        script.answers(200, &lines, &[text(small).as_bytes()]);
        assert_eq!(
            ask(&mut script, "/small").counted("compress.skipped.too_small"),
            1,
            "{preset}"
        );
    }
    assert!(sizes.is_sorted_by(|a, b| a > b), "{sizes:?}");
    let mut own = script(r#"{"preset": "fast", "gzip_level": 9, "server_timing": true}"#);
    own.answers(200, &[("content-type", "text/plain")], &[body.as_bytes()]);
    assert!(
        ask(&mut own, "/").text("server-timing").contains("gzip 9"),
        "what is set counts"
    );
}

#[test]
fn time_is_said_in_trailers_and_counted() {
    let mut script = script(r#"{"server_timing": true}"#);
    script.lap(Duration::from_millis(3));
    script.answers(
        200,
        &[("content-type", "text/plain")],
        &[text(2000).as_bytes()],
    );
    script.trailers(&[("x", "y")]);
    let seen = ask(&mut script, "/");
    let trailers = seen.trailers.expect("a trailer section");
    let entry = trailers.text("server-timing").unwrap_or_default();
    assert!(entry.starts_with("edgeweir-compress;dur="), "{entry}");
}
