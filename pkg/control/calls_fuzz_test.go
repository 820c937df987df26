package control

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/tests/anything"
)

// fuzzedCalls are the procedures that ask no other node, with their requests.
var fuzzedCalls = []struct {
	procedure string
	request   func([]byte) (any, error)
}{
	{api.ProcUpdateNode, request[api.UpdateNodeRequest]},
	{api.ProcScale, request[api.ScaleRequest]},
	{api.ProcSteer, request[api.SteerRequest]},
	{api.ProcRebalance, request[api.RebalanceRequest]},
	{api.ProcRemoveStack, request[api.StackRequest]},
	{api.ProcServices, request[api.ServicesRequest]},
	{api.ProcTasks, request[api.TasksRequest]},
	{api.ProcWhy, request[api.WhyRequest]},
	{api.ProcReport, request[api.Report]},
	{api.ProcTaskFiles, request[api.TaskFilesRequest]},
	{api.ProcCreateFile, request[api.CreateFileRequest]},
	{api.ProcFiles, request[api.FilesRequest]},
	{api.ProcFile, request[api.FileRequest]},
	{api.ProcRemoveFile, request[api.FileRequest]},
	{api.ProcUpdateCluster, request[api.UpdateClusterRequest]},
	{api.ProcUnlockKey, request[api.UnlockKeyRequest]},
	{api.ProcRotateToken, request[api.RotateTokenRequest]},
	{api.ProcAddUser, request[api.AddUserRequest]},
	{api.ProcRemoveUser, request[api.RemoveUserRequest]},
	{api.ProcRenew, request[api.RenewRequest]},
}

func request[T any](data []byte) (any, error) {
	return anything.Of[T](data, append(words, "first", "w", "t1", "admin", "viewer", "worker", "active", "drain", "pause")...)
}

// FuzzCalls looks for calls that make a manager panic, or that it answers by what
// is its own fault.
func FuzzCalls(f *testing.F) {
	s := newSite(f)
	must(s.Replica.Commit(f.Context(), []api.Change{
		{Node: &api.Node{ID: "w", Hostname: "w", Role: api.RoleWorker, Availability: api.AvailabilityActive}},
		{Service: &api.Service{ID: "web", Stack: "blog", Spec: spec("blog_web", 8080)}},
		{Task: &api.Task{ID: "t1", ServiceID: "web", ServiceName: "blog_web", Slot: 1, NodeID: "w", Status: api.TaskStatus{State: api.TaskRunning}}},
	}))
	for i := range fuzzedCalls {
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{3, 9, 1, 2, 5, 1, 1, 8, 40, 3, 1, 0, 1, 1, 7, 2})
	}
	f.Fuzz(func(t *testing.T, which byte, data []byte) {
		call := fuzzedCalls[int(which)%len(fuzzedCalls)]
		req, err := call.request(data)
		if err != nil {
			t.Fatal(err)
		}
		body := string(must(json.Marshal(req)))
		r := httptest.NewRequest(http.MethodPost, call.procedure, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		s.mux.ServeHTTP(unhurried{answer}, r.WithContext(rpc.WithCaller(r.Context(), rpc.Caller{Local: true})))
		if answer.Code == http.StatusInternalServerError {
			t.Errorf("%s %s: %s", call.procedure, body, answer.Body)
		}
	})
}

// unhurried is a response whose request may be given a time.
type unhurried struct{ *httptest.ResponseRecorder }

func (unhurried) SetReadDeadline(time.Time) error { return nil }
