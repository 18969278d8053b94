#!/usr/bin/env bash
# Measures what a GPU does with the full sizes, in so many minutes, most important parts first:
#   benchmarks/gpu.sh MINUTES [FOLDER] [--toy] [--parts "PART ..."]
# Rows go to FOLDER/results.jsonl as they come (runs/gpu by default, $OUT where that is set), what parts print to
# FOLDER/parts.log. `python -m benchmarks.gpu_tables FOLDER` makes tables of them. Needs python3 with torch and
# transformers and the packages of pyproject.toml; PYTHON names another python3. --toy tries it on a CPU. ROWS names
# further numbers of windows whose kernels are compiled ahead.
set -u
minutes=${1:?usage: benchmarks/gpu.sh MINUTES [FOLDER] [--toy] [--parts "PART ..."]}
shift
folder=${OUT:-runs/gpu} toy='' parts=''
while [ $# -gt 0 ]; do
  case $1 in
    --toy) toy=--toy ;;
    --parts) parts=$2; shift ;;
    *) folder=$1 ;;
  esac
  shift
done
python=${PYTHON:-python3}
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
mkdir -p "$folder"
[ -z "$toy" ] || "$python" -c 'import torch, sys; sys.exit(torch.cuda.is_available())' && export TRITON_INTERPRET=1
[ -n "$toy" ] || unset TRITON_INTERPRET
begin=$(date +%s)
end=$(( begin + $(awk "BEGIN { print int($minutes * 60) }") ))
left() { echo $(( end - $(date +%s) )); }

compiling=
if [ -z "$toy" ]; then
  # Every kernel at once, in as many processes as there are cores for it: the parts find them in Triton's cache.
  # Parts that need none of them go on meanwhile.
  export TORCHINDUCTOR_COMPILE_THREADS=4
  sizes="--rows ${ROWS:-4 128 1} --levels 1"
  case "${parts:-tune}" in *tune*) sizes="--choices $sizes" ;; *) sizes="--rows ${ROWS:-1 12 48 128} --levels 2 1" ;; esac
  # shellcheck disable=SC2086
  timeout 60 "$python" -m benchmarks.fused_compile --only-compile --processes 13 $sizes >"$folder/compile.log" 2>&1 &
  compiling=$!
fi
kernels() {
  [ -n "$compiling" ] || return 0
  wait "$compiling" || echo "kernels could not all be compiled ahead: see $folder/compile.log"
  compiling=
  echo "kernels compiled $(( $(date +%s) - begin )) s after the beginning"
}
measure() {
  local seconds=$1 rest code
  shift
  rest=$(left)
  [ "$rest" -gt 15 ] || { echo "no time left for $*"; return; }
  [ "$seconds" -lt "$rest" ] || seconds=$rest
  echo "== $*, at most $seconds s"
  # shellcheck disable=SC2086
  timeout -k 5 "$seconds" "$python" -m benchmarks.gpu $toy --begun --output "$folder" "$@" >>"$folder/parts.log" 2>&1
  code=$?
  [ "$code" -eq 0 ] || { echo "ended with $code"; tail -5 "$folder/parts.log" | cut -c1-300; }
  # A process that died leaves the parts that it had not begun to another one.
  [ "$code" -le 1 ] || [ "$code" -ge 124 -a "$code" -le 137 ] || measure "$seconds" "$@"
}
rm -f "$folder/results.jsonl" "$folder/parts.log"
while read -r seconds names; do
  case $names in training* | compiled | published* | musicgen) ;; *) kernels ;; esac
  # shellcheck disable=SC2086
  measure "$seconds" $names
# shellcheck disable=SC2086
done < <("$python" -m benchmarks.gpu $toy --list $parts)
rest=$(left)
if [ "$rest" -gt 60 ] && [ -z "$toy" ] && [ -z "$parts" ]; then
  echo "== tests"
  timeout "$rest" "$python" -m pytest -q -m gpu -p no:cacheprovider >"$folder/tests.log" 2>&1
  tail -3 "$folder/tests.log"
fi
"$python" -m benchmarks.gpu_tables "$folder"
