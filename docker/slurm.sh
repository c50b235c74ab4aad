#!/bin/bash
# A sweep on SLURM: every job of the array works on the same sweep, and a job that is requeued continues.
#   sbatch docker/slurm.sh
# Adapt: the environment, resources, the search. The folder where sbatch is called must be visible to all nodes.
#SBATCH --job-name=dlframe
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A-%a.log
set -euo pipefail

# shellcheck source=/dev/null
. .venv/bin/activate
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
# Passwords: PGPASSFILE=~/.pgpass for PostgreSQL, ~/.mlflow/credentials for MLflow. Both have the mode 600.
storage="${STORAGE:-postgresql://dlframe@postgres:5432/sweeps}"
tracking="${TRACKING:-http://mlflow:5000}"

status=0
srun dlframe sweep model=cnn 'optimizer.lr=tag(log,interval(1e-4,1e-1))' trials=500 \
    "storage=$storage" tracking=server "tracking.uri=$tracking" "$@" || status=$?
# SIGTERM, which SLURM sends before the time is up, saves a checkpoint; 143 is the exit status after it.
if [ "$status" = 143 ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
