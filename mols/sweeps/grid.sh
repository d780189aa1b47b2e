# Sourced by the sweeps of one task, with task, options, full (its iterations), seeds and rates set: prints the runs.
iterations=$(awk -v full="$full" -v s="${SCALE:-1}" 'BEGIN { n = full * s * (s == s + 0); print int(n) + (n > int(n) + 1e-6) }')
((iterations > 0)) || { echo "error: SCALE is '$SCALE': it must be a number greater than 0" >&2; exit 2; }
every=$((iterations > 5000 ? 100 : (iterations + 49) / 50))
folder=$(printf %q "${OUTPUT_DIR:-runs}")  # a name with spaces too
for seed in ${SEEDS:-$seeds}; do
    for rate in ${LEARNING_RATES:-$rates}; do
        for objective in ${OBJECTIVES:-dqn db tb subtb}; do
            for approach in ${APPROACHES:-uniform naive maxent tlm pessimistic}; do
                own=""
                [ "$approach" != pessimistic ] || own=" --no_sampling_model --rand_pb_init"  # as the authors ran it
                echo "python -m mols.tasks.$task --threads 1 --seed $seed --algo $objective --backward_approach $approach$own" \
                    "--lr $rate$options --n $iterations --validate_every $every" \
                    "--output_dir $folder --if_exists resume"
            done
        done
    done
done
