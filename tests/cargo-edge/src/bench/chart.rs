//! The figures as a picture: a panel for each workload, a bar for each proxy, the less the better.

use std::fmt::Write as _;

use super::report::Row;

/// Width of the picture and of each of its two columns of panels, in pixels.
const WIDTH: u32 = 1000;
const COLUMN: u32 = 500;
/// Where names end and bars begin in a column.
const NAMES: u32 = 256;
/// The longest bar; what is behind it is room for the figure.
const BAR: f64 = 130.0;
const ROW: u32 = 18;
const TITLE: u32 = 24;
const GAP: u32 = 16;
/// The heading and the key to the colours.
const HEAD: u32 = 56;

/// What stands behind a bar: its class, its colour and what the key says.
const KEY: [(&str, &str, &str); 5] = [
    ("plain", "#c8ccd1", "no filter"),
    ("ours", "#1f6feb", "Edgeweir in Envoy"),
    ("host", "#54aeff", "Edgeweir in its host"),
    ("own", "#57606a", "Envoy's own filter"),
    ("other", "#bf8700", "other programs"),
];

/// The picture, an SVG that needs nothing else.
pub fn svg(rows: &[Row]) -> String {
    let mut panels: Vec<&[Row]> = Vec::new();
    let mut rest = rows;
    while let Some(first) = rest.first() {
        let until = rest
            .iter()
            .position(|row| row.workload != first.workload)
            .unwrap_or(rest.len());
        let (panel, after) = rest.split_at(until);
        panels.push(panel);
        rest = after;
    }
    // The next panel goes where there is more room, so that they are read from the top down in both columns.
    let mut heights = [HEAD, HEAD];
    let mut body = String::new();
    for panel in panels {
        let column = usize::from(heights[1] < heights[0]);
        let left = if column == 0 { 0 } else { COLUMN };
        draw(panel, left, heights[column], &mut body);
        heights[column] += TITLE + ROW * panel.len() as u32 + GAP;
    }
    let height = heights[0].max(heights[1]);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n<style>"
    );
    svg.push_str(
        "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:13px}",
    );
    for (class, colour, _) in KEY {
        let _ = write!(svg, ".{class}{{fill:{colour}}}");
    }
    svg.push_str("</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
    svg.push_str(
        "<text class=\"title\" x=\"12\" y=\"20\">CPU time of the proxy for one request, in µs, and the size of the response (less is better)</text>\n",
    );
    for (at, (class, _, says)) in KEY.iter().enumerate() {
        let x = 12 + 160 * at;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"31\" width=\"12\" height=\"12\"/><text x=\"{}\" y=\"41\">{says}</text>",
            x + 18
        );
    }
    svg.push_str(&body);
    svg.push_str("</svg>\n");
    svg
}

fn draw(panel: &[Row], left: u32, top: u32, svg: &mut String) {
    let most = panel
        .iter()
        .map(|row| row.median.cpu)
        .fold(f64::MIN_POSITIVE, f64::max);
    // Sizes are worth a word where they differ; a round trip to a store has none.
    let mut sizes = panel.iter().map(|row| row.bytes).filter(|size| *size > 0);
    let first = sizes.next();
    let coded = sizes.any(|size| Some(size) != first);
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{}\" y=\"{}\">{}</text>",
        left + 12,
        top + 15,
        escaped(panel[0].workload)
    );
    for (at, row) in panel.iter().enumerate() {
        let y = top + TITLE + ROW * at as u32;
        let width = BAR * row.median.cpu / most;
        let mut figure = format!("{:.0}", row.median.cpu);
        if coded {
            let _ = write!(figure, " · {:.1} KB", row.bytes as f64 / 1e3);
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\">{}</text><rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{width:.1}\" height=\"12\"/>\
             <text x=\"{:.1}\" y=\"{}\">{figure}</text>",
            left + 12,
            y + 11,
            escaped(row.name),
            class(row.name),
            left + NAMES,
            y + 1,
            f64::from(left + NAMES) + width + 6.0,
            y + 11,
        );
    }
}

fn class(name: &str) -> &'static str {
    match name.split_once(", ") {
        Some(("Envoy", "plain" | "empty Wasm filter")) | Some(("host", "no filter")) => "plain",
        Some(("Envoy", filter)) if filter.starts_with("its ") => "own",
        Some(("Envoy", _)) => "ours",
        Some(("host", _)) => "host",
        _ => "other",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::super::{Turn, report};
    use super::*;

    #[test]
    fn each_case_has_a_bar_as_long_as_it_costs() {
        let cases = cases::all();
        let turns: Vec<Vec<Turn>> = (1..=cases.len())
            .map(|at| {
                vec![Turn {
                    rate: 1.0,
                    p50: 1.0,
                    p99: 1.0,
                    cpu: at as f64,
                }]
            })
            .collect();
        let rows = report::rows(&cases, &turns, &vec![1024; cases.len()]);
        let svg = svg(&rows);
        let bars: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<text x="))
            .map(|line| {
                let width = line.rsplit_once("width=\"").unwrap().1;
                width.split_once('"').unwrap().0.parse().unwrap()
            })
            .collect();
        assert_eq!(bars.len(), cases.len());
        let mut at = 0;
        for name in cases::workloads() {
            let panel: Vec<&Row> = rows.iter().filter(|row| row.workload == name).collect();
            let most = panel.last().unwrap().median.cpu;
            for row in panel {
                assert!(
                    (bars[at] - BAR * row.median.cpu / most).abs() < 0.06,
                    "{name}"
                );
                at += 1;
            }
        }
    }

    #[test]
    fn each_kind_has_its_colour() {
        let kinds = [
            ("Envoy, plain", "plain"),
            ("host, no filter", "plain"),
            ("Envoy, ours, level 6", "ours"),
            ("Envoy, four modules", "ours"),
            ("Envoy, its cache_v2", "own"),
            ("host, component", "host"),
            ("nginx, gzip, level 6", "other"),
            ("Varnish", "other"),
            ("Redis alone, a round trip each", "other"),
        ];
        for (name, kind) in kinds {
            assert!(cases::all().iter().any(|case| case.name == name), "{name}");
            assert_eq!(class(name), kind, "{name}");
        }
    }
}
