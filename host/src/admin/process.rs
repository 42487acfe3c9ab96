//! What the process itself takes, from `/proc`.

/// The process now; zeros where `/proc` is not there.
#[derive(Clone, Copy, Default, Debug)]
pub struct Process {
    /// Resident memory, bytes.
    pub resident: u64,
    /// Virtual memory, bytes.
    pub virtual_size: u64,
    /// Processor time since the start, seconds.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

/// Linux counts processor time for user space in hundredths of a second, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    /// Reads `/proc/self`.
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The second field is the program's name in parentheses and may hold spaces: count from its end.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Self {
            resident: field("VmRSS:") * 1_024,
            virtual_size: field("VmSize:") * 1_024,
            cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
            threads: field("Threads:"),
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
        }
    }
}
