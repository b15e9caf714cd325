//go:build tools

// Package tools names the helm command that hack/kube builds, so that go.mod and go.sum pin it.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
