package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nbd-dataplane/internal/bench/server"
)

// buildRevisions compiles our server of the other revisions that the chosen kinds name, each of them once.
func buildRevisions(ctx context.Context, dir string, kinds []server.Kind) (map[string]string, error) {
	built := map[string]string{}
	for _, k := range kinds {
		if k.Revision == "" || built[k.Revision] != "" {
			continue
		}
		at := filepath.Join(dir, fmt.Sprintf("revision%d", len(built)))
		program, err := buildRevision(ctx, at, k.Revision)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		built[k.Revision] = program
	}
	return built, nil
}

// buildRevision compiles a revision from an export of its files, so that no work tree is left behind whatever happens.
func buildRevision(ctx context.Context, dir, revision string) (program string, err error) {
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		return "", err
	}
	archive := tree + ".tar"
	root, err := runIn(ctx, "", "git", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	if _, err := runIn(ctx, root, "git", "archive", "--format=tar", "--output="+archive, revision); err != nil {
		return "", err
	}
	if _, err := runIn(ctx, tree, "tar", "-xf", archive); err != nil {
		return "", err
	}
	program = filepath.Join(dir, "nbd-dataplane")
	_, err = runIn(ctx, tree, "go", "build", "-trimpath", "-o", program, "./cmd/nbd-dataplane")
	return program, err
}

// runIn returns what a program prints; an error has what it said.
func runIn(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, args[0], err, text)
	}
	return text, nil
}
