//! A config.toml of many entries.

use std::fmt::Write as _;

/// A config.toml with an entry of some 275 bytes, a docker table included, for each id and token at this server.
pub fn config_of(url: &str, runners: &[(u64, String)]) -> String {
    let mut text = String::from("concurrent = 10\ncheck_interval = 3\n");
    for (id, token) in runners {
        write!(
            text,
            "\n[[runners]]\n  name = \"runner-{id:05}\"\n  url = \"{url}\"\n  id = {id}\n  token = \"{token}\"\n  \
             executor = \"docker\"\n  [runners.docker]\n    image = \"alpine:3.20\"\n    privileged = false\n    \
             volumes = [\"/cache\"]\n    shm_size = 0\n"
        )
        .unwrap();
    }
    text
}
