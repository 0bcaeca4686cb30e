//! What the system says about the process, under the names that Prometheus client libraries have agreed on ("Writing client
//! libraries", standard and runtime collectors).

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::Kind;

/// Returns the metrics that can be had: name, type, meaning, value. What the system does not tell is left out.
pub(super) fn read() -> Vec<(&'static str, Kind, &'static str, f64)> {
    let metrics = [
        ("process_cpu_seconds_total", Kind::Counter, "CPU time of the process.", cpu_seconds()),
        ("process_open_fds", Kind::Gauge, "Open files and sockets.", open_files()),
        ("process_max_fds", Kind::Gauge, "Most open files and sockets.", open_files_max()),
        ("process_resident_memory_bytes", Kind::Gauge, "Resident memory.", resident_bytes()),
    ];
    let known =
        |(name, kind, help, value): (_, _, _, Option<f64>)| Some((name, kind, help, value?));
    metrics.into_iter().filter_map(known).collect()
}

fn cpu_seconds() -> Option<f64> {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    std::time::Duration::try_from(time).ok().map(|time| time.as_secs_f64())
}

/// Linux tells the number as the size of the folder since 6.2 (kernel documentation, `filesystems/proc`); before, entries are
/// counted.
fn open_files() -> Option<f64> {
    let folder = "/proc/self/fd";
    let size = fs::metadata(folder).ok()?.len();
    let files = if size == 0 { fs::read_dir(folder).ok()?.count() as u64 } else { size };
    Some(float(files))
}

/// Nothing when there is no limit.
fn open_files_max() -> Option<f64> {
    getrlimit(Resource::Nofile).current.map(float)
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(float(kibibytes * 1_024))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the text format carries floats; these numbers stay far below 2^53"
)]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_seen_by_the_system() {
        let files: Vec<_> = (0..64).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let memory = vec![1_u8; 32 * 1024 * 1024];
        let value =
            |name| read().into_iter().find(|metric| metric.0 == name).map(|metric| metric.3);
        let open = value("process_open_fds").unwrap();
        assert!((64.0..1e6).contains(&open), "{open} files");
        assert!(open < value("process_max_fds").unwrap_or(f64::INFINITY));
        let resident = value("process_resident_memory_bytes").unwrap();
        assert!((32e6..1e12).contains(&resident), "{resident} bytes");
        let cpu = value("process_cpu_seconds_total").unwrap();
        assert!((f64::MIN_POSITIVE..1e6).contains(&cpu), "{cpu} s");
        assert!(files.len() == 64 && memory[memory.len() - 1] == 1, "both live until here");
    }
}
