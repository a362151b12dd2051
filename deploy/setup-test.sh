#!/bin/sh
# setup-test.sh installs what `make test` needs:
#   - as root on Debian, packages with the servers that the tests start; elsewhere the tests that need them skip,
#   - in the cache folder, Apache Kafka, ClickHouse as libchdb, and golangci-lint.
# What is installed already is left alone.
#
# usage: setup-test.sh [lint]     lint installs only golangci-lint
set -eu
cd "$(dirname "$0")/.."
cache=${TIDEGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate}
mkdir -p "$cache/bin"
lint_version=v2.15.0
kafka_version=4.1.0
packages="docker.io iptables tcpdump conntrack nginx-light redis-server memcached mariadb-server dnsmasq-base curl
	prometheus-alertmanager tshark iproute2 procps openjdk-17-jre-headless maven npm openssl"

log() { echo "setup: $*"; }

# install_lint builds golangci-lint.
install_lint() {
	have=$("$cache/bin/golangci-lint" version --short 2>/dev/null || true)
	[ "v$have" = "$lint_version" ] && return
	log "building golangci-lint $lint_version (2 to 4 minutes, once)"
	GOBIN="$cache/bin" GOFLAGS=-mod=mod \
		go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$lint_version"
}

# install_packages installs the Debian packages that are missing.
install_packages() {
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { log "not root on Debian: no packages installed"; return; }
	missing=""
	for name in $packages; do
		case $name in # a tool that is not from Debian is used as well
		openjdk-17-jre-headless) command -v java >/dev/null && continue ;;
		maven) command -v mvn >/dev/null && continue ;;
		npm) command -v npm >/dev/null && continue ;;
		esac
		dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing="$missing $name"
	done
	[ -n "$missing" ] || return 0
	log "installing$missing"
	# The packages must not start their daemons: the tests start their own.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
		trap 'rm -f $policy' EXIT
	fi
	apt-get update -qq
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

# install_kafka fetches the jars of Apache Kafka. The file `complete` marks a folder with all of them.
install_kafka() {
	dir=$cache/kafka-$kafka_version
	[ -e "$dir/complete" ] && return
	command -v mvn >/dev/null || { log "no mvn: the test against Apache Kafka will skip"; return; }
	log "fetching Apache Kafka $kafka_version"
	mkdir -p "$dir"
	cat >"$dir/pom.xml" <<-POM
		<project xmlns="http://maven.apache.org/POM/4.0.0">
		  <modelVersion>4.0.0</modelVersion>
		  <groupId>tidegate</groupId><artifactId>kafka-run</artifactId><version>1</version><packaging>pom</packaging>
		  <dependencies>
		    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka_version</version></dependency>
		    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
		  </dependencies>
		</project>
	POM
	(cd "$dir" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs)
	touch "$dir/complete"
}

if [ "${1:-all}" = lint ]; then
	install_lint
	exit
fi
install_packages
install_kafka
deploy/fetch-libchdb.sh || log "no embedded ClickHouse: the tests that need it will report it"
install_lint
log "ready"
