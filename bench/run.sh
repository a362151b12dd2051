#!/usr/bin/env bash
# Measures tidegate. `make bench` calls it. bench/RESULTS.md holds the figures and the conclusions.
#
#   bench/run.sh                all measurements, about eight minutes: prints lines for benchstat, keeps them and the profiles
#   bench/run.sh quick          the same with one run each and less work, to check that everything runs
#   bench/run.sh micro          only the benchmarks of the packages
#   bench/run.sh rules          what rules cost, as a table of targets in bench/rules.md, about ten minutes
#   bench/run.sh compare REF    the benchmarks of the packages at commit REF and here, in turn, side by side
#
# RUNS=5 sets how often each case is measured, PKG=./detectors/rules the packages of micro and compare. The files lie in
# $TIDEGATE_CACHE/bench: traffic.pcap, results.txt, *.cpu and *.mem (go tool pprof -top FILE).
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0
cache=${TIDEGATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidegate}
dir=$cache/bench
mkdir -p "$dir"
runs=${RUNS:-5} mb=60 lines=1000 events=1000
what=${1:-all}
if [ "$what" = quick ]; then runs=1 mb=5 lines=50 events=20; fi

progress() { printf 'bench: %s\n' "$*" >&2; }
bench() { nice "$dir/bench" "$@" | tee -a "$out"; }
pprof_top() { progress "where the time goes: $1"; go tool pprof -top -nodecount=12 "$dir/bench" "$dir/$1.cpu" 2>/dev/null | sed -n '/flat%/,$p' >&2; }

# packages lists the packages that have benchmarks. None of them needs a server that it does not start itself.
packages() { grep -rlE '^func Benchmark' --include=*_test.go ${PKG:-.} | xargs -n1 dirname | sort -u | grep -v '^\./bench' | sed 's|^\([^.]\)|./\1|'; }

# micro runs the benchmarks of the packages below the working directory, $1 times.
micro() { # shellcheck disable=SC2046
	nice go test -run '^$' -bench . -benchmem -benchtime "${BENCHTIME:-200ms}" -count "$1" $(packages) 2>&1 | grep -E '^(Benchmark|pkg:|cpu:|---|FAIL|panic)' || true
}

build() {
	progress "build"
	go build -o "$dir/bench" ./bench
	go build -trimpath -ldflags '-s -w' -o "$dir/tidegate" ./cmd/tidegate
	go build -trimpath -ldflags '-s -w' -o "$dir/tidegate-clickhouse" ./cmd/tidegate-clickhouse
	export TIDEGATE_CLICKHOUSE=$dir/tidegate-clickhouse
}

case $what in
micro)
	micro "$runs"
	;;
rules)
	build
	nice "$dir/bench" rules -runs "${RUNS:-3}" -file bench/rules.md
	;;
compare)
	ref=${2:?which commit is to be compared with?}
	old=$(mktemp -d)
	trap 'rm -rf "$old"' EXIT
	git archive "$ref" | tar -x -C "$old"
	: >"$dir/old.txt" && : >"$dir/new.txt"
	for i in $(seq "$runs"); do # in turn, so that other load of the machine affects both
		progress "run $i of $runs"
		(cd "$old" && micro 1) >>"$dir/old.txt"
		micro 1 >>"$dir/new.txt"
	done
	go run ./bench compare "$dir/old.txt" "$dir/new.txt"
	;;
all | quick)
	build
	out=$dir/results.txt
	: >"$out"
	progress "a capture of $mb MB"
	truth=$(nice "$dir/bench" traffic -n "$mb" "$dir/traffic.pcap")
	echo "$truth"
	packets=$(sed 's/.*"packets":\([0-9]*\).*/\1/' <<<"$truth")

	progress "packets"
	bench capture -file "$dir/traffic.pcap" -runs "$runs"
	nice "$dir/bench" capture -file "$dir/traffic.pcap" -runs $((4 * runs)) -only stage=kafka -cpuprofile "$dir/capture.cpu" -memprofile "$dir/capture.mem" >/dev/null
	pprof_top capture
	bench whole -name replay-jsonl -n "$packets" -runs "$runs" "$dir/tidegate" replay -o jsonl "$dir/traffic.pcap"
	bench whole -name replay-table -n "$packets" -runs "$runs" "$dir/tidegate" replay "$dir/traffic.pcap"
	if command -v tshark >/dev/null; then
		bench whole -name tshark-fields -n "$packets" -runs "$(((runs + 1) / 2))" tshark -n -2 -o tcp.reassemble_out_of_order:TRUE -r "$dir/traffic.pcap" -T fields \
			-e frame.time_epoch -e ip.src -e ip.dst -e http.request.uri -e http.response.code -e dns.qry.name -e dns.a -e mysql.query -e tls.handshake.extensions_server_name
	else
		progress "tshark is not here: left out"
	fi

	progress "lines"
	bench logs -n "$lines" -runs "$runs"
	nice "$dir/bench" logs -n "$lines" -runs "$runs" -only stage=lines -cpuprofile "$dir/logs.cpu" -memprofile "$dir/logs.mem" >/dev/null
	pprof_top logs

	progress "events"
	deploy/fetch-libchdb.sh >&2 || progress "no libchdb: the engine is measured without ClickHouse"
	bench engine -n "$events" -runs "$runs" -only store=none
	bench engine -n "$events" -runs "$runs" -only store=columns
	if [ -e "$cache"/libchdb-*/libchdb.so ]; then bench engine -n "$events" -runs "$(((runs + 1) / 2))" -only store=libchdb; fi
	nice "$dir/bench" engine -n "$events" -runs "$runs" -only store=columns/rules=shipped+1000- -cpuprofile "$dir/engine.cpu" -memprofile "$dir/engine.mem" >/dev/null
	pprof_top engine

	progress "peers"
	bench peers -file "$dir/traffic.pcap" -runs "$(((runs + 1) / 2))"
	if [ "$what" = all ]; then
		progress "the packages' own benchmarks"
		micro 1 | tee -a "$out"
	fi
	progress "kept in $out"
	;;
*)
	progress "$what: all, quick, micro, rules or compare REF are meant"
	exit 2
	;;
esac
