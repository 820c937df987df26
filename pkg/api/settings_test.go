package api

import (
	"testing"
	"time"
)

func TestValidateSettings(t *testing.T) {
	tests := []struct {
		name    string
		set     func(*Cluster)
		refused bool
	}{
		{"the defaults", func(*Cluster) {}, false},
		{"the shortest", func(c *Cluster) {
			c.ElectionTimeout, c.LeaseTimeout, c.CertificateLife = MinElectionTimeout, MinLease, MinCertificateLife
		}, false},
		{"the longest", func(c *Cluster) {
			c.ElectionTimeout, c.LeaseTimeout, c.CertificateLife = MaxElectionTimeout, MaxLease, MaxCertificateLife
		}, false},
		{"too hasty an election", func(c *Cluster) { c.ElectionTimeout = MinElectionTimeout - 1 }, true},
		{"too late an election", func(c *Cluster) { c.ElectionTimeout, c.LeaseTimeout = MaxElectionTimeout+1, MaxLease }, true},
		{"an election as long as the lease", func(c *Cluster) { c.ElectionTimeout = c.LeaseTimeout }, true},
		{"a lease as short as two elections", func(c *Cluster) { c.ElectionTimeout = c.LeaseTimeout / 2 }, false},
		{"a lease shorter than two reports", func(c *Cluster) { c.LeaseTimeout = time.Second }, true},
		{"no certificates", func(c *Cluster) { c.CertificateLife = 0 }, true},
		{"certificates for ever", func(c *Cluster) { c.CertificateLife = MaxCertificateLife + 1 }, true},
	}
	for _, tt := range tests {
		c := &Cluster{LeaseTimeout: DefaultLease, CertificateLife: 90 * 24 * time.Hour}
		tt.set(c)
		if err := c.ValidateSettings(); (err != nil) != tt.refused || tt.refused && CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestDiskTooSlow(t *testing.T) {
	tests := []struct {
		write, timeout time.Duration
		slow           bool
		enough         time.Duration
	}{
		{time.Millisecond, DefaultElectionTimeout, false, 50 * time.Millisecond},
		{12 * time.Millisecond, DefaultElectionTimeout, false, 150 * time.Millisecond},
		{13 * time.Millisecond, DefaultElectionTimeout, true, 200 * time.Millisecond},
		{13 * time.Millisecond, 200 * time.Millisecond, false, 200 * time.Millisecond},
		{3 * time.Second, MaxElectionTimeout, true, 0},
	}
	for _, tt := range tests {
		slow, enough := DiskTooSlow(tt.write, tt.timeout)
		if slow != tt.slow || enough != tt.enough {
			t.Errorf("%v within %v: slow %v, enough %v; want %v, %v", tt.write, tt.timeout, slow, enough, tt.slow, tt.enough)
		}
		if again, _ := DiskTooSlow(tt.write, enough); again && enough > 0 {
			t.Errorf("%v: %v is said to be enough, and is not", tt.write, enough)
		}
	}
}
