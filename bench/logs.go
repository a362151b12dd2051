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

// logStages are the stages of a log line: events are built and released, encoded, or shipped with journal and
// zstd.
var logStages = []string{"lines", "encode", "kafka"}

// logs measures the path of a log line from one file to one partition.
func (o *options) logs(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "tidegate-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, strings.Repeat("ab", 32)+"-json.log")
	n := o.amountOr(1000) * 1000
	size, err := writeLog(path, n)
	if err != nil {
		return err
	}
	for _, stage := range logStages {
		for range o.runs {
			if ctx.Err() != nil || !o.selected("Logs/stage="+stage) {
				break
			}
			if err := o.logStage(ctx, path, stage, n, size); err != nil {
				return fmt.Errorf("stage %s: %w", stage, err)
			}
		}
	}
	return nil
}

func (o *options) logStage(ctx context.Context, path, stage string, n, size int) error {
	sink, _, err := newSink(ctx, stage)
	if err != nil {
		return err
	}
	if k, ok := sink.(*shippingSink); ok {
		k.fromFile = true
	}
	lines := 0
	meter, err := o.startMeter()
	if err != nil {
		return errors.Join(err, sink.close())
	}
	err = logs.ReadFile(ctx, logs.Default(), path, decode.DockerJSON, pipeline.ID{1}, func(event *pipeline.Event) {
		lines++
		event.Container = containers[7]
		sink.add(event)
	})
	err = errors.Join(err, sink.finish())
	usage := meter.since()
	if lines != n {
		err = errors.Join(err, fmt.Errorf("%d lines were read, %d were written", lines, n))
	}
	if err = errors.Join(err, sink.close()); err == nil {
		report(o.out, "Logs/stage="+stage, "lines", n, usage, figure{usage.self.Seconds() / float64(size) * 1e9, "cpu-s/GB"})
	}
	return err
}

// writeLog writes n records of the json-file driver of Docker: access logs, logfmt, a Java service, JSON in
// JSON.
func writeLog(path string, n int) (size int, err error) {
	file, err := os.Create(filepath.Clean(path))
	if err != nil {
		return 0, err
	}
	out := bufio.NewWriterSize(file, 1<<20)
	for i := range n {
		var line string
		switch i % 4 {
		case 0:
			line = fmt.Sprintf(`172.17.0.%d - - [01/Mar/2026:12:%02d:%02d +0000] \"GET /catalog/items/%d?page=%d HTTP/1.1\" 200 %d \"-\" \"curl/8.5.0\"\n`, i%250, i/60%60, i%60, i%9973, i%17, i%65521)
		case 1:
			line = fmt.Sprintf(`level=info ts=2026-03-01T12:%02d:%02d.123Z caller=main.go:42 msg=\"request done\" method=GET path=/items/%d took=%d.2ms\n`, i/60%60, i%60, i%9973, i%97)
		case 2:
			line = fmt.Sprintf(`2026-03-01 12:%02d:%02d.123  INFO 1 --- [nio-8080-exec-%d] c.e.OrderService : order %d was placed by customer %d\n`, i/60%60, i%60, i%10, i, i%7919)
		default:
			line = fmt.Sprintf(`{\"level\":\"warn\",\"ts\":1772366400.%03d,\"msg\":\"cache miss\",\"key\":\"user:%d\",\"took\":0.0012}\n`, i%1000, i%9973)
		}
		k, err := fmt.Fprintf(out, `{"log":"%s","stream":"stdout","time":"2026-03-01T12:%02d:%02d.%09dZ"}`+"\n", line, i/60%60, i%60, i)
		if err != nil {
			return 0, errors.Join(err, file.Close())
		}
		size += k
	}
	return size, errors.Join(out.Flush(), file.Close())
}
