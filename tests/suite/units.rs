//! The units of systemd in `systemd`.

const DAEMON: &str = include_str!("../../systemd/runner-agent.service");
const ONCE: &str = include_str!("../../systemd/examples/register-once.service");

/// The settings of a unit, without comments.
fn settings(unit: &str) -> impl Iterator<Item = &str> {
    unit.lines().filter(|line| !line.starts_with('#') && line.contains('='))
}

#[test]
fn a_reload_of_the_unit_waits_for_its_result() {
    let reloads: Vec<_> = settings(DAEMON).filter(|line| line.starts_with("ExecReload=")).collect();
    assert_eq!(reloads, ["ExecReload=/usr/bin/runner-agent reload"]);
}

#[test]
fn the_unit_that_registers_once_is_confined_as_the_daemon_is() {
    let confinement = settings(DAEMON).skip_while(|line| !line.starts_with("ConfigurationDirectory="));
    let needed = confinement.filter(|line| !line.starts_with("WantedBy="));
    let missing: Vec<_> = needed.filter(|line| !settings(ONCE).any(|found| found == *line)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
