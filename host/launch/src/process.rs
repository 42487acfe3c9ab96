//! CPU time and memory of a process, from `/proc`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// CPU time of all threads of a process since its start, and of the processes it started.
pub fn cpu_time(process: u32) -> Result<Duration> {
    let path = format!("/proc/{process}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // The scheduler's own account in nanoseconds, where the kernel keeps one: of threads that have ended only the ticks of 10 ms
    // know. Neither says more than there was, so the greater is the better.
    let mut all = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        let schedstat = fs::read_to_string(task.path().join("schedstat"));
        all += schedstat
            .ok()
            .as_deref()
            .and_then(nanoseconds)
            .unwrap_or_default();
    }
    let ticked = ticks(&stat).with_context(|| format!("{path} has another form"))?;
    let mut all = all.max(ticked);
    for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        for child in children(&task.path()) {
            all += cpu_time(child).unwrap_or_default();
        }
    }
    Ok(all)
}

/// Resident memory of a process and of those it started, bytes; `None` where the system does not say.
pub fn resident(process: u32) -> Option<u64> {
    // "VmRSS:    12345 kB" (proc_pid_status(5)).
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let children = tasks.flatten().flat_map(|task| children(&task.path()));
    Some(kib * 1024 + children.filter_map(resident).sum::<u64>())
}

/// The processes a thread started.
fn children(task: &Path) -> Vec<u32> {
    // A thread may have ended since it was listed.
    let text = fs::read_to_string(task.join("children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}

/// The first field of `schedstat`: time on the CPU in nanoseconds (Documentation/scheduler/sched-stats).
fn nanoseconds(schedstat: &str) -> Option<Duration> {
    let ns: u64 = schedstat.split_whitespace().next()?.parse().ok()?;
    (ns > 0).then(|| Duration::from_nanos(ns))
}

/// Fields 14 and 15 of `/proc/PID/stat`, in ticks of a hundredth of a second (proc(5); the kernel's USER_HZ is 100).
fn ticks(stat: &str) -> Option<Duration> {
    // The program's name may hold spaces and parentheses: what follows the last one is regular.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_after_the_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(ticks(stat), Some(Duration::from_secs(3)));
        assert_eq!(ticks("42 (x"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let before = resident(std::process::id()).expect("/proc");
        let held = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = resident(std::process::id()).expect("/proc");
        assert!(after > before + (32 << 20), "{before} {after}");
        drop(held);
        assert_eq!(resident(u32::MAX), None);
    }

    #[test]
    fn this_process_has_used_some() {
        let before = cpu_time(std::process::id()).expect("/proc");
        let mut sum = 0_u64;
        // On a busy machine it may be a while before any is given.
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while cpu_time(std::process::id()).expect("/proc") <= before {
            assert!(std::time::Instant::now() < until, "none in 20 s");
            for _ in 0..1_000_000 {
                sum = sum.wrapping_mul(31).wrapping_add(7);
            }
            std::hint::black_box(sum);
        }
    }
}
