//! Watches a process and its machine, and decides what to make of it.
//!
//! [`Probe`] measures (`/proc`, a few system calls); [`Monitor`] is a pure state machine over what was measured: history
//! of fixed size, alarms, the level at which filters save resources, forecasts, leaks, regressions and advice.
//!
//! ```
//! use std::time::Duration;
//! use edgeweir_host_monitor::{Event, Level, Metric, Monitor, Sample, Settings};
//!
//! let mut monitor = Monitor::new(Settings::default());
//! let short = Sample::default().with(Metric::Memory, 95.0);
//! let events = monitor.observe(&short, Duration::from_millis(100));
//! assert!(events.iter().any(|event| matches!(event, Event::Moved(_))));
//! assert_eq!(monitor.level(), Level::Maximum);
//! ```
#![forbid(unsafe_code)]

mod advice;
mod alarm;
mod baseline;
mod filters;
mod history;
mod leak;
mod level;
mod metric;
mod monitor;
mod probe;
mod trend;

pub use advice::{Advice, Bounds};
pub use alarm::{Beyond, Bound, Severity, Threshold, Unsound, defaults as default_thresholds};
pub use baseline::{Baseline, Costs, EXCHANGES, Regression};
pub use filters::{FilterSeen, Recent};
pub use history::{History, Point, STEP};
pub use leak::{Kept, Leak};
pub use level::{Level, Mode, Move, Rule, Why, defaults as default_rules};
pub use metric::{METRICS, Metric, Sample, Unit, shown};
pub use monitor::{Alert, Event, Forecast, Monitor, SURVEY, Settings};
pub use probe::{Load, Probe, Process};
pub use trend::Trend;
