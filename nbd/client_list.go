package nbd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
)

// listDeadlineDefault bounds asking a server for everything it has.
const listDeadlineDefault = 30 * time.Second

// ListOptions says how to ask a server for its exports.
type ListOptions struct {
	TLS      *tls.Config   // nil: in clear
	Deadline time.Duration // for everything; 0 means 30 s
}

// ListExports asks the server on conn for its exports and for all it says of each, says goodbye, and
// closes conn. A server that does not know the newer options is asked less; one that refuses to speak of
// an export gets it listed by name alone.
func ListExports(ctx context.Context, conn net.Conn, o ListOptions) ([]RemoteExport, error) {
	defer conn.Close()
	deadline := o.Deadline
	if deadline == 0 {
		deadline = listDeadlineDefault
	}
	conn.SetDeadline(time.Now().Add(deadline))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	exports, err := listExports(ctx, conn, o.TLS)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return exports, err
}

func listExports(ctx context.Context, conn net.Conn, config *tls.Config) ([]RemoteExport, error) {
	c, err := NewClient(conn)
	if err != nil {
		return nil, err
	}
	if config != nil {
		if err := c.StartTLS(ctx, config); err != nil {
			return nil, err
		}
		defer c.conn.Close()
	}
	structured, err := accepted(c.StructuredReplies())
	if err != nil {
		return nil, err
	}
	exports, err := c.List()
	if err != nil {
		return nil, err
	}
	for i := range exports {
		if err := c.describe(&exports[i], structured); err != nil {
			return nil, fmt.Errorf("export %s: %w", shown(exports[i].Name), err)
		}
	}
	c.Abort() // a courtesy: what the server answers to it changes nothing
	return exports, nil
}

// describe fills in what the server says of an export from the list.
func (c *Client) describe(e *RemoteExport, structured bool) error {
	known, err := c.Info(e.Name)
	if ok, err := accepted(err); !ok || err != nil {
		return err
	}
	if known.Description == "" {
		known.Description = e.Description
	}
	known.Name = e.Name
	*e = known
	if !structured {
		return nil
	}
	contexts, err := c.ListContexts(e.Name)
	if ok, err := accepted(err); !ok || err != nil {
		return err
	}
	e.Contexts = contexts
	return nil
}

// accepted tells a refusal, which is an answer, from what ends the conversation.
func accepted(err error) (bool, error) {
	var refusal *OptionError
	if errors.As(err, &refusal) {
		return false, nil
	}
	return err == nil, err
}
