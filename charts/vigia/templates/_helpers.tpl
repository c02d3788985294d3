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

{{/* Bytes of a quantity such as 10Gi; the values schema has checked its form. */}}
{{- define "vigia.bytes" -}}
{{- $factor := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mulf (regexFind "^[0-9.]+" . | float64) (get $factor (regexFind "[A-Za-z]*$" .)) | int64 }}
{{- end }}

{{/* Bytes that samples may take: 70 % of the store. One that is too small for an artifact and a training is refused here. */}}
{{- define "vigia.sampleBytes" -}}
{{- $bytes := include "vigia.bytes" . | float64 }}
{{- if lt $bytes 268435456.0 }}
{{- fail (printf "operator.store.size is %s: write at least 256Mi, since artifacts and trainings are kept there too" .) }}
{{- end }}
{{- mulf $bytes 0.7 | int64 }}
{{- end }}
