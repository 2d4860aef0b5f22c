//! Another process in the way of a start: its process id, and what to do.

use std::net::TcpListener;

use fake_gitlab::Gitlab;

#[test]
fn a_second_daemon_names_the_first_and_how_to_stop_it() {
    let sandbox = super::sandbox(Gitlab::builder());
    let first = sandbox.start_serving();
    let process = format!("process {}", first.pid());
    sandbox.run(&["run"]).exits(4).says(&process).says("stop it first, or let it do the work: ");
    // Another config.toml with the same socket.
    let config = sandbox.write("other/config.toml", "").display().to_string();
    let socket = sandbox.path("run/agent.sock").display().to_string();
    let done = sandbox.run(&["run", "--wait-for-config", "--config", &config, "--socket", &socket]);
    done.exits(4).says(&format!("another daemon ({process}")).says("listens on it");
}

#[test]
fn a_port_in_use_names_the_process_that_listens() {
    let sandbox = super::sandbox(Gitlab::builder());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let done = sandbox.run(&["run", "--listen-address", &address]);
    done.exits(4).says(&format!("cannot listen on {address}, which process {}", std::process::id())).says("`ss -ltnp`");
}
