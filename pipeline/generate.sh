#!/bin/sh
# Generates event.pb.go and event_vtproto.pb.go from event.proto. Needs protoc (Debian: protobuf-compiler libprotobuf-dev); the
# plugins are go tools of this module. The result is checked in, so a build does not need protoc.
set -eu
cd "$(dirname "$0")"
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
for tool in protoc-gen-go protoc-gen-go-vtproto; do
	printf '#!/bin/sh\nexec go tool %s "$@"\n' "$tool" >"$bin/$tool"
	chmod +x "$bin/$tool"
done
# Every message is pooled but those that many events share.
pool=""
for m in $(sed -n 's/^message \([A-Za-z]*\) .*/\1/p' event.proto | grep -vxE 'Host|Container|Label|SignalBlock|Signal|Matches'); do
	pool="$pool,pool=tidegate/pipeline.$m"
done
PATH="$bin:$PATH" protoc --go_out=. --go_opt=paths=source_relative \
	--go-vtproto_out=. --go-vtproto_opt="paths=source_relative,features=marshal+unmarshal+unmarshal_unsafe+size+pool$pool" event.proto
