//! A GitLab to experiment with: run `cargo run --example gitlab -- --token-life 60s`, then register a runner there.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the terminal is the user interface")]
#![allow(clippy::disallowed_methods, reason = "a server to experiment with writes what it is told to")]

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use fake_gitlab::{
    Builder, Gitlab, NewRunner, ParseSpanError, ParseVersionError, Request, Scope, Tls, Version, parse_span,
};

/// Serves GitLab's Runners API on 127.0.0.1, with all state in memory, until Ctrl-C.
#[derive(Parser)]
#[command(name = "gitlab")]
struct Arguments {
    /// The port to listen on; 0 selects a free one
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// How long runner tokens live, such as 60s, 2h or 7d, or `never`
    #[arg(long, value_name = "SPAN", default_value = "never", value_parser = parse_life)]
    token_life: Life,
    /// The GitLab release to imitate, such as 15.1 or 18
    #[arg(long, value_name = "VERSION", default_value_t, value_parser = parse_version)]
    version: Version,
    /// Serve HTTPS, and write the authority's certificate to DIR/ca.pem
    #[arg(long, value_name = "DIR")]
    tls_dir: Option<PathBuf>,
    /// The instance's registration token instead of a random one
    #[arg(long, value_name = "TOKEN")]
    registration_token: Option<String>,
    /// An administrator's access token instead of a random one
    #[arg(long, value_name = "TOKEN")]
    access_token: Option<String>,
    /// Create a project with this full path, such as `group/project`; can be repeated
    #[arg(long, value_name = "PATH")]
    project: Vec<String>,
    /// Create a group with this full path; can be repeated
    #[arg(long, value_name = "PATH")]
    group: Vec<String>,
    /// How many instance runners to create
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    runners: usize,
    /// Do not print requests
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match serve(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let gitlab = builder(&arguments)?.try_start().map_err(|error| not_started(arguments.port, &error))?;
    let access_token = match arguments.access_token {
        Some(access_token) => {
            gitlab.accept_access_token(&access_token);
            access_token
        }
        None => gitlab.add_access_token([Scope::Api]),
    };
    for path in &arguments.group {
        gitlab.add_group(path);
    }
    for path in &arguments.project {
        gitlab.add_project(path);
    }
    let mut created = Vec::new();
    for number in 1..=arguments.runners {
        let runner = NewRunner::instance().description(format!("runner {number}")).tags(["linux", "docker"]);
        created.push(gitlab.add_runner(runner));
    }
    println!("GitLab {} at {}", gitlab.version(), gitlab.url());
    println!("registration token: {}", gitlab.instance_registration_token());
    println!("access token: {access_token}");
    for (id, token) in &created {
        println!("token of runner {id}: {token}");
    }
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}

/// Why no server listens on a port, with the way out.
fn not_started(port: u16, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port {port} is in use: select another one with --port, or a free one with --port 0")
        }
        _ => format!("cannot listen on port {port}: {error}"),
    }
}

fn builder(arguments: &Arguments) -> Result<Builder, Box<dyn Error>> {
    let mut builder =
        Gitlab::builder().version(arguments.version).token_life(arguments.token_life.0).port(arguments.port);
    if let Some(token) = &arguments.registration_token {
        builder = builder.registration_token(token);
    }
    if let Some(directory) = &arguments.tls_dir {
        let tls = Tls::self_signed(["localhost", "127.0.0.1"]);
        std::fs::create_dir_all(directory)?;
        std::fs::File::create(directory.join("ca.pem"))?.write_all(tls.ca_pem().as_bytes())?;
        builder = builder.tls(tls);
    }
    if !arguments.quiet {
        builder = builder.on_request(print);
    }
    Ok(builder)
}

/// Prints a request without its parameters, which can contain tokens.
fn print(request: &Request) {
    let status = request.status.map_or_else(|| "cut".to_owned(), |status| status.to_string());
    // A closed stdout does not stop the server.
    let _closed = writeln!(std::io::stdout(), "{} {} {status}", request.method, request.bare_path());
}

/// The lifetime of a token; `None` for no expiry.
#[derive(Clone)]
struct Life(Option<Duration>);

fn parse_life(text: &str) -> Result<Life, ParseSpanError> {
    if text == "never" { Ok(Life(None)) } else { parse_span(text).map(|life| Life(Some(life))) }
}

fn parse_version(text: &str) -> Result<Version, ParseVersionError> {
    text.parse()
}
