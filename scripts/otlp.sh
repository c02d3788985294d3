#!/usr/bin/env bash
# Sends an alert, sums and a trace to a real OpenTelemetry collector, plainly and by TLS, and checks what it says that it
# got. Builds the collector from Go's module proxy once (some minutes); so it is not in make test.
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

# A CA and a certificate of it: one that is both is no server's.
(
    cd "$folder"
    new=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    openssl req -x509 "${new[@]}" -days 2 -subj /CN=ca -keyout ca.key -out ca.crt
    openssl req "${new[@]}" -subj /CN=collector -addext subjectAltName=DNS:localhost -keyout tls.key -out tls.csr
    openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -days 2 -copy_extensions copy -out tls.crt
) 2>"$folder/openssl.log" || { cat "$folder/openssl.log" >&2; exit 1; }
port=${VIGIA_OTLP_PORT:-14317}

# send <endpoint> <the receiver's TLS settings> [<file of the CA>]
send() {
    cat >"$folder/config.yaml" <<YAML
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:$port"$2}}}}
exporters: {debug: {verbosity: detailed}}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    logs: {receivers: [otlp], exporters: [debug]}
    metrics: {receivers: [otlp], exporters: [debug]}
    traces: {receivers: [otlp], exporters: [debug]}
YAML
    "$collector" --config "$folder/config.yaml" >"$folder/collector.log" 2>&1 &
    pid=$!
    if [[ -n ${3:-} ]]; then export VIGIA_OTLP_CA=$3; fi
    VIGIA_OTLP_COLLECTOR=$1 cargo nextest run --package vigia-operator \
        --run-ignored ignored-only --filterset 'test(a_real_collector_takes_all)'
    # It writes what it holds when it ends.
    kill "$pid"
    wait "$pid" || true
    pid=
    for word in 'k8s.pod.name: Str(checkout-1)' 'container.id: Str(c0ffee)' 'EventName: vigia.syscall.anomaly' \
        'Name: vigia.windows' 'Name: vigia.alerts' 'service.name: Str(vigia-trainer)' \
        'Trace ID       : 4bf92f3577b34da6a3ce929d0e0e4736' 'Parent ID      : 00f067aa0ba902b7' \
        'Name           : TrainingRun' 'Name           : worker' 'Status code    : Error'; do
        grep -qF -- "$word" "$folder/collector.log" || {
            echo "the collector at $1 did not get \"$word\":" >&2
            cat "$folder/collector.log" >&2
            exit 1
        }
    done
    grep -E '^ +(Trace ID|Parent ID|ID|Name) +:' "$folder/collector.log"
    echo "the collector at $1 got the alert, the sums and the trace"
}

send "http://localhost:$port" ''
send "https://localhost:$port" ", tls: {cert_file: $folder/tls.crt, key_file: $folder/tls.key}" "$folder/ca.crt"
