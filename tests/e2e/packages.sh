#!/usr/bin/env bash
# A release: built twice from a tag, then its tarball and RPM package are installed, upgraded and removed in a root of
# their own with a systemctl that writes down its calls. BINARY is what is packed; without it an optimized binary that is
# there, or an unoptimized one.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" packages

binary=${BINARY:-${CARGO_TARGET_DIR:-target}/release/runner-agent}
if [[ ! -x $binary ]]; then
    cargo build --locked --quiet --bin runner-agent
    binary=${CARGO_TARGET_DIR:-target}/debug/runner-agent
fi
strip -o "$work/binary" "$binary"
export BINARY=$work/binary
version=$(sed -n '/^\[package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=runner-agent-$version-$(uname -m)

# --- Roots ---------------------------------------------------------------------------------------------------------

# make_root DIRECTORY: a system of busybox, with what the binary is linked with.
make_root() {
    local root=$1 command library
    mkdir -p "$root"/{bin,usr/bin,etc/systemd,tmp,run/systemd/system,var/lib,proc,dev}
    mknod -m 666 "$root/dev/null" c 1 3
    cp /bin/busybox "$root/bin/busybox"
    for command in sh sed find sha256sum cp mv rm ln mkdir chmod mktemp grep dirname wc cat echo; do
        ln -s busybox "$root/bin/$command"
    done
    while read -r library; do
        install -D "$library" "$root$library"
    done < <(ldd "$BINARY" 2>/dev/null | grep -o '/[^ ]*' || true)
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "$*" >>/calls\n[ "$1" != is-active ] || [ -e /is-active ]\n' |
        install -m 755 /dev/stdin "$root/usr/bin/systemctl"
    printf '#!/bin/sh\n:\n' | install -m 755 /dev/stdin "$root/usr/bin/systemd-tmpfiles"
}

# calls ROOT: the calls of systemctl since the last time.
calls() {
    tr '\n' '|' <"$1/calls" 2>/dev/null || true
    rm -f "$1/calls"
}
called() { equal "$(calls "$1")" "$2"; }
files() { (cd "$1" && find . -type f ! -path './archive/*' ! -path './var/lib/rpm/*' ! -name calls | LC_ALL=C sort); }
inside() { chroot "$1" /bin/sh -c "$2"; }

# --- Release -------------------------------------------------------------------------------------------------------

dist=$work/dist
# The last commit, with a tag.
repository=$work/repository
git clone --quiet . "$repository"
in_repository() { git -C "$repository" -c user.name=e2e -c user.email=e2e@localhost "$@"; }
release() { DIST=$dist "$repository/packaging/release" "$@"; }
version_tag() {
    sed -i "s/^## \[Unreleased\]/&\n\n## [$version] - today/" "$repository/CHANGELOG.md"
    in_repository commit --quiet --all --message "Release $version" && in_repository tag "v$version"
}
has_all() {
    (cd "$dist" && sha256sum --check SHA256SUMS) || return
    equal "$(cd "$dist" && ls)" "$(printf '%s\n' NOTES.md SHA256SUMS "runner-agent-$version-1.$(uname -m).rpm" \
        "runner-agent-$version-source.tar.gz" "$name.tar.gz" "runner-agent-$version.cdx.json" \
        "runner-agent_$version-1_$(dpkg --print-architecture).deb")"
}
# Each crate of Cargo.lock that is not only for tests; the sealing of tokens is among them.
has_materials() {
    python3 - "$dist/runner-agent-$version.cdx.json" <<'END'
import json, sys
bill = json.load(open(sys.argv[1]))
names = {component["name"] for component in bill["components"]}
assert {"ring", "tokio", "kube"} <= names and not {"proptest", "insta", "fake-gitlab"} & names, names
assert all(component["hashes"] and component["licenses"] for component in bill["components"])
END
}

check 'a release needs a tag'                                      says 1 'no tag v9' release v9
in_repository tag v9
check 'a release needs the version of its tag in Cargo.toml'       says 1 'not that of the tag' release v9
in_repository tag "v$version"
check 'a release needs a section in CHANGELOG.md'                  says 1 'no section' release "v$version"
in_repository tag --delete "v$version" >/dev/null
version_tag
check 'two builds of a release have the same bytes'                release --twice "v$version"
check 'it has all artefacts and their checksums'                   has_all
check 'its bill of materials has each crate with its licence'      has_materials

# --- Tarball -------------------------------------------------------------------------------------------------------

root=$work/root
make_root "$root"
files "$root" >"$work/before"
mkdir "$root/archive"
tar --extract --file "$dist/$name.tar.gz" --directory "$root/archive" --strip-components 1
installs() { inside "$root" '/archive/install.sh' && inside "$root" '/usr/local/bin/runner-agent --version'; }
refuses() { says 1 "$1" inside "$root" '/archive/install.sh' && equal "$(files "$root")" "$(cat "$work/before")"; }
fits_the_unit() { has "$(cat "$root/etc/systemd/system/runner-agent.service")" '^ExecStart=/usr/local/bin/runner-agent run$'; }
upgrades() {
    inside "$root" '/archive/install.sh' && called "$root" 'daemon-reload|--quiet enable runner-agent|try-restart runner-agent|'
}
spares_settings() {
    touch "$root/etc/runner-agent/agent.toml" && inside "$root" '/archive/install.sh --uninstall' &&
        rm "$root/etc/runner-agent/agent.toml" && equal "$(files "$root")" "$(cat "$work/before")"
}
refuses_while_active() {
    touch "$root/is-active"
    says 1 'QUIT' inside "$root" '/archive/install.sh --uninstall' && rm "$root/is-active" && test -x "$root/usr/local/bin/runner-agent"
}
into_an_image() {
    "$root/archive/install.sh" --root "$work/image" --prefix /opt/agent && test -x "$work/image/opt/agent/bin/runner-agent" &&
        "$root/archive/install.sh" --root "$work/image" --prefix /opt/agent --uninstall && equal "$(find "$work/image" -type f)" ''
}

echo damage >>"$root/archive/share/doc/runner-agent/README.md"
check 'a damaged archive installs nothing'                         refuses 'README.md: FAILED'
tar --extract --file "$dist/$name.tar.gz" --directory "$root/archive" --strip-components 1
touch "$root/archive/share/more"
check 'an archive with another file installs nothing'              refuses 'were not packed'
rm "$root/archive/share/more"
check 'an unknown option is refused'                               says 1 'unknown argument' inside "$root" '/archive/install.sh --force'
check 'a relative prefix is refused'                               says 1 'absolute' inside "$root" '/archive/install.sh --prefix usr'
check 'the archive is installed, and its binary runs'              installs
check 'the unit starts this binary'                                fits_the_unit
check 'the unit is enabled, and restarted only if it runs'         called "$root" 'daemon-reload|--quiet enable runner-agent|try-restart runner-agent|'
check 'a second installation is an upgrade'                        upgrades
check 'a running service is not uninstalled'                       refuses_while_active
check 'an uninstallation removes all but the settings'             spares_settings
check 'it installs into an image, and calls no service'            into_an_image

# --- RPM -----------------------------------------------------------------------------------------------------------

package=$dist/runner-agent-$version-1.$(uname -m).rpm
package() { DIST=$work/$1 TARBALL=$dist/$name.tar.gz packaging/build-rpm "${@:2}"; }
package newer --define 'agent_release 2' >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

root=$work/rpm-root
make_root "$root"
files "$root" >"$work/before"
# The packages that it requires are not in this root.
there() { rpm --root "$root" --dbpath /var/lib/rpm "$@"; }
is_installed() {
    there --install --nodeps "$package" && inside "$root" '/usr/bin/runner-agent --version' && there --verify --nodeps runner-agent
}
is_upgraded() { there --upgrade --nodeps "$work"/newer/*.rpm && equal "$(there --query --queryformat '%{RELEASE}' runner-agent)" 2; }
is_removed() { there --erase runner-agent && equal "$(files "$root")" "$(cat "$work/before")"; }

check 'the RPM package is installed, and its binary runs'          is_installed
check 'its installation leaves the choice to the preset'           called "$root" 'daemon-reload|--no-reload preset runner-agent.service|'
check 'the RPM package is upgraded'                                is_upgraded
check 'the upgrade restarts the service if it runs'                called "$root" 'daemon-reload|daemon-reload|try-restart runner-agent.service|'
check 'the RPM package is removed with all files'                  is_removed
check 'the removal stops and disables the service'                 called "$root" '--no-reload disable --now runner-agent.service|daemon-reload|'

verdict
