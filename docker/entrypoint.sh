#!/usr/bin/env bash
# study [NAME]   run params.yaml (or studies/NAME.yaml), then publish the results to MLflow; JOBS=N: N processes side by side
# server         serve the MLflow pages on port 5000
# anything else  is run as it is: finetrace --help, dvc metrics show, bash …
set -euo pipefail
image=/opt/finetrace
project=${PROJECT:-/home/finetrace/project}
cd "$project"

if [[ ! -w . ]]; then
  echo "$project cannot be written by user $(id -u). A folder of yours? Add: --user \"\$(id -u):\$(id -g)\"" >&2
  exit 1
fi

# An empty folder is filled from the image, and one that an older image filled is brought up to date; its params.yaml and dvc.lock, which
# belong to the results, stay. A project that no image put here, such as a checkout, is used as it is.
fill() {
  local keep=()
  if [[ -e dvc.yaml && ! -e .finetrace/image ]] || cmp -s "$image/.image" .finetrace/image; then
    return
  fi
  for name in params.yaml dvc.lock; do
    if [[ -e $name ]]; then
      keep+=("--exclude=./$name")
      cmp -s "$image/$name" "$name" || echo "$name is kept; the image's own is $image/$name" >&2
    fi
  done
  echo unfinished > .finetrace/image
  rm -rf src pipelines
  tar -C "$image" "${keep[@]}" --exclude=./.image -cf - . | tar --no-same-owner -xf -
  printf '[core]\n    no_scm = true\n' > .dvc/config.local
  cp "$image/.image" .finetrace/image
}
if [[ -n $(ls -A . 2> /dev/null) && ! -e dvc.yaml && ! -e .finetrace/image ]]; then
  echo "$project is neither empty nor a finetrace project (no dvc.yaml); mount another folder" >&2
  exit 1
fi
mkdir -p .finetrace
{ flock 9; fill; } 9> .finetrace/image.lock

case ${1:-study} in
  study)
    if [[ -n ${2:-} ]]; then
      finetrace use "studies/$2.yaml"
    fi
    finetrace repro ${JOBS:+--jobs "$JOBS"}
    exec finetrace publish
    ;;
  server)
    # The store is created here, by one process, before pages or trainings use it.
    exec mlflow server --host 0.0.0.0 --port 5000 --workers "${MLFLOW_WORKERS:-1}" \
      --backend-store-uri "sqlite:///$project/mlflow.db" --artifacts-destination "$project/mlruns" \
      --allowed-hosts "${MLFLOW_SERVER_ALLOWED_HOSTS:-localhost,localhost:*,127.0.0.1,127.0.0.1:*}"
    ;;
  *)
    exec "$@"
    ;;
esac
