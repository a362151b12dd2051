package bundles

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"tidegate/detectors/feeds"
	"tidegate/pipeline/config"
	"tidegate/pipeline/statedir"
)

// Bounds of the contents of a bundle, which an author and an engine check alike.
const (
	maxFiles    = 4000
	maxContents = 64 << 20 // bytes of all files and their names
	maxName     = 255      // bytes of a path
	maxFeeds    = 100
)

// The folders of the contents, and the file that has the settings of the feeds.
const (
	rulesFolder  = "rules"
	feedsFolder  = "feeds"
	feedSettings = "feeds.json"
)

// Contents holds the files of a bundle. It is a zip archive without compression, since the message is compressed as a
// whole; the same files are the same bytes. It is immutable.
type Contents struct {
	data  []byte
	files *zip.Reader
	Feeds []Feed
}

// A Feed is a feed of a bundle: the settings that its author has, and its file in the contents in place of the path.
type Feed struct {
	File     string       `json:"file"` // in the folder feeds of the contents
	Settings feeds.Config `json:"settings"`
}

// Name returns the name of the contents: the beginning of their SHA-256.
func (c *Contents) Name() string { return c.sum()[:nameLength] }

const nameLength = 12

// sum returns the SHA-256 of the contents in hex.
func (c *Contents) sum() string {
	sum := sha256.Sum256(c.data)
	return hex.EncodeToString(sum[:])
}

// Size returns the size of all files in bytes.
func (c *Contents) Size() int { return len(c.data) }

// Rules returns the folder of rules. It is safe for concurrent use.
func (c *Contents) Rules() fs.FS {
	folder, err := fs.Sub(c.files, rulesFolder)
	if err != nil {
		panic(err) // the name of the folder is not valid
	}
	return folder
}

// RuleFiles returns the number of files in the folder of rules.
func (c *Contents) RuleFiles() (count int) {
	for _, file := range c.files.File {
		if strings.HasPrefix(file.Name, rulesFolder+"/") {
			count++
		}
	}
	return count
}

// ReadFeed returns the file of a feed.
func (c *Contents) ReadFeed(feed Feed) ([]byte, error) {
	return fs.ReadFile(c.files, path.Join(feedsFolder, feed.File))
}

// WriteFeeds writes the files of the feeds to a folder and returns their settings with the paths of the files.
func (c *Contents) WriteFeeds(dir string) (list []feeds.Config, err error) {
	for _, feed := range c.Feeds {
		data, err := c.ReadFeed(feed)
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		cfg := feed.Settings
		if cfg.Path = filepath.Join(dir, feed.File); err == nil {
			err = statedir.WriteFile(cfg.Path, data, 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("write the feed %s of the bundle: %w", cfg.Name, err)
		}
		list = append(list, cfg)
	}
	return list, nil
}

// Pack packs the files of a folder and the files of feeds. Names that begin with a dot are left out, as rules.Read does.
func Pack(folder fs.FS, feedConfigs []feeds.Config) (*Contents, error) {
	var packed packer
	packed.zip = zip.NewWriter(&packed.out)
	if err := fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case entry.IsDir():
			return nil
		}
		if info, err := fs.Stat(folder, name); err == nil && info.IsDir() {
			return nil // a link to a folder, which is not followed
		}
		file, err := folder.Open(name)
		if err != nil {
			return err
		}
		data, err := readBounded(file)
		if err != nil {
			return err
		}
		return packed.add(path.Join(rulesFolder, name), data)
	}); err != nil {
		return nil, fmt.Errorf("pack the rules: %w", err)
	}

	list := make([]Feed, len(feedConfigs))
	for i, cfg := range feedConfigs {
		var data []byte
		file, err := config.OpenRegular(cfg.Path)
		if err == nil {
			data, err = readBounded(file)
		}
		if err == nil {
			list[i] = Feed{File: fmt.Sprintf("%d-%s", i, path.Base(cfg.Path)), Settings: cfg}
			list[i].Settings.Path = ""
			err = packed.add(path.Join(feedsFolder, list[i].File), data)
		}
		if err != nil {
			return nil, fmt.Errorf("pack the feed %s: %w", cfg.Name, err)
		}
	}
	if len(list) > 0 {
		settings, err := json.Marshal(list)
		if err == nil {
			err = packed.add(feedSettings, settings)
		}
		if err != nil {
			return nil, fmt.Errorf("pack the feeds: %w", err)
		}
	}
	if err := packed.zip.Close(); err != nil {
		return nil, err
	}
	return parseContents(packed.out.Bytes())
}

// readBounded reads and closes a file. Of one that is larger than a bundle may be it returns the beginning.
func readBounded(file io.ReadCloser) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(file, maxContents+1))
	return data, errors.Join(err, file.Close())
}

// A packer writes files into the contents of a bundle.
type packer struct {
	out   bytes.Buffer
	zip   *zip.Writer
	files int
}

// privateKeyMark is in the PEM file of each private key. A key that lies beside the rules would be sent to all engines.
var privateKeyMark = []byte("PRIVATE KEY-----")

func (p *packer) add(name string, data []byte) error {
	if p.files++; p.files > maxFiles {
		return refuse(ReasonTooLarge, "more than %d files", maxFiles)
	}
	if p.out.Len()+len(data) > maxContents {
		return refuse(ReasonTooLarge, "%s: the files have more than %d MiB together: give engines large lists as feeds of their own",
			name, maxContents>>20)
	}
	if bytes.Contains(data, privateKeyMark) {
		return fmt.Errorf("%s holds a private key: keep it elsewhere", name)
	}
	writer, err := p.zip.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err == nil {
		_, err = writer.Write(data)
	}
	return err
}

// parseContents checks everything about contents that does not need the rule compiler.
func parseContents(data []byte) (*Contents, error) {
	if len(data) > maxContents {
		return nil, refuse(ReasonTooLarge, "the contents have more than %d bytes", maxContents)
	}
	files, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, refuse(ReasonContents, "read the contents: %w", err)
	}
	contents := &Contents{data: data, files: files}
	if err := contents.check(); err != nil {
		return nil, err
	}
	return contents, nil
}

// check reads each file once and checks its name.
func (c *Contents) check() error {
	if len(c.files.File) > maxFiles {
		return refuse(ReasonTooLarge, "the contents have more than %d files", maxFiles)
	}
	total := uint64(0)
	isFile, isFolder := map[string]bool{}, map[string]bool{}
	for _, file := range c.files.File {
		switch total += file.UncompressedSize64; {
		case file.Method != zip.Store || file.UncompressedSize64 != file.CompressedSize64:
			return refuse(ReasonContents, "%q is compressed", file.Name)
		case file.UncompressedSize64 > maxContents || total > maxContents: // entries may share their bytes
			return refuse(ReasonTooLarge, "the files have more than %d bytes together", maxContents)
		case !isValidName(file.Name):
			return refuse(ReasonContents, "%q is no name of a file in a bundle", file.Name)
		case isFile[file.Name] || isFolder[file.Name]:
			return refuse(ReasonContents, "%q occurs twice", file.Name)
		}
		isFile[file.Name] = true
		for folder := path.Dir(file.Name); folder != "." && !isFolder[folder]; folder = path.Dir(folder) {
			if isFile[folder] {
				return refuse(ReasonContents, "%q is a file and a folder", folder)
			}
			isFolder[folder] = true
		}
		if err := verifyFile(file); err != nil {
			return refuse(ReasonContents, "read %q: %w", file.Name, err)
		}
	}
	if len(c.files.File) == 0 {
		return refuse(ReasonContents, "the bundle is empty")
	}
	return c.readFeedSettings()
}

// maxDepth bounds the folders of a name.
const maxDepth = 16

// isValidName reports whether name is that of a file in one of the folders of a bundle. Such a name stays in its folder
// on every file system.
func isValidName(name string) bool {
	if name == feedSettings {
		return true
	}
	folder, rest, _ := strings.Cut(name, "/")
	if folder != rulesFolder && folder != feedsFolder || rest == "" || len(name) > maxName || !fs.ValidPath(name) {
		return false
	}
	if folder == feedsFolder && strings.Contains(rest, "/") || strings.Count(name, "/") > maxDepth {
		return false
	}
	for part := range strings.SplitSeq(rest, "/") {
		if strings.HasPrefix(part, ".") {
			return false
		}
	}
	isOdd := func(r rune) bool { return r < ' ' || r == '\\' || r == ':' || r == 0x7f }
	return !strings.ContainsFunc(rest, isOdd)
}

// verifyFile reads a file, which compares its checksum.
func verifyFile(file *zip.File) error {
	reader, err := file.Open()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, reader)
	return errors.Join(err, reader.Close())
}

// readFeedSettings reads the settings of the feeds. A setting that this program does not know is an error.
func (c *Contents) readFeedSettings() error {
	text, err := fs.ReadFile(c.files, feedSettings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.DisallowUnknownFields()
		err = decoder.Decode(&c.Feeds)
	}
	if err != nil {
		return refuse(ReasonContents, "read the settings of the feeds: %w", err)
	}
	if len(c.Feeds) > maxFeeds {
		return refuse(ReasonTooLarge, "the bundle has more than %d feeds", maxFeeds)
	}
	names := map[string]bool{}
	for _, feed := range c.Feeds {
		if feed.Settings.Name == "" || names[feed.Settings.Name] || feed.Settings.Path != "" {
			return refuse(ReasonContents, "a feed has no name, a name twice, or a path: %q", feed.Settings.Name)
		}
		names[feed.Settings.Name] = true
		if info, err := fs.Stat(c.files, path.Join(feedsFolder, feed.File)); err != nil || info.IsDir() || strings.Contains(feed.File, "/") {
			return refuse(ReasonContents, "the feed %q has no file %q", feed.Settings.Name, feed.File)
		}
	}
	return nil
}
