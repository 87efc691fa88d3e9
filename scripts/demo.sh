#!/usr/bin/env bash
# The whole path on one machine, from a fresh clone: simulated logs, samples, training on two ranks, evaluation.
#
#   bash scripts/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

bash scripts/setup.sh
source scripts/env.sh

ranks=2
cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
# Each rank would otherwise take every core for itself.
export OMP_NUM_THREADS=$((cores / ranks > 0 ? cores / ranks : 1))

step=0
run() {
  step=$((step + 1))
  printf '\n== %d of 4: %s\n   %s\n\n' "$step" "$1" "${*:2}"
  "${@:2}"
}

run "impressions, clicks, users and items of a simulated shop" \
  spark-submit jobs/simulate_logs.py --config conf/data/demo.yaml
run "one sample an impression, as of its time" \
  spark-submit jobs/build_samples.py --config conf/data/demo.yaml --from 2026-01-01 --to 2026-02-14
run "MIAN, trained on $ranks ranks" \
  horovodrun -np "$ranks" --gloo python jobs/train.py --config conf/train/mian.yaml
run "the registered model on days it has not seen, beside simpler ones" \
  python jobs/evaluate.py --model models:/mian@newest --samples data/demo/samples --split test \
  --truth data/demo/logs/truth --compare logistic_regression popularity --report data/demo/report.html

cat <<EOF

== Done in $SECONDS s. To look at:

   source scripts/env.sh
   mlflow ui --host 127.0.0.1 --backend-store-uri sqlite:///mlflow.db     runs, metrics and the registered model
   data/demo/samples                                                      the samples, a folder a day, and contract.json

   Run it again: the set-up, the logs and the samples are there already, and no finished day is built twice.

   The model beside baselines and the best possible, as a page of figures for a browser: data/demo/report.html
EOF
