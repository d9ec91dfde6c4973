//! How far background work stands back behind what must not wait.

use std::io;

/// The priority of threads that decode and classify: receiving goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Priority {
    /// Nice value, 0 to 19; one that the process was started with stays if it is higher.
    pub nice: i32,
    /// Whether the threads run on cores only that nothing else of the process wants (`SCHED_IDLE`, sched(7)). On Linux
    /// such a thread gives its core up at once to one that wakes, where a nice one first uses up its slice of time.
    /// Between groups of processes, as systemd makes them of services, the groups' own shares decide.
    pub idle_cores_only: bool,
}

impl Priority {
    /// Makes this the priority of the calling thread, and of the threads that it starts from now on. On Linux both
    /// belong to a thread, not to the process. An unprivileged thread has no way back.
    ///
    /// # Errors
    /// What the operating system refuses; the thread goes on with the priority it has.
    pub fn apply_to_this_thread(self) -> io::Result<()> {
        let before = rustix::process::getpriority_process(None)?;
        if self.idle_cores_only {
            become_idle()?;
        }
        let nice = self.nice.max(before);
        // The change of policy may have touched it.
        if rustix::process::getpriority_process(None)? != nice {
            rustix::process::setpriority_process(None, nice)?;
        }
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn become_idle() -> io::Result<()> {
    use thread_priority::unix::{
        NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy, thread_native_id,
        thread_schedule_policy,
    };
    use thread_priority::{Error, ThreadPriority};

    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    match set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle) {
        Ok(()) => Ok(()),
        // The crate also sets the nice value to 0, which a niced process may not do; the policy comes first.
        Err(_) if thread_schedule_policy().is_ok_and(|now| now == idle) => Ok(()),
        Err(Error::OS(code)) => Err(io::Error::from_raw_os_error(code)),
        Err(error) => Err(io::Error::other(format!("{error:?}"))),
    }
}

#[cfg(not(target_os = "linux"))]
fn become_idle() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nice value and scheduling policy of the calling thread (`/proc/thread-self/stat`, proc_pid_stat(5)).
    fn of_this_thread() -> (i32, u32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[16].parse().unwrap(), fields[38].parse().unwrap())
    }

    fn after(steps: &'static [Priority]) -> (i32, u32) {
        let thread = std::thread::spawn(move || {
            for step in steps {
                step.apply_to_this_thread().unwrap();
            }
            of_this_thread()
        });
        thread.join().unwrap()
    }

    #[test]
    fn thread_stands_back_and_its_neighbours_do_not() {
        const SCHED_OTHER: u32 = 0;
        const SCHED_IDLE: u32 = 5;
        let before = of_this_thread();
        let least = |nice: i32| nice.max(before.0);
        assert_eq!(after(&[Priority { nice: 7, idle_cores_only: false }]), (least(7), SCHED_OTHER));
        assert_eq!(after(&[Priority { nice: 7, idle_cores_only: true }]), (least(7), SCHED_IDLE));
        // A nice value is never lowered.
        let nice_first = &[Priority { nice: 9, idle_cores_only: false }, Priority { nice: 3, idle_cores_only: true }];
        assert_eq!(after(nice_first), (least(9), SCHED_IDLE));
        assert_eq!(of_this_thread(), before);
    }
}
