{{/* Labels of everything in the chart. */}}
{{- define "vigia.labels" -}}
app.kubernetes.io/name: vigia
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Labels by which pods of one part are selected. Call with (dict "root" $ "part" "agent"). */}}
{{- define "vigia.selector" -}}
app.kubernetes.io/name: vigia
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{/* An image. Call with (dict "root" $ "part" "agent"). */}}
{{- define "vigia.image" -}}
{{ printf "%s/%s:%s" .root.Values.images.registry .part .root.Values.images.tag }}
{{- end }}

{{- define "vigia.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
