#!/bin/bash
# sbatch --nodes 2 deploy/slurm.sh
# Pretraining on several machines of eight GPUs; store and run are in a folder that all of them share. A lost node ends the
# attempt: Slurm starts the job again on as many nodes as it was asked for, and the run goes on from its last checkpoint.
# On fewer nodes: scancel it, and `sbatch --nodes 1 deploy/slurm.sh` goes on.
#SBATCH --job-name=bothways
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
set -uo pipefail
ATTEMPTS=10 # of the job: a mistake in the command would else be tried for ever

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node gpu --max-restarts 0 \
    --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    --no-python bothways pretrain store --recipe bert-large --parallel fsdp --checkpoint-every 500 --out run
code=$?
if [ "$code" -ne 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$ATTEMPTS" ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
