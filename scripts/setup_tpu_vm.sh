#!/usr/bin/env bash
# Prepares a Cloud TPU VM for scripts/launch; on a slice of several hosts, run it on all of them:
#   gcloud compute tpus tpu-vm ssh NAME --zone=ZONE --worker=all --command='cd budgetflow && scripts/setup_tpu_vm.sh'
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}$(command -v python3.11 python3.12 python3.13 || true)" ]; then
    # The VM's own Python is older than budgetflow needs.
    sudo apt-get update -q
    sudo apt-get install -yq python3.11 python3.11-venv
fi
source scripts/environment
echo "Installing JAX for TPUs." >&2
.venv/bin/pip install --quiet --disable-pip-version-check -c requirements.txt -e ".[tpu]"
.venv/bin/python - <<'EOF'
import sys

import jax

tpus = [device for device in jax.local_devices() if device.platform == "tpu"]
if not tpus:
    sys.exit("budgetflow: JAX sees no TPU on this machine")
print(f"Ready: {len(tpus)} x {tpus[0].device_kind} on this host, {jax.device_count()} in all.")
EOF
