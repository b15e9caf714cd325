//go:build tools

// Package tools names the DNS server that hack/kube builds, so that go.mod and go.sum pin it.
package tools

import _ "github.com/coredns/coredns"
