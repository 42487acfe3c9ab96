//! Measures the process and its machine.
//!
//! What changes slowly or costs much to read (limits, free space, open descriptors, what the host counts itself) is
//! looked at once a second at most; the rest with every sample, which on Linux allocates nothing.

#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "other.rs"]
mod system;

use std::path::Path;
use std::time::Duration;

use crate::metric::{Metric, Sample};
use system::System;

/// How often at most the slower values are read, and over how long the host's own rates are taken.
const SLOW: Duration = Duration::from_secs(1);
/// Exchanges below which their share of errors means nothing.
const FEW: f64 = 10.0;

/// The process as last measured.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Process {
    /// Processor time since the start, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident: u64,
    /// Virtual memory, bytes.
    pub virtual_size: u64,
    /// Memory it may have, bytes; 0 when it is not known.
    pub memory_limit: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Descriptors it may have; 0 when it is not known.
    pub descriptor_limit: u64,
    /// Processors it may use.
    pub processors: u32,
    /// Bytes read from disks since the start.
    pub disk_read: u64,
    /// Bytes written to disks since the start.
    pub disk_written: u64,
}

/// What the host itself counts. Counts are since the start.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Load {
    /// Connections of clients.
    pub connections: u64,
    /// Exchanges in flight.
    pub in_flight: u64,
    /// Exchanges ended.
    pub ended: u64,
    /// Of those, with 5xx.
    pub failed: u64,
    /// Of those, with 429.
    pub limited: u64,
    /// Responses for which a cache was looked into.
    pub looked_up: u64,
    /// Of those, reused.
    pub reused: u64,
    /// Body bytes filters took off responses.
    pub saved: u64,
    /// Bytes received from clients and upstreams.
    pub received: u64,
    /// Bytes sent to them.
    pub sent: u64,
    /// Median and 99th percentile of recent exchanges, microseconds.
    pub latency_us: Option<(u64, u64)>,
}

/// The machine, as a system reads it. Counts are since the start; `None` where the system does not say.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Machine {
    pub(crate) busy: Option<(f64, f64)>,
    pub(crate) memory_percent: Option<f64>,
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) disk_free_percent: Option<f64>,
    pub(crate) network: Option<(u64, u64)>,
    pub(crate) threads: Option<u64>,
    pub(crate) descriptors: Option<u64>,
    pub(crate) connections: Option<u64>,
}

/// Reads what there is to read.
pub struct Probe {
    system: System,
    process: Process,
    before: Option<Before>,
    slow: Option<Slow>,
}

#[derive(Clone, Copy)]
struct Before {
    at: Duration,
    process: Process,
    machine: Machine,
}

/// What is looked at once a second.
#[derive(Clone, Copy)]
struct Slow {
    at: Duration,
    load: Load,
    machine_disk: Option<u64>,
    /// Values of these metrics until the next look.
    values: Sample,
}

impl Probe {
    /// A probe; `state` is a folder or file on the disk whose free space counts.
    pub fn new(state: &Path) -> Self {
        Self {
            system: System::new(state),
            process: Process::default(),
            before: None,
            slow: None,
        }
    }

    /// The process as of the last sample.
    pub const fn process(&self) -> Process {
        self.process
    }

    /// Measures. `now` is the time since some start; `load` is asked once a second at most.
    pub fn sample(&mut self, now: Duration, load: impl FnOnce() -> Load) -> Sample {
        let due = self
            .slow
            .is_none_or(|slow| now.saturating_sub(slow.at) >= SLOW);
        let mut machine = self.system.machine();
        self.system.process(&mut self.process);
        if due {
            self.system.slow(&mut self.process, &mut machine);
            self.slow = Some(self.look(now, load(), &machine));
        }
        let mut sample = self.slow.map(|slow| slow.values).unwrap_or_default();
        self.fill(&mut sample, now, &machine);
        self.before = Some(Before {
            at: now,
            process: self.process,
            machine,
        });
        sample
    }

    fn fill(&self, sample: &mut Sample, now: Duration, machine: &Machine) {
        let process = &self.process;
        sample.set(Metric::MemoryResident, process.resident as f64);
        sample.set(Metric::MemoryVirtual, process.virtual_size as f64);
        sample.set(Metric::Threads, process.threads as f64);
        sample.set(Metric::Descriptors, process.descriptors as f64);
        let mut share = |metric, part: u64, whole: u64| {
            if whole > 0 {
                sample.set(metric, part as f64 / whole as f64 * 100.0);
            }
        };
        share(Metric::Memory, process.resident, process.memory_limit);
        share(
            Metric::DescriptorsUsed,
            process.descriptors,
            process.descriptor_limit,
        );
        if let Some(percent) = machine.memory_percent {
            sample.set(Metric::MachineMemory, percent);
        }
        let Some(before) = &self.before else {
            return;
        };
        let seconds = now.saturating_sub(before.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let took = process.cpu_seconds - before.process.cpu_seconds;
        let processors = f64::from(process.processors.max(1));
        sample.set(Metric::ProcessCpu, took / seconds / processors * 100.0);
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        let (read, written) = (process.disk_read, process.disk_written);
        sample.set(Metric::DiskRead, rate(read, before.process.disk_read));
        sample.set(
            Metric::DiskWrite,
            rate(written, before.process.disk_written),
        );
        if let (Some((busy, all)), Some((busy_before, all_before))) =
            (machine.busy, before.machine.busy)
            && all > all_before
        {
            let percent = (busy - busy_before) / (all - all_before) * 100.0;
            sample.set(Metric::MachineCpu, percent.clamp(0.0, 100.0));
        }
        if let (Some(new), Some(old)) = (machine.network, before.machine.network) {
            sample.set(Metric::NetworkIn, rate(new.0, old.0));
            sample.set(Metric::NetworkOut, rate(new.1, old.1));
        }
    }

    fn look(&self, now: Duration, load: Load, machine: &Machine) -> Slow {
        let mut values = Sample::default();
        values.set(Metric::Connections, load.connections as f64);
        values.set(Metric::InFlight, load.in_flight as f64);
        if let Some((p50, p99)) = load.latency_us {
            values.set(Metric::LatencyP50, p50 as f64 / 1e3);
            values.set(Metric::LatencyP99, p99 as f64 / 1e3);
        }
        if let Some(percent) = machine.disk_free_percent {
            values.set(Metric::DiskFree, percent);
        }
        for (metric, count) in [
            (Metric::MachineThreads, machine.threads),
            (Metric::MachineDescriptors, machine.descriptors),
            (Metric::MachineConnections, machine.connections),
        ] {
            if let Some(count) = count {
                values.set(metric, count as f64);
            }
        }
        if let Some(before) = &self.slow {
            let seconds = now.saturating_sub(before.at).as_secs_f64();
            let by = |new: u64, old: u64| new.saturating_sub(old) as f64;
            let ended = by(load.ended, before.load.ended);
            values.set(Metric::Requests, ended / seconds);
            values.set(
                Metric::Limited,
                by(load.limited, before.load.limited) / seconds,
            );
            let (received, sent) = (
                by(load.received, before.load.received),
                by(load.sent, before.load.sent),
            );
            values.set(Metric::ProcessNetworkIn, received / seconds);
            values.set(Metric::ProcessNetworkOut, sent / seconds);
            values.set(Metric::Saved, by(load.saved, before.load.saved) / seconds);
            if ended >= FEW {
                let failed = by(load.failed, before.load.failed);
                values.set(Metric::Errors, failed / ended * 100.0);
            }
            let looked = by(load.looked_up, before.load.looked_up);
            if looked > 0.0 {
                let reused = by(load.reused, before.load.reused);
                values.set(Metric::HitRatio, reused / looked * 100.0);
            }
            if let (Some(new), Some(old)) = (machine.disk_bytes, before.machine_disk) {
                values.set(Metric::MachineDisk, by(new, old) / seconds);
            }
        }
        Slow {
            at: now,
            load,
            machine_disk: machine.disk_bytes,
            values,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_machine_are_measured() {
        let mut probe = Probe::new(Path::new("/tmp"));
        probe.sample(Duration::ZERO, Load::default);
        // Something to measure.
        let busy = std::time::Instant::now();
        let mut kept = Vec::new();
        while busy.elapsed() < Duration::from_millis(60) {
            kept.push(std::hint::black_box(vec![1_u8; 4_096]));
        }
        let load = Load {
            connections: 3,
            ended: 50,
            failed: 5,
            looked_up: 10,
            reused: 9,
            received: 4_000,
            sent: 500,
            ..Load::default()
        };
        let sample = probe.sample(Duration::from_secs(1), || load);
        for metric in [
            Metric::ProcessCpu,
            Metric::MachineCpu,
            Metric::Memory,
            Metric::MemoryResident,
            Metric::MemoryVirtual,
            Metric::MachineMemory,
            Metric::DiskFree,
            Metric::NetworkIn,
            Metric::MachineThreads,
            Metric::MachineDescriptors,
            Metric::MachineConnections,
            Metric::Threads,
            Metric::Descriptors,
            Metric::DescriptorsUsed,
        ] {
            let value = sample.get(metric).unwrap_or_else(|| panic!("{metric:?}"));
            assert!(value >= 0.0, "{metric:?}: {value}");
        }
        for (metric, want) in [
            (Metric::Connections, 3.0),
            (Metric::Requests, 50.0),
            (Metric::Errors, 10.0),
            (Metric::HitRatio, 90.0),
            (Metric::ProcessNetworkIn, 4_000.0),
            (Metric::ProcessNetworkOut, 500.0),
        ] {
            let got = sample.get(metric).unwrap_or_else(|| panic!("{metric:?}"));
            assert!((got - want).abs() < 0.01, "{metric:?}: {got}");
        }
        assert_eq!(sample.get(Metric::LatencyP99), None);
        let process = probe.process();
        assert!(process.resident > 1 << 20, "{process:?}");
        assert!(process.threads >= 2, "{process:?}");
        assert!(process.descriptors >= 3, "{process:?}");
        assert!(process.cpu_seconds > 0.0, "{process:?}");
    }
}
