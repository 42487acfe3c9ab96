//! Helper processes that die with the program that started them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A running helper; killed when dropped, and by the kernel when this program ends in any other way.
#[derive(Debug)]
pub struct Helper(Child);

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a program that ends with this one.
///
/// The kernel ties the child to the *thread* that started it, so one thread that lives as long as the program starts
/// them all: a test's own thread is gone too early.
pub fn spawn(mut command: Command) -> io::Result<Helper> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                // Nobody waits any more: the child is dropped and stays tied to this program.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid).
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have ended between the fork and the call before.
            if libc::getppid() != parent as libc::pid_t {
                return Err(io::Error::other("the starting program has ended"));
            }
            Ok(())
        });
    }
    let (reply, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts programs is gone");
    spawner
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .send((command, reply))
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?.map(Helper)
}

impl Helper {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its output, when that was piped; once.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.0.stdout.take()
    }

    /// How it ended; `None` while it runs.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.0.try_wait()
    }

    /// Waits for its end, `time` at most.
    pub fn wait(&mut self, time: Duration) -> io::Result<Option<ExitStatus>> {
        let until = Instant::now() + time;
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to stop (SIGTERM); whether it could be told.
    pub fn terminate(&self) -> bool {
        // SAFETY: a plain system call; the child was not waited for, so its id is still its own.
        unsafe { libc::kill(self.0.id() as libc::pid_t, libc::SIGTERM) == 0 }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Raises the limit of open files to the hard one: a thousand connections take two thousand descriptors.
pub fn raise_file_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the right type, for the length of the calls.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_dies_with_its_owner() {
        let mut command = Command::new("sleep");
        command.arg("60");
        let helper = thread::spawn(|| spawn(command)).join().unwrap().unwrap();
        let proc = format!("/proc/{}", helper.id());
        thread::sleep(Duration::from_millis(50));
        assert!(
            std::path::Path::new(&proc).exists(),
            "outlives the thread that asked for it"
        );
        drop(helper);
        assert!(!std::path::Path::new(&proc).exists());
    }
}
