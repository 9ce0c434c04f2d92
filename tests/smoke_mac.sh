#!/usr/bin/env bash
# Everything once, small, in a temporary folder; prints a report to send to the authors.
#   bash tests/smoke_mac.sh            (from the repository, with the requirements installed)
set -u
here="$(cd "$(dirname "$0")/.." && pwd)"
work="$(mktemp -d)"
cd "$work" || exit 1
python="${PYTHON:-python}"
failed=0

step() {
  local begun=$SECONDS
  if "$python" "$here/$1" "${@:2}" >"$work/log" 2>&1; then
    echo "ok    $((SECONDS - begun)) s   $*"
  else
    echo "FAIL  $((SECONDS - begun)) s   $*"
    tail -5 "$work/log"
    failed=1
  fi
}

echo "machine   $(uname -mrs)"
"$python" - <<'PYTHON'
import importlib.metadata as m, platform
print("python   ", platform.python_version(), platform.machine())
for name in ("mlx", "mlx-lm", "transformers"):
    print(f"{name:9}", m.version(name))
import mlx.core as mx
print("device   ", mx.default_device())
PYTHON
step dataset.py --dataset-name sample --sample-size 200
step train.py --model packaged --quick-test --iters 40 --steps-per-eval 20
step train.py --resume --iters 50
step test_finetuned.py --split test --num-samples 8
step test_finetuned.py --quick-test
step benchmark.py --compare --quick --num-samples 3
tail -3 "$work/checkpoints/metrics.jsonl"
rm -rf "$work"
exit $failed
