//! Plots as inline SVG: lines, intervals and stacked bars on labelled axes.

use std::fmt::Write as _;

/// Width of every plot.
const WIDTH: f64 = 720.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 40.0;

/// A line with its points.
pub struct Line {
    /// The class that gives its colour: `a` or `b`.
    pub class: &'static str,
    /// In the units of the axes.
    pub points: Vec<(f64, f64)>,
}

/// One axis.
pub struct Axis {
    /// Below or beside it.
    pub title: String,
    /// The ends.
    pub range: (f64, f64),
    /// Places and what is written there.
    pub ticks: Vec<(f64, String)>,
    /// Powers of ten are equally far apart.
    pub log: bool,
}

impl Axis {
    /// From zero (or a little below the least) to a little above the most, in round steps.
    pub fn linear(title: &str, least: f64, most: f64) -> Self {
        let most = if most > least { most } else { least + 1.0 };
        let step = step((most - least) / 5.0);
        let from = (least / step).floor() * step;
        let to = (most / step).ceil() * step;
        let count = ((to - from) / step).round() as usize;
        Self {
            title: title.to_owned(),
            range: (from, to),
            ticks: (0..=count)
                .map(|at| from + at as f64 * step)
                .map(|at| (at, number(at)))
                .collect(),
            log: false,
        }
    }

    /// Powers of ten, and 2 and 5 between them where there is room.
    pub fn logarithmic(title: &str, least: f64, most: f64) -> Self {
        let least = least.max(1e-6);
        let most = most.max(least * 2.0);
        let decades = (most / least).log10();
        let steps: &[f64] = if decades < 2.5 {
            &[1.0, 2.0, 5.0]
        } else {
            &[1.0]
        };
        let all = (-6..9).flat_map(|power| steps.iter().map(move |step| step * 10_f64.powi(power)));
        let below = all
            .clone()
            .rfind(|at| *at <= least * 1.000_001)
            .unwrap_or(least);
        let above = all
            .clone()
            .find(|at| *at >= most * 0.999_999)
            .unwrap_or(most);
        Self {
            title: title.to_owned(),
            range: (below, above),
            ticks: all
                .filter(|at| (below..=above).contains(at))
                .map(|at| (at, number(at)))
                .collect(),
            log: true,
        }
    }

    /// Where a value is between the ends, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let (from, to) = self.range;
        let place = if self.log {
            (value.max(from) / from).ln() / (to / from).ln()
        } else {
            (value - from) / (to - from)
        };
        place.clamp(0.0, 1.0)
    }
}

/// A round number near a wanted step: 1, 2 or 5 times a power of ten.
fn step(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    let times = wanted / power;
    let times = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|step| *step >= times * 0.999)
        .unwrap_or(10.0);
    times * power
}

/// As short as it is exact enough for an axis.
pub fn number(value: f64) -> String {
    if value.abs() >= 10_000.0 {
        format!("{}k", trimmed(value / 1_000.0))
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

/// Lines over two axes.
pub fn lines(all: &[Line], x: &Axis, y: &Axis, height: f64, dots: bool) -> String {
    let frame = Frame::new(height);
    let mut svg = frame.open(x, y);
    for line in all {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", frame.x(x, *at), frame.y(y, *value)))
            .collect();
        let _ = write!(
            svg,
            "<polyline class=\"line {}\" points=\"{}\"/>",
            line.class,
            path.join(" ")
        );
        if dots {
            for (at, value) in &line.points {
                let _ = write!(
                    svg,
                    "<circle class=\"dot {}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                    line.class,
                    frame.x(x, *at),
                    frame.y(y, *value)
                );
            }
        }
    }
    svg.push_str("</svg>");
    svg
}

/// One row of an interval plot.
pub struct Interval {
    /// At the left.
    pub name: String,
    /// Each round's own value.
    pub points: Vec<f64>,
    /// Estimate and ends.
    pub estimate: (f64, f64, f64),
    /// At the right.
    pub word: String,
    /// `better`, `worse` or `same`.
    pub class: &'static str,
}

/// Ratios with their intervals around one.
pub fn intervals(rows: &[Interval]) -> String {
    let (row_height, left, right) = (34.0, 130.0, 150.0);
    let values = || {
        rows.iter().flat_map(|row| {
            row.points
                .iter()
                .copied()
                .chain([row.estimate.1, row.estimate.2])
        })
    };
    let far = values()
        .map(|value| value.max(1e-3).ln().abs())
        .fold(0.02, f64::max)
        .min(3.0)
        * 1.08;
    let axis = Axis {
        title: String::new(),
        range: ((-far).exp(), far.exp()),
        ticks: Vec::new(),
        log: true,
    };
    let height = rows.len() as f64 * row_height + 30.0;
    let x = |value: f64| left + axis.place(value) * (WIDTH - left - right);
    let mut svg = open(height);
    let bottom = height - 24.0;
    // Round places that are apart: halves and doubles when the range is wide, per cents when it is narrow.
    let span = far.exp() - 1.0;
    let unit = step(span / 2.5);
    let mut ticks = vec![1.0];
    for at in 1..4 {
        ticks.push(1.0 + unit * f64::from(at));
        ticks.push(1.0 - unit * f64::from(at));
    }
    for tick in ticks
        .into_iter()
        .filter(|tick| *tick >= axis.range.0 && *tick <= axis.range.1)
    {
        let class = if tick == 1.0 { "one" } else { "grid" };
        let _ = write!(
            svg,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{bottom:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            number(tick),
            at = x(tick),
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let y = index as f64 * row_height + row_height / 2.0 + 2.0;
        let (estimate, low, high) = row.estimate;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect class=\"band {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"18\" rx=\"3\"/>",
            left - 12.0,
            y + 4.0,
            escape(&row.name),
            x(low),
            y - 9.0,
            (x(high) - x(low)).max(2.0),
            class = row.class,
        );
        for point in &row.points {
            let _ = write!(
                svg,
                "<circle class=\"faint\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>",
                x(*point)
            );
        }
        let _ = write!(
            svg,
            "<rect class=\"mark {class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"3\" height=\"22\" rx=\"1\"/>\
             <text class=\"strong\" x=\"{:.1}\" y=\"{:.1}\">{estimate:.2} ×, {}</text>",
            x(estimate) - 1.5,
            y - 11.0,
            WIDTH - right + 12.0,
            y + 4.0,
            escape(&row.word),
            class = row.class,
        );
    }
    svg.push_str("</svg>");
    svg
}

/// One bar made of parts.
pub struct Bar {
    /// At the left.
    pub name: String,
    /// What each part is, and how long.
    pub parts: Vec<(String, f64)>,
}

/// Horizontal stacked bars on one scale.
pub fn bars(all: &[Bar], unit: &str) -> String {
    let (row_height, left, right) = (30.0, 150.0, 84.0);
    let total = |bar: &Bar| bar.parts.iter().map(|(_, value)| value).sum::<f64>();
    let most = all.iter().map(total).fold(f64::MIN_POSITIVE, f64::max);
    let height = all.len() as f64 * row_height + 8.0;
    let scale = (WIDTH - left - right) / most;
    let mut svg = open(height);
    for (index, bar) in all.iter().enumerate() {
        let y = index as f64 * row_height + 5.0;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            left - 12.0,
            y + 15.0,
            escape(&bar.name)
        );
        let mut x = left;
        for (part, (name, value)) in bar.parts.iter().enumerate() {
            let width = value * scale;
            let label = name.strip_prefix("proxy_").unwrap_or(name);
            let _ = write!(
                svg,
                "<rect class=\"part p{}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"22\" rx=\"2\">\
                 <title>{}: {value:.1} {unit}</title></rect>",
                part.min(4),
                (width - 1.0).max(0.5),
                escape(name),
            );
            // A label that does not fit is in the tooltip and the table.
            if width > label.len() as f64 * 6.4 + 10.0 {
                let _ = write!(
                    svg,
                    "<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    x + 6.0,
                    y + 15.0,
                    escape(label)
                );
            }
            x += width;
        }
        let _ = write!(
            svg,
            "<text class=\"strong\" x=\"{:.1}\" y=\"{:.1}\">{:.1} {unit}</text>",
            x + 8.0,
            y + 15.0,
            total(bar)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Text as it may stand in markup.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn open(height: f64) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" xmlns=\"http://www.w3.org/2000/svg\">"
    )
}

struct Frame {
    height: f64,
}

impl Frame {
    fn new(height: f64) -> Self {
        Self { height }
    }

    fn x(&self, axis: &Axis, value: f64) -> f64 {
        LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, axis: &Axis, value: f64) -> f64 {
        self.height - BOTTOM - axis.place(value) * (self.height - TOP - BOTTOM)
    }

    /// Grid, ticks and titles.
    fn open(&self, x: &Axis, y: &Axis) -> String {
        let mut svg = open(self.height);
        let bottom = self.height - BOTTOM;
        for (value, label) in &y.ticks {
            let at = self.y(y, *value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                escape(label)
            );
        }
        for (value, label) in &x.ticks {
            let at = self.x(x, *value);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                escape(label)
            );
        }
        let _ = write!(
            svg,
            "<text class=\"title\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
             <text class=\"title\" transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
            self.height - 6.0,
            escape(&x.title),
            TOP + (bottom - TOP) / 2.0,
            escape(&y.title),
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_ticks_around_all_values() {
        let labels = |axis: &Axis| {
            axis.ticks
                .iter()
                .map(|(_, label)| label.clone())
                .collect::<Vec<_>>()
        };
        let axis = Axis::linear("x", 0.0, 17.0);
        assert_eq!(labels(&axis), ["0", "5", "10", "15", "20"]);
        let axis = Axis::logarithmic("x", 0.3, 22.0);
        assert_eq!(
            labels(&axis),
            ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]
        );
        let axis = Axis::logarithmic("x", 0.02, 900.0);
        assert_eq!(labels(&axis), ["0.01", "0.1", "1", "10", "100", "1000"]);
        assert_eq!(number(12_500.0), "12.5k");
    }

    #[test]
    fn places_are_between_the_ends() {
        let axis = Axis::logarithmic("x", 1.0, 100.0);
        assert_eq!(axis.place(1.0), 0.0);
        assert!((axis.place(10.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.place(0.0), 0.0);
        assert_eq!(Axis::linear("x", 3.0, 3.0).place(9e9), 1.0);
    }

    #[test]
    fn names_cannot_leave_their_place() {
        let bars = bars(
            &[Bar {
                name: "<script>".to_owned(),
                parts: vec![("a\"b".to_owned(), 1.0)],
            }],
            "µs",
        );
        assert!(
            !bars.contains("<script>") && !bars.contains("a\"b"),
            "{bars}"
        );
    }
}
