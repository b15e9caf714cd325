//go:build tools

// Package tools names the KubeRay operator that hack/kube builds, so that go.mod and go.sum pin it.
package tools

import _ "github.com/ray-project/kuberay/ray-operator"
