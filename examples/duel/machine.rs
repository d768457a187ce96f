//! What was measured on what: the header of every result.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, io};

use serde::Serialize;

/// The machine and the build.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: Vec<usize>,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) commit: Option<String>,
    pub(crate) congestion: String,
    /// Of the io_uring contender: the granted set-up flags, or why there is none.
    pub(crate) ring: String,
    pub(crate) optimized: bool,
    /// The day in UTC, like 2025-12-31.
    pub(crate) date: String,
}

impl Machine {
    /// Looks around; what cannot be read is left out and never an error.
    pub(crate) fn look(ring: String) -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: cpu.map_or("unknown CPU", |(_, name)| name).to_owned(),
            cores: allowed_cores(),
            // What stands behind the version is the name of somebody's build.
            kernel: kernel.trim().split('-').next().unwrap_or_default().to_owned(),
            rustc: compiler().unwrap_or_else(|| "unknown rustc".to_owned()),
            commit: commit(),
            congestion: congestion().unwrap_or_else(|error| format!("default ({error})")),
            ring,
            optimized: !cfg!(debug_assertions),
            date: today(),
        }
    }

    /// One line for below a picture.
    pub(crate) fn signature(&self) -> String {
        let commit = self.commit.as_deref().map(|id| format!(" {id}")).unwrap_or_default();
        let (cpu, cores, kernel) = (&self.cpu, self.cores.len(), &self.kernel);
        format!("quoit{commit}, {cpu}, {cores} cores, Linux {kernel}, {}", self.date)
    }

    /// The lines above the table.
    pub(crate) fn lines(&self) -> String {
        let commit = self.commit.as_deref().map(|id| format!(", commit {id}")).unwrap_or_default();
        let warning = if self.optimized { "" } else { "\nNOT OPTIMIZED: use cargo run --release" };
        format!(
            "{}, {} cores, Linux {}, {}{commit}\nTCP over loopback, {}; io_uring: {}{warning}",
            self.cpu,
            self.cores.len(),
            self.kernel,
            self.rustc,
            self.congestion,
            self.ring,
        )
    }
}

/// The cores this process may run on, from /proc/self/status.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = Vec::new();
    for part in list.unwrap_or_default().trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

/// The compiler of this very executable, which leaves its name in the `.comment` section.
fn compiler() -> Option<String> {
    let bytes = fs::read(env::current_exe().ok()?).ok()?;
    let mark = b"rustc version ";
    let places = bytes.windows(mark.len()).enumerate().filter(|(_, window)| window == mark);
    for (place, _) in places {
        let rest = &bytes[place + mark.len()..];
        if rest.first().is_some_and(u8::is_ascii_digit) {
            let end = rest.iter().position(|byte| matches!(byte, 0 | b' '))?;
            return Some(format!("rustc {}", String::from_utf8_lossy(&rest[..end])));
        }
    }
    None
}

fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970. The year is taken to begin in March, so
/// that the leap day is its last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since the first of March of year 0
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let in_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, in_month)
}

fn commit() -> Option<String> {
    let folder = env::var_os("CARGO_MANIFEST_DIR")?;
    let output = Command::new("git")
        .arg("-C")
        .arg(Path::new(&folder))
        .args(["describe", "--always", "--dirty", "--abbrev=10"])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

/// What the kernel says after cubic was asked for.
fn congestion() -> io::Result<String> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    crate::system::set_cubic(&socket)?;
    let name = socket.tcp_congestion()?;
    Ok(String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned())
}

#[cfg(test)]
mod tests {
    use super::civil;

    #[test]
    fn days_have_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(11_017), (2000, 3, 1));
        assert_eq!(civil(20_453), (2025, 12, 31));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }
}
