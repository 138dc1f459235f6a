package dynamofront

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io"
	"net/http"
	"strconv"
)

// maxAnswer bounds an answer that the front has to change, in bytes: AWS's are of 16 MB at most (DynamoDB API reference,
// BatchGetItem), and escapes may make more of them.
const maxAnswer = 64 << 20

// answers answers what the store does not know and what is the same on every box, and says whether it did.
func (h *handler) answers(w http.ResponseWriter, r *http.Request, c *checked) bool {
	if !h.opts.Names.maps() {
		return false
	}
	var out any
	switch c.op.name {
	case "DescribeLimits":
		// AWS's quotas by default (DynamoDB developer guide, "Quotas"). Nothing here keeps to them.
		out = map[string]int{"AccountMaxReadCapacityUnits": 80000, "AccountMaxWriteCapacityUnits": 80000, "TableMaxReadCapacityUnits": 40000, "TableMaxWriteCapacityUnits": 40000}
	case "DescribeEndpoints":
		out = map[string]any{"Endpoints": []any{map[string]any{"Address": r.Host, "CachePeriodInMinutes": 1440}}}
	default:
		return false
	}
	data, _ := json.Marshal(out) // numbers and text only
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amz-Crc32", checksum(data))
	_, _ = w.Write(data) // a client that has gone needs no answer
	return true
}

func checksum(data []byte) string {
	return strconv.FormatUint(uint64(crc32.ChecksumIEEE(data)), 10)
}

// backups is the answer to DescribeContinuousBackups of a table that is there: there are none to go back to.
const backups = `{"ContinuousBackupsDescription":{"ContinuousBackupsStatus":"DISABLED","PointInTimeRecoveryDescription":{"PointInTimeRecoveryStatus":"DISABLED"}}}`

// answered makes of the store's answer what AWS would have answered.
func (h *handler) answered(r *http.Response) error {
	c, ok := r.Request.Context().Value(contextKey{}).(*checked)
	if !ok || !h.changes(c) {
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(r.Body, maxAnswer+1))
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return err
	}
	if len(data) > maxAnswer {
		return errors.New("the store's answer is too long")
	}
	out := h.opts.Names.fromStore(c.op, data, c.names)
	if r.StatusCode == http.StatusOK {
		if c.own && c.table != "" {
			out = h.iterators().wrapAnswer(out, c.table)
		}
		if c.target != "" {
			out = []byte(backups)
		}
	}
	if !bytes.Equal(out, data) && r.Header.Get("X-Amz-Crc32") != "" {
		r.Header.Set("X-Amz-Crc32", checksum(out))
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(out)), int64(len(out))
	r.Header.Set("Content-Length", strconv.Itoa(len(out)))
	return nil
}

// changes says whether an answer may have something that must be changed. Those with a client's items pass untouched, unless it
// named tables by their ARNs.
func (h *handler) changes(c *checked) bool {
	maps := h.opts.Names.maps() && (!items[c.op.name] || c.op.name == "GetRecords")
	return maps || c.own && c.table != "" || len(c.names) > 0 && c.op.means.tables == batch
}
