// Package awsapi answers clients of AWS's services that the gateway does not have: each in the protocol of its service, so that an
// SDK or the AWS CLI shows what is the matter, and none of them by a route.
//
// A service that the gateway gets is dispatched before this by its name (Of).
package awsapi

import (
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/edge-serverless-box/esb/sigv4"
)

// Of returns the service of AWS that a request is signed for; false for one that is not signed, or for nothing of AWS. A request
// that does not have a signature costs next to nothing. Nothing of the signature is checked.
func Of(r *http.Request) (Service, bool) {
	name, signed := sigv4.SignedFor(r)
	if !signed || name == "lambda" || name == "execute-api" {
		return Service{}, false
	}
	s, known := services[name]
	s.Name = name
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case s.Protocol == EC2, s.Protocol == RESTXML:
	case r.Header.Get("Smithy-Protocol") == "rpc-v2-cbor":
		s.Protocol, known = CBOR, true
	case r.Header.Get("X-Amz-Target") != "" && strings.HasPrefix(kind, "application/x-amz-json-"):
		s.Protocol, known = JSON, true
	case s.Namespace != "" && (kind == "application/x-www-form-urlencoded" || strings.Contains(r.URL.RawQuery, "Action=")):
		s.Protocol = Query
	}
	return s, known
}

// Refusal is what a client is told.
type Refusal struct {
	// Status of the answer.
	Status int
	// Code is the name of the error, Message its text.
	Code, Message string
}

// NotHere is the refusal of a service that the gateway does not have.
func (s Service) NotHere() Refusal {
	r := Refusal{Status: http.StatusBadRequest, Code: "UnknownOperationException",
		Message: "The box does not have the service " + s.Name + ": it has lambda here, and s3 and dynamodb at endpoints of their own."}
	switch s.Protocol {
	case Query, EC2:
		r.Code = "InvalidAction"
	case RESTJSON:
		r.Status = http.StatusNotFound
	case RESTXML:
		r.Status, r.Code = http.StatusNotImplemented, "NotImplemented"
	case JSON, CBOR:
	}
	if s.Name == "s3" || s.Name == "dynamodb" {
		r.Message = "The box has " + s.Name + " at an endpoint of its own, not at the gateway."
	}
	return r
}

// Write answers with e in the protocol of the service, and returns the size of the body.
func (s Service) Write(w http.ResponseWriter, r *http.Request, requestID string, e Refusal) int {
	kind, body := s.encode(r, requestID, e)
	h := w.Header()
	h["Content-Type"] = []string{kind}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	switch s.Protocol {
	case RESTJSON:
		h["X-Amzn-Errortype"] = []string{e.Code}
	case JSON, CBOR:
		if s.Namespace != "" {
			// What clients of the older interface of a service look at ("awsQueryCompatible").
			h["X-Amzn-Query-Error"] = []string{e.Code + ";Sender"}
		}
		if s.Protocol == CBOR {
			h["Smithy-Protocol"] = []string{"rpc-v2-cbor"}
		}
	case Query, EC2, RESTXML:
	}
	w.WriteHeader(e.Status)
	if r.Method == http.MethodHead {
		return 0
	}
	_, _ = w.Write(body) // a client that has gone needs no answer
	return len(body)
}

// faultXML is the part of an error that all protocols with XML share.
type faultXML struct {
	Type    string `xml:"Type,omitempty"`
	Code    string `xml:"Code"`
	Message string `xml:"Message"`
}

func (s Service) encode(r *http.Request, requestID string, e Refusal) (kind string, body []byte) {
	fault := faultXML{Code: e.Code, Message: e.Message}
	switch s.Protocol {
	case Query:
		fault.Type = "Sender"
		return "text/xml", marshalXML("", struct {
			XMLName   xml.Name `xml:"ErrorResponse"`
			Namespace string   `xml:"xmlns,attr"`
			Error     faultXML `xml:"Error"`
			RequestID string   `xml:"RequestId"`
		}{Namespace: s.Namespace, Error: fault, RequestID: requestID})
	case EC2:
		return "text/xml;charset=UTF-8", marshalXML(xml.Header, struct {
			XMLName   xml.Name   `xml:"Response"`
			Errors    []faultXML `xml:"Errors>Error"`
			RequestID string     `xml:"RequestID"`
		}{Errors: []faultXML{fault}, RequestID: requestID})
	case RESTXML:
		if s.Name == "s3" {
			return "application/xml", marshalXML(xml.Header, struct {
				XMLName xml.Name `xml:"Error"`
				faultXML
				RequestID string `xml:"RequestId"`
			}{faultXML: fault, RequestID: requestID})
		}
		fault.Type = "Sender"
		return "text/xml", marshalXML(xml.Header, struct {
			XMLName   xml.Name `xml:"ErrorResponse"`
			Error     faultXML `xml:"Error"`
			RequestID string   `xml:"RequestId"`
		}{Error: fault, RequestID: requestID})
	case CBOR:
		return "application/cbor", appendCBOR([]byte{0xa0 | 2}, "__type", e.Code, "message", e.Message)
	case RESTJSON:
		return "application/json", marshalJSON(map[string]string{"message": e.Message})
	}
	kind = "application/x-amz-json-1.1"
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-amz-json-1.0") {
		kind = "application/x-amz-json-1.0"
	}
	return kind, marshalJSON(map[string]string{"__type": e.Code, "message": e.Message})
}

func marshalXML(header string, v any) []byte {
	text, _ := xml.Marshal(v) // texts only: it cannot fail
	return append([]byte(header), text...)
}

func marshalJSON(v map[string]string) []byte {
	text, _ := json.Marshal(v) // texts only: it cannot fail
	return text
}

// appendCBOR appends texts (RFC 8949, major type 3).
func appendCBOR(dst []byte, texts ...string) []byte {
	for _, text := range texts {
		switch n := len(text); {
		case n < 24:
			dst = append(dst, 0x60|byte(n))
		case n < 1<<8:
			dst = append(dst, 0x78, byte(n))
		default:
			dst = binary.BigEndian.AppendUint16(append(dst, 0x79), uint16(min(n, 1<<16-1)))
			text = text[:min(n, 1<<16-1)]
		}
		dst = append(dst, text...)
	}
	return dst
}
