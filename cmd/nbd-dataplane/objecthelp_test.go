package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"nbd-dataplane/internal/control"
)

// Goal: --object KIND,help lists what QEMU lists, less what we refuse. Method: each kind's help is printed by both programs, in each of the
// ways to ask for it.
func TestObjectHelpAsQEMU(t *testing.T) {
	ours := asProgram(t, qsdName)
	for _, kind := range control.ObjectKinds() {
		for _, ask := range []string{kind + ",help", kind + ",?", kind + ",id=x,help", "qom-type=" + kind + ",help"} {
			want := run(t, t.TempDir(), stockQSD, "--object", ask)
			want.Stdout = strings.ReplaceAll(want.Stdout, "  priority=<string>\n", "") // GnuTLS's
			require.Equal(t, want, run(t, t.TempDir(), ours, "--object", ask), ask)
		}
	}
}

// Goal: help for a kind that there is not lists the kinds, as help alone does; a value that is called help is none.
func TestObjectHelpOfNoKind(t *testing.T) {
	kinds := objectHelp("help")
	require.Equal(t, kinds, objectHelp("nosuch,help"))
	require.Contains(t, kinds, "\n  throttle-group\n")
	for _, argument := range []string{"secret,id=help,data=?", "iothread,id=x", `{"qom-type":"iothread,help"}`, "secret,id=s,data=a,,help", "secret,id=s,data=a,,?"} {
		require.Empty(t, objectHelp(argument), argument)
	}
}

// Goal: whoever reads --help learns of each object that can be made. Method: the help of --object, of serve and of daemon, against the table.
func TestHelpNamesAllObjects(t *testing.T) {
	var texts []string
	for _, o := range optionTable {
		if o.long == "object" {
			texts = append(texts, o.help)
		}
	}
	for _, o := range daemonHelp {
		if o.long == "object" {
			texts = append(texts, o.text)
		}
	}
	require.Len(t, texts, 2)
	for _, text := range texts {
		words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(":, ", r) })
		for kind := range objectKinds {
			require.Contains(t, words, kind)
		}
		for kind := range secretKinds {
			require.Contains(t, words, kind)
		}
	}
}
