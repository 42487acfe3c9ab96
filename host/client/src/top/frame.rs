//! One frame: what is there, at a glance, in whatever room there is.

use edgeweir_host_monitor::{Unit, shown};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Sparkline, Table};
use serde_json::Value;

use super::seen::Seen;

/// Draws all of it.
pub fn draw(frame: &mut Frame, seen: &Seen, trouble: Option<&str>) {
    let notes = notes(seen, trouble);
    let listeners = seen.list("listeners").len() as u16;
    let filters = seen.list("filters").len() as u16;
    let [head, plots, said, front, chain, last] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length((notes.len() as u16).min(5)),
        Constraint::Length(listeners + 2),
        Constraint::Length((filters + 2).min(frame.area().height / 2)),
        Constraint::Min(0),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header(seen)), head);
    sparklines(frame, seen, plots);
    frame.render_widget(Paragraph::new(notes), said);
    frame.render_widget(of_listeners(seen), front);
    frame.render_widget(of_filters(seen), chain);
    frame.render_widget(of_exchanges(seen), last);
}

fn header(seen: &Seen) -> Vec<Line<'static>> {
    let now = &seen.now;
    let monitor = &now["monitor"];
    let level = monitor["level"].as_str().unwrap_or("?").to_owned();
    let colour = match monitor["emergency"].as_u64() {
        Some(0) => Color::Green,
        Some(1) => Color::Blue,
        Some(2) => Color::Yellow,
        _ => Color::Red,
    };
    let by_hand = match monitor["automatic"].as_bool() {
        Some(false) => ", set by hand",
        _ => "",
    };
    let of = |name: &str, show: fn(f64) -> String| seen.metric(name).map_or("–".to_owned(), show);
    let first = vec![
        "edgeweir ".bold(),
        Span::from(now["version"].as_str().unwrap_or("").to_owned()),
        format!("  up {}", span(now["uptime_s"].as_f64().unwrap_or(0.0))).dim(),
        "  level ".dim(),
        level.fg(colour).bold(),
        by_hand.dim(),
    ];
    let second = format!(
        "cpu {} (machine {})  memory {} of {}  {} connections  {} in flight  reused {}  5xx {}",
        of("process_cpu", percent),
        of("machine_cpu", percent),
        of("memory_resident", bytes),
        bytes(monitor["memory_limit"].as_f64().unwrap_or(0.0)),
        of("connections", whole),
        of("in_flight", whole),
        of("hit_ratio", percent),
        of("errors", percent),
    );
    vec![Line::from(first), Line::from(second)]
}

/// A metric, its name on the screen, how its value is written, its colour.
type Plotted = (&'static str, &'static str, fn(f64) -> String, Color);

fn sparklines(frame: &mut Frame, seen: &Seen, area: Rect) {
    let places = Layout::horizontal([Constraint::Ratio(1, 4); 4]).split(area);
    let shown: [Plotted; 4] = [
        ("requests", "requests/s", count, Color::Blue),
        ("latency_p99", "p99", |ms| micros(ms * 1e3), Color::Magenta),
        ("process_cpu", "cpu", percent, Color::Yellow),
        ("memory_resident", "memory", bytes, Color::Cyan),
    ];
    for ((metric, name, show, colour), place) in shown.into_iter().zip(places.iter()) {
        let value = seen.metric(metric).map_or("–".to_owned(), show);
        let block = Block::new()
            .borders(Borders::TOP)
            .border_style(Style::new().dim())
            .title(format!(" {name} {value} "));
        let columns = seen.columns(metric, usize::from(place.width));
        let line = Sparkline::default()
            .data(columns)
            .style(colour)
            .block(block);
        frame.render_widget(line, *place);
    }
}

fn notes(seen: &Seen, trouble: Option<&str>) -> Vec<Line<'static>> {
    let monitor = &seen.now["monitor"];
    let list = |name: &str| monitor[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let mut lines = Vec::new();
    if let Some(trouble) = trouble {
        lines.push(Line::from(trouble.to_owned().red()));
    }
    if let Some(why) = seen.now["reloads"]["last_error"].as_str() {
        // Its first line: those that follow show the place in the file.
        let why = string(&Value::from(why.lines().next().unwrap_or("")));
        lines.push(Line::from(vec![
            "refused  ".red().bold(),
            "reload: ".bold(),
            Span::from(why),
        ]));
    }
    lines.extend(seen.list("upstreams").iter().filter_map(of_upstream));
    for alert in list("alerts") {
        let severity = text(&alert["severity"]);
        let colour = match severity.as_str() {
            "critical" => Color::Red,
            "warning" => Color::Yellow,
            _ => Color::Blue,
        };
        let lasted = span(alert["for_s"].as_f64().unwrap_or(0.0));
        lines.push(Line::from(vec![
            format!("{severity:<8} ").fg(colour).bold(),
            Span::from(text(&alert["text"])),
            format!("  for {lasted}").dim(),
        ]));
    }
    for forecast in list("forecasts") {
        lines.push(Line::from(vec![
            "ahead    ".yellow(),
            Span::from(format!(
                "{} reaches {} in about {}",
                text(&forecast["metric"]),
                text(&forecast["at_text"]),
                span(forecast["in_s"].as_f64().unwrap_or(0.0)),
            )),
        ]));
    }
    for advice in list("advice") {
        lines.push(Line::from(vec![
            "advice   ".blue(),
            text(&advice["setting"]).bold(),
            Span::from(format!(": {}", text(&advice["text"]))),
        ]));
    }
    lines
}

/// An upstream with endpoints that take no requests.
fn of_upstream(upstream: &Value) -> Option<Line<'static>> {
    let endpoints = upstream["endpoints"].as_array()?;
    let off = endpoints.iter().filter_map(|it| Some((it, against(it)?)));
    let off: Vec<String> = off
        .map(|(it, why)| format!("{} {why}", string(&it["address"])))
        .collect();
    if off.is_empty() {
        return None;
    }
    let (left, all) = (endpoints.len() - off.len(), endpoints.len());
    let colour = if left == 0 { Color::Red } else { Color::Yellow };
    Some(Line::from(vec![
        "upstream ".fg(colour).bold(),
        string(&upstream["name"]).bold(),
        Span::from(format!(": {left} of {all} take requests: ")),
        Span::from(off.join("; ")),
    ]))
}

/// Why an endpoint takes no requests.
fn against(endpoint: &Value) -> Option<String> {
    let is = |name: &str| endpoint[name].as_bool() == Some(true);
    let breaker = endpoint["breaker"].as_str().unwrap_or("closed");
    let mut why = Vec::new();
    if endpoint["healthy"].as_bool() == Some(false) {
        why.push("fails its probes".to_owned());
    }
    if is("ejected") {
        why.push("put aside".to_owned());
    }
    if breaker != "closed" {
        why.push(format!("breaker {breaker}"));
    }
    (!why.is_empty()).then(|| why.join(", "))
}

fn titled(title: &'static str) -> Block<'static> {
    Block::new()
        .borders(Borders::TOP)
        .border_style(Style::new().dim())
        .title(title)
}

fn heads(names: &[&'static str]) -> Row<'static> {
    Row::new(names.to_vec()).style(Style::new().dim())
}

fn of_listeners(seen: &Seen) -> Table<'static> {
    let rows = seen.list("listeners").iter().map(|it| {
        let number = |name: &str| it[name].as_f64().unwrap_or(0.0);
        let percentile = |at: usize| micros_or(it["percentiles_us"][at].as_f64());
        let reused = match number("looked_up") {
            0.0 => "–".to_owned(),
            looked => percent(number("reused") / looked * 100.0),
        };
        let failed = it["classes"][5].as_f64().unwrap_or(0.0);
        Row::new(vec![
            string(&it["name"]),
            string(&it["address"]),
            count(number("per_second")),
            percentile(0),
            percentile(1),
            percentile(2),
            count(number("requests")),
            count(failed),
            count(number("limited")),
            reused,
            bytes(number("sent")),
        ])
    });
    Table::new(
        rows.collect::<Vec<_>>(),
        [
            Constraint::Length(14),
            Constraint::Length(21),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(9),
            Constraint::Length(7),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Min(9),
        ],
    )
    .header(heads(&[
        "listener", "address", "req/s", "p50", "p95", "p99", "requests", "5xx", "limited",
        "reused", "sent",
    ]))
    .block(titled(""))
}

fn of_filters(seen: &Seen) -> Table<'static> {
    let rows = seen.list("filters").iter().map(|it| {
        let number = |name: &str| it[name].as_f64().unwrap_or(0.0);
        let row = Row::new(vec![
            string(&it["name"]),
            string(&it["abi"]),
            count(number("exchanges")),
            count(number("answered")),
            micros_or(seen.cost(it)),
            micros_or(it["percentiles_us"][2].as_f64()),
            bytes(number("saved")),
            bytes(number("memory_now")),
            bytes(number("shared_bytes")),
            count(number("traps")),
        ]);
        match number("traps") > 0.0 {
            true => row.style(Style::new().red()),
            false => row,
        }
    });
    Table::new(
        rows.collect::<Vec<_>>(),
        [
            Constraint::Length(24),
            Constraint::Length(11),
            Constraint::Length(10),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Min(6),
        ],
    )
    .header(heads(&[
        "filter",
        "abi",
        "exchanges",
        "answered",
        "a request",
        "call p99",
        "saved",
        "memory",
        "shared",
        "traps",
    ]))
    .block(titled(""))
}

fn of_exchanges(seen: &Seen) -> Table<'static> {
    let rows = seen.list("recent").iter().map(|it| {
        let status = it["status"].as_u64().unwrap_or(0);
        let colour = match status / 100 {
            2 => Color::Green,
            3 => Color::Blue,
            4 => Color::Yellow,
            _ => Color::Red,
        };
        Row::new(vec![
            Line::from(string(&it["listener"])),
            Line::from(string(&it["method"])),
            Line::from(string(&it["path"])),
            Line::from(status.to_string().fg(colour)),
            Line::from(micros_or(it["took_us"].as_f64())),
            Line::from(bytes(it["bytes"].as_f64().unwrap_or(0.0))),
            Line::from(string(&it["content_encoding"])),
            Line::from(string(&it["cache_status"])),
        ])
    });
    Table::new(
        rows.collect::<Vec<_>>(),
        [
            Constraint::Length(12),
            Constraint::Length(7),
            Constraint::Fill(2),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Fill(3),
        ],
    )
    .header(heads(&[
        "listener",
        "method",
        "path",
        "status",
        "took",
        "bytes",
        "coding",
        "Cache-Status",
    ]))
    .block(titled(""))
}

fn string(value: &Value) -> String {
    // What a client chose may hold control characters, which a terminal would obey.
    let text = value.as_str().unwrap_or("–");
    text.chars()
        .map(|it| if it.is_control() { '·' } else { it })
        .collect()
}

fn count(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value < 10.0 && value.fract() > 0.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn percent(value: f64) -> String {
    format!("{value:.0} %")
}

fn bytes(value: f64) -> String {
    shown(Unit::Bytes, value)
}

fn micros(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn micros_or(us: Option<f64>) -> String {
    us.map_or("–".to_owned(), micros)
}

fn span(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5_400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}
