//! What the monitor knows, as JSON.

use std::time::Duration;

use edgeweir_host_monitor::{
    EXCHANGES, Level, Metric, Mode, Monitor, Point, STEP, SURVEY, Sample, Severity,
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::host::State;

/// How far back the fine history goes, at most.
const FINE: Duration = Duration::from_secs(120);
/// Points of the fine history: what a plot can show.
const POINTS: usize = 240;

/// What of the monitor is in `/stats.json`.
pub fn json(state: &State) -> Value {
    let watch = &state.watch;
    let now = watch.now();
    let ago = |at: Duration| now.saturating_sub(at).as_secs_f64();
    watch.look(|monitor, sample, process| {
        json!({
            "enabled": watch.enabled,
            "interval_ms": watch.interval.as_millis() as u64,
            "level": monitor.level().name(),
            "emergency": monitor.level().emergency(),
            "automatic": monitor.mode() == Mode::Automatic,
            "holding": monitor.holding().collect::<Vec<_>>(),
            "changes": changes(state),
            "sample": values(sample),
            "memory_limit": process.memory_limit,
            "descriptor_limit": process.descriptor_limit,
            "processors": process.processors,
            "alerts": monitor.alerts().iter().map(|alert| json!({
                "about": alert.about,
                "severity": alert.severity.name(),
                "for_s": ago(alert.since),
                "text": alert.text,
            })).collect::<Vec<_>>(),
            "forecasts": forecasts(monitor),
            "advice": monitor.advice().iter().map(|advice| json!({
                "setting": advice.setting,
                "text": advice.text,
            })).collect::<Vec<_>>(),
        })
    })
}

fn changes(state: &State) -> Value {
    let changes = Level::ALL.map(|level| {
        let count = Value::from(state.watch.changes(level));
        (level.name().to_owned(), count)
    });
    Value::Object(Map::from_iter(changes))
}

fn forecasts(monitor: &Monitor) -> Vec<Value> {
    let forecasts = monitor.forecasts().iter().map(|forecast| {
        let unit = forecast.metric.unit();
        json!({
            "metric": forecast.metric.name(),
            "at": forecast.at,
            "at_text": edgeweir_host_monitor::shown(unit, forecast.at),
            "severity": forecast.severity.name(),
            "in_s": forecast.left.as_secs(),
            "per_hour": forecast.trend.per_second * 3600.0,
            "fit": rounded(forecast.trend.fit),
        })
    });
    forecasts.collect()
}

/// `null` for what is not known.
fn values(sample: &Sample) -> Value {
    let values = Metric::ALL.map(|metric| {
        let value = sample.get(metric).map_or(Value::Null, rounded);
        (metric.name().to_owned(), value)
    });
    Value::Object(Map::from_iter(values))
}

/// Four digits are more than a plot shows.
fn rounded(value: f64) -> Value {
    if value.abs() >= 1_000.0 {
        return Value::from(value.round() as i64);
    }
    Value::from((value * 1_000.0).round() / 1_000.0)
}

/// `/history.json`: for each metric the last two minutes in at most 240 points, and the last two hours in steps of 10 s
/// with means and peaks. Times are seconds ago.
pub fn history(state: &State) -> Value {
    let now = state.watch.now();
    state.watch.look(|monitor, _, _| {
        let history = monitor.history();
        let columns = |points: Vec<Point>| {
            let times = points
                .iter()
                .map(|it| rounded(now.saturating_sub(it.at).as_secs_f64()));
            json!({
                "ago": times.collect::<Vec<_>>(),
                "value": points.iter().map(|it| rounded(it.value)).collect::<Vec<_>>(),
            })
        };
        let metrics = Metric::ALL.map(|metric| {
            let fine: Vec<_> = history.fine(metric, now.saturating_sub(FINE)).collect();
            let every = fine.len().div_ceil(POINTS).max(1);
            let thin: Vec<Point> = fine.chunks(every).filter_map(mean).collect();
            let coarse: Vec<_> = history.coarse(metric, Duration::ZERO).collect();
            let mut coarse_json = columns(coarse.clone());
            coarse_json["peak"] = coarse.iter().map(|it| rounded(it.peak)).collect();
            let value = json!({ "fine": columns(thin), "coarse": coarse_json });
            (metric.name().to_owned(), value)
        });
        json!({ "step_s": STEP.as_secs(), "metrics": Map::from_iter(metrics) })
    })
}

fn mean(points: &[Point]) -> Option<Point> {
    let last = points.last()?;
    let sum: f64 = points.iter().map(|it| it.value).sum();
    Some(Point {
        value: sum / points.len() as f64,
        ..*last
    })
}

/// `/baseline.json`: the costs of the last minute, to be kept in a file; or why there are none.
pub fn baseline(state: &State) -> Result<String, (StatusCode, String)> {
    if !state.watch.enabled {
        let why = "nothing is watched: monitor.enabled is false\n".to_owned();
        return Err((StatusCode::NOT_FOUND, why));
    }
    match state.watch.current().filter(|it| !it.is_empty()) {
        Some(current) => {
            let value = serde_json::to_value(&current).unwrap_or_default();
            Ok(format!("{value:#}\n"))
        }
        None => {
            let every = SURVEY.as_secs();
            let why = format!(
                "not yet: it takes {EXCHANGES} exchanges within a minute, whose costs are looked at every {every} s\n"
            );
            Err((StatusCode::SERVICE_UNAVAILABLE, why))
        }
    }
}

/// All of them.
pub const SEVERITIES: [Severity; 3] = [Severity::Info, Severity::Warning, Severity::Critical];

/// How many alarms stand, by severity.
pub fn standing(monitor: &Monitor) -> [(Severity, usize); 3] {
    let alerts = monitor.alerts();
    SEVERITIES.map(|severity| {
        let count = alerts.iter().filter(|it| it.severity == severity).count();
        (severity, count)
    })
}
