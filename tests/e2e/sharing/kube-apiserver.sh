#!/bin/sh
# Prints the path of a kube-apiserver, which is built from Debian's source package once and kept in the user's cache.
# Needs apt and Go modules, golang-go 1.19, make, rsync and jq. The machine's own package lists stay as they are.
set -eu

cache=${XDG_CACHE_HOME:-$HOME/.cache}/runner-agent-tests
binary=$cache/kube-apiserver-1.20.2
if [ -x "$binary" ]; then
    echo "$binary"
    exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/gopath/src/k8s.io" "$cache"
cat /etc/apt/sources.list.d/*.sources | sed 's/^Types: deb$/Types: deb-src/' >"$work/src.sources"
apt() {
    apt-get -q -o Dir::Etc::sourcelist="$work/src.sources" -o Dir::Etc::sourceparts=- -o Dir::State::Lists="$work/lists" \
        -o APT::Sandbox::User=root "$@" >&2
}
apt update
(cd "$work" && apt source --download-only kubernetes)
tar -C "$work/gopath/src/k8s.io" -xf "$work"/kubernetes_*.orig.tar.gz
mv "$work"/gopath/src/k8s.io/kubernetes-* "$work/gopath/src/k8s.io/kubernetes"
cd "$work/gopath/src/k8s.io/kubernetes"
# The release of that time reads no JSON object with Go 1.18 and later.
reflect2=$(cd "$work" && go mod download -json github.com/modern-go/reflect2@v1.0.2 | jq -r .Dir)
rm -r vendor/github.com/modern-go/reflect2
cp -r "$reflect2" vendor/github.com/modern-go/reflect2
chmod -R u+w vendor/github.com/modern-go/reflect2
PATH=/usr/lib/go-1.19/bin:$PATH GOPATH=$work/gopath GOCACHE=$work/go-cache GO111MODULE=off GOFLAGS='' \
    KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_TREE_STATE=clean KUBE_GIT_COMMIT=x KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20 \
    make all WHAT=cmd/kube-apiserver >&2
# A build that is cut off leaves no half of a binary.
cp _output/local/bin/linux/amd64/kube-apiserver "$binary.new"
mv "$binary.new" "$binary"
echo "$binary"
