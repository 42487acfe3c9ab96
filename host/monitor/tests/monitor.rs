//! The whole monitor over made-up time.

use std::time::Duration;

use edgeweir_host_monitor::{
    Baseline, Bound, Bounds, Event, FilterSeen, Level, Metric, Mode, Monitor, SURVEY, Sample,
    Settings, Severity, Threshold,
};

const TENTH: Duration = Duration::from_millis(100);

fn memory(percent: f64) -> Sample {
    Sample::default().with(Metric::Memory, percent)
}

fn levels(events: &[Event]) -> Vec<Level> {
    let moved = events.iter().filter_map(|event| match event {
        Event::Moved(moved) => Some(moved.to),
        _ => None,
    });
    moved.collect()
}

/// The defaults, samples ten a second: memory runs out at once, stays so for three seconds, and is there again.
#[test]
fn an_emergency_begins_with_the_sample_that_crosses_and_ends_by_itself() {
    let mut monitor = Monitor::new(Settings::default());
    let mut seen = Vec::new();
    for at in 0..600_u32 {
        let value = if (50..80).contains(&at) { 95.0 } else { 40.0 };
        let now = TENTH * at;
        for event in monitor.observe(&memory(value), now) {
            let what = match event {
                Event::Moved(moved) => moved.to.name(),
                Event::Raised { threshold, .. } => threshold.severity.name(),
                Event::Cleared { .. } => "clear",
                other => panic!("{other:?}"),
            };
            seen.push((now.as_millis(), what));
        }
    }
    assert_eq!(
        seen,
        [
            // The sample at 5 s is the first above the line: no later one is waited for.
            (5_000, "maximum"),
            (5_000, "critical"),
            // The warning must hold for 5 s, which it does not.
            (8_000, "clear"),
            // Ten seconds after the last bad sample, and every ten seconds on.
            (18_000, "aggressive"),
            (28_000, "standard"),
            (38_000, "minimal"),
        ]
    );
}

#[test]
fn what_is_wrong_is_listed_worst_first() {
    let mut monitor = Monitor::new(Settings::default());
    let bad = memory(95.0).with(Metric::DiskFree, 8.0);
    for at in 0..150 {
        monitor.observe(&bad, TENTH * at);
    }
    let alerts = monitor.alerts();
    let seen: Vec<_> = alerts
        .iter()
        .map(|alert| (alert.severity, alert.text.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            (Severity::Critical, "memory above 92.0 %: 95.0 %"),
            (Severity::Warning, "memory above 80.0 %: 95.0 %"),
            (Severity::Warning, "disk_free below 10.0 %: 8.0 %"),
        ]
    );
    let holding: Vec<_> = monitor.holding().collect();
    assert_eq!(holding, ["memory-critical", "memory-high"]);
}

#[test]
fn a_threshold_ahead_is_foreseen_with_the_time_left() {
    let threshold = Threshold {
        bound: Bound::above(Metric::MemoryResident, 2e9, 1.9e9).unwrap(),
        severity: Severity::Critical,
        hold: Duration::ZERO,
        cooldown: Duration::ZERO,
    };
    let mut monitor = Monitor::new(Settings {
        thresholds: vec![threshold],
        ..Settings::default()
    });
    // 1 MB a second from 1 GB on, for five minutes.
    for second in 0..300_u64 {
        let sample = Sample::default().with(Metric::MemoryResident, 1e9 + 1e6 * second as f64);
        monitor.observe(&sample, Duration::from_secs(second));
    }
    let now = Duration::from_secs(300);
    monitor.survey(&[], Bounds::default(), &Baseline::default(), now);
    let [forecast] = monitor.forecasts() else {
        panic!("{:?}", monitor.forecasts());
    };
    assert_eq!(forecast.metric, Metric::MemoryResident);
    let left = forecast.left.as_secs();
    assert!((690..=720).contains(&left), "{left} s, want about 700");
    assert!(forecast.trend.fits());
}

#[test]
fn leaks_and_regressions_are_told_once_and_listed_as_long_as_they_last() {
    let good = Baseline {
        memory_bytes: 1e8,
        ..Baseline::default()
    };
    let worse = Baseline {
        memory_bytes: 2e8,
        ..Baseline::default()
    };
    let mut monitor = Monitor::new(Settings {
        baseline: Some((good.clone(), 25.0)),
        ..Settings::default()
    });
    let mut events = Vec::new();
    for at in 0..100_u32 {
        let filter = FilterSeen {
            name: "store".to_owned(),
            exchanges: u64::from(at) * 1_000,
            memory: 10_000_000 + u64::from(at) * 500_000,
            ..FilterSeen::default()
        };
        events.extend(monitor.survey(&[filter], Bounds::default(), &worse, SURVEY * at));
    }
    let kinds: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Leaking(leak) => leak.filter.as_str(),
            Event::Regressed(found) => found.what,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, ["memory_bytes", "store"]);
    let alerts = monitor.alerts();
    let texts: Vec<_> = alerts.iter().map(|alert| alert.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "memory_bytes of the host is 200000000, 100 % over the baseline's 100000000",
            "linear memory of store grew by 171.7 MiB an hour for 16 min under constant load: 56.7 MiB now",
        ]
    );
    monitor.survey(&[], Bounds::default(), &good, SURVEY * 101);
    assert_eq!(monitor.alerts(), []);
}

#[test]
fn a_level_that_was_set_stays() {
    let mut monitor = Monitor::new(Settings {
        mode: Mode::Fixed(Level::Disabled),
        ..Settings::default()
    });
    let events = monitor.observe(&memory(99.0), Duration::ZERO);
    assert_eq!(levels(&events), []);
    assert_eq!(monitor.level(), Level::Disabled);
    monitor.set(Mode::Automatic);
    let events = monitor.observe(&memory(99.0), TENTH);
    assert_eq!(levels(&events), [Level::Maximum]);
}
