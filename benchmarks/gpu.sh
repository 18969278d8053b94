#!/usr/bin/env bash
# Measures what a GPU does with the full sizes, in so many minutes, most important parts first:
#   benchmarks/gpu.sh MINUTES [FOLDER] [--toy]
# Rows go to FOLDER/results.jsonl as they come (runs/gpu by default, $OUT where that is set), what parts print to
# FOLDER/PART.log. `python -m benchmarks.gpu_tables FOLDER` makes tables of them. Needs python3 with torch and
# transformers and the packages of pyproject.toml; PYTHON names another python3. --toy tries it on a CPU.
set -u
minutes=${1:?usage: benchmarks/gpu.sh MINUTES [FOLDER] [--toy]}
shift
folder=${OUT:-runs/gpu} toy=
for word in "$@"; do
  if [ "$word" = --toy ]; then toy=--toy; else folder=$word; fi
done
python=${PYTHON:-python3}
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
mkdir -p "$folder"
[ -z "$toy" ] || "$python" -c 'import torch, sys; sys.exit(torch.cuda.is_available())' && export TRITON_INTERPRET=1
[ -n "$toy" ] || unset TRITON_INTERPRET
end=$(( $(date +%s) + $(awk "BEGIN { print int($minutes * 60) }") ))
left() { echo $(( end - $(date +%s) )); }

if [ -z "$toy" ]; then
  # Every kernel at once, in as many processes as there are cores for it: the parts find them in Triton's cache.
  begin=$(date +%s)
  timeout 45 "$python" -m benchmarks.fused_compile --only-compile --processes 14 --choices --rows 184 1 46 12 \
    >"$folder/compile.log" 2>&1 || echo "kernels could not all be compiled ahead: see $folder/compile.log"
  echo "kernels compiled in $(( $(date +%s) - begin )) s"
fi
"$python" -m benchmarks.gpu --list | while read -r part seconds; do
  rest=$(left)
  [ "$rest" -gt 15 ] || { echo "no time left for $part"; continue; }
  [ "$seconds" -lt "$rest" ] || seconds=$rest
  echo "== $part, at most $seconds s"
  timeout -k 5 "$seconds" "$python" -m benchmarks.gpu $toy --output "$folder" "$part" >"$folder/$part.log" 2>&1
  code=$?
  [ "$code" -eq 0 ] || { echo "$part ended with $code"; tail -5 "$folder/$part.log"; }
  tail -3 "$folder/$part.log" | cut -c1-300
done
rest=$(left)
if [ "$rest" -gt 60 ] && [ -z "$toy" ]; then
  echo "== tests"
  timeout "$rest" "$python" -m pytest -q -m gpu -p no:cacheprovider >"$folder/tests.log" 2>&1
  tail -3 "$folder/tests.log"
fi
"$python" -m benchmarks.gpu_tables "$folder"
