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
	"slices"
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
	sigmaFolder  = "sigma"
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

// A Feed is a feed of a bundle: the settings that its author has, and its file or folder in the contents in place of the path.
type Feed struct {
	File     string       `json:"file"` // or folder, in the folder feeds of the contents
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
func (c *Contents) Rules() fs.FS { return c.folder(rulesFolder) }

// Sigma returns the folder of Sigma rules, or nil if the bundle has none. It is safe for concurrent use.
func (c *Contents) Sigma() fs.FS {
	if c.SigmaFiles() == 0 {
		return nil
	}
	return c.folder(sigmaFolder)
}

func (c *Contents) folder(name string) fs.FS {
	folder, err := fs.Sub(c.files, name)
	if err != nil {
		panic(err) // the name of the folder is not valid
	}
	return folder
}

// RuleFiles returns the number of files in the folder of rules.
func (c *Contents) RuleFiles() int { return c.countFiles(rulesFolder) }

// SigmaFiles returns the number of files in the folder of Sigma rules.
func (c *Contents) SigmaFiles() int { return c.countFiles(sigmaFolder) }

func (c *Contents) countFiles(folder string) (count int) {
	for _, file := range c.files.File {
		if strings.HasPrefix(file.Name, folder+"/") {
			count++
		}
	}
	return count
}

// A File is a file of the contents, as a person compares it.
type File struct {
	Name   string // in the contents, as rules/web.yaml
	Size   int64
	SHA256 string // in hex
}

// Files returns all files, sorted by name.
func (c *Contents) Files() (list []File, err error) {
	for _, file := range c.files.File {
		data, err := fs.ReadFile(c.files, file.Name)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		list = append(list, File{file.Name, int64(len(data)), hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(list, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// WriteFeeds writes the files of the feeds to a folder and returns their settings with the paths of the files.
func (c *Contents) WriteFeeds(dir string) (list []feeds.Config, err error) {
	for _, feed := range c.Feeds {
		cfg := feed.Settings
		cfg.Path = filepath.Join(dir, feed.File)
		if err := c.writeFeed(feed, dir); err != nil {
			return nil, fmt.Errorf("write the feed %s of the bundle: %w", cfg.Name, err)
		}
		list = append(list, cfg)
	}
	return list, nil
}

// writeFeed writes the file of a feed, or all files of its folder. It removes what else the folder has: a process that was
// killed may have left a part of a file there, which would be read.
func (c *Contents) writeFeed(feed Feed, dir string) error {
	folder := c.folder(feedsFolder)
	if err := filepath.WalkDir(filepath.Join(dir, feed.File), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		inFolder, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if _, err := fs.Stat(folder, filepath.ToSlash(inFolder)); err == nil {
			return nil
		}
		return os.Remove(name)
	}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return fs.WalkDir(folder, feed.File, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(name))
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		data, err := fs.ReadFile(folder, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(target), 0o700)
		}
		if err != nil {
			return err
		}
		return statedir.WriteFile(target, data, 0o600)
	})
}

// A Selection is what Pack packs.
type Selection struct {
	Rules fs.FS // folder of rules
	Sigma fs.FS // folder of Sigma rules; nil: none
	// Feeds are packed by their files. One that is downloaded is a feed of its file from then on.
	Feeds []feeds.Config
}

// Pack packs files. Names that begin with a dot are left out, as rules.Read does.
func Pack(selected Selection) (*Contents, error) {
	var packed packer
	packed.zip = zip.NewWriter(&packed.out)
	if err := packed.addFolder(selected.Rules, rulesFolder); err != nil {
		return nil, fmt.Errorf("pack the rules: %w", err)
	}
	if selected.Sigma != nil {
		if err := packed.addFolder(selected.Sigma, sigmaFolder); err != nil {
			return nil, fmt.Errorf("pack the Sigma rules: %w", err)
		}
	}
	list := make([]Feed, len(selected.Feeds))
	for i, cfg := range selected.Feeds {
		list[i] = Feed{File: fmt.Sprintf("%d-%s", i, path.Base(cfg.Path)), Settings: cfg}
		settings := &list[i].Settings
		settings.Path, settings.URL, settings.Interval, settings.Timeout, settings.TLS = "", "", 0, 0, config.TLS{}
		settings.MaxSize, settings.MaxUnpackedSize = 0, 0
		if err := packed.addFeed(cfg.Path, path.Join(feedsFolder, list[i].File)); err != nil {
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

// addFolder adds the files of a folder.
func (p *packer) addFolder(folder fs.FS, target string) error {
	return fs.WalkDir(folder, ".", func(name string, entry fs.DirEntry, err error) error {
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
		return p.add(path.Join(target, name), data)
	})
}

// addFeed adds the file of a feed, or the files of its folder.
func (p *packer) addFeed(source, target string) error {
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		return p.addFolder(config.RegularFS(source), target)
	}
	file, err := config.OpenRegular(source)
	if err != nil {
		return err
	}
	data, err := readBounded(file)
	if err != nil {
		return err
	}
	return p.add(target, data)
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
	isFolder := folder == rulesFolder || folder == sigmaFolder || folder == feedsFolder
	if !isFolder || rest == "" || len(name) > maxName || !fs.ValidPath(name) || strings.Count(name, "/") > maxDepth {
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
		if _, err := fs.Stat(c.files, path.Join(feedsFolder, feed.File)); err != nil || !isValidName(path.Join(feedsFolder, feed.File)) || strings.Contains(feed.File, "/") {
			return refuse(ReasonContents, "the feed %q has no file %q", feed.Settings.Name, feed.File)
		}
	}
	return nil
}
