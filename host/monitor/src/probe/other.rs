//! Other systems: what `sysinfo` knows. Control groups and descriptors are Linux's; they stay unknown here.

use std::path::{Path, PathBuf};

use sysinfo::{Disks, Networks, Pid, ProcessRefreshKind, ProcessesToUpdate};

use super::{Machine, Process};

pub(super) struct System {
    system: sysinfo::System,
    networks: Networks,
    own: Option<Pid>,
    state: PathBuf,
    /// Processor time since the start, summed from shares: not every system counts it.
    busy: (f64, f64),
    looked: std::time::Instant,
}

impl System {
    pub(super) fn new(state: &Path) -> Self {
        Self {
            system: sysinfo::System::new(),
            networks: Networks::new_with_refreshed_list(),
            own: sysinfo::get_current_pid().ok(),
            state: std::path::absolute(state).unwrap_or_else(|_| state.to_owned()),
            busy: (0.0, 0.0),
            looked: std::time::Instant::now(),
        }
    }

    pub(super) fn machine(&mut self) -> Machine {
        self.system.refresh_cpu_usage();
        self.system.refresh_memory();
        self.networks.refresh(true);
        let passed = self.looked.elapsed().as_secs_f64();
        self.looked = std::time::Instant::now();
        self.busy.0 += passed * f64::from(self.system.global_cpu_usage()) / 100.0;
        self.busy.1 += passed;
        let total = self.system.total_memory();
        let used = total.saturating_sub(self.system.available_memory());
        let network = self.networks.values().fold((0, 0), |sum: (u64, u64), it| {
            (
                sum.0.saturating_add(it.total_received()),
                sum.1.saturating_add(it.total_transmitted()),
            )
        });
        Machine {
            busy: Some(self.busy),
            memory_percent: (total > 0).then(|| used as f64 / total as f64 * 100.0),
            network: Some(network),
            ..Machine::default()
        }
    }

    pub(super) fn process(&mut self, process: &mut Process) {
        let Some(own) = self.own else {
            return;
        };
        let wanted = ProcessRefreshKind::nothing()
            .with_cpu()
            .with_memory()
            .with_disk_usage();
        self.system
            .refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, wanted);
        process.processors = std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1));
        process.memory_limit = self.system.total_memory();
        if let Some(seen) = self.system.process(own) {
            process.cpu_seconds = seen.accumulated_cpu_time() as f64 / 1e3;
            process.resident = seen.memory();
            process.virtual_size = seen.virtual_memory();
            process.disk_read = seen.disk_usage().total_read_bytes;
            process.disk_written = seen.disk_usage().total_written_bytes;
        }
    }

    pub(super) fn slow(&mut self, _: &mut Process, machine: &mut Machine) {
        let disks = Disks::new_with_refreshed_list();
        let beneath = disks
            .iter()
            .filter(|disk| self.state.starts_with(disk.mount_point()))
            .max_by_key(|disk| disk.mount_point().as_os_str().len());
        if let Some(disk) = beneath.filter(|disk| disk.total_space() > 0) {
            let free = disk.available_space() as f64 / disk.total_space() as f64 * 100.0;
            machine.disk_free_percent = Some(free);
        }
    }
}
