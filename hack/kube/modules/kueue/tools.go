//go:build tools

// Package tools names the queue that hack/kube builds, so that go.mod and go.sum pin it.
package tools

import _ "sigs.k8s.io/kueue/cmd/kueue"
