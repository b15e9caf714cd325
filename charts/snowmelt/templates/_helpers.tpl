{{/* Name of the chart, for labels. */}}
{{- define "snowmelt.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* What the names of all objects begin with; 50 characters leave room for what they end with. */}}
{{- define "snowmelt.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "snowmelt.selectorLabels" -}}
app.kubernetes.io/name: {{ include "snowmelt.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "snowmelt.labels" -}}
{{- $ours := dict "helm.sh/chart" (printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_")) -}}
{{- $_ := set $ours "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "snowmelt" -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $selector := include "snowmelt.selectorLabels" . | fromYaml -}}
{{- toYaml (merge $selector $ours .Values.commonLabels) }}
{{- end }}

{{- define "snowmelt.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "snowmelt.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* An image reference from {repository, tag, digest}, and the tag to take when there is neither. */}}
{{- define "snowmelt.image" -}}
{{- $image := index . 0 -}}
{{- $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default (index . 1) }}{{ end }}
{{- end }}

{{- define "snowmelt.keySecret" -}}
{{ include "snowmelt.fullname" . }}-progress-key
{{- end }}

{{/* files/rbac.yaml as JSON, with the names of this release's objects. */}}
{{- define "snowmelt.rights" -}}
{{- .Files.Get "files/rbac.yaml" | replace "[KEY]" (printf "[%s]" (include "snowmelt.keySecret" .)) | replace "[LEASE]" (printf "[%s]" (include "snowmelt.fullname" .)) | fromYaml | toJson }}
{{- end }}

{{/* The rules for each served namespace. */}}
{{- define "snowmelt.jobRules" -}}
{{- $rights := include "snowmelt.rights" . | fromJson -}}
{{- toYaml (ternary (concat $rights.jobs $rights.kuberay) $rights.jobs (eq .Values.launcher.type "kuberay")) }}
{{- end }}

{{/* The rules for the operator's own namespace. */}}
{{- define "snowmelt.ownRules" -}}
{{- $rights := include "snowmelt.rights" . | fromJson -}}
{{- $served := or (empty .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) -}}
{{- $patches := and $served (eq .Values.launcher.type "kuberay") -}}
{{- $rules := $rights.lease -}}
{{- if not .Values.progress.existingKeySecret -}}
{{- $rules = concat $rights.key (ternary (list) $rights.fill $patches) $rules -}}
{{- end -}}
{{- toYaml $rules }}
{{- end }}

{{/* The Secrets that the operator reads as files. */}}
{{- define "snowmelt.secretFiles" -}}
{{- with .Values.progress.existingKeySecret }}
- {name: key, secret: {{ . }}}
{{- end }}
{{- if eq .Values.launcher.type "ray" }}
{{- with .Values.launcher.ray.tokenSecret }}
- {name: ray, secret: {{ . }}}
{{- end }}
{{- end }}
{{- end }}

{{/* What the pods of all jobs have, as the operator's setting. */}}
{{- define "snowmelt.podDefaults" -}}
{{- $given := pick .Values.trainer "imagePullSecrets" "env" "nodeSelector" "tolerations" "serviceAccountName" "priorityClassName" -}}
{{- merge (dict "imagePullPolicy" .Values.trainer.image.pullPolicy) $given | toJson }}
{{- end }}
