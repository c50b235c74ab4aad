#!/bin/sh
# Create the databases of compose.yaml, each with its own account. The postgres image runs this file once.
set -eu
psql --quiet --set=ON_ERROR_STOP=1 --username=postgres --dbname=postgres \
    --set=mlflow="$(cat "${SECRETS:-/run/secrets}/mlflow_database_password")" \
    --set=sweeps="$(cat "${SECRETS:-/run/secrets}/sweeps_database_password")" <<'SQL'
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
CREATE ROLE dlframe LOGIN PASSWORD :'sweeps';
CREATE DATABASE mlflow OWNER mlflow;
CREATE DATABASE mlflow_auth OWNER mlflow;
CREATE DATABASE sweeps OWNER dlframe;
REVOKE CONNECT ON DATABASE mlflow, mlflow_auth, sweeps FROM PUBLIC;
SQL
