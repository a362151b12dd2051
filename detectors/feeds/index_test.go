package feeds

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
)

// TestIndexFindsWhatWasAdded: for any number of entries each is found with its detail, also with hashes that are close
// together, at both ends, or equal in all but their check, and nothing beside them is.
func TestIndexFindsWhatWasAdded(t *testing.T) {
	check := func(name string, hashes []uint64) {
		t.Helper()
		var all index
		for i, hash := range hashes {
			all.add(keyHash{hash, 7}, uint32(i))
		}
		all.finish(func(a, b uint32) int { return int(a) - int(b) })
		if all.count != len(hashes) {
			t.Errorf("%s: %d entries, want %d", name, all.count, len(hashes))
		}
		for i, hash := range hashes {
			if got, ok := all.find(keyHash{hash, 7}); !ok || got != uint32(i) {
				t.Fatalf("%s: %x has detail %d %t, want %d", name, hash, got, ok, i)
			}
			if _, ok := all.find(keyHash{hash, 8}); ok {
				t.Fatalf("%s: %x is found with another check", name, hash)
			}
		}
		for _, other := range []uint64{3, 1<<40 | 6, 1<<56 - 2, 0x7777777777777777} {
			if _, ok := all.find(keyHash{other, 7}); ok {
				t.Errorf("%s: %x is found", name, other)
			}
		}
	}
	check("none", nil)
	check("ends", []uint64{0, 1<<64 - 1})
	var close, far, growing, random []uint64
	for i := range uint64(5000) {
		close = append(close, 1<<50+2*i)
		far = append(far, i<<32, 1<<63|i<<20|5)
		random = append(random, hashKey(fmt.Appendf(nil, "%d", i)).hash)
	}
	for i := range uint64(55) {
		growing = append(growing, 4<<i|1)
	}

	check("close", close)
	check("far", far)
	check("growing", growing)
	check("random", random)

	// Entries of one hash, which differ in their check, stand beside each other.
	var same index
	for i := range uint32(1000) {
		same.add(keyHash{42, i}, i)
	}
	same.finish(func(a, b uint32) int { return 0 })
	for i := range uint32(1000) {
		if got, ok := same.find(keyHash{42, i}); !ok || got != i {
			t.Fatalf("check %d has detail %d %t", i, got, ok)
		}
	}
}

// TestDetailsAreBounded: with a text of its own for each line, the texts beyond the limit are left out and counted, and
// confidence and expiry stay.
func TestDetailsAreBounded(t *testing.T) {
	kept := details{room: 10}
	for i := range 1000 {
		at := kept.add(detail{confidence: uint8(i % 100), note: fmt.Sprint("note ", i), expires: int64(i % 7)})
		if got := kept.all[at]; got.confidence != uint8(i%100) || got.expires != int64(i%7) {
			t.Fatalf("detail %d is %v", i, got)
		}
	}
	if kept.dropped != 990 || len(kept.all) > 10+700 {
		t.Errorf("%d texts were left out, %d details are kept", kept.dropped, len(kept.all))
	}
	for i := range int64(3 * maxBareDetails) {
		kept.add(detail{expires: 1_700_000_000 + i})
	}
	if len(kept.all) > 2*maxBareDetails {
		t.Errorf("%d details are kept", len(kept.all))
	}
}

// largeFeed writes a feed of n indicators: three domains to one address.
func largeFeed(t testing.TB, n int) string {
	path := filepath.Join(t.TempDir(), "feed")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i := range n {
		if i%4 == 3 {
			fmt.Fprintf(&text, "%d.%d.%d.%d\n", 45+i>>24, i>>16&255, i>>8&255, i&255)
		} else {
			fmt.Fprintf(&text, "host%d.domain%d.example\n", i, i/7)
		}
		if text.Len() > 1<<20 || i == n-1 {
			if _, err := file.WriteString(text.String()); err != nil {
				t.Fatal(err)
			}
			text.Reset()
		}
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func heapInUse() uint64 {
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapInuse
}

// TestTenMillionIndicatorsFit: 10 M indicators take less than 400 MB, and so does what a load takes beside them.
func TestTenMillionIndicatorsFit(t *testing.T) {
	const perIndicator = 40 // bytes
	n := 10_000_000
	if testing.Short() {
		n = 1_000_000
	}
	path := largeFeed(t, n)
	before := heapInUse()
	set, _, err := Load(t.Context(), []Config{{Name: "f", Path: path}})
	if err != nil {
		t.Fatal(err)
	}
	took := heapInUse() - before
	t.Logf("%d indicators take %.1f MB, %.1f bytes each", set.Len(), float64(took)/1e6, float64(took)/float64(n))
	if set.Len() != n || took > uint64(n*perIndicator) {
		t.Errorf("%d indicators take %d bytes", set.Len(), took)
	}
	runtime.KeepAlive(set)
}

// BenchmarkMiss looks up values that ten million indicators do not have; each kind of value is one lookup.
func BenchmarkMiss(b *testing.B) {
	n := 10_000_000
	if testing.Short() {
		n = 1_000_000
	}
	set, _, err := Load(b.Context(), []Config{{Name: "f", Path: largeFeed(b, n)}})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([][]byte, 1<<16)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "www%d.fine%d.test", i*7919, i)
	}
	addrs := make([]string, 1<<16)
	for i := range addrs {
		addrs[i] = fmt.Sprintf("198.51.%d.%d", i>>8, i&255)
	}
	run := func(name string, lookUp func(i int)) {
		b.Run(name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			start := threadTime()
			for i := 0; b.Loop(); i++ {
				lookUp(i & (1<<16 - 1))
			}
			b.ReportMetric(float64(threadTime()-start)/float64(b.N), "cpu-ns/op") // other processes do not count
		})
	}
	run("key", func(i int) { set.check(target{}, "", "", keys[i], &feedSet{}) })
	run("name-of-3-labels", func(i int) { set.checkHost(target{}, "", unsafeText(keys[i]), &feedSet{}) })
	run("address", func(i int) { set.checkHost(target{}, "", addrs[i], &feedSet{}) })
	run("hit", func(int) { set.check(target{}, "", "", []byte("host4.domain0.example"), &feedSet{}) })
}

// threadTime returns the CPU time of this thread.
func threadTime() int64 {
	var usage syscall.Rusage
	const rusageThread = 1
	if err := syscall.Getrusage(rusageThread, &usage); err != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
