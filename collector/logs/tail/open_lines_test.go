package tail

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tidegate/collector"
	"tidegate/collector/logs/decode"
	"tidegate/collector/logs/logstest"
)

// A checkpointHandler records the lines that are shipped, with their checkpoints. It fails if its error is set.
type checkpointHandler struct {
	shippingHandler
	state *State
	err   *error
	lines *[]shippedLine
}

type shippedLine struct {
	text       string
	partial    bool
	checkpoint collector.Checkpoint
}

func (h checkpointHandler) State() State { return *h.state }

func (h checkpointHandler) Ship(_ context.Context, _ collector.FileProducer, line *Line, checkpoint collector.Checkpoint) error {
	if *h.err != nil {
		return *h.err
	}
	*h.lines = append(*h.lines, shippedLine{string(line.Text), line.Partial, checkpoint})
	return nil
}

// TestOpenLinesAreNumberedWithinTheNextRecord: so the checkpoint of each stream shows which of them was shipped, and a later
// start neither loses nor repeats one. They are incomplete unless nothing will be added to them.
func TestOpenLinesAreNumberedWithinTheNextRecord(t *testing.T) {
	dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
	part := strings.Repeat("a", decode.DockerPartBytes)
	dockerd.WriteLog("stdout", part)
	dockerd.WriteLog("stderr", part)
	tailer := tailerOf(dockerd, ship)
	var state State
	var failure error
	var lines []shippedLine
	tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, &failure, &lines}
	tailer.scanFolder()
	if _, err := tailer.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 0 {
		t.Fatalf("%d lines before their end", len(lines))
	}
	file := tailer.files[0]
	failure = errors.New("interrupted")
	if err := tailer.flushOpenLines(t.Context(), file); !errors.Is(err, failure) {
		t.Errorf("an interrupted flush: %v", err)
	}
	failure = nil
	if err := tailer.flushOpenLines(t.Context(), file); err != nil || len(lines) != 2 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, stream := range []decode.Stream{decode.Stdout, decode.Stderr} {
		line, readFrom := lines[i], file.offset
		if i == 0 {
			readFrom /= 2 // the other line begins with the second record
		}
		if want := (collector.Checkpoint{End: file.offset + 1 + int64(stream), ReadFrom: readFrom, Sample: file.sample}); !line.partial || line.checkpoint != want {
			t.Errorf("line %d: partial %t, %+v, want %+v", i, line.partial, line.checkpoint, want)
		}
	}
	if tailer.hasOpenLine() {
		t.Error("a line is open behind its flush")
	}

	// A process that starts with these checkpoints reads the records again, and drops what was flushed.
	for flushed := range int(decode.NumStreams) + 2 {
		resumed := tailer.files[0]
		resumed.resumeEnd = 1000 + int64(flushed)
		for i := range resumed.pending {
			resumed.pending[i].startLine(resumed, &decode.Record{Text: []byte("x"), Stream: decode.Stream(i)}, 0)
		}
		tailer.discardFlushed(resumed, 1000, 1000+minPartRecord)
		for i := range resumed.pending {
			isFlushed := i < flushed && flushed <= int(decode.NumStreams)
			if resumed.pending[i].active == isFlushed {
				t.Errorf("%d lines were flushed: line %d is open %t", flushed, i, resumed.pending[i].active)
			}
			resumed.pending[i].discardLine(&tailer.group.budget)
		}
	}
	file.resumeEnd = 1001
	file.pending[0].startLine(file, &decode.Record{Text: []byte("x")}, 0)
	tailer.discardFlushed(file, 1000, 1000+minPartRecord-1) // no record is so short
	if !file.pending[0].active {
		t.Error("a line is dropped at what is no record")
	}
	tailer.group.closeTailer(tailer)
}

// TestLineOfAContainerThatHasEndedIsComplete.
func TestLineOfAContainerThatHasEndedIsComplete(t *testing.T) {
	for name, set := range map[string]func(*Tailer, *State){
		"running": func(*Tailer, *State) {}, "stopped": func(_ *Tailer, state *State) { state.Stopped = true },
		"removed": func(tailer *Tailer, _ *State) { tailer.folderGone.Store(true) },
	} {
		dockerd, ship := logstest.NewDockerd(t, t.TempDir(), 1), logstest.NewShipper()
		dockerd.WriteLog("stdout", strings.Repeat("a", decode.DockerPartBytes))
		tailer := tailerOf(dockerd, ship)
		var state State
		var failure error
		var lines []shippedLine
		tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, &failure, &lines}
		tailer.scanFolder()
		if _, err := tailer.readAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
		set(tailer, &state)
		if err := tailer.flushOpenLines(t.Context(), tailer.files[0]); err != nil || len(lines) != 1 || lines[0].partial != (name == "running") {
			t.Errorf("%s: %v, %v", name, lines, err)
		}
		tailer.folderGone.Store(false)
		tailer.group.closeTailer(tailer)
	}
}

// textFile returns the file of a tailer of a text log with this content, of which bytes up to offset were read.
func textFile(t *testing.T, content string, offset int64) *file {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.log")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.Close() })
	return &file{file: opened, offset: offset}
}

// TestSampleShowsATruncation: the bytes before the offset are read again, but not those that a truncation has put there.
func TestSampleShowsATruncation(t *testing.T) {
	content := strings.Repeat("0123456789", 60)
	f := textFile(t, content, 600)
	f.extendSample([]byte(content), 600)
	if f.sample.Start != 600-maxSample || f.sample.Size != maxSample {
		t.Errorf("sample %+v", f.sample)
	}
	if f.isTruncated() {
		t.Error("truncated without a change")
	}
	f.extendSample(nil, 700)
	if f.sample.Start != 600-maxSample {
		t.Errorf("no bytes have changed the sample: %+v", f.sample)
	}
	f.extendSample([]byte("abc"), 10)
	if f.sample.Start != 7 || f.sample.Size != 3 {
		t.Errorf("sample of 3 bytes %+v", f.sample)
	}
	// Bytes that follow extend it to maxSample bytes, however few are read at a time.
	f = textFile(t, content, 600)
	for end := 1; end <= 600; end++ {
		f.extendSample([]byte(content[end-1:end]), int64(end))
		whole := textFile(t, content, 600)
		whole.extendSample([]byte(content[:end]), int64(end))
		if f.sample != whole.sample || !f.hasSample(f.sample) || f.sample.Size != min(end, maxSample) {
			t.Fatalf("sample of %d bytes %+v, at once %+v", end, f.sample, whole.sample)
		}
	}

	f = textFile(t, content, 500)
	f.resample()
	if f.sample.Start != 500-maxSample || f.sample.Size != maxSample || f.isTruncated() {
		t.Errorf("sample %+v before the offset", f.sample)
	}
	f = textFile(t, content, 20)
	f.resample()
	if f.sample.Start != 0 || f.sample.Size != 20 || f.isTruncated() {
		t.Errorf("sample %+v of the first bytes", f.sample)
	}

	// Other bytes, or fewer of them.
	before := f.sample
	if _, err := f.file.WriteAt([]byte("x"), 19); err != nil {
		t.Fatal(err)
	}
	if f.resample(); f.sample != before || !f.isTruncated() {
		t.Error("the sample has become that of other bytes")
	}
	f = textFile(t, content, 600)
	f.resample()
	before = f.sample
	if err := f.file.Truncate(599); err != nil {
		t.Fatal(err)
	}
	if f.resample(); f.sample != before || !f.isTruncated() {
		t.Error("a shorter file is not truncated")
	}
	f = textFile(t, content, 600)
	f.resample()
	before, f.gz = f.sample, true
	if err := f.file.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if f.resample(); f.sample != before || f.isTruncated() {
		t.Error("offsets of a compressed file are not those of its bytes")
	}
}

// TestRestOfAFileIsReadWithoutNULs: a crash of the host leaves NULs, which are counted, and no lines.
func TestRestOfAFileIsReadWithoutNULs(t *testing.T) {
	tailer, ship := textTailer(t, map[string]string{"a.log": "whole\n\x00\x00\x00torn"})
	tailer.scanFolder()
	if _, err := tailer.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := tailer.files[0]
	begin, tally := f.offset, tailer.tally
	if err := tailer.readRemainder(t.Context(), f, []byte("\x00\x00ab\x00")); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, line := range ship.All() {
		texts = append(texts, line.Message)
	}
	if f.offset != begin+5 || tailer.tally.bytes != tally.bytes+5 || tailer.tally.nul < tally.nul+2 {
		t.Errorf("offset %d behind %d, %+v behind %+v", f.offset, begin, tailer.tally, tally)
	}
	if len(texts) != 2 || texts[0] != "whole" || !strings.HasPrefix(texts[1], "ab") {
		t.Errorf("lines %q", texts)
	}
	tailer.group.closeTailer(tailer)
}

// TestShippedLinesAreCounted; those of an earlier process are counted apart, and those that could not be shipped not at all.
func TestShippedLinesAreCounted(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{"a.log": "a\nb\nc\n"})
	var state State
	var failure error
	var lines []shippedLine
	tailer.handler = checkpointHandler{shippingHandler{tailer.log}, &state, &failure, &lines}
	tailer.scanFolder()
	f := tailer.files[0]
	ship := func(end, resumeEnd int64, limit int, text string) error {
		f.resumeEnd, tailer.group.cfg.LineMax = resumeEnd, limit
		tailer.line = Line{Text: []byte(text), Bytes: uint64(len(text))}
		return tailer.shipLine(t.Context(), f, end, end)
	}
	before := tailer.tally
	if err := ship(10, 10, 100, "resumed"); err != nil || len(lines) != 0 || tailer.tally.resumed != before.resumed+1 {
		t.Errorf("a line of an earlier process: %v, %d shipped, %+v", err, len(lines), tailer.tally)
	}
	if err := ship(11, 10, 100, "new"); err != nil || len(lines) != 1 || tailer.tally.lines != before.lines+1 {
		t.Errorf("a new line: %v, %d shipped, %+v", err, len(lines), tailer.tally)
	}
	failure = errors.New("interrupted")
	if err := ship(12, 10, 100, "failed"); !errors.Is(err, failure) || tailer.tally.lines != before.lines+1 {
		t.Errorf("a line that could not be shipped: %v, %+v", err, tailer.tally)
	}
	failure = nil
	long := strings.Repeat("x", 100)
	if err := ship(12, 10, 100, long); err != nil || lines[1].text != long || tailer.tally.overCap != before.overCap {
		t.Errorf("a line of the limit: %v, %d bytes, %+v", err, len(lines[1].text), tailer.tally)
	}
	if err := ship(13, 10, 100, long+"y"); err != nil || len(lines[2].text) != 100 ||
		tailer.tally.overCap != before.overCap+1+uint64(len(CutMark)) {
		t.Errorf("a line over the limit: %v, %d bytes, %+v", err, len(lines[2].text), tailer.tally)
	}
	tailer.group.closeTailer(tailer)
}

// TestLogThatWaitsForADescriptorIsTriedAgain soon, although nothing is written to it.
func TestLogThatWaitsForADescriptorIsTriedAgain(t *testing.T) {
	tailer, _ := textTailer(t, map[string]string{"a.log": "a\n"})
	tailer.scanFolder()
	if _, err := tailer.readAvailable(t.Context()); err != nil {
		t.Fatal(err)
	}
	watcher, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.closeWatcher()
	tailer.folder.Store(&watchedFolder{watcher: watcher, path: tailer.log.Dir}) // no event comes
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tailer.readShort.Store(true)
	select {
	case <-tailer.wake: // of the listing
	default:
	}
	tailer.waitForEvents(ctx)
	if ctx.Err() != nil {
		t.Error("it was not tried for 20 seconds")
	}
	tailer.group.closeTailer(tailer)
}
