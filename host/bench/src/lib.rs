//! Load, latency and what can be said of two chains with confidence: `edgeweir bench`.
//!
//! The sides are processes of their own and are measured in turn, so that what the machine does meanwhile meets both; what
//! is said of them is a ratio with its interval, not two numbers.
#![forbid(unsafe_code)]

mod baseline;
pub mod command;
mod cost;
mod html;
mod load;
mod measure;
mod origin;
mod report;
pub mod statistics;
mod svg;

pub use cost::{CallCost, FilterCost, bottleneck};
pub use load::{Load, Tally, run as run_load};
pub use origin::Origin;
pub use report::{Metric, Report, Round, SideReport};
