#!/bin/sh
# Run a command with secrets from files: NAME is read from the file that NAME_FILE names.
set -eu
for name in AWS_SECRET_ACCESS_KEY MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY MLFLOW_TRACKING_PASSWORD PGPASSWORD; do
    eval "file=\${${name}_FILE:-}"
    [ -n "$file" ] || continue
    if ! [ -s "$file" ]; then
        echo "error: ${name}_FILE: must be a file with the secret. Received: $file. Create the secrets: docker/secrets.sh" >&2
        exit 2
    fi
    value=$(cat "$file")
    export "$name=$value"
done
exec "$@"
