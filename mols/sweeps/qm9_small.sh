#!/usr/bin/env bash
# Prints QM9 runs that take minutes on one core each, one command a line, to compare approaches before a run of days:
#
#     bash mols/sweeps/qm9_small.sh | python -m mols.analysis.launch
#
# From the environment: SEEDS, OBJECTIVES, APPROACHES, SCALE (a fraction of the iterations), OUTPUT_DIR. The network
# has half the width and a quarter of the layers of the paper's, a batch has 64 molecules, and there are 1,000
# iterations instead of 20,000.
set -euo pipefail
iterations=$(awk -v s="${SCALE:-1}" 'BEGIN { n = 1000 * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$(((iterations + 49) / 50))
for seed in ${SEEDS:-1 2 3 4}; do
    for objective in ${OBJECTIVES:-dqn db tb subtb}; do
        for approach in ${APPROACHES:-uniform naive maxent tlm pessimistic}; do
            own=""
            [ "$approach" != pessimistic ] || own=" --no_sampling_model --rand_pb_init"
            echo "python -m mols.tasks.qm9 --seed $seed --algo $objective --backward_approach $approach$own --lr 0.001" \
                "--width 64 --n_layers 2 --batch_size 64 --n $iterations --validate_every $every --threads 1" \
                "--output_dir ${OUTPUT_DIR:-runs} --if_exists resume"
        done
    done
done
