# Sourced by {seh,qm9}_figure2.sh with task, batch and options set: the runs of one task.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_seeds "1 2 3 4 5"
choose_learning_rates "0.00025 0.0005 0.001"
choose OBJECTIVES "dqn db tb subtb" "dqn|db|tb|subtb|soft_dqn"
choose_approaches "uniform naive maxent tlm pessimistic"
choose_scale
choose_output_dir

iterations=$(scaled 20000)
every=$(interval 100 "$iterations")
measured=$(measured $((batch * iterations)) "" "$root/mols/results/figure2.csv")
for seed in $SEEDS; do
    for rate in $LEARNING_RATES; do
        for objective in $OBJECTIVES; do
            for approach in $APPROACHES; do
                [[ $measured != *" $task $objective $approach $rate $seed "* ]] || continue
                own=""
                [ "$approach" != pessimistic ] || own=" --no_sampling_model --rand_pb_init"  # as the authors ran it
                echo "python -m mols.tasks.$task --seed $seed --algo $objective --backward_approach $approach$own" \
                    "--lr $rate$options --n $iterations --validate_every $every --output_dir $OUTPUT_DIR --if_exists resume"
            done
        done
    done
done
