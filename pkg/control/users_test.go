package control

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// person is a user with their key.
type person struct {
	keyed
	*api.UserAccess
}

func (s *site) addUser(t *testing.T, req api.AddUserRequest) (*person, error) {
	t.Helper()
	p := &person{keyed: newKeyed()}
	req.Request = p.request
	var err error
	p.UserAccess, err = s.AddUser(deadline(t), &req)
	return p, err
}

func (s *site) client(p *person) *rpc.UserClient {
	return rpc.NewUserClient(must(pki.NewCredentials(p.key, p.Certificate)), []string{"127.0.0.1:1", s.addr})
}

// may calls a procedure with an empty request: whatever it answers, it was let to.
func may(t *testing.T, c *rpc.Client, procedure string) bool {
	t.Helper()
	_, err := rpc.Call[api.Empty, api.Empty](deadline(t), c, procedure, &api.Empty{})
	var answered *api.Error
	if err != nil && !errors.As(err, &answered) {
		t.Fatalf("%s: %v", procedure, err)
	}
	return api.CodeOf(err) != api.CodeDenied || err == nil
}

// Every procedure of a manager, called by everybody who has a certificate.
func TestEveryoneMay(t *testing.T) {
	s := newSite(t)
	admin := s.client(must(s.addUser(t, api.AddUserRequest{Name: "ada", Role: api.UserAdmin})))
	viewer := s.client(must(s.addUser(t, api.AddUserRequest{Name: "vera", Role: api.UserViewer})))
	worker, manager := s.member(t, api.RoleWorker), s.member(t, api.RoleManager)
	const nobody, admins, everybody = "", "manager admin", "manager admin viewer"
	for procedure, allowed := range map[string]string{
		api.ProcAuthority: everybody, api.ProcNodes: everybody, api.ProcStacks: everybody, api.ProcServices: everybody, api.ProcTasks: everybody, api.ProcWhy: everybody,
		api.ProcAskDiagnose: everybody, api.ProcAskFrontends: everybody, api.ProcAskDrops: everybody, api.ProcAskFlows: everybody, api.ProcAskTrace: everybody,
		api.ProcJoinTokens: admins, api.ProcRotateToken: admins, api.ProcRotateAuthority: admins, api.ProcFinishRotation: admins,
		api.ProcUsers: admins, api.ProcAddUser: admins, api.ProcRemoveUser: admins,
		api.ProcUpdateNode: admins, api.ProcDeploy: admins, api.ProcRemoveStack: admins, api.ProcScale: admins, api.ProcUpdate: admins, api.ProcSteer: admins,
		api.ProcInit: nobody, api.ProcJoin: nobody,
		// With an empty request these refuse managers and workers too: for
		// themselves they may, see TestWorkerMay.
		api.ProcReport: nobody,
	} {
		for who, client := range map[string]*rpc.Client{"admin": admin.Client, "viewer": viewer.Client, "worker": worker.client, "manager": manager.client} {
			if got, want := may(t, client, procedure), strings.Contains(allowed, who); got != want {
				t.Errorf("%s, %s: %v, want %v", who, procedure, got, want)
			}
		}
	}
	for who, client := range map[string]*rpc.Client{"admin": admin.Client, "viewer": viewer.Client} {
		for _, procedure := range []string{api.ProcAddMember, api.ProcImageSources, api.ProcSession, api.ProcTaskLogs, api.ProcImageLayer, api.ProcClock} {
			if may(t, client, procedure) {
				t.Errorf("%s may call %s", who, procedure)
			}
		}
	}
}

func TestAddUser(t *testing.T) {
	s := newSite(t)
	ada := must(s.addUser(t, api.AddUserRequest{Name: "ada", Role: api.UserAdmin}))
	if id := must(pki.NewCredentials(ada.key, ada.Certificate)).Identity; id.Role != api.RoleUser || id.Node != ada.User.ID || ada.Managers[0] != s.addr {
		t.Errorf("%+v for %s", ada.UserAccess, id)
	}
	if _, err := s.addUser(t, api.AddUserRequest{Name: "bob", Role: api.UserViewer}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		req  api.AddUserRequest
		code api.Code
	}{
		{api.AddUserRequest{Name: "ada", Role: api.UserAdmin}, api.CodeConflict},
		{api.AddUserRequest{Name: "eve", Role: "king"}, api.CodeInvalid},
		{api.AddUserRequest{Name: "eve"}, api.CodeInvalid},
		{api.AddUserRequest{Name: "../eve", Role: api.UserViewer}, api.CodeInvalid},
		{api.AddUserRequest{Name: "eve", Renew: true}, api.CodeNotFound},
	} {
		if _, err := s.addUser(t, tt.req); err == nil || api.CodeOf(err) != tt.code {
			t.Errorf("%+v: %v", tt.req, err)
		}
	}
	renewed := must(s.addUser(t, api.AddUserRequest{Name: "ada", Renew: true}))
	if renewed.User.Role != api.UserAdmin || renewed.User.ID == ada.User.ID {
		t.Errorf("renewed as %+v", renewed.User)
	}
	if may(t, s.client(ada).Client, api.ProcNodes) || !may(t, s.client(renewed).Client, api.ProcDeploy) {
		t.Error("the old certificate is good, or the new one is not")
	}
	var names []string
	for _, u := range must(s.Users(deadline(t), &api.Empty{})).Users {
		names = append(names, u.Name)
	}
	if diff := cmp.Diff([]string{"ada", "bob"}, names); diff != "" {
		t.Error(diff)
	}
}

// What a user is doing ends when they are removed, and they can do nothing more.
func TestRemoveUser(t *testing.T) {
	s := newSite(t)
	if _, err := s.Replica.Commit(deadline(t), []api.Change{{Service: &api.Service{ID: "x", Stack: "x", Spec: api.ServiceSpec{Name: "x_x", Mode: api.ModeReplicated, Replicas: 1}}}}); err != nil {
		t.Fatal(err)
	}
	vera := must(s.addUser(t, api.AddUserRequest{Name: "vera", Role: api.UserViewer}))
	client := s.client(vera)
	begun, ended := make(chan struct{}, 100), make(chan error, 1)
	go func() {
		ended <- rpc.Stream(deadline(t), client.Client, api.ProcWatchStack, &api.StackRequest{Stack: "x"}, func(*api.StackStatus) error {
			begun <- struct{}{}
			return nil
		})
	}()
	<-begun
	if _, err := s.RemoveUser(deadline(t), &api.RemoveUserRequest{Name: "vera"}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-deadline(t).Done():
		t.Error("a stream outlives its user")
	}
	for _, procedure := range []string{api.ProcNodes, api.ProcRenew} {
		_, err := rpc.Call[api.Empty, api.Empty](deadline(t), client.Client, procedure, &api.Empty{})
		if err == nil || api.CodeOf(err) != api.CodeDenied || !strings.Contains(err.Error(), "was removed") {
			t.Errorf("%s: %v", procedure, err)
		}
	}
	if _, err := s.RemoveUser(deadline(t), &api.RemoveUserRequest{Name: "vera"}); api.CodeOf(err) != api.CodeNotFound {
		t.Errorf("removed twice: %v", err)
	}
}

// A user notices that the authority is replaced, and renews.
func TestUserFollowsAuthority(t *testing.T) {
	s := newSite(t)
	ada := must(s.addUser(t, api.AddUserRequest{Name: "ada", Role: api.UserAdmin}))
	outdated := func(what string, want bool) {
		t.Helper()
		client := s.client(ada)
		if !may(t, client.Client, api.ProcNodes) || client.Outdated() != want {
			t.Errorf("%s: outdated is %v", what, client.Outdated())
		}
	}
	renew := func() {
		t.Helper()
		fresh := newKeyed()
		issued := must(rpc.Call[api.RenewRequest, api.Certificate](deadline(t), s.client(ada).Client, api.ProcRenew, &api.RenewRequest{Request: fresh.request}))
		ada.keyed, ada.Certificate = fresh, *issued
	}
	outdated("before", false)
	must(s.RotateAuthority(deadline(t), &api.RotateAuthorityRequest{}))
	s.renewSelf(t)
	outdated("begun", true)
	renew()
	outdated("renewed", false)
	must(s.FinishRotation(deadline(t), &api.Empty{}))
	s.followRoots()
	outdated("finished", true)
	renew()
	outdated("renewed again", false)
}

// A user's certificate makes no node of them.
func TestUserIsNoNode(t *testing.T) {
	s := newSite(t)
	ada := must(s.addUser(t, api.AddUserRequest{Name: "ada", Role: api.UserAdmin}))
	own := must(pki.NewCredentials(ada.key, ada.Certificate))
	if leaf := own.Certificate.Leaf; len(leaf.DNSNames) != 0 || len(leaf.ExtKeyUsage) != 1 {
		t.Errorf("the certificate is good for more than to call: %v, %v", leaf.DNSNames, leaf.ExtKeyUsage)
	}
	j := newJoiner()
	j.use(s, own)
	err := rpc.Stream(deadline(t), j.client, api.ProcSession, &api.SessionRequest{Node: ada.User.ID}, func(*api.Update) error { return nil })
	if api.CodeOf(err) != api.CodeDenied {
		t.Errorf("a user has a session: %v", err)
	}
}
