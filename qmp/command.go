package qmp

import "context"

// Command is a row of the table of commands.
type Command struct {
	Name    string
	Handler Handler

	// OOB says that the command may be run out of band, before commands that were sent earlier and beside one that
	// runs. While it runs nothing is read from its connection, so it must not wait.
	OOB bool
}

// Handler does what a command asks for. Its result is made JSON by encoding/json; nil is an empty object. The commands
// of one connection run one after the other, those of several beside each other. The context ends with the connection:
// a handler that waits gives up then.
type Handler func(ctx context.Context, call *Call) (result any, err error)

// Call is one execution of a command.
type Call struct {
	// Immutable.
	Command    string
	Arguments  Value
	Connection *Connection
	OOB        bool
}

// NoArgs is a handler for a command that takes no arguments, and checks that there are none.
func NoArgs(do Handler) Handler {
	return func(ctx context.Context, call *Call) (any, error) {
		if err := call.Arguments.Decode(&struct{}{}); err != nil {
			return nil, err
		}
		return do(ctx, call)
	}
}

// With is a handler for a command whose arguments are read into an A, a struct with tags as Value.Decode wants them.
func With[A any](do func(ctx context.Context, call *Call, args *A) (any, error)) Handler {
	return func(ctx context.Context, call *Call) (any, error) {
		args := new(A)
		if err := call.Arguments.Decode(args); err != nil {
			return nil, err
		}
		return do(ctx, call, args)
	}
}

// capability is what a client may enable when it negotiates.
type capability string

const capabilityOOB capability = "oob"

func (capability) Values() []string { return []string{string(capabilityOOB)} }

type negotiation struct {
	Enable []capability `qmp:"enable,optional"`
}

const negotiate = "qmp_capabilities"

// builtin are the commands of the protocol itself.
func (s *Server) builtin() []Command {
	commands := []Command{
		{Name: negotiate, Handler: With(negotiatedAlready)},
		{Name: "query-commands", Handler: NoArgs(s.queryCommands)},
		{Name: "query-version", Handler: NoArgs(s.queryVersion)},
	}
	if s.options.Quit != nil {
		commands = append(commands, Command{Name: quit, Handler: NoArgs(nothing)})
	}
	return commands
}

// quit answers first; whoever runs it calls Options.Quit when the answer is on its way.
const quit = "quit"

func nothing(context.Context, *Call) (any, error) { return nil, nil }

func negotiatedAlready(context.Context, *Call, *negotiation) (any, error) {
	return nil, &Error{CommandNotFound, "Capabilities negotiation is already complete, command ignored"}
}

func (s *Server) queryVersion(context.Context, *Call) (any, error) { return s.options.Version, nil }

func (s *Server) queryCommands(context.Context, *Call) (any, error) {
	type info struct {
		Name string `json:"name"`
	}
	list := make([]info, len(s.order))
	for n, name := range s.order {
		list[n] = info{name}
	}
	return list, nil
}
