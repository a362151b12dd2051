package tail

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// TestReadBuffersStayWithinTheBudget: whatever number of tailers read at once, and whatever long records their buffers
// are enlarged for, the buffers have the memory of the budget, and one goes on when all others wait.
func TestReadBuffersStayWithinTheBudget(t *testing.T) {
	const limit = 16 << 20
	synctest.Test(t, func(t *testing.T) {
		b := budget{maxMemory: limit, overdraft: make(chan struct{}, maxOverdrafts)}
		smallest := bufferSizes[len(bufferSizes)-1]
		var buffers []readBuffer
		for i := range 2000 {
			buffers = append(buffers, b.getBuffer())
			if most := int64(limit + i*smallest); b.bufferBytes.Load() > most {
				t.Fatalf("%d buffers have %d bytes", i+1, b.bufferBytes.Load())
			}
		}
		if first := len(buffers[0].b); first != bufferSizes[0] {
			t.Errorf("the first buffer has %d bytes", first)
		}

		// All of them meet a long record.
		ctx, cancel := context.WithCancel(t.Context())
		enlarged, failed := make(chan int, len(buffers)), make(chan error, len(buffers))
		for i := range buffers {
			go func() {
				for len(buffers[i].b) < maxRecord {
					if err := b.enlarge(ctx, &buffers[i]); err != nil {
						failed <- err
						return
					}
				}
				enlarged <- i
			}()
		}
		for range 20 {
			synctest.Wait()
			if n := len(enlarged); n != maxOverdrafts {
				t.Fatalf("%d buffers were enlarged beyond the budget at a time", n)
			}
			if used := b.bufferBytes.Load(); used > limit+int64(len(buffers)*smallest)+maxOverdrafts*maxRecord {
				t.Fatalf("%d bytes are used", used)
			}
			for range maxOverdrafts {
				i := <-enlarged
				b.putBuffer(&buffers[i])
				buffers[i] = b.getBuffer()
			}
		}
		cancel()
		synctest.Wait()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("a tailer that waited ended with %v", err)
		}
		for i := range buffers {
			b.putBuffer(&buffers[i])
		}
		if used := b.bufferBytes.Load(); used != 0 || len(b.overdraft) != 0 {
			t.Errorf("%d bytes and %d overdrafts are left", used, len(b.overdraft))
		}
	})
}

// TestOpenLinesStayWithinTheBudget: incomplete lines of many logs keep their heads and tails within the memory, the
// later ones less of them, and those of usual length are whole.
func TestOpenLinesStayWithinTheBudget(t *testing.T) {
	const limit, lines = 4 << 20, 200
	b := budget{maxMemory: limit}
	part := make([]byte, 16<<10)
	open := make([]pendingLine, lines)
	for range 16 { // 50 MiB in all
		for i := range open {
			open[i].appendPart(part, 256<<10, &b)
		}
	}
	var held int64
	for i := range open {
		held += int64(cap(open[i].text))
		if open[i].bytes != 16*uint64(len(part)) || len(open[i].text) < shortLine {
			t.Fatalf("line %d: %d bytes of %d are kept", i, len(open[i].text), open[i].bytes)
		}
	}
	if used := b.pendingBytes.Load(); used != held || used > limit+lines*shortLine*2 {
		t.Errorf("%d bytes are charged, %d held, of %d", used, held, limit)
	}
	short := pendingLine{}
	short.appendPart(make([]byte, 4000), 256<<10, &b)
	if short.cut {
		t.Error("a short line is cut")
	}
	for i := range open {
		open[i].discardLine(&b)
	}
	short.discardLine(&b)
	if used := b.pendingBytes.Load(); used != 0 {
		t.Errorf("%d bytes are left", used)
	}
}
