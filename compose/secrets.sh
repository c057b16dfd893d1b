#!/bin/sh
# Makes the secret files of compose.yaml, those that are missing; a file that is there stays as it is.
# The folder is closed to other users of the machine. The files in it are readable, because each
# container reads its own as another user.
set -eu
folder=$(cd "$(dirname "$0")" && pwd)/secrets
mkdir -p "$folder"
chmod 700 "$folder"

secret() {
  [ -e "$folder/$1" ] && return
  printf '%s' "$2" >"$folder/$1"
  chmod 444 "$folder/$1"
  echo "made compose/secrets/$1"
}

random() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

secret turnpool_redis_password "$(random)"
secret turnpool_api_keys "default:$(random)"
secret turnpool_admin_key "$(random)"
secret turnpool_flower_password "$(random)"
secret turnpool_flower_cookie_secret "$(random)"
secret grafana_admin_password "$(random)"
# The key of your LLM's provider goes here; the local model needs none.
secret turnpool_llm_api_key none
