{{/* Names are the same in every installation: there is one a cluster. */}}

{{- define "backstay.labels" -}}
app.kubernetes.io/name: backstay
app.kubernetes.io/part-of: backstay
{{- end }}

{{- define "backstay.selector" -}}
app.kubernetes.io/name: backstay
app.kubernetes.io/component: controller
{{- end }}

{{- define "backstay.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
