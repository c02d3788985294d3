#!/usr/bin/env bash
# Sends an alert and sums to a real OpenTelemetry collector, and checks what it says that it got. Builds the collector
# from Go's module proxy once (some minutes); so it is not in make test.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${VIGIA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/vigia}
collector=$cache/otelcol/out/otelcol
folder=$(mktemp -d)
pid=
stop() {
    [[ -z $pid ]] || kill "$pid" 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT

if [[ ! -x $collector ]]; then
    echo 'building an OpenTelemetry collector (once, some minutes)' >&2
    mkdir -p "$cache/otelcol"
    (
        cd "$cache/otelcol"
        cat >manifest.yaml <<'YAML'
dist: {name: otelcol, module: otelcol, output_path: ./out}
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.150.0
exporters:
  - gomod: go.opentelemetry.io/collector/exporter/debugexporter v0.150.0
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider v1.56.0
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider v1.56.0
conf_resolver: {default_uri_scheme: file}
YAML
        GOBIN=$PWD go install go.opentelemetry.io/collector/cmd/builder@v0.150.0
        ./builder --config manifest.yaml
    ) >"$folder/build.log" 2>&1 || { tail -n 20 "$folder/build.log" >&2; exit 1; }
fi

port=${VIGIA_OTLP_PORT:-14317}
cat >"$folder/config.yaml" <<YAML
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:$port"}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
YAML
"$collector" --config "$folder/config.yaml" >"$folder/collector.log" 2>&1 &
pid=$!
VIGIA_OTLP_COLLECTOR=http://127.0.0.1:$port cargo nextest run --package vigia-operator \
    --run-ignored ignored-only --filterset 'test(a_real_collector_takes_all)'
# It writes what it holds when it ends.
kill "$pid"
wait "$pid" || true
pid=
for word in 'k8s.pod.name: Str(checkout-1)' 'container.id: Str(c0ffee)' 'EventName: vigia.syscall.anomaly' \
    'Name: vigia.windows' 'Name: vigia.alerts'; do
    grep -qF -- "$word" "$folder/collector.log" || {
        echo "the collector did not get \"$word\":" >&2
        cat "$folder/collector.log" >&2
        exit 1
    }
done
echo 'the collector got the alert and the sums'
