#!/usr/bin/env bash
# The demo: the whole loop on a real cluster, as commands that a person could have typed.
#
# With KUBECONFIG set it uses that cluster, which must be able to pull $IMAGE_REGISTRY/{agent,operator,trainer,
# demo-workload}:$IMAGE_TAG, and makes the namespaces vigia-system and shop there. Otherwise it brings a cluster of
# three nodes up on this machine. An earlier run's remains are removed first: namespaces that bear the demo's label.
# Where others are in the way, or another Vigía runs, it changes nothing. On failure, logs and objects are kept in
# target/demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.vigia/bin:$PATH"

registry=${IMAGE_REGISTRY:-localhost/vigia}
tag=${IMAGE_TAG:-dev}
kept=target/demo
started=$SECONDS
step=0

if [[ -t 1 ]]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi

clock() { printf '%d:%02d' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)); }
title() {
    step=$((step + 1))
    printf '\n%s── %d. %s  (%s)%s\n' "$bold" "$step" "$1" "$(clock)" "$off"
}
say() { printf '%s\n' "$*"; }
look() { printf '%s   look: %s%s\n' "$dim" "$*" "$off"; }
# Prints a command as it would be typed, then runs it.
run() {
    local word line=''
    for word in "$@"; do
        [[ $word =~ ^[-A-Za-z0-9_./:=,@{}%+]+$ ]] || word=${word@Q}
        line+=" $word"
    done
    printf '%s$%s%s\n' "$bold" "$line" "$off"
    "$@"
}
fail() {
    printf '\ndemo: %s\n' "$*" >&2
    exit 1
}

keep() {
    mkdir -p "$kept"
    kubectl get vigia,pods -A -o wide >"$kept/objects.txt" 2>&1 || true
    kubectl get vigia -A -o yaml >"$kept/vigia.yaml" 2>&1 || true
    kubectl get events -A --sort-by=.lastTimestamp >"$kept/events.txt" 2>&1 || true
    kubectl describe pods -A >"$kept/pods.txt" 2>&1 || true
    local pod
    for pod in $(kubectl -n vigia-system get pods -o name 2>/dev/null || true); do
        kubectl -n vigia-system logs "$pod" --all-containers >"$kept/${pod#pod/}.log" 2>&1 || true
        kubectl -n vigia-system logs "$pod" --all-containers --previous >"$kept/${pod#pod/}.before.log" 2>/dev/null || true
    done
}
tracer=''
changed_something=''
at_exit() {
    local status=$?
    if [[ -n $tracer ]]; then kill "$tracer" 2>/dev/null || true; fi
    if [[ $status != 0 && -n $changed_something ]]; then
        keep
        printf '\ndemo: it did not go as it should after %s; logs and objects are in %s\n' "$(clock)" "$kept" >&2
    fi
}
trap at_exit EXIT

# until_true SECONDS WHAT COMMAND...: polls until the command succeeds.
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [[ $SECONDS -lt $end ]] || fail "waited too long for: $what"
        sleep 1
    done
}
# One value of an object of the namespace shop.
get() { kubectl -n shop get "$1" "$2" -o jsonpath="$3" 2>/dev/null || true; }
is() { [[ $(get "$1" "$2" "$3") == "$4" ]]; }
exists() { [[ -n $(get "$1" "$2" '{.metadata.name}') ]]; }
# Whether a version serves, and on every node.
serves() { is model redis '{.status.rollout.phase}' Complete && is model redis '{.status.serving.name}' "$1"; }
a_job_runs() { [[ -n $(kubectl -n vigia-system get jobs -o name) ]]; }
at_least() { [[ $(get "$1" "$2" "$3") -ge $4 ]] 2>/dev/null; }

# ---- the cluster -------------------------------------------------------------------------------------------

title 'A cluster'
cluster=${CARGO_TARGET_DIR:-target}/debug/vigia-cluster
# The path that `make cluster-up` and an earlier demo told to export is of a cluster of ours, be it down by now.
ours=yes
if [[ -n ${KUBECONFIG:-} && $KUBECONFIG != /var/lib/vigia-clusters/vigia/kubeconfig ]]; then ours=''; fi
if [[ -z $ours ]]; then
    say "KUBECONFIG is set: that cluster is used. Its nodes must be able to pull $registry/{agent,operator,trainer,demo-workload}:$tag"
    say '(IMAGE_REGISTRY and IMAGE_TAG name others; make images builds them). Namespaces: vigia-system and shop.'
    # The kubectl and helm that talk to it already go before ours.
    PATH="${PATH//"$PWD/.vigia/bin:"/}:$PWD/.vigia/bin"
    scripts/setup.sh elsewhere
    kubectl version >/dev/null || fail "no cluster answers at KUBECONFIG=$KUBECONFIG"
else
    say 'etcd, API server, controllers, scheduler, DNS and three nodes with containerd and kubelet, on this machine.'
    scripts/setup.sh demo
    scripts/build-images.sh
    cargo build --quiet --package vigia-e2e --bin vigia-cluster
    "$cluster" up --nodes 3 >/dev/null
    KUBECONFIG=$("$cluster" kubeconfig)
    export KUBECONFIG
    say "export KUBECONFIG=$KUBECONFIG"
    "$cluster" load-image target/images/{agent,operator,trainer,demo-workload}.tar 2>/dev/null
fi
# Nothing is deleted that the demo did not make.
for namespace in shop vigia-system; do
    label=$(kubectl get namespace "$namespace" --ignore-not-found -o jsonpath='{.metadata.name}={.metadata.labels.vigia\.dev/demo}')
    case $label in
    '') ;;
    "$namespace=true") say "Removing the namespace $namespace of an earlier run …" ;;
    *) fail "the cluster has a namespace $namespace that no demo made, and the demo needs that name: nothing was changed.
Use another cluster; or, if nobody misses it, say kubectl label namespace $namespace vigia.dev/demo=true, and the demo deletes it." ;;
    esac
done
others=$(kubectl get deployments -A -l app.kubernetes.io/name=vigia -o jsonpath='{.items[*].metadata.namespace}') ||
    fail 'whether another Vigía runs in the cluster cannot be told (see above): nothing was changed'
for namespace in $others; do
    [[ $namespace == vigia-system ]] || fail "a Vigía is installed in the namespace $namespace, and the demo would change \
the API and the NodePlans that are its: nothing was changed. Use another cluster."
done
[[ -n $ours ]] || scripts/build-images.sh cli
triple=$(rustc -vV | awk '/^host:/ { print $2 }')
PATH="$PWD/${CARGO_TARGET_DIR:-target}/$triple/release:$PATH"
changed_something=yes
# While the operator lives it clears its finalizers; then it may go.
kubectl delete namespace shop --ignore-not-found --timeout=90s >/dev/null 2>&1 ||
    fail "the namespace shop does not go away: kubectl -n shop get trainingruns; where no operator runs that would take the
finalizer of one away: kubectl -n shop patch trainingrun NAME --type merge -p '{\"metadata\":{\"finalizers\":null}}'"
helm uninstall vigia --namespace vigia-system --ignore-not-found --wait --timeout 90s >/dev/null 2>&1 || true
kubectl delete namespace vigia-system --ignore-not-found --timeout=90s >/dev/null
kubectl delete nodeplans --all --ignore-not-found >/dev/null 2>&1 || true
run kubectl get nodes

# ---- install -----------------------------------------------------------------------------------------------

title 'Install Vigía with Helm'
installed=$SECONDS
kubectl apply --server-side --force-conflicts -f charts/vigia/crds >/dev/null
# Privileged is for the agents' two capabilities and their mounts of the node's folders, where admission asks.
kubectl apply -f - >/dev/null <<'EOF'
apiVersion: v1
kind: Namespace
metadata:
  name: vigia-system
  labels: {vigia.dev/demo: "true", pod-security.kubernetes.io/enforce: privileged}
EOF
run helm upgrade --install vigia charts/vigia --namespace vigia-system \
    --values examples/demo/values.yaml --set "images.registry=$registry,images.tag=$tag" \
    --wait --timeout 3m --hide-notes
run kubectl -n vigia-system get pods -o wide
look 'one agent a node; it has the capabilities BPF and PERFMON and nothing else, and nothing is attached yet.'

# ---- the workload ------------------------------------------------------------------------------------------

title 'A workload: six redis servers on three nodes, each under load'
if [[ $registry:$tag == localhost/vigia:dev ]]; then
    run kubectl apply -f examples/demo/workload.yaml
else
    workload="s#localhost/vigia/demo-workload:dev#$registry/demo-workload:$tag#"
    say "$bold\$ sed '$workload' examples/demo/workload.yaml | kubectl apply -f -$off"
    sed "$workload" examples/demo/workload.yaml | kubectl apply -f -
fi
kubectl -n shop rollout status statefulset/redis statefulset/load --timeout=120s >/dev/null ||
    kubectl -n shop rollout status statefulset/redis --timeout=60s >/dev/null || fail 'the workload does not start'
kubectl -n shop wait --for=condition=Ready pod/listener --timeout=60s >/dev/null
run kubectl -n shop get pods -o wide

# ---- profile -----------------------------------------------------------------------------------------------

title 'Say what to watch: a TraceProfile, a Model, a RetrainingPolicy'
run cat examples/demo/vigia.yaml
run kubectl apply -f examples/demo/vigia.yaml
until_true 60 'six traced containers' at_least traceprofile redis '{.status.tracedContainers}' 6
run kubectl -n shop get traceprofiles
run kubectl get nodeplans
look 'system calls of six containers are counted in the kernel, per window of 2 s; no other pod is counted.'

# In the meantime: a model of something else entirely, for step 9. Its signature will be good.
work=$(mktemp -d)
vigia keygen "$work/team.key" >"$work/team.pub" 2>/dev/null
# shellcheck disable=SC2016
vigia trace -f --window 500ms --duration 60s --output "$work/other.parquet" -- \
    sh -c 'while true; do find /usr/lib -name "*.so" | sort | tail -n 1; done' >/dev/null 2>"$work/trace.log" &
tracer=$!

# ---- v1 ----------------------------------------------------------------------------------------------------

title 'A baseline is collected; the first model is trained by two workers, signed, rolled out'
until_true 300 'the first TrainingRun' at_least retrainingpolicy redis '{.status.windows}' 100
run kubectl -n shop get retrainingpolicies
until_true 300 'the first TrainingRun' exists trainingrun redis-1
run kubectl -n shop get trainingruns
until_true 120 'workers of the training Job' a_job_runs
run kubectl -n vigia-system get jobs,pods -l vigia.dev/run-name=redis-1
until_true 180 'redis-1 to succeed' is trainingrun redis-1 '{.status.phase}' Succeeded
run kubectl -n shop get trainingruns,modelversions
look 'two workers trained on shards of their own; the gates held; the operator signed redis-v1.'
until_true 240 'redis-v1 on all nodes' serves redis-v1
run kubectl -n shop get models
run kubectl get nodeplans
look 'shadow on one node, active on one, then all: each step was held and its gates were read.'

# ---- the attack --------------------------------------------------------------------------------------------

title 'A shell in one pod does what an intruder does first'
victim=redis-2
node=$(get pod "$victim" '{.status.hostIP}')
home=$(get pod listener '{.status.podIP}')
alerts() {
    kubectl -n shop get events --field-selector reason=SyscallAnomaly \
        -o jsonpath='{range .items[*]}{.involvedObject.name}{"\n"}{end}' 2>/dev/null | sort | uniq -c
}
named() { alerts | grep -qw "$victim"; }
alerts >"$work/before"
attacked=$(date +%s)
say "$bold\$ kubectl -n shop exec $victim -- sh -s $node $home 12 < examples/demo/attack.sh$off"
kubectl -n shop exec -i "$victim" -- sh -s "$node" "$home" 12 <examples/demo/attack.sh >/dev/null 2>&1 &
attack=$!
until_true 40 "an Event on $victim" named
seen=$(($(date +%s) - attacked))
wait "$attack" || true
run kubectl -n shop get events --field-selector reason=SyscallAnomaly
look "the Event came $seen s after the first command (a window is 2 s and two in a row are asked for); it names"
look 'the container, the score, and the three system calls that drove it: observed against expected.'
if alerts | diff "$work/before" - | grep '^>' | grep -vw "$victim"; then
    fail "a pod other than $victim was named"
fi
say "No Event names another pod."

# ---- drift -------------------------------------------------------------------------------------------------

title 'The workload changes for good: redis now syncs its log to disk at every write'
run kubectl -n shop get models
changed=$SECONDS
# From the pods of the load, so that nothing but redis itself runs in the containers that are watched.
for n in {0..5}; do
    kubectl -n shop exec "load-$n" -- redis-cli -h "redis-$n.redis" config set appendfsync always >/dev/null
done
say "$bold\$ for n in {0..5}; do kubectl -n shop exec load-\$n -- redis-cli -h redis-\$n.redis config set appendfsync always; done$off"
until_true 180 'drift to be seen' exists trainingrun redis-2
drifted=$SECONDS
run kubectl -n shop get models,retrainingpolicies,trainingruns
look "$((drifted - changed)) s after the change drift is a condition of the Model and an Event, and there are windows"
look 'enough of the new behaviour to train on.'
until_true 240 'redis-2 to succeed' is trainingrun redis-2 '{.status.phase}' Succeeded
until_true 240 'redis-v2 on all nodes' serves redis-v2
run kubectl -n shop get models,modelversions
look "from the drift to v2 on all three nodes: $((SECONDS - drifted)) s."

# ---- a tampered version ------------------------------------------------------------------------------------

# version NAME FILE: a ConfigMap with the artifact's bytes, and the ModelVersion that names their digest.
version() {
    local digest
    digest=$(sha256sum "$2" | cut -d' ' -f1)
    run kubectl -n shop create configmap "$1" --from-file=model.apr="$2"
    say "$bold\$ kubectl apply -f -   # ModelVersion $1 of digest sha256:${digest:0:12}…$off"
    kubectl apply -f - <<EOF
apiVersion: vigia.dev/v1alpha1
kind: ModelVersion
metadata: {name: $1, namespace: shop}
spec:
  modelRef: {name: redis}
  digest: sha256:$digest
  source: {configMap: {name: $1}}
EOF
}

title 'A model from elsewhere, signed by a key that the Model trusts, but with one byte changed'
wait "$tracer" || true
tracer=''
run vigia train --input "$work/other.parquet" --output "$work/other.apr" --sign-key "$work/team.key" --name redis
run vigia verify --key "$work/team.pub" "$work/other.apr"
kubectl -n shop patch model redis --type=merge --patch \
    "{\"spec\":{\"trust\":{\"publicKeys\":[\"$(tail -n 1 "$work/team.pub" | grep -o '[A-Za-z0-9+/]\{43\}=')\"]}}}" >/dev/null
say "$bold\$ kubectl -n shop patch model redis --type=merge -p '{\"spec\":{\"trust\":{\"publicKeys\":[…]}}}'$off"
cp "$work/other.apr" "$work/tampered.apr"
middle=$(($(stat -c %s "$work/tampered.apr") / 2))
byte=$(od -An -tu1 -j "$middle" -N 1 "$work/tampered.apr")
# shellcheck disable=SC2059
printf "$(printf '\\x%02x' $((byte ^ 1)))" | dd of="$work/tampered.apr" bs=1 seek="$middle" conv=notrunc status=none
vigia verify --key "$work/team.pub" "$work/tampered.apr" && fail 'the tampered model was verified'
version redis-v3 "$work/tampered.apr"
until_true 60 'redis-v3 to be refused' is modelversion redis-v3 '{.status.conditions[?(@.type=="Ready")].status}' False
run kubectl -n shop get modelversions
say "$(get modelversion redis-v3 '{.status.conditions[?(@.type=="Ready")].message}')"
is model redis '{.status.serving.name}' redis-v2 || fail 'redis-v2 does not serve any more'
look 'refused before any node heard of it; v2 serves on.'

title 'The same model unchanged: its signature is good, but it was trained on something else'
version redis-v4 "$work/other.apr"
until_true 60 'redis-v4 to be verified' is modelversion redis-v4 '{.status.conditions[?(@.type=="Ready")].status}' True
until_true 120 'redis-v4 to be rolled out' is model redis '{.status.rollout.version.name}' redis-v4
run kubectl -n shop get models
until_true 180 'redis-v4 to be rolled back' is model redis '{.status.rollout.phase}' RolledBack
run kubectl -n shop get models
say "$(get model redis '{.status.rollout.message}')"
is model redis '{.status.serving.name}' redis-v2 || fail 'redis-v2 does not serve any more'
look 'in the shadow of v2 on one node it called nearly every window odd: the gate sent it back.'

# ---- the end -----------------------------------------------------------------------------------------------

title 'The end state'
run kubectl get vigia -n shop
run kubectl get nodeplans
run kubectl -n shop get events --field-selector type=Warning
run kubectl -n shop get events --field-selector involvedObject.kind=Model
rm -rf "$work"
say ''
say "From helm install to here: $((SECONDS - installed)) s. The cluster is left as it is to look around:"
say "    export KUBECONFIG=$KUBECONFIG"
say "    kubectl get vigia -n shop; kubectl -n shop get events; kubectl explain model.spec.rollout"
if [[ -n $ours ]]; then say '    make cluster-down        # when done'; fi
