package main

import (
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ebitengine/purego"
)

// systemLibraries returns the files of the system's libraries that this program and library need. It loads them, and
// returns what the loader has mapped into this process: where a system keeps its libraries only its loader knows.
func systemLibraries(library string) ([]string, error) {
	file, err := elf.Open(library)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", library, err)
	}
	defer file.Close()
	names, err := file.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", library, err)
	}
	for _, name := range names {
		if _, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
			return nil, fmt.Errorf("load %s, which needs %s: %w", library, name, err)
		}
	}
	// glibc loads this one by itself, when a thread is cancelled.
	_, _ = purego.Dlopen("libgcc_s.so.1", purego.RTLD_NOW|purego.RTLD_GLOBAL)
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(mappedFiles(string(maps)), func(file string) bool { return file == program }), nil
}

// mappedFiles returns the paths in the text of /proc/PID/maps.
func mappedFiles(maps string) (files []string) {
	for line := range strings.Lines(maps) {
		// address permissions offset device inode path
		_, file, _ := strings.Cut(line, "/")
		if file = "/" + strings.TrimSuffix(file, "\n"); file != "/" && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return files
}

// folders returns the folders of files, each once.
func folders(files []string) (dirs []string) {
	for _, file := range files {
		if dir := filepath.Dir(file); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// cgroupFiles returns the files that hold the limits of the cgroup of this process and of those above it. membership
// is the text of /proc/self/cgroup. Files of other cgroups, whose names are those of the containers and services of the
// host, are not among them.
func cgroupFiles(membership string) (files []string) {
	const root = "/sys/fs/cgroup"
	for line := range strings.Lines(membership) {
		group, unified := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !unified {
			continue
		}
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			for _, name := range []string{
				"cgroup.controllers", "memory.max", "memory.stat", "cpu.max", "cpu.stat", "cpuset.cpus.effective",
			} {
				files = append(files, path.Join(root, dir, name))
			}
			if dir == "/" {
				break
			}
		}
	}
	for _, name := range []string{ // of version 1, whose root is in a container the group of the container
		"memory/memory.limit_in_bytes", "memory/memory.stat",
		"cpu/cpu.cfs_period_us", "cpu/cpu.cfs_quota_us", "cpuacct/cpuacct.stat",
	} {
		files = append(files, path.Join(root, name))
	}
	return files
}
