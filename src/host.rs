//! Who this process is on its machine, and what the other processes belong to: users, units of systemd, containers.
//!
//! It serves messages alone: an error names the unit or container that has to be stopped, and the user or the sandbox that
//! a file is kept from. Nothing is decided by it.

mod process;

pub use process::Process;

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{getegid, geteuid, getgroups};

/// Hex digits of a container's id that engines show.
const SHOWN_ID_DIGITS: usize = 12;

/// Hex digits of a container's id.
const ID_DIGITS: usize = 64;

/// What a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A service of systemd, with its suffix.
    Unit(String),
    /// A container.
    Container {
        /// The command that stops it, if the engine is known and has one.
        engine: Option<&'static str>,
        /// The first twelve digits of its id.
        id: String,
    },
}

impl Owner {
    /// Finds it by the control group of a process.
    #[must_use]
    pub fn of_process(pid: u32) -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        Self::in_groups(&groups)
    }

    /// Finds it in the content of `/proc/PID/cgroup`; the innermost one counts.
    ///
    /// Source: cgroups(7); the names of scopes are those of docker, podman, CRI-O and containerd.
    fn in_groups(groups: &str) -> Option<Self> {
        let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        let mut found = paths.filter_map(|path| path.rsplit('/').find_map(Self::named));
        let first = found.next()?;
        // Version 1 has a path for each controller, and some engines set them for a few alone.
        let is_container = |owner: &Self| matches!(owner, Self::Container { .. });
        Some(if is_container(&first) { first } else { found.find(is_container).unwrap_or(first) })
    }

    /// What a directory of the control groups is called for.
    fn named(group: &str) -> Option<Self> {
        let stem = group.strip_suffix(".scope").unwrap_or(group);
        let (prefix, id) = stem.rsplit_once('-').map_or(("", stem), |(prefix, id)| (prefix, id));
        if id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let engine = match prefix {
                "docker" => Some("docker"),
                "libpod" => Some("podman"),
                _ => None,
            };
            return Some(Self::Container { engine, id: id.chars().take(SHOWN_ID_DIGITS).collect() });
        }
        let is_session = group.starts_with("user@");
        (group.ends_with(".service") && !is_session).then(|| Self::Unit(group.to_owned()))
    }

    /// What sends a signal to its main process, as an imperative: `run `systemctl kill --signal=QUIT a.service``.
    fn how_to_signal(&self, signal: &str) -> String {
        match self {
            Self::Unit(unit) => format!("run `systemctl kill --signal={signal} {unit}`"),
            Self::Container { engine: Some(engine), id } => format!("run `{engine} kill --signal {signal} {id}`"),
            Self::Container { engine: None, id } => format!("send {signal} to container {id}"),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => write!(formatter, "unit {unit}"),
            Self::Container { id, .. } => write!(formatter, "container {id}"),
        }
    }
}

/// Who this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The effective user id.
    pub user: u32,
    /// The effective group id, and the supplementary ones.
    pub groups: Vec<u32>,
    /// Whether it runs in a container.
    pub is_container: bool,
    /// The unit that it is the service of, with its suffix.
    pub unit: Option<String>,
}

static IS_CONTAINER: AtomicBool = AtomicBool::new(false);

/// Notes that this process runs in a container, which its variables and marker files say.
pub fn note_container(is_container: bool) {
    IS_CONTAINER.store(is_container, Ordering::Relaxed);
}

impl Identity {
    /// The identity of this process.
    #[must_use]
    pub fn of_process() -> Self {
        static UNIT: OnceLock<Option<String>> = OnceLock::new();
        let unit = UNIT.get_or_init(|| match Owner::of_process(std::process::id()) {
            Some(Owner::Unit(unit)) => Some(unit),
            Some(Owner::Container { .. }) | None => None,
        });
        let mut groups: Vec<_> = std::iter::once(getegid()).chain(getgroups().unwrap_or_default()).collect();
        groups.dedup();
        Self {
            user: geteuid().as_raw(),
            groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
            is_container: IS_CONTAINER.load(Ordering::Relaxed),
            unit: unit.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_names_its_unit_or_container() {
        let id = "0123456789abcdef".repeat(4);
        let container = |engine| Some(Owner::Container { engine, id: "0123456789ab".to_owned() });
        let unit = |name: &str| Some(Owner::Unit(name.to_owned()));
        for (groups, expected) in [
            (String::new(), None),
            ("0::/".to_owned(), None),
            ("0::/user.slice/user-0.slice/session-3.scope".to_owned(), None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope".to_owned(), None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service".to_owned(), unit("a.service")),
            ("0::/system.slice/runner-agent.service".to_owned(), unit("runner-agent.service")),
            ("1:name=systemd:/system.slice/runner-agent.service".to_owned(), unit("runner-agent.service")),
            (format!("0::/system.slice/docker-{id}.scope"), container(Some("docker"))),
            (format!("0::/machine.slice/libpod-{id}.scope/container"), container(Some("podman"))),
            (format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"), container(None)),
            (format!("0::/../{id}"), container(None)),
            (format!("0::/system.slice/docker.service/docker-{id}.scope"), container(Some("docker"))),
            (format!("0::/machine.slice/libpod-{id}.scope/system.slice/a.service"), unit("a.service")),
            (format!("2:cpu:/system.slice/docker.service\n1:name=systemd:/docker/{id}"), container(None)),
        ] {
            assert_eq!(Owner::in_groups(&groups), expected, "{groups}");
        }
    }

    #[test]
    fn a_process_is_signalled_by_what_it_belongs_to() {
        let podman = Owner::Container { engine: Some("podman"), id: "ab".to_owned() };
        for (owner, shown, signalled) in [
            (Owner::Unit("a.service".to_owned()), "unit a.service", "run `systemctl kill --signal=HUP a.service`"),
            (podman, "container ab", "run `podman kill --signal HUP ab`"),
            (Owner::Container { engine: None, id: "ab".to_owned() }, "container ab", "send HUP to container ab"),
        ] {
            assert_eq!((owner.to_string().as_str(), owner.how_to_signal("HUP").as_str()), (shown, signalled));
        }
    }
}
