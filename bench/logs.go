package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"tidegate/collector/logs"
	"tidegate/collector/logs/decode"
	"tidegate/pipeline"
)

// logStages are the stages of a log line. "lines" builds and releases the events, "encode" encodes them,
// "kafka" ships them with journal and zstd.
var logStages = []string{"lines", "encode", "kafka"}

// logs measures the path of a log line from one file to one partition.
func (o *options) logs(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, strings.Repeat("ab", 32)+"-json.log")
	lines := o.amountOr(1000) * 1000
	size, err := writeLog(path, lines)
	if err != nil {
		return err
	}
	for _, stage := range logStages {
		for range o.runs {
			if ctx.Err() != nil || !o.selected("Logs/stage="+stage) {
				break
			}
			if err := o.logStage(ctx, path, stage, lines, size); err != nil {
				return fmt.Errorf("stage %s: %w", stage, err)
			}
			if stage != "lines" || o.filedPath == "" {
				continue
			}
			if err := o.measureFiled(ctx, path, lines, size); err != nil {
				return fmt.Errorf("file.d: %w", err)
			}
		}
	}
	return nil
}

// logStage measures one stage once on the log at path, which has the given number of lines and size in bytes,
// and prints the line of the measurement.
func (o *options) logStage(ctx context.Context, path, stage string, lines, size int) error {
	sink, _, err := newSink(ctx, stage)
	if err != nil {
		return err
	}
	if shipping, ok := sink.(*shippingSink); ok {
		shipping.fromFile = true
	}
	meter, err := o.startMeter()
	if err != nil {
		return errors.Join(err, sink.close())
	}

	// Every line passes from the file through the decoder to the sink.
	read := 0
	emit := func(event *pipeline.Event) {
		read++
		event.Container = containers[7]
		sink.add(event)
	}
	err = logs.ReadFile(ctx, logs.Default(), path, decode.DockerJSON, pipeline.ID{1}, emit)
	err = errors.Join(err, sink.finish())
	usage := meter.since()
	if read != lines {
		err = errors.Join(err, fmt.Errorf("%d lines were read, %d were written", read, lines))
	}
	if err = errors.Join(err, sink.close()); err == nil {
		perGB := usage.self.Seconds() / float64(size) * 1e9
		report(o.out, "Logs/stage="+stage, "lines", lines, usage, figure{perGB, "cpu-s/GB"})
	}
	return err
}

// writeLog writes records of the json-file driver of Docker. Four kinds of lines follow in turn: access log,
// logfmt, a Java service, JSON in JSON. It returns the size of the file.
func writeLog(path string, lines int) (size int, err error) {
	file, err := os.Create(filepath.Clean(path))
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	for i := range lines {
		minute, second := i/60%60, i%60
		written, err := fmt.Fprintf(out, `{"log":"%s","stream":"stdout","time":"2026-03-01T12:%02d:%02d.%09dZ"}`+"\n",
			escapedLine(i), minute, second, i)
		if err != nil {
			return 0, errors.Join(err, file.Close())
		}
		size += written
	}
	return size, errors.Join(out.Flush(), file.Close())
}

// escapedLine returns line i of the log as it stands in the string of a JSON record.
func escapedLine(i int) string {
	minute, second := i/60%60, i%60
	switch i % 4 {
	case 0:
		return fmt.Sprintf(`172.17.0.%d - - [01/Mar/2026:12:%02d:%02d +0000] `+
			`\"GET /catalog/items/%d?page=%d HTTP/1.1\" 200 %d \"-\" \"curl/8.5.0\"\n`,
			i%250, minute, second, i%9973, i%17, i%65521)
	case 1:
		return fmt.Sprintf(`level=info ts=2026-03-01T12:%02d:%02d.123Z caller=main.go:42 `+
			`msg=\"request done\" method=GET path=/items/%d took=%d.2ms\n`,
			minute, second, i%9973, i%97)
	case 2:
		return fmt.Sprintf(`2026-03-01 12:%02d:%02d.123  INFO 1 --- [nio-8080-exec-%d] `+
			`c.e.OrderService : order %d was placed by customer %d\n`,
			minute, second, i%10, i, i%7919)
	}
	return fmt.Sprintf(`{\"level\":\"warn\",\"ts\":1772366400.%03d,`+
		`\"msg\":\"cache miss\",\"key\":\"user:%d\",\"took\":0.0012}\n`, i%1000, i%9973)
}
