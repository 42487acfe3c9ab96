//! WASI preview 1 as far as a filter needs it: clocks, randomness, standard output to the log. No files, no
//! arguments, and the plugin's own environment.

use std::time::{Duration, Instant};

use wasmtime::{Caller, ExternType, Linker, Module, Val, ValType};

use crate::host::{Guest, Host, view, write, write_u32};
use crate::imports::log::{nanos, say};

/// What the monotonic clock says at first: Go's runtime takes 0 for a clock that fails, and gives up.
const BEFORE: Duration = Duration::from_secs(1);
/// The two names the interface has had.
const MODULES: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];
/// Functions that exist but have nothing to act on here.
const WITHOUT_EFFECT: [&str; 34] = [
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "proc_raise",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

const SUCCESS: u32 = 0;
const BAD_DESCRIPTOR: u32 = 8;
const FAULT: u32 = 21;
const INVALID: u32 = 28;
const IO: u32 = 29;
const NOT_SUPPORTED: u32 = 58;
/// The longest line of standard output; a longer one is split, bytes.
const LINE: usize = 8 << 10;
/// Slices of one `fd_write`.
const SLICES: u32 = 1_024;

/// A guest that exits; a trap everywhere but in `_start`.
#[derive(Debug)]
pub(crate) struct ProcExit(pub(crate) u32);

impl std::fmt::Display for ProcExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the module called proc_exit({})", self.0)
    }
}

impl std::error::Error for ProcExit {}

macro_rules! link {
    ($linker:expr, $calls:expr, $from:expr, $($name:literal => $path:path [$($arg:ident: $ty:ty),*];)*) => { $(
        let call = $calls.len();
        $calls.push($name);
        $linker.func_wrap($from, $name, move |mut caller: Caller<'_, Host>, $($arg: $ty),*| -> u32 {
            caller.data_mut().count(call);
            match $path(&mut caller, $($arg),*) { Ok(()) => SUCCESS, Err(errno) => errno }
        })?;
    )* };
}

type Errno = Result<(), u32>;

pub(super) fn link(
    linker: &mut Linker<Host>,
    module: &Module,
    calls: &mut Vec<&'static str>,
) -> wasmtime::Result<()> {
    let origin = Instant::now();
    for from in MODULES {
        link! { linker, calls, from,
            "args_get" => nothing2[a: u32, b: u32];
            "args_sizes_get" => no_entries[count_at: u32, size_at: u32];
            "environ_get" => variables[entries_at: u32, at: u32];
            "environ_sizes_get" => variables_size[count_at: u32, size_at: u32];
            "clock_res_get" => clock_resolution[clock: u32, at: u32];
            "fd_fdstat_get" => descriptor[fd: u32, at: u32];
            "fd_write" => write_out[fd: u32, slices: u32, count: u32, at: u32];
            "poll_oneoff" => no_polls[a: u32, b: u32, c: u32, d: u32];
            "random_get" => random[at: u32, size: u32];
            "sched_yield" => nothing[];
        }
        let call = calls.len();
        calls.push("clock_time_get");
        linker.func_wrap(
            from,
            "clock_time_get",
            move |mut caller: Caller<'_, Host>, clock: u32, _by: u64, at: u32| {
                caller.data_mut().count(call);
                let world = &caller.data().common.world;
                let now = match clock {
                    0 => nanos(world.wall()),
                    1 => {
                        let told = world.clock.as_ref().map(|clock| clock.monotonic());
                        let since = told.unwrap_or_else(|| origin.elapsed());
                        u64::try_from((since + BEFORE).as_nanos()).unwrap_or(u64::MAX)
                    }
                    _ => return INVALID,
                };
                write(&mut caller, at, &now.to_le_bytes()).map_or(FAULT, |()| SUCCESS)
            },
        )?;
        linker.func_wrap(from, "proc_exit", |code: u32| -> wasmtime::Result<()> {
            Err(wasmtime::Error::from(ProcExit(code)))
        })?;
    }
    for import in module
        .imports()
        .filter(|import| MODULES.contains(&import.module()))
    {
        let ExternType::Func(ty) = import.ty() else {
            continue;
        };
        let one_errno =
            ty.results().len() == 1 && ty.results().all(|result| matches!(result, ValType::I32));
        let known = WITHOUT_EFFECT.contains(&import.name());
        if known && one_errno {
            linker.allow_shadowing(true);
            linker.func_new(
                import.module(),
                import.name(),
                ty,
                |_caller, _params, results| {
                    results.fill(Val::I32(BAD_DESCRIPTOR as i32));
                    Ok(())
                },
            )?;
            linker.allow_shadowing(false);
        }
    }
    Ok(())
}

fn nothing(_guest: &mut Guest<'_>) -> Errno {
    Ok(())
}

fn nothing2(_guest: &mut Guest<'_>, _a: u32, _b: u32) -> Errno {
    Ok(())
}

/// A filter does not wait: it would hold up its worker.
fn no_polls(_guest: &mut Guest<'_>, _a: u32, _b: u32, _c: u32, _d: u32) -> Errno {
    Err(NOT_SUPPORTED)
}

fn no_entries(guest: &mut Guest<'_>, count_at: u32, size_at: u32) -> Errno {
    write_u32(guest, count_at, 0)
        .and_then(|()| write_u32(guest, size_at, 0))
        .map_err(|_| FAULT)
}

fn variables_size(guest: &mut Guest<'_>, count_at: u32, size_at: u32) -> Errno {
    let all = &guest.data().common.environment;
    let size: usize = all.iter().map(Vec::len).sum();
    let (count, size) = (all.len() as u32, size as u32);
    write_u32(guest, count_at, count)
        .and_then(|()| write_u32(guest, size_at, size))
        .map_err(|_| FAULT)
}

fn variables(guest: &mut Guest<'_>, entries_at: u32, at: u32) -> Errno {
    let common = std::sync::Arc::clone(&guest.data().common);
    let (mut entry_at, mut at) = (entries_at, at);
    for entry in &common.environment {
        write_u32(guest, entry_at, at).map_err(|_| FAULT)?;
        write(guest, at, entry).map_err(|_| FAULT)?;
        // Both are within memory, which a guest's 32 bits reach.
        entry_at = entry_at.wrapping_add(4);
        at = at.wrapping_add(entry.len() as u32);
    }
    Ok(())
}

fn clock_resolution(guest: &mut Guest<'_>, clock: u32, at: u32) -> Errno {
    if clock > 1 {
        return Err(INVALID);
    }
    write(guest, at, &1_u64.to_le_bytes()).map_err(|_| FAULT)
}

/// The three standard descriptors are character devices without rights besides those to write.
fn descriptor(guest: &mut Guest<'_>, fd: u32, at: u32) -> Errno {
    if fd > 2 {
        return Err(BAD_DESCRIPTOR);
    }
    let mut stat = [0_u8; 24];
    stat[0] = 2;
    stat[8] = if fd == 0 { 0 } else { 1 << 6 };
    write(guest, at, &stat).map_err(|_| FAULT)
}

fn random(guest: &mut Guest<'_>, at: u32, size: u32) -> Errno {
    let memory = guest.data().memory.ok_or(FAULT)?;
    let (start, end) = (at as usize, (at as usize).saturating_add(size as usize));
    let bytes = memory
        .data_mut(&mut *guest)
        .get_mut(start..end)
        .ok_or(FAULT)?;
    getrandom::fill(bytes).map_err(|_| IO)
}

/// Standard output and error become log lines.
fn write_out(guest: &mut Guest<'_>, fd: u32, slices: u32, count: u32, at: u32) -> Errno {
    if !(1..=2).contains(&fd) {
        return Err(BAD_DESCRIPTOR);
    }
    if count > SLICES {
        return Err(INVALID);
    }
    let mut total = 0_u32;
    for slice in 0..count {
        let entry = slices.checked_add(slice * 8).ok_or(FAULT)?;
        let (entry, _) = view(guest, entry, 8).map_err(|_| FAULT)?;
        let (start, size) = entry.split_at(4);
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).map_err(|_| FAULT);
        let (start, size) = (word(start)?, word(size)?);
        let (bytes, host) = view(guest, start, size).map_err(|_| FAULT)?;
        take_lines(host, fd as usize - 1, bytes);
        total = total.saturating_add(size);
    }
    write_u32(guest, at, total).map_err(|_| FAULT)
}

fn take_lines(host: &mut Host, stream: usize, bytes: &[u8]) {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        for piece in piece.chunks(LINE) {
            let Some(pending) = host.stdio.get_mut(stream) else {
                return;
            };
            pending.extend_from_slice(piece);
            if pending.last() == Some(&b'\n') || pending.len() >= LINE {
                let line = std::mem::take(pending);
                let text = String::from_utf8_lossy(&line);
                say(host, if stream == 0 { 2 } else { 4 }, text.trim_end());
            }
        }
    }
}
