package api

import (
	"slices"
	"time"
)

// RoleUser is what the certificate of a person says; the state says what they may.
const RoleUser Role = "user"

// MaxUsers bounds the users of a cluster.
const MaxUsers = 1000

// Procedures about users.
const (
	ProcUsers      = "/orch.cluster/Users"      // Empty -> UserList
	ProcAddUser    = "/orch.cluster/AddUser"    // AddUserRequest -> UserAccess
	ProcRemoveUser = "/orch.cluster/RemoveUser" // RemoveUserRequest -> Empty
)

// User is a person who may call managers from another machine.
type User struct {
	// ID is in their certificate. It is of the kind of a node's, and another
	// after the user was renewed.
	ID        NodeID    `json:"id"`
	Name      string    `json:"name"`
	Role      UserRole  `json:"role"`
	CreatedAt time.Time `json:"createdAt"`
	// Issuer is the ID of the authority that signed the user's certificate.
	Issuer string `json:"issuer"`
}

// UserRole is what a user may do.
type UserRole string

const (
	UserAdmin  UserRole = "admin"  // all that can be done at a manager's local socket
	UserViewer UserRole = "viewer" // look at everything but secrets
)

// User returns the user with an ID, nil if there is none.
func (c *Cluster) User(id NodeID) *User {
	i := slices.IndexFunc(c.Users, func(u User) bool { return u.ID == id })
	if i < 0 {
		return nil
	}
	return &c.Users[i]
}

// UserList is every user, by name.
type UserList struct {
	Users []User `json:"users"`
}

// AddUserRequest makes a user, or with Renew gives one a new certificate: the one
// that they had is good no longer.
type AddUserRequest struct {
	Name    string   `json:"name"`
	Role    UserRole `json:"role"`    // with Renew empty: as it is
	Request []byte   `json:"request"` // for their certificate: PKCS #10
	Renew   bool     `json:"renew,omitempty"`
}

// RemoveUserRequest takes all rights from a user.
type RemoveUserRequest struct {
	Name string `json:"name"`
}

// UserAccess is what a user needs beside their key.
type UserAccess struct {
	Cluster     string      `json:"cluster"` // ID
	User        User        `json:"user"`
	Certificate Certificate `json:"certificate"`
	Managers    []string    `json:"managers"` // API addresses
}
