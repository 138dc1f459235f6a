package config

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// maxLayers and maxHandler are AWS's (Lambda API reference, CreateFunction).
const (
	maxLayers  = 5
	maxHandler = 128
	// maxObject leaves room for S3's 1024 bytes of a key.
	maxObject = 1100
)

var (
	handlerName = regexp.MustCompile(`^[^\s]+$`)
	// S3's rules of bucket names, roughly: the store knows its own.
	objectLocation = regexp.MustCompile(`^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+$`)
	scheme         = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9+.-]*://`)
)

// code reads the keys of a function whose image has no code, nil when it has none of them.
func (o *object) code() *gateway.FunctionCode {
	v, ok := o.get("code")
	if !ok {
		for _, key := range []string{"runtime", "handler", "layers"} {
			if v, given := o.get(key); given && !o.has("code") {
				v.problemf("belongs to code, and there is none: a function with image has its code in the image")
			}
		}
		return nil
	}
	c := &gateway.FunctionCode{Source: gateway.CodeSource{Location: v.location()}}
	if v, ok := o.need("runtime", "what runs the code: "+o.doc.runtimes.known()); ok {
		c.Runtime, c.Base = v.runtime()
	}
	if v, ok := o.get("handler"); ok {
		if c.Handler, ok = v.text("a handler, module.function"); ok && (len(c.Handler) > maxHandler || !handlerName.MatchString(c.Handler)) {
			v.problemf("must have 1 to %d characters and no spaces, got %q", maxHandler, c.Handler)
		}
	} else if !o.has("handler") && c.Runtime != "" && !strings.HasPrefix(c.Runtime, "provided.") {
		o.doc.problemf(o.line, join(o.key, "handler"), "is missing: what the runtime calls, module.function, such as app.handler")
	}
	if v, ok := o.get("layers"); ok {
		if items, ok := v.list(); ok {
			if len(items) > maxLayers {
				v.problemf("must be at most %d layers (AWS's limit), got %d", maxLayers, len(items))
			}
			for _, item := range items {
				c.Layers = append(c.Layers, gateway.CodeSource{Location: item.location()})
			}
		}
	}
	return c
}

// withoutImage refuses what code excludes.
func (o *object) withoutImage(f *gateway.Function) {
	for _, key := range []string{"image", "entrypoint", "command", "working_directory"} {
		if v, ok := o.get(key); ok {
			v.problemf("and code exclude each other: the image, and how it is started, follow from runtime")
			delete(o.fields, key) // it was reported; nobody shall read it
		}
	}
	if f.Interface == gateway.Supervisor {
		return
	}
	if v, ok := o.fields["runtime_interface"]; ok {
		v.problemf("must be supervisor with code")
	}
	f.Interface = gateway.Supervisor // from defaults, which are for all functions
}

// location reads where code is; a path is relative to the folder of the file that names it.
func (v value) location() string {
	const want = "s3://bucket/key.zip, or the path of a zip file or folder"
	s, ok := v.text(want)
	switch {
	case !ok:
		return ""
	case objectLocation.MatchString(s) && len(s) <= maxObject:
		v.doc.code = append(v.doc.code, v.place(s))
		return s
	case s == "" || scheme.MatchString(s) || strings.ContainsRune(s, 0):
		v.problemf("must be %s, got %q", want, s)
		return ""
	}
	if !filepath.IsAbs(s) {
		s = filepath.Join(filepath.Dir(v.doc.path), s)
	}
	absolute, err := filepath.Abs(s)
	if err != nil {
		v.problemf("cannot be made an absolute path: %v", err)
	}
	v.doc.code = append(v.doc.code, v.place(absolute))
	return absolute
}
