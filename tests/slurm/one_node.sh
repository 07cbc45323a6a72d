#!/usr/bin/env bash
# A Slurm cluster of one node, for tests: controller, node and munge as the user who runs it, all files in one folder.
#
#   apt-get install slurm-wlm munge          (once)
#   tests/slurm/one_node.sh FOLDER           runs until it gets Ctrl-C or SIGTERM, and ends what it started
#   export SLURM_CONF=FOLDER/slurm.conf      in another shell, once FOLDER/ready is there; then sinfo, sbatch, ...
#
# Two job slots, whatever the machine has. No cgroups, no accounting database, no system service: it runs in a container
# too. Not for real work.
set -euo pipefail
folder=$(realpath -m "${1:?usage: one_node.sh FOLDER}")
PATH=$PATH:/usr/sbin
for program in munged slurmctld slurmd; do
  command -v "$program" >/dev/null || { echo "one_node.sh: $program is missing: apt-get install slurm-wlm munge" >&2; exit 2; }
done
umask 022
mkdir -p "$folder"/{munge,state,spool}
chmod 700 "$folder/munge"
rm -f "$folder/ready"

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }
[ -f "$folder/munge/key" ] || (umask 077; head -c 128 /dev/urandom >"$folder/munge/key")
cat >"$folder/slurm.conf" <<CONF
ClusterName=m3itest
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmdParameters=config_overrides
MpiDefault=none
KillWait=5
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
export SLURM_CONF=$folder/slurm.conf

started=()
stop() {
  trap - EXIT INT TERM
  scancel --full --state=RUNNING --state=PENDING 2>/dev/null || true
  for _ in $(seq 100); do [ -z "$(squeue --noheader 2>/dev/null)" ] && break; sleep 0.1; done
  for ((i = ${#started[@]} - 1; i >= 0; i--)); do kill "${started[i]}" 2>/dev/null || true; done
  wait || true
  rm -f "$folder/ready"
}
trap stop EXIT
trap 'exit 0' INT TERM
munged --foreground --force --num-threads=2 --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed" 2>"$folder/munge/errors" &
started+=($!)
for _ in $(seq 50); do [ -S "$folder/munge/socket" ] && break; sleep 0.1; done
slurmctld -D >/dev/null 2>"$folder/slurmctld.errors" &
started+=($!)
slurmd -D >/dev/null 2>"$folder/slurmd.errors" &
started+=($!)
for _ in $(seq 300); do
  if sinfo --noheader --format=%T 2>/dev/null | grep -q '^idle'; then
    touch "$folder/ready"
    echo "ready: export SLURM_CONF=$folder/slurm.conf"
    break
  fi
  sleep 0.1
done
[ -e "$folder/ready" ] || { echo "one_node.sh: the node did not come up; see the logs in $folder" >&2; exit 1; }
wait -n || true
echo "one_node.sh: one of the daemons ended; see the logs in $folder" >&2
exit 1
