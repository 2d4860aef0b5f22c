//! The known name that a typing error means.

/// The known name that is most similar to an unknown one, if any is similar enough for a typing error.
pub(super) fn similar(unknown: &str, known: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let plain = |name: &str| name.replace(['-', '_'], "").to_lowercase();
    let unknown = plain(unknown);
    let distance = |name: &str| strsim::damerau_levenshtein(&unknown, &plain(name));
    let nearest = known.into_iter().map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance);
    nearest.filter(|(distance, name)| *distance <= name.len() / LETTERS_PER_EDIT).map(|(_, name)| name)
}

/// One typing error for so many letters of a name still means that name.
const LETTERS_PER_EDIT: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_means_the_most_similar_name() {
        let known = ["docker", "docker+machine", "shell", "ssh", "kubernetes"];
        for (unknown, meant) in [
            ("dcoker", Some("docker")),
            ("Docker", Some("docker")),
            ("docker-machine", Some("docker+machine")),
            ("kubernets", Some("kubernetes")),
            ("podman", None),
            ("", None),
        ] {
            assert_eq!(similar(unknown, known), meant, "{unknown}");
        }
    }

    #[test]
    fn a_typing_error_means_the_most_similar_key() {
        let known = ["url", "name", "tag_list", "interval", "found_interval", "tls_ca_file", "run_untagged"];
        for (unknown, meant) in [
            ("intervall", Some("interval")),
            ("itnerval", Some("interval")),
            ("tagList", Some("tag_list")),
            ("tls-ca-file", Some("tls_ca_file")),
            ("ulr", Some("url")),
            ("nmae", Some("name")),
            ("nonsense", None),
            ("id", None),
            ("", None),
        ] {
            assert_eq!(similar(unknown, known), meant, "{unknown}");
        }
    }
}
