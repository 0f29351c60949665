//! `/metrics`: what there is to count, in the text format of Prometheus (exposition format 0.0.4).

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::machines::spent::{Spent, value};
use crate::model::State;
use crate::service::Service;
use crate::store;

/// The content type of the text.
pub const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Operation and status: how often, and how long it took together.
type Answered = HashMap<(&'static str, u16), (u64, Duration)>;

/// How requests were answered.
#[derive(Debug)]
pub struct Requests {
    since: Instant,
    answered: Mutex<Answered>,
}

impl Default for Requests {
    fn default() -> Self {
        Self { since: Instant::now(), answered: Mutex::default() }
    }
}

impl Requests {
    /// One was answered. `operation` is one of those that there are, so there are never many.
    pub fn answered(&self, operation: &'static str, status: u16, within: Duration) {
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, time) = answered.entry((operation, status)).or_default();
        *count += 1;
        *time += within;
    }
}

/// Families of figures, as text.
#[derive(Debug, Default)]
struct Text(String);

impl Text {
    fn family<'a, L: IntoIterator<Item = (&'a str, &'a str)>>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        samples: impl IntoIterator<Item = (L, f64)>,
    ) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let labels: Vec<_> =
                labels.into_iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn one(&mut self, about: (&str, &str, &str), value: f64) {
        self.family(about, [([], value)]);
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Everything, now.
pub fn text(service: &Arc<Service>) -> Result<String, store::Error> {
    let mut text = Text::default();
    let version = env!("CARGO_PKG_VERSION");
    text.family(("yunju_info", "gauge", "The version that runs"), [([("version", version)], 1.0)]);
    let up = service.requests.since.elapsed().as_secs_f64();
    text.one(("yunju_uptime_seconds", "gauge", "For how long the service runs"), up);
    desktops(service, &mut text)?;
    let operations = service.store.count_operations()?;
    text.family(
        ("yunju_operations", "gauge", "Operations that are remembered, by kind and state"),
        operations
            .iter()
            .map(|(kind, state, count)| ([("kind", kind.as_str()), ("state", state.as_str())], *count as f64)),
    );
    requests(service, &mut text);
    host(&service.data, &mut text);
    Ok(text.0)
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn desktops(service: &Arc<Service>, text: &mut Text) -> Result<(), store::Error> {
    let mut states = BTreeMap::new();
    let mut running = Vec::new();
    for desktop in service.store.desktops(None)? {
        let state = service.machines.state(desktop.id);
        *states.entry(state.to_string()).or_insert(0.0) += 1.0;
        if !matches!(state, State::Stopped | State::Suspended) {
            let spent = Spent::of(&Folder::of(&service.data, desktop.id)).unwrap_or_default();
            running.push((desktop, spent));
        }
    }
    text.family(
        ("yunju_desktops", "gauge", "Desktops, by the state of their machines"),
        states.iter().map(|(state, count)| ([("state", state.as_str())], *count)),
    );
    let mut each = |about, of: &dyn Fn(&store::Desktop, &Spent) -> f64| {
        let samples = running.iter().map(|(desktop, spent)| {
            let labels = [("desktop", desktop.name.as_str()), ("owner", &desktop.owner), ("image", &desktop.image)];
            (labels, of(desktop, spent))
        });
        text.family(about, samples);
    };
    each(
        ("yunju_desktop_cpu_seconds_total", "counter", "Processors' time of a machine since its start"),
        &|_, spent| spent.total().cpu as f64 / 1e6,
    );
    each(("yunju_desktop_memory_bytes", "gauge", "Memory that a machine uses"), &|_, spent| spent.memory as f64);
    each(("yunju_desktop_memory_limit_bytes", "gauge", "Memory of its guest"), &|desktop, _| desktop.memory as f64);
    each(("yunju_desktop_cpus", "gauge", "Processors of its guest"), &|desktop, _| f64::from(desktop.cpus));
    each(("yunju_desktop_read_bytes_total", "counter", "What it read from disks"), &|_, spent| {
        spent.total().read as f64
    });
    each(("yunju_desktop_written_bytes_total", "counter", "What it wrote to disks"), &|_, spent| {
        spent.total().written as f64
    });
    each(("yunju_desktop_viewed", "gauge", "1 while somebody looks at it"), &|desktop, _| {
        f64::from(u8::from(service.viewers.of(desktop.id).0))
    });
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn requests(service: &Service, text: &mut Text) {
    let answered = service.requests.answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut answered: Vec<_> =
        answered.into_iter().map(|((operation, status), sums)| (operation, status.to_string(), sums)).collect();
    answered.sort_unstable();
    let mut each = |about, of: fn(&(u64, Duration)) -> f64| {
        let labelled = |(operation, status, sums): &'_ (&'static str, String, (u64, Duration))| {
            ([("operation", (*operation).to_owned()), ("status", status.clone())], of(sums))
        };
        let samples: Vec<_> = answered.iter().map(labelled).collect();
        let borrowed = samples.iter().map(|(labels, value)| (labels.iter().map(|(k, v)| (*k, v.as_str())), *value));
        text.family(about, borrowed);
    };
    each(("yunju_requests_total", "counter", "Requests that were answered"), |sums| sums.0 as f64);
    each(("yunju_request_seconds_total", "counter", "Time that their answers took"), |sums| sums.1.as_secs_f64());
}

#[allow(clippy::cast_precision_loss)] // figures for people
fn host(data: &Path, text: &mut Text) {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for (name, key, help) in [
        ("yunju_host_memory_bytes", "MemTotal:", "The host's memory"),
        ("yunju_host_memory_available_bytes", "MemAvailable:", "What of it can be had"),
    ] {
        if let Some(kib) = value(&meminfo, key) {
            text.one((name, "gauge", help), kib as f64 * 1024.0);
        }
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(load) = load.split_whitespace().next().and_then(|load| load.parse().ok()) {
        text.one(("yunju_host_load", "gauge", "Processes that run or wait to, over a minute"), load);
    }
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    text.one(("yunju_host_cpus", "gauge", "The host's processors"), cpus as f64);
    if let Ok(disk) = rustix::fs::statvfs(data) {
        let bytes = |blocks: u64| (blocks * disk.f_frsize) as f64;
        text.one(("yunju_data_size_bytes", "gauge", "The file system of the data folder"), bytes(disk.f_blocks));
        text.one(("yunju_data_free_bytes", "gauge", "What of it is free"), bytes(disk.f_bavail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_what_they_are_given_and_nothing_else() {
        let mut text = Text::default();
        text.family(("a", "gauge", "A"), [([("x", "say \"hi\"\nb 1\\")], 1.5)]);
        text.one(("b", "counter", "B"), 2.0);
        assert_eq!(
            text.0,
            "# HELP a A\n# TYPE a gauge\na{x=\"say \\\"hi\\\"\\nb 1\\\\\"} 1.5\n# HELP b B\n# TYPE b counter\nb 2\n"
        );
    }
}
