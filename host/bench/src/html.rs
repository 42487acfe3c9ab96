//! The report as one HTML file: no script, nothing loaded from elsewhere.

use std::fmt::Write as _;

use crate::cost::FilterCost;
use crate::report::{Metric, Report, SideReport};
use crate::statistics::{Ratio, Verdict, median};
use crate::svg::{self, Axis, Bar, Interval, Line, escape};

const STYLE: &str = include_str!("report.css");
const CLASSES: [&str; 2] = ["a", "b"];
const LETTERS: [&str; 2] = ["A", "B"];

/// The whole page.
pub fn page(report: &Report) -> String {
    let names: Vec<&str> = report.sides.iter().map(|side| side.name.as_str()).collect();
    let title = format!("edgeweir bench: {}", names.join(" and "));
    let mut body = String::new();
    let mut lines = report.headline();
    if lines.is_empty() {
        "Measured; nothing to compare, and no filters to look into.".clone_into(&mut lines);
    }
    let mut said = lines.lines();
    let _ = write!(body, "<h1>{}</h1>", escape(said.next().unwrap_or_default()));
    for line in said {
        let _ = write!(body, "<p class=\"lead\">{}</p>", escape(line));
    }
    let _ = write!(
        body,
        "<p class=\"load\">{}<br>{}</p>",
        escape(&report.load),
        escape(&report.machine)
    );
    for warning in report.warnings() {
        let _ = write!(body, "<p class=\"warn\">{}</p>", escape(&warning));
    }
    body.push_str("<ul class=\"legend\">");
    for ((side, class), letter) in report.sides.iter().zip(CLASSES).zip(LETTERS) {
        let _ = write!(
            body,
            "<li class=\"{class}\"><b>{letter}</b> {}</li>",
            escape(&side.name)
        );
    }
    body.push_str("</ul>");
    body.push_str(&figures(report));
    if !report.ratios.is_empty() {
        section(
            &mut body,
            "B compared with A",
            "Every round of B divided by the round of A beside it (dots), the Hodges–Lehmann estimate (bar) and its \
             interval (band). An interval that holds 1 shows no difference.",
            &ratios(report),
        );
    }
    section(
        &mut body,
        "Latency by percentile",
        "All rounds together; the further right, the rarer. Both axes are logarithmic.",
        &latency(report),
    );
    if report.sides.iter().any(|side| !side.filters.is_empty()) {
        section(
            &mut body,
            "Time in filters",
            "What a request spends in each filter, by callback, from the host's own meters.",
            &(costs(&report.sides) + &cost_table(&report.sides)),
        );
    }
    section(
        &mut body,
        "Rounds in the order they were run",
        "What drifts with the machine shows in both.",
        &over_time(report),
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{}</title><style>{STYLE}</style></head>\
         <body><main>{body}<footer>edgeweir {}</footer></main></body></html>\n",
        escape(&title),
        escape(&report.version)
    )
}

fn section(body: &mut String, title: &str, explains: &str, content: &str) {
    let _ = write!(
        body,
        "<section><h2>{title}</h2><p>{explains}</p>{content}</section>"
    );
}

fn figures(report: &Report) -> String {
    let mut table = String::from("<table><thead><tr><th></th>");
    for (_, letter) in report.sides.iter().zip(LETTERS) {
        let _ = write!(table, "<th>{letter}</th>");
    }
    if !report.ratios.is_empty() {
        table.push_str("<th>B / A</th><th>interval</th><th class=\"word\">B is</th>");
    }
    table.push_str("</tr></thead><tbody>");
    for metric in Metric::ALL {
        let _ = write!(table, "<tr><th>{}</th>", metric.name());
        for side in &report.sides {
            let value = metric.shown(median(&metric.values(&side.rounds)));
            let _ = write!(table, "<td>{value}</td>");
        }
        if let Some(ratio) = report.ratios.get(&metric) {
            let _ = write!(
                table,
                "<td>{:.2}</td><td>{:.2}–{:.2}</td><td class=\"word {}\">{}</td>",
                ratio.estimate,
                ratio.low,
                ratio.high,
                tone(metric, *ratio),
                metric.word(ratio.verdict())
            );
        }
        table.push_str("</tr>");
    }
    table.push_str("</tbody></table>");
    table
}

fn tone(metric: Metric, ratio: Ratio) -> &'static str {
    match metric.worse(ratio).verdict() {
        Verdict::More => "worse",
        Verdict::Less => "better",
        Verdict::NotShown => "same",
    }
}

fn ratios(report: &Report) -> String {
    let [a, b] = report.sides.as_slice() else {
        return String::new();
    };
    let rows: Vec<Interval> = report
        .ratios
        .iter()
        .map(|(metric, ratio)| Interval {
            name: metric
                .name()
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            points: metric
                .values(&a.rounds)
                .iter()
                .zip(metric.values(&b.rounds))
                .filter(|(a, _)| **a > 0.0)
                .map(|(a, b)| b / a)
                .collect(),
            estimate: (ratio.estimate, ratio.low, ratio.high),
            word: match ratio.verdict() {
                Verdict::NotShown => "not shown".to_owned(),
                verdict => metric.word(verdict).to_owned(),
            },
            class: tone(*metric, *ratio),
        })
        .collect();
    svg::intervals(&rows)
}

fn latency(report: &Report) -> String {
    // 1 − p, so that 99 and 99.9 are as far apart as 90 and 99.
    let nines = |percentile: f64| (1.0 / (1.0 - (percentile / 100.0).min(0.9999))).max(1.0);
    let lines: Vec<Line> = report
        .sides
        .iter()
        .zip(CLASSES)
        .map(|(side, class)| Line {
            class,
            points: side
                .latency
                .iter()
                .filter(|(at, _)| *at <= 99.99)
                .map(|(at, us)| (nines(*at), us / 1e3))
                .collect(),
        })
        .collect();
    let x = Axis {
        title: "percentile".to_owned(),
        range: (1.0, 10_000.0),
        ticks: [
            (0.0, "0"),
            (50.0, "50"),
            (90.0, "90"),
            (99.0, "99"),
            (99.9, "99.9"),
            (99.99, "99.99"),
        ]
        .map(|(at, label)| (nines(at), label.to_owned()))
        .to_vec(),
        log: true,
    };
    let y = Axis::logarithmic("milliseconds", least(&lines), most(&lines));
    svg::lines(&lines, &x, &y, 300.0, false)
}

fn over_time(report: &Report) -> String {
    let mut plots = String::new();
    for (metric, title, scale) in [
        (Metric::Rate, "requests/s", 1.0),
        (Metric::P99, "p99, ms", 1e-3),
        (Metric::Cpu, "CPU µs/request", 1.0),
    ] {
        let lines: Vec<Line> = report
            .sides
            .iter()
            .zip(CLASSES)
            .filter(|(side, _)| side.rounds.iter().any(|round| metric.of(round) > 0.0))
            .map(|(side, class)| Line {
                class,
                points: side
                    .rounds
                    .iter()
                    .map(|round| (round.at, metric.of(round) * scale))
                    .collect(),
            })
            .collect();
        if lines.is_empty() {
            continue;
        }
        let end = lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|(at, _)| *at)
            .fold(1.0, f64::max);
        let x = Axis::linear("seconds", 0.0, end);
        let y = Axis::linear(title, 0.0, most(&lines));
        plots.push_str(&svg::lines(&lines, &x, &y, 190.0, true));
    }
    plots
}

fn costs(sides: &[SideReport]) -> String {
    let several = sides.len() > 1;
    let mut bars = Vec::new();
    for (side, letter) in sides.iter().zip(LETTERS) {
        for filter in &side.filters {
            bars.push(Bar {
                name: if several {
                    format!("{letter}: {}", filter.name)
                } else {
                    filter.name.clone()
                },
                parts: per_request(filter),
            });
        }
    }
    svg::bars(&bars, "µs")
}

fn per_request(filter: &FilterCost) -> Vec<(String, f64)> {
    let exchanges = filter.exchanges.max(1) as f64;
    let calls = filter.calls.iter();
    calls
        .map(|call| (call.callback.clone(), call.total_us / exchanges))
        .collect()
}

fn cost_table(sides: &[SideReport]) -> String {
    let mut table = String::from(
        "<details><summary>Each callback</summary><table><thead><tr><th class=\"word\">filter</th><th class=\"word\">callback</th>\
         <th>calls</th><th>µs/request</th><th>mean µs</th><th>p50</th><th>p95</th><th>p99</th></tr></thead><tbody>",
    );
    for (side, letter) in sides.iter().zip(LETTERS) {
        for filter in &side.filters {
            for call in &filter.calls {
                let _ = write!(
                    table,
                    "<tr><td class=\"word\">{letter}: {}</td><td class=\"word\">{}</td><td>{}</td><td>{:.1}</td><td>{:.1}</td>\
                     <td>{:.1}</td><td>{:.1}</td><td>{:.1}</td></tr>",
                    escape(&filter.name),
                    escape(&call.callback),
                    call.calls,
                    call.total_us / filter.exchanges.max(1) as f64,
                    call.mean_us,
                    call.p50_us,
                    call.p95_us,
                    call.p99_us
                );
            }
        }
    }
    table.push_str("</tbody></table></details>");
    table
}

fn least(lines: &[Line]) -> f64 {
    values(lines).fold(f64::MAX, f64::min)
}

fn most(lines: &[Line]) -> f64 {
    values(lines).fold(f64::MIN_POSITIVE, f64::max)
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines
        .iter()
        .flat_map(|line| line.points.iter().map(|(_, value)| *value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_page_stands_alone() {
        let mut report = report();
        report.sides[1].name = "<b>.toml".to_owned();
        let page = page(&report);
        assert!(
            page.contains("<h1>B is dearer: 1.25 × the CPU time of A"),
            "{page}"
        );
        assert_eq!(
            page.matches("<svg").count(),
            6,
            "ratios, latency, filters, three over time"
        );
        assert!(!page.contains("<b>.toml"));
        for outside in ["src=", "href=", "<script", "url(", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn one_side_without_filters_is_a_page_too() {
        let mut report = report();
        report.sides.truncate(1);
        report.sides[0].filters.clear();
        report.ratios.clear();
        let page = page(&report);
        assert_eq!(page.matches("<svg").count(), 4);
    }
}
