#!/bin/sh
# Create the secrets of compose.yaml in docker/secrets; existing ones are kept.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
for name in mlflow_database_password mlflow_password mlflow_secret_key postgres_password ray_token s3_secret_key \
    sweeps_database_password; do
    [ -s "secrets/$name" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' >"secrets/$name"
done
cat >secrets/s3_identities <<JSON
{"identities": [{"name": "mlflow", "credentials": [{"accessKey": "mlflow", "secretKey": "$(cat secrets/s3_secret_key)"}],
 "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
JSON
# The folder keeps other accounts out; the accounts inside of containers have other numbers and must read the files.
chmod 644 secrets/*
