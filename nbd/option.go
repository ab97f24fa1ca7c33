package nbd

import (
	"encoding/binary"
	"fmt"
)

// optionRule is what there is to know of an option before its data is looked at.
type optionRule struct {
	dataMax int  // how many bytes of data the answer needs at most
	noData  bool // data is an error, though one that costs nobody the connection
	answer  func(n *negotiation, o optionRequest, pin *infoPin) outcome
}

// optionRules has a row for each option that is answered. EXPORT_NAME and ABORT are not like the others
// and are answered by step itself; PEEK_EXPORT was withdrawn and is as unknown as what is not here.
var optionRules = map[Option]optionRule{
	OptExportName:      {dataMax: stringMax},
	OptList:            {noData: true, answer: (*negotiation).listExports},
	OptStartTLS:        {noData: true, answer: (*negotiation).startTLS},
	OptInfo:            {dataMax: infoDataMax, answer: (*negotiation).infoOrGo},
	OptGo:              {dataMax: infoDataMax, answer: (*negotiation).infoOrGo},
	OptStructuredReply: {noData: true, answer: (*negotiation).structuredReply},
	OptListMetaContext: {dataMax: metaDataMax, answer: (*negotiation).metaContexts},
	OptSetMetaContext:  {dataMax: metaDataMax, answer: (*negotiation).metaContexts},
	OptExtendedHeaders: {noData: true, answer: (*negotiation).extendedHeaders},
}

// listExports answers LIST. NBD proto.md, "NBD_OPT_LIST".
func (n *negotiation) listExports(o optionRequest, _ *infoPin) outcome {
	for _, e := range n.catalog.list(n.peer) {
		if !n.visible(&e) {
			continue
		}
		data := binary.BigEndian.AppendUint32(nil, uint32(len(e.Name)))
		data = append(data, e.Name...)
		n.reply(o.option, RepServer, append(data, e.Description...))
	}
	return n.done(o.option)
}

// startTLS answers STARTTLS. NBD proto.md, "NBD_OPT_STARTTLS".
func (n *negotiation) startTLS(o optionRequest, _ *infoPin) outcome {
	switch {
	case n.peer.TLS:
		return n.refuse(o.option, RepErrInvalid, "TLS is already on")
	case n.tls == TLSOff:
		return n.refuse(o.option, RepErrPolicy, "this server has no TLS credentials: connect without TLS")
	}
	n.reply(o.option, RepAck, nil)
	return outcome{verdict: verdictStartTLS}
}

// structuredReply answers STRUCTURED_REPLY. NBD proto.md, "NBD_OPT_STRUCTURED_REPLY".
func (n *negotiation) structuredReply(o optionRequest, _ *infoPin) outcome {
	switch {
	case n.extended:
		return n.refuse(o.option, RepErrExtHeaderReqd, "extended headers are on and include structured replies")
	case n.structured:
		return n.refuse(o.option, RepErrInvalid, "structured replies are already on")
	}
	n.structured = true
	return n.done(o.option)
}

// extendedHeaders answers EXTENDED_HEADERS. NBD proto.md, extension "extended headers".
func (n *negotiation) extendedHeaders(o optionRequest, _ *infoPin) outcome {
	if n.extended {
		return n.refuse(o.option, RepErrInvalid, "extended headers are already on")
	}
	n.extended = true
	return n.done(o.option)
}

// visible reports whether an export may be shown to the client as things stand. One for TLS only is hidden
// from a client in clear; lookup tells the two options that may speak of it apart.
func (n *negotiation) visible(e *exportInfo) bool { return !e.TLSOnly || n.peer.TLS }

// lookup finds an export for an option. The error is what to answer if there is none.
//
// NBD proto.md, "SELECTIVETLS mode": only INFO and GO may say that TLS is needed, so to every other option
// an export for TLS only does not exist; and where TLS is off nobody may be sent to start it.
func (n *negotiation) lookup(o Option, name string) (exportInfo, Reply, error) {
	e, ok := n.catalog.find(name, n.peer)
	switch {
	case ok && n.visible(&e):
		return e, RepAck, nil
	case ok && n.tls == TLSOptional && (o == OptInfo || o == OptGo):
		return e, RepErrTLSReqd, fmt.Errorf("export %s is not served in clear: start TLS first", shown(name))
	case name == "":
		return e, RepErrUnknown, fmt.Errorf("there is no default export: ask for one by name, LIST shows them")
	}
	return e, RepErrUnknown, noExport(name)
}

func noExport(name string) error {
	return fmt.Errorf("no export is called %s: LIST shows those there are", shown(name))
}
