#!/usr/bin/env bash
# fuzz.sh runs the fuzz targets one after the other and prints a table: target, executions, new inputs, result. It ends
# with 1 if a target found something; the input is then in testdata/fuzz of the package.
#
#   bench/fuzz.sh                     every target for 10 s each
#   FUZZTIME=10m bench/fuzz.sh        … for ten minutes each
#   bench/fuzz.sh ./protocols/redis   the targets of these packages
#
# PARALLEL (1) is the number of processes of a target. The targets that read what observed parties send come first.
set -u
cd "$(dirname "$0")/.." || exit 1
exposed="protocols/http protocols/redis protocols/mysql protocols/dns protocols/tls protocols/memcached
	collector/sessions collector/reassembly pipeline/redact pipeline/redact/sqltoken collector/logs/decode collector/logs
	pipeline/kafka pipeline/engine collector/capture detectors/rules detectors/feeds detectors/classifier"

# Each target as "package name", the exposed ones first.
targets() {
	local all package
	all=$(grep -rHoE '^func Fuzz[A-Za-z0-9_]+' --include='*_test.go' . | sed -E 's|^\./(.*)/[^/]+:func (.*)|\1 \2|' | sort -u)
	for package in $exposed; do
		grep -E "^$package " <<<"$all"
	done
	grep -vE "^($(tr -s '\n\t ' '|' <<<"$exposed" | sed 's/|$//')) " <<<"$all"
}

log=$(mktemp) && trap 'rm -f "$log"' EXIT
status=0
printf '%-28s %-18s %12s %10s  %s\n' package target executions "new inputs" result
while read -r package name; do
	if [ $# -gt 0 ] && [[ " $* " != *" ./$package "* ]]; then
		continue
	fi
	result=clean
	# Without a limit go spends a minute on the minimization of each input that covers something new.
	if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "${FUZZTIME:-10s}" -fuzzminimizetime 2s -parallel "${PARALLEL:-1}" \
		"./$package" >"$log" 2>&1; then
		result=FOUND status=1
	fi
	last=$(grep -E '^fuzz: elapsed: .*execs:' "$log" | tail -1)
	executions=$(sed -nE 's/.*execs: ([0-9]+).*/\1/p' <<<"$last")
	inputs=$(sed -nE 's/.*new interesting: ([0-9]+).*/\1/p' <<<"$last")
	printf '%-28s %-18s %12s %10s  %s\n' "$package" "$name" "${executions:-0}" "${inputs:-0}" "$result"
	if [ $result = FOUND ]; then
		grep -v '^fuzz: elapsed' "$log" | head -40
	fi
done < <(targets)
exit $status
