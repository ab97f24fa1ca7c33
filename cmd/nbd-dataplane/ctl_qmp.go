package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"nbd-dataplane/qmp"
)

func (t *ctl) newQMP() *cobra.Command {
	return &cobra.Command{
		Use:   "qmp COMMAND [KEY=VALUE...] | qmp JSON",
		Short: "Send a command to the monitor as it is",
		Long: "Sends one QMP command and prints what it returns, or its error. A value is read as JSON where it is that - a number, true, null,\n" +
			"\"text\", [1,2], {...} - and else as text; dots in a key make objects. What a command holds for as long as its connection is\n" +
			"there, such as x-drain-begin, ends at once: use 'ctl drain'.",
		Example: "  nbd-dataplane ctl qmp query-version\n" +
			"  nbd-dataplane ctl qmp object-add qom-type=throttle-group id=slow limits.bps-total=1048576\n" +
			"  nbd-dataplane ctl qmp '{\"execute\": \"query-commands\"}'",
		Args:                  t.args(1, -1, "a command, or JSON"),
		ValidArgsFunction:     t.completeFirst(commandNames),
		DisableFlagsInUseLine: true,
		RunE:                  t.run(t.qmp),
	}
}

func (t *ctl) qmp(m *monitor, args []string) error {
	command, arguments := args[0], map[string]any{}
	var err error
	if strings.HasPrefix(strings.TrimSpace(command), "{") {
		if len(args) > 1 {
			return usagef("%s is too much: JSON holds the arguments of the command", printable(args[1]))
		}
		command, arguments, err = readCommand(args[0])
	} else {
		arguments, err = readArguments(args[1:])
	}
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := m.ask(command, arguments, &raw); err != nil {
		if answered, ok := errors.AsType[*qmp.Error](err); ok {
			return &failure{statusOfError(err), fmt.Errorf("%s: %s: %s", printable(command), answered.Class, answered.Desc)}
		}
		return err
	}
	return t.printJSON(raw)
}

// readCommand reads {"execute": ..., "arguments": ...}; an id is allowed and of no use.
func readCommand(text string) (string, map[string]any, error) {
	var c struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments"`
		ID        any            `json:"id"`
	}
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return "", nil, usagef("the command is no JSON of QMP: %w", err)
	}
	if c.Execute == "" {
		return "", nil, usagef(`the command lacks "execute"`)
	}
	if c.Arguments == nil {
		c.Arguments = map[string]any{}
	}
	return c.Execute, c.Arguments, nil
}

// readArguments makes an object of KEY=VALUE.
func readArguments(pairs []string) (map[string]any, error) {
	top := map[string]any{}
	for _, pair := range pairs {
		key, text, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usagef("%s: use KEY=VALUE", printable(pair))
		}
		if err := putArgument(top, strings.Split(key, "."), valueOf(text)); err != nil {
			return nil, usagef("%s: %w", printable(pair), err)
		}
	}
	return top, nil
}

// valueOf is JSON where text is that.
func valueOf(text string) any {
	if json.Valid([]byte(text)) {
		return json.RawMessage(text)
	}
	return text
}

func putArgument(to map[string]any, path []string, value any) error {
	for ; len(path) > 1; path = path[1:] {
		next, isObject := to[path[0]].(map[string]any)
		if _, taken := to[path[0]]; taken && !isObject {
			return fmt.Errorf("%s has a value already", printable(path[0]))
		}
		if !isObject {
			next = map[string]any{}
			to[path[0]] = next
		}
		to = next
	}
	if _, taken := to[path[0]]; taken {
		return fmt.Errorf("%s has a value already", printable(path[0]))
	}
	to[path[0]] = value
	return nil
}
