//! Linux: `/proc`, read from files that stay open into one buffer.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

use super::{Machine, Process};

/// Room for what is read of one file; `/proc/net/dev` of 100 interfaces fits.
const BUFFER: usize = 16 * 1024;
/// Open descriptors are counted one by one where the kernel does not say how many: not more than this.
const COUNTED: usize = 20_000;
/// Linux counts sectors of 512 bytes whatever a disk's own are.
const SECTOR: u64 = 512;

pub(super) struct System {
    stat: Option<File>,
    io: Option<File>,
    machine: Option<File>,
    memory: Option<File>,
    network: Option<File>,
    disks: Option<File>,
    load: Option<File>,
    files: Option<File>,
    /// Of IPv4 and of IPv6.
    sockets: [Option<File>; 2],
    /// Names of whole disks: partitions and what lies upon disks would count twice.
    whole: Vec<String>,
    state: PathBuf,
    limits: Vec<PathBuf>,
    page: u64,
    total: u64,
    processors: u32,
    buffer: Box<[u8; BUFFER]>,
}

impl System {
    pub(super) fn new(state: &Path) -> Self {
        let open = |path: &str| File::open(path).ok();
        Self {
            stat: open("/proc/self/stat"),
            io: open("/proc/self/io"),
            machine: open("/proc/stat"),
            memory: open("/proc/meminfo"),
            network: open("/proc/net/dev"),
            disks: open("/proc/diskstats"),
            load: open("/proc/loadavg"),
            files: open("/proc/sys/fs/file-nr"),
            sockets: ["/proc/net/sockstat", "/proc/net/sockstat6"].map(open),
            whole: whole_disks(),
            state: existing(state),
            limits: control_group_limits(),
            page: rustix::param::page_size() as u64,
            total: 0,
            // What a control group's quota leaves counts here, too.
            processors: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
            buffer: Box::new([0; BUFFER]),
        }
    }

    pub(super) fn machine(&mut self) -> Machine {
        let mut machine = Machine::default();
        if let Some(text) = read(&self.machine, &mut self.buffer[..512]) {
            machine.busy = busy(text);
        }
        if let Some(text) = read(&self.memory, &mut self.buffer[..4_096]) {
            let (total, available) = (
                kibibytes(text, "MemTotal:"),
                kibibytes(text, "MemAvailable:"),
            );
            if let (Some(total), Some(available)) = (total, available) {
                self.total = total * 1_024;
                let used = total.saturating_sub(available);
                machine.memory_percent = Some(used as f64 / total.max(1) as f64 * 100.0);
            }
        }
        if let Some(text) = read(&self.network, &mut self.buffer[..]) {
            machine.network = Some(network(text));
        }
        machine
    }

    pub(super) fn process(&mut self, process: &mut Process) {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        process.cpu_seconds = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        process.processors = self.processors;
        if let Some((threads, size, pages)) =
            read(&self.stat, &mut self.buffer[..1_024]).and_then(own_stat)
        {
            process.threads = threads;
            process.virtual_size = size;
            process.resident = pages * self.page;
        }
        if let Some(text) = read(&self.io, &mut self.buffer[..1_024]) {
            process.disk_read = number_after(text, "read_bytes:").unwrap_or(0);
            process.disk_written = number_after(text, "\nwrite_bytes:").unwrap_or(0);
        }
    }

    pub(super) fn slow(&mut self, process: &mut Process, machine: &mut Machine) {
        process.descriptors = descriptors();
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        process.descriptor_limit = most.unwrap_or(0);
        let limits = self.limits.iter().filter_map(|path| {
            // "max" is no number: no limit.
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        });
        process.memory_limit = limits
            .chain([self.total])
            .filter(|it| *it > 0)
            .min()
            .unwrap_or(0);
        if let Ok(space) = rustix::fs::statvfs(&self.state)
            && space.f_blocks > 0
        {
            let free = space.f_bavail as f64 / space.f_blocks as f64 * 100.0;
            machine.disk_free_percent = Some(free);
        }
        if let Some(text) = read(&self.disks, &mut self.buffer[..]) {
            machine.disk_bytes = Some(disks(text, &self.whole));
        }
        machine.threads = read(&self.load, &mut self.buffer[..512]).and_then(all_threads);
        machine.descriptors = read(&self.files, &mut self.buffer[..512]).and_then(first_number);
        for file in &self.sockets {
            if let Some(count) = read(file, &mut self.buffer[..1_024]).and_then(tcp_sockets) {
                let others = machine.connections.unwrap_or(0);
                machine.connections = Some(others.saturating_add(count));
            }
        }
    }
}

/// What a file says now, without what follows the last whole character.
fn read<'b>(file: &Option<File>, buffer: &'b mut [u8]) -> Option<&'b str> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.as_ref()?.read_at(&mut buffer[filled..], filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(_) => return None,
        }
    }
    let whole = buffer.get(..filled)?;
    match std::str::from_utf8(whole) {
        Ok(text) => Some(text),
        Err(error) => std::str::from_utf8(whole.get(..error.valid_up_to())?).ok(),
    }
}

/// Not idle and all, in ticks, from `cpu  user nice system idle iowait irq softirq steal …`.
fn busy(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let (mut idle, mut all) = (0.0, 0.0);
    // guest and guest_nice, the last two, are in user and nice already.
    for (at, ticks) in line.split_ascii_whitespace().take(8).enumerate() {
        let ticks: f64 = ticks.parse().ok()?;
        all += ticks;
        if at == 3 || at == 4 {
            idle += ticks;
        }
    }
    Some((all - idle, all))
}

/// Threads, virtual bytes and resident pages of `/proc/self/stat`.
fn own_stat(text: &str) -> Option<(u64, u64, u64)> {
    // The second field is the program's name in parentheses and may hold spaces: count from its end.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // proc(5): num_threads is field 20, vsize 23, rss 24; the first of the rest is 3.
    let threads = fields.nth(17)?.parse().ok()?;
    let size = fields.nth(2)?.parse().ok()?;
    let pages = fields.next()?.parse().ok()?;
    Some((threads, size, pages))
}

/// Threads of `/proc/loadavg`: `0.20 0.18 0.12 1/80 11206`, those that run and all.
fn all_threads(text: &str) -> Option<u64> {
    let (_, all) = text.split_ascii_whitespace().nth(3)?.split_once('/')?;
    all.parse().ok()
}

/// Open files of `/proc/sys/fs/file-nr`: those, those that wait to be used again, the most there may be.
fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// TCP sockets in use, of `/proc/net/sockstat` or `sockstat6`.
fn tcp_sockets(text: &str) -> Option<u64> {
    let named = |line: &str| line.starts_with("TCP:") || line.starts_with("TCP6:");
    number_after(text.lines().find(|line| named(line))?, "inuse ")
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    number_after(text, name)
}

/// Bytes received and sent by all interfaces but the loopback.
fn network(text: &str) -> (u64, u64) {
    let mut sum = (0_u64, 0_u64);
    for line in text.lines().skip(2) {
        let Some((name, counts)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let mut counts = counts.split_ascii_whitespace();
        let mut next = |at| counts.nth(at).and_then(|it| it.parse::<u64>().ok());
        sum.0 = sum.0.saturating_add(next(0).unwrap_or(0));
        sum.1 = sum.1.saturating_add(next(7).unwrap_or(0));
    }
    sum
}

/// Bytes read and written by these disks: fields 6 and 10 are sectors.
fn disks(text: &str, whole: &[String]) -> u64 {
    let mut sum = 0_u64;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let Some(name) = fields.next() else {
            continue;
        };
        if !whole.iter().any(|disk| disk == name) {
            continue;
        }
        let mut next = |at| fields.nth(at).and_then(|it| it.parse::<u64>().ok());
        let sectors = next(2).unwrap_or(0).saturating_add(next(3).unwrap_or(0));
        sum = sum.saturating_add(sectors.saturating_mul(SECTOR));
    }
    sum
}

fn whole_disks() -> Vec<String> {
    let Ok(found) = std::fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    found
        .flatten()
        .filter_map(|disk| disk.file_name().into_string().ok())
        .filter(|name| {
            !["loop", "ram", "zram", "dm-", "md"]
                .iter()
                .any(|it| name.starts_with(it))
        })
        .collect()
}

/// Since Linux 6.2 the folder's size is the number of open descriptors; before, they are counted.
fn descriptors() -> u64 {
    let folder = Path::new("/proc/self/fd");
    match std::fs::metadata(folder).map(|folder| folder.size()) {
        Ok(count) if count > 0 => count,
        // Reading the folder opens one itself.
        _ => std::fs::read_dir(folder).map_or(0, |open| {
            (open.take(COUNTED).count() as u64).saturating_sub(1)
        }),
    }
}

/// The files that may hold a limit of memory: of the process' control group, and of those above it.
fn control_group_limits() -> Vec<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // In a container the group's own folder is often not there, and the root is the container's.
        let group = Path::new(group.trim_start_matches('/'));
        for part in group.ancestors() {
            let path = Path::new(root).join(part).join(file);
            if path.is_file() {
                found.push(path);
            }
        }
    }
    found
}

/// The path itself, or what of it is there.
fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|part| part.exists());
    there
        .filter(|part| !part.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_read() {
        assert_eq!(
            busy("cpu  100 5 20 800 75 0 0 0 9 9\ncpu0 1 1\n"),
            Some((125.0, 1000.0))
        );
        let stat = "7 (a b) c) S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 42 0 100 8192 33 18446744073709551615 1";
        assert_eq!(own_stat(stat), Some((42, 8192, 33)));
        let text = "Inter-|   Receive\n face |bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0\n  eth1:5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n";
        assert_eq!(network(text), (105, 206));
        let text = "   8 0 sda 10 0 20 5 30 0 40 6 0 0 0\n   8 1 sda1 10 0 20 5 30 0 40 6 0 0 0\n 253 0 dm-0 1 1 99 1 1 1 99\n";
        assert_eq!(disks(text, &["sda".to_owned()]), 60 * 512);
        let text = "rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        assert_eq!(number_after(text, "\nwrite_bytes:"), Some(8192));
        assert_eq!(all_threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(first_number("1952\t0\t9223372036854775807\n"), Some(1952));
        let text =
            "sockets: used 290\nTCP: inuse 20 orphan 0 tw 9 alloc 23 mem 2\nUDP: inuse 3 mem 1\n";
        assert_eq!(tcp_sockets(text), Some(20));
        assert_eq!(tcp_sockets("TCP6: inuse 6\nUDP6: inuse 1\n"), Some(6));
        for garbage in ["", "TCP:", "TCP: inuse x", "1/", "0 0 0 1 2"] {
            assert_eq!(all_threads(garbage), None, "{garbage:?}");
            assert_eq!(tcp_sockets(garbage), None, "{garbage:?}");
        }
        for garbage in ["", "cpu", "cpu  x y", "no parenthesis", "1 (a) S 1"] {
            assert_eq!(busy(garbage), None, "{garbage:?}");
            assert_eq!(own_stat(garbage), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_path_that_is_not_there_yet_has_a_disk() {
        assert_eq!(
            existing(Path::new("/tmp/no/such/folder")),
            Path::new("/tmp")
        );
        assert_eq!(existing(Path::new("nothing-here")), Path::new("."));
    }
}
