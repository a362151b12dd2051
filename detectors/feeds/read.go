package feeds

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tidegate/detectors/watch"
	"tidegate/pipeline/config"
)

const (
	maxFeedBytes = 4 << 30 // of the files of a feed, decompressed; of a download max_unpacked_size
	maxFiles     = 10_000  // of a folder
)

// readPath reads the file or the files of the folder at path, in the order of their names, and writes their names and bytes
// to sum. It ends with the error of ctx when that ends.
func (p *feedParser) readPath(ctx context.Context, path string, sum io.Writer) error {
	left := p.list.config.maxUnpacked()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && p.list.config.URL != "" {
		return nil // not downloaded yet
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return p.readFile(ctx, path, sum, &left)
	}
	var files []string
	err = filepath.WalkDir(path, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case file != path && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !entry.IsDir() && isFeedFile(entry.Name()):
			files = append(files, file)
		}
		if len(files) > maxFiles {
			return fmt.Errorf("%s has more than %d files", path, maxFiles)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, file := range files {
		_, _ = fmt.Fprintf(sum, "\nfile %q\n", strings.TrimPrefix(file, path))
		if err := p.readFile(ctx, file, sum, &left); err != nil {
			return err
		}
	}
	return nil
}

// isFeedFile reports whether a file of a folder has indicators. A feed of MISP has two more files, which list the others.
func isFeedFile(name string) bool {
	return !strings.HasPrefix(name, ".") && name != "manifest.json" && name != "hashes.csv"
}

// readFile reads one file of left bytes at most.
func (p *feedParser) readFile(ctx context.Context, path string, sum io.Writer, left *int64) error {
	file, err := config.OpenRegular(path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	p.path, p.source, p.header, p.rows, p.identities = path, "", nil, false, nil
	return p.read(io.TeeReader(&contextReader{ctx, file}, sum), left)
}

// read adds the indicators of a text, which may be compressed with gzip, in the format that it begins like.
func (p *feedParser) read(in io.Reader, left *int64) error {
	buffered := bufio.NewReaderSize(in, maxLine)
	head, _ := buffered.Peek(4)
	switch {
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
		buffered = bufio.NewReaderSize(unzipped, maxLine)
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return fmt.Errorf("%s is a ZIP archive: unpack it", p.path)
	}
	head, _ = buffered.Peek(len(byteOrderMark))
	if bytes.Equal(head, byteOrderMark) {
		_, _ = buffered.Discard(len(byteOrderMark))
	}
	head, _ = buffered.Peek(512)
	limited := &limitReader{in: buffered, left: left, limit: p.list.config.maxUnpacked()}
	if looksLikeJSON(head) {
		return p.readJSON(limited)
	}
	return p.readLines(limited)
}

// looksLikeJSON reports whether a text begins with an object, or a list of objects or texts. A line of a list may begin with
// a bracket, too: [2001:db8::7]:443.
func looksLikeJSON(head []byte) bool {
	head = bytes.TrimLeft(head, " \t\r\n")
	if len(head) == 0 || head[0] != '{' && head[0] != '[' {
		return false
	}
	list := head[0] == '['
	head = bytes.TrimLeft(head[1:], " \t\r\n")
	return len(head) > 0 && (head[0] == '"' || head[0] == '}' && !list || list && head[0] == '{')
}

// A limitReader returns an error after left bytes.
type limitReader struct {
	in    io.Reader
	left  *int64
	limit int64 // what left was at first
}

func (r *limitReader) Read(b []byte) (int, error) {
	if *r.left <= 0 {
		return 0, fmt.Errorf("its files have more than %d bytes, decompressed", r.limit)
	}
	n, err := r.in.Read(b[:min(int64(len(b)), *r.left)])
	*r.left -= int64(n)
	return n, err
}

// A contextReader returns the error of a context once that has ended. It reads the compressed bytes: of these, few are
// decompressed between two reads.
type contextReader struct {
	ctx context.Context
	in  io.Reader
}

func (r *contextReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.in.Read(b)
}

// fileState returns the state of a file or a folder. The state of a file that cannot be read is the error, so that it is
// read, and the error reported.
func fileState(path string) string {
	var state string
	info, err := os.Stat(path)
	switch {
	case err != nil:
	case info.IsDir():
		state, err = watch.FolderState(path, isFeedFile)
	default:
		state, err = watch.FileState(path)
	}
	if err != nil {
		return err.Error() + "\n"
	}
	return state
}

// checkPath requires a file or a folder.
func checkPath(path string) []config.Problem {
	if _, err := os.Stat(path); path != "" && errors.Is(err, fs.ErrNotExist) {
		return config.Invalid("path", "%s: no such file or folder", path)
	}
	return nil
}
