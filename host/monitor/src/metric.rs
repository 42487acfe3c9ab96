//! What is measured, and one measurement of all of it.

use serde::{Deserialize, Serialize};

/// In what a metric is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Hundredths of a whole.
    Percent,
    /// Bytes.
    Bytes,
    /// Bytes in a second.
    BytesPerSecond,
    /// Things in a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Things.
    Count,
}

macro_rules! metrics {
    ($($variant:ident, $name:literal, $unit:ident, $text:literal;)*) => {
        /// A thing that is measured.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Metric {
            $(#[doc = $text] $variant,)*
        }

        impl Metric {
            /// All of them, in the order of their values in a [`Sample`].
            pub const ALL: [Self; { [$($name),*].len() }] = [$(Self::$variant),*];

            /// Its name in configuration, JSON and labels.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Its unit.
            pub const fn unit(self) -> Unit {
                match self { $(Self::$variant => Unit::$unit,)* }
            }

            /// What it is, in a phrase.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

metrics! {
    ProcessCpu, "process_cpu", Percent, "Processor time of the process, percent of all processors it may use.";
    MachineCpu, "machine_cpu", Percent, "Processor time of the machine that is not idle, percent.";
    Memory, "memory", Percent, "Resident memory of the process, percent of what it may have (the machine's, or less by its control group).";
    MemoryResident, "memory_resident", Bytes, "Resident memory of the process.";
    MemoryVirtual, "memory_virtual", Bytes, "Virtual memory of the process.";
    MachineMemory, "machine_memory", Percent, "Memory of the machine that is not available, percent.";
    DiskRead, "disk_read", BytesPerSecond, "Bytes the process reads from disks in a second.";
    DiskWrite, "disk_write", BytesPerSecond, "Bytes the process writes to disks in a second.";
    MachineDisk, "machine_disk", BytesPerSecond, "Bytes the machine reads from and writes to disks in a second.";
    DiskFree, "disk_free", Percent, "Free space where the host keeps its state, percent.";
    NetworkIn, "network_in", BytesPerSecond, "Bytes the machine receives in a second, without the loopback.";
    NetworkOut, "network_out", BytesPerSecond, "Bytes the machine sends in a second, without the loopback.";
    ProcessNetworkIn, "process_network_in", BytesPerSecond, "Bytes the host receives from clients and upstreams in a second.";
    ProcessNetworkOut, "process_network_out", BytesPerSecond, "Bytes the host sends to clients and upstreams in a second.";
    Threads, "threads", Count, "Threads of the process.";
    Descriptors, "descriptors", Count, "Open descriptors of the process.";
    DescriptorsUsed, "descriptors_used", Percent, "Open descriptors, percent of what the process may have.";
    MachineThreads, "machine_threads", Count, "Threads of all processes of the machine.";
    MachineDescriptors, "machine_descriptors", Count, "Open files of all processes of the machine.";
    MachineConnections, "machine_connections", Count, "TCP sockets in use on the machine (in a container: in its network).";
    Connections, "connections", Count, "Connections of clients.";
    InFlight, "in_flight", Count, "Exchanges in flight.";
    Requests, "requests", PerSecond, "Exchanges ended in a second.";
    Errors, "errors", Percent, "Exchanges that ended with 5xx, percent; unknown below ten in a second.";
    LatencyP50, "latency_p50", Milliseconds, "Median time of an exchange over ten seconds, of the slowest listener.";
    LatencyP99, "latency_p99", Milliseconds, "Time within which 99 percent of the exchanges of ten seconds ended, of the slowest listener.";
    HitRatio, "hit_ratio", Percent, "Reused responses, percent of those looked up in a cache.";
    Saved, "saved", BytesPerSecond, "Body bytes that filters took off responses in a second.";
    Limited, "limited", PerSecond, "Requests refused by limits in a second.";
}

impl Metric {
    /// The greatest value it can have, if there is one.
    pub const fn most(self) -> Option<f64> {
        match self.unit() {
            Unit::Percent => Some(100.0),
            _ => None,
        }
    }
}

/// The number of metrics.
pub const METRICS: usize = Metric::ALL.len();

/// The values of all metrics at a moment; not a number where one is not known.
#[derive(Clone, Copy, Debug)]
pub struct Sample([f32; METRICS]);

impl Default for Sample {
    fn default() -> Self {
        Self([f32::NAN; METRICS])
    }
}

impl Sample {
    /// A value, if it is known.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        let value = self.0[metric as usize];
        value.is_finite().then_some(f64::from(value))
    }

    /// Sets a value.
    pub fn set(&mut self, metric: Metric, value: f64) {
        self.0[metric as usize] = value as f32;
    }

    /// With a value; for samples that are made up.
    #[must_use]
    pub fn with(mut self, metric: Metric, value: f64) -> Self {
        self.set(metric, value);
        self
    }

    pub(crate) const fn raw(&self) -> &[f32; METRICS] {
        &self.0
    }
}

/// A value in words: `83.0 %`, `1.5 GiB`, `250 ms`.
pub fn shown(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Percent => format!("{value:.1} %"),
        Unit::Bytes => bytes(value),
        Unit::BytesPerSecond => format!("{}/s", bytes(value)),
        Unit::PerSecond => format!("{value:.1}/s"),
        Unit::Milliseconds => format!("{value:.1} ms"),
        Unit::Count => format!("{value:.0}"),
    }
}

fn bytes(value: f64) -> String {
    let mut value = value;
    for unit in ["B", "KiB", "MiB"] {
        if value.abs() < 1024.0 {
            return match unit {
                "B" => format!("{value:.0} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.2} GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_configuration_reads() {
        for metric in Metric::ALL {
            let json = format!("\"{}\"", metric.name());
            assert_eq!(serde_json::from_str::<Metric>(&json).unwrap(), metric);
        }
    }

    #[test]
    fn values_in_words() {
        for (unit, value, want) in [
            (Unit::Percent, 83.04, "83.0 %"),
            (Unit::Bytes, 512.0, "512 B"),
            (Unit::Bytes, 1_610_612_736.0, "1.50 GiB"),
            (Unit::BytesPerSecond, 2048.0, "2.0 KiB/s"),
            (Unit::Milliseconds, 3.25, "3.2 ms"),
            (Unit::Count, 41.0, "41"),
        ] {
            assert_eq!(shown(unit, value), want);
        }
    }

    #[test]
    fn what_was_not_measured_is_unknown() {
        let sample = Sample::default().with(Metric::Threads, 3.0);
        assert_eq!(sample.get(Metric::Threads), Some(3.0));
        assert_eq!(sample.get(Metric::Memory), None);
    }
}
